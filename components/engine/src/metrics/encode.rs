//! Values as small numbers, so that groups and counts are found by index.

use std::sync::Arc;

use hashbrown::HashMap;
use tempo_table::{ABSENT, Column, Level, StringDict};

use super::selected::Selected;
use crate::{
    error::EngineError,
    operand::{Reading, Source},
    pipeline::write_key,
    plan::{Loaded, OperandId, Plan},
    results::survivor,
    rows::RowReader,
    scan,
    value::{Value, ValueRef, kind_of, status_of},
};

/// A value per row of some level, as its number; [`ABSENT`] where there is none.
pub(crate) struct Encoded {
    /// `None` when there is one code for each selected span.
    pub(crate) level: Option<Level>,
    pub(crate) codes: Arc<[u32]>,
    pub(crate) values: Values,
}

/// What the numbers stand for.
pub(crate) enum Values {
    Texts(Arc<StringDict>),
    /// Integers from `min` on.
    Ints {
        min: i64,
        len: usize,
        reading: Reading,
    },
    Listed(Vec<Value>),
}

impl Values {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Texts(dict) => dict.len(),
            Self::Ints { len, .. } => *len,
            Self::Listed(values) => values.len(),
        }
    }

    pub(crate) fn get(&self, code: u32) -> Value {
        match self {
            _ if code == ABSENT => Value::Nil,
            Self::Texts(dict) => Value::String(dict.text(code).into()),
            Self::Ints { min, reading, .. } => {
                int_value(min.wrapping_add(i64::from(code)), *reading)
            }
            Self::Listed(values) => values.get(code as usize).cloned().unwrap_or(Value::Nil),
        }
    }
}

impl Encoded {
    /// Hands out the code of every selected span.
    #[inline]
    pub(crate) fn for_each(
        &self,
        selected: &Selected<'_>,
        mut visit: impl FnMut(usize, u32),
    ) -> Result<(), EngineError> {
        let places = match self.level {
            None => None,
            Some(level) => selected.places(level)?,
        };
        match places {
            None => self
                .codes
                .iter()
                .enumerate()
                .for_each(|(number, &code)| visit(number, code)),
            Some(places) => places
                .iter()
                .enumerate()
                .for_each(|(number, &place)| visit(number, self.codes[place as usize])),
        }
        Ok(())
    }
}

impl Encoded {
    /// What `compute` makes of the code of every selected span.
    #[inline]
    pub(crate) fn map(
        &self,
        selected: &Selected<'_>,
        mut compute: impl FnMut(u32) -> u32,
    ) -> Result<Vec<u32>, EngineError> {
        let places = match self.level {
            None => None,
            Some(level) => selected.places(level)?,
        };
        Ok(match places {
            None => self.codes.iter().map(|&code| compute(code)).collect(),
            Some(places) => places
                .iter()
                .map(|&place| compute(self.codes[place as usize]))
                .collect(),
        })
    }
}

/// Integers in a range below this are numbered without a hash table.
const MAX_DIRECT_INTS: u64 = 1 << 16;

/// Numbers the values of a column. Different types make different values, as `1` and `1.0` do.
pub(crate) fn encode(column: &Column, reading: Reading) -> (Arc<[u32]>, Values) {
    encode_with(Numbers::default(), column, reading)
}

/// The same; `numbers` may count what results cannot show.
pub(crate) fn encode_with(
    mut numbers: Numbers,
    column: &Column,
    reading: Reading,
) -> (Arc<[u32]>, Values) {
    let others = [
        column.floats.is_some(),
        column.bools.is_some(),
        column.arrays.is_some(),
        column.ids.is_some(),
        column.opaque.is_some(),
    ];
    if !others.contains(&true) {
        match (&column.strings, &column.ints) {
            (Some(lane), None) => {
                return (
                    Arc::clone(&lane.codes),
                    Values::Texts(Arc::clone(&lane.dict)),
                );
            }
            (None, Some(lane)) => {
                if let Some(encoded) = encode_ints(lane, reading) {
                    return encoded;
                }
            }
            (None, None) => {
                let codes = std::iter::repeat_n(ABSENT, column.len).collect();
                return (codes, Values::Listed(Vec::new()));
            }
            (Some(_), Some(_)) => {}
        }
    }
    let codes = (0..column.len)
        .map(|row| numbers.of_row(column, 0, reading, row))
        .collect();
    (codes, Values::Listed(numbers.values))
}

/// Integers of a narrow range, each by its distance to the smallest.
fn encode_ints(
    lane: &tempo_table::NumberLane<i64>,
    reading: Reading,
) -> Option<(Arc<[u32]>, Values)> {
    let bounds = |bounds: (i64, i64), value: i64| (bounds.0.min(value), bounds.1.max(value));
    let empty = (i64::MAX, i64::MIN);
    let values = &*lane.values;
    let (min, max) = match &lane.present {
        None => values.iter().copied().fold(empty, bounds),
        Some(present) => present.iter().map(|row| values[row]).fold(empty, bounds),
    };
    if min > max {
        let codes = std::iter::repeat_n(ABSENT, values.len()).collect();
        return Some((codes, Values::Listed(Vec::new())));
    }
    if max.wrapping_sub(min) as u64 >= MAX_DIRECT_INTS {
        return None;
    }
    let code = |value: i64| value.wrapping_sub(min) as u32;
    let codes: Arc<[u32]> = match &lane.present {
        None => values.iter().map(|&value| code(value)).collect(),
        Some(present) => values
            .iter()
            .enumerate()
            .map(|(row, &value)| match present.contains(row) {
                true => code(value),
                false => ABSENT,
            })
            .collect(),
    };
    let values = Values::Ints {
        min,
        len: max.wrapping_sub(min) as usize + 1,
        reading,
    };
    Some((codes, values))
}

fn int_value(value: i64, reading: Reading) -> Value {
    match reading {
        Reading::Duration => Value::Duration(value),
        Reading::Status => Value::Status(status_of(value)),
        Reading::Kind => Value::Kind(kind_of(value)),
        Reading::Plain | Reading::Int | Reading::ShortHex | Reading::FullHex => Value::Int(value),
    }
}

/// Values in the order in which they were first seen.
#[derive(Default)]
pub(crate) struct Numbers {
    /// Values that results cannot show are one value, which is shown as nil.
    opaque_counts: bool,
    known: HashMap<Box<[u8]>, u32, foldhash::fast::RandomState>,
    pub(crate) values: Vec<Value>,
    key: Vec<u8>,
    /// By column, and by code of its dictionary.
    of_texts: [Vec<u32>; 2],
}

impl Numbers {
    /// Numbers values that results cannot show, too.
    pub(crate) fn with_opaque() -> Self {
        Self {
            opaque_counts: true,
            ..Self::default()
        }
    }

    /// The number of a value; nil has none.
    pub(crate) fn of(&mut self, value: ValueRef<'_>) -> u32 {
        let is_none = match value {
            ValueRef::Nil => true,
            ValueRef::Opaque => !self.opaque_counts,
            _ => false,
        };
        if is_none {
            return ABSENT;
        }
        self.key.clear();
        write_key(&mut self.key, value);
        match self.known.get(&*self.key) {
            Some(&number) => number,
            None => {
                let number = self.values.len() as u32;
                self.known.insert(self.key.as_slice().into(), number);
                self.values.push(value.to_value());
                number
            }
        }
    }

    /// The number of the value in a row of column number `which`.
    fn of_row(&mut self, column: &Column, which: usize, reading: Reading, row: usize) -> u32 {
        let code = column.strings.as_ref().map(|lane| (lane, lane.codes[row]));
        let Some((lane, code)) = code.filter(|&(_, code)| code != ABSENT) else {
            return self.of(scan::value(column, reading, row));
        };
        if self.of_texts[which].is_empty() {
            self.of_texts[which] = vec![ABSENT; lane.dict.len()];
        }
        match self.of_texts[which][code as usize] {
            ABSENT => {
                let number = self.of(ValueRef::Text(lane.dict.bytes(code)));
                self.of_texts[which][code as usize] = number;
                number
            }
            number => number,
        }
    }
}

/// Numbers the values that an attribute has for the selected spans.
pub(crate) fn encode_operand(
    selected: &Selected<'_>,
    plan: &Plan,
    operand: OperandId,
) -> Result<Encoded, EngineError> {
    let surviving = surviving(plan, operand);
    match &plan.operands[operand].source {
        Source::Column { key, reading } if !is_below_spans(key.level()) => {
            let column = selected.column(key)?;
            if surviving.is_none() || column.arrays.is_none() {
                let (codes, values) = encode(&column, *reading);
                return Ok(Encoded {
                    level: Some(key.level()),
                    codes,
                    values,
                });
            }
        }
        Source::SpanThenResource { span, resource } => {
            return encode_unscoped(selected, span, resource);
        }
        Source::Column { .. } => {}
    }
    let reader = RowReader::for_operands(selected.session, plan, &[operand], &selected.spans)?;
    let mut numbers = Numbers::default();
    let codes = (0..selected.len())
        .map(|number| {
            let value = first_value(&reader, operand, surviving, selected.row(number));
            match value {
                FirstValue::AsItIs(value) => numbers.of(value),
                FirstValue::Reduced(value) => numbers.of(value.borrowed()),
            }
        })
        .collect();
    Ok(Encoded {
        level: None,
        codes,
        values: Values::Listed(numbers.values),
    })
}

fn encode_unscoped(
    selected: &Selected<'_>,
    span: &tempo_table::ColumnKey,
    resource: &tempo_table::ColumnKey,
) -> Result<Encoded, EngineError> {
    let of_spans = selected.column(span)?;
    let of_resources = selected.column(resource)?;
    let span_places = selected.places(Level::Span)?;
    let resource_places = selected.places(Level::Resource)?;
    let place = |places: Option<&[u32]>, number: usize| match places {
        None => number,
        Some(places) => places[number] as usize,
    };
    let mut numbers = Numbers::default();
    let codes = (0..selected.len())
        .map(|number| {
            let row = place(span_places, number);
            if !of_spans.is_nil(row) {
                return numbers.of_row(&of_spans, 0, Reading::Plain, row);
            }
            let row = place(resource_places, number);
            numbers.of_row(&of_resources, 1, Reading::Plain, row)
        })
        .collect();
    Ok(Encoded {
        level: None,
        codes,
        values: Values::Listed(numbers.values),
    })
}

pub(crate) fn is_below_spans(level: Level) -> bool {
    matches!(level, Level::Event | Level::Link)
}

/// How the query has loaded an attribute, if only the values that meet its conditions were: when
/// all conditions hold, Tempo's storage leaves out the others.
pub(crate) fn surviving(plan: &Plan, operand: OperandId) -> Option<&Loaded> {
    plan.loaded
        .iter()
        .find(|loaded| loaded.operand == operand)
        .filter(|loaded| plan.same_event && loaded.condition && !loaded.all)
}

/// The value that an attribute has for a span.
pub(crate) enum FirstValue<'a> {
    AsItIs(ValueRef<'a>),
    /// An array without the elements that fail.
    Reduced(Value),
}

/// Of several events or links the first that has a value, of an array the elements that survive.
pub(crate) fn first_value<'a>(
    reader: &'a RowReader<'_>,
    operand: OperandId,
    surviving: Option<&Loaded>,
    span: usize,
) -> FirstValue<'a> {
    let Some(loaded) = surviving else {
        return FirstValue::AsItIs(reader.value(operand, span));
    };
    let mut values = reader.values(operand, span);
    let first = values.find_map(|value| match value {
        ValueRef::Nil | ValueRef::Opaque => None,
        ValueRef::Array(_) => survivor(value, loaded).map(FirstValue::Reduced),
        value => survivor(value, loaded).map(|_| FirstValue::AsItIs(value)),
    });
    first.unwrap_or(FirstValue::AsItIs(ValueRef::Nil))
}
