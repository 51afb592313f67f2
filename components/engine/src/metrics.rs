//! Time series from spans.
//!
//! Owns queries over time in three levels. [`evaluate`] counts the spans of one table without ever
//! making sets of them: the pipeline yields a selection, start times become intervals, values
//! become small numbers, and counters are found by index. [`MetricsPartial::merge`] brings together
//! what tables, blocks and queriers have counted. [`MetricsPartial::finish`] makes the series of an
//! answer: quantiles, arithmetic, the largest and the smallest.

mod cells;
mod compare;
mod compare_cells;
mod comparison;
mod encode;
mod evaluate;
mod exemplar;
mod finish;
mod groups;
mod histogram;
mod label;
mod measure;
mod partial;
mod plan;
mod second_stage;
mod selected;
mod series_math;
mod weight;
mod window;
mod wire;

pub use evaluate::evaluate;
pub use exemplar::Exemplar;
pub use finish::{MetricsAnswer, Series};
pub use label::Label;
pub use partial::MetricsPartial;
pub use plan::{MetricsOptions, MetricsPlan};
pub use window::{Grid, Window};
pub use wire::WireError;
