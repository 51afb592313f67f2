//! Clients that go away.

use axum::body::Body;
use http::Request;
use tempo_query_frontend::Config;
use tower::ServiceExt as _;

use crate::support::Stack;

#[tokio::test]
async fn when_the_client_goes_its_jobs_end() {
    let stack = Stack::new(Config::default());
    let queue = stack.handle.queue();
    for url in ["/api/search", "/api/v2/traces/1", "/api/search/tags"] {
        let request = Request::get(url).body(Body::empty()).unwrap();
        let client = tokio::spawn(stack.handle.router().oneshot(request));
        let (_, _, cancelled, responder) = queue.next().await.unwrap().into_parts();
        assert!(!cancelled.is_cancelled());
        client.abort();
        cancelled.cancelled().await;
        drop(responder);
    }
    for op in ["search", "traces", "metadata"] {
        assert_eq!(
            stack.metric(
                "tempo_query_frontend_queries_total",
                &[("op", op), ("result", "canceled")]
            ),
            1.0
        );
    }
}
