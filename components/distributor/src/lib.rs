//! The distributor: receives traces, checks and limits them, and hands them on split by trace.
//!
//! Owns the receivers (`receivers`) of OTLP, Jaeger and Zipkin, the order in which a push is judged ([`Distributor`]),
//! the per-tenant rate limits and the regrouping by trace id on the wire bytes ([`regroup`]).
//! Answers a client only after the [`TraceSink`] has taken the spans. Must never build an object
//! per span, never acknowledge what the sink has not, and knows no other component: the binary
//! connects it to a live-store or a log through [`TraceSink`] and to the overrides through
//! [`Limits`].

mod config;
mod decompress;
mod inflight;
mod limits;
mod metrics;
pub mod otlp_json;
mod push;
mod rate_limit;
mod receivers;
mod refusal;
pub mod regroup;
mod service;
mod sink;
mod span_log;
mod tenants;
mod workspace;

pub use config::{
    Config, GrpcReceiver, HttpReceiver, ReceivedSpansMetric, Receivers, SpanLog, UdpReceiver,
    ZipkinReceiver,
};
pub use decompress::Encoding;
pub use inflight::{InflightBudget, InflightPermit, Overloaded};
pub use limits::{Limits, TenantLimits};
pub use metrics::discarded_spans_counter;
pub use push::{Distributor, Format, OrgId, PushRequest, Source};
pub use refusal::{Refusal, RefusalKind};
pub use service::{Deps, Error, Handle, Service, build, place};
pub use sink::{PartialSuccess, SinkError, TraceSink};
pub use tempo_translate::Tags;
