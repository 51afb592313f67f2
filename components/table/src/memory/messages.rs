//! Whole messages to numbers, while a table is built.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Distinct messages, numbered in the order in which they were inserted.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    index: HashTable<(u64, u32)>,
    hasher: RandomState,
    last: u32,
}

impl Messages {
    fn bytes(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let start = if number == 0 {
            0
        } else {
            self.ends[number - 1]
        };
        &self.bytes[start..self.ends[number]]
    }

    pub(super) fn find(&mut self, message: &[u8]) -> Option<u32> {
        if (self.last as usize) < self.ends.len() && self.bytes(self.last) == message {
            return Some(self.last);
        }
        let hash = self.hasher.hash_one(message);
        let &(_, number) = self.index.find(hash, |&(other, number)| {
            other == hash && self.bytes(number) == message
        })?;
        self.last = number;
        Some(number)
    }

    /// `message` must not be known yet.
    pub(super) fn insert(&mut self, message: &[u8]) {
        let number = self.ends.len() as u32;
        self.bytes.extend_from_slice(message);
        self.ends.push(self.bytes.len());
        let hash = self.hasher.hash_one(message);
        self.index
            .insert_unique(hash, (hash, number), |&(hash, _)| hash);
        self.last = number;
    }

    /// Forgets all messages, keeps the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.index.clear();
        self.last = 0;
    }
}
