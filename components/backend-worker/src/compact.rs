//! Merging blocks, and taking the merged ones out of use.

use std::sync::Arc;

use tempo_backend::{BlockChange, BlockMeta, CompactedBlockMeta, ObjectKey, Timestamp};
use tempo_block::{
    merge::{MergeError, MergeOptions, merge_blocks},
    write::{FinishedBlock, publish},
};
use tempo_model::TraceId;
use uuid::Uuid;

use crate::{JobError, control::Control, running::Running, worker::Worker};

/// What was found of blocks that are to be replaced.
enum Found {
    /// All of them are live, and what shall replace them is not.
    Live(Vec<Arc<BlockMeta>>),
    /// Their successor is live already.
    Replaced(Arc<BlockMeta>),
    /// Some are gone, and their successor is not live: the plan is old.
    Gone,
}

/// What to make of which blocks.
pub(crate) struct Replacement<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) inputs: &'a [Uuid],
    pub(crate) output: Uuid,
    /// Sorted.
    pub(crate) dropped: Vec<TraceId>,
    /// In bytes; 0: no limit.
    pub(crate) max_trace_bytes: u64,
}

impl Worker {
    /// Replaces blocks by one; returns it, or `None` when nothing is left of them.
    pub(crate) async fn replace(
        &self,
        replacement: Replacement<'_>,
        running: &Running,
    ) -> Result<Option<Uuid>, JobError> {
        let Replacement {
            tenant,
            inputs,
            output,
            ..
        } = replacement;
        let metas = match self.look(tenant, inputs, output).await? {
            Found::Live(metas) => metas,
            Found::Replaced(successor) => {
                self.retire(tenant, inputs, Some(successor)).await?;
                return Ok(Some(output));
            }
            Found::Gone => {
                tracing::warn!(tenant, output = %output, "blocks to be merged are gone, nothing done");
                return Ok(None);
            }
        };
        // What an interrupted merge left live would be seen again once its successor is gone.
        for block in metas.iter().flat_map(|meta| &meta.replaces) {
            self.mark(tenant, *block).await?;
        }
        let options = MergeOptions {
            block_id: output,
            row_group_size_bytes: self.config().row_group_size_bytes,
            bloom_false_positive: self.config().bloom_false_positive,
            bloom_shard_size_bytes: self.config().bloom_shard_size_bytes,
            max_trace_bytes: replacement.max_trace_bytes,
        };
        let control = Control {
            abandon: running.abandon.clone(),
            dropped: replacement.dropped,
        };
        let level = metas
            .iter()
            .map(|meta| meta.compaction_level)
            .max()
            .unwrap_or(0);
        let factor = metas.first().map_or(1, |meta| meta.replication_factor);
        let (backend, cache) = (self.backend(), self.cache());
        let merged = merge_blocks(backend, cache, metas, options, Arc::new(control)).await;
        let merged = match merged {
            Err(MergeError::Cancelled) => return Err(JobError::Abandoned),
            Err(MergeError::Gone { .. }) => return Ok(None),
            merged => merged?,
        };
        running.confirm(inputs, output).await?;
        let counts = &merged.counts;
        let mut successor = None;
        if let Some(block) = &merged.block {
            // While this worker was asleep its block may have lived and gone, or another job may
            // have merged some of the inputs.
            if self.was_compacted(tenant, output).await? || !self.are_live(tenant, inputs).await? {
                tracing::warn!(tenant, %output, "merged blocks are others' by now, nothing published");
                return Err(JobError::Abandoned);
            }
            self.publish(tenant, block).await?;
            self.metrics()
                .merged(level, factor, inputs.len(), block.meta.size, counts);
            successor = Some(Arc::new(block.meta.clone()));
        }
        if counts.spans_discarded > 0 {
            self.discarded_spans()
                .with_label_values(&["trace_too_large_to_compact", tenant])
                .inc_by(counts.spans_discarded);
        }
        tracing::info!(
            tenant,
            block_id = %output,
            blocks = inputs.len(),
            traces = counts.traces,
            traces_united = counts.traces_united,
            traces_dropped = counts.traces_dropped,
            spans_deduplicated = counts.spans_deduplicated,
            row_groups_copied = counts.row_groups_copied,
            size_bytes = merged.block.as_ref().map_or(0, |block| block.meta.size),
            "blocks merged"
        );
        let left = successor.as_ref().map(|meta| meta.block_id);
        self.retire(tenant, inputs, successor).await?;
        Ok(left)
    }

    async fn look(&self, tenant: &str, inputs: &[Uuid], output: Uuid) -> Result<Found, JobError> {
        match self.backend().read_meta(tenant, output).await {
            Ok(meta) => return Ok(Found::Replaced(Arc::new(meta))),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        let mut metas = Vec::with_capacity(inputs.len());
        for &block in inputs {
            match self.backend().read_meta(tenant, block).await {
                Ok(meta) => metas.push(Arc::new(meta)),
                Err(error) if error.is_not_found() => return Ok(Found::Gone),
                Err(error) => return Err(error.into()),
            }
        }
        // A successor that was replaced in its turn has left them live, or another job has merged
        // some, and could not mark them.
        let was_replaced = self.was_compacted(tenant, output).await?;
        let listed = self.blocklist().tenant(tenant);
        let is_replaced = |block: &Uuid| was_replaced || listed.superseded().contains(block);
        if inputs.iter().any(is_replaced) {
            for &block in inputs.iter().filter(|block| is_replaced(block)) {
                self.mark(tenant, block).await?;
            }
            return Ok(Found::Gone);
        }
        Ok(Found::Live(metas))
    }

    /// Makes the block public. When the store says that it failed, and it is there all the same,
    /// only the answer was lost: whoever then counts the job as failed would merge its inputs a
    /// second time.
    async fn publish(&self, tenant: &str, block: &FinishedBlock) -> Result<(), JobError> {
        let Err(error) = publish(self.backend(), block, false).await else {
            return Ok(());
        };
        let block = block.meta.block_id;
        if self.backend().read_meta(tenant, block).await.is_err() {
            return Err(error.into());
        }
        tracing::warn!(tenant, block_id = %block, %error, "merged block is there, although its writing failed");
        Ok(())
    }

    async fn are_live(&self, tenant: &str, blocks: &[Uuid]) -> Result<bool, JobError> {
        for &block in blocks {
            if !self
                .backend()
                .exists(&ObjectKey::meta(tenant, block))
                .await?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn was_compacted(&self, tenant: &str, block: Uuid) -> Result<bool, JobError> {
        match self.backend().read_compacted_meta(tenant, block).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Marks a block compacted, if it is still there.
    async fn mark(&self, tenant: &str, block: Uuid) -> Result<(), JobError> {
        match self.backend().mark_compacted(tenant, block).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Takes replaced blocks out of use: at once for this process, then in the store.
    ///
    /// # Errors
    /// When some could not be marked that no successor names. What one names is hidden from every
    /// list, and is marked by the next merge of the successor and by retention: the job is done.
    async fn retire(
        &self,
        tenant: &str,
        inputs: &[Uuid],
        successor: Option<Arc<BlockMeta>>,
    ) -> Result<(), JobError> {
        let listed = self.blocklist().tenant(tenant);
        let has_successor = successor.is_some();
        let change = BlockChange {
            added: successor.into_iter().collect(),
            removed: inputs.to_vec(),
            ..BlockChange::default()
        };
        self.blocklist().apply_change(tenant, change);
        let mut compacted = Vec::with_capacity(inputs.len());
        let mut failed = None;
        // One that fails must not keep the others.
        for &block in inputs {
            match self.mark(tenant, block).await {
                Ok(()) => compacted.extend(listed.live_block(block).map(|meta| {
                    Arc::new(CompactedBlockMeta {
                        meta: Arc::clone(meta),
                        compacted_time: Timestamp::now(),
                    })
                })),
                Err(error) => {
                    tracing::error!(tenant, block_id = %block, %error, "merged block not marked compacted");
                    failed = Some(error);
                }
            }
        }
        let change = BlockChange {
            compacted,
            ..BlockChange::default()
        };
        self.blocklist().apply_change(tenant, change);
        match failed {
            Some(error) if !has_successor => Err(error),
            _ => Ok(()),
        }
    }
}
