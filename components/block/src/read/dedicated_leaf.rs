//! Leaves that belong to one attribute: well-known columns of vParquet4 and dedicated columns.
//!
//! vParquet4 stores at most one value per owner (an optional leaf), vParquet5 any number (a
//! repeated leaf): one is a scalar, more are an array, none is no attribute.

use std::sync::Arc;

use tempo_table::{ArrayValue, TableError};

use super::{
    Malformed,
    bits::{Bits, Ranked},
    builder::ColumnBuilder,
    footer::Physical,
    group::{GroupBytes, LeafIndex, Part},
    page::Page,
    pages::Selection,
    strings::{LeafStrings, PageTexts},
    values,
};

const FEWER: Malformed = Malformed("page holds fewer values than its levels say");

/// Visits the values of one page: `visit(owner, values)` by ascending owner, values counted within
/// the page. `owner` counts on from `first`; returns the owner after the last.
fn for_owners(
    levels: &OwnerLevels,
    part: &Part,
    first: usize,
    mut visit: impl FnMut(usize, std::ops::Range<usize>) -> Result<(), Malformed>,
) -> Result<usize, Malformed> {
    let entries = part.entries.clone();
    let before = levels.begins.rank(entries.start);
    let owners = levels.begins.rank(entries.end) - before;
    let mut pending: Option<(usize, std::ops::Range<usize>)> = None;
    for (value, entry) in (part.values.start..).zip(levels.present.ones_in(entries)) {
        let owner = (first + levels.begins.rank(entry + 1))
            .checked_sub(before + 1)
            .ok_or(Malformed("value without an owner"))?;
        match &mut pending {
            Some((last, values)) if *last == owner => values.end = value + 1,
            pending => {
                if let Some((last, values)) = pending.replace((owner, value..value + 1)) {
                    visit(last, values)?;
                }
            }
        }
    }
    if let Some((last, values)) = pending {
        visit(last, values)?;
    }
    Ok(first + owners)
}

#[derive(Default)]
struct OwnerLevels {
    /// Entries that begin an owner.
    begins: Ranked,
    /// Entries that hold a value.
    present: Bits,
    scratch: Bits,
}

impl OwnerLevels {
    fn read(&mut self, page: &Page, depth: u8) -> Result<(), Malformed> {
        let mut begins = std::mem::take(&mut self.begins).into_bits();
        begins.clear();
        self.present.clear();
        if page.is_dense() {
            begins.push_run(true, page.entries);
            self.present.push_run(true, page.entries);
        } else {
            page.def().at_least(depth, &mut begins)?;
            page.def().at_least(page.def().max, &mut self.present)?;
        }
        if page.rep().max > depth {
            self.scratch.clear();
            page.rep().at_least(depth + 1, &mut self.scratch)?;
            begins.and_not(&self.scratch);
        }
        self.begins = Ranked::new(begins);
        Ok(())
    }

    /// Whether every owner has exactly one value, so that owners are entries and values.
    fn is_one_to_one(&self, page: &Page) -> bool {
        page.is_dense() && self.begins.count() == page.entries
    }
}

/// Adds the values of such a leaf to a column of `owners` rows. Rows that have a value keep it.
pub(super) fn add(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    depth: u8,
    selection: &Selection,
    owners: usize,
    column: &mut ColumnBuilder,
) -> Result<(), TableError> {
    if bytes.chunk(leaf).nulls == Some(u64::from(bytes.chunk(leaf).entries)) {
        return Ok(());
    }
    bytes.load(&[leaf], selection)?;
    let seen = if bytes.leaf(leaf).physical == Physical::ByteArray {
        add_strings(bytes, leaf, depth, selection, column)?
    } else {
        add_ints(bytes, leaf, depth, selection, column)?
    };
    if seen != owners {
        return Err(bytes.corrupt(leaf, Malformed("levels hold another count of owners")));
    }
    Ok(())
}

fn add_strings(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    depth: u8,
    selection: &Selection,
    column: &mut ColumnBuilder,
) -> Result<usize, TableError> {
    let mut strings = LeafStrings::new(bytes, leaf)?;
    let mut levels = OwnerLevels::default();
    let mut arrays = Vec::new();
    let fresh = column.is_empty();
    let mut owner = 0;
    bytes.for_pages(leaf, selection, |page, parts| {
        levels.read(page, depth)?;
        let count = page.value_count(&mut Bits::default())?;
        if count == 0 {
            for part in parts {
                owner = for_owners(&levels, part, owner, |_, _| Ok(()))?;
            }
            return Ok(());
        }
        let mut texts = strings.page(page, count)?;
        let base = column.strings().base();
        for part in parts {
            if fresh && base == 0 && levels.is_one_to_one(page) {
                let end = owner + part.values.len();
                let out = column.strings().codes.get_mut(owner..end).ok_or(FEWER)?;
                texts.codes(part.values.start, out)?;
                owner = end;
                continue;
            }
            owner = for_owners(&levels, part, owner, |owner, values| {
                if !fresh && column.has(owner) {
                    return Ok(());
                }
                if values.len() == 1 {
                    let code = base + texts.code(values.start)?;
                    if let Some(slot) = column.strings().codes.get_mut(owner) {
                        *slot = code;
                    }
                } else {
                    arrays.push((owner as u32, text_array(&mut texts, values)?));
                }
                Ok(())
            })?;
        }
        Ok(())
    })?;
    column.add_arrays(arrays);
    let dict = strings.finish();
    column
        .strings()
        .add_source(dict)
        .map_err(|malformed| bytes.corrupt(leaf, malformed))?;
    Ok(owner)
}

fn text_array(
    texts: &mut PageTexts<'_>,
    values: std::ops::Range<usize>,
) -> Result<ArrayValue, Malformed> {
    let text = |value| Ok(Arc::from(String::from_utf8_lossy(texts.text(value)?)));
    values
        .map(text)
        .collect::<Result<_, _>>()
        .map(ArrayValue::Strings)
}

fn add_ints(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    depth: u8,
    selection: &Selection,
    column: &mut ColumnBuilder,
) -> Result<usize, TableError> {
    let physical = bytes.leaf(leaf).physical;
    let dictionary = bytes.int_dictionary(leaf)?;
    let mut levels = OwnerLevels::default();
    let mut arrays = Vec::new();
    let mut scratch = Vec::new();
    let mut numbers = Vec::new();
    let fresh = column.is_empty();
    let mut owner = 0;
    bytes.for_pages(leaf, selection, |page, parts| {
        levels.read(page, depth)?;
        numbers.clear();
        numbers.resize(page.value_count(&mut Bits::default())?, 0);
        let body = page.body(&mut scratch)?;
        values::ints(physical, page.encoding, body, &dictionary, &mut numbers)?;
        for part in parts {
            owner = for_owners(&levels, part, owner, |owner, values| {
                if !fresh && column.has(owner) {
                    return Ok(());
                }
                match numbers.get(values).ok_or(FEWER)? {
                    [one] => column.set_int(owner, *one),
                    several => arrays.push((owner as u32, ArrayValue::Ints(several.to_vec()))),
                }
                Ok(())
            })?;
        }
        Ok(())
    })?;
    column.add_arrays(arrays);
    Ok(owner)
}
