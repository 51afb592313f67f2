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
        let code = code as usize;
        let start = if code == 0 {
            0
        } else {
            self.ends[code - 1] as usize
        };
        &self.bytes[start..self.ends[code] as usize]
    }

    /// The text of an entry, with replacement characters where it is not UTF-8.
    pub fn text(&self, code: u32) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.bytes(code))
    }

    /// The entries in code order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len() as u32).map(|code| self.bytes(code))
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
