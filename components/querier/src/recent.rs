//! What the querier needs from whoever holds recent data.

use std::{any::Any, sync::Arc};

use tempo_api::job::TraceParts;
use tempo_model::TraceId;
use tempo_table::SpanTable;

use crate::LiveStores;

/// Where data is that is not (only) in the object store yet.
#[derive(Clone)]
pub enum Recent {
    /// In this process.
    Here(Arc<dyn RecentTraces>),
    /// At live-stores, which are asked over the network.
    LiveStores(LiveStores),
    /// There is none: what is not in the object store does not exist for this querier.
    Nowhere,
}

/// Data that is not (only) in the object store yet. Calls may block on storage.
pub trait RecentTraces: Send + Sync {
    /// Tables that hold all spans of the tenant between two times (nanoseconds since the epoch,
    /// both included), as far as they are not only in the object store. They may hold other spans
    /// too.
    fn view(
        &self,
        tenant: &str,
        start_unix_nanos: u64,
        end_unix_nanos: u64,
        operation: RecentOperation,
    ) -> Result<RecentView, RecentError>;

    /// What is known of a trace.
    fn find_trace(&self, tenant: &str, trace_id: TraceId) -> Result<TraceParts, RecentError>;
}

/// What a view is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecentOperation {
    /// A search for traces.
    Search,
    /// Tag names.
    TagNames,
    /// Tag values.
    TagValues,
    /// Counting spans over time.
    QueryRange,
}

/// Recent data at one moment.
pub struct RecentView {
    /// The tables. Reading them may block.
    pub tables: Vec<Arc<dyn SpanTable>>,
    /// Dropped when the tables are not used any more.
    pub hold: Box<dyn Any + Send>,
}

/// Why recent data cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecentError {
    /// Trying again may help.
    #[error("{0}")]
    Unavailable(String),
    /// Trying again does not help.
    #[error("{0}")]
    Failed(String),
}
