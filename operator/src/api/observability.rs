//! `observability`: how the stack is watched.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::edges::Toggle;
use super::schema::{Anything, Duration};

/// How the stack is watched. What needs a definition that the cluster does not have is left out,
/// and a condition says so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Observability {
    /// A ServiceMonitor of the Prometheus operator.
    pub service_monitor: MonitorSpec,
    /// A PrometheusRule with alerts.
    pub prometheus_rule: RuleSpec,
    /// A data source of the Grafana operator.
    pub grafana_datasource: Datasource,
    /// Dashboards, as ConfigMaps with the label `grafana_dashboard`.
    pub dashboards: Toggle,
    /// Traces of the stack's own requests.
    pub tracing: SelfTracing,
}

/// A ServiceMonitor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MonitorSpec {
    /// Whether there is one.
    pub enabled: bool,
    /// Labels, by which a Prometheus finds it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), inner(length(max = 63)))]
    pub labels: BTreeMap<String, String>,
    /// Time between scrapes; unset means Prometheus' own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
}

/// A PrometheusRule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleSpec {
    /// Whether there is one.
    pub enabled: bool,
    /// Labels, by which a Prometheus finds it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), inner(length(max = 63)))]
    pub labels: BTreeMap<String, String>,
}

/// A data source of the Grafana operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Datasource {
    /// Whether there is one.
    pub enabled: bool,
    /// Which Grafana gets it, as in a GrafanaDatasource; empty means all.
    #[serde(skip_serializing_if = "Anything::is_empty")]
    pub instance_selector: Anything,
}

/// Traces of the stack's own requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SelfTracing {
    /// Address that takes OTLP over gRPC, such as `http://collector:4317`; unset means none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = "^https?://"))]
    pub otlp_endpoint: Option<String>,
    /// Share of requests that is traced, from `0` to `1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 12), regex(pattern = "^(0(\\.[0-9]+)?|1(\\.0+)?)$"))]
    pub sampling_ratio: Option<String>,
}
