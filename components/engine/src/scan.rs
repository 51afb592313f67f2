//! Columns under a test, as a whole.
//!
//! A predicate runs once per dictionary entry and the codes do the rest; numbers are compared in
//! their lanes. The answer is a set of the column's own rows.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use hashbrown::HashMap;
use memchr::memmem::Finder;
use tempo_table::{ABSENT, Bitmap, Column, IdLane, NumberLane, StringDict, StringLane};
use tempo_traceql::ast::ComparisonOp;

use crate::{
    operand::Reading,
    test::{FloatTest, IntTest, Test, TextTest},
    value::{HexId, ValueRef, kind_of, status_of},
};

/// Which entries of a dictionary pass a test.
#[derive(Debug, Clone)]
pub(crate) enum Verdicts {
    None,
    One(u32),
    /// By code; one more entry, false, for rows without text.
    Table(Rc<[bool]>),
}

impl Verdicts {
    fn of(dict: &StringDict, test: &TextTest) -> Self {
        if let TextTest::Compare(ComparisonOp::Equal, text) = test {
            return dict.find(text).map_or(Self::None, Self::One);
        }
        let mut table = match test {
            TextTest::MatchesAny(patterns) if let [pattern] = &**patterns => match pattern.needle()
            {
                Some(needle) => entries_with(dict, needle, |text| pattern.is_match(text)),
                None => dict.iter().map(|text| pattern.is_match(text)).collect(),
            },
            test => dict
                .iter()
                .map(|text| test.passes(text))
                .collect::<Vec<bool>>(),
        };
        table.push(false);
        let mut passing = (0..).zip(&table).filter(|&(_, &passes)| passes);
        match (passing.next(), passing.next()) {
            (None, _) => Self::None,
            (Some((code, _)), None) => Self::One(code),
            _ => Self::Table(table.into()),
        }
    }
}

/// Which entries hold a text and pass a closer look. The text is searched in all entries at once.
fn entries_with(
    dict: &StringDict,
    needle: &Finder<'_>,
    passes: impl Fn(&[u8]) -> bool,
) -> Vec<bool> {
    let bytes = dict.all_bytes();
    let mut table = vec![false; dict.len()];
    let mut code = 0;
    let mut from = 0;
    while let Some(at) = bytes.get(from..).and_then(|rest| needle.find(rest)) {
        let start = from + at;
        while dict.range(code).end <= start {
            code += 1;
        }
        let entry = dict.range(code);
        from = if start + needle.needle().len() <= entry.end {
            table[code as usize] = passes(&bytes[entry.clone()]);
            entry.end
        } else {
            // Across two entries.
            start + 1
        };
    }
    table
}

/// Verdicts by dictionary and test: the one that tells whether a column needs to be read often is
/// the column's own.
#[derive(Debug, Default)]
pub(crate) struct VerdictCache {
    known: RefCell<HashMap<(usize, usize), Known, foldhash::fast::RandomState>>,
}

#[derive(Debug)]
struct Known {
    verdicts: Verdicts,
    /// Keeps the address from being used again.
    _dict: Arc<StringDict>,
}

impl VerdictCache {
    /// `test` must be part of the plan that is run, which keeps its address.
    pub(crate) fn get(&self, dict: &Arc<StringDict>, test: &TextTest) -> Verdicts {
        let key = Self::key(dict, test);
        if let Some(known) = self.known.borrow().get(&key) {
            return known.verdicts.clone();
        }
        let verdicts = Verdicts::of(dict, test);
        let known = Known {
            verdicts: verdicts.clone(),
            _dict: Arc::clone(dict),
        };
        self.known.borrow_mut().insert(key, known);
        verdicts
    }

    fn has(&self, dict: &Arc<StringDict>, test: &TextTest) -> bool {
        self.known.borrow().contains_key(&Self::key(dict, test))
    }

    fn key(dict: &Arc<StringDict>, test: &TextTest) -> (usize, usize) {
        (Arc::as_ptr(dict).addr(), std::ptr::from_ref(test).addr())
    }
}

/// The rows whose value passes.
pub(crate) fn passing(
    column: &Column,
    reading: Reading,
    test: &Test,
    cache: &VerdictCache,
) -> Bitmap {
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
        add(texts(lane, &test.texts, cache));
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

fn texts(lane: &StringLane, test: &TextTest, cache: &VerdictCache) -> Option<Bitmap> {
    if matches!(test, TextTest::Never) {
        return None;
    }
    let codes = &*lane.codes;
    let entries = lane.dict.len();
    if entries > codes.len() * 2 && !cache.has(&lane.dict, test) {
        // A few rows of a large dictionary.
        return Some(Bitmap::from_fn(codes.len(), |row| {
            codes[row] != ABSENT && test.passes(lane.dict.bytes(codes[row]))
        }));
    }
    match cache.get(&lane.dict, test) {
        Verdicts::None => None,
        Verdicts::One(code) => Some(Bitmap::from_fn(codes.len(), |row| codes[row] == code)),
        Verdicts::Table(table) => Some(Bitmap::from_fn(codes.len(), |row| {
            table[(codes[row] as usize).min(entries)]
        })),
    }
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
    let short = reading == Reading::ShortHex;
    Some(Bitmap::from_fn(len, |row| {
        test.passes(HexId::new(lane.get(row), short).as_bytes())
    }))
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
        return ValueRef::Id {
            bytes: lane.get(row),
            short: reading == Reading::ShortHex,
        };
    }
    match &column.opaque {
        Some(opaque) if opaque.contains(row) => ValueRef::Opaque,
        _ => ValueRef::Nil,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::TextPattern;

    #[test]
    fn a_text_is_found_in_entries_but_not_across_them() {
        let texts = [
            "", "xa", "ab", "aab", "ba", "a", "b", "xabx", "abab", "bab", "",
        ];
        let mut dict = StringDict::new();
        texts.iter().for_each(|text| {
            dict.push(text.as_bytes());
        });
        for pattern in [
            ".*ab.*",
            ".*aab.*",
            ".*a.*b.*",
            "x.*ab.*",
            ".*b.*ab.*",
            ".*zz.*",
            ".*a.+",
        ] {
            let pattern = Arc::new(TextPattern::new(pattern).unwrap());
            let want: Vec<bool> = texts
                .iter()
                .map(|text| pattern.is_match(text.as_bytes()))
                .collect();
            let needle = pattern.needle();
            if let Some(needle) = needle {
                let got = entries_with(&dict, needle, |text| pattern.is_match(text));
                assert_eq!(got, want, "{pattern:?}");
            }
            let verdicts = Verdicts::of(&dict, &TextTest::MatchesAny(vec![Arc::clone(&pattern)]));
            let got: Vec<bool> = (0..texts.len())
                .map(|code| match &verdicts {
                    Verdicts::None => false,
                    Verdicts::One(one) => *one as usize == code,
                    Verdicts::Table(table) => table[code],
                })
                .collect();
            assert_eq!(got, want, "{pattern:?}");
        }
    }
}
