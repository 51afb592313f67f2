//! What connects the querier with the partitions that gossip tells of.

use tempo_membership::{Membership, OwnerState};
use tempo_querier::{Owner, Partition, PartitionState, PartitionView};

/// The partitions of the cluster, as the querier wants to know them.
pub(crate) struct RingOwners(pub(crate) Membership);

impl PartitionView for RingOwners {
    fn partitions(&self) -> Vec<Partition> {
        use tempo_membership::PartitionState::{Active, Inactive, Pending};
        let ring = self.0.partitions();
        if !ring.is_settled {
            // Some were heard of, and nobody has told of how many there are.
            return Vec::new();
        }
        let as_asked = |partition: &tempo_membership::Partition| Partition {
            id: partition.id,
            state: match partition.state {
                Pending if partition.may_hold_spans() => PartitionState::Active,
                Pending => PartitionState::Pending,
                Active => PartitionState::Active,
                Inactive => PartitionState::Inactive,
            },
            // One that is away and registered still has what nobody else may have.
            state_since: match partition.owners.as_slice() {
                [] => partition.state_since,
                _ => i64::MAX,
            },
            owners: whom_to_ask(&partition.owners),
        };
        let unheard = ring.unheard.iter().map(|id| Partition {
            id: *id,
            state: PartitionState::Active,
            state_since: 0,
            owners: Vec::new(),
        });
        ring.partitions
            .values()
            .map(as_asked)
            .chain(unheard)
            .collect()
    }
}

/// The owners from whom signs of life arrive. Where there are none, those that answered before:
/// signs of life come late from a machine that has much to do, and who is gone does not answer.
fn whom_to_ask(owners: &[tempo_membership::Owner]) -> Vec<Owner> {
    let any_is_healthy = owners.iter().any(|owner| owner.healthy);
    owners
        .iter()
        .filter(|owner| match any_is_healthy {
            true => owner.healthy,
            false => owner.state != OwnerState::Joining,
        })
        .map(|owner| Owner {
            instance_id: owner.instance_id.clone(),
            address: owner.grpc_addr.clone(),
            zone: owner.zone.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(owners: &[(&str, OwnerState, bool)]) -> Vec<String> {
        let owners: Vec<_> = owners
            .iter()
            .map(|&(name, state, alive)| tempo_membership::Owner {
                instance_id: name.to_owned(),
                grpc_addr: format!("{name}:9095"),
                zone: String::new(),
                state,
                state_since: 0,
                owner_since: 0,
                alive,
                healthy: alive && state != OwnerState::Joining,
                log_was_empty: false,
                read_only: false,
                built_until: None,
            })
            .collect();
        let asked = whom_to_ask(&owners).into_iter();
        asked.map(|owner| owner.instance_id).collect()
    }

    #[test]
    fn silent_owners_are_asked_only_where_no_other_is_there() {
        use OwnerState::{Active, Joining, Leaving};
        let silent = [("a", Active, false), ("b", Leaving, false)];
        assert_eq!(asked(&silent), ["a", "b"]);
        assert_eq!(asked(&[silent[0], ("c", Active, true)]), ["c"]);
        assert_eq!(asked(&[silent[0], ("d", Joining, true)]), ["a"]);
        assert!(asked(&[("d", Joining, true), ("e", Joining, false)]).is_empty());
    }
}
