//! The 16-byte identity of a trace and its textual forms.

use std::{fmt, str::FromStr};

/// A trace id, always 16 bytes; shorter ids are padded with zeros on the left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TraceId([u8; 16]);

/// Why a text is not a trace id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseTraceIdError {
    /// A character that is not a hexadecimal digit.
    #[error(
        "trace IDs can only contain hex characters: invalid character '{character}' at position {position}"
    )]
    NotHex {
        /// The offending character.
        character: char,
        /// Its position, from 1.
        position: usize,
    },
    /// More than 32 digits.
    #[error("trace IDs can't be larger than 128 bits")]
    TooLong,
}

impl TraceId {
    /// The id made of exactly these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id of up to 16 bytes, padded with zeros on the left. Of longer input the last 16 count,
    /// as in Tempo's blocks.
    pub fn from_padded(bytes: &[u8]) -> Self {
        let tail = &bytes[bytes.len().saturating_sub(16)..];
        let mut id = [0; 16];
        id[16 - tail.len()..].copy_from_slice(tail);
        Self(id)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Lower-case hexadecimal without leading zeros, as Tempo prints ids in search results.
    /// The zero id is the empty string.
    pub fn to_short_hex(&self) -> String {
        let mut hex = to_hex(&self.0);
        let zeros = hex.len() - hex.trim_start_matches('0').len();
        hex.drain(..zeros);
        hex
    }
}

/// Lower-case hexadecimal, two digits for each byte.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        hex.push(char::from(DIGITS[usize::from(byte >> 4)]));
        hex.push(char::from(DIGITS[usize::from(byte & 0xf)]));
    }
    hex
}

impl fmt::Display for TraceId {
    /// All 32 hexadecimal digits, lower case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

impl FromStr for TraceId {
    type Err = ParseTraceIdError;

    /// Parses 0 to 32 hexadecimal digits of either case.
    fn from_str(text: &str) -> Result<Self, ParseTraceIdError> {
        if let Some((index, character)) = text
            .chars()
            .enumerate()
            .find(|(_, c)| !c.is_ascii_hexdigit())
        {
            return Err(ParseTraceIdError::NotHex {
                character,
                position: index + 1,
            });
        }
        if text.len() > 32 {
            return Err(ParseTraceIdError::TooLong);
        }
        let value = if text.is_empty() {
            0
        } else {
            u128::from_str_radix(text, 16).unwrap_or(0)
        };
        Ok(Self(value.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids_are_padded_and_print_without_leading_zeros() {
        let id: TraceId = "7000000000000000000000000000007".parse().unwrap();
        assert_eq!(id.to_string(), "07000000000000000000000000000007");
        assert_eq!(id.to_short_hex(), "7000000000000000000000000000007");
        assert_eq!(TraceId::from_padded(&[1, 2]), "0102".parse().unwrap());
    }

    #[test]
    fn bad_text_names_the_place() {
        assert_eq!(
            "12x4".parse::<TraceId>(),
            Err(ParseTraceIdError::NotHex {
                character: 'x',
                position: 3
            })
        );
        assert_eq!(
            "1".repeat(33).parse::<TraceId>(),
            Err(ParseTraceIdError::TooLong)
        );
    }
}
