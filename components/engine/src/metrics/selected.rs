//! The spans that are counted, and the columns as far as those spans need them.

use std::{cell::OnceCell, sync::Arc};

use tempo_table::{Bitmap, Column, ColumnKey, Intrinsic as Stored, Level};

use super::{
    plan::{Fragment, MetricsPlan, Sampling, SamplingLevel},
    window::{Grid, Window},
};
use crate::{
    error::EngineError, pipeline::Runner, plan::OperandId, search::run_among, session::Session,
};

/// Some spans of a table, numbered from 0.
pub(crate) struct Selected<'a> {
    pub(crate) session: &'a Session<'a>,
    pub(crate) spans: Bitmap,
    /// Their rows, ascending; all rows of the table when `None`.
    rows: Option<Arc<[u32]>>,
    len: usize,
    /// They are so few that columns are only read in their rows.
    is_sparse: bool,
    /// The interval of each.
    pub(crate) intervals: Vec<u32>,
    levels: [OnceCell<LevelRows>; 4],
}

/// How spans and the columns of a level belong together.
struct LevelRows {
    /// The rows that columns are read in; all when `None`.
    read: Option<Vec<u32>>,
    /// For each span its place in such a column; its own number when `None`.
    places: Option<Arc<[u32]>>,
}

/// Which spans a sub-query counts, and for how many others each of them stands.
pub(crate) struct Choice {
    pub(crate) spans: Bitmap,
    pub(crate) factor: f64,
}

/// Runs the pipeline of a fragment and keeps the spans that start within `window`.
pub(crate) fn choose(
    session: &mut Session<'_>,
    plan: &MetricsPlan,
    fragment: &Fragment,
    window: &Window,
) -> Result<Choice, EngineError> {
    let mut in_time: Option<Bitmap> = None;
    let mut factor = 1.0;
    let found = run_among(&fragment.plan, session, |session| {
        let all = || Bitmap::full(session.structure.spans());
        in_time = spans_within(session, window)?;
        let mut candidates = match &in_time {
            None => all(),
            Some(in_time) if fragment.is_filter => in_time.clone(),
            // Operators and aggregates see whole traces.
            Some(in_time) => Runner {
                session,
                plan: &fragment.plan,
            }
            .whole_traces(in_time)?,
        };
        if let Some(one_in) = sampled_traces(plan.sampling, fragment) {
            factor = sample_traces(session, &mut candidates, one_in)?;
        }
        Ok(candidates)
    })?;
    let mut spans = found.spans(session.structure.spans());
    if let Some(in_time) = &in_time
        && !fragment.is_filter
    {
        spans.and(in_time);
    }
    if let Some(one_in) = sampled_spans(plan.sampling, fragment) {
        let mut numbers = 0..;
        let kept = Bitmap::from_fn(spans.len(), |span| {
            spans.contains(span)
                && numbers
                    .next()
                    .is_some_and(|number: usize| number.is_multiple_of(one_in))
        });
        factor = ratio(spans.count(), kept.count());
        spans = kept;
    }
    Ok(Choice { spans, factor })
}

fn ratio(all: usize, kept: usize) -> f64 {
    match kept {
        0 => 1.0,
        kept => all as f64 / kept as f64,
    }
}

fn sampled_traces(sampling: Option<Sampling>, fragment: &Fragment) -> Option<usize> {
    let sampling = sampling?;
    match sampling.level {
        SamplingLevel::Traces => Some(sampling.one_in),
        SamplingLevel::AsNeeded if fragment.needs_whole_traces => Some(sampling.one_in),
        SamplingLevel::AsNeeded | SamplingLevel::Spans => None,
    }
}

fn sampled_spans(sampling: Option<Sampling>, fragment: &Fragment) -> Option<usize> {
    let sampling = sampling?;
    match sampling.level {
        SamplingLevel::Spans => Some(sampling.one_in),
        SamplingLevel::AsNeeded if !fragment.needs_whole_traces => Some(sampling.one_in),
        SamplingLevel::AsNeeded | SamplingLevel::Traces => None,
    }
}

/// Keeps the candidates of one trace in so many.
fn sample_traces(
    session: &Session<'_>,
    candidates: &mut Bitmap,
    one_in: usize,
) -> Result<f64, EngineError> {
    let structure = &session.structure;
    let (mut all, mut kept) = (0, Bitmap::new(structure.traces()));
    for trace in 0..structure.traces() {
        if candidates.any_in(structure.spans_of_trace(trace)) {
            if all % one_in == 0 {
                kept.insert(trace);
            }
            all += 1;
        }
    }
    let factor = ratio(all, kept.count());
    candidates.and(&session.to_spans(Level::Trace, kept)?);
    Ok(factor)
}

/// The columns that are read in any case.
pub(crate) fn first_pass(fragment: &Fragment) -> Vec<ColumnKey> {
    let plan = &fragment.plan;
    let mut keys: Vec<ColumnKey> = plan.first_pass.clone();
    keys.push(Stored::SpanStartNano.into());
    // A filter may leave so few spans that only some rows are read.
    if plan.first_pass.is_empty() {
        let operands = fragment.by.iter().chain(&fragment.measured);
        keys.extend(operands.flat_map(|&operand| plan.operands[operand].keys().cloned()));
    }
    keys
}

/// The columns that are read if any spans are left, with those that exemplars show.
pub(crate) fn later_columns(fragment: &Fragment, has_exemplars: bool) -> Vec<ColumnKey> {
    let plan = &fragment.plan;
    let mut operands: Vec<OperandId> = fragment
        .by
        .iter()
        .chain(&fragment.measured)
        .copied()
        .collect();
    let mut keys = Vec::new();
    if has_exemplars {
        operands.extend(plan.loaded.iter().map(|loaded| loaded.operand));
        keys.push(Stored::TraceId.into());
    }
    let operands = operands.into_iter();
    keys.extend(operands.flat_map(|operand| plan.operands[operand].keys().cloned()));
    keys
}

/// The spans that start within the window; `None` when all of them do.
fn spans_within(session: &Session<'_>, window: &Window) -> Result<Option<Bitmap>, EngineError> {
    let starts = ColumnKey::from(Stored::SpanStartNano);
    if let Some((first, last)) = session.table.int_bounds(&starts)?
        && first >= 0
        && window.holds(first as u64)
        && window.holds(last as u64)
    {
        return Ok(None);
    }
    let column = session.column(&starts)?;
    let Some(lane) = &column.ints else {
        return Ok(Some(Bitmap::new(session.structure.spans())));
    };
    let values = &*lane.values;
    let span = window.end_nano.saturating_sub(window.start_nano);
    Ok(Some(Bitmap::from_fn(values.len(), |row| {
        // One comparison: what is not later than the start wraps around.
        (values[row] as u64)
            .wrapping_sub(window.start_nano)
            .wrapping_sub(1)
            < span
    })))
}

impl<'a> Selected<'a> {
    /// `spans` all start within the grid.
    pub(crate) fn new(
        session: &'a Session<'a>,
        spans: Bitmap,
        grid: &Grid,
    ) -> Result<Self, EngineError> {
        let len = spans.count();
        let mut selected = Self {
            session,
            rows: (len < spans.len()).then(|| rows_of(&spans, len)),
            len,
            is_sparse: session.is_sparse(&spans),
            spans,
            intervals: Vec::new(),
            levels: Default::default(),
        };
        selected.intervals = {
            let starts = selected.starts()?;
            let divider = grid.divider();
            match starts.places {
                None => divider.intervals(starts.values.iter().map(|&value| value as u64)),
                Some(places) => divider.intervals(
                    places
                        .iter()
                        .map(|&place| starts.values[place as usize] as u64),
                ),
            }
        };
        Ok(selected)
    }

    /// How many spans there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The row of a span.
    pub(crate) fn row(&self, number: usize) -> usize {
        match &self.rows {
            None => number,
            Some(rows) => rows[number] as usize,
        }
    }

    /// The number of the span in a row.
    pub(crate) fn number(&self, row: usize) -> Option<usize> {
        match &self.rows {
            None => Some(row),
            Some(rows) if self.spans.contains(row) => rows.binary_search(&(row as u32)).ok(),
            Some(_) => None,
        }
    }

    /// When the spans start.
    pub(crate) fn starts(&self) -> Result<Starts<'_>, EngineError> {
        let key = Stored::SpanStartNano.into();
        let lane = self.column(&key)?.ints;
        Ok(Starts {
            values: lane.map(|lane| lane.values).unwrap_or_default(),
            places: self.places(key.level())?,
        })
    }

    /// A column, whole or in the rows of these spans; [`Self::places`] tells which.
    pub(crate) fn column(&self, key: &ColumnKey) -> Result<Column, EngineError> {
        match &self.level(key.level())?.read {
            Some(rows) => self.session.gather(key, rows),
            None => self.session.column(key),
        }
    }

    /// The same for a column that nobody else will ask for.
    pub(crate) fn column_once(&self, key: &ColumnKey) -> Result<Column, EngineError> {
        match &self.level(key.level())?.read {
            Some(rows) => self.session.gather(key, rows),
            None => self.session.column_once(key),
        }
    }

    /// For each span its place in the columns of a level; its own number when `None`. Events and
    /// links have no such columns.
    pub(crate) fn places(&self, level: Level) -> Result<Option<&[u32]>, EngineError> {
        Ok(self.level(level)?.places.as_deref())
    }

    fn level(&self, level: Level) -> Result<&LevelRows, EngineError> {
        let cell = &self.levels[match level {
            Level::Trace => 0,
            Level::Resource => 1,
            Level::Scope => 2,
            Level::Span | Level::Event | Level::Link => 3,
        }];
        if let Some(rows) = cell.get() {
            return Ok(rows);
        }
        let rows = self.level_rows(level)?;
        Ok(cell.get_or_init(|| rows))
    }

    fn level_rows(&self, level: Level) -> Result<LevelRows, EngineError> {
        let structure = &self.session.structure;
        if self.is_sparse {
            let read = self.session.rows_of(level, self.spans.iter())?;
            let places = (level != Level::Span).then(|| {
                // Rows are listed once each, in the order of their spans.
                let mut place = 0;
                let of_span = |span: usize| {
                    let row = self.session.row_of(level, span) as u32;
                    while read[place] != row {
                        place += 1;
                    }
                    place as u32
                };
                self.spans.iter().map(of_span).collect()
            });
            return Ok(LevelRows {
                read: Some(read),
                places,
            });
        }
        let of_all: Option<Arc<[u32]>> = match level {
            Level::Resource => Some(Arc::clone(&structure.span_resource)),
            Level::Scope => Some(Arc::clone(&structure.span_scope)),
            Level::Trace => Some(
                structure
                    .trace_spans
                    .windows(2)
                    .zip(0..)
                    .flat_map(|(spans, trace)| {
                        std::iter::repeat_n(trace, (spans[1] - spans[0]) as usize)
                    })
                    .collect(),
            ),
            Level::Span | Level::Event | Level::Link => None,
        };
        let places = match (&self.rows, of_all) {
            (None, of_all) => of_all,
            (Some(rows), None) => Some(Arc::clone(rows)),
            (Some(rows), Some(of_all)) => {
                Some(rows.iter().map(|&row| of_all[row as usize]).collect())
            }
        };
        Ok(LevelRows { read: None, places })
    }
}

/// When spans start.
pub(crate) struct Starts<'a> {
    values: Arc<[i64]>,
    places: Option<&'a [u32]>,
}

impl Starts<'_> {
    /// The start of a span, nanoseconds since the epoch.
    pub(crate) fn of(&self, number: usize) -> u64 {
        let place = self.places.map_or(number, |places| places[number] as usize);
        self.values.get(place).copied().unwrap_or_default() as u64
    }
}

fn rows_of(spans: &Bitmap, count: usize) -> Arc<[u32]> {
    let mut rows = Vec::with_capacity(count);
    for (index, &word) in spans.words().iter().enumerate() {
        let first = index as u32 * 64;
        if word == u64::MAX {
            rows.extend(first..first + 64);
            continue;
        }
        let mut rest = word;
        while rest != 0 {
            rows.push(first + rest.trailing_zeros());
            rest &= rest - 1;
        }
    }
    rows.into()
}
