//! Merging blocks of a store into the data of a block of the same store.

use std::sync::Arc;

use tempo_backend::{Backend, BlockMeta, ObjectKey, ReadStats, cache::Cache};

use super::{MergeControl, MergeCounts, MergeError, MergeOptions, merge};
use crate::{read::BlockReader, write::FinishedBlock};

/// What became of merged blocks.
#[derive(Debug, Clone)]
pub struct Merged {
    /// The new block, whose data is in the store; `None` when no trace was left for it.
    pub block: Option<FinishedBlock>,
    /// What merging came across.
    pub counts: MergeCounts,
    /// Bytes and requests that reading took.
    pub stats: ReadStats,
}

/// Merges live blocks of one tenant into the `data.parquet` of a new one.
/// [`publish`](crate::write::publish) makes it live. Its meta names the blocks that it replaces:
/// from then on no list shows them beside it. Marking them compacted is the caller's.
///
/// # Errors
/// The store then holds nothing new that anyone would see.
pub async fn merge_blocks(
    backend: &Backend,
    cache: &Cache,
    inputs: Vec<Arc<BlockMeta>>,
    options: MergeOptions,
    control: Arc<dyn MergeControl>,
) -> Result<Merged, MergeError> {
    let Some(tenant) = inputs.first().map(|meta| Arc::clone(&meta.tenant_id)) else {
        return Err(MergeError::Incompatible {
            block: options.block_id,
            reason: "it would be made of nothing".to_owned(),
        });
    };
    // What the list says may be old, or reduced to what an index keeps.
    let mut fresh = Vec::with_capacity(inputs.len());
    for meta in &inputs {
        let block = meta.block_id;
        match backend.read_meta(&tenant, block).await {
            Ok(meta) => fresh.push(Arc::new(meta)),
            Err(error) if error.is_not_found() => return Err(MergeError::Gone { block }),
            Err(error) => return Err(error.into()),
        }
    }
    let block_id = options.block_id;
    let stats = ReadStats::new();
    let sink = backend
        .put_stream(&ObjectKey::data(&tenant, block_id))
        .await?
        .into_blocking();
    let merging = {
        let (backend, cache, stats) = (backend.clone(), cache.clone(), stats.clone());
        move || {
            let readers = fresh.into_iter().map(|meta| {
                BlockReader::open(&backend, &cache, meta, stats.clone()).map_err(MergeError::from)
            });
            let readers: Vec<Arc<BlockReader>> = readers.collect::<Result<_, _>>()?;
            let (block, counts, sink) = merge(&readers, &options, &*control, &stats, sink)?;
            if counts.traces == 0 {
                // Dropping the sink gives the upload up.
                return Ok((None, counts));
            }
            sink.finish()?;
            Ok((Some(block), counts))
        }
    };
    let merged = match tokio::task::spawn_blocking(merging).await {
        Ok(merged) => merged,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(MergeError::Cancelled),
        },
    };
    let (block, counts) = merged?;
    Ok(Merged {
        block,
        counts,
        stats,
    })
}
