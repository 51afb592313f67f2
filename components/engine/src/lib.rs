//! TraceQL on span tables.
//!
//! Owns the evaluation of queries: the plan ([`Plan`]), searches ([`search`]), the spans that a
//! pipeline keeps ([`find`]), queries over time ([`metrics`]) and completion ([`tag_names`],
//! [`tag_values`]). Works on any [`tempo_table::SpanTable`], on columns as a
//! whole: predicates run once per dictionary entry, then on codes; further columns are read only
//! for the spans that are left. Must never do I/O of its own, read a clock, or know how spans are
//! stored.

mod aggregate;
mod error;
mod filter;
mod found;
pub mod metrics;
mod operand;
mod pattern;
mod pipeline;
mod plan;
mod planner;
mod results;
mod rows;
mod scan;
mod search;
mod session;
mod structural;
mod tags;
mod test;
mod value;

pub use error::{EngineError, PlanError};
pub use found::{Found, PerTrace, Sets};
pub use plan::Plan;
pub use search::{
    DEFAULT_SPANS_PER_SPAN_SET, FoundService, FoundSpan, FoundSpanSet, FoundTrace, SearchOptions,
    SearchOutput, find, search,
};
pub use session::Limits;
pub use tags::{
    TagFilter, TagNames, TagValue, TagValueLimits, TagValueType, tag_names, tag_values,
};
pub use value::Value;
