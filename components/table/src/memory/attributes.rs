//! Attribute columns of one level, built row by row.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use tempo_model::otlp::{AnyValueRef, ArrayRef, KeyValueRef, WireError};

use super::{
    intern::{Interner, same},
    packed::Rows,
    stored::{AttributeColumn, Attributes, Ints, Numbers, Strings},
};
use crate::{ArrayLane, ArrayValue};

const NO_COLUMN: u32 = u32::MAX;

/// The attributes of a level while rows are appended.
#[derive(Debug)]
pub(super) struct AttributesBuilder {
    columns: Vec<ColumnBuilder>,
    by_name: HashTable<u32>,
    hasher: RandomState,
    /// The column of the attribute before; rows tend to name their attributes in the same order.
    previous: u32,
    first: u32,
}

#[derive(Debug)]
struct ColumnBuilder {
    name: Box<[u8]>,
    /// The column that came after this one last time.
    next: u32,
    /// 1 + the last row that has a value; of equal keys in one row the first counts.
    filled_to: u32,
    strings: Option<Box<StringsBuilder>>,
    ints: Option<Box<Pairs<i64>>>,
    floats: Option<Box<Pairs<f64>>>,
    bools: Option<Box<Pairs<bool>>>,
    arrays: Option<Box<Pairs<ArrayValue>>>,
    opaque: Vec<u32>,
}

#[derive(Debug, Default)]
struct StringsBuilder {
    interner: Interner,
    pairs: Pairs<u32>,
}

/// Rows and their values, ascending.
#[derive(Debug)]
pub(super) struct Pairs<T> {
    pub(super) rows: Vec<u32>,
    pub(super) values: Vec<T>,
}

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl<T> Pairs<T> {
    #[inline]
    fn push(&mut self, row: u32, value: T) {
        self.rows.push(row);
        self.values.push(value);
    }

    fn truncate(&mut self, rows: u32) {
        let keep = self.rows.partition_point(|&row| row < rows);
        self.rows.truncate(keep);
        self.values.truncate(keep);
    }

    /// What `make` makes of the pairs, if there are any; none are left then.
    fn drain<L>(&mut self, make: impl FnOnce(&Self) -> L) -> Option<Box<L>> {
        if self.rows.is_empty() {
            return None;
        }
        let lane = make(self);
        self.rows.clear();
        self.values.clear();
        Some(Box::new(lane))
    }
}

impl Default for AttributesBuilder {
    fn default() -> Self {
        Self {
            columns: Vec::new(),
            by_name: HashTable::new(),
            hasher: RandomState::default(),
            previous: NO_COLUMN,
            first: NO_COLUMN,
        }
    }
}

impl AttributesBuilder {
    /// Tells that a new row begins.
    #[inline]
    pub(super) fn begin_row(&mut self) {
        self.previous = NO_COLUMN;
    }

    /// Sets an attribute of `row` from a `KeyValue` message. `row` must not be below the row of
    /// the call before.
    #[inline]
    pub(super) fn push_message(&mut self, row: u32, message: &[u8]) -> Result<(), WireError> {
        let attribute = match short_text_attribute(message) {
            Some((key, text)) => KeyValueRef {
                key,
                value: AnyValueRef::String(text),
            },
            None => KeyValueRef::parse(message)?,
        };
        self.push(row, &attribute)
    }

    /// Sets an attribute of `row`, which must not be below the row of the call before.
    #[inline]
    pub(super) fn push(&mut self, row: u32, attribute: &KeyValueRef<'_>) -> Result<(), WireError> {
        let column = self.column_of(attribute.key);
        self.columns[column].push(row, &attribute.value)
    }

    #[inline]
    fn column_of(&mut self, name: &[u8]) -> usize {
        let guess = match self.columns.get(self.previous as usize) {
            Some(column) => column.next,
            None => self.first,
        };
        if let Some(column) = self.columns.get(guess as usize)
            && same(&column.name, name)
        {
            self.previous = guess;
            return guess as usize;
        }
        let found = self.look_up(name);
        match self.columns.get_mut(self.previous as usize) {
            Some(column) => column.next = found,
            None => self.first = found,
        }
        self.previous = found;
        found as usize
    }

    fn look_up(&mut self, name: &[u8]) -> u32 {
        let Self {
            columns,
            by_name,
            hasher,
            ..
        } = self;
        let hash = hasher.hash_one(name);
        let same = |&column: &u32| *columns[column as usize].name == *name;
        if let Some(&found) = by_name.find(hash, same) {
            return found;
        }
        let column = columns.len() as u32;
        by_name.insert_unique(hash, column, |&column| {
            hasher.hash_one(&*columns[column as usize].name)
        });
        columns.push(ColumnBuilder {
            name: name.into(),
            next: NO_COLUMN,
            filled_to: 0,
            strings: None,
            ints: None,
            floats: None,
            bools: None,
            arrays: None,
            opaque: Vec::new(),
        });
        column
    }

    /// Forgets everything from row `rows` on.
    pub(super) fn truncate(&mut self, rows: u32) {
        for column in &mut self.columns {
            column.truncate(rows);
        }
    }

    /// The columns of a level of `rows` rows, sorted by name. The builder is empty then, but
    /// remembers the names that were in use and keeps its memory.
    pub(super) fn finish(&mut self, rows: usize) -> Attributes {
        let mut columns: Vec<AttributeColumn> = Vec::with_capacity(self.columns.len());
        let before = self.columns.len();
        self.columns.retain_mut(|column| {
            let finished = column.finish(rows);
            let in_use = finished.is_some();
            columns.extend(finished);
            in_use
        });
        if self.columns.len() < before {
            self.renumber();
        }
        columns.sort_by(|a, b| a.name.cmp(&b.name));
        // Two different invalid texts may read alike; the first wins.
        columns.dedup_by(|a, b| a.name == b.name);
        Attributes {
            columns: columns.into(),
        }
    }

    fn renumber(&mut self) {
        let Self {
            columns,
            by_name,
            hasher,
            ..
        } = self;
        by_name.clear();
        for number in 0..columns.len() as u32 {
            columns[number as usize].next = NO_COLUMN;
            let hash = |&number: &u32| hasher.hash_one(&*columns[number as usize].name);
            by_name.insert_unique(hash(&number), number, hash);
        }
        self.first = NO_COLUMN;
        self.previous = NO_COLUMN;
    }
}

/// Key and text of a `KeyValue` as encoders write nearly all of them: the key, then a text, all
/// lengths below 128. `None` for every other message, valid or not.
#[inline]
fn short_text_attribute(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x0a, key_len @ 0..0x80, rest @ ..] = message else {
        return None;
    };
    let (key, rest) = rest.split_at_checked(usize::from(*key_len))?;
    let [
        0x12,
        value_len @ 0..0x80,
        0x0a,
        text_len @ 0..0x80,
        text @ ..,
    ] = rest
    else {
        return None;
    };
    let exact = usize::from(*text_len) == text.len() && usize::from(*value_len) == text.len() + 2;
    exact.then_some((key, text))
}

impl ColumnBuilder {
    #[inline]
    fn push(&mut self, row: u32, value: &AnyValueRef<'_>) -> Result<(), WireError> {
        if self.filled_to > row {
            return Ok(());
        }
        self.filled_to = row + 1;
        match *value {
            AnyValueRef::String(text) => {
                let strings = self.strings.get_or_insert_default();
                let code = strings.interner.intern(text);
                strings.pairs.push(row, code);
            }
            AnyValueRef::Int(value) => self.ints.get_or_insert_default().push(row, value),
            AnyValueRef::Double(value) => self.floats.get_or_insert_default().push(row, value),
            AnyValueRef::Bool(value) => self.bools.get_or_insert_default().push(row, value),
            AnyValueRef::Array(array) => match array_value(array)? {
                Some(value) => self.arrays.get_or_insert_default().push(row, value),
                None => self.opaque.push(row),
            },
            AnyValueRef::KvList(_) | AnyValueRef::Bytes(_) | AnyValueRef::Empty => {
                self.opaque.push(row);
            }
        }
        Ok(())
    }

    fn truncate(&mut self, rows: u32) {
        self.filled_to = self.filled_to.min(rows);
        if let Some(strings) = &mut self.strings {
            strings.pairs.truncate(rows);
        }
        if let Some(ints) = &mut self.ints {
            ints.truncate(rows);
        }
        if let Some(floats) = &mut self.floats {
            floats.truncate(rows);
        }
        if let Some(bools) = &mut self.bools {
            bools.truncate(rows);
        }
        if let Some(arrays) = &mut self.arrays {
            arrays.truncate(rows);
        }
        let keep = self.opaque.partition_point(|&row| row < rows);
        self.opaque.truncate(keep);
    }

    /// The column of `len` rows, if any of them has a value; the builder has none then.
    fn finish(&mut self, len: usize) -> Option<AttributeColumn> {
        self.filled_to = 0;
        let arrays = self.arrays.as_mut().filter(|lane| !lane.rows.is_empty());
        let arrays = arrays.map(|lane| ArrayLane {
            rows: std::mem::take(&mut lane.rows).into(),
            values: std::mem::take(&mut lane.values).into(),
        });
        let opaque = (!self.opaque.is_empty()).then(|| Rows::new(&self.opaque, len, 0));
        self.opaque.clear();
        let column = AttributeColumn {
            strings: self.strings.as_mut().and_then(|strings| {
                let StringsBuilder { interner, pairs } = &mut **strings;
                pairs.drain(|pairs| Strings::new(pairs, interner.finish(), len))
            }),
            ints: drain(&mut self.ints, |pairs| Ints::new(pairs, len)),
            floats: drain(&mut self.floats, |pairs| Numbers::new(pairs, len)),
            bools: drain(&mut self.bools, |pairs| Numbers::new(pairs, len)),
            arrays,
            opaque,
            name: String::from_utf8_lossy(&self.name).into(),
        };
        (!column.is_empty()).then_some(column)
    }
}

fn drain<T, L>(
    lane: &mut Option<Box<Pairs<T>>>,
    make: impl FnOnce(&Pairs<T>) -> L,
) -> Option<Box<L>> {
    lane.as_mut()?.drain(make)
}

/// The value of an array of one scalar type; `None` if it is of mixed or other types.
fn array_value(array: ArrayRef<'_>) -> Result<Option<ArrayValue>, WireError> {
    let mut value = ArrayValue::Empty;
    for element in array.iter() {
        match (&mut value, element?) {
            (ArrayValue::Strings(items), AnyValueRef::String(text)) => {
                items.push(String::from_utf8_lossy(text).into());
            }
            (ArrayValue::Ints(items), AnyValueRef::Int(item)) => items.push(item),
            (ArrayValue::Floats(items), AnyValueRef::Double(item)) => items.push(item),
            (ArrayValue::Bools(items), AnyValueRef::Bool(item)) => items.push(item),
            (ArrayValue::Empty, AnyValueRef::String(text)) => {
                value = ArrayValue::Strings(vec![String::from_utf8_lossy(text).into()]);
            }
            (ArrayValue::Empty, AnyValueRef::Int(item)) => value = ArrayValue::Ints(vec![item]),
            (ArrayValue::Empty, AnyValueRef::Double(item)) => {
                value = ArrayValue::Floats(vec![item]);
            }
            (ArrayValue::Empty, AnyValueRef::Bool(item)) => value = ArrayValue::Bools(vec![item]),
            _ => return Ok(None),
        }
    }
    Ok(Some(value))
}
