//! A stack whose components talk over TLS, with a certificate that a person made.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{FIND_LIMIT, RELOAD_LIMIT, microservices};
use crate::{
    Outcome,
    context::Context,
    ensure,
    secure::{Authority, Certificate, Door},
    stack::{Stack, uids},
    traces::{Protocol, Query, until},
};

/// Time for a partition to be drained, with the short times of [`microservices::manifest`].
const DRAIN_LIMIT: Duration = Duration::from_secs(240);
/// A new Secret reaches the pods, and each reads its files anew within some seconds.
const RENEWAL_LIMIT: Duration = RELOAD_LIMIT.saturating_mul(2);

fn secret(authority: &Authority, certificate: &Certificate) -> String {
    let (crt, key) = certificate.pems();
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "internal"},
        "stringData": {
            "ca.crt": authority.pem(),
            "tls.crt": crt,
            "tls.key": key,
        },
    })
    .to_string()
}

pub(super) fn internal_tls(context: &Context<'_>) -> Outcome {
    let (kafka, s3) = microservices::surroundings(context)?;
    let authority = Authority::new()?;
    let name = format!("tempo-demo-query-frontend.{}.svc", context.namespace);
    let first = authority.certify(&[&name])?;
    context.apply(&secret(&authority, &first))?;
    let manifest = microservices::manifest(&s3, &context.namespace, &kafka);
    context.apply(&(manifest + "  security: {internalTLS: {secretRef: {name: internal}}}\n"))?;
    let stack = context.stack("demo");
    stack.wait_ready(microservices::CLUSTER_READY_LIMIT)?;

    // Distributor, live-stores, queriers and query-frontend have each other.
    let (way, plain) = stack.query(None)?;
    let door = Door::open(&way.address, &name, &authority)?;
    send_and_find(context, &stack, &door, "first")?;
    ensure(door.was_shown(&first), || {
        "the query-frontend shows another certificate than the Secret's".to_owned()
    })?;
    ensure(plain.get("/ready").is_err(), || {
        "the query API answers in plain text, too".to_owned()
    })?;
    let stranger = Door::open(&way.address, &name, &Authority::new()?)?;
    ensure(
        Query::new(&stranger.address, None).get("/ready").is_err(),
        || "who believes another authority was answered".to_owned(),
    )?;

    // The operator reaches the drain endpoints of live-stores, too.
    context.cluster().patch(
        &context.namespace,
        "tempostack/demo",
        &json!({"spec": {"components": {"liveStore": {"replicas": 2}}}}),
    )?;
    stack.wait(DRAIN_LIMIT, "two partitions are left", |stack| {
        let live_store = &stack["status"]["liveStore"];
        live_store["replicas"] == 2 && live_store["partitions"]["active"] == 2
    })?;
    stack.wait_ready(microservices::CLUSTER_READY_LIMIT)?;

    // A certificate made anew reaches everyone, and no pod is made anew for it.
    let before = uids(&stack.owned("pods")?);
    let second = authority.certify(&[&name])?;
    context.apply(&secret(&authority, &second))?;
    let query = Query::new(&door.address, None);
    until(Instant::now() + RENEWAL_LIMIT, || {
        query.get("/ready")?;
        ensure(door.was_shown(&second), || {
            "the query-frontend still shows the old certificate".to_owned()
        })
    })?;
    send_and_find(context, &stack, &door, "second")?;
    // Pods of the drained partition may still have been going.
    let after = uids(&stack.owned("pods")?);
    ensure(after.iter().all(|pod| before.contains(pod)), || {
        format!("a new certificate made new pods: {before:?} became {after:?}")
    })
}

fn send_and_find(context: &Context<'_>, stack: &Stack<'_>, door: &Door, service: &str) -> Outcome {
    let receiver = stack.receiver(4317)?;
    let sdk = &context.world.sdk;
    let sent = sdk.send(Protocol::Grpc, &receiver.address, None, service, 10)?;
    let query = Query::new(&door.address, None);
    query.wait_by_id(&sent, FIND_LIMIT)?;
    let selector = format!("{{ resource.service.name = \"{service}\" }}");
    query.wait_search(&selector, &sent, FIND_LIMIT)
}
