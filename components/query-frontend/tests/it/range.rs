//! Queries over time.

use std::time::Duration;

use serde_json::{Value, json};
use tempo_api::job::{DataPlace, Job, JobError, JobOutput, JobResult};
use tempo_proto::tempopb::{
    QueryInstantRequest, QueryRangeRequest, QueryRangeResponse,
    streaming_querier_client::StreamingQuerierClient,
};
use tempo_query_frontend::{Config, MetricsConfig, ReadLimits};
use tempo_testkit::http_client::encode;
use tonic::{Code, Status, Streaming};

use crate::support::{NOW, Stack, counted, nothing};

const SECOND: u64 = 1_000_000_000;

/// A querier that finds the same spans everywhere, which start at these seconds.
fn spans_everywhere(seconds: Vec<u64>) -> impl Fn(&str, &Job) -> JobResult {
    move |_, job| match job {
        Job::QueryRange {
            request, window, ..
        } => Ok(JobOutput::QueryRange(counted(request, *window, &seconds))),
        other => nothing(other),
    }
}

fn body(reply: &crate::support::Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or_else(|_| panic!("{}", reply.text()))
}

/// Seconds and values of the first series.
fn samples(answer: &Value) -> Vec<(u64, f64)> {
    let Some(samples) = answer["series"][0]["samples"].as_array() else {
        return Vec::new();
    };
    let sample = |sample: &Value| {
        let ms: u64 = sample["timestampMs"].as_str().unwrap().parse().unwrap();
        (ms / 1000, sample["value"].as_f64().unwrap_or(0.0))
    };
    samples.iter().map(sample).collect()
}

fn url(query: &str, parameters: &str) -> String {
    format!("/api/metrics/query_range?q={}&{parameters}", encode(query))
}

#[tokio::test]
async fn time_is_divided_between_blocks_and_live_data_at_one_moment() {
    let stack = Stack::new(Config::default());
    stack.add_block("single-tenant", 1_000, 2);
    let now = u64::from(NOW);
    let cutoff = now - 900;
    // The last second of blocks, and the first of live data.
    let seconds = vec![cutoff - 70, cutoff, cutoff + 1, cutoff + 100];
    let seen = stack.querier(spans_everywhere(seconds));
    let (start, end_of_query) = (cutoff - 100, cutoff + 200);
    let reply = stack
        .get(&url(
            "{ } | count_over_time()",
            &format!("start={start}&end={end_of_query}&step=100"),
        ))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.content_type(), "application/json");
    // Every span once, though every place has all of them.
    let answer = body(&reply);
    assert_eq!(
        samples(&answer),
        [
            (start, 0.0),
            (cutoff, 2.0),
            (cutoff + 100, 2.0),
            (end_of_query, 0.0)
        ]
    );
    assert_eq!(
        answer["series"][0]["labels"],
        json!([{"key": "__name__", "value": {"stringValue": "count_over_time"}}])
    );
    assert_eq!(
        answer["metrics"],
        json!({
            "inspectedBytes": "20",
            "totalBlocks": 1,
            "completedJobs": 2,
            "totalJobs": 2,
            "totalBlockBytes": "2000",
            "inspectedSpans": "4",
        })
    );
    let jobs = seen.take();
    assert_eq!(jobs.len(), 2);
    for (_, job) in jobs {
        let Job::QueryRange {
            request,
            window,
            place,
            ..
        } = job
        else {
            panic!("{job:?}");
        };
        assert_eq!(request.step, 100 * SECOND);
        // From two intervals before that of the answer's first sample.
        let (from, to) = match place {
            DataPlace::Recent { start, end } => {
                assert!(u64::from(start) <= cutoff && u64::from(end) >= end_of_query);
                (cutoff, end_of_query)
            }
            DataPlace::Block { .. } => (start - 200, cutoff),
        };
        assert_eq!(
            (window.start_nano, window.end_nano),
            (from * SECOND, to * SECOND)
        );
    }
}

#[tokio::test]
async fn an_answer_begins_and_ends_with_whole_intervals() {
    let stack = Stack::new(Config::default());
    let seen = stack.querier(|_, job| nothing(job));
    let get = async |parameters: &str| {
        let reply = stack.get(&url("{ } | rate()", parameters)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let samples = samples(&body(&reply));
        (samples[0].0, samples[samples.len() - 1].0, samples.len())
    };
    assert_eq!(
        get("start=1000007&end=1000100&step=15").await,
        (1_000_005, 1_000_110, 8)
    );
    // Old data has no live job, and without blocks there is none at all.
    assert_eq!(seen.take().len(), 0);
    // The interval that has not ended is not shown: the end is half a minute ago.
    let now = u64::from(NOW);
    let latest = (now - 30) / 15 * 15;
    let (_, last, _) = get(&format!("start={}&end={}&step=15", now - 300, now + 100)).await;
    assert_eq!(last, latest);
    let (first, last, count) = get("since=10m").await;
    // 570 seconds make a step of 2 seconds, and one interval more in front.
    assert_eq!(last, (now - 30) / 2 * 2);
    assert_eq!((count, last - first), (286, 570));
}

#[tokio::test]
async fn sub_queries_are_told_apart_as_queriers_do() {
    let stack = Stack::new(Config::default());
    let now = u64::from(NOW);
    let _querier = stack.querier(spans_everywhere(vec![now - 100]));
    let at = now - 100;
    // Rewritten, both sides are the same.
    let query = format!(
        "({{ name = `at {at}` || name = `b` }} | count_over_time()) + \
         ({{ `at {at}` = name || name = `b` }} | count_over_time())"
    );
    for skipped in ["", "&skip_ast_transformations=or_to_in"] {
        let range = format!("start={}&end={}&step=20{skipped}", now - 500, now - 40);
        let reply = stack.get(&url(&query, &range)).await;
        let total: f64 = samples(&body(&reply)).iter().map(|(_, value)| value).sum();
        assert_eq!(total, 2.0, "{}", reply.text());
    }
}

#[tokio::test]
async fn an_instant_is_one_value_per_series() {
    let stack = Stack::new(Config::default());
    let now = u64::from(NOW);
    let seen = stack.querier(spans_everywhere(vec![now - 100, now - 50, now - 10]));
    let get = async |query: &str, parameters: &str| {
        let url = format!("/api/metrics/query?q={}&{parameters}", encode(query));
        let reply = stack.get(&url).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        body(&reply)
    };
    let range = format!("start={}&end={}", now - 130, now - 30);
    let rate = get("{ } | rate()", &range).await;
    assert_eq!(
        rate["series"],
        json!([{
            "labels": [{"key": "__name__", "value": {"stringValue": "rate"}}],
            "value": 0.02,
        }])
    );
    let Job::QueryRange {
        request,
        window,
        max_exemplars,
        ..
    } = &seen.take()[0].1
    else {
        panic!("another job");
    };
    assert_eq!(request.instant, Some(true));
    assert_eq!(*max_exemplars, 0);
    assert!(window.is_instant);
    assert_eq!(window.step_nano, 100 * SECOND);
    // An end that is too new goes back by whole seconds.
    let end_ms = now * 1000 - 29_500;
    let range = format!("start={}&end={}", now - 130, end_ms * 1_000_000);
    let count = get("{ } | count_over_time() by (name)", &range).await;
    assert_eq!(count["series"].as_array().unwrap().len(), 2);
    let Job::QueryRange { window, .. } = &seen.take()[0].1 else {
        panic!("another job");
    };
    assert_eq!(window.end_nano, (end_ms - 1_000) * 1_000_000);
    let none = get("{ name = `no` } | rate() by (name)", &range).await;
    assert_eq!(none.get("series"), None);
    assert_eq!(none["metrics"]["completedJobs"], 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_query_over_time_is_told() {
    let config = Config {
        url_deny_list: vec!["bad".to_owned()],
        ..Config::default()
    };
    let stack = Stack::with_limits(
        config,
        ReadLimits {
            max_metrics_duration: Some(Duration::from_secs(7_200)),
            ..ReadLimits::default()
        },
    );
    let _querier = stack.querier(|_, job| nothing(job));
    let range = format!("start={}&end={}", NOW - 3_600, NOW - 60);
    let new = format!("start={}&end={NOW}", NOW - 20);
    let long = format!("start={}&end={}", NOW - 8_000, NOW - 60);
    for (query, parameters, want) in [
        ("{ }", &*range, "not a metrics query"),
        (
            "{ } | rate(",
            &range,
            "parse error at line 1, col 12: syntax error: unexpected $end, expecting )",
        ),
        (
            "{ name > 1 } | rate()",
            &range,
            "binary operations must operate on the same type: name > 1",
        ),
        (
            "{ } | rate()",
            "start=20&end=10",
            "end must be greater than start",
        ),
        (
            "{ } | rate()",
            &new,
            "query window falls entirely within query_end_cutoff",
        ),
        (
            "{ } | rate()",
            &long,
            "metrics query time range exceeds the maximum allowed duration of 2h0m0s",
        ),
        (
            "{ } | rate()",
            &format!("{range}&step=0.1"),
            "step of 100ms is too small, minimum step for given range is 354ms",
        ),
        (
            "{ } | rate()",
            &format!("{range}&step=0"),
            "step of 0s is too small, minimum step for given range is 354ms",
        ),
        (
            "{ } | rate()",
            &format!("{range}&step=-1"),
            "rpc error: code = Code(400) desc = cannot parse \"-1\": step must be positive",
        ),
    ] {
        let reply = stack.get(&url(query, parameters)).await;
        assert_eq!(reply.pair(), (400, want), "{query} {parameters}");
        assert_eq!(reply.content_type(), "");
    }
    let reply = stack
        .get(&url("{ } | rate()", &format!("{range}&x=bad")))
        .await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().starts_with("Invalid request /api/metrics/"));
    let counted = |result: &str| {
        let labels = [
            ("op", "metrics"),
            ("result", result),
            ("tenant", "single-tenant"),
        ];
        stack.metric("tempo_query_frontend_queries_total", &labels)
    };
    assert_eq!(counted("completed"), 10.0);
    let nothing = stack.get(&url("{ false } | rate()", &range)).await;
    assert_eq!(nothing.pair(), (200, r#"{"series":[],"metrics":{}}"#));
}

#[tokio::test]
async fn replicas_do_not_count_and_tenants_do() {
    let stack = Stack::new(Config {
        multitenancy_enabled: true,
        ..Config::default()
    });
    stack.add_block("a", 3_000, 1);
    stack.add_block("b", 3_000, 1);
    stack.add_replicas("b", 3_000);
    let at = u64::from(NOW) - 3_020;
    let seen = stack.querier(spans_everywhere(vec![at]));
    let range = format!("start={}&end={}&step=100", NOW - 3_600, NOW - 2_000);
    let request =
        http::Request::get(url("{ } | count_over_time()", &range)).header("X-Scope-OrgID", "b|a");
    let reply = stack.send(request).await;
    let total: f64 = samples(&body(&reply)).iter().map(|(_, value)| value).sum();
    assert_eq!(total, 2.0);
    let mut tenants: Vec<String> = seen.take().into_iter().map(|(tenant, _)| tenant).collect();
    tenants.sort();
    assert_eq!(tenants, ["a", "b"]);
}

#[tokio::test]
async fn exemplars_and_series_have_limits() {
    let stack = Stack::new(Config {
        metrics: MetricsConfig {
            max_exemplars: 4,
            max_response_series: 3,
            ..MetricsConfig::default()
        },
        ..Config::default()
    });
    let now = u64::from(NOW);
    let seconds: Vec<u64> = (0..20).map(|n| now - 600 + n * 10).collect();
    let _querier = stack.querier(spans_everywhere(seconds));
    let range = format!("start={}&end={}&step=50", now - 600, now - 60);
    let get = async |query: &str, more: &str| {
        let reply = stack.get(&url(query, &format!("{range}{more}"))).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        body(&reply)
    };
    let exemplars = |answer: &Value| {
        let exemplars = answer["series"][0]["exemplars"].as_array();
        exemplars.cloned().unwrap_or_default()
    };
    let answer = get("{ } | rate()", "").await;
    let shown = exemplars(&answer);
    assert!((1..=4).contains(&shown.len()), "{shown:?}");
    assert_eq!(shown[0]["labels"][0]["key"], "trace:id");
    assert!(shown[0]["value"].as_f64().unwrap() > 0.0);
    assert_eq!(
        exemplars(&get("{ } | rate()", "&exemplars=1").await).len(),
        1
    );
    let none = get("{ } | rate() with(exemplars=false)", "&exemplars=1").await;
    assert_eq!(exemplars(&none).len(), 0);

    let many = get("{ } | rate() by (name)", "").await;
    assert_eq!(many["series"].as_array().unwrap().len(), 3);
    assert_eq!(many["status"], "PARTIAL");
    assert!(
        many["message"]
            .as_str()
            .unwrap()
            .starts_with("Response exceeds maximum series limit of 3, a partial response")
    );
    let fewer = get("{ } | rate() by (name)", "&maxSeries=2").await;
    assert_eq!(fewer["series"].as_array().unwrap().len(), 2);
    let few = get("{ } | rate()", "").await;
    assert_eq!(few.get("status"), None);
}

#[tokio::test]
async fn more_series_than_memory_are_refused() {
    let stack = Stack::new(Config {
        metrics: MetricsConfig {
            max_series_bytes_per_query: 1_000,
            ..MetricsConfig::default()
        },
        ..Config::default()
    });
    let now = u64::from(NOW);
    let seconds: Vec<u64> = (0..20).map(|n| now - 600 + n * 10).collect();
    let _querier = stack.querier(spans_everywhere(seconds));
    let range = format!("start={}&end={}&step=50", now - 600, now - 60);
    let reply = stack.get(&url("{ } | rate() by (name)", &range)).await;
    assert_eq!(reply.status, 422);
    assert!(reply.text().contains("fewer values"), "{}", reply.text());
}

#[tokio::test]
async fn more_series_than_all_queries_may_hold_are_refused_for_the_moment() {
    let stack = Stack::new(Config {
        metrics: MetricsConfig {
            max_series_bytes_of_all_queries: 1_000,
            ..MetricsConfig::default()
        },
        ..Config::default()
    });
    let now = u64::from(NOW);
    let seconds: Vec<u64> = (0..20).map(|n| now - 600 + n * 10).collect();
    let _querier = stack.querier(spans_everywhere(seconds));
    let range = format!("start={}&end={}&step=50", now - 600, now - 60);
    for _ in 0..2 {
        let reply = stack.get(&url("{ } | rate() by (name)", &range)).await;
        assert_eq!(reply.status, 429);
        assert!(reply.text().contains("try again"), "{}", reply.text());
        // What was refused holds nothing.
        let small = stack.get(&url("{ } | rate()", &range)).await;
        assert_eq!(small.status, 200, "{}", small.text());
    }
}

// ---------------------------------------------------------------------------------------------
// Streams
// ---------------------------------------------------------------------------------------------

async fn client(stack: &Stack) -> StreamingQuerierClient<tonic::transport::Channel> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = stack.handle.streaming_service();
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)),
    );
    StreamingQuerierClient::connect(format!("http://{address}"))
        .await
        .unwrap()
}

async fn all<T>(mut stream: Streaming<T>) -> Result<Vec<T>, Status> {
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await? {
        messages.push(message);
    }
    Ok(messages)
}

fn told(message: &QueryRangeResponse) -> Vec<(i64, f64)> {
    let samples = message.series.iter().flat_map(|series| &series.samples);
    samples
        .map(|sample| (sample.timestamp_ms / 1000, sample.value))
        .collect()
}

#[tokio::test]
async fn a_range_streams_what_is_complete_and_ends_with_everything() {
    let stack = Stack::new(Config {
        metrics: MetricsConfig {
            concurrent_jobs: 1,
            ..MetricsConfig::default()
        },
        ..Config::default()
    });
    // The newest block first; each completes time down to its end.
    for age in [3_000, 3_200, 3_400] {
        stack.add_block("single-tenant", age, 1);
    }
    let now = u64::from(NOW);
    let mut client = client(&stack).await;
    let queue = stack.handle.queue();
    tokio::spawn(async move {
        for (wait, age) in [(600, 3_010), (600, 3_210), (600, 3_410)] {
            let (_, job, _, responder) = queue.next().await.unwrap().into_parts();
            let Job::QueryRange {
                request, window, ..
            } = job
            else {
                panic!("{job:?}");
            };
            // Past the least time between two partial answers.
            tokio::time::pause();
            tokio::time::advance(Duration::from_millis(wait)).await;
            tokio::time::resume();
            let output = counted(&request, window, &[now - age]);
            responder.respond(Ok(JobOutput::QueryRange(output)));
        }
    });
    let request = QueryRangeRequest {
        query: "{ } | count_over_time()".to_owned(),
        start: (now - 3_500) * SECOND,
        end: (now - 2_900) * SECOND,
        step: 100 * SECOND,
        ..QueryRangeRequest::default()
    };
    let stream = client.metrics_query_range(request).await.unwrap();
    let messages = all(stream.into_inner()).await.unwrap();
    let jobs: Vec<u32> = messages
        .iter()
        .map(|message| message.metrics.as_ref().unwrap().completed_jobs)
        .collect();
    assert_eq!(jobs, [1, 2, 3, 3]);
    let at = |age: u64| (now - age) as i64;
    // What lies behind the end of the first block, then behind the end of the second.
    assert_eq!(told(&messages[0]), [(at(2_900), 0.0)]);
    assert_eq!(told(&messages[1]), [(at(3_100), 0.0), (at(3_000), 1.0)]);
    let everything = [
        (at(3_500), 0.0),
        (at(3_400), 1.0),
        (at(3_300), 0.0),
        (at(3_200), 1.0),
        (at(3_100), 0.0),
        (at(3_000), 1.0),
        (at(2_900), 0.0),
    ];
    assert_eq!(told(&messages[2]), everything);
    assert_eq!(messages[3], messages[2]);
}

#[tokio::test]
async fn streams_of_instants_and_errors_are_those_of_http() {
    let stack = Stack::new(Config::default());
    let now = u64::from(NOW);
    let _querier = stack.querier(move |tenant, job| match job {
        Job::QueryRange { request, .. } if request.query.contains("broken") => {
            Err(JobError::OverBudget("too much".to_owned()))
        }
        job => spans_everywhere(vec![now - 100, now - 50])(tenant, job),
    });
    let mut client = client(&stack).await;
    let mut instant = async |query: &str| {
        let request = QueryInstantRequest {
            query: query.to_owned(),
            start: (now - 130) * SECOND,
            end: (now - 30) * SECOND,
        };
        let stream = client.metrics_query_instant(request).await?;
        all(stream.into_inner()).await
    };
    let messages = instant("{ } | count_over_time()").await.unwrap();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].series[0].value, 2.0);
    let error = instant("{ }").await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::InvalidArgument, "not a metrics query")
    );
    let error = instant("{ name = `broken` } | rate()").await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unknown, "too much"));
    // Without a step a range has the default one.
    let request = QueryRangeRequest {
        query: "{ } | rate()".to_owned(),
        start: (now - 430) * SECOND,
        end: (now - 130) * SECOND,
        ..QueryRangeRequest::default()
    };
    let stream = client.metrics_query_range(request).await.unwrap();
    let messages = all(stream.into_inner()).await.unwrap();
    assert_eq!(told(&messages[0]).len(), 301);
}
