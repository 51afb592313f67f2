//! Who is alive, and which live-store owns which partition of the log.
//!
//! Every process of a cluster gossips what it knows of itself; each computes the same
//! [`PartitionRing`] from what it heard. There is no store to keep and no ring to repair. Alone in
//! naming `chitchat`. Must never touch Kafka: a partition here is a number with a state and owners.

mod go_random;
mod ring;
mod tokens;

pub use ring::{Owner, OwnerState, Partition, PartitionRing, PartitionState};
pub use tokens::{MAX_PARTITIONS_WITH_TOKENS, TOKENS_PER_PARTITION, tokens};
