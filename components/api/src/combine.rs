//! Merging the answers of many jobs into one.

mod distinct;
mod metrics;
mod progress;
mod search;
mod tags;
mod trace;

pub use metrics::MetricsCombiner;
pub use progress::{Progress, Shard};
pub use search::{SearchCombiner, SearchPlan, with_span_set};
pub use tags::{CollectLimits, TagNamesCombiner, TagValuesCombiner, intrinsic_names};
pub use trace::{CombinedTrace, TraceCombiner};
