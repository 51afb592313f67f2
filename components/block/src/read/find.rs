//! One trace by its id, and all traces in order.
//!
//! Owns the way to a trace: bloom shard, row group, page, row. Rows of a block are sorted by id.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use tempo_backend::{
    Backend, BlockMeta, ObjectKey, ReadStats,
    cache::{Cache, CacheKey, CacheRole},
};
use tempo_model::TraceId;
use tempo_table::TableError;

use super::{
    Malformed,
    footer::IdBounds,
    group::{GroupBytes, LeafIndex},
    page::{Encoding, Page},
    pages::Selection,
    reader::{BlockReader, version_of},
    records::Records,
    source::read_error,
    texts::{TextCollector, WHOLE_DICTIONARY_SHARE},
    values::Slices,
    view::View,
};
use crate::{
    Error,
    bloom::{self, BloomShard},
    index::RowGroupIndex,
    schema::LeafColumn,
};

/// A column of trace ids up to this size is read whole; of a larger one single pages are probed.
const MAX_WHOLE_ID_COLUMN_BYTES: u64 = 1024 * 1024;

/// Traces that [`BlockReader::traces`] decodes together at least.
const MIN_BATCH_TRACES: u32 = 1024;

/// Batches of one row group at most: pages at their borders are decoded twice.
const MAX_BATCHES: u32 = WHOLE_DICTIONARY_SHARE;

/// The part of a block that holds `id`, as a serialized `tempopb.Trace`; `None` when the block does
/// not have it. Blocks, so call it on threads that may. Reads are counted in `stats`.
///
/// Bloom shards, row-group indexes and footers come from `cache`, or go there.
///
/// # Errors
/// [`Error::Unsupported`] for formats other than vParquet4 and vParquet5. A missing bloom shard is
/// an error, not "not found": blocks without one are damaged.
pub fn find_trace(
    backend: &Backend,
    cache: &Cache,
    meta: &Arc<BlockMeta>,
    id: &TraceId,
    stats: &ReadStats,
) -> Result<Option<Bytes>, Error> {
    version_of(meta)?;
    if !bloom_shard(backend, cache, meta, id, stats)?.may_contain(id) {
        return Ok(None);
    }
    let reader = BlockReader::open(backend, cache, Arc::clone(meta), stats.clone())?;
    let groups = match reader.groups_by_bounds(id) {
        Some(groups) => groups,
        None => match row_group_index(backend, cache, meta, stats)? {
            Some(index) if index.last_ids().len() == reader.row_groups() => {
                index.find(id).into_iter().collect()
            }
            _ => (0..reader.row_groups()).collect(),
        },
    };
    for group in groups {
        if let Some(trace) = reader.find_in_group(group, id, stats)? {
            return Ok(Some(trace));
        }
    }
    Ok(None)
}

fn key(meta: &BlockMeta, role: CacheRole, part: u64) -> CacheKey {
    CacheKey {
        role,
        tenant: Arc::clone(&meta.tenant_id),
        block: meta.block_id,
        part: (part, 0),
    }
}

fn bloom_shard(
    backend: &Backend,
    cache: &Cache,
    meta: &BlockMeta,
    id: &TraceId,
    stats: &ReadStats,
) -> Result<Arc<BloomShard>, Error> {
    let shard = bloom::shard_of(id, meta.bloom_shards);
    let key = key(meta, CacheRole::Bloom, u64::from(shard));
    if let Some(bloom) = cache.get::<BloomShard>(&key) {
        return Ok(bloom);
    }
    let object = ObjectKey::bloom(&meta.tenant_id, meta.block_id, shard);
    let file = cache
        .remote()
        .read_blocking(CacheRole::Bloom, backend, &object, stats)
        .map_err(|error| read_error(object.as_str(), error))?;
    let bloom = BloomShard::parse(file).map_err(|error| TableError::Corrupt {
        what: object.as_str().to_owned(),
        reason: error.to_string(),
    })?;
    let bloom = Arc::new(bloom);
    cache.insert(key, Arc::clone(&bloom), bloom.heap_bytes() as u64);
    Ok(bloom)
}

/// The index of row groups; `None` when there is none or it is damaged, for it only saves time.
fn row_group_index(
    backend: &Backend,
    cache: &Cache,
    meta: &BlockMeta,
    stats: &ReadStats,
) -> Result<Option<Arc<RowGroupIndex>>, Error> {
    let key = key(meta, CacheRole::TraceIdIndex, 0);
    if let Some(index) = cache.get::<RowGroupIndex>(&key) {
        return Ok(Some(index));
    }
    let object = ObjectKey::index(&meta.tenant_id, meta.block_id);
    let read = cache
        .remote()
        .read_blocking(CacheRole::TraceIdIndex, backend, &object, stats);
    let json = match read {
        Ok(json) => json,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(read_error(object.as_str(), error).into()),
    };
    match RowGroupIndex::parse(&json) {
        Ok(index) => {
            let index = Arc::new(index);
            cache.insert(key, Arc::clone(&index), 16 * index.last_ids().len() as u64);
            Ok(Some(index))
        }
        Err(error) => {
            tracing::warn!(object = object.as_str(), %error, "row group index ignored");
            Ok(None)
        }
    }
}

impl BlockReader {
    /// The row groups whose ids may include `id`, if the footer tells.
    fn groups_by_bounds(&self, id: &TraceId) -> Option<Vec<usize>> {
        let id = id.as_bytes();
        let mut groups = Vec::new();
        for (index, group) in self.file().footer().row_groups.iter().enumerate() {
            let (first, last) = group.trace_ids?;
            if first <= *id && *id <= last {
                groups.push(index);
            }
        }
        Some(groups)
    }

    fn group_bytes(&self, group: usize, stats: &ReadStats) -> GroupBytes {
        let source = self.source().counted_in(stats.clone());
        GroupBytes::new(Arc::clone(self.file()), source, group)
    }

    /// The trace as a row group holds it.
    pub(super) fn find_in_group(
        &self,
        group: usize,
        id: &TraceId,
        stats: &ReadStats,
    ) -> Result<Option<Bytes>, Error> {
        let bytes = Arc::new(self.group_bytes(group, stats).with_kept(self.kept(group)));
        let Some(row) = find_row(&bytes, id)? else {
            return Ok(None);
        };
        let rows = bytes.rows();
        let view = View::new(bytes, Selection::one(row, rows));
        let mut trace = Vec::new();
        Records::read(&view)?.write(0, &mut trace);
        Ok(Some(trace.into()))
    }

    /// All traces in stored order, each as its id and a serialized `tempopb.Trace`. Blocks while
    /// reading; reads are counted in `stats`.
    pub fn traces(
        &self,
        stats: ReadStats,
    ) -> impl Iterator<Item = Result<(TraceId, Bytes), Error>> + '_ {
        let mut failed = false;
        (0..self.row_groups())
            .flat_map(move |group| {
                let bytes = Arc::new(self.group_bytes(group, &stats));
                let rows = bytes.rows();
                let size = rows.div_ceil(MAX_BATCHES).max(MIN_BATCH_TRACES);
                let batches = (0..rows).step_by(size as usize);
                batches.flat_map(move |start| {
                    let range = start..start.saturating_add(size).min(rows);
                    match batch(&bytes, range) {
                        Ok(traces) => traces.into_iter().map(Ok).collect(),
                        Err(error) => vec![Err(Error::from(error))],
                    }
                })
            })
            .take_while(move |item| {
                // What follows damage is of no use.
                let stop = failed;
                failed |= item.is_err();
                !stop
            })
    }
}

fn batch(bytes: &Arc<GroupBytes>, range: Range<u32>) -> Result<Vec<(TraceId, Bytes)>, TableError> {
    let rows = bytes.rows();
    let count = range.len();
    let view = View::new(Arc::clone(bytes), Selection::range(range, rows));
    let records = Records::read(&view)?;
    let mut scratch = Vec::new();
    Ok((0..count)
        .map(|trace| {
            scratch.clear();
            records.write(trace, &mut scratch);
            (records.trace_id(trace), Bytes::copy_from_slice(&scratch))
        })
        .collect())
}

/// The row of a trace in its row group.
fn find_row(bytes: &GroupBytes, id: &TraceId) -> Result<Option<u32>, TableError> {
    let Some(leaf) = bytes.file().position(LeafColumn::TraceId) else {
        return Ok(None);
    };
    let chunk = &bytes.chunk(leaf).bytes;
    if chunk.end - chunk.start <= MAX_WHOLE_ID_COLUMN_BYTES {
        bytes.load(&[leaf], &Selection::all(bytes.rows()))?;
    }
    let pages = &bytes.page_map(leaf)?.pages;
    let mut ids = PageIds::default();
    // Ids are mostly random, so where one lies between the bounds tells its page; otherwise the
    // range is halved.
    let mut bounds = bytes.trace_id_bounds();
    let (mut low, mut high) = (0, pages.len());
    while low < high {
        let middle = match bounds.take() {
            Some(bounds) => guess(bounds, id, low..high),
            None => low + (high - low) / 2,
        };
        let Some(spot) = pages.get(middle) else { break };
        match ids.search(bytes, leaf, &spot.rows, id)? {
            Found::Before => high = middle,
            Found::After => low = middle + 1,
            Found::Row(row) => return Ok(Some(row)),
            Found::Nowhere => return Ok(None),
        }
    }
    Ok(None)
}

/// Where `id` lies between two ids, as one of `pages`.
fn guess((first, last): IdBounds, id: &TraceId, pages: Range<usize>) -> usize {
    let number = |id: &[u8; 16]| (u128::from_be_bytes(*id) >> 64) as u64;
    let (first, last, id) = (number(&first), number(&last), number(id.as_bytes()));
    let span = u128::from(last.saturating_sub(first)) + 1;
    let at = u128::from(id.saturating_sub(first)) * pages.len() as u128 / span;
    pages.start + (at as usize).min(pages.len().saturating_sub(1))
}

enum Found {
    Before,
    After,
    Row(u32),
    Nowhere,
}

/// The ids of one page.
#[derive(Default)]
struct PageIds {
    slices: Slices,
    scratch: Vec<u8>,
}

impl PageIds {
    fn search(
        &mut self,
        bytes: &GroupBytes,
        leaf: LeafIndex,
        rows: &Range<u32>,
        id: &TraceId,
    ) -> Result<Found, TableError> {
        let selection = Selection::range(rows.clone(), bytes.rows());
        let mut found = Found::Nowhere;
        let mut coded: Option<Page> = None;
        bytes.for_pages(leaf, &selection, |page, _| {
            if page.entries != rows.len() {
                return Err(Malformed(
                    "page holds other rows than the offset index says",
                ));
            }
            if page.encoding == Encoding::Dictionary {
                coded = Some(page.clone());
                return Ok(());
            }
            let body = page.body(&mut self.scratch)?;
            self.slices.locate(page.encoding, body, page.entries)?;
            found = search(rows, id, |at| {
                TraceId::from_padded(self.slices.get(body, at))
            });
            Ok(())
        })?;
        if let Some(page) = coded {
            // Other writers may code ids, which Tempo never does.
            let mut texts = TextCollector::new(bytes, leaf, &selection)?;
            texts
                .add(&page, page.entries, 0..page.entries)
                .map_err(|malformed| bytes.corrupt(leaf, malformed))?;
            let texts = texts.finish(bytes, leaf)?;
            found = search(rows, id, |at| TraceId::from_padded(texts.get(at)));
        }
        Ok(found)
    }
}

/// Searches the sorted ids of `rows`.
fn search(rows: &Range<u32>, id: &TraceId, id_at: impl Fn(usize) -> TraceId) -> Found {
    let (mut low, mut high) = (0, rows.len());
    while low < high {
        let middle = low + (high - low) / 2;
        match id_at(middle).cmp(id) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Found::Row(rows.start + middle as u32),
        }
    }
    match low {
        0 => Found::Before,
        low if low == rows.len() => Found::After,
        _ => Found::Nowhere,
    }
}
