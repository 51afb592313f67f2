//! One of the blocks that are merged, walked from its first trace to its last.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use tempo_backend::{ReadStats, cache::CacheRole};
use tempo_model::TraceId;
use tempo_table::TableError;

use super::{
    MergeError,
    leaf_rows::{LevelRows, ValueRows},
    shape::Shape,
};
use crate::{
    read::{
        BlockReader, Malformed,
        group::{GroupBytes, LeafIndex},
        pages::Selection,
        records::Records,
        values::Slices,
        view::View,
    },
    schema::{BlockSchema, LeafColumn},
};

/// Row groups up to this size are read as a whole.
const WHOLE_GROUP_BYTES: u64 = 32 << 20;

/// Of larger ones, about this much is read at once.
const WINDOW_BYTES: u64 = 16 << 20;

/// Traces are made ready to be written as OTLP in portions of about this much of their largest
/// column.
const READY_BYTES: u64 = 1 << 20;

/// A row group of a block that is being read.
pub(super) struct OpenGroup {
    pub(super) bytes: Arc<GroupBytes>,
    /// Ids of all rows, strictly ascending.
    pub(super) ids: Vec<TraceId>,
    /// The first row that was not dealt with.
    pub(super) row: usize,
    /// Rows that the leaves have passed.
    passed: usize,
    /// Row up to which bytes were fetched.
    fetched: usize,
    /// Leaf in the file of each leaf of the schema.
    places: Vec<LeafIndex>,
    levels: Vec<Option<LevelRows>>,
    values: Vec<ValueRows>,
    ready: Option<RowRecords>,
    /// Bytes that a row has in its largest column, on average, before compression.
    pub(super) weight: u64,
}

impl OpenGroup {
    fn open(
        reader: &BlockReader,
        group: usize,
        places: &[LeafIndex],
        shapes: &[Shape],
        stats: &ReadStats,
    ) -> Result<Self, MergeError> {
        let bytes = Arc::new(GroupBytes::new(
            Arc::clone(reader.file()),
            reader.source().counted_in(stats.clone()),
            group,
        ));
        let rows = bytes.rows() as usize;
        let largest = places.iter().map(|&leaf| bytes.chunk(leaf).uncompressed);
        let weight = largest.max().unwrap_or(0) / rows.max(1) as u64 + 1;
        let levels = shapes
            .iter()
            .zip(places)
            .enumerate()
            .map(|(at, (shape, &leaf))| {
                (*shape == Shape::LikeLeaf(at)).then(|| LevelRows::new(leaf))
            });
        let mut group = Self {
            levels: levels.collect(),
            values: places.iter().map(|&leaf| ValueRows::new(leaf)).collect(),
            places: places.to_vec(),
            ids: Vec::new(),
            row: 0,
            passed: 0,
            fetched: 0,
            ready: None,
            weight,
            bytes,
        };
        group.ids = group.read_ids()?;
        Ok(group)
    }

    fn read_ids(&self) -> Result<Vec<TraceId>, MergeError> {
        let Some(leaf) = self.bytes.file().position(LeafColumn::TraceId) else {
            return Ok(Vec::new());
        };
        let rows = self.bytes.rows() as usize;
        let mut ids = Vec::with_capacity(rows);
        let corrupt = |reason| self.bytes.corrupt(leaf, Malformed(reason));
        let mut slices = Slices::default();
        let mut body = Vec::new();
        let mut page = 0;
        self.bytes
            .load(&[leaf], &Selection::all(self.bytes.rows()))?;
        while let Some(part) = self.bytes.page(leaf, page)? {
            part.body_into(&mut body)
                .and_then(|()| slices.locate(part.encoding, &body, part.entries))
                .map_err(|malformed| self.bytes.corrupt(leaf, malformed))?;
            for at in 0..part.entries {
                ids.push(TraceId::from_padded(slices.get(&body, at)));
            }
            page += 1;
        }
        if ids.len() != rows {
            return Err(corrupt("column holds another number of ids than there are rows").into());
        }
        if !ids.is_sorted_by(|one, next| one < next) {
            return Err(corrupt("trace ids do not ascend, each once").into());
        }
        Ok(ids)
    }

    /// The next trace; `None` at the end.
    pub(super) fn head(&self) -> Option<&TraceId> {
        self.ids.get(self.row)
    }

    /// Makes sure that the bytes of rows up to `end` are there, in few requests.
    pub(super) fn fetch(&mut self, end: usize) -> Result<(), TableError> {
        if end <= self.fetched {
            return Ok(());
        }
        let rows = self.bytes.rows();
        let chunks = self.places.iter().map(|&leaf| {
            let bytes = &self.bytes.chunk(leaf).bytes;
            bytes.end - bytes.start
        });
        let size: u64 = chunks.sum();
        let window = if size <= WHOLE_GROUP_BYTES {
            u64::from(rows)
        } else {
            (WINDOW_BYTES.saturating_mul(u64::from(rows)) / size).max(1)
        };
        let start = self.passed as u32;
        let end = (u64::from(start) + window)
            .max(end as u64)
            .min(u64::from(rows)) as u32;
        self.bytes.release_all();
        let selection = Selection::range(start..end, rows);
        self.bytes.load(&self.places, &selection)?;
        self.fetched = end as usize;
        Ok(())
    }

    /// The levels of a leaf that others are like.
    pub(super) fn levels(&mut self, leaf: usize) -> Option<(&GroupBytes, &mut LevelRows)> {
        let levels = self.levels.get_mut(leaf)?.as_mut()?;
        Some((&self.bytes, levels))
    }

    /// The values of a leaf.
    pub(super) fn values(&mut self, leaf: usize) -> (&GroupBytes, &mut ValueRows) {
        (&self.bytes, &mut self.values[leaf])
    }

    /// Rows that the leaves have passed.
    pub(super) fn passed(&self) -> usize {
        self.passed
    }

    /// Tells that all leaves have passed the rows before `row`.
    pub(super) fn set_passed(&mut self, row: usize) {
        self.passed = row;
    }

    /// Makes ready to write as OTLP: a row, and those of the next rows that `wanted` names. Pages
    /// are decoded for a good many rows at once; those that are ready stay so.
    pub(super) fn make_ready(
        &mut self,
        row: u32,
        wanted: impl Fn(&TraceId) -> bool,
    ) -> Result<(), TableError> {
        if self
            .ready
            .as_ref()
            .is_some_and(|ready| ready.place(row).is_some())
        {
            return Ok(());
        }
        let of = self.bytes.rows();
        let count = u32::try_from(READY_BYTES / self.weight)
            .unwrap_or(of)
            .max(1);
        // Not beyond what was fetched: that would be fetched twice.
        let end = row
            .saturating_add(count)
            .min(self.fetched as u32)
            .max(row + 1);
        let next = (row + 1..end).filter(|&next| {
            let id = self.ids.get(next as usize);
            id.is_some_and(&wanted)
        });
        let selection = Selection::of_rows(std::iter::once(row).chain(next), of);
        let ranges = selection.ranges().to_vec();
        let view = View::new(Arc::clone(&self.bytes), selection);
        self.ready = Some(RowRecords {
            records: Records::read(&view)?,
            ranges,
        });
        Ok(())
    }

    /// Appends a trace that is ready as a serialized `tempopb.Trace` and returns how many spans it
    /// has.
    pub(super) fn write_ready(&self, row: u32, out: &mut Vec<u8>) -> usize {
        self.ready.as_ref().map_or(0, |ready| ready.write(row, out))
    }
}

/// Some traces of a row group, ready to be written as OTLP.
struct RowRecords {
    records: Records,
    ranges: Vec<Range<u32>>,
}

impl RowRecords {
    /// Where a row of the row group stands among the records.
    fn place(&self, row: u32) -> Option<usize> {
        let mut before = 0;
        for range in &self.ranges {
            if range.contains(&row) {
                return Some((before + row - range.start) as usize);
            }
            before += range.end - range.start;
        }
        None
    }

    fn write(&self, row: u32, out: &mut Vec<u8>) -> usize {
        let Some(place) = self.place(row) else {
            return 0;
        };
        self.records.write(place, out);
        self.records.structure.spans_of_trace(place).len()
    }
}

/// A block that is merged.
pub(super) struct Input {
    reader: Arc<BlockReader>,
    places: Vec<LeafIndex>,
    stats: ReadStats,
    next_group: usize,
    pub(super) open: Option<OpenGroup>,
}

impl Input {
    pub(super) fn new(
        reader: &Arc<BlockReader>,
        schema: &BlockSchema,
        stats: &ReadStats,
    ) -> Result<Self, MergeError> {
        let file = reader.file();
        let block = reader.meta().block_id;
        let places = schema.leaves().iter().map(|leaf| {
            file.position(leaf.column)
                .ok_or_else(|| MergeError::Incompatible {
                    block,
                    reason: format!("it has no column {}", leaf.path),
                })
        });
        let places: Vec<LeafIndex> = places.collect::<Result<_, _>>()?;
        if file.footer().leaves.len() != places.len() {
            return Err(MergeError::Incompatible {
                block,
                reason: "it has columns that its format does not name".to_owned(),
            });
        }
        Ok(Self {
            reader: Arc::clone(reader),
            places,
            stats: stats.clone(),
            next_group: 0,
            open: None,
        })
    }

    /// Opens the next row group when the current one is at its end. Whether there is a trace.
    pub(super) fn refill(&mut self, shapes: &[Shape]) -> Result<bool, MergeError> {
        loop {
            if self.open.as_ref().is_some_and(|open| open.head().is_some()) {
                return Ok(true);
            }
            let last = self.open.take().and_then(|open| open.ids.last().copied());
            if self.next_group >= self.reader.row_groups() {
                return Ok(false);
            }
            let open = OpenGroup::open(
                &self.reader,
                self.next_group,
                &self.places,
                shapes,
                &self.stats,
            )?;
            self.next_group += 1;
            if last.is_some() && open.head().is_some_and(|&head| Some(head) <= last) {
                return Err(MergeError::Incompatible {
                    block: self.reader.meta().block_id,
                    reason: "its row groups do not ascend by trace id".to_owned(),
                });
            }
            self.open = Some(open);
        }
    }

    /// The number of the open row group.
    pub(super) fn open_group(&self) -> usize {
        self.next_group.saturating_sub(1)
    }

    /// Whether the leaves of the file stand in the order of the schema.
    pub(super) fn is_in_schema_order(&self) -> bool {
        self.places
            .iter()
            .enumerate()
            .all(|(at, &place)| at == place)
    }

    /// The footer's Thrift message.
    pub(super) fn footer(&self) -> Result<Bytes, TableError> {
        let source = self.reader.source().counted_in(self.stats.clone());
        let tail = source.read_range(source.len().saturating_sub(8)..source.len())?;
        let len = crate::read::footer::footer_len(&tail).map_err(|Malformed(reason)| {
            TableError::Corrupt {
                what: source.name().to_owned(),
                reason: reason.to_owned(),
            }
        })?;
        let end = source.len().saturating_sub(8);
        source.read_range(end.saturating_sub(len as u64)..end)
    }

    /// Reads parts of the file, in few requests.
    pub(super) fn read(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, TableError> {
        self.reader
            .source()
            .counted_in(self.stats.clone())
            .read_ranges_of(CacheRole::ParquetPage, ranges)
    }
}
