//! Texts and ids of few rows, as they are.
//!
//! Where [`super::strings`] makes codes for scans over whole leaves, this collects the texts of a
//! selection: a dictionary of a million entries is not built for ten of them, only walked.

use std::sync::Arc;

use tempo_table::{StringDict, TableError};

use super::{
    Malformed,
    fragments::Fragments,
    group::{GroupBytes, LeafIndex},
    hybrid,
    page::{Encoding, Page},
    pages::Selection,
    values::{self, Slices},
};

/// From this share of the rows on (as a divisor) the whole dictionary is built.
pub(super) const WHOLE_DICTIONARY_SHARE: u32 = 8;

/// Texts by position.
#[derive(Debug, Default)]
pub(super) struct Texts {
    dict: Arc<StringDict>,
    codes: Vec<u32>,
    loose: StringDict,
}

impl Texts {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.codes.len()
    }

    /// The text at a position; empty beyond the last.
    pub(super) fn get(&self, at: usize) -> &[u8] {
        let Some(&code) = self.codes.get(at) else {
            return &[];
        };
        match (code as usize).checked_sub(self.dict.len()) {
            None => self.dict.bytes(code),
            Some(loose) if loose < self.loose.len() => self.loose.bytes(loose as u32),
            Some(_) => &[],
        }
    }
}

enum Dictionary {
    None,
    Whole(Arc<StringDict>),
    /// Resolved at the end, when it is known which entries are needed.
    Later(Page),
    /// So is this one, out of some of its fragments.
    Fragments {
        entries: usize,
    },
}

impl Dictionary {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Whole(dict) => dict.len(),
            Self::Later(page) => page.entries,
            Self::Fragments { entries } => *entries,
        }
    }
}

/// Collects texts of one leaf, page after page.
pub(super) struct TextCollector {
    dictionary: Dictionary,
    texts: Texts,
    loose_bytes: u64,
    page_codes: Vec<u32>,
    slices: Slices,
    scratch: Vec<u8>,
}

impl TextCollector {
    pub(super) fn new(
        bytes: &GroupBytes,
        leaf: LeafIndex,
        selection: &Selection,
    ) -> Result<Self, TableError> {
        bytes.load(&[leaf], selection)?;
        let many = selection.rows() >= selection.of() / WHOLE_DICTIONARY_SHARE;
        let is_kept_now = || {
            let kept = bytes.kept();
            kept.is_some_and(|kept| kept.dictionary_asked_again(leaf))
        };
        let dictionary = if many || bytes.known_dictionary(leaf).is_some() {
            Dictionary::Whole(bytes.string_dictionary(leaf)?)
        } else if let Some(entries) = bytes.fragmented_entries(leaf) {
            Dictionary::Fragments { entries }
        } else if is_kept_now() {
            Dictionary::Whole(bytes.string_dictionary(leaf)?)
        } else {
            bytes
                .dictionary_page(leaf)?
                .map_or(Dictionary::None, Dictionary::Later)
        };
        Ok(Self {
            dictionary,
            texts: Texts::default(),
            loose_bytes: 0,
            page_codes: Vec::new(),
            slices: Slices::default(),
            scratch: Vec::new(),
        })
    }

    /// Adds the texts at `wanted` positions among the first `count` of a page.
    pub(super) fn add(
        &mut self,
        page: &Page,
        count: usize,
        wanted: impl Iterator<Item = usize>,
    ) -> Result<(), Malformed> {
        let entries = self.dictionary.len();
        let body = page.body(&mut self.scratch)?;
        if page.encoding == Encoding::Dictionary {
            self.page_codes.clear();
            hybrid::codes(body, count, entries, &mut self.page_codes)?;
            for at in wanted {
                let code = self.page_codes.get(at);
                let code = code.ok_or(Malformed("page holds fewer values than its levels say"))?;
                self.texts.codes.push(*code);
            }
            return Ok(());
        }
        self.slices.locate(page.encoding, body, count)?;
        for at in wanted {
            let text = self.slices.get(body, at);
            self.loose_bytes += text.len() as u64;
            if self.loose_bytes > u64::from(u32::MAX) {
                return Err(Malformed("texts of a column exceed 4 GiB"));
            }
            let code = entries + self.texts.loose.push(text) as usize;
            self.texts.codes.push(code as u32);
        }
        Ok(())
    }

    /// The texts of `leaf` that were added, in order.
    pub(super) fn finish(self, bytes: &GroupBytes, leaf: LeafIndex) -> Result<Texts, TableError> {
        let mut texts = self.texts;
        match &self.dictionary {
            Dictionary::None => {}
            Dictionary::Whole(dict) => texts.dict = Arc::clone(dict),
            Dictionary::Later(page) => resolve(&mut texts, page.entries, |needed| {
                let mut scratch = Vec::new();
                page.body(&mut scratch)
                    .and_then(|body| values::pick_strings(body, needed))
                    .map_err(|malformed| bytes.corrupt(leaf, malformed))
            })?,
            Dictionary::Fragments { entries } => resolve(&mut texts, *entries, |needed| {
                Fragments::of(bytes, leaf)?.pick(needed)
            })?,
        }
        Ok(texts)
    }
}

/// Picks the needed ones of `entries` out of the dictionary, and renames the codes.
fn resolve(
    texts: &mut Texts,
    entries: usize,
    pick: impl FnOnce(&[u32]) -> Result<StringDict, TableError>,
) -> Result<(), TableError> {
    let entries = entries as u32;
    let mut needed: Vec<u32> = texts
        .codes
        .iter()
        .copied()
        .filter(|&code| code < entries)
        .collect();
    needed.sort_unstable();
    needed.dedup();
    if !needed.is_empty() {
        texts.dict = Arc::new(pick(&needed)?);
    }
    for code in &mut texts.codes {
        *code = match needed.binary_search(code) {
            Ok(at) => at as u32,
            Err(_) => *code - entries + needed.len() as u32,
        };
    }
    Ok(())
}

/// The texts of a leaf that has one per row, for `len` selected rows.
pub(super) fn read(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    selection: &Selection,
    len: usize,
) -> Result<Texts, TableError> {
    let mut collector = TextCollector::new(bytes, leaf, selection)?;
    bytes.for_pages(leaf, selection, |page, parts| {
        let count = page.value_count(&mut Default::default())?;
        let wanted = parts.iter().flat_map(|part| part.values.clone());
        collector.add(page, count, wanted)
    })?;
    let texts = collector.finish(bytes, leaf)?;
    if texts.len() != len {
        return Err(bytes.corrupt(
            leaf,
            Malformed("column holds another count of values than its level has rows"),
        ));
    }
    Ok(texts)
}
