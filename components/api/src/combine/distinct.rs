//! A set that stops growing at a limit.

use std::{collections::HashSet, hash::Hash};

/// Limits of a [`Distinct`] set; 0 means none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    /// The items together stay below this many bytes.
    pub(super) max_bytes: u64,
    /// No more items than this.
    pub(super) max_items: u32,
    /// Collecting ends after this many items in a row that are known already.
    pub(super) max_stale_items: u32,
}

/// Distinct items, and which of them are new since one last asked.
#[derive(Debug)]
pub(super) struct Distinct<T> {
    items: HashSet<T>,
    new: Vec<T>,
    limits: Limits,
    bytes: u64,
    stale: u32,
    full: bool,
}

impl<T: Clone + Eq + Hash + Ord> Distinct<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            items: HashSet::new(),
            new: Vec::new(),
            limits,
            bytes: 0,
            stale: 0,
            full: false,
        }
    }

    /// Adds an item of `bytes` bytes; returns whether it was new and fitted.
    pub(super) fn add(&mut self, item: T, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let Limits {
            max_bytes,
            max_items,
            max_stale_items,
        } = self.limits;
        if self.full
            || max_bytes > 0 && self.bytes + bytes >= max_bytes
            || max_items > 0 && self.items.len() >= max_items as usize
            || max_stale_items > 0 && self.stale >= max_stale_items
        {
            self.full = true;
            return false;
        }
        if !self.items.insert(item.clone()) {
            self.stale += 1;
            return false;
        }
        self.stale = 0;
        self.bytes += bytes;
        self.new.push(item);
        true
    }

    /// Whether a limit was hit; from then on nothing is added.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// All items, sorted.
    pub(super) fn sorted(&self) -> Vec<T> {
        let mut items: Vec<T> = self.items.iter().cloned().collect();
        items.sort_unstable();
        items
    }

    /// The items added since the last call, sorted.
    pub(super) fn take_new(&mut self) -> Vec<T> {
        let mut new = std::mem::take(&mut self.new);
        new.sort_unstable();
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_ends_collecting() {
        let fill = |limits: Limits, items: &[&str]| {
            let mut distinct = Distinct::new(limits);
            for item in items {
                distinct.add((*item).to_owned(), item.len());
            }
            (distinct.sorted().concat(), distinct.is_full())
        };
        let none = Limits::default();
        assert_eq!(fill(none, &["b", "a", "b"]), ("ab".to_owned(), false));
        let bytes = Limits {
            max_bytes: 3,
            ..none
        };
        assert_eq!(fill(bytes, &["a", "b", "c"]), ("ab".to_owned(), true));
        let items = Limits {
            max_items: 2,
            ..none
        };
        assert_eq!(fill(items, &["a", "b", "c"]), ("ab".to_owned(), true));
        let stale = Limits {
            max_stale_items: 2,
            ..none
        };
        assert_eq!(fill(stale, &["a", "a", "b", "b", "b", "c"]).0, "ab");
    }

    #[test]
    fn new_items_are_told_once() {
        let mut distinct = Distinct::new(Limits::default());
        distinct.add("b", 1);
        distinct.add("a", 1);
        assert_eq!(distinct.take_new(), ["a", "b"]);
        distinct.add("a", 1);
        distinct.add("c", 1);
        assert_eq!(distinct.take_new(), ["c"]);
    }
}
