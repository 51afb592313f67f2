//! An axum router on a listener, and Tempo's request metrics.

use std::time::Instant;

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::{self, Next},
    response::Response,
};
use hyper_util::service::TowerToHyperService;
use prometheus::{HistogramOpts, HistogramVec, IntGaugeVec, Opts, Registry};
use tokio_util::sync::CancellationToken;

use crate::listen::Listener;

/// Serves `router` on a listener until `shutdown`, then lets running requests end within the
/// listener's time.
pub async fn serve(listener: Listener, router: Router, shutdown: CancellationToken) {
    let addr = listener.addr();
    if let Err(error) = listener
        .serve(TowerToHyperService::new(router), shutdown)
        .await
    {
        tracing::error!(%addr, %error, "cannot serve");
    }
}

/// `tempo_request_duration_seconds` and `tempo_inflight_requests`, for all servers of a process.
#[derive(Debug, Clone)]
pub struct RequestMetrics {
    duration: HistogramVec,
    inflight: IntGaugeVec,
}

impl RequestMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let buckets = vec![
            0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0,
        ];
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "tempo_request_duration_seconds",
                "Time (in seconds) spent serving HTTP requests.",
            )
            .buckets(buckets),
            &["method", "route", "status_code", "ws"],
        )?;
        let inflight = IntGaugeVec::new(
            Opts::new(
                "tempo_inflight_requests",
                "Current number of inflight requests.",
            ),
            &["method", "route"],
        )?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(inflight.clone()))?;
        Ok(Self { duration, inflight })
    }

    /// Measures every request of `router`.
    pub fn instrument(&self, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(self.clone(), measure))
    }
}

async fn measure(
    State(metrics): State<RequestMetrics>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let grpc = is_grpc(request.headers());
    let (method, route) = if grpc {
        ("gRPC".to_owned(), request.uri().path().to_owned())
    } else {
        let route = request
            .extensions()
            .get::<MatchedPath>()
            .map_or_else(|| "other".to_owned(), |path| route_label(path.as_str()));
        (request.method().to_string(), route)
    };
    let inflight = metrics.inflight.with_label_values(&[&method, &route]);
    inflight.inc();
    let _guard = Decrement(&inflight);
    let started = Instant::now();
    let response = next.run(request).await;
    let status = if grpc {
        match response
            .headers()
            .get("grpc-status")
            .map(|code| code.as_bytes())
        {
            None | Some(b"0") => "success".to_owned(),
            Some(b"1") => "cancel".to_owned(),
            Some(_) => "error".to_owned(),
        }
    } else {
        response.status().as_u16().to_string()
    };
    metrics
        .duration
        .with_label_values(&[&method, &route, &status, "false"])
        .observe(started.elapsed().as_secs_f64());
    response
}

struct Decrement<'a>(&'a prometheus::IntGauge);

impl Drop for Decrement<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn is_grpc(headers: &http::HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// A route template as a label: every run of other characters than letters and digits becomes `_`,
/// trimmed, lower case. `/api/v2/traces/{traceID}` is `api_v2_traces_traceid`.
fn route_label(template: &str) -> String {
    template
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("_")
        .to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use std::time::Duration;

    use super::*;
    use crate::listen::ListenConfig;

    #[test]
    fn route_labels() {
        assert_eq!(
            route_label("/api/v2/traces/{traceID}"),
            "api_v2_traces_traceid"
        );
        assert_eq!(route_label("/querier/api/search"), "querier_api_search");
    }

    #[tokio::test]
    async fn serves_counts_and_lets_a_running_request_end_at_shutdown() {
        let registry = Registry::new();
        let metrics = RequestMetrics::register(&registry).unwrap();
        let entered = std::sync::Arc::new(tokio::sync::Notify::new());
        let release = std::sync::Arc::new(tokio::sync::Notify::new());
        let router = Router::new().route(
            "/slow/{id}",
            get({
                let (entered, release) = (entered.clone(), release.clone());
                move || async move {
                    entered.notify_one();
                    release.notified().await;
                    "done"
                }
            }),
        );
        let server = Listener::bind("127.0.0.1:0", ListenConfig::default()).unwrap();
        let address = server.addr();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(server, metrics.instrument(router), shutdown.clone()));

        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"GET /slow/1 HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        entered.notified().await;
        shutdown.cancel();
        release.notify_one();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("done"), "{answer}");
        serving.await.unwrap();
        assert!(tokio::net::TcpStream::connect(address).await.is_err());

        let page = crate::metrics::render(&registry).unwrap();
        assert!(page.contains(
            r#"tempo_request_duration_seconds_count{method="GET",route="slow_id",status_code="200",ws="false"} 1"#
        ), "{page}");
        assert!(page.contains(r#"tempo_inflight_requests{method="GET",route="slow_id"} 0"#));
    }

    #[tokio::test]
    async fn an_old_connection_takes_no_more_requests() {
        let listener = Listener::bind(
            "127.0.0.1:0",
            ListenConfig {
                max_connection_age: Some(Duration::from_millis(1)),
                ..ListenConfig::default()
            },
        )
        .unwrap();
        let address = listener.addr();
        let shutdown = CancellationToken::new();
        let router = Router::new().route("/", get(|| async { "done" }));
        let serving = tokio::spawn(serve(listener, router, shutdown.clone()));

        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        // The client has asked nothing yet, and is let go.
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty());
        shutdown.cancel();
        serving.await.unwrap();
    }

    /// One request on an HTTP/1 connection that is kept; the head of the answer.
    async fn ask(client: &mut tokio::io::BufReader<tokio::net::TcpStream>) -> String {
        use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
        client
            .get_mut()
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            client.read_line(&mut head).await.unwrap();
        }
        let mut body = [0; 4];
        client.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"done");
        head
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_connection_of_http1_ends_with_an_answer() {
        let listener = Listener::bind(
            "127.0.0.1:0",
            ListenConfig {
                max_connection_age: Some(Duration::from_secs(30)),
                header_timeout: Duration::from_secs(300),
                ..ListenConfig::default()
            },
        )
        .unwrap();
        let address = listener.addr();
        let shutdown = CancellationToken::new();
        let router = Router::new().route("/", get(|| async { "done" }));
        let serving = tokio::spawn(serve(listener, router, shutdown.clone()));

        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut client = tokio::io::BufReader::new(stream);
        assert!(!ask(&mut client).await.contains("connection: close"));
        tokio::time::sleep(Duration::from_secs(60)).await;
        let last = ask(&mut client).await;
        assert!(last.contains("connection: close"), "{last}");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
        shutdown.cancel();
        serving.await.unwrap();
    }
}
