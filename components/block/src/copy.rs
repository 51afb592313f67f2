//! Copying a block from one store to another.
//!
//! Owns the order of the copy: `meta.json` comes last, so that nobody sees half a block. Must never
//! look inside the objects.

use tempo_backend::{Backend, BlockMeta, Error, ObjectKey, ReadStats};
use uuid::Uuid;

/// Bytes of `data.parquet` that are read at once.
const READ_BYTES: u64 = 4 << 20;

/// Copies a live block: data, bloom shards, index (if there is one), the flag that hides the block
/// from compaction (if it is set), and `meta.json` last. Done again after a failure, it overwrites
/// what it left. Holds a few MiB of the data in memory.
///
/// # Errors
/// [`Error::NotFound`] when the block is not live in `from`; otherwise the stores' errors. The
/// block is then not visible in `to`, unless it was before.
pub async fn copy_block(
    from: &Backend,
    to: &Backend,
    tenant: &str,
    block: Uuid,
) -> Result<BlockMeta, Error> {
    let meta = from.read_meta(tenant, block).await?;
    copy_data(from, to, tenant, block).await?;
    for shard in 0..meta.bloom_shard_count() {
        copy_object(from, to, &ObjectKey::bloom(tenant, block, shard)).await?;
    }
    match copy_object(from, to, &ObjectKey::index(tenant, block)).await {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    if from.has_no_compact(tenant, block).await? {
        to.set_no_compact(tenant, block).await?;
    }
    copy_object(from, to, &ObjectKey::meta(tenant, block)).await?;
    Ok(meta)
}

async fn copy_data(from: &Backend, to: &Backend, tenant: &str, block: Uuid) -> Result<(), Error> {
    let key = ObjectKey::data(tenant, block);
    let length = from.size(&key).await?;
    let stats = ReadStats::new();
    let mut writer = to.put_stream(&key).await?;
    let mut at = 0;
    while at < length {
        let end = (at + READ_BYTES).min(length);
        writer
            .write(from.read_range(&key, at..end, &stats).await?)
            .await?;
        at = end;
    }
    writer.finish().await?;
    Ok(())
}

/// Small objects go in one piece, byte for byte.
async fn copy_object(from: &Backend, to: &Backend, key: &ObjectKey) -> Result<(), Error> {
    let bytes = from.read(key, &ReadStats::new()).await?;
    to.write(key, bytes).await
}
