//! The partitions as a process sees them at one moment: states, owners, and where a trace goes.
//!
//! Pure. Must never know how the view came about.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use md5::{Digest, Md5};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{go_random::GoRandom, tokens::Lookup};

/// Tenants whose shards are remembered per view; those of others are computed at each call.
const MAX_REMEMBERED_SHARDS: usize = 10_000;

/// What may be done with a partition.
///
/// The order decides between changes of the same second: the later in the order wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionState {
    /// New: waits for its owners. It is read, and not written.
    Pending,
    /// Read and written.
    Active,
    /// On its way out: read, and not written.
    Inactive,
}

impl PartitionState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Active, Self::Inactive];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Active => "Active",
            Self::Inactive => "Inactive",
        }
    }

    /// As Tempo's HTTP answers number it.
    pub fn number(self) -> i32 {
        match self {
            Self::Pending => 1,
            Self::Active => 2,
            Self::Inactive => 3,
        }
    }

    /// Whether an operator may ask for this change. A partition never becomes pending again.
    pub fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Pending, Self::Active | Self::Inactive)
                | (Self::Active, Self::Inactive)
                | (Self::Inactive, Self::Active)
        )
    }
}

/// As Tempo's HTTP answers name it: `PartitionActive`.
impl fmt::Display for PartitionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Partition{}", self.name())
    }
}

/// What an owner is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnerState {
    /// Replaying the log; it does not answer yet.
    Joining,
    /// Answers queries.
    Active,
    /// Stopping; it still answers.
    Leaving,
}

impl fmt::Display for OwnerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joining => "JOINING",
            Self::Active => "ACTIVE",
            Self::Leaving => "LEAVING",
        })
    }
}

/// A live-store that holds the recent traces of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Name of the live-store, unique in the cluster.
    pub instance_id: String,
    /// Host and port where it answers jobs.
    pub grpc_addr: String,
    /// Availability zone; empty where there are none.
    pub zone: String,
    /// What it says of itself.
    pub state: OwnerState,
    /// Unix seconds since when it is in that state.
    pub state_since: i64,
    /// Unix seconds since when it owns the partition.
    pub owner_since: i64,
    /// Whether signs of life arrive from it.
    pub alive: bool,
    /// Whether it can be asked: alive, and past joining.
    pub healthy: bool,
    /// Whether its partition of the log had no record when it came.
    pub log_was_empty: bool,
    /// Whether its partition is in no log: that of a monolith, which builds its blocks itself.
    pub read_only: bool,
    /// Spans that came before this unix second are in blocks that everybody sees; `None` where it
    /// does not say.
    pub built_until: Option<i64>,
}

/// A partition of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The number of the partition in Kafka.
    pub id: i32,
    /// What may be done with it.
    pub state: PartitionState,
    /// Unix seconds since when.
    pub state_since: i64,
    /// Whether changes of the state are refused.
    pub locked: bool,
    /// Its owners, by instance id. One that crashed stays, not healthy, until it is back.
    pub owners: Vec<Owner>,
}

impl Partition {
    /// Whether one of its owners can be asked.
    pub fn is_readable(&self) -> bool {
        self.owners.iter().any(|owner| owner.healthy)
    }

    /// How far its block-builder is. What is built stays built, so what an owner has told that is away
    /// counts where nobody tells later.
    fn built(&self) -> Built {
        let told = |healthy: bool| {
            let owners = self.owners.iter().filter(move |one| one.healthy == healthy);
            owners.filter_map(|owner| owner.built_until).max()
        };
        let is_in_no_log = !self.owners.is_empty() && self.owners.iter().all(|one| one.read_only);
        match told(true).or_else(|| told(false)) {
            Some(until) => Built::UntilUnixSeconds(until),
            None if is_in_no_log || !self.may_hold_spans() => Built::Untold,
            None => Built::Unknown,
        }
    }

    /// Whether it may hold spans that only its owners can tell. One that waits for its owners has
    /// none unless its log had some: all live-stores may have lost what they knew of it.
    pub fn may_hold_spans(&self) -> bool {
        self.state != PartitionState::Pending
            || self.owners.iter().any(|owner| !owner.log_was_empty)
    }
}

/// How far block-builders are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Built {
    /// Not known: of some partition nobody has told, and it may be further behind than the others.
    Unknown,
    /// There is nothing to tell: no log, or nothing in it.
    Untold,
    /// All spans that came before this unix second are in blocks that everybody sees.
    UntilUnixSeconds(i64),
}

/// The partitions at one moment.
pub struct PartitionRing {
    /// All partitions, by number.
    pub partitions: BTreeMap<i32, Partition>,
    /// Partitions that are there, and of which nothing else was heard yet.
    pub unheard: BTreeSet<i32>,
    /// Whether a live-store was heard that knows which partitions there are. Before, any partition
    /// may be missing.
    pub is_settled: bool,
    active: OnceLock<Lookup>,
    shards: Mutex<HashMap<(String, usize), Arc<PartitionRing>>>,
}

/// One of which nothing was heard yet.
impl Default for PartitionRing {
    fn default() -> Self {
        Self {
            is_settled: false,
            ..Self::new([])
        }
    }
}

impl PartialEq for PartitionRing {
    fn eq(&self, other: &Self) -> bool {
        self.partitions == other.partitions
            && self.unheard == other.unheard
            && self.is_settled == other.is_settled
    }
}

impl fmt::Debug for PartitionRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.partitions).finish()
    }
}

impl PartitionRing {
    /// A ring of these partitions, and no others.
    pub fn new(partitions: impl IntoIterator<Item = Partition>) -> Self {
        Self {
            partitions: partitions
                .into_iter()
                .map(|partition| (partition.id, partition))
                .collect(),
            unheard: BTreeSet::new(),
            is_settled: true,
            active: OnceLock::new(),
            shards: Mutex::default(),
        }
    }

    /// How far block-builders of all partitions are, as live-stores tell it. A partition that has been
    /// inactive for `forgotten_after` has long been built where it has no owner.
    pub fn built(&self, now_seconds: i64, forgotten_after: Duration) -> Built {
        if !self.is_settled || !self.unheard.is_empty() {
            return Built::Unknown;
        }
        let forgotten_after = i64::try_from(forgotten_after.as_secs()).unwrap_or(i64::MAX);
        let is_gone = |partition: &&Partition| {
            partition.owners.is_empty()
                && partition.state == PartitionState::Inactive
                && now_seconds.saturating_sub(partition.state_since) > forgotten_after
        };
        let mut earliest: Option<i64> = None;
        for partition in self.partitions.values().filter(|one| !is_gone(one)) {
            match partition.built() {
                Built::Unknown => return Built::Unknown,
                Built::Untold => {}
                Built::UntilUnixSeconds(until) => {
                    earliest = Some(earliest.map_or(until, |others| others.min(until)));
                }
            }
        }
        earliest.map_or(Built::Untold, Built::UntilUnixSeconds)
    }

    /// Partitions that are written to.
    pub fn active(&self) -> impl Iterator<Item = &Partition> {
        self.in_state(PartitionState::Active)
    }

    /// Partitions in a state.
    pub fn in_state(&self, state: PartitionState) -> impl Iterator<Item = &Partition> {
        self.partitions
            .values()
            .filter(move |partition| partition.state == state)
    }

    /// The active partition that a hash leads to; `None` when no partition is active.
    ///
    /// For a trace, `hash` is FNV-1 of tenant and trace id (`tempo_model::hash::trace_token`), so
    /// that all spans of a trace are in one partition.
    pub fn partition_for(&self, hash: u32) -> Option<i32> {
        self.lookup().from(hash).next()
    }

    /// The part of the ring that a tenant uses: `size` of the active partitions, always the same
    /// ones while partitions do not change. 0 means all.
    pub fn shuffle_shard(self: &Arc<Self>, tenant: &str, size: usize) -> Arc<Self> {
        if size == 0 || size >= self.active().count() {
            return Arc::clone(self);
        }
        let mut shards = self.shards.lock();
        let key = (tenant.to_owned(), size);
        if let Some(shard) = shards.get(&key) {
            return Arc::clone(shard);
        }
        let shard = Arc::new(Self::new(
            self.choose(tenant, size)
                .into_iter()
                .filter_map(|id| self.partitions.get(&id).cloned()),
        ));
        if shards.len() < MAX_REMEMBERED_SHARDS {
            shards.insert(key, Arc::clone(&shard));
        }
        shard
    }

    fn choose(&self, tenant: &str, size: usize) -> BTreeSet<i32> {
        let mut seed = [0; 8];
        seed.copy_from_slice(&Md5::digest(tenant.as_bytes())[..8]);
        let mut random = GoRandom::new(i64::from_be_bytes(seed));
        let mut chosen = BTreeSet::new();
        while chosen.len() < size {
            let next = self
                .lookup()
                .from(random.next_u32())
                .find(|partition| !chosen.contains(partition));
            match next {
                Some(partition) => chosen.insert(partition),
                None => break,
            };
        }
        chosen
    }

    fn lookup(&self) -> &Lookup {
        self.active
            .get_or_init(|| Lookup::of(self.active().map(|partition| partition.id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(id: i32, state: PartitionState) -> Partition {
        Partition {
            id,
            state,
            state_since: 0,
            locked: false,
            owners: Vec::new(),
        }
    }

    fn eight() -> Arc<PartitionRing> {
        Arc::new(PartitionRing::new(
            (0..8).map(|id| partition(id, PartitionState::Active)),
        ))
    }

    fn ids(ring: &PartitionRing) -> Vec<i32> {
        ring.partitions.keys().copied().collect()
    }

    const NOW: i64 = 10_000;
    const FORGOTTEN_AFTER: Duration = Duration::from_secs(1_000);

    /// Of owners: whether they are healthy, and what they have told.
    fn owned(id: i32, state: PartitionState, owners: &[(bool, Option<i64>)]) -> Partition {
        let owner = |&(healthy, built_until)| Owner {
            instance_id: "live-store-0".to_owned(),
            grpc_addr: String::new(),
            zone: String::new(),
            state: OwnerState::Active,
            state_since: 0,
            owner_since: 0,
            alive: healthy,
            healthy,
            log_was_empty: false,
            read_only: false,
            built_until,
        };
        Partition {
            owners: owners.iter().map(owner).collect(),
            state_since: NOW - 1_000,
            ..partition(id, state)
        }
    }

    fn built(partitions: impl IntoIterator<Item = Partition>) -> Built {
        PartitionRing::new(partitions).built(NOW, FORGOTTEN_AFTER)
    }

    #[test]
    fn blocks_are_built_as_far_as_those_of_every_partition() {
        use PartitionState::{Active, Inactive, Pending};
        for (expected, state, owners) in [
            (Built::UntilUnixSeconds(40), Active, &[(true, Some(40))][..]),
            (Built::UntilUnixSeconds(60), Active, &[(true, Some(70))]),
            // Who has heard it tells it, and who is away has told what is still true.
            (
                Built::UntilUnixSeconds(40),
                Active,
                &[(true, Some(40)), (true, None), (false, Some(45))],
            ),
            (
                Built::UntilUnixSeconds(40),
                Inactive,
                &[(true, None), (false, Some(40))],
            ),
            // It may be as far behind as it likes.
            (Built::Unknown, Active, &[(true, None)]),
            (Built::Unknown, Pending, &[(false, None)]),
            (Built::Unknown, Active, &[]),
            (Built::Unknown, Inactive, &[]),
            (Built::UntilUnixSeconds(60), Pending, &[]),
        ] {
            let first = owned(0, Active, &[(true, Some(50)), (true, Some(60))]);
            assert_eq!(
                built([first, owned(1, state, owners)]),
                expected,
                "{state} {owners:?}"
            );
        }
    }

    #[test]
    fn where_nothing_is_built_of_a_log_nothing_is_told() {
        use PartitionState::{Active, Inactive, Pending};
        let told = || owned(0, Active, &[(true, Some(50))]);
        let mut monolith = owned(7, Inactive, &[(true, None)]);
        monolith.owners[0].read_only = true;
        assert_eq!(built([monolith.clone()]), Built::Untold);
        assert_eq!(built([told(), monolith]), Built::UntilUnixSeconds(50));
        let mut gone = owned(7, Inactive, &[]);
        gone.state_since -= 1;
        assert_eq!(built([told(), gone]), Built::UntilUnixSeconds(50));
        let mut empty = owned(7, Pending, &[(true, None)]);
        empty.owners[0].log_was_empty = true;
        assert_eq!(built([told(), empty]), Built::UntilUnixSeconds(50));
        assert_eq!(built([]), Built::Untold);
    }

    #[test]
    fn how_far_blocks_go_is_not_known_before_all_partitions_are() {
        let of = |ring: PartitionRing| ring.built(NOW, FORGOTTEN_AFTER);
        assert_eq!(of(PartitionRing::default()), Built::Unknown);
        let told = owned(0, PartitionState::Active, &[(true, Some(50))]);
        let mut ring = PartitionRing::new([told]);
        ring.unheard.insert(1);
        assert_eq!(of(ring), Built::Unknown);
    }

    #[test]
    fn a_hash_leads_where_it_does_in_tempo() {
        let ring = eight();
        for (hash, expected) in [
            (0, 4),
            (1, 4),
            (8_388_607, 0),
            (8_388_608, 4),
            (u32::MAX, 0),
            // token of ("single-tenant", A) and (…, B), ("tenant-1", A) and (…, B)
            (3_443_399_132, 1),
            (1_411_381_067, 3),
            (1_476_500_101, 7),
            (744_846_262, 7),
        ] {
            assert_eq!(ring.partition_for(hash), Some(expected), "{hash}");
        }
    }

    #[test]
    fn a_hash_passes_over_partitions_that_are_not_written() {
        let ring = PartitionRing::new([
            partition(0, PartitionState::Active),
            partition(1, PartitionState::Pending),
            partition(2, PartitionState::Inactive),
        ]);
        assert_eq!(ring.partition_for(4_194_303), Some(0));
        assert_eq!(PartitionRing::default().partition_for(1), None);
    }

    #[test]
    fn a_tenant_has_the_shard_that_it_has_in_tempo() {
        let ring = eight();
        let shards: [(&str, [&[i32]; 4]); 4] = [
            (
                "single-tenant",
                [&[7], &[4, 7], &[3, 4, 7], &[1, 2, 3, 4, 7]],
            ),
            ("tenant-1", [&[4], &[1, 4], &[1, 4, 5], &[0, 1, 4, 5, 6]]),
            ("tenant-2", [&[3], &[1, 3], &[1, 3, 6], &[1, 2, 3, 4, 6]]),
            ("1", [&[5], &[4, 5], &[4, 5, 6], &[0, 1, 4, 5, 6]]),
        ];
        for (tenant, expected) in shards {
            for (size, expected) in [1, 2, 3, 5].into_iter().zip(expected) {
                assert_eq!(
                    ids(&ring.shuffle_shard(tenant, size)),
                    expected,
                    "{tenant} {size}"
                );
                // Once more, from memory.
                assert_eq!(ids(&ring.shuffle_shard(tenant, size)), expected);
            }
        }
    }

    #[test]
    fn a_shard_of_all_is_the_ring() {
        let ring = eight();
        for size in [0, 8, 9] {
            assert!(Arc::ptr_eq(&ring.shuffle_shard("tenant-1", size), &ring));
        }
    }

    #[test]
    fn a_shard_holds_active_partitions_only() {
        let mut partitions = eight().partitions.clone();
        for id in [4, 7] {
            partitions.get_mut(&id).unwrap().state = PartitionState::Inactive;
        }
        let ring = Arc::new(PartitionRing::new(partitions.into_values()));
        let shard = ring.shuffle_shard("single-tenant", 3);
        assert_eq!(shard.partitions.len(), 3);
        assert!(shard.active().count() == 3);
    }

    #[test]
    fn only_some_changes_may_be_asked_for() {
        use PartitionState::{Active, Inactive, Pending};
        let allowed = [
            (Pending, Active),
            (Pending, Inactive),
            (Active, Inactive),
            (Inactive, Active),
        ];
        for from in PartitionState::ALL {
            for to in PartitionState::ALL {
                assert_eq!(
                    from.may_become(to),
                    allowed.contains(&(from, to)),
                    "{from} {to}"
                );
            }
        }
    }
}
