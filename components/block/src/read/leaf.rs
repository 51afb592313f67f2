//! Leaves that have exactly one value per row of their level: the intrinsics.
//!
//! Placeholders of missing resources, scopes, events and links hold no value, so the values of such
//! a leaf are those of the rows, in order, whatever the levels say; levels are not even read.

use std::sync::Arc;

use tempo_table::{StringDict, TableError};

use super::{
    Malformed,
    group::{GroupBytes, LeafIndex, Part},
    page::{Encoding, Page},
    pages::Selection,
    strings::LeafStrings,
    values::{self, NumberPages, Slices},
};

const COUNT: Malformed = Malformed("column holds another count of values than its level has rows");

/// A shared slice that is still being filled in.
pub(super) struct Fill<T> {
    values: Arc<[T]>,
    filled: usize,
}

impl<T: Copy> Fill<T> {
    pub(super) fn new(value: T, len: usize) -> Self {
        Self {
            values: std::iter::repeat_n(value, len).collect(),
            filled: 0,
        }
    }

    /// The next `count` values.
    pub(super) fn next(&mut self, count: usize) -> Result<&mut [T], Malformed> {
        let start = self.filled;
        self.filled += count;
        Arc::get_mut(&mut self.values)
            .and_then(|values| values.get_mut(start..start + count))
            .ok_or(COUNT)
    }

    /// All values.
    pub(super) fn all(&mut self) -> &mut [T] {
        Arc::get_mut(&mut self.values).unwrap_or_default()
    }

    pub(super) fn finish(self) -> Result<Arc<[T]>, Malformed> {
        if self.filled == self.values.len() {
            Ok(self.values)
        } else {
            Err(COUNT)
        }
    }

    /// The values, filled in order or not.
    pub(super) fn share(self) -> Arc<[T]> {
        self.values
    }
}

/// The values of a page's parts, one after another.
fn value_count(parts: &[Part]) -> usize {
    parts.iter().map(|part| part.values.len()).sum()
}

/// Whether the parts are the whole page; then values can go where they belong at once.
fn is_whole(page: &Page, parts: &[Part]) -> bool {
    matches!(parts, [only] if only.entries == (0..page.entries))
}

/// The integers of `leaf` for `len` selected rows.
pub(super) fn ints(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    selection: &Selection,
    len: usize,
) -> Result<Arc<[i64]>, TableError> {
    let physical = bytes.leaf(leaf).physical;
    let dictionary = bytes.int_dictionary(leaf)?;
    let mut reader = NumberPages::new(physical, Arc::clone(&dictionary));
    let mut fill = Fill::new(0_i64, len);
    let mut scratch = Vec::new();
    bytes.for_pages(leaf, selection, |page, parts| {
        let out = fill.next(value_count(parts))?;
        if is_whole(page, parts) {
            let body = page.body(&mut scratch)?;
            return values::ints(physical, page.encoding, body, &dictionary, out);
        }
        let count = page.value_count(&mut Default::default())?;
        copy_parts(parts, reader.read(page, count)?, out)
    })?;
    fill.finish()
        .map_err(|malformed| bytes.corrupt(leaf, malformed))
}

fn copy_parts<T: Copy>(parts: &[Part], from: &[T], mut to: &mut [T]) -> Result<(), Malformed> {
    for part in parts {
        let source = from.get(part.values.clone()).ok_or(COUNT)?;
        let (target, rest) = to.split_at_mut_checked(source.len()).ok_or(COUNT)?;
        target.copy_from_slice(source);
        to = rest;
    }
    Ok(())
}

/// The ids of `leaf` for `len` selected rows, each `width` bytes long. Shorter ones are padded with
/// zeros on the left; of longer ones the last bytes count.
pub(super) fn ids(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    selection: &Selection,
    len: usize,
    width: usize,
) -> Result<Arc<[u8]>, TableError> {
    let mut fill = Fill::new(0_u8, len * width);
    let mut scratch = Vec::new();
    let mut slices = Slices::default();
    let mut strings = None;
    bytes.for_pages(leaf, selection, |page, parts| {
        let out = fill.next(value_count(parts) * width)?;
        let count = page.value_count(&mut Default::default())?;
        if page.encoding == Encoding::Dictionary {
            // Other writers may code ids, which Tempo never does.
            let strings = match &mut strings {
                Some(strings) => strings,
                none => none.insert(
                    LeafStrings::new(bytes, leaf).map_err(|_| Malformed("dictionary of ids"))?,
                ),
            };
            let mut texts = strings.page(page, count)?;
            let wanted = parts.iter().flat_map(|part| part.values.clone());
            for (id, index) in out.chunks_exact_mut(width).zip(wanted) {
                pad(texts.text(index)?, id);
            }
            return Ok(());
        }
        let body = page.body(&mut scratch)?;
        slices.locate(page.encoding, body, count)?;
        if let Some(all) = slices.fixed(body, width) {
            let mut out = out;
            for part in parts {
                let source = all
                    .get(part.values.start * width..part.values.end * width)
                    .ok_or(COUNT)?;
                let (target, rest) = out.split_at_mut_checked(source.len()).ok_or(COUNT)?;
                target.copy_from_slice(source);
                out = rest;
            }
            return Ok(());
        }
        let wanted = parts.iter().flat_map(|part| part.values.clone());
        for (out, index) in out.chunks_exact_mut(width).zip(wanted) {
            let id = slices.get(body, index);
            // Almost all: a copy of known length is one move.
            match (
                <&[u8; 8]>::try_from(id),
                <&mut [u8; 8]>::try_from(&mut *out),
            ) {
                (Ok(id), Ok(out)) => *out = *id,
                _ => pad(id, out),
            }
        }
        Ok(())
    })?;
    fill.finish()
        .map_err(|malformed| bytes.corrupt(leaf, malformed))
}

#[inline]
fn pad(id: &[u8], out: &mut [u8]) {
    let tail = &id[id.len().saturating_sub(out.len())..];
    let start = out.len() - tail.len();
    out[start..].copy_from_slice(tail);
}

/// The texts of `leaf` for `len` selected rows, as codes of a dictionary.
pub(super) fn strings(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    selection: &Selection,
    len: usize,
) -> Result<(Arc<StringDict>, Arc<[u32]>), TableError> {
    bytes.load(&[leaf], selection)?;
    let mut strings = LeafStrings::new(bytes, leaf)?;
    let mut fill = Fill::new(0_u32, len);
    bytes.for_pages(leaf, selection, |page, parts| {
        let count = page.value_count(&mut Default::default())?;
        let mut out = fill.next(value_count(parts))?;
        let mut texts = strings.page(page, count)?;
        for part in parts {
            let (target, rest) = out.split_at_mut_checked(part.values.len()).ok_or(COUNT)?;
            texts.codes(part.values.start, target)?;
            out = rest;
        }
        Ok(())
    })?;
    let codes = fill
        .finish()
        .map_err(|malformed| bytes.corrupt(leaf, malformed))?;
    Ok((strings.finish(), codes))
}
