//! The tenant index: one object that lists every block of a tenant, so that readers need not list
//! the store.
//!
//! Two forms lie side by side: `index.pb.zst` (zstd of protobuf, written and read first) and
//! `index.json.gz` (gzip of JSON, whose gzip header names the file `index.json`).

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use bytes::Bytes;
use flate2::{Compression, GzBuilder, read::GzDecoder};
use prost::Message;
use serde::{Deserialize, Serialize};
use tempo_proto::tempopb::backend::v1 as proto;

use crate::{
    Backend, BlockMeta, CompactedBlockMeta, Error, ObjectKey, ReadStats, Timestamp,
    keys::{TENANT_INDEX_JSON, TENANT_INDEX_PROTO, check_tenant},
    meta::Shared,
};

/// An index that unpacks to more is not read.
const MAX_UNPACKED_BYTES: u64 = 1 << 30;

/// All blocks of a tenant at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantIndex {
    /// When it was built.
    #[serde(default)]
    pub created_at: Timestamp,
    /// Live blocks.
    #[serde(rename = "meta", default, deserialize_with = "null_is_empty")]
    pub live: Vec<Arc<BlockMeta>>,
    /// Blocks marked compacted and not yet removed.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub compacted: Vec<Arc<CompactedBlockMeta>>,
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

impl TenantIndex {
    /// Whether it lists no block at all.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.compacted.is_empty()
    }

    /// The bytes of `index.pb.zst`.
    pub fn encode_proto(&self) -> io::Result<Vec<u8>> {
        let message = proto::TenantIndex {
            created_at: Some(self.created_at.to_proto()),
            meta: self.live.iter().map(|meta| meta.to_proto()).collect(),
            compacted_meta: self
                .compacted
                .iter()
                .map(|block| proto::CompactedBlockMeta {
                    block_meta: Some(block.meta.to_proto()),
                    compacted_time: Some(block.compacted_time.to_proto()),
                })
                .collect(),
        };
        zstd::bulk::compress(&message.encode_to_vec(), zstd::DEFAULT_COMPRESSION_LEVEL)
    }

    /// Reads `index.pb.zst`. The error says what is wrong with it.
    pub fn decode_proto(bytes: &[u8]) -> Result<Self, String> {
        let reader = zstd::Decoder::new(bytes).map_err(|error| error.to_string())?;
        let unpacked = read_limited(reader)?;
        let message = proto::TenantIndex::decode(unpacked.as_slice())
            .map_err(|error| format!("no tenant index: {error}"))?;
        let mut index = Self {
            created_at: Timestamp::from_proto(message.created_at.as_ref()),
            live: Vec::with_capacity(message.meta.len()),
            compacted: Vec::with_capacity(message.compacted_meta.len()),
        };
        let mut shared = Shared::default();
        for meta in &message.meta {
            let meta = BlockMeta::from_proto_sharing(meta, &mut shared)?;
            index.live.push(Arc::new(meta));
        }
        for block in &message.compacted_meta {
            let meta = block
                .block_meta
                .as_ref()
                .ok_or("a compacted block has no meta")?;
            index.compacted.push(Arc::new(CompactedBlockMeta {
                meta: Arc::new(BlockMeta::from_proto_sharing(meta, &mut shared)?),
                compacted_time: Timestamp::from_proto(block.compacted_time.as_ref()),
            }));
        }
        Ok(index)
    }

    /// The bytes of `index.json.gz`.
    pub fn encode_json(&self) -> io::Result<Vec<u8>> {
        let mut writer = GzBuilder::new()
            .filename("index.json")
            .write(Vec::new(), Compression::default());
        writer.write_all(&serde_json::to_vec(self)?)?;
        writer.finish()
    }

    /// Reads `index.json.gz`. The error says what is wrong with it.
    pub fn decode_json(bytes: &[u8]) -> Result<Self, String> {
        let unpacked = read_limited(GzDecoder::new(bytes))?;
        let mut index: Self = serde_json::from_slice(&unpacked)
            .map_err(|error| format!("no tenant index: {error}"))?;
        index.share_repetitions();
        Ok(index)
    }

    /// Tenant and dedicated columns are the same in nearly all metas: keep one copy of each.
    fn share_repetitions(&mut self) {
        let Some(first) = self
            .live
            .first()
            .cloned()
            .or_else(|| self.compacted.first().map(|block| Arc::clone(&block.meta)))
        else {
            return;
        };
        let mut tenant = Arc::clone(&first.tenant_id);
        let mut columns = first.dedicated_columns.clone();
        let mut share = |meta: &mut Arc<BlockMeta>| {
            let Some(meta) = Arc::get_mut(meta) else {
                return;
            };
            if meta.tenant_id == tenant {
                meta.tenant_id = Arc::clone(&tenant);
            } else {
                tenant = Arc::clone(&meta.tenant_id);
            }
            if meta.dedicated_columns.same(&columns) {
                meta.dedicated_columns = columns.clone();
            } else {
                columns = meta.dedicated_columns.clone();
            }
        };
        self.live.iter_mut().for_each(&mut share);
        for block in &mut self.compacted {
            if let Some(block) = Arc::get_mut(block) {
                share(&mut block.meta);
            }
        }
    }
}

fn read_limited(reader: impl Read) -> Result<Vec<u8>, String> {
    let mut unpacked = Vec::new();
    reader
        .take(MAX_UNPACKED_BYTES + 1)
        .read_to_end(&mut unpacked)
        .map_err(|error| format!("it cannot be unpacked: {error}"))?;
    if unpacked.len() as u64 > MAX_UNPACKED_BYTES {
        return Err(format!(
            "it unpacks to more than {MAX_UNPACKED_BYTES} bytes"
        ));
    }
    Ok(unpacked)
}

/// Packs or unpacks on a thread that may be busy for long: seconds, with very many blocks.
async fn apart<T, E>(
    key: &ObjectKey,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Error>
where
    T: Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|problem| Error::corrupt(key.as_str(), problem)),
        Err(stopped) => Err(Error::corrupt(key.as_str(), stopped)),
    }
}

impl Backend {
    /// Reads the tenant index: the protobuf form, or the JSON form where that does not exist.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is neither.
    pub async fn read_tenant_index(&self, tenant: &str) -> Result<TenantIndex, Error> {
        check_tenant(tenant)?;
        let stats = ReadStats::new();
        let key = ObjectKey::tenant(tenant, TENANT_INDEX_PROTO);
        match self.read(&key, &stats).await {
            Ok(bytes) => return apart(&key, move || TenantIndex::decode_proto(&bytes)).await,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        let key = ObjectKey::tenant(tenant, TENANT_INDEX_JSON);
        let bytes = self.read(&key, &stats).await?;
        apart(&key, move || TenantIndex::decode_json(&bytes)).await
    }

    /// Writes both forms of the tenant index, protobuf first; removes both when it lists nothing.
    pub async fn write_tenant_index(
        &self,
        tenant: &str,
        index: Arc<TenantIndex>,
    ) -> Result<(), Error> {
        if index.is_empty() {
            return self.delete_tenant_index(tenant).await;
        }
        check_tenant(tenant)?;
        let key = ObjectKey::tenant(tenant, TENANT_INDEX_PROTO);
        let same = Arc::clone(&index);
        let bytes = apart(&key, move || same.encode_proto()).await?;
        self.write(&key, Bytes::from(bytes)).await?;
        let key = ObjectKey::tenant(tenant, TENANT_INDEX_JSON);
        let bytes = apart(&key, move || index.encode_json()).await?;
        self.write(&key, Bytes::from(bytes)).await
    }

    /// Removes both forms of the tenant index; that they do not exist is no error.
    pub async fn delete_tenant_index(&self, tenant: &str) -> Result<(), Error> {
        check_tenant(tenant)?;
        self.delete(&ObjectKey::tenant(tenant, TENANT_INDEX_PROTO))
            .await?;
        self.delete(&ObjectKey::tenant(tenant, TENANT_INDEX_JSON))
            .await
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{BlockFormat, testing};

    const GOLDEN: [(&[u8], &[u8]); 2] = [
        (
            include_bytes!("../testdata/vparquet4-index.pb.zst"),
            include_bytes!("../testdata/vparquet4-index.json.gz"),
        ),
        (
            include_bytes!("../testdata/vparquet5-index.pb.zst"),
            include_bytes!("../testdata/vparquet5-index.json.gz"),
        ),
    ];

    #[test]
    fn both_forms_of_tempos_own_indexes_say_the_same() {
        for (proto, json) in GOLDEN {
            let from_proto = TenantIndex::decode_proto(proto).unwrap();
            let from_json = TenantIndex::decode_json(json).unwrap();
            assert_eq!(from_proto, from_json);
            assert!(!from_proto.live.is_empty());
        }
        let index = TenantIndex::decode_proto(GOLDEN[0].0).unwrap();
        assert_eq!(
            index.created_at.to_string(),
            "2026-11-22T17:44:39.79137816Z"
        );
        let ids: Vec<String> = index
            .live
            .iter()
            .map(|meta| meta.block_id.to_string())
            .collect();
        assert_eq!(
            ids,
            [
                "6c401b8e-0867-416f-85bd-e133cda96d43",
                "f4d8cfb0-8d16-48c1-bbd7-31a78c75b6cb"
            ]
        );
        assert_eq!(index.live[0].format, BlockFormat::VParquet4);
        assert_eq!(index.live[0].footer_size, 19341);
        // Repeated parts are kept once.
        assert!(Arc::ptr_eq(
            &index.live[0].tenant_id,
            &index.live[1].tenant_id
        ));
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        for (proto, json) in GOLDEN {
            let mut index = TenantIndex::decode_proto(proto).unwrap();
            let text = read_limited(GzDecoder::new(json)).unwrap();
            let ours =
                read_limited(GzDecoder::new(index.encode_json().unwrap().as_slice())).unwrap();
            assert_eq!(String::from_utf8(ours), String::from_utf8(text));
            let message = |packed: &[u8]| zstd::decode_all(packed).unwrap();
            assert_eq!(message(&index.encode_proto().unwrap()), message(proto));

            index.compacted.push(Arc::new(CompactedBlockMeta {
                meta: Arc::new(BlockMeta {
                    block_id: Uuid::from_u128(7),
                    ..(*index.live[0]).clone()
                }),
                compacted_time: Timestamp::from_unix_nanos(1_700_000_000_000_000_001),
            }));
            let again = TenantIndex::decode_proto(&index.encode_proto().unwrap()).unwrap();
            assert_eq!(again, index);
            let again = TenantIndex::decode_json(&index.encode_json().unwrap()).unwrap();
            assert_eq!(again, index);
        }
    }

    #[test]
    fn the_gzip_header_names_the_file() {
        let index = TenantIndex::decode_proto(GOLDEN[0].0).unwrap();
        let bytes = index.encode_json().unwrap();
        let mut reader = GzDecoder::new(bytes.as_slice());
        reader.read_to_end(&mut Vec::new()).unwrap();
        let name = reader.header().and_then(|header| header.filename());
        assert_eq!(name, Some(b"index.json".as_slice()));
    }

    #[test]
    fn null_lists_are_empty_and_compacted_metas_are_flat() {
        let json = br#"{"created_at":"2023-11-14T22:13:20Z","meta":null,"compacted":[{"blockID":"11111111-2222-4333-8444-555555555555","compactedTime":"2023-11-14T22:13:21Z"}]}"#;
        let index: TenantIndex = serde_json::from_slice(json).unwrap();
        assert!(index.live.is_empty());
        assert_eq!(
            index.compacted[0].compacted_time,
            Timestamp::from_unix_seconds(1_700_000_001)
        );
    }

    #[test]
    fn damaged_indexes_are_refused() {
        for (proto, json) in GOLDEN {
            assert!(TenantIndex::decode_proto(&proto[..proto.len() / 2]).is_err());
            assert!(TenantIndex::decode_json(&json[..json.len() / 2]).is_err());
            assert!(TenantIndex::decode_proto(json).is_err());
            assert!(TenantIndex::decode_json(proto).is_err());
        }
    }

    #[tokio::test]
    async fn the_protobuf_form_is_read_first_and_json_only_in_its_absence() {
        let (backend, faults) = testing::faulty(&testing::memory());
        assert!(
            backend
                .read_tenant_index("t")
                .await
                .unwrap_err()
                .is_not_found()
        );
        let index = TenantIndex::decode_proto(GOLDEN[0].0).unwrap();
        let index = Arc::new(index);
        backend
            .write_tenant_index("t", Arc::clone(&index))
            .await
            .unwrap();
        faults.forget_requests();
        assert_eq!(backend.read_tenant_index("t").await.unwrap(), *index);
        assert_eq!(faults.count(testing::Operation::Read, "index.json.gz"), 0);

        backend
            .delete(&ObjectKey::tenant("t", TENANT_INDEX_PROTO))
            .await
            .unwrap();
        assert_eq!(backend.read_tenant_index("t").await.unwrap(), *index);

        // A damaged or unreachable protobuf form is not papered over.
        backend
            .write(
                &ObjectKey::tenant("t", TENANT_INDEX_PROTO),
                Bytes::from_static(b"x"),
            )
            .await
            .unwrap();
        assert!(matches!(
            backend.read_tenant_index("t").await,
            Err(Error::Corrupt { .. })
        ));
        faults.fail_next(1);
        assert!(matches!(
            backend.read_tenant_index("t").await,
            Err(Error::Storage { .. })
        ));
    }

    #[tokio::test]
    async fn an_empty_index_removes_both_objects() {
        let backend = testing::memory();
        let index = TenantIndex::decode_proto(GOLDEN[0].0).unwrap();
        let index = Arc::new(index);
        backend
            .write_tenant_index("t", Arc::clone(&index))
            .await
            .unwrap();
        backend
            .write_tenant_index("t", Arc::default())
            .await
            .unwrap();
        assert!(
            backend
                .read_tenant_index("t")
                .await
                .unwrap_err()
                .is_not_found()
        );
        backend
            .write_tenant_index("t", Arc::default())
            .await
            .unwrap();
    }
}
