//! What members say, what follows from it, and what a member says next.
//!
//! Pure: statements and a time in, a view or new statements out. Every member computes the same
//! view from the same statements, whatever order they arrived in. Must never know how statements
//! travel.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::ring::{Owner, OwnerState, Partition, PartitionRing, PartitionState};

/// How long a deletion is remembered, so that a member that was away cannot bring the partition
/// back. Longer than members that are gone are remembered.
const TOMBSTONE_SECONDS: i64 = 4 * 3600;

/// What a member says of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PartitionRecord {
    /// Unix seconds when the partition was made: tells a new partition from a deleted one of its
    /// number.
    pub(crate) created: i64,
    pub(crate) state: RecordState,
    /// Unix seconds since when it is in that state.
    pub(crate) since: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) locked: bool,
    /// Unix seconds when it was locked or unlocked.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) locked_since: i64,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// The states of a partition, and its deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RecordState {
    Pending,
    Active,
    Inactive,
    Deleted,
}

impl From<PartitionState> for RecordState {
    fn from(state: PartitionState) -> Self {
        match state {
            PartitionState::Pending => Self::Pending,
            PartitionState::Active => Self::Active,
            PartitionState::Inactive => Self::Inactive,
        }
    }
}

impl PartitionRecord {
    fn new(state: PartitionState, now: i64) -> Self {
        Self {
            created: now,
            state: state.into(),
            since: now,
            locked: false,
            locked_since: 0,
        }
    }

    /// Of a partition of which nothing else is known.
    fn deleted(now: i64) -> Self {
        Self {
            created: 0,
            state: RecordState::Deleted,
            since: now,
            locked: false,
            locked_since: 0,
        }
    }

    /// The state; `None` when it is deleted.
    pub(crate) fn partition_state(&self) -> Option<PartitionState> {
        match self.state {
            RecordState::Pending => Some(PartitionState::Pending),
            RecordState::Active => Some(PartitionState::Active),
            RecordState::Inactive => Some(PartitionState::Inactive),
            RecordState::Deleted => None,
        }
    }

    /// The record after a change now. Its time is later than before, also where clocks differ.
    pub(crate) fn changed(self, state: RecordState, now: i64) -> Self {
        Self {
            state,
            since: now.max(self.since + 1),
            ..self
        }
    }

    /// The record after it was locked or unlocked now.
    pub(crate) fn with_lock(self, locked: bool, now: i64) -> Self {
        Self {
            locked,
            locked_since: now.max(self.locked_since + 1),
            ..self
        }
    }
}

/// What a live-store says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnerRecord {
    pub(crate) partition: i32,
    #[serde(default)]
    pub(crate) zone: String,
    pub(crate) grpc_addr: String,
    pub(crate) state: OwnerState,
    pub(crate) state_since: i64,
    pub(crate) owner_since: i64,
    /// Whether its partition of the log had no record when it came.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) log_was_empty: bool,
    /// Whether its partition is in no log.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) read_only: bool,
}

/// All that one member says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(crate) member: String,
    /// Counts starts of the member.
    pub(crate) generation: u64,
    /// Whether signs of life arrive.
    pub(crate) alive: bool,
    /// Whether it had heard of the others before it said this.
    pub(crate) informed: bool,
    pub(crate) owner: Option<OwnerRecord>,
    pub(crate) partitions: BTreeMap<i32, PartitionRecord>,
    /// Of a live-store: all partitions that it knows to be there, also those whose record others
    /// keep. So whoever has heard one live-store knows of how many more there is to hear.
    pub(crate) known: BTreeSet<i32>,
    /// Of a live-store: spans that came before this unix second are in blocks that everybody sees.
    pub(crate) built_until: Option<i64>,
}

/// What all statements together mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Of deleted partitions, too.
    pub(crate) records: BTreeMap<i32, PartitionRecord>,
    /// By partition and instance.
    owners: BTreeMap<i32, Vec<Owner>>,
    /// Partitions whose record is what an owner that is alive says.
    kept_by_owner: BTreeSet<i32>,
    /// Partitions that live-stores know to be there, and whose record did not arrive.
    pub(crate) unheard: BTreeSet<i32>,
    /// Whether a live-store is heard that knows which partitions there are.
    pub(crate) is_settled: bool,
}

impl View {
    /// Unites statements.
    pub(crate) fn of(statements: &[Statement]) -> Self {
        let mut newest: BTreeMap<&str, &Statement> = BTreeMap::new();
        for statement in statements {
            let held = newest.entry(&statement.member).or_insert(statement);
            if held.generation < statement.generation {
                *held = statement;
            }
        }
        // What a member said before its last start counts until it has heard it again.
        let counts = |statement: &&Statement| {
            newest
                .get(statement.member.as_str())
                .is_none_or(|newest| newest.generation == statement.generation || !newest.informed)
        };
        let mut said: BTreeMap<i32, Vec<PartitionRecord>> = BTreeMap::new();
        for statement in statements.iter().filter(counts) {
            for (id, record) in &statement.partitions {
                said.entry(*id).or_default().push(*record);
            }
        }
        let records: BTreeMap<i32, PartitionRecord> = said
            .into_iter()
            .filter_map(|(id, records)| Some((id, merge(&records)?)))
            .collect();
        let mut view = Self {
            records,
            ..Self::default()
        };
        for statement in newest.values() {
            if !statement.informed {
                view.add_restarted(statement, statements);
                continue;
            }
            let Some(owner) = &statement.owner else {
                continue;
            };
            if statement.alive {
                view.is_settled = true;
                let is_unheard = |id: &&i32| !view.records.contains_key(id);
                view.unheard
                    .extend(statement.known.iter().filter(is_unheard));
            }
            if statement.alive
                && statement.partitions.contains_key(&owner.partition)
                && statement.partitions.get(&owner.partition) == view.records.get(&owner.partition)
            {
                view.kept_by_owner.insert(owner.partition);
            }
            view.add_owner(statement, owner.clone(), statements);
        }
        view
    }

    /// One that has started anew still holds what it held, and does not answer for it before it has
    /// told the others of itself again. Without it, its partition would look like one that nobody
    /// needs to be asked for.
    fn add_restarted(&mut self, now: &Statement, statements: &[Statement]) {
        let before = statements
            .iter()
            .filter(|statement| statement.member == now.member && statement.informed)
            .max_by_key(|statement| statement.generation);
        if let Some(owner) = before.and_then(|before| before.owner.clone()) {
            let owner = OwnerRecord {
                state: OwnerState::Joining,
                // For how long, it will tell anew; a partition that waits for owners waits on.
                owner_since: i64::MAX,
                ..owner
            };
            self.add_owner(now, owner, statements);
        }
    }

    fn add_owner(&mut self, statement: &Statement, owner: OwnerRecord, statements: &[Statement]) {
        // What it told before its last start is still true. One that had left for good was not waited
        // for: others have gone on since.
        let told_before = || {
            let same = statements
                .iter()
                .filter(|one| one.member == statement.member && one.owner.is_some());
            same.filter_map(|one| one.built_until).max()
        };
        self.owners.entry(owner.partition).or_default().push(Owner {
            instance_id: statement.member.clone(),
            grpc_addr: owner.grpc_addr,
            zone: owner.zone,
            state: owner.state,
            state_since: owner.state_since,
            owner_since: owner.owner_since,
            alive: statement.alive,
            healthy: statement.alive && owner.state != OwnerState::Joining,
            log_was_empty: owner.log_was_empty,
            read_only: owner.read_only,
            built_until: statement.built_until.or_else(told_before),
        });
    }

    pub(crate) fn owners(&self, partition: i32) -> &[Owner] {
        self.owners.get(&partition).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn owners_by_partition(&self) -> impl Iterator<Item = (i32, &[Owner])> {
        self.owners.iter().map(|(id, owners)| (*id, &owners[..]))
    }

    pub(crate) fn ring(&self) -> PartitionRing {
        let partitions = self.records.iter().filter_map(|(id, record)| {
            Some(Partition {
                id: *id,
                state: record.partition_state()?,
                state_since: record.since,
                locked: record.locked,
                owners: self.owners(*id).to_vec(),
            })
        });
        let mut ring = PartitionRing::new(partitions);
        ring.unheard.clone_from(&self.unheard);
        ring.is_settled = self.is_settled;
        ring
    }

    /// The partitions that are there, whether their record was heard or not.
    pub(crate) fn known(&self) -> BTreeSet<i32> {
        self.living()
            .map(|(id, _)| id)
            .chain(self.unheard.iter().copied())
            .collect()
    }

    /// Records of partitions that are there.
    pub(crate) fn living(&self) -> impl Iterator<Item = (i32, PartitionRecord)> {
        self.records
            .iter()
            .filter(|(_, record)| record.state != RecordState::Deleted)
            .map(|(id, record)| (*id, *record))
    }
}

/// The one record that several of the same partition mean; `None` of none.
///
/// Of one and the same partition, the latest change counts. A deletion counts against partitions
/// that were made before it. Where a partition was made twice, because the network was cut, the
/// older one counts: it may be on its way out, and the younger knows nothing of that.
fn merge(records: &[PartitionRecord]) -> Option<PartitionRecord> {
    let deleted = records
        .iter()
        .filter(|record| record.state == RecordState::Deleted)
        .max_by_key(|record| record.since);
    let living = records.iter().filter(|record| {
        record.state != RecordState::Deleted
            && deleted.is_none_or(|deleted| record.created > deleted.since)
    });
    let Some(created) = living.clone().map(|record| record.created).min() else {
        return deleted.copied();
    };
    let same = living.filter(|record| record.created == created);
    let latest = same
        .clone()
        .max_by_key(|record| (record.since, record.state))?;
    let lock = same.max_by_key(|record| (record.locked_since, record.locked))?;
    Some(PartitionRecord {
        locked: lock.locked,
        locked_since: lock.locked_since,
        ..*latest
    })
}

/// When partitions change by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Owners that a pending partition needs.
    pub(crate) min_owners: usize,
    /// How long they must have owned it.
    pub(crate) min_owners_duration: Duration,
    /// When an inactive partition without owners is forgotten; zero means never.
    pub(crate) delete_inactive_after: Duration,
}

/// The member that speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Speaker<'a> {
    /// The partition that it owns.
    pub(crate) owns: Option<Owned>,
    /// What it said last.
    pub(crate) said: &'a BTreeMap<i32, PartitionRecord>,
    /// Unix seconds since when it listens.
    pub(crate) listens_since: i64,
}

/// A partition of one's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) partition: i32,
    /// Whether to make it when it is not there.
    pub(crate) create: bool,
    /// Whether it is read only: inactive from the beginning.
    pub(crate) read_only: bool,
}

/// What to say of partitions from now on.
///
/// A live-store keeps the record of its partition, and those of partitions that no owner keeps.
/// Anyone else keeps what it changed until an owner has heard of it.
pub(crate) fn next_records(
    view: &View,
    speaker: Speaker<'_>,
    rules: Rules,
    now: i64,
) -> BTreeMap<i32, PartitionRecord> {
    let mut next = BTreeMap::new();
    let own = speaker.owns.map(|owned| owned.partition);
    if let Some(owned) = speaker.owns
        && let Some(record) = next_own(view, owned, rules, now)
    {
        next.insert(owned.partition, record);
    }
    for (id, record) in &view.records {
        if own == Some(*id) {
            continue;
        }
        let is_keeper = own.is_some() || speaker.said.contains_key(id);
        let mut record = *record;
        if own.is_some() && is_over(view, *id, record, rules, now) {
            record = record.changed(RecordState::Deleted, now);
        } else if view.kept_by_owner.contains(id) {
            continue;
        }
        let is_forgotten =
            record.state == RecordState::Deleted && now - record.since > TOMBSTONE_SECONDS;
        if is_keeper && !is_forgotten {
            next.insert(*id, record);
        }
    }
    // Known to be there, and nobody has said anything of it for as long as one without owners is
    // kept: it is not coming back.
    let is_patience_over = !rules.delete_inactive_after.is_zero()
        && now - speaker.listens_since > seconds(rules.delete_inactive_after);
    if own.is_some() && is_patience_over {
        for id in view.unheard.iter().filter(|id| own != Some(**id)) {
            next.insert(*id, PartitionRecord::deleted(now));
        }
    }
    next
}

fn next_own(view: &View, owned: Owned, rules: Rules, now: i64) -> Option<PartitionRecord> {
    let known = view.records.get(&owned.partition);
    let Some(record) = known.filter(|record| record.state != RecordState::Deleted) else {
        let state = if owned.read_only {
            PartitionState::Inactive
        } else {
            PartitionState::Pending
        };
        let now = known.map_or(now, |deleted| now.max(deleted.since + 1));
        return owned
            .create
            .then(|| PartitionRecord::new(state, now))
            .or(known.copied());
    };
    if record.state == RecordState::Pending && !record.locked {
        let since = now.saturating_sub(seconds(rules.min_owners_duration));
        let ready = view
            .owners(owned.partition)
            .iter()
            .filter(|owner| owner.owner_since < since)
            .count();
        if ready >= rules.min_owners {
            return Some(record.changed(RecordState::Active, now));
        }
    }
    Some(*record)
}

fn is_over(view: &View, id: i32, record: PartitionRecord, rules: Rules, now: i64) -> bool {
    record.state == RecordState::Inactive
        && !record.locked
        && !rules.delete_inactive_after.is_zero()
        && view.owners(id).is_empty()
        && now - record.since > seconds(rules.delete_inactive_after)
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
