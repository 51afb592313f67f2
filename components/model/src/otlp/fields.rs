//! The scanner of one protobuf message's fields.

/// Why bytes are not a protobuf message, with the offset within the scanned message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message ends in the middle of a field.
    #[error("truncated protobuf message at byte {offset}")]
    Truncated {
        /// Offset of the field that is cut.
        offset: usize,
    },
    /// A varint of more than 10 bytes or beyond 64 bits.
    #[error("invalid protobuf varint at byte {offset}")]
    Varint {
        /// Offset of the varint.
        offset: usize,
    },
    /// A tag with field number 0 or with a wire type that does not exist.
    #[error("invalid protobuf tag at byte {offset}")]
    Tag {
        /// Offset of the tag.
        offset: usize,
    },
    /// A known field whose wire type is not the declared one.
    #[error("protobuf field {number} has the wrong wire type")]
    WireType {
        /// The field's number.
        number: u32,
    },
    /// A text that is not UTF-8.
    #[error("protobuf field {number} is not valid UTF-8")]
    Utf8 {
        /// The field's number.
        number: u32,
    },
    /// Values nested deeper than [`super::MAX_VALUE_NESTING_DEPTH`].
    #[error(
        "attribute value is nested deeper than {} levels",
        super::MAX_VALUE_NESTING_DEPTH
    )]
    TooDeep,
}

/// How a field is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireType {
    /// Variable-length integer.
    Varint,
    /// Eight bytes, little endian.
    Fixed64,
    /// A length and that many bytes.
    Len,
    /// Four bytes, little endian.
    Fixed32,
}

/// One field: number, payload and where it stands.
#[derive(Debug, Clone, Copy)]
pub struct RawField<'a> {
    /// Field number.
    pub number: u32,
    /// Wire type.
    pub wire_type: WireType,
    /// The value of a varint or fixed field; 0 for [`WireType::Len`].
    pub scalar: u64,
    /// The payload of a [`WireType::Len`] field; empty otherwise.
    pub bytes: &'a [u8],
    /// The whole field, tag and length included.
    pub raw: &'a [u8],
}

impl<'a> RawField<'a> {
    /// The payload of a length-delimited field.
    #[inline]
    pub fn message(&self) -> Result<&'a [u8], WireError> {
        self.expect(WireType::Len).map(|()| self.bytes)
    }

    /// The payload as text; invalid UTF-8 is an error.
    #[inline]
    pub fn text(&self) -> Result<&'a str, WireError> {
        self.expect(WireType::Len)?;
        std::str::from_utf8(self.bytes).map_err(|_| WireError::Utf8 {
            number: self.number,
        })
    }

    /// The value of a varint field.
    #[inline]
    pub fn varint(&self) -> Result<u64, WireError> {
        self.expect(WireType::Varint).map(|()| self.scalar)
    }

    /// The value of a fixed64 field.
    #[inline]
    pub fn fixed64(&self) -> Result<u64, WireError> {
        self.expect(WireType::Fixed64).map(|()| self.scalar)
    }

    /// The value of a fixed32 field.
    #[inline]
    pub fn fixed32(&self) -> Result<u32, WireError> {
        self.expect(WireType::Fixed32).map(|()| self.scalar as u32)
    }

    #[inline]
    fn expect(&self, wire_type: WireType) -> Result<(), WireError> {
        if self.wire_type == wire_type {
            Ok(())
        } else {
            Err(WireError::WireType {
                number: self.number,
            })
        }
    }
}

/// The fields of one message, in order. Ends at the first error.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    message: &'a [u8],
    offset: usize,
}

impl<'a> Fields<'a> {
    /// Scans `message` from its beginning.
    pub fn new(message: &'a [u8]) -> Self {
        Self { message, offset: 0 }
    }

    // Nearly all tags, lengths and small numbers take one byte, so that case is inlined into every
    // loop over fields and all else stays out of line.
    #[inline(always)]
    fn varint(&mut self) -> Result<u64, WireError> {
        match self.message.get(self.offset) {
            Some(&byte) if byte < 0x80 => {
                self.offset += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, WireError> {
        let start = self.offset;
        let rest = self.message.get(start..).unwrap_or_default();
        if let &[low, high, ..] = rest
            && high < 0x80
        {
            self.offset = start + 2;
            return Ok(u64::from(low & 0x7f) | u64::from(high) << 7);
        }
        let mut value = 0_u64;
        for (index, &byte) in rest.iter().take(10).enumerate() {
            if index == 9 && byte > 1 {
                return Err(WireError::Varint { offset: start });
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.offset = start + index + 1;
                return Ok(value);
            }
        }
        if rest.len() < 10 {
            Err(WireError::Truncated { offset: start })
        } else {
            Err(WireError::Varint { offset: start })
        }
    }

    #[inline(always)]
    fn take(&mut self, len: u64, field_start: usize) -> Result<&'a [u8], WireError> {
        let taken = usize::try_from(len)
            .ok()
            .and_then(|len| self.offset.checked_add(len))
            .and_then(|end| self.message.get(self.offset..end));
        match taken {
            Some(taken) => {
                self.offset += taken.len();
                Ok(taken)
            }
            None => Err(WireError::Truncated {
                offset: field_start,
            }),
        }
    }

    #[inline(always)]
    fn read(&mut self) -> Result<RawField<'a>, WireError> {
        let start = self.offset;
        let tag = self.varint()?;
        // Numbers beyond 29 bits are none: other decoders refuse them.
        let number = match u32::try_from(tag) {
            Ok(tag) if tag >= 1 << 3 => tag >> 3,
            _ => return Err(WireError::Tag { offset: start }),
        };
        let mut bytes: &[u8] = &[];
        let mut scalar = 0;
        let wire_type = match tag & 7 {
            0 => {
                scalar = self.varint()?;
                WireType::Varint
            }
            1 => {
                let fixed = self.take(8, start)?;
                scalar = u64::from_le_bytes(fixed.try_into().unwrap_or_default());
                WireType::Fixed64
            }
            2 => {
                let len = self.varint()?;
                bytes = self.take(len, start)?;
                WireType::Len
            }
            5 => {
                let fixed = self.take(4, start)?;
                scalar = u64::from(u32::from_le_bytes(fixed.try_into().unwrap_or_default()));
                WireType::Fixed32
            }
            // Groups (3, 4) are not part of proto3.
            _ => return Err(WireError::Tag { offset: start }),
        };
        Ok(RawField {
            number,
            wire_type,
            scalar,
            bytes,
            raw: &self.message[start..self.offset],
        })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<RawField<'a>, WireError>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.offset >= self.message.len() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.offset = self.message.len();
        }
        Some(field)
    }
}

/// Appends a varint.
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length-delimited field.
pub fn write_len_prefixed(out: &mut Vec<u8>, number: u32, payload: &[u8]) {
    write_varint(out, u64::from(number) << 3 | 2);
    write_varint(out, payload.len() as u64);
    out.extend_from_slice(payload);
}

/// Appends a length-delimited field whose payload `write` appends in place. The length is filled
/// in afterwards, so nobody needs to know it beforehand.
pub fn write_message<E>(
    out: &mut Vec<u8>,
    number: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    write_varint(out, u64::from(number) << 3 | 2);
    let length_at = out.len();
    out.push(0);
    write(out)?;
    let len = out.len() - length_at - 1;
    let length_bytes = varint_len(len as u64);
    // One byte was reserved; a payload of 128 bytes or more moves up to make room for the rest.
    let payload_end = out.len();
    out.resize(payload_end + length_bytes - 1, 0);
    if length_bytes > 1 {
        out.copy_within(length_at + 1..payload_end, length_at + length_bytes);
    }
    let mut rest = len as u64;
    for byte in &mut out[length_at..length_at + length_bytes - 1] {
        *byte = rest as u8 | 0x80;
        rest >>= 7;
    }
    out[length_at + length_bytes - 1] = rest as u8;
    Ok(())
}

/// How many bytes a varint takes: 1 to 10.
#[inline]
pub const fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// How many bytes a length-delimited field takes, tag and length included.
#[inline]
pub const fn len_prefixed_len(number: u32, payload_len: usize) -> usize {
    varint_len((number as u64) << 3) + varint_len(payload_len as u64) + payload_len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_every_wire_type_and_round_trips_raw_bytes() {
        let mut message = Vec::new();
        write_varint(&mut message, 1 << 3);
        write_varint(&mut message, u64::MAX);
        message.extend_from_slice(&[(2 << 3) | 1, 1, 0, 0, 0, 0, 0, 0, 0]);
        message.extend_from_slice(&[(3 << 3) | 5, 7, 0, 0, 0]);
        write_len_prefixed(&mut message, 4, b"text");
        let fields: Vec<_> = Fields::new(&message).collect::<Result<_, _>>().unwrap();
        assert_eq!(fields[0].varint(), Ok(u64::MAX));
        assert_eq!(fields[1].fixed64(), Ok(1));
        assert_eq!(fields[2].fixed32(), Ok(7));
        assert_eq!(fields[3].text(), Ok("text"));
        assert_eq!(fields[3].varint(), Err(WireError::WireType { number: 4 }));
        let raw: Vec<u8> = fields
            .iter()
            .flat_map(|field| field.raw.iter().copied())
            .collect();
        assert_eq!(raw, message);
    }

    #[test]
    fn lengths_filled_in_afterwards_equal_lengths_known_before() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 3_000_000] {
            let payload = vec![7_u8; len];
            let mut known = vec![1];
            write_len_prefixed(&mut known, 20, &payload);
            let mut filled_in = vec![1];
            write_message(&mut filled_in, 20, |out| {
                out.extend_from_slice(&payload);
                Ok::<_, WireError>(())
            })
            .unwrap();
            assert!(known == filled_in, "{len}");
            assert_eq!(known.len() - 1, len_prefixed_len(20, len));
        }
        for value in [0, 127, 128, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
        }
    }

    #[test]
    fn hostile_bytes_end_in_an_error_not_a_panic() {
        let cases: &[(&[u8], WireError)] = &[
            (&[0x0a], WireError::Truncated { offset: 1 }),
            (&[0x0a, 0x05, 1], WireError::Truncated { offset: 0 }),
            (&[0x00, 0x00], WireError::Tag { offset: 0 }),
            (&[0x0b], WireError::Tag { offset: 0 }),
            (
                &[0x82, 0x80, 0x80, 0x80, 0x10, 0],
                WireError::Tag { offset: 0 },
            ),
            (
                &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2],
                WireError::Varint { offset: 1 },
            ),
            (&[0x09, 1, 2], WireError::Truncated { offset: 0 }),
        ];
        for (bytes, want) in cases {
            let got = Fields::new(bytes).find_map(Result::err);
            assert_eq!(got.as_ref(), Some(want), "{bytes:?}");
        }
    }
}
