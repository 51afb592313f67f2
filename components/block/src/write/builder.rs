//! The builder of one block.

use std::io::Write;

use bytes::Bytes;
use tempo_backend::{BlockMeta, Timestamp};
use tempo_model::TraceId;
use tempo_table::shape::{NestedSet, NestedSets, ServiceStats};

use super::{
    BlockOptions, MAX_TRACE_BYTES, WriteError,
    file::FileWriter,
    frame::{push_frame, push_row},
    row_group::RowGroup,
    sought::SoughtTexts,
    spans::push_span,
    trace::Trace,
};
use crate::{
    bloom::{BloomBuilder, BloomParameters},
    dedicated::{assign, schema_of},
    index::RowGroupIndex,
};

/// Builds one block: traces go in by ascending id, `data.parquet` comes out of the other end.
///
/// Holds one row group in memory; see [`BlockBuilder::buffered_bytes`].
pub struct BlockBuilder<W> {
    options: BlockOptions,
    meta: BlockMeta,
    row_group: RowGroup,
    file: FileWriter<W>,
    bloom: BloomBuilder,
    index: RowGroupIndex,
    last_id: Option<TraceId>,
    spans: u64,
    /// Earliest start and latest end, nanoseconds since the epoch.
    extent: Option<(u64, u64)>,
    failed: bool,
    trace: Trace<'static>,
    nesting: NestedSets,
    nested: Vec<NestedSet>,
    stats: ServiceStats<u32>,
}

/// What became of a pushed trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PushedTrace {
    /// Spans stored. 0 when there were none: then the block has no row for the trace.
    pub spans: u32,
    /// Spans left out because one of the same id and kind came before.
    pub duplicates: u32,
}

/// All of a block but its `data.parquet`, which went to the sink.
#[derive(Debug, Clone)]
pub struct FinishedBlock {
    /// For `meta.json`. Start and end are those of the spans, to the nanosecond; both are absent
    /// (the zero time) when no span has a time.
    pub meta: BlockMeta,
    /// Content of `bloom-0` and so on.
    pub blooms: Vec<Bytes>,
    /// Content of `index`.
    pub index: Bytes,
    /// Spans in the block.
    pub spans: u64,
}

impl FinishedBlock {
    /// Completes the file, and fills in what `meta` says of it. Gives back the sink, flushed.
    pub(crate) fn close<W: Write>(
        mut meta: BlockMeta,
        file: FileWriter<W>,
        bloom: BloomBuilder,
        index: &RowGroupIndex,
        spans: u64,
    ) -> Result<(Self, W), WriteError> {
        meta.total_objects = file.rows() as i64;
        let (sink, file) = file.finish()?;
        let blooms = bloom.finish();
        meta.size = file.bytes;
        meta.total_records = file.row_groups;
        meta.bloom_shards = blooms.len() as u32;
        meta.footer_size = file.footer_bytes;
        let finished = Self {
            meta,
            blooms,
            index: index.to_json(),
            spans,
        };
        Ok((finished, sink))
    }
}

impl<W: Write> BlockBuilder<W> {
    /// Begins a block whose `data.parquet` goes to `sink`.
    ///
    /// # Errors
    /// [`WriteError::Sink`].
    pub fn new(options: BlockOptions, sink: W) -> Result<Self, WriteError> {
        let format = options.format();
        let mut meta = BlockMeta::new(options.tenant.clone(), options.block_id, format.clone());
        meta.dedicated_columns = options.dedicated_columns.retained_by(&format);
        meta.replication_factor = options.replication_factor;
        let dedicated = assign(options.version, &meta.dedicated_columns);
        let schema = schema_of(options.version, &dedicated);
        let bloom = BloomParameters::new(
            options.bloom_false_positive,
            options.bloom_shard_size_bytes,
            options.expected_traces,
        );
        Ok(Self {
            row_group: RowGroup::new(schema.clone(), &dedicated),
            file: FileWriter::new(sink, schema)?,
            bloom: BloomBuilder::new(bloom),
            index: RowGroupIndex::new(),
            last_id: None,
            spans: 0,
            extent: None,
            failed: false,
            trace: Trace::default(),
            nesting: NestedSets::default(),
            nested: Vec::new(),
            stats: ServiceStats::default(),
            options,
            meta,
        })
    }

    /// Adds a trace: `chunks` are serialized `tempopb.Trace` messages (repeated OTLP
    /// `ResourceSpans`, field 1, which is also the form of an `ExportTraceServiceRequest`), all of
    /// whose spans are taken to belong to it.
    ///
    /// # Errors
    /// When [`WriteError::leaves_block_intact`] says so, nothing of the trace was stored and the
    /// next can be pushed; otherwise the block is lost.
    pub fn push_trace(&mut self, id: TraceId, chunks: &[&[u8]]) -> Result<PushedTrace, WriteError> {
        if self.failed {
            return Err(WriteError::GivenUp);
        }
        if let Some(previous) = self.last_id
            && previous >= id
        {
            return Err(WriteError::Order {
                trace: id,
                previous,
            });
        }
        let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        if bytes > MAX_TRACE_BYTES {
            return Err(WriteError::TraceTooLarge {
                trace: id,
                bytes,
                limit: MAX_TRACE_BYTES,
            });
        }
        let mut trace = std::mem::take(&mut self.trace).recycle();
        let stored = self.store(id, chunks, &mut trace);
        self.trace = trace.recycle();
        let pushed = stored.map_err(|source| WriteError::Trace { trace: id, source })?;
        if pushed.spans == 0 {
            return Ok(pushed);
        }
        self.last_id = Some(id);
        self.bloom.add(&id);
        self.spans += u64::from(pushed.spans);
        let limit = self.options.row_group_limit();
        let done = match self.row_group.after_trace(bytes, limit) {
            Ok(true) => self.close_row_group(),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        self.failed = done.is_err();
        done.map(|()| pushed)
    }

    fn store<'a>(
        &mut self,
        id: TraceId,
        chunks: &[&'a [u8]],
        trace: &mut Trace<'a>,
    ) -> Result<PushedTrace, tempo_model::otlp::WireError> {
        let RowGroup {
            columns, templates, ..
        } = &mut self.row_group;
        trace.read(chunks, templates, columns)?;
        let pushed = PushedTrace {
            spans: trace.spans.len() as u32,
            duplicates: trace.duplicates,
        };
        if pushed.spans == 0 {
            return Ok(pushed);
        }
        self.nested.clear();
        self.nesting.number(&trace.tree, &mut self.nested);
        let mark = columns.mark();
        let mut nested = self.nested.iter();
        let mut rep = 0;
        let mut sought = SoughtTexts::default();
        for resource in &trace.resources {
            for scope in trace.scopes_of(resource) {
                for span in trace.spans_of(scope) {
                    let nested = nested.next().copied().unwrap_or_default();
                    push_span(columns, &mut sought, span, nested, rep)
                        .inspect_err(|_| columns.roll_back(mark))?;
                    rep = 3;
                }
                rep = 2;
            }
            rep = 1;
        }
        sought.settle(&mut columns.spans);
        self.stats.clear();
        push_frame(columns, trace, templates, &mut self.stats);
        push_row(columns, id, trace, templates, &self.stats);
        let (start, end) = (trace.extent.start_unix_nano(), trace.extent.end_unix_nano());
        self.extent = match self.extent {
            None => Some((start, end)),
            Some((first, last)) => Some((
                if first == 0 || (start != 0 && start < first) {
                    start
                } else {
                    first
                },
                last.max(end),
            )),
        };
        Ok(pushed)
    }

    fn close_row_group(&mut self) -> Result<(), WriteError> {
        let Some(last_id) = self.last_id.filter(|_| self.row_group.rows() > 0) else {
            return Ok(());
        };
        self.row_group.write(&mut self.file)?;
        self.index.push(last_id);
        Ok(())
    }

    /// Traces stored so far.
    pub fn traces(&self) -> u64 {
        self.file.rows() + self.row_group.rows()
    }

    /// Spans stored so far.
    pub fn spans(&self) -> u64 {
        self.spans
    }

    /// Bytes that went to the sink so far.
    pub fn written_bytes(&self) -> u64 {
        self.file.written()
    }

    /// Heap bytes held now: the pages and dictionaries of the open row group and the columns of
    /// its open stripe. The bloom filter (1.2 bytes per expected trace at a rate of 0.01) comes on
    /// top.
    pub fn buffered_bytes(&self) -> u64 {
        self.row_group.heap_bytes()
    }

    /// Completes `data.parquet` and gives back the sink, flushed.
    ///
    /// # Errors
    /// The block is lost.
    pub fn finish(mut self) -> Result<(FinishedBlock, W), WriteError> {
        if self.failed {
            return Err(WriteError::GivenUp);
        }
        self.close_row_group()?;
        let mut meta = self.meta;
        let (start, end) = self.extent.unwrap_or_default();
        if (start, end) != (0, 0) {
            meta.start_time = timestamp(start);
            meta.end_time = timestamp(end);
        }
        FinishedBlock::close(meta, self.file, self.bloom, &self.index, self.spans)
    }
}

fn timestamp(unix_nano: u64) -> Timestamp {
    Timestamp::from_unix_nanos(i64::try_from(unix_nano).unwrap_or(i64::MAX))
}
