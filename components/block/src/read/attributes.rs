//! The generic attributes of one scope: which key stands in which slot, and whose it is.
//!
//! A slot is an entry of the `Key` leaf: one per attribute, and one placeholder per owner without
//! attributes. The leaves of values have the same slots, plus one entry per further element of an
//! array. So a key becomes a list of slots, and values are picked from the value leaves by slot,
//! without ever building attributes. This is decoded once per scope and shared by all its
//! attributes.

use std::sync::Arc;

use tempo_table::{AttributeScope, StringDict, TableError};

use super::{
    Malformed,
    bits::{Bits, Ranked, low_mask},
    file::BlockFile,
    group::{GroupBytes, LeafIndex},
    page::Page,
    pages::Selection,
    strings::LeafStrings,
    values,
};
use crate::schema::{AttributeLeaf, LeafColumn};

/// How deep the owners of a scope's attributes are nested; see [`super::structure`].
pub(super) fn owner_depth(scope: AttributeScope) -> u8 {
    match scope {
        AttributeScope::Resource => 1,
        AttributeScope::Instrumentation => 2,
        AttributeScope::Span => 3,
        AttributeScope::Event | AttributeScope::Link => 4,
    }
}

/// The leaves of a scope's generic attributes.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttributeLeaves {
    pub(super) key: LeafIndex,
    pub(super) is_array: Option<LeafIndex>,
    pub(super) strings: Option<LeafIndex>,
    pub(super) ints: Option<LeafIndex>,
    pub(super) doubles: Option<LeafIndex>,
    pub(super) bools: Option<LeafIndex>,
    pub(super) unsupported: Option<LeafIndex>,
}

impl AttributeLeaves {
    /// `None` when the file has no generic attributes of the scope.
    pub(super) fn of(file: &BlockFile, scope: AttributeScope) -> Option<Self> {
        let leaf = |leaf| file.position(LeafColumn::Attribute(scope, leaf));
        Some(Self {
            key: leaf(AttributeLeaf::Key)?,
            is_array: leaf(AttributeLeaf::IsArray),
            strings: leaf(AttributeLeaf::Value),
            ints: leaf(AttributeLeaf::ValueInt),
            doubles: leaf(AttributeLeaf::ValueDouble),
            bools: leaf(AttributeLeaf::ValueBool),
            unsupported: leaf(AttributeLeaf::ValueUnsupported),
        })
    }
}

/// Codes of keys, one per slot; narrow as long as there are few keys.
#[derive(Debug)]
enum KeyCodes {
    Narrow(Vec<u16>),
    Wide(Vec<u32>),
}

/// The code of a placeholder, or in a narrow list its likeness.
const NO_KEY: u32 = u32::MAX;

impl KeyCodes {
    fn push_none(&mut self, count: usize) {
        match self {
            Self::Narrow(codes) => codes.resize(codes.len() + count, u16::MAX),
            Self::Wide(codes) => codes.resize(codes.len() + count, NO_KEY),
        }
    }

    /// Appends the codes in order, `NO_KEY` where `present` has no bit. `distinct` is above all
    /// codes.
    fn push(
        &mut self,
        codes: &[u32],
        present: impl Iterator<Item = (u64, usize)>,
        distinct: usize,
    ) {
        if let Self::Narrow(narrow) = self
            && distinct >= usize::from(u16::MAX)
        {
            let wide = narrow.iter().map(|&code| {
                if code == u16::MAX {
                    NO_KEY
                } else {
                    u32::from(code)
                }
            });
            *self = Self::Wide(wide.collect());
        }
        match self {
            Self::Narrow(out) => spread(codes, present, u16::MAX, |code| code as u16, out),
            Self::Wide(out) => spread(codes, present, NO_KEY, |code| code, out),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Narrow(codes) => codes.len(),
            Self::Wide(codes) => codes.len(),
        }
    }

    fn get(&self, slot: usize) -> Option<u32> {
        match self {
            Self::Narrow(codes) => codes
                .get(slot)
                .filter(|&&code| code != u16::MAX)
                .map(|&code| u32::from(code)),
            Self::Wide(codes) => codes.get(slot).copied().filter(|&code| code != NO_KEY),
        }
    }

    /// Visits the words of the bit set of slots that hold `code`.
    fn find(&self, code: u32, visit: impl FnMut(usize, u64)) {
        match self {
            Self::Narrow(codes) => match u16::try_from(code) {
                Ok(code) if code != u16::MAX => find(codes, code, visit),
                _ => {}
            },
            Self::Wide(codes) => find(codes, code, visit),
        }
    }
}

/// Appends one code per bit of `present` (words of up to 64 bits).
fn spread<C: Copy>(
    codes: &[u32],
    present: impl Iterator<Item = (u64, usize)>,
    none: C,
    cast: impl Fn(u32) -> C,
    out: &mut Vec<C>,
) {
    let mut rest = codes;
    for (word, count) in present {
        let ones = word.count_ones() as usize;
        let (taken, later) = rest.split_at(ones.min(rest.len()));
        rest = later;
        if ones == count {
            out.extend(taken.iter().map(|&code| cast(code)));
        } else {
            let mut taken = taken.iter();
            out.extend((0..count).map(|bit| {
                if word >> bit & 1 == 1 {
                    taken.next().map_or(none, |&code| cast(code))
                } else {
                    none
                }
            }));
        }
    }
}

/// Visits (index, word) of the bit set of positions that hold `wanted`; words of zeros are left
/// out.
#[inline]
fn find<C: Copy + PartialEq>(codes: &[C], wanted: C, mut visit: impl FnMut(usize, u64)) {
    for (index, chunk) in codes.chunks(64).enumerate() {
        // Bytes first, bits later: the comparison then runs on whole vectors.
        let mut equal = [0_u8; 64];
        for (equal, &code) in equal.iter_mut().zip(chunk) {
            *equal = u8::from(code == wanted);
        }
        let mut word = 0;
        for (position, eight) in equal.chunks_exact(8).enumerate() {
            let eight = eight.try_into().map_or(0, u64::from_le_bytes);
            // Gathers the lowest bits of eight bytes into the highest byte.
            let bits = eight.wrapping_mul(0x0102_0408_1020_4080) >> 56;
            word |= bits << (position * 8);
        }
        if word != 0 {
            visit(index, word);
        }
    }
}

/// The attributes of one scope, for selected traces.
#[derive(Debug)]
pub(super) struct AttributeSlots {
    pub(super) leaves: AttributeLeaves,
    pub(super) depth: u8,
    keys: KeyCodes,
    names: Arc<StringDict>,
    /// Slots that begin an owner.
    begins: Ranked,
    /// Slots that hold an attribute whose value is an array; `None` when there is none.
    arrays: Option<Bits>,
}

/// How many owners are passed by in the time in which one is looked up.
const LOOKUP_COST: usize = 16;

/// An attribute that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) slot: u32,
    pub(super) owner: u32,
}

impl AttributeSlots {
    /// Decodes keys and owners. `owners` is how many rows the scope's level has in `selection`.
    pub(super) fn read(
        bytes: &GroupBytes,
        leaves: AttributeLeaves,
        scope: AttributeScope,
        selection: &Selection,
        owners: usize,
    ) -> Result<Self, TableError> {
        let depth = owner_depth(scope);
        let is_array = leaves.is_array.filter(|&leaf| bytes.may_be_nonzero(leaf));
        let needed: Vec<LeafIndex> = std::iter::once(leaves.key).chain(is_array).collect();
        bytes.load(&needed, selection)?;
        let mut strings = LeafStrings::new(bytes, leaves.key)?;
        let mut keys = KeyCodes::Narrow(Vec::new());
        let mut begins = Bits::default();
        let mut present = Bits::default();
        let mut page_bits = PageBits::default();
        let mut codes = Vec::new();
        bytes.for_pages(leaves.key, selection, |page, parts| {
            page_bits.read(page, depth)?;
            if parts.iter().all(|part| part.values.is_empty()) {
                for part in parts {
                    begins.extend_from(&page_bits.begins, part.entries.start, part.entries.end);
                    present.push_run(false, part.entries.len());
                    keys.push_none(part.entries.len());
                }
                return Ok(());
            }
            let count = page.value_count(&mut Bits::default())?;
            let mut texts = strings.page(page, count)?;
            codes.clear();
            codes.resize(count, 0);
            texts.codes(0, &mut codes)?;
            let distinct = strings.distinct();
            for part in parts {
                let (start, end) = (part.entries.start, part.entries.end);
                begins.extend_from(&page_bits.begins, start, end);
                let words = (start..end).step_by(64).map(|at| {
                    let count = (end - at).min(64);
                    (page_bits.present.word_at(at) & low_mask(count), count)
                });
                let part_codes = codes
                    .get(part.values.clone())
                    .ok_or(Malformed("page holds fewer keys than its levels say"))?;
                keys.push(part_codes, words, distinct);
                present.extend_from(&page_bits.present, start, end);
            }
            Ok(())
        })?;
        let begins = Ranked::new(begins);
        if begins.count() != owners {
            return Err(bytes.corrupt(
                leaves.key,
                Malformed("levels hold another count of owners of attributes"),
            ));
        }
        let arrays = match is_array {
            Some(leaf) => arrays(bytes, leaf, selection, &present)?,
            None => None,
        };
        let names = strings.finish();
        Ok(Self {
            leaves,
            depth,
            keys,
            names,
            begins,
            arrays,
        })
    }

    /// Heap bytes held, for caches.
    pub(super) fn heap_bytes(&self) -> usize {
        let keys = match &self.keys {
            KeyCodes::Narrow(codes) => codes.capacity() * 2,
            KeyCodes::Wide(codes) => codes.capacity() * 4,
        };
        keys + self.names.heap_bytes()
            + self.begins.heap_bytes()
            + self.arrays.as_ref().map_or(0, Bits::heap_bytes)
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.keys.len()
    }

    /// The name of the attribute in a slot; `None` for a placeholder.
    pub(super) fn name(&self, slot: usize) -> Option<&[u8]> {
        self.keys.get(slot).map(|code| self.names.bytes(code))
    }

    /// The slots of one owner.
    pub(super) fn slots_of(&self, owner: usize) -> std::ops::Range<usize> {
        self.begins.select(owner)..self.begins.select(owner + 1).min(self.slots())
    }

    /// Whether the value in a slot is an array.
    pub(super) fn is_array(&self, slot: usize) -> bool {
        self.arrays.as_ref().is_some_and(|arrays| arrays.get(slot))
    }

    /// Whether an attribute of that name may be set.
    pub(super) fn has_name(&self, name: &[u8]) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// The attributes of that name, by slot; of several that one owner has, the first.
    pub(super) fn find(&self, name: &[u8]) -> Vec<Match> {
        let mut matches: Vec<Match> = Vec::new();
        let Some(code) = self.names.iter().position(|known| known == name) else {
            return matches;
        };
        let mut last = u32::MAX;
        self.keys.find(code as u32, |index, word| {
            let begins = self.begins.bits().words().get(index).copied().unwrap_or(0);
            let before = self.begins.rank(index * 64) as u32;
            let mut rest = word;
            while rest != 0 {
                let bit = rest.trailing_zeros();
                rest &= rest - 1;
                let through = (begins & low_mask(bit as usize + 1)).count_ones();
                // A slot before the first owner would get the number that no owner has.
                let owner = (before + through).wrapping_sub(1);
                if owner != last {
                    last = owner;
                    matches.push(Match {
                        slot: (index * 64) as u32 + bit,
                        owner,
                    });
                }
            }
        });
        matches
    }

    /// All attributes, by slot.
    pub(super) fn all(&self) -> Vec<Match> {
        let mut matches = Vec::with_capacity(self.slots());
        let mut owner = u32::MAX;
        for slot in 0..self.slots() {
            owner = owner.wrapping_add(u32::from(self.begins.bits().get(slot)));
            if self.keys.get(slot).is_some() && owner != u32::MAX {
                matches.push(Match {
                    slot: slot as u32,
                    owner,
                });
            }
        }
        matches
    }

    /// The distinct names that `owners` (all if `None`) have, in no particular order.
    pub(super) fn names_of(&self, owners: Option<&tempo_table::Bitmap>) -> Vec<&[u8]> {
        let mut used = vec![false; self.names.len()];
        let mut mark = |code: Option<u32>| {
            if let Some(used) = code.and_then(|code| used.get_mut(code as usize)) {
                *used = true;
            }
        };
        match owners {
            None => (0..self.slots()).for_each(|slot| mark(self.keys.get(slot))),
            // Looking up an owner costs as much as passing by several.
            Some(owners) if owners.count() * LOOKUP_COST < owners.len() => {
                for owner in owners.iter() {
                    self.slots_of(owner)
                        .for_each(|slot| mark(self.keys.get(slot)));
                }
            }
            Some(owners) => {
                let (mut next, mut wanted) = (0, false);
                for slot in 0..self.slots() {
                    if self.begins.bits().get(slot) {
                        wanted = owners.contains(next);
                        next += 1;
                    }
                    if wanted {
                        mark(self.keys.get(slot));
                    }
                }
            }
        }
        self.names
            .iter()
            .zip(used)
            .filter_map(|(name, used)| used.then_some(name))
            .collect()
    }
}

/// Levels of a page of the `Key` leaf.
#[derive(Default)]
struct PageBits {
    /// Entries that begin an owner.
    begins: Bits,
    /// Entries that hold an attribute.
    present: Bits,
    scratch: Bits,
}

impl PageBits {
    fn read(&mut self, page: &Page, depth: u8) -> Result<(), Malformed> {
        self.begins.clear();
        self.present.clear();
        if page.is_dense() {
            self.begins.push_run(true, page.entries);
            self.present.push_run(true, page.entries);
        } else {
            page.def().at_least(depth, &mut self.begins)?;
            page.def().at_least(page.def().max, &mut self.present)?;
        }
        self.scratch.clear();
        page.rep().at_least(depth + 1, &mut self.scratch)?;
        self.begins.and_not(&self.scratch);
        Ok(())
    }
}

/// The slots whose value is an array.
fn arrays(
    bytes: &GroupBytes,
    leaf: LeafIndex,
    selection: &Selection,
    present: &Bits,
) -> Result<Option<Bits>, TableError> {
    let mut flags = Bits::default();
    let mut page_flags = Bits::default();
    let mut scratch = Vec::new();
    bytes.for_pages(leaf, selection, |page, parts| {
        let body = page.body(&mut scratch)?;
        let count = page.value_count(&mut Bits::default())?;
        page_flags.clear();
        values::booleans(page.encoding, body, count, &mut page_flags)?;
        for part in parts {
            flags.extend_from(&page_flags, part.values.start, part.values.end);
        }
        Ok(())
    })?;
    if flags.len() != present.count() {
        return Err(bytes.corrupt(leaf, Malformed("column and keys differ in their count")));
    }
    Ok((flags.count() > 0).then(|| flags.spread_over(present)))
}
