//! The flat overrides of Tempo 1 (`ingestion_rate_limit_bytes`), brought to today's form.

use crate::document::{Content, Entry, Mark, Node};

/// A flat key and what it is called today, below a tenant.
const KEYS: &[(&str, &str)] = &[
    ("ingestion_rate_strategy", "ingestion.rate_strategy"),
    ("ingestion_rate_limit_bytes", "ingestion.rate_limit_bytes"),
    ("ingestion_burst_size_bytes", "ingestion.burst_size_bytes"),
    ("ingestion_tenant_shard_size", "ingestion.tenant_shard_size"),
    (
        "ingestion_max_attribute_bytes",
        "ingestion.max_attribute_bytes",
    ),
    ("ingestion_artificial_delay", "ingestion.artificial_delay"),
    (
        "ingestion_retry_info_enabled",
        "ingestion.retry_info_enabled",
    ),
    ("max_traces_per_user", "ingestion.max_traces_per_user"),
    (
        "max_global_traces_per_user",
        "ingestion.max_global_traces_per_user",
    ),
    ("block_retention", "compaction.block_retention"),
    ("compaction_disabled", "compaction.compaction_disabled"),
    ("compaction_window", "compaction.compaction_window"),
    (
        "max_bytes_per_tag_values_query",
        "read.max_bytes_per_tag_values_query",
    ),
    (
        "max_blocks_per_tag_values_query",
        "read.max_blocks_per_tag_values_query",
    ),
    (
        "max_condition_groups_per_tag_query",
        "read.max_condition_groups_per_tag_query",
    ),
    ("max_search_duration", "read.max_search_duration"),
    ("max_metrics_duration", "read.max_metrics_duration"),
    ("unsafe_query_hints", "read.unsafe_query_hints"),
    ("left_pad_trace_ids", "read.left_pad_trace_ids"),
    ("metrics_spanonly_fetch", "read.metrics_spanonly_fetch"),
    ("span_pruning_awareness", "read.span_pruning_awareness"),
    ("engine_bytes_tracking", "read.engine_bytes_tracking"),
    ("span_pruning_enabled", "read.span_pruning_enabled"),
    ("max_bytes_per_trace", "global.max_bytes_per_trace"),
    (
        "parquet_dedicated_columns",
        "storage.parquet_dedicated_columns",
    ),
    (
        "metrics_generator_forwarder_queue_size",
        "metrics_generator.forwarder.queue_size",
    ),
    (
        "metrics_generator_forwarder_workers",
        "metrics_generator.forwarder.workers",
    ),
];

/// Beginnings of flat keys, the longest first, and what they are today.
const PREFIXES: &[(&str, &str)] = &[
    (
        "metrics_generator_processor_service_graphs_",
        "metrics_generator.processor.service_graphs.",
    ),
    (
        "metrics_generator_processor_span_metrics_",
        "metrics_generator.processor.span_metrics.",
    ),
    (
        "metrics_generator_processor_host_info_",
        "metrics_generator.processor.host_info.",
    ),
    ("metrics_generator_", "metrics_generator."),
];

/// What a flat key is called today, below a tenant.
pub(crate) fn scoped_path(key: &str) -> Option<String> {
    if let Some((_, path)) = KEYS.iter().find(|(legacy, _)| *legacy == key) {
        return Some((*path).to_owned());
    }
    PREFIXES
        .iter()
        .find_map(|(legacy, path)| Some(format!("{path}{}", key.strip_prefix(legacy)?)))
}

/// A flat key that was found.
pub(crate) struct LegacyKey {
    pub(crate) key: String,
    pub(crate) mark: Mark,
    pub(crate) scoped: String,
}

/// Moves flat keys to today's places below `below` (`defaults`, or nothing for a tenant's entry),
/// and tells which there were. Other keys stay.
pub(crate) fn to_scoped(entries: Vec<Entry>, below: Option<&str>) -> (Vec<Entry>, Vec<LegacyKey>) {
    let mut kept = Vec::new();
    let mut found = Vec::new();
    for entry in entries {
        let Some(scoped) = scoped_path(&entry.key) else {
            kept.push(entry);
            continue;
        };
        found.push(LegacyKey {
            key: entry.key,
            mark: entry.mark,
            scoped: scoped.clone(),
        });
        let path: Vec<&str> = below.into_iter().chain(scoped.split('.')).collect();
        insert(&mut kept, &path, entry.mark, entry.value);
    }
    (kept, found)
}

fn insert(entries: &mut Vec<Entry>, path: &[&str], mark: Mark, value: Node) {
    let Some((key, below)) = path.split_first() else {
        return;
    };
    if below.is_empty() {
        entries.push(Entry {
            key: (*key).to_owned(),
            mark,
            value,
        });
        return;
    }
    let position = entries.iter().position(|entry| entry.key == *key);
    let index = position.unwrap_or_else(|| {
        entries.push(Entry {
            key: (*key).to_owned(),
            mark,
            value: Node {
                content: Content::Map(Vec::new()),
                mark,
            },
        });
        entries.len() - 1
    });
    if let Some(entry) = entries.get_mut(index) {
        if entry.value.content == Content::Null {
            entry.value.content = Content::Map(Vec::new());
        }
        if let Content::Map(inner) = &mut entry.value.content {
            insert(inner, below, mark, value);
        }
    }
}
