//! Answers of the search, tag name and tag value endpoints.

use std::collections::HashMap;

use tempo_proto::tempopb::{
    MetadataMetrics, SearchMetrics, SearchResponse, SearchTagValuesResponse,
    SearchTagValuesV2Response, SearchTagsResponse, SearchTagsV2Response, Span, SpanSet,
    TraceSearchMetadata,
};

use super::{
    value::key_value,
    writer::{Object, list, quoted_integer, text},
};

/// About what a trace takes with three spans; a longer answer grows.
const BYTES_PER_TRACE: usize = 1024;

/// The body of `/api/search`. `spanSet` is the first of `spanSets`, whatever the message says.
pub fn search(response: &SearchResponse) -> Vec<u8> {
    let mut out = Vec::with_capacity(BYTES_PER_TRACE * (response.traces.len() + 1));
    let mut object = Object::open(&mut out);
    list(object.member("traces"), &response.traces, write_trace);
    if let Some(metrics) = &response.metrics {
        write_search_metrics(object.member("metrics"), metrics);
    }
    object.close();
    out
}

fn write_trace(out: &mut Vec<u8>, trace: &TraceSearchMetadata) {
    let mut object = Object::open(out);
    object.text("traceID", trace.trace_id.as_bytes());
    object.text("rootServiceName", trace.root_service_name.as_bytes());
    object.text("rootTraceName", trace.root_trace_name.as_bytes());
    object.long("startTimeUnixNano", trace.start_time_unix_nano);
    object.number("durationMs", trace.duration_ms);
    if let [first, others @ ..] = trace.span_sets.as_slice() {
        let out = object.member("spanSet");
        let start = out.len();
        write_span_set(out, first);
        let first = start..out.len();
        let out = object.member("spanSets");
        out.push(b'[');
        out.extend_from_within(first);
        for set in others {
            out.push(b',');
            write_span_set(out, set);
        }
        out.push(b']');
    }
    if !trace.service_stats.is_empty() {
        let mut stats = Object::open(object.member("serviceStats"));
        for (service, counts) in &trace.service_stats {
            let mut entry = Object::open(stats.any_member(service.as_bytes()));
            entry.number("spanCount", counts.span_count);
            entry.number("errorCount", counts.error_count);
            entry.close();
        }
        stats.close();
    }
    object.close();
}

fn write_span_set(out: &mut Vec<u8>, set: &SpanSet) {
    let mut object = Object::open(out);
    if !set.spans.is_empty() {
        list(object.member("spans"), &set.spans, write_span);
    }
    object.number("matched", set.matched);
    if !set.attributes.is_empty() {
        list(object.member("attributes"), &set.attributes, key_value);
    }
    object.close();
}

fn write_span(out: &mut Vec<u8>, span: &Span) {
    let mut object = Object::open(out);
    object.text("spanID", span.span_id.as_bytes());
    object.text("name", span.name.as_bytes());
    object.long("startTimeUnixNano", span.start_time_unix_nano);
    object.long("durationNanos", span.duration_nanos);
    if !span.attributes.is_empty() {
        list(object.member("attributes"), &span.attributes, key_value);
    }
    object.close();
}

pub(super) fn write_search_metrics(out: &mut Vec<u8>, metrics: &SearchMetrics) {
    let mut object = Object::open(out);
    object.number("inspectedTraces", metrics.inspected_traces);
    object.long("inspectedBytes", metrics.inspected_bytes);
    object.number("totalBlocks", metrics.total_blocks);
    object.number("completedJobs", metrics.completed_jobs);
    object.number("totalJobs", metrics.total_jobs);
    object.long("totalBlockBytes", metrics.total_block_bytes);
    object.long("inspectedSpans", metrics.inspected_spans);
    object.long("backendReads", metrics.backend_reads);
    object.long("backendBytes", metrics.backend_bytes);
    write_additional(&mut object, &metrics.additional_metrics);
    object.close();
}

fn write_metadata_metrics(out: &mut Vec<u8>, metrics: &MetadataMetrics) {
    let mut object = Object::open(out);
    object.long("inspectedBytes", metrics.inspected_bytes);
    object.number("totalJobs", metrics.total_jobs);
    object.number("completedJobs", metrics.completed_jobs);
    object.number("totalBlocks", metrics.total_blocks);
    object.long("totalBlockBytes", metrics.total_block_bytes);
    object.long("backendReads", metrics.backend_reads);
    object.long("backendBytes", metrics.backend_bytes);
    write_additional(&mut object, &metrics.additional_metrics);
    object.close();
}

fn write_additional(object: &mut Object<'_>, metrics: &HashMap<String, i64>) {
    if metrics.is_empty() {
        return;
    }
    let mut inner = Object::open(object.member("additionalMetrics"));
    for (name, value) in sorted(metrics) {
        quoted_integer(inner.any_member(name.as_bytes()), *value);
    }
    inner.close();
}

fn sorted<V>(map: &HashMap<String, V>) -> Vec<(&String, &V)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries
}

fn write_texts(out: &mut Vec<u8>, texts: &[String]) {
    list(out, texts, |out, each| text(out, each.as_bytes()));
}

fn named_list(
    name: &str,
    metrics: Option<&MetadataMetrics>,
    write: impl FnOnce(&mut Vec<u8>),
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    write(object.member(name));
    if let Some(metrics) = metrics {
        write_metadata_metrics(object.member("metrics"), metrics);
    }
    object.close();
    out
}

/// The body of `/api/search/tags`.
pub fn tag_names_v1(response: &SearchTagsResponse) -> Vec<u8> {
    named_list("tagNames", response.metrics.as_ref(), |out| {
        write_texts(out, &response.tag_names);
    })
}

/// The body of `/api/v2/search/tags`.
pub fn tag_names_v2(response: &SearchTagsV2Response) -> Vec<u8> {
    named_list("scopes", response.metrics.as_ref(), |out| {
        list(out, &response.scopes, |out, scope| {
            let mut object = Object::open(out);
            object.text("name", scope.name.as_bytes());
            write_texts(object.member("tags"), &scope.tags);
            object.close();
        });
    })
}

/// The body of `/api/search/tag/{name}/values`.
pub fn tag_values_v1(response: &SearchTagValuesResponse) -> Vec<u8> {
    named_list("tagValues", response.metrics.as_ref(), |out| {
        write_texts(out, &response.tag_values);
    })
}

/// The body of `/api/v2/search/tag/{name}/values`.
pub fn tag_values_v2(response: &SearchTagValuesV2Response) -> Vec<u8> {
    named_list("tagValues", response.metrics.as_ref(), |out| {
        list(out, &response.tag_values, |out, value| {
            let mut object = Object::open(out);
            object.text("type", value.r#type.as_bytes());
            object.text("value", value.value.as_bytes());
            object.close();
        });
    })
}

#[cfg(test)]
mod tests {
    use tempo_proto::{
        opentelemetry::proto::common::v1::{AnyValue, KeyValue, any_value::Value},
        tempopb::{SearchTagsV2Scope, ServiceStats, TagValue},
    };

    use super::*;

    fn text_of(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn search_answers() {
        let set = |name: &str| SpanSet {
            spans: vec![Span {
                span_id: "563d623c76514f8e".to_owned(),
                name: name.to_owned(),
                start_time_unix_nano: 1_684_778_327_735_077_898,
                duration_nanos: 446_979_497,
                attributes: vec![KeyValue {
                    key: "status".to_owned(),
                    value: Some(AnyValue {
                        value: Some(Value::StringValue("error".to_owned())),
                    }),
                    ..KeyValue::default()
                }],
            }],
            matched: 1,
            attributes: Vec::new(),
        };
        let response = SearchResponse {
            traces: vec![TraceSearchMetadata {
                trace_id: "2f3e0cee77ae5dc9c17ade3689eb2e54".to_owned(),
                root_service_name: "shop".to_owned(),
                root_trace_name: String::new(),
                start_time_unix_nano: 1_684_778_327_699_392_724,
                duration_ms: 557,
                span_set: None,
                span_sets: vec![set("q")],
                service_stats: [
                    (
                        "shop".to_owned(),
                        ServiceStats {
                            span_count: 3,
                            error_count: 1,
                        },
                    ),
                    (
                        "db".to_owned(),
                        ServiceStats {
                            span_count: 1,
                            error_count: 0,
                        },
                    ),
                ]
                .into(),
            }],
            metrics: Some(SearchMetrics {
                inspected_traces: 3100,
                inspected_bytes: 3_811_736,
                total_jobs: 11,
                ..SearchMetrics::default()
            }),
        };
        let span_set = concat!(
            r#"{"spans":[{"spanID":"563d623c76514f8e","name":"q","#,
            r#""startTimeUnixNano":"1684778327735077898","durationNanos":"446979497","#,
            r#""attributes":[{"key":"status","value":{"stringValue":"error"}}]}],"matched":1}"#,
        );
        assert_eq!(
            text_of(search(&response)),
            format!(
                concat!(
                    r#"{{"traces":[{{"traceID":"2f3e0cee77ae5dc9c17ade3689eb2e54","#,
                    r#""rootServiceName":"shop","startTimeUnixNano":"1684778327699392724","#,
                    r#""durationMs":557,"spanSet":{0},"spanSets":[{0}],"#,
                    r#""serviceStats":{{"db":{{"spanCount":1}},"#,
                    r#""shop":{{"spanCount":3,"errorCount":1}}}}}}],"#,
                    r#""metrics":{{"inspectedTraces":3100,"inspectedBytes":"3811736","totalJobs":11}}}}"#,
                ),
                span_set
            )
        );
        let nothing = SearchResponse {
            traces: Vec::new(),
            metrics: Some(SearchMetrics::default()),
        };
        assert_eq!(text_of(search(&nothing)), r#"{"traces":[],"metrics":{}}"#);
    }

    #[test]
    fn tag_answers() {
        let metrics = Some(MetadataMetrics {
            inspected_bytes: 630_188,
            ..MetadataMetrics::default()
        });
        assert_eq!(
            text_of(tag_names_v1(&SearchTagsResponse {
                tag_names: vec!["a".to_owned(), "b<c".to_owned()],
                metrics: metrics.clone(),
            })),
            r#"{"tagNames":["a","b\u003cc"],"metrics":{"inspectedBytes":"630188"}}"#
        );
        assert_eq!(
            text_of(tag_names_v2(&SearchTagsV2Response {
                scopes: vec![SearchTagsV2Scope {
                    name: "span".to_owned(),
                    tags: vec!["a".to_owned()],
                }],
                metrics: None,
            })),
            r#"{"scopes":[{"name":"span","tags":["a"]}]}"#
        );
        assert_eq!(
            text_of(tag_values_v1(&SearchTagValuesResponse::default())),
            r#"{"tagValues":[]}"#
        );
        assert_eq!(
            text_of(tag_values_v2(&SearchTagValuesV2Response {
                tag_values: vec![
                    TagValue {
                        r#type: "string".to_owned(),
                        value: "x".to_owned(),
                    },
                    TagValue {
                        r#type: "string".to_owned(),
                        value: String::new(),
                    },
                ],
                metrics,
            })),
            concat!(
                r#"{"tagValues":[{"type":"string","value":"x"},{"type":"string"}],"#,
                r#""metrics":{"inspectedBytes":"630188"}}"#,
            )
        );
    }
}
