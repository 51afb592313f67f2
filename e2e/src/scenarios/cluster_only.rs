//! What needs more than one node with simple volumes: it is played where the cluster has it.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{AT_ONCE, ROLLOUT_LIMIT, microservices, minimal};
use crate::{
    Failure, Outcome,
    context::{Context, make_namespace},
    ensure,
    traces::{Protocol, until},
};

pub(super) fn node_drain(context: &Context<'_>) -> Outcome {
    let cluster = context.cluster();
    let stack = microservices::ready(context)?;
    let sent = minimal::send_and_find(context, &stack)?;
    let pods = stack.owned("pods")?;
    let node = pods
        .iter()
        .find(|(name, _)| name.contains("live-store-zone-a-0"))
        .and_then(|(_, pod)| pod["spec"]["nodeName"].as_str())
        .ok_or_else(|| Failure::new("no live-store runs on any node"))?;
    let mut draining = cluster
        .command()
        .args([
            "drain",
            node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--timeout=300s",
        ])
        .spawn()?;
    let mut refused = Vec::new();
    let drained = loop {
        // Spans go in all the while, and what was there before is found all the while.
        let pushed = stack.receiver(4317).and_then(|way| {
            let sdk = &context.world.sdk;
            sdk.send(Protocol::Grpc, &way.address, None, "drain", 5)
        });
        let found = stack
            .query(None)
            .and_then(|(_way, query)| query.wait_by_id(&sent[..1], Duration::from_secs(5)));
        refused.extend(pushed.err().into_iter().chain(found.err()));
        if let Some(status) = draining.try_wait()? {
            break status;
        }
    };
    cluster.kubectl(&["uncordon", node])?;
    ensure(drained.success(), || format!("{node} could not be drained"))?;
    ensure(refused.is_empty(), || {
        format!("while {node} was drained: {refused:?}")
    })?;
    stack.wait_ready(Duration::from_secs(240)).map(drop)
}

/// A pod that tries to reach the query API from elsewhere, again and again, and says how it went.
const PROBE: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: probe
spec:
  restartPolicy: Never
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: probe
      image: docker.io/library/busybox:1.37
      command:
        - sh
        - -c
        - while :; do wget -q -T 2 -O - http://TARGET/api/echo && echo || echo refused; sleep 1; done
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
";

pub(super) fn network_policy(context: &Context<'_>) -> Outcome {
    let cluster = context.cluster();
    let stack = minimal::ready(context)?;
    let outside = format!("{}-outside", context.namespace);
    make_namespace(cluster, &outside)?;
    let target = format!("tempo-demo-query-frontend.{}.svc:3200", context.namespace);
    cluster.apply(&outside, &PROBE.replace("TARGET", &target))?;
    let says = |word: &str| {
        until(Instant::now() + ROLLOUT_LIMIT, || {
            let log = cluster.kubectl(&["-n", &outside, "logs", "probe", "--tail=2"])?;
            ensure(
                !log.is_empty() && log.lines().all(|line| line == word),
                || format!("the probe must say {word}: {log}"),
            )
        })
    };
    let policy = |policy| {
        cluster.patch(
            &context.namespace,
            "tempostack/demo",
            &json!({"spec": {"networkPolicy": policy}}),
        )
    };
    let played = says("echo")
        .and_then(|()| policy(json!({"enabled": true})))
        .and_then(|()| says("refused"))
        .and_then(|()| {
            let peer = json!({"namespaceSelector": {"matchLabels": {
                "kubernetes.io/metadata.name": outside,
            }}});
            policy(json!({"enabled": true, "ingressFrom": [peer]}))
        })
        .and_then(|()| says("echo"))
        .and_then(|()| stack.wait_ready(AT_ONCE).map(drop));
    cluster.kubectl(&["delete", "namespace", &outside, "--timeout=60s"])?;
    played
}
