//! Traces to write.

use super::*;

/// A serialized trace.
pub(super) fn trace(resource_spans: Vec<ResourceSpans>) -> Vec<u8> {
    Trace { resource_spans }.encode_to_vec()
}

/// Spans of a service.
pub(super) fn resource_spans(service: &str, spans: Vec<Span>) -> ResourceSpans {
    ResourceSpans {
        resource: Some(Resource {
            attributes: vec![text("service.name", service)],
            ..Default::default()
        }),
        scope_spans: vec![ScopeSpans {
            spans,
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

pub(super) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..Default::default()
    }
}

/// Lifelike traces with about this many spans.
pub(super) fn made(spans: usize) -> Traces {
    let mut maker = tempo_testkit::traces::TraceMaker::new(3);
    let mut traces = Traces::new();
    let mut count = 0;
    while count < spans {
        let made = maker.next_trace(1_700_000_000_000_000_000 + count as u64 * 20_000);
        count += made.spans;
        traces.insert(
            TraceId::from_bytes(made.id),
            vec![trace(made.resource_spans)],
        );
    }
    traces
}
