//! Why membership fails.

use std::net::SocketAddr;

use crate::ring::PartitionState;

/// Why a process cannot take part.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting cannot be used.
    #[error("{key}: {reason}")]
    Config {
        /// The key, with its path.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The port of gossip cannot be listened to.
    #[error(
        "gossip cannot listen on {addr}/udp: {reason}; free it or set memberlist.bind_port (and memberlist.advertise_port)"
    )]
    Bind {
        /// Where it should have been.
        addr: SocketAddr,
        /// What the system says.
        reason: String,
    },
    /// Nobody answered, and that is to be an error.
    #[error(
        "no member of the cluster answered; check memberlist.join_members and memberlist.cluster_label, or unset memberlist.abort_if_cluster_join_fails"
    )]
    JoinFailed,
    /// Gossip ended.
    #[error("gossip ended: {0}")]
    Gossip(String),
    /// A metric is registered already.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Why a partition was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such partition.
    #[error("partition {0} does not exist")]
    NotFound(i32),
    /// Not every state follows every other.
    #[error("partition state change not allowed: {from} to {to}")]
    NotAllowed {
        /// As it is.
        from: PartitionState,
        /// As it was to be.
        to: PartitionState,
    },
    /// Changes are refused until it is unlocked.
    #[error("partition state change is locked")]
    Locked,
    /// A reserved partition is never written.
    #[error("partition {0} is reserved for reading and stays inactive")]
    Reserved(i32),
    /// Not started, or stopping.
    #[error("membership is not running")]
    NotRunning,
}
