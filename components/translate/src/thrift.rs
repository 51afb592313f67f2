//! Reading Thrift: its binary and its compact protocol.
//!
//! A reader goes over bytes that are there; a list is read element by element, whatever length it
//! claims, and every element takes a byte at least. What nobody asks for is skipped.

use crate::Malformed;

/// Most structures within each other.
const MAX_NESTING_DEPTH: usize = 16;

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Binary,
    Compact,
}

/// What kind of value comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    /// A truth that stands in the head of its field, in the compact protocol.
    KnownBool(bool),
    Byte,
    I16,
    I32,
    I64,
    Double,
    /// Bytes or text.
    Binary,
    Struct,
    Map,
    /// A list or a set.
    List,
}

pub(crate) struct Reader<'a> {
    protocol: Protocol,
    all: &'a [u8],
    at: usize,
    depth: usize,
}

type Read<T> = Result<T, Malformed>;

impl<'a> Reader<'a> {
    pub(crate) fn new(protocol: Protocol, all: &'a [u8]) -> Self {
        Self {
            protocol,
            all,
            at: 0,
            depth: 0,
        }
    }

    pub(crate) fn error(&self, problem: impl std::fmt::Display) -> Malformed {
        Malformed::new(format!("thrift, byte {}: {problem}", self.at))
    }

    fn bytes(&mut self, count: usize) -> Read<&'a [u8]> {
        let end = self
            .at
            .checked_add(count)
            .filter(|end| *end <= self.all.len());
        let Some(end) = end else {
            return Err(self.error("ends too early"));
        };
        let bytes = &self.all[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Read<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn varint(&mut self) -> Read<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error("a number has no end"))
    }

    fn zigzag(&mut self) -> Read<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A count of bytes or elements.
    fn count(&mut self) -> Read<usize> {
        let count = match self.protocol {
            Protocol::Binary => i64::from(i32::from_be_bytes(self.array()?)),
            Protocol::Compact => i64::try_from(self.varint()?).unwrap_or(-1),
        };
        usize::try_from(count).map_err(|_| self.error("a length below zero"))
    }

    fn kind(&self, code: u8) -> Read<Kind> {
        let kind = match (self.protocol, code) {
            (Protocol::Binary, 2) => Kind::Bool,
            (Protocol::Binary, 3) => Kind::Byte,
            (Protocol::Binary, 4) => Kind::Double,
            (Protocol::Binary, 6) => Kind::I16,
            (Protocol::Binary, 8) => Kind::I32,
            (Protocol::Binary, 10) => Kind::I64,
            (Protocol::Binary, 11) => Kind::Binary,
            (Protocol::Binary, 12) => Kind::Struct,
            (Protocol::Binary, 13) => Kind::Map,
            (Protocol::Binary, 14 | 15) => Kind::List,
            // In lists and maps, where one of the two codes stands for the type.
            (Protocol::Compact, 1 | 2) => Kind::Bool,
            (Protocol::Compact, 3) => Kind::Byte,
            (Protocol::Compact, 4) => Kind::I16,
            (Protocol::Compact, 5) => Kind::I32,
            (Protocol::Compact, 6) => Kind::I64,
            (Protocol::Compact, 7) => Kind::Double,
            (Protocol::Compact, 8) => Kind::Binary,
            (Protocol::Compact, 9 | 10) => Kind::List,
            (Protocol::Compact, 11) => Kind::Map,
            (Protocol::Compact, 12) => Kind::Struct,
            _ => return Err(self.error(format_args!("unknown type {code}"))),
        };
        Ok(kind)
    }

    /// Number and kind of the next field of a structure; `None` at its end.
    fn field(&mut self, previous: i16) -> Read<Option<(i16, Kind)>> {
        let head = self.byte()?;
        if head == 0 {
            return Ok(None);
        }
        match self.protocol {
            Protocol::Binary => {
                let id = i16::from_be_bytes(self.array()?);
                Ok(Some((id, self.kind(head)?)))
            }
            Protocol::Compact => {
                let id = match head >> 4 {
                    0 => self.zigzag()? as i16,
                    step => previous.wrapping_add(i16::from(step)),
                };
                let kind = match head & 0x0f {
                    1 => Kind::KnownBool(true),
                    2 => Kind::KnownBool(false),
                    code => self.kind(code)?,
                };
                Ok(Some((id, kind)))
            }
        }
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        if self.depth == MAX_NESTING_DEPTH {
            return Err(self.error("structures are nested too deeply"));
        }
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    /// Reads a structure; `read` takes or skips the value of each field.
    ///
    /// # Errors
    /// Also when a field of `required` is not there.
    pub(crate) fn fields(
        &mut self,
        what: &str,
        required: &[i16],
        mut read: impl FnMut(&mut Self, i16, Kind) -> Read<()>,
    ) -> Read<()> {
        self.nested(|reader| {
            let mut missing = required.to_vec();
            let mut previous = 0;
            while let Some((id, kind)) = reader.field(previous)? {
                read(reader, id, kind)?;
                missing.retain(|required| *required != id);
                previous = id;
            }
            match missing.first() {
                Some(id) => Err(reader.error(format_args!("{what} has no field {id}"))),
                None => Ok(()),
            }
        })
    }

    /// Reads a structure that is a field's value or a list's element.
    pub(crate) fn structure(
        &mut self,
        kind: Kind,
        what: &str,
        required: &[i16],
        read: impl FnMut(&mut Self, i16, Kind) -> Read<()>,
    ) -> Read<()> {
        match kind {
            Kind::Struct => self.fields(what, required, read),
            other => Err(self.error(format_args!("{what} is a {other:?}"))),
        }
    }

    /// Reads a list; `read` takes each element.
    pub(crate) fn list(
        &mut self,
        kind: Kind,
        mut read: impl FnMut(&mut Self, Kind) -> Read<()>,
    ) -> Read<()> {
        if kind != Kind::List {
            return Err(self.error(format_args!("a {kind:?} where a list is due")));
        }
        let (element, count) = match self.protocol {
            Protocol::Binary => {
                let code = self.byte()?;
                let count = self.count()?;
                (code, count)
            }
            Protocol::Compact => {
                let head = self.byte()?;
                let count = match head >> 4 {
                    0x0f => self.count()?,
                    count => usize::from(count),
                };
                (head & 0x0f, count)
            }
        };
        if count == 0 {
            return Ok(());
        }
        let element = self.kind(element)?;
        self.nested(|reader| {
            for _ in 0..count {
                read(reader, element)?;
            }
            Ok(())
        })
    }

    /// Reads a list that is not in a structure.
    pub(crate) fn bare_list(&mut self, read: impl FnMut(&mut Self, Kind) -> Read<()>) -> Read<()> {
        self.list(Kind::List, read)
    }

    pub(crate) fn truth(&mut self, kind: Kind) -> Read<bool> {
        match kind {
            Kind::KnownBool(value) => Ok(value),
            Kind::Bool => Ok(self.byte()? == 1),
            other => Err(self.error(format_args!("a {other:?} where a truth is due"))),
        }
    }

    /// A whole number of any width.
    pub(crate) fn integer(&mut self, kind: Kind) -> Read<i64> {
        match (kind, self.protocol) {
            (Kind::Byte, _) => Ok(i64::from(self.byte()? as i8)),
            (Kind::I16, Protocol::Binary) => Ok(i64::from(i16::from_be_bytes(self.array()?))),
            (Kind::I32, Protocol::Binary) => Ok(i64::from(i32::from_be_bytes(self.array()?))),
            (Kind::I64, Protocol::Binary) => Ok(i64::from_be_bytes(self.array()?)),
            (Kind::I16 | Kind::I32 | Kind::I64, Protocol::Compact) => self.zigzag(),
            (other, _) => Err(self.error(format_args!("a {other:?} where a number is due"))),
        }
    }

    pub(crate) fn double(&mut self, kind: Kind) -> Read<f64> {
        match (kind, self.protocol) {
            (Kind::Double, Protocol::Binary) => Ok(f64::from_be_bytes(self.array()?)),
            (Kind::Double, Protocol::Compact) => Ok(f64::from_le_bytes(self.array()?)),
            (other, _) => Err(self.error(format_args!("a {other:?} where a double is due"))),
        }
    }

    pub(crate) fn binary(&mut self, kind: Kind) -> Read<&'a [u8]> {
        if kind != Kind::Binary {
            return Err(self.error(format_args!("a {kind:?} where a text is due")));
        }
        let count = self.count()?;
        self.bytes(count)
    }

    /// A text; what is not UTF-8 in it is replaced.
    pub(crate) fn text(&mut self, kind: Kind) -> Read<String> {
        Ok(String::from_utf8_lossy(self.binary(kind)?).into_owned())
    }

    pub(crate) fn skip(&mut self, kind: Kind) -> Read<()> {
        match kind {
            Kind::KnownBool(_) => {}
            Kind::Bool | Kind::Byte => drop(self.byte()?),
            Kind::I16 | Kind::I32 | Kind::I64 => drop(self.integer(kind)?),
            Kind::Double => drop(self.double(kind)?),
            Kind::Binary => drop(self.binary(kind)?),
            Kind::Struct => self.fields("", &[], |reader, _, kind| reader.skip(kind))?,
            Kind::List => self.list(kind, Self::skip)?,
            Kind::Map => self.skip_map()?,
        }
        Ok(())
    }

    fn skip_map(&mut self) -> Read<()> {
        let (keys, values, count) = match self.protocol {
            Protocol::Binary => {
                let (keys, values) = (self.byte()?, self.byte()?);
                (keys, values, self.count()?)
            }
            Protocol::Compact => match self.count()? {
                0 => (0, 0, 0),
                count => {
                    let kinds = self.byte()?;
                    (kinds >> 4, kinds & 0x0f, count)
                }
            },
        };
        if count == 0 {
            return Ok(());
        }
        let (keys, values) = (self.kind(keys)?, self.kind(values)?);
        self.nested(|reader| {
            for _ in 0..count {
                reader.skip(keys)?;
                reader.skip(values)?;
            }
            Ok(())
        })
    }

    /// The head of a call: its name.
    pub(crate) fn call(&mut self) -> Read<String> {
        match self.protocol {
            Protocol::Binary => {
                // The version is in the sign; older clients begin with the length of the name.
                let version = i32::from_be_bytes(self.array()?);
                let name = if version < 0 {
                    self.text(Kind::Binary)?
                } else {
                    let name = self.bytes(version as usize)?;
                    let name = String::from_utf8_lossy(name).into_owned();
                    self.byte()?;
                    name
                };
                self.array::<4>()?;
                Ok(name)
            }
            Protocol::Compact => {
                if self.byte()? != 0x82 {
                    return Err(self.error("is no call in the compact protocol"));
                }
                self.byte()?;
                self.varint()?;
                self.text(Kind::Binary)
            }
        }
    }
}
