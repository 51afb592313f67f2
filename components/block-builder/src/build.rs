//! From a sorted section to one published block per tenant.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use tempo_backend::{Backend, ObjectKey, Timestamp};
use tempo_block::write::{
    BlockBuilder, BlockOptions, FinishedBlock, MAX_TRACE_BYTES, PublishError, PushedTrace,
    WriteError, publish, write_data,
};
use tempo_model::{TraceId, otlp::resource_spans};
use uuid::Uuid;

use crate::{
    BlockSettings, Limits,
    error::{FeedError, SectionError},
    metrics::Metrics,
    plan::{Plan, block_id, bound_times},
    runs::Sorter,
};

/// Blocks built at once. Each holds a row group in memory.
const MAX_CONCURRENT_BLOCKS: usize = 4;

/// How coarse the clocks of object stores are.
const STORE_CLOCK_MILLIS: i64 = 1000;

/// Questions to the object store at once.
const MAX_CONCURRENT_QUESTIONS: usize = 16;

/// Asked before something is done that only the partition's builder may do.
pub(crate) type Permission<'a> =
    dyn Fn() -> BoxFuture<'a, Result<(), SectionError>> + Send + Sync + 'a;

/// What building needs beside the section.
#[derive(Clone)]
pub(crate) struct Builder {
    pub(crate) backend: Backend,
    pub(crate) limits: Arc<dyn Limits>,
    pub(crate) settings: BlockSettings,
    pub(crate) slack_millis: i64,
    pub(crate) cycle_millis: i64,
    pub(crate) metrics: Metrics,
}

/// The block of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TenantBlock {
    pub(crate) tenant: Arc<str>,
    pub(crate) number: u32,
    pub(crate) id: Uuid,
    /// It was published in an earlier attempt.
    pub(crate) is_published: bool,
}

impl Builder {
    /// Chooses a block's id: the first that has not been used up.
    ///
    /// An id whose block is no longer live is used up, and so is one whose block is older than the
    /// section: the topic was made anew, and offsets begin again. Where the section is only being
    /// decided, a younger block is of unknown extent, left by a Tempo that died; it is retired, and
    /// the next id is taken. Once the section is decided, it is one that we published.
    async fn choose(
        &self,
        tenant: &Arc<str>,
        number: u32,
        partition: i32,
        plan: &Plan,
        decided: bool,
        may_retire: &Permission<'_>,
    ) -> Result<TenantBlock, SectionError> {
        // What was written before the section's records cannot hold them.
        let earliest = Timestamp::from_unix_nanos(
            plan.timestamp_millis
                .saturating_sub(self.slack_millis.max(STORE_CLOCK_MILLIS))
                .saturating_mul(1_000_000),
        );
        for sequence in 1.. {
            let id = block_id(tenant, partition, plan.start, sequence);
            let written = self
                .backend
                .last_modified(&ObjectKey::meta(tenant, id))
                .await?;
            let is_used_up = match written {
                Some(written) if written < earliest => true,
                Some(_) if decided => false,
                Some(_) => {
                    may_retire().await?;
                    tracing::warn!(
                        %tenant, block_id = %id, partition,
                        "retiring a block of unknown extent at the start of the section"
                    );
                    self.backend.mark_compacted(tenant, id).await?;
                    true
                }
                None => {
                    self.backend
                        .exists(&ObjectKey::compacted_meta(tenant, id))
                        .await?
                }
            };
            if !is_used_up {
                return Ok(TenantBlock {
                    tenant: Arc::clone(tenant),
                    number,
                    id,
                    is_published: written.is_some(),
                });
            }
        }
        Err(SectionError::Stopped)
    }

    /// The blocks that a section becomes. `may_retire` is asked before a block is retired.
    pub(crate) async fn choose_all(
        &self,
        sorter: &Sorter,
        partition: i32,
        plan: &Plan,
        decided: bool,
        may_retire: &Permission<'_>,
    ) -> Result<Vec<TenantBlock>, SectionError> {
        let tenants: Vec<_> = sorter
            .tenants()
            .map(|(name, number)| (Arc::clone(name), number))
            .collect();
        stream::iter(tenants)
            .map(|(tenant, number)| {
                async move {
                    self.choose(&tenant, number, partition, plan, decided, may_retire)
                        .await
                }
                .boxed()
            })
            .buffered(MAX_CONCURRENT_QUESTIONS)
            .try_collect()
            .await
    }

    /// Builds and publishes the blocks that are not published yet. `may_publish` is asked before
    /// each becomes visible.
    pub(crate) async fn build_all(
        &self,
        sorter: &Arc<Sorter>,
        blocks: &[TenantBlock],
        plan: &Plan,
        may_publish: &Permission<'_>,
    ) -> Result<(), SectionError> {
        let unpublished: Vec<_> = blocks
            .iter()
            .filter(|block| !block.is_published)
            .cloned()
            .collect();
        stream::iter(unpublished)
            .map(|block| {
                self.build_one(Arc::clone(sorter), block, plan, may_publish)
                    .boxed()
            })
            .buffer_unordered(MAX_CONCURRENT_BLOCKS)
            .try_collect()
            .await
    }

    async fn build_one(
        &self,
        sorter: Arc<Sorter>,
        block: TenantBlock,
        plan: &Plan,
        may_publish: &Permission<'_>,
    ) -> Result<(), SectionError> {
        let Some(finished) = self.build(sorter, &block, plan).await? else {
            return Ok(());
        };
        may_publish().await?;
        publish(&self.backend, &finished, true).await?;
        let meta = &finished.meta;
        tracing::info!(
            tenant = %block.tenant, block_id = %block.id, traces = meta.total_objects,
            spans = finished.spans, bytes = meta.size, "block published"
        );
        self.metrics
            .flushed_blocks
            .with_label_values(&[&*block.tenant])
            .inc();
        self.metrics.flush_bytes.observe(meta.size as f64);
        Ok(())
    }

    /// Builds a block's columns. `None` when the tenant has no span that can be stored.
    async fn build(
        &self,
        sorter: Arc<Sorter>,
        block: &TenantBlock,
        plan: &Plan,
    ) -> Result<Option<FinishedBlock>, SectionError> {
        let number = block.number;
        let counted = {
            let sorter = Arc::clone(&sorter);
            tokio::task::spawn_blocking(move || sorter.count_traces(number))
        };
        let traces = counted.await.map_err(|_| SectionError::Stopped)??;
        let options = BlockOptions {
            dedicated_columns: self.limits.dedicated_columns(&block.tenant),
            row_group_size_bytes: self.settings.row_group_size_bytes,
            bloom_false_positive: self.settings.bloom_false_positive,
            bloom_shard_size_bytes: self.settings.bloom_shard_size_bytes,
            ..BlockOptions::new(
                self.settings.version,
                Arc::clone(&block.tenant),
                block.id,
                traces,
            )
        };
        let max_trace_bytes = match self.limits.max_bytes_per_trace(&block.tenant) {
            0 => MAX_TRACE_BYTES,
            bytes => bytes.min(MAX_TRACE_BYTES),
        };
        let counts = Arc::new(Counts::default());
        let feed = {
            let (counts, tenant) = (Arc::clone(&counts), Arc::clone(&block.tenant));
            let options = options.clone();
            move |builder: &mut BlockBuilder<_>| {
                sorter.for_each_trace(
                    number,
                    max_trace_bytes,
                    |id, chunks| {
                        let pushed = match builder.push_trace(id, chunks) {
                            Err(error @ WriteError::Trace { .. }) => {
                                tracing::error!(%tenant, trace_id = %id, %error, "damaged spans");
                                push_sound_chunks(builder, &options, id, chunks, &counts)
                            }
                            pushed => pushed,
                        };
                        counts
                            .duplicates
                            .fetch_add(u64::from(pushed?.duplicates), Ordering::Relaxed);
                        Ok::<_, Feeding>(())
                    },
                    |id, chunk| {
                        tracing::warn!(%tenant, trace_id = %id, "trace too large");
                        counts
                            .too_large
                            .fetch_add(count_spans(chunk), Ordering::Relaxed);
                    },
                )?;
                Ok::<_, PublishError<FeedError>>(())
            }
        };
        let mut finished = write_data(&self.backend, options, feed).await?;
        counts.publish(&self.metrics, &block.tenant);
        if finished.meta.total_objects == 0 {
            let key = ObjectKey::data(&block.tenant, block.id);
            self.backend.delete(&key).await?;
            return Ok(None);
        }
        let outside = bound_times(
            &mut finished.meta,
            plan.timestamp_millis,
            self.slack_millis,
            self.cycle_millis,
        );
        if outside {
            self.metrics
                .warnings
                .with_label_values(&[&*block.tenant, "blockbuilder_outside_ingestion_time_slack"])
                .inc();
        }
        Ok(Some(finished))
    }

    /// Lets compaction take the blocks of a section that is committed.
    pub(crate) async fn release(&self, blocks: &[TenantBlock]) -> Result<(), SectionError> {
        stream::iter(blocks.to_vec())
            .map(|block| {
                async move { self.backend.clear_no_compact(&block.tenant, block.id).await }.boxed()
            })
            .buffer_unordered(MAX_CONCURRENT_QUESTIONS)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    /// The same for a section that another process built, and that died before it could.
    pub(crate) async fn release_of_all(
        &self,
        partition: i32,
        plan: &Plan,
    ) -> Result<(), SectionError> {
        let tenants = self.backend.list_tenants().await?;
        stream::iter(tenants)
            .map(|tenant| {
                async move {
                    let tenant: Arc<str> = tenant.into();
                    let nothing_retired = || std::future::ready(Ok(())).boxed();
                    let block = self
                        .choose(&tenant, 0, partition, plan, true, &nothing_retired)
                        .await?;
                    if block.is_published {
                        self.backend.clear_no_compact(&tenant, block.id).await?;
                    }
                    Ok::<_, SectionError>(())
                }
                .boxed()
            })
            .buffer_unordered(MAX_CONCURRENT_QUESTIONS)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    /// Takes back what this process may have done to blocks of a section that a successor has
    /// finished meanwhile: a block that compaction has retired since must not come back, and none
    /// must stay hidden from compaction.
    pub(crate) async fn withdraw(&self, blocks: &[TenantBlock]) -> Result<(), SectionError> {
        for block in blocks {
            let (tenant, id) = (&*block.tenant, block.id);
            let retired = ObjectKey::compacted_meta(tenant, id);
            if self.backend.exists(&retired).await? {
                self.backend.delete(&ObjectKey::meta(tenant, id)).await?;
            }
            self.backend.clear_no_compact(tenant, id).await?;
        }
        Ok(())
    }
}

#[derive(Default)]
struct Counts {
    duplicates: AtomicU64,
    too_large: AtomicU64,
    damaged: AtomicU64,
}

impl Counts {
    fn publish(&self, metrics: &Metrics, tenant: &str) {
        metrics
            .deduped_spans
            .with_label_values(&[tenant])
            .inc_by(self.duplicates.load(Ordering::Relaxed));
        for (reason, count) in [
            ("trace_too_large", &self.too_large),
            ("unknown_error", &self.damaged),
        ] {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                metrics
                    .discarded_spans
                    .with_label_values(&[reason, tenant])
                    .inc_by(count);
            }
        }
    }
}

/// Errors of both sides of a feed.
struct Feeding(PublishError<FeedError>);

impl From<std::io::Error> for Feeding {
    fn from(error: std::io::Error) -> Self {
        Self(PublishError::Traces(error.into()))
    }
}

impl From<WriteError> for Feeding {
    fn from(error: WriteError) -> Self {
        Self(error.into())
    }
}

impl From<Feeding> for PublishError<FeedError> {
    fn from(error: Feeding) -> Self {
        error.0
    }
}

/// Stores what of a trace can be: one damaged chunk must not take the others with it, and nothing
/// may stop the partition for good.
fn push_sound_chunks<W: std::io::Write>(
    builder: &mut BlockBuilder<W>,
    options: &BlockOptions,
    id: TraceId,
    chunks: &[&[u8]],
    counts: &Counts,
) -> Result<PushedTrace, WriteError> {
    let mut sound: Vec<&[u8]> = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let mut trial = BlockBuilder::new(options.clone(), std::io::sink())?;
        match trial.push_trace(id, &[chunk]) {
            Ok(_) => sound.push(chunk),
            Err(_) => {
                counts
                    .damaged
                    .fetch_add(count_spans(chunk), Ordering::Relaxed);
            }
        }
    }
    builder.push_trace(id, &sound)
}

/// Spans of a serialized trace, as far as it can be read; at least one.
fn count_spans(trace: &[u8]) -> u64 {
    let mut spans = 0;
    for resource in resource_spans(trace).flatten() {
        for scope in resource.scope_spans().flatten() {
            spans += scope.raw_spans().flatten().count() as u64;
        }
    }
    spans.max(1)
}
