//! Services. Those of distributor and query-frontend are the stack's addresses: they keep their
//! names in both modes, and only their selectors move.

use serde_json::{Value, json};

use super::{Context, MEMBER_LABEL, ZONE_LABEL, pods::Zone};
use crate::api::{Mode, TempoStack};
use crate::topology::Component;

/// Ports of the receivers: name and number.
pub(crate) fn receiver_ports(stack: &TempoStack) -> Vec<(&'static str, u16)> {
    let receivers = &stack.spec.receivers;
    [
        (receivers.otlp.grpc, "otlp-grpc", 4317),
        (receivers.otlp.http, "otlp-http", 4318),
        (receivers.jaeger.enabled, "jaeger-grpc", 14250),
        (receivers.jaeger.enabled, "jaeger-http", 14268),
        (receivers.zipkin.enabled, "zipkin", 9411),
    ]
    .into_iter()
    .filter(|(enabled, _, _)| *enabled)
    .map(|(_, name, port)| (name, port))
    .collect()
}

pub(super) fn all(context: &Context<'_>) -> Vec<Value> {
    let mut services = vec![
        distributor(context),
        query_frontend(context),
        gossip(context),
    ];
    for component in context.components() {
        match component {
            Component::Distributor => {}
            Component::QueryFrontend => services.push(discovery(context)),
            Component::LiveStore => {
                let zones = context
                    .topology
                    .cluster
                    .as_ref()
                    .map_or(0, |cluster| cluster.live_stores.len());
                services.extend((0..zones).map(|index| live_stores(context, Zone { index })));
            }
            component => services.push(internal(context, component)),
        }
    }
    services
}

fn port(name: &str, number: u16) -> Value {
    json!({"name": name, "port": number, "targetPort": name, "protocol": "TCP"})
}

fn service(context: &Context<'_>, name: &str, component: Component, spec: Value) -> Value {
    let mut service = context.object(
        "v1",
        "Service",
        name,
        context.labels(component),
        json!({"spec": spec}),
    );
    let families = &context.stack.spec.exposure.service.ip_families;
    if !families.is_empty() {
        service["spec"]["ipFamilies"] = json!(families);
        service["spec"]["ipFamilyPolicy"] = json!(if families.len() > 1 {
            "RequireDualStack"
        } else {
            "SingleStack"
        });
    }
    service
}

fn exposed(context: &Context<'_>, mut service: Value) -> Value {
    let exposure = &context.stack.spec.exposure.service;
    service["spec"]["type"] = json!(exposure.kind);
    if !exposure.annotations.is_empty() {
        service["metadata"]["annotations"] = json!(exposure.annotations);
    }
    service
}

/// Where spans go.
fn distributor(context: &Context<'_>) -> Value {
    let behind = match context.topology.writes {
        Mode::Monolithic => Component::Monolith,
        Mode::Microservices => Component::Distributor,
    };
    let mut ports: Vec<Value> = receiver_ports(context.stack)
        .into_iter()
        .map(|(name, number)| port(name, number))
        .collect();
    ports.push(port("http", 3200));
    exposed(
        context,
        service(
            context,
            &context.names.component(Component::Distributor),
            Component::Distributor,
            json!({"selector": context.selector(behind), "ports": ports}),
        ),
    )
}

/// Where queries go.
fn query_frontend(context: &Context<'_>) -> Value {
    let behind = match context.topology.reads {
        Mode::Monolithic => Component::Monolith,
        Mode::Microservices => Component::QueryFrontend,
    };
    exposed(
        context,
        service(
            context,
            &context.names.component(Component::QueryFrontend),
            Component::QueryFrontend,
            json!({
                "selector": context.selector(behind),
                "ports": [port("http", 3200), port("grpc", 9095)],
            }),
        ),
    )
}

/// Where queriers find every frontend, ready or not: a frontend is ready once queriers came.
fn discovery(context: &Context<'_>) -> Value {
    service(
        context,
        &context.names.with("query-frontend-discovery"),
        Component::QueryFrontend,
        json!({
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": context.selector(Component::QueryFrontend),
            "ports": [port("grpc", 9095), port("http", 3200)],
        }),
    )
}

/// Labels of the Service that is in front of every pod.
pub(super) fn gossip_labels(context: &Context<'_>) -> Value {
    let mut labels = context.shared_labels();
    labels["app.kubernetes.io/component"] = json!("gossip-ring");
    labels
}

/// Where members find each other, and where Prometheus finds every pod once.
fn gossip(context: &Context<'_>) -> Value {
    let mut service = context.object(
        "v1",
        "Service",
        &context.names.with("gossip-ring"),
        gossip_labels(context),
        json!({"spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": {
                "app.kubernetes.io/name": "tempo",
                "app.kubernetes.io/instance": context.names.stack(),
                MEMBER_LABEL: "true",
            },
            "ports": [
                port("http", 3200),
                port("gossip", 7946),
                {"name": "gossip-udp", "port": 7946, "targetPort": "gossip-udp", "protocol": "UDP"},
            ],
        }}),
    );
    let families = &context.stack.spec.exposure.service.ip_families;
    if !families.is_empty() {
        service["spec"]["ipFamilies"] = json!(families);
    }
    service
}

/// The governing Service of a zone's StatefulSet: its pods have names of their own.
fn live_stores(context: &Context<'_>, zone: Zone) -> Value {
    let mut selector = context.selector(Component::LiveStore);
    selector[ZONE_LABEL] = json!(zone.name());
    service(
        context,
        &context.names.live_store(zone.index),
        Component::LiveStore,
        json!({
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": selector,
            "ports": [port("http", 3200), port("grpc", 9095)],
        }),
    )
}

/// For metrics, and for components that others call.
fn internal(context: &Context<'_>, component: Component) -> Value {
    let mut spec = json!({
        "selector": context.selector(component),
        "ports": [port("http", 3200), port("grpc", 9095)],
    });
    if component.is_stateful() {
        spec["clusterIP"] = json!("None");
        spec["publishNotReadyAddresses"] = json!(true);
    }
    service(
        context,
        &context.names.component(component),
        component,
        spec,
    )
}
