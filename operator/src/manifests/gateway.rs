//! The gateway: nginx, which asks for a password and names the tenant to Tempo.

use serde_json::{Value, json};

use super::{Context, HASH_ANNOTATION, pods};
use crate::references;
use crate::settings;
use crate::topology::Component;

pub(super) fn all(context: &Context<'_>) -> Vec<Value> {
    let gateway = &context.stack.spec.gateway;
    let Some(auth) = gateway.auth.as_ref().filter(|_| gateway.enabled) else {
        return Vec::new();
    };
    let config = nginx(context);
    let name = context.names.component(Component::Gateway);
    vec![
        context.object(
            "v1",
            "ConfigMap",
            &name,
            context.labels(Component::Gateway),
            json!({"data": {"nginx.conf": config}}),
        ),
        context.object(
            "v1",
            "Service",
            &name,
            context.labels(Component::Gateway),
            json!({"spec": {
                "selector": context.selector(Component::Gateway),
                "ports": [{"name": "gateway", "port": 8080, "targetPort": "gateway", "protocol": "TCP"}],
            }}),
        ),
        deployment(context, &name, &auth.static_secret_ref.name, &config),
    ]
}

fn deployment(context: &Context<'_>, name: &str, users: &str, config: &str) -> Value {
    let pods = settings::pods(context.stack, Component::Gateway);
    let hash = references::hash_text(&format!("{config} {}", context.references_hash));
    let mut volumes = vec![
        json!({"name": "config", "configMap": {"name": name}}),
        json!({"name": "users", "secret": {"secretName": users}}),
        json!({"name": "tmp", "emptyDir": {}}),
    ];
    let mut mounts = vec![
        json!({"name": "config", "mountPath": "/etc/nginx/nginx.conf", "subPath": "nginx.conf", "readOnly": true}),
        json!({"name": "users", "mountPath": "/etc/gateway", "readOnly": true}),
        json!({"name": "tmp", "mountPath": "/tmp"}),
    ];
    if let Some(secret) = &context.stack.spec.gateway.tls_secret_ref {
        volumes.push(json!({"name": "tls", "secret": {"secretName": secret.name}}));
        mounts.push(json!({"name": "tls", "mountPath": "/etc/gateway-tls", "readOnly": true}));
    }
    let running = !context.stack.spec.stopped;
    let mut spec = json!({
        "selector": {"matchLabels": context.selector(Component::Gateway)},
        "template": {
            "metadata": {
                "labels": context.labels(Component::Gateway),
                "annotations": {HASH_ANNOTATION: hash},
            },
            "spec": {
                "automountServiceAccountToken": false,
                "serviceAccountName": super::service_account_name(context.stack),
                "securityContext": {"runAsNonRoot": true, "runAsUser": 101, "seccompProfile": {"type": "RuntimeDefault"}},
                "imagePullSecrets": context.stack.spec.image_pull_secrets,
                "nodeSelector": pods.node_selector,
                "tolerations": pods.tolerations,
                "priorityClassName": pods.priority_class_name,
                "containers": [{
                    "name": "gateway",
                    "image": context.defaults.gateway_image,
                    "ports": [{"name": "gateway", "containerPort": 8080, "protocol": "TCP"}],
                    "resources": pods.resources,
                    "securityContext": pods::container_security(&pods),
                    "readinessProbe": {"tcpSocket": {"port": "gateway"}, "periodSeconds": 5},
                    "volumeMounts": mounts,
                }],
                "volumes": volumes,
            },
        },
    });
    if pods.autoscaling.is_none() {
        spec["replicas"] = json!(if running {
            settings::replicas(context.stack, Component::Gateway)
        } else {
            0
        });
    }
    context.object(
        "apps/v1",
        "Deployment",
        name,
        context.labels(Component::Gateway),
        json!({"spec": spec}),
    )
}

/// The user's name is the tenant; what the client says it is does not count.
fn nginx(context: &Context<'_>) -> String {
    let names = &context.names;
    let distributor = names.host(&names.component(Component::Distributor));
    let frontend = names.host(&names.component(Component::QueryFrontend));
    let tls = if context.stack.spec.gateway.tls_secret_ref.is_some() {
        " ssl;\n    ssl_certificate /etc/gateway-tls/tls.crt;\n    ssl_certificate_key /etc/gateway-tls/tls.key;\n    ssl_protocols TLSv1.2 TLSv1.3"
    } else {
        ""
    };
    format!(
        "worker_processes auto;
pid /tmp/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  client_max_body_size 20m;
  proxy_read_timeout 300s;
  grpc_read_timeout 300s;
  grpc_send_timeout 300s;
  server {{
    listen 8080{tls};
    http2 on;
    auth_basic \"tempo\";
    auth_basic_user_file /etc/gateway/htpasswd;
    proxy_set_header X-Scope-OrgID $remote_user;
    proxy_set_header Authorization \"\";
    grpc_set_header X-Scope-OrgID $remote_user;
    grpc_set_header Authorization \"\";
    location = /v1/traces {{ proxy_pass http://{distributor}:4318; }}
    location /opentelemetry.proto.collector.trace.v1.TraceService/ {{ grpc_pass grpc://{distributor}:4317; }}
    location /tempopb.StreamingQuerier/ {{ grpc_pass grpc://{frontend}:3200; }}
    location /api/ {{ proxy_buffering off; proxy_pass http://{frontend}:3200; }}
  }}
}}
"
    )
}
