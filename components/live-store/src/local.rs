//! Complete blocks on local disk: what was built and is not, or not long, in the object store.
//!
//! Owns the folders, and the order of steps that makes a block appear and vanish whole:
//!
//! - A block is built in `building/<tenant>/<id>/`, every file synced, with a list of the log
//!   positions that it holds (`wal-coverage`). Renaming the folder to `blocks/<tenant>/<id>/` is the
//!   moment in which it is complete; only then may the log forget those positions. Before it, a
//!   crash loses nothing but the work; after it, replay skips what the list names.
//! - When the object store has it, the file `flushed` (the time, RFC 3339) says so. A crash between
//!   the upload and the file repeats nothing: the store is asked first, and the id is the same. Nor
//!   does the block's time wait for the file: a full disk may not take it before the block is gone.
//! - A block goes when it was flushed long enough ago *and* no log segment that it covers exists
//!   any more: otherwise a replay would take its spans for new ones. The folder is first renamed
//!   back into `building/`, which is emptied at start, so no half of a block is ever found.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tempo_backend::{Backend, BackendConfig, BlockMeta, ReadStats, Timestamp, cache::Cache};
use tempo_block::read::BlockReader;
use tempo_durable::sync_folder;
use tempo_model::TraceId;
use tempo_table::TableError;
use uuid::Uuid;

use crate::{error::Error, wal::CoverageFile};

const COVERAGE: &str = "wal-coverage";
const FLUSHED: &str = "flushed";

/// The folders of local blocks.
pub(crate) struct LocalStore {
    blocks: Backend,
    building: Backend,
    blocks_path: PathBuf,
    building_path: PathBuf,
    quarantine_path: PathBuf,
    cache: Cache,
}

/// A complete block on local disk.
pub(crate) struct LocalBlock {
    meta: Arc<BlockMeta>,
    path: PathBuf,
    /// The log segments (number and salt) that it holds parts of.
    segments: Vec<(u32, u64)>,
    /// When the object store had it, nanoseconds since the epoch; 0 while it has not.
    flushed_unix_nanos: AtomicU64,
    /// When the first of its spans came, nanoseconds since the epoch; 0 when that was before this
    /// process.
    first_came: u64,
    /// Bytes of all its files.
    bytes: u64,
    backend: Backend,
    cache: Cache,
}

impl LocalBlock {
    pub(crate) fn id(&self) -> Uuid {
        self.meta.block_id
    }

    pub(crate) fn meta(&self) -> &Arc<BlockMeta> {
        &self.meta
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the object store had it, nanoseconds since the epoch.
    pub(crate) fn flushed_unix_nanos(&self) -> Option<u64> {
        match self.flushed_unix_nanos.load(Ordering::Acquire) {
            0 => None,
            at => Some(at),
        }
    }

    /// When the first of its spans came, nanoseconds since the epoch, if this process took it.
    pub(crate) fn first_came_unix_nanos(&self) -> Option<u64> {
        Some(self.first_came).filter(|came| *came > 0)
    }

    /// Its spans began before, in nanoseconds since the epoch: at the latest when it was complete. Those
    /// of clocks that are ahead would keep it here for as long as they are.
    pub(crate) fn spans_until(&self) -> u64 {
        let end = u64::try_from(self.meta.end_time.unix_nanos()).unwrap_or(0);
        // A span without duration may begin where the block ends.
        let end = end.saturating_add(1);
        self.flushed_unix_nanos().map_or(end, |at| at.min(end))
    }

    /// The object store has it since this time.
    pub(crate) fn set_flushed(&self, at_unix_nanos: u64) {
        self.flushed_unix_nanos
            .store(at_unix_nanos.max(1), Ordering::Release);
    }

    /// Whether a segment that it holds parts of is still on disk.
    pub(crate) fn is_needed_by_log(&self, holds: impl Fn(u32, u64) -> bool) -> bool {
        self.segments.iter().any(|&(id, salt)| holds(id, salt))
    }

    /// Of a block of records of Kafka: the last of them.
    pub(crate) fn last_record(&self) -> Option<i64> {
        let records = self.segments.iter().map(|&(_, offset)| offset as i64);
        records.max()
    }

    /// Opens the block for reading; reads are counted in `stats`. Blocks.
    pub(crate) fn open(&self, stats: ReadStats) -> Result<Arc<BlockReader>, tempo_block::Error> {
        BlockReader::open(&self.backend, &self.cache, Arc::clone(&self.meta), stats)
    }

    /// A trace's spans, as a serialized `tempopb.Trace`. Blocks.
    pub(crate) fn find_trace(
        &self,
        id: &TraceId,
        stats: &ReadStats,
    ) -> Result<Option<Bytes>, tempo_block::Error> {
        tempo_block::read::find_trace(&self.backend, &self.cache, &self.meta, id, stats)
    }

    /// Whether any of its spans may lie between the two times, nanoseconds since the epoch.
    pub(crate) fn overlaps(&self, start: u64, end: u64) -> bool {
        let timestamp =
            |nanos: u64| Timestamp::from_unix_nanos(i64::try_from(nanos).unwrap_or(i64::MAX));
        self.meta.overlaps(timestamp(start), timestamp(end))
    }
}

/// A block found at start.
pub(crate) struct LoadedBlock {
    pub(crate) tenant: String,
    pub(crate) block: Arc<LocalBlock>,
    pub(crate) coverage: CoverageFile,
}

/// What was found at start.
#[derive(Default)]
pub(crate) struct Loaded {
    pub(crate) blocks: Vec<LoadedBlock>,
    /// Blocks that could not be read.
    pub(crate) put_aside: usize,
}

impl Loaded {
    /// Whether the blocks that were completed are there, as far as that shows: a folder without any
    /// may be a lost disk.
    pub(crate) fn is_whole(&self) -> bool {
        !self.blocks.is_empty() && self.put_aside == 0
    }
}

/// Why a block found at start cannot be used.
enum LoadError {
    /// It is damaged, and will be for ever.
    Damaged(String),
    /// The system does not give it now: too many open files, missing rights, a failing disk.
    Unreadable { path: PathBuf, source: io::Error },
}

impl LoadError {
    fn of(path: PathBuf, source: io::Error) -> Self {
        use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
        match source.kind() {
            NotFound | InvalidData | UnexpectedEof => {
                Self::Damaged(format!("{}: {source}", path.display()))
            }
            _ => Self::Unreadable { path, source },
        }
    }
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    |source| Error::Folder {
        path: path.to_owned(),
        source,
    }
}

/// Creates a folder for this user alone, with those above it, so that it is there also after a
/// power loss.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let missing = path
        .ancestors()
        .take_while(|folder| !folder.exists())
        .count();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    for created in path.ancestors().take(missing) {
        match created.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent)?,
            _ => {}
        }
    }
    Ok(())
}

/// Removes a folder with all it holds, if it is there.
fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn folder_bytes(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

impl LocalStore {
    /// Opens the folders under `data_path` and empties `building/`.
    pub(crate) async fn open(data_path: &Path, cache: Cache) -> Result<Self, Error> {
        let building_path = data_path.join("building");
        let blocks_path = data_path.join("blocks");
        remove_folder(&building_path).map_err(unusable(&building_path))?;
        create_folder(&blocks_path).map_err(unusable(&blocks_path))?;
        // Requests to local blocks are not the object store's: its metrics do not count them.
        let open = async |path: &Path| {
            Backend::open(&BackendConfig::local(path), &prometheus::Registry::new()).await
        };
        Ok(Self {
            building: open(&building_path).await?,
            blocks: open(&blocks_path).await?,
            building_path,
            blocks_path,
            quarantine_path: data_path.join("quarantine"),
            cache,
        })
    }

    /// Where blocks are built.
    pub(crate) fn building(&self) -> &Backend {
        &self.building
    }

    /// Where complete blocks are.
    pub(crate) fn blocks(&self) -> &Backend {
        &self.blocks
    }

    /// The complete blocks on disk. One that is damaged is put into quarantine: what the log still
    /// has of it is replayed.
    ///
    /// # Errors
    /// When the system does not give what may well be there: the log of a block is reclaimed, so
    /// nothing but the block has its spans, and another start may read it.
    pub(crate) fn load(&self) -> Result<Loaded, Error> {
        let mut loaded = Loaded::default();
        let list = |path: &Path| -> Result<Vec<(PathBuf, String)>, Error> {
            let entries = fs::read_dir(path).map_err(unusable(path))?;
            let mut named = Vec::new();
            for entry in entries {
                let entry = entry.map_err(unusable(path))?;
                let path = entry.path();
                let is_folder = match fs::metadata(&path) {
                    Ok(found) => found.is_dir(),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                    Err(error) => return Err(unusable(&path)(error)),
                };
                if is_folder && let Ok(name) = entry.file_name().into_string() {
                    named.push((path, name));
                }
            }
            named.sort();
            Ok(named)
        };
        for (tenant_path, tenant) in list(&self.blocks_path)? {
            // Of a tenant that is gone. Never removed while running: a block may be about to move in.
            if fs::remove_dir(&tenant_path).is_ok() {
                continue;
            }
            for (path, name) in list(&tenant_path)? {
                let Ok(id) = Uuid::try_parse(&name) else {
                    tracing::warn!(folder = %path.display(), "not a block, left alone");
                    continue;
                };
                match self.load_block(&path, &tenant, id) {
                    Ok((block, coverage)) => loaded.blocks.push(LoadedBlock {
                        tenant: tenant.clone(),
                        block: Arc::new(block),
                        coverage,
                    }),
                    Err(LoadError::Unreadable { path, source }) => {
                        return Err(Error::Folder { path, source });
                    }
                    Err(LoadError::Damaged(reason)) => {
                        tracing::error!(tenant, block_id = %id, reason, quarantine = %self.quarantine_path.display(), "local block unreadable, put aside");
                        self.put_aside(&path, id).map_err(unusable(&path))?;
                        loaded.put_aside += 1;
                    }
                }
            }
        }
        Ok(loaded)
    }

    fn load_block(
        &self,
        path: &Path,
        tenant: &str,
        id: Uuid,
    ) -> Result<(LocalBlock, CoverageFile), LoadError> {
        let damaged = |reason: String| LoadError::Damaged(reason);
        let read = |name: &str| {
            let file = path.join(name);
            fs::read(&file).map_err(|error| LoadError::of(file, error))
        };
        let meta: BlockMeta = serde_json::from_slice(&read(tempo_backend::META)?)
            .map_err(|error| damaged(format!("{}: {error}", tempo_backend::META)))?;
        if meta.block_id != id || &*meta.tenant_id != tenant {
            return Err(damaged(format!(
                "{} is another block's",
                tempo_backend::META
            )));
        }
        let data = path.join(tempo_backend::DATA);
        let data_bytes = fs::metadata(&data)
            .map_err(|error| LoadError::of(data.clone(), error))?
            .len();
        if data_bytes != meta.size {
            return Err(damaged(format!(
                "{} has {data_bytes} bytes and should have {}",
                tempo_backend::DATA,
                meta.size
            )));
        }
        let coverage = CoverageFile::decode(&read(COVERAGE)?)
            .ok_or_else(|| damaged(format!("{COVERAGE} is damaged")))?;
        let flushed = match read(FLUSHED) {
            Ok(text) => std::str::from_utf8(&text)
                .ok()
                .and_then(|text| Timestamp::parse_rfc3339(text.trim()).ok())
                .and_then(|at| u64::try_from(at.unix_nanos()).ok())
                .unwrap_or(0),
            // The store is asked.
            Err(LoadError::Damaged(_)) => 0,
            Err(unreadable) => return Err(unreadable),
        };
        let block = self
            .block(path.to_owned(), meta, &coverage, flushed)
            .map_err(|error| LoadError::of(path.to_owned(), error))?;
        block.open(ReadStats::new()).map_err(|error| match error {
            tempo_block::Error::Data(TableError::Read { .. }) => LoadError::Unreadable {
                path: data,
                source: io::Error::other(error),
            },
            error => damaged(error.to_string()),
        })?;
        Ok((block, coverage))
    }

    fn block(
        &self,
        path: PathBuf,
        meta: BlockMeta,
        coverage: &CoverageFile,
        flushed_unix_nanos: u64,
    ) -> io::Result<LocalBlock> {
        let segments = coverage.segments.iter();
        Ok(LocalBlock {
            bytes: folder_bytes(&path)?,
            meta: Arc::new(meta),
            path,
            segments: segments.map(|&(id, salt, _)| (id, salt)).collect(),
            flushed_unix_nanos: AtomicU64::new(flushed_unix_nanos),
            first_came: 0,
            backend: self.blocks.clone(),
            cache: self.cache.clone(),
        })
    }

    /// Makes a block that was built complete, of spans that came since `first_came`. When this
    /// returns, it is on the medium.
    pub(crate) fn commit(
        &self,
        meta: BlockMeta,
        coverage: &CoverageFile,
        first_came: u64,
    ) -> io::Result<LocalBlock> {
        let id = meta.block_id.to_string();
        let built = self.building_path.join(&*meta.tenant_id).join(&id);
        tempo_durable::write(&built.join(COVERAGE), &coverage.encode())?;
        let folder = self.blocks_path.join(&*meta.tenant_id);
        create_folder(&folder)?;
        let complete = folder.join(&id);
        // An attempt that failed after this point left its folder there, and nothing can be renamed
        // to where one is. The log holds everything until an attempt succeeds.
        let replaced = self.building_path.join(format!("replaced-{id}"));
        remove_folder(&replaced)?;
        match fs::rename(&complete, &replaced) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(&built, &complete)?;
        remove_folder(&replaced)?;
        sync_folder(&folder)?;
        Ok(LocalBlock {
            first_came,
            ..self.block(complete, meta, coverage, 0)?
        })
    }

    /// Removes what is left of an unfinished block.
    pub(crate) fn discard(&self, tenant: &str, id: Uuid) {
        let _ = fs::remove_dir_all(self.building_path.join(tenant).join(id.to_string()));
    }

    /// Notes on disk since when the object store has the block.
    pub(crate) fn mark_flushed(&self, block: &LocalBlock) -> io::Result<()> {
        let at = i64::try_from(block.flushed_unix_nanos().unwrap_or(0)).unwrap_or(i64::MAX);
        let at = Timestamp::from_unix_nanos(at).to_string();
        tempo_durable::write(&block.path.join(FLUSHED), at.as_bytes())
    }

    /// Removes a block from disk.
    pub(crate) fn remove(&self, block: &LocalBlock) -> io::Result<()> {
        let trash = self.building_path.join(format!("removed-{}", block.id()));
        fs::rename(&block.path, &trash)?;
        if let Some(folder) = block.path.parent() {
            sync_folder(folder)?;
        }
        fs::remove_dir_all(&trash)
    }

    fn put_aside(&self, path: &Path, id: Uuid) -> io::Result<()> {
        create_folder(&self.quarantine_path)?;
        let mut aside = self.quarantine_path.join(format!("block-{id}"));
        let mut attempt = 0;
        while aside.exists() {
            attempt += 1;
            aside = self.quarantine_path.join(format!("block-{id}.{attempt}"));
        }
        fs::rename(path, aside)
    }
}
