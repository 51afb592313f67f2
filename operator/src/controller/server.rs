//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use k8s_openapi::jiff::Timestamp;
use prometheus::Registry;
use tempo_runtime::metrics;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Error;

/// Without a look at any stack for so long, a leader is stuck: each is looked at every ten
/// minutes. Without stacks there is nothing to look at.
const STUCK_SECS: i64 = 1800;

/// Whether the controller works.
#[derive(Clone, Default)]
pub(super) struct Health {
    state: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    ready: AtomicBool,
    last_look: AtomicI64,
}

impl Health {
    /// Kubernetes answers, and knows the resource.
    pub(super) fn set_ready(&self) {
        self.state.ready.store(true, Ordering::Relaxed);
    }
    /// A stack was looked at.
    pub(super) fn set_alive(&self) {
        self.state
            .last_look
            .store(Timestamp::now().as_second(), Ordering::Relaxed);
    }
    fn is_stuck(&self) -> bool {
        let last = self.state.last_look.load(Ordering::Relaxed);
        last != 0 && Timestamp::now().as_second() - last > STUCK_SECS
    }
}

#[derive(Clone)]
struct Pages {
    registry: Registry,
    health: Health,
}

pub(super) struct Server {
    listener: TcpListener,
    router: Router,
}

impl Server {
    pub(super) async fn bind(
        address: &str,
        registry: Registry,
        health: Health,
    ) -> Result<Self, Error> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| Error::Listen {
                address: address.to_owned(),
                source,
            })?;
        let router = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics_page))
            .with_state(Pages { registry, health });
        Ok(Self { listener, router })
    }

    pub(super) async fn run(self, shutdown: CancellationToken) {
        let served = axum::serve(self.listener, self.router)
            .with_graceful_shutdown(shutdown.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "pages can't be served");
        }
    }
}

async fn healthz(State(pages): State<Pages>) -> (StatusCode, &'static str) {
    if pages.health.is_stuck() {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "no stack was looked at for half an hour\n",
        )
    } else {
        (StatusCode::OK, "ok\n")
    }
}

async fn readyz(State(pages): State<Pages>) -> (StatusCode, &'static str) {
    if pages.health.state.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ready\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "Kubernetes has not answered yet\n",
        )
    }
}

async fn metrics_page(State(pages): State<Pages>) -> Response {
    match metrics::render(&pages.registry) {
        Ok(page) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
