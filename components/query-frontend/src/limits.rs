//! What a tenant may read.

use std::time::Duration;

/// The limits of one tenant's queries, with Tempo's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadLimits {
    /// Largest trace that is answered; 0 for any.
    pub max_bytes_per_trace: usize,
    /// Bytes of tag names or values that are answered; 0 for any.
    pub max_bytes_per_tag_values_query: u64,
    /// Alternatives of a tag query; 0 for any.
    pub max_condition_groups_per_tag_query: usize,
    /// Longest range of a search, instead of the configured one.
    pub max_search_duration: Option<Duration>,
    /// Longest range of a metrics query, instead of the configured one.
    pub max_metrics_duration: Option<Duration>,
    /// Whether hints that may do harm are honoured.
    pub unsafe_query_hints: bool,
    /// Whether search answers show trace ids with all 32 digits.
    pub left_pad_trace_ids: bool,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            max_bytes_per_trace: 5_000_000,
            max_bytes_per_tag_values_query: 1_000_000,
            max_condition_groups_per_tag_query: 100,
            max_search_duration: None,
            max_metrics_duration: None,
            unsafe_query_hints: false,
            left_pad_trace_ids: false,
        }
    }
}

/// Where the limits of tenants come from. Asked once per query, so changes take effect at the next.
pub trait LimitsSource: Send + Sync {
    /// The limits of `tenant`, which may be several joined by `|`: those then have the defaults.
    fn read_limits(&self, tenant: &str) -> ReadLimits;
}

impl LimitsSource for ReadLimits {
    /// The same limits for every tenant.
    fn read_limits(&self, _tenant: &str) -> ReadLimits {
        self.clone()
    }
}
