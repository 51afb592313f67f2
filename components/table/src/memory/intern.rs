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
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u32,
    code: u32,
}

impl Entry {
    /// The table picks slots by low bits and tags by high bits; both must vary.
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

impl Interner {
    /// Up to here comparing all entries beats hashing, and rare columns need no table.
    const LINEAR_MAX_ENTRIES: usize = 6;

    /// An interner whose code 0 is the empty text.
    pub(super) fn with_empty() -> Self {
        let mut interner = Self::default();
        interner.dict.push(b"");
        interner
    }

    #[inline]
    pub(super) fn intern(&mut self, text: &[u8]) -> u32 {
        let entries = self.dict.len();
        if (self.last as usize) < entries && self.dict.bytes(self.last) == text {
            return self.last;
        }
        self.last = if entries <= Self::LINEAR_MAX_ENTRIES {
            (0..entries as u32)
                .find(|&code| self.dict.bytes(code) == text)
                .unwrap_or_else(|| self.dict.push(text))
        } else {
            self.intern_hashed(text)
        };
        self.last
    }

    fn intern_hashed(&mut self, text: &[u8]) -> u32 {
        if self.index.is_empty() {
            for (code, text) in (0..).zip(self.dict.iter()) {
                let hash = self.hasher.hash_one(text) as u32;
                let rehash = |entry: &Entry| Entry::spread(entry.hash);
                self.index
                    .insert_unique(Entry::spread(hash), Entry { hash, code }, rehash);
            }
        }
        let hash = self.hasher.hash_one(text) as u32;
        let known = self.index.find(Entry::spread(hash), |entry| {
            entry.hash == hash && self.dict.bytes(entry.code) == text
        });
        if let Some(entry) = known {
            return entry.code;
        }
        let code = self.dict.push(text);
        self.index
            .insert_unique(Entry::spread(hash), Entry { hash, code }, |entry| {
                Entry::spread(entry.hash)
            });
        code
    }

    pub(super) fn len(&self) -> usize {
        self.dict.len()
    }

    pub(super) fn finish(mut self) -> StringDict {
        self.dict.shrink_to_fit();
        self.dict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
