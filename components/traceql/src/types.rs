//! Which types an expression can have, and which operators they allow.

use crate::ast::{
    Aggregate, ArithmeticOp, Attribute, ComparisonOp, FieldExpr, Intrinsic, ScalarExpr, Static,
};

/// The type of an expression before any span is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// `nil`, and the intrinsic `parent`.
    Nil,
    /// Known only with the span: an attribute, or arithmetic between attributes.
    Attribute,
    /// Int.
    Int,
    /// Float.
    Float,
    /// String.
    String,
    /// Bool.
    Bool,
    /// Duration.
    Duration,
    /// Status.
    Status,
    /// Kind.
    Kind,
}

impl Type {
    /// Int, float or duration.
    pub fn is_numeric(self) -> bool {
        matches!(self, Self::Int | Self::Float | Self::Duration)
    }

    /// Whether values of the two types may stand on the two sides of some operator.
    pub fn is_compatible(self, other: Self) -> bool {
        self == other
            || (self.is_numeric() && other.is_numeric())
            || matches!(self, Self::Attribute | Self::Nil)
            || matches!(other, Self::Attribute | Self::Nil)
    }

    /// Whether arithmetic is defined for the type.
    pub fn allows_arithmetic(self) -> bool {
        self == Self::Attribute || self.is_numeric()
    }

    /// Whether `&&`, `||` and `!` are defined for the type.
    pub fn allows_logic(self) -> bool {
        matches!(self, Self::Attribute | Self::Bool)
    }

    /// Whether the comparison is defined for the type.
    pub fn allows_comparison(self, op: ComparisonOp) -> bool {
        match op {
            ComparisonOp::Equal | ComparisonOp::NotEqual => true,
            ComparisonOp::Less
            | ComparisonOp::LessEqual
            | ComparisonOp::Greater
            | ComparisonOp::GreaterEqual => {
                matches!(self, Self::Attribute | Self::String) || self.is_numeric()
            }
            ComparisonOp::Regex | ComparisonOp::NotRegex => {
                matches!(self, Self::Attribute | Self::String)
            }
        }
    }
}

impl Static {
    /// The type of the constant.
    pub fn value_type(&self) -> Type {
        match self {
            Self::Nil => Type::Nil,
            Self::Int(_) => Type::Int,
            Self::Float(_) => Type::Float,
            Self::String(_) => Type::String,
            Self::Bool(_) => Type::Bool,
            Self::Duration(_) => Type::Duration,
            Self::Status(_) => Type::Status,
            Self::Kind(_) => Type::Kind,
        }
    }

    /// The constant as a float; durations are nanoseconds, what is no number is NaN.
    pub fn as_f64(&self) -> f64 {
        match self {
            Self::Int(value) | Self::Duration(value) => *value as f64,
            Self::Float(value) => *value,
            _ => f64::NAN,
        }
    }
}

impl Attribute {
    /// The type of the value, [`Type::Attribute`] when only the span tells.
    pub fn value_type(&self) -> Type {
        match self {
            Self::Intrinsic(intrinsic) => intrinsic.value_type(),
            Self::Named { .. } => Type::Attribute,
        }
    }
}

impl Intrinsic {
    /// The type of the value. Name and version of the instrumentation have none, as in Tempo.
    pub fn value_type(self) -> Type {
        match self {
            Self::Duration | Self::TraceDuration | Self::EventTimeSinceStart => Type::Duration,
            Self::ChildCount
            | Self::NestedSetLeft
            | Self::NestedSetRight
            | Self::NestedSetParent => Type::Int,
            Self::Name
            | Self::StatusMessage
            | Self::SpanId
            | Self::ParentId
            | Self::TraceRootName
            | Self::TraceRootService
            | Self::TraceId
            | Self::EventName
            | Self::LinkTraceId
            | Self::LinkSpanId => Type::String,
            Self::Status => Type::Status,
            Self::Kind => Type::Kind,
            Self::InstrumentationName | Self::InstrumentationVersion => Type::Attribute,
            Self::Parent => Type::Nil,
        }
    }
}

impl FieldExpr {
    /// The type of the value, [`Type::Attribute`] when only the span tells.
    pub fn value_type(&self) -> Type {
        match self {
            Self::Static(value) => value.value_type(),
            Self::Attribute(attribute) => attribute.value_type(),
            Self::Negate(operand) | Self::Not(operand) => operand.value_type(),
            Self::Arithmetic { lhs, rhs, .. } => {
                arithmetic_type(lhs.value_type(), || rhs.value_type())
            }
            Self::Exists(_)
            | Self::NotExists(_)
            | Self::Comparison { .. }
            | Self::Logical { .. }
            | Self::List { .. } => Type::Bool,
        }
    }
}

impl ScalarExpr {
    /// The type of the value, [`Type::Attribute`] when only the spans tell.
    pub fn value_type(&self) -> Type {
        match self {
            Self::Static(value) => value.value_type(),
            Self::Aggregate(aggregate) | Self::Pipeline { aggregate, .. } => aggregate.value_type(),
            Self::Operation { lhs, rhs, .. } => {
                arithmetic_type(lhs.value_type(), || rhs.value_type())
            }
        }
    }
}

impl Aggregate {
    /// The type of the value, [`Type::Attribute`] when only the spans tell.
    pub fn value_type(&self) -> Type {
        self.operand().map_or(Type::Int, FieldExpr::value_type)
    }
}

/// Arithmetic has the type of its left side, unless that is unknown.
fn arithmetic_type(lhs: Type, rhs: impl FnOnce() -> Type) -> Type {
    if lhs == Type::Attribute { rhs() } else { lhs }
}

impl ArithmeticOp {
    /// How tightly it binds, among themselves.
    pub(crate) fn is_multiplicative(self) -> bool {
        matches!(self, Self::Mul | Self::Div | Self::Mod | Self::Pow)
    }
}
