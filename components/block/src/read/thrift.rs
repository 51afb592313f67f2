//! The compact Thrift protocol, as far as Parquet's footer, page headers and offset index need it.
//!
//! Owns the walk over fields; what they mean is the caller's. Every length is checked against the
//! bytes that are there before anything is reserved for it.

use super::Malformed;

/// Deepest nesting of structures and lists that is skipped, in levels. Parquet nests 6.
const MAX_NESTING_DEPTH: usize = 32;

/// How a field or list element is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    True,
    False,
    I8,
    I16,
    I32,
    I64,
    Double,
    Binary,
    List,
    Set,
    Map,
    Struct,
    Uuid,
}

impl Kind {
    fn from_nibble(nibble: u8) -> Result<Self, Malformed> {
        Ok(match nibble {
            1 => Self::True,
            2 => Self::False,
            3 => Self::I8,
            4 => Self::I16,
            5 => Self::I32,
            6 => Self::I64,
            7 => Self::Double,
            8 => Self::Binary,
            9 => Self::List,
            10 => Self::Set,
            11 => Self::Map,
            12 => Self::Struct,
            13 => Self::Uuid,
            _ => return Err(Malformed("unknown thrift type")),
        })
    }
}

/// A field's number and layout.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) id: i16,
    pub(super) kind: Kind,
}

impl Field {
    /// The value of a boolean field, which lies in its header.
    pub(super) fn bool(self) -> Result<bool, Malformed> {
        match self.kind {
            Kind::True => Ok(true),
            Kind::False => Ok(false),
            _ => Err(Malformed("thrift field is not a boolean")),
        }
    }
}

/// A position in Thrift bytes.
#[derive(Debug, Clone)]
pub(super) struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Thrift<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes walked so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = *self
            .bytes
            .get(self.at)
            .ok_or(Malformed("thrift message is cut"))?;
        self.at += 1;
        Ok(byte)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..len).ok_or(Malformed("thrift message is cut"))?;
        self.at += len;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("thrift integer is longer than 64 bits"))
    }

    /// An integer of any width.
    pub(super) fn int(&mut self, kind: Kind) -> Result<i64, Malformed> {
        match kind {
            Kind::I8 => Ok(i64::from(self.byte()? as i8)),
            Kind::I16 | Kind::I32 | Kind::I64 => {
                let raw = self.varint()?;
                Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
            }
            _ => Err(Malformed("thrift field is not an integer")),
        }
    }

    /// An integer that counts or measures something.
    pub(super) fn size(&mut self, kind: Kind) -> Result<u64, Malformed> {
        u64::try_from(self.int(kind)?).map_err(|_| Malformed("negative size"))
    }

    /// Text or bytes.
    pub(super) fn binary(&mut self, kind: Kind) -> Result<&'a [u8], Malformed> {
        if kind != Kind::Binary {
            return Err(Malformed("thrift field is not binary"));
        }
        let len = usize::try_from(self.varint()?).map_err(|_| Malformed("thrift length"))?;
        self.take(len)
    }

    /// The next field of a structure whose last field was `last`; `None` at its end.
    pub(super) fn field(&mut self, last: &mut i16) -> Result<Option<Field>, Malformed> {
        let header = self.byte()?;
        if header == 0 {
            return Ok(None);
        }
        let kind = Kind::from_nibble(header & 0x0f)?;
        let delta = i16::from(header >> 4);
        let id = if delta == 0 {
            i16::try_from(self.int(Kind::I16)?).map_err(|_| Malformed("thrift field number"))?
        } else {
            last.checked_add(delta)
                .ok_or(Malformed("thrift field number"))?
        };
        *last = id;
        Ok(Some(Field { id, kind }))
    }

    /// Visits the fields of a structure. `visit` tells whether it read the field; what it did not
    /// read is skipped.
    pub(super) fn fields(
        &mut self,
        mut visit: impl FnMut(&mut Self, Field) -> Result<bool, Malformed>,
    ) -> Result<(), Malformed> {
        let mut last = 0;
        while let Some(field) = self.field(&mut last)? {
            if !visit(self, field)? {
                self.skip(field.kind, 0)?;
            }
        }
        Ok(())
    }

    /// The element type and length of a list. The length never exceeds the bytes that are left.
    pub(super) fn list(&mut self, kind: Kind) -> Result<(Kind, usize), Malformed> {
        if !matches!(kind, Kind::List | Kind::Set) {
            return Err(Malformed("thrift field is not a list"));
        }
        let header = self.byte()?;
        let len = match header >> 4 {
            15 => self.varint()?,
            short => u64::from(short),
        };
        let element = Kind::from_nibble(header & 0x0f)?;
        match usize::try_from(len) {
            Ok(len) if len <= self.bytes.len() - self.at => Ok((element, len)),
            _ => Err(Malformed("thrift list is longer than its message")),
        }
    }

    fn skip(&mut self, kind: Kind, depth: usize) -> Result<(), Malformed> {
        if depth > MAX_NESTING_DEPTH {
            return Err(Malformed("thrift message is nested too deep"));
        }
        match kind {
            Kind::True | Kind::False => {}
            Kind::I8 => drop(self.byte()?),
            Kind::I16 | Kind::I32 | Kind::I64 => drop(self.varint()?),
            Kind::Double => drop(self.take(8)?),
            Kind::Uuid => drop(self.take(16)?),
            Kind::Binary => drop(self.binary(kind)?),
            Kind::List | Kind::Set => {
                let (element, len) = self.list(kind)?;
                for _ in 0..len {
                    self.skip_element(element, depth)?;
                }
            }
            Kind::Map => {
                let len = self.varint()?;
                if len > 0 {
                    let kinds = self.byte()?;
                    let key = Kind::from_nibble(kinds >> 4)?;
                    let value = Kind::from_nibble(kinds & 0x0f)?;
                    for _ in 0..len {
                        self.skip_element(key, depth)?;
                        self.skip_element(value, depth)?;
                    }
                }
            }
            Kind::Struct => {
                let mut last = 0;
                while let Some(field) = self.field(&mut last)? {
                    self.skip(field.kind, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    /// In a collection a boolean is a byte of its own.
    fn skip_element(&mut self, kind: Kind, depth: usize) -> Result<(), Malformed> {
        match kind {
            Kind::True | Kind::False => self.byte().map(drop),
            _ => self.skip(kind, depth + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lists_and_skips() {
        // {1: i32 = -3, 2: {1: true}, 4: list<i32> [1, 2], 20: binary "ab"}
        let bytes = [
            0x15, 0x05, 0x1c, 0x11, 0x00, 0x29, 0x25, 0x02, 0x04, 0x08, 0x28, 0x02, b'a', b'b',
            0x00,
        ];
        let mut seen = Vec::new();
        let mut thrift = Thrift::new(&bytes);
        thrift
            .fields(|thrift, field| {
                seen.push(field.id);
                match field.id {
                    1 => assert_eq!(thrift.int(field.kind)?, -3),
                    4 => {
                        let (kind, len) = thrift.list(field.kind)?;
                        assert_eq!(len, 2);
                        assert_eq!(thrift.int(kind)? + thrift.int(kind)?, 3);
                    }
                    20 => assert_eq!(thrift.binary(field.kind)?, b"ab"),
                    _ => return Ok(false),
                }
                Ok(true)
            })
            .unwrap();
        assert_eq!(seen, [1, 2, 4, 20]);
        assert_eq!(thrift.position(), bytes.len());
    }

    #[test]
    fn lengths_beyond_the_message_are_refused() {
        // A list that claims 2^28 elements.
        let bytes = [0x19, 0xf5, 0x80, 0x80, 0x80, 0x80, 0x01, 0x00];
        let mut thrift = Thrift::new(&bytes);
        assert!(thrift.fields(|_, _| Ok(false)).is_err());
        // A structure within a structure without end.
        let nested = [0x1c; 100];
        assert!(Thrift::new(&nested).fields(|_, _| Ok(false)).is_err());
        for cut in 0..7 {
            assert!(Thrift::new(&bytes[..cut]).fields(|_, _| Ok(false)).is_err());
        }
    }
}
