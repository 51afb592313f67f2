//! What reads have cost so far, for one query.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Counts requests and bytes of the reads it is handed to. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct ReadStats(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl ReadStats {
    /// Counters at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests sent to the store; merged ranges count once, retries and hedges do not count.
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// Bytes read from the store, gaps between merged ranges included.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Counts one request that brought `bytes`.
    pub fn record(&self, bytes: u64) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
