//! A column under construction: rows get their value in any order, the first value stays.

use std::sync::Arc;

use tempo_table::{ABSENT, ArrayLane, ArrayValue, Bitmap, Column, Level, NumberLane};

use super::strings::StringSink;

struct Numbers<T> {
    values: Vec<T>,
    present: Bitmap,
}

impl<T: Copy + Default> Numbers<T> {
    fn new(len: usize) -> Self {
        Self {
            values: vec![T::default(); len],
            present: Bitmap::new(len),
        }
    }

    fn has(&self, row: usize) -> bool {
        self.present.contains(row)
    }

    fn finish(self) -> NumberLane<T> {
        let all = self.present.count() == self.present.len();
        NumberLane {
            values: self.values.into(),
            present: (!all).then(|| Arc::new(self.present)),
        }
    }
}

/// Sets `lane[row]`; rows outside of the column are ignored.
fn set<T: Copy + Default>(lane: &mut Option<Numbers<T>>, len: usize, row: usize, value: T) {
    let lane = lane.get_or_insert_with(|| Numbers::new(len));
    if let Some(slot) = lane.values.get_mut(row) {
        *slot = value;
        lane.present.insert(row);
    }
}

/// A column under construction.
pub(super) struct ColumnBuilder {
    level: Level,
    len: usize,
    strings: Option<StringSink>,
    ints: Option<Numbers<i64>>,
    floats: Option<Numbers<f64>>,
    bools: Option<Numbers<bool>>,
    arrays: Vec<(u32, ArrayValue)>,
    opaque: Option<Bitmap>,
}

impl ColumnBuilder {
    pub(super) fn new(level: Level, len: usize) -> Self {
        Self {
            level,
            len,
            strings: None,
            ints: None,
            floats: None,
            bools: None,
            arrays: Vec::new(),
            opaque: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.strings.is_none()
            && self.ints.is_none()
            && self.floats.is_none()
            && self.bools.is_none()
            && self.arrays.is_empty()
            && self.opaque.is_none()
    }

    /// Whether `row` has a value already.
    pub(super) fn has(&self, row: usize) -> bool {
        let text = |sink: &StringSink| sink.codes.get(row).is_some_and(|&code| code != ABSENT);
        self.strings.as_ref().is_some_and(text)
            || self.ints.as_ref().is_some_and(|lane| lane.has(row))
            || self.floats.as_ref().is_some_and(|lane| lane.has(row))
            || self.bools.as_ref().is_some_and(|lane| lane.has(row))
            || self.opaque.as_ref().is_some_and(|rows| rows.contains(row))
            || self
                .arrays
                .binary_search_by_key(&(row as u32), |(row, _)| *row)
                .is_ok()
    }

    /// Codes of texts, one per row; the caller adds [`StringSink::base`] to what it sets and then
    /// the dictionary.
    pub(super) fn strings(&mut self) -> &mut StringSink {
        self.strings
            .get_or_insert_with(|| StringSink::new(self.len))
    }

    pub(super) fn set_int(&mut self, row: usize, value: i64) {
        set(&mut self.ints, self.len, row, value);
    }

    /// Sets the rows from `start` on.
    pub(super) fn set_ints(&mut self, start: usize, values: &[i64]) {
        let lane = self.ints.get_or_insert_with(|| Numbers::new(self.len));
        let rows = start..start + values.len();
        if let Some(slots) = lane.values.get_mut(rows.clone()) {
            slots.copy_from_slice(values);
            lane.present.insert_range(rows);
        }
    }

    pub(super) fn set_float(&mut self, row: usize, value: f64) {
        set(&mut self.floats, self.len, row, value);
    }

    pub(super) fn set_bool(&mut self, row: usize, value: bool) {
        set(&mut self.bools, self.len, row, value);
    }

    pub(super) fn set_opaque(&mut self, row: usize) {
        if row < self.len {
            self.opaque
                .get_or_insert_with(|| Bitmap::new(self.len))
                .insert(row);
        }
    }

    /// Adds arrays, by ascending row.
    pub(super) fn add_arrays(&mut self, arrays: impl IntoIterator<Item = (u32, ArrayValue)>) {
        let had = !self.arrays.is_empty();
        self.arrays.extend(arrays);
        if had {
            self.arrays.sort_by_key(|(row, _)| *row);
            self.arrays.dedup_by_key(|(row, _)| *row);
        }
    }

    pub(super) fn finish(self) -> Column {
        let arrays = (!self.arrays.is_empty()).then(|| {
            let (rows, values): (Vec<u32>, Vec<ArrayValue>) = self.arrays.into_iter().unzip();
            ArrayLane {
                rows: rows.into(),
                values: values.into(),
            }
        });
        Column {
            level: self.level,
            len: self.len,
            strings: self.strings.and_then(StringSink::finish),
            ints: self.ints.map(Numbers::finish),
            floats: self.floats.map(Numbers::finish),
            bools: self.bools.map(Numbers::finish),
            arrays,
            ids: None,
            opaque: self.opaque.map(Arc::new),
        }
    }
}
