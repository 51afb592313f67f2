//! `explain`: what a field means, and where the values of a file come from.

use std::process::ExitCode;

use serde_json::Value;
use tempo_operator::api::reference;
use tempo_operator::config;
use tempo_operator::topology::{
    Component, Names, Topology, block_builder_replicas, live_store_replicas, zone_count,
};

use super::{Error, Explain, File, say};

pub(super) fn run(options: &Explain) -> Result<ExitCode, Error> {
    if let Some(path) = &options.path {
        return match reference::explain(path) {
            Some(text) => {
                say(text)?;
                Ok(ExitCode::SUCCESS)
            }
            None => Err(Error::Other(format!(
                "there is no field {path:?}; begin with spec or status, such as spec.storage"
            ))),
        };
    }
    let Some(file) = &options.file else {
        say(reference::explain("spec").unwrap_or_default())?;
        return Ok(ExitCode::SUCCESS);
    };
    values(&File { file: file.clone() })
}

/// Every value in effect, and whether the file, a default or a rule says so.
fn values(file: &File) -> Result<ExitCode, Error> {
    let text = file.read()?;
    let stacks = file.stacks()?;
    for stack in stacks {
        let name = stack.metadata.name.clone().unwrap_or_default();
        let written = written(&text, &name);
        let effective = serde_json::to_value(&stack.spec).unwrap_or_default();
        say(format_args!("TempoStack {name}\n"))?;
        print_values(
            "spec",
            &effective,
            written.get("spec").unwrap_or(&Value::Null),
        )?;
        let names = Names::of(&stack);
        let topology = Topology::settled(&stack);
        say(format_args!("\nfollows from that:\n"))?;
        say(format_args!(
            "  Kafka topic: {} (kafka.topic.name, or tempo-<namespace>-<name>)\n",
            names.topic(&stack)
        ))?;
        say(format_args!(
            "  gossip cluster: {} (namespace and name: stacks never mix)\n",
            names.cluster_label()
        ))?;
        if topology.cluster.is_some() {
            let replicas = live_store_replicas(&stack);
            let zones = zone_count(&stack);
            say(format_args!(
                "  live-stores: {replicas} in each of {zones} zones (components.liveStore.replicas, else size, else 1)\n"
            ))?;
            say(format_args!(
                "  block-builders: {} (enough for {replicas} partitions; more while old ones hold data)\n",
                block_builder_replicas(&stack, replicas)
            ))?;
        }
        let component = if topology.monolith.is_some() {
            Component::Monolith
        } else {
            Component::QueryFrontend
        };
        let configuration = config::render(&stack, component)?;
        say(format_args!(
            "\nconfiguration of {}:\n{configuration}\n",
            component.target()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The stack of this name, as it was written.
fn written(text: &str, name: &str) -> Value {
    use serde::Deserialize;
    serde_yaml::Deserializer::from_str(text)
        .filter_map(|document| Value::deserialize(document).ok())
        .find(|document| document["metadata"]["name"] == name)
        .unwrap_or_default()
}

fn print_values(path: &str, effective: &Value, written: &Value) -> Result<(), Error> {
    match effective {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let below = written.get(name).unwrap_or(&Value::Null);
                print_values(&format!("{path}.{name}"), value, below)?;
            }
        }
        Value::Object(_) => {}
        value => {
            let source = if written.is_null() { "default" } else { "file" };
            say(format_args!("  {path} = {value}  ({source})\n"))?;
        }
    }
    Ok(())
}
