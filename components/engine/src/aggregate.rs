//! Numbers per set of spans, and comparisons of them.

use std::{cmp::Ordering, sync::Arc};

use tempo_table::Bitmap;
use tempo_traceql::{Static, constant};

use crate::{
    error::EngineError,
    operand::Reading,
    plan::{Expr, Function, Plan, ScalarNode, ScalarTest},
    rows::{RowReader, compare_numbers},
    session::Session,
    value::{Number, Value},
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

    /// Whether [`Self::passes`] needs to know the spans, not only how many there are.
    pub(crate) fn need_spans(&self) -> bool {
        self.computed
            .iter()
            .any(|aggregate| aggregate.operand.is_some())
    }

    /// Whether a set of `count` spans passes. A set without any value to aggregate does not,
    /// whatever the comparison.
    pub(crate) fn passes(&mut self, count: usize, spans: &[u32]) -> Result<bool, EngineError> {
        for aggregate in &mut self.computed {
            aggregate.value = match &aggregate.operand {
                None => Some(Static::Int(count as i64)),
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
    let mut fold = Fold::new(function);
    match expr {
        Expr::Operand(operand) if let Some((ints, reading)) = reader.plain_ints(*operand) => {
            let number: fn(i64) -> Number = match reading {
                Reading::Duration => Number::Duration,
                Reading::Int | Reading::Plain => Number::Int,
                // Not numbers, though they are stored as such.
                _ => return Ok(None),
            };
            spans
                .iter()
                .for_each(|&span| fold.add(number(ints[span as usize])));
        }
        expr => {
            for &span in spans {
                if let Some(number) = reader.evaluate(expr, span as usize)?.to_number() {
                    fold.add(number);
                }
            }
        }
    }
    Ok(fold.finish())
}

struct Fold {
    function: Function,
    value: Option<Number>,
    count: i64,
}

impl Fold {
    fn new(function: Function) -> Self {
        Self {
            function,
            value: None,
            count: 0,
        }
    }

    #[inline]
    fn add(&mut self, number: Number) {
        let Some(value) = self.value else {
            self.value = Some(number);
            self.count = 1;
            return;
        };
        let wanted = match self.function {
            Function::Min => Ordering::Less,
            Function::Max => Ordering::Greater,
            Function::Count | Function::Sum | Function::Avg => {
                return self.add_to_sum(value, number);
            }
        };
        if compare_numbers(number, value) == Some(wanted) {
            self.value = Some(number);
        }
    }

    /// The first value decides the type; values of others do not count.
    #[inline]
    fn add_to_sum(&mut self, sum: Number, number: Number) {
        let sum = match (sum, number) {
            (Number::Int(sum), Number::Int(value)) => Number::Int(sum.wrapping_add(value)),
            (Number::Duration(sum), Number::Duration(nanos)) => {
                Number::Duration(sum.wrapping_add(nanos))
            }
            (Number::Float(sum), Number::Float(value)) => Number::Float(sum + value),
            _ => return,
        };
        self.value = Some(sum);
        self.count += 1;
    }

    fn finish(self) -> Option<Static> {
        let value = self.value?;
        if self.function != Function::Avg {
            return Some(value.to_static());
        }
        Some(match value {
            Number::Duration(nanos) => Static::Duration(nanos / self.count),
            sum => Static::Float(sum.as_f64() / self.count as f64),
        })
    }
}
