//! Decoded traces, and the values of their spans.

use tempo_proto::{
    opentelemetry::proto::{
        common::v1::{InstrumentationScope, KeyValue},
        trace::v1::Span,
    },
    tempopb::Trace,
};
use tempo_traceql::{
    Attribute, Intrinsic, Scope,
    ast::{Kind, Status},
};

use super::Value;

/// A span with what it belongs to, as it came over the wire.
#[derive(Debug, Clone)]
struct SpanData {
    span: Span,
    scope: InstrumentationScope,
    resource: Vec<KeyValue>,
}

/// One trace: its spans as they are stored, grouped by resource and scope.
#[derive(Debug, Clone)]
pub struct TraceData {
    id: Vec<u8>,
    spans: Vec<SpanData>,
    /// By span: the place of the parent in the list, if there is one.
    parents: Vec<Option<usize>>,
    /// By span: nested-set numbers; zeros where no root leads.
    numbers: Vec<Numbers>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Numbers {
    left: i64,
    right: i64,
    parent: i64,
}

/// Which spans of a trace: places in the list, ascending.
pub type Spans = Vec<usize>;

impl TraceData {
    /// Decodes a trace whose span ids are all different.
    pub fn new(id: &[u8], trace: &Trace) -> Self {
        // Stored together: spans of equal resources, and of equal scopes in them.
        let mut stored: Vec<(Vec<KeyValue>, InstrumentationScope, Vec<Span>)> = Vec::new();
        for batch in &trace.resource_spans {
            let resource = batch.resource.clone().unwrap_or_default().attributes;
            for scope_spans in &batch.scope_spans {
                let scope = scope_spans.scope.clone().unwrap_or_default();
                let spans = scope_spans.spans.clone();
                let known = stored
                    .iter_mut()
                    .find(|(known, of, _)| *known == resource && *of == scope);
                match known {
                    Some((_, _, known)) => known.extend(spans),
                    None => {
                        let after = stored.iter().rposition(|(known, ..)| *known == resource);
                        let at = after.map_or(stored.len(), |last| last + 1);
                        stored.insert(at, (resource.clone(), scope, spans));
                    }
                }
            }
        }
        let spans: Vec<SpanData> = stored
            .into_iter()
            .flat_map(|(resource, scope, spans)| {
                spans.into_iter().map(move |span| SpanData {
                    span,
                    scope: scope.clone(),
                    resource: resource.clone(),
                })
            })
            .collect();
        let parent_of = |child: &SpanData| {
            let wanted = &child.span.parent_span_id;
            if wanted.is_empty() {
                return None;
            }
            spans.iter().position(|other| other.span.span_id == *wanted)
        };
        let parents: Vec<_> = spans.iter().map(parent_of).collect();
        let mut data = Self {
            id: id.to_vec(),
            numbers: vec![Numbers::default(); spans.len()],
            spans,
            parents,
        };
        let mut next = 1;
        for root in 0..data.spans.len() {
            if data.is_root(root) {
                data.walk(root, -1, &mut next);
            }
        }
        data
    }

    fn walk(&mut self, span: usize, parent: i64, next: &mut i64) {
        let left = *next;
        *next += 1;
        for child in 0..self.spans.len() {
            if self.parents[child] == Some(span) {
                self.walk(child, left, next);
            }
        }
        self.numbers[span] = Numbers {
            left,
            right: *next,
            parent,
        };
        *next += 1;
    }

    /// All spans.
    pub fn all(&self) -> Spans {
        (0..self.spans.len()).collect()
    }

    /// The trace id.
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    /// Id of a span.
    pub fn span_id(&self, span: usize) -> &[u8] {
        &self.spans[span].span.span_id
    }

    pub(super) fn start(&self, span: usize) -> u64 {
        self.spans[span].span.start_time_unix_nano
    }

    fn is_root(&self, span: usize) -> bool {
        self.spans[span].span.parent_span_id.is_empty()
    }

    /// Whether a root leads to the span.
    pub(super) fn is_connected(&self, span: usize) -> bool {
        let mut at = span;
        for _ in 0..=self.spans.len() {
            if self.is_root(at) {
                return true;
            }
            match self.parents[at] {
                Some(parent) => at = parent,
                None => return false,
            }
        }
        false
    }

    /// Whether `child` is a child of `parent`.
    pub(super) fn is_child(&self, child: usize, parent: usize) -> bool {
        self.is_connected(child) && self.parents[child] == Some(parent)
    }

    /// Whether `lower` is below `upper`.
    pub(super) fn is_descendant(&self, lower: usize, upper: usize) -> bool {
        let mut at = lower;
        while self.is_connected(lower)
            && let Some(parent) = self.parents[at]
        {
            if parent == upper {
                return true;
            }
            at = parent;
        }
        false
    }

    /// Whether two different spans have the same parent. Roots are siblings.
    pub(super) fn are_siblings(&self, one: usize, other: usize) -> bool {
        one != other
            && self.is_connected(one)
            && self.is_connected(other)
            && self.parents[one] == self.parents[other]
    }

    /// The last root.
    fn root(&self) -> Option<usize> {
        (0..self.spans.len()).rev().find(|&span| self.is_root(span))
    }

    fn duration(&self) -> i64 {
        let spans = || self.spans.iter().map(|data| &data.span);
        let start = spans().map(|span| span.start_time_unix_nano).min();
        let end = spans().map(|span| span.end_time_unix_nano).max();
        end.unwrap_or(0).saturating_sub(start.unwrap_or(0)) as i64
    }

    /// The values of an attribute: one per event or link, the span's and the resource's of one
    /// without scope, one of all others.
    pub(super) fn values(&self, span: usize, attribute: &Attribute) -> Vec<Value> {
        let data = &self.spans[span];
        match attribute {
            Attribute::Intrinsic(intrinsic) => self.intrinsic(span, *intrinsic),
            Attribute::Named { scope, name, .. } => {
                let of = |list: &[KeyValue]| named(list, name);
                match scope {
                    None => vec![of(&data.span.attributes), self.of_resource(span, name)],
                    Some(Scope::Span) => vec![of(&data.span.attributes)],
                    Some(Scope::Resource) => vec![self.of_resource(span, name)],
                    Some(Scope::Instrumentation) => vec![of(&data.scope.attributes)],
                    Some(Scope::Event) => {
                        let events = data.span.events.iter();
                        events.map(|event| of(&event.attributes)).collect()
                    }
                    Some(Scope::Link) => {
                        let links = data.span.links.iter();
                        links.map(|link| of(&link.attributes)).collect()
                    }
                }
            }
        }
    }

    /// A resource without a service name has an empty one: blocks cannot tell the two apart.
    fn of_resource(&self, span: usize, name: &str) -> Value {
        match named(&self.spans[span].resource, name) {
            Value::Nil if name == "service.name" => Value::Text(String::new()),
            value => value,
        }
    }

    fn intrinsic(&self, span: usize, intrinsic: Intrinsic) -> Vec<Value> {
        let data = &self.spans[span];
        let numbers = self.numbers[span];
        let of_root =
            |value: &dyn Fn(usize) -> Value| self.root().map_or(Value::Text(String::new()), value);
        let text = |text: &str| Value::Text(text.to_owned());
        let one = match intrinsic {
            Intrinsic::Duration => {
                let end = data.span.end_time_unix_nano;
                Value::Duration(end.saturating_sub(data.span.start_time_unix_nano) as i64)
            }
            Intrinsic::Name => text(&data.span.name),
            Intrinsic::Status => Value::Status(match status(data).0 {
                1 => Status::Ok,
                2 => Status::Error,
                _ => Status::Unset,
            }),
            Intrinsic::StatusMessage => text(&status(data).1),
            Intrinsic::Kind => Value::Kind(match data.span.kind {
                1 => Kind::Internal,
                2 => Kind::Server,
                3 => Kind::Client,
                4 => Kind::Producer,
                5 => Kind::Consumer,
                _ => Kind::Unspecified,
            }),
            Intrinsic::SpanId => Value::Text(full_hex(&data.span.span_id)),
            Intrinsic::ParentId => Value::Text(full_hex(&data.span.parent_span_id)),
            Intrinsic::ChildCount => {
                let children = self.parents.iter().filter(|&&parent| parent == Some(span));
                Value::Int(children.count() as i64)
            }
            Intrinsic::NestedSetLeft => Value::Int(numbers.left),
            Intrinsic::NestedSetRight => Value::Int(numbers.right),
            Intrinsic::NestedSetParent => Value::Int(numbers.parent),
            Intrinsic::TraceDuration => Value::Duration(self.duration()),
            Intrinsic::TraceRootName => of_root(&|root| text(&self.spans[root].span.name)),
            Intrinsic::TraceRootService => of_root(&|root| self.of_resource(root, "service.name")),
            Intrinsic::TraceId => {
                let hex: String = self.id.iter().map(|byte| format!("{byte:02x}")).collect();
                text(hex.trim_start_matches('0'))
            }
            Intrinsic::EventName => {
                let events = data.span.events.iter();
                return events.map(|event| text(&event.name)).collect();
            }
            Intrinsic::EventTimeSinceStart => {
                let events = data.span.events.iter();
                let start = data.span.start_time_unix_nano;
                return events
                    .map(|event| Value::Duration(event.time_unix_nano.wrapping_sub(start) as i64))
                    .collect();
            }
            Intrinsic::LinkTraceId | Intrinsic::LinkSpanId => {
                panic!("the grammar has no ids of links")
            }
            Intrinsic::InstrumentationName => text(&data.scope.name),
            Intrinsic::InstrumentationVersion => text(&data.scope.version),
            Intrinsic::Parent => panic!("`parent` never validates"),
        };
        vec![one]
    }
}

fn status(data: &SpanData) -> (i32, String) {
    let status = data.span.status.clone().unwrap_or_default();
    (status.code, status.message)
}

fn named(attributes: &[KeyValue], name: &str) -> Value {
    attributes
        .iter()
        .find(|attribute| attribute.key == name)
        .map_or(Value::Nil, |attribute| {
            Value::of_wire(attribute.value.as_ref())
        })
}

/// Sixteen digits.
fn full_hex(id: &[u8]) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex:0>16}")
}
