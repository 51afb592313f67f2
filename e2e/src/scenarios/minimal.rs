//! Ten lines, and what pods they become.

use rand::Rng;
use serde_json::Value;

use super::FIND_LIMIT;
use crate::{
    Outcome,
    context::Context,
    ensure,
    stack::{MINIMAL, READY_LIMIT, Stack, only, quick},
    traces::{Acknowledged, Protocol},
};

pub(super) fn minimal(context: &Context<'_>) -> Outcome {
    context.apply(MINIMAL)?;
    let stack = context.stack("demo");
    stack.wait_ready(READY_LIMIT)?;
    let sent = send_and_find(context, &stack)?;
    ensure(sent.len() == 20, || format!("{} traces sent", sent.len()))?;

    let sets = stack.owned("statefulsets")?;
    only(&sets, "StatefulSet")?;
    let deployments = stack.owned("deployments")?;
    ensure(deployments.is_empty(), || {
        format!("a monolith needs no Deployment: {:?}", deployments.keys())
    })?;
    let claims = context
        .cluster()
        .list(&context.namespace, "persistentvolumeclaims", "")?;
    let (name, claim) = only(&claims, "PersistentVolumeClaim")?;
    ensure(claim["status"]["phase"] == "Bound", || {
        format!("{name} is {}", claim["status"]["phase"])
    })?;

    // A pod that is made anew finds what its predecessor acknowledged.
    let pods = stack.owned("pods")?;
    let (pod, _) = only(&pods, "pod")?;
    context
        .cluster()
        .kubectl(&["-n", &context.namespace, "delete", "pod", pod])?;
    stack.wait_ready(READY_LIMIT)?;
    let (_way, query) = stack.query(None)?;
    query.wait_by_id(&sent, READY_LIMIT)
}

/// The minimal stack, ready; searches see what has just come, so that scenarios need not wait.
pub(super) fn ready<'w>(context: &Context<'w>) -> Outcome<Stack<'w>> {
    context.apply(&quick("demo"))?;
    let stack = context.stack("demo");
    stack.wait_ready(READY_LIMIT)?;
    Ok(stack)
}

/// Sends ten traces by each protocol, of services of their own, and finds each by its id and by a
/// search. Those by gRPC come first.
pub(super) fn send_and_find(
    context: &Context<'_>,
    stack: &Stack<'_>,
) -> Outcome<Vec<Acknowledged>> {
    let sdk = &context.world.sdk;
    let grpc = stack.receiver(4317)?;
    let http = stack.receiver(4318)?;
    let (_way, query) = stack.query(None)?;
    let mark = rand::rng().random_range(0..1_000_000);
    let (grpc_service, http_service) = (format!("grpc-{mark}"), format!("http-{mark}"));
    let by_grpc = sdk.send(Protocol::Grpc, &grpc.address, None, &grpc_service, 10)?;
    let by_http = sdk.send(Protocol::Http, &http.address, None, &http_service, 10)?;
    query.wait_by_id(&by_grpc, FIND_LIMIT)?;
    query.wait_by_id(&by_http, FIND_LIMIT)?;
    query.wait_search(
        &format!("{{ resource.service.name = \"{grpc_service}\" && status = error }}"),
        &by_grpc,
        FIND_LIMIT,
    )?;
    query.wait_search(
        &format!("{{ resource.service.name = \"{http_service}\" && span.amount > 12 }}"),
        &by_http,
        FIND_LIMIT,
    )?;
    Ok([by_grpc, by_http].concat())
}

pub(super) fn restricted(context: &Context<'_>) -> Outcome {
    let stack = ready(context)?;
    for (name, pod) in &stack.owned("pods")? {
        check_pod(name, pod)?;
    }
    // The namespace refuses other pods; the operator must not have tried any.
    let events = context
        .cluster()
        .kubectl(&["-n", &context.namespace, "get", "events"])?;
    ensure(!events.contains("violates PodSecurity"), || events.clone())
}

/// Whether a pod is as narrow as it can be.
pub(super) fn check_pod(name: &str, pod: &Value) -> Outcome {
    let spec = &pod["spec"];
    ensure(spec["automountServiceAccountToken"] == false, || {
        format!("{name} can reach the API server with a token")
    })?;
    let containers = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| spec[list].as_array().into_iter().flatten());
    for container in containers {
        let security = &container["securityContext"];
        ensure(security["readOnlyRootFilesystem"] == true, || {
            format!(
                "{name}: the root of {} can be written to",
                container["name"]
            )
        })?;
        ensure(security["capabilities"]["drop"][0] == "ALL", || {
            format!("{name}: {} keeps capabilities", container["name"])
        })?;
    }
    Ok(())
}
