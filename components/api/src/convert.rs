//! What the engine finds, as messages of the API.

use std::sync::Arc;

use tempo_engine::{
    FoundSpan, FoundSpanSet, FoundTrace, TagValue, Value,
    metrics::{Label, MetricsAnswer, Series},
};
use tempo_model::to_hex;
use tempo_proto::{
    opentelemetry::proto::common::v1::{
        AnyValue, ArrayValue as ArrayMessage, KeyValue, any_value::Value as AnyOf,
    },
    tempopb::{
        self, Exemplar, InstantSeries, MetadataMetrics, QueryInstantResponse, QueryRangeResponse,
        Sample, SearchTagValuesV2Response, SearchTagsV2Response, SearchTagsV2Scope, ServiceStats,
        Span, SpanSet, TimeSeries, TraceSearchMetadata,
    },
};
use tempo_table::{ArrayValue, AttributeScope};
use tempo_traceql::{Static, duration::GoDuration};

const NANOS_PER_MILLI: u64 = 1_000_000;

/// A trace that a search found. Its `spanSet` is not said: it is the first of `spanSets`.
pub fn search_result(found: FoundTrace) -> TraceSearchMetadata {
    let span_sets: Vec<SpanSet> = found.span_sets.into_iter().map(span_set).collect();
    let service_stats = found
        .service_stats
        .into_iter()
        .map(|service| {
            let stats = ServiceStats {
                span_count: service.spans,
                error_count: service.errors,
            };
            (service.name.to_string(), stats)
        })
        .collect();
    TraceSearchMetadata {
        trace_id: found.trace_id.to_short_hex(),
        root_service_name: found.root_service_name.to_string(),
        root_trace_name: found.root_trace_name.to_string(),
        start_time_unix_nano: found.start_unix_nano,
        // The field's width; Tempo cuts longer durations, too.
        duration_ms: (found.duration_nano / NANOS_PER_MILLI) as u32,
        span_set: None,
        span_sets,
        service_stats,
    }
}

/// The tag names of one table, after `inspected_bytes` were read for them.
pub fn tag_names(
    found: Vec<(AttributeScope, Vec<Arc<str>>)>,
    inspected_bytes: u64,
) -> SearchTagsV2Response {
    let scopes = found
        .into_iter()
        .map(|(scope, names)| SearchTagsV2Scope {
            name: scope_name(scope).to_owned(),
            tags: names.iter().map(ToString::to_string).collect(),
        })
        .collect();
    SearchTagsV2Response {
        scopes,
        metrics: Some(MetadataMetrics {
            inspected_bytes,
            ..MetadataMetrics::default()
        }),
    }
}

/// The values of a tag in one table, after `inspected_bytes` were read for them.
pub fn tag_values(found: Vec<TagValue>, inspected_bytes: u64) -> SearchTagValuesV2Response {
    let tag_values = found
        .into_iter()
        .map(|value| tempopb::TagValue {
            r#type: value.value_type.name().to_owned(),
            value: value.value.to_string(),
        })
        .collect();
    SearchTagValuesV2Response {
        tag_values,
        metrics: Some(MetadataMetrics {
            inspected_bytes,
            ..MetadataMetrics::default()
        }),
    }
}

/// The series of a query over a range.
pub fn range_series(answer: MetricsAnswer) -> Vec<TimeSeries> {
    let grid = answer.grid;
    let one = |series: Series| TimeSeries {
        samples: series
            .values
            .iter()
            .enumerate()
            .filter(|(_, value)| !value.is_nan())
            .map(|(interval, &value)| Sample {
                value,
                timestamp_ms: grid.timestamp_ms(interval),
            })
            .collect(),
        labels: labels(series.labels),
        exemplars: series
            .exemplars
            .into_iter()
            .map(|exemplar| Exemplar {
                labels: labels(exemplar.labels.iter().cloned()),
                value: exemplar.value,
                timestamp_ms: exemplar.timestamp_ms,
            })
            .collect(),
    };
    answer.series.into_iter().map(one).collect()
}

/// The same answer as one value per series: its first sample.
pub fn instant_response(range: QueryRangeResponse) -> QueryInstantResponse {
    let one = |series: TimeSeries| {
        Some(InstantSeries {
            value: series.samples.first()?.value,
            labels: series.labels,
        })
    };
    QueryInstantResponse {
        series: range.series.into_iter().filter_map(one).collect(),
        metrics: range.metrics,
        status: range.status,
        message: range.message,
    }
}

fn labels(labels: impl IntoIterator<Item = Label>) -> Vec<KeyValue> {
    attributes(labels.into_iter().map(|label| (label.name, label.value)))
}

fn scope_name(scope: AttributeScope) -> &'static str {
    match scope {
        AttributeScope::Resource => "resource",
        AttributeScope::Instrumentation => "instrumentation",
        AttributeScope::Span => "span",
        AttributeScope::Event => "event",
        AttributeScope::Link => "link",
    }
}

fn span_set(found: FoundSpanSet) -> SpanSet {
    SpanSet {
        spans: found.spans.into_iter().map(span).collect(),
        matched: found.matched,
        attributes: attributes(found.attributes),
    }
}

fn span(found: FoundSpan) -> Span {
    Span {
        span_id: to_hex(&found.span_id),
        name: found.name.map(|name| name.to_string()).unwrap_or_default(),
        start_time_unix_nano: found.start_unix_nano,
        duration_nanos: found.duration_nano,
        attributes: attributes(found.attributes),
    }
}

fn attributes(found: impl IntoIterator<Item = (Arc<str>, Value)>) -> Vec<KeyValue> {
    found
        .into_iter()
        .map(|(name, value)| KeyValue {
            key: name.to_string(),
            value: Some(any_value(value)),
            ..KeyValue::default()
        })
        .collect()
}

/// What has no form of its own in OTLP is told as TraceQL writes it.
fn any_value(value: Value) -> AnyValue {
    let text = |text: String| AnyOf::StringValue(text);
    let value = match value {
        Value::Nil => text("nil".to_owned()),
        Value::String(value) => text(value.to_string()),
        Value::Int(value) => AnyOf::IntValue(value),
        Value::Float(value) => AnyOf::DoubleValue(value),
        Value::Bool(value) => AnyOf::BoolValue(value),
        Value::Duration(nanos) => text(GoDuration { nanos }.to_string()),
        Value::Status(status) => text(Static::Status(status).to_string()),
        Value::Kind(kind) => text(Static::Kind(kind).to_string()),
        Value::Array(array) => AnyOf::ArrayValue(array_message(array)),
    };
    AnyValue { value: Some(value) }
}

fn array_message(array: ArrayValue) -> ArrayMessage {
    fn of<T>(values: Vec<T>, any: impl Fn(T) -> AnyOf) -> Vec<AnyValue> {
        values
            .into_iter()
            .map(|value| AnyValue {
                value: Some(any(value)),
            })
            .collect()
    }
    ArrayMessage {
        values: match array {
            ArrayValue::Empty => Vec::new(),
            ArrayValue::Strings(values) => {
                of(values, |value| AnyOf::StringValue(value.to_string()))
            }
            ArrayValue::Ints(values) => of(values, AnyOf::IntValue),
            ArrayValue::Floats(values) => of(values, AnyOf::DoubleValue),
            ArrayValue::Bools(values) => of(values, AnyOf::BoolValue),
        },
    }
}

#[cfg(test)]
mod tests {
    use tempo_engine::FoundService;
    use tempo_model::TraceId;
    use tempo_proto::tempopb::{SearchMetrics, SearchResponse};
    use tempo_traceql::ast::{Kind, Status};

    use super::*;
    use crate::json;

    #[test]
    fn what_is_found_prints_as_tempo_prints_it() {
        let named = |name: &str, value| (Arc::from(name), value);
        let found = FoundTrace {
            trace_id: TraceId::from_padded(&[1, 2]),
            root_service_name: "shop".into(),
            root_trace_name: "GET /".into(),
            start_unix_nano: 5,
            duration_nano: 1_999_999,
            service_stats: vec![FoundService {
                name: "shop".into(),
                spans: 2,
                errors: 0,
            }],
            span_sets: vec![FoundSpanSet {
                spans: vec![FoundSpan {
                    span_id: [0, 0, 0, 0, 0, 0, 1, 255],
                    start_unix_nano: 6,
                    duration_nano: 0,
                    name: None,
                    attributes: vec![
                        named("a", Value::Nil),
                        named("d", Value::Duration(1_500_000_000)),
                        named("status", Value::Status(Status::Error)),
                        named("kind", Value::Kind(Kind::Server)),
                        named("l", Value::Array(ArrayValue::Ints(vec![1, 2]))),
                    ],
                }],
                matched: 7,
                attributes: vec![named("count()", Value::Int(7))],
            }],
        };
        let response = SearchResponse {
            traces: vec![search_result(found)],
            metrics: Some(SearchMetrics::default()),
        };
        let set = concat!(
            r#"{"spans":[{"spanID":"00000000000001ff","startTimeUnixNano":"6","attributes":["#,
            r#"{"key":"a","value":{"stringValue":"nil"}},"#,
            r#"{"key":"d","value":{"stringValue":"1.5s"}},"#,
            r#"{"key":"status","value":{"stringValue":"error"}},"#,
            r#"{"key":"kind","value":{"stringValue":"server"}},"#,
            r#"{"key":"l","value":{"arrayValue":{"values":[{"intValue":"1"},{"intValue":"2"}]}}}]}],"#,
            r#""matched":7,"attributes":[{"key":"count()","value":{"intValue":"7"}}]}"#,
        );
        let want = format!(
            concat!(
                r#"{{"traces":[{{"traceID":"102","rootServiceName":"shop","rootTraceName":"GET /","#,
                r#""startTimeUnixNano":"5","durationMs":1,"spanSet":{0},"spanSets":[{0}],"#,
                r#""serviceStats":{{"shop":{{"spanCount":2}}}}}}],"metrics":{{}}}}"#,
            ),
            set
        );
        assert_eq!(String::from_utf8(json::search(&response)).unwrap(), want);
    }
}
