//! The bytes of one row group: fetched once, together, and cut into pages.
//!
//! Owns what was read of the row group so far and how pages and dictionaries are found in it. Must
//! never interpret a value.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytes::Bytes;
use tempo_backend::{ReadStats, cache::CacheRole};
use tempo_table::{StringDict, TableError};

use super::{
    Malformed,
    bits::Bits,
    file::BlockFile,
    footer::{Chunk, FileLeaf, IdBounds, RowGroup},
    kept::Kept,
    page::Page,
    pages::{PageMap, Selection},
    source::Source,
    values,
};
use crate::hints::DictionaryHint;

/// A leaf column, by its position in the file.
pub(crate) type LeafIndex = usize;

/// Part of a page: entries (levels) and the values among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) rows: Range<u32>,
    pub(crate) entries: Range<usize>,
    pub(crate) values: Range<usize>,
}

/// One row group of a block.
pub(crate) struct GroupBytes {
    file: Arc<BlockFile>,
    source: Source,
    group: usize,
    loaded: Mutex<Loaded>,
    leaves: Vec<LeafCells>,
    kept: Option<Kept>,
}

#[derive(Default)]
struct LeafCells {
    pages: OnceLock<Arc<PageMap>>,
    strings: OnceLock<Arc<StringDict>>,
    ints: OnceLock<Arc<[i64]>>,
}

impl GroupBytes {
    /// Row group `group`, which must exist.
    pub(crate) fn new(file: Arc<BlockFile>, source: Source, group: usize) -> Self {
        let leaves = file.footer().leaves.len();
        Self {
            file,
            source,
            group,
            loaded: Mutex::default(),
            leaves: (0..leaves).map(|_| LeafCells::default()).collect(),
            kept: None,
        }
    }

    /// The same, with what other queries have decoded and kept.
    pub(crate) fn with_kept(self, kept: Option<Kept>) -> Self {
        Self { kept, ..self }
    }

    /// What is kept of the row group between queries, if anything is.
    pub(crate) fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    pub(crate) fn file(&self) -> &Arc<BlockFile> {
        &self.file
    }

    fn row_group(&self) -> &RowGroup {
        &self.file.footer().row_groups[self.group]
    }

    pub(crate) fn rows(&self) -> u32 {
        self.row_group().rows
    }

    /// First and last trace id, if the footer tells.
    pub(crate) fn trace_id_bounds(&self) -> Option<IdBounds> {
        self.row_group().trace_ids
    }

    pub(crate) fn chunk(&self, leaf: LeafIndex) -> &Chunk {
        &self.row_group().chunks[leaf]
    }

    /// Bytes of a leaf in the file.
    pub(crate) fn chunk_len(&self, leaf: LeafIndex) -> u64 {
        let bytes = &self.chunk(leaf).bytes;
        bytes.end - bytes.start
    }

    pub(crate) fn leaf(&self, leaf: LeafIndex) -> &FileLeaf {
        &self.file.footer().leaves[leaf]
    }

    /// What the writer told of a leaf's dictionary.
    pub(crate) fn hint(&self, leaf: LeafIndex) -> Option<&DictionaryHint> {
        self.file.footer().hints.get(self.group)?.of(leaf)
    }

    /// How many entries the dictionary of a leaf has, if it can be read in fragments.
    pub(crate) fn fragmented_entries(&self, leaf: LeafIndex) -> Option<usize> {
        match self.hint(leaf)? {
            DictionaryHint::Fragments { entries, .. } => Some(*entries as usize),
            DictionaryHint::Whole { .. } => None,
        }
    }

    /// Whether a leaf may hold a number other than 0 or a truth value other than `false`, or values
    /// of another type; told by the footer alone.
    pub(crate) fn may_be_nonzero(&self, leaf: LeafIndex) -> bool {
        self.chunk(leaf).int_bounds != Some((0, 0))
    }

    /// Whether a leaf may hold a value; told by the footer alone.
    pub(crate) fn may_have_values(&self, leaf: LeafIndex) -> bool {
        let chunk = self.chunk(leaf);
        chunk.nulls != Some(u64::from(chunk.entries))
    }

    pub(crate) fn stats(&self) -> &ReadStats {
        self.source.stats()
    }

    /// The error for damage in a leaf.
    pub(crate) fn corrupt(&self, leaf: LeafIndex, Malformed(reason): Malformed) -> TableError {
        TableError::Corrupt {
            what: self.name_of(leaf),
            reason: reason.to_owned(),
        }
    }

    fn name_of(&self, leaf: LeafIndex) -> String {
        format!(
            "{} row group {} column {}",
            self.source.name(),
            self.group,
            self.leaf(leaf).path
        )
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads those of `ranges` that were not read yet, in one go.
    fn fetch(&self, ranges: &[Range<u64>]) -> Result<(), TableError> {
        let mut loaded = self.loaded();
        let missing: Vec<Range<u64>> = ranges
            .iter()
            .filter(|range| !range.is_empty() && loaded.get(range).is_none())
            .cloned()
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        // Held while reading: others that want the same bytes wait instead of reading them again.
        let bytes = self
            .source
            .read_ranges_of(CacheRole::ParquetPage, &missing)?;
        for (range, bytes) in missing.into_iter().zip(bytes) {
            loaded.insert(range, bytes);
        }
        Ok(())
    }

    /// Some bytes of the file.
    pub(crate) fn bytes(&self, range: &Range<u64>) -> Result<Bytes, TableError> {
        if let Some(bytes) = self.loaded().get(range) {
            return Ok(bytes);
        }
        self.fetch(std::slice::from_ref(range))?;
        self.loaded().get(range).ok_or_else(|| TableError::Corrupt {
            what: self.source.name().to_owned(),
            reason: format!(
                "storage gave less than bytes {}..{}",
                range.start, range.end
            ),
        })
    }

    /// Where the pages of a leaf lie.
    pub(crate) fn page_map(&self, leaf: LeafIndex) -> Result<&Arc<PageMap>, TableError> {
        let cell = &self.leaves[leaf].pages;
        if let Some(map) = cell.get() {
            return Ok(map);
        }
        if let Some(map) = self.kept().and_then(|kept| kept.pages(leaf)) {
            return Ok(cell.get_or_init(|| map));
        }
        let chunk = self.chunk(leaf);
        let map = match chunk
            .offset_index
            .as_ref()
            .and_then(|range| self.file.offset_index(range))
        {
            Some(index) => PageMap::from_offset_index(&index, chunk, self.rows()),
            None => {
                let bytes = self.bytes(&chunk.bytes)?;
                PageMap::from_headers(&bytes, chunk, self.rows())
            }
        }
        .map_err(|malformed| self.corrupt(leaf, malformed))?;
        let map = Arc::new(map);
        if let Some(kept) = self.kept() {
            kept.keep_pages(leaf, &map);
        }
        Ok(cell.get_or_init(|| map))
    }

    /// Whether some rows of a leaf need its whole dictionary: it is not known, and either has no
    /// fragments or they cost more one by one than together.
    pub(crate) fn reads_whole_dictionary(&self, leaf: LeafIndex) -> bool {
        let in_fragments =
            self.request_cost_bytes() == 0 && self.fragmented_entries(leaf).is_some();
        !in_fragments && self.known_dictionary(leaf).is_none()
    }

    fn ranges(
        &self,
        leaf: LeafIndex,
        selection: &Selection,
        ranges: &mut Vec<Range<u64>>,
    ) -> Result<(), TableError> {
        if selection.is_all() {
            ranges.push(self.chunk(leaf).bytes.clone());
            return Ok(());
        }
        let map = self.page_map(leaf)?;
        if self.reads_whole_dictionary(leaf) {
            ranges.extend(map.dictionary.clone());
        }
        ranges.extend(map.selected(selection).map(|page| page.bytes.clone()));
        Ok(())
    }

    /// Reads what the selected rows of these leaves need, in one go.
    pub(crate) fn load(
        &self,
        leaves: &[LeafIndex],
        selection: &Selection,
    ) -> Result<(), TableError> {
        self.load_each(leaves.iter().map(|&leaf| (leaf, selection)))
    }

    /// Reads what rows of leaves need, each leaf's own, in one go.
    pub(crate) fn load_each<'a>(
        &self,
        leaves: impl Iterator<Item = (LeafIndex, &'a Selection)>,
    ) -> Result<(), TableError> {
        let mut ranges = Vec::new();
        for (leaf, selection) in leaves {
            self.ranges(leaf, selection, &mut ranges)?;
        }
        self.fetch(&ranges)
    }

    /// Forgets all that was read; page maps and dictionaries stay.
    pub(crate) fn release_all(&self) {
        self.loaded().segments.clear();
    }

    /// The bytes of one page.
    pub(crate) fn page(&self, leaf: LeafIndex, at: usize) -> Result<Option<Page>, TableError> {
        let Some(spot) = self.page_map(leaf)?.pages.get(at) else {
            return Ok(None);
        };
        let bytes = self.bytes(&spot.bytes)?;
        Page::parse(&bytes, self.leaf(leaf), self.chunk(leaf))
            .map(Some)
            .map_err(|malformed| self.corrupt(leaf, malformed))
    }

    /// Reads the dictionary pages of these leaves, in one go.
    pub(crate) fn load_dictionaries(&self, leaves: &[LeafIndex]) -> Result<(), TableError> {
        let mut ranges = Vec::new();
        for &leaf in leaves {
            if self.known_dictionary(leaf).is_none() {
                ranges.extend(self.page_map(leaf)?.dictionary.clone());
            }
        }
        self.fetch(&ranges)
    }

    /// Forgets the bytes of a leaf: what was needed of it is decoded.
    pub(crate) fn release(&self, leaf: LeafIndex) {
        self.loaded().release(&self.chunk(leaf).bytes);
    }

    /// The dictionary page of a leaf, if it has one.
    pub(crate) fn dictionary_page(&self, leaf: LeafIndex) -> Result<Option<Page>, TableError> {
        let Some(range) = self.page_map(leaf)?.dictionary.clone() else {
            return Ok(None);
        };
        if self.loaded().get(&range).is_none() && self.is_best_read_whole(leaf, &range) {
            self.fetch(std::slice::from_ref(&self.chunk(leaf).bytes))?;
        }
        let bytes = self.bytes(&range)?;
        Page::parse_dictionary(&bytes, self.leaf(leaf), self.chunk(leaf))
            .map(Some)
            .map_err(|malformed| self.corrupt(leaf, malformed))
    }

    /// Whether what follows a dictionary, which is likely to be needed next, is worth less than a
    /// request.
    fn is_best_read_whole(&self, leaf: LeafIndex, dictionary: &Range<u64>) -> bool {
        let chunk = &self.chunk(leaf).bytes;
        let others = chunk.end.saturating_sub(dictionary.end);
        others < self.request_cost_bytes()
    }

    /// How many bytes more in one request cost less than one more request.
    pub(crate) fn request_cost_bytes(&self) -> u64 {
        self.source.request_cost_bytes()
    }

    /// The dictionary of a leaf of byte strings; empty when it has none.
    pub(crate) fn string_dictionary(&self, leaf: LeafIndex) -> Result<Arc<StringDict>, TableError> {
        if let Some(dict) = self.known_dictionary(leaf) {
            return Ok(dict);
        }
        let dict = match self.dictionary_page(leaf)? {
            None => StringDict::new(),
            Some(page) => page
                .body(&mut Vec::new())
                .and_then(|body| values::string_dictionary(body, page.entries))
                .map_err(|malformed| self.corrupt(leaf, malformed))?,
        };
        let dict = Arc::new(dict);
        if let Some(kept) = self.kept() {
            kept.keep_dictionary(leaf, &dict);
        }
        Ok(Arc::clone(self.leaves[leaf].strings.get_or_init(|| dict)))
    }

    /// The dictionary of a leaf of byte strings, if it is decoded already or was told.
    pub(crate) fn known_dictionary(&self, leaf: LeafIndex) -> Option<Arc<StringDict>> {
        let cell = &self.leaves[leaf].strings;
        if let Some(dict) = cell.get() {
            return Some(Arc::clone(dict));
        }
        let dict = match self.hint(leaf) {
            Some(DictionaryHint::Whole { entries, plain }) => {
                Arc::new(values::string_dictionary(plain, *entries as usize).ok()?)
            }
            _ => self.kept()?.dictionary(leaf)?,
        };
        Some(Arc::clone(cell.get_or_init(|| dict)))
    }

    /// The dictionary of a leaf of integers or doubles; empty when it has none, as usual.
    pub(crate) fn int_dictionary(&self, leaf: LeafIndex) -> Result<Arc<[i64]>, TableError> {
        let cell = &self.leaves[leaf].ints;
        if let Some(dict) = cell.get() {
            return Ok(Arc::clone(dict));
        }
        let dict = match self.dictionary_page(leaf)? {
            None => Vec::new(),
            Some(page) => page
                .body(&mut Vec::new())
                .and_then(|body| {
                    values::int_dictionary(self.leaf(leaf).physical, body, page.entries)
                })
                .map_err(|malformed| self.corrupt(leaf, malformed))?,
        };
        Ok(Arc::clone(cell.get_or_init(|| dict.into())))
    }

    /// Visits the pages that hold selected rows, with the parts of each that are selected.
    pub(crate) fn for_pages(
        &self,
        leaf: LeafIndex,
        selection: &Selection,
        mut visit: impl FnMut(&Page, &[Part]) -> Result<(), Malformed>,
    ) -> Result<(), TableError> {
        self.load(&[leaf], selection)?;
        let map = self.page_map(leaf)?;
        let mut levels = PageLevels::default();
        let mut parts = Vec::new();
        for spot in map.selected(selection) {
            let bytes = self.bytes(&spot.bytes)?;
            Page::parse(&bytes, self.leaf(leaf), self.chunk(leaf))
                .and_then(|page| {
                    parts.clear();
                    levels.parts(&page, &spot.rows, selection, &mut parts)?;
                    visit(&page, &parts)
                })
                .map_err(|malformed| self.corrupt(leaf, malformed))?;
        }
        Ok(())
    }
}

/// Finds the entries and values of rows within a page.
#[derive(Default)]
struct PageLevels {
    /// Entries that do not begin a row.
    continued: Bits,
    present: Bits,
}

impl PageLevels {
    fn parts(
        &mut self,
        page: &Page,
        rows: &Range<u32>,
        selection: &Selection,
        parts: &mut Vec<Part>,
    ) -> Result<(), Malformed> {
        let wanted = selection.within(rows.clone());
        let mut wanted = wanted.peekable();
        if wanted.peek() == Some(rows) {
            parts.push(Part {
                rows: rows.clone(),
                entries: 0..page.entries,
                values: 0..page.value_count(&mut self.present)?,
            });
            return Ok(());
        }
        self.continued.clear();
        page.rep().at_least(1, &mut self.continued)?;
        if !page.is_dense() {
            self.present.clear();
            page.def().at_least(page.def().max, &mut self.present)?;
        }
        let count = page.entries - self.continued.count();
        if count != (rows.end - rows.start) as usize || self.continued.get(0) {
            return Err(Malformed(
                "page holds other rows than the offset index says",
            ));
        }
        let starts = |row: u32| self.continued.select_zero((row - rows.start) as usize);
        for part in wanted {
            let entries = starts(part.start)..starts(part.end);
            let values = if page.is_dense() {
                entries.clone()
            } else {
                self.present.count_in(0, entries.start)..self.present.count_in(0, entries.end)
            };
            parts.push(Part {
                rows: part,
                entries,
                values,
            });
        }
        Ok(())
    }
}

/// What was read, as ranges of the file that do not overlap.
#[derive(Default)]
struct Loaded {
    /// Ascending by start.
    segments: Vec<(u64, Bytes)>,
}

impl Loaded {
    fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        let next = self
            .segments
            .partition_point(|(start, _)| *start <= range.start);
        let (start, bytes) = self.segments.get(next.checked_sub(1)?)?;
        let from = usize::try_from(range.start - start).ok()?;
        let to = usize::try_from(range.end - start).ok()?;
        (to <= bytes.len()).then(|| bytes.slice(from..to))
    }

    fn insert(&mut self, range: Range<u64>, bytes: Bytes) {
        // What lies within the new segment is replaced by it.
        self.release(&range);
        let at = self
            .segments
            .partition_point(|(start, _)| *start < range.start);
        self.segments.insert(at, (range.start, bytes));
    }

    fn release(&mut self, range: &Range<u64>) {
        let mut kept = Vec::with_capacity(self.segments.len() + 1);
        for (start, bytes) in self.segments.drain(..) {
            let end = start + bytes.len() as u64;
            if end <= range.start || start >= range.end {
                kept.push((start, bytes));
                continue;
            }
            if start < range.start {
                kept.push((start, bytes.slice(..(range.start - start) as usize)));
            }
            if end > range.end {
                kept.push((range.end, bytes.slice((range.end - start) as usize..)));
            }
        }
        self.segments = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_found_replaced_and_released() {
        let mut loaded = Loaded::default();
        let file = Bytes::from((0..=255).collect::<Vec<u8>>());
        let at = |range: Range<usize>| file.slice(range);
        loaded.insert(10..20, at(10..20));
        loaded.insert(40..60, at(40..60));
        assert_eq!(loaded.get(&(12..20)), Some(at(12..20)));
        assert_eq!(loaded.get(&(12..21)), None);
        assert_eq!(loaded.get(&(5..6)), None);
        loaded.insert(0..50, at(0..50));
        assert_eq!(loaded.get(&(0..50)), Some(at(0..50)));
        assert_eq!(loaded.get(&(50..60)), Some(at(50..60)));
        loaded.release(&(30..55));
        assert_eq!(loaded.get(&(20..30)), Some(at(20..30)));
        assert_eq!(loaded.get(&(29..31)), None);
        assert_eq!(loaded.get(&(55..60)), Some(at(55..60)));
        assert_eq!(loaded.get(&(54..60)), None);
    }
}
