//! Numbers per set of spans, and comparisons of them.

use std::sync::Arc;

use tempo_table::Bitmap;
use tempo_traceql::{Static, ast::ComparisonOp, constant};

use crate::{
    error::EngineError,
    plan::{Expr, Function, Plan, ScalarNode, ScalarTest},
    rows::RowReader,
    session::Session,
    value::Value,
};

/// The aggregates of one scalar filter, ready to be computed for any of its sets.
pub(crate) struct Aggregates<'a> {
    test: &'a ScalarTest,
    computed: Vec<Aggregate<'a>>,
}

struct Aggregate<'a> {
    function: Function,
    operand: Option<(&'a Expr, RowReader<'a>)>,
    label: &'a Arc<str>,
    /// Of the last set.
    value: Option<Static>,
}

impl<'a> Aggregates<'a> {
    /// Reads what the aggregates need of `spans`.
    pub(crate) fn new(
        session: &'a Session<'a>,
        plan: &'a Plan,
        test: &'a ScalarTest,
        spans: &Bitmap,
    ) -> Result<Self, EngineError> {
        let mut nodes = Vec::new();
        collect(&test.lhs, &mut nodes);
        collect(&test.rhs, &mut nodes);
        let mut computed: Vec<Aggregate<'a>> = Vec::new();
        for (function, operand, label) in nodes {
            if computed.iter().any(|known| known.label == label) {
                continue;
            }
            let operand = match operand {
                Some(expr) => Some((expr, RowReader::for_expr(session, plan, expr, spans)?)),
                None => None,
            };
            computed.push(Aggregate {
                function,
                operand,
                label,
                value: None,
            });
        }
        Ok(Self { test, computed })
    }

    pub(crate) fn labels(&self) -> impl Iterator<Item = &'a Arc<str>> {
        self.computed.iter().map(|aggregate| aggregate.label)
    }

    /// What was computed for the last set, by label.
    pub(crate) fn values(&self) -> impl Iterator<Item = Value> {
        self.computed
            .iter()
            .map(|aggregate| aggregate.value.as_ref().map_or(Value::Nil, Value::from))
    }

    /// Whether a set of spans passes. A set without any value to aggregate does not, whatever the
    /// comparison.
    pub(crate) fn passes(&mut self, spans: &[u32]) -> Result<bool, EngineError> {
        for aggregate in &mut self.computed {
            aggregate.value = match &aggregate.operand {
                None => Some(Static::Int(spans.len() as i64)),
                Some((expr, reader)) => fold(aggregate.function, expr, reader, spans)?,
            };
        }
        let (Some(lhs), Some(rhs)) = (self.number(&self.test.lhs)?, self.number(&self.test.rhs)?)
        else {
            return Ok(false);
        };
        Ok(constant::compare(self.test.op, &lhs, &rhs))
    }

    fn number(&self, node: &ScalarNode) -> Result<Option<Static>, EngineError> {
        Ok(match node {
            ScalarNode::Const(constant) => Some(constant.clone()),
            ScalarNode::Aggregate { label, .. } => self
                .computed
                .iter()
                .find(|aggregate| aggregate.label == label)
                .and_then(|aggregate| aggregate.value.clone()),
            ScalarNode::Operation { op, lhs, rhs } => {
                match (self.number(lhs)?, self.number(rhs)?) {
                    (Some(lhs), Some(rhs)) => Some(
                        constant::arithmetic(*op, &lhs, &rhs)
                            .map_err(|error| EngineError::Evaluation(error.to_string()))?,
                    ),
                    _ => None,
                }
            }
        })
    }
}

type Node<'a> = (Function, Option<&'a Expr>, &'a Arc<str>);

fn collect<'a>(node: &'a ScalarNode, into: &mut Vec<Node<'a>>) {
    match node {
        ScalarNode::Const(_) => {}
        ScalarNode::Aggregate {
            function,
            operand,
            label,
        } => into.push((*function, operand.as_ref(), label)),
        ScalarNode::Operation { lhs, rhs, .. } => {
            collect(lhs, into);
            collect(rhs, into);
        }
    }
}

/// The aggregate of the numbers that spans have; of no number there is none.
fn fold(
    function: Function,
    expr: &Expr,
    reader: &RowReader<'_>,
    spans: &[u32],
) -> Result<Option<Static>, EngineError> {
    let mut folded: Option<Static> = None;
    let mut count: i64 = 0;
    for &span in spans {
        let Some(number) = reader.evaluate(expr, span as usize)?.to_number() else {
            continue;
        };
        folded = Some(match (folded, function) {
            (None, _) => {
                count = 1;
                number
            }
            (Some(best), Function::Min) => extreme(ComparisonOp::Less, best, number),
            (Some(best), Function::Max) => extreme(ComparisonOp::Greater, best, number),
            (Some(sum), _) => match (sum, number) {
                (Static::Int(sum), Static::Int(value)) => {
                    count += 1;
                    Static::Int(sum.wrapping_add(value))
                }
                (Static::Duration(sum), Static::Duration(nanos)) => {
                    count += 1;
                    Static::Duration(sum.wrapping_add(nanos))
                }
                (Static::Float(sum), Static::Float(value)) => {
                    count += 1;
                    Static::Float(sum + value)
                }
                // The first value decides the type; others do not count.
                (sum, _) => sum,
            },
        });
    }
    if function != Function::Avg {
        return Ok(folded);
    }
    Ok(folded.map(|sum| match sum {
        Static::Duration(nanos) => Static::Duration(nanos / count.max(1)),
        sum => Static::Float(sum.as_f64() / count.max(1) as f64),
    }))
}

/// `candidate` if it is on that side of `best`.
fn extreme(op: ComparisonOp, best: Static, candidate: Static) -> Static {
    if constant::compare(op, &candidate, &best) {
        candidate
    } else {
        best
    }
}
