//! One server for HTTP and gRPC: an axum router on a listener, HTTP/1 and HTTP/2 (with or without
//! TLS upgrade: h2c), graceful shutdown, and Tempo's request metrics.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::{self, Next},
    response::Response,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use prometheus::{HistogramOpts, HistogramVec, IntGaugeVec, Opts, Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How a server treats connections.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Longest wait for the headers of a request on a kept-alive or new HTTP/1 connection.
    pub idle_timeout: Duration,
    /// Longest wait for running requests once shutdown begins; then connections are cut.
    pub graceful_shutdown_timeout: Duration,
    /// HTTP/2 streams that one connection may have open.
    pub max_concurrent_streams: u32,
    /// Open connections; more wait in the kernel's queue.
    pub max_connections: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(120),
            graceful_shutdown_timeout: Duration::from_secs(30),
            max_concurrent_streams: 100,
            max_connections: 16_384,
        }
    }
}

/// A bound listener, not yet serving.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    config: ServerConfig,
}

impl Server {
    /// Binds `address` (`host:port`; an empty host means all interfaces).
    ///
    /// # Errors
    /// When the address is taken or not of this machine.
    pub async fn bind(address: &str, config: ServerConfig) -> io::Result<Self> {
        let address = match address.strip_prefix(':') {
            Some(port) => format!("0.0.0.0:{port}"),
            None => address.to_owned(),
        };
        let listener = TcpListener::bind(&address).await.map_err(|error| {
            io::Error::new(error.kind(), format!("listen on {address}: {error}"))
        })?;
        let address = listener.local_addr()?;
        Ok(Self {
            listener,
            address,
            config,
        })
    }

    /// Where it listens; tells the port when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves `router` until `shutdown`, then lets running requests end within the configured time.
    pub async fn serve(self, router: Router, shutdown: CancellationToken) {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.config.idle_timeout)
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(Duration::from_secs(60)))
            .max_concurrent_streams(self.config.max_concurrent_streams);
        let graceful = GracefulShutdown::new();
        let connections =
            std::sync::Arc::new(tokio::sync::Semaphore::new(self.config.max_connections));
        loop {
            let (permit, stream) = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = accept(&self.listener, &connections) => match accepted {
                    Some(accepted) => accepted,
                    None => continue,
                },
            };
            let service = TowerToHyperService::new(router.clone());
            let connection = builder
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                .into_owned();
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                // A client that breaks off is its own affair.
                let _ = connection.await;
                drop(permit);
            });
        }
        drop(self.listener);
        let patience = self.config.graceful_shutdown_timeout;
        if tokio::time::timeout(patience, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::warn!(address = %self.address, ?patience, "connections cut at shutdown");
        }
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &std::sync::Arc<tokio::sync::Semaphore>,
) -> Option<(tokio::sync::OwnedSemaphorePermit, tokio::net::TcpStream)> {
    let permit = connections.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            let _ = stream.set_nodelay(true);
            Some((permit, stream))
        }
        Err(error) => {
            // Out of descriptors, mostly: give the others time to close.
            tracing::warn!(%error, "accept failed");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
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

    use super::*;

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
        let server = Server::bind("127.0.0.1:0", ServerConfig::default())
            .await
            .unwrap();
        let address = server.local_addr();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(server.serve(metrics.instrument(router), shutdown.clone()));

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
}
