//! From a table to partial series.

use std::sync::Arc;

use tempo_table::{ColumnKey, Intrinsic as Stored, Level, SpanTable};
use tempo_traceql::Attribute;

use super::{
    cells::Cells,
    compare,
    encode::encode_operand,
    exemplar::{Exemplar, Spread},
    groups::{Groups, Nil},
    label::{Label, NAME, label_name},
    measure,
    partial::{Head, MetricsPartial, Part, SeriesTable},
    plan::{Fragment, MetricsPlan, What},
    selected::{Choice, Selected, choose, first_pass, later_columns},
    weight,
    window::{Grid, Window},
};
use crate::{
    error::EngineError,
    plan::{OperandId, Plan},
    results::survivor,
    rows::RowReader,
    scan,
    search::finds_nothing,
    session::{Clues, Limits, Session},
    value::Value,
};

const NANOS_PER_MILLI: u64 = 1_000_000;
/// Spans that are looked at for each exemplar that is wanted.
const LOOKS_PER_EXEMPLAR: usize = 32;
/// Cells that a span of a partial series takes while it is counted.
const BYTES_PER_CELL: usize = 16;

/// Counts the spans of one table.
///
/// # Errors
/// See [`EngineError`].
pub fn evaluate(
    plan: &MetricsPlan,
    table: &dyn SpanTable,
    window: Window,
    limits: Limits<'_>,
) -> Result<MetricsPartial, EngineError> {
    let window = narrowed(table, window)?;
    let mut partial = MetricsPartial::new(plan, window);
    if window.is_empty() || plan.matches_nothing() {
        return Ok(partial);
    }
    let clues = Clues::of(table);
    let mut hopeful = Vec::new();
    let (mut keys, mut later) = (Vec::new(), Vec::new());
    let has_exemplars = plan.exemplars_per_fragment() > 0;
    for (number, fragment) in plan.fragments.iter().enumerate() {
        if !finds_nothing(&clues, &fragment.plan)? {
            hopeful.push((number, fragment));
            keys.extend(first_pass(fragment));
            later.extend(later_columns(fragment, has_exemplars));
        }
    }
    if hopeful.is_empty() {
        return Ok(partial);
    }
    keys.sort();
    keys.dedup();
    table.prefetch(&keys, &later)?;
    let mut session = Session::after(clues, limits)?;
    for (number, fragment) in hopeful {
        session.check_cancelled()?;
        let choice = choose(&mut session, plan, fragment, &window)?;
        if choice.spans.is_empty() {
            continue;
        }
        Evaluation {
            session: &session,
            plan,
            fragment,
            grid: partial.grid,
        }
        .run(choice, &mut partial, number)?;
        partial.check_budget(limits.max_column_bytes)?;
    }
    Ok(partial)
}

/// The part of a window in which the table has spans, as far as statistics tell.
fn narrowed(table: &dyn SpanTable, window: Window) -> Result<Window, EngineError> {
    let bounds = table.int_bounds(&Stored::SpanStartNano.into())?;
    Ok(match bounds {
        // Negative numbers are times beyond the year 2262.
        Some((first, last)) if first > 0 => window.after(first as u64 - 1).until(last as u64),
        _ => window,
    })
}

/// The work on one sub-query.
pub(crate) struct Evaluation<'a> {
    pub(crate) session: &'a Session<'a>,
    pub(crate) plan: &'a MetricsPlan,
    pub(crate) fragment: &'a Fragment,
    pub(crate) grid: Grid,
}

impl Evaluation<'_> {
    fn run(
        &self,
        choice: Choice,
        partial: &mut MetricsPartial,
        number: usize,
    ) -> Result<(), EngineError> {
        self.check_cells(1)?;
        let selected = Selected::new(self.session, choice.spans, &self.grid)?;
        partial.count_spans(selected.len());
        let weights = match self.plan.extrapolate {
            true => weight::weights(&selected)?,
            false => None,
        };
        let room = self.plan.max_series.saturating_sub(partial.len());
        match (&mut partial.parts[number], &self.fragment.what) {
            (
                Part::Comparison(into),
                What::Compare {
                    selection,
                    selection_loaded,
                    time_nano,
                    ..
                },
            ) => {
                let task = compare::Task {
                    evaluation: self,
                    selected: &selected,
                    weights: weights.as_deref(),
                    factor: choice.factor,
                };
                task.run(selection, selection_loaded, *time_nano, into)
            }
            (Part::Series(into), what) => {
                let truncated = self.count(
                    &selected,
                    what,
                    weights.as_deref(),
                    choice.factor,
                    room,
                    into,
                )?;
                if truncated {
                    partial.mark_truncated();
                }
                Ok(())
            }
            (Part::Comparison(_), _) => Ok(()),
        }
    }

    /// Whether so many series fit into memory.
    fn check_cells(&self, series: usize) -> Result<(), EngineError> {
        let needed_bytes = series
            .saturating_mul(self.grid.len())
            .saturating_mul(BYTES_PER_CELL);
        let limit_bytes = self.session.max_bytes();
        if needed_bytes > limit_bytes || self.grid.len() > u32::MAX as usize {
            return Err(EngineError::TooManySeries {
                needed_bytes,
                limit_bytes,
            });
        }
        Ok(())
    }

    /// Adds series; true if some were left out because there are too many.
    fn count(
        &self,
        selected: &Selected<'_>,
        what: &What,
        weights: Option<&[f64]>,
        factor: f64,
        max_series: usize,
        into: &mut SeriesTable,
    ) -> Result<bool, EngineError> {
        let fragment = self.fragment;
        let width = self.grid.len();
        let mut groups = Groups::one();
        for &operand in &fragment.by {
            let by = encode_operand(selected, &fragment.plan, operand)?;
            groups.split(selected, by, Nil::Counts, max_series, width)?;
        }
        let mut values = None;
        match (what, fragment.measured) {
            (What::Histogram, Some(operand)) => {
                let buckets = measure::buckets(selected, &fragment.plan, operand)?;
                groups.split(selected, buckets, Nil::Drops, max_series, width)?;
            }
            (_, Some(operand)) => {
                values = Some(measure::numbers(selected, &fragment.plan, operand)?);
            }
            (_, None) => {}
        }
        self.check_cells(groups.len() + 1)?;
        let cells = Cells {
            groups: &groups,
            intervals: &selected.intervals,
            width,
        };
        let values = values.as_deref().unwrap_or_default();
        let (mut cells, mut cell_weights) = match what {
            What::Count | What::Histogram | What::Compare { .. } => (cells.counts(weights), None),
            What::Min => (cells.extremes(values, |value, least| value < least), None),
            What::Max => (cells.extremes(values, |value, most| value > most), None),
            What::Sum | What::Mean => {
                let (mut sums, weights) = cells.sums(values, weights);
                for (sum, &weight) in sums.iter_mut().zip(&weights) {
                    if weight == 0.0 {
                        *sum = f64::NAN;
                    }
                }
                let weights = matches!(what, What::Mean).then_some(weights);
                (sums, weights)
            }
        };
        if factor != 1.0 && !matches!(what, What::Min | What::Max) {
            let scaled = cells.iter_mut().chain(cell_weights.iter_mut().flatten());
            scaled.for_each(|cell| *cell *= factor);
        }
        let counts = matches!(what, What::Count | What::Histogram);
        let mut rows = Vec::with_capacity(groups.len());
        for group in 0..groups.len() {
            let of_group = group * width..(group + 1) * width;
            let values = &cells[of_group.clone()];
            // Groups without spans make no series, nor do groups of spans without a number.
            let is_nothing = |value: &f64| value.is_nan() || (counts && *value == 0.0);
            if values.iter().all(is_nothing) {
                rows.push(None);
                continue;
            }
            rows.push(into.add(
                &self.head(&groups, group),
                0,
                values,
                cell_weights.as_ref().map(|weights| &weights[of_group]),
                usize::MAX,
            ));
        }
        self.add_exemplars(selected, &groups, &rows, what, into)?;
        Ok(groups.is_truncated)
    }

    /// What a group is called.
    fn head(&self, groups: &Groups, group: usize) -> Head {
        let fragment = self.fragment;
        let is_histogram = matches!(fragment.what, What::Histogram);
        let values = groups.values(group);
        let mut labels: Vec<Label> = fragment
            .by_names
            .iter()
            .zip(values)
            .filter(|(_, value)| *value != Value::Nil)
            .map(|(name, value)| Label::new(Arc::clone(name), value))
            .collect();
        if labels.is_empty() && !is_histogram {
            labels.push(match fragment.by_names.first() {
                Some(name) => Label::new(Arc::clone(name), Value::Nil),
                None => Label::text(NAME, fragment.function),
            });
        }
        Head {
            labels: labels.into(),
            bucket: is_histogram
                .then(|| groups.last_code(group))
                .flatten()
                .map(|power| power as u8),
        }
    }

    // -----------------------------------------------------------------------------------------
    // Exemplars
    // -----------------------------------------------------------------------------------------

    fn add_exemplars(
        &self,
        selected: &Selected<'_>,
        groups: &Groups,
        rows: &[Option<usize>],
        what: &What,
        into: &mut SeriesTable,
    ) -> Result<(), EngineError> {
        let picked = self.pick(selected, |number| groups.of(number).and_then(|g| rows[g]))?;
        if picked.is_empty() {
            return Ok(());
        }
        let numbers: Vec<usize> = picked.iter().map(|pick| pick.number).collect();
        let described = self.describe(selected, &numbers)?;
        let values = match (what, self.fragment.measured) {
            (What::Histogram, _) | (_, None) => None,
            (_, Some(operand)) => {
                let unit = measure::unit(&self.fragment.plan, operand);
                Some((operand, unit))
            }
        };
        let mut spans = tempo_table::Bitmap::new(selected.spans.len());
        numbers
            .iter()
            .for_each(|&number| spans.insert(selected.row(number)));
        let operands: Vec<OperandId> = values.iter().map(|&(operand, _)| operand).collect();
        let reader = RowReader::for_operands(self.session, &self.fragment.plan, &operands, &spans)?;
        for (pick, labels) in picked.into_iter().zip(described) {
            let value = values.map_or(f64::NAN, |(operand, unit)| {
                let value = reader.value(operand, selected.row(pick.number));
                value.to_number().map_or(f64::NAN, |n| n.as_f64() / unit)
            });
            let exemplar = Exemplar {
                timestamp_ms: pick.timestamp_ms,
                value,
                labels,
            };
            into.exemplars.push((pick.series, exemplar));
        }
        Ok(())
    }

    /// Picks spans to show, one of a trace, as long as there is room at their time. Of many spans
    /// some are looked at, all over the table: it may be in the order of time.
    pub(crate) fn pick<T>(
        &self,
        selected: &Selected<'_>,
        series_of: impl Fn(usize) -> Option<T>,
    ) -> Result<Vec<Pick<T>>, EngineError> {
        let wanted = self.plan.exemplars_per_fragment();
        let mut picked = Vec::new();
        if wanted == 0 {
            return Ok(picked);
        }
        let starts = selected.starts()?;
        let mut room = Spread::new(wanted, self.grid.bounds_ms());
        let mut last_trace = None;
        let stride = (selected.len() / (wanted * LOOKS_PER_EXEMPLAR)).max(1);
        for number in (0..selected.len()).step_by(stride) {
            if room.is_full() {
                break;
            }
            let trace = Some(self.session.trace_of(selected.row(number)));
            if trace == last_trace {
                continue;
            }
            let Some(series) = series_of(number) else {
                continue;
            };
            let timestamp_ms = (starts.of(number) / NANOS_PER_MILLI) as i64;
            if room.take(timestamp_ms) {
                last_trace = trace;
                picked.push(Pick {
                    number,
                    timestamp_ms,
                    series,
                });
            }
        }
        Ok(picked)
    }

    /// What the query has loaded of some spans, their trace ids first.
    pub(crate) fn describe(
        &self,
        selected: &Selected<'_>,
        numbers: &[usize],
    ) -> Result<Vec<Arc<[Label]>>, EngineError> {
        let plan: &Plan = &self.fragment.plan;
        let mut spans = tempo_table::Bitmap::new(selected.spans.len());
        numbers
            .iter()
            .for_each(|&number| spans.insert(selected.row(number)));
        let operands: Vec<OperandId> = plan.loaded.iter().map(|loaded| loaded.operand).collect();
        let reader = RowReader::for_operands(self.session, plan, &operands, &spans)?;
        let trace_id = ColumnKey::from(Stored::TraceId);
        let traces = self.session.rows_of(Level::Trace, spans.iter())?;
        let ids = self.session.gather(&trace_id, &traces)?;
        let trace_id_name = label_name(&Attribute::Intrinsic(tempo_traceql::Intrinsic::TraceId));
        let names: Vec<Arc<str>> = plan
            .loaded
            .iter()
            .map(|loaded| label_name(&plan.operands[loaded.operand].attribute))
            .collect();
        let describe = |&number: &usize| {
            let span = selected.row(number);
            let trace = self.session.trace_of(span) as u32;
            let place = traces.partition_point(|&other| other < trace);
            let id = scan::value(&ids, crate::operand::Reading::ShortHex, place);
            let mut labels = vec![Label::new(Arc::clone(&trace_id_name), id.to_value())];
            for (loaded, name) in plan.loaded.iter().zip(&names) {
                if *name == trace_id_name {
                    continue;
                }
                let mut values = reader.values(loaded.operand, span);
                let value = values.find_map(|value| survivor(value, loaded));
                if let Some(value) = value {
                    labels.push(Label::new(Arc::clone(name), value));
                }
            }
            Arc::from(labels)
        };
        Ok(numbers.iter().map(describe).collect())
    }
}

/// A span that is to be shown.
pub(crate) struct Pick<T> {
    /// Its number among the selected spans.
    pub(crate) number: usize,
    pub(crate) timestamp_ms: i64,
    pub(crate) series: T,
}
