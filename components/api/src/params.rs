//! The parameters of every query endpoint.

mod logfmt;
mod metrics;
mod query;
mod search;
mod tags;
mod time;
mod trace;
mod trace_diff;

pub use logfmt::parse_tags;
pub use metrics::{default_step_nanos, parse_query_instant, parse_query_range};
pub use query::QueryParams;
pub use search::{parse_search, resolve_limit, trace_query};
pub use tags::{TagScope, parse_tag_values, parse_tags_request};
pub use time::{Clamp, TimeRange};
pub use trace::{TraceByIdParams, TraceFilterParams, parse_trace_id};
pub use trace_diff::{DiffFormat, TraceDiffRequest, TraceToDiff};
