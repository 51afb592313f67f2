//! ServiceMonitor, PrometheusRule, Grafana data source and dashboard.

use serde_json::{Value, json};

use super::Context;
use crate::certificates;
use crate::merge;
use crate::topology::Component;

pub(super) fn all(context: &Context<'_>) -> Vec<Value> {
    let wanted = &context.stack.spec.observability;
    let can = context.capabilities;
    let mut objects = Vec::new();
    if wanted.service_monitor.enabled && can.service_monitor {
        objects.push(service_monitor(context));
    }
    if wanted.prometheus_rule.enabled && can.prometheus_rule {
        objects.push(rules(context));
    }
    if wanted.grafana_datasource.enabled && can.grafana_datasource {
        objects.push(datasource(context));
    }
    if wanted.dashboards.enabled {
        objects.push(dashboard(context));
    }
    objects
}

fn with_labels(context: &Context<'_>, more: &std::collections::BTreeMap<String, String>) -> Value {
    let mut labels = json!(more);
    merge::deep(&mut labels, &context.shared_labels());
    labels
}

/// Every pod is scraped once, by way of the gossip Service, which all are behind.
fn service_monitor(context: &Context<'_>) -> Value {
    let monitor = &context.stack.spec.observability.service_monitor;
    let tls = certificates::internal(context.stack).map(|certificate| {
        json!({
            "ca": {"secret": {"name": certificate.secret, "key": "ca.crt"}},
            "serverName": certificate.server_name(),
        })
    });
    let namespace = &context.names.namespace;
    context.object(
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
        &context.names.shared(),
        with_labels(context, &monitor.labels),
        json!({"spec": {
            "selector": {"matchLabels": super::services::gossip_labels(context)},
            "endpoints": [{
                "port": "http",
                "path": "/metrics",
                "scheme": context.scheme().to_lowercase(),
                "interval": monitor.interval,
                "tlsConfig": tls,
                // Tempo's dashboards and alerts ask for a job of namespace and component.
                "relabelings": [{
                    "action": "replace",
                    "sourceLabels": ["__meta_kubernetes_pod_label_app_kubernetes_io_component"],
                    "replacement": format!("{namespace}/$1"),
                    "targetLabel": "job",
                }],
            }],
        }}),
    )
}

/// An alert of the rules.
pub struct Alert {
    /// Its name.
    pub name: &'static str,
    /// When it holds; `SELECTOR` stands for the labels of the stack.
    pub expression: &'static str,
    /// How long it must hold.
    pub hold: &'static str,
    /// How bad it is.
    pub severity: &'static str,
    /// What it means, and what to do.
    pub summary: &'static str,
}

/// The alerts, by metrics that Tempo's own rules use, too.
pub const ALERTS: &[Alert] = &[
    Alert {
        name: "TempoLiveStoreUnhealthy",
        expression: "max by (namespace) (tempo_ring_members{SELECTOR, state=\"Unhealthy\", name=\"live-store\"}) > 0",
        hold: "15m",
        severity: "critical",
        summary: "A live-store is gone: recent queries depend on the other zone. Look at its pod.",
    },
    Alert {
        name: "TempoLiveStoresPartitionsUnowned",
        expression: "max by (namespace) (sum by (namespace, pod) (tempo_partition_ring_partitions{SELECTOR, state=~\"Active|Inactive\"})) > count by (namespace) (count by (namespace, partition) (tempo_live_store_partition_owned{SELECTOR}))",
        hold: "10m",
        severity: "critical",
        summary: "A partition has no live-store: recent queries fail. Bring the pod of its number back.",
    },
    Alert {
        name: "TempoBlockBuildersPartitionsMismatch",
        expression: "max by (namespace) (sum by (namespace, pod) (tempo_partition_ring_partitions{SELECTOR, state=~\"Active|Inactive\"})) > sum by (namespace) (tempo_block_builder_owned_partitions{SELECTOR})",
        hold: "10m",
        severity: "critical",
        summary: "A partition is read by no block-builder: its spans do not become blocks.",
    },
    Alert {
        name: "TempoBlockBuilderPartitionLag",
        expression: "avg by (namespace, partition) (avg_over_time(tempo_ingest_group_partition_lag_seconds{SELECTOR, container=\"block-builder\"}[6m])) > 300",
        hold: "5m",
        severity: "critical",
        summary: "A block-builder does not keep up. Give it more CPU, or add partitions.",
    },
    Alert {
        name: "TempoLiveStorePartitionLag",
        expression: "min by (namespace, partition) (avg_over_time(tempo_ingest_group_partition_lag_seconds{SELECTOR, container=\"live-store\"}[2m])) > 300",
        hold: "2m",
        severity: "critical",
        summary: "No live-store of a partition keeps up: recent queries miss spans.",
    },
    Alert {
        name: "TempoDistributorKafkaProduceFailing",
        expression: "sum by (namespace) (rate(tempo_distributor_produce_failures_total{SELECTOR}[5m])) / sum by (namespace) (rate(tempo_distributor_produce_records_total{SELECTOR}[5m])) > 0.001",
        hold: "5m",
        severity: "critical",
        summary: "Spans are refused since Kafka does not take them. Look at the brokers.",
    },
    Alert {
        name: "TempoPollsFailing",
        expression: "sum by (namespace) (increase(tempodb_blocklist_poll_errors_total{SELECTOR}[1h])) > 2 and sum by (namespace) (increase(tempodb_blocklist_poll_errors_total{SELECTOR}[5m])) > 0",
        hold: "5m",
        severity: "critical",
        summary: "The list of blocks can't be read: new blocks are not found. Look at the object store.",
    },
    Alert {
        name: "TempoCompactionsFailing",
        expression: "sum by (namespace) (increase(tempodb_compaction_errors_total{SELECTOR}[1h])) > 2 and sum by (namespace) (increase(tempodb_compaction_errors_total{SELECTOR}[5m])) > 0",
        hold: "1h",
        severity: "critical",
        summary: "Blocks can't be joined: queries get slower. Look at the logs of backend-workers.",
    },
    Alert {
        name: "TempoBadOverrides",
        expression: "max by (namespace) (tempo_runtime_config_last_reload_successful{SELECTOR}) == 0",
        hold: "15m",
        severity: "critical",
        summary: "Limits of tenants can't be read; the last good ones are used.",
    },
];

fn rules(context: &Context<'_>) -> Value {
    let selector = format!("namespace=\"{}\"", context.names.namespace);
    let alerts: Vec<Value> = ALERTS
        .iter()
        .map(|alert| {
            json!({
                "alert": alert.name,
                "expr": alert.expression.replace("SELECTOR", &selector),
                "for": alert.hold,
                "labels": {"severity": alert.severity},
                "annotations": {"summary": alert.summary},
            })
        })
        .collect();
    context.object(
        "monitoring.coreos.com/v1",
        "PrometheusRule",
        &context.names.shared(),
        with_labels(context, &context.stack.spec.observability.prometheus_rule.labels),
        json!({"spec": {"groups": [{"name": format!("tempo-{}", context.names.stack()), "rules": alerts}]}}),
    )
}

fn query_url(context: &Context<'_>) -> String {
    let names = &context.names;
    format!(
        "{}://{}:3200",
        context.scheme().to_lowercase(),
        names.host(&names.component(Component::QueryFrontend))
    )
}

fn datasource(context: &Context<'_>) -> Value {
    let datasource = &context.stack.spec.observability.grafana_datasource;
    let selector = if datasource.instance_selector.is_empty() {
        json!({})
    } else {
        datasource.instance_selector.value()
    };
    context.object(
        "grafana.integreatly.org/v1beta1",
        "GrafanaDatasource",
        &context.names.shared(),
        context.shared_labels(),
        json!({"spec": {
            "allowCrossNamespaceImport": true,
            "instanceSelector": selector,
            "datasource": {
                "name": format!("Tempo {}/{}", context.names.namespace, context.names.stack()),
                "type": "tempo",
                "access": "proxy",
                "url": query_url(context),
                "jsonData": {"streamingEnabled": {"search": true, "metrics": true}},
            },
        }}),
    )
}

/// Panels of the dashboard: title, unit, expression.
const PANELS: &[(&str, &str, &str)] = &[
    (
        "Spans received",
        "short",
        "sum by (tenant) (rate(tempo_distributor_spans_received_total{SELECTOR}[$__rate_interval]))",
    ),
    (
        "Bytes received",
        "Bps",
        "sum by (tenant) (rate(tempo_distributor_bytes_received_total{SELECTOR}[$__rate_interval]))",
    ),
    (
        "Spans refused",
        "short",
        "sum by (reason) (rate(tempo_discarded_spans_total{SELECTOR}[$__rate_interval]))",
    ),
    (
        "Queries",
        "reqps",
        "sum by (route, status_code) (rate(tempo_request_duration_seconds_count{SELECTOR, route=~\"api_.*\"}[$__rate_interval]))",
    ),
    (
        "Latency of queries (99 %)",
        "s",
        "histogram_quantile(0.99, sum by (le, route) (rate(tempo_request_duration_seconds_bucket{SELECTOR, route=~\"api_.*\"}[$__rate_interval])))",
    ),
    (
        "Blocks",
        "short",
        "max by (tenant) (tempodb_blocklist_length{SELECTOR})",
    ),
    (
        "Lag behind Kafka",
        "s",
        "max by (container, partition) (tempo_ingest_group_partition_lag_seconds{SELECTOR})",
    ),
    (
        "Memory",
        "bytes",
        "max by (pod) (process_resident_memory_bytes{SELECTOR})",
    ),
    (
        "CPU",
        "short",
        "sum by (pod) (rate(process_cpu_seconds_total{SELECTOR}[$__rate_interval]))",
    ),
];

fn dashboard(context: &Context<'_>) -> Value {
    let selector = format!("namespace=\"{}\"", context.names.namespace);
    let panels: Vec<Value> = PANELS
        .iter()
        .enumerate()
        .map(|(index, (title, unit, expression))| {
            json!({
                "id": index + 1,
                "type": "timeseries",
                "title": title,
                "gridPos": {"h": 8, "w": 8, "x": (index % 3) * 8, "y": (index / 3) * 8},
                "fieldConfig": {"defaults": {"unit": unit}},
                "targets": [{"refId": "A", "expr": expression.replace("SELECTOR", &selector)}],
            })
        })
        .collect();
    let dashboard = json!({
        "title": format!("Tempo {}/{}", context.names.namespace, context.names.stack()),
        "uid": format!("tempo-{}", crate::references::hash_text(&context.names.cluster_label())),
        "tags": ["tempo"],
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "panels": panels,
    });
    let mut labels = context.shared_labels();
    labels["grafana_dashboard"] = json!("1");
    context.object(
        "v1",
        "ConfigMap",
        &context.names.with("dashboard"),
        labels,
        json!({"data": {format!("{}.json", context.names.shared()): dashboard.to_string()}}),
    )
}
