//! The settings of the querier, resolved.

use std::{num::NonZeroUsize, time::Duration};

/// Block bytes in flight per processor, unless configured.
const DEFAULT_BYTES_IN_FLIGHT_PER_CPU: u64 = 128 * 1024 * 1024;
/// Jobs that evaluate at once per processor, unless configured: some of them wait for storage.
const DEFAULT_JOBS_PER_CPU: usize = 2;

/// Decoded columns of one table, unless configured.
const DEFAULT_COLUMN_BYTES_PER_TABLE: usize = 512 * 1024 * 1024;

/// Series of one job, unless configured: as many as the query-frontend takes of a whole query.
const DEFAULT_SERIES_BYTES_PER_JOB: usize = 128 * 1024 * 1024;

/// Settings, with Tempo's defaults where Tempo has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Jobs taken from the queue at once (`max_concurrent_queries`): how many loops whoever
    /// connects queue and querier should run.
    pub max_concurrent_jobs: usize,
    /// Longest time for a job of a trace lookup.
    pub trace_by_id_query_timeout: Duration,
    /// Longest time for any other job.
    pub search_query_timeout: Duration,
    /// Jobs that evaluate at once; the others wait.
    pub max_evaluating_jobs: usize,
    /// Bytes that evaluating jobs may read of blocks, and hold while they count, together; a job
    /// that does not fit waits.
    pub max_bytes_in_flight: u64,
    /// Bytes of decoded columns that one job may hold of one table.
    pub max_column_bytes_per_table: usize,
    /// Bytes of the series that one job may count.
    pub max_series_bytes_per_job: usize,
    /// Blocks that one trace lookup reads at once.
    pub trace_lookup_concurrent_blocks: usize,
    /// How long a compacted block still counts in trace lookups: twice the interval at which
    /// blocks are listed, after which its successor is known everywhere.
    pub compacted_block_lookback: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            max_concurrent_jobs: 20,
            trace_by_id_query_timeout: Duration::from_secs(10),
            search_query_timeout: Duration::from_secs(30),
            max_evaluating_jobs: cpus * DEFAULT_JOBS_PER_CPU,
            max_bytes_in_flight: cpus as u64 * DEFAULT_BYTES_IN_FLIGHT_PER_CPU,
            max_column_bytes_per_table: DEFAULT_COLUMN_BYTES_PER_TABLE,
            max_series_bytes_per_job: DEFAULT_SERIES_BYTES_PER_JOB,
            trace_lookup_concurrent_blocks: 8,
            compacted_block_lookback: Duration::from_secs(2 * 300),
        }
    }
}
