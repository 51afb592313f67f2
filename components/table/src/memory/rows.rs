//! The rows of each level while a table is built. All of them can go back to an earlier length,
//! and hand over their columns without giving up their memory.

use std::sync::Arc;

use tempo_model::{
    TraceId,
    otlp::{AnyValueRef, Fields, KeyValueRef, ScopeRef, WireError},
};

use super::{
    attributes::AttributesBuilder,
    intern::Interner,
    messages::Messages,
    packed::PackedInts,
    table::{Events, Links, Resources, Scopes, Spans, Texts, Traces},
};
use crate::{
    SERVICE_NAME, StringDict,
    shape::{NestedSet, is_child_of_link, span_key},
};

#[derive(Debug, Default)]
pub(super) struct TraceRows {
    pub(super) id: Vec<[u8; 16]>,
    pub(super) start_nano: Vec<i64>,
    pub(super) duration_nano: Vec<i64>,
    /// Code of [`ResourceRows::service_names`].
    pub(super) root_service: Vec<u32>,
    /// Code of [`SpanRows::names`].
    pub(super) root_name: Vec<u32>,
}

impl TraceRows {
    pub(super) fn finish(
        &mut self,
        service_names: Arc<StringDict>,
        span_names: Arc<StringDict>,
    ) -> Traces {
        let traces = Traces::new(
            &self.id,
            &self.start_nano,
            &self.duration_nano,
            Texts::new(&self.root_service, service_names),
            Texts::new(&self.root_name, span_names),
        );
        self.id.clear();
        self.start_nano.clear();
        self.duration_nano.clear();
        self.root_service.clear();
        self.root_name.clear();
        traces
    }
}

/// Resources repeat from trace to trace: attributes are read once per distinct message.
#[derive(Debug)]
pub(super) struct ResourceRows {
    messages: Messages,
    attributes: AttributesBuilder,
    pub(super) service_names: Interner,
    /// Code of `service_names` per distinct message.
    service: Vec<u32>,
    /// Distinct message per row.
    pub(super) kind: Vec<u32>,
}

impl ResourceRows {
    pub(super) fn new() -> Self {
        Self {
            messages: Messages::default(),
            attributes: AttributesBuilder::default(),
            service_names: Interner::with_empty(),
            service: Vec::new(),
            kind: Vec::new(),
        }
    }

    /// Which distinct message this is.
    pub(super) fn kind_of(&mut self, message: &[u8]) -> Result<u32, WireError> {
        if let Some(kind) = self.messages.find(message) {
            return Ok(kind);
        }
        let kind = self.service.len() as u32;
        let mut service = None;
        let mut is_named = false;
        self.attributes.begin_row();
        for field in Fields::new(message) {
            let field = field?;
            if field.number == 1 {
                let attribute = KeyValueRef::parse(field.message()?)?;
                if attribute.key == SERVICE_NAME.as_bytes() {
                    is_named = true;
                    if service.is_none()
                        && let AnyValueRef::String(text) = attribute.value
                    {
                        service = Some(self.service_names.intern(text));
                    }
                }
                self.attributes.push(kind, &attribute)?;
            }
        }
        if !is_named {
            let nameless = KeyValueRef {
                key: SERVICE_NAME.as_bytes(),
                value: AnyValueRef::String(b""),
            };
            self.attributes.push(kind, &nameless)?;
        }
        self.service.push(service.unwrap_or(0));
        self.messages.insert(message);
        Ok(kind)
    }

    /// Code of the service name of a row.
    pub(super) fn service_of(&self, row: u32) -> u32 {
        self.service[self.kind[row as usize] as usize]
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.kind.truncate(rows);
        self.attributes.truncate(self.service.len() as u32);
    }

    pub(super) fn finish(&mut self) -> (Resources, Arc<StringDict>) {
        let resources = Resources {
            attributes: self.attributes.finish(self.service.len()),
            kinds: self.kind[..].into(),
        };
        self.messages.clear();
        self.service.clear();
        self.kind.clear();
        (resources, Arc::new(self.service_names.finish()))
    }
}

/// Scopes are read once per distinct message, as resources are.
#[derive(Debug)]
pub(super) struct ScopeRows {
    messages: Messages,
    attributes: AttributesBuilder,
    names: Interner,
    versions: Interner,
    /// Per distinct message.
    name: Vec<u32>,
    version: Vec<u32>,
    /// Distinct message per row.
    pub(super) kind: Vec<u32>,
}

impl ScopeRows {
    pub(super) fn new() -> Self {
        Self {
            messages: Messages::default(),
            attributes: AttributesBuilder::default(),
            names: Interner::with_empty(),
            versions: Interner::with_empty(),
            name: Vec::new(),
            version: Vec::new(),
            kind: Vec::new(),
        }
    }

    /// Which distinct message this is.
    pub(super) fn kind_of(&mut self, scope: &ScopeRef<'_>) -> Result<u32, WireError> {
        if let Some(kind) = self.messages.find(scope.raw) {
            return Ok(kind);
        }
        let kind = self.name.len() as u32;
        self.attributes.begin_row();
        for attribute in scope.attributes() {
            self.attributes.push(kind, &attribute?)?;
        }
        self.name.push(self.names.intern(scope.name));
        self.version.push(self.versions.intern(scope.version));
        self.messages.insert(scope.raw);
        Ok(kind)
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.kind.truncate(rows);
        self.attributes.truncate(self.name.len() as u32);
    }

    pub(super) fn finish(&mut self) -> Scopes {
        let scopes = Scopes {
            attributes: self.attributes.finish(self.name.len()),
            names: Texts::new(&self.name, Arc::new(self.names.finish())),
            versions: Texts::new(&self.version, Arc::new(self.versions.finish())),
            kinds: self.kind[..].into(),
        };
        self.messages.clear();
        self.name.clear();
        self.version.clear();
        self.kind.clear();
        scopes
    }
}

#[derive(Debug)]
pub(super) struct SpanRows {
    pub(super) resource: Vec<u32>,
    pub(super) scope: Vec<u32>,
    pub(super) id: Vec<[u8; 8]>,
    pub(super) parent_id: Vec<[u8; 8]>,
    pub(super) names: Interner,
    pub(super) name: Vec<u32>,
    pub(super) kind: Vec<i64>,
    pub(super) status: Vec<i64>,
    pub(super) status_message: RareTexts,
    pub(super) trace_state: RareTexts,
    pub(super) start_nano: Vec<i64>,
    pub(super) duration_nano: Vec<i64>,
    pub(super) sets: Vec<NestedSet>,
    pub(super) attributes: AttributesBuilder,
}

impl SpanRows {
    pub(super) fn new() -> Self {
        Self {
            resource: Vec::new(),
            scope: Vec::new(),
            id: Vec::new(),
            parent_id: Vec::new(),
            names: Interner::with_empty(),
            name: Vec::new(),
            kind: Vec::new(),
            status: Vec::new(),
            status_message: RareTexts::new(),
            trace_state: RareTexts::new(),
            start_nano: Vec::new(),
            duration_nano: Vec::new(),
            sets: Vec::new(),
            attributes: AttributesBuilder::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.id.len()
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.resource.truncate(rows);
        self.scope.truncate(rows);
        self.id.truncate(rows);
        self.parent_id.truncate(rows);
        self.name.truncate(rows);
        self.kind.truncate(rows);
        self.status.truncate(rows);
        self.status_message.truncate(rows as u32);
        self.trace_state.truncate(rows as u32);
        self.start_nano.truncate(rows);
        self.duration_nano.truncate(rows);
        self.sets.truncate(rows);
        self.attributes.truncate(rows as u32);
    }

    pub(super) fn finish(&mut self) -> (Spans, Arc<StringDict>) {
        let len = self.len();
        let mut scratch = Vec::with_capacity(len);
        let mut set = |pick: fn(&NestedSet) -> i32| {
            scratch.clear();
            scratch.extend(self.sets.iter().map(|set| i64::from(pick(set))));
            PackedInts::new(&scratch)
        };
        let names = Arc::new(self.names.finish());
        let spans = Spans {
            ids: self.id.as_flattened().into(),
            parent_ids: self.parent_id.as_flattened().into(),
            names: Texts::new(&self.name, Arc::clone(&names)),
            kinds: PackedInts::new(&self.kind),
            statuses: PackedInts::new(&self.status),
            status_messages: self.status_message.finish(len),
            trace_states: self.trace_state.finish(len),
            starts_nano: PackedInts::new(&self.start_nano),
            durations_nano: PackedInts::new(&self.duration_nano),
            lefts: set(|set| set.left),
            rights: set(|set| set.right),
            parents: set(|set| set.parent),
            children: set(|set| set.children),
            attributes: self.attributes.finish(len),
        };
        self.truncate(0);
        (spans, names)
    }
}

/// A text that few rows set; empty in the others.
#[derive(Debug)]
pub(super) struct RareTexts {
    texts: Interner,
    /// Rows and codes.
    filled: Vec<(u32, u32)>,
}

impl RareTexts {
    fn new() -> Self {
        Self {
            texts: Interner::with_empty(),
            filled: Vec::new(),
        }
    }

    #[inline]
    pub(super) fn push(&mut self, row: u32, text: &[u8]) {
        if !text.is_empty() {
            self.filled.push((row, self.texts.intern(text)));
        }
    }

    fn truncate(&mut self, rows: u32) {
        let keep = self.filled.partition_point(|&(row, _)| row < rows);
        self.filled.truncate(keep);
    }

    fn finish(&mut self, len: usize) -> Texts {
        let texts = Texts::sparse(&self.filled, len, self.texts.finish());
        self.filled.clear();
        texts
    }
}

#[derive(Debug)]
pub(super) struct EventRows {
    names: Interner,
    name: Vec<u32>,
    /// Absolute until the whole span is read and [`Self::end_span`] subtracts its start.
    since_start_nano: Vec<i64>,
    attributes: AttributesBuilder,
    /// One more than spans.
    offsets: Vec<u32>,
}

impl EventRows {
    pub(super) fn new() -> Self {
        Self {
            names: Interner::with_empty(),
            name: Vec::new(),
            since_start_nano: Vec::new(),
            attributes: AttributesBuilder::default(),
            offsets: vec![0],
        }
    }

    /// Appends an event of the span that is being read.
    pub(super) fn push(&mut self, message: &[u8]) -> Result<(), WireError> {
        let row = self.name.len() as u32;
        let mut name: &[u8] = &[];
        let mut time = 0;
        self.attributes.begin_row();
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => time = field.fixed64()?,
                2 => name = field.message()?,
                3 => self.attributes.push_message(row, field.message()?)?,
                _ => {}
            }
        }
        self.name.push(self.names.intern(name));
        self.since_start_nano.push(time as i64);
        Ok(())
    }

    #[inline]
    pub(super) fn end_span(&mut self, span_start_nano: u64) {
        let first = self.offsets.last().map_or(0, |&first| first as usize);
        for time in &mut self.since_start_nano[first..] {
            *time = time.wrapping_sub(span_start_nano as i64);
        }
        self.offsets.push(self.name.len() as u32);
    }

    pub(super) fn truncate(&mut self, spans: usize) {
        self.offsets.truncate(spans + 1);
        let rows = self.offsets.last().copied().unwrap_or_default();
        self.name.truncate(rows as usize);
        self.since_start_nano.truncate(rows as usize);
        self.attributes.truncate(rows);
    }

    pub(super) fn finish(&mut self) -> Events {
        let events = Events {
            names: Texts::new(&self.name, Arc::new(self.names.finish())),
            since_start_nano: PackedInts::new(&self.since_start_nano),
            attributes: self.attributes.finish(self.name.len()),
            offsets: self.offsets[..].into(),
        };
        self.truncate(0);
        events
    }
}

#[derive(Debug)]
pub(super) struct LinkRows {
    trace_id: Vec<[u8; 16]>,
    span_id: Vec<[u8; 8]>,
    attributes: AttributesBuilder,
    /// One more than spans.
    offsets: Vec<u32>,
}

impl LinkRows {
    pub(super) fn new() -> Self {
        Self {
            trace_id: Vec::new(),
            span_id: Vec::new(),
            attributes: AttributesBuilder::default(),
            offsets: vec![0],
        }
    }

    /// Appends a link of the span that is being read. Returns whether it stands for the parent.
    pub(super) fn push(&mut self, trace_id: TraceId, message: &[u8]) -> Result<bool, WireError> {
        let row = self.trace_id.len() as u32;
        let mut linked = TraceId::default();
        let mut span = 0;
        let mut child_of = false;
        self.attributes.begin_row();
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
                    self.attributes.push(row, &attribute)?;
                }
                _ => {}
            }
        }
        self.trace_id.push(*linked.as_bytes());
        self.span_id.push(span.to_be_bytes());
        Ok(child_of && linked == trace_id)
    }

    #[inline]
    pub(super) fn end_span(&mut self) {
        self.offsets.push(self.trace_id.len() as u32);
    }

    pub(super) fn truncate(&mut self, spans: usize) {
        self.offsets.truncate(spans + 1);
        let rows = self.offsets.last().copied().unwrap_or_default();
        self.trace_id.truncate(rows as usize);
        self.span_id.truncate(rows as usize);
        self.attributes.truncate(rows);
    }

    pub(super) fn finish(&mut self) -> Links {
        let links = Links {
            attributes: self.attributes.finish(self.trace_id.len()),
            trace_ids: self.trace_id.as_flattened().into(),
            span_ids: self.span_id.as_flattened().into(),
            offsets: self.offsets[..].into(),
        };
        self.truncate(0);
        links
    }
}
