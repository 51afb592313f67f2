//! Text to code, for one column while it is built.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::StringDict;

/// Gives every distinct text a code. Most columns repeat their last value or have only a handful
/// of them, so those are compared before anything is hashed.
#[derive(Debug, Default)]
pub(super) struct Interner {
    dict: StringDict,
    index: HashTable<Entry>,
    hasher: RandomState,
    last: u32,
    /// Code 0 is the empty text.
    has_empty: bool,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u32,
    code: u32,
}

impl Entry {
    /// The table picks slots by low bits and tags by high bits; both must vary.
    #[inline]
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

impl Interner {
    /// Up to here comparing all entries beats hashing, and rare columns need no table.
    const LINEAR_MAX_ENTRIES: usize = 6;

    /// An interner whose code 0 is the empty text.
    pub(super) fn with_empty() -> Self {
        let mut interner = Self {
            has_empty: true,
            ..Self::default()
        };
        interner.dict.push(b"");
        interner
    }

    #[inline]
    pub(super) fn intern(&mut self, text: &[u8]) -> u32 {
        let entries = self.dict.len();
        if (self.last as usize) < entries && same(self.dict.bytes(self.last), text) {
            return self.last;
        }
        self.last = if entries <= Self::LINEAR_MAX_ENTRIES {
            (0..entries as u32)
                .find(|&code| same(self.dict.bytes(code), text))
                .unwrap_or_else(|| self.dict.push(text))
        } else {
            self.intern_hashed(text)
        };
        self.last
    }

    fn intern_hashed(&mut self, text: &[u8]) -> u32 {
        if self.index.is_empty() {
            for code in 0..self.dict.len() as u32 {
                self.index_entry(code);
            }
        }
        let hash = self.hasher.hash_one(text) as u32;
        let known = self.index.find(Entry::spread(hash), |entry| {
            entry.hash == hash && same(self.dict.bytes(entry.code), text)
        });
        if let Some(entry) = known {
            return entry.code;
        }
        let code = self.dict.push(text);
        self.index_entry_hashed(code, hash);
        code
    }

    fn index_entry(&mut self, code: u32) {
        let hash = self.hasher.hash_one(self.dict.bytes(code)) as u32;
        self.index_entry_hashed(code, hash);
    }

    #[inline]
    fn index_entry_hashed(&mut self, code: u32, hash: u32) {
        let entry = Entry { hash, code };
        self.index
            .insert_unique(Entry::spread(hash), entry, |entry| {
                Entry::spread(entry.hash)
            });
    }

    /// The dictionary so far. The interner is as new then, but keeps its memory.
    pub(super) fn finish(&mut self) -> StringDict {
        // A clone has no spare room.
        let dict = self.dict.clone();
        self.dict.clear();
        self.index.clear();
        self.last = 0;
        if self.has_empty {
            self.dict.push(b"");
        }
        dict
    }
}

/// Whether two texts are equal. Most are a few words long, where a call to `memcmp` costs more
/// than the comparison.
#[inline]
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    let len = a.len();
    if len != b.len() {
        return false;
    }
    if len > 64 {
        return a == b;
    }
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    if let (Some(a_tail), Some(b_tail)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) {
        a.chunks_exact(8)
            .zip(b.chunks_exact(8))
            .all(|(a, b)| word(a) == word(b))
            && a_tail == b_tail
    } else if let (Some(a_head), Some(b_head), Some(a_tail), Some(b_tail)) = (
        a.first_chunk::<4>(),
        b.first_chunk::<4>(),
        a.last_chunk::<4>(),
        b.last_chunk::<4>(),
    ) {
        a_head == b_head && a_tail == b_tail
    } else {
        a.iter().zip(b).all(|(a, b)| a == b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_same_only_if_every_byte_is() {
        for len in 0..100 {
            let text: Vec<u8> = (0..len).collect();
            assert!(same(&text, &text.clone()));
            assert!(!same(&text, &[&text[..], b"x"].concat()));
            for at in 0..usize::from(len) {
                let mut other = text.clone();
                other[at] ^= 0x80;
                assert!(!same(&text, &other), "{len} bytes, {at} differs");
            }
        }
    }

    #[test]
    fn equal_texts_share_a_code_below_and_above_the_linear_limit() {
        let mut interner = Interner::with_empty();
        for round in 0..3 {
            for number in 0..1000_u32 {
                let text = format!("value {number}");
                assert_eq!(
                    interner.intern(text.as_bytes()),
                    number + 1,
                    "round {round}"
                );
                assert_eq!(interner.intern(text.as_bytes()), number + 1);
            }
            assert_eq!(interner.intern(b""), 0);
        }
        let dict = interner.finish();
        assert_eq!(dict.len(), 1001);
        assert_eq!(dict.bytes(500), b"value 499");
        // And again from the beginning.
        assert_eq!(interner.intern(b"value 7"), 1);
        assert_eq!(interner.intern(b""), 0);
        assert_eq!(interner.finish().len(), 2);
    }
}
