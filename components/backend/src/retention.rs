//! Which blocks have lived long enough, and ending them.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Backend, BlockChange, Blocklist, CompactedBlockMeta, Error, TenantBlocks, Timestamp,
    cache::Cache, metrics::RetentionMetrics,
};

/// How long blocks of one tenant are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// A live block is marked compacted this long after its last span ended. Zero: never.
    pub block_retention: Duration,
    /// A compacted block is removed this long after it was marked.
    pub compacted_block_retention: Duration,
}

impl Default for RetentionPolicy {
    fn default() -> Self {
        Self {
            block_retention: Duration::from_secs(336 * 3600),
            compacted_block_retention: Duration::from_secs(3600),
        }
    }
}

/// What retention wants done for one tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionPlan {
    /// Live blocks to mark compacted.
    pub mark_compacted: Vec<Uuid>,
    /// Compacted blocks to remove.
    pub clear: Vec<Uuid>,
}

/// Decides, at time `now`, which blocks have outlived `policy`.
pub fn plan_retention(
    blocks: &TenantBlocks,
    policy: RetentionPolicy,
    now: Timestamp,
) -> RetentionPlan {
    let live_until = now.saturating_sub(policy.block_retention);
    let compacted_until = now.saturating_sub(policy.compacted_block_retention);
    // What a merge left live when it was interrupted; its traces are in another block.
    let mut mark_compacted = blocks.superseded().to_vec();
    if !policy.block_retention.is_zero() {
        let live = blocks.live().iter();
        let outlived = live.filter(|meta| meta.end_time < live_until);
        mark_compacted.extend(outlived.map(|meta| meta.block_id));
    }
    let clear = blocks
        .compacted()
        .iter()
        .filter(|block| block.compacted_time < compacted_until)
        // As long as it is there, no list shows what it replaced and was not marked.
        .filter(|block| {
            let unmarked = blocks.superseded();
            let replaced = &block.meta.replaces;
            !replaced.iter().any(|id| unmarked.binary_search(id).is_ok())
        })
        .map(|block| block.meta.block_id)
        .collect();
    RetentionPlan {
        mark_compacted,
        clear,
    }
}

/// What was done for one tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionOutcome {
    /// Blocks marked compacted.
    pub marked: usize,
    /// Blocks removed.
    pub cleared: usize,
    /// Blocks that could not be marked or removed; the next run tries again.
    pub failed: usize,
}

/// Applies retention to the store and the blocklist.
pub struct Retention {
    backend: Backend,
    blocklist: Blocklist,
    cache: Option<Cache>,
    concurrency: usize,
    metrics: RetentionMetrics,
}

/// `compaction.retention_concurrency`: blocks marked or removed at once.
pub const DEFAULT_RETENTION_CONCURRENCY: usize = 10;

impl Retention {
    /// Retention over `backend`. What is removed is also forgotten by `cache`.
    ///
    /// Metrics go to `registry`: `tempodb_retention_{duration_seconds,errors_total,
    /// marked_for_deletion_total,deleted_total}`.
    ///
    /// # Errors
    /// [`Error::Config`] when the metrics are registered already.
    pub fn build(
        backend: Backend,
        blocklist: Blocklist,
        cache: Option<Cache>,
        concurrency: usize,
        registry: &prometheus::Registry,
    ) -> Result<Self, Error> {
        Ok(Self {
            backend,
            blocklist,
            cache,
            concurrency: concurrency.max(1),
            metrics: RetentionMetrics::register(registry)?,
        })
    }

    /// Marks and removes what has outlived `policy` at time `now`. A block that fails is logged,
    /// counted and left to the next run.
    pub async fn run_tenant(
        &self,
        tenant: &str,
        policy: RetentionPolicy,
        now: Timestamp,
    ) -> RetentionOutcome {
        let _timer = self.metrics.duration_seconds.start_timer();
        let blocks = self.blocklist.tenant(tenant);
        let plan = plan_retention(&blocks, policy, now);
        let mut outcome = RetentionOutcome::default();

        let marked = self
            .for_each("marked", tenant, &plan.mark_compacted, |block| {
                self.backend.mark_compacted(tenant, block)
            })
            .await;
        outcome.marked = marked.len();
        outcome.failed += plan.mark_compacted.len() - marked.len();

        let cleared = self
            .for_each("removed", tenant, &plan.clear, |block| {
                self.backend.delete_block(tenant, block)
            })
            .await;
        outcome.cleared = cleared.len();
        outcome.failed += plan.clear.len() - cleared.len();

        self.metrics.marked.inc_by(outcome.marked as u64);
        self.metrics.deleted.inc_by(outcome.cleared as u64);
        self.metrics.errors.inc_by(outcome.failed as u64);
        if let Some(cache) = &self.cache {
            for &block in &cleared {
                cache.forget_block(tenant, block);
            }
        }
        if outcome.marked + outcome.cleared > 0 {
            let compacted = marked
                .iter()
                .filter_map(|&block| blocks.live_block(block))
                .map(|meta| {
                    Arc::new(CompactedBlockMeta {
                        meta: Arc::clone(meta),
                        compacted_time: now,
                    })
                })
                .collect();
            self.blocklist.apply_change(
                tenant,
                BlockChange {
                    compacted,
                    cleared,
                    ..BlockChange::default()
                },
            );
        }
        outcome
    }

    /// Applies retention to every tenant at every `interval` until shut down. `policy_of` says how
    /// long a tenant's blocks are kept; none: they are not touched.
    pub async fn run(
        self,
        interval: Duration,
        policy_of: impl Fn(&str) -> Option<RetentionPolicy> + Send + Sync,
        shutdown: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            for tenant in self.blocklist.tenants() {
                let Some(policy) = policy_of(&tenant) else {
                    continue;
                };
                // Between two blocks is as good a place to stop as between two tenants: what is
                // half done is done again.
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    outcome = self.run_tenant(&tenant, policy, Timestamp::now()) => {
                        if outcome != RetentionOutcome::default() {
                            tracing::info!(
                                tenant = &*tenant,
                                marked = outcome.marked,
                                cleared = outcome.cleared,
                                failed = outcome.failed,
                                "retention applied"
                            );
                        }
                    }
                }
            }
        }
    }

    /// Does `operation` to each block and returns those for which it succeeded. A block that does
    /// not exist any more counts as done.
    async fn for_each<F, O>(
        &self,
        what: &str,
        tenant: &str,
        blocks: &[Uuid],
        operation: O,
    ) -> Vec<Uuid>
    where
        F: Future<Output = Result<(), Error>>,
        O: Fn(Uuid) -> F,
    {
        let operation = &operation;
        stream::iter(blocks.iter().copied())
            .map(|block| async move { (block, operation(block).await) })
            .buffer_unordered(self.concurrency)
            .filter_map(|(block, done)| async move {
                match done {
                    Ok(()) => Some(block),
                    Err(error) if error.is_not_found() => Some(block),
                    Err(error) => {
                        tracing::error!(tenant, block_id = %block, %error, "block not {what}");
                        None
                    }
                }
            })
            .collect()
            .await
    }
}

#[cfg(test)]
mod tests;
