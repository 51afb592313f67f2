//! Traces that several inputs have, as the rows of a small block in memory.

use std::sync::Arc;

use bytes::Bytes;
use tempo_backend::{BlockMeta, ReadStats};
use tempo_model::TraceId;

use super::{
    MergeCounts, MergeError,
    input::{Input, OpenGroup},
    shape::{Shape, shapes},
};
use crate::{
    read::{BlockReader, version_of},
    schema::BlockSchema,
    write::{BlockBuilder, BlockOptions, MAX_ROW_GROUP_SIZE_BYTES},
};

/// A trace in the open row group of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) input: usize,
    pub(super) row: u32,
}

/// Where the whole trace is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// One of the inputs has it all, or it is all that is kept.
    Part(Part),
    /// In this row of the united traces.
    Row(usize),
}

/// United traces.
pub(super) struct United {
    /// Of each trace.
    pub(super) places: Vec<Place>,
    /// The rows, if there are any.
    pub(super) group: Option<OpenGroup>,
}

/// Unites traces, stripe by stripe.
pub(super) struct Uniter {
    schema: BlockSchema,
    shapes: Vec<Shape>,
    meta: BlockMeta,
    max_trace_bytes: u64,
    parts: Vec<Vec<u8>>,
}

/// Bytes of a bloom shard that no one reads.
const UNUSED_BLOOM_BYTES: u32 = 64;

impl Uniter {
    pub(super) fn new(schema: &BlockSchema, meta: &BlockMeta, max_trace_bytes: u64) -> Self {
        Self {
            shapes: shapes(schema),
            schema: schema.clone(),
            meta: meta.clone(),
            max_trace_bytes,
            parts: Vec::new(),
        }
    }

    /// Unites `traces`, each given by its parts in the open row groups, which have two at least.
    pub(super) fn unite(
        &mut self,
        inputs: &mut [Input],
        traces: &[(TraceId, Vec<Part>)],
        counts: &mut MergeCounts,
    ) -> Result<United, MergeError> {
        let mut united = United {
            places: Vec::with_capacity(traces.len()),
            group: None,
        };
        if traces.is_empty() {
            return Ok(united);
        }
        let mut builder: Option<BlockBuilder<Vec<u8>>> = None;
        let mut row = 0;
        for (id, parts) in traces {
            self.parts.resize_with(parts.len(), Vec::new);
            let mut spans = 0;
            let mut spans_of_first = 0;
            for (at, (part, bytes)) in parts.iter().zip(&mut self.parts).enumerate() {
                bytes.clear();
                let count = write_part(inputs, *part, bytes)?;
                spans += count;
                if at == 0 {
                    spans_of_first = count;
                }
            }
            counts.traces_united += 1;
            let first = Place::Part(parts[0]);
            let others = (spans - spans_of_first) as u64;
            if self.parts.iter().all(|bytes| *bytes == self.parts[0]) {
                counts.spans_deduplicated += others;
                united.places.push(first);
                continue;
            }
            let size: u64 = self.parts.iter().map(|bytes| bytes.len() as u64).sum();
            if self.max_trace_bytes > 0 && size > self.max_trace_bytes {
                counts.spans_discarded += others;
                tracing::warn!(
                    tenant = &*self.meta.tenant_id,
                    trace_id = %id,
                    size_bytes = size,
                    limit_bytes = self.max_trace_bytes,
                    spans = others,
                    "trace too large to be united, only its first part is kept"
                );
                united.places.push(first);
                continue;
            }
            let builder = match &mut builder {
                Some(builder) => builder,
                None => builder.insert(self.builder(traces.len())?),
            };
            let chunks: Vec<&[u8]> = self.parts.iter().map(Vec::as_slice).collect();
            let pushed = builder.push_trace(*id, &chunks)?;
            counts.spans_deduplicated += u64::from(pushed.duplicates);
            if pushed.spans == 0 {
                united.places.push(first);
                continue;
            }
            united.places.push(Place::Row(row));
            row += 1;
        }
        if let Some(builder) = builder {
            united.group = self.open(builder)?;
        }
        Ok(united)
    }

    fn builder(&self, traces: usize) -> Result<BlockBuilder<Vec<u8>>, MergeError> {
        let version = version_of(&self.meta)?;
        let tenant = Arc::clone(&self.meta.tenant_id);
        let mut options = BlockOptions::new(version, tenant, self.meta.block_id, traces as u64);
        options.dedicated_columns = self.meta.dedicated_columns.clone();
        options.row_group_size_bytes = MAX_ROW_GROUP_SIZE_BYTES;
        options.bloom_shard_size_bytes = UNUSED_BLOOM_BYTES;
        Ok(BlockBuilder::new(options, Vec::new())?)
    }

    fn open(&self, builder: BlockBuilder<Vec<u8>>) -> Result<Option<OpenGroup>, MergeError> {
        let (block, file) = builder.finish()?;
        let reader = BlockReader::in_memory(block.meta, Bytes::from(file))?;
        if reader.row_groups() > 1 {
            return Err(MergeError::Incompatible {
                block: self.meta.block_id,
                reason: "its united traces exceed a row group; lower max_bytes_per_trace"
                    .to_owned(),
            });
        }
        let mut input = Input::new(&reader, &self.schema, &ReadStats::new())?;
        input.refill(&self.shapes)?;
        Ok(input.open.take())
    }
}

/// Appends a part of a trace as a serialized `tempopb.Trace` and returns how many spans it has.
fn write_part(inputs: &mut [Input], part: Part, out: &mut Vec<u8>) -> Result<usize, MergeError> {
    let Some(mut open) = inputs[part.input].open.take() else {
        return Ok(0);
    };
    // The next ones that other inputs have, too, will be asked for.
    let others = inputs.iter().filter_map(|input| input.open.as_ref());
    let others: Vec<&[TraceId]> = others.map(|open| open.ids.as_slice()).collect();
    let ready = open.make_ready(part.row, |id| {
        others.iter().any(|ids| ids.binary_search(id).is_ok())
    });
    let spans = open.write_ready(part.row, out);
    inputs[part.input].open = Some(open);
    ready?;
    Ok(spans)
}
