//! PodDisruptionBudgets and NetworkPolicies.

use serde_json::{Value, json};

use super::Context;
use crate::settings;
use crate::topology::Component;

pub(super) fn all(context: &Context<'_>) -> Vec<Value> {
    let mut objects = disruption_budgets(context);
    if context.stack.spec.network_policy.enabled {
        objects.push(network_policy(context));
    }
    objects
}

/// Whether evictions of a component are held back, and it has pods to spare.
fn has_budget(context: &Context<'_>, component: Component) -> bool {
    let stack = context.stack;
    match component {
        // One of them has nobody to stand in, and a budget would only block a drain of its node.
        Component::Monolith | Component::BackendScheduler | Component::BackendWorker => false,
        Component::LiveStore => context
            .topology
            .cluster
            .as_ref()
            .is_some_and(|cluster| cluster.live_stores.iter().sum::<u32>() > 1),
        Component::BlockBuilder => context
            .topology
            .cluster
            .as_ref()
            .is_some_and(|cluster| cluster.block_builders > 1),
        component => {
            let pods = settings::pods(stack, component);
            let fewest = pods.autoscaling.map_or_else(
                || settings::replicas(stack, component),
                |scaling| scaling.min_replicas,
            );
            fewest > 1
        }
    }
}

fn disruption_budgets(context: &Context<'_>) -> Vec<Value> {
    let mut components = context.components();
    components.extend(context.beside());
    components
        .into_iter()
        .filter(|component| has_budget(context, *component))
        .map(|component| {
            // Of live-stores one over all zones: never two owners of one partition.
            context.object(
                "policy/v1",
                "PodDisruptionBudget",
                &context.names.component(component),
                context.labels(component),
                json!({"spec": {
                    "maxUnavailable": 1,
                    "selector": {"matchLabels": context.selector(component)},
                }}),
            )
        })
        .collect()
}

/// Pods of the stack talk to each other; others come in by the ports that are for them.
fn network_policy(context: &Context<'_>) -> Value {
    let policy = &context.stack.spec.network_policy;
    let stack = json!({
        "app.kubernetes.io/name": "tempo",
        "app.kubernetes.io/instance": context.names.stack(),
    });
    let has_gateway = context.stack.spec.gateway.enabled;
    let mut open = Vec::new();
    if !has_gateway || context.stack.spec.observability.service_monitor.enabled {
        open.push(3200);
    }
    if !has_gateway {
        open.push(9095);
    }
    open.extend(
        super::services::receiver_ports(context.stack)
            .into_iter()
            // What the gateway offers nobody has to go around it for.
            .filter(|(name, _)| !has_gateway || !name.starts_with("otlp"))
            .map(|(_, port)| port),
    );
    if has_gateway {
        open.push(8080);
    }
    let open: Vec<Value> = open
        .into_iter()
        .map(|port| json!({"port": port, "protocol": "TCP"}))
        .collect();
    let mut outside = json!({"ports": open});
    if !policy.ingress_from.is_empty() {
        outside["from"] = json!(policy.ingress_from);
    }
    let mut spec = json!({
        "podSelector": {"matchLabels": stack},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": stack}}]},
            // The operator drains partitions, and asks how far pods are.
            {
                "from": [{
                    "namespaceSelector": {},
                    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "tempo-operator"}},
                }],
                "ports": [{"port": 3200, "protocol": "TCP"}],
            },
            outside,
        ],
    });
    if !policy.egress_to.is_empty() {
        spec["policyTypes"] = json!(["Ingress", "Egress"]);
        spec["egress"] = json!([
            {"to": [{"podSelector": {"matchLabels": stack}}]},
            {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
            {"to": policy.egress_to},
        ]);
    }
    context.object(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        &context.names.shared(),
        context.shared_labels(),
        json!({"spec": spec}),
    )
}
