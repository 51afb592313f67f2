//! What each tenant may send.

use std::time::Duration;

/// Looks up the limits of a tenant. Asked for every push, so it must be cheap and must not block.
pub trait Limits: Send + Sync + 'static {
    /// The limits in force for `tenant` at this moment.
    fn limits(&self, tenant: &str) -> TenantLimits;
}

/// The limits of one tenant. The default is Tempo's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantLimits {
    /// Bytes per second that this process accepts (`ingestion.rate_limit_bytes`; under the
    /// `global` strategy this process's share of it). 0 refuses everything.
    pub rate_limit_bytes: u64,
    /// The rate of all distributors together in bytes per second, which refusals mention: 0 under
    /// the `local` strategy.
    pub global_rate_limit_bytes: u64,
    /// Most bytes accepted at once (`ingestion.burst_size_bytes`); a larger push is always refused.
    pub burst_size_bytes: u64,
    /// Longest attribute key or value in bytes (`ingestion.max_attribute_bytes`); 0 leaves it to
    /// the distributor's setting.
    pub max_attribute_bytes: usize,
    /// Whether refusals tell when to try again (`ingestion.retry_info_enabled`).
    pub retry_info_enabled: bool,
    /// Time that every push is made to take at least (`ingestion.artificial_delay`); `None` leaves
    /// it to the distributor's setting, zero turns it off.
    pub artificial_delay: Option<Duration>,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            rate_limit_bytes: 30_000_000,
            global_rate_limit_bytes: 0,
            burst_size_bytes: 30_000_000,
            max_attribute_bytes: 0,
            retry_info_enabled: true,
            artificial_delay: None,
        }
    }
}
