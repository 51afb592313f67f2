//! `diff`: what would change in the cluster.

use std::process::ExitCode;

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, discovery};
use serde_json::Value;
use tempo_operator::manifests::MANAGER;

use super::{Error, Render, say};

pub(super) async fn run(options: &Render) -> Result<ExitCode, Error> {
    let client = Client::try_default().await?;
    let mut differs = false;
    for (stack, objects) in options.objects()? {
        let namespace = stack.metadata.namespace.unwrap_or_default();
        for object in objects {
            differs |= object_differs(&client, &namespace, &object).await?;
        }
    }
    Ok(ExitCode::from(u8::from(differs)))
}

async fn object_differs(client: &Client, namespace: &str, object: &Value) -> Result<bool, Error> {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or_default();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind_of = GroupVersionKind::gvk(group, version, kind);
    let resource: ApiResource = match discovery::pinned_kind(client, &kind_of).await {
        Ok((resource, _)) => resource,
        Err(_) => {
            say(format_args!(
                "? {kind} {name}: the cluster does not know this kind\n"
            ))?;
            return Ok(false);
        }
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let live = api.get_opt(name).await?;
    let mut params = PatchParams::apply(MANAGER).force();
    params.dry_run = true;
    let merged = api.patch(name, &params, &Patch::Apply(object)).await?;
    let Some(live) = live else {
        say(format_args!("+ {kind} {name}\n"))?;
        return Ok(true);
    };
    let mut changes = Vec::new();
    compare("", &comparable(&live), &comparable(&merged), &mut changes);
    for change in &changes {
        say(format_args!("~ {kind} {name}: {change}\n"))?;
    }
    Ok(!changes.is_empty())
}

fn comparable(object: &DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.shift_remove("status");
    }
    if let Some(metadata) = value["metadata"].as_object_mut() {
        for field in [
            "managedFields",
            "resourceVersion",
            "generation",
            "uid",
            "creationTimestamp",
        ] {
            metadata.shift_remove(field);
        }
    }
    value
}

fn compare(path: &str, before: &Value, after: &Value, changes: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                compare(
                    &format!("{path}.{key}"),
                    old.get(key).unwrap_or(&Value::Null),
                    value,
                    changes,
                );
            }
            for (key, value) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
                compare(&format!("{path}.{key}"), value, &Value::Null, changes);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                compare(&format!("{path}[{index}]"), old, new, changes);
            }
        }
        (before, after) if before != after => {
            changes.push(format!("{path}: {before} -> {after}"));
        }
        _ => {}
    }
}
