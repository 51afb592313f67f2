//! The levels and values of one leaf of a row group, from the first row to the last.
//!
//! Both are walked forwards only, and every row is either taken or skipped: what is skipped is not
//! decoded unless its page is needed for a neighbour.

use std::sync::Arc;

use tempo_table::{StringDict, TableError};

use super::lane::Sink;
use crate::read::{
    Malformed,
    bits::Bits,
    footer::Physical,
    group::{GroupBytes, LeafIndex},
    hybrid,
    page::{Encoding, Page},
    values::{self, Slices},
};

const TOO_FEW_ROWS: Malformed = Malformed("column holds fewer rows than its row group");
const TOO_FEW_VALUES: Malformed = Malformed("page holds fewer values than its levels say");

/// Levels of some rows.
#[derive(Debug, Default)]
pub(super) struct Levels {
    pub(super) reps: Vec<u8>,
    pub(super) defs: Vec<u8>,
}

/// How much some rows are of a leaf.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Level entries.
    pub(super) entries: usize,
    /// Those with a value.
    pub(super) values: usize,
}

/// The levels of a leaf that has any.
#[derive(Debug)]
pub(super) struct LevelRows {
    leaf: LeafIndex,
    next_page: usize,
    levels: Levels,
    /// Entries at which a row of the page begins, and the number of entries.
    starts: Vec<u32>,
    /// The next row of the page.
    row: usize,
}

impl LevelRows {
    pub(super) fn new(leaf: LeafIndex) -> Self {
        Self {
            leaf,
            next_page: 0,
            levels: Levels::default(),
            starts: Vec::new(),
            row: 0,
        }
    }

    /// Passes `rows` rows, whose levels are appended to `out` if there is one.
    pub(super) fn advance(
        &mut self,
        bytes: &GroupBytes,
        mut rows: usize,
        mut out: Option<&mut Levels>,
    ) -> Result<Counts, TableError> {
        let mut counts = Counts::default();
        while rows > 0 {
            let left = self.starts.len().saturating_sub(1) - self.row.min(self.starts.len());
            if left == 0 {
                self.load(bytes)?;
                continue;
            }
            let count = rows.min(left);
            let entries = self.starts[self.row] as usize..self.starts[self.row + count] as usize;
            let max = bytes.leaf(self.leaf).max_def;
            let defs = &self.levels.defs[entries.clone()];
            counts.values += defs.iter().filter(|&&def| def == max).count();
            counts.entries += entries.len();
            if let Some(out) = &mut out {
                out.defs.extend_from_slice(defs);
                out.reps.extend_from_slice(&self.levels.reps[entries]);
            }
            self.row += count;
            rows -= count;
        }
        Ok(counts)
    }

    fn load(&mut self, bytes: &GroupBytes) -> Result<(), TableError> {
        let corrupt = |malformed| bytes.corrupt(self.leaf, malformed);
        let page = bytes
            .page(self.leaf, self.next_page)?
            .ok_or_else(|| corrupt(TOO_FEW_ROWS))?;
        self.next_page += 1;
        self.levels.reps.clear();
        self.levels.defs.clear();
        self.starts.clear();
        self.row = 0;
        page.rep().expand(&mut self.levels.reps).map_err(corrupt)?;
        page.def().expand(&mut self.levels.defs).map_err(corrupt)?;
        let max = bytes.leaf(self.leaf).max_def;
        if self.levels.defs.iter().any(|&def| def > max) {
            return Err(corrupt(Malformed("level is larger than the schema allows")));
        }
        let reps = self.levels.reps.iter().enumerate();
        self.starts
            .extend(reps.filter(|&(_, &rep)| rep == 0).map(|(at, _)| at as u32));
        if self.starts.first() != Some(&0) {
            return Err(corrupt(Malformed("page does not begin with a row")));
        }
        self.starts.push(page.entries as u32);
        Ok(())
    }
}

/// What is decoded of a page.
#[derive(Debug, Default)]
enum Decoded {
    #[default]
    Nothing,
    /// Integers, and doubles as their bits.
    Numbers,
    Bools(Bits),
    /// Codes of the leaf's dictionary.
    Codes,
    /// Places in the body.
    Slices,
}

/// The values of a leaf.
#[derive(Debug)]
pub(super) struct ValueRows {
    leaf: LeafIndex,
    next_page: usize,
    page: Option<Page>,
    decoded: Decoded,
    /// Values of the page, and how many of them are passed.
    len: usize,
    at: usize,
    numbers: Vec<i64>,
    codes: Vec<u32>,
    slices: Slices,
    body: Vec<u8>,
    texts: Option<Arc<StringDict>>,
    /// Code in the output of each code of the dictionary.
    translation: Vec<u32>,
    /// Of which row group of the output.
    translated_for: u64,
}

const UNKNOWN: u32 = u32::MAX;

impl ValueRows {
    pub(super) fn new(leaf: LeafIndex) -> Self {
        Self {
            leaf,
            next_page: 0,
            page: None,
            decoded: Decoded::Nothing,
            len: 0,
            at: 0,
            numbers: Vec::new(),
            codes: Vec::new(),
            slices: Slices::default(),
            body: Vec::new(),
            texts: None,
            translation: Vec::new(),
            translated_for: 0,
        }
    }

    /// Leaves out pages that end before `row`, all of whose values are passed: pages without
    /// values are never asked for otherwise.
    pub(super) fn align(&mut self, bytes: &GroupBytes, row: usize) -> Result<(), TableError> {
        if self.at < self.len {
            return Ok(());
        }
        let pages = &bytes.page_map(self.leaf)?.pages;
        while pages
            .get(self.next_page)
            .is_some_and(|page| page.rows.end as usize <= row)
        {
            self.next_page += 1;
        }
        Ok(())
    }

    /// Passes `count` values.
    pub(super) fn skip(&mut self, bytes: &GroupBytes, mut count: usize) -> Result<(), TableError> {
        while count > 0 {
            if self.at == self.len {
                self.load(bytes)?;
                continue;
            }
            let step = count.min(self.len - self.at);
            self.at += step;
            count -= step;
        }
        Ok(())
    }

    /// Appends the next `count` values to `out`.
    pub(super) fn take(
        &mut self,
        bytes: &GroupBytes,
        mut count: usize,
        out: &mut Sink<'_>,
    ) -> Result<(), TableError> {
        while count > 0 {
            if self.at == self.len {
                self.load(bytes)?;
                continue;
            }
            self.decode(bytes)?;
            let step = count.min(self.len - self.at);
            self.copy(self.at..self.at + step, out)
                .map_err(|malformed| bytes.corrupt(self.leaf, malformed))?;
            self.at += step;
            count -= step;
        }
        Ok(())
    }

    /// The next page that has values.
    fn load(&mut self, bytes: &GroupBytes) -> Result<(), TableError> {
        let corrupt = |malformed| bytes.corrupt(self.leaf, malformed);
        let page = bytes
            .page(self.leaf, self.next_page)?
            .ok_or_else(|| corrupt(TOO_FEW_ROWS))?;
        self.next_page += 1;
        self.len = page.value_count(&mut Bits::default()).map_err(corrupt)?;
        self.at = 0;
        self.decoded = Decoded::Nothing;
        self.page = Some(page);
        Ok(())
    }

    fn decode(&mut self, bytes: &GroupBytes) -> Result<(), TableError> {
        let Some(page) = self.page.take() else {
            return Ok(());
        };
        let leaf = self.leaf;
        self.decoded = match bytes.leaf(leaf).physical {
            Physical::ByteArray => self.decode_texts(bytes, &page)?,
            Physical::Boolean => {
                let mut bits = Bits::default();
                page.body(&mut self.body)
                    .and_then(|body| values::booleans(page.encoding, body, self.len, &mut bits))
                    .map_err(|malformed| bytes.corrupt(leaf, malformed))?;
                Decoded::Bools(bits)
            }
            physical => {
                let dictionary = if page.encoding == Encoding::Dictionary {
                    bytes.int_dictionary(leaf)?
                } else {
                    Arc::from([])
                };
                self.numbers.clear();
                self.numbers.resize(self.len, 0);
                let numbers = &mut self.numbers;
                page.body(&mut self.body)
                    .and_then(|body| match physical {
                        Physical::Double => {
                            values::doubles(page.encoding, body, &dictionary, numbers)
                        }
                        _ => values::ints(physical, page.encoding, body, &dictionary, numbers),
                    })
                    .map_err(|malformed| bytes.corrupt(leaf, malformed))?;
                Decoded::Numbers
            }
        };
        Ok(())
    }

    fn decode_texts(&mut self, bytes: &GroupBytes, page: &Page) -> Result<Decoded, TableError> {
        let leaf = self.leaf;
        let corrupt = |malformed| bytes.corrupt(leaf, malformed);
        if page.encoding == Encoding::Dictionary {
            let texts = match &self.texts {
                Some(texts) => texts,
                None => self.texts.insert(bytes.string_dictionary(leaf)?),
            };
            self.codes.clear();
            let body = page.body(&mut self.body).map_err(corrupt)?;
            hybrid::codes(body, self.len, texts.len(), &mut self.codes).map_err(corrupt)?;
            return Ok(Decoded::Codes);
        }
        page.body_into(&mut self.body).map_err(corrupt)?;
        self.slices
            .locate(page.encoding, &self.body, self.len)
            .map_err(corrupt)?;
        Ok(Decoded::Slices)
    }

    fn copy(&mut self, range: std::ops::Range<usize>, out: &mut Sink<'_>) -> Result<(), Malformed> {
        match (&self.decoded, out) {
            (Decoded::Numbers, Sink::Numbers(out)) => {
                out.extend_from_slice(self.numbers.get(range).ok_or(TOO_FEW_VALUES)?);
            }
            (Decoded::Bools(bits), Sink::Bools(out)) => {
                out.extend(range.map(|at| bits.get(at)));
            }
            (Decoded::Slices, Sink::Bytes(out)) => {
                self.slices
                    .copy(&self.body, range, &mut out.bytes, &mut out.lengths)?;
            }
            (Decoded::Slices, Sink::Codes { codes, dict, .. }) => {
                codes.extend(range.map(|at| dict.intern(self.slices.get(&self.body, at))));
            }
            (Decoded::Codes, Sink::Bytes(out)) => {
                let texts = self.texts.as_ref().ok_or(TOO_FEW_VALUES)?;
                for &code in self.codes.get(range).ok_or(TOO_FEW_VALUES)? {
                    out.push(texts.bytes(code));
                }
            }
            (
                Decoded::Codes,
                Sink::Codes {
                    codes,
                    dict,
                    row_group,
                },
            ) => {
                let texts = self.texts.as_ref().ok_or(TOO_FEW_VALUES)?;
                if self.translated_for != *row_group || self.translation.len() != texts.len() {
                    self.translated_for = *row_group;
                    self.translation.clear();
                    self.translation.resize(texts.len(), UNKNOWN);
                }
                let translation = &mut self.translation;
                for &code in self.codes.get(range).ok_or(TOO_FEW_VALUES)? {
                    let slot = translation.get_mut(code as usize).ok_or(TOO_FEW_VALUES)?;
                    if *slot == UNKNOWN {
                        *slot = dict.intern(texts.bytes(code));
                    }
                    codes.push(*slot);
                }
            }
            _ => return Err(Malformed("column has another type than the format says")),
        }
        Ok(())
    }
}
