//! What can go wrong with reading a block.

use tempo_table::TableError;
use uuid::Uuid;

/// Why a block cannot be read. Variants tell callers apart that act differently.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A format that this program does not read. Report it once and skip the block.
    #[error(
        "block {block} has format '{format}', which cannot be read: use vParquet4 or vParquet5"
    )]
    Unsupported {
        /// The block.
        block: Uuid,
        /// The format that its meta names.
        format: String,
    },
    /// The storage failed, or the data is damaged; the inner error tells which.
    #[error(transparent)]
    Data(#[from] TableError),
}
