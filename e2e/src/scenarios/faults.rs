//! Others who meddle, and what the operator does when nothing is to be done.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{AT_ONCE, ROLLOUT_LIMIT, minimal};
use crate::{
    Failure, Outcome,
    context::Context,
    ensure, operator,
    stack::{MINIMAL, only, uids},
};

pub(super) fn drift(context: &Context<'_>) -> Outcome {
    let cluster = context.cluster();
    let namespace = &context.namespace;
    let stack = minimal::ready(context)?;
    cluster.patch(
        namespace,
        "tempostack/demo",
        &json!({"spec": {"networkPolicy": {"enabled": true}}}),
    )?;
    stack.wait_owned(
        "networkpolicies",
        AT_ONCE,
        "NetworkPolicies are made",
        |found| !found.is_empty(),
    )?;
    stack.wait_ready(ROLLOUT_LIMIT)?;
    let pods = uids(&stack.owned("pods")?);

    // Deleted: all Services, all NetworkPolicies, all ConfigMaps, the ServiceAccount.
    for kind in [
        "services",
        "networkpolicies",
        "configmaps",
        "serviceaccounts",
    ] {
        let before = stack.owned(kind)?;
        ensure(!before.is_empty(), || format!("the stack has no {kind}"))?;
        cluster.kubectl(&["-n", namespace, "delete", kind, "-l", &stack.selector()])?;
        stack.wait_owned(kind, AT_ONCE, &format!("{kind} are back"), |now| {
            before.keys().eq(now.keys())
                && before
                    .iter()
                    .zip(now)
                    .all(|((_, old), (_, new))| old["metadata"]["uid"] != new["metadata"]["uid"])
        })?;
    }

    // Changed: a selector, a port's name, a label that is ours, a replica count, a configuration.
    let service = "service/tempo-demo-query-frontend";
    let wanted = cluster.must_get(namespace, service)?["spec"]["selector"].clone();
    cluster.patch(
        namespace,
        service,
        &json!({"spec": {"selector": {"app.kubernetes.io/component": "nothing"}}}),
    )?;
    cluster.wait_for(
        namespace,
        "services",
        "tempo-demo-query-frontend",
        AT_ONCE,
        "the Service selects what it did",
        |service| service["spec"]["selector"] == wanted,
    )?;
    let sets = stack.owned("statefulsets")?;
    let (set, _) = only(&sets, "StatefulSet")?;
    cluster.patch(
        namespace,
        &format!("statefulset/{set}"),
        &json!({
            "metadata": {
                "labels": {"app.kubernetes.io/component": "something-else"},
                "annotations": {"example.com/owner": "someone"},
            },
            "spec": {"replicas": 0},
        }),
    )?;
    let set = cluster.wait_for(
        namespace,
        "statefulsets",
        set,
        AT_ONCE,
        "the StatefulSet is as it was",
        |set| {
            set["spec"]["replicas"] == 1
                && set["metadata"]["labels"]["app.kubernetes.io/component"]
                    == set["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
        },
    )?;
    ensure(
        set["metadata"]["annotations"]["example.com/owner"] == "someone",
        || "an annotation of someone else must stay".to_owned(),
    )?;
    let maps = stack.owned("configmaps")?;
    for (name, map) in &maps {
        let Some(key) = map["data"].as_object().and_then(|data| data.keys().next()) else {
            continue;
        };
        if map["immutable"] == true {
            continue;
        }
        cluster.patch(
            namespace,
            &format!("configmap/{name}"),
            &json!({"data": {key: "spoiled: true"}}),
        )?;
        cluster.wait_for(
            namespace,
            "configmaps",
            name,
            AT_ONCE,
            "the ConfigMap holds what it did",
            |now| now["data"][key] == map["data"][key],
        )?;
    }
    stack.wait_ready(ROLLOUT_LIMIT)?;
    if context.has_pods() {
        minimal::send_and_find(context, &stack)?;
    }
    // Only the one whose StatefulSet was scaled to none may be another pod now.
    ensure(stack.owned("pods")?.len() == pods.len(), || {
        "there must be as many pods as before".to_owned()
    })
}

/// How long an idle stack is watched.
const IDLE: Duration = Duration::from_secs(60);
/// Reconciles that one idle stack may cost in that time.
const IDLE_RECONCILES: f64 = 15.0;

pub(super) fn reconcile_economy(context: &Context<'_>) -> Outcome {
    let log = context
        .world
        .audit_log
        .as_deref()
        .ok_or_else(|| Failure::new("there is no audit log"))?;
    minimal::ready(context)?;
    // What the last rollout still causes is not idleness.
    thread::sleep(Duration::from_secs(15));
    let begin = fs::metadata(log)?.len();
    let reconciles = reconcile_count(context)?;
    thread::sleep(IDLE);
    let spent = reconcile_count(context)? - reconciles;
    let writes = writes_since(log, begin)?;
    ensure(writes.is_empty(), || {
        format!(
            "{} write requests for an idle stack: {}",
            writes.len(),
            writes.join(", ")
        )
    })?;
    ensure(spent <= IDLE_RECONCILES, || {
        format!("{spent} reconciles within {} s of idleness", IDLE.as_secs())
    })
}

/// Write requests of the operator after the first `begin` bytes of the audit log, leases excepted.
fn writes_since(log: &Path, begin: u64) -> Outcome<Vec<String>> {
    let user = format!("system:serviceaccount:{}:", operator::NAMESPACE);
    let mut file = File::open(log)?;
    file.seek(SeekFrom::Start(begin))?;
    let mut lines = String::new();
    file.read_to_string(&mut lines)?;
    let mut writes = Vec::new();
    for line in lines.lines() {
        // A line that is being written at this moment is none yet.
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let verb = text(&event["verb"]);
        if text(&event["user"]["username"]).starts_with(&user)
            && !["get", "list", "watch"].contains(&verb.as_str())
            && event["objectRef"]["resource"] != "leases"
        {
            writes.push(format!("{verb} {}", text(&event["requestURI"])));
        }
    }
    Ok(writes)
}

/// Reconciles of all stacks since the operator started, from its metrics.
fn reconcile_count(context: &Context<'_>) -> Outcome<f64> {
    let metrics = context.world.operator.metrics()?;
    let counts: Vec<f64> = metrics
        .lines()
        .filter(|line| line.starts_with("tempo_operator_reconcile_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    ensure(!counts.is_empty(), || {
        "the operator has no metric tempo_operator_reconcile_total".to_owned()
    })?;
    Ok(counts.iter().sum())
}

/// Stacks that one operator must look after with ease.
const MANY: usize = 100;
const MANY_SETTLE_LIMIT: Duration = Duration::from_secs(60);
const MANY_MEMORY_BYTES: u64 = 50 * 1024 * 1024;

/// They are stopped: what counts here is the operator, not a node's room for pods.
pub(super) fn hundred_stacks(context: &Context<'_>) -> Outcome {
    let cluster = context.cluster();
    let manifests: String = (0..MANY)
        .map(|number| {
            MINIMAL
                .replace("name: demo", &format!("name: many-{number}"))
                .replace("spec:", "spec:\n  stopped: true")
                + "---"
        })
        .collect();
    let begin = Instant::now();
    context.apply(&manifests)?;
    cluster.wait(
        &context.namespace,
        "tempostacks.tempostack.io",
        "",
        MANY_SETTLE_LIMIT,
        &format!("{MANY} stacks are looked after"),
        |stacks| {
            stacks.len() == MANY
                && stacks.values().all(|stack| {
                    stack["status"]["observedGeneration"] == stack["metadata"]["generation"]
                        && stack["status"]["phase"] == "Stopped"
                })
        },
    )?;
    let settled = begin.elapsed();
    let sets = cluster.list(
        &context.namespace,
        "statefulsets",
        "app.kubernetes.io/managed-by=tempo-operator",
    )?;
    ensure(sets.len() == MANY, || {
        format!("{} StatefulSets for {MANY} stacks", sets.len())
    })?;
    let bytes = context.world.operator.memory()?;
    eprintln!(
        "e2e: {MANY} stacks are settled after {:.1} s; the operator has {} MiB",
        settled.as_secs_f64(),
        bytes >> 20
    );
    ensure(bytes <= MANY_MEMORY_BYTES, || {
        format!("the operator needs {} MiB for {MANY} stacks", bytes >> 20)
    })
}
