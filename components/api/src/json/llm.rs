//! The flat forms for language models: ids in hexadecimal, attributes as plain members, numbers as
//! numbers, values grouped by type.

use std::collections::BTreeMap;

use tempo_model::otlp::{
    AnyValueRef, EventRef, KeyValueRef, LinkRef, MAX_VALUE_NESTING_DEPTH, ResourceSpansRef,
    ScopeSpansRef, SpanRef, WireError, resource_spans,
};
use tempo_proto::tempopb::SearchTagValuesV2Response;

use super::{
    trace::{SPAN_KINDS, STATUS_CODES},
    value::{boolean, key_values},
    writer::{Object, Separator, double, integer, list, quoted_integer, text},
};
use crate::combine::CombinedTrace;

type Written = Result<(), WireError>;

/// The body of `/api/v2/traces/{id}` for language models; `{}` when nothing was found.
pub fn trace_llm(found: &CombinedTrace) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::with_capacity(found.trace.len() * 2);
    let mut object = Object::open(&mut out);
    let mut batches = resource_spans(&found.trace).peekable();
    if batches.peek().is_some() {
        let mut trace = Object::open(object.member("trace"));
        hex(trace.member("traceId"), first_trace_id(&found.trace)?);
        fallible_list(trace.member("services"), batches, write_service)?;
        trace.close();
        if found.inspected_bytes > 0 {
            let mut metrics = Object::open(object.member("metrics"));
            integer(metrics.member("inspectedBytes"), found.inspected_bytes);
            metrics.close();
        }
        let status: &[u8] = if found.message.is_empty() {
            b"COMPLETE"
        } else {
            b"PARTIAL"
        };
        object.text("status", status);
        object.text("message", found.message.as_bytes());
    }
    object.close();
    Ok(out)
}

/// The body of `/api/v2/search/tag/{name}/values` for language models.
pub fn tag_values_llm(response: &SearchTagValuesV2Response) -> Vec<u8> {
    let mut by_type: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for value in &response.tag_values {
        by_type.entry(&value.r#type).or_default().push(&value.value);
    }
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    let mut types = Object::open(object.member("tagValues"));
    for (name, values) in by_type {
        list(types.any_member(name.as_bytes()), values, |out, value| {
            text(out, value.as_bytes());
        });
    }
    types.close();
    let inspected_bytes = response
        .metrics
        .as_ref()
        .map_or(0, |metrics| metrics.inspected_bytes);
    if inspected_bytes > 0 {
        let mut metrics = Object::open(object.member("metrics"));
        integer(metrics.member("inspectedBytes"), inspected_bytes);
        metrics.close();
    }
    object.close();
    out
}

fn first_trace_id(trace: &[u8]) -> Result<&[u8], WireError> {
    for batch in resource_spans(trace) {
        for scope in batch?.scope_spans() {
            if let Some(span) = scope?.spans().next() {
                return Ok(span?.trace_id);
            }
        }
    }
    Ok(&[])
}

fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
    out.push(b'"');
}

fn fallible_list<T>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = Result<T, WireError>>,
    mut write: impl FnMut(&mut Vec<u8>, T) -> Written,
) -> Written {
    out.push(b'[');
    let mut separator = Separator::new();
    for item in items {
        separator.next(out);
        write(out, item?)?;
    }
    out.push(b']');
    Ok(())
}

/// A list member, left out when empty.
fn optional_list<T>(
    object: &mut Object<'_>,
    name: &str,
    items: impl Iterator<Item = Result<T, WireError>>,
    write: impl FnMut(&mut Vec<u8>, T) -> Written,
) -> Written {
    let mut items = items.peekable();
    if items.peek().is_some() {
        fallible_list(object.member(name), items, write)?;
    }
    Ok(())
}

/// Attributes by key, the last of a repeated key.
fn by_key<'a>(
    attributes: impl Iterator<Item = Result<KeyValueRef<'a>, WireError>>,
) -> Result<BTreeMap<&'a [u8], AnyValueRef<'a>>, WireError> {
    attributes
        .map(|attribute| attribute.map(|attribute| (attribute.key, attribute.value)))
        .collect()
}

fn write_attributes(
    out: &mut Vec<u8>,
    attributes: &BTreeMap<&[u8], AnyValueRef<'_>>,
    depth: usize,
) -> Written {
    let mut object = Object::open(out);
    for (key, value) in attributes {
        write_value(object.any_member(key), *value, depth)?;
    }
    object.close();
    Ok(())
}

fn optional_attributes<'a>(
    object: &mut Object<'_>,
    attributes: impl Iterator<Item = Result<KeyValueRef<'a>, WireError>>,
) -> Written {
    let attributes = by_key(attributes)?;
    if !attributes.is_empty() {
        write_attributes(object.member("attributes"), &attributes, 0)?;
    }
    Ok(())
}

fn write_value(out: &mut Vec<u8>, value: AnyValueRef<'_>, depth: usize) -> Written {
    if depth >= MAX_VALUE_NESTING_DEPTH {
        return Err(WireError::TooDeep);
    }
    match value {
        AnyValueRef::Empty => out.extend_from_slice(b"null"),
        AnyValueRef::String(value) => text(out, value),
        AnyValueRef::Bool(value) => boolean(out, value),
        AnyValueRef::Int(value) => integer(out, value),
        AnyValueRef::Double(value) => double(out, value),
        AnyValueRef::Bytes(value) => hex(out, value),
        AnyValueRef::Array(array) => fallible_list(out, array.iter(), |out, value| {
            write_value(out, value, depth + 1)
        })?,
        AnyValueRef::KvList(message) => {
            write_attributes(out, &by_key(key_values(message))?, depth + 1)?;
        }
    }
    Ok(())
}

fn write_service(out: &mut Vec<u8>, batch: ResourceSpansRef<'_>) -> Written {
    let mut object = Object::open(out);
    let mut resource = by_key(batch.resource_attributes()?)?;
    if let Some(AnyValueRef::String(name)) = resource.remove(b"service.name".as_slice()) {
        object.text("serviceName", name);
    }
    if !resource.is_empty() {
        write_attributes(object.member("resource"), &resource, 0)?;
    }
    optional_list(&mut object, "scopes", batch.scope_spans(), write_scope)?;
    object.close();
    Ok(())
}

fn write_scope(out: &mut Vec<u8>, scope_spans: ScopeSpansRef<'_>) -> Written {
    let mut object = Object::open(out);
    let scope = scope_spans.scope()?;
    object.text("name", scope.name);
    object.text("version", scope.version);
    optional_list(&mut object, "spans", scope_spans.spans(), write_span)?;
    object.close();
    Ok(())
}

fn write_span(out: &mut Vec<u8>, span: SpanRef<'_>) -> Written {
    let mut object = Object::open(out);
    hex(object.member("spanId"), span.span_id);
    text(object.member("name"), span.name);
    if !span.parent_span_id.is_empty() {
        hex(object.member("parentSpanId"), span.parent_span_id);
    }
    object.named("kind", span.kind, &SPAN_KINDS);
    object.long("startTimeUnixNano", span.start_time_unix_nano);
    object.long("endTimeUnixNano", span.end_time_unix_nano);
    if span.start_time_unix_nano > 0 && span.end_time_unix_nano > span.start_time_unix_nano {
        let nanos = span.end_time_unix_nano - span.start_time_unix_nano;
        double(object.member("durationMs"), nanos as f64 / 1e6);
    }
    optional_attributes(&mut object, span.attributes())?;
    optional_list(&mut object, "events", span.events(), write_event)?;
    optional_list(&mut object, "links", span.links(), write_link)?;
    let mut status = Object::open(object.member("status"));
    let code = usize::try_from(span.status_code)
        .ok()
        .and_then(|code| STATUS_CODES.get(code))
        .unwrap_or(&STATUS_CODES[0]);
    text(status.member("code"), code.as_bytes());
    let message = if span.status_code == 0 {
        &[]
    } else {
        span.status_message
    };
    text(status.member("message"), message);
    status.close();
    object.close();
    Ok(())
}

fn write_event(out: &mut Vec<u8>, event: EventRef<'_>) -> Written {
    let mut object = Object::open(out);
    text(object.member("name"), event.name);
    if event.time_unix_nano > 0 {
        quoted_integer(object.member("timeUnixNano"), event.time_unix_nano);
    }
    optional_attributes(&mut object, event.attributes())?;
    object.close();
    Ok(())
}

fn write_link(out: &mut Vec<u8>, link: LinkRef<'_>) -> Written {
    let mut object = Object::open(out);
    hex(object.member("traceId"), link.trace_id);
    hex(object.member("spanId"), link.span_id);
    optional_attributes(&mut object, link.attributes())?;
    object.close();
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tempo_proto::{
        opentelemetry::proto::{
            common::v1::{AnyValue, KeyValue, any_value::Value},
            resource::v1::Resource,
            trace::v1::{ResourceSpans, ScopeSpans, Span},
        },
        tempopb::{MetadataMetrics, TagValue, Trace},
    };

    use super::*;

    #[test]
    fn traces_are_flat() {
        let attribute = |key: &str, value| KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        };
        let trace = Trace {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource {
                    attributes: vec![
                        attribute("service.name", Value::StringValue("shop".to_owned())),
                        attribute("zone", Value::IntValue(2)),
                    ],
                    ..Resource::default()
                }),
                scope_spans: vec![ScopeSpans {
                    spans: vec![Span {
                        trace_id: vec![1; 16],
                        span_id: vec![2; 8],
                        name: "q".to_owned(),
                        start_time_unix_nano: 1_000_000,
                        end_time_unix_nano: 2_500_000,
                        attributes: vec![attribute("ok", Value::BoolValue(true))],
                        ..Span::default()
                    }],
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let found = CombinedTrace {
            trace: trace.encode_to_vec().into(),
            inspected_bytes: 5,
            message: String::new(),
        };
        assert_eq!(
            String::from_utf8(trace_llm(&found).unwrap()).unwrap(),
            concat!(
                r#"{"trace":{"traceId":"01010101010101010101010101010101","services":["#,
                r#"{"serviceName":"shop","resource":{"zone":2},"scopes":[{"spans":["#,
                r#"{"spanId":"0202020202020202","name":"q","startTimeUnixNano":"1000000","#,
                r#""endTimeUnixNano":"2500000","durationMs":1.5,"attributes":{"ok":true},"#,
                r#""status":{"code":"STATUS_CODE_UNSET","message":""}}]}]}]},"#,
                r#""metrics":{"inspectedBytes":5},"status":"COMPLETE"}"#,
            )
        );
        assert_eq!(trace_llm(&CombinedTrace::default()).unwrap(), b"{}");
    }

    #[test]
    fn values_are_grouped_by_type() {
        let value = |of_type: &str, value: &str| TagValue {
            r#type: of_type.to_owned(),
            value: value.to_owned(),
        };
        let response = SearchTagValuesV2Response {
            tag_values: vec![
                value("string", "a"),
                value("int", "1"),
                value("string", "b"),
            ],
            metrics: Some(MetadataMetrics {
                inspected_bytes: 7,
                ..MetadataMetrics::default()
            }),
        };
        assert_eq!(
            String::from_utf8(tag_values_llm(&response)).unwrap(),
            r#"{"tagValues":{"int":["1"],"string":["a","b"]},"metrics":{"inspectedBytes":7}}"#
        );
    }
}
