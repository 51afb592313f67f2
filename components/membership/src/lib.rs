//! Who is alive, and which live-store owns which partition of the log.
//!
//! Every process of a cluster gossips what it knows of itself; each computes the same
//! [`PartitionRing`] from what it heard. There is no store to keep and no ring to repair. Alone in
//! naming `chitchat`. Must never touch Kafka: a partition here is a number with a state and owners.

mod config;
mod error;
mod go_random;
mod gossip;
mod membership;
mod memory;
mod metrics;
mod ring;
mod seeds;
mod state;
mod tokens;

pub use config::{Config, DEFAULT_PORT, Instance};
pub use error::{ChangeError, Error};
pub use gossip::Member;
pub use membership::{Membership, PartitionStatus, Service, build};
pub use ring::{Built, Owner, OwnerState, Partition, PartitionRing, PartitionState};
pub use tokens::{MAX_PARTITIONS_WITH_TOKENS, TOKENS_PER_PARTITION, tokens};
