//! Series as they are before the last stage: mergeable between tables, blocks and queriers.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{
    comparison::Comparison,
    exemplar::{self, Exemplar},
    label::{Label, series_key},
    plan::{MetricsPlan, What},
    window::{Grid, Window},
};
use crate::error::EngineError;

/// How values of the same series and interval become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge {
    /// Counts and weights: 0 where there is nothing.
    Count,
    /// NaN where there is nothing, as in all others.
    Sum,
    Min,
    Max,
}

impl Merge {
    pub(super) fn nothing(self) -> f64 {
        match self {
            Self::Count => 0.0,
            Self::Sum | Self::Min | Self::Max => f64::NAN,
        }
    }

    fn fold(self, into: &mut f64, value: f64) {
        if value.is_nan() {
            return;
        }
        *into = match self {
            Self::Count => *into + value,
            _ if into.is_nan() => value,
            Self::Sum => *into + value,
            Self::Min => into.min(value),
            Self::Max => into.max(value),
        };
    }
}

/// A series of a [`SeriesTable`].
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) labels: Arc<[Label]>,
    /// The power of two that is the upper end of a histogram's bucket.
    pub(crate) bucket: Option<u8>,
}

/// Values per series and interval.
#[derive(Debug, Clone)]
pub(crate) struct SeriesTable {
    pub(super) merge: Merge,
    intervals: usize,
    heads: Vec<Head>,
    rows: HashMap<Box<[u8]>, usize, foldhash::fast::RandomState>,
    /// `intervals` for each series.
    values: Vec<f64>,
    /// As many: how much each value, a sum, is made of. Only where means are wanted.
    pub(super) weights: Option<Vec<f64>>,
    /// With the series they belong to.
    pub(crate) exemplars: Vec<(usize, Exemplar)>,
}

impl SeriesTable {
    pub(crate) fn new(merge: Merge, with_weights: bool, intervals: usize) -> Self {
        Self {
            merge,
            intervals,
            heads: Vec::new(),
            rows: HashMap::default(),
            values: Vec::new(),
            weights: with_weights.then(Vec::new),
            exemplars: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.heads.len()
    }

    pub(crate) fn heads(&self) -> &[Head] {
        &self.heads
    }

    pub(crate) fn values(&self, row: usize) -> &[f64] {
        &self.values[row * self.intervals..(row + 1) * self.intervals]
    }

    pub(crate) fn weights(&self, row: usize) -> Option<&[f64]> {
        let weights = self.weights.as_ref()?;
        Some(&weights[row * self.intervals..(row + 1) * self.intervals])
    }

    /// The row of a series, and its key when it is new.
    fn find(&self, head: &Head) -> Result<usize, Box<[u8]>> {
        let mut key = series_key(&head.labels);
        key.extend(head.bucket);
        match self.rows.get(&*key) {
            Some(&row) => Ok(row),
            None => Err(key.into()),
        }
    }

    /// Adds values of a series, the first of which belongs to interval number `first`. A new series
    /// is only taken if there are fewer than `max_series`; the row is that of the series.
    pub(crate) fn add(
        &mut self,
        head: &Head,
        first: usize,
        values: &[f64],
        weights: Option<&[f64]>,
        max_series: usize,
    ) -> Option<usize> {
        let row = match self.find(head) {
            Ok(row) => row,
            Err(_) if self.len() >= max_series => return None,
            Err(key) => {
                let row = self.len();
                self.rows.insert(key, row);
                self.heads.push(head.clone());
                let len = self.heads.len() * self.intervals;
                self.values.resize(len, self.merge.nothing());
                if let Some(weights) = &mut self.weights {
                    weights.resize(len, 0.0);
                }
                row
            }
        };
        let at = row * self.intervals + first;
        for (into, &value) in self.values[at..].iter_mut().zip(values) {
            self.merge.fold(into, value);
        }
        if let (Some(into), Some(weights)) = (&mut self.weights, weights) {
            for (into, weight) in into[at..].iter_mut().zip(weights) {
                *into += weight;
            }
        }
        Some(row)
    }

    /// Adds intervals `from` of another table, of which the first is number `first` here; true if
    /// some series were left out because there are too many.
    fn merge(
        &mut self,
        other: Self,
        first: usize,
        from: std::ops::Range<usize>,
        max_series: usize,
        max_bytes: usize,
    ) -> Result<bool, EngineError> {
        let mut rows = Vec::with_capacity(other.len());
        for (row, head) in other.heads().iter().enumerate() {
            // Before a new series takes room for every interval.
            check_budget(self.heap_bytes(), max_bytes)?;
            let with_one_more = check_budget(self.heap_bytes_of(self.len() + 1), max_bytes);
            if with_one_more.is_err() && self.len() < max_series && self.find(head).is_err() {
                with_one_more?;
            }
            rows.push(self.add(
                head,
                first,
                &other.values(row)[from.clone()],
                other.weights(row).map(|weights| &weights[from.clone()]),
                max_series,
            ));
        }
        let exemplars = other.exemplars.into_iter();
        self.exemplars
            .extend(exemplars.filter_map(|(row, exemplar)| Some((rows[row]?, exemplar))));
        Ok(rows.iter().any(Option::is_none))
    }

    fn heap_bytes(&self) -> usize {
        self.heap_bytes_of(self.len())
    }

    fn heap_bytes_of(&self, series: usize) -> usize {
        let per_interval = if self.weights.is_some() { 16 } else { 8 };
        let of_values = self.intervals.saturating_mul(per_interval);
        // Labels, key and entry of a series take about so much.
        series.saturating_mul(of_values.saturating_add(256))
    }
}

/// Whether what series take is no more than they may.
pub(crate) fn check_budget(needed_bytes: usize, limit_bytes: usize) -> Result<(), EngineError> {
    if needed_bytes > limit_bytes {
        return Err(EngineError::TooManySeries {
            needed_bytes,
            limit_bytes,
        });
    }
    Ok(())
}

/// What one sub-query has found.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Series(SeriesTable),
    Comparison(Comparison),
}

impl Part {
    pub(crate) fn new(what: &What, intervals: usize) -> Self {
        let (merge, with_weights) = match what {
            What::Compare { top, .. } => {
                return Self::Comparison(Comparison::new(*top, intervals));
            }
            What::Count | What::Histogram => (Merge::Count, false),
            What::Sum => (Merge::Sum, false),
            What::Min => (Merge::Min, false),
            What::Max => (Merge::Max, false),
            What::Mean => (Merge::Sum, true),
        };
        Self::Series(SeriesTable::new(merge, with_weights, intervals))
    }

    fn len(&self) -> usize {
        match self {
            Self::Series(table) => table.len(),
            Self::Comparison(comparison) => comparison.len(),
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Series(table) => table.heap_bytes(),
            Self::Comparison(comparison) => comparison.heap_bytes(),
        }
    }
}

/// What some tables have to say to a query over time. Merging is associative, and up to the order
/// of exemplars and to rounding it does not matter which part comes first.
#[derive(Debug, Clone)]
pub struct MetricsPartial {
    pub(crate) grid: Grid,
    /// One for each sub-query of the plan.
    pub(crate) parts: Vec<Part>,
    /// Series were left out because there are too many.
    pub(super) is_truncated: bool,
    pub(super) counted_spans: u64,
}

impl MetricsPartial {
    /// Nothing found yet in the intervals of `window`. What is outside of it will be left out.
    pub fn new(plan: &MetricsPlan, window: Window) -> Self {
        Self::with_grid(plan, window.grid())
    }

    pub(crate) fn with_grid(plan: &MetricsPlan, grid: Grid) -> Self {
        let part = |what| Part::new(what, grid.len());
        Self {
            parts: plan.fragments.iter().map(|f| part(&f.what)).collect(),
            grid,
            is_truncated: false,
            counted_spans: 0,
        }
    }

    /// Adds what others have found for the same plan.
    ///
    /// # Errors
    /// [`EngineError::TooManySeries`] when the series take more than `max_bytes`,
    /// [`EngineError::OtherSeries`] when they are not of that plan.
    pub fn merge(
        &mut self,
        plan: &MetricsPlan,
        other: Self,
        max_bytes: usize,
    ) -> Result<(), EngineError> {
        if !other.fits(plan) {
            return Err(EngineError::OtherSeries);
        }
        self.is_truncated |= other.is_truncated;
        self.counted_spans += other.counted_spans;
        if self.is_empty() && self.grid == other.grid {
            self.parts = other.parts;
            self.trim_exemplars(plan);
            return self.check_budget(max_bytes);
        }
        let (into_first, from_first, shared) = self.grid.shared(&other.grid);
        if shared > 0 {
            let from = from_first..from_first + shared;
            for (number, part) in other.parts.into_iter().enumerate() {
                let room = plan.max_series.saturating_sub(self.len());
                match (self.parts.get_mut(number), part) {
                    (Some(Part::Series(into)), Part::Series(part)) => {
                        let max_series = into.len().saturating_add(room);
                        let from = from.clone();
                        let truncated =
                            into.merge(part, into_first, from, max_series, max_bytes)?;
                        self.is_truncated |= truncated;
                    }
                    (Some(Part::Comparison(into)), Part::Comparison(part)) => {
                        into.merge(part, into_first, from.clone(), max_bytes)?;
                    }
                    // The parts of one plan are alike.
                    _ => return Err(EngineError::OtherSeries),
                }
            }
            self.trim_exemplars(plan);
        }
        self.check_budget(max_bytes)
    }

    /// About how many bytes the series take.
    pub fn heap_bytes(&self) -> usize {
        self.parts.iter().map(Part::heap_bytes).sum()
    }

    pub(crate) fn check_budget(&self, max_bytes: usize) -> Result<(), EngineError> {
        check_budget(self.heap_bytes(), max_bytes)
    }

    /// Keeps as many exemplars as the query wants, spread over time.
    fn trim_exemplars(&mut self, plan: &MetricsPlan) {
        let per_fragment = plan.exemplars_per_fragment();
        let bounds = self.grid.bounds_ms();
        for part in &mut self.parts {
            match part {
                Part::Series(table) => {
                    exemplar::spread(&mut table.exemplars, per_fragment, bounds, |entry| &entry.1);
                }
                Part::Comparison(comparison) => comparison.trim_exemplars(per_fragment, bounds),
            }
        }
    }

    pub(crate) fn count_spans(&mut self, spans: usize) {
        self.counted_spans += spans as u64;
    }

    pub(crate) fn mark_truncated(&mut self) {
        self.is_truncated = true;
    }

    /// How many spans the series are made of.
    pub fn counted_spans(&self) -> u64 {
        self.counted_spans
    }

    /// Counts no span: the series were made of them before, for somebody else.
    pub fn forget_counted_spans(&mut self) {
        self.counted_spans = 0;
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Part::len).sum()
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there are as many series as there may be: more parts can add to their values, but
    /// what they bring of others is lost.
    pub fn is_full(&self, plan: &MetricsPlan) -> bool {
        self.is_truncated || self.len() >= plan.max_series
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::plan::MetricsOptions;

    #[test]
    fn a_window_of_too_many_intervals_is_refused_before_it_takes_room() {
        let (second, milli) = (1_000_000_000, 1_000_000);
        let end_nano = 1_790_000_000 * second;
        let window = |start_nano| Window {
            start_nano,
            end_nano,
            step_nano: milli,
            is_instant: false,
        };
        for text in ["{ } | rate()", "{ } | compare({ status = error })"] {
            let query = tempo_traceql::parse(text).unwrap();
            let plan = MetricsPlan::new(&query, &MetricsOptions::default()).unwrap();
            let mut part = MetricsPartial::new(&plan, window(end_nano - 10 * milli));
            match &mut part.parts[0] {
                Part::Series(table) => {
                    let head = Head {
                        labels: Arc::new([]),
                        bucket: None,
                    };
                    table.add(&head, 0, &[1.0], None, 1);
                }
                Part::Comparison(comparison) => {
                    comparison.attribute(&Arc::from("a"));
                }
            }
            let mut all = MetricsPartial::new(&plan, window(0));
            let result = all.merge(&plan, part.clone(), 1 << 30);
            assert!(
                matches!(result, Err(EngineError::TooManySeries { .. })),
                "{text}: {result:?}"
            );
            let mut hour = MetricsPartial::new(&plan, window(end_nano - 3_600 * second));
            hour.merge(&plan, part, 1 << 30).unwrap();
            assert!(!hour.is_empty());
        }
    }
}
