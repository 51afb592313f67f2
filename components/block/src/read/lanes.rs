//! Values of generic attributes, picked from the value leaves by slot.

use std::sync::Arc;

use tempo_table::{ArrayValue, StringDict, TableError};

use super::{
    Malformed,
    attributes::{AttributeSlots, Match},
    bits::{Bits, Ranked, SelectCursor},
    group::{GroupBytes, LeafIndex, Part},
    page::Page,
    pages::Selection,
    strings::LeafStrings,
    values::{self, NumberPages},
};

const FEWER: Malformed = Malformed("page holds fewer values than its levels say");

/// Where the values of wanted slots lie in a page.
pub(super) struct Pick {
    /// Position in the list of matches.
    pub(super) at: usize,
    /// Values within the page.
    pub(super) values: std::ops::Range<usize>,
}

/// Visits, page by page, where the values of `matches` (by slot, ascending) lie in a value leaf.
/// Pages without any are not visited, so their values are never decompressed.
pub(super) fn for_picks(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    slots: &AttributeSlots,
    selection: &Selection,
    matches: &[Match],
    mut visit: impl FnMut(&Page, &[Pick]) -> Result<(), Malformed>,
) -> Result<(), TableError> {
    // As many entries as slots: then no array has a second element, and entries are slots.
    let aligned = bytes.chunk(leaf).entries == bytes.chunk(slots.leaves.key).entries;
    let mut levels = ValueLevels::default();
    let mut picks = Vec::new();
    let mut slot = 0;
    let mut next = 0;
    bytes.for_pages(leaf, selection, |page, parts| {
        picks.clear();
        levels.read(page, slots.depth, aligned)?;
        for part in parts {
            let (taken, end) = levels.pick(part, slot, &matches[next..], next, &mut picks);
            next += taken;
            slot = end;
        }
        if picks.is_empty() {
            return Ok(());
        }
        visit(page, &picks)
    })?;
    if slot != slots.slots() {
        return Err(bytes.corrupt(leaf, Malformed("column and keys differ in their count")));
    }
    Ok(())
}

/// Levels of a page of a value leaf.
#[derive(Default)]
struct ValueLevels {
    /// Entries that hold a value.
    present: Ranked,
    /// Entries that begin a slot; `None` when all do.
    begins: Option<Ranked>,
    entries: usize,
}

impl ValueLevels {
    fn read(&mut self, page: &Page, depth: u8, aligned: bool) -> Result<(), Malformed> {
        let mut present = std::mem::take(&mut self.present).into_bits();
        present.clear();
        if page.is_dense() {
            present.push_run(true, page.entries);
        } else {
            page.def().at_least(page.def().max, &mut present)?;
        }
        self.present = Ranked::new(present);
        self.entries = page.entries;
        self.begins = None;
        // An optional leaf (`ValueUnsupported`) never repeats within a slot.
        if !aligned && page.rep().max > depth + 1 {
            let mut continued = Bits::default();
            page.rep().at_least(depth + 2, &mut continued)?;
            if continued.count() > 0 {
                let mut begins = Bits::default();
                begins.push_run(true, page.entries);
                begins.and_not(&continued);
                self.begins = Some(Ranked::new(begins));
            }
        }
        Ok(())
    }

    /// Appends the values of those `matches` that lie in `part`, whose first slot is `slot`.
    /// Returns how many matches lie in it and the first slot after it.
    fn pick(
        &self,
        part: &Part,
        slot: usize,
        matches: &[Match],
        first: usize,
        picks: &mut Vec<Pick>,
    ) -> (usize, usize) {
        let entries = part.entries.clone();
        let (skipped, slots) = match &self.begins {
            None => (entries.start, entries.len()),
            Some(begins) => {
                let skipped = begins.rank(entries.start);
                (skipped, begins.rank(entries.end) - skipped)
            }
        };
        let end = slot + slots;
        let taken = matches.partition_point(|found| (found.slot as usize) < end);
        let wanted = &matches[..taken];
        if self.present.count() > 0 {
            match &self.begins {
                None => {
                    for (at, found) in (first..).zip(wanted) {
                        let entry = skipped + found.slot as usize - slot;
                        if self.present.bits().get(entry) {
                            let value = self.present.rank(entry);
                            picks.push(Pick {
                                at,
                                values: value..value + 1,
                            });
                        }
                    }
                }
                Some(begins) => {
                    let mut cursor = SelectCursor::new(begins);
                    for (at, found) in (first..).zip(wanted) {
                        let nth = skipped + found.slot as usize - slot;
                        let entry = cursor.select(nth);
                        if self.present.bits().get(entry) {
                            let next = begins.select(nth + 1).min(self.entries);
                            picks.push(Pick {
                                at,
                                values: self.present.rank(entry)..self.present.rank(next),
                            });
                        }
                    }
                }
            }
        }
        (taken, end)
    }
}

/// Texts of scalar attributes. `visit` gets the position of the match and the code of its text;
/// the answer holds the texts.
pub(super) fn strings(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    slots: &AttributeSlots,
    selection: &Selection,
    matches: &[Match],
    mut visit: impl FnMut(usize, u32),
) -> Result<Arc<StringDict>, TableError> {
    bytes.load(&[leaf], selection)?;
    let mut strings = None;
    for_picks(bytes, leaf, slots, selection, matches, |page, picks| {
        let strings = match &mut strings {
            Some(strings) => strings,
            // The dictionary is not even decoded when nothing is found.
            none => none.insert(
                LeafStrings::new(bytes, leaf).map_err(|_| Malformed("dictionary is damaged"))?,
            ),
        };
        let count = page.value_count(&mut Bits::default())?;
        let mut texts = strings.page(page, count)?;
        for pick in picks {
            visit(pick.at, texts.code(pick.values.start)?);
        }
        Ok(())
    })?;
    Ok(strings.map_or_else(Arc::default, LeafStrings::finish))
}

/// Integers, or doubles as their bits, of scalar attributes.
pub(super) fn numbers(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    slots: &AttributeSlots,
    selection: &Selection,
    matches: &[Match],
    mut visit: impl FnMut(usize, i64),
) -> Result<(), TableError> {
    let mut reader = number_pages(bytes, leaf, selection)?;
    for_picks(bytes, leaf, slots, selection, matches, |page, picks| {
        let values = reader.read(page, page.value_count(&mut Bits::default())?)?;
        for pick in picks {
            visit(pick.at, *values.get(pick.values.start).ok_or(FEWER)?);
        }
        Ok(())
    })
}

/// Booleans of scalar attributes.
pub(super) fn booleans(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    slots: &AttributeSlots,
    selection: &Selection,
    matches: &[Match],
    mut visit: impl FnMut(usize, bool),
) -> Result<(), TableError> {
    let mut scratch = Vec::new();
    let mut values = Bits::default();
    for_picks(bytes, leaf, slots, selection, matches, |page, picks| {
        read_booleans(page, &mut scratch, &mut values)?;
        for pick in picks {
            visit(pick.at, values.get(pick.values.start));
        }
        Ok(())
    })
}

/// Whether there is a value at all, for leaves whose values do not matter.
pub(super) fn presence(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    slots: &AttributeSlots,
    selection: &Selection,
    matches: &[Match],
    mut visit: impl FnMut(usize),
) -> Result<(), TableError> {
    for_picks(bytes, leaf, slots, selection, matches, |_, picks| {
        picks.iter().for_each(|pick| visit(pick.at));
        Ok(())
    })
}

/// A reader for whole pages of integers or doubles.
pub(super) fn number_pages(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    selection: &Selection,
) -> Result<NumberPages, TableError> {
    bytes.load(&[leaf], selection)?;
    Ok(NumberPages::new(
        bytes.leaf(leaf).physical,
        bytes.int_dictionary(leaf)?,
    ))
}

pub(super) fn read_booleans(
    page: &Page,
    scratch: &mut Vec<u8>,
    out: &mut Bits,
) -> Result<(), Malformed> {
    let count = page.value_count(out)?;
    out.clear();
    let body = page.body(scratch)?;
    values::booleans(page.encoding, body, count, out)
}

/// The elements of array attributes; empty arrays have none in any leaf.
pub(super) fn arrays(
    bytes: &GroupBytes,
    slots: &AttributeSlots,
    selection: &Selection,
    matches: &[Match],
) -> Result<Vec<ArrayValue>, TableError> {
    let mut found = vec![ArrayValue::Empty; matches.len()];
    if matches.is_empty() {
        return Ok(found);
    }
    if let Some(leaf) = slots.leaves.strings {
        bytes.load(&[leaf], selection)?;
        let mut strings = LeafStrings::new(bytes, leaf)?;
        for_picks(bytes, leaf, slots, selection, matches, |page, picks| {
            let count = page.value_count(&mut Bits::default())?;
            let mut texts = strings.page(page, count)?;
            for pick in picks {
                let elements = pick
                    .values
                    .clone()
                    .map(|value| Ok(Arc::from(String::from_utf8_lossy(texts.text(value)?))))
                    .collect::<Result<_, _>>()?;
                found[pick.at] = ArrayValue::Strings(elements);
            }
            Ok(())
        })?;
    }
    for (leaf, is_int) in [(slots.leaves.ints, true), (slots.leaves.doubles, false)] {
        let Some(leaf) = leaf else { continue };
        let mut reader = number_pages(bytes, leaf, selection)?;
        for_picks(bytes, leaf, slots, selection, matches, |page, picks| {
            let values = reader.read(page, page.value_count(&mut Bits::default())?)?;
            for pick in picks {
                let values = values.get(pick.values.clone()).ok_or(FEWER)?;
                found[pick.at] = if is_int {
                    ArrayValue::Ints(values.to_vec())
                } else {
                    let doubles = values.iter().map(|&bits| f64::from_bits(bits as u64));
                    ArrayValue::Floats(doubles.collect())
                };
            }
            Ok(())
        })?;
    }
    if let Some(leaf) = slots.leaves.bools {
        let mut scratch = Vec::new();
        let mut values = Bits::default();
        for_picks(bytes, leaf, slots, selection, matches, |page, picks| {
            read_booleans(page, &mut scratch, &mut values)?;
            for pick in picks {
                let elements = pick.values.clone().map(|value| values.get(value));
                found[pick.at] = ArrayValue::Bools(elements.collect());
            }
            Ok(())
        })?;
    }
    Ok(found)
}
