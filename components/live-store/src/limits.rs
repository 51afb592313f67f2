//! What each tenant may do, as the live-store needs to know it.

use tempo_backend::DedicatedColumns;

/// Per-tenant limits. Asked at every push: answers must be cheap.
pub trait Limits: Send + Sync + 'static {
    /// `global.max_bytes_per_trace`: serialized bytes of one trace; 0 for no limit.
    fn max_bytes_per_trace(&self, tenant: &str) -> u64;

    /// `ingestion.max_traces_per_user`: traces that are live at once; 0 for no limit.
    fn max_live_traces(&self, tenant: &str) -> u32;

    /// Attributes that blocks of the tenant store in columns of their own.
    fn dedicated_columns(&self, tenant: &str) -> DedicatedColumns;
}
