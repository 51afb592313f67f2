//! How a block is to be written.

use std::sync::Arc;

use tempo_backend::{BlockFormat, DedicatedColumns};
use uuid::Uuid;

use crate::{
    bloom::{DEFAULT_FALSE_POSITIVE, DEFAULT_SHARD_SIZE_BYTES},
    schema::Version,
};

/// Tempo's default for [`BlockOptions::row_group_size_bytes`].
pub const DEFAULT_ROW_GROUP_SIZE_BYTES: u64 = 100_000_000;

/// Largest value of [`BlockOptions::row_group_size_bytes`] that has an effect: dictionaries count
/// their bytes in 32 bits.
pub const MAX_ROW_GROUP_SIZE_BYTES: u64 = 1 << 30;

/// Largest serialized trace, in bytes: a row is held in memory as a whole.
pub const MAX_TRACE_BYTES: u64 = 256 << 20;

/// How a block is to be written.
#[derive(Debug, Clone)]
pub struct BlockOptions {
    /// The format.
    pub version: Version,
    /// The tenant.
    pub tenant: Arc<str>,
    /// The block's id.
    pub block_id: Uuid,
    /// Attributes that get a column of their own. Those that the version cannot hold are left out
    /// of the block's meta.
    pub dedicated_columns: DedicatedColumns,
    /// A row group is closed when Tempo's estimate of it, or what it will take in the file before
    /// its dictionaries are compressed, exceeds this. 0 stands for the default.
    pub row_group_size_bytes: u64,
    /// False-positive rate of the bloom filter, within (0, 1).
    pub bloom_false_positive: f64,
    /// Size of a bloom shard.
    pub bloom_shard_size_bytes: u32,
    /// 1 in blocks of this program.
    pub replication_factor: u32,
    /// How many traces will come; sizes the bloom filter. With more of them, more absent ids pass.
    pub expected_traces: u64,
}

impl BlockOptions {
    /// Tempo's defaults.
    pub fn new(version: Version, tenant: Arc<str>, block_id: Uuid, expected_traces: u64) -> Self {
        Self {
            version,
            tenant,
            block_id,
            dedicated_columns: DedicatedColumns::tempo_defaults(),
            row_group_size_bytes: DEFAULT_ROW_GROUP_SIZE_BYTES,
            bloom_false_positive: DEFAULT_FALSE_POSITIVE,
            bloom_shard_size_bytes: DEFAULT_SHARD_SIZE_BYTES,
            replication_factor: 1,
            expected_traces,
        }
    }

    pub(super) fn format(&self) -> BlockFormat {
        match self.version {
            Version::VParquet4 => BlockFormat::VParquet4,
            Version::VParquet5 => BlockFormat::VParquet5,
        }
    }

    pub(super) fn row_group_limit(&self) -> u64 {
        match self.row_group_size_bytes {
            0 => DEFAULT_ROW_GROUP_SIZE_BYTES,
            bytes => bytes.min(MAX_ROW_GROUP_SIZE_BYTES),
        }
    }
}
