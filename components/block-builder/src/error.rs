//! What can go wrong while blocks are built.

use std::{io, path::PathBuf};

use tempo_block::write::PublishError;
use tempo_ingest::FenceError;

/// Why the block-builder does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] tempo_ingest::Error),
    /// The folder for what does not fit into memory.
    #[error("block_builder.wal.path '{path}' cannot be used: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A metric is registered twice.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Why a section was not built. Nothing is lost: it is read again, and what of it is published is
/// found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SectionError {
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] tempo_ingest::Error),
    /// Kafka, or another process that builds the same partition.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// The folder for what does not fit into memory.
    #[error("spilled records: {0}")]
    Spill(#[from] io::Error),
    /// Records of a decided section are missing.
    #[error("{0}")]
    Short(String),
    /// The object store.
    #[error(transparent)]
    Backend(#[from] tempo_backend::Error),
    /// A block.
    #[error(transparent)]
    Publish(#[from] PublishError<FeedError>),
    /// A thread was not run to its end.
    #[error("the process is shutting down")]
    Stopped,
}

/// Why traces cannot be delivered to the writer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    /// The folder for what does not fit into memory.
    #[error("spilled records: {0}")]
    Spill(#[from] io::Error),
}
