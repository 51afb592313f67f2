//! The query-frontend: cuts queries into jobs, queues them for queriers, merges the answers.
//!
//! Owns the HTTP and streaming gRPC query API, the rules of who may ask what ([`LimitsSource`]),
//! the division of time between live data and blocks ([`shard`]), and the queue that queriers pull
//! from ([`QueueHandle`] in one process, [`PullService`] between processes). Must never read a block or live data itself, nor know who runs its jobs.

mod accounting;
mod config;
mod error;
mod frontend;
mod http;
mod limits;
mod metrics;
mod pull;
mod queue;
mod range;
mod results;
mod run;
mod search;
mod series_memory;
mod shard;
mod stream;
mod tags;
mod tenants;
mod trace_diff;
mod trace_filter;
mod traces;
mod weight;

pub use config::{Config, MetricsConfig, SearchConfig, Slo, TraceByIdConfig, WeightsConfig};
pub use error::Error;
pub use frontend::{BuiltUntil, Deps, Handle, NowNanos, Service, TellBuiltUntil, build};
pub use limits::{LimitsSource, ReadLimits};
pub use pull::PullService;
pub use queue::{ConnectedQuerier, QueueHandle, QueuedJob, Responder};
pub use stream::StreamingService;
