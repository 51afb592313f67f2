//! The manifests: every object that a stack needs, as a pure function of the stack and of what
//! shall run now.
//!
//! Only fields that the operator answers for are in them: they are applied by server-side apply,
//! and what is left out belongs to others.

mod autoscaling;
mod certificates;
mod exposure;
mod gateway;
mod memcached;
mod monitoring;
mod pods;
mod policies;
mod services;
mod workloads;

use serde_json::{Value, json};

use crate::api::TempoStack;
use crate::config::{self, ConfigError};
use crate::merge;
use crate::references;
use crate::topology::{Component, Names, Topology};

pub use monitoring::{ALERTS, Alert};

/// Label of the pods' zone.
pub const ZONE_LABEL: &str = "tempostack.io/zone";
/// Label of the members of the gossip ring.
pub const MEMBER_LABEL: &str = "tempostack.io/gossip-member";
/// Annotation with the hash of configuration and referenced objects.
pub const HASH_ANNOTATION: &str = "tempostack.io/config-hash";
/// Who made an object, in `app.kubernetes.io/managed-by`, and the manager of its fields.
pub const MANAGER: &str = "tempo-operator";

/// What the operator's surroundings give.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Image of Tempo where the stack names none, without tag.
    pub image_repository: String,
    /// Tag of that image.
    pub image_tag: String,
    /// Image of nginx, for gateways.
    pub gateway_image: String,
    /// Image of oauth2-proxy, for gateways with OpenID Connect.
    pub oidc_proxy_image: String,
    /// Image of memcached.
    pub memcached_image: String,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            image_repository: "ghcr.io/tempostack/tempo".to_owned(),
            image_tag: env!("CARGO_PKG_VERSION").to_owned(),
            gateway_image: "docker.io/nginxinc/nginx-unprivileged:1.28-alpine".to_owned(),
            oidc_proxy_image: "quay.io/oauth2-proxy/oauth2-proxy:v7.15.6".to_owned(),
            memcached_image: "docker.io/library/memcached:1.6-alpine".to_owned(),
        }
    }
}

/// Kinds that a cluster may lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// `ServiceMonitor` of the Prometheus operator.
    pub service_monitor: bool,
    /// `PrometheusRule` of the Prometheus operator.
    pub prometheus_rule: bool,
    /// `GrafanaDatasource` of the Grafana operator.
    pub grafana_datasource: bool,
    /// `HTTPRoute` and `GRPCRoute` of the Gateway API.
    pub gateway_api: bool,
    /// `ScaledObject` of KEDA.
    pub keda: bool,
    /// `Certificate` of cert-manager.
    pub cert_manager: bool,
}

impl Capabilities {
    /// A cluster with everything.
    pub fn all() -> Self {
        Self {
            service_monitor: true,
            prometheus_rule: true,
            grafana_datasource: true,
            gateway_api: true,
            keda: true,
            cert_manager: true,
        }
    }

    /// What the cluster lacks and pods can't start without.
    pub fn problem(&self, stack: &TempoStack) -> Option<references::Problem> {
        let issued = references::of(stack)
            .into_iter()
            .find(|reference| reference.issued && !self.cert_manager)?;
        Some(references::Problem {
            reason: "CertManagerMissing",
            message: format!(
                "spec.{0}.certManager needs cert-manager, and the cluster does not know its Certificate (cert-manager.io/v1); install it, or name a Secret in spec.{0}.secretRef",
                issued.field
            ),
        })
    }

    /// What the stack asks for and the cluster lacks.
    pub fn missing(&self, stack: &TempoStack) -> Vec<&'static str> {
        let observability = &stack.spec.observability;
        let keda = Component::UPGRADE_ORDER.into_iter().any(|component| {
            crate::settings::pods(stack, component)
                .autoscaling
                .is_some_and(|scaling| scaling.target_outstanding_blocks.is_some())
        });
        [
            (
                observability.service_monitor.enabled,
                self.service_monitor,
                "ServiceMonitor (monitoring.coreos.com/v1)",
            ),
            (
                observability.prometheus_rule.enabled,
                self.prometheus_rule,
                "PrometheusRule (monitoring.coreos.com/v1)",
            ),
            (
                observability.grafana_datasource.enabled,
                self.grafana_datasource,
                "GrafanaDatasource (grafana.integreatly.org/v1beta1)",
            ),
            (
                stack.spec.exposure.gateway_api.is_some(),
                self.gateway_api,
                "HTTPRoute and GRPCRoute (gateway.networking.k8s.io/v1)",
            ),
            (keda, self.keda, "ScaledObject (keda.sh/v1alpha1)"),
        ]
        .into_iter()
        .filter(|(wanted, there, _)| *wanted && !there)
        .map(|(_, _, kind)| kind)
        .collect()
    }
}

/// All that manifests depend on.
pub struct Context<'a> {
    /// The stack.
    pub stack: &'a TempoStack,
    /// Names of its objects.
    pub names: Names,
    /// What shall run.
    pub topology: &'a Topology,
    /// Hash of the Secrets and ConfigMaps that the stack names.
    pub references_hash: &'a str,
    /// What the cluster has.
    pub capabilities: Capabilities,
    /// What the operator's surroundings give.
    pub defaults: &'a Defaults,
}

impl Context<'_> {
    /// Labels by which a component's pods are found.
    fn selector(&self, component: Component) -> Value {
        json!({
            "app.kubernetes.io/name": "tempo",
            "app.kubernetes.io/instance": self.names.stack(),
            "app.kubernetes.io/component": component.target(),
        })
    }

    /// Labels of an object of a component.
    fn labels(&self, component: Component) -> Value {
        let mut labels = self.selector(component);
        labels["app.kubernetes.io/managed-by"] = json!(MANAGER);
        labels
    }

    /// Labels of an object of the stack as a whole.
    fn shared_labels(&self) -> Value {
        json!({
            "app.kubernetes.io/name": "tempo",
            "app.kubernetes.io/instance": self.names.stack(),
            "app.kubernetes.io/managed-by": MANAGER,
        })
    }

    /// An object with these labels; `rest` is merged in.
    fn object(
        &self,
        api_version: &str,
        kind: &str,
        name: &str,
        labels: Value,
        rest: Value,
    ) -> Value {
        let mut object = json!({
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {"name": name, "namespace": self.names.namespace, "labels": labels},
        });
        merge::deep(&mut object, &rest);
        object
    }

    /// The image of a component.
    pub fn image(&self, component: Component) -> String {
        self.topology
            .held_images
            .get(&component)
            .cloned()
            .unwrap_or_else(|| image(self.stack, self.defaults))
    }

    /// The components that there are now.
    fn components(&self) -> Vec<Component> {
        let mut components = Vec::new();
        if self.topology.monolith.is_some() {
            components.push(Component::Monolith);
        }
        if self.topology.cluster.is_some() {
            components.extend(Component::UPGRADE_ORDER.into_iter().filter(|component| {
                *component != Component::MetricsGenerator
                    || self.stack.spec.metrics_generator.enabled
            }));
        }
        components
    }

    /// Components beside Tempo's that there are now.
    fn beside(&self) -> Vec<Component> {
        let spec = &self.stack.spec;
        [
            (spec.gateway.enabled, Component::Gateway),
            (spec.caches.memcached.enabled, Component::Memcached),
        ]
        .into_iter()
        .filter_map(|(wanted, component)| wanted.then_some(component))
        .collect()
    }

    /// Whether connections between components are encrypted.
    fn scheme(&self) -> &'static str {
        if self.stack.spec.security.internal_tls.is_some() {
            "HTTPS"
        } else {
            "HTTP"
        }
    }
}

/// The image of Tempo that the stack asks for.
pub fn image(stack: &TempoStack, defaults: &Defaults) -> String {
    let image = &stack.spec.image;
    let repository = image
        .repository
        .as_deref()
        .unwrap_or(&defaults.image_repository);
    match (&image.digest, &image.tag) {
        (Some(digest), Some(tag)) => format!("{repository}:{tag}@{digest}"),
        (Some(digest), None) => format!("{repository}@{digest}"),
        (None, tag) => format!(
            "{repository}:{}",
            tag.as_deref().unwrap_or(&defaults.image_tag)
        ),
    }
}

/// Version of Tempo that an image's name tells.
pub fn version_of(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        _ => image.rsplit_once('@').map_or("", |(_, digest)| digest),
    }
}

/// All objects, in the order in which they are applied.
///
/// # Errors
/// When the configuration can't be made.
pub fn all(context: &Context<'_>) -> Result<Vec<Value>, ConfigError> {
    let mut objects = Vec::new();
    if context.stack.spec.service_account.create {
        objects.push(service_account(context));
    }
    let files = config_maps(context)?;
    objects.extend(files.objects);
    objects.extend(certificates::all(context));
    objects.extend(services::all(context));
    objects.extend(workloads::all(context, &files.hashes));
    objects.extend(policies::all(context));
    objects.extend(autoscaling::all(context));
    objects.extend(gateway::all(context));
    objects.extend(memcached::all(context));
    objects.extend(exposure::all(context));
    objects.extend(monitoring::all(context));
    objects.iter_mut().for_each(merge::prune);
    Ok(objects)
}

fn service_account(context: &Context<'_>) -> Value {
    let spec = &context.stack.spec;
    let mut annotations = json!(spec.service_account.annotations);
    let storage = &spec.storage;
    if let Some(identity) = storage
        .s3
        .as_ref()
        .and_then(|s3| s3.credentials.as_ref())
        .and_then(|credentials| credentials.workload_identity.as_ref())
    {
        annotations["eks.amazonaws.com/role-arn"] = json!(identity.role_arn);
        annotations["eks.amazonaws.com/audience"] = json!(identity.audience);
    }
    if let Some(identity) = storage
        .gcs
        .as_ref()
        .and_then(|gcs| gcs.credentials.as_ref())
        .and_then(|credentials| credentials.workload_identity.as_ref())
    {
        annotations["iam.gke.io/gcp-service-account"] = json!(identity.service_account);
    }
    if let Some(identity) = azure_identity(context.stack) {
        annotations["azure.workload.identity/client-id"] = json!(identity.client_id);
        annotations["azure.workload.identity/tenant-id"] = json!(identity.tenant_id);
    }
    context.object(
        "v1",
        "ServiceAccount",
        &service_account_name(context.stack),
        context.shared_labels(),
        json!({
            "metadata": {"annotations": annotations},
            "automountServiceAccountToken": false,
        }),
    )
}

fn azure_identity(stack: &TempoStack) -> Option<&crate::api::AzureIdentity> {
    stack
        .spec
        .storage
        .azure
        .as_ref()?
        .credentials
        .as_ref()?
        .workload_identity
        .as_ref()
}

/// Name of the pods' ServiceAccount.
pub fn service_account_name(stack: &TempoStack) -> String {
    stack
        .spec
        .service_account
        .name
        .clone()
        .unwrap_or_else(|| Names::of(stack).shared())
}

struct Files {
    objects: Vec<Value>,
    /// Hash of the configuration by component.
    hashes: Vec<(Component, String)>,
}

/// ConfigMap with the configuration of the monolith or of the cluster's components.
fn config_map_name(names: &Names, component: Component) -> String {
    match component {
        Component::Monolith => names.with("monolith-config"),
        _ => names.with("config"),
    }
}

/// ConfigMap with the limits of tenants: not part of any hash, since processes read it again.
fn overrides_name(names: &Names, component: Component) -> String {
    match component {
        Component::Monolith => names.with("monolith-overrides"),
        _ => names.with("overrides"),
    }
}

fn config_maps(context: &Context<'_>) -> Result<Files, ConfigError> {
    let mut files = Files {
        objects: Vec::new(),
        hashes: Vec::new(),
    };
    let compaction = context
        .topology
        .monolith
        .as_ref()
        .is_none_or(|monolith| monolith.compaction);
    let components = context.components();
    let (monolith, cluster): (Vec<Component>, Vec<Component>) = components
        .into_iter()
        .partition(|component| *component == Component::Monolith);
    for side in [monolith, cluster] {
        let Some(first) = side.first().copied() else {
            continue;
        };
        let compaction = compaction || first != Component::Monolith;
        let mut data = json!({});
        for component in side {
            let text = config::render(context.stack, component)?;
            files.hashes.push((component, references::hash_text(&text)));
            data[config::file_name(component)] = json!(text);
        }
        let overrides = config::overrides(context.stack, compaction)?;
        let labels = context.shared_labels();
        files.objects.push(context.object(
            "v1",
            "ConfigMap",
            &config_map_name(&context.names, first),
            labels.clone(),
            json!({"data": data}),
        ));
        files.objects.push(context.object(
            "v1",
            "ConfigMap",
            &overrides_name(&context.names, first),
            labels,
            json!({"data": {config::OVERRIDES_FILE: overrides}}),
        ));
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
