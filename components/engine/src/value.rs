//! Values at run time.

use std::sync::Arc;

use tempo_table::ArrayValue;
use tempo_traceql::{
    Static,
    ast::{Kind, Status},
};

/// A value of a span or of a set of spans, as results carry it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// There is none; answers print it as the text `nil`.
    Nil,
    /// Text.
    String(Arc<str>),
    /// 64-bit integer.
    Int(i64),
    /// Double.
    Float(f64),
    /// Boolean.
    Bool(bool),
    /// Nanoseconds.
    Duration(i64),
    /// Span status.
    Status(Status),
    /// Span kind.
    Kind(Kind),
    /// Array of one scalar type.
    Array(ArrayValue),
}

impl From<&Static> for Value {
    fn from(constant: &Static) -> Self {
        match constant {
            Static::Nil => Self::Nil,
            Static::Int(value) => Self::Int(*value),
            Static::Float(value) => Self::Float(*value),
            Static::String(text) => Self::String(Arc::clone(text)),
            Static::Bool(value) => Self::Bool(*value),
            Static::Duration(nanos) => Self::Duration(*nanos),
            Static::Status(status) => Self::Status(*status),
            Static::Kind(kind) => Self::Kind(*kind),
        }
    }
}

impl Value {
    /// The value while it is looked at.
    pub(crate) fn borrowed(&self) -> ValueRef<'_> {
        match self {
            Self::Nil => ValueRef::Nil,
            Self::String(text) => ValueRef::Text(text.as_bytes()),
            Self::Int(value) => ValueRef::Int(*value),
            Self::Float(value) => ValueRef::Float(*value),
            Self::Bool(value) => ValueRef::Bool(*value),
            Self::Duration(nanos) => ValueRef::Duration(*nanos),
            Self::Status(status) => ValueRef::Status(*status),
            Self::Kind(kind) => ValueRef::Kind(*kind),
            Self::Array(array) => ValueRef::Array(array),
        }
    }
}

/// The status of an OTLP status code; unknown codes are unset.
pub(crate) fn status_of(code: i64) -> Status {
    match code {
        1 => Status::Ok,
        2 => Status::Error,
        _ => Status::Unset,
    }
}

/// The OTLP status code.
pub(crate) fn status_code(status: Status) -> i64 {
    match status {
        Status::Unset => 0,
        Status::Ok => 1,
        Status::Error => 2,
    }
}

/// The kind of an OTLP number; unknown ones are unspecified.
pub(crate) fn kind_of(number: i64) -> Kind {
    match number {
        1 => Kind::Internal,
        2 => Kind::Server,
        3 => Kind::Client,
        4 => Kind::Producer,
        5 => Kind::Consumer,
        _ => Kind::Unspecified,
    }
}

/// The OTLP number.
pub(crate) fn kind_number(kind: Kind) -> i64 {
    match kind {
        Kind::Unspecified => 0,
        Kind::Internal => 1,
        Kind::Server => 2,
        Kind::Client => 3,
        Kind::Producer => 4,
        Kind::Consumer => 5,
    }
}

/// A value while it is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ValueRef<'a> {
    Nil,
    /// There is a value, but of a type that compares with nothing.
    Opaque,
    /// Normally UTF-8.
    Text(&'a [u8]),
    /// An id, which reads as hexadecimal text.
    Id {
        bytes: &'a [u8],
        /// Without leading zeros.
        short: bool,
    },
    Int(i64),
    Float(f64),
    Bool(bool),
    Duration(i64),
    Status(Status),
    Kind(Kind),
    Array(&'a ArrayValue),
}

/// A number while it is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Number {
    Int(i64),
    Float(f64),
    Duration(i64),
}

impl Number {
    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Self::Int(value) | Self::Duration(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    pub(crate) fn to_static(self) -> Static {
        match self {
            Self::Int(value) => Static::Int(value),
            Self::Float(value) => Static::Float(value),
            Self::Duration(nanos) => Static::Duration(nanos),
        }
    }
}

/// An id written in hexadecimal, without a heap allocation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HexId {
    digits: [u8; 32],
    start: u8,
    end: u8,
}

impl HexId {
    /// The digits of an id of at most 16 bytes, perhaps without leading zeros.
    pub(crate) fn new(id: &[u8], short: bool) -> Self {
        if short {
            Self::short(id)
        } else {
            Self::full(id)
        }
    }

    fn full(id: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [b'0'; 32];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(id) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Self {
            digits,
            start: 0,
            end: (id.len().min(16) * 2) as u8,
        }
    }

    fn short(id: &[u8]) -> Self {
        let mut hex = Self::full(id);
        let zeros = hex.as_bytes().iter().take_while(|&&digit| digit == b'0');
        hex.start = zeros.count() as u8;
        hex
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.digits[usize::from(self.start)..usize::from(self.end)]
    }
}

impl<'a> ValueRef<'a> {
    pub(crate) fn of_static(constant: &'a Static) -> Self {
        match constant {
            Static::Nil => Self::Nil,
            Static::Int(value) => Self::Int(*value),
            Static::Float(value) => Self::Float(*value),
            Static::String(text) => Self::Text(text.as_bytes()),
            Static::Bool(value) => Self::Bool(*value),
            Static::Duration(nanos) => Self::Duration(*nanos),
            Static::Status(status) => Self::Status(*status),
            Static::Kind(kind) => Self::Kind(*kind),
        }
    }

    pub(crate) fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }

    /// What `f` makes of the text, if it is one.
    pub(crate) fn with_text<T>(self, f: impl FnOnce(&[u8]) -> T) -> Option<T> {
        match self {
            Self::Text(text) => Some(f(text)),
            Self::Id { bytes, short } => Some(f(HexId::new(bytes, short).as_bytes())),
            _ => None,
        }
    }

    /// The value for a result; nothing can be said of opaque ones.
    pub(crate) fn to_value(self) -> Value {
        match self {
            Self::Nil | Self::Opaque => Value::Nil,
            Self::Text(text) => Value::String(String::from_utf8_lossy(text).into()),
            Self::Id { bytes, short } => {
                let hex = HexId::new(bytes, short);
                Value::String(String::from_utf8_lossy(hex.as_bytes()).into())
            }
            Self::Int(value) => Value::Int(value),
            Self::Float(value) => Value::Float(value),
            Self::Bool(value) => Value::Bool(value),
            Self::Duration(nanos) => Value::Duration(nanos),
            Self::Status(status) => Value::Status(status),
            Self::Kind(kind) => Value::Kind(kind),
            Self::Array(array) => Value::Array(array.clone()),
        }
    }

    /// The number, if it is one.
    pub(crate) fn to_number(self) -> Option<Number> {
        match self {
            Self::Int(value) => Some(Number::Int(value)),
            Self::Float(value) => Some(Number::Float(value)),
            Self::Duration(nanos) => Some(Number::Duration(nanos)),
            _ => None,
        }
    }

    /// The name of its type in messages.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Nil | Self::Opaque => "TypeNil",
            Self::Text(_) | Self::Id { .. } => "TypeString",
            Self::Int(_) => "TypeInt",
            Self::Float(_) => "TypeFloat",
            Self::Bool(_) => "TypeBoolean",
            Self::Duration(_) => "TypeDuration",
            Self::Status(_) => "TypeStatus",
            Self::Kind(_) => "TypeKind",
            Self::Array(ArrayValue::Strings(_) | ArrayValue::Empty) => "TypeStringArray",
            Self::Array(ArrayValue::Ints(_)) => "TypeIntArray",
            Self::Array(ArrayValue::Floats(_)) => "TypeFloatArray",
            Self::Array(ArrayValue::Bools(_)) => "TypeBooleanArray",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_in_full_or_without_leading_zeros() {
        let id = [0, 0, 0, 0, 0, 4, 5, 0x6f];
        assert_eq!(HexId::full(&id).as_bytes(), b"000000000004056f");
        assert_eq!(HexId::short(&id).as_bytes(), b"4056f");
        assert_eq!(HexId::short(&[0; 16]).as_bytes(), b"");
    }

    #[test]
    fn status_and_kind_go_to_otlp_and_back() {
        for status in [Status::Unset, Status::Ok, Status::Error] {
            assert_eq!(status_of(status_code(status)), status);
        }
        for number in 0..6 {
            assert_eq!(kind_number(kind_of(number)), number);
        }
        assert_eq!(status_of(77), Status::Unset);
        assert_eq!(kind_of(-1), Kind::Unspecified);
    }
}
