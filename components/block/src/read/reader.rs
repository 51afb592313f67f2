//! An open block.

use std::sync::Arc;

use tempo_backend::{
    Backend, BlockFormat, BlockMeta, ReadStats,
    cache::{Cache, CacheKey, CacheRole},
};

use super::{file::BlockFile, kept::Kept, source::Source, table::RowGroupTable};
use crate::{Error, schema::Version};

/// An open block: its footer is read. Row groups become tables one by one.
///
/// All reads block, so use it on threads that may.
#[derive(Debug)]
pub struct BlockReader {
    meta: Arc<BlockMeta>,
    source: Source,
    file: Arc<BlockFile>,
    kept: Option<Kept>,
}

/// What a column takes of a file, all row groups together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSize {
    /// Dotted path from the root.
    pub path: String,
    /// Entries, those without a value included.
    pub entries: u64,
    /// Entries without a value, as far as the writer told.
    pub nulls: u64,
    /// Bytes in the file.
    pub stored_bytes: u64,
    /// Bytes as if not compressed.
    pub uncompressed_bytes: u64,
}

/// The version of a block, if it can be read.
pub(crate) fn version_of(meta: &BlockMeta) -> Result<Version, Error> {
    match meta.format {
        BlockFormat::VParquet4 => Ok(Version::VParquet4),
        BlockFormat::VParquet5 => Ok(Version::VParquet5),
        BlockFormat::Other(_) => Err(Error::Unsupported {
            block: meta.block_id,
            format: meta.format.as_str().to_owned(),
        }),
    }
}

impl BlockReader {
    /// Opens a block. Its footer comes from `cache`, or from the backend in one request and is
    /// cached for the next time. Reads are counted in `stats`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for formats other than vParquet4 and vParquet5.
    pub fn open(
        backend: &Backend,
        cache: &Cache,
        meta: Arc<BlockMeta>,
        stats: ReadStats,
    ) -> Result<Arc<Self>, Error> {
        let version = version_of(&meta)?;
        let source = Source::new(backend, cache, &meta, stats);
        let key = CacheKey {
            role: CacheRole::ParquetFooter,
            tenant: Arc::clone(&meta.tenant_id),
            block: meta.block_id,
            part: (0, 0),
        };
        let file = match cache.get::<BlockFile>(&key) {
            Some(file) => file,
            None => {
                let file = Arc::new(BlockFile::read(&source, version, &meta)?);
                cache.insert(key, Arc::clone(&file), file.heap_bytes());
                file
            }
        };
        let kept = Some(Kept::new(cache, &meta));
        Ok(Arc::new(Self {
            meta,
            source,
            file,
            kept,
        }))
    }

    /// Opens a file in memory.
    pub(crate) fn in_memory(meta: BlockMeta, file: bytes::Bytes) -> Result<Arc<Self>, Error> {
        let version = version_of(&meta)?;
        let source = Source::memory(&meta.block_id.to_string(), file);
        let file = Arc::new(BlockFile::read(&source, version, &meta)?);
        Ok(Arc::new(Self {
            meta: Arc::new(meta),
            source,
            file,
            kept: None,
        }))
    }

    /// What the block says about itself.
    pub fn meta(&self) -> &Arc<BlockMeta> {
        &self.meta
    }

    pub(crate) fn file(&self) -> &Arc<BlockFile> {
        &self.file
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// What queries keep of a row group.
    pub(crate) fn kept(&self, row_group: usize) -> Option<Kept> {
        self.kept.as_ref().map(|kept| kept.of_row_group(row_group))
    }

    /// How many row groups the file has; may differ from what the meta says.
    pub fn row_groups(&self) -> usize {
        self.file.footer().row_groups.len()
    }

    /// How many traces a row group has.
    pub fn traces_in(&self, row_group: usize) -> u32 {
        let groups = &self.file.footer().row_groups;
        groups.get(row_group).map_or(0, |group| group.rows)
    }

    /// Every column of the file, in its order, and what it takes of it.
    pub fn columns(&self) -> Vec<ColumnSize> {
        let footer = self.file.footer();
        let mut columns: Vec<ColumnSize> = footer
            .leaves
            .iter()
            .map(|leaf| ColumnSize {
                path: leaf.path.to_string(),
                entries: 0,
                nulls: 0,
                stored_bytes: 0,
                uncompressed_bytes: 0,
            })
            .collect();
        for group in &footer.row_groups {
            for (column, chunk) in columns.iter_mut().zip(&group.chunks) {
                column.entries += u64::from(chunk.entries);
                column.nulls += chunk.nulls.unwrap_or(0);
                column.stored_bytes += chunk.bytes.end - chunk.bytes.start;
                column.uncompressed_bytes += chunk.uncompressed;
            }
        }
        columns
    }

    /// A row group as a table. Its reads are counted in `stats`; what is decoded is kept in the
    /// cache for other tables of the same row group. `None` beyond the last.
    pub fn table(&self, row_group: usize, stats: ReadStats) -> Option<RowGroupTable> {
        (row_group < self.row_groups()).then(|| {
            RowGroupTable::new(
                Arc::clone(&self.file),
                self.source.counted_in(stats),
                row_group,
                self.kept(row_group),
            )
        })
    }
}
