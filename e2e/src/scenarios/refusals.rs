//! What cannot work is told where a person looks, with the way on.

use std::fs;

use serde_json::json;

use super::{AT_ONCE, ROLLOUT_LIMIT};
use crate::{
    Outcome,
    context::Context,
    ensure,
    neighbours::{Account, FIRST},
    operator::pod_is_ready,
    scenarios::microservices,
    stack::{READY_LIMIT, condition, uids},
};

/// Specs that must be refused, each with words that the answer must hold.
const REFUSED: &[(&str, &[&str])] = &[
    (
        "mode: Microservices\nstorage: {s3: {bucket: b, region: r}}",
        &["kafka.bootstrapServers"],
    ),
    (
        "mode: Microservices\nstorage: {local: {}}\nkafka: {bootstrapServers: [\"k:9092\"]}",
        &["storage.local"],
    ),
    ("storage: {}", &["exactly one of storage.s3"]),
    (
        "storage: {local: {}, s3: {bucket: b, region: r}}",
        &["exactly one of storage.s3"],
    ),
    (
        "storage: {s3: {bucket: b, endpoint: \"https://s\", insecure: true}}",
        &["insecure"],
    ),
    ("storage: {s3: {bucket: b}}", &["storage.s3.region"]),
    (
        "mode: Microservices\nstorage: {s3: {bucket: b, region: r}}\n\
         kafka: {bootstrapServers: [\"k:9092\"], topic: {partitions: 4}}\n\
         components: {liveStore: {replicas: 6}}",
        &["kafka.topic.partitions"],
    ),
    (
        "storage: {local: {}}\ncomponents: {querier: {replicas: 2, autoscaling: {maxReplicas: 3}}}",
        &["either replicas or autoscaling"],
    ),
    (
        "storage: {local: {}}\ncomponents: {backendScheduler: {replicas: 2}}",
        &["exactly one of this component"],
    ),
    (
        "storage: {local: {}}\nimage: {digest: \"sha256:abc\"}",
        &["image.digest"],
    ),
    (
        "storage: {local: {}}\nupdateStrategy: {drainWait: 1m}",
        &["drainWait"],
    ),
    (
        "storage: {local: {}}\nmetricsGenerator: {enabled: true}",
        &["remoteWrite"],
    ),
    ("storage: {local: {}}\nzones: {count: 6}", &["zones.count"]),
    ("mode: Distributed\nstorage: {local: {}}", &["spec.mode"]),
];

/// Changes of the minimal stack that must be refused, and words of the answer.
const REFUSED_CHANGES: &[(&str, &str)] = &[
    (
        r#"{"spec":{"storage":{"local":null,"s3":{"bucket":"b","region":"r"}}}}"#,
        "storage.allowChange",
    ),
    (
        r#"{"spec":{"storage":{"prefix":"elsewhere"}}}"#,
        "storage.allowChange",
    ),
    (
        r#"{"spec":{"storage":{"local":{"size":"1Gi"}}}}"#,
        "can't shrink",
    ),
];

fn stack_yaml(name: &str, spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!(
        "apiVersion: tempostack.io/v1alpha1\nkind: TempoStack\nmetadata:\n  name: {name}\nspec:\n  \
         paused: true\n  {spec}\n"
    )
}

pub(super) fn invalid_spec(context: &Context<'_>) -> Outcome {
    let cluster = context.cluster();
    let mut wrong = Vec::new();
    for (number, (spec, words)) in REFUSED.iter().enumerate() {
        match cluster.refused(
            &context.namespace,
            &stack_yaml(&format!("bad-{number}"), spec),
        ) {
            Ok(answer) => wrong.extend(
                words
                    .iter()
                    .filter(|word| !answer.contains(**word))
                    .map(|word| format!("{spec:?}: the answer lacks {word:?}: {answer}")),
            ),
            Err(failure) => wrong.push(failure.to_string()),
        }
    }
    // Names become labels of pods with a hash behind them.
    let local = "storage: {local: {}}";
    context.apply(&stack_yaml(&"n".repeat(28), local))?;
    if cluster
        .refused(&context.namespace, &stack_yaml(&"n".repeat(29), local))
        .is_err()
    {
        wrong.push("a name of 29 characters was accepted".to_owned());
    }
    context.apply(&stack_yaml("good", local))?;
    for (patch, words) in REFUSED_CHANGES {
        let said = cluster.attempt(
            &[
                "-n",
                &context.namespace,
                "patch",
                "tempostack/good",
                "--type=merge",
                "-p",
                patch,
            ],
            "",
        )?;
        if said.success {
            wrong.push(format!("the change {patch} was accepted"));
        } else if !said.stderr.contains(words) {
            wrong.push(format!(
                "the change {patch}: the answer lacks {words:?}: {}",
                said.stderr
            ));
        }
    }
    // What is meant may be done.
    cluster.patch(
        &context.namespace,
        "tempostack/good",
        &json!({"spec": {"storage": {"local": {"size": "20Gi"}, "retention": "24h"}}}),
    )?;
    cluster.patch(
        &context.namespace,
        "tempostack/good",
        &json!({"spec": {"storage": {"allowChange": true, "prefix": "elsewhere"}}}),
    )?;
    ensure(wrong.is_empty(), || wrong.join("\n"))
}

/// The samples that people copy are taken by the API server as they are.
pub(super) fn samples(context: &Context<'_>) -> Outcome {
    let folder = context.world.repository.join("crds/samples");
    let mut count = 0;
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        // Each goes to the namespace of this scenario, whichever it names.
        let sample: String = fs::read_to_string(&path)?
            .lines()
            .filter(|line| !line.starts_with("  namespace: "))
            .flat_map(|line| [line, "\n"])
            .collect();
        let said = context.cluster().attempt(
            &[
                "-n",
                &context.namespace,
                "apply",
                "--dry-run=server",
                "--validate=strict",
                "-f",
                "-",
            ],
            &sample,
        )?;
        ensure(said.success, || {
            format!("{}: {}", path.display(), said.stderr)
        })?;
        count += 1;
    }
    ensure(count > 1, || {
        format!("{} holds {count} samples", folder.display())
    })
}

/// A monolith with its traces in the S3 store.
pub(super) fn s3_stack(endpoint: &str, bucket: &str) -> String {
    format!(
        "apiVersion: tempostack.io/v1alpha1
kind: TempoStack
metadata:
  name: demo
spec:
  storage:
    s3:
      bucket: {bucket}
      endpoint: http://{endpoint}
      region: us-east-1
      forcePathStyle: true
      insecure: true
      credentials: {{secretRef: {{name: s3}}}}
"
    )
}

/// Where the S3 store is, with a bucket for this scenario. Without pods nobody asks it anything.
pub(super) fn store(context: &Context<'_>) -> Outcome<String> {
    if !context.has_pods() {
        return Ok("store.invalid:9000".to_owned());
    }
    let neighbours = &context.world.neighbours;
    let endpoint = neighbours.s3()?;
    neighbours.make_bucket(&context.namespace)?;
    Ok(endpoint)
}

/// The Secret that goes with it; with another name of the key it is useless.
pub(super) fn s3_secret(secret_key_name: &str, account: Account) -> String {
    let Account { access, secret } = account;
    format!(
        "apiVersion: v1
kind: Secret
metadata:
  name: s3
stringData:
  access_key_id: {access}
  {secret_key_name}: {secret}
"
    )
}

pub(super) fn secret_missing(context: &Context<'_>) -> Outcome {
    let endpoint = store(context)?;
    context.apply(&s3_stack(&endpoint, &context.namespace))?;
    let stack = context.stack("demo");
    let told = stack.wait_condition("ConfigValid", "False", "SecretNotFound", AT_ONCE)?;
    let message = condition(&told, "ConfigValid").map(|told| told["message"].to_string());
    ensure(
        message
            .as_ref()
            .is_some_and(|message| message.contains("s3")),
        || format!("the message must name the Secret: {message:?}"),
    )?;
    ensure(
        condition(&told, "Ready").is_some_and(|ready| ready["status"] == "False"),
        || format!("Ready must be False: {}", told["status"]["conditions"]),
    )?;
    let pods = stack.owned("pods")?;
    ensure(pods.is_empty(), || {
        format!("no pod can run without the Secret: {:?}", pods.keys())
    })?;
    context.apply(&s3_secret("access_key_secret", FIRST))?;
    stack.wait_ready(READY_LIMIT).map(drop)
}

pub(super) fn secret_bad(context: &Context<'_>) -> Outcome {
    let endpoint = store(context)?;
    context.apply(&s3_secret("access_key_secret", FIRST))?;
    context.apply(&s3_stack(&endpoint, &context.namespace))?;
    let stack = context.stack("demo");
    stack.wait_ready(READY_LIMIT)?;
    let before = uids(&stack.owned("pods")?);

    context
        .cluster()
        .kubectl(&["-n", &context.namespace, "delete", "secret", "s3"])?;
    context.apply(&s3_secret("secret_of_another_name", FIRST))?;
    stack.wait_condition("ConfigValid", "False", "SecretKeyMissing", AT_ONCE)?;
    let pods = stack.owned("pods")?;
    ensure(
        uids(&pods) == before && pods.values().all(pod_is_ready),
        || "pods that run must go on with the credentials they have".to_owned(),
    )?;
    context.apply(&s3_secret("access_key_secret", FIRST))?;
    stack.wait_condition("ConfigValid", "True", "", AT_ONCE)?;
    stack.wait_ready(ROLLOUT_LIMIT).map(drop)
}

pub(super) fn kafka_bad(context: &Context<'_>) -> Outcome {
    let neighbours = &context.world.neighbours;
    let endpoint = neighbours.s3()?;
    neighbours.make_bucket(&context.namespace)?;
    context.apply(&s3_secret("access_key_secret", FIRST))?;
    // Nobody listens on port 1.
    let host = endpoint.split(':').next().unwrap_or_default();
    context.apply(&microservices::manifest(
        &endpoint,
        &context.namespace,
        &format!("{host}:1"),
    ))?;
    let stack = context.stack("demo");
    let told = stack.wait_condition("KafkaReady", "False", "Unreachable", ROLLOUT_LIMIT)?;
    let message = condition(&told, "KafkaReady")
        .map(|told| told["message"].to_string())
        .unwrap_or_default();
    ensure(message.contains(&format!("{host}:1")), || {
        format!("the message must name the address: {message}")
    })?;
    let restarts = stack
        .owned("pods")?
        .values()
        .flat_map(|pod| pod["status"]["containerStatuses"].as_array().cloned())
        .flatten()
        .filter_map(|container| container["restartCount"].as_u64())
        .sum::<u64>();
    ensure(restarts == 0, || {
        format!("pods were restarted {restarts} times for what the operator knows")
    })?;
    // The right address is enough.
    let kafka = neighbours.kafka()?;
    context.cluster().patch(
        &context.namespace,
        "tempostack/demo",
        &json!({"spec": {"kafka": {"bootstrapServers": [kafka]}}}),
    )?;
    stack.wait_condition("KafkaReady", "True", "", ROLLOUT_LIMIT)?;
    stack
        .wait_ready(microservices::CLUSTER_READY_LIMIT)
        .map(drop)
}
