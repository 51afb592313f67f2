//! Operators on constants.
//!
//! Used while parsing, to fold what no span can change; the rules are those of evaluation:
//! wrapping 64-bit integers, floats as soon as one side is not an int, false for types that do
//! not fit.

use std::cmp::Ordering;

use crate::ast::{ArithmeticOp, ComparisonOp, Static};
use crate::pattern::Pattern;

/// Arithmetic that has no answer. It fails the whole query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArithmeticError {
    /// `1 / 0`
    #[error("division by zero")]
    DivisionByZero,
    /// `1 % 0`
    #[error("modulo by zero")]
    ModuloByZero,
}

/// `lhs op rhs` for numbers. What is no number counts as NaN.
pub fn arithmetic(op: ArithmeticOp, lhs: &Static, rhs: &Static) -> Result<Static, ArithmeticError> {
    if let (Static::Int(lhs), Static::Int(rhs)) = (lhs, rhs) {
        return int_arithmetic(op, *lhs, *rhs).map(Static::Int);
    }
    let (lhs, rhs) = (lhs.as_f64(), rhs.as_f64());
    Ok(Static::Float(match op {
        ArithmeticOp::Add => lhs + rhs,
        ArithmeticOp::Sub => lhs - rhs,
        ArithmeticOp::Mul => lhs * rhs,
        ArithmeticOp::Div => lhs / rhs,
        ArithmeticOp::Mod => lhs % rhs,
        ArithmeticOp::Pow => lhs.powf(rhs),
    }))
}

/// `lhs op rhs` for ints: wrapping, truncating division.
pub fn int_arithmetic(op: ArithmeticOp, lhs: i64, rhs: i64) -> Result<i64, ArithmeticError> {
    Ok(match op {
        ArithmeticOp::Add => lhs.wrapping_add(rhs),
        ArithmeticOp::Sub => lhs.wrapping_sub(rhs),
        ArithmeticOp::Mul => lhs.wrapping_mul(rhs),
        ArithmeticOp::Div if rhs == 0 => return Err(ArithmeticError::DivisionByZero),
        ArithmeticOp::Div => lhs.wrapping_div(rhs),
        ArithmeticOp::Mod if rhs == 0 => return Err(ArithmeticError::ModuloByZero),
        ArithmeticOp::Mod => lhs.wrapping_rem(rhs),
        ArithmeticOp::Pow => u32::try_from(rhs)
            .ok()
            .and_then(|exponent| lhs.checked_pow(exponent))
            .unwrap_or_else(|| (lhs as f64).powf(rhs as f64) as i64),
    })
}

/// `lhs op rhs`; false for types that do not fit, whatever the operator, and beside `nil`.
pub fn compare(op: ComparisonOp, lhs: &Static, rhs: &Static) -> bool {
    match (lhs, rhs) {
        (Static::String(lhs), Static::String(rhs)) => match op {
            ComparisonOp::Regex => Pattern::new(rhs).is_ok_and(|pattern| pattern.is_match(lhs)),
            ComparisonOp::NotRegex => Pattern::new(rhs).is_ok_and(|pattern| !pattern.is_match(lhs)),
            _ => ordered(op, lhs.as_bytes().cmp(rhs.as_bytes()).into()),
        },
        (Static::Bool(lhs), Static::Bool(rhs)) => equality(op, lhs == rhs),
        (Static::Status(lhs), Static::Status(rhs)) => equality(op, lhs == rhs),
        (Static::Kind(lhs), Static::Kind(rhs)) => equality(op, lhs == rhs),
        (Static::Int(lhs) | Static::Duration(lhs), Static::Int(rhs) | Static::Duration(rhs)) => {
            ordered(op, Some(lhs.cmp(rhs)))
        }
        _ if lhs.value_type().is_numeric() && rhs.value_type().is_numeric() => {
            ordered(op, lhs.as_f64().partial_cmp(&rhs.as_f64()))
        }
        _ => false,
    }
}

/// `-operand`, if it is a number. Wrapping.
pub fn negate(operand: &Static) -> Option<Static> {
    Some(match operand {
        Static::Int(value) => Static::Int(value.wrapping_neg()),
        Static::Duration(nanos) => Static::Duration(nanos.wrapping_neg()),
        Static::Float(value) => Static::Float(-value),
        _ => return None,
    })
}

fn ordered(op: ComparisonOp, order: Option<Ordering>) -> bool {
    match op {
        ComparisonOp::Equal => order == Some(Ordering::Equal),
        ComparisonOp::NotEqual => order != Some(Ordering::Equal),
        ComparisonOp::Less => order.is_some_and(Ordering::is_lt),
        ComparisonOp::LessEqual => order.is_some_and(Ordering::is_le),
        ComparisonOp::Greater => order.is_some_and(Ordering::is_gt),
        ComparisonOp::GreaterEqual => order.is_some_and(Ordering::is_ge),
        ComparisonOp::Regex | ComparisonOp::NotRegex => false,
    }
}

fn equality(op: ComparisonOp, equal: bool) -> bool {
    match op {
        ComparisonOp::Equal => equal,
        ComparisonOp::NotEqual => !equal,
        _ => false,
    }
}
