//! Numbers in as few bytes as they need.

use std::sync::Arc;

use crate::{ABSENT, Bitmap};

/// Dictionary codes, as narrow as the dictionary allows. The highest value of the width stands
/// for [`ABSENT`].
#[derive(Debug)]
pub(super) enum PackedCodes {
    U8(Box<[u8]>),
    U16(Box<[u16]>),
    U32(Arc<[u32]>),
}

impl PackedCodes {
    /// `codes` are below `entries`, or [`ABSENT`].
    pub(super) fn new(codes: &[u32], entries: usize) -> Self {
        if entries <= usize::from(u8::MAX) {
            Self::U8(codes.iter().map(|&code| code as u8).collect())
        } else if entries <= usize::from(u16::MAX) {
            Self::U16(codes.iter().map(|&code| code as u16).collect())
        } else {
            Self::U32(codes.into())
        }
    }

    /// Bytes per code for a dictionary of so many entries.
    pub(super) fn width(entries: usize) -> usize {
        match entries {
            0..=0xff => 1,
            0x100..=0xffff => 2,
            _ => 4,
        }
    }

    #[inline]
    pub(super) fn get(&self, row: usize) -> u32 {
        match self {
            Self::U8(codes) => widen_u8(codes[row]),
            Self::U16(codes) => widen_u16(codes[row]),
            Self::U32(codes) => codes[row],
        }
    }

    pub(super) fn expand(&self) -> Arc<[u32]> {
        match self {
            Self::U8(codes) => codes.iter().map(|&code| widen_u8(code)).collect(),
            Self::U16(codes) => codes.iter().map(|&code| widen_u16(code)).collect(),
            Self::U32(codes) => Arc::clone(codes),
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::U8(codes) => codes.len(),
            Self::U16(codes) => codes.len() * 2,
            Self::U32(codes) => codes.len() * 4,
        }
    }
}

#[inline]
fn widen_u8(code: u8) -> u32 {
    if code == u8::MAX {
        ABSENT
    } else {
        u32::from(code)
    }
}

#[inline]
fn widen_u16(code: u16) -> u32 {
    if code == u16::MAX {
        ABSENT
    } else {
        u32::from(code)
    }
}

/// Integers as distances from the smallest of them, as narrow as the largest distance allows.
#[derive(Debug)]
pub(super) struct PackedInts {
    /// Inclusive; (0, 0) when there is no value.
    bounds: (i64, i64),
    distances: Distances,
}

#[derive(Debug)]
enum Distances {
    None(usize),
    U8(Box<[u8]>),
    U16(Box<[u16]>),
    U32(Box<[u32]>),
    /// The values themselves.
    Full(Arc<[i64]>),
}

impl PackedInts {
    pub(super) fn new(values: &[i64]) -> Self {
        let min = values.iter().copied().min().unwrap_or(0);
        let max = values.iter().copied().max().unwrap_or(0);
        let distance = |&value: &i64| value.wrapping_sub(min) as u64;
        let distances = match max.wrapping_sub(min) as u64 {
            0 => Distances::None(values.len()),
            1..=0xff => Distances::U8(values.iter().map(|v| distance(v) as u8).collect()),
            0x100..=0xffff => Distances::U16(values.iter().map(|v| distance(v) as u16).collect()),
            0x1_0000..=0xffff_ffff => {
                Distances::U32(values.iter().map(|v| distance(v) as u32).collect())
            }
            _ => Distances::Full(values.into()),
        };
        Self {
            bounds: (min, max),
            distances,
        }
    }

    pub(super) fn bounds(&self) -> (i64, i64) {
        self.bounds
    }

    /// Bytes per value.
    pub(super) fn width(&self) -> usize {
        match self.distances {
            Distances::None(_) => 0,
            Distances::U8(_) => 1,
            Distances::U16(_) => 2,
            Distances::U32(_) => 4,
            Distances::Full(_) => 8,
        }
    }

    #[inline]
    pub(super) fn get(&self, row: usize) -> i64 {
        let base = self.bounds.0;
        match &self.distances {
            Distances::None(_) => base,
            Distances::U8(distances) => base + i64::from(distances[row]),
            Distances::U16(distances) => base + i64::from(distances[row]),
            Distances::U32(distances) => base + i64::from(distances[row]),
            Distances::Full(values) => values[row],
        }
    }

    pub(super) fn expand(&self) -> Arc<[i64]> {
        let base = self.bounds.0;
        match &self.distances {
            Distances::None(len) => std::iter::repeat_n(base, *len).collect(),
            Distances::U8(distances) => distances.iter().map(|&d| base + i64::from(d)).collect(),
            Distances::U16(distances) => distances.iter().map(|&d| base + i64::from(d)).collect(),
            Distances::U32(distances) => distances.iter().map(|&d| base + i64::from(d)).collect(),
            Distances::Full(values) => Arc::clone(values),
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match &self.distances {
            Distances::None(_) => 0,
            Distances::U8(distances) => distances.len(),
            Distances::U16(distances) => distances.len() * 2,
            Distances::U32(distances) => distances.len() * 4,
            Distances::Full(values) => values.len() * 8,
        }
    }
}

/// Which rows of a level hold a value, and so where a row's value is found.
#[derive(Debug)]
pub(super) enum Rows {
    /// All; values by row.
    All,
    /// These; values by row, arbitrary elsewhere.
    Some(Arc<Bitmap>),
    /// These, ascending; values by position in this list.
    Few(Box<[u32]>),
}

impl Rows {
    /// The cheaper form for `rows` of `len`, with `value_bytes` per value.
    pub(super) fn new(rows: &[u32], len: usize, value_bytes: usize) -> Self {
        if rows.len() == len {
            return Self::All;
        }
        let few = rows.len() * (4 + value_bytes);
        let some = len * value_bytes + len / 8;
        if few <= some {
            return Self::Few(rows.into());
        }
        let mut bitmap = Bitmap::new(len);
        for &row in rows {
            bitmap.insert(row as usize);
        }
        Self::Some(Arc::new(bitmap))
    }

    /// Where the value of `row` is, if it has one.
    #[inline]
    pub(super) fn position(&self, row: usize) -> Option<usize> {
        match self {
            Self::All => Some(row),
            Self::Some(rows) => rows.contains(row).then_some(row),
            Self::Few(rows) => rows.binary_search(&u32::try_from(row).ok()?).ok(),
        }
    }

    /// The values by row, when they come in the order of `rows`.
    pub(super) fn place<T: Copy>(&self, rows: &[u32], values: &[T], len: usize, fill: T) -> Vec<T> {
        match self {
            Self::All | Self::Few(_) => values.to_vec(),
            Self::Some(_) => {
                let mut placed = vec![fill; len];
                for (&row, &value) in rows.iter().zip(values) {
                    placed[row as usize] = value;
                }
                placed
            }
        }
    }

    /// Whether any of `wanted` holds a value; of all rows when `None`.
    pub(super) fn any(&self, wanted: Option<&Bitmap>) -> bool {
        match (self, wanted) {
            (Self::All, None) => true,
            (Self::All, Some(wanted)) => !wanted.is_empty(),
            (Self::Some(rows), None) => !rows.is_empty(),
            (Self::Some(rows), Some(wanted)) => rows
                .words()
                .iter()
                .zip(wanted.words())
                .any(|(row, wanted)| row & wanted != 0),
            (Self::Few(rows), None) => !rows.is_empty(),
            (Self::Few(rows), Some(wanted)) => {
                rows.iter().any(|&row| wanted.contains(row as usize))
            }
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Some(rows) => rows.len() / 8,
            Self::Few(rows) => rows.len() * 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_every_width_come_back() {
        for entries in [3, 255, 256, 65_535, 65_536, 100_000] {
            let codes = [0, ABSENT, entries as u32 - 1, 1];
            let packed = PackedCodes::new(&codes, entries);
            assert_eq!(*packed.expand(), codes);
            assert_eq!(packed.get(1), ABSENT);
            assert_eq!(packed.get(2), entries as u32 - 1);
            assert_eq!(packed.heap_bytes(), 4 * PackedCodes::width(entries));
        }
    }

    #[test]
    fn integers_of_every_width_come_back() {
        let cases: [(&[i64], usize); 6] = [
            (&[7, 7, 7], 0),
            (&[-1, 254], 1),
            (&[1_000_000_000_000, 1_000_000_065_535], 2),
            (&[0, u32::MAX as i64], 4),
            (&[0, 1 << 32], 8),
            (&[i64::MIN, 0, i64::MAX], 8),
        ];
        for (values, width) in cases {
            let packed = PackedInts::new(values);
            assert_eq!(packed.width(), width, "{values:?}");
            assert_eq!(*packed.expand(), *values);
            assert_eq!(packed.get(values.len() - 1), values[values.len() - 1]);
            assert_eq!(packed.bounds(), (values[0], values[values.len() - 1]));
        }
        assert!(PackedInts::new(&[]).expand().is_empty());
    }

    #[test]
    fn rows_take_the_cheaper_form_and_agree() {
        let all: Vec<u32> = (0..100).collect();
        assert!(matches!(Rows::new(&all, 100, 8), Rows::All));
        let many: Vec<u32> = (0..100).filter(|row| row % 10 != 0).collect();
        let few = [3, 50, 99];
        for (rows, sparse) in [(&many[..], false), (&few[..], true)] {
            let form = Rows::new(rows, 100, 8);
            assert_eq!(matches!(form, Rows::Few(_)), sparse);
            let placed = form.place(rows, rows, 100, 0);
            for row in 0..100 {
                let value = form.position(row).map(|at| placed[at]);
                assert_eq!(value, rows.contains(&(row as u32)).then_some(row as u32));
            }
            let mut wanted = Bitmap::new(100);
            wanted.insert(60);
            assert!(!form.any(Some(&wanted)));
            wanted.insert(99);
            assert!(form.any(Some(&wanted)));
            assert!(form.any(None));
        }
    }
}
