//! Traces, written straight from their wire bytes.

use tempo_model::otlp::{
    EventRef, Fields, KeyValueRef, LinkRef, ResourceSpansRef, ScopeSpansRef, SpanRef, WireError,
    resource_spans,
};

use super::{
    value::wire_key_value,
    writer::{Object, Separator},
};
use crate::combine::CombinedTrace;

pub(super) const SPAN_KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

pub(super) const STATUS_CODES: [&str; 3] =
    ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

type Written = Result<(), WireError>;

/// The body of `/api/traces/{id}`: a serialized `Trace` whose list is called `batches`.
pub fn trace_v1(trace: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::with_capacity(trace.len() * 2);
    resource_spans_list(&mut out, "batches", trace)?;
    Ok(out)
}

/// The body of `/api/v2/traces/{id}`.
pub fn trace_v2(found: &CombinedTrace) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::with_capacity(found.trace.len() * 2);
    let mut object = Object::open(&mut out);
    resource_spans_list(object.member("trace"), "resourceSpans", &found.trace)?;
    let mut metrics = Object::open(object.member("metrics"));
    metrics.long("inspectedBytes", found.inspected_bytes);
    metrics.close();
    if !found.message.is_empty() {
        object.text("status", b"PARTIAL");
        object.text("message", found.message.as_bytes());
    }
    object.close();
    Ok(out)
}

fn resource_spans_list(out: &mut Vec<u8>, name: &str, trace: &[u8]) -> Written {
    let mut object = Object::open(out);
    list(
        &mut object,
        name,
        resource_spans(trace),
        write_resource_spans,
    )?;
    object.close();
    Ok(())
}

/// A list member, left out when empty.
fn list<T>(
    object: &mut Object<'_>,
    name: &str,
    items: impl Iterator<Item = Result<T, WireError>>,
    mut write: impl FnMut(&mut Vec<u8>, T) -> Written,
) -> Written {
    let mut items = items.peekable();
    if items.peek().is_none() {
        return Ok(());
    }
    let out = object.member(name);
    out.push(b'[');
    let mut separator = Separator::new();
    for item in items {
        separator.next(out);
        write(out, item?)?;
    }
    out.push(b']');
    Ok(())
}

fn attributes<'a>(
    object: &mut Object<'_>,
    attributes: impl Iterator<Item = Result<KeyValueRef<'a>, WireError>>,
) -> Written {
    list(object, "attributes", attributes, |out, attribute| {
        wire_key_value(out, &attribute, 0)
    })
}

/// The last occurrence of a length-delimited field.
fn last_message(message: &[u8], number: u32) -> Result<Option<&[u8]>, WireError> {
    let mut found = None;
    for field in Fields::new(message) {
        let field = field?;
        if field.number == number {
            found = Some(field.message()?);
        }
    }
    Ok(found)
}

fn write_resource_spans(out: &mut Vec<u8>, batch: ResourceSpansRef<'_>) -> Written {
    let mut object = Object::open(out);
    if last_message(batch.raw, 1)?.is_some() {
        let mut resource = Object::open(object.member("resource"));
        attributes(&mut resource, batch.resource_attributes()?)?;
        resource.number(
            "droppedAttributesCount",
            batch.resource_dropped_attributes_count()?,
        );
        resource.close();
    }
    list(
        &mut object,
        "scopeSpans",
        batch.scope_spans(),
        write_scope_spans,
    )?;
    object.text("schemaUrl", last_message(batch.raw, 3)?.unwrap_or_default());
    object.close();
    Ok(())
}

fn write_scope_spans(out: &mut Vec<u8>, scope_spans: ScopeSpansRef<'_>) -> Written {
    let mut object = Object::open(out);
    if last_message(scope_spans.raw, 1)?.is_some() {
        let scope = scope_spans.scope()?;
        let mut inner = Object::open(object.member("scope"));
        inner.text("name", scope.name);
        inner.text("version", scope.version);
        attributes(&mut inner, scope.attributes())?;
        inner.number("droppedAttributesCount", scope.dropped_attributes_count);
        inner.close();
    }
    list(&mut object, "spans", scope_spans.spans(), write_span)?;
    object.text(
        "schemaUrl",
        last_message(scope_spans.raw, 3)?.unwrap_or_default(),
    );
    object.close();
    Ok(())
}

fn write_span(out: &mut Vec<u8>, span: SpanRef<'_>) -> Written {
    let mut object = Object::open(out);
    object.base64("traceId", span.trace_id);
    object.base64("spanId", span.span_id);
    object.text("traceState", span.trace_state);
    object.base64("parentSpanId", span.parent_span_id);
    object.number("flags", span.flags);
    object.text("name", span.name);
    object.named("kind", span.kind, &SPAN_KINDS);
    object.long("startTimeUnixNano", span.start_time_unix_nano);
    object.long("endTimeUnixNano", span.end_time_unix_nano);
    attributes(&mut object, span.attributes())?;
    object.number("droppedAttributesCount", span.dropped_attributes_count);
    list(&mut object, "events", span.events(), write_event)?;
    object.number("droppedEventsCount", span.dropped_events_count);
    list(&mut object, "links", span.links(), write_link)?;
    object.number("droppedLinksCount", span.dropped_links_count);
    if last_message(span.raw, 15)?.is_some() {
        let mut status = Object::open(object.member("status"));
        status.text("message", span.status_message);
        status.named("code", span.status_code, &STATUS_CODES);
        status.close();
    }
    object.close();
    Ok(())
}

fn write_event(out: &mut Vec<u8>, event: EventRef<'_>) -> Written {
    let mut object = Object::open(out);
    object.long("timeUnixNano", event.time_unix_nano);
    object.text("name", event.name);
    attributes(&mut object, event.attributes())?;
    object.number("droppedAttributesCount", event.dropped_attributes_count);
    object.close();
    Ok(())
}

fn write_link(out: &mut Vec<u8>, link: LinkRef<'_>) -> Written {
    let mut object = Object::open(out);
    object.base64("traceId", link.trace_id);
    object.base64("spanId", link.span_id);
    object.text("traceState", link.trace_state);
    attributes(&mut object, link.attributes())?;
    object.number("droppedAttributesCount", link.dropped_attributes_count);
    object.number("flags", link.flags);
    object.close();
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tempo_proto::{
        opentelemetry::proto::{
            common::v1::{
                AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
                any_value::Value,
            },
            resource::v1::Resource,
            trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span},
        },
        tempopb::Trace,
    };

    use super::*;

    fn attribute(key: &str, value: Value) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        }
    }

    fn trace() -> Vec<u8> {
        let any = |value| AnyValue { value: Some(value) };
        Trace {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource {
                    attributes: vec![attribute(
                        "service.name",
                        Value::StringValue("shop".to_owned()),
                    )],
                    ..Resource::default()
                }),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: "lib".to_owned(),
                        version: "1".to_owned(),
                        ..InstrumentationScope::default()
                    }),
                    spans: vec![
                        Span {
                            trace_id: [vec![0; 14], vec![1, 2]].concat(),
                            span_id: vec![0, 0, 0, 0, 0, 0, 0, 1],
                            parent_span_id: vec![0, 0, 0, 0, 0, 0, 0, 2],
                            name: "GET /".to_owned(),
                            kind: 2,
                            start_time_unix_nano: 1_700_000_000_000_000_000,
                            end_time_unix_nano: 1_700_000_000_500_000_000,
                            attributes: vec![
                                attribute("http.status_code", Value::IntValue(200)),
                                attribute("zero", Value::IntValue(0)),
                                attribute("no", Value::BoolValue(false)),
                                attribute("nan", Value::DoubleValue(f64::NAN)),
                                attribute(
                                    "list",
                                    Value::ArrayValue(ArrayValue {
                                        values: vec![
                                            any(Value::DoubleValue(0.5)),
                                            any(Value::BytesValue(vec![255])),
                                        ],
                                    }),
                                ),
                                attribute("none", Value::ArrayValue(ArrayValue::default())),
                                attribute(
                                    "map",
                                    Value::KvlistValue(KeyValueList {
                                        values: vec![attribute(
                                            "k",
                                            Value::StringValue(String::new()),
                                        )],
                                    }),
                                ),
                            ],
                            events: vec![span::Event {
                                time_unix_nano: 1_700_000_000_100_000_000,
                                name: "e".to_owned(),
                                ..span::Event::default()
                            }],
                            status: Some(Status {
                                message: "m".to_owned(),
                                code: 2,
                            }),
                            ..Span::default()
                        },
                        Span {
                            kind: 9,
                            status: Some(Status::default()),
                            ..Span::default()
                        },
                    ],
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        }
        .encode_to_vec()
    }

    const SPANS: &str = concat!(
        r#"[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},"#,
        r#""scopeSpans":[{"scope":{"name":"lib","version":"1"},"spans":["#,
        r#"{"traceId":"AAAAAAAAAAAAAAAAAAABAg==","spanId":"AAAAAAAAAAE=","#,
        r#""parentSpanId":"AAAAAAAAAAI=","name":"GET /","kind":"SPAN_KIND_SERVER","#,
        r#""startTimeUnixNano":"1700000000000000000","endTimeUnixNano":"1700000000500000000","#,
        r#""attributes":[{"key":"http.status_code","value":{"intValue":"200"}},"#,
        r#"{"key":"zero","value":{"intValue":"0"}},{"key":"no","value":{"boolValue":false}},"#,
        r#"{"key":"nan","value":{"doubleValue":"NaN"}},"#,
        r#"{"key":"list","value":{"arrayValue":{"values":[{"doubleValue":0.5},{"bytesValue":"/w=="}]}}},"#,
        r#"{"key":"none","value":{"arrayValue":{}}},"#,
        r#"{"key":"map","value":{"kvlistValue":{"values":[{"key":"k","value":{"stringValue":""}}]}}}],"#,
        r#""events":[{"timeUnixNano":"1700000000100000000","name":"e"}],"#,
        r#""status":{"message":"m","code":"STATUS_CODE_ERROR"}},{"kind":9,"status":{}}]}]}]"#,
    );

    #[test]
    fn traces_are_written_as_jsonpb_writes_them() {
        let bytes = trace();
        assert_eq!(
            String::from_utf8(trace_v1(&bytes).unwrap()).unwrap(),
            format!("{{\"batches\":{SPANS}}}")
        );
        let found = CombinedTrace {
            trace: bytes.into(),
            inspected_bytes: 123,
            message: "a part".to_owned(),
        };
        assert_eq!(
            String::from_utf8(trace_v2(&found).unwrap()).unwrap(),
            format!(
                "{{\"trace\":{{\"resourceSpans\":{SPANS}}},\"metrics\":{{\"inspectedBytes\":\"123\"}},\
                 \"status\":\"PARTIAL\",\"message\":\"a part\"}}"
            )
        );
    }

    #[test]
    fn nothing_found_is_an_empty_trace() {
        assert_eq!(trace_v1(&[]).unwrap(), b"{}");
        assert_eq!(
            trace_v2(&CombinedTrace::default()).unwrap(),
            br#"{"trace":{},"metrics":{}}"#
        );
    }

    #[test]
    fn values_nested_without_end_are_refused() {
        let mut value = Value::IntValue(1);
        for _ in 0..200 {
            value = Value::ArrayValue(ArrayValue {
                values: vec![AnyValue { value: Some(value) }],
            });
        }
        let trace = Trace {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource {
                    attributes: vec![attribute("deep", value)],
                    ..Resource::default()
                }),
                ..ResourceSpans::default()
            }],
        };
        assert_eq!(trace_v1(&trace.encode_to_vec()), Err(WireError::TooDeep));
    }
}
