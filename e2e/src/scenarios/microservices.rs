//! The stack as a cluster of components around Kafka.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{FIND_LIMIT, ROLLOUT_LIMIT, minimal, refusals};
use crate::{
    Outcome, access::Access, context::Context, ensure, neighbours::FIRST, operator::pod_is_ready,
    stack::Stack, traces::until,
};

/// A dozen pods start, some of them one after another.
pub(super) const CLUSTER_READY_LIMIT: Duration = Duration::from_secs(240);
/// With the short times of [`manifest`]: a cycle of the block-builder, a poll of the block list.
const BLOCK_LIMIT: Duration = Duration::from_secs(90);

/// Two partitions drained, with the short times of [`manifest`].
const DRAIN_LIMIT: Duration = Duration::from_secs(300);

/// Three partitions, two zones, short times.
pub(super) fn manifest(s3: &str, bucket: &str, kafka: &str) -> String {
    format!(
        "apiVersion: tempostack.io/v1alpha1
kind: TempoStack
metadata:
  name: demo
spec:
  mode: Microservices
  storage:
    s3:
      bucket: {bucket}
      endpoint: http://{s3}
      region: us-east-1
      forcePathStyle: true
      insecure: true
      credentials: {{secretRef: {{name: s3}}}}
  kafka:
    bootstrapServers: [\"{kafka}\"]
    topic: {{name: {bucket}, partitions: 3, replicationFactor: 1}}
  zones: {{count: 2}}
  components:
    liveStore: {{replicas: 3}}
  timings:
    queryBackendAfter: 30s
    queryEndCutoff: 0s
    completeBlockTimeout: 20s
    consumeCycle: 5s
    blocklistPoll: 5s
    minPartitionOwnersDuration: 1s
  updateStrategy: {{drainWait: 30s}}
"
    )
}

/// The same with times for a busy machine: what is asked while something is changed must be in
/// blocks when live-stores are no longer asked for it.
pub(super) fn under_load(s3: &str, bucket: &str, kafka: &str) -> String {
    manifest(s3, bucket, kafka)
        .replace("queryBackendAfter: 30s", "queryBackendAfter: 90s")
        .replace("completeBlockTimeout: 20s", "completeBlockTimeout: 100s")
        .replace("drainWait: 30s", "drainWait: 100s")
}

/// Where Kafka and the store are, after a bucket with the name of the namespace was made, and the
/// Secret to it.
pub(super) fn surroundings(context: &Context<'_>) -> Outcome<(String, String)> {
    let neighbours = &context.world.neighbours;
    let (kafka, s3) = (neighbours.kafka()?, neighbours.s3()?);
    neighbours.make_bucket(&context.namespace)?;
    context.apply(&refusals::s3_secret("access_key_secret", FIRST))?;
    Ok((kafka, s3))
}

/// The stack of [`manifest`], ready.
pub(super) fn ready<'w>(context: &Context<'w>) -> Outcome<Stack<'w>> {
    let (kafka, s3) = surroundings(context)?;
    context.apply(&manifest(&s3, &context.namespace, &kafka))?;
    let stack = context.stack("demo");
    stack.wait_ready(CLUSTER_READY_LIMIT)?;
    Ok(stack)
}

pub(super) fn microservices(context: &Context<'_>) -> Outcome {
    let cluster = context.cluster();
    let stack = ready(context)?;
    let pods = stack.owned("pods")?;
    ensure(pods.values().all(pod_is_ready), || {
        "a stack is ready when all its pods are".to_owned()
    })?;
    let images: Vec<&Value> = pods
        .values()
        .map(|pod| &pod["spec"]["containers"][0]["image"])
        .collect();
    ensure(images.windows(2).all(|pair| pair[0] == pair[1]), || {
        format!("all components are one image: {images:?}")
    })?;
    let topic = context.world.neighbours.topic(&context.namespace)?;
    ensure(topic.len() == 3, || format!("the topic has {topic:?}"))?;

    // Each partition is active and has an owner in either zone.
    let distributor = Access::forward(
        cluster,
        &context.namespace,
        "deployment/tempo-demo-distributor",
        3200,
    )?;
    until(Instant::now() + ROLLOUT_LIMIT, || {
        let ring = tempo_testkit::http_client::Client::connect(&distributor.address)?
            .request(
                "GET",
                "/partition-ring",
                &[("Accept", "application/json")],
                &[],
            )?
            .json();
        let partitions = ring["partitions"].as_array().cloned().unwrap_or_default();
        let good = partitions.len() == 3
            && partitions.iter().all(|partition| {
                partition["state"] == 2
                    && partition["owner_ids"]
                        .as_array()
                        .is_some_and(|owners| owners.len() == 2)
            });
        ensure(good, || format!("the partition ring is {ring}"))
    })?;

    // Recent spans come from live-stores.
    let sent = minimal::send_and_find(context, &stack)?;
    // Later ones from blocks: they are in the bucket, and searches go there.
    let neighbours = &context.world.neighbours;
    until(Instant::now() + BLOCK_LIMIT, || {
        let keys = neighbours.objects(&context.namespace)?;
        ensure(keys.iter().any(|key| key.ends_with("/meta.json")), || {
            format!("no block in the bucket: {keys:?}")
        })
    })?;
    // Beyond the live-stores' window, with a poll of the block list and some seconds for slow discs.
    std::thread::sleep(Duration::from_secs(50));
    let (_way, query) = stack.query(None)?;
    query.wait_by_id(&sent, FIND_LIMIT)?;
    let of_grpc: Vec<_> = sent.iter().take(10).cloned().collect();
    let service = &sent[0].service;
    query.wait_search(
        &format!("{{ resource.service.name = \"{service}\" }}"),
        &of_grpc,
        FIND_LIMIT,
    )
}

pub(super) fn edit_replicas(context: &Context<'_>) -> Outcome {
    let stack = ready(context)?;
    let generations = |stack: &Stack<'_>| -> Outcome<Vec<(String, Value)>> {
        Ok(stack
            .owned("deployments,statefulsets,services")?
            .iter()
            .map(|(name, object)| (name.clone(), object["metadata"]["generation"].clone()))
            .collect())
    };
    let before = generations(&stack)?;
    for replicas in [3, 1] {
        context.cluster().patch(
            &context.namespace,
            "tempostack/demo",
            &json!({"spec": {"components": {"querier": {"replicas": replicas}}}}),
        )?;
        stack.wait_owned(
            "deployments",
            ROLLOUT_LIMIT,
            &format!("{replicas} queriers are ready"),
            |deployments| {
                deployments
                    .get("tempo-demo-querier")
                    .is_some_and(|querier| querier["status"]["readyReplicas"] == replicas)
            },
        )?;
    }
    let changed: Vec<String> = generations(&stack)?
        .into_iter()
        .filter(|now| !before.contains(now))
        .map(|(name, _)| name)
        .collect();
    ensure(changed == ["Deployment/tempo-demo-querier"], || {
        format!("only the querier's Deployment may change: {changed:?}")
    })
}

/// `kubectl scale`, up and down again, while spans go in: none is lost, and a partition is drained
/// before its live-store goes.
pub(super) fn scale(context: &Context<'_>) -> Outcome {
    let stack = ready(context)?;
    let sent = minimal::send_and_find(context, &stack)?;
    let scale_to = |replicas: usize| {
        context.cluster().kubectl(&[
            "-n",
            &context.namespace,
            "scale",
            "tempostack/demo",
            &format!("--replicas={replicas}"),
        ])
    };
    // The topic has three partitions; only who may grow it can have four live-stores.
    context.cluster().patch(
        &context.namespace,
        "tempostack/demo",
        &json!({"spec": {"kafka": {"topic": {"partitions": 4, "manage": "CreateAndGrow"}}}}),
    )?;
    scale_to(4)?;
    stack.wait(CLUSTER_READY_LIMIT, "four partitions are active", |stack| {
        stack["status"]["liveStore"]["partitions"]["active"] == 4
    })?;
    stack.wait_ready(CLUSTER_READY_LIMIT)?;
    let topic = context.world.neighbours.topic(&context.namespace)?;
    ensure(topic.len() == 4, || format!("the topic has {topic:?}"))?;
    let more = minimal::send_and_find(context, &stack)?;

    scale_to(2)?;
    let mut drained = false;
    stack.wait(DRAIN_LIMIT, "two partitions are left", |stack| {
        let live_store = &stack["status"]["liveStore"];
        drained |= live_store["drain"]["phase"] == "Wait";
        live_store["replicas"] == 2 && live_store["partitions"]["active"] == 2
    })?;
    ensure(drained, || {
        "the live-stores went without a time in which their partitions took no spans".to_owned()
    })?;
    stack.wait_ready(CLUSTER_READY_LIMIT)?;
    let (_way, query) = stack.query(None)?;
    query.wait_by_id(&[sent, more].concat(), FIND_LIMIT)
}
