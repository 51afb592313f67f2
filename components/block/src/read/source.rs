//! Where the bytes of a block come from.

use std::ops::Range;

use bytes::Bytes;
use tempo_backend::{
    Backend, BlockMeta, ObjectKey, ReadStats,
    cache::{Cache, CacheRole, remote::RemoteCaches},
};
use tempo_table::TableError;

/// The `data.parquet` of one block, for threads that may block. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    origin: Origin,
    name: std::sync::Arc<str>,
    len: u64,
    stats: ReadStats,
}

#[derive(Debug, Clone)]
enum Origin {
    Backend {
        backend: Backend,
        caches: RemoteCaches,
        key: ObjectKey,
    },
    Memory(Bytes),
}

impl Source {
    /// The block's file in a backend, behind the caches in other processes. Reads of the backend
    /// are counted in `stats`.
    pub(crate) fn new(
        backend: &Backend,
        cache: &Cache,
        meta: &BlockMeta,
        stats: ReadStats,
    ) -> Self {
        let key = ObjectKey::data(&meta.tenant_id, meta.block_id);
        Self {
            name: key.as_str().into(),
            origin: Origin::Backend {
                backend: backend.clone(),
                caches: cache.remote().clone(),
                key,
            },
            len: meta.size,
            stats,
        }
    }

    /// A file in memory.
    pub(crate) fn memory(name: &str, file: Bytes) -> Self {
        Self {
            name: name.into(),
            len: file.len() as u64,
            origin: Origin::Memory(file),
            stats: ReadStats::new(),
        }
    }

    /// The same file, counted in `stats`.
    pub(crate) fn counted_in(&self, stats: ReadStats) -> Self {
        Self {
            stats,
            ..self.clone()
        }
    }

    /// The object's key, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Length of the file in bytes, as the block's meta tells.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// How many bytes more in one request cost less than one more request; 0 where requests cost
    /// next to nothing.
    pub(crate) fn request_cost_bytes(&self) -> u64 {
        match &self.origin {
            Origin::Backend { backend, .. } => backend.request_cost_bytes(),
            Origin::Memory(_) => 0,
        }
    }

    pub(crate) fn stats(&self) -> &ReadStats {
        &self.stats
    }

    /// Reads several ranges of what `role` says, answered in their order.
    pub(crate) fn read_ranges_of(
        &self,
        role: CacheRole,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, TableError> {
        match &self.origin {
            Origin::Backend {
                backend,
                caches,
                key,
            } => caches
                .read_ranges_blocking(role, backend, key, ranges, &self.stats)
                .map_err(|error| read_error(&self.name, error)),
            Origin::Memory(file) => ranges
                .iter()
                .map(|range| {
                    if range.end > file.len() as u64 {
                        return Err(TableError::Corrupt {
                            what: self.name.to_string(),
                            reason: "file is too short".to_owned(),
                        });
                    }
                    self.stats.record(range.end - range.start);
                    Ok(file.slice(range.start as usize..range.end as usize))
                })
                .collect(),
        }
    }

    /// Reads one range of what `role` says.
    pub(crate) fn read_range_of(
        &self,
        role: CacheRole,
        range: Range<u64>,
    ) -> Result<Bytes, TableError> {
        let mut answer = self.read_ranges_of(role, std::slice::from_ref(&range))?;
        Ok(answer.pop().unwrap_or_default())
    }

    /// Reads one range, past all caches.
    pub(crate) fn read_range(&self, range: Range<u64>) -> Result<Bytes, TableError> {
        match &self.origin {
            Origin::Backend { backend, key, .. } => backend
                .read_range_blocking(key, range, &self.stats)
                .map_err(|error| read_error(&self.name, error)),
            Origin::Memory(_) => self.read_range_of(CacheRole::ParquetPage, range),
        }
    }
}

/// The error of a failed read.
pub(crate) fn read_error(what: &str, error: tempo_backend::Error) -> TableError {
    match error {
        tempo_backend::Error::Corrupt { problem, .. } => TableError::Corrupt {
            what: what.to_owned(),
            reason: problem,
        },
        source => TableError::Read {
            what: what.to_owned(),
            source: Box::new(source),
        },
    }
}
