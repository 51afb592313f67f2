//! From a closed block to the object store: complete, flush, and both again until they succeed.
//!
//! One task per block. Nothing is ever given up: a block that cannot be built or flushed is tried
//! again after a pause that doubles up to a limit, for as long as the process lives, and after a
//! restart from where it was.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tempo_backend::ObjectKey;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    build_block::{self, BuildError},
    live::{CutBlock, Tenant},
    local::LocalBlock,
    store::Shared,
};

/// How far a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// To be built.
    Cut,
    /// On local disk.
    Complete,
    /// In the object store.
    Flushed,
}

/// What is known of a block on its way.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub(crate) stage: Stage,
    /// Attempts that failed, of both kinds.
    pub(crate) failures: u32,
    pub(crate) last_error: Option<Arc<str>>,
}

/// A block on its way to the object store.
pub(crate) struct Job {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) id: Uuid,
    pub(crate) progress: watch::Sender<Progress>,
}

/// Where a job begins.
pub(crate) enum Work {
    Cut(Arc<CutBlock>),
    Local(Arc<LocalBlock>),
}

impl Work {
    fn id(&self) -> Uuid {
        match self {
            Self::Cut(block) => block.id,
            Self::Local(block) => block.id(),
        }
    }

    fn stage(&self) -> Stage {
        match self {
            Self::Cut(_) => Stage::Cut,
            Self::Local(_) => Stage::Complete,
        }
    }
}

/// The pause before the next attempt.
struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    fn new(shared: &Shared) -> Self {
        Self {
            next: shared.config.min_retry_backoff,
            max: shared.config.max_retry_backoff,
        }
    }

    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2).min(self.max);
        pause
    }
}

/// Starts the work on a block.
pub(crate) fn start(shared: &Arc<Shared>, tenant: Arc<Tenant>, work: Work) {
    let (progress, _) = watch::channel(Progress {
        stage: work.stage(),
        failures: 0,
        last_error: None,
    });
    let job = Arc::new(Job {
        tenant,
        id: work.id(),
        progress,
    });
    shared.insert_job(Arc::clone(&job));
    let task = run(Arc::clone(shared), job, work);
    shared.tasks.spawn_on(task, &shared.runtime);
}

async fn run(shared: Arc<Shared>, job: Arc<Job>, work: Work) {
    let block = match work {
        Work::Local(block) => block,
        Work::Cut(cut) => {
            shared.metrics.complete_queue_length.inc();
            let block = complete_until_done(&shared, &job, &cut).await;
            shared.metrics.complete_queue_length.dec();
            match block {
                Some(block) => block,
                None => return,
            }
        }
    };
    flush_until_done(&shared, &job, &block).await;
}

fn failed(job: &Job, error: &dyn std::fmt::Display) {
    let error: Arc<str> = error.to_string().into();
    job.progress.send_modify(|progress| {
        progress.failures += 1;
        progress.last_error = Some(error);
    });
}

fn reached(job: &Job, stage: Stage) {
    job.progress.send_modify(|progress| {
        progress.stage = stage;
        progress.last_error = None;
    });
}

/// Waits before the next attempt; `false` when there will be none.
async fn pause(
    backoff: &mut Backoff,
    retry_now: &mut watch::Receiver<u64>,
    stop: &CancellationToken,
) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(backoff.next()) => true,
        changed = retry_now.changed() => changed.is_ok(),
    }
}

async fn complete_until_done(
    shared: &Arc<Shared>,
    job: &Job,
    cut: &Arc<CutBlock>,
) -> Option<Arc<LocalBlock>> {
    let metrics = &shared.metrics;
    let mut backoff = Backoff::new(shared);
    let mut is_retry = false;
    loop {
        // From before the attempt: who asks for another one while it fails must not be missed.
        let mut retry_now = shared.retry_now.subscribe();
        let permit = tokio::select! {
            () = shared.stop_completing.cancelled() => return None,
            permit = shared.completing.acquire() => permit.ok()?,
        };
        if is_retry {
            metrics.completion_retries.inc();
        }
        let began = Instant::now();
        let attempt = complete(shared, &job.tenant, cut).await;
        drop(permit);
        let error = match attempt {
            Ok(None) => {
                tracing::error!(tenant = %job.tenant.name, block_id = %job.id, "nothing of the block could be stored");
                shared.remove_job(&job.id);
                reached(job, Stage::Flushed);
                return None;
            }
            Ok(Some(block)) => {
                metrics.blocks_completed.inc();
                metrics
                    .completion_duration_seconds
                    .observe(began.elapsed().as_secs_f64());
                metrics.completion_size_bytes.observe(block.bytes() as f64);
                tracing::info!(tenant = %job.tenant.name, block_id = %job.id, traces = block.meta().total_objects, bytes = block.bytes(), "block completed");
                reached(job, Stage::Complete);
                return Some(block);
            }
            Err(BuildError::Stopped) => return None,
            Err(error) => error,
        };
        metrics.failed_completions.inc();
        if is_retry {
            metrics.completion_failed_retries.inc();
        }
        tracing::error!(tenant = %job.tenant.name, block_id = %job.id, %error, "completing block failed, trying again");
        failed(job, &error);
        is_retry = true;
        if !pause(&mut backoff, &mut retry_now, &shared.stop_completing).await {
            return None;
        }
    }
}

/// Builds a block and lets it take the place of what was live; `None` when nothing of it could be
/// stored.
async fn complete(
    shared: &Arc<Shared>,
    tenant: &Arc<Tenant>,
    cut: &Arc<CutBlock>,
) -> Result<Option<Arc<LocalBlock>>, BuildError> {
    let built = build_block::build(shared, tenant, cut).await;
    let (shared, tenant, cut) = (shared.clone(), tenant.clone(), cut.clone());
    let finish = move || {
        let built = built.inspect_err(|_| shared.local.discard(&tenant.name, cut.id))?;
        let block = match built.meta {
            None => None,
            Some(meta) => {
                let coverage = shared.coverage(cut.all_chunks());
                let committed = shared.local.commit(meta, &coverage, cut.first_came);
                Some(Arc::new(committed.map_err(|source| {
                    shared.local.discard(&tenant.name, cut.id);
                    BuildError::Commit { source }
                })?))
            }
        };
        tenant.complete(&shared.wal, &cut, block.clone());
        shared.wal.reclaim();
        if built.lost_spans > 0 {
            let lost = shared
                .metrics
                .lost_spans
                .with_label_values(&[&*tenant.name]);
            lost.inc_by(built.lost_spans);
        }
        if let Some(block) = &block {
            shared.learn_ratio(cut.bytes, block.bytes());
        }
        Ok(block)
    };
    match tokio::task::spawn_blocking(finish).await {
        Ok(finished) => finished,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(BuildError::Stopped),
        },
    }
}

async fn flush_until_done(shared: &Arc<Shared>, job: &Job, block: &Arc<LocalBlock>) {
    let metrics = &shared.metrics;
    let mut backoff = Backoff::new(shared);
    let mut is_retry = false;
    loop {
        let mut retry_now = shared.retry_now.subscribe();
        let attempt = async {
            let _permit = shared.flushing.acquire().await;
            if is_retry {
                metrics.local_flush_retries.inc();
            }
            let began = Instant::now();
            let flushed = flush(shared, &job.tenant, block).await;
            (began.elapsed(), flushed)
        };
        let (took, flushed) = tokio::select! {
            () = shared.stop_flushing.cancelled() => return,
            attempt = attempt => attempt,
        };
        match flushed {
            Ok(()) => {
                if shared.backend.is_some() {
                    metrics.local_blocks_flushed.inc();
                    metrics
                        .local_flush_duration_seconds
                        .observe(took.as_secs_f64());
                    metrics.local_flush_size_bytes.observe(block.bytes() as f64);
                    tracing::info!(tenant = %job.tenant.name, block_id = %job.id, bytes = block.bytes(), "block flushed");
                }
                shared.remove_job(&job.id);
                reached(job, Stage::Flushed);
                return;
            }
            Err(error) => {
                metrics.local_failed_flushes.inc();
                if is_retry {
                    metrics.local_flush_failed_retries.inc();
                }
                tracing::error!(tenant = %job.tenant.name, block_id = %job.id, %error, "flushing block failed, trying again");
                failed(job, &error);
            }
        }
        is_retry = true;
        if !pause(&mut backoff, &mut retry_now, &shared.stop_flushing).await {
            return;
        }
    }
}

/// Why a block is not in the object store.
#[derive(Debug, thiserror::Error)]
enum FlushAttemptError {
    #[error(transparent)]
    Store(#[from] tempo_backend::Error),
    #[error("marking as flushed: {0}")]
    Mark(#[from] std::io::Error),
}

async fn flush(
    shared: &Arc<Shared>,
    tenant: &Tenant,
    block: &Arc<LocalBlock>,
) -> Result<(), FlushAttemptError> {
    // Once the store has it, only the mark is left to do, and the block may go without it.
    if block.flushed_unix_nanos().is_none() {
        upload(shared, block).await?;
        // Without a store, others bring there what the block holds: its time here begins all the
        // same.
        block.set_flushed(shared.clock.now_unix_nanos());
    }
    let marking = {
        let (shared, block) = (shared.clone(), block.clone());
        tokio::task::spawn_blocking(move || shared.local.mark_flushed(&block))
    };
    match marking.await.map_err(std::io::Error::other)? {
        // Gone meanwhile, perhaps to make room for just such files.
        Err(_) if !tenant.holds_block(block.id()) => Ok(()),
        marked => Ok(marked?),
    }
}

async fn upload(shared: &Shared, block: &LocalBlock) -> Result<(), tempo_backend::Error> {
    let meta = block.meta();
    // After a crash between the upload and the mark, the store has it already; it may even have
    // been compacted since, and must not come back.
    let (tenant, id) = (&*meta.tenant_id, meta.block_id);
    if let Some(store) = &shared.backend {
        let is_stored = store.exists(&ObjectKey::meta(tenant, id)).await?
            || store.exists(&ObjectKey::compacted_meta(tenant, id)).await?;
        if !is_stored {
            tempo_block::copy_block(shared.local.blocks(), store, tenant, id).await?;
        }
    }
    Ok(())
}

impl Shared {
    fn insert_job(&self, job: Arc<Job>) {
        let mut jobs = self.jobs.lock();
        jobs.insert(job.id, job);
        self.metrics.unflushed_blocks.set(jobs.len() as i64);
    }

    fn remove_job(&self, id: &Uuid) {
        let mut jobs = self.jobs.lock();
        jobs.remove(id);
        self.metrics.unflushed_blocks.set(jobs.len() as i64);
    }

    /// Learns from a finished block what blocks compress to.
    fn learn_ratio(&self, serialized_bytes: u64, block_bytes: u64) {
        if serialized_bytes == 0 {
            return;
        }
        // Small blocks say little: they are mostly footer.
        let weight = (serialized_bytes as f64 / (16 << 20) as f64).min(0.5);
        let seen = (block_bytes as f64 / serialized_bytes as f64).clamp(0.02, 2.0);
        let old = f64::from_bits(self.compression_ratio.load(Ordering::Acquire));
        let new = old + (seen - old) * weight;
        self.compression_ratio
            .store(new.to_bits(), Ordering::Release);
    }
}
