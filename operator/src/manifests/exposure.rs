//! Ingress and routes of the Gateway API.

use serde_json::{Value, json};

use super::Context;
use crate::topology::Component;

pub(super) fn all(context: &Context<'_>) -> Vec<Value> {
    let exposure = &context.stack.spec.exposure;
    let mut objects = Vec::new();
    if exposure.ingress.is_some() {
        objects.extend(ingress(context));
    }
    if exposure.gateway_api.is_some() && context.capabilities.gateway_api {
        objects.extend(routes(context));
    }
    objects
}

/// Service and port of queries: the gateway's where there is one.
fn query_backend(context: &Context<'_>) -> (String, u16) {
    if context.stack.spec.gateway.enabled {
        (context.names.component(Component::Gateway), 8080)
    } else {
        (context.names.component(Component::QueryFrontend), 3200)
    }
}

fn ingress(context: &Context<'_>) -> Option<Value> {
    let ingress = context.stack.spec.exposure.ingress.as_ref()?;
    let (service, port) = query_backend(context);
    let tls = ingress
        .tls_secret_name
        .as_ref()
        .map(|secret| json!([{"hosts": [ingress.host], "secretName": secret}]));
    Some(context.object(
        "networking.k8s.io/v1",
        "Ingress",
        &context.names.shared(),
        context.shared_labels(),
        json!({
            "metadata": {"annotations": ingress.annotations},
            "spec": {
                "ingressClassName": ingress.class_name,
                "tls": tls,
                "rules": [{"host": ingress.host, "http": {"paths": [{
                    "path": "/",
                    "pathType": "Prefix",
                    "backend": {"service": {"name": service, "port": {"number": port}}},
                }]}}],
            },
        }),
    ))
}

fn routes(context: &Context<'_>) -> Vec<Value> {
    let Some(api) = &context.stack.spec.exposure.gateway_api else {
        return Vec::new();
    };
    let (query, query_port) = query_backend(context);
    let gated = context.stack.spec.gateway.enabled;
    let distributor = if gated {
        query.clone()
    } else {
        context.names.component(Component::Distributor)
    };
    let parents = json!(api.parent_refs);
    let mut http_rules = Vec::new();
    if context.stack.spec.receivers.otlp.http {
        let port = if gated { query_port } else { 4318 };
        http_rules.push(json!({
            "matches": [{"path": {"type": "Exact", "value": "/v1/traces"}}],
            "backendRefs": [{"name": distributor, "port": port}],
        }));
    }
    http_rules.push(json!({
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "backendRefs": [{"name": query, "port": query_port}],
    }));
    let mut grpc_rules = vec![json!({
        "matches": [{"method": {"service": "tempopb.StreamingQuerier"}}],
        "backendRefs": [{"name": query, "port": query_port}],
    })];
    if context.stack.spec.receivers.otlp.grpc {
        let port = if gated { query_port } else { 4317 };
        grpc_rules.push(json!({
            "matches": [{"method": {"service": "opentelemetry.proto.collector.trace.v1.TraceService"}}],
            "backendRefs": [{"name": distributor, "port": port}],
        }));
    }
    [("HTTPRoute", http_rules), ("GRPCRoute", grpc_rules)]
        .into_iter()
        .map(|(kind, rules)| {
            context.object(
                "gateway.networking.k8s.io/v1",
                kind,
                &context.names.shared(),
                context.shared_labels(),
                json!({"spec": {
                    "parentRefs": parents,
                    "hostnames": api.hostnames,
                    "rules": rules,
                }}),
            )
        })
        .collect()
}
