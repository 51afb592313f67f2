//! What stays the same: names, Services, and what `render` promises.

use std::{process::Command, time::Duration};

use serde_json::{Value, json};

use super::{FIND_LIMIT, microservices, minimal};
use crate::{
    Failure, Outcome, command,
    context::Context,
    ensure, operator,
    stack::{READY_LIMIT, Stack, quick},
};

/// Services that others have written down.
const ENDPOINTS: [&str; 2] = ["tempo-demo-distributor", "tempo-demo-query-frontend"];
/// Time for a migration with short waits.
const MIGRATION_LIMIT: Duration = Duration::from_secs(480);

pub(super) fn stable_endpoints(context: &Context<'_>) -> Outcome {
    let (kafka, s3) = microservices::surroundings(context)?;
    let target = microservices::manifest(&s3, &context.namespace, &kafka)
        + "  migration: {writeQuietPeriod: 5s, keepSourceVolumesFor: 1m}\n";
    context.apply(&target.replace("mode: Microservices", "mode: Monolithic"))?;
    let stack = context.stack("demo");
    stack.wait_ready(READY_LIMIT)?;
    let sent = minimal::send_and_find(context, &stack)?;
    let before = endpoints(&stack)?;

    context.apply(&target)?;
    stack.wait(MIGRATION_LIMIT, "the mode is Microservices", |stack| {
        stack["status"]["mode"] == "Microservices" && stack["status"]["phase"] == "Ready"
    })?;
    let after = endpoints(&stack)?;
    ensure(before == after, || {
        format!("Services before: {before:?}; after: {after:?}")
    })?;
    let (_way, query) = stack.query(None)?;
    query.wait_by_id(&sent, FIND_LIMIT)?;
    minimal::send_and_find(context, &stack).map(drop)
}

/// Id and ports of the Services that others know.
fn endpoints(stack: &Stack<'_>) -> Outcome<Vec<(Value, Vec<Value>)>> {
    let services = stack.owned("services")?;
    ENDPOINTS
        .iter()
        .map(|name| {
            let service = services
                .get(*name)
                .ok_or_else(|| Failure::new(format!("there is no Service {name}")))?;
            let ports = service["spec"]["ports"].as_array().into_iter().flatten();
            Ok((
                service["metadata"]["uid"].clone(),
                ports
                    .map(|port| json!([port["name"], port["port"]]))
                    .collect(),
            ))
        })
        .collect()
}

pub(super) fn long_name(context: &Context<'_>) -> Outcome {
    let (kafka, s3) = microservices::surroundings(context)?;
    let name = "a-name-of-twenty-eight-chars";
    let manifest = microservices::manifest(&s3, &context.namespace, &kafka);
    context.apply(&manifest.replace("name: demo", &format!("name: {name}")))?;
    let stack = context.stack(name);
    stack.wait_ready(microservices::CLUSTER_READY_LIMIT)?;
    minimal::send_and_find(context, &stack)?;
    // With two digits for one, the name of a numbered pod is still one of a host.
    for (name, pod) in &stack.owned("pods")? {
        let numbered = pod["metadata"]["ownerReferences"][0]["kind"] == "StatefulSet";
        ensure(!numbered || name.len() < 63, || {
            format!("{name} has {} letters", name.len())
        })?;
    }
    Ok(())
}

pub(super) fn render(context: &Context<'_>) -> Outcome {
    let cluster = context.cluster();
    let binary = context
        .world
        .operator_binary
        .as_ref()
        .ok_or_else(|| Failure::new("the operator's program is not at hand"))?;
    let stack = minimal::ready(context)?;
    let file = std::env::temp_dir().join(format!("{}.yaml", context.namespace));
    std::fs::write(
        &file,
        quick("demo").replace(
            "name: demo",
            &format!("name: demo\n  namespace: {}", context.namespace),
        ),
    )?;
    let image = operator::environment(&context.world.operator);
    let said = command::run(
        Command::new(binary).arg("render").arg(&file).envs(image),
        "",
        Duration::from_secs(30),
    );
    std::fs::remove_file(&file)?;
    let said = said?;
    ensure(said.success, || format!("render: {}", said.stderr))?;
    // Who owns an object is known once the stack is in a cluster.
    let resource = stack.get()?;
    let owner = json!([{
        "apiVersion": resource["apiVersion"], "kind": resource["kind"], "name": "demo",
        "uid": resource["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    }]);
    let mut rendered = String::new();
    let mut count = 0;
    for document in serde_yaml::Deserializer::from_str(&said.stdout) {
        let mut object: Value = serde::Deserialize::deserialize(document)
            .map_err(|error| Failure::new(format!("render prints no YAML: {error}")))?;
        if object.is_null() {
            continue;
        }
        object["metadata"]["ownerReferences"] = owner.clone();
        rendered += &format!("---\n{object}\n");
        count += 1;
    }
    ensure(count >= 4, || format!("{count} objects: {}", said.stdout))?;
    // Applied by the operator's name, they must change nothing.
    let difference = cluster.attempt(
        &[
            "diff",
            "--server-side",
            "--force-conflicts",
            "--field-manager=tempo-operator",
            "-f",
            "-",
        ],
        &rendered,
    )?;
    ensure(difference.success, || {
        format!(
            "what is rendered differs from what was applied: {}{}",
            difference.stdout, difference.stderr
        )
    })
}
