//! The recorded round trips as OTLP.

use base64::{Engine, engine::general_purpose::STANDARD};
use prost::Message;
use serde_json::Value as Json;
use tempo_proto::opentelemetry::proto::{
    common::v1::{
        AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
    },
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData, span},
};

/// The serialized trace of a recording: field names of the messages, zero values left out.
pub(super) fn trace(recording: &Json) -> Vec<u8> {
    let resource_spans = list(recording, "resourceSpans").map(|resource_spans| ResourceSpans {
        resource: resource_spans.get("resource").map(|resource| Resource {
            attributes: attributes(resource),
            dropped_attributes_count: number(resource, "dropped_attributes_count") as u32,
            ..Default::default()
        }),
        scope_spans: list(resource_spans, "scope_spans")
            .map(scope_spans)
            .collect(),
        schema_url: text(resource_spans, "schema_url"),
    });
    TracesData {
        resource_spans: resource_spans.collect(),
    }
    .encode_to_vec()
}

fn scope_spans(scope_spans: &Json) -> ScopeSpans {
    ScopeSpans {
        scope: scope_spans.get("scope").map(|scope| InstrumentationScope {
            name: text(scope, "name"),
            version: text(scope, "version"),
            attributes: attributes(scope),
            dropped_attributes_count: number(scope, "dropped_attributes_count") as u32,
        }),
        spans: list(scope_spans, "spans").map(span).collect(),
        schema_url: text(scope_spans, "schema_url"),
    }
}

fn span(span: &Json) -> Span {
    Span {
        trace_id: bytes(span, "trace_id"),
        span_id: bytes(span, "span_id"),
        trace_state: text(span, "trace_state"),
        parent_span_id: bytes(span, "parent_span_id"),
        flags: number(span, "flags") as u32,
        name: text(span, "name"),
        kind: number(span, "kind") as i32,
        start_time_unix_nano: number(span, "start_time_unix_nano") as u64,
        end_time_unix_nano: number(span, "end_time_unix_nano") as u64,
        attributes: attributes(span),
        dropped_attributes_count: number(span, "dropped_attributes_count") as u32,
        events: list(span, "events")
            .map(|event| span::Event {
                time_unix_nano: number(event, "time_unix_nano") as u64,
                name: text(event, "name"),
                attributes: attributes(event),
                dropped_attributes_count: number(event, "dropped_attributes_count") as u32,
            })
            .collect(),
        dropped_events_count: number(span, "dropped_events_count") as u32,
        links: list(span, "links")
            .map(|link| span::Link {
                trace_id: bytes(link, "trace_id"),
                span_id: bytes(link, "span_id"),
                trace_state: text(link, "trace_state"),
                attributes: attributes(link),
                dropped_attributes_count: number(link, "dropped_attributes_count") as u32,
                flags: number(link, "flags") as u32,
            })
            .collect(),
        dropped_links_count: number(span, "dropped_links_count") as u32,
        status: span.get("status").map(|status| Status {
            message: text(status, "message"),
            code: number(status, "code") as i32,
        }),
    }
}

fn attributes(owner: &Json) -> Vec<KeyValue> {
    list(owner, "attributes").map(pair).collect()
}

fn pair(pair: &Json) -> KeyValue {
    KeyValue {
        key: text(pair, "key"),
        value: pair.get("value").map(any),
        ..Default::default()
    }
}

fn any(value: &Json) -> AnyValue {
    any_or(value, &Value::StringValue(String::new()))
}

/// The recording leaves out zero values and their type with them.
fn any_or(value: &Json, zero: &Value) -> AnyValue {
    let fields = &value["Value"];
    let Some((name, inner)) = fields.as_object().and_then(|fields| fields.iter().next()) else {
        return AnyValue {
            value: (!fields.is_null()).then(|| zero.clone()),
        };
    };
    let value = match name.as_str() {
        "string_value" => Value::StringValue(inner.as_str().unwrap().to_owned()),
        "bool_value" => Value::BoolValue(inner.as_bool().unwrap()),
        "int_value" => Value::IntValue(inner.as_i64().unwrap()),
        "double_value" => Value::DoubleValue(inner.as_f64().unwrap()),
        "bytes_value" => Value::BytesValue(bytes(fields, name)),
        "array_value" => {
            let has_bools =
                list(inner, "values").any(|value| !value["Value"]["bool_value"].is_null());
            let zero = match has_bools {
                true => Value::BoolValue(false),
                false => Value::StringValue(String::new()),
            };
            let values = list(inner, "values").map(|value| any_or(value, &zero));
            Value::ArrayValue(ArrayValue {
                values: values.collect(),
            })
        }
        "kvlist_value" => Value::KvlistValue(KeyValueList {
            values: list(inner, "values").map(pair).collect(),
        }),
        other => panic!("{other}"),
    };
    AnyValue { value: Some(value) }
}

fn list<'a>(owner: &'a Json, name: &str) -> impl Iterator<Item = &'a Json> {
    owner
        .get(name)
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
}

fn text(owner: &Json, name: &str) -> String {
    owner
        .get(name)
        .and_then(Json::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn bytes(owner: &Json, name: &str) -> Vec<u8> {
    STANDARD.decode(text(owner, name)).unwrap()
}

fn number(owner: &Json, name: &str) -> i128 {
    match owner.get(name) {
        None => 0,
        Some(value) => value
            .as_u64()
            .map(i128::from)
            .or_else(|| value.as_i64().map(i128::from))
            .unwrap(),
    }
}
