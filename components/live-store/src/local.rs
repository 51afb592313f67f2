//! Complete blocks on local disk: what was built and is not, or not long, in the object store.
//!
//! Owns the folders, and the order of steps that makes a block appear and vanish whole:
//!
//! - A block is built in `building/<tenant>/<id>/`, every file synced, with a list of the log
//!   positions that it holds (`wal-coverage`). Renaming the folder to `blocks/<tenant>/<id>/` is the
//!   moment in which it is complete; only then may the log forget those positions. Before it, a
//!   crash loses nothing but the work; after it, replay skips what the list names.
//! - When the object store has it, the file `flushed` (the time, RFC 3339) says so. A crash between
//!   the upload and the file repeats nothing: the store is asked first, and the id is the same.
//! - A block goes when it was flushed long enough ago *and* no log segment that it covers exists
//!   any more: otherwise a replay would take its spans for new ones. The folder is first renamed
//!   back into `building/`, which is emptied at start, so no half of a block is ever found.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tempo_backend::{Backend, BackendConfig, BlockMeta, ReadStats, Timestamp, cache::Cache};
use tempo_block::read::BlockReader;
use tempo_model::TraceId;
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

    /// Whether a segment that it holds parts of is still on disk.
    pub(crate) fn is_needed_by_log(&self, holds: impl Fn(u32, u64) -> bool) -> bool {
        self.segments.iter().any(|&(id, salt)| holds(id, salt))
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

pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes a small file so that it is there whole or not at all, also after a power loss.
fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(folder) => sync_folder(folder),
        None => Ok(()),
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
        match fs::remove_dir_all(&building_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(unusable(&building_path)(error));
            }
            _ => {}
        }
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

    /// The complete blocks on disk. One that cannot be read is put into quarantine: what the log
    /// still has of it is replayed.
    pub(crate) fn load(&self) -> Result<Vec<LoadedBlock>, Error> {
        let mut loaded = Vec::new();
        let list = |path: &Path| -> Result<Vec<(PathBuf, String)>, Error> {
            let entries = fs::read_dir(path).map_err(unusable(path))?;
            let mut named = Vec::new();
            for entry in entries {
                let entry = entry.map_err(unusable(path))?;
                if let Ok(name) = entry.file_name().into_string()
                    && entry.path().is_dir()
                {
                    named.push((entry.path(), name));
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
                    Ok((block, coverage)) => loaded.push(LoadedBlock {
                        tenant: tenant.clone(),
                        block: Arc::new(block),
                        coverage,
                    }),
                    Err(reason) => {
                        tracing::error!(tenant, block_id = %id, reason, quarantine = %self.quarantine_path.display(), "local block unreadable, put aside");
                        self.put_aside(&path, id).map_err(unusable(&path))?;
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
    ) -> Result<(LocalBlock, CoverageFile), String> {
        let read =
            |name: &str| fs::read(path.join(name)).map_err(|error| format!("{name}: {error}"));
        let meta: BlockMeta = serde_json::from_slice(&read(tempo_backend::META)?)
            .map_err(|error| format!("{}: {error}", tempo_backend::META))?;
        if meta.block_id != id || &*meta.tenant_id != tenant {
            return Err(format!("{} is another block's", tempo_backend::META));
        }
        let data = path.join(tempo_backend::DATA);
        let data_bytes = fs::metadata(&data)
            .map_err(|error| format!("{}: {error}", tempo_backend::DATA))?
            .len();
        if data_bytes != meta.size {
            return Err(format!(
                "{} has {data_bytes} bytes and should have {}",
                tempo_backend::DATA,
                meta.size
            ));
        }
        let coverage = CoverageFile::decode(&read(COVERAGE)?)
            .ok_or_else(|| format!("{COVERAGE} is damaged"))?;
        let flushed = match fs::read_to_string(path.join(FLUSHED)) {
            Ok(text) => Timestamp::parse_rfc3339(text.trim())
                .ok()
                .and_then(|at| u64::try_from(at.unix_nanos()).ok())
                .unwrap_or(0),
            Err(_) => 0,
        };
        let block = self
            .block(path.to_owned(), meta, &coverage, flushed)
            .map_err(|error| error.to_string())?;
        block
            .open(ReadStats::new())
            .map_err(|error| error.to_string())?;
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
            backend: self.blocks.clone(),
            cache: self.cache.clone(),
        })
    }

    /// Makes a block that was built complete. When this returns, it is on the medium.
    pub(crate) fn commit(
        &self,
        meta: BlockMeta,
        coverage: &CoverageFile,
    ) -> io::Result<LocalBlock> {
        let id = meta.block_id.to_string();
        let built = self.building_path.join(&*meta.tenant_id).join(&id);
        write_durably(&built.join(COVERAGE), &coverage.encode())?;
        let folder = self.blocks_path.join(&*meta.tenant_id);
        create_folder(&folder)?;
        let complete = folder.join(&id);
        fs::rename(&built, &complete)?;
        sync_folder(&folder)?;
        self.block(complete, meta, coverage, 0)
    }

    /// Removes what is left of an unfinished block.
    pub(crate) fn discard(&self, tenant: &str, id: Uuid) {
        let _ = fs::remove_dir_all(self.building_path.join(tenant).join(id.to_string()));
    }

    /// The object store has the block.
    pub(crate) fn mark_flushed(&self, block: &LocalBlock, at_unix_nanos: u64) -> io::Result<()> {
        let at = Timestamp::from_unix_nanos(i64::try_from(at_unix_nanos).unwrap_or(i64::MAX));
        write_durably(&block.path.join(FLUSHED), at.to_string().as_bytes())?;
        block
            .flushed_unix_nanos
            .store(at_unix_nanos.max(1), Ordering::Release);
        Ok(())
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
