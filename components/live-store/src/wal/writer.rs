//! The thread that writes the log, and the queue before it.
//!
//! Pushes enqueue; the thread takes all that wait, writes them with one call, syncs once, and then
//! reports to each. Under load the sync of one group is the time in which the next one gathers, so
//! the cost of a sync is shared by as many pushes as arrive meanwhile, without any delay added.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tempo_model::TraceId;
use tokio::sync::oneshot;

use super::{
    disk::Disk,
    format::{ChunkRef, RecordBody, SEGMENT_HEADER_BYTES, SegmentHeader},
    segment::Segment,
    store::Segments,
};
use crate::metrics::WalMetrics;

/// Most bytes written before one sync, unless a single record is larger.
const MAX_GROUP_BYTES: usize = 8 << 20;

/// Why a record is not in the log. Nothing of it will be found after a restart but, at worst, the
/// record itself as if it had been accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum AppendError {
    /// Too much waits to be written.
    #[error(
        "WAL queue is full: {queued_bytes} bytes wait and {max_bytes} are allowed (max_wal_queue_bytes)"
    )]
    QueueFull {
        /// Bytes that wait.
        queued_bytes: u64,
        /// Most bytes that may wait.
        max_bytes: u64,
    },
    /// More than a record can hold.
    #[error("a push of {bytes} bytes exceeds the {max_bytes} that a WAL record holds")]
    TooLarge {
        /// Bytes of the push.
        bytes: u64,
        /// Most bytes of a record.
        max_bytes: u64,
    },
    /// Writing would take the room that is needed to finish what was accepted.
    #[error(
        "disk is full: {free_bytes} bytes are free and {reserved_bytes} are reserved for completing blocks"
    )]
    DiskFull {
        /// Bytes free.
        free_bytes: u64,
        /// Bytes that must stay free.
        reserved_bytes: u64,
    },
    /// The disk refused.
    #[error("writing WAL: {0}")]
    Write(Arc<io::Error>),
    /// The log is closed.
    #[error("WAL is closed")]
    Closed,
}

/// Where a record was written.
pub(crate) struct Placement {
    /// Its chunks with their places and, since they are still at hand, their bytes.
    pub(crate) chunks: Vec<(TraceId, ChunkRef, Bytes)>,
}

/// A record that waits to be written.
pub(crate) struct Append {
    pub(crate) body: RecordBody,
    pub(crate) arrival_unix_nanos: u64,
    /// Called once when the record is durable, in log order, before `done`. Dropped uncalled when
    /// it is not.
    pub(crate) on_durable: Box<dyn FnOnce(Placement) + Send>,
    pub(crate) done: oneshot::Sender<Result<(), AppendError>>,
}

/// What pushes and the writer share.
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    wake: Condvar,
    max_bytes: u64,
    /// What must stay free on the disk.
    pub(super) reserve: Reserve,
}

/// What must stay free on the disk, so that everything in the log can be completed into blocks.
#[derive(Default)]
pub(super) struct Reserve {
    pub(super) fixed_bytes: AtomicU64,
    /// Bytes per thousand bytes of the log.
    pub(super) per_mille: AtomicU64,
}

impl Reserve {
    fn bytes(&self, log_bytes: u64) -> u64 {
        let per_mille = self.per_mille.load(Ordering::Acquire);
        let share = log_bytes / 1000 * per_mille + log_bytes % 1000 * per_mille / 1000;
        self.fixed_bytes.load(Ordering::Acquire) + share
    }
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<Append>,
    /// Of records waiting or being written.
    bytes: u64,
    rotate: bool,
    closed: bool,
}

impl Queue {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            max_bytes,
            reserve: Reserve::default(),
        }
    }

    pub(super) fn push(&self, append: Append) -> Result<(), AppendError> {
        let bytes = append.body.record_bytes();
        let mut state = self.state.lock();
        if state.closed {
            return Err(AppendError::Closed);
        }
        if state.bytes > 0 && state.bytes + bytes > self.max_bytes {
            return Err(AppendError::QueueFull {
                queued_bytes: state.bytes,
                max_bytes: self.max_bytes,
            });
        }
        state.bytes += bytes;
        state.waiting.push_back(append);
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    pub(super) fn request_rotation(&self) {
        self.state.lock().rotate = true;
        self.wake.notify_one();
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
    }
}

struct Active {
    segment: Arc<Segment>,
    /// End of the last durable record.
    end: u64,
    next_number: u64,
}

/// The state of the thread.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) segments: Arc<Segments>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    pub(super) segment_bytes: u64,
    pub(super) next_id: u32,
    pub(super) metrics: WalMetrics,
    active: Option<Active>,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn new(
        queue: Arc<Queue>,
        segments: Arc<Segments>,
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        segment_bytes: u64,
        next_id: u32,
        metrics: WalMetrics,
    ) -> Self {
        Self {
            queue,
            segments,
            disk,
            directory,
            segment_bytes,
            next_id,
            metrics,
            active: None,
            buffer: Vec::new(),
        }
    }

    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while let Some((group, rotate)) = self.next_group() {
            if rotate {
                self.seal();
            }
            if group.is_empty() {
                continue;
            }
            let bytes: u64 = group.iter().map(|append| append.body.record_bytes()).sum();
            let written = self.write(&group);
            let mut state = self.queue.state.lock();
            state.bytes -= bytes;
            self.metrics.queue_bytes.set(state.bytes as i64);
            drop(state);
            match written {
                Ok((segment, start)) => self.report(group, &segment, start),
                Err(error) => {
                    self.metrics.append_failure(&error);
                    tracing::warn!(%error, records = group.len(), bytes, "WAL refuses pushes");
                    for append in group {
                        let Append {
                            on_durable, done, ..
                        } = append;
                        // What was reserved for the record is given back before its sender knows.
                        drop(on_durable);
                        let _ = done.send(Err(error.clone()));
                    }
                }
            }
        }
        self.seal();
    }

    /// Waits for records or for a request to rotate; `None` at the end.
    fn next_group(&self) -> Option<(Vec<Append>, bool)> {
        let mut state = self.queue.state.lock();
        while state.waiting.is_empty() && !state.closed && !state.rotate {
            self.queue.wake.wait(&mut state);
        }
        if state.waiting.is_empty() && state.closed {
            return None;
        }
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(next) = state.waiting.front() {
            bytes += next.body.record_bytes();
            if bytes > MAX_GROUP_BYTES as u64 && !group.is_empty() {
                break;
            }
            group.extend(state.waiting.pop_front());
        }
        self.metrics.queue_bytes.set(state.bytes as i64);
        Some((group, std::mem::take(&mut state.rotate)))
    }

    /// Makes a group durable; returns its segment and where the first record begins.
    fn write(&mut self, group: &[Append]) -> Result<(Arc<Segment>, u64), AppendError> {
        let bytes: u64 = group.iter().map(|append| append.body.record_bytes()).sum();
        self.check_room(bytes)?;
        if self
            .active
            .as_ref()
            .is_some_and(|active| active.end >= self.segment_bytes)
        {
            self.seal();
        }
        let mut active = match self.active.take() {
            Some(active) => active,
            None => self
                .create()
                .map_err(|error| AppendError::Write(Arc::new(error)))?,
        };
        self.buffer.clear();
        let salt = active.segment.salt;
        for (append, number) in group.iter().zip(active.next_number..) {
            append
                .body
                .encode(salt, number, append.arrival_unix_nanos, &mut self.buffer);
        }
        let start = active.end;
        let file = &active.segment.file;
        let written = file.write_all_at(&self.buffer, start);
        let durable = written.is_ok().then(|| {
            let began = Instant::now();
            let synced = file.sync_data();
            self.metrics
                .sync_duration_seconds
                .observe(began.elapsed().as_secs_f64());
            synced
        });
        // A group is rarely larger than this; the memory of one that was is not kept.
        self.buffer.shrink_to(MAX_GROUP_BYTES);
        let segment = active.segment.clone();
        match durable {
            Some(Ok(())) => {
                active.end += bytes;
                active.next_number += group.len() as u64;
                segment.grown_to(active.end);
                self.segments.grown_by(bytes);
                self.metrics.records.inc_by(group.len() as u64);
                self.metrics.bytes_written.inc_by(bytes);
                self.active = Some(active);
                Ok((segment, start))
            }
            Some(Err(error)) => {
                // The kernel may have dropped the pages and would report success next time.
                let _ = segment.file.set_len(start);
                tracing::error!(%error, segment = %segment.path.display(), "WAL sync failed, segment abandoned");
                self.abandon(active);
                Err(AppendError::Write(Arc::new(error)))
            }
            None => {
                let error = written.err().unwrap_or_else(|| io::ErrorKind::Other.into());
                match segment.file.set_len(start) {
                    Ok(()) => self.active = Some(active),
                    Err(cut) => {
                        tracing::error!(error = %cut, segment = %segment.path.display(), "WAL record cannot be cut off, segment abandoned");
                        self.abandon(active);
                    }
                }
                Err(AppendError::Write(Arc::new(error)))
            }
        }
    }

    fn check_room(&self, bytes: u64) -> Result<(), AppendError> {
        let reserved_bytes = self.queue.reserve.bytes(self.segments.bytes() + bytes);
        match self.disk.free_bytes(&self.directory) {
            Ok(free_bytes) if free_bytes < reserved_bytes.saturating_add(bytes) => {
                Err(AppendError::DiskFull {
                    free_bytes,
                    reserved_bytes,
                })
            }
            // Where the file system does not tell, writing does.
            _ => Ok(()),
        }
    }

    /// Opens the next segment, its header and its name durable.
    fn create(&mut self) -> io::Result<Active> {
        let id = self.next_id;
        self.next_id += 1;
        let path = Segment::path_of(&self.directory, id);
        let header = SegmentHeader {
            sequence: u64::from(id),
            created_unix_nanos: crate::clock::system_unix_nanos(),
            salt: uuid::Uuid::new_v4().as_u64_pair().0,
        };
        let file = self.disk.create(&path)?;
        let ready = file
            .write_all_at(&header.encode(), 0)
            .and_then(|()| file.sync_data())
            .and_then(|()| self.disk.sync_directory(&self.directory));
        if let Err(error) = ready {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let end = SEGMENT_HEADER_BYTES as u64;
        let segment = Arc::new(Segment::new(
            id,
            header.salt,
            path,
            file,
            header.created_unix_nanos,
            end,
        ));
        self.segments.insert(segment.clone());
        Ok(Active {
            segment,
            end,
            next_number: 0,
        })
    }

    fn report(&self, group: Vec<Append>, segment: &Arc<Segment>, start: u64) {
        let mut offset = start;
        for append in group {
            let record_bytes = append.body.record_bytes();
            segment.hold(append.body.chunks() as u64);
            let chunks = append.body.into_placed(segment.id, offset).collect();
            (append.on_durable)(Placement { chunks });
            let _ = append.done.send(Ok(()));
            offset += record_bytes;
        }
    }

    fn seal(&mut self) {
        if let Some(active) = self.active.take() {
            self.abandon(active);
        }
    }

    fn abandon(&self, active: Active) {
        active.segment.seal();
    }
}
