//! The log as a whole: its segments from replay to reclaim.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tempo_model::{TraceBatch, TraceId};
use tokio::sync::oneshot;

use super::{
    coverage::Coverage,
    disk::Disk,
    format::{ChunkRef, MAX_RECORD_BYTES, RecordBody},
    replay::{Damage, Unreadable, scan},
    segment::{ReadChunkError, Segment},
    writer::{Append, AppendError, Placement, Queue, Writer},
};
use crate::{error::Error, metrics::WalMetrics};

/// How the log is kept.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Folder of the segments; created when missing.
    pub(crate) directory: PathBuf,
    /// Folder for what cannot be read; created when needed.
    pub(crate) quarantine: PathBuf,
    /// A segment of at least this size is followed by a new one, in bytes.
    pub(crate) segment_bytes: u64,
    /// Most bytes that wait to be written.
    pub(crate) max_queue_bytes: u64,
}

/// The segments on disk, by number.
pub(crate) struct Segments {
    by_id: Mutex<BTreeMap<u32, Arc<Segment>>>,
    /// Of all of them together.
    bytes: AtomicU64,
    metrics: WalMetrics,
}

impl Segments {
    pub(super) fn insert(&self, segment: Arc<Segment>) {
        let bytes = segment.bytes();
        let mut by_id = self.by_id.lock();
        by_id.insert(segment.id, segment);
        self.metrics.segments.set(by_id.len() as i64);
        drop(by_id);
        self.grown_by(bytes);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    pub(super) fn grown_by(&self, bytes: u64) {
        let all = self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        self.metrics.bytes.set(all as i64);
    }

    /// Forgets a segment; whether it was held.
    fn remove(&self, id: u32) -> bool {
        let mut by_id = self.by_id.lock();
        let Some(segment) = by_id.remove(&id) else {
            return false;
        };
        self.metrics.segments.set(by_id.len() as i64);
        drop(by_id);
        let before = self.bytes.fetch_sub(segment.bytes(), Ordering::AcqRel);
        self.metrics.bytes.set((before - segment.bytes()) as i64);
        true
    }
}

/// The write-ahead log of all tenants.
pub(crate) struct Wal {
    options: Options,
    disk: Arc<dyn Disk>,
    segments: Arc<Segments>,
    queue: Arc<Queue>,
    writer: Mutex<Option<JoinHandle<()>>>,
    metrics: WalMetrics,
}

/// One intact record found at start.
pub(crate) struct Replayed<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) arrival_unix_nanos: u64,
    /// Its chunks that are in no block.
    pub(crate) chunks: Vec<(TraceId, ChunkRef)>,
}

impl Wal {
    /// Reads the segments on disk, oldest first, and starts the writer.
    ///
    /// # Errors
    /// When the folder cannot be read or a newer program wrote to it. Damage is no error: it is
    /// logged, counted and stepped over.
    pub(crate) fn open(
        options: Options,
        disk: Arc<dyn Disk>,
        metrics: WalMetrics,
        covered: &Coverage,
        mut visit: impl FnMut(Replayed<'_>),
    ) -> Result<Self, Error> {
        let directory = &options.directory;
        let unusable = |source: io::Error| Error::Folder {
            path: directory.clone(),
            source,
        };
        crate::local::create_folder(directory).map_err(unusable)?;
        let mut ids: Vec<u32> = Vec::new();
        for entry in fs::read_dir(directory).map_err(unusable)? {
            ids.extend(Segment::id_of(&entry.map_err(unusable)?.path()));
        }
        ids.sort_unstable();
        let segments = Arc::new(Segments {
            by_id: Mutex::default(),
            bytes: AtomicU64::new(0),
            metrics: metrics.clone(),
        });
        let highest = ids.last().copied().max(covered.highest_segment());
        let mut buffer = Vec::new();
        for id in ids {
            let path = Segment::path_of(directory, id);
            match replay_segment(id, &path, &mut buffer, covered, &metrics, &mut visit)? {
                Some(segment) => segments.insert(Arc::new(segment)),
                None => quarantine(&path, &options.quarantine, &metrics)?,
            }
        }
        let next_id = highest.map_or(Some(1), |highest| highest.checked_add(1));
        let next_id = next_id.ok_or_else(|| Error::Folder {
            path: directory.clone(),
            source: io::Error::other("segment numbers are used up; start with an empty folder"),
        })?;
        let queue = Arc::new(Queue::new(options.max_queue_bytes));
        let writer = Writer::new(
            queue.clone(),
            segments.clone(),
            disk.clone(),
            options.directory.clone(),
            options.segment_bytes,
            next_id,
            metrics.clone(),
        );
        let thread = std::thread::Builder::new()
            .name("wal-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(unusable)?;
        let wal = Self {
            disk,
            segments,
            queue,
            writer: Mutex::new(Some(thread)),
            metrics,
            options,
        };
        wal.reclaim();
        Ok(wal)
    }

    /// Queues one push. The receiver tells when it is durable or why it is not; a receiver that is
    /// closed without an answer means that it is not known, as after a crash.
    pub(crate) fn append(
        &self,
        tenant: &str,
        batch: TraceBatch,
        arrival_unix_nanos: u64,
        on_durable: Box<dyn FnOnce(Placement) + Send>,
    ) -> Result<oneshot::Receiver<Result<(), AppendError>>, AppendError> {
        let bytes = batch.byte_count();
        let body = RecordBody::new(tenant, batch).ok_or(AppendError::TooLarge {
            bytes,
            max_bytes: MAX_RECORD_BYTES,
        })?;
        let (done, receiver) = oneshot::channel();
        let queued = self.queue.push(Append {
            body,
            arrival_unix_nanos,
            on_durable,
            done,
        });
        if let Err(error) = &queued {
            self.metrics.append_failure(error);
        }
        queued.map(|()| receiver)
    }

    /// The segment of that number, while it is held.
    pub(crate) fn segment(&self, id: u32) -> Option<Arc<Segment>> {
        self.segments.by_id.lock().get(&id).cloned()
    }

    /// Whether anything of a segment is in no complete block yet.
    pub(crate) fn needs(&self, id: u32) -> bool {
        self.segment(id).is_some_and(|segment| segment.is_held())
    }

    /// Whether the very segment is still on disk.
    pub(crate) fn holds(&self, id: u32, salt: u64) -> bool {
        self.segment(id).is_some_and(|segment| segment.salt == salt)
    }

    /// The segments that `chunks` lie in, so that they stay readable even if reclaimed meanwhile.
    pub(crate) fn reader<'a>(&self, chunks: impl Iterator<Item = &'a ChunkRef>) -> ChunkReader {
        let by_id = self.segments.by_id.lock();
        let mut segments: BTreeMap<u32, Arc<Segment>> = BTreeMap::new();
        for chunk in chunks {
            if let Some(segment) = by_id.get(&chunk.segment) {
                segments
                    .entry(chunk.segment)
                    .or_insert_with(|| segment.clone());
            }
        }
        ChunkReader { segments }
    }

    /// Bytes that wait to be written.
    pub(crate) fn queued_bytes(&self) -> u64 {
        self.queue.bytes()
    }

    /// Bytes of all segments on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.bytes()
    }

    /// Pushes are refused rather than let less be free on the disk than `fixed_bytes` and
    /// `per_mille` bytes for every thousand bytes in the log.
    pub(crate) fn reserve(&self, fixed_bytes: u64, per_mille: u64) {
        let reserve = &self.queue.reserve;
        reserve.fixed_bytes.store(fixed_bytes, Ordering::Release);
        reserve.per_mille.store(per_mille, Ordering::Release);
    }

    /// Bytes free on the log's disk; `None` when the file system does not tell.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        self.disk.free_bytes(&self.options.directory).ok()
    }

    /// Chunks are now in a durable block.
    pub(crate) fn release(&self, chunks: impl Iterator<Item = ChunkRef>) {
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        for chunk in chunks {
            *counts.entry(chunk.segment).or_default() += 1;
        }
        let by_id = self.segments.by_id.lock();
        for (segment, count) in counts {
            if let Some(segment) = by_id.get(&segment) {
                segment.release(count);
            }
        }
    }

    /// Ends the segment being written if it is older than `max_age_nanos` at `now_unix_nanos` or
    /// nobody needs what is in it, so that it can be reclaimed.
    pub(crate) fn rotate_stale(&self, now_unix_nanos: u64, max_age_nanos: u64) {
        let by_id = self.segments.by_id.lock();
        let stale = by_id.values().next_back().is_some_and(|newest| {
            let age = now_unix_nanos.saturating_sub(newest.created_unix_nanos);
            newest.is_spent() || age > max_age_nanos
        });
        drop(by_id);
        if stale {
            self.queue.request_rotation();
        }
    }

    /// Removes the segments that nobody needs. One that was damaged is kept aside.
    pub(crate) fn reclaim(&self) {
        let by_id = self.segments.by_id.lock();
        let spent: Vec<Arc<Segment>> = by_id
            .values()
            .filter(|segment| segment.is_reclaimable())
            .cloned()
            .collect();
        drop(by_id);
        // Removing takes its time, so it is done without the lock; until a file is gone for sure,
        // its segment counts as held.
        let mut removed = 0;
        for segment in spent {
            let gone = if segment.damaged {
                move_aside(&segment.path, &self.options.quarantine)
            } else {
                fs::remove_file(&segment.path)
            };
            match gone {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, segment = %segment.path.display(), "WAL segment cannot be removed, trying again later");
                }
                _ => removed += u32::from(self.segments.remove(segment.id)),
            }
        }
        if removed > 0
            && let Err(error) = self.disk.sync_directory(&self.options.directory)
        {
            tracing::warn!(%error, "WAL folder cannot be synced");
        }
    }

    /// Writes what is queued, refuses what comes, and returns when the writer is gone. Blocks.
    pub(crate) fn close(&self) {
        self.queue.close();
        if let Some(thread) = self.writer.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("WAL writer panicked");
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.close();
    }
}

/// Reads chunks of the segments it was made for.
#[derive(Debug, Default)]
pub(crate) struct ChunkReader {
    segments: BTreeMap<u32, Arc<Segment>>,
}

impl ChunkReader {
    /// Appends the bytes of `chunk` to `out`, verified.
    pub(crate) fn read(&self, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<(), ReadChunkError> {
        self.segments
            .get(&chunk.segment)
            .ok_or(ReadChunkError::Reclaimed {
                segment: chunk.segment,
            })?
            .read_chunk(chunk, out)
    }

    /// The bytes of `chunk`, verified.
    pub(crate) fn bytes(&self, chunk: &ChunkRef) -> Result<Bytes, ReadChunkError> {
        let mut out = Vec::new();
        self.read(chunk, &mut out)?;
        Ok(out.into())
    }
}

/// Reads one segment; `None` when nothing of it can be used.
fn replay_segment(
    id: u32,
    path: &Path,
    buffer: &mut Vec<u8>,
    covered: &Coverage,
    metrics: &WalMetrics,
    visit: &mut impl FnMut(Replayed<'_>),
) -> Result<Option<Segment>, Error> {
    let unusable = |source: io::Error| Error::Folder {
        path: path.to_owned(),
        source,
    };
    let mut file = fs::File::open(path).map_err(unusable)?;
    buffer.clear();
    file.read_to_end(buffer).map_err(unusable)?;
    // The salt is known only when the header is read, but chunks are visited while reading: they
    // are gathered first.
    let mut records = Vec::new();
    let scanned = match scan(id, buffer, |record| records.push(record)) {
        Ok(scanned) => scanned,
        Err(Unreadable::Version(version)) => {
            return Err(Error::NewerVersion {
                path: path.to_owned(),
                version,
            });
        }
        Err(Unreadable::Garbage) => return Ok(None),
    };
    let created_unix_nanos = records
        .first()
        .map_or(0, |record| record.arrival_unix_nanos);
    let mut segment = Segment::new(
        id,
        scanned.salt,
        path.to_owned(),
        Box::new(file),
        created_unix_nanos,
        buffer.len() as u64,
    );
    for damage in &scanned.damage {
        report_damage(path, damage, metrics);
        segment.damaged |= !matches!(damage, Damage::Tail { .. });
    }
    for mut record in records {
        record
            .chunks
            .retain(|(_, chunk)| !covered.contains(id, scanned.salt, chunk.offset));
        segment.hold(record.chunks.len() as u64);
        if !record.chunks.is_empty() {
            visit(Replayed {
                tenant: record.tenant,
                arrival_unix_nanos: record.arrival_unix_nanos,
                chunks: record.chunks,
            });
        }
    }
    segment.seal();
    Ok(Some(segment))
}

fn report_damage(path: &Path, damage: &Damage, metrics: &WalMetrics) {
    let segment = path.display();
    metrics.damaged(damage);
    match damage {
        Damage::Header => {
            tracing::error!(%segment, "WAL segment header damaged, replaced from its first record")
        }
        Damage::Tail { offset, bytes } => {
            tracing::warn!(%segment, offset, dropped_bytes = bytes, "WAL tail cut: no record behind the last intact one");
        }
        Damage::Records {
            offset,
            bytes,
            lost_records,
        } => {
            tracing::error!(%segment, offset, dropped_bytes = bytes, lost_records, "WAL records damaged and lost");
        }
        Damage::Chunk {
            offset,
            bytes,
            tenant,
            trace_id,
            lost_spans,
        } => {
            tracing::error!(%segment, offset, dropped_bytes = bytes, tenant, %trace_id, lost_spans, "WAL chunk damaged and lost");
        }
    }
}

/// Puts a file that nothing can be read from out of the way; an empty one is removed.
fn quarantine(path: &Path, aside: &Path, metrics: &WalMetrics) -> Result<(), Error> {
    let unusable = |source: io::Error| Error::Folder {
        path: path.to_owned(),
        source,
    };
    let bytes = fs::metadata(path).map_err(unusable)?.len();
    let segment = path.display();
    if bytes == 0 {
        // A crash between creating the file and writing its header.
        tracing::warn!(%segment, "empty WAL segment removed");
        return fs::remove_file(path).map_err(unusable);
    }
    metrics.unreadable(bytes);
    tracing::error!(%segment, dropped_bytes = bytes, quarantine = %aside.display(), "WAL segment unreadable, put aside");
    move_aside(path, aside).map_err(unusable)
}

/// Moves a file into the quarantine folder, under a name that is free there.
fn move_aside(path: &Path, aside: &Path) -> io::Result<()> {
    crate::local::create_folder(aside)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let free = (0..u32::MAX)
        .map(|n| match n {
            0 => aside.join(&*name),
            n => aside.join(format!("{name}.{n}")),
        })
        .find(|candidate| !candidate.exists())
        .ok_or(io::ErrorKind::AlreadyExists)?;
    fs::rename(path, free)
}

#[cfg(test)]
mod tests;
