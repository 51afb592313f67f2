//! Volumes that grow.

use serde_json::{Value, json};

use super::{AT_ONCE, ROLLOUT_LIMIT};
use crate::{
    Outcome,
    cluster::Cluster,
    context::Context,
    ensure,
    stack::{MINIMAL, READY_LIMIT, Stack, condition, only, uids},
};

const ASKED: &str = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage";

fn asks_for(set: &Value, size: &str) -> bool {
    set.pointer(ASKED).is_some_and(|asked| asked == size)
}

pub(super) fn resize(context: &Context<'_>) -> Outcome {
    let cluster = context.cluster();
    context.apply(&MINIMAL.replace("10Gi", "1Gi"))?;
    let stack = context.stack("demo");
    stack.wait_ready(READY_LIMIT)?;
    let pods = uids(&stack.owned("pods")?);
    let resize = |size: &str| {
        cluster.patch(
            &context.namespace,
            "tempostack/demo",
            &json!({"spec": {"storage": {"local": {"size": size}}}}),
        )
    };
    resize("2Gi")?;
    cluster.wait(
        &context.namespace,
        "persistentvolumeclaims",
        "",
        ROLLOUT_LIMIT,
        "the volume has 2Gi",
        |claims| {
            claims
                .values()
                .all(|claim| claim["status"]["capacity"]["storage"] == "2Gi")
        },
    )?;
    stack.wait_owned(
        "statefulsets",
        ROLLOUT_LIMIT,
        "the StatefulSet asks for 2Gi",
        |sets| sets.values().all(|set| asks_for(set, "2Gi")),
    )?;
    ensure(uids(&stack.owned("pods")?) == pods, || {
        "pods must go on while their volume grows".to_owned()
    })?;
    ensure(resize("1Gi").is_err(), || {
        "a volume can't shrink, but the API server took it".to_owned()
    })
}

/// Without a node nobody makes a volume larger, but the API server checks who may ask.
pub(super) fn claims(context: &Context<'_>) -> Outcome {
    let cluster = context.cluster();
    let class = context.namespace.clone();
    let made = make_volumes(cluster, &class).and_then(|()| grow(context, &class));
    let removed = cluster.kubectl(&[
        "delete",
        "storageclass,persistentvolume",
        "-l",
        &format!("e2e={class}"),
        "--wait=false",
    ]);
    made?;
    removed.map(drop)
}

/// A class whose volumes can't grow, and one volume of it.
fn make_volumes(cluster: &Cluster, class: &str) -> Outcome {
    cluster.apply(
        "default",
        &format!(
            "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: {class}, labels: {{e2e: {class}}}}}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: Immediate
---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {class}, labels: {{e2e: {class}}}}}
spec:
  storageClassName: {class}
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce]
  hostPath: {{path: /nowhere}}
"
        ),
    )
}

fn grow(context: &Context<'_>, class: &str) -> Outcome {
    let cluster = context.cluster();
    let namespace = &context.namespace;
    let local = format!("size: 1Gi\n      storageClassName: {class}");
    context.apply(&MINIMAL.replace("size: 10Gi", &local))?;
    let stack = context.stack("demo");
    stack.wait_ready(READY_LIMIT)?;
    cluster.wait(
        namespace,
        "persistentvolumeclaims",
        "",
        AT_ONCE,
        "the claim has its volume",
        |claims| {
            claims
                .values()
                .all(|claim| claim["status"]["phase"] == "Bound")
        },
    )?;
    let pods = uids(&stack.owned("pods")?);
    let patch = |spec: Value| cluster.patch(namespace, "tempostack/demo", &json!({"spec": spec}));

    // Refused by the API server: told, and everything else is done.
    patch(json!({
        "storage": {"local": {"size": "2Gi"}},
        "exposure": {"ingress": {"host": "tempo.example"}},
    }))?;
    let told = stack.wait_condition("VolumesGrown", "False", "CannotGrow", AT_ONCE)?;
    let message = condition(&told, "VolumesGrown").map(|told| told["message"].to_string());
    ensure(
        message
            .as_ref()
            .is_some_and(|message| message.contains("allowVolumeExpansion")),
        || format!("the message must tell the way on: {message:?}"),
    )?;
    stack.wait_owned("ingresses", AT_ONCE, "the rest of the edit", |found| {
        !found.is_empty()
    })?;
    let before = set(&stack)?;
    ensure(asks_for(&before, "1Gi"), || {
        format!("what can't grow must stay: {}", before["spec"])
    })?;

    // A class that allows it, and the next edit.
    cluster.kubectl(&[
        "patch",
        "storageclass",
        class,
        "-p",
        "{\"allowVolumeExpansion\": true}",
    ])?;
    patch(json!({"exposure": null}))?;
    stack.wait_owned(
        "statefulsets",
        AT_ONCE,
        "the StatefulSet asks for 2Gi",
        |sets| sets.values().any(|set| asks_for(set, "2Gi")),
    )?;
    let claims = cluster.list(namespace, "persistentvolumeclaims", "")?;
    let (name, claim) = only(&claims, "PersistentVolumeClaim")?;
    ensure(
        claim["spec"]["resources"]["requests"]["storage"] == "2Gi",
        || format!("{name} asks for {}", claim["spec"]["resources"]),
    )?;
    let after = set(&stack)?;
    ensure(
        before["metadata"]["uid"] != after["metadata"]["uid"],
        || "the template of claims can't change in place".to_owned(),
    )?;
    // The pods of the old one are those of the new one.
    stack.wait_owned(
        "pods",
        AT_ONCE,
        "pods belong to the new StatefulSet",
        |pods| {
            !pods.is_empty()
                && pods.values().all(|pod| {
                    pod["metadata"]["ownerReferences"][0]["uid"] == after["metadata"]["uid"]
                })
        },
    )?;
    stack.wait(ROLLOUT_LIMIT, "nothing is amiss any more", |stack| {
        condition(stack, "VolumesGrown").is_none()
            && condition(stack, "Ready").is_some_and(|ready| ready["status"] == "True")
    })?;
    let now = uids(&stack.owned("pods")?);
    ensure(now == pods, || {
        format!("pods must go on while their volume grows: {pods:?} became {now:?}")
    })
}

fn set(stack: &Stack<'_>) -> Outcome<Value> {
    let sets = stack.owned("statefulsets")?;
    only(&sets, "StatefulSet").map(|(_, set)| set.clone())
}
