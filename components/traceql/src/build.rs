//! Building nodes of field expressions, with what happens at that moment: constants are folded,
//! and ids are brought to the form that they are stored in.

use std::sync::Arc;

use crate::ast::{ArithmeticOp, Attribute, ComparisonOp, FieldExpr, Intrinsic, LogicalOp, Static};
use crate::constant;
use crate::validate;

/// A binary operator of field expressions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum FieldOp {
    Arithmetic(ArithmeticOp),
    Comparison(ComparisonOp),
    Logical(LogicalOp),
}

/// `lhs op rhs`
pub(crate) fn binary(op: FieldOp, mut lhs: FieldExpr, mut rhs: FieldExpr) -> FieldExpr {
    strip_trace_id_zeros(&lhs, &mut rhs);
    strip_trace_id_zeros(&rhs, &mut lhs);
    if let Some(folded) = fold(op, &lhs, &rhs) {
        return FieldExpr::Static(folded);
    }
    match op {
        FieldOp::Arithmetic(op) => FieldExpr::Arithmetic {
            op,
            lhs: Box::new(lhs),
            rhs: Box::new(rhs),
        },
        FieldOp::Comparison(op) => FieldExpr::Comparison {
            op,
            lhs: Box::new(lhs),
            rhs: Box::new(rhs),
        },
        FieldOp::Logical(op) => match lhs {
            FieldExpr::Logical {
                op: chain_op,
                mut operands,
            } if chain_op == op => {
                operands.push(rhs);
                FieldExpr::Logical { op, operands }
            }
            lhs => FieldExpr::Logical {
                op,
                operands: vec![lhs, rhs],
            },
        },
    }
}

/// `-operand`
pub(crate) fn negate(operand: FieldExpr) -> FieldExpr {
    match &operand {
        FieldExpr::Static(value) => constant::negate(value).map(FieldExpr::Static),
        _ => None,
    }
    .unwrap_or_else(|| FieldExpr::Negate(Box::new(operand)))
}

/// `!operand`
pub(crate) fn not(operand: FieldExpr) -> FieldExpr {
    match operand {
        FieldExpr::Static(Static::Bool(value)) => FieldExpr::Static(Static::Bool(!value)),
        operand => FieldExpr::Not(Box::new(operand)),
    }
}

/// `operand != nil`
pub(crate) fn exists(operand: FieldExpr) -> FieldExpr {
    match operand {
        FieldExpr::Static(_) => FieldExpr::TRUE,
        operand => FieldExpr::Exists(Box::new(operand)),
    }
}

/// `operand = nil`
pub(crate) fn not_exists(operand: FieldExpr) -> FieldExpr {
    match operand {
        FieldExpr::Static(_) => FieldExpr::FALSE,
        operand => FieldExpr::NotExists(Box::new(operand)),
    }
}

/// The value of `lhs op rhs` when no span can change it and it has one.
///
/// Operands that are constants have been folded already, so what is left to look at is two
/// statics, or a static that decides alone.
fn fold(op: FieldOp, lhs: &FieldExpr, rhs: &FieldExpr) -> Option<Static> {
    let FieldExpr::Static(left) = lhs else {
        return None;
    };
    let decided = match (op, left) {
        (FieldOp::Logical(LogicalOp::And), Static::Bool(false)) => Some(false),
        (FieldOp::Logical(LogicalOp::Or), Static::Bool(true)) => Some(true),
        _ => None,
    };
    if let Some(decided) = decided {
        let is_constant = !rhs.references_span();
        return (is_constant && validate::field_operation(op, lhs, rhs).is_ok())
            .then_some(Static::Bool(decided));
    }
    let FieldExpr::Static(right) = rhs else {
        return None;
    };
    validate::operand_types(op, left.value_type(), right.value_type()).ok()?;
    match op {
        FieldOp::Arithmetic(op) => match constant::arithmetic(op, left, right).ok()? {
            // Infinity and NaN have no syntax.
            Static::Float(value) if !value.is_finite() => None,
            value => Some(value),
        },
        FieldOp::Comparison(op) => {
            validate::regex_operand(op, rhs).ok()?;
            Some(Static::Bool(constant::compare(op, left, right)))
        }
        FieldOp::Logical(op) => match (op, left, right) {
            (LogicalOp::And, Static::Bool(left), Static::Bool(right)) => {
                Some(Static::Bool(*left && *right))
            }
            (LogicalOp::Or, Static::Bool(left), Static::Bool(right)) => {
                Some(Static::Bool(*left || *right))
            }
            _ => None,
        },
    }
}

/// Ids are compared without leading zeros.
fn strip_trace_id_zeros(attribute: &FieldExpr, operand: &mut FieldExpr) {
    if let (
        FieldExpr::Attribute(Attribute::Intrinsic(Intrinsic::TraceId)),
        FieldExpr::Static(Static::String(id)),
    ) = (attribute, operand)
        && id.starts_with('0')
    {
        *id = Arc::from(id.trim_start_matches('0'));
    }
}
