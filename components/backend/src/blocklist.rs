//! Which blocks there are, as last seen: an indexed snapshot per tenant, in memory.
//!
//! Owns the snapshots, their lookup by time and by id, and the changes that this process made
//! since the last poll. Must never read the store: the poller does.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use crate::{BlockMeta, CompactedBlockMeta, Timestamp};

/// The blocks of every tenant. Clones show the same lists.
#[derive(Debug, Clone, Default)]
pub struct Blocklist {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Locked for writing only to put finished lists in their place.
    tenants: RwLock<Tenants>,
    /// What this process did since the last poll but one. Whoever changes lists holds this lock
    /// while it makes the new ones.
    changes: Mutex<HashMap<Arc<str>, Vec<LocalChange>>>,
    polls: Mutex<Polls>,
}

#[derive(Debug, Default)]
struct Polls {
    /// When the last poll that succeeded began.
    began: Option<Instant>,
    /// The tenants that it found or left out. Of one that was never listed nothing is known.
    listed: HashMap<Arc<str>, Option<Listed>>,
}

/// When the store was listed for a list of a tenant: here, or by whoever wrote the index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed {
    pub(crate) known_at: Instant,
    /// How long before.
    pub(crate) age_then: Duration,
}

impl Listed {
    /// Here.
    pub(crate) fn at(known_at: Instant) -> Self {
        Self {
            known_at,
            age_then: Duration::ZERO,
        }
    }

    /// How long ago.
    pub(crate) fn age(&self) -> Duration {
        self.known_at.elapsed() + self.age_then
    }
}

impl Polls {
    /// When a tenant was listed. One that the last poll did not find had no blocks then.
    fn listed(&self, tenant: &str) -> Option<Listed> {
        match self.listed.get(tenant) {
            Some(listed) => *listed,
            None => self.began.map(Listed::at),
        }
    }
}

type Tenants = BTreeMap<Arc<str>, Arc<TenantBlocks>>;

/// A change that this process made to the store. It stays visible through one poll, whose listing
/// may have begun before it.
#[derive(Debug, Clone, Default)]
pub struct BlockChange {
    /// Blocks that became live.
    pub added: Vec<Arc<BlockMeta>>,
    /// Live blocks that are gone or were marked compacted.
    pub removed: Vec<Uuid>,
    /// Blocks that were marked compacted.
    pub compacted: Vec<Arc<CompactedBlockMeta>>,
    /// Compacted blocks that were cleared.
    pub cleared: Vec<Uuid>,
}

#[derive(Debug)]
struct LocalChange {
    change: BlockChange,
    /// Whether a poll was applied over it already.
    polled: bool,
}

impl Blocklist {
    /// A list without tenants.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a poll has succeeded.
    pub fn is_polled(&self) -> bool {
        self.state.polls.lock().began.is_some()
    }

    /// How long ago the listing of the store began that the list of a tenant comes from; `None` when
    /// there was none. What others had done to the store by then is in the list. Of a tenant that
    /// the last poll did not find, of that poll: it has no blocks.
    pub fn tenant_age(&self, tenant: &str) -> Option<Duration> {
        let listed = self.state.polls.lock().listed(tenant);
        listed.map(|listed| listed.age())
    }

    /// Tenants that have any block, sorted.
    pub fn tenants(&self) -> Vec<Arc<str>> {
        self.state.tenants.read().keys().cloned().collect()
    }

    /// The blocks of a tenant, as a snapshot that later polls do not change; empty for an unknown
    /// tenant.
    pub fn tenant(&self, tenant: &str) -> Arc<TenantBlocks> {
        self.state
            .tenants
            .read()
            .get(tenant)
            .cloned()
            .unwrap_or_default()
    }

    /// Live blocks that may hold spans in `start..=end`.
    pub fn blocks_in_range(
        &self,
        tenant: &str,
        start: Timestamp,
        end: Timestamp,
    ) -> Vec<Arc<BlockMeta>> {
        self.tenant(tenant).in_range(start, end)
    }

    /// Blocks in which to look for a trace; see [`TenantBlocks::for_trace`].
    pub fn blocks_for_trace(&self, tenant: &str, lookup: &TraceLookup) -> Vec<Arc<BlockMeta>> {
        self.tenant(tenant).for_trace(lookup)
    }

    /// Makes visible, at once, what this process did to the store.
    pub fn apply_change(&self, tenant: &str, change: BlockChange) {
        let mut changes = self.state.changes.lock();
        let changed = self
            .tenant(tenant)
            .with_changes(std::slice::from_ref(&change));
        let tenant: Arc<str> = Arc::from(tenant);
        let mut tenants = self.state.tenants.write();
        if changed.is_empty() {
            tenants.remove(&tenant);
        } else {
            tenants.insert(Arc::clone(&tenant), Arc::new(changed));
        }
        drop(tenants);
        changes.entry(tenant).or_default().push(LocalChange {
            change,
            polled: false,
        });
    }

    /// Replaces the lists of the polled tenants by what a poll found that `began` then, keeps those of
    /// `kept` (tenants that could not be polled), and forgets all others.
    pub(crate) fn apply_poll(
        &self,
        began: Instant,
        polled: Vec<(Arc<str>, TenantBlocks, Listed)>,
        kept: &HashSet<Arc<str>>,
    ) {
        let mut all_changes = self.state.changes.lock();
        let mut tenants: Tenants = self.state.tenants.read().clone();
        tenants.retain(|tenant, _| kept.contains(tenant));
        let (mut found, mut all_listed): (HashMap<_, _>, HashMap<_, _>) = polled
            .into_iter()
            .map(|(tenant, blocks, listed)| ((Arc::clone(&tenant), blocks), (tenant, Some(listed))))
            .unzip();
        // A tenant whose first block this process has just written may not be in the listing.
        for tenant in all_changes.keys() {
            if !kept.contains(tenant) {
                found.entry(Arc::clone(tenant)).or_default();
            }
        }
        for (tenant, blocks) in found {
            let blocks = match all_changes.get_mut(&tenant) {
                None => blocks,
                Some(changes) => {
                    changes.retain(|change| !change.polled);
                    let pending: Vec<BlockChange> = changes
                        .iter_mut()
                        .map(|change| {
                            change.polled = true;
                            change.change.clone()
                        })
                        .collect();
                    blocks.with_changes(&pending)
                }
            };
            if !blocks.is_empty() {
                tenants.insert(tenant, Arc::new(blocks));
            }
        }
        all_changes.retain(|_, changes| !changes.is_empty());
        *self.state.tenants.write() = tenants;
        let mut polls = self.state.polls.lock();
        let of_before = kept
            .iter()
            .map(|tenant| (Arc::clone(tenant), polls.listed(tenant)));
        all_listed.extend(of_before);
        polls.listed = all_listed;
        polls.began = Some(began);
    }
}

/// Where to look for one trace.
#[derive(Debug, Clone)]
pub struct TraceLookup {
    /// Block ids to consider: shards of a lookup divide the space of block ids.
    pub block_ids: RangeInclusive<Uuid>,
    /// The trace's time range, when known; a block counts if it starts before the end and ends
    /// after the start.
    pub time: Option<(Timestamp, Timestamp)>,
    /// Compacted blocks count if they were compacted at this time or later: they are still there,
    /// and what replaced them may not be listed yet. Tempo takes now − 2 · `blocklist_poll`.
    pub compacted_since: Timestamp,
}

impl TraceLookup {
    /// Looks into every live block, and into those compacted at `compacted_since` or later.
    pub fn everywhere(compacted_since: Timestamp) -> Self {
        Self {
            block_ids: Uuid::nil()..=Uuid::max(),
            time: None,
            compacted_since,
        }
    }
}

/// The blocks of one tenant at one time, indexed.
#[derive(Debug, Clone, Default)]
pub struct TenantBlocks {
    /// Sorted by start time.
    by_start: Vec<Arc<BlockMeta>>,
    /// Of the same order: the latest end in the subtree of each entry, where the middle of a
    /// slice is the root of its halves.
    latest_end: Vec<Timestamp>,
    /// Indexes into `by_start`, sorted by block id.
    by_id: Vec<u32>,
    /// Sorted by block id.
    compacted: Vec<Arc<CompactedBlockMeta>>,
    /// Sorted.
    superseded: Vec<Uuid>,
}

impl TenantBlocks {
    /// Indexes these blocks. Of several with one id the last counts. A live block that another
    /// block [replaces](BlockMeta::replaces) is left out, and named by
    /// [`TenantBlocks::superseded`]: its marking was interrupted, or is about to come.
    pub fn new(live: Vec<Arc<BlockMeta>>, compacted: Vec<Arc<CompactedBlockMeta>>) -> Self {
        let mut live: HashMap<Uuid, Arc<BlockMeta>> =
            live.into_iter().map(|meta| (meta.block_id, meta)).collect();
        let replaced: Vec<Uuid> = live
            .values()
            .chain(compacted.iter().map(|block| &block.meta))
            .flat_map(|meta| meta.replaces.iter().copied())
            .collect();
        let mut superseded: Vec<Uuid> = replaced
            .into_iter()
            .filter(|block| live.remove(block).is_some())
            .collect();
        superseded.sort_unstable();
        let compacted: BTreeMap<Uuid, Arc<CompactedBlockMeta>> = compacted
            .into_iter()
            .map(|block| (block.meta.block_id, block))
            .collect();
        let mut by_start: Vec<Arc<BlockMeta>> = live.into_values().collect();
        by_start.sort_unstable_by_key(|meta| (meta.start_time, meta.block_id));
        let mut by_id: Vec<u32> = (0..).take(by_start.len()).collect();
        by_id.sort_unstable_by_key(|&index| by_start[index as usize].block_id);
        let mut latest_end = vec![Timestamp::ZERO; by_start.len()];
        fill_latest_end(&by_start, &mut latest_end);
        Self {
            by_start,
            latest_end,
            by_id,
            compacted: compacted.into_values().collect(),
            superseded,
        }
    }

    /// Live blocks whose traces are in others: to be marked compacted, and not to be read.
    pub fn superseded(&self) -> &[Uuid] {
        &self.superseded
    }

    /// Blocks that were live or unknown in `known`, are not live any more, and that no block
    /// [replaces](BlockMeta::replaces): their time was over, a program that does not name what it
    /// replaces has merged them, or their successor was overlooked.
    pub(crate) fn gone_without_successor(&self, known: &Self) -> HashSet<Uuid> {
        let compacted = self.compacted.iter().map(|block| &block.meta);
        let replaced: HashSet<Uuid> = self
            .by_start
            .iter()
            .chain(compacted.clone())
            .flat_map(|meta| meta.replaces.iter().copied())
            .collect();
        let marked = compacted
            .map(|meta| meta.block_id)
            .filter(|&block| known.compacted_block(block).is_none());
        let vanished = known.by_start.iter().map(|meta| meta.block_id);
        let vanished = vanished.filter(|&block| {
            self.live_block(block).is_none() && self.compacted_block(block).is_none()
        });
        marked
            .chain(vanished)
            .filter(|block| !replaced.contains(block))
            .collect()
    }

    /// These, with some that are gone, as they were in `known` or before they were marked. Of merges by
    /// a program that does not name what it replaces, both stay then.
    pub(crate) fn with_live(&self, known: &Self, gone: &HashSet<Uuid>) -> Self {
        let meta_of = |&block: &Uuid| {
            let marked = self.compacted_block(block).map(|marked| &marked.meta);
            known.live_block(block).or(marked).cloned()
        };
        let live = self.by_start.iter().cloned();
        let is_left = |block: &&Arc<CompactedBlockMeta>| !gone.contains(&block.meta.block_id);
        Self::new(
            live.chain(gone.iter().filter_map(meta_of)).collect(),
            self.compacted.iter().filter(is_left).cloned().collect(),
        )
        .also_superseded(self)
    }

    /// With those that were superseded before: their metas are gone from the list.
    fn also_superseded(mut self, before: &Self) -> Self {
        let unmarked = before.superseded.iter().copied();
        let unmarked: Vec<Uuid> = unmarked
            .filter(|&block| self.compacted_block(block).is_none())
            .collect();
        self.superseded.extend(unmarked);
        self.superseded.sort_unstable();
        self.superseded.dedup();
        self
    }

    /// Whether there is no block, live or compacted.
    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty() && self.compacted.is_empty()
    }

    /// Live blocks, sorted by start time.
    pub fn live(&self) -> &[Arc<BlockMeta>] {
        &self.by_start
    }

    /// Compacted blocks, sorted by id.
    pub fn compacted(&self) -> &[Arc<CompactedBlockMeta>] {
        &self.compacted
    }

    /// A live block by its id.
    pub fn live_block(&self, block: Uuid) -> Option<&Arc<BlockMeta>> {
        let found = self
            .by_id
            .binary_search_by_key(&block, |&index| self.by_start[index as usize].block_id)
            .ok()?;
        self.by_start.get(*self.by_id.get(found)? as usize)
    }

    /// A compacted block by its id.
    pub fn compacted_block(&self, block: Uuid) -> Option<&Arc<CompactedBlockMeta>> {
        let found = self
            .compacted
            .binary_search_by_key(&block, |compacted| compacted.meta.block_id)
            .ok()?;
        self.compacted.get(found)
    }

    /// Live blocks that start at `end` or before and end at `start` or after, by start time.
    pub fn in_range(&self, start: Timestamp, end: Timestamp) -> Vec<Arc<BlockMeta>> {
        let mut found = Vec::new();
        collect_overlapping(&self.by_start, &self.latest_end, start, end, &mut found);
        found
    }

    /// Live blocks, and blocks compacted lately, in which a trace may lie, sorted by id. A block
    /// that is both counts once.
    pub fn for_trace(&self, lookup: &TraceLookup) -> Vec<Arc<BlockMeta>> {
        let (low, high) = (*lookup.block_ids.start(), *lookup.block_ids.end());
        let in_time = |meta: &BlockMeta| match lookup.time {
            Some((start, end)) => meta.start_time < end && meta.end_time > start,
            None => true,
        };
        let id_of = |index: u32| self.by_start[index as usize].block_id;
        let first = self.by_id.partition_point(|&index| id_of(index) < low);
        let live = self.by_id[first..]
            .iter()
            .take_while(|&&index| id_of(index) <= high)
            .map(|&index| &self.by_start[index as usize]);
        let first = self
            .compacted
            .partition_point(|block| block.meta.block_id < low);
        let compacted = self.compacted[first..]
            .iter()
            .take_while(|block| block.meta.block_id <= high)
            .filter(|block| block.compacted_time >= lookup.compacted_since)
            .filter(|block| self.live_block(block.meta.block_id).is_none())
            .map(|block| &block.meta);
        let mut found: Vec<Arc<BlockMeta>> = live
            .chain(compacted)
            .filter(|meta| in_time(meta))
            .cloned()
            .collect();
        found.sort_unstable_by_key(|meta| meta.block_id);
        found
    }

    /// These blocks after `changes`.
    fn with_changes(&self, changes: &[BlockChange]) -> Self {
        if changes.is_empty() {
            return self.clone();
        }
        let mut live: HashMap<Uuid, Arc<BlockMeta>> = self
            .by_start
            .iter()
            .map(|meta| (meta.block_id, Arc::clone(meta)))
            .collect();
        let mut compacted: HashMap<Uuid, Arc<CompactedBlockMeta>> = self
            .compacted
            .iter()
            .map(|block| (block.meta.block_id, Arc::clone(block)))
            .collect();
        for change in changes {
            for meta in &change.added {
                live.insert(meta.block_id, Arc::clone(meta));
            }
            for block in &change.compacted {
                live.remove(&block.meta.block_id);
                compacted
                    .entry(block.meta.block_id)
                    .or_insert_with(|| Arc::clone(block));
            }
            for id in &change.removed {
                live.remove(id);
            }
            for id in &change.cleared {
                compacted.remove(id);
            }
        }
        Self::new(
            live.into_values().collect(),
            compacted.into_values().collect(),
        )
        .also_superseded(self)
    }
}

/// Fills the tree over `blocks` and returns the latest end in it.
fn fill_latest_end(blocks: &[Arc<BlockMeta>], latest_end: &mut [Timestamp]) -> Timestamp {
    let middle = blocks.len() / 2;
    let Some(root) = blocks.get(middle) else {
        return Timestamp::ZERO;
    };
    let left = fill_latest_end(&blocks[..middle], &mut latest_end[..middle]);
    let right = fill_latest_end(&blocks[middle + 1..], &mut latest_end[middle + 1..]);
    let latest = root.end_time.max(left).max(right);
    latest_end[middle] = latest;
    latest
}

/// Appends the blocks of the tree that overlap `start..=end`, in order. Depth is the logarithm of
/// the number of blocks.
fn collect_overlapping(
    blocks: &[Arc<BlockMeta>],
    latest_end: &[Timestamp],
    start: Timestamp,
    end: Timestamp,
    found: &mut Vec<Arc<BlockMeta>>,
) {
    let middle = blocks.len() / 2;
    let (Some(root), Some(&latest)) = (blocks.get(middle), latest_end.get(middle)) else {
        return;
    };
    if latest < start {
        return;
    }
    collect_overlapping(&blocks[..middle], &latest_end[..middle], start, end, found);
    if root.start_time > end {
        return;
    }
    if root.end_time >= start {
        found.push(Arc::clone(root));
    }
    collect_overlapping(
        &blocks[middle + 1..],
        &latest_end[middle + 1..],
        start,
        end,
        found,
    );
}

#[cfg(test)]
mod tests;
