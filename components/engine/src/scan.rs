//! Columns under a test, as a whole.
//!
//! A predicate runs once per dictionary entry and the codes do the rest; numbers are compared in
//! their lanes. The answer is a set of the column's own rows.

use tempo_table::{ABSENT, Bitmap, Column, IdLane, NumberLane, StringLane};

use crate::{
    operand::Reading,
    test::{FloatTest, IntTest, Test, TextTest},
    value::{HexId, ValueRef, kind_of, status_of},
};

/// The rows whose value passes.
pub(crate) fn passing(column: &Column, reading: Reading, test: &Test) -> Bitmap {
    let mut rows: Option<Bitmap> = None;
    let mut add = |found: Option<Bitmap>| {
        if let Some(found) = found {
            match &mut rows {
                Some(rows) => rows.or(&found),
                None => rows = Some(found),
            }
        }
    };
    if let Some(lane) = &column.strings {
        add(texts(lane, &test.texts));
    }
    if let Some(lane) = &column.ints {
        add(ints(lane, &test.ints));
    }
    if let Some(lane) = &column.floats
        && test.floats != FloatTest::Never
    {
        add(Some(number_rows(lane, |value| test.floats.passes(value))));
    }
    if let Some(lane) = &column.bools
        && test.bools != [false; 2]
    {
        let passes = test.bools;
        add(Some(number_rows(lane, |value| passes[usize::from(value)])));
    }
    if let Some(lane) = &column.arrays {
        let mut found = Bitmap::new(column.len);
        for (&row, array) in lane.rows.iter().zip(&*lane.values) {
            if test.array_passes(array) {
                found.insert(row as usize);
            }
        }
        add(Some(found));
    }
    if let Some(lane) = &column.ids {
        add(ids(lane, column.len, reading, &test.texts));
    }
    rows.unwrap_or_else(|| Bitmap::new(column.len))
}

fn texts(lane: &StringLane, test: &TextTest) -> Option<Bitmap> {
    if matches!(test, TextTest::Never) {
        return None;
    }
    let codes = &*lane.codes;
    let entries = lane.dict.len();
    if entries > codes.len() * 2 {
        // A few rows of a large dictionary.
        return Some(Bitmap::from_fn(codes.len(), |row| {
            codes[row] != ABSENT && test.passes(lane.dict.bytes(codes[row]))
        }));
    }
    let mut verdicts: Vec<bool> = lane.dict.iter().map(|text| test.passes(text)).collect();
    let mut passing = (0..).zip(&verdicts).filter(|&(_, &verdict)| verdict);
    let first = passing.next().map(|(code, _)| code)?;
    if passing.next().is_none() {
        return Some(Bitmap::from_fn(codes.len(), |row| codes[row] == first));
    }
    // One more for rows without text.
    verdicts.push(false);
    Some(Bitmap::from_fn(codes.len(), |row| {
        verdicts[(codes[row] as usize).min(entries)]
    }))
}

fn ints(lane: &NumberLane<i64>, test: &IntTest) -> Option<Bitmap> {
    Some(match test {
        IntTest::Never => return None,
        IntTest::Range(min, max) if min == max => number_rows(lane, |value| value == *min),
        // One comparison instead of two.
        IntTest::Range(min, max) => {
            let span = max.wrapping_sub(*min) as u64;
            number_rows(lane, |value| value.wrapping_sub(*min) as u64 <= span)
        }
        IntTest::NoneOf(list) if list.len() == 1 => {
            let other = list[0];
            number_rows(lane, |value| value != other)
        }
        test => number_rows(lane, |value| test.passes(value)),
    })
}

fn number_rows<T: Copy>(lane: &NumberLane<T>, passes: impl Fn(T) -> bool) -> Bitmap {
    let values = &*lane.values;
    let mut rows = Bitmap::from_fn(values.len(), |row| passes(values[row]));
    if let Some(present) = &lane.present {
        rows.and(present);
    }
    rows
}

fn ids(lane: &IdLane, len: usize, reading: Reading, test: &TextTest) -> Option<Bitmap> {
    if matches!(test, TextTest::Never) {
        return None;
    }
    if let Some((texts, denied)) = test.known() {
        let wanted: Vec<[u8; 16]> = texts
            .iter()
            .filter_map(|text| parse_id(text, lane.width, reading))
            .collect();
        let mut rows = Bitmap::from_fn(len, |row| {
            let id = lane.get(row);
            wanted.iter().any(|wanted| wanted[..lane.width] == *id)
        });
        if denied {
            rows.invert();
        }
        return Some(rows);
    }
    Some(Bitmap::from_fn(len, |row| {
        test.passes(hex(lane, row, reading).as_bytes())
    }))
}

fn hex(lane: &IdLane, row: usize, reading: Reading) -> HexId {
    match reading {
        Reading::ShortHex => HexId::short(lane.get(row)),
        _ => HexId::full(lane.get(row)),
    }
}

/// The id that prints as exactly this text, if there is one.
fn parse_id(text: &[u8], width: usize, reading: Reading) -> Option<[u8; 16]> {
    let digits = width * 2;
    let fits = match reading {
        Reading::ShortHex => text.len() <= digits && text.first() != Some(&b'0'),
        _ => text.len() == digits,
    };
    if !fits || width > 16 {
        return None;
    }
    let mut value: u128 = 0;
    for &digit in text {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        value = value << 4 | u128::from(digit);
    }
    let mut id = [0; 16];
    id[..width].copy_from_slice(&value.to_be_bytes()[16 - width..]);
    Some(id)
}

/// The rows that hold a value of whatever type.
pub(crate) fn present(column: &Column) -> Bitmap {
    if column.ids.is_some() {
        return Bitmap::full(column.len);
    }
    let mut rows = match &column.strings {
        Some(lane) => Bitmap::from_fn(column.len, |row| lane.codes[row] != ABSENT),
        None => Bitmap::new(column.len),
    };
    fn add<T>(rows: &mut Bitmap, lane: &Option<NumberLane<T>>) {
        match lane {
            None => {}
            Some(lane) => match &lane.present {
                Some(present) => rows.or(present),
                None => *rows = Bitmap::full(rows.len()),
            },
        }
    }
    add(&mut rows, &column.ints);
    add(&mut rows, &column.floats);
    add(&mut rows, &column.bools);
    if let Some(lane) = &column.arrays {
        for &row in &*lane.rows {
            rows.insert(row as usize);
        }
    }
    if let Some(opaque) = &column.opaque {
        rows.or(opaque);
    }
    rows
}

/// The value of one row.
pub(crate) fn value(column: &Column, reading: Reading, row: usize) -> ValueRef<'_> {
    if let Some(lane) = &column.strings
        && lane.codes[row] != ABSENT
    {
        return ValueRef::Text(lane.dict.bytes(lane.codes[row]));
    }
    if let Some(value) = column.ints.as_ref().and_then(|lane| lane.get(row)) {
        return match reading {
            Reading::Duration => ValueRef::Duration(value),
            Reading::Status => ValueRef::Status(status_of(value)),
            Reading::Kind => ValueRef::Kind(kind_of(value)),
            _ => ValueRef::Int(value),
        };
    }
    if let Some(value) = column.floats.as_ref().and_then(|lane| lane.get(row)) {
        return ValueRef::Float(value);
    }
    if let Some(value) = column.bools.as_ref().and_then(|lane| lane.get(row)) {
        return ValueRef::Bool(value);
    }
    if let Some(array) = column.arrays.as_ref().and_then(|lane| lane.get(row)) {
        return ValueRef::Array(array);
    }
    if let Some(lane) = &column.ids {
        return ValueRef::Hex(hex(lane, row, reading));
    }
    match &column.opaque {
        Some(opaque) if opaque.contains(row) => ValueRef::Opaque,
        _ => ValueRef::Nil,
    }
}
