//! What is wrong with a request, and where.

use std::fmt;

use tempo_model::otlp::{MAX_VALUE_NESTING_DEPTH, WireError};

/// A violation of the protocol and the place of it, as a path of field names.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Such as `resource_spans[0].scope_spans[2].spans[17].attributes[3].key`; empty for the
    /// request itself.
    pub place: String,
    /// What is wrong there.
    pub fault: Fault,
}

/// What can be wrong with a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// The bytes are no protobuf message of this type.
    Wire(WireError),
    /// A proto3 string that is not UTF-8.
    NotUtf8,
    /// An attribute value of too many levels.
    TooDeep,
    /// A parent span id or a link's id that is neither empty nor of its fixed length.
    IdLength {
        /// Length of a valid id, in bytes.
        want_bytes: usize,
        /// Length as sent, in bytes.
        got_bytes: usize,
    },
    /// A span's trace id that is not 16 bytes or all zero (then of 0 bits).
    TraceId {
        /// Its length.
        bits: usize,
    },
    /// A span id that is not 8 bytes or all zero (then of 0 bits).
    SpanId {
        /// Its length.
        bits: usize,
    },
    /// A message beyond the 2 GiB that protobuf can hold.
    TooLarge,
}

impl std::error::Error for Malformed {}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            Fault::Wire(error) => write!(f, "{error}")?,
            Fault::NotUtf8 => write!(f, "text is not valid UTF-8")?,
            Fault::TooDeep => write!(
                f,
                "attribute value is nested deeper than {MAX_VALUE_NESTING_DEPTH} levels"
            )?,
            Fault::IdLength {
                want_bytes,
                got_bytes,
            } => write!(f, "id must have {want_bytes} bytes, received {got_bytes}")?,
            Fault::TraceId { bits } => {
                write!(f, "trace ids must be 128 bit, received {bits} bits")?;
            }
            Fault::SpanId { bits } => write!(
                f,
                "span ids must be 64 bit and not all zero, received {bits} bits"
            )?,
            Fault::TooLarge => write!(f, "request is larger than protobuf allows (2 GiB)")?,
        }
        if self.place.is_empty() {
            Ok(())
        } else {
            write!(f, " in {}", self.place)
        }
    }
}

impl From<Fault> for Box<Malformed> {
    #[cold]
    fn from(fault: Fault) -> Self {
        Box::new(Malformed {
            place: String::new(),
            fault,
        })
    }
}

impl From<WireError> for Box<Malformed> {
    #[cold]
    fn from(error: WireError) -> Self {
        match error {
            WireError::Utf8 { .. } => Fault::NotUtf8.into(),
            WireError::TooDeep => Fault::TooDeep.into(),
            other => Fault::Wire(other).into(),
        }
    }
}

/// Names the place of a fault, one level per call, from the inside out.
pub(super) trait Within: Sized {
    /// The fault is in field `name`.
    fn within(self, name: &str) -> Self;
    /// The fault is in the `index`th element of the repeated field `name`.
    fn within_nth(self, name: &str, index: usize) -> Self;
}

impl<T> Within for Result<T, Box<Malformed>> {
    #[inline]
    fn within(self, name: &str) -> Self {
        self.map_err(|fault| fault.prefixed(name, None))
    }

    #[inline]
    fn within_nth(self, name: &str, index: usize) -> Self {
        self.map_err(|fault| fault.prefixed(name, Some(index)))
    }
}

impl Malformed {
    #[cold]
    fn prefixed(mut self: Box<Self>, name: &str, index: Option<usize>) -> Box<Self> {
        let mut place = String::with_capacity(name.len() + self.place.len() + 8);
        place.push_str(name);
        if let Some(index) = index {
            place.push_str(&format!("[{index}]"));
        }
        if !self.place.is_empty() {
            place.push('.');
            place.push_str(&self.place);
        }
        self.place = place;
        self
    }
}
