//! Resolved settings. Keys that Tempo has carry Tempo's defaults.

use std::{path::PathBuf, time::Duration};

use tempo_block::{
    bloom::{DEFAULT_FALSE_POSITIVE, DEFAULT_SHARD_SIZE_BYTES},
    schema::Version,
    write::DEFAULT_ROW_GROUP_SIZE_BYTES,
};

use crate::{
    error::Error,
    kafka::{self, KafkaFeed},
};

/// `storage.trace.block`: how blocks are written.
#[derive(Debug, Clone)]
pub struct BlockSettings {
    /// `version`.
    pub version: Version,
    /// `parquet_row_group_size_bytes`.
    pub row_group_size_bytes: u64,
    /// `bloom_filter_false_positive`.
    pub bloom_false_positive: f64,
    /// `bloom_filter_shard_size_bytes`.
    pub bloom_shard_size_bytes: u32,
}

impl Default for BlockSettings {
    fn default() -> Self {
        Self {
            version: Version::VParquet4,
            row_group_size_bytes: DEFAULT_ROW_GROUP_SIZE_BYTES,
            bloom_false_positive: DEFAULT_FALSE_POSITIVE,
            bloom_shard_size_bytes: DEFAULT_SHARD_SIZE_BYTES,
        }
    }
}

/// Where query-frontends of other processes turn from live-stores to blocks.
#[derive(Debug, Clone)]
pub struct BoundarySettings {
    /// After so long every process sees a block that is in the object store: two `blocklist_poll`s,
    /// and more.
    pub blocks_visible_after: Duration,
    /// How long before it arrives a span may begin, in queries over time.
    pub max_span_delay: Duration,
}

/// How the live-store works.
#[derive(Debug, Clone)]
pub struct Config {
    /// `live_store.wal.path`: the folder of everything kept on disk. One process at a time.
    ///
    /// `segments/` holds the write-ahead log, `blocks/<tenant>/<id>/` the complete blocks,
    /// `building/` unfinished ones (emptied at start), `quarantine/` what could not be read.
    pub data_path: PathBuf,
    /// `live_store.flush_check_period`: how often traces and blocks are looked at for cutting.
    pub flush_check_period: Duration,
    /// `live_store.max_trace_idle`: a trace without new spans for this long is cut.
    pub max_trace_idle: Duration,
    /// `live_store.max_trace_live`: a trace of this age is cut even if spans still come.
    pub max_trace_live: Duration,
    /// `live_store.max_live_traces_bytes`: serialized bytes per tenant of traces that are not cut.
    /// Where Tempo makes pushes wait, the traces that were idle longest are cut early.
    pub max_live_traces_bytes: u64,
    /// `live_store.max_block_duration`: a block of this age is closed.
    pub max_block_duration: Duration,
    /// `live_store.max_block_bytes`: a block of this size is closed. Counted is the expected size
    /// of the finished block: serialized bytes times the ratio that earlier blocks reached (at
    /// first [`crate::INITIAL_COMPRESSION_RATIO`]).
    pub max_block_bytes: u64,
    /// `live_store.complete_block_timeout`: how long a block stays here after it was flushed. Must
    /// cover the frontend's `query_backend_after` and two `blocklist_poll`s. With Kafka, it stays
    /// until block-builders have its spans, too.
    pub complete_block_timeout: Duration,
    /// `query_backend_after` of the frontend and two `blocklist_poll`s: for so long after it was
    /// flushed a block stays however full the disk is, because queries ask nobody else for its
    /// spans. With Kafka it stays for [`Config::complete_block_timeout`] in any case.
    pub min_flushed_block_age: Duration,
    /// `live_store.complete_block_concurrency`: blocks built at once, and blocks flushed at once.
    pub complete_block_concurrency: usize,
    /// `live_store.wal.ingestion_time_range_slack`: spans may lie this far in the future before
    /// their block's end no longer follows them.
    pub ingestion_time_range_slack: Duration,
    /// How blocks are written.
    pub block: BlockSettings,
    /// What is read from Kafka; `None` where spans are pushed, and the own log keeps them.
    pub kafka: Option<KafkaFeed>,
    /// Present where spans are pushed and processes of a cluster read them all the same.
    pub bridge: Option<BoundarySettings>,

    /// Pushes wait in a queue of this many bytes to be written to the log; a push that does not
    /// fit is refused.
    pub max_wal_queue_bytes: u64,
    /// A log file of this size is followed by a new one, in bytes. At most 1 GiB.
    pub wal_segment_bytes: u64,
    /// A log file of this age is followed by a new one, so that it can be removed.
    pub wal_segment_max_age: Duration,
    /// How often new spans become columns. A query does not wait for it.
    pub columns_tick: Duration,
    /// Spans that wait to become columns, per tenant, before it is done at once.
    pub max_pending_spans: usize,
    /// Memory of live columns of all tenants, in bytes, beyond which blocks are closed early; at
    /// twice as much, pushes wait.
    pub max_live_table_bytes: u64,
    /// Where other processes ask: size of complete blocks on local disk, in bytes, beyond which the
    /// oldest are removed although queries may find what they hold nowhere else.
    pub max_local_block_bytes: u64,
    /// Blocks of a tenant that wait for completion beyond which its pushes wait.
    pub max_uncompleted_blocks: usize,
    /// How long a push waits for room before it is refused.
    pub max_push_wait: Duration,
    /// Pause before the second attempt to complete or flush a block; doubles with each further one.
    pub min_retry_backoff: Duration,
    /// Longest such pause.
    pub max_retry_backoff: Duration,
    /// How long a stop may take to complete blocks. What is left is in the log.
    pub max_shutdown_completion: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_path: PathBuf::from("/var/tempo/live-store/traces"),
            flush_check_period: Duration::from_secs(5),
            max_trace_idle: Duration::from_secs(5),
            max_trace_live: Duration::from_secs(30),
            max_live_traces_bytes: 250_000_000,
            max_block_duration: Duration::from_secs(30),
            max_block_bytes: 50 * 1024 * 1024,
            complete_block_timeout: Duration::from_secs(20 * 60),
            min_flushed_block_age: Duration::from_secs(25 * 60),
            complete_block_concurrency: 2,
            ingestion_time_range_slack: Duration::from_secs(120),
            block: BlockSettings::default(),
            kafka: None,
            bridge: None,
            max_wal_queue_bytes: 64 << 20,
            wal_segment_bytes: 16 << 20,
            wal_segment_max_age: Duration::from_secs(60),
            columns_tick: Duration::from_millis(200),
            max_pending_spans: 50_000,
            max_live_table_bytes: 512 << 20,
            max_local_block_bytes: 32 << 30,
            max_uncompleted_blocks: 4,
            max_push_wait: Duration::from_secs(10),
            min_retry_backoff: Duration::from_secs(1),
            max_retry_backoff: Duration::from_secs(30),
            max_shutdown_completion: Duration::from_secs(10),
        }
    }
}

/// Largest log segment, in bytes: offsets must fit into 32 bits even with the largest record.
const MAX_WAL_SEGMENT_BYTES: u64 = 1 << 30;

impl Config {
    /// Where query-frontends of other processes turn to blocks; `None` where none asks.
    pub(crate) fn boundary(&self) -> Option<&BoundarySettings> {
        let of_feed = self.kafka.as_ref().map(|feed| &feed.boundary);
        of_feed.or(self.bridge.as_ref())
    }

    /// Checks what the parser of the configuration cannot know.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let wrong = |key, reason: &str| {
            Err(Error::Config {
                key,
                reason: reason.to_owned(),
            })
        };
        let positive = [
            ("flush_check_period", self.flush_check_period),
            ("max_trace_idle", self.max_trace_idle),
            ("max_trace_live", self.max_trace_live),
            ("max_block_duration", self.max_block_duration),
            ("complete_block_timeout", self.complete_block_timeout),
        ];
        for (key, value) in positive {
            if value.is_zero() {
                return wrong(key, "must be longer than 0s");
            }
        }
        if self.max_trace_idle > self.max_trace_live {
            return wrong("max_trace_idle", "must not exceed max_trace_live");
        }
        if self.max_block_bytes == 0 {
            return wrong("max_block_bytes", "must be greater than 0");
        }
        if self.max_live_traces_bytes == 0 {
            return wrong("max_live_traces_bytes", "must be greater than 0");
        }
        if self.complete_block_concurrency == 0 {
            return wrong("complete_block_concurrency", "must be at least 1");
        }
        if let Some(feed) = &self.kafka {
            kafka::validate(feed)?;
        }
        if self.wal_segment_bytes == 0 || self.wal_segment_bytes > MAX_WAL_SEGMENT_BYTES {
            return wrong("wal_segment_bytes", "must be from 1 to 1073741824");
        }
        Ok(())
    }
}
