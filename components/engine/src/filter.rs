//! Filters on whole columns.
//!
//! Every filter narrows a set of candidate spans. A column is read whole while candidates are
//! many, and only in the rows of the candidates when they are few.

use tempo_table::{Bitmap, Column, ColumnKey, Level};

use crate::{
    error::EngineError,
    operand::{Operand, Reading, Source},
    plan::{Filter, Loaded, Plan},
    rows::RowReader,
    scan::{self, Verdicts},
    session::{Clues, Session},
    test::Test,
};

/// Row by row this many spans take about a millisecond.
const SPANS_PER_CANCEL_CHECK: usize = 1 << 14;

/// What is asked of an attribute.
#[derive(Clone, Copy)]
enum Question<'a> {
    Passes(&'a Test),
    Exists,
    Missing,
}

impl Question<'_> {
    fn rows(self, session: &Session<'_>, column: &Column, reading: Reading) -> Bitmap {
        match self {
            Self::Passes(test) => scan::passing(column, reading, test, &session.verdicts),
            Self::Exists => scan::present(column),
            Self::Missing => {
                let mut rows = scan::present(column);
                rows.invert();
                rows
            }
        }
    }
}

/// The candidates for which the filter is true.
pub(crate) fn matching(
    session: &Session<'_>,
    plan: &Plan,
    filter: &Filter,
    candidates: &Bitmap,
) -> Result<Bitmap, EngineError> {
    if candidates.is_empty() {
        return Ok(Bitmap::new(candidates.len()));
    }
    let ask = |operand: usize, question: Question<'_>| {
        attribute(session, &plan.operands[operand], question, candidates)
    };
    match filter {
        Filter::Const(true) => Ok(candidates.clone()),
        Filter::Const(false) => Ok(Bitmap::new(candidates.len())),
        Filter::Test(operand, test) => ask(*operand, Question::Passes(test)),
        Filter::Exists(operand) => ask(*operand, Question::Exists),
        Filter::Missing(operand) => ask(*operand, Question::Missing),
        Filter::All(filters) => {
            let mut left = candidates.clone();
            for filter in filters {
                left = matching(session, plan, filter, &left)?;
                if left.is_empty() {
                    break;
                }
            }
            Ok(left)
        }
        Filter::Any(filters) => {
            let mut found = Bitmap::new(candidates.len());
            let mut left = candidates.clone();
            for filter in filters {
                let more = matching(session, plan, filter, &left)?;
                left.and_not(&more);
                found.or(&more);
                if left.is_empty() {
                    break;
                }
            }
            Ok(found)
        }
        Filter::Not(filter) => {
            let mut left = candidates.clone();
            left.and_not(&matching(session, plan, filter, candidates)?);
            Ok(left)
        }
        Filter::Rows { expr, required } => {
            let mut left = candidates.clone();
            for &operand in required {
                left = attribute(session, &plan.operands[operand], Question::Exists, &left)?;
            }
            let reader = RowReader::for_expr(session, plan, expr, &left)?;
            let mut found = Bitmap::new(left.len());
            for span in left.iter() {
                if span.is_multiple_of(SPANS_PER_CANCEL_CHECK) {
                    session.check_cancelled()?;
                }
                if reader.is_true(expr, span)? {
                    found.insert(span);
                }
            }
            Ok(found)
        }
    }
}

/// The candidates whose attribute answers the question with yes.
fn attribute(
    session: &Session<'_>,
    operand: &Operand,
    question: Question<'_>,
    candidates: &Bitmap,
) -> Result<Bitmap, EngineError> {
    let (span, resource) = match &operand.source {
        Source::Column { key, reading } => {
            let ask = |column: &Column| question.rows(session, column, *reading);
            return column_rows(session, key, candidates, ask);
        }
        Source::SpanThenResource { span, resource } => (span, resource),
    };
    // Where Tempo's storage finds no value it says so for span and resource apart: `.x = nil` is
    // true when either lacks it. A test sees the span's value, if it has one of whatever type.
    let ask = |column: &Column| question.rows(session, column, Reading::Plain);
    let mut found = column_rows(session, span, candidates, ask)?;
    let mut left = candidates.clone();
    left.and_not(&found);
    let mut of_resource = column_rows(session, resource, &left, ask)?;
    if let Question::Passes(_) = question {
        let hidden = column_rows(session, span, &of_resource, scan::present)?;
        of_resource.and_not(&hidden);
    }
    found.or(&of_resource);
    Ok(found)
}

/// The candidates that belong to rows which `pick` chooses of a column.
fn column_rows(
    session: &Session<'_>,
    key: &ColumnKey,
    candidates: &Bitmap,
    pick: impl Fn(&Column) -> Bitmap,
) -> Result<Bitmap, EngineError> {
    if candidates.is_empty() {
        return Ok(Bitmap::new(candidates.len()));
    }
    let level = key.level();
    let mask = session.mask(level);
    if mask.is_none() && !session.is_held(key) && session.is_sparse(candidates) {
        return few_rows(session, key, candidates, pick);
    }
    let mut rows = pick(&session.column(key)?);
    if let Some(mask) = mask {
        rows.and(mask);
    }
    let mut spans = session.to_spans(level, rows)?;
    spans.and(candidates);
    Ok(spans)
}

fn few_rows(
    session: &Session<'_>,
    key: &ColumnKey,
    candidates: &Bitmap,
    pick: impl Fn(&Column) -> Bitmap,
) -> Result<Bitmap, EngineError> {
    let level = key.level();
    let rows = session.rows_of(level, candidates.iter())?;
    let picked = pick(&session.gather(key, &rows)?);
    let mut spans = Bitmap::new(candidates.len());
    match level {
        Level::Span => picked.iter().for_each(|at| spans.insert(rows[at] as usize)),
        Level::Event | Level::Link => {
            let offsets = match level {
                Level::Event => session.event_offsets()?,
                _ => session.link_offsets()?,
            };
            let mut at = 0;
            for span in candidates.iter() {
                let count = (offsets[span + 1] - offsets[span]) as usize;
                if picked.any_in(at..at + count) {
                    spans.insert(span);
                }
                at += count;
            }
        }
        Level::Trace | Level::Resource | Level::Scope => {
            // Rows were listed once each, in the order of their spans.
            let mut at = 0;
            for span in candidates.iter() {
                let row = session.row_of(level, span) as u32;
                while rows[at] != row {
                    at += 1;
                }
                if picked.contains(at) {
                    spans.insert(span);
                }
            }
        }
    }
    Ok(spans)
}

/// Whether it is certain, without reading a column, that no span passes.
pub(crate) fn is_impossible(
    clues: &Clues<'_>,
    plan: &Plan,
    filter: &Filter,
) -> Result<bool, EngineError> {
    match filter {
        Filter::Const(value) => Ok(!value),
        Filter::Test(operand, test) => plan.operands[*operand]
            .keys()
            .map(|key| no_row_passes(clues, key, test))
            .try_fold(true, |all, none| Ok(all && none?)),
        Filter::All(filters) => {
            for filter in filters {
                if is_impossible(clues, plan, filter)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Filter::Any(filters) => {
            for filter in filters {
                if !is_impossible(clues, plan, filter)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Filter::Exists(_) | Filter::Missing(_) | Filter::Not(_) | Filter::Rows { .. } => Ok(false),
    }
}

fn no_row_passes(clues: &Clues<'_>, key: &ColumnKey, test: &Test) -> Result<bool, EngineError> {
    if test.wants_text_only() {
        return Ok(match clues.table.string_superset(key)? {
            Some(texts) => matches!(clues.verdicts.get(&texts, &test.texts), Verdicts::None),
            None => false,
        });
    }
    if let ColumnKey::Intrinsic(_) = key
        && let Some(bounds) = clues.table.int_bounds(key)?
    {
        return Ok(test.ints.verdict(bounds) == Some(false));
    }
    Ok(false)
}

/// The rows of `level` (events or links) that meet all conditions of the plan on that level;
/// `None` when there are fewer than two, or they need not hold together.
pub(crate) fn joint_rows(
    session: &Session<'_>,
    plan: &Plan,
    level: Level,
) -> Result<Option<Bitmap>, EngineError> {
    if !plan.same_event {
        return Ok(None);
    }
    let conditions: Vec<&Loaded> = plan
        .loaded
        .iter()
        .filter(|loaded| loaded.condition && plan.operands[loaded.operand].level() == level)
        .collect();
    if conditions.len() < 2 && conditions.iter().all(|loaded| loaded.tests.len() < 2) {
        return Ok(None);
    }
    let mut joint: Option<Bitmap> = None;
    for loaded in conditions {
        let operand = &plan.operands[loaded.operand];
        let reading = operand.reading();
        let mut questions: Vec<Question<'_>> = loaded.tests.iter().map(Question::Passes).collect();
        questions.extend(loaded.all.then_some(Question::Exists));
        questions.extend(loaded.missing.then_some(Question::Missing));
        for key in operand.keys() {
            let column = session.column(key)?;
            for question in &questions {
                let rows = question.rows(session, &column, reading);
                match &mut joint {
                    Some(joint) => joint.and(&rows),
                    None => joint = Some(rows),
                }
            }
        }
    }
    Ok(joint)
}
