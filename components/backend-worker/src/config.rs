//! Settings of the backend-worker.

use std::time::Duration;

use tempo_block::{
    bloom::{DEFAULT_FALSE_POSITIVE, DEFAULT_SHARD_SIZE_BYTES},
    write::DEFAULT_ROW_GROUP_SIZE_BYTES,
};

/// Pauses between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// `backoff.min_period`: the first pause; doubled each time.
    pub min: Duration,
    /// `backoff.max_period`: the longest.
    pub max: Duration,
}

/// Settings, with Tempo's defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// Tells this worker apart from all others, and stays the same after a restart.
    pub worker_id: String,
    /// `backoff`.
    pub backoff: Backoff,
    /// `finish_on_shutdown_timeout`: how long a job may go on after the order to stop.
    pub finish_on_shutdown_timeout: Duration,
    /// Time between signs of life to the scheduler.
    pub heartbeat_interval: Duration,
    /// `storage.trace.block.parquet_row_group_size_bytes`.
    pub row_group_size_bytes: u64,
    /// `storage.trace.block.bloom_filter_false_positive`.
    pub bloom_false_positive: f64,
    /// `storage.trace.block.bloom_filter_shard_size_bytes`.
    pub bloom_shard_size_bytes: u32,
    /// `compaction.retention_concurrency`: blocks ended at once.
    pub retention_concurrency: usize,
}

impl Config {
    /// Tempo's defaults.
    pub fn new(worker_id: String) -> Self {
        Self {
            worker_id,
            backoff: Backoff {
                min: Duration::from_millis(100),
                max: Duration::from_secs(60),
            },
            finish_on_shutdown_timeout: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(30),
            row_group_size_bytes: DEFAULT_ROW_GROUP_SIZE_BYTES,
            bloom_false_positive: DEFAULT_FALSE_POSITIVE,
            bloom_shard_size_bytes: DEFAULT_SHARD_SIZE_BYTES,
            retention_concurrency: tempo_backend::DEFAULT_RETENTION_CONCURRENCY,
        }
    }
}
