//! memcached: a StatefulSet, so that a pod that is made anew is asked for the same keys, and a Service
//! that names every pod.

use serde_json::{Value, json};

use super::{Context, pods};
use crate::merge;
use crate::settings;
use crate::topology::Component;

const PORT: u16 = 11_211;
/// What memcached needs besides what it keeps: a tenth, and this.
const MORE_MIB: u32 = 64;
/// The largest value that is sent to it, with its key.
const MAX_ITEM: &str = "2m";

pub(super) fn all(context: &Context<'_>) -> Vec<Value> {
    if !context.stack.spec.caches.memcached.enabled {
        return Vec::new();
    }
    let name = context.names.component(Component::Memcached);
    vec![service(context, &name), stateful_set(context, &name)]
}

fn service(context: &Context<'_>, name: &str) -> Value {
    context.object(
        "v1",
        "Service",
        name,
        context.labels(Component::Memcached),
        json!({"spec": {
            "clusterIP": "None",
            "selector": context.selector(Component::Memcached),
            "ports": [{"name": "memcached", "port": PORT, "targetPort": "memcached", "protocol": "TCP"}],
        }}),
    )
}

fn stateful_set(context: &Context<'_>, name: &str) -> Value {
    let stack = context.stack;
    let pods = settings::pods(stack, Component::Memcached);
    let kept = stack.spec.caches.memcached.memory_mib;
    let needed = format!("{}Mi", kept + kept / 10 + MORE_MIB);
    let resources = pods.resources.as_ref().map_or_else(
        || {
            json!({
                "requests": {"cpu": "50m", "memory": needed},
                "limits": {"memory": needed},
            })
        },
        |resources| json!(resources),
    );
    let mut labels = json!(pods.pod_labels);
    merge::deep(&mut labels, &context.labels(Component::Memcached));
    let mut template = json!({
        "metadata": {"labels": labels, "annotations": pods.pod_annotations},
        "spec": {
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "serviceAccountName": super::service_account_name(stack),
            "securityContext": pods::beside_security(context, 11_211),
            "imagePullSecrets": stack.spec.image_pull_secrets,
            "nodeSelector": pods.node_selector,
            "affinity": pods::affinity(context, Component::Memcached, &pods, None),
            "tolerations": pods.tolerations,
            "topologySpreadConstraints": pods.topology_spread_constraints,
            "priorityClassName": pods.priority_class_name,
            "terminationGracePeriodSeconds": pods.termination_grace_period_seconds,
            "containers": [{
                "name": "memcached",
                "image": context.defaults.memcached_image,
                "args": ["-m", kept.to_string(), "-I", MAX_ITEM, "-c", "4096"],
                "env": pods.env,
                "envFrom": pods.env_from,
                "ports": [{"name": "memcached", "containerPort": PORT, "protocol": "TCP"}],
                "resources": resources,
                "securityContext": pods::container_security(&pods),
                "readinessProbe": {"tcpSocket": {"port": "memcached"}, "periodSeconds": 5},
                "livenessProbe": {"tcpSocket": {"port": "memcached"}, "periodSeconds": 20, "failureThreshold": 6},
            }],
        },
    });
    merge::prune(&mut template);
    let replicas = if stack.spec.stopped {
        0
    } else {
        settings::replicas(stack, Component::Memcached)
    };
    context.object(
        "apps/v1",
        "StatefulSet",
        name,
        context.labels(Component::Memcached),
        json!({"spec": {
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "revisionHistoryLimit": 5,
            "replicas": replicas,
            "selector": {"matchLabels": context.selector(Component::Memcached)},
            "template": template,
        }}),
    )
}
