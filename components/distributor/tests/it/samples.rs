//! Requests to test with, and what regrouping them is to give.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use prost::Message;
use tempo_model::TraceId;
use tempo_proto::{
    opentelemetry::proto::{
        collector::trace::v1::ExportTraceServiceRequest,
        common::v1::{
            AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
        },
        resource::v1::Resource,
        trace::v1::{
            ResourceSpans, ScopeSpans, Span, Status,
            span::{Event, Link},
        },
    },
    tempopb::Trace,
};

pub(crate) type Request = ExportTraceServiceRequest;

pub(crate) fn key_value(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    key_value(key, Value::StringValue(value.to_owned()))
}

/// A span of trace `trace` (0 is not valid) whose id is `number` (0 is not valid either).
pub(crate) fn span(trace: u128, number: u64) -> Span {
    Span {
        trace_id: trace.to_be_bytes().to_vec(),
        span_id: number.to_be_bytes().to_vec(),
        name: format!("span {number}"),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_500_000_000,
        attributes: vec![text("http.method", "GET")],
        ..Span::default()
    }
}

/// A request with one resource of one scope.
pub(crate) fn request(spans: Vec<Span>) -> Request {
    Request {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", "shop")],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope("lib", "1")),
                spans,
                schema_url: "https://example.com/scope".to_owned(),
            }],
            schema_url: "https://example.com/resource".to_owned(),
        }],
    }
}

pub(crate) fn scope(name: &str, version: &str) -> InstrumentationScope {
    InstrumentationScope {
        name: name.to_owned(),
        version: version.to_owned(),
        ..InstrumentationScope::default()
    }
}

/// The recorded requests, with a name for each.
pub(crate) fn golden_inputs() -> Vec<(String, Vec<u8>)> {
    let bodies = tempo_testkit::golden::Golden::load().requests;
    let named = bodies.into_iter().enumerate();
    named
        .map(|(number, body)| (format!("{number:02}.pb"), body))
        .collect()
}

/// What regrouping `request` gives: per trace the request with all other spans, and what is then
/// empty, taken out.
pub(crate) fn expected_traces(request: &Request) -> BTreeMap<TraceId, Trace> {
    let mut traces = BTreeMap::<TraceId, Trace>::new();
    let ids: Vec<_> = request
        .resource_spans
        .iter()
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| &scope.spans)
        .map(|span| span.trace_id.clone())
        .collect();
    for id in ids {
        traces
            .entry(TraceId::from_padded(&id))
            .or_insert_with(|| Trace {
                resource_spans: spans_of(request, &id),
            });
    }
    traces
}

fn spans_of(request: &Request, id: &[u8]) -> Vec<ResourceSpans> {
    let mut resources = request.resource_spans.clone();
    for resource in &mut resources {
        for scope in &mut resource.scope_spans {
            scope.spans.retain(|span| span.trace_id == id);
        }
        resource.scope_spans.retain(|scope| !scope.spans.is_empty());
    }
    resources.retain(|resource| !resource.scope_spans.is_empty());
    resources
}

/// Cuts oversized attributes the slow and obvious way; returns how many texts were cut, by
/// resource, scope, span, event and link.
pub(crate) fn truncate(request: &mut Request, max_bytes: usize) -> [u64; 5] {
    let mut counts = [0; 5];
    let [resources, scopes, spans, events, links] = &mut counts;
    for resource in &mut request.resource_spans {
        for attributes in resource.resource.iter_mut().map(|r| &mut r.attributes) {
            *resources += truncate_attributes(attributes, max_bytes);
        }
        for scope in &mut resource.scope_spans {
            for attributes in scope.scope.iter_mut().map(|s| &mut s.attributes) {
                // A scope without spans never reaches the output, but it is cut all the same.
                *scopes += truncate_attributes(attributes, max_bytes);
            }
            for span in &mut scope.spans {
                *spans += truncate_attributes(&mut span.attributes, max_bytes);
                for event in &mut span.events {
                    *events += truncate_attributes(&mut event.attributes, max_bytes);
                }
                for link in &mut span.links {
                    *links += truncate_attributes(&mut link.attributes, max_bytes);
                }
            }
        }
    }
    counts
}

fn truncate_attributes(attributes: &mut [KeyValue], max_bytes: usize) -> u64 {
    let mut cut = 0;
    for attribute in attributes {
        cut += truncate_text(&mut attribute.key, max_bytes);
        if let Some(AnyValue {
            value: Some(Value::StringValue(text)),
        }) = &mut attribute.value
        {
            cut += truncate_text(text, max_bytes);
        }
    }
    cut
}

fn truncate_text(text: &mut String, max_bytes: usize) -> u64 {
    if text.len() <= max_bytes {
        return 0;
    }
    while text.len() > max_bytes {
        text.pop();
    }
    1
}

/// Requests of any shape, of few traces.
pub(crate) fn any_request() -> impl Strategy<Value = Request> {
    vec(any_resource_spans(), 0..4).prop_map(|resource_spans| Request { resource_spans })
}

fn any_resource_spans() -> impl Strategy<Value = ResourceSpans> {
    let resource = (any_attributes(), any::<u32>()).prop_map(|(attributes, dropped)| Resource {
        attributes,
        dropped_attributes_count: dropped,
        ..Resource::default()
    });
    let scopes = vec(any_scope_spans(), 0..4);
    (prop::option::of(resource), scopes, any_text()).prop_map(
        |(resource, scope_spans, schema_url)| ResourceSpans {
            resource,
            scope_spans,
            schema_url,
        },
    )
}

fn any_scope_spans() -> impl Strategy<Value = ScopeSpans> {
    let scope = (any_text(), any_text(), any_attributes(), any::<u32>()).prop_map(
        |(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count,
        },
    );
    (prop::option::of(scope), vec(any_span(), 0..6), any_text()).prop_map(
        |(scope, spans, schema_url)| ScopeSpans {
            scope,
            spans,
            schema_url,
        },
    )
}

fn any_span() -> impl Strategy<Value = Span> {
    let ids = (1..5_u128, 1..=u64::MAX, any::<u64>());
    let texts = (any_text(), any_text(), any_text());
    let numbers = (any::<i32>(), any::<u64>(), any::<u64>(), any::<[u32; 4]>());
    let inside = (
        any_attributes(),
        vec(any_event(), 0..3),
        vec(any_link(), 0..3),
        any::<Option<i32>>(),
    );
    (ids, texts, numbers, inside).prop_map(|(ids, texts, numbers, inside)| {
        let (trace, number, parent) = ids;
        let (trace_state, name, message) = texts;
        let (kind, start, end, [attributes_dropped, events_dropped, links_dropped, flags]) =
            numbers;
        let (attributes, events, links, code) = inside;
        Span {
            trace_id: trace.to_be_bytes().to_vec(),
            span_id: number.to_be_bytes().to_vec(),
            parent_span_id: if parent % 2 == 0 {
                Vec::new()
            } else {
                parent.to_be_bytes().to_vec()
            },
            trace_state,
            flags,
            name,
            kind,
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            attributes,
            dropped_attributes_count: attributes_dropped,
            events,
            dropped_events_count: events_dropped,
            links,
            dropped_links_count: links_dropped,
            status: code.map(|code| Status { message, code }),
        }
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    (any::<u64>(), any_text(), any_attributes(), any::<u32>()).prop_map(
        |(time_unix_nano, name, attributes, dropped_attributes_count)| Event {
            time_unix_nano,
            name,
            attributes,
            dropped_attributes_count,
        },
    )
}

fn any_link() -> impl Strategy<Value = Link> {
    let ids = (any::<u128>(), any::<u64>());
    (ids, any_text(), any_attributes(), any::<[u32; 2]>()).prop_map(
        |((trace, span), trace_state, attributes, [dropped_attributes_count, flags])| Link {
            trace_id: trace.to_be_bytes().to_vec(),
            span_id: span.to_be_bytes().to_vec(),
            trace_state,
            attributes,
            dropped_attributes_count,
            flags,
        },
    )
}

fn any_attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec(any_key_value(any_value().boxed()), 0..5)
}

fn any_key_value(value: BoxedStrategy<AnyValue>) -> impl Strategy<Value = KeyValue> {
    (any_text(), prop::option::weighted(0.9, value)).prop_map(|(key, value)| KeyValue {
        key,
        value,
        ..KeyValue::default()
    })
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        4 => any_text().prop_map(Value::StringValue),
        1 => any::<bool>().prop_map(Value::BoolValue),
        1 => any::<i64>().prop_map(Value::IntValue),
        1 => any::<f64>().prop_map(Value::DoubleValue),
        1 => vec(any::<u8>(), 0..200).prop_map(Value::BytesValue),
    ];
    let leaf = prop::option::weighted(0.95, leaf).prop_map(|value| AnyValue { value });
    leaf.prop_recursive(3, 12, 3, |inner| {
        let pairs = vec(any_key_value(inner.clone()), 0..3);
        prop_oneof![
            vec(inner, 0..3).prop_map(|values| Value::ArrayValue(ArrayValue { values })),
            pairs.prop_map(|values| Value::KvlistValue(KeyValueList { values })),
        ]
        .prop_map(|value| AnyValue { value: Some(value) })
    })
}

/// Short and long texts, of characters of all lengths.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z.]{0,12}",
        2 => "[a-zé€😀]{0,20}",
        1 => "[ -~]{120,300}",
    ]
}

/// The bytes of a trace, decoded.
pub(crate) fn decode_trace(bytes: &[u8]) -> Trace {
    Trace::decode(bytes).unwrap()
}
