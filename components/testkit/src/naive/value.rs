//! Values, and what operators make of them.

use std::cmp::Ordering;

use tempo_proto::opentelemetry::proto::common::v1::{AnyValue, any_value::Value as Wire};
use tempo_traceql::{
    Static,
    ast::{ArithmeticOp, ComparisonOp, Kind, Status},
};

use super::Failure;

/// A value of a span, or of an expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// There is none.
    Nil,
    /// One that TraceQL cannot compare: bytes, maps, arrays of different types.
    Opaque,
    /// Text.
    Text(String),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// Nanoseconds.
    Duration(i64),
    /// The status of a span.
    Status(Status),
    /// The kind of a span.
    Kind(Kind),
    /// Texts, integers, floats or booleans.
    Array(Vec<Value>),
}

impl Value {
    pub(super) fn of_wire(value: Option<&AnyValue>) -> Self {
        match value.and_then(|value| value.value.as_ref()) {
            Some(Wire::StringValue(text)) => Self::Text(text.clone()),
            Some(Wire::IntValue(value)) => Self::Int(*value),
            Some(Wire::DoubleValue(value)) => Self::Float(*value),
            Some(Wire::BoolValue(value)) => Self::Bool(*value),
            Some(Wire::ArrayValue(array)) => {
                let items: Vec<Self> = array
                    .values
                    .iter()
                    .map(|item| Self::of_wire(Some(item)))
                    .collect();
                let first = items.first().map(std::mem::discriminant);
                let alike = items.iter().all(|item| {
                    Some(std::mem::discriminant(item)) == first
                        && !matches!(item, Self::Array(_) | Self::Opaque)
                });
                if alike {
                    Self::Array(items)
                } else {
                    Self::Opaque
                }
            }
            _ => Self::Opaque,
        }
    }

    pub(super) fn of_static(constant: &Static) -> Self {
        match constant {
            Static::Nil => Self::Nil,
            Static::Int(value) => Self::Int(*value),
            Static::Float(value) => Self::Float(*value),
            Static::String(text) => Self::Text(text.to_string()),
            Static::Bool(value) => Self::Bool(*value),
            Static::Duration(nanos) => Self::Duration(*nanos),
            Static::Status(status) => Self::Status(*status),
            Static::Kind(kind) => Self::Kind(*kind),
        }
    }

    pub(super) fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }

    pub(super) fn is_true(&self) -> bool {
        *self == Self::Bool(true)
    }

    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Int(value) | Self::Duration(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// With its type, so that `1`, `1.0` and `"1"` differ. What cannot be shown is like nothing.
    pub fn print(&self) -> String {
        match self {
            Self::Nil | Self::Opaque => "nil".to_owned(),
            Self::Text(text) => format!("text {text:?}"),
            Self::Int(value) => format!("int {value}"),
            Self::Float(value) => format!("float {value:?}"),
            Self::Bool(value) => format!("bool {value}"),
            Self::Duration(nanos) => format!("duration {nanos}"),
            Self::Status(status) => format!("status {status:?}"),
            Self::Kind(kind) => format!("kind {kind:?}"),
            Self::Array(items) => {
                let items: Vec<String> = items.iter().map(Self::print).collect();
                format!("[{}]", items.join(", "))
            }
        }
    }
}

/// `lhs op rhs` of what is no array. Types that do not fit make every operator false.
fn compare_single(op: ComparisonOp, lhs: &Value, rhs: &Value) -> bool {
    let of_order = |order: Option<Ordering>| match op {
        ComparisonOp::Equal => order == Some(Ordering::Equal),
        ComparisonOp::NotEqual => order != Some(Ordering::Equal),
        ComparisonOp::Less => order.is_some_and(Ordering::is_lt),
        ComparisonOp::LessEqual => order.is_some_and(Ordering::is_le),
        ComparisonOp::Greater => order.is_some_and(Ordering::is_gt),
        ComparisonOp::GreaterEqual => order.is_some_and(Ordering::is_ge),
        ComparisonOp::Regex | ComparisonOp::NotRegex => false,
    };
    let of_equality = |equal: bool| match op {
        ComparisonOp::Equal => equal,
        ComparisonOp::NotEqual => !equal,
        _ => false,
    };
    match (lhs, rhs) {
        (Value::Text(lhs), Value::Text(rhs)) => match op {
            ComparisonOp::Regex => matches(rhs, lhs),
            ComparisonOp::NotRegex => !matches(rhs, lhs),
            _ => of_order(Some(lhs.as_bytes().cmp(rhs.as_bytes()))),
        },
        (Value::Bool(lhs), Value::Bool(rhs)) => of_equality(lhs == rhs),
        (Value::Status(lhs), Value::Status(rhs)) => of_equality(lhs == rhs),
        (Value::Kind(lhs), Value::Kind(rhs)) => of_equality(lhs == rhs),
        (Value::Int(lhs) | Value::Duration(lhs), Value::Int(rhs) | Value::Duration(rhs)) => {
            of_order(Some(lhs.cmp(rhs)))
        }
        _ => match (lhs.number(), rhs.number()) {
            (Some(lhs), Some(rhs)) => of_order(lhs.partial_cmp(&rhs)),
            _ => false,
        },
    }
}

/// A pattern has to match the whole text, and its dot matches a new line too.
fn matches(pattern: &str, text: &str) -> bool {
    regex::Regex::new(&format!("^(?s:{pattern})$"))
        .expect("a valid query has valid patterns")
        .is_match(text)
}

/// `lhs op rhs`. Of an array one element must do, or all of them when the operator denies.
pub(super) fn compare(op: ComparisonOp, lhs: &Value, rhs: &Value) -> Result<bool, Failure> {
    let denies = matches!(op, ComparisonOp::NotEqual | ComparisonOp::NotRegex);
    let quantified = |verdicts: Vec<bool>| {
        if denies {
            verdicts.iter().all(|&verdict| verdict)
        } else {
            verdicts.iter().any(|&verdict| verdict)
        }
    };
    Ok(match (lhs, rhs) {
        (Value::Nil, _) | (_, Value::Nil) => false,
        (Value::Array(_), Value::Array(_)) => {
            return Err(Failure::of(
                "array operators must consist of a scalar and an array operand",
            ));
        }
        (Value::Array(items), rhs) => quantified(
            items
                .iter()
                .map(|item| compare_single(op, item, rhs))
                .collect(),
        ),
        (lhs, Value::Array(items)) => quantified(
            items
                .iter()
                .map(|item| compare_single(op, lhs, item))
                .collect(),
        ),
        (lhs, rhs) => compare_single(op, lhs, rhs),
    })
}

/// `lhs op rhs` for numbers; false for anything else.
pub(super) fn arithmetic(op: ArithmeticOp, lhs: &Value, rhs: &Value) -> Result<Value, Failure> {
    if matches!(lhs, Value::Array(_)) || matches!(rhs, Value::Array(_)) {
        return Err(Failure::of("unsupported operation"));
    }
    if let (Value::Int(lhs), Value::Int(rhs)) = (lhs, rhs) {
        let (lhs, rhs) = (*lhs, *rhs);
        return Ok(Value::Int(match op {
            ArithmeticOp::Add => lhs.wrapping_add(rhs),
            ArithmeticOp::Sub => lhs.wrapping_sub(rhs),
            ArithmeticOp::Mul => lhs.wrapping_mul(rhs),
            ArithmeticOp::Div if rhs == 0 => return Err(Failure::of("division by zero")),
            ArithmeticOp::Div => lhs.wrapping_div(rhs),
            ArithmeticOp::Mod if rhs == 0 => return Err(Failure::of("modulo by zero")),
            ArithmeticOp::Mod => lhs.wrapping_rem(rhs),
            ArithmeticOp::Pow => (lhs as f64).powf(rhs as f64) as i64,
        }));
    }
    let (Some(lhs), Some(rhs)) = (lhs.number(), rhs.number()) else {
        return Ok(Value::Bool(false));
    };
    Ok(Value::Float(match op {
        ArithmeticOp::Add => lhs + rhs,
        ArithmeticOp::Sub => lhs - rhs,
        ArithmeticOp::Mul => lhs * rhs,
        ArithmeticOp::Div => lhs / rhs,
        ArithmeticOp::Mod => lhs % rhs,
        ArithmeticOp::Pow => lhs.powf(rhs),
    }))
}
