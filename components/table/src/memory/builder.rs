//! From OTLP bytes to columns.

use std::{hash::BuildHasher, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use tempo_model::{
    TraceId,
    otlp::{AnyValueRef, Fields, KeyValueRef, ScopeSpansRef, WireError, resource_spans},
};

use super::{
    MemoryTable,
    attributes::AttributesBuilder,
    intern::Interner,
    packed::PackedInts,
    table::{Events, Links, Parts, Resources, Scopes, Spans, Texts, Traces},
};
use crate::shape::{NestedSet, NestedSets, TraceExtent, TreeSpan, is_child_of_link, span_key};

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
    /// A table holds at most 4 GiB of OTLP; finish it and begin another.
    #[error("the table holds {held_bytes} bytes of OTLP and cannot take {more_bytes} more")]
    Full {
        /// Taken so far.
        held_bytes: u64,
        /// Offered.
        more_bytes: u64,
    },
}

/// Builds a [`MemoryTable`], trace by trace.
///
/// Resources and scopes repeat from trace to trace, so their bytes are interned whole and their
/// attributes read once per distinct message. Spans are scanned once.
#[derive(Debug)]
pub struct MemoryTableBuilder {
    taken_bytes: u64,
    trace_ids: Vec<[u8; 16]>,
    trace_spans: Vec<u32>,
    trace_resources: Vec<u32>,
    trace_start_nano: Vec<i64>,
    trace_duration_nano: Vec<i64>,
    /// Codes of `service_names` and `names`.
    root_service: Vec<u32>,
    root_name: Vec<u32>,
    service_names: Interner,

    resource_kinds: Messages,
    resource_attributes: AttributesBuilder,
    /// Code of `service_names` per kind of resource.
    resource_services: Vec<u32>,
    resources: Vec<u32>,
    resource_scopes: Vec<u32>,

    scope_kinds: Messages,
    scope_attributes: AttributesBuilder,
    scope_names: Interner,
    scope_versions: Interner,
    /// Per kind of scope.
    scope_name: Vec<u32>,
    scope_version: Vec<u32>,
    scopes: Vec<u32>,
    scope_spans: Vec<u32>,

    spans: SpanRows,
    span_attributes: AttributesBuilder,
    events: EventRows,
    event_attributes: AttributesBuilder,
    links: LinkRows,
    link_attributes: AttributesBuilder,

    nested_sets: NestedSets,
    tree: Vec<TreeSpan>,
}

#[derive(Debug)]
struct SpanRows {
    resource: Vec<u32>,
    scope: Vec<u32>,
    id: Vec<[u8; 8]>,
    parent_id: Vec<[u8; 8]>,
    names: Interner,
    name: Vec<u32>,
    kind: Vec<i64>,
    status: Vec<i64>,
    status_messages: Interner,
    status_message: Vec<(u32, u32)>,
    trace_states: Interner,
    trace_state: Vec<(u32, u32)>,
    start_nano: Vec<i64>,
    duration_nano: Vec<i64>,
    sets: Vec<NestedSet>,
    events_end: Vec<u32>,
    links_end: Vec<u32>,
}

#[derive(Debug)]
struct EventRows {
    names: Interner,
    name: Vec<u32>,
    since_start_nano: Vec<i64>,
}

#[derive(Debug, Default)]
struct LinkRows {
    trace_id: Vec<[u8; 16]>,
    span_id: Vec<[u8; 8]>,
}

/// The spans of one scope of one push, and where they belong within the trace.
struct Part<'a> {
    /// Kinds of resource and scope, and the first part that has the same.
    resource: u32,
    scope: u32,
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
            trace_ids: Vec::new(),
            trace_spans: vec![0],
            trace_resources: vec![0],
            trace_start_nano: Vec::new(),
            trace_duration_nano: Vec::new(),
            root_service: Vec::new(),
            root_name: Vec::new(),
            service_names: Interner::with_empty(),
            resource_kinds: Messages::default(),
            resource_attributes: AttributesBuilder::default(),
            resource_services: Vec::new(),
            resources: Vec::new(),
            resource_scopes: vec![0],
            scope_kinds: Messages::default(),
            scope_attributes: AttributesBuilder::default(),
            scope_names: Interner::with_empty(),
            scope_versions: Interner::with_empty(),
            scope_name: Vec::new(),
            scope_version: Vec::new(),
            scopes: Vec::new(),
            scope_spans: vec![0],
            spans: SpanRows {
                resource: Vec::new(),
                scope: Vec::new(),
                id: Vec::new(),
                parent_id: Vec::new(),
                names: Interner::with_empty(),
                name: Vec::new(),
                kind: Vec::new(),
                status: Vec::new(),
                status_messages: Interner::with_empty(),
                status_message: Vec::new(),
                trace_states: Interner::with_empty(),
                trace_state: Vec::new(),
                start_nano: Vec::new(),
                duration_nano: Vec::new(),
                sets: Vec::new(),
                events_end: vec![0],
                links_end: vec![0],
            },
            span_attributes: AttributesBuilder::default(),
            events: EventRows {
                names: Interner::with_empty(),
                name: Vec::new(),
                since_start_nano: Vec::new(),
            },
            event_attributes: AttributesBuilder::default(),
            links: LinkRows::default(),
            link_attributes: AttributesBuilder::default(),
            nested_sets: NestedSets::default(),
            tree: Vec::new(),
        }
    }

    /// Traces taken so far.
    pub fn traces(&self) -> usize {
        self.trace_ids.len()
    }

    /// Spans taken so far.
    pub fn spans(&self) -> usize {
        self.spans.id.len()
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
        // Keeps every row number and every dictionary within 32 bits.
        if self.taken_bytes + more_bytes > u64::from(u32::MAX) / 2 {
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
                self.resources.push(part.resource);
                self.resource_scopes.push(self.scopes.len() as u32);
            }
            if scope_rank != Some(part.scope_rank) {
                scope_rank = Some(part.scope_rank);
                self.scopes.push(part.scope);
                self.scope_spans.push(self.spans() as u32);
                if let Some(end) = self.resource_scopes.last_mut() {
                    *end = self.scopes.len() as u32;
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
            let spans = self.spans() as u32;
            if let Some(end) = self.scope_spans.last_mut() {
                *end = spans;
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
                let resource = self.resources[self.spans.resource[row] as usize];
                (
                    self.resource_services[resource as usize],
                    self.spans.name[row],
                )
            }
            None => (0, 0),
        };
        self.root_service.push(root_service);
        self.root_name.push(root_name);
        self.trace_start_nano.push(extent.start_unix_nano() as i64);
        self.trace_duration_nano.push(extent.duration_nano() as i64);
        self.trace_resources.push(self.resources.len() as u32);
        self.trace_spans.push(self.spans() as u32);
        self.trace_ids.push(*id.as_bytes());
        Ok(())
    }

    /// The scopes of all chunks, those of the same resource and scope next to each other, in the
    /// order in which they first appear.
    fn parts<'a>(&mut self, chunks: &[&'a [u8]]) -> Result<Vec<Part<'a>>, WireError> {
        let mut parts = Vec::new();
        for (chunk, bytes) in (0..).zip(chunks) {
            for resource in resource_spans(bytes) {
                let resource = resource?;
                let kind = self.resource_kind(resource.resource()?)?;
                for scope_spans in resource.scope_spans() {
                    let scope_spans = scope_spans?;
                    let scope = self.scope_kind(&scope_spans)?;
                    let rank = parts.len() as u32;
                    parts.push(Part {
                        resource: kind,
                        scope,
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

    fn resource_kind(&mut self, message: &[u8]) -> Result<u32, WireError> {
        if let Some(kind) = self.resource_kinds.find(message) {
            return Ok(kind);
        }
        let kind = self.resource_services.len() as u32;
        let mut service = 0;
        self.resource_attributes.begin_row();
        for field in Fields::new(message) {
            let field = field?;
            if field.number == 1 {
                let attribute = KeyValueRef::parse(field.message()?)?;
                if attribute.key == b"service.name"
                    && service == 0
                    && let AnyValueRef::String(text) = attribute.value
                {
                    service = self.service_names.intern(text);
                }
                self.resource_attributes.push(kind, &attribute)?;
            }
        }
        self.resource_services.push(service);
        self.resource_kinds.insert(message);
        Ok(kind)
    }

    fn scope_kind(&mut self, scope_spans: &ScopeSpansRef<'_>) -> Result<u32, WireError> {
        let scope = scope_spans.scope()?;
        if let Some(kind) = self.scope_kinds.find(scope.raw) {
            return Ok(kind);
        }
        let kind = self.scope_name.len() as u32;
        self.scope_attributes.begin_row();
        for attribute in scope.attributes() {
            self.scope_attributes.push(kind, &attribute?)?;
        }
        self.scope_name.push(self.scope_names.intern(scope.name));
        self.scope_version
            .push(self.scope_versions.intern(scope.version));
        self.scope_kinds.insert(scope.raw);
        Ok(kind)
    }

    /// Appends a span in one scan over its bytes.
    fn push_span(
        &mut self,
        trace_id: TraceId,
        message: &[u8],
        extent: &mut TraceExtent,
    ) -> Result<(), WireError> {
        let row = self.spans() as u32;
        let first_event = self.events.name.len();
        let (mut id, mut parent, mut name): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
        let (mut trace_state, mut status_message): (&[u8], &[u8]) = (&[], &[]);
        let (mut start, mut end) = (0, 0);
        let (mut kind, mut status) = (0, 0);
        let mut child_of = false;
        self.span_attributes.begin_row();
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                9 => {
                    let attribute = KeyValueRef::parse(field.message()?)?;
                    self.span_attributes.push(row, &attribute)?;
                }
                2 => id = field.message()?,
                3 => trace_state = field.message()?,
                4 => parent = field.message()?,
                5 => name = field.message()?,
                6 => kind = i64::from(field.varint()? as i32),
                7 => start = field.fixed64()?,
                8 => end = field.fixed64()?,
                11 => self.push_event(field.message()?)?,
                13 => child_of |= self.push_link(trace_id, field.message()?)?,
                15 => {
                    for field in Fields::new(field.message()?) {
                        let field = field?;
                        match field.number {
                            2 => status_message = field.message()?,
                            3 => status = i64::from(field.varint()? as i32),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        for time in &mut self.events.since_start_nano[first_event..] {
            *time = time.wrapping_sub(start as i64);
        }

        let spans = &mut self.spans;
        let parent_key = (!parent.is_empty()).then(|| span_key(parent));
        spans.id.push(span_key(id).to_be_bytes());
        spans
            .parent_id
            .push(parent_key.unwrap_or_default().to_be_bytes());
        spans.name.push(spans.names.intern(name));
        spans.kind.push(kind);
        spans.status.push(status);
        if !status_message.is_empty() {
            let code = spans.status_messages.intern(status_message);
            spans.status_message.push((row, code));
        }
        if !trace_state.is_empty() {
            let code = spans.trace_states.intern(trace_state);
            spans.trace_state.push((row, code));
        }
        spans.start_nano.push(start as i64);
        spans.duration_nano.push(end.wrapping_sub(start) as i64);
        spans.resource.push(self.resources.len() as u32 - 1);
        spans.scope.push(self.scopes.len() as u32 - 1);
        spans.events_end.push(self.events.name.len() as u32);
        spans.links_end.push(self.links.trace_id.len() as u32);
        self.tree.push(TreeSpan {
            id: span_key(id),
            parent: parent_key,
            kind: kind as i32,
        });
        extent.add(start, end, parent.is_empty() && !child_of);
        Ok(())
    }

    fn push_event(&mut self, message: &[u8]) -> Result<(), WireError> {
        let row = self.events.name.len() as u32;
        let mut name: &[u8] = &[];
        let mut time = 0;
        self.event_attributes.begin_row();
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => time = field.fixed64()?,
                2 => name = field.message()?,
                3 => {
                    let attribute = KeyValueRef::parse(field.message()?)?;
                    self.event_attributes.push(row, &attribute)?;
                }
                _ => {}
            }
        }
        self.events.name.push(self.events.names.intern(name));
        // The span's start is subtracted when the whole span has been read.
        self.events.since_start_nano.push(time as i64);
        Ok(())
    }

    /// Returns whether the link stands for the parent.
    fn push_link(&mut self, trace_id: TraceId, message: &[u8]) -> Result<bool, WireError> {
        let row = self.links.trace_id.len() as u32;
        let mut linked = TraceId::default();
        let mut span = 0;
        let mut child_of = false;
        self.link_attributes.begin_row();
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => linked = TraceId::from_padded(field.message()?),
                2 => span = span_key(field.message()?),
                4 => {
                    let attribute = KeyValueRef::parse(field.message()?)?;
                    if let AnyValueRef::String(text) = attribute.value {
                        child_of |= is_child_of_link(attribute.key, text);
                    }
                    self.link_attributes.push(row, &attribute)?;
                }
                _ => {}
            }
        }
        self.links.trace_id.push(*linked.as_bytes());
        self.links.span_id.push(span.to_be_bytes());
        Ok(child_of && linked == trace_id)
    }

    /// Goes back to the end of the last whole trace.
    fn forget_unfinished_trace(&mut self) {
        let end = |ends: &[u32]| ends.last().copied().unwrap_or_default();
        let spans = end(&self.trace_spans);
        let resources = end(&self.trace_resources);
        self.resources.truncate(resources as usize);
        self.resource_scopes.truncate(resources as usize + 1);
        let scopes = end(&self.resource_scopes) as usize;
        self.scopes.truncate(scopes);
        self.scope_spans.truncate(scopes + 1);

        let kinds = self.resource_services.len() as u32;
        self.resource_attributes.truncate(kinds);
        self.scope_attributes.truncate(self.scope_name.len() as u32);
        self.span_attributes.truncate(spans);

        let rows = &mut self.spans;
        let len = spans as usize;
        rows.resource.truncate(len);
        rows.scope.truncate(len);
        rows.id.truncate(len);
        rows.parent_id.truncate(len);
        rows.name.truncate(len);
        rows.kind.truncate(len);
        rows.status.truncate(len);
        rows.start_nano.truncate(len);
        rows.duration_nano.truncate(len);
        rows.sets.truncate(len);
        rows.events_end.truncate(len + 1);
        rows.links_end.truncate(len + 1);
        for texts in [&mut rows.status_message, &mut rows.trace_state] {
            let keep = texts.partition_point(|&(row, _)| row < spans);
            texts.truncate(keep);
        }

        let events = end(&rows.events_end);
        self.events.name.truncate(events as usize);
        self.events.since_start_nano.truncate(events as usize);
        self.event_attributes.truncate(events);
        let links = end(&rows.links_end);
        self.links.trace_id.truncate(links as usize);
        self.links.span_id.truncate(links as usize);
        self.link_attributes.truncate(links);
    }

    /// The table of all that was pushed.
    pub fn finish(self) -> MemoryTable {
        let spans = self.spans;
        let span_count = spans.id.len();
        let names = Arc::new(spans.names.finish());
        let service_names = Arc::new(self.service_names.finish());
        let set = |pick: fn(&NestedSet) -> i32| -> Vec<i64> {
            spans.sets.iter().map(|set| i64::from(pick(set))).collect()
        };
        MemoryTable::from_parts(Parts {
            traces: Traces::new(
                self.trace_ids,
                &self.trace_start_nano,
                &self.trace_duration_nano,
                Texts::new(&self.root_service, service_names),
                Texts::new(&self.root_name, Arc::clone(&names)),
            ),
            resources: Resources {
                attributes: self
                    .resource_attributes
                    .finish(self.resource_services.len()),
                kinds: self.resources.into(),
            },
            scopes: Scopes {
                attributes: self.scope_attributes.finish(self.scope_name.len()),
                names: Texts::new(&self.scope_name, Arc::new(self.scope_names.finish())),
                versions: Texts::new(&self.scope_version, Arc::new(self.scope_versions.finish())),
                kinds: self.scopes.into(),
            },
            spans: Spans {
                ids: spans.id.as_flattened().into(),
                parent_ids: spans.parent_id.as_flattened().into(),
                names: Texts::new(&spans.name, names),
                kinds: PackedInts::new(&spans.kind),
                statuses: PackedInts::new(&spans.status),
                status_messages: Texts::sparse(
                    &spans.status_message,
                    span_count,
                    spans.status_messages.finish(),
                ),
                trace_states: Texts::sparse(
                    &spans.trace_state,
                    span_count,
                    spans.trace_states.finish(),
                ),
                starts_nano: PackedInts::new(&spans.start_nano),
                durations_nano: PackedInts::new(&spans.duration_nano),
                lefts: PackedInts::new(&set(|set| set.left)),
                rights: PackedInts::new(&set(|set| set.right)),
                parents: PackedInts::new(&set(|set| set.parent)),
                children: PackedInts::new(&set(|set| set.children)),
                attributes: self.span_attributes.finish(span_count),
            },
            events: Events {
                names: Texts::new(&self.events.name, Arc::new(self.events.names.finish())),
                since_start_nano: PackedInts::new(&self.events.since_start_nano),
                attributes: self.event_attributes.finish(self.events.name.len()),
                offsets: spans.events_end.into(),
            },
            links: Links {
                attributes: self.link_attributes.finish(self.links.trace_id.len()),
                trace_ids: self.links.trace_id.as_flattened().into(),
                span_ids: self.links.span_id.as_flattened().into(),
                offsets: spans.links_end.into(),
            },
            structure: crate::Structure {
                trace_spans: self.trace_spans.into(),
                trace_resources: self.trace_resources.into(),
                resource_scopes: self.resource_scopes.into(),
                scope_spans: self.scope_spans.into(),
                span_resource: spans.resource.into(),
                span_scope: spans.scope.into(),
            },
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

/// Whole messages, numbered in the order in which they were inserted.
#[derive(Debug, Default)]
struct Messages {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    index: HashTable<(u64, u32)>,
    hasher: RandomState,
    last: u32,
}

impl Messages {
    fn bytes(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let start = if number == 0 {
            0
        } else {
            self.ends[number - 1]
        };
        &self.bytes[start..self.ends[number]]
    }

    fn find(&mut self, message: &[u8]) -> Option<u32> {
        if (self.last as usize) < self.ends.len() && self.bytes(self.last) == message {
            return Some(self.last);
        }
        let hash = self.hasher.hash_one(message);
        let &(_, number) = self.index.find(hash, |&(other, number)| {
            other == hash && self.bytes(number) == message
        })?;
        self.last = number;
        Some(number)
    }

    fn insert(&mut self, message: &[u8]) {
        let number = self.ends.len() as u32;
        self.bytes.extend_from_slice(message);
        self.ends.push(self.bytes.len());
        let hash = self.hasher.hash_one(message);
        self.index
            .insert_unique(hash, (hash, number), |&(hash, _)| hash);
        self.last = number;
    }
}
