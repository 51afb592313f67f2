//! Limits: those of all tenants, and the file with those of each.

use serde_json::{Map, Value, json};

use super::{ConfigError, yaml};
use crate::api::{Limits, TempoStack, Tenant};
use crate::merge;

/// Limits of every tenant without an entry: they stand in the file that is read again, and not in
/// the configuration, which would take a restart.
const EVERYONE: &str = "*";

/// What the stack sets for all tenants.
///
/// Without `compaction` no blocks are joined: another process of the stack does that now.
fn defaults(stack: &TempoStack, compaction: bool) -> Value {
    let mut tree = limits(&stack.spec.limits);
    if !compaction {
        tree["compaction"] = json!({"compaction_disabled": true});
    }
    if stack.spec.metrics_generator.enabled {
        tree["metrics_generator"] = json!({"processors": stack.spec.metrics_generator.processors});
    }
    merge::prune(&mut tree);
    tree
}

fn limits(limits: &Limits) -> Value {
    let ingestion = &limits.ingestion;
    let query = &limits.query;
    json!({
        "ingestion": {
            "rate_limit_bytes": ingestion.rate_limit_bytes,
            "burst_size_bytes": ingestion.burst_size_bytes,
            "max_traces_per_user": ingestion.max_traces_per_user,
            "max_attribute_bytes": ingestion.max_attribute_bytes,
            "tenant_shard_size": ingestion.tenant_shard_size,
        },
        "global": {"max_bytes_per_trace": ingestion.max_bytes_per_trace},
        "read": {
            "max_bytes_per_tag_values_query": query.max_bytes_per_tag_values,
            "max_search_duration": query.max_search_duration,
            "max_metrics_duration": query.max_metrics_duration,
        },
    })
}

/// Tempo's own limits where they are not zero. An entry of a tenant replaces the defaults as a
/// whole, so each entry spells them out; a test compares them with Tempo's.
fn tempo_defaults() -> Value {
    json!({
        "ingestion": {
            "rate_strategy": "local",
            "rate_limit_bytes": 30_000_000,
            "burst_size_bytes": 30_000_000,
            "max_traces_per_user": 10_000,
            "retry_info_enabled": true,
        },
        "read": {
            "max_bytes_per_tag_values_query": 1_000_000,
            "max_condition_groups_per_tag_query": 100,
        },
        "metrics_generator": {
            "generate_native_histograms": "classic",
            "native_histogram_bucket_factor": 1.1,
            "native_histogram_max_bucket_number": 100,
            "native_histogram_min_reset_duration": "15m",
        },
        "global": {"max_bytes_per_trace": 5_000_000},
    })
}

/// The file of the tenants' limits; without `compaction` for pods that must not join blocks.
///
/// # Errors
/// When Tempo's own parser refuses it.
pub fn render(stack: &TempoStack, compaction: bool) -> Result<String, ConfigError> {
    let everyone = everyone(stack, compaction);
    let mut tenants = Map::new();
    for (id, tenant) in &stack.spec.tenancy.tenants {
        tenants.insert(id.clone(), entry(&everyone, tenant));
    }
    tenants.insert(EVERYONE.to_owned(), everyone);
    let text = yaml(&json!({"overrides": tenants}))?;
    tempo_config::parse_runtime_overrides(&text, false)
        .map_err(|error| ConfigError(format!("limits of tenants are wrong: {error}")))?;
    Ok(text)
}

fn everyone(stack: &TempoStack, compaction: bool) -> Value {
    let mut tree = tempo_defaults();
    merge::deep(&mut tree, &defaults(stack, compaction));
    let extra = stack.spec.extra_config.0.get("overrides");
    if let Some(extra) = extra.and_then(|overrides| overrides.get("defaults")) {
        merge::deep(&mut tree, extra);
    }
    tree
}

/// An entry replaces that of everyone as a whole, so it repeats it.
fn entry(everyone: &Value, tenant: &Tenant) -> Value {
    let mut tree = everyone.clone();
    let mut own = limits(&tenant.limits);
    if let Some(retention) = &tenant.retention {
        own["compaction"] = json!({"block_retention": retention});
    }
    if let Some(processors) = &tenant.processors {
        own["metrics_generator"] = json!({"processors": processors});
    }
    merge::prune(&mut own);
    merge::deep(&mut tree, &own);
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tempos_limits_are_spelled_out_as_they_are() {
        let text = serde_yaml::to_string(&json!({"overrides": {"t": tempo_defaults()}})).unwrap();
        let tenants = tempo_config::parse_runtime_overrides(&text, false).unwrap();
        assert_eq!(
            tenants["t"],
            tempo_config::blocks::overrides::TenantOverrides::tempo_defaults()
        );
    }
}
