//! Answers of the endpoints for queries over time.

use tempo_proto::tempopb::{
    Exemplar, InstantSeries, PartialStatus, QueryInstantResponse, QueryRangeResponse, Sample,
    SearchMetrics, TimeSeries,
};

use super::{
    search::write_search_metrics,
    value::key_value,
    writer::{Object, double, list, quoted_integer, text},
};

/// The body of `/api/metrics/query_range`.
pub fn query_range(response: &QueryRangeResponse) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    list(object.member("series"), &response.series, write_series);
    write_end(
        &mut object,
        response.metrics.as_ref(),
        response.status,
        &response.message,
    );
    object.close();
    out
}

/// The body of `/api/metrics/query`.
pub fn query_instant(response: &QueryInstantResponse) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    if !response.series.is_empty() {
        list(object.member("series"), &response.series, write_instant);
    }
    write_end(
        &mut object,
        response.metrics.as_ref(),
        response.status,
        &response.message,
    );
    object.close();
    out
}

fn write_end(object: &mut Object<'_>, metrics: Option<&SearchMetrics>, status: i32, message: &str) {
    if let Some(metrics) = metrics {
        write_search_metrics(object.member("metrics"), metrics);
    }
    if status == PartialStatus::Partial as i32 {
        text(object.member("status"), b"PARTIAL");
    }
    object.text("message", message.as_bytes());
}

fn write_series(out: &mut Vec<u8>, series: &TimeSeries) {
    let mut object = Object::open(out);
    if !series.labels.is_empty() {
        list(object.member("labels"), &series.labels, key_value);
    }
    if !series.samples.is_empty() {
        list(object.member("samples"), &series.samples, write_sample);
    }
    if !series.exemplars.is_empty() {
        list(
            object.member("exemplars"),
            &series.exemplars,
            write_exemplar,
        );
    }
    object.close();
}

fn write_instant(out: &mut Vec<u8>, series: &InstantSeries) {
    let mut object = Object::open(out);
    if !series.labels.is_empty() {
        list(object.member("labels"), &series.labels, key_value);
    }
    write_value(&mut object, series.value);
    object.close();
}

fn write_sample(out: &mut Vec<u8>, sample: &Sample) {
    let mut object = Object::open(out);
    write_time(&mut object, sample.timestamp_ms);
    write_value(&mut object, sample.value);
    object.close();
}

fn write_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    let mut object = Object::open(out);
    if !exemplar.labels.is_empty() {
        list(object.member("labels"), &exemplar.labels, key_value);
    }
    write_value(&mut object, exemplar.value);
    write_time(&mut object, exemplar.timestamp_ms);
    object.close();
}

fn write_time(object: &mut Object<'_>, timestamp_ms: i64) {
    if timestamp_ms != 0 {
        quoted_integer(object.member("timestampMs"), timestamp_ms);
    }
}

fn write_value(object: &mut Object<'_>, value: f64) {
    if value != 0.0 {
        double(object.member("value"), value);
    }
}

#[cfg(test)]
mod tests {
    use tempo_proto::opentelemetry::proto::common::v1::{AnyValue, KeyValue, any_value::Value};

    use super::*;

    fn label(key: &str, value: Value) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        }
    }

    fn print(body: Vec<u8>) -> String {
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn ranges_print_as_tempo_prints_them() {
        let sample = |timestamp_ms, value| Sample {
            value,
            timestamp_ms,
        };
        let response = QueryRangeResponse {
            series: vec![TimeSeries {
                labels: vec![label(
                    "resource.service.name",
                    Value::StringValue("shop".to_owned()),
                )],
                samples: vec![
                    sample(1_700_000_015_000, 1.5),
                    sample(1_700_000_030_000, 0.0),
                    sample(1_700_000_045_000, f64::INFINITY),
                ],
                exemplars: vec![Exemplar {
                    labels: vec![label("trace:id", Value::StringValue("2f3e".to_owned()))],
                    value: 0.5,
                    timestamp_ms: 1_700_000_012_345,
                }],
            }],
            metrics: Some(SearchMetrics {
                completed_jobs: 3,
                total_jobs: 3,
                inspected_spans: 17,
                ..SearchMetrics::default()
            }),
            status: PartialStatus::Partial as i32,
            message: "too many".to_owned(),
        };
        assert_eq!(
            print(query_range(&response)),
            concat!(
                r#"{"series":[{"labels":[{"key":"resource.service.name","value":{"stringValue":"shop"}}],"#,
                r#""samples":[{"timestampMs":"1700000015000","value":1.5},{"timestampMs":"1700000030000"},"#,
                r#"{"timestampMs":"1700000045000","value":"Infinity"}],"#,
                r#""exemplars":[{"labels":[{"key":"trace:id","value":{"stringValue":"2f3e"}}],"#,
                r#""value":0.5,"timestampMs":"1700000012345"}]}],"#,
                r#""metrics":{"completedJobs":3,"totalJobs":3,"inspectedSpans":"17"},"#,
                r#""status":"PARTIAL","message":"too many"}"#,
            )
        );
        let nothing = QueryRangeResponse {
            metrics: Some(SearchMetrics::default()),
            ..QueryRangeResponse::default()
        };
        assert_eq!(
            print(query_range(&nothing)),
            r#"{"series":[],"metrics":{}}"#
        );
    }

    #[test]
    fn instants_print_as_tempo_prints_them() {
        let response = QueryInstantResponse {
            series: vec![InstantSeries {
                labels: vec![label("p", Value::DoubleValue(0.5))],
                value: 1.5,
            }],
            metrics: Some(SearchMetrics::default()),
            ..QueryInstantResponse::default()
        };
        assert_eq!(
            print(query_instant(&response)),
            r#"{"series":[{"labels":[{"key":"p","value":{"doubleValue":0.5}}],"value":1.5}],"metrics":{}}"#
        );
        let nothing = QueryInstantResponse {
            metrics: Some(SearchMetrics::default()),
            ..QueryInstantResponse::default()
        };
        assert_eq!(print(query_instant(&nothing)), r#"{"metrics":{}}"#);
    }
}
