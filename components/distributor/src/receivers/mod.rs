//! The protocols in which traces arrive, one module each.
//!
//! A receiver owns its wire format, its words for a refusal and nothing else: it reads a request
//! within the bounds of its settings, makes a [`crate::PushRequest`] of it and answers with what
//! came of that. Connections, TLS and shutdown are the same for all ([`listener`]).

pub(crate) mod body;
pub(crate) mod listener;
pub(crate) mod otlp_grpc;
pub(crate) mod otlp_http;
mod rpc_status;
pub(crate) mod tls;

/// Header or metadata key whose presence asks that no metrics be generated.
pub(crate) const NO_GENERATE_METRICS_HEADER: &str = "no-generate-metrics";
