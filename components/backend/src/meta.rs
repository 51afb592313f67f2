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
    /// Blocks whose traces this one holds, so that lists show it instead of them from the moment
    /// it is live, even while they are live too. Not Tempo's, which ignores it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<Uuid>,
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
            replaces: Vec::new(),
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
            dedicated_columns: dedicated::to_json(&self.dedicated_columns),
            replication_factor: self.replication_factor,
            replaces: self
                .replaces
                .iter()
                .map(|block| block.as_bytes().to_vec())
                .collect(),
        }
    }

    /// The meta of a protobuf message. The error says what is wrong with it.
    pub fn from_proto(message: &proto::BlockMeta) -> Result<Self, String> {
        Self::from_proto_sharing(message, &mut Shared::default())
    }

    /// [`BlockMeta::from_proto`], sharing what the meta before had too.
    pub(crate) fn from_proto_sharing(
        message: &proto::BlockMeta,
        shared: &mut Shared,
    ) -> Result<Self, String> {
        let block_id = match message.block_id.as_slice() {
            [] => Uuid::nil(),
            bytes => Uuid::from_slice(bytes)
                .map_err(|_| format!("block id has {} bytes, not 16", bytes.len()))?,
        };
        Ok(Self {
            format: BlockFormat::from(message.format.as_str()),
            block_id,
            tenant_id: shared.tenant(&message.tenant_id),
            start_time: Timestamp::from_proto(message.start_time.as_ref()),
            end_time: Timestamp::from_proto(message.end_time.as_ref()),
            total_objects: message.total_objects,
            size: message.size,
            compaction_level: message.compaction_level,
            index_page_size: message.index_page_size,
            total_records: message.total_records,
            bloom_shards: message.bloom_shards,
            footer_size: message.footer_size,
            dedicated_columns: shared
                .columns(&message.dedicated_columns)
                .map_err(|error| format!("dedicated columns of block {block_id}: {error}"))?,
            replication_factor: message.replication_factor,
            replaces: message
                .replaces
                .iter()
                .filter_map(|block| Uuid::from_slice(block).ok())
                .collect(),
        })
    }
}

/// Tenant and dedicated columns of the meta read before: nearly always those of the next one.
#[derive(Debug)]
pub(crate) struct Shared {
    tenant: Arc<str>,
    columns_json: Vec<u8>,
    columns: DedicatedColumns,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            tenant: Arc::from(""),
            columns_json: Vec::new(),
            columns: DedicatedColumns::default(),
        }
    }
}

impl Shared {
    fn tenant(&mut self, tenant: &str) -> Arc<str> {
        if &*self.tenant != tenant {
            self.tenant = Arc::from(tenant);
        }
        Arc::clone(&self.tenant)
    }

    fn columns(&mut self, json: &[u8]) -> Result<DedicatedColumns, serde_json::Error> {
        if self.columns_json != json {
            self.columns = dedicated::from_json(json)?;
            json.clone_into(&mut self.columns_json);
        }
        Ok(self.columns.clone())
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

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::DedicatedColumn;

    const ID: &str = "11111111-2222-4333-8444-555555555555";

    fn parse(json: &str) -> Result<BlockMeta, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn a_written_meta_reads_back_as_the_same_text() {
        let text = format!(
            r#"{{"format":"vParquet5","blockID":"{ID}","tenantID":"single-tenant","startTime":"2023-11-14T22:13:20Z","endTime":"2023-11-14T22:14:20Z","totalObjects":40,"size":107123,"compactionLevel":0,"indexPageSize":0,"totalRecords":4,"bloomShards":1,"footerSize":43247,"dedicatedColumns":[{{"s":"resource","n":"k8s.cluster.name"}},{{"n":"http.status_code","t":"int","o":["blob"]}}],"replicationFactor":1}}"#
        );
        let meta = parse(&text).unwrap();
        assert_eq!(meta.format, BlockFormat::VParquet5);
        assert_eq!(meta.start_time, Timestamp::from_unix_seconds(1_700_000_000));
        assert_eq!(meta.dedicated_columns.as_slice().len(), 2);
        assert_eq!(serde_json::to_string(&meta).unwrap(), text);
    }

    #[test]
    fn zero_values_are_written_except_three() {
        let text = serde_json::to_string(&BlockMeta::default()).unwrap();
        assert_eq!(
            text,
            r#"{"format":"","blockID":"00000000-0000-0000-0000-000000000000","tenantID":"","startTime":"0001-01-01T00:00:00Z","endTime":"0001-01-01T00:00:00Z","totalObjects":0,"compactionLevel":0,"indexPageSize":0,"totalRecords":0,"bloomShards":0,"footerSize":0}"#
        );
    }

    #[test]
    fn any_key_may_be_absent_and_unknown_ones_are_ignored() {
        let meta = parse(r#"{"format":"vParquet5"}"#).unwrap();
        assert!(meta.block_id.is_nil());
        assert!(meta.start_time.is_zero());
        assert_eq!(meta.bloom_shard_count(), 10);
        // As written before the columnar formats.
        let legacy = parse(&format!(
            r#"{{"format":"v2","blockID":"{ID}","minID":"AAAAAAAAAAAAAAAAAAAAAA==","maxID":"/////////////////////w==","tenantID":"t","startTime":"2021-01-01T00:00:00.5+02:00","endTime":"2021-01-01T00:01:00+02:00","totalObjects":7,"size":12345,"compactionLevel":2,"encoding":"none","indexPageSize":250000,"totalRecords":3,"dataEncoding":"","bloomShards":0,"dedicatedColumns":null}}"#
        ))
        .unwrap();
        assert_eq!(legacy.format, BlockFormat::from("v2"));
        assert!(!legacy.format.is_supported());
        assert_eq!(legacy.start_time.to_string(), "2020-12-31T22:00:00.5Z");
        assert!(legacy.dedicated_columns.as_slice().is_empty());
        assert!(parse(r#"{"blockID":""}"#).is_err());
        assert!(parse(r#"{"blockID":"7"}"#).is_err());
    }

    #[test]
    fn format_names_are_case_sensitive() {
        assert_eq!(BlockFormat::from("vParquet4"), BlockFormat::VParquet4);
        assert_eq!(
            BlockFormat::from("vparquet4"),
            BlockFormat::Other("vparquet4".into())
        );
    }

    #[test]
    fn the_protobuf_form_is_that_of_the_format() {
        let meta = BlockMeta {
            format: BlockFormat::VParquet5,
            block_id: Uuid::try_parse(ID).unwrap(),
            tenant_id: Arc::from("t"),
            dedicated_columns: vec![DedicatedColumn::string(Default::default(), "a")].into(),
            ..BlockMeta::default()
        };
        let bytes = meta.to_proto().encode_to_vec();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "0a097650617271756574351210111111112222433384445555555555552a0174320b088092b8c398feffffff013a0b088092b8c398feffffff018a010b5b7b226e223a2261227d5d"
        );
        let message = proto::BlockMeta::decode(bytes.as_slice()).unwrap();
        assert_eq!(BlockMeta::from_proto(&message).unwrap(), meta);
    }

    #[test]
    fn a_damaged_message_says_what_is_wrong() {
        let message = proto::BlockMeta {
            block_id: vec![1, 2, 3],
            ..proto::BlockMeta::default()
        };
        let problem = BlockMeta::from_proto(&message).unwrap_err();
        assert!(problem.contains("3 bytes"), "{problem}");
        let message = proto::BlockMeta {
            dedicated_columns: b"{".to_vec(),
            ..proto::BlockMeta::default()
        };
        assert!(BlockMeta::from_proto(&message).is_err());
    }

    #[test]
    fn a_block_without_times_overlaps_nothing() {
        let (start, end) = (
            Timestamp::from_unix_seconds(10),
            Timestamp::from_unix_seconds(20),
        );
        let mut meta = BlockMeta::default();
        assert!(!meta.overlaps(start, end));
        meta.start_time = end;
        meta.end_time = end;
        assert!(meta.overlaps(start, end));
        meta.start_time = Timestamp::from_unix_seconds(21);
        assert!(!meta.overlaps(start, end));
    }
}
