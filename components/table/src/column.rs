//! The values of one column.
//!
//! A row holds at most one value, in the lane of its type; a row without a value in any lane is
//! absent (`nil`). Attributes may mix types from row to row, intrinsics have one lane.

use std::sync::Arc;

use crate::{Bitmap, Level};

/// The code of a row without a string.
pub const ABSENT: u32 = u32::MAX;

/// One column: its rows and the lanes that hold their values. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Column {
    /// What a row stands for.
    pub level: Level,
    /// How many rows there are at that level.
    pub len: usize,
    /// Rows that hold text.
    pub strings: Option<StringLane>,
    /// Rows that hold an integer.
    pub ints: Option<NumberLane<i64>>,
    /// Rows that hold a double.
    pub floats: Option<NumberLane<f64>>,
    /// Rows that hold a boolean.
    pub bools: Option<NumberLane<bool>>,
    /// Rows that hold an array of one scalar type.
    pub arrays: Option<ArrayLane>,
    /// Ids of fixed width; only intrinsics have it.
    pub ids: Option<IdLane>,
    /// Rows that hold a value which TraceQL cannot compare (bytes, lists of pairs, mixed arrays):
    /// not nil, equal to nothing.
    pub opaque: Option<Arc<Bitmap>>,
}

impl Column {
    /// A column of `len` rows, all absent.
    pub fn absent(level: Level, len: usize) -> Self {
        Self {
            level,
            len,
            strings: None,
            ints: None,
            floats: None,
            bools: None,
            arrays: None,
            ids: None,
            opaque: None,
        }
    }

    /// Whether no row can hold a value.
    pub fn is_absent(&self) -> bool {
        self.strings.is_none()
            && self.ints.is_none()
            && self.floats.is_none()
            && self.bools.is_none()
            && self.arrays.is_none()
            && self.ids.is_none()
            && self.opaque.is_none()
    }

    /// Whether `row` holds no value.
    pub fn is_nil(&self, row: usize) -> bool {
        let code = |lane: &StringLane| lane.codes[row] != ABSENT;
        !(self.strings.as_ref().is_some_and(code)
            || self
                .ints
                .as_ref()
                .is_some_and(|lane| lane.get(row).is_some())
            || self
                .floats
                .as_ref()
                .is_some_and(|lane| lane.get(row).is_some())
            || self
                .bools
                .as_ref()
                .is_some_and(|lane| lane.get(row).is_some())
            || self
                .arrays
                .as_ref()
                .is_some_and(|lane| lane.get(row).is_some())
            || self.ids.is_some()
            || self.opaque.as_ref().is_some_and(|rows| rows.contains(row)))
    }

    /// The values of `rows` (ascending) only: row `i` of the answer is row `rows[i]` of `self`.
    pub fn gather(&self, rows: &[u32]) -> Self {
        let strings = self.strings.as_ref().map(|lane| StringLane {
            dict: Arc::clone(&lane.dict),
            codes: rows.iter().map(|&row| lane.codes[row as usize]).collect(),
        });
        let ids = self.ids.as_ref().map(|lane| IdLane {
            width: lane.width,
            bytes: rows
                .iter()
                .flat_map(|&row| lane.get(row as usize))
                .copied()
                .collect(),
        });
        let arrays = self.arrays.as_ref().map(|lane| {
            let (rows, values): (Vec<u32>, Vec<ArrayValue>) = (0..)
                .zip(rows)
                .filter_map(|(at, &row)| Some((at, lane.get(row as usize)?.clone())))
                .unzip();
            ArrayLane {
                rows: rows.into(),
                values: values.into(),
            }
        });
        let opaque = self.opaque.as_ref().map(|opaque| {
            Arc::new(Bitmap::from_fn(rows.len(), |at| {
                opaque.contains(rows[at] as usize)
            }))
        });
        Self {
            level: self.level,
            len: rows.len(),
            strings,
            ints: self.ints.as_ref().map(|lane| lane.gather(rows)),
            floats: self.floats.as_ref().map(|lane| lane.gather(rows)),
            bools: self.bools.as_ref().map(|lane| lane.gather(rows)),
            arrays,
            ids,
            opaque,
        }
    }

    /// Heap bytes that the lanes hold, dictionaries included.
    pub fn heap_bytes(&self) -> usize {
        fn numbers<T>(lane: &Option<NumberLane<T>>) -> usize {
            lane.as_ref().map_or(0, |lane| {
                std::mem::size_of_val(&*lane.values)
                    + lane.present.as_ref().map_or(0, |rows| rows.len() / 8)
            })
        }
        let strings = self
            .strings
            .as_ref()
            .map_or(0, |lane| lane.codes.len() * 4 + lane.dict.heap_bytes());
        let arrays = self.arrays.as_ref().map_or(0, |lane| {
            lane.rows.len() * 4
                + lane
                    .values
                    .iter()
                    .map(ArrayValue::heap_bytes)
                    .sum::<usize>()
        });
        strings
            + numbers(&self.ints)
            + numbers(&self.floats)
            + numbers(&self.bools)
            + arrays
            + self.ids.as_ref().map_or(0, |lane| lane.bytes.len())
            + self.opaque.as_ref().map_or(0, |rows| rows.len() / 8)
    }
}

/// Distinct texts, numbered from 0. No text occurs twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StringDict {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl StringDict {
    /// An empty dictionary.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an entry and returns its code. The caller keeps entries distinct; the entries of
    /// one dictionary must not exceed 4 GiB together.
    pub fn push(&mut self, text: &[u8]) -> u32 {
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len() as u32);
        self.ends.len() as u32 - 1
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of an entry; normally UTF-8, but senders are not trusted.
    #[inline]
    pub fn bytes(&self, code: u32) -> &[u8] {
        &self.bytes[self.range(code)]
    }

    /// Where an entry is within [`Self::all_bytes`].
    #[inline]
    pub fn range(&self, code: u32) -> std::ops::Range<usize> {
        let code = code as usize;
        let start = if code == 0 {
            0
        } else {
            self.ends[code - 1] as usize
        };
        start..self.ends[code] as usize
    }

    /// The bytes of all entries, one after another in code order.
    #[inline]
    pub fn all_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The code of a text. Looks at all entries, but at the bytes only of those of its length.
    pub fn find(&self, text: &[u8]) -> Option<u32> {
        let mut start = 0;
        for (code, &end) in (0..).zip(&self.ends) {
            let (from, to) = (start as usize, end as usize);
            if to - from == text.len() && self.bytes[from..to] == *text {
                return Some(code);
            }
            start = end;
        }
        None
    }

    /// The text of an entry, with replacement characters where it is not UTF-8.
    pub fn text(&self, code: u32) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.bytes(code))
    }

    /// The entries in code order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len() as u32).map(|code| self.bytes(code))
    }

    /// Removes all entries but keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Heap bytes held.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * 4
    }
}

/// Text per row, as codes of a dictionary.
#[derive(Debug, Clone)]
pub struct StringLane {
    /// The distinct texts. May hold entries that no row uses.
    pub dict: Arc<StringDict>,
    /// One code per row, [`ABSENT`] for rows without text.
    pub codes: Arc<[u32]>,
}

/// A fixed-size value per row.
#[derive(Debug, Clone)]
pub struct NumberLane<T> {
    /// One value per row; arbitrary where `present` says there is none.
    pub values: Arc<[T]>,
    /// The rows that hold a value; all of them when `None`.
    pub present: Option<Arc<Bitmap>>,
}

impl<T: Copy> NumberLane<T> {
    /// The value of `row`.
    #[inline]
    pub fn get(&self, row: usize) -> Option<T> {
        match &self.present {
            Some(present) if !present.contains(row) => None,
            _ => Some(self.values[row]),
        }
    }

    /// The values of `rows` only.
    fn gather(&self, rows: &[u32]) -> Self {
        Self {
            values: rows.iter().map(|&row| self.values[row as usize]).collect(),
            present: self.present.as_ref().map(|present| {
                Arc::new(Bitmap::from_fn(rows.len(), |at| {
                    present.contains(rows[at] as usize)
                }))
            }),
        }
    }
}

/// Ids of one width per row.
#[derive(Debug, Clone)]
pub struct IdLane {
    /// Bytes per id: 16 for traces, 8 for spans.
    pub width: usize,
    /// The ids, one after another. All zeros where there is none.
    pub bytes: Arc<[u8]>,
}

impl IdLane {
    /// The id of `row`.
    #[inline]
    pub fn get(&self, row: usize) -> &[u8] {
        &self.bytes[row * self.width..(row + 1) * self.width]
    }
}

/// An array of one scalar type.
#[derive(Debug, Clone, PartialEq)]
pub enum ArrayValue {
    /// No elements, hence no type.
    Empty,
    /// Texts.
    Strings(Vec<Arc<str>>),
    /// Integers.
    Ints(Vec<i64>),
    /// Doubles.
    Floats(Vec<f64>),
    /// Booleans.
    Bools(Vec<bool>),
}

impl ArrayValue {
    /// Heap and inline bytes held.
    pub fn heap_bytes(&self) -> usize {
        std::mem::size_of::<Self>()
            + match self {
                Self::Empty => 0,
                Self::Strings(items) => items.iter().map(|item| item.len() + 32).sum(),
                Self::Ints(items) => items.capacity() * 8,
                Self::Floats(items) => items.capacity() * 8,
                Self::Bools(items) => items.capacity(),
            }
    }
}

/// The rows that hold arrays; few, hence sparse.
#[derive(Debug, Clone)]
pub struct ArrayLane {
    /// Ascending row numbers.
    pub rows: Arc<[u32]>,
    /// The array of each of those rows.
    pub values: Arc<[ArrayValue]>,
}

impl ArrayLane {
    /// The array of `row`.
    pub fn get(&self, row: usize) -> Option<&ArrayValue> {
        let row = u32::try_from(row).ok()?;
        self.rows
            .binary_search(&row)
            .ok()
            .map(|index| &self.values[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_finds_its_entries() {
        let mut dict = StringDict::new();
        for text in ["", "a", "bc", "b"] {
            dict.push(text.as_bytes());
        }
        for (code, text) in (0..).zip(["", "a", "bc", "b"]) {
            assert_eq!(dict.find(text.as_bytes()), Some(code));
        }
        assert_eq!(dict.find(b"ab"), None);
        assert_eq!(StringDict::new().find(b""), None);
    }
}
