//! What can go wrong with merging blocks.

use parquet::errors::ParquetError;
use tempo_table::TableError;
use uuid::Uuid;

use crate::{Error, write::WriteError};

/// Why blocks were not merged. The blocks are as they were.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A block cannot be read: the storage failed, or the data is damaged.
    #[error(transparent)]
    Read(#[from] Error),
    /// A block that cannot be merged with the others, now or later: leave it out.
    #[error("block {block} cannot be merged: {reason}")]
    Incompatible {
        /// The block.
        block: Uuid,
        /// Why not.
        reason: String,
    },
    /// A block is not live any more; another process has merged or removed it.
    #[error("block {block} is not live any more")]
    Gone {
        /// The block.
        block: Uuid,
    },
    /// The new block could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The store.
    #[error(transparent)]
    Backend(#[from] tempo_backend::Error),
    /// The footer of a row group that was to be copied.
    #[error("footer of block {block}: {source}")]
    Footer {
        /// The block.
        block: Uuid,
        /// What is wrong with it.
        source: ParquetError,
    },
    /// The caller asked to stop, or the process is shutting down.
    #[error("merging was cancelled")]
    Cancelled,
}

impl From<TableError> for MergeError {
    fn from(error: TableError) -> Self {
        Self::Read(error.into())
    }
}
