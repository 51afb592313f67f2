//! The flat format of Tempo 2: `ingestion_rate_limit_bytes` for `ingestion.rate_limit_bytes`.

use serde_yaml::{Mapping, Value};

use crate::Error;

/// Top-level keys of the scoped format.
pub(crate) const SCOPES: [&str; 8] = [
    "ingestion",
    "read",
    "compaction",
    "metrics_generator",
    "forwarders",
    "global",
    "storage",
    "cost_attribution",
];

/// Flat keys whose scope their name does not tell.
const IRREGULAR: [(&str, &[&str]); 12] = [
    ("max_traces_per_user", &["ingestion"]),
    ("max_global_traces_per_user", &["ingestion"]),
    ("block_retention", &["compaction"]),
    ("compaction_window", &["compaction"]),
    ("compaction_disabled", &["compaction"]),
    ("max_bytes_per_tag_values_query", &["read"]),
    ("max_blocks_per_tag_values_query", &["read"]),
    ("max_search_duration", &["read"]),
    ("max_metrics_duration", &["read"]),
    ("unsafe_query_hints", &["read"]),
    ("max_bytes_per_trace", &["global"]),
    ("parquet_dedicated_columns", &["storage"]),
];

/// Prefixes of flat keys that stand for a scope, longest first.
const PREFIXES: [(&str, &[&str]); 6] = [
    (
        "metrics_generator_processor_service_graphs_",
        &["metrics_generator", "processor", "service_graphs"],
    ),
    (
        "metrics_generator_processor_span_metrics_",
        &["metrics_generator", "processor", "span_metrics"],
    ),
    (
        "metrics_generator_processor_host_info_",
        &["metrics_generator", "processor", "host_info"],
    ),
    (
        "metrics_generator_forwarder_",
        &["metrics_generator", "forwarder"],
    ),
    ("metrics_generator_", &["metrics_generator"]),
    ("ingestion_", &["ingestion"]),
];

/// Prefix of settings that went with the processor they belonged to.
const REMOVED_PREFIX: &str = "metrics_generator_processor_local_blocks_";

/// Whether these limits are flat: some key is only known there.
pub(crate) fn is_legacy(limits: &Mapping) -> bool {
    limits
        .keys()
        .filter_map(Value::as_str)
        .any(|key| !SCOPES.contains(&key) && scoped_path(key).is_some())
}

/// Refuses the format where it is not enabled.
pub(crate) fn check_allowed(path: &str, allowed: bool) -> Result<(), Error> {
    if allowed {
        return Ok(());
    }
    Err(Error::invalid(
        path,
        "these are limits in the flat format of Tempo 2; scope them (ingestion_rate_limit_bytes \
         becomes ingestion.rate_limit_bytes), or set enable_legacy_overrides: true",
    ))
}

/// The scoped form of flat limits.
pub(crate) fn to_scoped(path: &str, flat: Mapping) -> Result<Mapping, Error> {
    let mut scoped = Mapping::new();
    for (key, value) in flat {
        let name = key.as_str().unwrap_or_default().to_owned();
        if name == "forwarders" || name == "cost_attribution" {
            scoped.insert(key, value);
            continue;
        }
        if name.starts_with(REMOVED_PREFIX) {
            return Err(Error::invalid(
                format!("{path}.{name}"),
                "the processor local-blocks does not exist any more; remove the key",
            ));
        }
        let Some((scopes, leaf)) = scoped_path(&name) else {
            return Err(Error::invalid(
                format!("{path}.{name}"),
                "unknown key of the flat format; scoped and flat limits cannot be mixed",
            ));
        };
        let mut target = &mut scoped;
        for scope in scopes {
            let entry = target
                .entry(Value::from(*scope))
                .or_insert_with(|| Value::Mapping(Mapping::new()));
            let Value::Mapping(inner) = entry else {
                return Err(Error::invalid(format!("{path}.{name}"), "it appears twice"));
            };
            target = inner;
        }
        target.insert(Value::from(leaf), value);
    }
    Ok(scoped)
}

/// Where a flat key belongs: its scopes and its name there.
fn scoped_path(key: &str) -> Option<(&'static [&'static str], &str)> {
    if let Some((_, scopes)) = IRREGULAR.iter().find(|(name, _)| *name == key) {
        return Some((scopes, key));
    }
    PREFIXES
        .iter()
        .find_map(|(prefix, scopes)| Some((*scopes, key.strip_prefix(prefix)?)))
}
