//! The limits of a tenant, as they stand in the configuration.
//!
//! Owns the scoped format (`ingestion`, `read`, …), its defaults and its checks. Must never do I/O
//! or decide which tenant's limits count.
//!
//! An entry of the runtime file replaces the defaults as a whole: what it leaves out is zero. So
//! [`Limits::default`] is all zero, and [`Limits::tempo_defaults`] is what an empty
//! `overrides.defaults` means.

mod generator;
mod number;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use generator::{
    DimensionMapping, FilterPolicy, FilterPolicyAttribute, FilterPolicyMatch, ForwarderLimits,
    HistogramMethod, HostInfoLimits, MetricsGeneratorLimits, ProcessorLimits, SecretHeader,
    ServiceGraphsLimits, SpanMetricsLimits, SpanNameSanitization,
};

use crate::{GoDuration, PrometheusDuration};

/// Limits of one tenant, or of all that have none of their own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// What may be sent.
    #[serde(skip_serializing_if = "is_default")]
    pub ingestion: IngestionLimits,
    /// What may be asked.
    #[serde(skip_serializing_if = "is_default")]
    pub read: ReadLimits,
    /// How long blocks live.
    #[serde(skip_serializing_if = "is_default")]
    pub compaction: CompactionLimits,
    /// Which metrics are generated.
    #[serde(skip_serializing_if = "is_default")]
    pub metrics_generator: MetricsGeneratorLimits,
    /// Names of the forwarders that get a copy of the spans.
    #[serde(skip_serializing_if = "is_default")]
    pub forwarders: Vec<String>,
    /// What counts everywhere.
    #[serde(skip_serializing_if = "is_default")]
    pub global: GlobalLimits,
    /// How blocks are written.
    #[serde(skip_serializing_if = "is_default")]
    pub storage: StorageLimits,
    /// How usage is attributed.
    #[serde(skip_serializing_if = "is_default")]
    pub cost_attribution: CostAttributionLimits,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How the ingestion rate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RateStrategy {
    /// Each distributor admits the whole rate.
    Local,
    /// The rate is divided among the distributors.
    Global,
}

/// `ingestion`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestionLimits {
    /// How the rate counts; read from the defaults only.
    #[serde(skip_serializing_if = "is_default")]
    pub rate_strategy: Option<RateStrategy>,
    /// Bytes per second; 0 refuses everything.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub rate_limit_bytes: u64,
    /// Bytes at once; a larger push is always refused.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub burst_size_bytes: u64,
    /// Traces of one live-store at once; 0: any number.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub max_traces_per_user: u64,
    /// Enforced by nobody, as in Tempo; shown in metrics.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub max_global_traces_per_user: u64,
    /// Partitions that the tenant's spans go to; 0: all.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub tenant_shard_size: u64,
    /// Longest attribute key or value in bytes; 0: the distributor's own setting.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub max_attribute_bytes: u64,
    /// Least time that a push takes; none: the distributor's own setting.
    #[serde(skip_serializing_if = "is_default")]
    pub artificial_delay: Option<GoDuration>,
    /// Whether a refusal tells when to come back.
    #[serde(skip_serializing_if = "is_default")]
    pub retry_info_enabled: Option<bool>,
}

/// `read`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadLimits {
    /// Bytes of tag values in one answer; 0: any number.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub max_bytes_per_tag_values_query: u64,
    /// Blocks that one live-store reads for tag values; 0: any number.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub max_blocks_per_tag_values_query: u64,
    /// Conditions of a query that narrow a tag query; read from the defaults only.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub max_condition_groups_per_tag_query: u64,
    /// Longest time range of a search; 0: the frontend's own setting.
    #[serde(skip_serializing_if = "is_default")]
    pub max_search_duration: PrometheusDuration,
    /// Longest time range of a metrics query; 0: the frontend's own setting.
    #[serde(skip_serializing_if = "is_default")]
    pub max_metrics_duration: PrometheusDuration,
    /// Whether hints that can hurt are obeyed.
    #[serde(skip_serializing_if = "is_default")]
    pub unsafe_query_hints: bool,
    /// Whether trace ids in answers have all their leading zeros.
    #[serde(skip_serializing_if = "is_default")]
    pub left_pad_trace_ids: bool,
    /// Whether metrics queries read spans alone.
    #[serde(skip_serializing_if = "is_default")]
    pub metrics_spanonly_fetch: Option<bool>,
    /// Whether the engine counts the bytes of attributes.
    #[serde(skip_serializing_if = "is_default")]
    pub engine_bytes_tracking: Option<bool>,
    /// Whether answers take note of spans that were pruned by the sender.
    #[serde(skip_serializing_if = "is_default")]
    pub span_pruning_awareness: bool,
    /// Whether large traces are pruned in answers.
    #[serde(skip_serializing_if = "is_default")]
    pub span_pruning_enabled: Option<bool>,
}

/// `compaction`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompactionLimits {
    /// How long blocks live; 0: the worker's own setting.
    #[serde(skip_serializing_if = "is_default")]
    pub block_retention: PrometheusDuration,
    /// Width of the time windows that blocks are compacted in; 0: the scheduler's own setting.
    #[serde(skip_serializing_if = "is_default")]
    pub compaction_window: PrometheusDuration,
    /// No compaction and no retention.
    #[serde(skip_serializing_if = "is_default")]
    pub compaction_disabled: bool,
}

/// `global`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GlobalLimits {
    /// Bytes of one trace; 0: any number.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub max_bytes_per_trace: u64,
}

/// `storage`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageLimits {
    /// Attributes with a column of their own; none: the block's own setting.
    #[serde(skip_serializing_if = "is_default")]
    pub parquet_dedicated_columns: Option<Vec<DedicatedColumnLimit>>,
}

/// One of `storage.parquet_dedicated_columns`, in words; who writes blocks knows which there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DedicatedColumnLimit {
    /// `resource`, `span` or `event`.
    pub scope: String,
    /// The attribute's key.
    pub name: String,
    /// `string` or `int`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `array`, `blob`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// `cost_attribution`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CostAttributionLimits {
    /// Series of one tenant; 0: the distributor's own setting.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "is_default")]
    pub max_cardinality: u64,
    /// Attribute keys and the labels they become; an empty label is made of the key.
    #[serde(skip_serializing_if = "is_default")]
    pub dimensions: BTreeMap<String, String>,
}

impl Limits {
    /// What holds for every tenant when nothing is configured.
    pub fn tempo_defaults() -> Self {
        Self {
            ingestion: IngestionLimits {
                rate_strategy: Some(RateStrategy::Local),
                rate_limit_bytes: 30_000_000,
                burst_size_bytes: 30_000_000,
                max_traces_per_user: 10_000,
                retry_info_enabled: Some(true),
                ..IngestionLimits::default()
            },
            read: ReadLimits {
                max_bytes_per_tag_values_query: 1_000_000,
                max_condition_groups_per_tag_query: 100,
                ..ReadLimits::default()
            },
            global: GlobalLimits {
                max_bytes_per_trace: 5_000_000,
            },
            metrics_generator: MetricsGeneratorLimits::tempo_defaults(),
            ..Self::default()
        }
    }

    /// Checks what a type alone cannot: the path of the setting and what is wrong with it.
    pub fn validate(&self) -> Result<(), InvalidLimit> {
        self.metrics_generator.validate()?;
        for attribute in self.cost_attribution.dimensions.keys() {
            if attribute.is_empty() {
                return Err(InvalidLimit::new(
                    "cost_attribution.dimensions",
                    "an attribute key is empty",
                ));
            }
        }
        Ok(())
    }
}

/// A limit whose value makes no sense.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{path}: {problem}")]
pub struct InvalidLimit {
    /// The path of the setting within the limits.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

impl InvalidLimit {
    /// A problem at a path.
    pub fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            problem: problem.into(),
        }
    }
}
