//! A column of some rows as a column of all, the others absent.

use std::{ops::Range, sync::Arc};

use tempo_table::{ABSENT, ArrayLane, Bitmap, Column, IdLane, NumberLane, StringLane};

use super::leaf::Fill;

/// Puts the rows of `column`, one after another, at `ranges` of a column of `len` rows.
pub(super) fn expand(column: &Column, ranges: &[Range<usize>], len: usize) -> Column {
    Column {
        level: column.level,
        len,
        strings: column.strings.as_ref().map(|lane| StringLane {
            dict: Arc::clone(&lane.dict),
            codes: spread(&lane.codes, 1, ABSENT, ranges, len),
        }),
        ints: column
            .ints
            .as_ref()
            .map(|lane| numbers(lane, 0, ranges, len)),
        floats: column
            .floats
            .as_ref()
            .map(|lane| numbers(lane, 0.0, ranges, len)),
        bools: column
            .bools
            .as_ref()
            .map(|lane| numbers(lane, false, ranges, len)),
        arrays: column.arrays.as_ref().map(|lane| {
            let mut places = Places::new(ranges);
            ArrayLane {
                rows: lane
                    .rows
                    .iter()
                    .map(|&row| places.of(row as usize) as u32)
                    .collect(),
                values: Arc::clone(&lane.values),
            }
        }),
        ids: column.ids.as_ref().map(|lane| IdLane {
            width: lane.width,
            bytes: spread(&lane.bytes, lane.width, 0, ranges, len),
        }),
        opaque: column.opaque.as_ref().map(|rows| {
            let mut all = Bitmap::new(len);
            let mut places = Places::new(ranges);
            rows.iter().for_each(|row| all.insert(places.of(row)));
            Arc::new(all)
        }),
    }
}

/// Finds where rows go, asked in ascending order.
struct Places<'a> {
    ranges: &'a [Range<usize>],
    before: usize,
}

impl<'a> Places<'a> {
    fn new(ranges: &'a [Range<usize>]) -> Self {
        Self { ranges, before: 0 }
    }

    fn of(&mut self, row: usize) -> usize {
        while let Some((first, later)) = self.ranges.split_first() {
            if row < self.before + first.len() {
                return first.start + row - self.before;
            }
            self.before += first.len();
            self.ranges = later;
        }
        row
    }
}

fn spread<T: Copy>(
    values: &[T],
    width: usize,
    none: T,
    ranges: &[Range<usize>],
    len: usize,
) -> Arc<[T]> {
    let mut all = Fill::new(none, len * width);
    let mut rest = values;
    for range in ranges {
        let (taken, later) = rest.split_at((range.len() * width).min(rest.len()));
        rest = later;
        let start = range.start * width;
        if let Some(target) = all.all().get_mut(start..start + taken.len()) {
            target.copy_from_slice(taken);
        }
    }
    all.share()
}

fn numbers<T: Copy>(
    lane: &NumberLane<T>,
    none: T,
    ranges: &[Range<usize>],
    len: usize,
) -> NumberLane<T> {
    let mut present = Bitmap::new(len);
    let mut before = 0;
    for range in ranges {
        match &lane.present {
            None => present.insert_range(range.clone()),
            Some(rows) => (0..range.len())
                .filter(|row| rows.contains(before + row))
                .for_each(|row| present.insert(range.start + row)),
        }
        before += range.len();
    }
    NumberLane {
        values: spread(&lane.values, 1, none, ranges, len),
        present: Some(Arc::new(present)),
    }
}
