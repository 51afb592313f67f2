//! What a block says about itself: `meta.json` and its protobuf form.
//!
//! Facts of the format: a plain JSON object; any key may be absent and means its zero value;
//! unknown keys are ignored; `size`, `dedicatedColumns` and `replicationFactor` are left out when
//! zero or empty, all others are always written.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use tempo_proto::tempopb::backend::v1 as proto;
use uuid::Uuid;

use crate::{DedicatedColumns, Timestamp, dedicated};

/// The encoding of a block.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum BlockFormat {
    /// `vParquet4`: the default of Tempo 2 and 3.0.
    #[default]
    VParquet4,
    /// `vParquet5`: what Tempo writes after 3.0.
    VParquet5,
    /// Any other version string, kept as it is. Such blocks are listed and never opened.
    Other(Box<str>),
}

impl BlockFormat {
    /// The version string, case sensitive.
    pub fn as_str(&self) -> &str {
        match self {
            Self::VParquet4 => "vParquet4",
            Self::VParquet5 => "vParquet5",
            Self::Other(version) => version,
        }
    }

    /// Whether this program can open blocks of it.
    pub fn is_supported(&self) -> bool {
        !matches!(self, Self::Other(_))
    }
}

impl From<&str> for BlockFormat {
    fn from(version: &str) -> Self {
        match version {
            "vParquet4" => Self::VParquet4,
            "vParquet5" => Self::VParquet5,
            other => Self::Other(other.into()),
        }
    }
}

impl fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for BlockFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for BlockFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Ok(Self::from(text.unwrap_or_default().as_ref()))
    }
}

/// Shards that a block with `bloomShards` 0 has: those written before the count was kept.
pub const LEGACY_BLOOM_SHARDS: u32 = 10;

/// What a block says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockMeta {
    /// The encoding.
    pub format: BlockFormat,
    /// The block's id, the name of its directory.
    #[serde(rename = "blockID", deserialize_with = "block_id")]
    pub block_id: Uuid,
    /// The tenant, the name of the directory above.
    #[serde(rename = "tenantID")]
    pub tenant_id: Arc<str>,
    /// Start of the earliest span.
    pub start_time: Timestamp,
    /// End of the latest span; decides compaction window and retention.
    pub end_time: Timestamp,
    /// Traces (rows) in the block.
    pub total_objects: i64,
    /// Length of `data.parquet` in bytes.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub size: u64,
    /// How often its content was compacted.
    pub compaction_level: u32,
    /// Always 0 in Parquet blocks.
    pub index_page_size: u32,
    /// Row groups.
    pub total_records: u32,
    /// Bloom files as written; see [`BlockMeta::bloom_shard_count`].
    pub bloom_shards: u32,
    /// Length of the Parquet footer's Thrift message in bytes; 0 when unknown.
    pub footer_size: u32,
    /// Attributes with a column of their own.
    #[serde(skip_serializing_if = "no_columns")]
    pub dedicated_columns: DedicatedColumns,
    /// 1 for blocks of this program and of block-builders, 0 for those of Tempo 2's ingesters.
    #[serde(skip_serializing_if = "is_zero_u32")]
    pub replication_factor: u32,
}

fn is_zero_u64(value: &u64) -> bool {
    *value == 0
}

fn is_zero_u32(value: &u32) -> bool {
    *value == 0
}

fn no_columns(columns: &DedicatedColumns) -> bool {
    columns.as_slice().is_empty()
}

/// A UUID in text; the empty text is an error, unlike an absent key.
fn block_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    let Some(text) = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)? else {
        return Ok(Uuid::nil());
    };
    Uuid::try_parse(&text)
        .map_err(|error| D::Error::custom(format!("blockID '{text}' is not a UUID: {error}")))
}

impl Default for BlockMeta {
    /// Every key absent.
    fn default() -> Self {
        Self {
            format: BlockFormat::Other("".into()),
            block_id: Uuid::nil(),
            tenant_id: Arc::from(""),
            start_time: Timestamp::ZERO,
            end_time: Timestamp::ZERO,
            total_objects: 0,
            size: 0,
            compaction_level: 0,
            index_page_size: 0,
            total_records: 0,
            bloom_shards: 0,
            footer_size: 0,
            dedicated_columns: DedicatedColumns::default(),
            replication_factor: 0,
        }
    }
}

impl BlockMeta {
    /// The meta of a new block: level 0, replication factor 1, everything that is counted still 0.
    pub fn new(tenant: Arc<str>, block_id: Uuid, format: BlockFormat) -> Self {
        Self {
            format,
            block_id,
            tenant_id: tenant,
            replication_factor: 1,
            ..Self::default()
        }
    }

    /// How many bloom files there are.
    pub fn bloom_shard_count(&self) -> u32 {
        if self.bloom_shards == 0 {
            LEGACY_BLOOM_SHARDS
        } else {
            self.bloom_shards
        }
    }

    /// Whether any part of the block may lie in `start..=end`. A block without times never does.
    pub fn overlaps(&self, start: Timestamp, end: Timestamp) -> bool {
        self.start_time <= end && self.end_time >= start
    }

    /// The protobuf form, as it stands in the tenant index.
    pub fn to_proto(&self) -> proto::BlockMeta {
        proto::BlockMeta {
            format: self.format.as_str().to_owned(),
            block_id: self.block_id.as_bytes().to_vec(),
            tenant_id: self.tenant_id.to_string(),
            start_time: Some(self.start_time.to_proto()),
            end_time: Some(self.end_time.to_proto()),
            total_objects: self.total_objects,
            size: self.size,
            compaction_level: self.compaction_level,
            index_page_size: self.index_page_size,
            total_records: self.total_records,
            bloom_shards: self.bloom_shards,
            footer_size: self.footer_size,
            dedicated_columns: if self.dedicated_columns.as_slice().is_empty() {
                Vec::new()
            } else {
                serde_json::to_vec(&self.dedicated_columns).unwrap_or_default()
            },
            replication_factor: self.replication_factor,
        }
    }

    /// The meta of a protobuf message. The error says what is wrong with it.
    pub fn from_proto(message: &proto::BlockMeta) -> Result<Self, String> {
        let block_id = match message.block_id.as_slice() {
            [] => Uuid::nil(),
            bytes => Uuid::from_slice(bytes)
                .map_err(|_| format!("block id has {} bytes, not 16", bytes.len()))?,
        };
        Ok(Self {
            format: BlockFormat::from(message.format.as_str()),
            block_id,
            tenant_id: Arc::from(message.tenant_id.as_str()),
            start_time: Timestamp::from_proto(message.start_time.as_ref()),
            end_time: Timestamp::from_proto(message.end_time.as_ref()),
            total_objects: message.total_objects,
            size: message.size,
            compaction_level: message.compaction_level,
            index_page_size: message.index_page_size,
            total_records: message.total_records,
            bloom_shards: message.bloom_shards,
            footer_size: message.footer_size,
            dedicated_columns: dedicated::from_json(&message.dedicated_columns)
                .map_err(|error| format!("dedicated columns of block {block_id}: {error}"))?,
            replication_factor: message.replication_factor,
        })
    }
}

/// The meta of a block that is no longer live, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CompactedBlockMeta {
    /// The meta as it was.
    #[serde(flatten)]
    pub meta: Arc<BlockMeta>,
    /// When it was marked: the modification time of `meta.compacted.json`.
    #[serde(default)]
    pub compacted_time: Timestamp,
}
