//! Settings of the block-builder, resolved.

use std::{path::PathBuf, time::Duration};

use tempo_block::{
    bloom::{DEFAULT_FALSE_POSITIVE, DEFAULT_SHARD_SIZE_BYTES},
    schema::Version,
    write::DEFAULT_ROW_GROUP_SIZE_BYTES,
};
use tempo_ingest::KafkaConfig;

use crate::Assignment;

/// The consumer group of Tempo's block-builders.
pub const GROUP: &str = "block-builder";

/// How blocks are written.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockSettings {
    /// Their format.
    pub version: Version,
    /// See [`BlockOptions`](tempo_block::write::BlockOptions).
    pub row_group_size_bytes: u64,
    /// False-positive rate of the bloom filters.
    pub bloom_false_positive: f64,
    /// Bytes of a bloom shard.
    pub bloom_shard_size_bytes: u32,
}

impl Default for BlockSettings {
    fn default() -> Self {
        Self {
            version: Version::VParquet4,
            row_group_size_bytes: DEFAULT_ROW_GROUP_SIZE_BYTES,
            bloom_false_positive: DEFAULT_FALSE_POSITIVE,
            bloom_shard_size_bytes: DEFAULT_SHARD_SIZE_BYTES,
        }
    }
}

/// Settings of the block-builder; the defaults are Tempo's where Tempo has them.
#[derive(Debug, Clone)]
pub struct Config {
    /// The log.
    pub kafka: KafkaConfig,
    /// The consumer group whose offsets say what is built.
    pub group: String,
    /// The partitions of this process.
    pub assignment: Assignment,
    /// Time span of a section.
    pub consume_cycle_duration: Duration,
    /// Bytes of records after which a section ends; 0 stands for the largest section,
    /// [`MAX_SECTION_BYTES`].
    pub max_consuming_bytes: u64,
    /// How far span times may lie beyond a section's records.
    pub ingestion_time_range_slack: Duration,
    /// How blocks are written.
    pub block: BlockSettings,
    /// Folder for what does not fit into memory; emptied at every start.
    pub spill_path: PathBuf,
    /// Bytes of records held in memory; beyond, they are sorted and written to
    /// [`Config::spill_path`].
    pub buffer_bytes: u64,
    /// Silence after which a section ends.
    pub max_silence: Duration,
}

/// Largest section, in bytes of records: bounds the disk space and the runs to be merged.
pub const MAX_SECTION_BYTES: u64 = 16 << 30;

/// Most runs of all that memory holds that a section may be sorted in, beside the few smaller ones
/// that come first: they are merged at once, each an open file and two buffers.
pub const MAX_RUNS: u64 = 256;

/// Bytes of the largest section, for a [`Config::max_consuming_bytes`].
pub fn section_limit_bytes(max_consuming_bytes: u64) -> u64 {
    match max_consuming_bytes {
        0 => MAX_SECTION_BYTES,
        bytes => bytes.min(MAX_SECTION_BYTES),
    }
}

impl Config {
    /// The defaults for a log and its partitions.
    pub fn new(kafka: KafkaConfig, assignment: Assignment) -> Self {
        Self {
            kafka,
            group: GROUP.to_owned(),
            assignment,
            consume_cycle_duration: Duration::from_secs(300),
            max_consuming_bytes: 5_000_000_000,
            ingestion_time_range_slack: Duration::from_secs(120),
            block: BlockSettings::default(),
            spill_path: PathBuf::from("/var/tempo/block-builder/traces"),
            buffer_bytes: 256 << 20,
            max_silence: Duration::from_secs(10),
        }
    }

    pub(crate) fn section_limit_bytes(&self) -> u64 {
        section_limit_bytes(self.max_consuming_bytes)
    }
}
