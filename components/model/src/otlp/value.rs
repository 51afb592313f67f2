//! Attribute keys and values.

use super::fields::{Fields, WireError, WireType};

/// Deepest nesting of arrays and key-value lists inside one attribute value, in levels. Protobuf
/// decoders give up at 100 nested messages; a level of lists takes three of them, and an event's
/// attribute stands under six.
pub const MAX_VALUE_NESTING_DEPTH: usize = 30;

/// One attribute, borrowed from the wire.
#[derive(Debug, Clone, Copy)]
pub struct KeyValueRef<'a> {
    /// The key, not yet checked to be UTF-8.
    pub key: &'a [u8],
    /// The value.
    pub value: AnyValueRef<'a>,
}

impl<'a> KeyValueRef<'a> {
    /// Reads a `KeyValue` message.
    #[inline]
    pub fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let mut key: &[u8] = &[];
        let mut value = AnyValueRef::Empty;
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => key = field.message()?,
                2 => value = AnyValueRef::parse(field.message()?)?,
                _ => {}
            }
        }
        Ok(Self { key, value })
    }
}

/// One attribute value, borrowed from the wire.
///
/// Of whole words: copies of a value that has a byte beside them are read across what was just written,
/// for which processors wait.
#[derive(Debug, Clone, Copy)]
#[repr(u64)]
pub enum AnyValueRef<'a> {
    /// No value set.
    Empty,
    /// Text, not yet checked to be UTF-8.
    String(&'a [u8]),
    /// A boolean.
    Bool(bool),
    /// A 64-bit integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// A list of values.
    Array(ArrayRef<'a>),
    /// A `KeyValueList` message.
    KvList(&'a [u8]),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl<'a> AnyValueRef<'a> {
    /// Reads an `AnyValue` message. Of several values the last one counts.
    #[inline]
    pub fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let mut value = Self::Empty;
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => value = Self::String(field.message()?),
                2 => value = Self::Bool(field.varint()? != 0),
                3 => value = Self::Int(field.varint()? as i64),
                4 => value = Self::Double(f64::from_bits(field.fixed64()?)),
                5 => {
                    value = Self::Array(ArrayRef {
                        message: field.message()?,
                    })
                }
                6 => value = Self::KvList(field.message()?),
                7 => value = Self::Bytes(field.message()?),
                _ => {}
            }
        }
        Ok(value)
    }
}

/// The elements of an array value.
#[derive(Debug, Clone, Copy)]
pub struct ArrayRef<'a> {
    message: &'a [u8],
}

impl<'a> ArrayRef<'a> {
    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<AnyValueRef<'a>, WireError>> + use<'a> {
        Fields::new(self.message).filter_map(|field| match field {
            Ok(field) if field.number == 1 && field.wire_type == WireType::Len => {
                Some(AnyValueRef::parse(field.bytes))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }
}
