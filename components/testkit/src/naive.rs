//! TraceQL evaluated as naively as can be: one span after the other, every rule written down where
//! it applies. What is vectorised is compared with it.
//!
//! Owns its own reading of the language's meaning, from decoded OTLP spans. Must never share code
//! of evaluation with `tempo-engine`; of `tempo-traceql` it uses the syntax tree.

#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "a test whose query is not what it seems has to fail"
)]

mod data;
mod filter;
mod metrics;
mod pipeline;
pub mod random;
mod value;

pub use data::{Spans, TraceData};
pub use metrics::{Answer, Buckets, NaiveSeries, evaluate as count};
pub use pipeline::{SpanSet, search};
pub use value::Value;

/// Why a query fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);

impl Failure {
    fn of(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}
