//! Requests that have no answer, over HTTP.

use std::time::Duration;

use tempo_api::job::JobError;
use tempo_query_frontend::Config;

use crate::support::{Stack, nothing};

#[tokio::test]
async fn wrong_requests_are_refused_with_tempos_words() {
    let stack = Stack::new(Config::default());
    let _querier = stack.querier(|_, job| nothing(job));
    for (url, want) in [
        (
            "/api/search?limit=0",
            "invalid limit: must be a positive number",
        ),
        (
            "/api/search?start=20&end=10",
            "http parameter start must be before end. received start=20 end=10",
        ),
        (
            "/api/search?start=10",
            "http parameter start must be before end. received start=10 end=0",
        ),
        (
            "/api/search?end=10",
            "error parsing date range: only one of start and end provided: must provide both or neither",
        ),
        (
            "/api/search?minDuration=10seconds",
            "invalid minDuration: time: unknown unit \"seconds\" in duration \"10seconds\"",
        ),
        (
            "/api/search?q=%7B%7D&tags=a%3Db",
            "invalid request: can't specify tags and q in the same query",
        ),
        (
            "/api/search?limit=262145",
            "limit 262145 exceeds max limit 262144",
        ),
        (
            "/api/search?spss=101",
            "spans per span set exceeds 100. received 101",
        ),
        (
            "/api/search?start=1&end=604802",
            "range specified by start and end exceeds 168h0m0s. received start=1 end=604802",
        ),
        (
            "/api/search?q=wharblgarbl",
            "invalid TraceQL query: parse error at line 1, col 1: syntax error: unexpected IDENTIFIER",
        ),
        (
            "/api/search?q=%7B%20name%20%3E%201%20%7D",
            "invalid TraceQL query: binary operations must operate on the same type: name > 1",
        ),
        ("/api/search/tags?scope=parent", "invalid scope: parent"),
        ("/api/v2/search/tags?scope=x", "invalid scope: x"),
        (
            "/api/v2/search/tags?start=10",
            "error parsing date range: only one of start and end provided: must provide both or neither",
        ),
        (
            "/api/v2/search/tag/name/values?limit=x",
            "invalid limit: strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
        (
            "/api/traces/xyz",
            "trace IDs can only contain hex characters: invalid character 'x' at position 1",
        ),
        (
            "/api/v2/traces/111111111111111111111111111111111",
            "trace IDs can't be larger than 128 bits",
        ),
        (
            "/api/traces/1?start=2&end=1",
            "http parameter start must be before end. received start=2 end=1",
        ),
        ("/api/v2/traces/1?mode=x", "invalid value for mode x"),
        (
            "/api/v2/traces/1?q=%7B%7D%7Crate()",
            "invalid TraceQL filter: only a single TraceQL filter is supported",
        ),
        (
            "/api/metrics/query_range?start=x",
            "rpc error: code = Code(400) desc = could not parse 'start' parameter: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
    ] {
        assert_eq!(stack.get(url).await.pair(), (400, want), "{url}");
    }
    let reply = stack.get("/api/v2/search/tag/test/values").await;
    assert_eq!(reply.status, 400);
    assert!(
        reply.text().starts_with("please provide a valid tagName: "),
        "{}",
        reply.text()
    );
    assert_eq!(reply.content_type(), "");
    assert_eq!(
        stack.metric(
            "tempo_query_frontend_queries_total",
            &[
                ("op", "search"),
                ("result", "completed"),
                ("tenant", "single-tenant")
            ]
        ),
        11.0
    );
}

#[tokio::test]
async fn query_texts_and_urls_have_limits() {
    let stack = Stack::new(Config {
        max_query_expression_bytes: 20,
        url_deny_list: vec!["limit=666".to_owned()],
        ..Config::default()
    });
    let _querier = stack.querier(|_, job| nothing(job));
    let long = format!("%7B{}%7D", "+".repeat(30));
    let text = "TraceQL expression exceeds the configured maximum size of 20 bytes, reduce the query \
                expression size or contact your system administrator";
    for path in [
        "/api/search",
        "/api/search/tags",
        "/api/v2/search/tag/name/values",
        "/api/v2/traces/1",
        "/api/metrics/query",
    ] {
        let url = format!("{path}?q={long}");
        assert_eq!(stack.get(&url).await.pair(), (400, text), "{path}");
    }
    let reply = stack.get("/api/search?limit=666").await;
    assert_eq!(
        reply.pair(),
        (
            400,
            "Invalid request /api/search?limit=666. This query has been identified as one that \
             destabilizes our system. Contact your system administrator for more information"
        )
    );
    assert_eq!(stack.get("/api/search?limit=66").await.status, 200);
}

#[tokio::test]
async fn the_deny_list_sees_the_whole_url() {
    let stack = Stack::new(Config {
        http_api_prefix: "/tempo".to_owned(),
        url_deny_list: vec!["^/tempo/api/search\\?.*limit=666".to_owned()],
        ..Config::default()
    });
    let _querier = stack.querier(|_, job| nothing(job));
    let reply = stack.get("/tempo/api/search?limit=666").await;
    assert_eq!(
        reply.pair(),
        (
            400,
            "Invalid request /tempo/api/search?limit=666. This query has been identified as one \
             that destabilizes our system. Contact your system administrator for more information"
        )
    );
    assert_eq!(stack.get("/tempo/api/search?limit=66").await.status, 200);
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let stack = Stack::new(Config::default());
    assert_eq!(
        stack.get("/api/v2/traces/diff").await.pair(),
        (405, "Method Not Allowed")
    );
    assert_eq!(stack.get("/api/nothing").await.status, 404);
    assert_eq!(stack.get("/api/v2/search/tag/name").await.status, 404);
}

#[tokio::test]
async fn failures_keep_their_status() {
    for (error, want) in [
        (
            JobError::Unavailable("no storage".to_owned()),
            (500, "no storage"),
        ),
        (JobError::Failed("corrupt".to_owned()), (500, "corrupt")),
        (JobError::Busy("too much".to_owned()), (429, "too much")),
        (JobError::TimedOut, (504, "context deadline exceeded")),
        (JobError::TraceTooLarge("large".to_owned()), (422, "large")),
    ] {
        let stack = Stack::new(Config::default());
        let _querier = stack.querier(move |_, _| Err(error.clone()));
        for url in [
            "/api/search",
            "/api/traces/1",
            "/api/v2/traces/1",
            "/api/search/tags",
            "/api/v2/search/tag/name/values",
        ] {
            assert_eq!(stack.get(url).await.pair(), want, "{url}");
        }
    }
}

#[tokio::test]
async fn a_full_queue_refuses_the_query() {
    let stack = Stack::new(Config {
        max_outstanding_jobs_per_tenant: 1,
        ..Config::default()
    });
    for url in ["/api/search", "/api/v2/traces/1"] {
        assert_eq!(
            stack.get(url).await.pair(),
            (429, "job queue full"),
            "{url}"
        );
    }
    assert_eq!(
        stack.metric(
            "tempo_query_frontend_discarded_requests_total",
            &[("user", "single-tenant")]
        ),
        2.0
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_over_time_is_given_up() {
    let stack = Stack::new(Config {
        api_timeout: Some(Duration::from_secs(5)),
        ..Config::default()
    });
    assert_eq!(
        stack.get("/api/search").await.pair(),
        (503, "unable to process request in the configured timeout")
    );
}
