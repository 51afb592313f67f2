//! Pipelines: each element maps the sets of spans found so far to others.

use std::sync::Arc;

use hashbrown::HashMap;
use tempo_table::{ArrayValue, Bitmap, Level};
use tempo_traceql::ast::{SpansetOp, StructuralForm, StructuralOp};

use crate::{
    aggregate::Aggregates,
    error::EngineError,
    filter::matching,
    found::{Evaluated, Found, Label, Orders, PerTrace, Sets, spans_in, union},
    plan::{Expr, Filter, Plan, ScalarTest, SpanExpr, Stage},
    rows::RowReader,
    session::Session,
    structural::{NestedSets, Scratch},
    value::{HexId, Value, ValueRef, kind_number, status_code},
};

/// Runs the elements of a plan on one table.
pub(crate) struct Runner<'a> {
    pub(crate) session: &'a Session<'a>,
    pub(crate) plan: &'a Plan,
}

impl Runner<'_> {
    pub(crate) fn run(&self, stages: &[Stage], mut found: Found) -> Result<Found, EngineError> {
        for stage in stages {
            if found.is_empty() {
                break;
            }
            self.session.check_cancelled()?;
            found = match stage {
                Stage::Spans(expr) => self.narrow(expr, found)?,
                Stage::Scalar(test) => self.compare(test, found)?,
                Stage::GroupBy { expr, label } => Found::Sets(self.group(expr, label, found)?),
                Stage::Coalesce => coalesce(found),
            };
        }
        Ok(found)
    }

    // -----------------------------------------------------------------------------------------
    // Filters and operators between spansets
    // -----------------------------------------------------------------------------------------

    fn narrow(&self, expr: &SpanExpr, found: Found) -> Result<Found, EngineError> {
        match found {
            Found::PerTrace(found) => {
                let evaluated = self.evaluate(expr, &found)?;
                let spans = evaluated.spans().clone();
                let order = match evaluated {
                    Evaluated::Leaf { order, .. } => order,
                    evaluated => Some(Arc::new(evaluated)),
                };
                Ok(Found::PerTrace(PerTrace {
                    spans,
                    order,
                    labels: found.labels,
                }))
            }
            Found::Sets(found) => Ok(Found::Sets(self.narrow_sets(expr, found)?)),
        }
    }

    /// With one set per trace: all traces at once.
    fn evaluate(&self, expr: &SpanExpr, input: &PerTrace) -> Result<Evaluated, EngineError> {
        match expr {
            SpanExpr::Filter(filter) => Ok(Evaluated::Leaf {
                spans: matching(self.session, self.plan, filter, &input.spans)?,
                order: input.order.clone(),
                is_whole: matches!(filter, Filter::Const(true)),
            }),
            SpanExpr::Operation { op, lhs, rhs } => self.operation(*op, lhs, rhs, input),
            SpanExpr::Pipeline(stages) => {
                let input = PerTrace {
                    spans: input.spans.clone(),
                    order: input.order.clone(),
                    labels: Vec::new(),
                };
                match self.run(stages, Found::PerTrace(input))? {
                    Found::PerTrace(found) => Ok(Evaluated::Pipeline(found)),
                    Found::Sets(sets) => {
                        single_sets(&sets)?;
                        let spans = sets.bitmap(self.session.structure.spans());
                        Ok(Evaluated::Listed { sets, spans })
                    }
                }
            }
        }
    }

    fn operation(
        &self,
        op: SpansetOp,
        lhs: &SpanExpr,
        rhs: &SpanExpr,
        input: &PerTrace,
    ) -> Result<Evaluated, EngineError> {
        // The side without which there is no result goes first, and what it leaves out the other
        // need not look at.
        let rhs_first = matches!(
            op,
            SpansetOp::Structural(StructuralOp {
                form: StructuralForm::Negated,
                ..
            })
        );
        let (first, second) = if rhs_first { (rhs, lhs) } else { (lhs, rhs) };
        let first = self.evaluate(first, input)?;
        let second = if op == SpansetOp::Or {
            self.evaluate(second, input)?
        } else {
            let mut spans = self.whole_traces(first.spans())?;
            spans.and(&input.spans);
            self.evaluate(
                second,
                &PerTrace {
                    spans,
                    order: input.order.clone(),
                    labels: Vec::new(),
                },
            )?
        };
        let (lhs, rhs) = if rhs_first {
            (second, first)
        } else {
            (first, second)
        };
        let spans = match op {
            SpansetOp::Or => {
                let mut spans = lhs.spans().clone();
                spans.or(rhs.spans());
                spans
            }
            SpansetOp::And => {
                let mut spans = self.whole_traces(lhs.spans())?;
                spans.and(&self.whole_traces(rhs.spans())?);
                let mut either = lhs.spans().clone();
                either.or(rhs.spans());
                spans.and(&either);
                spans
            }
            SpansetOp::Structural(op) => self.structural(op, &lhs, &rhs)?,
        };
        Ok(Evaluated::Operation {
            op,
            lhs: Arc::new(lhs),
            rhs: Arc::new(rhs),
            spans,
        })
    }

    fn structural(
        &self,
        op: StructuralOp,
        lhs: &Evaluated,
        rhs: &Evaluated,
    ) -> Result<Bitmap, EngineError> {
        let mut found = Bitmap::new(rhs.spans().len());
        if rhs.spans().is_empty() {
            return Ok(found);
        }
        let mut either = lhs.spans().clone();
        either.or(rhs.spans());
        let nested_sets = NestedSets::load(self.session, &either)?;
        let mut scratch = Scratch::default();
        let mut related = Vec::new();
        let (mut lhs_spans, mut rhs_spans) = (Vec::new(), Vec::new());
        for trace in self.traces_with(rhs.spans()).iter() {
            let range = self.session.structure.spans_of_trace(trace);
            list(lhs.spans(), range.clone(), &mut lhs_spans);
            if lhs_spans.is_empty() && op.form != StructuralForm::Negated {
                continue;
            }
            list(rhs.spans(), range, &mut rhs_spans);
            related.clear();
            nested_sets.apply(op, &lhs_spans, &rhs_spans, &mut scratch, &mut related);
            for &span in &related {
                found.insert(span as usize);
            }
        }
        if op.form == StructuralForm::Negated && rhs.is_whole() {
            // A filter that matches all gets its spans from their place in the tree alone, so
            // Tempo does not see those that have none.
            let connected = Bitmap::from_fn(found.len(), |span| {
                found.contains(span) && nested_sets.is_connected(span as u32)
            });
            found = connected;
        }
        Ok(found)
    }

    fn narrow_sets(&self, expr: &SpanExpr, found: Sets) -> Result<Sets, EngineError> {
        let spans = found.bitmap(self.session.structure.spans());
        let prepared = self.prepare(expr, &spans)?;
        let nested_sets = match has_structure(expr) {
            true => Some(NestedSets::load(self.session, &spans)?),
            false => None,
        };
        let mut narrowed = Sets::default();
        let mut kept = Vec::with_capacity(found.sets.len());
        for set in &found.sets {
            let left = self.evaluate_set(
                &prepared,
                nested_sets.as_ref(),
                set.trace as usize,
                found.spans_of(set),
            )?;
            kept.push(!left.is_empty());
            if !left.is_empty() {
                narrowed.spans.extend(left);
                narrowed.close(set.trace as usize);
            }
        }
        narrowed.labels = found.labels;
        for label in &mut narrowed.labels {
            let mut kept = kept.iter();
            label.values.retain(|_| kept.next().copied() == Some(true));
        }
        Ok(narrowed)
    }

    /// Evaluates the filters of an expression for all sets at once.
    fn prepare<'e>(&self, expr: &'e SpanExpr, spans: &Bitmap) -> Result<Prepared<'e>, EngineError> {
        Ok(match expr {
            SpanExpr::Filter(filter) => Prepared::Filter {
                passing: matching(self.session, self.plan, filter, spans)?,
                is_whole: matches!(filter, Filter::Const(true)),
            },
            SpanExpr::Operation { op, lhs, rhs } => Prepared::Operation {
                op: *op,
                lhs: Box::new(self.prepare(lhs, spans)?),
                rhs: Box::new(self.prepare(rhs, spans)?),
            },
            SpanExpr::Pipeline(stages) => Prepared::Pipeline(stages),
        })
    }

    /// The spans of one set that an expression yields, in the order of evaluation.
    fn evaluate_set(
        &self,
        expr: &Prepared<'_>,
        nested_sets: Option<&NestedSets>,
        trace: usize,
        spans: &[u32],
    ) -> Result<Vec<u32>, EngineError> {
        match expr {
            Prepared::Filter { passing, .. } => Ok(spans
                .iter()
                .copied()
                .filter(|&span| passing.contains(span as usize))
                .collect()),
            Prepared::Pipeline(stages) => {
                let mut input = Sets::default();
                input.spans.extend_from_slice(spans);
                input.close(trace);
                match self.run(stages, Found::Sets(input))? {
                    Found::Sets(sets) => {
                        single_sets(&sets)?;
                        Ok(sets.spans)
                    }
                    Found::PerTrace(found) => Ok(spans_in(
                        &found.spans,
                        self.session.structure.spans_of_trace(trace),
                    )),
                }
            }
            Prepared::Operation { op, lhs, rhs } => {
                let lhs_spans = self.evaluate_set(lhs, nested_sets, trace, spans)?;
                let rhs_spans = self.evaluate_set(rhs, nested_sets, trace, spans)?;
                Ok(match op {
                    SpansetOp::And if lhs_spans.is_empty() || rhs_spans.is_empty() => Vec::new(),
                    SpansetOp::And | SpansetOp::Or => union(lhs_spans, rhs_spans),
                    SpansetOp::Structural(op) => {
                        let mut found = Vec::new();
                        if let Some(nested_sets) = nested_sets {
                            let mut scratch = Scratch::default();
                            nested_sets.apply(
                                *op,
                                &lhs_spans,
                                &rhs_spans,
                                &mut scratch,
                                &mut found,
                            );
                            let rhs_is_whole =
                                matches!(**rhs, Prepared::Filter { is_whole: true, .. });
                            if op.form == StructuralForm::Negated && rhs_is_whole {
                                found.retain(|&span| nested_sets.is_connected(span));
                            }
                        }
                        found
                    }
                })
            }
        }
    }

    /// The traces that have some of `spans`.
    pub(crate) fn traces_with(&self, spans: &Bitmap) -> Bitmap {
        let mut traces = Bitmap::new(self.session.structure.traces());
        self.each_trace_with(spans)
            .for_each(|trace| traces.insert(trace));
        traces
    }

    /// The traces that have some of `spans`, ascending.
    pub(crate) fn each_trace_with<'s>(
        &'s self,
        spans: &'s Bitmap,
    ) -> impl Iterator<Item = usize> + 's {
        let starts = &*self.session.structure.trace_spans;
        let mut from = 0;
        std::iter::from_fn(move || {
            let trace = self.session.trace_of(spans.next_from(from)?);
            from = *starts.get(trace + 1)? as usize;
            Some(trace)
        })
    }

    /// All spans of the traces that have some of `spans`.
    pub(crate) fn whole_traces(&self, spans: &Bitmap) -> Result<Bitmap, EngineError> {
        self.session.to_spans(Level::Trace, self.traces_with(spans))
    }

    // -----------------------------------------------------------------------------------------
    // Scalar filters
    // -----------------------------------------------------------------------------------------

    fn compare(&self, test: &ScalarTest, found: Found) -> Result<Found, EngineError> {
        let all = found.spans(self.session.structure.spans());
        let mut aggregates = Aggregates::new(self.session, self.plan, test, &all)?;
        match found {
            Found::PerTrace(mut found) => {
                let traces = self.traces_with(&found.spans);
                let mut labels: Vec<Label> = aggregates
                    .labels()
                    .map(|text| Label {
                        text: Arc::clone(text),
                        values: vec![Value::Nil; traces.len()],
                    })
                    .collect();
                let mut failed = traces.clone();
                let mut spans = Vec::new();
                let need_spans = aggregates.need_spans();
                for trace in traces.iter() {
                    let range = self.session.structure.spans_of_trace(trace);
                    let count = if need_spans {
                        list(&found.spans, range, &mut spans);
                        spans.len()
                    } else {
                        found.spans.count_in(range)
                    };
                    if aggregates.passes(count, &spans)? {
                        failed.remove(trace);
                        for (label, value) in labels.iter_mut().zip(aggregates.values()) {
                            label.values[trace] = value;
                        }
                    }
                }
                found
                    .spans
                    .and_not(&self.session.to_spans(Level::Trace, failed)?);
                add_labels(&mut found.labels, labels);
                Ok(Found::PerTrace(found))
            }
            Found::Sets(mut found) => {
                let mut passed = Vec::with_capacity(found.sets.len());
                let mut labels: Vec<Label> = aggregates
                    .labels()
                    .map(|text| Label {
                        text: Arc::clone(text),
                        values: Vec::with_capacity(found.sets.len()),
                    })
                    .collect();
                for set in &found.sets {
                    let spans = found.spans_of(set);
                    passed.push(aggregates.passes(spans.len(), spans)?);
                    for (label, value) in labels.iter_mut().zip(aggregates.values()) {
                        label.values.push(value);
                    }
                }
                add_labels(&mut found.labels, labels);
                found.retain(|set| passed[set]);
                Ok(Found::Sets(found))
            }
        }
    }

    // -----------------------------------------------------------------------------------------
    // Grouping
    // -----------------------------------------------------------------------------------------

    fn group(&self, expr: &Expr, label: &Arc<str>, found: Found) -> Result<Sets, EngineError> {
        let all = found.spans(self.session.structure.spans());
        let reader = RowReader::for_expr(self.session, self.plan, expr, &all)?;
        let mut groups = Groups::default();
        let mut grouped = Sets::default();
        let mut values = Vec::new();
        let old_labels = match found {
            Found::PerTrace(found) => {
                let mut orders = Orders::new(self.session, all);
                let mut of_old = Vec::new();
                for trace in self.traces_with(&found.spans).iter() {
                    let spans = orders.of(&found.spans, found.order.as_deref(), trace)?;
                    groups.split(&reader, expr, trace, &spans, &mut grouped, &mut values)?;
                    of_old.resize(grouped.sets.len(), trace);
                }
                (found.labels, of_old)
            }
            Found::Sets(found) => {
                let mut of_old = Vec::new();
                for (number, set) in found.sets.iter().enumerate() {
                    let spans = found.spans_of(set);
                    let trace = set.trace as usize;
                    groups.split(&reader, expr, trace, spans, &mut grouped, &mut values)?;
                    of_old.resize(grouped.sets.len(), number);
                }
                (found.labels, of_old)
            }
        };
        let (old_labels, of_old) = old_labels;
        grouped.labels = old_labels
            .into_iter()
            .map(|label| Label {
                values: of_old
                    .iter()
                    .map(|&old| label.values[old].clone())
                    .collect(),
                text: label.text,
            })
            .collect();
        let label = Label {
            text: Arc::clone(label),
            values,
        };
        add_labels(&mut grouped.labels, vec![label]);
        Ok(grouped)
    }
}

/// An expression whose filters have been evaluated.
enum Prepared<'e> {
    Filter {
        passing: Bitmap,
        is_whole: bool,
    },
    Operation {
        op: SpansetOp,
        lhs: Box<Prepared<'e>>,
        rhs: Box<Prepared<'e>>,
    },
    Pipeline(&'e [Stage]),
}

fn has_structure(expr: &SpanExpr) -> bool {
    match expr {
        SpanExpr::Filter(_) | SpanExpr::Pipeline(_) => false,
        SpanExpr::Operation { op, lhs, rhs } => {
            matches!(op, SpansetOp::Structural(_)) || has_structure(lhs) || has_structure(rhs)
        }
    }
}

/// The spans of a range that are in a set, into a list that is kept.
fn list(spans: &Bitmap, range: std::ops::Range<usize>, into: &mut Vec<u32>) {
    into.clear();
    let mut next = spans.next_from(range.start);
    while let Some(span) = next
        && span < range.end
    {
        into.push(span as u32);
        next = spans.next_from(span + 1);
    }
}

/// Operands of spanset operators have one set per trace at most.
fn single_sets(sets: &Sets) -> Result<(), EngineError> {
    if sets
        .sets
        .windows(2)
        .any(|pair| pair[0].trace == pair[1].trace)
    {
        return Err(EngineError::Evaluation(
            "spanset operators are not supported for multiple spansets per trace. consider using coalesce()"
                .to_owned(),
        ));
    }
    Ok(())
}

fn coalesce(found: Found) -> Found {
    match found {
        Found::PerTrace(found) => Found::PerTrace(PerTrace {
            labels: Vec::new(),
            ..found
        }),
        Found::Sets(found) => {
            let mut merged = Sets::default();
            for sets in found.sets.chunk_by(|a, b| a.trace == b.trace) {
                for set in sets {
                    merged.spans.extend_from_slice(found.spans_of(set));
                }
                merged.close(sets[0].trace as usize);
            }
            Found::Sets(merged)
        }
    }
}

/// A label computed again replaces the one before.
fn add_labels(labels: &mut Vec<Label>, more: Vec<Label>) {
    for label in more {
        match labels.iter_mut().find(|old| old.text == label.text) {
            Some(old) => *old = label,
            None => labels.push(label),
        }
    }
}

/// Splits sets by the value of an expression.
#[derive(Default)]
struct Groups {
    /// Values as bytes, with their type in front, so that `1`, `1.0` and `"1"` differ.
    keys: HashMap<Box<[u8]>, usize, foldhash::fast::RandomState>,
    spans: Vec<Vec<u32>>,
    key: Vec<u8>,
}

impl Groups {
    /// Appends the groups of one set, in the order in which their values first occur.
    fn split(
        &mut self,
        reader: &RowReader<'_>,
        expr: &Expr,
        trace: usize,
        spans: &[u32],
        into: &mut Sets,
        values: &mut Vec<Value>,
    ) -> Result<(), EngineError> {
        self.keys.clear();
        for &span in spans {
            let value = reader.evaluate(expr, span as usize)?;
            self.key.clear();
            write_key(&mut self.key, value);
            let group = match self.keys.get(&*self.key) {
                Some(&group) => group,
                None => {
                    let group = self.keys.len();
                    self.keys.insert(self.key.as_slice().into(), group);
                    values.push(value.to_value());
                    match self.spans.get_mut(group) {
                        Some(spans) => spans.clear(),
                        None => self.spans.push(Vec::new()),
                    }
                    group
                }
            };
            self.spans[group].push(span);
        }
        for group in &self.spans[..self.keys.len()] {
            into.spans.extend_from_slice(group);
            into.close(trace);
        }
        Ok(())
    }
}

/// Appends a value as bytes, with its type in front.
pub(crate) fn write_key(key: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        // Values that results cannot show are one group, like those that do not exist.
        ValueRef::Nil | ValueRef::Opaque => key.push(0),
        ValueRef::Text(text) => {
            key.push(1);
            key.extend_from_slice(text);
        }
        ValueRef::Id { bytes, short } => {
            key.push(1);
            key.extend_from_slice(HexId::new(bytes, short).as_bytes());
        }
        ValueRef::Int(value) => {
            key.push(2);
            key.extend_from_slice(&value.to_le_bytes());
        }
        ValueRef::Float(value) => {
            key.push(3);
            key.extend_from_slice(&value.to_bits().to_le_bytes());
        }
        ValueRef::Bool(value) => key.extend_from_slice(&[4, u8::from(value)]),
        ValueRef::Duration(nanos) => {
            key.push(5);
            key.extend_from_slice(&nanos.to_le_bytes());
        }
        ValueRef::Status(status) => key.extend_from_slice(&[6, status_code(status) as u8]),
        ValueRef::Kind(kind) => key.extend_from_slice(&[7, kind_number(kind) as u8]),
        ValueRef::Array(array) => {
            key.push(8);
            match array {
                ArrayValue::Empty => {}
                ArrayValue::Strings(items) => {
                    for item in items {
                        key.extend_from_slice(&(item.len() as u64).to_le_bytes());
                        key.extend_from_slice(item.as_bytes());
                    }
                }
                ArrayValue::Ints(items) => {
                    key.push(2);
                    items
                        .iter()
                        .for_each(|item| key.extend_from_slice(&item.to_le_bytes()));
                }
                ArrayValue::Floats(items) => {
                    key.push(3);
                    items
                        .iter()
                        .for_each(|item| key.extend_from_slice(&item.to_bits().to_le_bytes()));
                }
                ArrayValue::Bools(items) => {
                    key.push(4);
                    key.extend(items.iter().map(|&item| u8::from(item)));
                }
            }
        }
    }
}
