//! The gateway: nginx, which asks who comes and names the tenant to Tempo. Passwords it knows itself;
//! tokens and sign-ins of an OpenID provider it has oauth2-proxy look at, in the same pod.

use serde_json::{Value, json};

use super::{Context, HASH_ANNOTATION, pods};
use crate::api::{GatewayAuth, Oidc};
use crate::certificates;
use crate::references::{self, OIDC_CLIENT_SECRET, OIDC_COOKIE_SECRET};
use crate::settings;
use crate::topology::Component;

/// User of nginx in its image.
const USER: u32 = 101;
/// Where oauth2-proxy listens, for nginx alone.
const OIDC_PROXY: &str = "127.0.0.1:4180";

pub(super) fn all(context: &Context<'_>) -> Vec<Value> {
    let gateway = &context.stack.spec.gateway;
    let Some(auth) = gateway.auth.as_ref().filter(|_| gateway.enabled) else {
        return Vec::new();
    };
    let config = nginx(context, auth);
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
        deployment(context, &name, auth, &config),
    ]
}

/// Volumes of the pod, and where nginx finds them.
struct Files {
    volumes: Vec<Value>,
    mounts: Vec<Value>,
}

impl Files {
    fn secret(&mut self, name: &str, secret: &str, folder: &str) {
        self.volumes
            .push(json!({"name": name, "secret": {"secretName": secret}}));
        self.mounts
            .push(json!({"name": name, "mountPath": folder, "readOnly": true}));
    }
}

fn files(context: &Context<'_>, name: &str, auth: &GatewayAuth) -> Files {
    let mut files = Files {
        volumes: vec![
            json!({"name": "config", "configMap": {"name": name}}),
            json!({"name": "tmp", "emptyDir": {}}),
        ],
        mounts: vec![
            json!({"name": "config", "mountPath": "/etc/nginx/nginx.conf", "subPath": "nginx.conf", "readOnly": true}),
            json!({"name": "tmp", "mountPath": "/tmp"}),
        ],
    };
    if let Some(users) = &auth.static_secret_ref {
        files.secret("users", &users.name, "/etc/gateway");
    }
    if let Some(secret) = &context.stack.spec.gateway.tls_secret_ref {
        files.secret("tls", &secret.name, "/etc/gateway-tls");
    }
    if let Some(certificate) = certificates::internal(context.stack) {
        // Of the key it has no need.
        files.volumes.push(json!({"name": "authority", "secret": {
            "secretName": certificate.secret,
            "items": [{"key": "ca.crt", "path": "ca.crt"}],
        }}));
        files.mounts.push(
            json!({"name": "authority", "mountPath": "/etc/gateway-authority", "readOnly": true}),
        );
    }
    files
}

fn deployment(context: &Context<'_>, name: &str, auth: &GatewayAuth, config: &str) -> Value {
    let pods = settings::pods(context.stack, Component::Gateway);
    let hash = references::hash_text(&format!("{config} {}", context.references_hash));
    let Files {
        mut volumes,
        mounts,
    } = files(context, name, auth);
    let scheme = if context.stack.spec.gateway.tls_secret_ref.is_some() {
        "HTTPS"
    } else {
        "HTTP"
    };
    let ready = if auth.oidc.is_some() {
        // By way of nginx, which nobody passes while oauth2-proxy does not answer.
        json!({"httpGet": {"path": "/ping", "port": "gateway", "scheme": scheme}, "periodSeconds": 5})
    } else {
        json!({"tcpSocket": {"port": "gateway"}, "periodSeconds": 5})
    };
    let mut containers = vec![json!({
        "name": "gateway",
        "image": context.defaults.gateway_image,
        "ports": [{"name": "gateway", "containerPort": 8080, "protocol": "TCP"}],
        "resources": pods.resources,
        "securityContext": pods::container_security(&pods),
        "readinessProbe": ready,
        "volumeMounts": mounts,
    })];
    if let Some(oidc) = &auth.oidc {
        containers.push(oidc_proxy(context, oidc));
        if let Some(ca) = &oidc.ca_secret_ref {
            volumes.push(json!({"name": "provider-authority", "secret": {"secretName": ca.name}}));
        }
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
                "securityContext": pods::beside_security(context, USER),
                "imagePullSecrets": context.stack.spec.image_pull_secrets,
                "nodeSelector": pods.node_selector,
                "tolerations": pods.tolerations,
                "priorityClassName": pods.priority_class_name,
                "containers": containers,
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

/// Says of a request who sends it. What it knows of them is nothing but the tenants: whoever has some
/// may come in, whatever their name.
fn oidc_proxy(context: &Context<'_>, oidc: &Oidc) -> Value {
    let mut args = vec![
        "--provider=oidc".to_owned(),
        format!("--oidc-issuer-url={}", oidc.issuer_url),
        format!("--client-id={}", oidc.client_id),
        format!("--oidc-groups-claim={}", oidc.tenant_claim),
        "--oidc-email-claim=sub".to_owned(),
        "--insecure-oidc-allow-unverified-email=true".to_owned(),
        "--email-domain=*".to_owned(),
        format!("--http-address={OIDC_PROXY}"),
        "--reverse-proxy=true".to_owned(),
        "--trusted-proxy-ip=127.0.0.1".to_owned(),
        "--set-xauthrequest=true".to_owned(),
        "--skip-jwt-bearer-tokens=true".to_owned(),
        "--skip-provider-button=true".to_owned(),
        "--upstream=static://202".to_owned(),
        "--request-logging=false".to_owned(),
        "--auth-logging=false".to_owned(),
    ];
    args.extend(
        oidc.extra_audiences
            .iter()
            .map(|audience| format!("--oidc-extra-audience={audience}")),
    );
    args.extend(
        oidc.redirect_url
            .iter()
            .map(|url| format!("--redirect-url={url}")),
    );
    let mut mounts = Vec::new();
    if let Some(ca) = &oidc.ca_secret_ref {
        const FOLDER: &str = "/etc/provider-authority";
        args.push(format!("--provider-ca-file={FOLDER}/{}", ca.key));
        mounts.push(json!({"name": "provider-authority", "mountPath": FOLDER, "readOnly": true}));
    }
    let secret = &oidc.client_secret_ref.name;
    let pods = settings::pods(context.stack, Component::Gateway);
    json!({
        "name": "oidc-proxy",
        "image": context.defaults.oidc_proxy_image,
        "args": args,
        "env": [
            pods::from_secret("OAUTH2_PROXY_CLIENT_SECRET", secret, OIDC_CLIENT_SECRET),
            pods::from_secret("OAUTH2_PROXY_COOKIE_SECRET", secret, OIDC_COOKIE_SECRET),
        ],
        "resources": pods.resources,
        "securityContext": pods::container_security(&pods),
        "volumeMounts": mounts,
    })
}

/// How nginx learns which tenant it is.
struct Tenants {
    /// What stands outside of servers.
    map: &'static str,
    /// What stands in the server.
    asks: String,
    /// The variable with the tenant.
    variable: &'static str,
}

/// The user's name is the tenant, or what the token claims. What the client says it is counts only
/// where a token has several; where none is left, Tempo lets nobody in.
fn tenants(auth: &GatewayAuth) -> Tenants {
    if auth.oidc.is_none() {
        return Tenants {
            map: "",
            asks: "    auth_basic \"tempo\";
    auth_basic_user_file /etc/gateway/htpasswd;
"
            .to_owned(),
            variable: "$remote_user",
        };
    }
    Tenants {
        map: r#"  large_client_header_buffers 4 32k;
  map "$http_x_scope_orgid;$claimed" $tenant {
    default "";
    "~^;(?<only>[^,]+)$" $only;
    "~^(?<asked>[^,;]+);(?:.*,)?\k<asked>(?:,.*)?$" $asked;
  }
"#,
        asks: format!(
            "    auth_request /oauth2/auth;
    auth_request_set $claimed $upstream_http_x_auth_request_groups;
    location = /oauth2/auth {{
      internal;
      auth_request off;
      proxy_pass http://{OIDC_PROXY};
      proxy_pass_request_body off;
      proxy_set_header Content-Length \"\";
      proxy_set_header X-Forwarded-Uri $request_uri;
      proxy_set_header X-Forwarded-Host $host;
    }}
    location /oauth2/ {{
      auth_request off;
      proxy_pass http://{OIDC_PROXY};
      proxy_set_header X-Forwarded-Host $host;
      proxy_set_header X-Forwarded-Proto $scheme;
    }}
    location = /ping {{
      auth_request off;
      proxy_pass http://{OIDC_PROXY};
      proxy_set_header Host $host;
    }}
"
        ),
        variable: "$tenant",
    }
}

/// How connections to the query-frontend are made, where it speaks TLS.
fn upstream_tls(context: &Context<'_>) -> String {
    let Some(certificate) = certificates::internal(context.stack) else {
        return String::new();
    };
    let name = certificate.server_name();
    ["proxy", "grpc"]
        .into_iter()
        .map(|module| {
            format!(
                "  {module}_ssl_verify on;
  {module}_ssl_trusted_certificate /etc/gateway-authority/ca.crt;
  {module}_ssl_name {name};
  {module}_ssl_server_name on;
"
            )
        })
        .collect()
}

fn nginx(context: &Context<'_>, auth: &GatewayAuth) -> String {
    let names = &context.names;
    let distributor = names.host(&names.component(Component::Distributor));
    let frontend = names.host(&names.component(Component::QueryFrontend));
    let tls = if context.stack.spec.gateway.tls_secret_ref.is_some() {
        " ssl;\n    ssl_certificate /etc/gateway-tls/tls.crt;\n    ssl_certificate_key /etc/gateway-tls/tls.key;\n    ssl_protocols TLSv1.2 TLSv1.3"
    } else {
        ""
    };
    let secure = if context.stack.spec.security.internal_tls.is_some() {
        "s"
    } else {
        ""
    };
    let upstream_tls = upstream_tls(context);
    let Tenants {
        map,
        asks,
        variable,
    } = tenants(auth);
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
{upstream_tls}{map}  server {{
    listen 8080{tls};
    http2 on;
{asks}    proxy_set_header X-Scope-OrgID {variable};
    proxy_set_header Authorization \"\";
    proxy_set_header Cookie \"\";
    grpc_set_header X-Scope-OrgID {variable};
    grpc_set_header Authorization \"\";
    grpc_set_header Cookie \"\";
    location = /v1/traces {{ proxy_pass http://{distributor}:4318; }}
    location /opentelemetry.proto.collector.trace.v1.TraceService/ {{ grpc_pass grpc://{distributor}:4317; }}
    location /tempopb.StreamingQuerier/ {{ grpc_pass grpc{secure}://{frontend}:3200; }}
    location /api/ {{ proxy_buffering off; proxy_pass http{secure}://{frontend}:3200; }}
  }}
}}
"
    )
}
