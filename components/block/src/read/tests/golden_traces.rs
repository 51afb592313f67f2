//! Traces come back as Tempo gives them back.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use prost::Message;
use serde_json::{Map, Value as Json, json};
use tempo_backend::{Backend, BackendConfig, BlockMeta, ReadStats, cache::Cache};
use tempo_model::TraceId;
use tempo_proto::{
    opentelemetry::proto::{
        common::v1::{AnyValue, KeyValue, any_value::Value},
        trace::v1::Span,
    },
    tempopb::Trace,
};

use super::{BLOCKS, meta_and_file, open};
use crate::{read::find_trace, testing::golden};

/// The form of the recorded round trips: field names of the messages, zero values left out.
fn any(value: &AnyValue) -> Json {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Json, is_zero: bool| {
        if !is_zero {
            fields.insert(name.to_owned(), value);
        }
    };
    let Some(value) = &value.value else {
        return json!({ "Value": null });
    };
    match value {
        Value::StringValue(text) => put("string_value", json!(text), text.is_empty()),
        Value::BoolValue(flag) => put("bool_value", json!(flag), !flag),
        Value::IntValue(number) => put("int_value", json!(number), *number == 0),
        Value::DoubleValue(number) => put("double_value", json!(number), *number == 0.0),
        Value::BytesValue(bytes) => put("bytes_value", json!(STANDARD.encode(bytes)), false),
        Value::ArrayValue(array) => {
            let values: Vec<Json> = array.values.iter().map(any).collect();
            let inner = if values.is_empty() {
                json!({})
            } else {
                json!({ "values": values })
            };
            put("array_value", inner, false);
        }
        Value::KvlistValue(list) => {
            put(
                "kvlist_value",
                json!({ "values": attributes(&list.values) }),
                false,
            );
        }
        Value::StringValueStrindex(_) => panic!("blocks hold no such value"),
    }
    json!({ "Value": fields })
}

fn attributes(list: &[KeyValue]) -> Json {
    let pair = |pair: &KeyValue| match &pair.value {
        Some(value) => json!({ "key": pair.key, "value": any(value) }),
        None => json!({ "key": pair.key }),
    };
    Json::Array(list.iter().map(pair).collect())
}

/// An object without its zero values.
fn object(fields: Json) -> Json {
    let Json::Object(mut fields) = fields else {
        panic!("an object")
    };
    fields.retain(|_, value| match value {
        Json::String(text) => !text.is_empty(),
        Json::Number(number) => number.as_f64() != Some(0.0),
        Json::Array(items) => !items.is_empty(),
        _ => true,
    });
    Json::Object(fields)
}

fn span_json(span: &Span) -> Json {
    let events: Vec<Json> = span
        .events
        .iter()
        .map(|event| {
            object(json!({
                "time_unix_nano": event.time_unix_nano,
                "name": event.name,
                "attributes": attributes(&event.attributes),
                "dropped_attributes_count": event.dropped_attributes_count,
            }))
        })
        .collect();
    let links: Vec<Json> = span
        .links
        .iter()
        .map(|link| {
            object(json!({
                "trace_id": STANDARD.encode(&link.trace_id),
                "span_id": STANDARD.encode(&link.span_id),
                "trace_state": link.trace_state,
                "attributes": attributes(&link.attributes),
                "dropped_attributes_count": link.dropped_attributes_count,
            }))
        })
        .collect();
    let status = span.status.as_ref().expect("a status is always there");
    object(json!({
        "trace_id": STANDARD.encode(&span.trace_id),
        "span_id": STANDARD.encode(&span.span_id),
        "trace_state": span.trace_state,
        "parent_span_id": STANDARD.encode(&span.parent_span_id),
        "name": span.name,
        "kind": span.kind,
        "start_time_unix_nano": span.start_time_unix_nano,
        "end_time_unix_nano": span.end_time_unix_nano,
        "attributes": attributes(&span.attributes),
        "dropped_attributes_count": span.dropped_attributes_count,
        "events": events,
        "dropped_events_count": span.dropped_events_count,
        "links": links,
        "dropped_links_count": span.dropped_links_count,
        "status": object(json!({ "message": status.message, "code": status.code })),
    }))
}

fn trace_json(trace: &Trace) -> Json {
    let resources = trace.resource_spans.iter().map(|resource| {
        let scopes = resource.scope_spans.iter().map(|scope| {
            let spans: Vec<Json> = scope.spans.iter().map(span_json).collect();
            let scope = scope.scope.as_ref().expect("a scope is always there");
            json!({
                "scope": object(json!({
                    "name": scope.name,
                    "version": scope.version,
                    "attributes": attributes(&scope.attributes),
                    "dropped_attributes_count": scope.dropped_attributes_count,
                })),
                "spans": spans,
            })
        });
        let scopes: Vec<Json> = scopes.collect();
        let resource = resource
            .resource
            .as_ref()
            .expect("a resource is always there");
        json!({
            "resource": object(json!({
                "attributes": attributes(&resource.attributes),
                "dropped_attributes_count": resource.dropped_attributes_count,
            })),
            "scope_spans": scopes,
        })
    });
    let resources: Vec<Json> = resources.collect();
    json!({ "resourceSpans": resources })
}

/// Whole doubles are recorded like integers.
fn normalized(json: &Json) -> Json {
    match json {
        Json::Number(number) if number.is_f64() => {
            let value = number.as_f64().unwrap();
            if value.fract() == 0.0 {
                json!(value as i64)
            } else {
                json!(value)
            }
        }
        Json::Array(items) => items.iter().map(normalized).collect(),
        Json::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), normalized(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

#[test]
fn round_trips_equal_what_tempo_gave_back() {
    for version in ["vParquet4", "vParquet5"] {
        let reader = open(&format!(
            "roundtrip/{version}/single-tenant/11111111-2222-4333-8444-555555555555"
        ));
        let recorded = std::fs::read(golden(&format!("roundtrip/{version}.out.json"))).unwrap();
        let want: Json = serde_json::from_slice(&recorded).unwrap();
        let id: TraceId = "07000000000000000000000000000007".parse().unwrap();
        let (_, bytes) = reader
            .traces(ReadStats::new())
            .map(Result::unwrap)
            .find(|(found, _)| *found == id)
            .unwrap();
        let got = trace_json(&Trace::decode(bytes).unwrap());
        assert_eq!(normalized(&got), normalized(&want), "{version}");
    }
}

/// The form of the recorded API answers.
fn api_value(value: &AnyValue) -> Json {
    match &value.value {
        None => json!({}),
        Some(Value::StringValue(text)) => json!({ "stringValue": text }),
        Some(Value::BoolValue(flag)) => json!({ "boolValue": flag }),
        Some(Value::IntValue(number)) => json!({ "intValue": number.to_string() }),
        Some(Value::DoubleValue(number)) => json!({ "doubleValue": number }),
        Some(Value::BytesValue(bytes)) => json!({ "bytesValue": STANDARD.encode(bytes) }),
        Some(Value::ArrayValue(array)) => {
            let values: Vec<Json> = array.values.iter().map(api_value).collect();
            json!({ "arrayValue": { "values": values } })
        }
        Some(Value::KvlistValue(list)) => {
            let pair = |pair: &KeyValue| json!({ "key": pair.key, "value": api_value(pair.value.as_ref().unwrap()) });
            let values: Vec<Json> = list.values.iter().map(pair).collect();
            json!({ "kvlistValue": { "values": values } })
        }
        Some(Value::StringValueStrindex(_)) => panic!("blocks hold no such value"),
    }
}

/// Attributes as recorded: sorted pairs of key and JSON text.
fn api_attributes(list: &[KeyValue]) -> Json {
    let mut pairs: Vec<(String, Json)> = list
        .iter()
        .map(|pair| {
            let value = pair.value.clone().unwrap_or_default();
            (pair.key.clone(), api_value(&value))
        })
        .collect();
    pairs.sort_by_key(|(key, value)| (key.clone(), value.to_string()));
    pairs
        .into_iter()
        .map(|(key, value)| json!([key, value]))
        .collect()
}

/// A recorded span with the JSON texts of its values parsed, so that spacing does not matter.
fn parsed(recorded: &Json) -> Json {
    match recorded {
        Json::Array(items) => match items.as_slice() {
            [Json::String(key), Json::String(value)] if value.starts_with('{') => {
                json!([key, normalized(&serde_json::from_str(value).unwrap())])
            }
            _ => items.iter().map(parsed).collect(),
        },
        Json::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), parsed(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

fn api_spans(trace: &Trace) -> BTreeMap<String, Json> {
    let mut spans = BTreeMap::new();
    for resource in &trace.resource_spans {
        for scope in &resource.scope_spans {
            let instrumentation = scope.scope.clone().unwrap();
            for span in &scope.spans {
                let mut fields = Map::new();
                let mut put = |name: &str, value: Json| fields.insert(name.to_owned(), value);
                let kinds = [
                    "UNSPECIFIED",
                    "INTERNAL",
                    "SERVER",
                    "CLIENT",
                    "PRODUCER",
                    "CONSUMER",
                ];
                put("traceId", json!(STANDARD.encode(&span.trace_id)));
                put("spanId", json!(STANDARD.encode(&span.span_id)));
                if !span.trace_state.is_empty() {
                    put("traceState", json!(span.trace_state));
                }
                if !span.parent_span_id.is_empty() {
                    put("parentSpanId", json!(STANDARD.encode(&span.parent_span_id)));
                }
                put("name", json!(span.name));
                if span.kind != 0 {
                    put(
                        "kind",
                        json!(format!("SPAN_KIND_{}", kinds[span.kind as usize])),
                    );
                }
                put(
                    "startTimeUnixNano",
                    json!(span.start_time_unix_nano.to_string()),
                );
                put(
                    "endTimeUnixNano",
                    json!(span.end_time_unix_nano.to_string()),
                );
                put("attributes", api_attributes(&span.attributes));
                let events: Vec<Json> = span
                    .events
                    .iter()
                    .map(|event| {
                        json!({
                            "timeUnixNano": event.time_unix_nano.to_string(),
                            "name": event.name,
                            "attributes": api_attributes(&event.attributes),
                        })
                    })
                    .collect();
                if !events.is_empty() {
                    put("events", json!(events));
                }
                let links: Vec<Json> = span
                    .links
                    .iter()
                    .map(|link| {
                        json!({
                            "traceId": STANDARD.encode(&link.trace_id),
                            "spanId": STANDARD.encode(&link.span_id),
                            "attributes": api_attributes(&link.attributes),
                        })
                    })
                    .collect();
                if !links.is_empty() {
                    put("links", json!(links));
                }
                let status = span.status.clone().unwrap();
                let codes = ["", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];
                put(
                    "status",
                    object(json!({
                        "message": status.message,
                        "code": codes[status.code as usize],
                    })),
                );
                let resource = resource.resource.clone().unwrap();
                spans.insert(
                    STANDARD.encode(&span.span_id),
                    json!({
                        "res": api_attributes(&resource.attributes),
                        "scope": [
                            instrumentation.name,
                            instrumentation.version,
                            api_attributes(&instrumentation.attributes),
                        ],
                        "span": Json::Object(fields),
                    }),
                );
            }
        }
    }
    spans
}

struct Recorded {
    backend: Backend,
    cache: Cache,
    metas: Vec<Arc<BlockMeta>>,
    /// Serves the backend; reads of files do not need it.
    _runtime: tokio::runtime::Runtime,
}

fn recorded(version: &str) -> Recorded {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let registry = prometheus::Registry::new();
    let config = BackendConfig::local(golden(&format!("blocks/{version}")));
    let backend = runtime.block_on(Backend::open(&config, &registry)).unwrap();
    let metas = BLOCKS
        .iter()
        .filter(|block| block.starts_with(&format!("blocks/{version}/")))
        .map(|block| Arc::new(meta_and_file(block).0))
        .collect();
    Recorded {
        backend,
        cache: Cache::new(64 * 1024 * 1024, &registry).unwrap(),
        metas,
        _runtime: runtime,
    }
}

#[test]
fn recorded_answers_by_id_equal_what_the_blocks_hold() {
    let cases: Json =
        serde_json::from_slice(&std::fs::read(golden("cases.json")).unwrap()).unwrap();
    let cases: Vec<&Json> = cases["cases"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| case["case"]["kind"] == "trace")
        .collect();
    assert_eq!(cases.len(), 7);
    for version in ["vparquet4", "vparquet5"] {
        let blocks = recorded(version);
        for case in &cases {
            let expected = case["expect"]["spans"].as_array().unwrap();
            let id = expected[0]["span"]["traceId"].as_str().unwrap();
            let id = TraceId::from_padded(&STANDARD.decode(id).unwrap());
            let mut spans = BTreeMap::new();
            for meta in &blocks.metas {
                let stats = ReadStats::new();
                let found = find_trace(&blocks.backend, &blocks.cache, meta, &id, &stats).unwrap();
                if let Some(bytes) = found {
                    spans.extend(api_spans(&Trace::decode(bytes).unwrap()));
                    assert!(stats.bytes() > 0 && stats.requests() > 0);
                }
            }
            let name = &case["case"]["name"];
            assert_eq!(spans.len(), expected.len(), "{version} {name}");
            for want in expected {
                let span = want["span"]["spanId"].as_str().unwrap();
                let got = normalized(&spans[span]);
                assert_eq!(got, parsed(want), "{version} {name} {span}");
            }
        }
    }
}

#[test]
fn every_trace_is_found_by_its_id_and_no_other() {
    for version in ["vparquet4", "vparquet5"] {
        let blocks = recorded(version);
        for meta in &blocks.metas {
            let stats = ReadStats::new();
            let find = |id: &TraceId| {
                find_trace(&blocks.backend, &blocks.cache, meta, id, &stats).unwrap()
            };
            let reader = super::BlockReader::open(
                &blocks.backend,
                &blocks.cache,
                Arc::clone(meta),
                stats.clone(),
            )
            .unwrap();
            let mut count = 0;
            for trace in reader.traces(ReadStats::new()) {
                let (id, bytes) = trace.unwrap();
                assert_eq!(find(&id), Some(bytes), "{id}");
                let mut other = *id.as_bytes();
                other[9] ^= 1;
                assert_eq!(find(&TraceId::from_bytes(other)), None);
                count += 1;
            }
            assert_eq!(count, meta.total_objects);
        }
    }
}
