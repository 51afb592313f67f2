//! A few texts of a large dictionary, out of the fragments that hold them.

use tempo_model::otlp::write_varint;
use tempo_table::{StringDict, TableError};

use super::{
    Malformed,
    group::{GroupBytes, LeafIndex},
};
use crate::hints::{DictionaryHint, FRAGMENT_BYTES, Fragment};

const CUT: Malformed = Malformed("byte string is cut");

/// The fragments of a dictionary, read and decompressed as they are needed.
pub(super) struct Fragments<'a> {
    bytes: &'a GroupBytes,
    leaf: LeafIndex,
    /// Where the dictionary's page begins and ends in the file.
    page: (u64, u64),
    plain_bytes: usize,
    fragments: &'a [Fragment],
    /// Fragments that follow each other, decompressed.
    window: Vec<u8>,
    /// The one that follows the window.
    next: usize,
    /// Where entry number `entry` begins in the window.
    at: usize,
    entry: u32,
    scratch: Vec<u8>,
}

impl<'a> Fragments<'a> {
    /// Those of a leaf whose dictionary can be read in fragments.
    pub(super) fn of(bytes: &'a GroupBytes, leaf: LeafIndex) -> Result<Self, TableError> {
        let page = bytes.page_map(leaf)?.dictionary.clone();
        let (
            Some(page),
            Some(DictionaryHint::Fragments {
                plain_bytes,
                fragments,
                ..
            }),
        ) = (page, bytes.hint(leaf))
        else {
            return Err(bytes.corrupt(leaf, Malformed("dictionary has no fragments")));
        };
        Ok(Self {
            bytes,
            leaf,
            page: (page.start, page.end),
            plain_bytes: *plain_bytes as usize,
            fragments,
            window: Vec::new(),
            next: 0,
            at: 0,
            entry: 0,
            scratch: Vec::new(),
        })
    }

    /// The entries at `positions`, which ascend.
    pub(super) fn pick(mut self, positions: &[u32]) -> Result<StringDict, TableError> {
        let mut picked = StringDict::new();
        for &position in positions {
            self.go_to(position)?;
            let start = self.at + 4;
            let end = start + self.entry_len()?;
            self.need(end)?;
            picked.push(self.window.get(start..end).unwrap_or_default());
        }
        Ok(picked)
    }

    fn corrupt(&self, malformed: Malformed) -> TableError {
        self.bytes.corrupt(self.leaf, malformed)
    }

    fn go_to(&mut self, position: u32) -> Result<(), TableError> {
        let after = self
            .fragments
            .partition_point(|fragment| fragment.first_entry <= position);
        let holder = after.saturating_sub(1);
        if holder >= self.next {
            let fragment = self.fragments.get(holder);
            let fragment = fragment.ok_or_else(|| self.corrupt(CUT))?;
            self.window.clear();
            self.next = holder;
            self.at = fragment.first_start as usize;
            self.entry = fragment.first_entry;
        }
        while self.entry < position {
            self.at += 4 + self.entry_len()?;
            self.entry += 1;
        }
        match self.entry == position {
            true => Ok(()),
            false => Err(self.corrupt(CUT)),
        }
    }

    fn entry_len(&mut self) -> Result<usize, TableError> {
        self.need(self.at + 4)?;
        let rest = self.window.get(self.at..).unwrap_or_default();
        let len = rest.first_chunk::<4>().ok_or_else(|| self.corrupt(CUT))?;
        Ok(u32::from_le_bytes(*len) as usize)
    }

    /// Makes the window reach to `end`.
    fn need(&mut self, end: usize) -> Result<(), TableError> {
        while self.window.len() < end {
            self.extend()?;
        }
        Ok(())
    }

    /// Adds the next fragment to the window.
    fn extend(&mut self) -> Result<(), TableError> {
        let in_file = |fragment: &Fragment| self.page.0 + u64::from(fragment.stored_start);
        let start = self.fragments.get(self.next).map(in_file);
        let end = self.fragments.get(self.next + 1).map(in_file);
        let end = end.unwrap_or(self.page.1);
        let (Some(start), true) = (start, end <= self.page.1) else {
            return Err(self.corrupt(CUT));
        };
        if start >= end {
            return Err(self.corrupt(CUT));
        }
        let stored = self.bytes.bytes(&(start..end))?;
        let checksum = self.fragments.get(self.next).map(|known| known.checksum);
        if checksum != Some(crc32fast::hash(&stored)) {
            return Err(self.corrupt(Malformed("fragment does not match its checksum")));
        }
        let passed = self.next.saturating_mul(FRAGMENT_BYTES);
        let len = self.plain_bytes.saturating_sub(passed).min(FRAGMENT_BYTES);
        // On its own it has its own length in front.
        self.scratch.clear();
        write_varint(&mut self.scratch, len as u64);
        self.scratch.extend_from_slice(&stored);
        let before = self.window.len();
        self.window.resize(before + len, 0);
        self.next += 1;
        match snap::raw::Decoder::new().decompress(&self.scratch, &mut self.window[before..]) {
            Ok(written) if written == len => Ok(()),
            _ => Err(self.corrupt(Malformed("fragment is not valid Snappy"))),
        }
    }
}
