//! Clients that go away.

use axum::body::Body;
use http::Request;
use tempo_query_frontend::Config;
use tempo_runtime::{
    listen::{ListenConfig, Listener},
    server::serve,
};
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;
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

#[tokio::test]
async fn a_connection_that_breaks_ends_its_jobs() {
    let stack = Stack::new(Config::default());
    let listener = Listener::bind("127.0.0.1:0", ListenConfig::default()).unwrap();
    let address = listener.addr();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, stack.handle.router(), shutdown.clone()));
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    connection
        .write_all(b"GET /api/search HTTP/1.1\r\nHost: tempo\r\n\r\n")
        .await
        .unwrap();
    let queued = stack.handle.queue().next().await.unwrap();
    let (_, _, cancelled, _responder) = queued.into_parts();
    drop(connection);
    cancelled.cancelled().await;
    shutdown.cancel();
    serving.await.unwrap();
}
