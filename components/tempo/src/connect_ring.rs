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
