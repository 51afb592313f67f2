//! Autoscalers of what may scale freely.

use serde_json::{Value, json};

use super::Context;
use crate::api::Autoscaling;
use crate::settings;
use crate::topology::Component;

const DEFAULT_CPU_PERCENT: u32 = 70;

pub(super) fn all(context: &Context<'_>) -> Vec<Value> {
    let mut components = context.components();
    components.extend(context.beside());
    components
        .into_iter()
        .filter_map(|component| {
            let runs = context
                .topology
                .cluster
                .as_ref()
                .is_some_and(|cluster| match component {
                    Component::BackendWorker => cluster.workers,
                    _ => cluster.others,
                })
                || component == Component::Gateway;
            let scaling = settings::pods(context.stack, component).autoscaling?;
            if !runs || component == Component::Monolith {
                return None;
            }
            match scaling.target_outstanding_blocks {
                Some(blocks) => context
                    .capabilities
                    .keda
                    .then(|| scaled_object(context, component, &scaling, blocks)),
                None => Some(by_cpu(context, component, &scaling)),
            }
        })
        .collect()
}

fn target(context: &Context<'_>, component: Component) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": if component.is_stateful() { "StatefulSet" } else { "Deployment" },
        "name": context.names.component(component),
    })
}

fn by_cpu(context: &Context<'_>, component: Component, scaling: &Autoscaling) -> Value {
    let percent = scaling
        .target_cpu_utilization
        .unwrap_or(DEFAULT_CPU_PERCENT);
    context.object(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        &context.names.component(component),
        context.labels(component),
        json!({"spec": {
            "scaleTargetRef": target(context, component),
            "minReplicas": scaling.min_replicas,
            "maxReplicas": scaling.max_replicas,
            "metrics": [{"type": "Resource", "resource": {
                "name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": percent},
            }}],
            "behavior": scaling.behavior,
        }}),
    )
}

fn scaled_object(
    context: &Context<'_>,
    component: Component,
    scaling: &Autoscaling,
    blocks: u32,
) -> Value {
    let namespace = &context.names.namespace;
    let query = format!(
        "sum(tempodb_compaction_outstanding_blocks{{namespace=\"{namespace}\",container=\"backend-scheduler\"}})"
    );
    context.object(
        "keda.sh/v1alpha1",
        "ScaledObject",
        &context.names.component(component),
        context.labels(component),
        json!({"spec": {
            "scaleTargetRef": target(context, component),
            "minReplicaCount": scaling.min_replicas,
            "maxReplicaCount": scaling.max_replicas,
            "triggers": [{"type": "prometheus", "metadata": {
                "serverAddress": scaling
                    .prometheus_address
                    .as_deref()
                    .unwrap_or("http://prometheus-operated.monitoring.svc:9090"),
                "query": query,
                "threshold": blocks.to_string(),
            }}],
        }}),
    )
}
