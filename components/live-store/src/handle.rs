//! The handle: push, find, look, flush.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tempo_backend::ReadStats;
use tempo_ingest::Error as LogError;
use tempo_model::{TraceBatch, TraceId, TraceUnion, tenant};
use tempo_table::SpanTable;

use crate::{
    clock,
    error::{FlushError, PushError, ReadError, UnflushedBlock},
    kafka::Reading,
    live::{Admitted, Overflow, PushLimits, Tenant},
    local::LocalBlock,
    metrics::Metrics,
    pipeline::Stage,
    store::Shared,
    wal::{AppendError, ReadChunkError},
};

/// Serialized bytes of a tenant that may wait to become columns before its pushes wait.
const MAX_PENDING_BYTES: u64 = 64 << 20;
/// How often a waiting push looks again even if nobody wakes it.
const ROOM_CHECK_PERIOD: Duration = Duration::from_secs(1);

/// The live-store. Cheap to clone.
#[derive(Clone)]
pub struct LiveStore {
    pub(crate) shared: Arc<Shared>,
}

/// What became of a push that was acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PushOutcome {
    /// Spans that are durable and found by queries.
    pub accepted_spans: u64,
    /// Spans left out because their trace exceeds `max_bytes_per_trace`; for the sender's
    /// `partial_success`, and for `tempo_discarded_spans_total{reason="trace_too_large"}`.
    pub too_large_spans: u64,
    /// The limit that they exceed, in bytes.
    pub max_bytes_per_trace: u64,
}

/// A trace found in recent data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTrace {
    /// A serialized `tempopb.Trace`: every span once.
    pub trace: Bytes,
    /// Bytes read to find it.
    pub inspected_bytes: u64,
}

/// What recent data is looked at for; the label `op` of `query_inspected_bytes_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Search.
    Search,
    /// Tag names.
    SearchTags,
    /// Tag values.
    SearchTagValues,
    /// A trace by its id.
    TraceById,
    /// Metrics over time.
    QueryRange,
}

impl Operation {
    fn label(self) -> &'static str {
        match self {
            Self::Search => "search",
            Self::SearchTags => "search_tags",
            Self::SearchTagValues => "search_tag_values",
            Self::TraceById => "trace_by_id",
            Self::QueryRange => "query_range",
        }
    }
}

/// Recent data of a tenant at one moment: every acknowledged span once, and every trace whole as
/// far as it is live. (A trace that goes on after a part of it went into a block is in both, as it
/// is in two blocks of the object store.)
///
/// Keep it for as long as its tables are used: the files of local blocks stay meanwhile.
pub struct LiveView {
    tables: Vec<Arc<dyn SpanTable>>,
    /// Bytes read to open the blocks.
    opening: ReadStats,
    tenant: String,
    operation: Operation,
    metrics: Metrics,
    _blocks: Vec<Arc<LocalBlock>>,
}

impl LiveView {
    /// The tables: of live data, and of the row groups of local blocks.
    pub fn tables(&self) -> &[Arc<dyn SpanTable>] {
        &self.tables
    }

    /// Bytes read from disk so far.
    pub fn bytes_read(&self) -> u64 {
        let tables = self.tables.iter().map(|table| table.bytes_read());
        self.opening.bytes() + tables.sum::<u64>()
    }
}

impl Drop for LiveView {
    fn drop(&mut self) {
        let bytes = self.bytes_read();
        self.metrics
            .inspected(&self.tenant, self.operation.label(), bytes);
    }
}

/// Sizes of what is held, for status pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tenants with recent data.
    pub tenants: usize,
    /// Traces that still receive spans.
    pub live_traces: usize,
    /// Their serialized bytes.
    pub live_trace_bytes: u64,
    /// Serialized bytes of spans that wait to become columns.
    pub pending_bytes: u64,
    /// Tables of live spans.
    pub live_tables: usize,
    /// Spans in them.
    pub live_table_spans: usize,
    /// Their memory in bytes.
    pub live_table_bytes: usize,
    /// Closed blocks that are not complete.
    pub uncompleted_blocks: usize,
    /// Blocks that are not in the object store.
    pub unflushed_blocks: usize,
    /// Complete blocks on local disk.
    pub local_blocks: usize,
    /// Size of the write-ahead log, in bytes.
    pub wal_bytes: u64,
    /// Bytes that wait to be written to it.
    pub wal_queue_bytes: u64,
}

impl LiveStore {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Whether pushes and queries are served; if not, why.
    ///
    /// # Errors
    /// What the live-store is doing instead.
    pub fn ready(&self) -> Result<(), &'static str> {
        self.shared.not_running().map_or(Ok(()), Err)
    }

    /// Keeps a push. When this returns, its spans survive the end of the process and of the
    /// machine, and every later query finds them. If the future is dropped, the push may be kept
    /// all the same.
    ///
    /// Limits are Tempo's, but their answers are not. Tempo acknowledges and then drops; here the
    /// sender is told: a push that would exceed the tenant's live traces is refused whole, and
    /// spans of traces that are too large are left out and counted in the [`PushOutcome`].
    ///
    /// # Errors
    /// [`PushError::kind`] says what the sender should do.
    pub async fn push(&self, tenant: &str, batch: TraceBatch) -> Result<PushOutcome, PushError> {
        let shared = &self.shared;
        self.ready().map_err(PushError::NotRunning)?;
        if shared.reading.is_some() {
            return Err(PushError::ReadsLog);
        }
        tenant::validate(tenant)?;
        if batch.traces.is_empty() {
            return Ok(PushOutcome::default());
        }
        let limits = PushLimits {
            max_bytes_per_trace: shared.limits.max_bytes_per_trace(tenant),
            max_live_traces: shared.limits.max_live_traces(tenant),
            overflow: Overflow::Refuse,
        };
        let tenant = shared.tenant_or_new(tenant);
        self.wait_for_room(&tenant).await?;
        let Admitted {
            batch,
            reservation,
            too_large_spans,
            ..
        } = tenant.admit(batch, limits)?;
        let outcome = PushOutcome {
            accepted_spans: batch.span_count(),
            too_large_spans,
            max_bytes_per_trace: limits.max_bytes_per_trace,
        };
        if batch.traces.is_empty() {
            return Ok(outcome);
        }
        let arrival = shared.clock.now_unix_nanos();
        // Done by the log's writer, so that it happens even if the sender is gone. It must not hold
        // the live-store itself, whose end waits for the writer's.
        let on_durable = {
            let tenant = Arc::clone(&tenant);
            let wake_columns = Arc::clone(&shared.wake_columns);
            let max_pending_spans = shared.config.max_pending_spans as u64;
            Box::new(move |placement| {
                tenant.accept(placement, arrival, reservation);
                if tenant.sizes().pending_spans >= max_pending_spans {
                    wake_columns.notify_one();
                }
            })
        };
        let written = shared
            .wal
            .append(&tenant.name, batch, arrival, on_durable)
            .map_err(push_error)?;
        written
            .await
            .unwrap_or(Err(AppendError::Closed))
            .map_err(push_error)?;
        Ok(outcome)
    }

    /// What a push of this tenant has to wait for.
    pub(crate) fn pressure(&self, tenant: &Tenant) -> Option<&'static str> {
        let config = &self.shared.config;
        let sizes = tenant.sizes();
        let table_bytes = self.shared.columns.table_bytes();
        if sizes.live_bytes >= config.max_live_traces_bytes
            || table_bytes >= config.max_live_table_bytes
        {
            // Cutting early makes room; until it has, there is as much again.
            self.shared.wake_maintenance.notify_one();
        }
        if sizes.pending_bytes >= MAX_PENDING_BYTES {
            self.shared.wake_columns.notify_one();
        }
        if sizes.live_bytes >= config.max_live_traces_bytes.saturating_mul(2) {
            Some("waiting_for_live_traces")
        } else if sizes.uncompleted_blocks > config.max_uncompleted_blocks {
            Some("waiting_for_wal")
        } else if table_bytes >= config.max_live_table_bytes.saturating_mul(2)
            || sizes.pending_bytes >= MAX_PENDING_BYTES
        {
            Some("waiting_for_columns")
        } else {
            None
        }
    }

    async fn wait_for_room(&self, tenant: &Tenant) -> Result<(), PushError> {
        let Some(mut reason) = self.pressure(tenant) else {
            return Ok(());
        };
        let began = Instant::now();
        let result = loop {
            let room = tenant.room.notified();
            match self.pressure(tenant) {
                None => break Ok(()),
                Some(now) => reason = now,
            }
            let waited = began.elapsed();
            let Some(left) = self.shared.config.max_push_wait.checked_sub(waited) else {
                break Err(PushError::Overloaded {
                    reason: format!("{reason} for {waited:.1?}"),
                });
            };
            let _ = tokio::time::timeout(left.min(ROOM_CHECK_PERIOD), room).await;
        };
        self.shared.metrics.pressed(reason, began.elapsed());
        result
    }

    /// A trace, united from everything recent; `None` when nothing is known of it. Blocks on disk:
    /// call it from a thread that may.
    ///
    /// # Errors
    /// When a part of it cannot be read.
    pub fn find_trace(&self, tenant: &str, id: &TraceId) -> Result<Option<FoundTrace>, ReadError> {
        self.ready().map_err(ReadError::NotRunning)?;
        self.check_behind()?;
        let Some(tenant) = self.shared.tenant(tenant) else {
            return Ok(None);
        };
        let failed = |reason: String| ReadError::Log {
            trace_id: *id,
            reason,
        };
        let (chunks, reader, blocks) = tenant.find(&self.shared.wal, id);
        let stats = ReadStats::new();
        let mut inspected_bytes = 0;
        let mut union = TraceUnion::new();
        for block in blocks {
            let found = block
                .find_trace(id, &stats)
                .map_err(|source| block_error(&tenant, &block, source))?;
            if let Some(part) = found {
                union
                    .add(part)
                    .map_err(|error| failed(format!("block {}: {error}", block.id())))?;
            }
        }
        for chunk in &chunks {
            let bytes = match reader.bytes(chunk) {
                Ok(bytes) => bytes,
                // Damaged for good: the rest of the trace is better than nothing. It is counted as
                // lost when its block is built.
                Err(error @ ReadChunkError::Corrupt { .. }) => {
                    tracing::error!(tenant = %tenant.name, trace_id = %id, %error, "spans lost");
                    continue;
                }
                Err(error) => return Err(failed(error.to_string())),
            };
            inspected_bytes += bytes.len() as u64;
            union
                .add(bytes)
                .map_err(|error| failed(error.to_string()))?;
        }
        inspected_bytes += stats.bytes();
        self.shared
            .metrics
            .inspected(&tenant.name, Operation::TraceById.label(), inspected_bytes);
        Ok((!union.is_empty()).then(|| FoundTrace {
            trace: union.finish(),
            inspected_bytes,
        }))
    }

    /// Recent data of a tenant that may lie between two times (nanoseconds since the epoch, both
    /// included). Everything acknowledged before the call is in it: what is not in columns yet is
    /// made so first. Blocks: call it from a thread that may.
    ///
    /// # Errors
    /// When a local block cannot be opened.
    pub fn view(
        &self,
        tenant: &str,
        start_unix_nanos: u64,
        end_unix_nanos: u64,
        operation: Operation,
    ) -> Result<LiveView, ReadError> {
        self.ready().map_err(ReadError::NotRunning)?;
        self.check_lag(end_unix_nanos, operation)?;
        let mut view = LiveView {
            tables: Vec::new(),
            opening: ReadStats::new(),
            tenant: tenant.to_owned(),
            operation,
            metrics: self.shared.metrics.clone(),
            _blocks: Vec::new(),
        };
        let tenant = self.shared.tenant(tenant);
        let seen = tenant.map(|tenant| {
            let seen = tenant.view(&self.shared.wal, start_unix_nanos, end_unix_nanos);
            (tenant, seen)
        });
        // Not before: a block may be removed at any time.
        self.check_forgotten(start_unix_nanos, operation)?;
        let Some((tenant, (live, blocks))) = seen else {
            return Ok(view);
        };
        for table in live {
            view.tables
                .push(table.table().map_err(|error| ReadError::Columns {
                    tenant: tenant.name.to_string(),
                    reason: error.to_string(),
                })?);
        }
        for block in blocks {
            if !block.overlaps(start_unix_nanos, end_unix_nanos) {
                continue;
            }
            let reader = block
                .open(view.opening.clone())
                .map_err(|source| block_error(&tenant, &block, source))?;
            for row_group in 0..reader.row_groups() {
                if let Some(table) = reader.table(row_group, ReadStats::new()) {
                    view.tables.push(Arc::new(table));
                }
            }
            view._blocks.push(block);
        }
        Ok(view)
    }

    /// Spans of a trace may be in any record that was not read yet. While brokers do not answer, no
    /// more is known to be there than they told last.
    fn check_behind(&self) -> Result<(), ReadError> {
        match &self.shared.reading {
            Some(reading) if reading.is_behind() => {
                self.lagged(reading, "/tempopb.Querier/FindTraceByID")
            }
            _ => Ok(()),
        }
    }

    fn lagged(&self, reading: &Reading, route: &str) -> Result<(), ReadError> {
        reading
            .metrics
            .lagged_requests
            .with_label_values(&[route])
            .inc();
        if reading.feed.fail_on_high_lag {
            return Err(ReadError::Lagging);
        }
        tracing::debug!(route, "answered without what was not read yet");
        Ok(())
    }

    /// Searches and metrics must not pass over what was not read yet.
    fn check_lag(&self, end_unix_nanos: u64, operation: Operation) -> Result<(), ReadError> {
        let Some(reading) = &self.shared.reading else {
            return Ok(());
        };
        let route = match operation {
            Operation::Search => "/tempopb.Querier/SearchRecent",
            Operation::QueryRange => "/tempopb.Metrics/QueryRange",
            Operation::SearchTags | Operation::SearchTagValues | Operation::TraceById => {
                return Ok(());
            }
        };
        if !reading.is_lagged(end_unix_nanos, &*self.shared.clock) {
            return Ok(());
        }
        self.lagged(reading, route)
    }

    /// Spans are counted and searched here from the time on until which blocks are complete. A
    /// query-frontend that has not heard or listed blocks for long, such as after a pause, asks for
    /// earlier ones, and would not look for them in blocks.
    fn check_forgotten(
        &self,
        start_unix_nanos: u64,
        operation: Operation,
    ) -> Result<(), ReadError> {
        let must_be_whole = matches!(operation, Operation::QueryRange | Operation::Search);
        if must_be_whole
            && self.shared.boundary.is_some()
            && self.shared.forgotten.reaches(start_unix_nanos)
        {
            return Err(ReadError::Forgotten);
        }
        Ok(())
    }

    /// Where other processes ask: spans that came here and began before this unix second are in blocks
    /// of the object store that every process sees; `None` when that is not known.
    pub fn built_until_unix_seconds(&self) -> Option<i64> {
        let shared = &self.shared;
        let of_log = shared
            .reading
            .as_ref()
            .map(|reading| reading.built.until_millis());
        let of_pushes = || shared.bridge.as_ref()?.until_millis();
        Some(of_log.unwrap_or_else(of_pushes)?.div_euclid(1000))
    }

    /// Where other processes ask: the same of all partitions, as others tell it. Queries count later
    /// spans here, so they are kept here.
    pub fn set_all_built_until(&self, unix_seconds: i64) {
        if let Some(boundary) = &self.shared.boundary {
            let now_millis = clock::now_millis(&*self.shared.clock);
            boundary.of_all_is(now_millis, unix_seconds.saturating_mul(1000));
        }
    }

    /// With Kafka: whether the partition has no record. Blocks.
    ///
    /// # Errors
    /// Why brokers do not tell.
    pub fn log_is_empty(&self) -> Result<bool, LogError> {
        match &self.shared.reading {
            None => Ok(true),
            Some(reading) => match reading.offsets.watermarks(reading.feed.partition) {
                Ok(ends) => Ok(ends.low == ends.high),
                Err(LogError::UnknownPartition { .. }) => Ok(true),
                Err(error) => Err(error),
            },
        }
    }

    /// Brings everything acknowledged so far into the object store, and returns when it is there.
    ///
    /// # Errors
    /// Every block is tried once, or once more; those that failed are listed. They are kept and
    /// tried again in the background.
    pub async fn flush_all(&self) -> Result<(), FlushError> {
        let shared = &self.shared;
        // With Kafka, what is flushed is brought to local disk, so that it can be committed.
        // Those that failed before are to be tried once more; the count tells when they were.
        let mut watched = BTreeMap::new();
        for (id, job) in shared.jobs.lock().iter() {
            let progress = job.progress.subscribe();
            let failures = progress.borrow().failures;
            watched.insert(*id, (Arc::clone(job), progress, failures));
        }
        shared.retry_now.send_modify(|round| *round += 1);
        let cutting = Arc::clone(shared);
        let cut = tokio::task::spawn_blocking(move || cutting.cut_all()).await;
        if let Err(error) = cut {
            tracing::error!(%error, "cutting for a flush failed");
        }
        for (id, job) in shared.jobs.lock().iter() {
            watched
                .entry(*id)
                .or_insert_with(|| (Arc::clone(job), job.progress.subscribe(), 0));
        }
        let mut left = Vec::new();
        for (job, progress, failures_before) in watched.values_mut() {
            let settled = progress.wait_for(|progress| {
                progress.stage == Stage::Flushed || progress.failures > *failures_before
            });
            let reason = tokio::select! {
                settled = settled => match settled {
                    Ok(progress) if progress.stage == Stage::Flushed => continue,
                    Ok(progress) => progress.last_error.as_deref().unwrap_or("unknown").to_owned(),
                    Err(_) => "given up: the process is stopping".to_owned(),
                },
                () = shared.stop_flushing.cancelled() => {
                    "not tried: the process is stopping".to_owned()
                }
            };
            left.push(UnflushedBlock {
                tenant: job.tenant.name.to_string(),
                block_id: job.id,
                reason,
            });
        }
        if left.is_empty() {
            Ok(())
        } else {
            Err(FlushError {
                blocks: watched.len(),
                left,
            })
        }
    }

    /// Sizes of what is held.
    pub fn stats(&self) -> Stats {
        let shared = &self.shared;
        let sizes = shared.sizes();
        Stats {
            tenants: shared.tenants.read().len(),
            live_traces: sizes.live_traces,
            live_trace_bytes: sizes.live_bytes,
            pending_bytes: sizes.pending_bytes,
            live_tables: sizes.tables,
            live_table_spans: sizes.table_spans,
            live_table_bytes: sizes.table_bytes,
            uncompleted_blocks: sizes.uncompleted_blocks,
            unflushed_blocks: shared.jobs.lock().len(),
            local_blocks: sizes.local_blocks,
            wal_bytes: shared.wal.bytes(),
            wal_queue_bytes: shared.wal.queued_bytes(),
        }
    }
}

fn block_error(tenant: &Tenant, block: &LocalBlock, source: tempo_block::Error) -> ReadError {
    ReadError::Block {
        tenant: tenant.name.to_string(),
        block_id: block.id(),
        source,
    }
}

fn push_error(error: AppendError) -> PushError {
    match error {
        AppendError::QueueFull { .. } => PushError::Overloaded {
            reason: error.to_string(),
        },
        AppendError::TooLarge { bytes, max_bytes } => PushError::TooLarge { bytes, max_bytes },
        AppendError::DiskFull { .. } | AppendError::Write(_) => PushError::Disk {
            reason: error.to_string(),
        },
        AppendError::Closed => PushError::NotRunning("stopping"),
    }
}
