//! The chart: what Helm makes of it, refuses, upgrades and leaves.

use std::time::Duration;

use super::ROLLOUT_LIMIT;
use crate::{
    Outcome,
    context::Context,
    ensure,
    operator::{self, Operator, pod_is_ready},
};

/// Settings that must be refused, and words of the answer.
const REFUSED: &[(&str, &str)] = &[
    ("image.repositry=x", "repositry"),
    ("replicas=many", "replicas"),
    ("image.digest=sha256:abc", "digest"),
    ("watchNamespace=Not_A_Name", "watchNamespace"),
    ("metrics.serviceMonitor.interval=often", "interval"),
    (
        "metrics.service.enabled=false,metrics.serviceMonitor.enabled=true",
        "metrics.service.enabled",
    ),
    ("serviceAccount.create=false", "serviceAccount.name"),
];

/// Settings with which the API server must take what comes out.
const ACCEPTED: &[&str] = &[
    "replicas=2",
    "crds.keep=false",
    "watchNamespace=default",
    "rbac.create=false",
    "metrics.service.enabled=false",
    "serviceAccount.create=false,serviceAccount.name=mine",
    "priorityClassName=system-cluster-critical,nodeSelector.disk=ssd,podLabels.team=a,extraArgs={--help}",
    "image.digest=sha256:0123456789012345678901234567890123456789012345678901234567890123",
];

pub(super) fn chart(context: &Context<'_>) -> Outcome {
    let operator = &context.world.operator;
    let chart = operator.chart().display().to_string();
    operator.helm(&["lint", "--strict", &chart])?;
    for (setting, word) in REFUSED {
        let answer = match operator.helm(&["template", "x", &chart, "--set", setting]) {
            Ok(_) => String::new(),
            Err(failure) => failure.to_string(),
        };
        ensure(answer.contains(word), || {
            format!("--set {setting} must be refused for {word}: {answer:?}")
        })?;
    }
    for setting in ACCEPTED {
        let manifests = operator.helm(&[
            "template",
            "x",
            &chart,
            "--namespace",
            &context.namespace,
            "--set",
            setting,
        ])?;
        let said = context.cluster().attempt(
            &[
                "apply",
                "--server-side",
                "--dry-run=server",
                "--force-conflicts",
                "-f",
                "-",
            ],
            &manifests,
        )?;
        ensure(said.success, || {
            format!("--set {setting}: the API server refuses: {}", said.stderr)
        })?;
    }
    install_upgrade_uninstall(context, operator)?;
    crd_upgrade(context, operator)
}

/// A release of its own, beside the one that all scenarios share.
fn install_upgrade_uninstall(context: &Context<'_>, operator: &Operator) -> Outcome {
    let (cluster, namespace) = (context.cluster(), context.namespace.as_str());
    let narrow = format!("watchNamespace={namespace}");
    let settings = [
        "crds.install=false",
        "fullnameOverride=chart",
        narrow.as_str(),
    ];
    let notes = operator.install("chart", namespace, &settings)?;
    ensure(
        notes.contains("kind: TempoStack") && notes.contains(namespace),
        || format!("the notes do not help: {notes}"),
    )?;
    let upgraded = [&settings[..], &["replicas=2", "log.level=debug"]].concat();
    operator.install("chart", namespace, &upgraded)?;
    cluster.wait(
        namespace,
        "pods",
        "app.kubernetes.io/instance=chart",
        ROLLOUT_LIMIT,
        "two pods are ready",
        |pods| pods.len() == 2 && pods.values().all(pod_is_ready),
    )?;
    operator.helm(&["rollback", "chart", "1", "--namespace", namespace, "--wait"])?;
    cluster.wait(
        namespace,
        "pods",
        "app.kubernetes.io/instance=chart",
        ROLLOUT_LIMIT,
        "one pod is ready",
        |pods| pods.len() == 1 && pods.values().all(pod_is_ready),
    )?;
    operator.helm(&["uninstall", "chart", "--namespace", namespace, "--wait"])?;
    for kind in [
        "deployments",
        "roles",
        "rolebindings",
        "services",
        "poddisruptionbudgets",
    ] {
        cluster.wait_gone(
            namespace,
            kind,
            "app.kubernetes.io/instance=chart",
            Duration::from_secs(30),
        )?;
    }
    Ok(())
}

/// A release with an older CRD gets the newer one by `helm upgrade`, and keeps its stacks.
fn crd_upgrade(context: &Context<'_>, operator: &Operator) -> Outcome {
    const CRD: &str = "customresourcedefinition/tempostacks.tempostack.io";
    let cluster = context.cluster();
    let columns = || {
        cluster.kubectl(&[
            "get",
            CRD,
            "-o",
            "jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}",
        ])
    };
    context.apply(
        "apiVersion: tempostack.io/v1alpha1\nkind: TempoStack\nmetadata: {name: kept}\n\
         spec: {paused: true, storage: {local: {}}}\n",
    )?;
    let uid = context.stack("kept").get()?["metadata"]["uid"].clone();
    let older = operator.with_changed_crd(|crd| crd.replace("name: Mode", "name: Kind"))?;
    older.install_shared()?;
    let before = columns()?;
    operator.install_shared()?;
    let after = columns()?;
    ensure(before.contains("Kind") && !after.contains("Kind"), || {
        format!("the CRD was not upgraded: columns {before:?} became {after:?}")
    })?;
    let labels = cluster.must_get("", CRD)?["metadata"]["annotations"].clone();
    ensure(labels["helm.sh/resource-policy"] == "keep", || {
        format!("uninstalling would take the CRD and all stacks: {labels}")
    })?;
    let now = context.stack("kept").get()?["metadata"]["uid"].clone();
    ensure(now == uid, || {
        format!("the upgrade of {} took the stacks", operator::RELEASE)
    })
}
