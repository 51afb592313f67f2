//! Query hints: `with(sample=0.1, most_recent=true)`.
//!
//! Owns which hints are safe, and the rule that a hint of another type than asked for is ignored.
//! What a hint does is the matter of whoever asks for it.

use std::sync::Arc;

use crate::ast::Static;

/// Names of the hints that something reads. Other names parse and are ignored.
pub mod names {
    /// Bool, or float between 0 and 1: adaptive or fixed sampling of metrics.
    pub const SAMPLE: &str = "sample";
    /// Number: force trace-level sampling.
    pub const TRACE_SAMPLE: &str = "trace_sample";
    /// Number: force span-level sampling.
    pub const SPAN_SAMPLE: &str = "span_sample";
    /// Int or bool: exemplars to return.
    pub const EXEMPLARS: &str = "exemplars";
    /// Bool: the newest traces, in order.
    pub const MOST_RECENT: &str = "most_recent";
    /// Bool: weigh spans by their sampling probability.
    pub const EXTRAPOLATE: &str = "extrapolate";
    /// Int, bytes; unsafe.
    pub const JOB_SIZE: &str = "job_size";
    /// Int; unsafe.
    pub const CONCURRENT_BLOCKS: &str = "concurrent_blocks";
    /// Float between 0 and 1; unsafe.
    pub const TIME_OVERLAP_CUTOFF: &str = "time_overlap_cutoff";
    /// String, comma-separated names of rewrites; unsafe.
    pub const SKIP_AST_TRANSFORMATIONS: &str = "skip_ast_transformations";
}

/// The hints of a query, in the order written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Hints {
    entries: Vec<(Arc<str>, Static)>,
}

impl Hints {
    /// From names and values in the order written.
    pub fn new(entries: Vec<(Arc<str>, Static)>) -> Self {
        Self { entries }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All of them, in the order written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Static)> {
        self.entries.iter().map(|(name, value)| (&**name, value))
    }

    /// The first boolean of this name.
    pub fn bool(&self, name: &str, allow_unsafe: bool) -> Option<bool> {
        self.find(name, allow_unsafe, |value| match value {
            Static::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// The first integer of this name.
    pub fn int(&self, name: &str, allow_unsafe: bool) -> Option<i64> {
        self.find(name, allow_unsafe, |value| match value {
            Static::Int(value) => Some(*value),
            _ => None,
        })
    }

    /// The first float of this name, else the first integer.
    pub fn float(&self, name: &str, allow_unsafe: bool) -> Option<f64> {
        self.find(name, allow_unsafe, |value| match value {
            Static::Float(value) => Some(*value),
            _ => None,
        })
        .or_else(|| self.int(name, allow_unsafe).map(|value| value as f64))
    }

    /// The first duration of this name, in nanoseconds.
    pub fn duration_nanos(&self, name: &str, allow_unsafe: bool) -> Option<i64> {
        self.find(name, allow_unsafe, |value| match value {
            Static::Duration(nanos) => Some(*nanos),
            _ => None,
        })
    }

    /// The first string of this name, split at commas.
    pub fn strings(&self, name: &str, allow_unsafe: bool) -> Option<Vec<&str>> {
        self.find(name, allow_unsafe, |value| match value {
            Static::String(text) => Some(text.split(',').collect()),
            _ => None,
        })
    }

    fn find<'a, T>(
        &'a self,
        name: &str,
        allow_unsafe: bool,
        of_type: impl Fn(&'a Static) -> Option<T>,
    ) -> Option<T> {
        if !allow_unsafe && !is_safe(name) {
            return None;
        }
        self.entries
            .iter()
            .filter(|(entry, _)| **entry == *name)
            .find_map(|(_, value)| of_type(value))
    }
}

/// Whether every user may set the hint; the others need the tenant's `unsafe_query_hints`.
fn is_safe(name: &str) -> bool {
    matches!(
        name,
        names::SAMPLE
            | names::TRACE_SAMPLE
            | names::SPAN_SAMPLE
            | names::EXEMPLARS
            | names::MOST_RECENT
            | names::EXTRAPOLATE
    )
}
