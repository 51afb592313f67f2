//! The pod of a component.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    Context, HASH_ANNOTATION, MEMBER_LABEL, ZONE_LABEL, config_map_name, overrides_name,
    service_account_name,
};
use crate::api::Component as Pods;
use crate::config;
use crate::merge;
use crate::references::{self, AZURE_KEY, GCS_KEY, Kind};
use crate::topology::{Component, ZONE_LETTERS};

/// Where a zone's live-stores run.
#[derive(Clone, Copy)]
pub(super) struct Zone {
    /// Counted from 0.
    pub(super) index: usize,
}

impl Zone {
    pub(super) fn name(self) -> String {
        format!(
            "zone-{}",
            ZONE_LETTERS.get(self.index).copied().unwrap_or("a")
        )
    }
}

/// Name of the volume with a component's data.
pub(super) const DATA: &str = "data";

/// Seconds that a process has to finish.
fn grace_seconds(component: Component) -> u32 {
    match component {
        Component::LiveStore => 1200,
        Component::Monolith
        | Component::BlockBuilder
        | Component::BackendWorker
        | Component::MetricsGenerator => 300,
        _ => 70,
    }
}

/// Name of a component's container: dashboards and alerts of Tempo look for the component's.
pub(super) fn container_name(component: Component) -> &'static str {
    match component {
        Component::Monolith => "tempo",
        other => other.target(),
    }
}

/// The pod template; `data` is the volume for data where the workload has no claim for it.
pub(super) fn template(
    context: &Context<'_>,
    component: Component,
    pods: &Pods,
    config_hash: &str,
    zone: Option<Zone>,
    data: Option<Value>,
) -> Value {
    let spec = &context.stack.spec;
    let mut own_labels = context.labels(component);
    own_labels[MEMBER_LABEL] = json!("true");
    if let Some(zone) = zone {
        own_labels[ZONE_LABEL] = json!(zone.name());
    }
    let azure = super::azure_identity(context.stack).is_some();
    if azure {
        own_labels["azure.workload.identity/use"] = json!("true");
    }
    let mut labels = json!(pods.pod_labels);
    merge::deep(&mut labels, &own_labels);
    let mut annotations = json!(pods.pod_annotations);
    annotations[HASH_ANNOTATION] = json!(references::hash_text(&format!(
        "{config_hash} {}",
        context.references_hash
    )));
    let service_account = service_account_name(context.stack);
    let mut template = json!({
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {
            "serviceAccountName": service_account,
            "automountServiceAccountToken": azure,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": pods
                .termination_grace_period_seconds
                .unwrap_or_else(|| grace_seconds(component)),
            "securityContext": pod_security(context),
            "imagePullSecrets": spec.image_pull_secrets,
            "nodeSelector": pods.node_selector,
            "affinity": affinity(context, component, pods, zone),
            "tolerations": pods.tolerations,
            "topologySpreadConstraints": spread(context, component, pods, zone),
            "priorityClassName": pods.priority_class_name,
            "containers": [container(context, component, pods, zone)],
            "volumes": volumes(context, component, pods, data),
        },
    });
    merge::prune(&mut template);
    if !pods.pod_template.is_empty() {
        merge::strategic(&mut template, &pods.pod_template.value());
        // What the rest of the stack finds pods by is not for others to change.
        merge::deep(
            &mut template,
            &json!({
                "metadata": {"labels": own_labels, "name": null},
                "spec": {"serviceAccountName": service_account},
            }),
        );
    }
    template
}

fn pod_security(context: &Context<'_>) -> Value {
    let security = &context.stack.spec.security;
    let mut settings = json!({
        "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    if !security.openshift {
        settings["runAsUser"] = json!(security.run_as_user);
        settings["runAsGroup"] = json!(security.fs_group);
        settings["fsGroup"] = json!(security.fs_group);
        settings["fsGroupChangePolicy"] = json!("OnRootMismatch");
    }
    settings
}

/// The security context of a pod of another program, whose image has this user.
pub(super) fn beside_security(context: &Context<'_>, user: u32) -> Value {
    let mut settings = json!({
        "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    if !context.stack.spec.security.openshift {
        settings["runAsUser"] = json!(user);
    }
    settings
}

/// The security context of a container under the profile `restricted`.
pub(super) fn container_security(pods: &Pods) -> Value {
    let mut security = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    merge::deep(&mut security, &pods.security_context.value());
    security
}

fn container(
    context: &Context<'_>,
    component: Component,
    pods: &Pods,
    zone: Option<Zone>,
) -> Value {
    let mut args = config::arguments(component);
    if let Some(zone) = zone {
        args.push(format!(
            "-live-store.instance-availability-zone={}",
            zone.name()
        ));
    }
    args.extend(pods.extra_args.iter().cloned());
    let scheme = context.scheme();
    let ready = json!({"path": "/ready", "port": "http", "scheme": scheme});
    json!({
        "name": container_name(component),
        "image": context.image(component),
        "imagePullPolicy": context.stack.spec.image.pull_policy,
        "args": args,
        "ports": ports(context, component),
        "env": env(context, component, pods),
        "envFrom": pods.env_from,
        "resources": pods.resources,
        "securityContext": container_security(pods),
        // Ready, not alive: a live-store that reads its log, or a frontend without queriers, must
        // not be killed for it.
        "readinessProbe": {"httpGet": ready, "periodSeconds": 5, "timeoutSeconds": 3, "failureThreshold": 3},
        "livenessProbe": {
            "tcpSocket": {"port": "http"},
            "initialDelaySeconds": 10,
            "periodSeconds": 20,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "volumeMounts": mounts(context, component, pods),
    })
}

fn ports(context: &Context<'_>, component: Component) -> Value {
    let mut ports = vec![
        json!({"name": "http", "containerPort": 3200, "protocol": "TCP"}),
        json!({"name": "grpc", "containerPort": 9095, "protocol": "TCP"}),
        json!({"name": "gossip", "containerPort": 7946, "protocol": "TCP"}),
        json!({"name": "gossip-udp", "containerPort": 7946, "protocol": "UDP"}),
    ];
    if matches!(component, Component::Monolith | Component::Distributor) {
        ports.extend(
            super::services::receiver_ports(context.stack)
                .into_iter()
                .map(
                    |(name, port)| json!({"name": name, "containerPort": port, "protocol": "TCP"}),
                ),
        );
    }
    json!(ports)
}

pub(super) fn from_secret(name: &str, secret: &str, key: &str) -> Value {
    json!({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
}

fn env(context: &Context<'_>, component: Component, pods: &Pods) -> Value {
    let spec = &context.stack.spec;
    let mut env = Vec::new();
    if let Some(secret) = spec
        .storage
        .s3
        .as_ref()
        .and_then(|s3| s3.credentials.as_ref())
        .and_then(|credentials| credentials.secret_ref.as_ref())
    {
        env.push(from_secret(
            "AWS_ACCESS_KEY_ID",
            &secret.name,
            &secret.access_key_id_key,
        ));
        env.push(from_secret(
            "AWS_SECRET_ACCESS_KEY",
            &secret.name,
            &secret.secret_access_key_key,
        ));
    }
    if let Some(secret) = spec
        .storage
        .gcs
        .as_ref()
        .and_then(|gcs| gcs.credentials.as_ref())
        .and_then(|credentials| credentials.secret_ref.as_ref())
    {
        let key = secret.key.as_deref().unwrap_or(GCS_KEY);
        let path = format!("{}/{key}", config::folder(Kind::Secret, &secret.name));
        env.push(json!({"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": path}));
    }
    if let Some(secret) = spec
        .storage
        .azure
        .as_ref()
        .and_then(|azure| azure.credentials.as_ref())
        .and_then(|credentials| credentials.secret_ref.as_ref())
    {
        let key = secret.key.as_deref().unwrap_or(AZURE_KEY);
        env.push(from_secret(config::AZURE_ACCOUNT_KEY, &secret.name, key));
    }
    let uses_kafka = matches!(
        component,
        Component::Distributor
            | Component::LiveStore
            | Component::BlockBuilder
            | Component::MetricsGenerator
    );
    if let Some(sasl) = spec.kafka.as_ref().and_then(|kafka| kafka.sasl.as_ref())
        && uses_kafka
    {
        for (name, reference) in [
            (config::KAFKA_USERNAME, &sasl.username_secret_ref),
            (config::KAFKA_PASSWORD, &sasl.password_secret_ref),
            (config::KAFKA_TOKEN, &sasl.token_secret_ref),
        ] {
            if let Some(reference) = reference {
                env.push(from_secret(name, &reference.name, &reference.key));
            }
        }
    }
    if spec.metrics_generator.enabled
        && matches!(component, Component::MetricsGenerator | Component::Monolith)
    {
        for (index, remote) in spec.metrics_generator.remote_write.iter().enumerate() {
            let (username, password, token) = config::remote_write_variables(index);
            if let Some(secret) = &remote.basic_auth_secret_ref {
                env.push(from_secret(&username, &secret.name, "username"));
                env.push(from_secret(&password, &secret.name, "password"));
            }
            if let Some(reference) = &remote.bearer_token_secret_ref {
                env.push(from_secret(&token, &reference.name, &reference.key));
            }
        }
    }
    let tracing = &spec.observability.tracing;
    if let Some(endpoint) = &tracing.otlp_endpoint {
        env.push(json!({"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": endpoint}));
        if let Some(ratio) = &tracing.sampling_ratio {
            env.push(json!({"name": "OTEL_TRACES_SAMPLER", "value": "parentbased_traceidratio"}));
            env.push(json!({"name": "OTEL_TRACES_SAMPLER_ARG", "value": ratio}));
        }
    }
    env.extend(pods.env.values());
    json!(env)
}

fn mounts(context: &Context<'_>, component: Component, pods: &Pods) -> Value {
    let mut mounts = vec![
        json!({"name": "config", "mountPath": config::CONFIG_DIR, "readOnly": true}),
        json!({"name": "overrides", "mountPath": config::OVERRIDES_DIR, "readOnly": true}),
        json!({"name": DATA, "mountPath": config::DATA_DIR}),
    ];
    for (kind, name) in mounted(context, component) {
        mounts.push(json!({
            "name": volume_name(kind, &name),
            "mountPath": config::folder(kind, &name),
            "readOnly": true,
        }));
    }
    mounts.extend(pods.volume_mounts.values());
    json!(mounts)
}

/// Objects that a component's pods have as files.
fn mounted(context: &Context<'_>, component: Component) -> BTreeSet<(Kind, String)> {
    references::of(context.stack)
        .into_iter()
        .filter(config::is_mounted)
        .filter(|reference| match reference.field.split('.').next() {
            Some("receivers") => matches!(component, Component::Distributor | Component::Monolith),
            Some("metricsGenerator") => {
                matches!(component, Component::MetricsGenerator | Component::Monolith)
            }
            Some("kafka") => component != Component::Monolith,
            _ => true,
        })
        .map(|reference| (reference.kind, reference.name))
        .collect()
}

/// Names of volumes are shorter than names of Secrets may be.
fn volume_name(kind: Kind, name: &str) -> String {
    let kind = kind.name().to_lowercase();
    if name.len() <= 40 && !name.contains('.') {
        format!("{kind}-{name}")
    } else {
        format!("{kind}-{}", references::hash_text(name))
    }
}

fn volumes(context: &Context<'_>, component: Component, pods: &Pods, data: Option<Value>) -> Value {
    let file = config::file_name(component);
    let mut volumes = vec![
        json!({"name": "config", "configMap": {
            "name": config_map_name(&context.names, component),
            "items": [{"key": file, "path": file}],
        }}),
        json!({"name": "overrides", "configMap": {"name": overrides_name(&context.names, component)}}),
    ];
    volumes.extend(data);
    for (kind, name) in mounted(context, component) {
        let source = match kind {
            Kind::Secret => json!({"secret": {"secretName": name}}),
            Kind::ConfigMap => json!({"configMap": {"name": name}}),
        };
        let mut volume = json!({"name": volume_name(kind, &name)});
        merge::deep(&mut volume, &source);
        volumes.push(volume);
    }
    volumes.extend(pods.volumes.values());
    json!(volumes)
}

pub(super) fn affinity(
    context: &Context<'_>,
    component: Component,
    pods: &Pods,
    zone: Option<Zone>,
) -> Value {
    if !pods.affinity.is_empty() {
        return pods.affinity.value();
    }
    let spec = &context.stack.spec;
    let same = json!({"matchLabels": context.selector(component)});
    let mut affinity = json!({"podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {"labelSelector": same, "topologyKey": "kubernetes.io/hostname"},
        }],
    }});
    let Some(zone) = zone else {
        return affinity;
    };
    let key = spec.zones.topology_key.as_deref();
    if let (Some(key), Some(value)) = (key, spec.zones.names.get(zone.index)) {
        affinity["nodeAffinity"] = json!({"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [
                {"key": key, "operator": "In", "values": [value]},
            ]}],
        }});
    } else if spec.zones.count > 1
        && let Some(key) = key
    {
        let other = json!({
            "matchLabels": context.selector(component),
            "matchExpressions": [{"key": ZONE_LABEL, "operator": "NotIn", "values": [zone.name()]}],
        });
        affinity["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!([{"labelSelector": other, "topologyKey": key}]);
    }
    affinity
}

fn spread(context: &Context<'_>, component: Component, pods: &Pods, zone: Option<Zone>) -> Value {
    if !pods.topology_spread_constraints.is_empty() {
        return json!(pods.topology_spread_constraints);
    }
    match (&context.stack.spec.zones.topology_key, zone) {
        (Some(key), None) if component != Component::Monolith => json!([{
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": context.selector(component)},
        }]),
        _ => json!([]),
    }
}
