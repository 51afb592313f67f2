//! Texts of a leaf as codes: those of its dictionary, and new ones for pages without.

use std::{hash::BuildHasher, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use tempo_table::{ABSENT, StringDict, StringLane, TableError};

use super::{
    Malformed,
    group::{GroupBytes, LeafIndex},
    hybrid,
    page::{Encoding, Page},
    values::Slices,
};

/// Codes for texts that no dictionary page holds. They follow the dictionary's.
#[derive(Default)]
struct Loose {
    table: HashTable<u32>,
    texts: StringDict,
    bytes: u64,
    hasher: RandomState,
    seeded: bool,
    last: Option<u32>,
    /// The code of the empty text, which is most of some columns.
    empty: Option<u32>,
}

impl Loose {
    #[inline]
    fn intern(&mut self, dictionary: &StringDict, text: &[u8]) -> Result<u32, Malformed> {
        match self.empty {
            Some(code) if text.is_empty() => Ok(code),
            _ => self.look_up(dictionary, text),
        }
    }

    fn look_up(&mut self, dictionary: &StringDict, text: &[u8]) -> Result<u32, Malformed> {
        let base = dictionary.len() as u32;
        let texts = &self.texts;
        let bytes_of = |code: u32| match code.checked_sub(base) {
            None => dictionary.bytes(code),
            Some(loose) => texts.bytes(loose),
        };
        // Rows of a trace often repeat the text of the row before.
        if let Some(last) = self.last
            && bytes_of(last) == text
        {
            return Ok(last);
        }
        if !self.seeded {
            self.seeded = true;
            for (code, entry) in (0..).zip(dictionary.iter()) {
                let hash = self.hasher.hash_one(entry);
                self.table
                    .insert_unique(hash, code, |&code| self.hasher.hash_one(bytes_of(code)));
            }
        }
        let hash = self.hasher.hash_one(text);
        if let Some(&code) = self.table.find(hash, |&code| bytes_of(code) == text) {
            self.remember(code, text);
            return Ok(code);
        }
        self.bytes += text.len() as u64;
        if self.bytes > u64::from(u32::MAX) {
            return Err(Malformed("texts of a column exceed 4 GiB"));
        }
        let code = base + self.texts.push(text);
        let texts = &self.texts;
        self.table.insert_unique(hash, code, |&code| {
            self.hasher.hash_one(match code.checked_sub(base) {
                None => dictionary.bytes(code),
                Some(loose) => texts.bytes(loose),
            })
        });
        self.remember(code, text);
        Ok(code)
    }

    fn remember(&mut self, code: u32, text: &[u8]) {
        self.last = Some(code);
        if text.is_empty() {
            self.empty = Some(code);
        }
    }
}

/// Reads the texts of one leaf, page after page.
pub(super) struct LeafStrings {
    dictionary: Arc<StringDict>,
    loose: Loose,
    codes: Vec<u32>,
    slices: Slices,
    scratch: Vec<u8>,
}

impl LeafStrings {
    pub(super) fn new(bytes: &GroupBytes, leaf: LeafIndex) -> Result<Self, TableError> {
        Ok(Self {
            dictionary: bytes.string_dictionary(leaf)?,
            loose: Loose::default(),
            codes: Vec::new(),
            slices: Slices::default(),
            scratch: Vec::new(),
        })
    }

    /// The first `count` texts of a page, which holds no more.
    pub(super) fn page<'a>(
        &'a mut self,
        page: &'a Page,
        count: usize,
    ) -> Result<PageTexts<'a>, Malformed> {
        let body = page.body(&mut self.scratch)?;
        let texts = match page.encoding {
            Encoding::Dictionary => {
                self.codes.clear();
                hybrid::codes(body, count, self.dictionary.len(), &mut self.codes)?;
                Texts::Codes(&self.codes)
            }
            encoding => {
                self.slices.locate(encoding, body, count)?;
                Texts::Slices(body, &self.slices)
            }
        };
        Ok(PageTexts {
            texts,
            dictionary: &self.dictionary,
            loose: &mut self.loose,
        })
    }

    /// Distinct texts so far; every code is below.
    pub(super) fn distinct(&self) -> usize {
        self.dictionary.len() + self.loose.texts.len()
    }

    /// The texts by code.
    pub(super) fn finish(self) -> Arc<StringDict> {
        if self.loose.texts.is_empty() {
            return self.dictionary;
        }
        if self.dictionary.is_empty() {
            return Arc::new(self.loose.texts);
        }
        let mut all = StringDict::new();
        for text in self.dictionary.iter().chain(self.loose.texts.iter()) {
            all.push(text);
        }
        Arc::new(all)
    }
}

enum Texts<'a> {
    Codes(&'a [u32]),
    Slices(&'a [u8], &'a Slices),
}

/// The texts of one page.
pub(super) struct PageTexts<'a> {
    texts: Texts<'a>,
    dictionary: &'a StringDict,
    loose: &'a mut Loose,
}

impl PageTexts<'_> {
    /// The code of one text.
    #[inline]
    pub(super) fn code(&mut self, index: usize) -> Result<u32, Malformed> {
        match &self.texts {
            Texts::Codes(codes) => codes
                .get(index)
                .copied()
                .ok_or(Malformed("page holds fewer values than its levels say")),
            Texts::Slices(body, slices) => {
                self.loose.intern(self.dictionary, slices.get(body, index))
            }
        }
    }

    /// The codes of `out.len()` texts from `start` on.
    pub(super) fn codes(&mut self, start: usize, out: &mut [u32]) -> Result<(), Malformed> {
        if let Texts::Codes(codes) = &self.texts {
            let codes = codes
                .get(start..start + out.len())
                .ok_or(Malformed("page holds fewer values than its levels say"))?;
            out.copy_from_slice(codes);
            return Ok(());
        }
        for (index, out) in (start..).zip(out) {
            *out = self.code(index)?;
        }
        Ok(())
    }

    /// One text.
    pub(super) fn text(&mut self, index: usize) -> Result<&[u8], Malformed> {
        match &self.texts {
            Texts::Slices(body, slices) => Ok(slices.get(body, index)),
            Texts::Codes(_) => {
                let code = self.code(index)?;
                Ok(self.dictionary.bytes(code))
            }
        }
    }
}

/// The text lane of a column under construction. Codes of several leaves may come together.
#[derive(Default)]
pub(super) struct StringSink {
    pub(super) codes: Vec<u32>,
    sources: Vec<Arc<StringDict>>,
    base: u32,
}

impl StringSink {
    pub(super) fn new(len: usize) -> Self {
        Self {
            codes: vec![ABSENT; len],
            sources: Vec::new(),
            base: 0,
        }
    }

    /// What to add to the codes of the leaf that comes next.
    pub(super) fn base(&self) -> u32 {
        self.base
    }

    /// Closes the leaf whose codes were added.
    pub(super) fn add_source(&mut self, dict: Arc<StringDict>) -> Result<(), Malformed> {
        self.base = u32::try_from(dict.len())
            .ok()
            .and_then(|len| self.base.checked_add(len))
            .filter(|&base| base < ABSENT)
            .ok_or(Malformed("columns hold more than 2^32 texts"))?;
        self.sources.push(dict);
        Ok(())
    }

    /// The lane; `None` when no row has a text. A dictionary of which little is used (that of all generic attributes, say) is
    /// replaced by one of the used texts, so that predicates run on few.
    pub(super) fn finish(mut self) -> Option<StringLane> {
        let total = self.base as usize;
        let mut used = vec![false; total];
        for &code in &self.codes {
            if let Some(used) = used.get_mut(code as usize) {
                *used = true;
            }
        }
        let count = used.iter().filter(|&&used| used).count();
        if count == 0 {
            return None;
        }
        if let [only] = self.sources.as_slice()
            && count * 2 >= total
        {
            return Some(StringLane {
                dict: Arc::clone(only),
                codes: self.codes.into(),
            });
        }
        let dictionary = StringDict::new();
        let mut texts = Loose {
            seeded: true,
            ..Loose::default()
        };
        let mut renamed = vec![ABSENT; total];
        let mut code = 0;
        for source in &self.sources {
            for text in source.iter() {
                if used[code] {
                    // Only several sources can hold a text twice.
                    renamed[code] = match self.sources.len() {
                        1 => texts.texts.push(text),
                        _ => texts.intern(&dictionary, text).unwrap_or(ABSENT),
                    };
                }
                code += 1;
            }
        }
        for code in &mut self.codes {
            *code = renamed.get(*code as usize).copied().unwrap_or(ABSENT);
        }
        Some(StringLane {
            dict: Arc::new(texts.texts),
            codes: self.codes.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dict(texts: &[&str]) -> Arc<StringDict> {
        let mut dict = StringDict::new();
        for text in texts {
            dict.push(text.as_bytes());
        }
        Arc::new(dict)
    }

    fn texts(lane: &StringLane) -> Vec<Option<String>> {
        let text = |&code: &u32| (code != ABSENT).then(|| lane.dict.text(code).into_owned());
        lane.codes.iter().map(text).collect()
    }

    #[test]
    fn unused_texts_are_dropped_and_equal_ones_of_two_leaves_united() {
        let mut sink = StringSink::new(5);
        sink.codes[1] = 3;
        sink.codes[4] = 0;
        sink.add_source(dict(&["a", "b", "c", "d", "e"])).unwrap();
        sink.codes[0] = sink.base() + 1;
        sink.codes[3] = sink.base();
        sink.add_source(dict(&["", "a"])).unwrap();
        let lane = sink.finish().unwrap();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            texts(&lane),
            [text("a"), text("d"), None, text(""), text("a")]
        );
        assert_eq!(lane.codes[0], lane.codes[4]);
        assert_eq!(lane.dict.len(), 3);
    }

    #[test]
    fn loose_texts_share_codes_with_the_dictionary() {
        let dictionary = dict(&["x", "y"]);
        let mut loose = Loose::default();
        let codes: Vec<u32> = ["z", "y", "y", "z", "w", "x"]
            .iter()
            .map(|text| loose.intern(&dictionary, text.as_bytes()).unwrap())
            .collect();
        assert_eq!(codes, [2, 1, 1, 2, 3, 0]);
    }
}
