//! Queries that want more memory than they may have.

use prost::Message as _;
use tempo_proto::opentelemetry::proto::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use tempo_testkit::{
    http_client::{self, Client, encode},
    process::{Options, Tempo},
};

use crate::support::{binary, unix_seconds};

/// Of each a series, over as many intervals as a query may have: about 1.6 GB of points.
const SERIES: u64 = 20_000;
const INTERVALS: u64 = 10_000;

/// Far less than what the queries ask for; more than what their spans, the bounds of their series
/// and the jobs that run at once take.
const MAX_RESIDENT_BYTES: u64 = 1 << 30;
const QUERIES: usize = 6;

fn spans(now: u64) -> Vec<u8> {
    let spans = (0..SERIES).map(|number| {
        let start = (now - 120) * 1_000_000_000 + number;
        let mut trace_id = vec![7; 16];
        trace_id[8..].copy_from_slice(&number.to_be_bytes());
        Span {
            trace_id,
            span_id: (number + 1).to_be_bytes().to_vec(),
            name: "order".to_owned(),
            start_time_unix_nano: start,
            end_time_unix_nano: start + 1_000_000,
            attributes: vec![KeyValue {
                key: "order".to_owned(),
                value: Some(AnyValue {
                    value: Some(Value::StringValue(format!("order {number}"))),
                }),
                ..KeyValue::default()
            }],
            ..Span::default()
        }
    });
    let scope_spans = vec![ScopeSpans {
        spans: spans.collect(),
        ..ScopeSpans::default()
    }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans,
            ..ResourceSpans::default()
        }],
    }
    .encode_to_vec()
}

#[test]
fn a_query_over_its_memory_is_refused_and_the_process_stays_small() {
    let options = Options {
        extra_yaml: "overrides:\n  defaults:\n    ingestion:\n      rate_limit_bytes: 100000000\n      burst_size_bytes: 100000000\n      max_traces_per_user: 0\n"
            .to_owned(),
        ..Options::default()
    };
    let mut tempo = Tempo::configure(&binary(), &options).unwrap();
    tempo.start().unwrap();
    let now = unix_seconds();
    let mut client = Client::connect(&tempo.otlp_http).unwrap();
    let headers = [("content-type", "application/x-protobuf")];
    let answer = client
        .request("POST", "/v1/traces", &headers, &spans(now))
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());

    let ask = |query: &str, seconds: u64| {
        let path = format!(
            "/api/metrics/query_range?q={}&start={}&end={now}&step=1s",
            encode(query),
            now - seconds
        );
        http_client::get(&tempo.http, &path).unwrap()
    };
    // Alone it is over its own bound.
    let alone = ask("{} | rate() by (span.order)", INTERVALS - 10);
    assert_eq!(alone.status, 422, "{}", alone.text());
    // Several at once, as an impatient user would.
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..QUERIES)
            .map(|_| scope.spawn(|| ask("{} | rate() by (span.order)", INTERVALS - 10)))
            .collect();
        for asked in asking {
            let answer = asked.join().unwrap();
            let text = answer.text();
            // Over its own bound, or over that of all.
            assert!(
                [422, 429].contains(&answer.status),
                "{}: {text}",
                answer.status
            );
            assert!(
                text.contains("series") && text.contains("longer step"),
                "{text}"
            );
        }
    });
    let resident = tempo.memory_bytes("VmHWM").unwrap();
    println!("at most {} MiB were resident", resident >> 20);
    assert!(resident < MAX_RESIDENT_BYTES, "{} MiB", resident >> 20);

    // What fits is answered afterwards.
    let answer = ask("{} | rate()", INTERVALS - 10);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = ask("{} | count_over_time() by (span.order) | topk(3)", 60);
    assert!(answer.status == 200, "{}", answer.text());
}
