//! The values of one page, encoded.

use super::{
    chunk::Bounds,
    encode::{delta_i32, delta_i64, delta_length, encode_codes, plain_bools},
    interner::Interner,
    lanes::{ByteLane, CodedLane},
};
use crate::schema::LeafEncoding;

/// The values of a page, not yet encoded.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    U64(&'a [u64]),
    I64(&'a [i64]),
    U32(&'a [u32]),
    I32(&'a [i32]),
    F64(&'a [f64]),
    Bool(&'a [bool]),
    Bytes(&'a ByteLane),
    /// Byte strings of one length.
    Fixed(&'a [u8], usize),
    /// Texts of a dictionary.
    Codes(&'a [u32], &'a Interner),
}

impl<'a> From<&'a CodedLane> for Values<'a> {
    fn from(lane: &'a CodedLane) -> Self {
        Self::Codes(&lane.codes, &lane.dict)
    }
}

/// Buffers that are kept from page to page.
#[derive(Default)]
pub(crate) struct ValueScratch {
    longs: Vec<i64>,
    ints: Vec<i32>,
}

impl Values<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::U64(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::U32(values) | Self::Codes(values, _) => values.len(),
            Self::I32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::Bool(values) => values.len(),
            Self::Bytes(lane) => lane.len(),
            Self::Fixed(bytes, width) => bytes.len() / width,
        }
    }

    /// Appends the values in an encoding of the schema.
    pub(crate) fn encode(
        self,
        encoding: LeafEncoding,
        scratch: &mut ValueScratch,
        out: &mut Vec<u8>,
    ) {
        match self {
            Self::Codes(codes, _) if encoding == LeafEncoding::Dictionary => {
                encode_codes(codes, out);
            }
            _ if encoding == LeafEncoding::Plain => self.encode_plain(out),
            _ => self.encode_delta(scratch, out),
        }
    }

    fn encode_plain(self, out: &mut Vec<u8>) {
        match self {
            Self::U64(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::I64(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::U32(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::I32(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::F64(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::Bool(values) => plain_bools(values, out),
            // The schema stores no byte strings so.
            Self::Bytes(_) | Self::Fixed(..) | Self::Codes(..) => {}
        }
    }

    fn encode_delta(self, scratch: &mut ValueScratch, out: &mut Vec<u8>) {
        let ValueScratch { longs, ints } = scratch;
        longs.clear();
        ints.clear();
        match self {
            Self::I64(values) => delta_i64(values, out),
            Self::I32(values) => delta_i32(values, out),
            // The same bits: differences wrap around.
            Self::U64(values) => {
                longs.extend(values.iter().map(|&value| value as i64));
                delta_i64(longs, out);
            }
            Self::U32(values) => {
                ints.extend(values.iter().map(|&value| value as i32));
                delta_i32(ints, out);
            }
            Self::Bytes(lane) => delta_length(&lane.lengths, &lane.bytes, out),
            Self::Fixed(bytes, width) => {
                ints.resize(bytes.len() / width, width as i32);
                delta_length(ints, bytes, out);
            }
            Self::Codes(codes, dict) => {
                ints.extend(codes.iter().map(|&code| dict.bytes(code).len() as i32));
                delta_i32(ints, out);
                for &code in codes {
                    out.extend_from_slice(dict.bytes(code));
                }
            }
            // The schema stores neither so.
            Self::F64(_) | Self::Bool(_) => {}
        }
    }

    /// Takes the values into the bounds of their column. Those of dictionary columns come from the
    /// dictionary, at the end.
    pub(crate) fn widen(self, encoding: LeafEncoding, bounds: &mut Bounds) {
        match self {
            Self::U64(values) => bounds.unsigned(values.iter().copied()),
            Self::I64(values) => bounds.signed(values.iter().copied()),
            Self::U32(values) => bounds.unsigned(values.iter().map(|&value| u64::from(value))),
            Self::I32(values) => bounds.signed(values.iter().map(|&value| i64::from(value))),
            Self::F64(values) => bounds.doubles(values),
            Self::Bool(values) => bounds.bools(values),
            Self::Bytes(lane) => bounds.lane(lane),
            Self::Fixed(bytes, width) => bounds.bytes(bytes.chunks_exact(width)),
            Self::Codes(codes, dict) if encoding != LeafEncoding::Dictionary => {
                bounds.bytes(codes.iter().map(|&code| dict.bytes(code)));
            }
            Self::Codes(..) => {}
        }
    }
}
