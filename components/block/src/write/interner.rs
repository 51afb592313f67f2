//! Text to dictionary code, for one column of a row group.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use super::wire::is_same;
use crate::ahead::fetch_line_ahead;

/// Gives every distinct text a code, from 0 in order of appearance, and keeps the texts as a
/// dictionary page lays them out: length and bytes, one after another.
///
/// Codes do not depend on the hash, whose seed is random: senders cannot make texts collide.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    plain: Vec<u8>,
    /// Where each text ends in `plain`.
    ends: Vec<u32>,
    /// Open addressing.
    slots: Vec<Slot>,
    /// By group: what was looked up last.
    last: Vec<Slot>,
    hasher: RandomState,
}

/// The group of all texts, where a dictionary has one kind of them.
pub(crate) const NO_GROUP: u32 = 0;

/// Groups beyond these are not remembered.
const MAX_GROUPS: u32 = 1 << 10;

/// What is known of a text without looking at it.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u32,
    /// Where its bytes begin.
    start: u32,
    length: u32,
    /// Its code + 1, 0 where the slot is free.
    next_code: u32,
}

const LENGTH_BYTES: usize = 4;
const MIN_SLOTS: usize = 16;

impl Interner {
    /// The code of a text. Text that is not UTF-8 is kept with replacement characters, since
    /// readers rely on it.
    #[inline]
    pub(crate) fn intern(&mut self, text: &[u8]) -> u32 {
        let slot = self.slot_of(self.hash(text), text);
        self.slots[slot].next_code - 1
    }

    /// The same for a text of a group in which the last one often comes again, such as the values of
    /// a key: it is found without hashing it.
    #[inline]
    pub(crate) fn intern_of(&mut self, group: u32, text: &[u8]) -> u32 {
        match self.again(group, text) {
            Some(code) => code,
            None => self.intern_sought(group, self.hash(text), text),
        }
    }

    /// The code of the text that a group had last, if it is this one.
    #[inline]
    pub(crate) fn again(&self, group: u32, text: &[u8]) -> Option<u32> {
        let last = self.last.get(group as usize)?;
        self.is_text(last, text).then(|| last.next_code - 1)
    }

    /// Begins to look a text up: the processor fetches the place where it must be found. Returns the
    /// hash, for [`Interner::seek_text`] and [`Interner::intern_sought`] a little later, which need not
    /// wait for it.
    #[inline]
    pub(crate) fn seek(&self, text: &[u8]) -> u32 {
        let hash = self.hash(text);
        if let Some(slot) = self.first_slot(hash) {
            fetch_line_ahead(slot);
        }
        hash
    }

    /// The same for the bytes of the known text that it is most likely the same as.
    #[inline]
    pub(crate) fn seek_text(&self, hash: u32) {
        if let Some(slot) = self.first_slot(hash)
            && let Some(byte) = self.plain.get(slot.start as usize)
        {
            fetch_line_ahead(byte);
        }
    }

    /// [`Interner::intern_of`] for a text of which [`Interner::seek`] gave the hash.
    #[inline]
    pub(crate) fn intern_sought(&mut self, group: u32, hash: u32, text: &[u8]) -> u32 {
        let slot = self.slot_of(hash, text);
        self.remember(group, slot);
        self.slots[slot].next_code - 1
    }

    #[inline]
    fn remember(&mut self, group: u32, slot: usize) {
        if group as usize >= self.last.len() {
            if group >= MAX_GROUPS {
                return;
            }
            self.last.resize(group as usize + 1, Slot::default());
        }
        self.last[group as usize] = self.slots[slot];
    }

    #[inline]
    fn is_text(&self, slot: &Slot, text: &[u8]) -> bool {
        slot.next_code > 0
            && slot.length as usize == text.len()
            && is_same(&self.plain[slot.start as usize..][..text.len()], text)
    }

    /// Where a text of this hash is looked for first.
    #[inline]
    fn first_slot(&self, hash: u32) -> Option<&Slot> {
        let mask = self.slots.len().wrapping_sub(1);
        self.slots.get(hash as usize & mask)
    }

    #[inline]
    fn hash(&self, text: &[u8]) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text);
        hasher.finish() as u32
    }

    /// Where a text is in the table, from now on at least.
    #[inline]
    fn slot_of(&mut self, hash: u32, text: &[u8]) -> usize {
        match self.find(hash, text) {
            Ok(slot) => slot,
            Err(free) => self.insert(hash, free, text),
        }
    }

    /// The slot of a text, or the free one for it.
    #[inline]
    fn find(&self, hash: u32, text: &[u8]) -> Result<usize, usize> {
        if self.slots.is_empty() {
            return Err(0);
        }
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = &self.slots[at];
            if slot.next_code == 0 {
                return Err(at);
            }
            if slot.hash == hash && self.is_text(slot, text) {
                return Ok(at);
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    #[inline(never)]
    fn insert(&mut self, hash: u32, free: usize, text: &[u8]) -> usize {
        if std::str::from_utf8(text).is_err() {
            let replaced = String::from_utf8_lossy(text).into_owned();
            let replaced = replaced.as_bytes();
            return self.slot_of(self.hash(replaced), replaced);
        }
        let code = self.ends.len() as u32;
        let length = text.len() as u32;
        self.plain.extend_from_slice(&length.to_le_bytes());
        let start = self.plain.len() as u32;
        self.plain.extend_from_slice(text);
        self.ends.push(self.plain.len() as u32);
        let slot = if (self.ends.len() + 1) * 4 > self.slots.len() * 3 {
            self.grow();
            self.find_free(hash)
        } else {
            free
        };
        self.slots[slot] = Slot {
            hash,
            start,
            length,
            next_code: code + 1,
        };
        slot
    }

    fn find_free(&self, hash: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at].next_code != 0 {
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(MIN_SLOTS);
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); size]);
        for slot in old.into_iter().filter(|slot| slot.next_code != 0) {
            let at = self.find_free(slot.hash);
            self.slots[at] = slot;
        }
    }

    /// Where the text of a code stands in [`Interner::plain`].
    pub(crate) fn place(&self, code: u32) -> std::ops::Range<usize> {
        let end = self.ends[code as usize] as usize;
        let start = end - self.bytes(code).len();
        start..end
    }

    /// The text of a code.
    #[inline]
    pub(crate) fn bytes(&self, code: u32) -> &[u8] {
        let code = code as usize;
        let start = match code {
            0 => 0,
            _ => self.ends[code - 1] as usize,
        };
        &self.plain[start + LENGTH_BYTES..self.ends[code] as usize]
    }

    /// Number of texts.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The texts in code order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len() as u32).map(|code| self.bytes(code))
    }

    /// The content of the dictionary page.
    pub(crate) fn plain(&self) -> &[u8] {
        &self.plain
    }

    /// Forgets all texts; keeps the memory unless it is much.
    pub(crate) fn clear(&mut self) {
        const KEPT_SLOTS: usize = 1 << 12;
        self.ends.clear();
        self.plain.clear();
        self.last.clear();
        if self.slots.len() > KEPT_SLOTS {
            *self = Self::default();
        } else {
            self.slots.fill(Slot::default());
        }
    }

    /// Heap bytes held.
    pub(crate) fn heap_bytes(&self) -> u64 {
        (self.plain.capacity()
            + self.ends.capacity() * 4
            + self.last.capacity() * size_of::<Slot>()
            + self.slots.capacity() * size_of::<Slot>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_appearance_and_texts_are_laid_out_plain() {
        let mut interner = Interner::default();
        for round in 0..2 {
            for number in 0..10_000_u32 {
                let text = format!("value {number}");
                assert_eq!(interner.intern(text.as_bytes()), number, "round {round}");
            }
        }
        assert_eq!(interner.len(), 10_000);
        assert_eq!(interner.bytes(4711), b"value 4711");
        assert_eq!(&interner.plain()[..11], b"\x07\0\0\0value 0");
        assert_eq!(interner.iter().count(), 10_000);
        interner.clear();
        assert_eq!(interner.intern(b""), 0);
        assert_eq!(interner.intern(b"x"), 1);
        assert_eq!(interner.intern(b""), 0);
    }

    #[test]
    fn what_comes_again_in_a_group_has_its_code() {
        let mut interner = Interner::default();
        let texts: [&[u8]; 6] = [
            b"one",
            b"two",
            b"one",
            b"",
            b"\xff",
            b"a text of more bytes",
        ];
        for round in 0..3 {
            for group in [0, 7, MAX_GROUPS - 1, MAX_GROUPS, u32::MAX] {
                for (at, text) in texts.into_iter().enumerate() {
                    let code = [0, 1, 0, 2, 3, 4][at];
                    for again in 0..2 {
                        assert_eq!(interner.intern_of(group, text), code, "{round} {again}");
                    }
                }
            }
            assert_eq!(interner.len(), 5);
            if round == 1 {
                interner.clear();
            }
        }
        interner.clear();
        assert_eq!(interner.intern_of(0, b"two"), 0, "nothing is remembered");
    }

    #[test]
    fn invalid_text_is_replaced_once() {
        let mut interner = Interner::default();
        let bad = interner.intern(b"a\xffb");
        assert_eq!(interner.bytes(bad), "a\u{fffd}b".as_bytes());
        assert_eq!(interner.intern(b"a\xffb"), bad);
        assert_eq!(interner.intern("a\u{fffd}b".as_bytes()), bad);
        assert_eq!(interner.len(), 1);
    }
}
