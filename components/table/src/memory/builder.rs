//! From OTLP bytes to columns.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tempo_model::{
    TraceId,
    otlp::{Fields, ScopeSpansRef, WireError, resource_spans},
};

use super::{
    MemoryTable,
    rows::{EventRows, LinkRows, ResourceRows, ScopeRows, SpanRows, TraceRows},
    table::Parts,
};
use crate::{
    Structure,
    shape::{NestedSets, TraceExtent, TreeSpan, span_key},
};

/// Why a trace was not taken. The table is as it was before the push.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The bytes are not a `tempopb.Trace`.
    #[error("trace {trace_id}: {source}")]
    Malformed {
        /// Whose bytes.
        trace_id: TraceId,
        /// What is wrong with them.
        source: WireError,
    },
    /// A table holds at most 2 GiB of OTLP; finish it and begin another.
    #[error("the table holds {held_bytes} bytes of OTLP and cannot take {more_bytes} more")]
    Full {
        /// Taken so far.
        held_bytes: u64,
        /// Offered.
        more_bytes: u64,
    },
}

/// Keeps every row number and every dictionary within 32 bits.
const MAX_OTLP_BYTES: u64 = 1 << 31;

/// Builds [`MemoryTable`]s, trace by trace.
///
/// One builder can build many tables, one after another; it keeps its memory from one to the next,
/// which is quicker than to begin with a new one. Drop it to give the memory back.
#[derive(Debug)]
pub struct MemoryTableBuilder {
    taken_bytes: u64,
    traces: TraceRows,
    trace_spans: Vec<u32>,
    trace_resources: Vec<u32>,
    resources: ResourceRows,
    resource_scopes: Vec<u32>,
    scopes: ScopeRows,
    scope_spans: Vec<u32>,
    spans: SpanRows,
    events: EventRows,
    links: LinkRows,
    nested_sets: NestedSets,
    tree: Vec<TreeSpan>,
}

/// The spans of one scope of one push, and where they belong within the trace.
struct Part<'a> {
    /// Which distinct resource and scope.
    resource: u32,
    scope: u32,
    /// The first part with the same resource, with the same resource and scope.
    resource_rank: u32,
    scope_rank: u32,
    chunk: u32,
    scope_spans: ScopeSpansRef<'a>,
}

/// Which chunk first brought a span, by id and kind; the others' copies are dropped.
type Origins = HashMap<(u64, i64), u32, RandomState>;

impl Default for MemoryTableBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryTableBuilder {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            taken_bytes: 0,
            traces: TraceRows::default(),
            trace_spans: vec![0],
            trace_resources: vec![0],
            resources: ResourceRows::new(),
            resource_scopes: vec![0],
            scopes: ScopeRows::new(),
            scope_spans: vec![0],
            spans: SpanRows::new(),
            events: EventRows::new(),
            links: LinkRows::new(),
            nested_sets: NestedSets::default(),
            tree: Vec::new(),
        }
    }

    /// Traces taken so far.
    pub fn traces(&self) -> usize {
        self.traces.id.len()
    }

    /// Spans taken so far.
    pub fn spans(&self) -> usize {
        self.spans.len()
    }

    /// Bytes of OTLP taken so far.
    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// Appends a trace: the union of `chunks`, each a serialized `tempopb.Trace`.
    ///
    /// Of spans with the same id and kind in different chunks the first chunk's is kept.
    /// Resources (and scopes of one resource) with the same bytes become one row. A trace without
    /// any span is ignored. A trace must not be pushed twice: its parts would be two traces.
    ///
    /// # Errors
    /// See [`PushError`]; the table is unchanged then.
    pub fn push_trace(&mut self, id: TraceId, chunks: &[&[u8]]) -> Result<(), PushError> {
        let more_bytes: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        if self.taken_bytes + more_bytes > MAX_OTLP_BYTES {
            return Err(PushError::Full {
                held_bytes: self.taken_bytes,
                more_bytes,
            });
        }
        match self.push_rows(id, chunks) {
            Ok(()) => {
                self.taken_bytes += more_bytes;
                Ok(())
            }
            Err(source) => {
                self.forget_unfinished_trace();
                Err(PushError::Malformed {
                    trace_id: id,
                    source,
                })
            }
        }
    }

    fn push_rows(&mut self, id: TraceId, chunks: &[&[u8]]) -> Result<(), WireError> {
        let parts = self.parts(chunks)?;
        let origins = origins(chunks)?;
        let first_span = self.spans();
        self.tree.clear();
        let mut extent = TraceExtent::default();
        let mut resource_rank = None;
        let mut scope_rank = None;
        for part in &parts {
            if resource_rank != Some(part.resource_rank) {
                resource_rank = Some(part.resource_rank);
                scope_rank = None;
                self.resources.kind.push(part.resource);
                self.resource_scopes.push(self.scopes.kind.len() as u32);
            }
            if scope_rank != Some(part.scope_rank) {
                scope_rank = Some(part.scope_rank);
                self.scopes.kind.push(part.scope);
                self.scope_spans.push(self.spans.len() as u32);
                if let Some(end) = self.resource_scopes.last_mut() {
                    *end = self.scopes.kind.len() as u32;
                }
            }
            for span in part.scope_spans.raw_spans() {
                let span = span?;
                if let Some(origins) = &origins
                    && origins.get(&identity(span)?) != Some(&part.chunk)
                {
                    continue;
                }
                self.push_span(id, span, &mut extent)?;
            }
            if let Some(end) = self.scope_spans.last_mut() {
                *end = self.spans.len() as u32;
            }
        }
        if self.spans() == first_span {
            self.forget_unfinished_trace();
            return Ok(());
        }
        self.nested_sets.number(&self.tree, &mut self.spans.sets);
        let (root_service, root_name) = match extent.root() {
            Some(root) => {
                let row = first_span + root as usize;
                (
                    self.resources.service_of(self.spans.resource[row]),
                    self.spans.name[row],
                )
            }
            // Codes of the empty text.
            None => (0, 0),
        };
        let traces = &mut self.traces;
        traces.id.push(*id.as_bytes());
        traces.start_nano.push(extent.start_unix_nano() as i64);
        traces.duration_nano.push(extent.duration_nano() as i64);
        traces.root_service.push(root_service);
        traces.root_name.push(root_name);
        self.trace_resources.push(self.resources.kind.len() as u32);
        self.trace_spans.push(self.spans.len() as u32);
        Ok(())
    }

    /// The scopes of all chunks, those of the same resource and scope next to each other, in the
    /// order in which they first appear.
    fn parts<'a>(&mut self, chunks: &[&'a [u8]]) -> Result<Vec<Part<'a>>, WireError> {
        let mut parts = Vec::new();
        for (chunk, bytes) in (0..).zip(chunks) {
            for resource_spans in resource_spans(bytes) {
                let resource_spans = resource_spans?;
                let resource = self.resources.kind_of(resource_spans.resource()?)?;
                for scope_spans in resource_spans.scope_spans() {
                    let scope_spans = scope_spans?;
                    let rank = parts.len() as u32;
                    parts.push(Part {
                        resource,
                        scope: self.scopes.kind_of(&scope_spans.scope()?)?,
                        resource_rank: rank,
                        scope_rank: rank,
                        chunk,
                        scope_spans,
                    });
                }
            }
        }
        if parts.len() > 1 {
            parts.sort_by_key(|part| (part.resource, part.scope, part.scope_rank));
            for group in parts.chunk_by_mut(|a, b| a.resource == b.resource) {
                let first = group.iter().map(|part| part.resource_rank).min();
                for part in group.iter_mut() {
                    part.resource_rank = first.unwrap_or(part.resource_rank);
                }
                for group in group.chunk_by_mut(|a, b| a.scope == b.scope) {
                    let first = group[0].scope_rank;
                    for part in group {
                        part.scope_rank = first;
                    }
                }
            }
            // Stable, so that parts of one scope stay in the order of the chunks.
            parts.sort_by_key(|part| (part.resource_rank, part.scope_rank));
        }
        Ok(parts)
    }

    /// Appends a span in one scan over its bytes.
    fn push_span(
        &mut self,
        trace_id: TraceId,
        message: &[u8],
        extent: &mut TraceExtent,
    ) -> Result<(), WireError> {
        let row = self.spans.len() as u32;
        let (mut id, mut parent, mut name): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
        let (mut trace_state, mut status_message): (&[u8], &[u8]) = (&[], &[]);
        let (mut start, mut end) = (0, 0);
        let (mut kind, mut status) = (0, 0);
        let mut child_of = false;
        self.spans.attributes.begin_row();
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                9 => self.spans.attributes.push_message(row, field.message()?)?,
                2 => id = field.message()?,
                3 => trace_state = field.message()?,
                4 => parent = field.message()?,
                5 => name = field.message()?,
                6 => kind = field.varint()? as i32,
                7 => start = field.fixed64()?,
                8 => end = field.fixed64()?,
                11 => self.events.push(field.message()?)?,
                13 => child_of |= self.links.push(trace_id, field.message()?)?,
                15 => {
                    for field in Fields::new(field.message()?) {
                        let field = field?;
                        match field.number {
                            2 => status_message = field.message()?,
                            3 => status = field.varint()? as i32,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        let parent_key = (!parent.is_empty()).then(|| span_key(parent));
        let spans = &mut self.spans;
        spans.id.push(span_key(id).to_be_bytes());
        spans
            .parent_id
            .push(parent_key.unwrap_or_default().to_be_bytes());
        spans.name.push(spans.names.intern(name));
        spans.kind.push(i64::from(kind));
        spans.status.push(i64::from(status));
        spans.status_message.push(row, status_message);
        spans.trace_state.push(row, trace_state);
        spans.start_nano.push(start as i64);
        spans.duration_nano.push(end.wrapping_sub(start) as i64);
        spans.resource.push(self.resources.kind.len() as u32 - 1);
        spans.scope.push(self.scopes.kind.len() as u32 - 1);
        self.events.end_span(start);
        self.links.end_span();
        self.tree.push(TreeSpan {
            id: span_key(id),
            parent: parent_key,
            kind,
        });
        extent.add(start, end, parent.is_empty() && !child_of);
        Ok(())
    }

    /// Goes back to the end of the last whole trace.
    fn forget_unfinished_trace(&mut self) {
        let end = |ends: &[u32]| ends.last().map_or(0, |&end| end as usize);
        let resources = end(&self.trace_resources);
        self.resources.truncate(resources);
        self.resource_scopes.truncate(resources + 1);
        let scopes = end(&self.resource_scopes);
        self.scopes.truncate(scopes);
        self.scope_spans.truncate(scopes + 1);
        let spans = end(&self.trace_spans);
        self.spans.truncate(spans);
        self.events.truncate(spans);
        self.links.truncate(spans);
    }

    /// The table of all that was pushed; the builder begins a new one.
    pub fn finish(&mut self) -> MemoryTable {
        let structure = Structure {
            trace_spans: self.trace_spans[..].into(),
            trace_resources: self.trace_resources[..].into(),
            resource_scopes: self.resource_scopes[..].into(),
            scope_spans: self.scope_spans[..].into(),
            span_resource: self.spans.resource[..].into(),
            span_scope: self.spans.scope[..].into(),
        };
        for offsets in [
            &mut self.trace_spans,
            &mut self.trace_resources,
            &mut self.resource_scopes,
            &mut self.scope_spans,
        ] {
            offsets.truncate(1);
        }
        self.taken_bytes = 0;
        let (resources, service_names) = self.resources.finish();
        let (spans, span_names) = self.spans.finish();
        MemoryTable::from_parts(Parts {
            traces: self.traces.finish(service_names, span_names),
            resources,
            scopes: self.scopes.finish(),
            spans,
            events: self.events.finish(),
            links: self.links.finish(),
            structure,
        })
    }
}

/// The id and kind of a span.
fn identity(message: &[u8]) -> Result<(u64, i64), WireError> {
    let (mut id, mut kind) = (0, 0);
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            2 => id = span_key(field.message()?),
            6 => kind = i64::from(field.varint()? as i32),
            _ => {}
        }
    }
    Ok((id, kind))
}

/// Where each span came from first; `None` when no chunk repeats a span of another.
fn origins(chunks: &[&[u8]]) -> Result<Option<Origins>, WireError> {
    if chunks.len() < 2 {
        return Ok(None);
    }
    let mut origins = Origins::default();
    let mut repeated = false;
    for (chunk, bytes) in (0..).zip(chunks) {
        for resource in resource_spans(bytes) {
            for scope in resource?.scope_spans() {
                for span in scope?.raw_spans() {
                    let first = *origins.entry(identity(span?)?).or_insert(chunk);
                    repeated |= first != chunk;
                }
            }
        }
    }
    Ok(repeated.then_some(origins))
}
