//! The block that is being made: one row group in memory, the rest in the sink.

use std::{collections::VecDeque, io::Write, ops::Range, sync::Arc};

use bytes::Bytes;
use parquet::file::metadata::ParquetMetaData;
use tempo_backend::BlockMeta;
use tempo_model::TraceId;

use super::{
    MergeError,
    input::{Input, OpenGroup},
    lane::Lane,
    leaf_rows::{Counts, Levels},
    shape::{Shape, shapes},
};
use crate::{
    bloom::{BloomBuilder, BloomParameters},
    index::RowGroupIndex,
    schema::{BlockSchema, Leaf, LeafColumn, LeafEncoding},
    write::{
        FinishedBlock, WriteError,
        chunk::{ColumnChunk, encoding_of},
        encode::{Compressor, DataPage, encode_levels},
        file::{CopiedColumn, FileWriter},
        interner::Interner,
        values::ValueScratch,
    },
};

/// Column chunks that are copied are read together up to about this size.
const COPIED_BYTES: u64 = 8 << 20;

/// Consecutive rows of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Position among the sources.
    pub(super) source: usize,
    /// First row in the open row group of the source.
    pub(super) row: usize,
    /// How many.
    pub(super) rows: usize,
}

/// One leaf of the open row group.
#[derive(Debug, Default)]
struct OpenLeaf {
    chunk: ColumnChunk,
    dict: Interner,
}

/// Levels of a stripe, encoded, and what each segment is of them.
#[derive(Debug, Default)]
struct StripeLevels {
    reps: Vec<u8>,
    defs: Vec<u8>,
    total: Counts,
    /// Per segment: values to skip before it, and its values.
    values: Vec<(usize, usize)>,
}

/// The block that is being made.
pub(super) struct Output<W> {
    schema: BlockSchema,
    shapes: Vec<Shape>,
    leaves: Vec<OpenLeaf>,
    file: FileWriter<W>,
    bloom: BloomBuilder,
    index: RowGroupIndex,
    compressor: Compressor,
    scratch: ValueScratch,
    lane: Lane,
    levels: Levels,
    encoded: Vec<u8>,
    /// Rows of the open row group.
    rows: u64,
    /// Tempo's estimate of it: its level entries.
    estimate: u64,
    row_group_limit: u64,
    row_groups: u64,
    last_id: Option<TraceId>,
    spans: u64,
}

impl<W: Write> Output<W> {
    pub(super) fn new(
        schema: BlockSchema,
        bloom: BloomParameters,
        row_group_limit: u64,
        sink: W,
    ) -> Result<Self, MergeError> {
        Ok(Self {
            shapes: shapes(&schema),
            leaves: schema
                .leaves()
                .iter()
                .map(|_| OpenLeaf::default())
                .collect(),
            file: FileWriter::new(sink, schema.clone())?,
            schema,
            bloom: BloomBuilder::new(bloom),
            index: RowGroupIndex::new(),
            compressor: Compressor::new(),
            scratch: ValueScratch::default(),
            lane: Lane::default(),
            levels: Levels::default(),
            encoded: Vec::new(),
            rows: 0,
            estimate: 0,
            row_group_limit,
            row_groups: 1,
            last_id: None,
            spans: 0,
        })
    }

    pub(super) fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    /// Appends the rows of `segments`, whose ids are `ids`, as one page per leaf.
    pub(super) fn push(
        &mut self,
        sources: &mut [Option<&mut OpenGroup>],
        segments: &[Segment],
        ids: &[TraceId],
    ) -> Result<(), MergeError> {
        if segments.is_empty() {
            return Ok(());
        }
        let mut known: Vec<Option<StripeLevels>> = self.leaves.iter().map(|_| None).collect();
        let schema = self.schema.clone();
        for (at, leaf) in schema.leaves().iter().enumerate() {
            let levels = match self.shapes[at] {
                Shape::Rows => {
                    let counts = gaps(sources, segments);
                    StripeLevels {
                        total: Counts {
                            entries: ids.len(),
                            values: ids.len(),
                        },
                        values: counts,
                        ..StripeLevels::default()
                    }
                }
                Shape::LikeLeaf(first) => match known.get_mut(first).and_then(Option::take) {
                    Some(levels) => levels,
                    None => self.levels(sources, segments, first, leaf)?,
                },
            };
            self.push_leaf(sources, segments, at, leaf, &levels, ids.len())?;
            if leaf.column == LeafColumn::SpanId {
                self.spans += levels.total.values as u64;
            }
            if let Shape::LikeLeaf(first) = self.shapes[at] {
                known[first] = Some(levels);
            }
        }
        for segment in segments {
            if let Some(Some(source)) = sources.get_mut(segment.source) {
                source.set_passed(segment.row + segment.rows);
            }
        }
        for id in ids {
            self.bloom.add(id);
        }
        self.last_id = ids.last().copied().or(self.last_id);
        self.rows += ids.len() as u64;
        Ok(())
    }

    /// Gathers the levels of a leaf and encodes them.
    fn levels(
        &mut self,
        sources: &mut [Option<&mut OpenGroup>],
        segments: &[Segment],
        at: usize,
        leaf: &Leaf,
    ) -> Result<StripeLevels, MergeError> {
        self.levels.reps.clear();
        self.levels.defs.clear();
        let mut stripe = StripeLevels::default();
        let mut passed = passed_rows(sources);
        for segment in segments {
            let Some(Some(source)) = sources.get_mut(segment.source) else {
                continue;
            };
            let gap = segment.row - passed[segment.source];
            passed[segment.source] = segment.row + segment.rows;
            let Some((bytes, levels)) = source.levels(at) else {
                continue;
            };
            let skipped = levels.advance(bytes, gap, None)?;
            let taken = levels.advance(bytes, segment.rows, Some(&mut self.levels))?;
            stripe.total.entries += taken.entries;
            stripe.total.values += taken.values;
            stripe.values.push((skipped.values, taken.values));
        }
        if leaf.max_rep > 0 {
            encode_levels(&self.levels.reps, width_of(leaf.max_rep), &mut stripe.reps);
        }
        encode_levels(&self.levels.defs, width_of(leaf.max_def), &mut stripe.defs);
        Ok(stripe)
    }

    fn push_leaf(
        &mut self,
        sources: &mut [Option<&mut OpenGroup>],
        segments: &[Segment],
        at: usize,
        leaf: &Leaf,
        levels: &StripeLevels,
        rows: usize,
    ) -> Result<(), MergeError> {
        let OpenLeaf { chunk, dict } = &mut self.leaves[at];
        self.lane.clear();
        let mut sink = self.lane.sink(leaf, dict, self.row_groups);
        for source in sources.iter_mut().flatten() {
            let row = source.passed();
            let (bytes, values) = source.values(at);
            values.align(bytes, row)?;
        }
        for (segment, &(skipped, taken)) in segments.iter().zip(&levels.values) {
            let Some(Some(source)) = sources.get_mut(segment.source) else {
                continue;
            };
            let (bytes, values) = source.values(at);
            values.skip(bytes, skipped)?;
            values.take(bytes, taken, &mut sink)?;
        }
        let values = self.lane.values(leaf, dict);
        self.encoded.clear();
        if !leaf.blob {
            values.widen(leaf.encoding, &mut chunk.bounds);
        }
        values.encode(leaf.encoding, &mut self.scratch, &mut self.encoded);
        let page = DataPage {
            rep_levels: &levels.reps,
            def_levels: &levels.defs,
            values: &self.encoded,
            encoding: encoding_of(leaf) as i32,
            entries: levels.total.entries,
            nulls: levels.total.entries - levels.total.values,
            rows,
        };
        chunk
            .push(leaf, &page, &mut self.compressor)
            .map_err(|error| WriteError::from(error).in_column(&leaf.path))?;
        self.estimate += levels.total.entries as u64;
        Ok(())
    }

    /// Whether the open row group should be closed.
    pub(super) fn is_full(&self) -> bool {
        self.estimate > self.row_group_limit || self.stored_bytes() > self.row_group_limit
    }

    fn stored_bytes(&self) -> u64 {
        let leaves = self.leaves.iter();
        leaves
            .map(|leaf| leaf.chunk.stored_bytes() + leaf.dict.plain().len() as u64)
            .sum()
    }

    /// Writes the open row group, if it has rows, and begins the next.
    pub(super) fn close_row_group(&mut self) -> Result<(), MergeError> {
        if self.rows == 0 {
            return Ok(());
        }
        let compressor = &mut self.compressor;
        let (schema, leaves) = (&self.schema, &mut self.leaves);
        let finished = schema.layout().iter().map(|&index| {
            let leaf = &schema.leaves()[index];
            let OpenLeaf { chunk, dict } = &mut leaves[index];
            let dictionary = match leaf.encoding {
                LeafEncoding::Dictionary => {
                    chunk.bounds.bytes(dict.iter());
                    Some((dict.plain(), dict.len()))
                }
                _ => None,
            };
            let finished = chunk.finish(leaf, dictionary, compressor);
            dict.clear();
            finished
                .map(|column| (index, column))
                .map_err(|error| WriteError::from(error).in_column(&leaf.path))
        });
        self.file.write_row_group(self.rows, finished)?;
        self.compressor.trim();
        if let Some(last) = self.last_id {
            self.index.push(last);
        }
        self.rows = 0;
        self.estimate = 0;
        self.row_groups += 1;
        Ok(())
    }

    /// Copies the open row group of an input, none of whose rows was taken, as it is.
    pub(super) fn copy_row_group(
        &mut self,
        input: &Input,
        group: &OpenGroup,
        footer: &ParquetMetaData,
    ) -> Result<(), MergeError> {
        self.close_row_group()?;
        let number = input.open_group();
        let Some(metadata) = footer.row_groups().get(number) else {
            return Ok(());
        };
        // They lie as they did, and are read front to back.
        let mut chunks: Vec<(usize, Range<u64>)> = (0..metadata.num_columns())
            .map(|leaf| (leaf, group.bytes.chunk(leaf).bytes.clone()))
            .collect();
        chunks.sort_unstable_by_key(|(_, bytes)| bytes.start);
        let (order, ranges): (Vec<usize>, Vec<Range<u64>>) = chunks.into_iter().unzip();
        let mut read: VecDeque<Bytes> = VecDeque::new();
        let columns = order.iter().enumerate().map(|(at, &leaf)| {
            if read.is_empty() {
                read = input.read(portion(&ranges[at..]))?.into();
            }
            let column = CopiedColumn {
                metadata: metadata.column(leaf).clone(),
                start: ranges[at].start,
                pages: group.bytes.page_map(leaf)?.pages.clone(),
                bytes: read.pop_front().unwrap_or_default(),
                hint: group.bytes.hint(leaf).cloned(),
            };
            Ok::<_, MergeError>((leaf, column))
        });
        self.file.copy_row_group(group.ids.len() as u64, columns)?;
        let spans = group.bytes.file().position(LeafColumn::SpanId);
        if let Some(leaf) = spans {
            let chunk = group.bytes.chunk(leaf);
            self.spans += u64::from(chunk.entries) - chunk.nulls.unwrap_or(0);
        }
        for id in &group.ids {
            self.bloom.add(id);
        }
        if let Some(&last) = group.ids.last() {
            self.last_id = Some(last);
            self.index.push(last);
        }
        self.row_groups += 1;
        Ok(())
    }

    /// Traces that the block has.
    pub(super) fn traces(&self) -> u64 {
        self.file.rows() + self.rows
    }

    /// Completes the file; `meta` is filled in.
    pub(super) fn finish(mut self, meta: BlockMeta) -> Result<(FinishedBlock, W), MergeError> {
        self.close_row_group()?;
        let closed = FinishedBlock::close(meta, self.file, self.bloom, &self.index, self.spans);
        Ok(closed?)
    }
}

/// As many of the ranges as are read together; one at least.
fn portion(ranges: &[Range<u64>]) -> &[Range<u64>] {
    let mut bytes = 0;
    let fit = ranges.iter().take_while(|range| {
        bytes += range.end - range.start;
        bytes <= COPIED_BYTES
    });
    let count = fit.count().max(1);
    ranges.get(..count).unwrap_or(ranges)
}

fn passed_rows(sources: &[Option<&mut OpenGroup>]) -> Vec<usize> {
    let passed = sources
        .iter()
        .map(|source| source.as_ref().map_or(0, |open| open.passed()));
    passed.collect()
}

/// Rows to skip before each segment, and its rows.
fn gaps(sources: &[Option<&mut OpenGroup>], segments: &[Segment]) -> Vec<(usize, usize)> {
    let mut passed = passed_rows(sources);
    segments
        .iter()
        .map(|segment| {
            let gap = segment.row - passed[segment.source];
            passed[segment.source] = segment.row + segment.rows;
            (gap, segment.rows)
        })
        .collect()
}

fn width_of(max: i16) -> u32 {
    16 - max.leading_zeros()
}

/// The metadata of a file, from its footer's Thrift message.
pub(super) fn parse_footer(
    input: &Input,
    block: uuid::Uuid,
) -> Result<Arc<ParquetMetaData>, MergeError> {
    let footer = input.footer()?;
    parquet::file::metadata::ParquetMetaDataReader::decode_metadata(&footer)
        .map(Arc::new)
        .map_err(|source| MergeError::Footer { block, source })
}
