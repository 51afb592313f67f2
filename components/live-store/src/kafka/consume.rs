//! Reading the partition and handing its records over, in order and without end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tempo_ingest::{Error as LogError, PartitionConsumer, Polled, StartAt};
use tempo_model::{
    TraceBatch, TraceChunk,
    otlp::{WireError, resource_spans},
    tenant,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Origin, Reading, built, start};
use crate::{
    clock::{nanos, now_millis, unix_millis},
    handle::LiveStore,
    live::{Overflow, PushLimits, Tenant},
    store::Shared,
    wal::{AppendError, Coverage},
};

/// Records that are handed over together.
const MAX_GROUP_RECORDS: usize = 1000;
/// Their bytes, unless a single one is larger.
const MAX_GROUP_BYTES: usize = 16 << 20;
/// How long to wait for a record before looking whether to stop.
const POLL_TIMEOUT: Duration = Duration::from_millis(200);
/// How long to wait for room before looking again.
const ROOM_CHECK_PERIOD: Duration = Duration::from_millis(100);
/// First and longest pause after an error of Kafka or of the disk.
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Told to stop.
struct Stopped;

/// Reads the partition. Lives on a thread of its own: reading blocks.
pub(crate) struct Consumer {
    shared: Arc<Shared>,
    live: LiveStore,
    reading: Arc<Reading>,
    /// What local blocks held at start.
    covered: Coverage,
    has_local_blocks: bool,
    stop: CancellationToken,
}

/// Records that were read one after another.
#[derive(Default)]
struct Group {
    /// Those that are wanted.
    taken: Vec<Taken>,
    /// Offset and time of the last one, wanted or not.
    last: Option<(i64, i64)>,
    records: usize,
    bytes: usize,
}

impl Group {
    fn is_full(&self) -> bool {
        self.records >= MAX_GROUP_RECORDS || self.bytes >= MAX_GROUP_BYTES
    }
}

/// A record that was read and is wanted.
struct Taken {
    offset: i64,
    timestamp_millis: i64,
    tenant: String,
    batch: TraceBatch,
    /// Places of the traces of `batch` among those of the record.
    entries: Vec<u32>,
}

impl Consumer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        reading: Arc<Reading>,
        covered: Coverage,
        has_local_blocks: bool,
        stop: CancellationToken,
    ) -> Self {
        Self {
            live: LiveStore::new(Arc::clone(&shared)),
            shared,
            reading,
            covered,
            has_local_blocks,
            stop,
        }
    }

    /// Reads until told to stop. Errors of Kafka and of the disk are waited out: they are in the
    /// log and in the lag, and nothing is skipped.
    pub(crate) fn run(self) {
        let feed = &self.reading.feed;
        self.reading.metrics.owns(feed, true);
        // Stopping is the only way out.
        let Err(Stopped) = self.read();
        self.reading.metrics.owns(feed, false);
        self.reading.metrics.lag.remove(feed.partition);
    }

    fn read(&self) -> Result<std::convert::Infallible, Stopped> {
        let feed = &self.reading.feed;
        let consumer = self.patiently("opening the partition", || {
            let start = self.find_start()?;
            let consumer = PartitionConsumer::open(&feed.log, feed.partition, start)?;
            if let StartAt::Offset(offset) = start {
                self.reading.positions.start_at(offset);
                self.reading.lag.reading_from(offset);
            }
            tracing::info!(partition = feed.partition, group = %feed.group, ?start, "reading the log");
            Ok::<_, LogError>(consumer)
        })?;
        loop {
            let group = self.gather(&consumer)?;
            self.hand_over(group.taken)?;
            if let Some((offset, timestamp_millis)) = group.last {
                self.reading.lag.handed_over(offset, timestamp_millis);
            }
        }
    }

    fn find_start(&self) -> Result<StartAt, LogError> {
        let feed = &self.reading.feed;
        let offsets = &self.reading.offsets;
        let committed = offsets.committed(&[feed.partition])?;
        let committed = committed.get(&feed.partition).map(|found| found.offset);
        let ends = offsets.watermarks(feed.partition)?;
        self.reading
            .lag
            .end_is(ends.high, now_millis(&*self.shared.clock));
        let oldest_millis = self.oldest_wanted_millis();
        let recent = offsets.first_at_or_after(feed.partition, oldest_millis)?;
        self.reading.ask_builders(&*self.shared.clock)?;
        // What is in no block yet, and what is recent.
        let wanted = self.reading.built.wanted_from();
        let recent = [recent, wanted].into_iter().flatten().min();
        let start = start::start_at(committed, self.has_local_blocks, recent, ends);
        let committed = committed.filter(|&committed| committed <= ends.high);
        let was_told = self.shared.forgotten.was_told();
        let mut passed_millis = 0;
        if start::passes_over(start, committed, self.has_local_blocks, was_told) {
            // What came before is older than both; and so it is not where Kafka has removed more.
            let built_millis = self.reading.built.wanted_from_millis();
            passed_millis = built_millis.map_or(oldest_millis, |at| at.min(oldest_millis));
            if start == ends.low {
                let first = built::time_of(&feed.log, feed.partition, start)?;
                let now = now_millis(&*self.shared.clock);
                passed_millis = passed_millis.max(first.unwrap_or(oldest_millis)).min(now);
            }
        }
        let written = self.shared.forgotten.let_go(unix_nanos(passed_millis));
        written.map_err(|error| LogError::Failed {
            action: "writing down what is not read".to_owned(),
            cause: error.to_string(),
        })?;
        if let Some(committed) = committed
            && start < committed
        {
            // What is read once more is in no block yet: should the next start find blocks, it must
            // not take that commit for theirs.
            offsets.commit(feed.partition, start)?;
        }
        Ok(StartAt::Offset(start))
    }

    /// Records from before are not asked for, if they are in blocks of the object store.
    fn oldest_wanted_millis(&self) -> i64 {
        let now = self.shared.clock.now_unix_nanos();
        let oldest = now.saturating_sub(nanos(self.shared.config.complete_block_timeout));
        unix_millis(oldest)
    }

    /// Takes the records that are there; waits for the first one.
    fn gather(&self, consumer: &PartitionConsumer) -> Result<Group, Stopped> {
        let mut group = Group::default();
        let mut backoff = MIN_BACKOFF;
        while !group.is_full() {
            if self.stop.is_cancelled() {
                return Err(Stopped);
            }
            let is_empty = group.records == 0;
            let timeout = if is_empty {
                POLL_TIMEOUT
            } else {
                Duration::ZERO
            };
            match consumer.poll(timeout) {
                Ok(Polled::Record(record)) => {
                    let offset = record.offset();
                    group.bytes += record.value().len();
                    group.records += 1;
                    group.last = Some((offset, record.timestamp_millis()));
                    self.reading.positions.read(offset);
                    match self.take(&record) {
                        Some(taken) => group.taken.push(taken),
                        None => self.reading.positions.settled(offset),
                    }
                }
                Ok(Polled::EndOfPartition | Polled::Nothing) if is_empty => {}
                Ok(Polled::EndOfPartition | Polled::Nothing) => break,
                Err(error) => {
                    tracing::warn!(%error, "the log is not read, trying again");
                    if !is_empty {
                        break;
                    }
                    self.pause(&mut backoff)?;
                }
            }
        }
        Ok(group)
    }

    /// The wanted part of a record. What is not wanted is counted.
    fn take(&self, record: &tempo_ingest::Record<'_>) -> Option<Taken> {
        let metrics = &self.reading.metrics;
        let (offset, timestamp_millis) = (record.offset(), record.timestamp_millis());
        let drop_record = |tenant: &str, reason: &str| {
            metrics.dropped(tenant, reason);
            None
        };
        let age = now_millis(&*self.shared.clock).saturating_sub(timestamp_millis);
        metrics
            .lag
            .set_seconds(self.reading.feed.partition, age as f64 / 1000.0);
        let name = String::from_utf8_lossy(record.key());
        if let Err(error) = tenant::validate(&name) {
            tracing::error!(offset, %error, "record without a tenant dropped");
            return drop_record("", "instance_not_found");
        }
        let is_built = self.reading.built.wanted_from() > Some(offset)
            && !self.shared.is_counted_here(timestamp_millis);
        if is_built && timestamp_millis < self.oldest_wanted_millis() {
            self.shared
                .forgotten
                .lacks(unix_nanos(timestamp_millis + 1));
            return drop_record(&name, "too_old");
        }
        // One copy for all traces of the record, held until they are columns.
        let value = Bytes::copy_from_slice(record.value());
        let request = match tempo_ingest::record::decode(&value) {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(tenant = %name, offset, %error, "record dropped");
                return drop_record(&name, "decoding_failed");
            }
        };
        let stamp = stamp(timestamp_millis);
        let mut batch = TraceBatch {
            traces: Vec::with_capacity(request.len()),
            skip_metrics_generation: request.skip_metrics_generation,
        };
        let mut entries = Vec::with_capacity(request.len());
        for (entry, (id, trace)) in (0_u32..).zip(request.traces()) {
            if self.covered.contains(stamp, offset as u64, entry) {
                continue;
            }
            match count_spans(trace) {
                Ok(0) => {}
                Ok(spans) => {
                    batch.traces.push(TraceChunk {
                        id,
                        trace: value.slice_ref(trace),
                        spans,
                    });
                    entries.push(entry);
                }
                Err(error) => {
                    tracing::error!(tenant = %name, offset, trace_id = %id, %error, "trace dropped");
                    metrics.dropped(&name, "decoding_failed");
                }
            }
        }
        metrics.records_processed.with_label_values(&[&*name]).inc();
        (!batch.traces.is_empty()).then(|| Taken {
            offset,
            timestamp_millis,
            tenant: name.into_owned(),
            batch,
            entries,
        })
    }

    /// Returns when queries find all of `group`.
    fn hand_over(&self, group: Vec<Taken>) -> Result<(), Stopped> {
        let mut backoff = MIN_BACKOFF;
        let mut left = group;
        while !left.is_empty() {
            let mut written = Vec::with_capacity(left.len());
            for taken in &left {
                written.push(self.append(taken)?);
            }
            let mut failed = Vec::new();
            for (taken, result) in left.into_iter().zip(written) {
                let result = result
                    .and_then(|result| result.blocking_recv().unwrap_or(Err(AppendError::Closed)));
                match result {
                    Ok(()) => {}
                    Err(AppendError::Closed) => return Err(Stopped),
                    Err(error) => {
                        if failed.is_empty() {
                            tracing::warn!(offset = taken.offset, %error, "record not taken, trying again");
                        }
                        failed.push(taken);
                    }
                }
            }
            left = failed;
            if !left.is_empty() {
                self.pause(&mut backoff)?;
            }
        }
        Ok(())
    }

    /// Queues a record to be written.
    #[allow(clippy::type_complexity)]
    fn append(
        &self,
        taken: &Taken,
    ) -> Result<Result<oneshot::Receiver<Result<(), AppendError>>, AppendError>, Stopped> {
        let shared = &self.shared;
        let limits = PushLimits {
            max_bytes_per_trace: shared.limits.max_bytes_per_trace(&taken.tenant),
            max_live_traces: shared.limits.max_live_traces(&taken.tenant),
            overflow: Overflow::LeaveOut,
        };
        let tenant = shared.tenant_or_new(&taken.tenant);
        self.wait_for_room(&tenant)?;
        let admitted = match tenant.admit(taken.batch.clone(), limits) {
            Ok(admitted) => admitted,
            // It is told to leave out instead of refusing.
            Err(error) => {
                tracing::error!(tenant = %tenant.name, %error, "record not taken");
                return Ok(Err(AppendError::QueueFull {
                    queued_bytes: shared.wal.queued_bytes(),
                    max_bytes: shared.config.max_wal_queue_bytes,
                }));
            }
        };
        let metrics = &self.reading.metrics;
        metrics.discarded(&tenant.name, "trace_too_large", admitted.too_large_spans);
        metrics.discarded(
            &tenant.name,
            "live_traces_exceeded",
            admitted.overflow_spans,
        );
        let kept: Vec<Origin> = (0..)
            .zip(&taken.entries)
            .filter(|(index, _)| admitted.left_out.binary_search(index).is_err())
            .map(|(_, entry)| Origin {
                record: taken.offset,
                stamp: stamp(taken.timestamp_millis),
                entry: *entry,
            })
            .collect();
        if kept.is_empty() {
            self.reading.positions.settled(taken.offset);
            let (done, receiver) = oneshot::channel();
            let _ = done.send(Ok(()));
            return Ok(Ok(receiver));
        }
        let arrival = shared.clock.now_unix_nanos();
        let on_durable = {
            let (tenant, reading) = (Arc::clone(&tenant), Arc::clone(&self.reading));
            let wake_columns = Arc::clone(&shared.wake_columns);
            let (offset, reservation) = (taken.offset, admitted.reservation);
            let max_pending_spans = shared.config.max_pending_spans as u64;
            Box::new(move |placement: crate::wal::Placement| {
                let chunks = placement.chunks.iter().map(|(_, chunk, _)| *chunk);
                reading.positions.placed(offset, chunks.zip(kept));
                tenant.accept(placement, arrival, reservation);
                if tenant.sizes().pending_spans >= max_pending_spans {
                    wake_columns.notify_one();
                }
            })
        };
        Ok(shared
            .wal
            .append(&tenant.name, admitted.batch, arrival, on_durable))
    }

    /// Waits while the tenant holds too much. Everyone else of the partition waits with it: records
    /// come in order.
    fn wait_for_room(&self, tenant: &Tenant) -> Result<(), Stopped> {
        let Some(mut reason) = self.live.pressure(tenant) else {
            return Ok(());
        };
        let began = Instant::now();
        loop {
            if self.stop.is_cancelled() {
                return Err(Stopped);
            }
            let room = async {
                let _ = tokio::time::timeout(ROOM_CHECK_PERIOD, tenant.room.notified()).await;
            };
            self.shared.runtime.block_on(room);
            match self.live.pressure(tenant) {
                None => break,
                Some(now) => reason = now,
            }
        }
        self.shared.metrics.pressed(reason, began.elapsed());
        Ok(())
    }

    /// Does something until it succeeds.
    fn patiently<T, E: std::fmt::Display>(
        &self,
        what: &str,
        attempt: impl Fn() -> Result<T, E>,
    ) -> Result<T, Stopped> {
        let mut backoff = MIN_BACKOFF;
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(error) => tracing::error!(%error, what, "failed, trying again"),
            }
            self.pause(&mut backoff)?;
        }
    }

    fn pause(&self, backoff: &mut Duration) -> Result<(), Stopped> {
        let pause = (*backoff).min(MAX_BACKOFF);
        *backoff = pause * 2;
        let stopped = async {
            tokio::time::timeout(pause, self.stop.cancelled())
                .await
                .is_ok()
        };
        match self.shared.runtime.block_on(stopped) {
            true => Err(Stopped),
            false => Ok(()),
        }
    }
}

fn unix_nanos(millis: i64) -> u64 {
    u64::try_from(millis).unwrap_or(0).saturating_mul(1_000_000)
}

/// What tells a record from another of its offset.
fn stamp(timestamp_millis: i64) -> u32 {
    timestamp_millis as u32
}

fn count_spans(trace: &[u8]) -> Result<u32, WireError> {
    let mut spans = 0;
    for resource in resource_spans(trace) {
        for scope in resource?.scope_spans() {
            for span in scope?.raw_spans() {
                span?;
                spans += 1;
            }
        }
    }
    Ok(spans)
}
