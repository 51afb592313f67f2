//! Who is asked about recent data.
//!
//! Every span is in one partition, and every owner of a partition holds all of it. So one answer
//! per partition is enough, and without one the answer to the query would have a hole.

use std::{collections::BTreeMap, time::Duration};

use tempo_api::job::JobError;

/// Tells who holds what at the moment.
pub trait PartitionView: Send + Sync {
    /// All partitions that are known.
    fn partitions(&self) -> Vec<Partition>;
}

/// A partition of the log, and who holds its recent data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub id: i32,
    /// Whether it is written to.
    pub state: PartitionState,
    /// Since when, unix seconds.
    pub state_since: i64,
    /// Owners that can be asked.
    pub owners: Vec<Owner>,
}

/// Whether a partition is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionState {
    /// Soon, or already by those who heard of it earlier.
    Pending,
    /// Yes.
    Active,
    /// No more.
    Inactive,
}

/// A live-store that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its name.
    pub instance_id: String,
    /// `host:port` of its gRPC server.
    pub address: String,
    /// Its availability zone.
    pub zone: String,
}

/// Live-stores of which one has to be asked, the first choice first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Replicas {
    /// The partitions that they hold, for messages.
    pub(super) partitions: Vec<i32>,
    pub(super) owners: Vec<Owner>,
}

/// Which zone goes first.
pub(super) struct ZoneOrder<'a> {
    /// Before all others; empty for none.
    pub(super) preferred: &'a str,
    /// The others take turns: a number that grows with every query.
    pub(super) turn: usize,
}

impl ZoneOrder<'_> {
    fn sort(&self, owners: &mut [Owner]) {
        owners.sort_by(|a, b| (&a.zone, &a.instance_id).cmp(&(&b.zone, &b.instance_id)));
        if !owners.is_empty() {
            let first = self.turn % owners.len();
            owners.rotate_left(first);
        }
        // Stable: the turn decides among the others.
        owners.sort_by_key(|owner| self.preferred.is_empty() || owner.zone != self.preferred);
    }
}

/// Whom to ask, so that nothing is left out.
///
/// A partition that has been inactive for `forgotten_after` has all of its spans in blocks; it need
/// not have an owner any more.
pub(super) fn whom_to_ask(
    partitions: Vec<Partition>,
    now_seconds: i64,
    forgotten_after: Duration,
    zones: &ZoneOrder<'_>,
) -> Result<Vec<Replicas>, JobError> {
    if partitions.is_empty() {
        return Err(JobError::Unavailable(
            "no partition is known, so nobody can be asked about recent data: no live-store has \
             been heard of; see /partition-ring"
                .to_owned(),
        ));
    }
    // One live-store answers for all partitions that it holds, and is asked once.
    let mut asked: BTreeMap<Vec<String>, Replicas> = BTreeMap::new();
    for mut partition in partitions {
        if partition.owners.is_empty() {
            let forgotten_after = i64::try_from(forgotten_after.as_secs()).unwrap_or(i64::MAX);
            let age = now_seconds.saturating_sub(partition.state_since);
            match partition.state {
                PartitionState::Pending => continue,
                PartitionState::Inactive if age > forgotten_after => continue,
                PartitionState::Active | PartitionState::Inactive => {
                    return Err(JobError::Unavailable(format!(
                        "partition {} has no healthy owner: its recent data cannot be read until \
                         a live-store of it is back; see /partition-ring",
                        partition.id
                    )));
                }
            }
        }
        zones.sort(&mut partition.owners);
        let mut names: Vec<String> = partition
            .owners
            .iter()
            .map(|owner| owner.instance_id.clone())
            .collect();
        names.sort_unstable();
        asked
            .entry(names)
            .or_insert_with(|| Replicas {
                partitions: Vec::new(),
                owners: partition.owners,
            })
            .partitions
            .push(partition.id);
    }
    Ok(asked.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 10_000;
    const FORGOTTEN_AFTER: Duration = Duration::from_secs(1_000);

    fn owner(name: &str) -> Owner {
        Owner {
            instance_id: name.to_owned(),
            address: format!("{name}:9095"),
            zone: name.split('-').next().unwrap().to_owned(),
        }
    }

    fn partition(id: i32, state: PartitionState, age: i64, owners: &[&str]) -> Partition {
        Partition {
            id,
            state,
            state_since: NOW - age,
            owners: owners.iter().map(|name| owner(name)).collect(),
        }
    }

    /// Partitions, and the names of those to ask.
    type Asked = (Vec<i32>, Vec<String>);

    fn asked(
        partitions: Vec<Partition>,
        preferred: &str,
        turn: usize,
    ) -> Result<Vec<Asked>, String> {
        let zones = ZoneOrder { preferred, turn };
        let found = whom_to_ask(partitions, NOW, FORGOTTEN_AFTER, &zones);
        let names = |replicas: Replicas| {
            let owners = replicas.owners.into_iter().map(|owner| owner.instance_id);
            (replicas.partitions, owners.collect())
        };
        found
            .map(|all| all.into_iter().map(names).collect())
            .map_err(|error| {
                assert!(error.is_retryable());
                error.to_string()
            })
    }

    #[test]
    fn one_owner_of_every_partition_is_asked_in_any_state() {
        use PartitionState::{Active, Inactive, Pending};
        let partitions = vec![
            partition(0, Active, 5, &["a-0", "b-0"]),
            partition(1, Inactive, 5_000, &["a-1"]),
            partition(2, Pending, 1, &["b-2"]),
        ];
        assert_eq!(
            asked(partitions, "", 0),
            Ok(vec![
                (vec![0], vec!["a-0".to_owned(), "b-0".to_owned()]),
                (vec![1], vec!["a-1".to_owned()]),
                (vec![2], vec!["b-2".to_owned()]),
            ])
        );
    }

    #[test]
    fn zones_take_turns_unless_one_is_preferred() {
        let first = |preferred: &str, turn| {
            let partitions = vec![partition(
                0,
                PartitionState::Active,
                5,
                &["b-0", "a-0", "c-0"],
            )];
            asked(partitions, preferred, turn).unwrap()[0].1.join(" ")
        };
        assert_eq!(first("", 0), "a-0 b-0 c-0");
        assert_eq!(first("", 1), "b-0 c-0 a-0");
        assert_eq!(first("", 5), "c-0 a-0 b-0");
        assert_eq!(first("b", 0), "b-0 a-0 c-0");
        assert_eq!(first("b", 2), "b-0 c-0 a-0");
        assert_eq!(first("elsewhere", 0), "a-0 b-0 c-0");
    }

    #[test]
    fn only_a_partition_whose_spans_may_be_nowhere_else_needs_an_owner() {
        use PartitionState::{Active, Inactive, Pending};
        let alone = |state, age| {
            let partitions = vec![
                partition(0, Active, 5, &["a-0"]),
                partition(7, state, age, &[]),
            ];
            asked(partitions, "", 0).map(|asked| asked.len())
        };
        assert_eq!(alone(Pending, 1), Ok(1));
        assert_eq!(alone(Inactive, 1_001), Ok(1));
        for (state, age) in [(Active, 1), (Active, 5_000), (Inactive, 1_000)] {
            let error = alone(state, age).unwrap_err();
            assert!(error.contains("partition 7"), "{error}");
        }
        let error = asked(Vec::new(), "", 0).unwrap_err();
        assert!(error.contains("no partition is known"), "{error}");
    }

    #[test]
    fn who_holds_several_partitions_is_asked_once() {
        let partitions = vec![
            partition(0, PartitionState::Active, 5, &["a-0", "b-0"]),
            partition(1, PartitionState::Active, 5, &["b-0", "a-0"]),
        ];
        let asked = asked(partitions, "", 0).unwrap();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].0, [0, 1]);
    }
}
