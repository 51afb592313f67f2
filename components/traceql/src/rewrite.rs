//! Chains of comparisons of one attribute become lists: `.a = 1 || .a = 2` is `.a IN [1, 2]`.
//!
//! The name in hints is `or_to_in`. Follows Tempo step by step, because the canonical text of the
//! result is a key on the wire: only neighbours are merged, from the left, and nothing below `!`.

use crate::ast::{
    Aggregate, Attribute, ComparisonOp, FieldExpr, ListOp, LogicalOp, MetricsExpr, MetricsSource,
    Pipeline, PipelineElement, Query, QueryBody, ScalarExpr, ScalarFilter, SpansetExpr, Static,
};
use crate::build::{FieldOp, binary};
use crate::types::Type;

/// The name of the rewrite in the hint `skip_ast_transformations`.
pub(crate) const OR_TO_IN: &str = "or_to_in";
/// All rewrites, in the hint `skip_ast_transformations`.
pub(crate) const ALL: &str = "all";
/// What the hint `skip_ast_transformations` and the setting of that name may name.
pub const REWRITE_NAMES: [&str; 2] = [ALL, OR_TO_IN];

/// Rewrites a valid query.
pub(crate) fn or_to_in(query: Query) -> Query {
    let body = match query.body {
        QueryBody::Search(elements) => QueryBody::Search(pipeline(elements)),
        QueryBody::Metrics(expr) => QueryBody::Metrics(metrics(expr)),
        QueryBody::ScalarPipelines(filter) => QueryBody::ScalarPipelines(scalar_filter(filter)),
    };
    Query {
        body,
        hints: query.hints,
    }
}

fn metrics(mut expr: MetricsExpr) -> MetricsExpr {
    expr.source = match expr.source {
        MetricsSource::Leaf(mut leaf) => {
            leaf.pipeline = pipeline(leaf.pipeline);
            MetricsSource::Leaf(leaf)
        }
        MetricsSource::Binary { op, lhs, rhs } => MetricsSource::Binary {
            op,
            lhs: Box::new(metrics(*lhs)),
            rhs: Box::new(metrics(*rhs)),
        },
    };
    expr
}

fn pipeline(pipeline: Pipeline) -> Pipeline {
    let elements = pipeline.elements.into_iter().map(|element| match element {
        PipelineElement::Spanset(expr) => PipelineElement::Spanset(spanset(expr)),
        PipelineElement::ScalarFilter(filter) => {
            PipelineElement::ScalarFilter(scalar_filter(filter))
        }
        PipelineElement::GroupBy(expr) => PipelineElement::GroupBy(field(expr)),
        element @ (PipelineElement::Coalesce | PipelineElement::Select(_)) => element,
    });
    Pipeline {
        elements: elements.collect(),
    }
}

fn spanset(expr: SpansetExpr) -> SpansetExpr {
    match expr {
        SpansetExpr::Filter(condition) => SpansetExpr::Filter(field(condition)),
        SpansetExpr::Operation { op, lhs, rhs } => SpansetExpr::Operation {
            op,
            lhs: Box::new(spanset(*lhs)),
            rhs: Box::new(spanset(*rhs)),
        },
        SpansetExpr::Pipeline(elements) => SpansetExpr::Pipeline(pipeline(elements)),
    }
}

fn scalar_filter(filter: ScalarFilter) -> ScalarFilter {
    ScalarFilter {
        op: filter.op,
        lhs: scalar(filter.lhs),
        rhs: scalar(filter.rhs),
    }
}

fn scalar(expr: ScalarExpr) -> ScalarExpr {
    match expr {
        ScalarExpr::Static(_) => expr,
        ScalarExpr::Aggregate(expr) => ScalarExpr::Aggregate(aggregate(expr)),
        ScalarExpr::Operation { op, lhs, rhs } => ScalarExpr::Operation {
            op,
            lhs: Box::new(scalar(*lhs)),
            rhs: Box::new(scalar(*rhs)),
        },
        ScalarExpr::Pipeline {
            pipeline: elements,
            aggregate: expr,
        } => ScalarExpr::Pipeline {
            pipeline: pipeline(elements),
            aggregate: aggregate(expr),
        },
    }
}

fn aggregate(aggregate: Aggregate) -> Aggregate {
    match aggregate {
        Aggregate::Count => Aggregate::Count,
        Aggregate::Min(operand) => Aggregate::Min(field(operand)),
        Aggregate::Max(operand) => Aggregate::Max(field(operand)),
        Aggregate::Sum(operand) => Aggregate::Sum(field(operand)),
        Aggregate::Avg(operand) => Aggregate::Avg(field(operand)),
    }
}

fn field(expr: FieldExpr) -> FieldExpr {
    match expr {
        FieldExpr::Arithmetic { op, lhs, rhs } => {
            binary(FieldOp::Arithmetic(op), field(*lhs), field(*rhs))
        }
        FieldExpr::Comparison { op, lhs, rhs } => {
            binary(FieldOp::Comparison(op), field(*lhs), field(*rhs))
        }
        FieldExpr::Logical { op, operands } => {
            let mut operands = operands.into_iter().map(field);
            let first = operands.next().unwrap_or(FieldExpr::TRUE);
            operands.fold(first, |before, operand| join(op, before, operand))
        }
        other => other,
    }
}

/// `before op operand`, as a list when both compare one attribute.
fn join(op: LogicalOp, before: FieldExpr, operand: FieldExpr) -> FieldExpr {
    let terms = Terms::of(op, before);
    match (terms, Terms::of(op, operand)) {
        (Ok(before), Ok(operand)) if before.can_join(&operand) => before.join(operand),
        (before, operand) => {
            let back = |terms: Result<Terms, FieldExpr>| match terms {
                Ok(terms) => terms.into_expr(),
                Err(expr) => expr,
            };
            binary(FieldOp::Logical(op), back(before), back(operand))
        }
    }
}

/// Comparisons of one attribute that a chain may join.
struct Terms {
    op: ListOp,
    attribute: Attribute,
    values: Vec<Static>,
    /// A single comparison as it was written.
    written: Option<FieldExpr>,
}

impl Terms {
    /// The terms of an operand of a chain of `op`, or the operand itself when it is something
    /// else.
    fn of(op: LogicalOp, expr: FieldExpr) -> Result<Self, FieldExpr> {
        let fits = |list_op: ListOp| {
            let joined_by = match list_op {
                ListOp::In | ListOp::MatchAny => LogicalOp::Or,
                ListOp::NotIn | ListOp::MatchNone => LogicalOp::And,
            };
            joined_by == op
        };
        match expr {
            FieldExpr::List {
                op,
                attribute,
                values,
            } if fits(op) => Ok(Self {
                op,
                attribute,
                values,
                written: None,
            }),
            FieldExpr::Comparison { op, lhs, rhs } => {
                let list_op = match op {
                    ComparisonOp::Equal => Some(ListOp::In),
                    ComparisonOp::NotEqual => Some(ListOp::NotIn),
                    ComparisonOp::Regex => Some(ListOp::MatchAny),
                    ComparisonOp::NotRegex => Some(ListOp::MatchNone),
                    _ => None,
                };
                let sides = match (&*lhs, &*rhs) {
                    (FieldExpr::Attribute(attribute), FieldExpr::Static(value))
                    | (FieldExpr::Static(value), FieldExpr::Attribute(attribute)) => {
                        Some((attribute.clone(), value.clone()))
                    }
                    _ => None,
                };
                let listable = |value: &Static| {
                    matches!(
                        value.value_type(),
                        Type::String | Type::Int | Type::Float | Type::Bool
                    )
                };
                match (list_op, sides) {
                    (Some(list_op), Some((attribute, value)))
                        if fits(list_op) && listable(&value) =>
                    {
                        Ok(Self {
                            op: list_op,
                            attribute,
                            values: vec![value],
                            written: Some(FieldExpr::Comparison { op, lhs, rhs }),
                        })
                    }
                    _ => Err(FieldExpr::Comparison { op, lhs, rhs }),
                }
            }
            other => Err(other),
        }
    }

    fn can_join(&self, other: &Self) -> bool {
        let value_type = |terms: &Self| terms.values.first().map(Static::value_type);
        self.op == other.op
            && self.attribute == other.attribute
            && value_type(self) == value_type(other)
    }

    fn join(mut self, other: Self) -> FieldExpr {
        self.values.extend(other.values);
        self.written = None;
        self.into_expr()
    }

    fn into_expr(self) -> FieldExpr {
        self.written.unwrap_or(FieldExpr::List {
            op: self.op,
            attribute: self.attribute,
            values: self.values,
        })
    }
}
