//! One shard of the cache: two queues, a memory of what left, and the values.

use std::{
    any::Any,
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use hashbrown::HashTable;

use super::{CacheKey, CacheRole};

/// What an entry costs besides its value.
const ENTRY_OVERHEAD_BYTES: u64 = 160;
/// The small queue's share of the bytes, as a divisor.
const SMALL_SHARE: u64 = 10;
/// Uses that are counted at most: as many rounds an entry stays in the main queue unused.
const MAX_USES: u8 = 3;

pub(super) type Value = Arc<dyn Any + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    Small,
    Main,
}

struct Entry {
    hash: u64,
    key: CacheKey,
    value: Value,
    weight_bytes: u64,
    uses: AtomicU8,
    queue: Queue,
    /// Tells this entry from an earlier one of the same key, whose place in a queue is void.
    ticket: u64,
}

struct Place {
    hash: u64,
    ticket: u64,
}

pub(super) struct Shard {
    max_bytes: u64,
    bytes: u64,
    small_bytes: u64,
    next_ticket: u64,
    entries: HashTable<Entry>,
    small: VecDeque<Place>,
    main: VecDeque<Place>,
    ghosts: VecDeque<u64>,
    ghost_set: HashSet<u64>,
}

/// What an operation did, for the metrics.
#[derive(Default)]
pub(super) struct Change {
    pub(super) added: Option<Moved>,
    pub(super) removed: Vec<Moved>,
}

pub(super) struct Moved {
    pub(super) role: CacheRole,
    pub(super) weight_bytes: u64,
    /// Whether it left to make room.
    pub(super) evicted: bool,
}

impl Shard {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            bytes: 0,
            small_bytes: 0,
            next_ticket: 0,
            entries: HashTable::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: VecDeque::new(),
            ghost_set: HashSet::new(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn get(&self, hash: u64, key: &CacheKey) -> Option<Value> {
        let entry = self.entries.find(hash, |entry| entry.key == *key)?;
        // A lost increment of a race costs nothing but precision.
        let uses = entry.uses.load(Ordering::Relaxed);
        if uses < MAX_USES {
            entry.uses.store(uses + 1, Ordering::Relaxed);
        }
        Some(Arc::clone(&entry.value))
    }

    pub(super) fn insert(
        &mut self,
        hash: u64,
        key: CacheKey,
        value: Value,
        weight_bytes: u64,
    ) -> Change {
        let mut change = Change::default();
        let weight_bytes = weight_bytes.saturating_add(ENTRY_OVERHEAD_BYTES);
        if let Ok(found) = self.entries.find_entry(hash, |entry| entry.key == key) {
            let (old, _) = found.remove();
            change.removed.push(self.account_removed(&old, false));
        }
        if weight_bytes > self.max_bytes {
            return change;
        }
        let queue = if self.ghost_set.remove(&hash) {
            Queue::Main
        } else {
            Queue::Small
        };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let place = Place { hash, ticket };
        match queue {
            Queue::Small => {
                self.small_bytes += weight_bytes;
                self.small.push_back(place);
            }
            Queue::Main => self.main.push_back(place),
        }
        self.bytes += weight_bytes;
        change.added = Some(Moved {
            role: key.role,
            weight_bytes,
            evicted: false,
        });
        let entry = Entry {
            hash,
            key,
            value,
            weight_bytes,
            uses: AtomicU8::new(0),
            queue,
            ticket,
        };
        self.entries.insert_unique(hash, entry, |entry| entry.hash);
        while self.bytes > self.max_bytes && self.make_room(&mut change) {}
        change
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&CacheKey) -> bool) -> Change {
        let mut change = Change::default();
        let removed: Vec<Entry> = self.entries.extract_if(|entry| !keep(&entry.key)).collect();
        for entry in removed {
            change.removed.push(self.account_removed(&entry, false));
        }
        change
    }

    /// Takes one step towards room; false when there is nothing left.
    fn make_room(&mut self, change: &mut Change) -> bool {
        let small_is_due = self.small_bytes > self.max_bytes / SMALL_SHARE || self.main.is_empty();
        if small_is_due && let Some(place) = self.small.pop_front() {
            self.leave_small(&place, change);
            return true;
        }
        match self.main.pop_front() {
            Some(place) => {
                self.leave_main(place, change);
                true
            }
            None => !self.small.is_empty(),
        }
    }

    fn leave_small(&mut self, place: &Place, change: &mut Change) {
        let Some(entry) = self
            .entries
            .find_mut(place.hash, |entry| entry.ticket == place.ticket)
        else {
            return;
        };
        if entry.uses.load(Ordering::Relaxed) > 0 {
            entry.uses.store(0, Ordering::Relaxed);
            entry.queue = Queue::Main;
            self.small_bytes -= entry.weight_bytes;
            self.main.push_back(Place { ..*place });
            return;
        }
        self.evict(place, change);
        self.remember(place.hash);
    }

    fn leave_main(&mut self, place: Place, change: &mut Change) {
        let Some(entry) = self
            .entries
            .find(place.hash, |entry| entry.ticket == place.ticket)
        else {
            return;
        };
        let uses = entry.uses.load(Ordering::Relaxed);
        if uses > 0 {
            entry.uses.store(uses - 1, Ordering::Relaxed);
            self.main.push_back(place);
        } else {
            self.evict(&place, change);
        }
    }

    fn evict(&mut self, place: &Place, change: &mut Change) {
        if let Ok(found) = self
            .entries
            .find_entry(place.hash, |entry| entry.ticket == place.ticket)
        {
            let (entry, _) = found.remove();
            change.removed.push(self.account_removed(&entry, true));
        }
    }

    fn account_removed(&mut self, entry: &Entry, evicted: bool) -> Moved {
        self.bytes -= entry.weight_bytes;
        if entry.queue == Queue::Small {
            self.small_bytes -= entry.weight_bytes;
        }
        Moved {
            role: entry.key.role,
            weight_bytes: entry.weight_bytes,
            evicted,
        }
    }

    /// Remembers as many of those that left as there are entries.
    fn remember(&mut self, hash: u64) {
        if self.ghost_set.insert(hash) {
            self.ghosts.push_back(hash);
        }
        while self.ghosts.len() > self.entries.len().max(16) {
            if let Some(oldest) = self.ghosts.pop_front() {
                self.ghost_set.remove(&oldest);
            }
        }
    }
}
