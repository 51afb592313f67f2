//! Two traces, found and compared.

use tempo_api::job::{Job, JobOutput, TraceParts};
use tempo_query_frontend::{Config, ReadLimits};

use crate::support::{Stack, found_trace, nothing, trace};

const URL: &str = "/api/v2/traces/diff";

fn body(format: &str) -> String {
    format!(r#"{{"base":{{"traceId":"a"}},"compare":{{"traceId":"b"}},"format":"{format}"}}"#)
}

/// Answers with trace `a` of one span, `b` of two, and no other.
fn answer(job: &Job) -> JobOutput {
    let Job::FindTrace { trace_id, .. } = job else {
        panic!("{job:?}");
    };
    match trace_id.to_short_hex().as_str() {
        "a" => found_trace(vec![trace(&[1])]),
        "b" => found_trace(vec![trace(&[1, 2])]),
        _ => JobOutput::Trace(TraceParts::default()),
    }
}

#[tokio::test]
async fn both_traces_are_found_and_compared() {
    let stack = Stack::new(Config::default());
    let seen = stack.querier(|_, job| Ok(answer(job)));
    let reply = stack.post(URL, body("")).await;
    assert_eq!(
        (reply.status.as_u16(), reply.content_type()),
        (200, "application/json")
    );
    let asked = seen.take();
    for id in ["a", "b"] {
        let is_of = |job: &Job| matches!(job, Job::FindTrace { trace_id, .. } if trace_id.to_short_hex() == id);
        assert!(asked.iter().any(|(_, job)| is_of(job)), "{id}");
    }
    let patch: serde_json::Value = serde_json::from_str(reply.text()).unwrap();
    assert_eq!(patch["version"], "trace-patch-v0");
    assert_eq!(patch["stats"]["spanCountA"], 1);
    assert_eq!(patch["stats"]["spanCountB"], 2);
    for format in ["trace-summary-v0-native", "trace-summary-v0-composed"] {
        let reply = stack.post(URL, body(format)).await;
        assert!(
            reply
                .text()
                .starts_with(&format!(r#"{{"version":"{format}""#))
        );
    }
}

#[tokio::test]
async fn what_cannot_be_compared_is_refused() {
    let stack = Stack::new(Config::default());
    let _querier = stack.querier(|_, job| Ok(answer(job)));
    assert_eq!(stack.get(URL).await.pair(), (405, "Method Not Allowed"));
    assert_eq!(
        stack.post(URL, "{}").await.pair(),
        (400, "base.traceId is required")
    );
    let unknown = r#"{"base":{"traceId":"a"},"compare":{"traceId":"c"}}"#;
    assert_eq!(stack.post(URL, unknown).await.pair(), (404, "Not Found"));
    assert_eq!(
        stack.post(URL, vec![b' '; 16 * 1024 + 1]).await.pair(),
        (413, "http: request body too large")
    );
    let stack = Stack::new(Config::default());
    let _querier = stack.querier(|_, job| nothing(job));
    assert_eq!(stack.post(URL, body("")).await.pair(), (404, "Not Found"));
}

#[tokio::test]
async fn two_traces_share_the_limit_of_one() {
    let (one, two) = (trace(&[1]).len(), trace(&[1, 2]).len());
    let limited = |max_bytes_per_trace| {
        let limits = ReadLimits {
            max_bytes_per_trace,
            ..ReadLimits::default()
        };
        let stack = Stack::with_limits(Config::default(), limits);
        let _ = stack.querier(|_, job| Ok(answer(job)));
        stack
    };
    let reply = limited(two).post(URL, body("")).await;
    let want = format!(
        "trace diff input too large: combined trace size {} bytes exceeds limit {two} bytes",
        one + two
    );
    assert_eq!(reply.pair(), (429, want.as_str()));
    assert_eq!(limited(one + two).post(URL, body("")).await.status, 200);
    // The second does not fit alone, and is cut.
    let reply = limited(one + 1).post(URL, body("")).await;
    assert_eq!(reply.status, 422);
    assert!(reply.text().contains("partial traces cannot be diffed"));
}
