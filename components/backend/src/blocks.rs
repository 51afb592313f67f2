//! Blocks and tenants as the store holds them: listing, metas, marking, deleting.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStoreExt, path::Path};
use uuid::Uuid;

use crate::{
    Backend, BlockMeta, CompactedBlockMeta, Error, ObjectKey, ReadStats, Timestamp,
    backend::StoreKind,
    keys::{self, check_tenant},
};

/// Deletions in flight at once, while a block is removed.
const DELETE_CONCURRENCY: usize = 8;

/// The blocks of a tenant by what their directory holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockListing {
    /// Blocks with `meta.json`, by id.
    pub live: Vec<Uuid>,
    /// Blocks with `meta.compacted.json` and its modification time, by id. A block whose marking
    /// was interrupted is in both lists.
    pub compacted: Vec<(Uuid, Timestamp)>,
    /// Blocks with `nocompact.flg`.
    pub no_compact: HashSet<Uuid>,
}

impl Backend {
    /// Tenants: directories under the prefix whose name can be a tenant's, sorted. Objects in the
    /// root and foreign directories are left out.
    pub async fn list_tenants(&self) -> Result<Vec<String>, Error> {
        let mut tenants = self.list_tenant_folders("").await?;
        tenants.retain(|name| *name != keys::CLUSTER_SEED && *name != keys::WORK);
        Ok(tenants)
    }

    /// Tenants with a folder below `overrides`, sorted; whether there is a document in it is not
    /// looked at.
    pub async fn list_override_tenants(&self) -> Result<Vec<String>, Error> {
        self.list_tenant_folders(keys::OVERRIDES).await
    }

    async fn list_tenant_folders(&self, parent: &str) -> Result<Vec<String>, Error> {
        let prefix = self.inner.prefix.path(parent)?;
        let listed = self
            .inner
            .store
            .list_with_delimiter(Some(&prefix))
            .await
            .map_err(|error| Error::from_store("listing", prefix.as_ref(), error))?;
        let mut tenants: Vec<String> = listed
            .common_prefixes
            .iter()
            .filter_map(Path::filename)
            .filter(|name| check_tenant(name).is_ok())
            .map(str::to_owned)
            .collect();
        tenants.sort_unstable();
        tenants.dedup();
        Ok(tenants)
    }

    /// Blocks of a tenant. A directory that is not named by a UUID is left out, whatever it holds.
    pub async fn list_blocks(&self, tenant: &str) -> Result<BlockListing, Error> {
        check_tenant(tenant)?;
        let root = self.inner.prefix.path(tenant)?;
        let slices = match self.inner.kind {
            StoreKind::S3 | StoreKind::Gcs => id_slices(self.inner.list_blocks_concurrency),
            _ => id_slices(1),
        };
        let concurrency = slices.len();
        let parts: Vec<BlockListing> = stream::iter(slices)
            .map(|slice| self.list_slice(root.clone(), slice))
            .buffered(concurrency)
            .try_collect()
            .await
            .map_err(|error| Error::from_store("listing", tenant, error))?;
        let mut all = BlockListing::default();
        for part in parts {
            all.live.extend(part.live);
            all.compacted.extend(part.compacted);
            all.no_compact.extend(part.no_compact);
        }
        all.live.sort_unstable();
        all.compacted.sort_unstable();
        Ok(all)
    }

    async fn list_slice(
        &self,
        root: Path,
        slice: IdSlice,
    ) -> Result<BlockListing, object_store::Error> {
        let store = &self.inner.store;
        let mut objects = match slice.from {
            Some(from) => store.list_with_offset(Some(&root), &root.clone().join(from.to_string())),
            None => store.list(Some(&root)),
        };
        let mut listing = BlockListing::default();
        while let Some(object) = objects.try_next().await? {
            let Some(rest) = object
                .location
                .as_ref()
                .strip_prefix(root.as_ref())
                .and_then(|rest| rest.strip_prefix('/'))
            else {
                continue;
            };
            let Some((directory, name)) = rest.split_once('/') else {
                continue;
            };
            // 36 characters: the other spellings of a UUID name no block.
            let id = match Uuid::try_parse(directory) {
                Ok(id) if directory.len() == 36 => id,
                _ => continue,
            };
            // Some servers ignore where a listing is asked to begin.
            if slice.from.is_some_and(|from| id < from) {
                continue;
            }
            if slice.until.is_some_and(|until| id >= until) {
                break;
            }
            match name {
                keys::META => listing.live.push(id),
                keys::COMPACTED_META => listing
                    .compacted
                    .push((id, Timestamp::from(object.last_modified))),
                keys::NO_COMPACT => {
                    listing.no_compact.insert(id);
                }
                _ => {}
            }
        }
        Ok(listing)
    }

    /// The meta of a live block.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is not live, [`Error::Corrupt`] when it cannot be read or
    /// belongs elsewhere.
    pub async fn read_meta(&self, tenant: &str, block: Uuid) -> Result<BlockMeta, Error> {
        let key = ObjectKey::meta(tenant, block);
        let bytes = self.read(&key, &ReadStats::new()).await?;
        parse_meta(&key, &bytes, tenant, block)
    }

    /// The meta of a block that is marked compacted; its time is the object's modification time.
    ///
    /// # Errors
    /// As [`Backend::read_meta`].
    pub async fn read_compacted_meta(
        &self,
        tenant: &str,
        block: Uuid,
    ) -> Result<CompactedBlockMeta, Error> {
        let key = ObjectKey::compacted_meta(tenant, block);
        let failed = |error| Error::from_store("reading", key.as_str(), error);
        let path = self.inner.prefix.path(key.as_str())?;
        let answer = self.inner.store.get(&path).await.map_err(failed)?;
        let compacted_time = Timestamp::from(answer.meta.last_modified);
        let bytes = answer.bytes().await.map_err(failed)?;
        let meta = parse_meta(&key, &bytes, tenant, block)?;
        Ok(CompactedBlockMeta {
            meta: Arc::new(meta),
            compacted_time,
        })
    }

    /// Writes `meta.json`, which makes the block live: the last object of a block to be written.
    pub async fn write_meta(&self, meta: &BlockMeta) -> Result<(), Error> {
        let key = ObjectKey::meta(&meta.tenant_id, meta.block_id);
        let json = serde_json::to_vec(meta).map_err(|error| Error::corrupt(key.as_str(), error))?;
        self.write(&key, Bytes::from(json)).await
    }

    /// Ends the life of a block: its meta moves to `meta.compacted.json`. Done again after an
    /// interruption, it completes.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the block is neither live nor compacted.
    pub async fn mark_compacted(&self, tenant: &str, block: Uuid) -> Result<(), Error> {
        let live = ObjectKey::meta(tenant, block);
        let compacted = ObjectKey::compacted_meta(tenant, block);
        match self.read(&live, &ReadStats::new()).await {
            Ok(bytes) => {
                self.write(&compacted, bytes).await?;
                self.delete(&live).await
            }
            Err(error) if error.is_not_found() => match self.exists(&compacted).await? {
                true => Ok(()),
                false => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Removes every object of a block, its metas last, so that an interrupted removal is seen and
    /// done again.
    pub async fn delete_block(&self, tenant: &str, block: Uuid) -> Result<(), Error> {
        check_tenant(tenant)?;
        let directory = format!("{tenant}/{block}");
        let path = self.inner.prefix.path(&directory)?;
        let failed = |error| Error::from_store("deleting", &directory, error);
        let objects: Vec<Path> = self
            .inner
            .store
            .list(Some(&path))
            .map_ok(|object| object.location)
            .try_collect()
            .await
            .map_err(failed)?;
        let is_meta = |path: &Path| {
            matches!(
                path.filename(),
                Some(keys::META) | Some(keys::COMPACTED_META)
            )
        };
        let (metas, others): (Vec<Path>, Vec<Path>) = objects.into_iter().partition(is_meta);
        for stage in [others, metas] {
            stream::iter(stage)
                .map(|object| async move { self.delete_path(&object).await })
                .buffer_unordered(DELETE_CONCURRENCY)
                .try_collect::<Vec<()>>()
                .await
                .map_err(failed)?;
        }
        if let Some(root) = &self.inner.local_root {
            // What an interrupted upload left is not listed, and would keep the directory.
            match tokio::fs::remove_dir_all(root.join(path.as_ref())).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(tenant, %block, %error, "directory of deleted block not removed");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Every object of a tenant, in whatever directory, with its modification time.
    pub(crate) async fn list_tenant_objects(
        &self,
        tenant: &str,
    ) -> Result<Vec<(ObjectKey, Timestamp)>, Error> {
        check_tenant(tenant)?;
        let root = self.inner.prefix.path(tenant)?;
        let objects: Vec<object_store::ObjectMeta> = self
            .inner
            .store
            .list(Some(&root))
            .try_collect()
            .await
            .map_err(|error| Error::from_store("listing", tenant, error))?;
        Ok(objects
            .iter()
            .filter_map(|object| {
                let key = self.inner.prefix.strip(object.location.as_ref())?;
                Some((ObjectKey::root(key), Timestamp::from(object.last_modified)))
            })
            .collect())
    }

    /// Removes an object; that it does not exist is no error.
    pub async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        let path = self.inner.prefix.path(key.as_str())?;
        self.delete_path(&path)
            .await
            .map_err(|error| Error::from_store("deleting", key.as_str(), error))
    }

    async fn delete_path(&self, path: &Path) -> Result<(), object_store::Error> {
        match self.inner.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Hides a block from compaction, before it is made live.
    pub async fn set_no_compact(&self, tenant: &str, block: Uuid) -> Result<(), Error> {
        self.write(&ObjectKey::no_compact(tenant, block), Bytes::new())
            .await
    }

    /// Lets compaction select a block.
    pub async fn clear_no_compact(&self, tenant: &str, block: Uuid) -> Result<(), Error> {
        self.delete(&ObjectKey::no_compact(tenant, block)).await
    }

    /// Whether compaction must not select a block.
    pub async fn has_no_compact(&self, tenant: &str, block: Uuid) -> Result<bool, Error> {
        self.exists(&ObjectKey::no_compact(tenant, block)).await
    }
}

/// Reads a meta, which must lie where it says it does; a missing id or tenant is filled in.
fn parse_meta(key: &ObjectKey, json: &[u8], tenant: &str, block: Uuid) -> Result<BlockMeta, Error> {
    // The parser would take a list for a meta whose keys have lost their names.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(Error::corrupt(key.as_str(), "it is not a JSON object"));
    }
    let mut meta: BlockMeta =
        serde_json::from_slice(json).map_err(|error| Error::corrupt(key.as_str(), error))?;
    if meta.block_id.is_nil() {
        meta.block_id = block;
    }
    if meta.tenant_id.is_empty() {
        meta.tenant_id = Arc::from(tenant);
    }
    if meta.block_id != block || &*meta.tenant_id != tenant {
        return Err(Error::corrupt(
            key.as_str(),
            format_args!(
                "it is the meta of block {} of tenant '{}'",
                meta.block_id, meta.tenant_id
            ),
        ));
    }
    Ok(meta)
}

/// Part of the space of block ids: from `from` on, before `until`.
#[derive(Debug, Clone, Copy)]
struct IdSlice {
    from: Option<Uuid>,
    until: Option<Uuid>,
}

/// The space of block ids in `count` equal slices, to be listed in parallel.
fn id_slices(count: usize) -> Vec<IdSlice> {
    let count = count.max(1) as u128;
    let width = (u128::from(u64::MAX) + 1) / count;
    let bound =
        |index: u128| (index > 0 && index < count).then(|| Uuid::from_u128((index * width) << 64));
    (0..count)
        .map(|index| IdSlice {
            from: bound(index),
            until: bound(index + 1),
        })
        .collect()
}

#[cfg(test)]
mod tests;
