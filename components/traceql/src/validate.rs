//! Whether a query makes sense: types, operators, limits of functions.
//!
//! Messages are Tempo's. Regular expressions are checked here, so a tree is to be validated as it
//! was written, before the rewrite.

use crate::ast::{
    Aggregate, Attribute, Compare, ComparisonOp, FieldExpr, Intrinsic, MetricsAggregate,
    MetricsExpr, MetricsLeaf, MetricsSource, Pipeline, PipelineElement, Query, QueryBody,
    ScalarExpr, ScalarFilter, Scope, SecondStage, SeriesFunction, SpansetExpr, Static,
};
use crate::build::FieldOp;
use crate::display::{Chain, go_float};
use crate::error::ValidationError;
use crate::pattern::Pattern;
use crate::types::Type;

/// Attributes to group series by; functions that add a label of their own allow one less.
pub const MAX_GROUP_BY_ATTRIBUTES: usize = 5;
/// Values that `compare()` returns per attribute.
pub const MAX_COMPARE_TOP_VALUES: i64 = 1000;

type Result = std::result::Result<(), ValidationError>;

fn fail(message: impl Into<String>) -> Result {
    Err(ValidationError(message.into()))
}

impl Query {
    /// Whether the query makes sense.
    pub fn validate(&self) -> Result {
        match &self.body {
            QueryBody::Search(elements) => pipeline(elements),
            QueryBody::Metrics(query) => metrics(query),
            QueryBody::ScalarPipelines(filter) => {
                scalar_filter(filter)?;
                fail("scalar filter lhs of type (%v) not yet supported")
            }
        }
    }
}

fn pipeline(pipeline: &Pipeline) -> Result {
    pipeline
        .elements
        .iter()
        .try_for_each(|element| match element {
            PipelineElement::Spanset(expr) => spanset(expr),
            PipelineElement::ScalarFilter(filter) => scalar_filter(filter),
            PipelineElement::GroupBy(expr) => {
                if !expr.references_span() {
                    return fail(format!(
                        "grouping field expressions must reference the span: {element}"
                    ));
                }
                field(expr)
            }
            PipelineElement::Coalesce => Ok(()),
            PipelineElement::Select(attributes) => attributes.iter().try_for_each(attribute),
        })
}

fn spanset(expr: &SpansetExpr) -> Result {
    match expr {
        SpansetExpr::Filter(condition) => filter(condition),
        SpansetExpr::Operation { lhs, rhs, .. } => {
            spanset(lhs)?;
            spanset(rhs)
        }
        SpansetExpr::Pipeline(elements) => pipeline(elements),
    }
}

fn filter(condition: &FieldExpr) -> Result {
    field(condition)?;
    match condition.value_type() {
        Type::Attribute | Type::Bool => Ok(()),
        _ => fail(format!(
            "span filter field expressions must resolve to a boolean: {{ {condition} }}"
        )),
    }
}

fn scalar_filter(filter: &ScalarFilter) -> Result {
    scalar(&filter.lhs)?;
    scalar(&filter.rhs)?;
    let (lhs, rhs) = (filter.lhs.value_type(), filter.rhs.value_type());
    operand_types(FieldOp::Comparison(filter.op), lhs, rhs).map_err(|misuse| misuse.of(filter))
}

fn scalar(expr: &ScalarExpr) -> Result {
    match expr {
        ScalarExpr::Static(_) => Ok(()),
        ScalarExpr::Aggregate(expr) => aggregate(expr),
        ScalarExpr::Operation { op, lhs, rhs } => {
            scalar(lhs)?;
            scalar(rhs)?;
            operand_types(FieldOp::Arithmetic(*op), lhs.value_type(), rhs.value_type())
                .map_err(|misuse| misuse.of(expr))
        }
        ScalarExpr::Pipeline {
            pipeline: elements,
            aggregate: expr,
        } => {
            pipeline(elements)?;
            aggregate(expr)
        }
    }
}

fn aggregate(aggregate: &Aggregate) -> Result {
    let Some(operand) = aggregate.operand() else {
        return Ok(());
    };
    field(operand)?;
    let value_type = operand.value_type();
    if value_type != Type::Attribute && !value_type.is_numeric() {
        return fail(format!(
            "aggregate field expressions must resolve to a number type: {aggregate}"
        ));
    }
    if !operand.references_span() {
        return fail(format!(
            "aggregate field expressions must reference the span: {aggregate}"
        ));
    }
    Ok(())
}

/// Whether a field expression makes sense, whatever it is used for.
fn field(expr: &FieldExpr) -> Result {
    match expr {
        FieldExpr::Static(_) | FieldExpr::List { .. } => Ok(()),
        FieldExpr::Attribute(name) => attribute(name),
        FieldExpr::Negate(operand) => {
            field(operand)?;
            if operand.value_type().allows_arithmetic() {
                return Ok(());
            }
            fail(format!("illegal operation for the given type: {expr}"))
        }
        FieldExpr::Not(operand) => {
            field(operand)?;
            if operand.value_type().allows_logic() {
                return Ok(());
            }
            fail(format!("illegal operation for the given type: {expr}"))
        }
        FieldExpr::Exists(operand) => field(operand),
        FieldExpr::NotExists(operand) => {
            field(operand)?;
            not_nil(operand)
        }
        FieldExpr::Arithmetic { op, lhs, rhs } => {
            field_operation(FieldOp::Arithmetic(*op), lhs, rhs)
        }
        FieldExpr::Comparison { op, lhs, rhs } => {
            field_operation(FieldOp::Comparison(*op), lhs, rhs)
        }
        FieldExpr::Logical { op, operands } => {
            let mut before: Option<Type> = None;
            for (index, operand) in operands.iter().enumerate() {
                field(operand)?;
                let operand_type = operand.value_type();
                let Some(lhs) = before.replace(operand_type) else {
                    continue;
                };
                operand_types(FieldOp::Logical(*op), lhs, operand_type).map_err(|misuse| {
                    misuse.of(&Chain {
                        op: *op,
                        operands: operands.get(..=index).unwrap_or(operands),
                    })
                })?;
                before = Some(Type::Bool);
            }
            Ok(())
        }
    }
}

/// Whether `lhs op rhs` makes sense.
pub(crate) fn field_operation(op: FieldOp, lhs: &FieldExpr, rhs: &FieldExpr) -> Result {
    field(lhs)?;
    field(rhs)?;
    operand_types(op, lhs.value_type(), rhs.value_type()).map_err(|misuse| {
        // Only failures pay for the copy.
        misuse.of(&match op {
            FieldOp::Arithmetic(op) => FieldExpr::Arithmetic {
                op,
                lhs: Box::new(lhs.clone()),
                rhs: Box::new(rhs.clone()),
            },
            FieldOp::Comparison(op) => FieldExpr::Comparison {
                op,
                lhs: Box::new(lhs.clone()),
                rhs: Box::new(rhs.clone()),
            },
            FieldOp::Logical(op) => FieldExpr::Logical {
                op,
                operands: vec![lhs.clone(), rhs.clone()],
            },
        })
    })?;
    match op {
        FieldOp::Comparison(op) => regex_operand(op, rhs),
        _ => Ok(()),
    }
}

/// How an operator does not fit its operands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Misuse {
    Incompatible,
    Undefined,
}

impl Misuse {
    fn of(self, operation: &impl std::fmt::Display) -> ValidationError {
        ValidationError(match self {
            Self::Incompatible => {
                format!("binary operations must operate on the same type: {operation}")
            }
            Self::Undefined => format!("illegal operation for the given types: {operation}"),
        })
    }
}

/// Whether the operator is defined for the types.
pub(crate) fn operand_types(op: FieldOp, lhs: Type, rhs: Type) -> std::result::Result<(), Misuse> {
    if !lhs.is_compatible(rhs) {
        return Err(Misuse::Incompatible);
    }
    let allowed = |operand: Type| match op {
        FieldOp::Arithmetic(_) => operand.allows_arithmetic(),
        FieldOp::Comparison(op) => operand.allows_comparison(op),
        FieldOp::Logical(_) => operand.allows_logic(),
    };
    if allowed(lhs) && allowed(rhs) {
        Ok(())
    } else {
        Err(Misuse::Undefined)
    }
}

/// The right side of `=~` and `!~` is a constant pattern that compiles.
pub(crate) fn regex_operand(op: ComparisonOp, rhs: &FieldExpr) -> Result {
    if !matches!(op, ComparisonOp::Regex | ComparisonOp::NotRegex) {
        return Ok(());
    }
    match rhs {
        FieldExpr::Static(Static::String(pattern)) => match Pattern::new(pattern) {
            Ok(_) => Ok(()),
            Err(error) if error.is_too_large => fail(error.to_string()),
            Err(_) => fail(format!("invalid regex: {rhs}")),
        },
        _ => fail(format!("invalid type for =~ or !~: {rhs}")),
    }
}

fn not_nil(operand: &FieldExpr) -> Result {
    match operand {
        FieldExpr::Attribute(Attribute::Intrinsic(intrinsic)) => fail(format!(
            "{intrinsic}=nil is not valid because intrinsics cannot be nil"
        )),
        FieldExpr::Attribute(Attribute::Named {
            parent: false,
            scope: Some(Scope::Resource),
            name,
        }) if **name == *"service.name" => fail(
            "resource.service.name=nil is not valid because resource.service.name cannot be nil",
        ),
        _ => Ok(()),
    }
}

fn attribute(attribute: &Attribute) -> Result {
    match attribute {
        Attribute::Named { parent: true, .. } => fail("parent not yet supported"),
        Attribute::Intrinsic(Intrinsic::Parent) => fail("intrinsic (parent) not yet supported"),
        _ => Ok(()),
    }
}

fn metrics(expr: &MetricsExpr) -> Result {
    let leaves = expr.leaves();
    leaves
        .iter()
        .try_for_each(|leaf| pipeline(&leaf.pipeline))?;
    leaves
        .iter()
        .try_for_each(|leaf| aggregate_over_time(leaf))?;
    stages(expr)?;
    let is_plain = leaves.len() == 1 && expr.stages.is_empty();
    let has_compare = leaves
        .iter()
        .any(|leaf| matches!(leaf.aggregate, MetricsAggregate::Compare(_)));
    if has_compare && !is_plain {
        return fail("`compare()` cannot be used with second stage functions");
    }
    Ok(())
}

fn aggregate_over_time(leaf: &MetricsLeaf) -> Result {
    match &leaf.aggregate {
        MetricsAggregate::Series { function, by } => {
            let max = match function {
                SeriesFunction::AvgOverTime(_)
                | SeriesFunction::HistogramOverTime(_)
                | SeriesFunction::QuantileOverTime(..) => MAX_GROUP_BY_ATTRIBUTES - 1,
                _ => MAX_GROUP_BY_ATTRIBUTES,
            };
            if by.len() > max {
                return fail(format!(
                    "metrics group by {} values not yet supported",
                    by.len()
                ));
            }
            if let SeriesFunction::QuantileOverTime(_, quantiles) = function
                && let Some(quantile) = quantiles.iter().find(|q| !(0.0..=1.0).contains(*q))
            {
                return fail(format!(
                    "quantile must be between 0 and 1: {}",
                    go_float(*quantile)
                ));
            }
            Ok(())
        }
        MetricsAggregate::Compare(compare) => comparison(compare),
    }
}

fn comparison(compare: &Compare) -> Result {
    filter(&compare.selection)?;
    if !(1..=MAX_COMPARE_TOP_VALUES).contains(&compare.top) {
        return fail(format!(
            "compare() top number of values must be an integer between 1 and {MAX_COMPARE_TOP_VALUES}"
        ));
    }
    match (compare.start_nanos, compare.end_nanos) {
        (0, 0) => Ok(()),
        (start, end) if start <= 0 || end <= 0 => {
            fail("compare() timestamps must be positive integer unix nanoseconds")
        }
        (start, end) if end <= start => {
            fail("compare() end timestamp must be greater than start timestamp")
        }
        _ => Ok(()),
    }
}

fn stages(expr: &MetricsExpr) -> Result {
    if let MetricsSource::Binary { lhs, rhs, .. } = &expr.source {
        stages(lhs)?;
        stages(rhs)?;
    }
    let has_bad_limit = expr.stages.iter().any(
        |stage| matches!(stage, SecondStage::TopK(limit) | SecondStage::BottomK(limit) if *limit <= 0),
    );
    if has_bad_limit {
        return fail("limit must be greater than 0");
    }
    Ok(())
}
