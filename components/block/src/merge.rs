//! Several blocks into one, column by column.
//!
//! Owns what compaction and redaction do to the bytes of blocks. The inputs are walked together by
//! ascending trace id. Rows that only one of them has are copied leaf by leaf: levels as they are,
//! values as they are or with the codes of their texts renamed; no trace, span or attribute becomes
//! an object. Traces that several have are united through OTLP, as a small block in memory that is
//! then walked like another input. Row groups whose ids lie apart from all others are copied byte
//! for byte. Must never decide which blocks are merged, or what becomes of them afterwards.
//!
//! Memory: per input the bytes of one row group (of a large one, a window of it) and one decoded
//! page per leaf; of the output one row group, encoded.

mod error;
mod input;
mod lane;
mod leaf_rows;
mod output;
mod shape;
mod store;
mod unite;

use std::{io::Write, sync::Arc};

use parquet::file::metadata::ParquetMetaData;
use tempo_backend::{BlockMeta, ReadStats};
use tempo_model::TraceId;
use uuid::Uuid;

use self::{
    input::{Input, OpenGroup},
    output::{Output, Segment, parse_footer},
    unite::{Part, Uniter},
};
use crate::{
    bloom::{BloomParameters, DEFAULT_FALSE_POSITIVE, DEFAULT_SHARD_SIZE_BYTES},
    dedicated::{assign, schema_of},
    read::BlockReader,
    write::{DEFAULT_ROW_GROUP_SIZE_BYTES, FinishedBlock, MAX_ROW_GROUP_SIZE_BYTES},
};

pub use error::MergeError;
pub use store::{Merged, merge_blocks};

/// Bytes of the largest page of a stripe, before compression, roughly.
const PAGE_BYTES: u64 = 256 * 1024;

/// Most rows of a stripe.
const MAX_STRIPE_ROWS: usize = 1 << 18;

/// Row groups below this size, and below a share of the size at which they are closed, are not
/// copied as they are: small ones cost every later reader more than merging them costs now.
const MIN_COPIED_BYTES: u64 = 1 << 20;
const MIN_COPIED_SHARE: u64 = 16;

/// How blocks are to be merged.
#[derive(Debug, Clone)]
pub struct MergeOptions {
    /// Id of the new block.
    pub block_id: Uuid,
    /// A row group is closed when Tempo's estimate of it, or what it takes in the file, exceeds
    /// this. 0 stands for the default.
    pub row_group_size_bytes: u64,
    /// False-positive rate of the bloom filter, within (0, 1).
    pub bloom_false_positive: f64,
    /// Size of a bloom shard.
    pub bloom_shard_size_bytes: u32,
    /// When the parts of a trace are larger together, only the first is kept, as Tempo does. 0: no
    /// limit.
    pub max_trace_bytes: u64,
}

impl MergeOptions {
    /// Tempo's defaults for storage; no limit to traces.
    pub fn new(block_id: Uuid) -> Self {
        Self {
            block_id,
            row_group_size_bytes: DEFAULT_ROW_GROUP_SIZE_BYTES,
            bloom_false_positive: DEFAULT_FALSE_POSITIVE,
            bloom_shard_size_bytes: DEFAULT_SHARD_SIZE_BYTES,
            max_trace_bytes: 0,
        }
    }

    fn row_group_limit(&self) -> u64 {
        match self.row_group_size_bytes {
            0 => DEFAULT_ROW_GROUP_SIZE_BYTES,
            bytes => bytes.min(MAX_ROW_GROUP_SIZE_BYTES),
        }
    }
}

/// What the caller decides while blocks are merged.
pub trait MergeControl: Send + Sync {
    /// Whether a trace is to be left out.
    fn drops(&self, _id: &TraceId) -> bool {
        false
    }

    /// Whether to give up; asked now and then.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Keeps every trace and never gives up.
impl MergeControl for () {}

/// What merging came across.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MergeCounts {
    /// Traces of the new block.
    pub traces: u64,
    /// Traces of which several inputs had a part.
    pub traces_united: u64,
    /// Traces left out because [`MergeControl::drops`] said so.
    pub traces_dropped: u64,
    /// Spans left out because another input had them too.
    pub spans_deduplicated: u64,
    /// Spans left out because their trace was larger than [`MergeOptions::max_trace_bytes`].
    pub spans_discarded: u64,
    /// Row groups copied as they are.
    pub row_groups_copied: u64,
}

/// Merges blocks into `sink`, which gets the new `data.parquet`. The new block has the format,
/// dedicated columns and replication factor of the first input. Blocks, so call it on threads that
/// may; reads are counted in `stats`.
///
/// # Errors
/// The inputs are as they were; what the sink got is of no use.
pub fn merge<W: Write>(
    inputs: &[Arc<BlockReader>],
    options: &MergeOptions,
    control: &dyn MergeControl,
    stats: &ReadStats,
    sink: W,
) -> Result<(FinishedBlock, MergeCounts, W), MergeError> {
    Merger::new(inputs, options, control, stats, sink)?.run()
}

/// The meta of the new block, but for what is known at the end.
fn meta_of(inputs: &[Arc<BlockReader>], block_id: Uuid) -> Option<BlockMeta> {
    let metas = || inputs.iter().map(|reader| reader.meta());
    let mut meta = BlockMeta::clone(metas().next()?);
    meta.block_id = block_id;
    meta.start_time = metas().map(|meta| meta.start_time).min()?;
    meta.end_time = metas().map(|meta| meta.end_time).max()?;
    meta.compaction_level = metas()
        .map(|meta| meta.compaction_level)
        .max()?
        .saturating_add(1);
    meta.dedicated_columns = meta.dedicated_columns.retained_by(&meta.format);
    meta.index_page_size = 0;
    meta.replaces = metas().map(|meta| meta.block_id).collect();
    Some(meta)
}

struct Merger<'a, W> {
    inputs: Vec<Input>,
    footers: Vec<Option<Arc<ParquetMetaData>>>,
    min_copied_bytes: u64,
    output: Output<W>,
    meta: BlockMeta,
    uniter: Uniter,
    control: &'a dyn MergeControl,
    counts: MergeCounts,
}

/// What comes next in the output.
enum Item {
    /// Rows of one input.
    Rows(Segment),
    /// A trace that several inputs have, by its number among the united.
    United(usize),
}

/// The traces of the next page.
#[derive(Default)]
struct Stripe {
    items: Vec<Item>,
    united: Vec<(TraceId, Vec<Part>)>,
}

impl<'a, W: Write> Merger<'a, W> {
    fn new(
        readers: &[Arc<BlockReader>],
        options: &MergeOptions,
        control: &'a dyn MergeControl,
        stats: &ReadStats,
        sink: W,
    ) -> Result<Self, MergeError> {
        let meta = meta_of(readers, options.block_id).ok_or(MergeError::Incompatible {
            block: options.block_id,
            reason: "it would be made of nothing".to_owned(),
        })?;
        let version = crate::read::version_of(&meta)?;
        for reader in readers {
            let other = reader.meta();
            let columns = other.dedicated_columns.retained_by(&other.format);
            if other.format != meta.format || columns != meta.dedicated_columns {
                return Err(MergeError::Incompatible {
                    block: other.block_id,
                    reason: "its format or its dedicated columns differ from the first block's"
                        .to_owned(),
                });
            }
        }
        let schema = schema_of(version, &assign(version, &meta.dedicated_columns));
        let traces: i64 = readers
            .iter()
            .map(|reader| reader.meta().total_objects)
            .sum();
        let bloom = BloomParameters::new(
            options.bloom_false_positive,
            options.bloom_shard_size_bytes,
            u64::try_from(traces).unwrap_or(0),
        );
        let inputs = readers
            .iter()
            .map(|reader| Input::new(reader, &schema, stats));
        Ok(Self {
            inputs: inputs.collect::<Result<_, _>>()?,
            footers: readers.iter().map(|_| None).collect(),
            min_copied_bytes: MIN_COPIED_BYTES.min(options.row_group_limit() / MIN_COPIED_SHARE),
            uniter: Uniter::new(&schema, &meta, options.max_trace_bytes),
            output: Output::new(schema, bloom, options.row_group_limit(), sink)?,
            meta,
            control,
            counts: MergeCounts::default(),
        })
    }

    fn run(mut self) -> Result<(FinishedBlock, MergeCounts, W), MergeError> {
        while self.refill()? {
            if self.control.is_cancelled() {
                return Err(MergeError::Cancelled);
            }
            match self.lone_group() {
                Some(input) => self.copy_group(input)?,
                None => {
                    let stripe = self.plan();
                    self.write(stripe)?;
                }
            }
            if self.output.is_full() {
                self.output.close_row_group()?;
            }
        }
        self.counts.traces = self.output.traces();
        let (block, sink) = self.output.finish(self.meta)?;
        Ok((block, self.counts, sink))
    }

    /// Opens row groups. Whether any input has a trace.
    fn refill(&mut self) -> Result<bool, MergeError> {
        let mut any = false;
        for input in &mut self.inputs {
            any |= input.refill(self.output.shapes())?;
        }
        Ok(any)
    }

    fn heads(&self) -> impl Iterator<Item = (usize, &OpenGroup, &TraceId)> {
        let open = self.inputs.iter().enumerate();
        open.filter_map(|(at, input)| {
            let open = input.open.as_ref()?;
            Some((at, open, open.head()?))
        })
    }

    /// An input whose whole row group comes before all else, and is worth to be copied.
    fn lone_group(&self) -> Option<usize> {
        let (at, open, _) = self.heads().min_by_key(|&(_, _, head)| head)?;
        let input = &self.inputs[at];
        let last = open.ids.last()?;
        let is_lone = self
            .heads()
            .all(|(other, _, head)| other == at || head > last);
        let chunks = (0..open.bytes.file().footer().leaves.len()).map(|leaf| {
            let bytes = &open.bytes.chunk(leaf).bytes;
            bytes.end - bytes.start
        });
        (open.row == 0
            && is_lone
            && input.is_in_schema_order()
            && chunks.sum::<u64>() >= self.min_copied_bytes
            && !open.ids.iter().any(|id| self.control.drops(id)))
        .then_some(at)
    }

    fn copy_group(&mut self, at: usize) -> Result<(), MergeError> {
        let footer = match &self.footers[at] {
            Some(footer) => Arc::clone(footer),
            None => {
                let footer = parse_footer(&self.inputs[at], self.meta.block_id)?;
                Arc::clone(self.footers[at].insert(footer))
            }
        };
        let Some(mut open) = self.inputs[at].open.take() else {
            return Ok(());
        };
        self.output
            .copy_row_group(&self.inputs[at], &open, &footer)?;
        open.row = open.ids.len();
        self.inputs[at].open = Some(open);
        self.counts.row_groups_copied += 1;
        Ok(())
    }

    /// Takes traces until a page is full or a row group of an input is at its end.
    fn plan(&mut self) -> Stripe {
        let mut stripe = Stripe::default();
        let mut weight = 0;
        let mut rows = 0;
        let mut equal = Vec::new();
        while weight < PAGE_BYTES && rows < MAX_STRIPE_ROWS {
            let Some(&lowest) = self.heads().map(|(_, _, head)| head).min() else {
                break;
            };
            equal.clear();
            equal.extend(
                self.heads()
                    .filter(|(_, _, head)| **head == lowest)
                    .map(|(at, ..)| at),
            );
            let until = self
                .heads()
                .map(|(_, _, head)| *head)
                .filter(|head| *head != lowest)
                .min();
            let drops = self.control.drops(&lowest);
            let mut at_end = false;
            if let [only] = equal[..] {
                // All traces before the next input's, as far as the page goes.
                let control = self.control;
                let Some(open) = self.inputs[only].open.as_mut() else {
                    break;
                };
                let begin = open.row;
                while weight < PAGE_BYTES
                    && let Some(id) = open.head()
                    && until.is_none_or(|until| *id < until)
                    && control.drops(id) == drops
                {
                    open.row += 1;
                    weight += open.weight;
                }
                let taken = open.row - begin;
                at_end = open.head().is_none();
                if drops {
                    self.counts.traces_dropped += taken as u64;
                } else {
                    rows += taken;
                    stripe.push(only, begin, taken);
                }
            } else {
                let mut parts = Vec::with_capacity(equal.len());
                for &at in &equal {
                    if let Some(open) = self.inputs[at].open.as_mut() {
                        parts.push(Part {
                            input: at,
                            row: open.row as u32,
                        });
                        open.row += 1;
                        weight += open.weight;
                        at_end |= open.head().is_none();
                    }
                }
                if drops {
                    self.counts.traces_dropped += 1;
                } else {
                    rows += 1;
                    stripe.items.push(Item::United(stripe.united.len()));
                    stripe.united.push((lowest, parts));
                }
            }
            if at_end {
                break;
            }
        }
        stripe
    }

    fn write(&mut self, stripe: Stripe) -> Result<(), MergeError> {
        for input in &mut self.inputs {
            if let Some(open) = &mut input.open {
                open.fetch(open.row)?;
            }
        }
        let united = self
            .uniter
            .unite(&mut self.inputs, &stripe.united, &mut self.counts)?;
        let united_source = self.inputs.len();
        let mut segments: Vec<Segment> = Vec::new();
        let mut ids = Vec::new();
        let mut add = |segment: Segment| match segments.last_mut() {
            Some(last) if last.source == segment.source && last.row + last.rows == segment.row => {
                last.rows += segment.rows;
            }
            _ => segments.push(segment),
        };
        for item in stripe.items {
            match item {
                Item::Rows(segment) => {
                    if let Some(open) = &self.inputs[segment.source].open {
                        ids.extend_from_slice(&open.ids[segment.row..segment.row + segment.rows]);
                    }
                    add(segment);
                }
                Item::United(number) => {
                    let (source, row) = match united.places[number] {
                        unite::Place::Part(part) => (part.input, part.row as usize),
                        unite::Place::Row(row) => (united_source, row),
                    };
                    ids.push(stripe.united[number].0);
                    add(Segment {
                        source,
                        row,
                        rows: 1,
                    });
                }
            }
        }
        let mut united_group = united.group;
        let mut sources: Vec<Option<&mut OpenGroup>> = self
            .inputs
            .iter_mut()
            .map(|input| input.open.as_mut())
            .collect();
        sources.push(united_group.as_mut());
        self.output.push(&mut sources, &segments, &ids)
    }
}

impl Stripe {
    fn push(&mut self, source: usize, row: usize, rows: usize) {
        if rows > 0 {
            self.items.push(Item::Rows(Segment { source, row, rows }));
        }
    }
}

#[cfg(test)]
mod tests;
