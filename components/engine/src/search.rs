//! Searches: from a plan and a table to traces as answers show them.

use std::sync::Arc;

use tempo_model::TraceId;
use tempo_table::{Bitmap, ColumnKey, Intrinsic as Stored, Level, SpanTable};
use tempo_traceql::ast::{SpansetOp, StructuralForm};

use crate::{
    error::EngineError,
    filter::{is_impossible, joint_rows},
    found::{Found, Label, Orders, PerTrace},
    pipeline::Runner,
    plan::{Plan, SpanExpr, Stage},
    results::{SpanColumns, TraceColumns, number, prefetch, shown_columns},
    session::{Clues, Limits, Session},
    value::Value,
};

/// Spans per set when a request does not say.
pub const DEFAULT_SPANS_PER_SPAN_SET: usize = 3;

/// About what a set and a span take that are returned, without their attributes.
const BYTES_PER_SET: usize = 128;
const BYTES_PER_SPAN: usize = 128;

/// What a search asks of one table.
#[derive(Debug, Clone, Copy)]
pub struct SearchOptions<'a> {
    /// Only traces that overlap this time, inclusive, in nanoseconds since the epoch.
    pub time_range_nano: Option<(u64, u64)>,
    /// Traces to return; 0 means all.
    pub max_traces: usize,
    /// Spans to return per set; 0 means [`DEFAULT_SPANS_PER_SPAN_SET`].
    pub max_spans_per_span_set: usize,
    /// The newest traces instead of the first that are found.
    pub most_recent: bool,
    /// What the search may use.
    pub limits: Limits<'a>,
}

/// What a search found in one table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SearchOutput {
    /// Newest first if the newest were asked for, otherwise as the table has them.
    pub traces: Vec<FoundTrace>,
    /// Traces that the table holds.
    pub inspected_traces: u64,
    /// Spans that the table holds.
    pub inspected_spans: u64,
}

/// A trace that matches.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundTrace {
    /// Its id.
    pub trace_id: TraceId,
    /// Empty when the root is not known.
    pub root_service_name: Arc<str>,
    /// Empty when the root is not known.
    pub root_trace_name: Arc<str>,
    /// Nanoseconds since the epoch.
    pub start_unix_nano: u64,
    /// Nanoseconds.
    pub duration_nano: u64,
    /// Every service with its spans and those that failed, of the whole trace.
    pub service_stats: Vec<FoundService>,
    /// At least one; more after `by()`.
    pub span_sets: Vec<FoundSpanSet>,
}

/// A service of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundService {
    /// Its name.
    pub name: Arc<str>,
    /// Its spans.
    pub spans: u32,
    /// Those with status error.
    pub errors: u32,
}

/// A set of spans that match.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundSpanSet {
    /// As many as were asked for, in the order of the table.
    pub spans: Vec<FoundSpan>,
    /// How many match.
    pub matched: u32,
    /// `by(…)` and aggregates.
    pub attributes: Vec<(Arc<str>, Value)>,
}

/// A span that matches.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundSpan {
    /// Its id.
    pub span_id: [u8; 8],
    /// Nanoseconds since the epoch.
    pub start_unix_nano: u64,
    /// Nanoseconds.
    pub duration_nano: u64,
    /// Only if the query asks for names.
    pub name: Option<Arc<str>>,
    /// What the query asks for, by name without scope; a name may occur more than once.
    pub attributes: Vec<(Arc<str>, Value)>,
}

/// Finds the spans that a pipeline keeps, without making results of them.
///
/// # Errors
/// See [`EngineError`].
pub fn find(
    plan: &Plan,
    table: &dyn SpanTable,
    time_range_nano: Option<(u64, u64)>,
    limits: Limits<'_>,
) -> Result<Found, EngineError> {
    match begin(plan, table, time_range_nano, limits)? {
        Some(mut session) => run(plan, &mut session, time_range_nano),
        None => Ok(nothing(table.rows(Level::Span)?)),
    }
}

/// Searches one table.
///
/// # Errors
/// See [`EngineError`].
pub fn search(
    plan: &Plan,
    table: &dyn SpanTable,
    options: &SearchOptions<'_>,
) -> Result<SearchOutput, EngineError> {
    if plan.matches_nothing() {
        return Ok(SearchOutput::default());
    }
    let traces = match begin(plan, table, options.time_range_nano, options.limits)? {
        Some(mut session) => {
            let found = run(plan, &mut session, options.time_range_nano)?;
            results(&session, plan, &found, options)?
        }
        None => Vec::new(),
    };
    Ok(SearchOutput {
        traces,
        inspected_traces: table.rows(Level::Trace)? as u64,
        inspected_spans: table.rows(Level::Span)? as u64,
    })
}

/// A run on a table, whose columns of the first pass are on their way; `None` when statistics and
/// dictionaries tell that there is nothing to find.
fn begin<'a>(
    plan: &Plan,
    table: &'a dyn SpanTable,
    time_range_nano: Option<(u64, u64)>,
    limits: Limits<'a>,
) -> Result<Option<Session<'a>>, EngineError> {
    if let Some((_, to)) = time_range_nano
        && let Some((earliest, _)) = table.int_bounds(&Stored::TraceStartNano.into())?
        && earliest as u64 > to
    {
        return Ok(None);
    }
    let clues = Clues::of(table);
    if finds_nothing(&clues, plan)? {
        return Ok(None);
    }
    match plan.first_pass.as_slice() {
        // All rows match, and few are shown.
        [] => {}
        first_pass => table.prefetch(first_pass, &shown_columns(plan))?,
    }
    Session::after(clues, limits).map(Some)
}

fn nothing(spans: usize) -> Found {
    Found::PerTrace(PerTrace {
        spans: Bitmap::new(spans),
        order: None,
        labels: Vec::new(),
    })
}

fn run(
    plan: &Plan,
    session: &mut Session<'_>,
    time_range_nano: Option<(u64, u64)>,
) -> Result<Found, EngineError> {
    run_among(plan, session, |session| {
        overlapping(session, time_range_nano)
    })
}

/// Runs a plan on the spans that `choose` names.
pub(crate) fn run_among(
    plan: &Plan,
    session: &mut Session<'_>,
    choose: impl FnOnce(&Session<'_>) -> Result<Bitmap, EngineError>,
) -> Result<Found, EngineError> {
    let candidates = choose(session)?;
    if candidates.is_empty() {
        return Ok(nothing(session.structure.spans()));
    }
    session.table.prefetch(&plan.first_pass, &[])?;
    session.event_mask = joint_rows(session, plan, Level::Event)?;
    session.link_mask = joint_rows(session, plan, Level::Link)?;
    let runner = Runner { session, plan };
    let input = PerTrace {
        spans: candidates,
        order: None,
        labels: Vec::new(),
    };
    runner.run(&plan.stages, Found::PerTrace(input))
}

/// Whether dictionaries and statistics tell that a plan finds nothing.
pub(crate) fn finds_nothing(clues: &Clues<'_>, plan: &Plan) -> Result<bool, EngineError> {
    match plan.stages.first() {
        Some(Stage::Spans(expr)) => is_hopeless(clues, plan, expr),
        _ => Ok(false),
    }
}

fn is_hopeless(clues: &Clues<'_>, plan: &Plan, expr: &SpanExpr) -> Result<bool, EngineError> {
    Ok(match expr {
        SpanExpr::Filter(filter) => is_impossible(clues, plan, filter)?,
        SpanExpr::Operation { op, lhs, rhs } => match op {
            SpansetOp::Or => is_hopeless(clues, plan, lhs)? && is_hopeless(clues, plan, rhs)?,
            SpansetOp::Structural(op) if op.form == StructuralForm::Negated => {
                is_hopeless(clues, plan, rhs)?
            }
            SpansetOp::And | SpansetOp::Structural(_) => {
                is_hopeless(clues, plan, lhs)? || is_hopeless(clues, plan, rhs)?
            }
        },
        SpanExpr::Pipeline(stages) => match stages.first() {
            Some(Stage::Spans(expr)) => is_hopeless(clues, plan, expr)?,
            _ => false,
        },
    })
}

/// The spans of traces that overlap a time range.
fn overlapping(
    session: &Session<'_>,
    time_range_nano: Option<(u64, u64)>,
) -> Result<Bitmap, EngineError> {
    let all = || Bitmap::full(session.structure.spans());
    let Some((from, to)) = time_range_nano else {
        return Ok(all());
    };
    let starts = ColumnKey::from(Stored::TraceStartNano);
    if let Some((earliest, latest)) = session.table.int_bounds(&starts)? {
        if earliest as u64 > to {
            return Ok(Bitmap::new(session.structure.spans()));
        }
        if earliest as u64 >= from && latest as u64 <= to {
            return Ok(all());
        }
    }
    let starts = session.column(&starts)?;
    let durations = session.column(&Stored::TraceDurationNano.into())?;
    let traces = Bitmap::from_fn(session.structure.traces(), |trace| {
        let start = number(&starts, trace);
        let end = start.wrapping_add(number(&durations, trace));
        start <= to && end >= from
    });
    session.to_spans(Level::Trace, traces)
}

fn results(
    session: &Session<'_>,
    plan: &Plan,
    found: &Found,
    options: &SearchOptions<'_>,
) -> Result<Vec<FoundTrace>, EngineError> {
    let picked = pick(session, plan, found, options)?;
    if picked.is_empty() {
        return Ok(Vec::new());
    }
    let traces: Vec<u32> = {
        let mut traces: Vec<u32> = picked.iter().map(|(trace, _)| *trace as u32).collect();
        traces.sort_unstable();
        traces
    };
    let mut spans = Bitmap::new(session.structure.spans());
    for set in picked.iter().flat_map(|(_, sets)| sets) {
        set.spans
            .iter()
            .for_each(|&span| spans.insert(span as usize));
    }
    prefetch(session, plan, &traces)?;
    let of_traces = TraceColumns::load(session, &traces)?;
    let of_spans = SpanColumns::load(session, plan, &spans)?;
    picked
        .into_iter()
        .map(|(trace, sets)| {
            let span_sets = sets
                .into_iter()
                .map(|set| FoundSpanSet {
                    spans: set.spans.iter().map(|&span| of_spans.span(span)).collect(),
                    matched: set.matched,
                    attributes: set.attributes,
                })
                .collect();
            Ok(of_traces.trace(trace, span_sets))
        })
        .collect()
}

/// A set of a trace that will be returned.
struct Picked {
    /// Ascending, cut to what was asked for.
    spans: Vec<u32>,
    matched: u32,
    attributes: Vec<(Arc<str>, Value)>,
}

/// Which traces to return, with their sets.
fn pick(
    session: &Session<'_>,
    plan: &Plan,
    found: &Found,
    options: &SearchOptions<'_>,
) -> Result<Vec<(usize, Vec<Picked>)>, EngineError> {
    let runner = Runner { session, plan };
    let spans = found.spans(session.structure.spans());
    let max_traces = match options.max_traces {
        0 => usize::MAX,
        max_traces => max_traces,
    };
    let considered = match options.most_recent {
        true => usize::MAX,
        false => max_traces,
    };
    let mut traces: Vec<u32> = runner
        .each_trace_with(&spans)
        .take(considered)
        .map(|trace| trace as u32)
        .collect();
    if options.most_recent {
        let starts = session.gather(&Stored::TraceStartNano.into(), &traces)?;
        let mut newest: Vec<(u64, u32)> = traces
            .iter()
            .enumerate()
            .map(|(at, &trace)| (number(&starts, at), trace))
            .collect();
        newest.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        traces = newest.into_iter().map(|(_, trace)| trace).collect();
    }
    traces.truncate(max_traces);

    let max_spans = match options.max_spans_per_span_set {
        0 => DEFAULT_SPANS_PER_SPAN_SET,
        max_spans => max_spans,
    };
    let cut = |mut spans: Vec<u32>| {
        let matched = spans.len() as u32;
        spans.truncate(max_spans);
        spans.sort_unstable();
        (spans, matched)
    };
    let attributes = |labels: &[Label], at: usize| -> Vec<(Arc<str>, Value)> {
        labels
            .iter()
            .map(|label| (Arc::clone(&label.text), label.values[at].clone()))
            .collect()
    };
    let limit_bytes = session.max_bytes();
    let mut room = limit_bytes;
    let mut take = |spans: &[u32]| {
        let needed = BYTES_PER_SET + BYTES_PER_SPAN.saturating_mul(spans.len());
        match room.checked_sub(needed) {
            Some(left) => {
                room = left;
                Ok(())
            }
            None => Err(EngineError::TooManySpanSets { limit_bytes }),
        }
    };
    let mut orders = Orders::new(session, spans);
    let mut picked = Vec::with_capacity(traces.len());
    for trace in traces {
        let trace = trace as usize;
        let sets = match found {
            Found::PerTrace(found) => {
                let range = session.structure.spans_of_trace(trace);
                // The order only decides which spans are cut off.
                let order = match found.spans.count_in(range) > max_spans {
                    true => found.order.as_deref(),
                    false => None,
                };
                let (spans, matched) = cut(orders.of(&found.spans, order, trace)?);
                take(&spans)?;
                vec![Picked {
                    spans,
                    matched,
                    attributes: attributes(&found.labels, trace),
                }]
            }
            Found::Sets(found) => {
                let first = found
                    .sets
                    .partition_point(|set| (set.trace as usize) < trace);
                (first..found.sets.len())
                    .take_while(|&at| found.sets[at].trace as usize == trace)
                    .map(|at| {
                        let (spans, matched) = cut(found.spans_of(&found.sets[at]).to_vec());
                        take(&spans)?;
                        Ok(Picked {
                            spans,
                            matched,
                            attributes: attributes(&found.labels, at),
                        })
                    })
                    .collect::<Result<_, EngineError>>()?
            }
        };
        picked.push((trace, sets));
    }
    Ok(picked)
}
