//! The simplest columns: what was pushed, in order, until a page is made of it.

use super::interner::{Interner, NO_GROUP};

/// Byte strings one after another.
#[derive(Debug, Default)]
pub(crate) struct ByteLane {
    pub(crate) bytes: Vec<u8>,
    pub(crate) lengths: Vec<i32>,
}

impl ByteLane {
    /// Appends bytes as they are. The caller keeps a trace far below 2 GiB.
    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.lengths.push(bytes.len() as i32);
    }

    /// Appends text; what is not UTF-8 gets replacement characters.
    #[inline]
    pub(crate) fn push_text(&mut self, text: &[u8]) {
        if text.is_empty() {
            self.lengths.push(0);
            return;
        }
        match std::str::from_utf8(text) {
            Ok(_) => self.push(text),
            Err(_) => self.push(String::from_utf8_lossy(text).as_bytes()),
        }
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        self.bytes.extend_from_slice(&other.bytes);
        self.lengths.extend_from_slice(&other.lengths);
    }

    pub(crate) fn len(&self) -> usize {
        self.lengths.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        self.lengths.iter().map(move |&length| {
            let (head, tail) = rest.split_at(length as usize);
            rest = tail;
            head
        })
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.lengths.truncate(len);
        let bytes = self.lengths.iter().map(|&length| length as usize).sum();
        self.bytes.truncate(bytes);
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.lengths.clear();
    }

    pub(crate) fn heap_bytes(&self) -> u64 {
        (self.bytes.capacity() + self.lengths.capacity() * 4) as u64
    }
}

/// Texts as codes of a dictionary that lives as long as the row group.
#[derive(Debug, Default)]
pub(crate) struct CodedLane {
    pub(crate) dict: Interner,
    pub(crate) codes: Vec<u32>,
}

impl CodedLane {
    #[inline]
    pub(crate) fn push(&mut self, text: &[u8]) {
        let code = self.dict.intern_of(NO_GROUP, text);
        self.codes.push(code);
    }

    pub(crate) fn heap_bytes(&self) -> u64 {
        self.dict.heap_bytes() + self.codes.capacity() as u64 * 4
    }
}
