//! Kinds of objects that stacks consist of, and which of them the cluster knows.

use std::time::Duration;

use kube::Client;
use kube::core::{ApiResource, GroupVersionKind};

use crate::api::{GROUP, VERSION};
use crate::manifests::Capabilities;

/// Kinds of every cluster: group, version, kind, plural.
const ALWAYS: &[(&str, &str, &str, &str)] = &[
    ("", "v1", "ConfigMap", "configmaps"),
    ("", "v1", "Service", "services"),
    ("", "v1", "ServiceAccount", "serviceaccounts"),
    ("apps", "v1", "Deployment", "deployments"),
    ("apps", "v1", "StatefulSet", "statefulsets"),
    (
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
    ),
    (
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
    ),
    ("networking.k8s.io", "v1", "Ingress", "ingresses"),
    (
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
    ),
];

/// Kinds that others bring.
const SOMETIMES: &[(&str, &str, &str, &str)] = &[
    (
        "monitoring.coreos.com",
        "v1",
        "ServiceMonitor",
        "servicemonitors",
    ),
    (
        "monitoring.coreos.com",
        "v1",
        "PrometheusRule",
        "prometheusrules",
    ),
    (
        "grafana.integreatly.org",
        "v1beta1",
        "GrafanaDatasource",
        "grafanadatasources",
    ),
    ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
    ("gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes"),
    ("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
    ("cert-manager.io", "v1", "Certificate", "certificates"),
];

/// Pods.
pub(super) fn pods() -> ApiResource {
    resource(&("", "v1", "Pod", "pods"))
}

/// Claims for volumes.
pub(super) fn claims() -> ApiResource {
    resource(&("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"))
}

fn resource((group, version, kind, plural): &(&str, &str, &str, &str)) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// Time between two looks which kinds there are.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Kinds that the cluster knows.
#[derive(Clone, Debug)]
pub(super) struct Kinds {
    known: Vec<ApiResource>,
    /// What others brought.
    pub(super) capabilities: Capabilities,
    /// Whether the cluster knows our own kind.
    pub(super) has_definition: bool,
}

impl Kinds {
    /// Asks the cluster.
    pub(super) async fn discover(client: &Client) -> Result<Self, kube::Error> {
        let mut known: Vec<ApiResource> = ALWAYS.iter().map(resource).collect();
        let mut has = Vec::new();
        for kind in SOMETIMES {
            let (group, version, name, _) = kind;
            if knows(client, group, version, name).await? {
                known.push(resource(kind));
                has.push(*name);
            }
        }
        let has = |kind: &str| has.contains(&kind);
        Ok(Self {
            capabilities: Capabilities {
                service_monitor: has("ServiceMonitor"),
                prometheus_rule: has("PrometheusRule"),
                grafana_datasource: has("GrafanaDatasource"),
                gateway_api: has("HTTPRoute") && has("GRPCRoute"),
                keda: has("ScaledObject"),
                cert_manager: has("Certificate"),
            },
            has_definition: knows(client, GROUP, VERSION, "TempoStack").await?,
            known,
        })
    }

    /// Waits until others have brought kinds, or taken them; how it is then.
    pub(super) async fn changed(&self, client: &Client) -> Self {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match Self::discover(client).await {
                Ok(now) if now.known != self.known => return now,
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "which kinds there are is not known"),
            }
        }
    }

    /// Kinds that others brought, for people.
    pub(super) fn brought(&self) -> String {
        let brought: Vec<&str> = self.known[ALWAYS.len()..]
            .iter()
            .map(|resource| resource.kind.as_str())
            .collect();
        brought.join(", ")
    }

    /// Kinds of objects that are made for stacks.
    pub(super) fn made(&self) -> &[ApiResource] {
        &self.known
    }

    /// Kinds whose changes matter. ConfigMaps are watched anyway, for those that stacks name.
    pub(super) fn watched(&self) -> Vec<ApiResource> {
        self.known.iter().cloned().chain([pods()]).collect()
    }

    /// The kind of an object.
    pub(super) fn of(&self, object: &serde_json::Value) -> Option<&ApiResource> {
        self.known.iter().find(|resource| {
            object["kind"] == resource.kind.as_str()
                && object["apiVersion"] == resource.api_version.as_str()
        })
    }
}

async fn knows(
    client: &Client,
    group: &str,
    version: &str,
    kind: &str,
) -> Result<bool, kube::Error> {
    match client
        .list_api_group_resources(&format!("{group}/{version}"))
        .await
    {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.kind == kind)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}
