//! The limits that count for one tenant.

use std::{sync::Arc, time::Duration};

use tempo_config::blocks::{
    overrides::{RateStrategy, SpanNameSanitization},
    storage::DedicatedColumn,
};

use crate::TenantOverrides;

/// Where a tenant's limits come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitsSource {
    /// Its own entry in the runtime file.
    Tenant,
    /// The entry `*` of the runtime file.
    Wildcard,
    /// `overrides.defaults`.
    Defaults,
}

/// The limits that count for one tenant at one time. They do not change under their holder; ask
/// again for later ones.
///
/// Where Tempo's 0 means something else than the number, the answer says so: `None` is "no limit"
/// or "the component's own setting", as documented. A rate of 0 is a rate of 0.
#[derive(Debug, Clone)]
pub struct TenantLimits {
    limits: Arc<TenantOverrides>,
    defaults: Arc<TenantOverrides>,
    source: LimitsSource,
}

fn not_zero(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

fn not_zero_time(value: Duration) -> Option<Duration> {
    (!value.is_zero()).then_some(value)
}

impl TenantLimits {
    pub(crate) fn new(
        limits: Arc<TenantOverrides>,
        defaults: Arc<TenantOverrides>,
        source: LimitsSource,
    ) -> Self {
        Self {
            limits,
            defaults,
            source,
        }
    }

    /// Where they come from, apart from what the tenant has set itself.
    pub fn source(&self) -> LimitsSource {
        self.source
    }

    /// All of them, as written; what the tenant has set itself stands over the rest.
    pub fn as_written(&self) -> &TenantOverrides {
        &self.limits
    }

    /// How the ingestion rate counts; the same for every tenant.
    pub fn ingestion_rate_strategy(&self) -> RateStrategy {
        match self.defaults.ingestion.rate_strategy {
            RateStrategy::Unset => RateStrategy::Local,
            strategy => strategy,
        }
    }

    /// Bytes per second that may be sent; 0 refuses everything.
    pub fn ingestion_rate_limit_bytes(&self) -> u64 {
        *self.limits.ingestion.rate_limit_bytes
    }

    /// Bytes that may be sent at once; 0 refuses everything.
    pub fn ingestion_burst_size_bytes(&self) -> u64 {
        *self.limits.ingestion.burst_size_bytes
    }

    /// Traces that one live-store holds at once; none: any number.
    pub fn max_traces_per_user(&self) -> Option<u64> {
        not_zero(self.limits.ingestion.max_traces_per_user)
    }

    /// Partitions that spans go to; none: all.
    pub fn ingestion_tenant_shard_size(&self) -> Option<u64> {
        not_zero(u64::from(self.limits.ingestion.tenant_shard_size))
    }

    /// Longest attribute key or value in bytes; none: the distributor's own setting.
    pub fn ingestion_max_attribute_bytes(&self) -> Option<u64> {
        not_zero(self.limits.ingestion.max_attribute_bytes)
    }

    /// Least time that a push takes; none: the distributor's own setting.
    pub fn ingestion_artificial_delay(&self) -> Option<Duration> {
        self.limits.ingestion.artificial_delay.map(|delay| delay.0)
    }

    /// Whether a refusal tells when to come back. Unset, the defaults count, then yes.
    pub fn ingestion_retry_info_enabled(&self) -> bool {
        let own = self.limits.ingestion.retry_info_enabled;
        own.or(self.defaults.ingestion.retry_info_enabled)
            .unwrap_or(true)
    }

    /// Bytes of tag values in one answer; none: any number.
    pub fn max_bytes_per_tag_values_query(&self) -> Option<u64> {
        not_zero(*self.limits.read.max_bytes_per_tag_values_query)
    }

    /// Blocks that one live-store reads for tag values; none: any number.
    pub fn max_blocks_per_tag_values_query(&self) -> Option<u64> {
        not_zero(self.limits.read.max_blocks_per_tag_values_query)
    }

    /// Conditions of a query that narrow a tag query; the same for every tenant.
    pub fn max_condition_groups_per_tag_query(&self) -> u64 {
        self.defaults.read.max_condition_groups_per_tag_query
    }

    /// Longest time range of a search; none: the frontend's own setting.
    pub fn max_search_duration(&self) -> Option<Duration> {
        not_zero_time(self.limits.read.max_search_duration.0)
    }

    /// Longest time range of a metrics query; none: the frontend's own setting.
    pub fn max_metrics_duration(&self) -> Option<Duration> {
        not_zero_time(self.limits.read.max_metrics_duration.0)
    }

    /// Whether query hints that can hurt are obeyed.
    pub fn unsafe_query_hints(&self) -> bool {
        self.limits.read.unsafe_query_hints
    }

    /// Whether trace ids in answers have all their leading zeros.
    pub fn left_pad_trace_ids(&self) -> bool {
        self.limits.read.left_pad_trace_ids
    }

    /// Whether metrics queries read spans alone; none: as the querier decides.
    pub fn metrics_spanonly_fetch(&self) -> Option<bool> {
        self.limits.read.metrics_spanonly_fetch
    }

    /// Whether the engine counts the bytes of attributes; unset, the defaults count.
    pub fn engine_bytes_tracking(&self) -> Option<bool> {
        let own = self.limits.read.engine_bytes_tracking;
        own.or(self.defaults.read.engine_bytes_tracking)
    }

    /// Whether answers take note of spans that were pruned by the sender.
    pub fn span_pruning_awareness(&self) -> bool {
        self.limits.read.span_pruning_awareness
    }

    /// Whether large traces are pruned in answers; none: as the frontend decides.
    pub fn span_pruning_enabled(&self) -> Option<bool> {
        self.limits.read.span_pruning_enabled
    }

    /// How long blocks live; none: the worker's own setting.
    pub fn block_retention(&self) -> Option<Duration> {
        not_zero_time(self.limits.compaction.block_retention.0)
    }

    /// Width of the compaction windows; none: the scheduler's own setting.
    pub fn compaction_window(&self) -> Option<Duration> {
        not_zero_time(self.limits.compaction.compaction_window.0)
    }

    /// No compaction and no retention.
    pub fn compaction_disabled(&self) -> bool {
        self.limits.compaction.compaction_disabled
    }

    /// Bytes of one trace; none: any number.
    pub fn max_bytes_per_trace(&self) -> Option<u64> {
        not_zero(*self.limits.global.max_bytes_per_trace)
    }

    /// Attributes with a column of their own; none: the block's own setting. An empty list is none.
    pub fn dedicated_columns(&self) -> Option<&[DedicatedColumn]> {
        let columns = &*self.limits.storage.parquet_dedicated_columns;
        (!columns.is_empty()).then_some(columns)
    }

    /// Growth of native buckets; unset, the defaults count.
    pub fn native_histogram_bucket_factor(&self) -> f64 {
        let factor =
            |limits: &TenantOverrides| limits.metrics_generator.native_histogram_bucket_factor;
        match factor(&self.limits) {
            0.0 => factor(&self.defaults),
            own => own,
        }
    }

    /// Native buckets at most; unset, the defaults count.
    pub fn native_histogram_max_bucket_number(&self) -> u32 {
        let number =
            |limits: &TenantOverrides| limits.metrics_generator.native_histogram_max_bucket_number;
        match number(&self.limits) {
            0 => number(&self.defaults),
            own => own,
        }
    }

    /// Time between two resets of a native histogram; unset, the defaults count.
    pub fn native_histogram_min_reset_duration(&self) -> Duration {
        let time = |limits: &TenantOverrides| {
            let generator = &limits.metrics_generator;
            generator.native_histogram_min_reset_duration.0
        };
        not_zero_time(time(&self.limits)).unwrap_or(time(&self.defaults))
    }

    /// Whether span names that differ in numbers alone count as one; unset, the defaults count.
    pub fn span_name_sanitization(&self) -> SpanNameSanitization {
        match self.limits.metrics_generator.span_name_sanitization {
            SpanNameSanitization::Unset => self.defaults.metrics_generator.span_name_sanitization,
            own => own,
        }
    }
}
