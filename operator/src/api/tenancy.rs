//! `limits`, `tenancy`, `metricsGenerator`: what each tenant may do and gets.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::rules;
use super::schema::{Duration, NameRef, SecretKey};

/// Limits; what is not set is Tempo's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Of receiving.
    pub ingestion: IngestionLimits,
    /// Of queries.
    pub query: QueryLimits,
}

/// Limits of receiving.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngestionLimits {
    /// Bytes a second, of each tenant at each distributor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub rate_limit_bytes: Option<u64>,
    /// Bytes at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub burst_size_bytes: Option<u64>,
    /// Live traces of each tenant in a live-store; 0 means any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_traces_per_user: Option<u64>,
    /// Bytes of one trace; 0 means any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes_per_trace: Option<u64>,
    /// Bytes of an attribute's key or value; longer ones are cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_attribute_bytes: Option<u64>,
    /// Partitions that a tenant's spans go to; 0 means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1000))]
    pub tenant_shard_size: Option<u32>,
}

/// Limits of queries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueryLimits {
    /// Bytes of the answer to a query for tag values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes_per_tag_values: Option<u64>,
    /// Longest time range of a search; `0` means the frontend's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_search_duration: Option<Duration>,
    /// Longest time range of a query for metrics; `0` means the frontend's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_metrics_duration: Option<Duration>,
}

/// Tenants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tenancy {
    /// Take the tenant of every request from X-Scope-OrgID, and refuse requests without.
    pub enabled: bool,
    /// Limits of tenants, by their ids; what one does not set is that of all.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 1000))]
    pub tenants: BTreeMap<String, Tenant>,
}

/// What holds for a tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    /// Limits.
    #[serde(default)]
    pub limits: Limits,
    /// How long traces are kept; unset means as for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Duration>,
    /// Processors of the metrics-generator; unset means as for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), inner(length(max = 64)))]
    pub processors: Option<Vec<String>>,
}

/// Metrics from spans.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!self.enabled || (has(self.remoteWrite) && self.remoteWrite.size() > 0)",
     "metricsGenerator.enabled needs at least one metricsGenerator.remoteWrite: where shall the metrics go?"),
])))]
pub struct MetricsGenerator {
    /// Whether metrics are made.
    pub enabled: bool,
    /// Which metrics: `service-graphs`, `span-metrics`, `host-info`.
    #[schemars(
        length(max = 8),
        inner(
            length(max = 64),
            regex(pattern = "^(service-graphs|span-metrics|host-info)$")
        )
    )]
    pub processors: Vec<String>,
    /// Where they go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub remote_write: Vec<RemoteWrite>,
    /// Labels of all series.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32), inner(length(max = 256)))]
    pub external_labels: BTreeMap<String, String>,
}

/// A receiver of Prometheus' remote write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!(has(self.basicAuthSecretRef) && has(self.bearerTokenSecretRef))",
     "set either basicAuthSecretRef or bearerTokenSecretRef"),
])))]
pub struct RemoteWrite {
    /// Address.
    #[schemars(length(min = 1, max = 2048), regex(pattern = "^https?://"))]
    pub url: String,
    /// Headers of each request; no secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16), inner(length(max = 1024)))]
    pub headers: BTreeMap<String, String>,
    /// Secret with `username` and `password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth_secret_ref: Option<SecretName>,
    /// A bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_token_secret_ref: Option<SecretKey>,
    /// Certificates to trust (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKey>,
}

/// The name of a Secret.
pub type SecretName = NameRef;
