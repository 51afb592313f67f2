//! A changed spec, and how much of what runs it touches.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempo_testkit::http_client::Client;

use super::{AT_ONCE, FIND_LIMIT, RELOAD_LIMIT, ROLLOUT_LIMIT, minimal, refusals};
use crate::{
    Outcome,
    context::Context,
    ensure,
    neighbours::{FIRST, SECOND},
    stack::{READY_LIMIT, Stack, condition, only, uids},
    traces::{Protocol, until},
};

pub(super) fn prune(context: &Context<'_>) -> Outcome {
    const KINDS: &[&str] = &["networkpolicies", "ingresses"];
    let stack = minimal::ready(context)?;
    let patch = |spec: Value| {
        context.cluster().patch(
            &context.namespace,
            "tempostack/demo",
            &json!({"spec": spec}),
        )
    };
    patch(json!({
        "networkPolicy": {"enabled": true},
        "exposure": {"ingress": {"host": "tempo.example"}},
        "tenancy": {"enabled": true, "tenants": {"team-a": {"limits": {"ingestion": {"rateLimitBytes": 1000000}}}}},
    }))?;
    for kind in KINDS {
        stack.wait_owned(kind, AT_ONCE, &format!("{kind} are made"), |objects| {
            !objects.is_empty()
        })?;
    }
    patch(json!({
        "networkPolicy": null,
        "exposure": null,
        "tenancy": null,
    }))?;
    for kind in KINDS {
        context
            .cluster()
            .wait_gone(&context.namespace, kind, &stack.selector(), AT_ONCE)?;
    }
    // Configurations that no pod has any more do not pile up.
    stack.wait_ready(ROLLOUT_LIMIT)?;
    for round in 1..=3 {
        patch(
            json!({"extraConfig": {"query_frontend": {"max_outstanding_per_tenant": 1000 + round}}}),
        )?;
        stack.wait_ready(ROLLOUT_LIMIT)?;
    }
    stack
        .wait_owned("configmaps", AT_ONCE, "two ConfigMaps at most", |maps| {
            (1..=2).contains(&maps.len())
        })
        .map(drop)
}

/// One small span in OTLP's JSON.
fn one_span() -> Vec<u8> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "limits"}}]},
        "scopeSpans": [{"spans": [{
            "traceId": format!("{now:032x}"), "spanId": "00f067aa0ba902b7", "name": "limited", "kind": 1,
            "startTimeUnixNano": now.to_string(), "endTimeUnixNano": (now + 1000).to_string(),
        }]}],
    }]})
    .to_string()
    .into_bytes()
}

/// The status that a push of one span gets.
fn push(stack: &Stack<'_>, tenant: Option<&str>) -> Outcome<u16> {
    let way = stack.receiver(4318)?;
    let mut headers = vec![("Content-Type", "application/json")];
    headers.extend(tenant.map(|id| ("X-Scope-OrgID", id)));
    let answer =
        Client::connect(&way.address)?.request("POST", "/v1/traces", &headers, &one_span())?;
    Ok(answer.status)
}

fn wait_push(stack: &Stack<'_>, tenant: Option<&str>, wanted: u16, limit: Duration) -> Outcome {
    until(Instant::now() + limit, || {
        let status = push(stack, tenant)?;
        ensure(status == wanted, || {
            format!("a push is answered with {status}, not {wanted}")
        })
    })
}

pub(super) fn edit_config(context: &Context<'_>) -> Outcome {
    let stack = minimal::ready(context)?;
    wait_push(&stack, None, 200, FIND_LIMIT)?;
    let before = uids(&stack.owned("pods")?);

    // A limit that no request keeps to, in the running process.
    let limits = |limits: Value| {
        context.cluster().patch(
            &context.namespace,
            "tempostack/demo",
            &json!({"spec": {"limits": limits}}),
        )
    };
    limits(json!({"ingestion": {"rateLimitBytes": 1, "burstSizeBytes": 1}}))?;
    wait_push(&stack, None, 429, RELOAD_LIMIT)?;
    limits(Value::Null)?;
    wait_push(&stack, None, 200, RELOAD_LIMIT)?;
    ensure(uids(&stack.owned("pods")?) == before, || {
        "a limit must not restart pods".to_owned()
    })?;

    // A key that is read at the start only.
    let services = uids(&stack.owned("services")?);
    context.cluster().patch(
        &context.namespace,
        "tempostack/demo",
        &json!({"spec": {"extraConfig": {"query_frontend": {"max_outstanding_per_tenant": 999}}}}),
    )?;
    stack.wait_owned("pods", ROLLOUT_LIMIT, "the pod is replaced", |pods| {
        !pods.is_empty() && uids(pods).iter().all(|pod| !before.contains(pod))
    })?;
    stack.wait_ready(READY_LIMIT)?;
    let (_way, query) = stack.query(None)?;
    let config = query.get("/status/config")?.text();
    ensure(config.contains("max_outstanding_per_tenant: 999"), || {
        "the new value is not in /status/config".to_owned()
    })?;
    ensure(uids(&stack.owned("services")?) == services, || {
        "Services must stay what they are".to_owned()
    })
}

pub(super) fn secret_rotate(context: &Context<'_>) -> Outcome {
    let endpoint = refusals::store(context)?;
    context.apply(&refusals::s3_secret("access_key_secret", FIRST))?;
    context.apply(&refusals::s3_stack(&endpoint, &context.namespace))?;
    let stack = context.stack("demo");
    stack.wait_ready(READY_LIMIT)?;
    let sent = if context.has_pods() {
        minimal::send_and_find(context, &stack)?
    } else {
        Vec::new()
    };
    let before = uids(&stack.owned("pods")?);
    let sets = stack.owned("statefulsets")?;
    let generation = only(&sets, "StatefulSet")?.1["metadata"]["generation"].as_u64();

    context.apply(&refusals::s3_secret("access_key_secret", SECOND))?;
    stack.wait_owned("pods", ROLLOUT_LIMIT, "the pod is replaced", |pods| {
        !pods.is_empty() && uids(pods).iter().all(|pod| !before.contains(pod))
    })?;
    let ready = stack.wait_ready(READY_LIMIT)?;
    ensure(
        condition(&ready, "StorageReady").is_none_or(|storage| storage["status"] == "True"),
        || format!("the store takes both accounts: {}", ready["status"]),
    )?;
    let sets = stack.owned("statefulsets")?;
    let after = only(&sets, "StatefulSet")?.1["metadata"]["generation"].as_u64();
    ensure(after == generation.map(|before| before + 1), || {
        format!("one change must be one rollout: generation {generation:?} became {after:?}")
    })?;
    if sent.is_empty() {
        return Ok(());
    }
    let (_way, query) = stack.query(None)?;
    query.wait_by_id(&sent, FIND_LIMIT)
}

pub(super) fn tenants(context: &Context<'_>) -> Outcome {
    context.apply(
        "
apiVersion: tempostack.io/v1alpha1
kind: TempoStack
metadata:
  name: demo
spec:
  storage: {local: {}}
  limits: {ingestion: {maxTracesPerUser: 1234}}
  tenancy:
    enabled: true
    tenants:
      team-a: {limits: {ingestion: {rateLimitBytes: 1, burstSizeBytes: 1}}}
      team-b: {limits: {ingestion: {maxAttributeBytes: 500}}}
",
    )?;
    let stack = context.stack("demo");
    stack.wait_ready(READY_LIMIT)?;
    // Who does not say who they are is not let in; OTLP receivers answer as Tempo does.
    wait_push(&stack, None, 503, FIND_LIMIT)?;
    // team-a's own limit.
    wait_push(&stack, Some("team-a"), 429, FIND_LIMIT)?;
    // team-b has its limits at their defaults, not at zero, though it has one of its own.
    let way = stack.receiver(4317)?;
    let sent = context
        .world
        .sdk
        .send(Protocol::Grpc, &way.address, Some("team-b"), "shop", 10)?;
    let (_b, b) = stack.query(Some("team-b"))?;
    b.wait_by_id(&sent, FIND_LIMIT)?;
    b.wait_search("{ resource.service.name = \"shop\" }", &sent, FIND_LIMIT)?;
    // Nobody sees another's.
    let (_c, c) = stack.query(Some("team-c"))?;
    let found = c.search("{}")?;
    ensure(found.is_empty(), || {
        format!("team-c sees traces of team-b: {found:?}")
    })?;
    let found = c.spans(&sent[0].id)?;
    ensure(found.is_empty(), || {
        format!("team-c sees spans of team-b: {found:?}")
    })
}
