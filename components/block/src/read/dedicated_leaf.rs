//! Leaves that belong to one attribute: well-known columns of vParquet4 and dedicated columns.
//!
//! vParquet4 stores at most one value per owner (an optional leaf), vParquet5 any number (a
//! repeated leaf): one is a scalar, more are an array, none is no attribute.

use std::{ops::Range, sync::Arc};

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

/// The values that an owner has in a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnerValues {
    pub(super) owner: usize,
    /// Positions among the page's values; at least one.
    pub(super) values: Range<usize>,
}

/// Whose values a part of a page holds.
pub(super) enum Owners<'a> {
    /// Every owner has exactly one value.
    Each {
        owners: Range<usize>,
        first_value: usize,
    },
    /// Those who have any, by ascending owner.
    Some(&'a [OwnerValues]),
}

#[derive(Default)]
struct OwnerLevels {
    /// Entries that begin an owner.
    begins: Ranked,
    /// Entries that hold a value.
    present: Bits,
    scratch: Bits,
    one_to_one: bool,
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
        self.one_to_one = page.is_dense() && self.begins.count() == page.entries;
        Ok(())
    }

    /// Lists whose values `part` holds, counting owners from `first`.
    fn list(
        &self,
        part: &Part,
        first: usize,
        listed: &mut Vec<OwnerValues>,
    ) -> Result<(), Malformed> {
        let before = self.begins.rank(part.entries.start);
        let entries = self.present.ones_in(part.entries.clone());
        for (value, entry) in (part.values.start..).zip(entries) {
            let owner = (first + self.begins.rank(entry + 1))
                .checked_sub(before + 1)
                .ok_or(Malformed("value without an owner"))?;
            match listed.last_mut() {
                Some(last) if last.owner == owner => last.values.end = value + 1,
                _ => listed.push(OwnerValues {
                    owner,
                    values: value..value + 1,
                }),
            }
        }
        Ok(())
    }
}

/// Visits the parts of pages that hold values, with their owners.
pub(super) fn for_owners(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    depth: u8,
    selection: &Selection,
    owners: usize,
    mut visit: impl FnMut(&Page, usize, Owners<'_>) -> Result<(), Malformed>,
) -> Result<(), TableError> {
    let mut levels = OwnerLevels::default();
    let mut listed = Vec::new();
    let mut owner = 0;
    bytes.for_pages(leaf, selection, |page, parts| {
        levels.read(page, depth)?;
        let count = page.value_count(&mut Bits::default())?;
        for part in parts {
            let first = owner;
            owner += levels.begins.rank(part.entries.end) - levels.begins.rank(part.entries.start);
            if part.values.is_empty() {
                continue;
            }
            if levels.one_to_one {
                let each = Owners::Each {
                    owners: first..owner,
                    first_value: part.values.start,
                };
                visit(page, count, each)?;
            } else {
                listed.clear();
                levels.list(part, first, &mut listed)?;
                visit(page, count, Owners::Some(&listed))?;
            }
        }
        Ok(())
    })?;
    if owner != owners {
        return Err(bytes.corrupt(leaf, Malformed("levels hold another count of owners")));
    }
    Ok(())
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
    if !bytes.may_have_values(leaf) {
        return Ok(());
    }
    bytes.load(&[leaf], selection)?;
    if bytes.leaf(leaf).physical == Physical::ByteArray {
        add_strings(bytes, leaf, depth, selection, owners, column)
    } else {
        add_ints(bytes, leaf, depth, selection, owners, column)
    }
}

fn add_strings(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    depth: u8,
    selection: &Selection,
    owners: usize,
    column: &mut ColumnBuilder,
) -> Result<(), TableError> {
    let mut strings = LeafStrings::new(bytes, leaf)?;
    let mut arrays = Vec::new();
    let fresh = column.is_empty();
    let base = column.strings().base();
    for_owners(
        bytes,
        leaf,
        depth,
        selection,
        owners,
        |page, count, owners| {
            let mut texts = strings.page(page, count)?;
            match owners {
                Owners::Each {
                    owners,
                    first_value,
                } if fresh => {
                    let out = column.strings().codes.get_mut(owners).ok_or(FEWER)?;
                    texts.codes(first_value, out)?;
                }
                Owners::Each {
                    owners,
                    first_value,
                } => {
                    for (owner, value) in owners.zip(first_value..) {
                        if !column.has(owner) {
                            set_code(column, owner, base + texts.code(value)?);
                        }
                    }
                }
                Owners::Some(listed) => {
                    for OwnerValues { owner, values } in listed {
                        if !fresh && column.has(*owner) {
                            continue;
                        }
                        if values.len() == 1 {
                            set_code(column, *owner, base + texts.code(values.start)?);
                        } else {
                            arrays.push((*owner as u32, text_array(&mut texts, values.clone())?));
                        }
                    }
                }
            }
            Ok(())
        },
    )?;
    column.add_arrays(arrays);
    column
        .strings()
        .add_source(strings.finish())
        .map_err(|malformed| bytes.corrupt(leaf, malformed))
}

fn set_code(column: &mut ColumnBuilder, owner: usize, code: u32) {
    if let Some(slot) = column.strings().codes.get_mut(owner) {
        *slot = code;
    }
}

fn text_array(texts: &mut PageTexts<'_>, values: Range<usize>) -> Result<ArrayValue, Malformed> {
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
    owners: usize,
    column: &mut ColumnBuilder,
) -> Result<(), TableError> {
    let mut reader =
        values::NumberPages::new(bytes.leaf(leaf).physical, bytes.int_dictionary(leaf)?);
    let mut arrays = Vec::new();
    let fresh = column.is_empty();
    for_owners(
        bytes,
        leaf,
        depth,
        selection,
        owners,
        |page, count, owners| {
            let numbers = reader.read(page, count)?;
            match owners {
                Owners::Each {
                    owners,
                    first_value,
                } => {
                    let values = first_value..first_value + owners.len();
                    let numbers = numbers.get(values).ok_or(FEWER)?;
                    if fresh {
                        column.set_ints(owners.start, numbers);
                        return Ok(());
                    }
                    for (owner, &number) in owners.zip(numbers) {
                        if !column.has(owner) {
                            column.set_int(owner, number);
                        }
                    }
                }
                Owners::Some(listed) => {
                    for OwnerValues { owner, values } in listed {
                        if !fresh && column.has(*owner) {
                            continue;
                        }
                        match numbers.get(values.clone()).ok_or(FEWER)? {
                            [one] => column.set_int(*owner, *one),
                            several => {
                                arrays.push((*owner as u32, ArrayValue::Ints(several.to_vec())));
                            }
                        }
                    }
                }
            }
            Ok(())
        },
    )?;
    column.add_arrays(arrays);
    Ok(())
}
