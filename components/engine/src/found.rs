//! The spans that a pipeline has found so far.

use std::sync::Arc;

use tempo_table::Bitmap;
use tempo_traceql::ast::{SpansetOp, StructuralOp};

use crate::{
    error::EngineError,
    session::Session,
    structural::{NestedSets, Scratch},
    value::Value,
};

/// Sets of spans, each within one trace.
#[derive(Debug, Clone)]
pub enum Found {
    /// At most one set per trace, as long as nothing groups them.
    PerTrace(PerTrace),
    /// Any number of sets per trace.
    Sets(Sets),
}

/// One set of spans for every trace that has some.
#[derive(Debug, Clone)]
pub struct PerTrace {
    /// The spans of all sets.
    pub spans: Bitmap,
    /// In which order evaluation yields the spans, when it is not that of the table.
    pub(crate) order: Option<Arc<Evaluated>>,
    /// What aggregates have computed, by trace.
    pub(crate) labels: Vec<Label>,
}

/// Sets of spans, those of a trace next to each other, in the order of the traces.
#[derive(Debug, Clone, Default)]
pub struct Sets {
    /// The spans of all sets, each set's in the order in which evaluation yields them.
    pub(crate) spans: Vec<u32>,
    pub(crate) sets: Vec<Set>,
    /// What grouping and aggregates have computed, by set.
    pub(crate) labels: Vec<Label>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Set {
    pub(crate) trace: u32,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// A value per trace or set, under the text that computed it.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    pub(crate) text: Arc<str>,
    pub(crate) values: Vec<Value>,
}

impl Found {
    /// The spans of all sets.
    pub fn spans(&self, len: usize) -> Bitmap {
        match self {
            Self::PerTrace(found) => found.spans.clone(),
            Self::Sets(found) => found.bitmap(len),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::PerTrace(found) => found.spans.is_empty(),
            Self::Sets(found) => found.sets.is_empty(),
        }
    }
}

impl Sets {
    pub(crate) fn spans_of(&self, set: &Set) -> &[u32] {
        &self.spans[set.start as usize..set.end as usize]
    }

    /// Closes a set of the spans that were appended since the last one.
    pub(crate) fn close(&mut self, trace: usize) {
        let start = self.sets.last().map_or(0, |set| set.end);
        self.sets.push(Set {
            trace: trace as u32,
            start,
            end: self.spans.len() as u32,
        });
    }

    pub(crate) fn bitmap(&self, len: usize) -> Bitmap {
        let mut spans = Bitmap::new(len);
        for &span in &self.spans {
            spans.insert(span as usize);
        }
        spans
    }

    /// Keeps the sets (by number) that `keep` says.
    pub(crate) fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        let mut kept = Self::default();
        for (number, set) in self.sets.iter().enumerate() {
            if keep(number) {
                kept.spans.extend_from_slice(self.spans_of(set));
                kept.close(set.trace as usize);
            }
        }
        for label in &mut self.labels {
            let mut number = 0..;
            label.values.retain(|_| number.next().is_some_and(&keep));
        }
        self.spans = kept.spans;
        self.sets = kept.sets;
    }
}

/// What an expression found, and what its parts did: enough to tell the order of the spans of a
/// trace without evaluating anything again.
#[derive(Debug, Clone)]
pub(crate) enum Evaluated {
    Leaf {
        spans: Bitmap,
        /// The order of what was filtered; that of the table when `None`.
        order: Option<Arc<Evaluated>>,
        /// The filter let everything through.
        is_whole: bool,
    },
    Operation {
        op: SpansetOp,
        lhs: Arc<Evaluated>,
        rhs: Arc<Evaluated>,
        spans: Bitmap,
    },
    /// The result of a pipeline that is an operand.
    Pipeline(PerTrace),
    /// Sets of which every trace has one, each in its own order.
    Listed { sets: Sets, spans: Bitmap },
}

impl Evaluated {
    pub(crate) fn spans(&self) -> &Bitmap {
        match self {
            Self::Leaf { spans, .. }
            | Self::Operation { spans, .. }
            | Self::Listed { spans, .. } => spans,
            Self::Pipeline(found) => &found.spans,
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Leaf { is_whole, .. } if *is_whole)
    }

    /// The spans of a trace in the order of evaluation.
    fn ordered(&self, orders: &mut Orders<'_>, trace: usize) -> Result<Vec<u32>, EngineError> {
        match self {
            Self::Leaf { spans, order, .. } => orders.of(spans, order.as_deref(), trace),
            Self::Pipeline(found) => orders.of(&found.spans, found.order.as_deref(), trace),
            Self::Listed { sets, .. } => {
                let at = sets
                    .sets
                    .partition_point(|set| (set.trace as usize) < trace);
                Ok(match sets.sets.get(at) {
                    Some(set) if set.trace as usize == trace => sets.spans_of(set).to_vec(),
                    _ => Vec::new(),
                })
            }
            Self::Operation {
                op,
                lhs,
                rhs,
                spans,
            } => {
                let range = orders.session.structure.spans_of_trace(trace);
                if !spans.any_in(range) {
                    return Ok(Vec::new());
                }
                let lhs_spans = lhs.ordered(orders, trace)?;
                let rhs_spans = rhs.ordered(orders, trace)?;
                match op {
                    SpansetOp::And | SpansetOp::Or => Ok(union(lhs_spans, rhs_spans)),
                    SpansetOp::Structural(op) => {
                        let both_whole = lhs.is_whole() && rhs.is_whole();
                        orders.structural(*op, &lhs_spans, &rhs_spans, both_whole)
                    }
                }
            }
        }
    }
}

/// All spans of the smaller side (the right one if they are equal), then what the other adds.
pub(crate) fn union(lhs: Vec<u32>, rhs: Vec<u32>) -> Vec<u32> {
    let (mut first, second) = if rhs.len() <= lhs.len() {
        (rhs, lhs)
    } else {
        (lhs, rhs)
    };
    let mut known = first.clone();
    known.sort_unstable();
    first.extend(
        second
            .into_iter()
            .filter(|span| known.binary_search(span).is_err()),
    );
    first
}

/// Tells the order of spans, trace by trace.
pub(crate) struct Orders<'a> {
    session: &'a Session<'a>,
    /// Read when a structural operator is met.
    nested_sets: Option<NestedSets>,
    wanted: Bitmap,
    scratch: Scratch,
}

impl<'a> Orders<'a> {
    /// For traces whose spans are among `wanted`.
    pub(crate) fn new(session: &'a Session<'a>, wanted: Bitmap) -> Self {
        Self {
            session,
            nested_sets: None,
            wanted,
            scratch: Scratch::default(),
        }
    }

    /// The spans of a trace that are in `spans`, in the order that `order` gives.
    pub(crate) fn of(
        &mut self,
        spans: &Bitmap,
        order: Option<&Evaluated>,
        trace: usize,
    ) -> Result<Vec<u32>, EngineError> {
        match order {
            None => Ok(spans_in(
                spans,
                self.session.structure.spans_of_trace(trace),
            )),
            Some(order) => {
                let mut ordered = order.ordered(self, trace)?;
                ordered.retain(|&span| spans.contains(span as usize));
                Ok(ordered)
            }
        }
    }

    fn structural(
        &mut self,
        op: StructuralOp,
        lhs: &[u32],
        rhs: &[u32],
        both_whole: bool,
    ) -> Result<Vec<u32>, EngineError> {
        if self.nested_sets.is_none() {
            self.nested_sets = Some(NestedSets::load(self.session, &self.wanted)?);
        }
        let mut found = Vec::new();
        if let Some(nested_sets) = &self.nested_sets {
            nested_sets.apply(op, lhs, rhs, &mut self.scratch, &mut found);
            if both_whole {
                // Tempo sorts its operands in place, and here both are the same list.
                let descending = op.relation == tempo_traceql::ast::Relation::Descendant;
                nested_sets.sort(&mut found, descending);
            }
        }
        Ok(found)
    }
}

/// The spans of a range that are in a set, ascending.
pub(crate) fn spans_in(spans: &Bitmap, range: std::ops::Range<usize>) -> Vec<u32> {
    std::iter::successors(spans.next_from(range.start), |&span| {
        spans.next_from(span + 1)
    })
    .take_while(|&span| span < range.end)
    .map(|span| span as u32)
    .collect()
}
