//! Requests and answers over HTTP.

use http::Request;
use prost::Message as _;
use tempo_api::job::{DataPlace, Job, TracePlace};
use tempo_proto::tempopb::{SearchResponse, Trace, TraceByIdResponse};
use tempo_query_frontend::{Config, ReadLimits, SearchConfig};

use crate::support::{
    NOW, Stack, found_names, found_trace, found_traces, found_values, nothing, trace,
};

#[tokio::test]
async fn echo_needs_no_tenant_and_everything_has_the_prefix() {
    let stack = Stack::new(Config {
        multitenancy_enabled: true,
        http_api_prefix: "/tempo/".to_owned(),
        ..Config::default()
    });
    let _querier = stack.querier(|_, job| nothing(job));
    let reply = stack.get("/tempo/api/echo").await;
    assert_eq!(reply.pair(), (200, "echo\n"));
    assert_eq!(reply.content_type(), "text/plain; charset=utf-8");
    assert_eq!(stack.get("/api/echo").await.status, 404);
    assert_eq!(
        stack.get("/tempo/api/search").await.pair(),
        (401, "no org id\n")
    );
    let named = Request::get("/tempo/api/v2/search/tag/.a/values").header("X-Scope-OrgID", "t");
    assert_eq!(stack.send(named).await.status, 200);
}

#[tokio::test]
async fn a_search_reads_recent_data_and_blocks_and_merges_both() {
    let stack = Stack::new(Config::default());
    stack.add_block("single-tenant", 3_600, 2);
    stack.add_block("single-tenant", 7_200, 2);
    stack.add_block("single-tenant", 1_000_000, 2);
    stack.add_block("other", 3_600, 2);
    let seen = stack.querier(|_, job| {
        Ok(match job {
            Job::Search {
                place: DataPlace::Recent { .. },
                ..
            } => found_traces(&[("a", 30), ("b", 20)]),
            _ => found_traces(&[("b", 15), ("c", 10)]),
        })
    });
    let url = format!("/api/search?q=%7B+%7D&start={}&end={NOW}", NOW - 10_000);
    let reply = stack.get(&url).await;
    assert_eq!(reply.content_type(), "application/json");
    assert_eq!(
        reply.pair(),
        (
            200,
            concat!(
                r#"{"traces":["#,
                r#"{"traceID":"a","rootServiceName":"\u003croot span not yet received\u003e","startTimeUnixNano":"30000000000"},"#,
                r#"{"traceID":"b","rootServiceName":"\u003croot span not yet received\u003e","startTimeUnixNano":"15000000000"},"#,
                r#"{"traceID":"c","rootServiceName":"\u003croot span not yet received\u003e","startTimeUnixNano":"10000000000"}],"#,
                r#""metrics":{"inspectedBytes":"50","totalBlocks":2,"completedJobs":5,"totalJobs":5,"totalBlockBytes":"4000"}}"#,
            )
        )
    );
    let mut recent = Vec::new();
    let mut blocks = 0;
    for (tenant, job) in seen.take() {
        assert_eq!(tenant, "single-tenant");
        let Job::Search { request, place } = job else {
            panic!("{job:?}");
        };
        assert_eq!(
            (
                request.start,
                request.end,
                request.limit,
                request.spans_per_span_set
            ),
            (NOW - 10_000, NOW - 30, 20, 3)
        );
        match place {
            DataPlace::Recent { start, end } => recent.push((start, end)),
            DataPlace::Block { row_groups, .. } => {
                assert_eq!(row_groups, 2);
                blocks += 1;
            }
        }
    }
    recent.sort_unstable();
    assert_eq!(
        recent,
        [
            (NOW - 900, NOW - 610),
            (NOW - 610, NOW - 320),
            (NOW - 320, NOW - 30)
        ]
    );
    assert_eq!(blocks, 2);
    assert_eq!(
        stack.metric(
            "tempo_query_frontend_bytes_inspected_total",
            &[("op", "search"), ("tenant", "single-tenant")]
        ),
        50.0
    );

    let protobuf = Request::get(&url).header("Accept", "application/json, application/protobuf");
    let reply = stack.send(protobuf).await;
    assert_eq!(reply.content_type(), "application/protobuf");
    assert_eq!(SearchResponse::decode(reply.body).unwrap().traces.len(), 3);
}

#[tokio::test]
async fn a_search_without_range_looks_at_the_recent_past() {
    let stack = Stack::new(Config::default());
    stack.add_block("single-tenant", 3_600, 2);
    let seen = stack.querier(|_, job| nothing(job));
    let reply = stack.get("/api/search").await;
    assert_eq!(
        reply.text(),
        r#"{"traces":[],"metrics":{"inspectedBytes":"30","completedJobs":3,"totalJobs":3}}"#
    );
    assert_eq!(seen.take().len(), 3);
    let old = format!("/api/search?start={}&end={}", NOW - 5_000, NOW - 4_900);
    let reply = stack.get(&old).await;
    assert_eq!(reply.text(), r#"{"traces":[],"metrics":{}}"#);
    assert_eq!(seen.take().len(), 0);
}

#[tokio::test]
async fn a_search_stops_when_its_limit_is_reached() {
    let stack = Stack::new(Config {
        search: SearchConfig {
            concurrent_jobs: 1,
            ..SearchConfig::default()
        },
        ..Config::default()
    });
    for age in 0..50 {
        stack.add_block("single-tenant", 3_600 + age, 1);
    }
    let seen = stack.querier(|_, _| Ok(found_traces(&[("a", 30), ("b", 20)])));
    let url = format!(
        "/api/search?limit=2&start={}&end={}",
        NOW - 9_000,
        NOW - 2_000
    );
    let reply = stack.get(&url).await;
    assert!(reply.text().contains(r#""completedJobs":1,"totalJobs":50"#));
    assert_eq!(seen.take().len(), 1);
}

#[tokio::test]
async fn an_old_search_has_tags_and_no_span_sets() {
    let stack = Stack::new(Config::default());
    let seen = stack.querier(|_, _| {
        let tempo_api::job::JobOutput::Search(mut found) = found_traces(&[("a", 1)]) else {
            unreachable!()
        };
        found.traces[0].span_sets.push(Default::default());
        found.traces[0].span_set = Some(Default::default());
        Ok(tempo_api::job::JobOutput::Search(found))
    });
    let reply = stack
        .get("/api/search?tags=foo%3Dbar+name%3Dq&minDuration=1s")
        .await;
    assert_eq!(reply.status, 200);
    assert!(!reply.text().contains("spanSet"));
    let Some((_, Job::Search { request, .. })) = seen.take().pop() else {
        panic!("a search job");
    };
    assert_eq!(
        request.query,
        "{ span.\"foo\" = \"bar\" || resource.\"foo\" = \"bar\" } && \
         { name =~ \"(?s).*q.*\" } && { traceDuration >= 1000ms }"
    );
    assert!(request.tags.is_empty());
}

#[tokio::test]
async fn several_tenants_are_asked_at_once_and_known_only_by_their_limits() {
    let stack = Stack::new(Config {
        multitenancy_enabled: true,
        ..Config::default()
    });
    stack.add_block("a", 3_600, 1);
    stack.add_block("b", 3_600, 1);
    stack.add_block("b", 3_700, 1);
    let seen = stack.querier(|_, job| nothing(job));
    let url = format!("/api/search?start={}&end={}", NOW - 9_000, NOW - 2_000);
    let reply = stack
        .send(Request::get(&url).header("X-Scope-OrgID", "b|a"))
        .await;
    assert!(
        reply
            .text()
            .contains(r#""totalBlocks":3,"completedJobs":3,"totalJobs":3"#)
    );
    let mut tenants: Vec<_> = seen.take().into_iter().map(|(tenant, _)| tenant).collect();
    tenants.sort_unstable();
    assert_eq!(tenants, ["a", "b", "b"]);
}

#[tokio::test]
async fn traces_are_looked_for_everywhere_and_united() {
    let limits = ReadLimits {
        max_bytes_per_trace: 1_234_567,
        ..ReadLimits::default()
    };
    let stack = Stack::with_limits(Config::default(), limits);
    stack.add_block("single-tenant", 3_600, 1);
    let seen = stack.querier(|_, job| {
        Ok(match job {
            Job::FindTrace {
                place: TracePlace::Recent,
                ..
            } => found_trace(vec![trace(&[1, 2])]),
            _ => found_trace(vec![trace(&[2, 3]), trace(&[3])]),
        })
    });
    let reply = stack.get("/api/traces/0102").await;
    assert_eq!(
        (reply.status.as_u16(), reply.content_type()),
        (200, "application/json")
    );
    assert!(reply.text().starts_with(r#"{"batches":[{"scopeSpans":"#));
    assert_eq!(reply.text().matches(r#""spanId""#).count(), 3);
    let jobs = seen.take();
    assert_eq!(jobs.len(), 2);
    for (_, job) in jobs {
        let Job::FindTrace {
            trace_id,
            max_bytes,
            ..
        } = job
        else {
            panic!("{job:?}");
        };
        assert_eq!(trace_id.to_short_hex(), "102");
        assert_eq!(max_bytes, 1_234_567);
    }

    let reply = stack.get("/api/v2/traces/0102").await;
    assert!(reply.text().starts_with(r#"{"trace":{"resourceSpans":["#));
    assert!(
        reply
            .text()
            .ends_with(r#"],"metrics":{"inspectedBytes":"10"}}"#)
            || reply
                .text()
                .ends_with(r#"},"metrics":{"inspectedBytes":"10"}}"#)
    );
    let protobuf = |path| Request::get(path).header("Accept", "application/protobuf");
    let reply = stack.send(protobuf("/api/traces/0102")).await;
    assert_eq!(reply.content_type(), "application/protobuf");
    assert_eq!(Trace::decode(reply.body).unwrap().resource_spans.len(), 2);
    let reply = stack.send(protobuf("/api/v2/traces/0102")).await;
    let response = TraceByIdResponse::decode(reply.body).unwrap();
    assert_eq!(response.trace.unwrap().resource_spans.len(), 2);
    let llm = |path| Request::get(path).header("Accept", "application/vnd.grafana.llm");
    let reply = stack.send(llm("/api/v2/traces/0102")).await;
    assert_eq!(reply.content_type(), "application/vnd.grafana.llm+json");
    let reply = stack.send(llm("/api/traces/0102")).await;
    assert_eq!(reply.content_type(), "application/vnd.grafana.llm");
    assert!(reply.text().starts_with(r#"{"batches":["#));
}

#[tokio::test]
async fn an_unknown_trace_is_not_found_or_empty() {
    let stack = Stack::new(Config::default());
    let _querier = stack.querier(|_, job| nothing(job));
    assert_eq!(stack.get("/api/traces/1").await.pair(), (404, ""));
    let reply = stack
        .send(Request::get("/api/v2/traces/1").header("Accept", "text/html"))
        .await;
    assert_eq!(reply.pair(), (200, r#"{"trace":{},"metrics":{}}"#));
    let protobuf = Request::get("/api/v2/traces/1").header("Accept", "application/protobuf");
    assert_eq!(&stack.send(protobuf).await.body[..2], [0x0a, 0]);
}

#[tokio::test]
async fn a_trace_too_large_is_refused_or_cut() {
    let limits = ReadLimits {
        max_bytes_per_trace: trace(&[1]).len() + 1,
        ..ReadLimits::default()
    };
    let max = limits.max_bytes_per_trace;
    let stack = Stack::with_limits(Config::default(), limits);
    let _querier = stack.querier(|_, _| Ok(found_trace(vec![trace(&[1]), trace(&[2])])));
    assert_eq!(
        stack.get("/api/traces/1").await.pair(),
        (
            422,
            format!("trace exceeds max size (max bytes: {max})").as_str()
        )
    );
    let reply = stack.get("/api/v2/traces/1").await;
    assert_eq!(reply.status, 200);
    assert!(reply.text().ends_with(&format!(
        r#""status":"PARTIAL","message":"Trace exceeds maximum size of {max} bytes, a partial trace is returned"}}"#
    )));
}

#[tokio::test]
async fn tag_names_by_scope_or_in_one_list() {
    let stack = Stack::new(Config::default());
    stack.add_block("single-tenant", 3_600, 1);
    let seen = stack.querier(|_, job| {
        Ok(match job {
            Job::TagNames {
                place: DataPlace::Recent { .. },
                ..
            } => found_names("span", &["b", "a"]),
            _ => found_names("resource", &["a"]),
        })
    });
    let range = format!("start={}&end={NOW}", NOW - 5_000);
    let reply = stack.get(&format!("/api/search/tags?{range}")).await;
    assert_eq!(
        reply.text(),
        r#"{"tagNames":["a","b"],"metrics":{"inspectedBytes":"14"}}"#
    );
    assert_eq!(seen.take().len(), 2);
    let reply = stack
        .get(&format!("/api/v2/search/tags?{range}&limit=5000"))
        .await;
    assert!(
        reply
            .text()
            .starts_with(r#"{"scopes":[{"name":"intrinsic","tags":["duration","#)
    );
    assert!(reply.text().ends_with(concat!(
        r#"{"name":"resource","tags":["a"]},{"name":"span","tags":["a","b"]}],"#,
        r#""metrics":{"inspectedBytes":"14"}}"#,
    )));
    seen.take();
    let reply = stack.get("/api/search/tags?scope=intrinsic").await;
    assert!(
        reply
            .text()
            .starts_with(r#"{"tagNames":["duration","event:name""#)
    );
    let reply = stack.get("/api/v2/search/tags?scope=trace").await;
    assert_eq!(reply.text(), r#"{"scopes":[],"metrics":{}}"#);
    assert_eq!(seen.take().len(), 0);
    let alternatives: Vec<_> = (0..101).map(|value| format!(".a%3D{value}")).collect();
    let groups = format!("/api/v2/search/tags?q=%7B{}%7D", alternatives.join("||"));
    assert_eq!(
        stack.get(&groups).await.pair(),
        (
            400,
            "maximum condition groups reached (limit: 100). Reduce the number of OR conditions in \
             the query"
        )
    );
    // The first version of the API takes such a filter for none.
    for (groups, want) in [(100, "{.a=0"), (101, "")] {
        let query = format!("%7B{}%7D", alternatives[..groups].join("||"));
        let reply = stack.get(&format!("/api/search/tags?q={query}")).await;
        assert_eq!(reply.status, 200);
        let jobs = seen.take();
        let Some((_, Job::TagNames { request, .. })) = jobs.first() else {
            panic!("a tag name job");
        };
        assert!(request.query.starts_with(want), "{}", request.query);
        assert_eq!(request.query.is_empty(), want.is_empty());
    }
}

#[tokio::test]
async fn tag_values_with_types_or_without() {
    let stack = Stack::new(Config::default());
    let seen = stack.querier(|_, _| Ok(found_values(&[("string", "x"), ("int", "1")])));
    let reply = stack
        .get("/api/v2/search/tag/span.a%2Fb/values?q=%7B%7D&tag=ignored&limit=5000")
        .await;
    assert_eq!(
        reply.text(),
        r#"{"tagValues":[{"type":"int","value":"1"},{"type":"string","value":"x"}],"metrics":{}}"#
    );
    let Some((_, Job::TagValues { request, .. })) = seen.take().pop() else {
        panic!("a tag value job");
    };
    assert_eq!(
        (request.tag_name.as_str(), request.query.as_str()),
        ("span.a/b", "{}")
    );
    let llm = Request::get("/api/v2/search/tag/.a/values")
        .header("Accept", "application/vnd.grafana.llm");
    assert_eq!(
        stack.send(llm).await.text(),
        r#"{"tagValues":{"int":["1"],"string":["x"]}}"#
    );
    seen.take();
    let reply = stack
        .get("/api/search/tag/service.name/values?q=%7B.a%3D1%7D")
        .await;
    assert_eq!(reply.text(), r#"{"tagValues":["1","x"],"metrics":{}}"#);
    let Some((_, Job::TagValues { request, .. })) = seen.take().pop() else {
        panic!("a tag value job");
    };
    assert_eq!(
        (request.tag_name.as_str(), request.query.as_str()),
        ("resource.service.name", "")
    );
    let reply = stack.get("/api/search/tag/status.code/values").await;
    assert_eq!(
        reply.text(),
        r#"{"tagValues":["error","ok","unset"],"metrics":{}}"#
    );
    let reply = stack.get("/api/search/tag/error/values").await;
    assert_eq!(
        reply.text(),
        r#"{"tagValues":["1","true","x"],"metrics":{}}"#
    );
    seen.take();
    for (tag, count) in [("status", 3), ("span:kind", 6)] {
        let reply = stack.get(&format!("/api/v2/search/tag/{tag}/values")).await;
        assert_eq!(reply.text().matches(r#""type":"keyword""#).count(), count);
    }
    assert_eq!(seen.take().len(), 0);
    let limited = stack.get("/api/v2/search/tag/.a/values?limit=1").await;
    assert_eq!(limited.text().matches("value\"").count(), 1);
}

#[tokio::test]
async fn large_answers_are_compressed_on_request() {
    let stack = Stack::new(Config::default());
    let _querier = stack.querier(|_, _| {
        let values: Vec<String> = (0..500).map(|number| format!("value {number}")).collect();
        let values: Vec<_> = values
            .iter()
            .map(|value| ("string", value.as_str()))
            .collect();
        Ok(found_values(&values))
    });
    let url = "/api/v2/search/tag/.a/values";
    let plain = stack.get(url).await;
    assert!(plain.headers.get("Content-Encoding").is_none());
    let reply = stack
        .send(Request::get(url).header("Accept-Encoding", "gzip, br"))
        .await;
    assert_eq!(reply.headers["Content-Encoding"], "gzip");
    assert!(reply.body.len() < plain.body.len() / 2);
    let mut unpacked = String::new();
    std::io::Read::read_to_string(
        &mut flate2::read::GzDecoder::new(&reply.body[..]),
        &mut unpacked,
    )
    .unwrap();
    assert_eq!(unpacked, plain.text());
    let small = stack
        .send(Request::get("/api/echo").header("Accept-Encoding", "gzip"))
        .await;
    assert!(small.headers.get("Content-Encoding").is_none());
}

#[tokio::test]
async fn readiness_needs_a_querier() {
    let stack = Stack::new(Config::default());
    assert_eq!(
        stack.handle.ready(),
        Err(
            "Query Frontend not ready: not ready: number of queriers connected to query-frontend \
             is 0"
                .to_owned()
        )
    );
    let _connection = stack.handle.queue().connect();
    assert_eq!(stack.handle.ready(), Ok(()));
}
