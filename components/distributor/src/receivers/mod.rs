//! The protocols in which traces arrive, one module each.
//!
//! A receiver owns its wire format, its words for a refusal and nothing else: it reads a request
//! within the bounds of its settings, makes a [`crate::PushRequest`] of it and answers with what
//! came of that. Connections, TLS and shutdown are the same for all (`tempo_runtime::listen`).

pub(crate) mod body;
pub(crate) mod foreign_http;
pub(crate) mod grpc;
mod http;
pub(crate) mod jaeger_udp;
pub(crate) mod otlp_http;
mod partial_success;
mod rpc_status;

use std::{convert::Infallible, future::Future, sync::Arc};

use ::http::{Request, Response};
use hyper::{
    body::Incoming,
    service::{Service, service_fn},
};

/// Answers the requests of a listener.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<body::Reply>> + Send;
}

/// The handler as a service of hyper.
pub(crate) fn service<H: Handler>(
    handler: Arc<H>,
) -> impl Service<Request<Incoming>, Response = Response<body::Reply>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    service_fn(move |request| {
        let handler = Arc::clone(&handler);
        async move { Ok(handler.handle(request).await) }
    })
}

/// Header or metadata key whose presence asks that no metrics be generated.
pub(crate) const NO_GENERATE_METRICS_HEADER: &str = "no-generate-metrics";
