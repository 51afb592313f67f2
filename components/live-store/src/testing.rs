//! Traces for this crate's tests.

use bytes::Bytes;
use prost::Message as _;
use tempo_model::{TraceBatch, TraceChunk, TraceId};
use tempo_proto::{
    opentelemetry::proto::{
        common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
        resource::v1::Resource,
        trace::v1::{
            ResourceSpans, ScopeSpans, Span,
            span::{Event, Link},
        },
    },
    tempopb::Trace,
};

/// A trace of a chain of spans, each the parent of the next.
#[derive(Debug, Clone)]
pub(crate) struct TestTrace {
    id: TraceId,
    first_span: u32,
    spans: u32,
    service: String,
    start_unix_nanos: u64,
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

fn int(key: &str, value: i64) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::IntValue(value)),
        }),
        ..KeyValue::default()
    }
}

/// When spans of tests start unless told otherwise, in nanoseconds since the epoch.
pub(crate) const TEST_TIME: u64 = 1_700_000_000_000_000_000;

/// The bytes of the span id with number `n`.
pub(crate) fn span_id(n: u32) -> Vec<u8> {
    u64::from(n).to_be_bytes().to_vec()
}

impl TestTrace {
    pub(crate) fn new(n: u8) -> Self {
        Self {
            id: TraceId::from_padded(&[n]),
            first_span: 1,
            spans: 1,
            service: format!("service-{}", n % 3),
            start_unix_nanos: TEST_TIME,
        }
    }

    /// Spans `first_span..first_span + spans`; the first one is a root if it is number 1.
    pub(crate) fn spans(mut self, spans: u32) -> Self {
        self.spans = spans;
        self
    }

    pub(crate) fn first_span(mut self, first_span: u32) -> Self {
        self.first_span = first_span;
        self
    }

    pub(crate) fn start(mut self, unix_nanos: u64) -> Self {
        self.start_unix_nanos = unix_nanos;
        self
    }

    /// The serialized `Trace`.
    pub(crate) fn encode(&self) -> Bytes {
        let span = |n: u32| Span {
            trace_id: self.id.as_bytes().to_vec(),
            span_id: span_id(n),
            parent_span_id: if n == 1 { Vec::new() } else { span_id(n - 1) },
            name: format!("span-{n}"),
            kind: 1 + (n % 5) as i32,
            start_time_unix_nano: self.start_unix_nanos + u64::from(n),
            end_time_unix_nano: self.start_unix_nanos + u64::from(n) + 1_000_000,
            attributes: vec![
                text("color", ["red", "green"][n as usize % 2]),
                int("number", i64::from(n)),
            ],
            events: (0..n % 3)
                .map(|event| Event {
                    time_unix_nano: self.start_unix_nanos + u64::from(event),
                    name: format!("event-{event}"),
                    attributes: vec![int("event.number", i64::from(event))],
                    ..Event::default()
                })
                .collect(),
            links: (0..n % 2)
                .map(|_| Link {
                    trace_id: vec![7; 16],
                    span_id: vec![8; 8],
                    attributes: vec![text("link.kind", "test")],
                    ..Link::default()
                })
                .collect(),
            ..Span::default()
        };
        let trace = Trace {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource {
                    attributes: vec![text("service.name", &self.service)],
                    ..Resource::default()
                }),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: "test".to_owned(),
                        version: "1".to_owned(),
                        ..InstrumentationScope::default()
                    }),
                    spans: (self.first_span..self.first_span + self.spans)
                        .map(span)
                        .collect(),
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        trace.encode_to_vec().into()
    }

    pub(crate) fn chunk(&self) -> TraceChunk {
        TraceChunk {
            id: self.id,
            trace: self.encode(),
            spans: self.spans,
        }
    }

    /// A push of this trace alone.
    pub(crate) fn batch(&self) -> TraceBatch {
        batch([self.clone()])
    }
}

/// A push of several traces.
pub(crate) fn batch(traces: impl IntoIterator<Item = TestTrace>) -> TraceBatch {
    TraceBatch {
        traces: traces.into_iter().map(|trace| trace.chunk()).collect(),
        skip_metrics_generation: false,
    }
}

/// The span numbers of a serialized trace, sorted.
pub(crate) fn span_numbers(trace: &[u8]) -> Vec<u32> {
    let trace = Trace::decode(trace).expect("a trace");
    let scopes = trace
        .resource_spans
        .iter()
        .flat_map(|resource| &resource.scope_spans);
    let mut numbers: Vec<u32> = scopes
        .flat_map(|scope| &scope.spans)
        .map(|span| {
            let id: [u8; 8] = span.span_id.as_slice().try_into().expect("8 bytes");
            u64::from_be_bytes(id) as u32
        })
        .collect();
    numbers.sort_unstable();
    numbers
}
