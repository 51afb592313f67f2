//! Attribute columns of one level: kept compactly, expanded when asked for.

use std::sync::Arc;

use super::{
    attributes::Pairs,
    packed::{PackedCodes, PackedInts, Rows},
};
use crate::{
    ABSENT, ArrayLane, ArrayValue, Bitmap, Column, Level, NumberLane, StringDict, StringLane,
};

/// The attributes of a level, sorted by name.
#[derive(Debug)]
pub(super) struct Attributes {
    pub(super) columns: Box<[AttributeColumn]>,
}

impl Attributes {
    pub(super) fn get(&self, name: &str) -> Option<&AttributeColumn> {
        self.columns
            .binary_search_by(|column| (*column.name).cmp(name))
            .ok()
            .map(|at| &self.columns[at])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &AttributeColumn> {
        self.columns.iter()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.columns.iter().map(AttributeColumn::heap_bytes).sum()
    }
}

/// One attribute of a level.
#[derive(Debug)]
pub(super) struct AttributeColumn {
    pub(super) name: Arc<str>,
    pub(super) strings: Option<Box<Strings>>,
    pub(super) ints: Option<Box<Ints>>,
    pub(super) floats: Option<Box<Numbers<f64>>>,
    pub(super) bools: Option<Box<Numbers<bool>>>,
    pub(super) arrays: Option<ArrayLane>,
    pub(super) opaque: Option<Rows>,
}

#[derive(Debug)]
pub(super) struct Strings {
    dict: Arc<StringDict>,
    /// Ascending rows of the codes; every row has one (perhaps [`ABSENT`]) when `None`.
    rows: Option<Box<[u32]>>,
    codes: PackedCodes,
}

impl Strings {
    pub(super) fn new(pairs: &Pairs<u32>, dict: StringDict, len: usize) -> Self {
        let width = PackedCodes::width(dict.len());
        let sparse = pairs.rows.len() * (4 + width) < len * width;
        let codes = if sparse || pairs.rows.len() == len {
            PackedCodes::new(&pairs.values, dict.len())
        } else {
            let mut codes = vec![ABSENT; len];
            for (&row, &code) in pairs.rows.iter().zip(&pairs.values) {
                codes[row as usize] = code;
            }
            PackedCodes::new(&codes, dict.len())
        };
        Self {
            codes,
            dict: Arc::new(dict),
            rows: sparse.then(|| pairs.rows[..].into()),
        }
    }

    fn get(&self, row: u32) -> u32 {
        match &self.rows {
            None => self.codes.get(row as usize),
            Some(rows) => rows
                .binary_search(&row)
                .map_or(ABSENT, |at| self.codes.get(at)),
        }
    }

    fn expand(&self, len: usize) -> StringLane {
        let codes = match &self.rows {
            None => self.codes.expand(),
            Some(rows) => scatter(rows, len, ABSENT, |at| self.codes.get(at)),
        };
        StringLane {
            dict: Arc::clone(&self.dict),
            codes,
        }
    }

    fn any(&self, wanted: Option<&Bitmap>) -> bool {
        match (&self.rows, wanted) {
            (_, None) => true,
            (None, Some(wanted)) => wanted.iter().any(|row| self.codes.get(row) != ABSENT),
            (Some(rows), Some(wanted)) => rows.iter().any(|&row| wanted.contains(row as usize)),
        }
    }

    fn any_but_empty(&self, wanted: Option<&Bitmap>) -> bool {
        let empty = self.dict.find(b"").unwrap_or(ABSENT);
        let says_something = |code: u32| code != ABSENT && code != empty;
        match wanted {
            None => self.codes.expand().iter().copied().any(says_something),
            Some(wanted) => wanted
                .iter()
                .any(|row| says_something(self.get(row as u32))),
        }
    }

    fn heap_bytes(&self) -> usize {
        self.dict.heap_bytes()
            + self.codes.heap_bytes()
            + self.rows.as_ref().map_or(0, |rows| rows.len() * 4)
    }
}

/// `fill` in every row but those of `rows`, written where it stays.
fn scatter<T: Copy>(rows: &[u32], len: usize, fill: T, value: impl Fn(usize) -> T) -> Arc<[T]> {
    let mut values: Arc<[T]> = std::iter::repeat_n(fill, len).collect();
    if let Some(values) = Arc::get_mut(&mut values) {
        for (at, &row) in rows.iter().enumerate() {
            values[row as usize] = value(at);
        }
    }
    values
}

fn bitmap_of(rows: &[u32], len: usize) -> Arc<Bitmap> {
    let mut bitmap = Bitmap::new(len);
    for &row in rows {
        bitmap.insert(row as usize);
    }
    Arc::new(bitmap)
}

#[derive(Debug)]
pub(super) struct Ints {
    rows: Rows,
    values: PackedInts,
}

impl Ints {
    pub(super) fn new(pairs: &Pairs<i64>, len: usize) -> Self {
        let packed = PackedInts::new(&pairs.values);
        let rows = Rows::new(&pairs.rows, len, packed.width());
        let values = match rows {
            Rows::Some(_) => {
                PackedInts::new(&rows.place(&pairs.rows, &pairs.values, len, packed.bounds().0))
            }
            Rows::All | Rows::Few(_) => packed,
        };
        Self { rows, values }
    }

    fn expand(&self, len: usize) -> NumberLane<i64> {
        match &self.rows {
            Rows::All => NumberLane {
                values: self.values.expand(),
                present: None,
            },
            Rows::Some(present) => NumberLane {
                values: self.values.expand(),
                present: Some(Arc::clone(present)),
            },
            Rows::Few(rows) => NumberLane {
                values: scatter(rows, len, 0, |at| self.values.get(at)),
                present: Some(bitmap_of(rows, len)),
            },
        }
    }
}

#[derive(Debug)]
pub(super) struct Numbers<T> {
    rows: Rows,
    values: Arc<[T]>,
}

impl<T: Copy + Default> Numbers<T> {
    pub(super) fn new(pairs: &Pairs<T>, len: usize) -> Self {
        let rows = Rows::new(&pairs.rows, len, size_of::<T>());
        let values = rows.place(&pairs.rows, &pairs.values, len, T::default());
        Self {
            rows,
            values: values.into(),
        }
    }

    fn expand(&self, len: usize) -> NumberLane<T> {
        match &self.rows {
            Rows::All => NumberLane {
                values: Arc::clone(&self.values),
                present: None,
            },
            Rows::Some(present) => NumberLane {
                values: Arc::clone(&self.values),
                present: Some(Arc::clone(present)),
            },
            Rows::Few(rows) => NumberLane {
                values: scatter(rows, len, T::default(), |at| self.values[at]),
                present: Some(bitmap_of(rows, len)),
            },
        }
    }
}

/// The values of some rows, absent where `get` has none.
fn gather_numbers<T: Copy + Default>(
    rows: &[u32],
    get: impl Fn(usize) -> Option<T>,
) -> NumberLane<T> {
    let mut present = Bitmap::new(rows.len());
    let values = rows
        .iter()
        .enumerate()
        .map(|(at, &row)| match get(row as usize) {
            Some(value) => {
                present.insert(at);
                value
            }
            None => T::default(),
        })
        .collect();
    NumberLane {
        values,
        present: Some(Arc::new(present)),
    }
}

impl AttributeColumn {
    pub(super) fn is_empty(&self) -> bool {
        self.strings.is_none()
            && self.ints.is_none()
            && self.floats.is_none()
            && self.bools.is_none()
            && self.arrays.is_none()
            && self.opaque.is_none()
    }

    /// The column of a level of `len` rows.
    pub(super) fn expand(&self, level: Level, len: usize) -> Column {
        Column {
            strings: self.strings.as_ref().map(|lane| lane.expand(len)),
            ints: self.ints.as_ref().map(|lane| lane.expand(len)),
            floats: self.floats.as_ref().map(|lane| lane.expand(len)),
            bools: self.bools.as_ref().map(|lane| lane.expand(len)),
            arrays: self.arrays.clone(),
            opaque: self.opaque.as_ref().map(|rows| match rows {
                Rows::All => Arc::new(Bitmap::full(len)),
                Rows::Some(rows) => Arc::clone(rows),
                Rows::Few(rows) => bitmap_of(rows, len),
            }),
            ..Column::absent(level, len)
        }
    }

    /// The values of `rows` only.
    pub(super) fn gather(&self, level: Level, rows: &[u32]) -> Column {
        let arrays = self.arrays.as_ref().map(|lane| {
            let (at, values): (Vec<u32>, Vec<ArrayValue>) = (0..)
                .zip(rows)
                .filter_map(|(at, &row)| Some((at, lane.get(row as usize)?.clone())))
                .unzip();
            ArrayLane {
                rows: at.into(),
                values: values.into(),
            }
        });
        Column {
            strings: self.strings.as_ref().map(|lane| StringLane {
                dict: Arc::clone(&lane.dict),
                codes: rows.iter().map(|&row| lane.get(row)).collect(),
            }),
            ints: self.ints.as_ref().map(|lane| {
                gather_numbers(rows, |row| {
                    lane.rows.position(row).map(|at| lane.values.get(at))
                })
            }),
            floats: self.floats.as_ref().map(|lane| {
                gather_numbers(rows, |row| {
                    lane.rows.position(row).map(|at| lane.values[at])
                })
            }),
            bools: self.bools.as_ref().map(|lane| {
                gather_numbers(rows, |row| {
                    lane.rows.position(row).map(|at| lane.values[at])
                })
            }),
            arrays,
            opaque: self.opaque.as_ref().map(|opaque| {
                Arc::new(Bitmap::from_fn(rows.len(), |at| {
                    opaque.position(rows[at] as usize).is_some()
                }))
            }),
            ..Column::absent(level, rows.len())
        }
    }

    /// The rows that hold a value, ascending, if all of them are kept as lists.
    pub(super) fn few_rows(&self) -> Option<Vec<u32>> {
        let mut rows: Vec<u32> = Vec::new();
        if let Some(lane) = &self.strings {
            rows.extend(lane.rows.as_ref()?);
        }
        let numbers = [
            self.ints.as_ref().map(|lane| &lane.rows),
            self.floats.as_ref().map(|lane| &lane.rows),
            self.bools.as_ref().map(|lane| &lane.rows),
            self.opaque.as_ref(),
        ];
        for of_lane in numbers.into_iter().flatten() {
            match of_lane {
                Rows::Few(few) => rows.extend(few),
                Rows::All | Rows::Some(_) => return None,
            }
        }
        if let Some(lane) = &self.arrays {
            rows.extend(&*lane.rows);
        }
        rows.sort_unstable();
        Some(rows)
    }

    /// Whether any of `wanted` has a value of whatever type.
    pub(super) fn any(&self, wanted: Option<&Bitmap>) -> bool {
        self.strings.as_ref().is_some_and(|lane| lane.any(wanted)) || self.any_but_text(wanted)
    }

    /// Whether any of `wanted` has a value other than the empty text.
    pub(super) fn any_but_empty_text(&self, wanted: Option<&Bitmap>) -> bool {
        let strings = self.strings.as_ref();
        strings.is_some_and(|lane| lane.any_but_empty(wanted)) || self.any_but_text(wanted)
    }

    fn any_but_text(&self, wanted: Option<&Bitmap>) -> bool {
        let arrays = self.arrays.as_ref().is_some_and(|lane| match wanted {
            None => true,
            Some(wanted) => lane.rows.iter().any(|&row| wanted.contains(row as usize)),
        });
        arrays
            || self.ints.as_ref().is_some_and(|lane| lane.rows.any(wanted))
            || self
                .floats
                .as_ref()
                .is_some_and(|lane| lane.rows.any(wanted))
            || self
                .bools
                .as_ref()
                .is_some_and(|lane| lane.rows.any(wanted))
            || self.opaque.as_ref().is_some_and(|rows| rows.any(wanted))
    }

    /// All texts, unless some are in arrays.
    pub(super) fn texts(&self) -> Option<Arc<StringDict>> {
        let in_array = |value: &ArrayValue| matches!(value, ArrayValue::Strings(_));
        if self.has_array(in_array) {
            return None;
        }
        let dict = self.strings.as_ref().map(|lane| Arc::clone(&lane.dict));
        Some(dict.unwrap_or_default())
    }

    /// The bounds of all integers, unless some are in arrays.
    pub(super) fn int_bounds(&self) -> Option<(i64, i64)> {
        let in_array = |value: &ArrayValue| matches!(value, ArrayValue::Ints(_));
        if self.has_array(in_array) {
            return None;
        }
        self.ints.as_ref().map(|lane| lane.values.bounds())
    }

    fn has_array(&self, is: impl Fn(&ArrayValue) -> bool) -> bool {
        self.arrays
            .as_ref()
            .is_some_and(|lane| lane.values.iter().any(is))
    }

    fn heap_bytes(&self) -> usize {
        fn numbers<T>(lane: &Option<Box<Numbers<T>>>) -> usize {
            lane.as_ref().map_or(0, |lane| {
                size_of_val(&**lane) + lane.rows.heap_bytes() + size_of_val(&*lane.values)
            })
        }
        let strings = self
            .strings
            .as_ref()
            .map_or(0, |lane| size_of_val(&**lane) + lane.heap_bytes());
        let ints = self.ints.as_ref().map_or(0, |lane| {
            size_of_val(&**lane) + lane.rows.heap_bytes() + lane.values.heap_bytes()
        });
        let arrays = self.arrays.as_ref().map_or(0, |lane| {
            lane.rows.len() * 4
                + lane
                    .values
                    .iter()
                    .map(ArrayValue::heap_bytes)
                    .sum::<usize>()
        });
        size_of::<Self>()
            + self.name.len()
            + strings
            + ints
            + numbers(&self.floats)
            + numbers(&self.bools)
            + arrays
            + self.opaque.as_ref().map_or(0, Rows::heap_bytes)
    }
}
