//! The columns of a stripe: what was read of the traces that the next page of every column holds.

use tempo_table::{AttributeScope, shape::NestedSet};

use super::{
    attributes::AttributeColumns,
    keys::{Keys, Route, Routes},
    lanes::{ByteLane, CodedLane},
    spare::SpareColumn,
};
use crate::{
    dedicated::DedicatedAttribute,
    schema::{BlockSchema, DedicatedType, LeafColumn, Version, WellKnown},
};

/// Levels of an entry of each kind when it is there.
pub(super) mod level {
    pub(in super::super) const RESOURCE: u8 = 1;
    pub(in super::super) const SCOPE: u8 = 2;
    pub(in super::super) const SPAN: u8 = 3;
    /// Events and links.
    pub(in super::super) const PART: u8 = 4;
}

/// One entry per trace, and per service of a trace.
#[derive(Debug, Default)]
pub(super) struct TraceColumns {
    /// 16 bytes each.
    pub(super) ids: Vec<u8>,
    pub(super) starts: Vec<u64>,
    pub(super) ends: Vec<u64>,
    pub(super) durations: Vec<u64>,
    pub(super) root_services: CodedLane,
    pub(super) root_names: CodedLane,
    /// Repetition level of each service entry.
    pub(super) stats_reps: Vec<u8>,
    pub(super) stats_services: CodedLane,
    pub(super) stats_spans: Vec<u32>,
    pub(super) stats_errors: Vec<u32>,
}

/// One entry per resource.
#[derive(Debug)]
pub(super) struct ResourceColumns {
    pub(super) reps: Vec<u8>,
    pub(super) services: CodedLane,
    pub(super) dropped_attributes: Vec<i32>,
    pub(super) keys: Keys,
    pub(super) attributes: AttributeColumns,
    pub(super) spare: Vec<SpareColumn>,
}

/// One entry per instrumentation scope.
#[derive(Debug)]
pub(super) struct ScopeColumns {
    pub(super) reps: Vec<u8>,
    pub(super) names: CodedLane,
    pub(super) versions: CodedLane,
    pub(super) dropped_attributes: Vec<i32>,
    pub(super) span_counts: Vec<i32>,
    pub(super) keys: Keys,
    pub(super) attributes: AttributeColumns,
}

/// One entry per span.
#[derive(Debug)]
pub(super) struct SpanColumns {
    pub(super) reps: Vec<u8>,
    pub(super) ids: ByteLane,
    pub(super) parent_ids: ByteLane,
    pub(super) nested: Vec<NestedSet>,
    pub(super) names: CodedLane,
    pub(super) kinds: Vec<i64>,
    pub(super) trace_states: ByteLane,
    pub(super) starts: Vec<u64>,
    pub(super) durations: Vec<u64>,
    pub(super) status_codes: Vec<i64>,
    pub(super) status_messages: ByteLane,
    pub(super) dropped_attributes: Vec<i32>,
    pub(super) dropped_events: Vec<i32>,
    pub(super) dropped_links: Vec<i32>,
    pub(super) keys: Keys,
    pub(super) attributes: AttributeColumns,
    pub(super) spare: Vec<SpareColumn>,
}

/// One entry per event, and one per span without events.
#[derive(Debug)]
pub(super) struct EventColumns {
    pub(super) reps: Vec<u8>,
    pub(super) defs: Vec<u8>,
    pub(super) times: Vec<u64>,
    pub(super) names: CodedLane,
    pub(super) dropped_attributes: Vec<i32>,
    pub(super) keys: Keys,
    pub(super) attributes: AttributeColumns,
    pub(super) spare: Vec<SpareColumn>,
}

/// One entry per link, and one per span without links.
#[derive(Debug)]
pub(super) struct LinkColumns {
    pub(super) reps: Vec<u8>,
    pub(super) defs: Vec<u8>,
    pub(super) trace_ids: ByteLane,
    pub(super) span_ids: ByteLane,
    pub(super) trace_states: ByteLane,
    pub(super) dropped_attributes: Vec<i32>,
    pub(super) keys: Keys,
    pub(super) attributes: AttributeColumns,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) traces: TraceColumns,
    pub(super) resources: ResourceColumns,
    pub(super) scopes: ScopeColumns,
    pub(super) spans: SpanColumns,
    pub(super) events: EventColumns,
    pub(super) links: LinkColumns,
}

/// How far the columns were filled when a trace began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    spans: usize,
    span_attributes: usize,
    events: usize,
    event_times: usize,
    event_attributes: usize,
    links: usize,
    link_ids: usize,
    link_attributes: usize,
}

/// The columns of their own of a scope, and the keys that go there.
fn spare_columns(
    schema: &BlockSchema,
    dedicated: &[DedicatedAttribute],
    scope: AttributeScope,
) -> (Vec<SpareColumn>, Routes) {
    let takes_arrays = schema.version() == Version::VParquet5;
    let mut columns = Vec::new();
    let mut routes = Routes::new();
    let well_known = WellKnown::ALL
        .into_iter()
        .filter(|column| column.scope() == scope)
        .map(|column| {
            let leaf = LeafColumn::WellKnown(column);
            (column.key().into(), leaf, column.is_int())
        });
    let dedicated = dedicated
        .iter()
        .filter(|column| column.leaf.scope == scope)
        .map(|column| {
            let is_int = column.leaf.value_type == DedicatedType::Int;
            (column.name.clone(), column.column(), is_int)
        });
    for (name, column, is_int) in well_known.chain(dedicated) {
        if let Some(leaf) = schema.position(column) {
            routes.push((name, Route::Dedicated(columns.len() as u16)));
            let blob = schema.leaves()[leaf].blob;
            columns.push(SpareColumn::new(leaf, is_int, takes_arrays, blob));
        }
    }
    (columns, routes)
}

impl Columns {
    pub(super) fn new(schema: &BlockSchema, dedicated: &[DedicatedAttribute]) -> Self {
        let spare = |scope| spare_columns(schema, dedicated, scope);
        let (resource_spare, mut resource_routes) = spare(AttributeScope::Resource);
        resource_routes.insert(0, ("service.name".into(), Route::ServiceName));
        let (span_spare, span_routes) = spare(AttributeScope::Span);
        let (event_spare, event_routes) = spare(AttributeScope::Event);
        Self {
            traces: TraceColumns::default(),
            resources: ResourceColumns {
                reps: Vec::new(),
                services: CodedLane::default(),
                dropped_attributes: Vec::new(),
                keys: Keys::new(resource_routes),
                attributes: AttributeColumns::new(level::RESOURCE),
                spare: resource_spare,
            },
            scopes: ScopeColumns {
                reps: Vec::new(),
                names: CodedLane::default(),
                versions: CodedLane::default(),
                dropped_attributes: Vec::new(),
                span_counts: Vec::new(),
                keys: Keys::new(Routes::new()),
                attributes: AttributeColumns::new(level::SCOPE),
            },
            spans: SpanColumns {
                reps: Vec::new(),
                ids: ByteLane::default(),
                parent_ids: ByteLane::default(),
                nested: Vec::new(),
                names: CodedLane::default(),
                kinds: Vec::new(),
                trace_states: ByteLane::default(),
                starts: Vec::new(),
                durations: Vec::new(),
                status_codes: Vec::new(),
                status_messages: ByteLane::default(),
                dropped_attributes: Vec::new(),
                dropped_events: Vec::new(),
                dropped_links: Vec::new(),
                keys: Keys::new(span_routes),
                attributes: AttributeColumns::new(level::SPAN),
                spare: span_spare,
            },
            events: EventColumns {
                reps: Vec::new(),
                defs: Vec::new(),
                times: Vec::new(),
                names: CodedLane::default(),
                dropped_attributes: Vec::new(),
                keys: Keys::new(event_routes),
                attributes: AttributeColumns::new(level::PART),
                spare: event_spare,
            },
            links: LinkColumns {
                reps: Vec::new(),
                defs: Vec::new(),
                trace_ids: ByteLane::default(),
                span_ids: ByteLane::default(),
                trace_states: ByteLane::default(),
                dropped_attributes: Vec::new(),
                keys: Keys::new(Routes::new()),
                attributes: AttributeColumns::new(level::PART),
            },
        }
    }

    /// Rows of the stripe.
    pub(super) fn rows(&self) -> usize {
        self.traces.starts.len()
    }

    /// Where the columns stand, before the spans of a trace are read.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            spans: self.spans.reps.len(),
            span_attributes: self.spans.attributes.entries(),
            events: self.events.reps.len(),
            event_times: self.events.times.len(),
            event_attributes: self.events.attributes.entries(),
            links: self.links.reps.len(),
            link_ids: self.links.trace_ids.len(),
            link_attributes: self.links.attributes.entries(),
        }
    }

    /// Undoes the spans that were read since. Looks at the whole stripe, for the sake of traces
    /// that turn out to be broken.
    pub(super) fn roll_back(&mut self, mark: Mark) {
        let spans = &mut self.spans;
        spans.reps.truncate(mark.spans);
        spans.ids.truncate(mark.spans);
        spans.parent_ids.truncate(mark.spans);
        spans.nested.truncate(mark.spans);
        spans.names.codes.truncate(mark.spans);
        spans.kinds.truncate(mark.spans);
        spans.trace_states.truncate(mark.spans);
        spans.starts.truncate(mark.spans);
        spans.durations.truncate(mark.spans);
        spans.status_codes.truncate(mark.spans);
        spans.status_messages.truncate(mark.spans);
        spans.dropped_attributes.truncate(mark.spans);
        spans.dropped_events.truncate(mark.spans);
        spans.dropped_links.truncate(mark.spans);
        spans.attributes.truncate(mark.span_attributes);
        for column in &mut spans.spare {
            column.truncate(mark.spans);
        }
        let events = &mut self.events;
        events.reps.truncate(mark.events);
        events.defs.truncate(mark.events);
        events.times.truncate(mark.event_times);
        events.names.codes.truncate(mark.event_times);
        events.dropped_attributes.truncate(mark.event_times);
        events.attributes.truncate(mark.event_attributes);
        for column in &mut events.spare {
            column.truncate(mark.events);
        }
        let links = &mut self.links;
        links.reps.truncate(mark.links);
        links.defs.truncate(mark.links);
        links.trace_ids.truncate(mark.link_ids);
        links.span_ids.truncate(mark.link_ids);
        links.trace_states.truncate(mark.link_ids);
        links.dropped_attributes.truncate(mark.link_ids);
        links.attributes.truncate(mark.link_attributes);
    }

    /// Begins the next stripe; dictionaries live on.
    pub(super) fn clear_stripe(&mut self) {
        let traces = &mut self.traces;
        traces.ids.clear();
        for lane in [
            &mut traces.starts,
            &mut traces.ends,
            &mut traces.durations,
            &mut self.spans.starts,
            &mut self.spans.durations,
            &mut self.events.times,
        ] {
            lane.clear();
        }
        for lane in [
            &mut traces.root_services.codes,
            &mut traces.root_names.codes,
            &mut traces.stats_services.codes,
            &mut traces.stats_spans,
            &mut traces.stats_errors,
            &mut self.resources.services.codes,
            &mut self.scopes.names.codes,
            &mut self.scopes.versions.codes,
            &mut self.spans.names.codes,
            &mut self.events.names.codes,
        ] {
            lane.clear();
        }
        for lane in [
            &mut traces.stats_reps,
            &mut self.resources.reps,
            &mut self.scopes.reps,
            &mut self.spans.reps,
            &mut self.events.reps,
            &mut self.events.defs,
            &mut self.links.reps,
            &mut self.links.defs,
        ] {
            lane.clear();
        }
        for lane in [
            &mut self.resources.dropped_attributes,
            &mut self.scopes.dropped_attributes,
            &mut self.scopes.span_counts,
            &mut self.spans.dropped_attributes,
            &mut self.spans.dropped_events,
            &mut self.spans.dropped_links,
            &mut self.events.dropped_attributes,
            &mut self.links.dropped_attributes,
        ] {
            lane.clear();
        }
        for lane in [
            &mut self.spans.ids,
            &mut self.spans.parent_ids,
            &mut self.spans.trace_states,
            &mut self.spans.status_messages,
            &mut self.links.trace_ids,
            &mut self.links.span_ids,
            &mut self.links.trace_states,
        ] {
            lane.clear();
        }
        self.spans.nested.clear();
        self.spans.kinds.clear();
        self.spans.status_codes.clear();
        for attributes in [
            &mut self.resources.attributes,
            &mut self.scopes.attributes,
            &mut self.spans.attributes,
            &mut self.events.attributes,
            &mut self.links.attributes,
        ] {
            attributes.clear_stripe();
        }
        for column in &mut self.resources.spare {
            column.clear_stripe();
        }
        for column in self.spans.spare.iter_mut().chain(&mut self.events.spare) {
            column.clear_stripe();
            // Texts without a dictionary page are only kept until their data page is made. Those
            // of resources stay, since templates refer to them.
            if column.blob {
                column.dict.clear();
            }
        }
    }

    /// Begins the next row group.
    pub(super) fn clear_dictionaries(&mut self) {
        for lane in [
            &mut self.traces.root_services,
            &mut self.traces.root_names,
            &mut self.traces.stats_services,
            &mut self.resources.services,
            &mut self.scopes.names,
            &mut self.scopes.versions,
            &mut self.spans.names,
            &mut self.events.names,
        ] {
            lane.dict.clear();
        }
        for (keys, attributes) in [
            (&mut self.resources.keys, &mut self.resources.attributes),
            (&mut self.scopes.keys, &mut self.scopes.attributes),
            (&mut self.spans.keys, &mut self.spans.attributes),
            (&mut self.events.keys, &mut self.events.attributes),
            (&mut self.links.keys, &mut self.links.attributes),
        ] {
            keys.clear();
            attributes.values.clear();
        }
        for column in self
            .resources
            .spare
            .iter_mut()
            .chain(&mut self.spans.spare)
            .chain(&mut self.events.spare)
        {
            column.dict.clear();
        }
    }

    /// Bytes that the largest page will have before compression, roughly.
    pub(super) fn largest_page_bytes(&self) -> usize {
        let spans = &self.spans;
        let texts = [
            &spans.status_messages,
            &spans.trace_states,
            &spans.ids,
            &self.links.trace_states,
        ];
        let attributes = [
            &self.resources.attributes,
            &spans.attributes,
            &self.events.attributes,
            &self.links.attributes,
        ];
        let texts = texts.into_iter().map(|lane| lane.bytes.len());
        let attributes = attributes
            .into_iter()
            .map(AttributeColumns::largest_page_bytes);
        let spare = spans.spare.iter().chain(&self.events.spare);
        let spare = spare.map(SpareColumn::page_bytes);
        texts.chain(attributes).chain(spare).max().unwrap_or(0)
    }

    /// Bytes of all dictionaries, as their pages hold them before compression.
    pub(super) fn dictionary_bytes(&self) -> u64 {
        let lanes = [
            &self.traces.root_names,
            &self.resources.services,
            &self.spans.names,
            &self.events.names,
        ];
        let attributes = [
            &self.resources.attributes,
            &self.scopes.attributes,
            &self.spans.attributes,
            &self.events.attributes,
            &self.links.attributes,
        ];
        let spare = [&self.resources.spare, &self.spans.spare, &self.events.spare];
        let lanes = lanes.into_iter().map(|lane| &lane.dict);
        let attributes = attributes.into_iter().map(|attributes| &attributes.values);
        let spare = spare.into_iter().flatten().map(|column| &column.dict);
        lanes
            .chain(attributes)
            .chain(spare)
            .map(|dict| dict.plain().len() as u64)
            .sum()
    }

    /// Heap bytes of lanes and dictionaries.
    pub(super) fn heap_bytes(&self) -> u64 {
        let traces = &self.traces;
        let coded: u64 = [
            &traces.root_services,
            &traces.root_names,
            &traces.stats_services,
            &self.resources.services,
            &self.scopes.names,
            &self.scopes.versions,
            &self.spans.names,
            &self.events.names,
        ]
        .into_iter()
        .map(CodedLane::heap_bytes)
        .sum();
        let texts: u64 = [
            &self.spans.ids,
            &self.spans.parent_ids,
            &self.spans.trace_states,
            &self.spans.status_messages,
            &self.links.trace_ids,
            &self.links.span_ids,
            &self.links.trace_states,
        ]
        .into_iter()
        .map(ByteLane::heap_bytes)
        .sum();
        let attributes: u64 = [
            &self.resources.attributes,
            &self.scopes.attributes,
            &self.spans.attributes,
            &self.events.attributes,
            &self.links.attributes,
        ]
        .into_iter()
        .map(AttributeColumns::heap_bytes)
        .sum();
        let keys: u64 = [
            &self.resources.keys,
            &self.scopes.keys,
            &self.spans.keys,
            &self.events.keys,
            &self.links.keys,
        ]
        .into_iter()
        .map(Keys::heap_bytes)
        .sum();
        let spare: u64 = self
            .resources
            .spare
            .iter()
            .chain(&self.spans.spare)
            .chain(&self.events.spare)
            .map(SpareColumn::heap_bytes)
            .sum();
        // Fixed-size lanes: bytes per trace and per span.
        let fixed = traces.starts.capacity() * 48
            + self.spans.starts.capacity() * (8 * 4 + 16 + 12 + 1)
            + self.events.times.capacity() * 14;
        coded + texts + attributes + keys + spare + fixed as u64
    }
}
