//! Running one job.

use std::{
    future::Future,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
    time::Instant,
};

use tempo_api::job::{DataPlace, Job, JobError, JobOutput, JobResult, TracePlace};
use tempo_backend::{Backend, Blocklist, cache::Cache};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Error, Recent, RecentError,
    blocks::{BlockPart, Blocks},
    evaluate::{self, Bounds, Tables},
    limits::{Budget, Share},
    merge::{FoundTrace, Merged},
    metrics::{Metrics, Operation},
    recent::RecentTraces,
};

/// Tells the time, in nanoseconds since the epoch.
pub type NowNanos = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What the querier needs from others.
pub struct Deps<'a> {
    /// Where jobs on blocks find them; `None` where no such job comes.
    pub blocks: Option<BlockSource>,
    /// Recent data.
    pub recent: Recent,
    /// Where metrics are registered.
    pub registry: &'a prometheus::Registry,
}

/// Blocks in the object store.
pub struct BlockSource {
    /// The object store.
    pub backend: Backend,
    /// Which blocks there are.
    pub blocklist: Blocklist,
    /// With an older list no trace is looked for: others may have built blocks since, and have let go
    /// of what is in them.
    pub max_list_age: Duration,
    /// Where footers and the like are kept between jobs.
    pub cache: Cache,
    /// The clock.
    pub now_nanos: NowNanos,
}

/// Runs jobs. Clones share budgets and caches.
#[derive(Clone)]
pub struct Querier {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    blocks: Option<Blocks>,
    recent: Recent,
    /// For jobs that scan.
    scans: Budget,
    /// For trace lookups, which are short and should not wait for scans.
    lookups: Budget,
    max_column_bytes: usize,
    metrics: Metrics,
}

/// Tells work on other threads to stop once nobody waits for it.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Querier {
    /// Checks the settings and makes a querier.
    pub fn build(config: Config, deps: Deps<'_>) -> Result<Self, Error> {
        for (setting, value) in [
            ("querier.max_concurrent_queries", config.max_concurrent_jobs),
            (
                "querier.trace_lookup_concurrent_blocks",
                config.trace_lookup_concurrent_blocks,
            ),
        ] {
            if value == 0 {
                return Err(Error::Setting {
                    setting,
                    problem: "must be greater than 0".to_owned(),
                });
            }
        }
        let blocks = deps.blocks.map(|source| Blocks::new(&config, source));
        let metrics = Metrics::register(deps.registry)?;
        let budget = || {
            Budget::new(
                config.max_evaluating_jobs,
                config.max_bytes_in_flight,
                metrics.clone(),
            )
        };
        let (scans, lookups) = (budget(), budget());
        Ok(Self {
            inner: Arc::new(Inner {
                blocks,
                recent: deps.recent,
                scans,
                lookups,
                max_column_bytes: config.max_column_bytes_per_table,
                metrics,
                config,
            }),
        })
    }

    /// How many loops whoever connects queue and querier should run.
    pub fn max_concurrent_jobs(&self) -> usize {
        self.inner.config.max_concurrent_jobs
    }

    /// Runs a job to its end, its timeout or its cancellation, whichever comes first. Dropping the
    /// returned future cancels it, too; work on other threads ends soon after.
    pub async fn run(
        &self,
        tenant: &Arc<str>,
        job: Job,
        cancelled: CancellationToken,
    ) -> JobResult {
        let inner = &self.inner;
        inner.metrics.job();
        let timeout = match &job {
            Job::FindTrace { .. } => inner.config.trace_by_id_query_timeout,
            _ => inner.config.search_query_timeout,
        };
        let deadline = tokio::time::Instant::now() + timeout;
        tokio::select! {
            biased;
            () = cancelled.cancelled() => Err(JobError::Cancelled),
            result = tokio::time::timeout_at(deadline, inner.execute(tenant, job, deadline)) => {
                result.unwrap_or(Err(JobError::TimedOut))
            }
        }
    }
}

impl Inner {
    fn blocks(&self) -> Result<&Blocks, JobError> {
        self.blocks.as_ref().ok_or_else(|| {
            JobError::Failed("a job on blocks was given to a process that reads none".to_owned())
        })
    }

    async fn execute(
        &self,
        tenant: &Arc<str>,
        job: Job,
        deadline: tokio::time::Instant,
    ) -> JobResult {
        let recent = match &self.recent {
            _ if !job.is_recent() => None,
            Recent::Here(recent) => Some(Arc::clone(recent)),
            Recent::LiveStores(live_stores) => {
                return live_stores.run(tenant, &job, deadline).await;
            }
            Recent::Nowhere => {
                return Merged::new(&job, self.max_column_bytes).map(Merged::finish);
            }
        };
        match job {
            Job::FindTrace {
                trace_id,
                max_bytes,
                place: TracePlace::Recent,
            } => {
                let recent = recent.ok_or_else(no_recent_data)?;
                let tenant = Arc::clone(tenant);
                blocking(self.lookups.share(0).await, move |_| {
                    let mut found = FoundTrace::new(max_bytes);
                    let recent = recent.find_trace(&tenant, trace_id);
                    found.add(recent.map_err(recent_error)?)?;
                    Ok(JobOutput::Trace(found.finish()))
                })
                .await
            }
            Job::FindTrace {
                trace_id,
                max_bytes,
                place: TracePlace::Blocks { first, last, range },
            } => {
                let started = Instant::now();
                let found = FoundTrace::new(max_bytes);
                let found = self
                    .blocks()?
                    .find_trace(&self.lookups, tenant, trace_id, first..=last, range, found)
                    .await?;
                self.metrics
                    .block_job(Operation::FindTrace, tenant, started.elapsed());
                Ok(JobOutput::Trace(found))
            }
            Job::Search { request, place } => {
                self.on_tables(
                    Operation::Search,
                    tenant,
                    0,
                    (recent, place),
                    move |tables, seconds, bounds| {
                        let seconds = seconds.unwrap_or(request.start..=request.end);
                        evaluate::search(&request, tables, seconds, bounds).map(JobOutput::Search)
                    },
                )
                .await
            }
            Job::TagNames {
                request,
                max_bytes,
                place,
            } => {
                self.on_tables(
                    Operation::TagNames,
                    tenant,
                    0,
                    (recent, place),
                    move |tables, _, bounds| {
                        evaluate::tag_names(&request, max_bytes, tables, bounds)
                            .map(JobOutput::TagNames)
                    },
                )
                .await
            }
            Job::TagValues {
                request,
                max_bytes,
                place,
            } => {
                self.on_tables(
                    Operation::TagValues,
                    tenant,
                    0,
                    (recent, place),
                    move |tables, _, bounds| {
                        evaluate::tag_values(&request, max_bytes, tables, bounds)
                            .map(JobOutput::TagValues)
                    },
                )
                .await
            }
            Job::QueryRange {
                request,
                window,
                max_exemplars,
                place,
            } => {
                let max_series_bytes = self.config.max_series_bytes_per_job;
                self.on_tables(
                    Operation::QueryRange,
                    tenant,
                    evaluate::counting_bytes(&request, window, max_series_bytes),
                    (recent, place),
                    move |tables, _, bounds| {
                        evaluate::query_range(&request, window, max_exemplars, tables, bounds)
                            .map(JobOutput::QueryRange)
                    },
                )
                .await
            }
        }
    }

    /// Evaluates a query on the tables of a place, on a thread that may block. The evaluation is
    /// told the seconds of the place if they differ from those of the query.
    ///
    /// `held_bytes` may be held beside the columns of one table at a time.
    async fn on_tables(
        &self,
        operation: Operation,
        tenant: &Arc<str>,
        held_bytes: u64,
        (recent, place): (Option<Arc<dyn RecentTraces>>, DataPlace),
        evaluate: impl FnOnce(Tables<'_>, Option<RangeInclusive<u32>>, Bounds<'_>) -> JobResult
        + Send
        + 'static,
    ) -> JobResult {
        let max_column_bytes = self.max_column_bytes;
        let max_series_bytes = self.config.max_series_bytes_per_job;
        match place {
            DataPlace::Recent { start, end } => {
                let recent = recent.ok_or_else(no_recent_data)?;
                let tenant = Arc::clone(tenant);
                let operation = operation.on_recent();
                blocking(self.scans.share(held_bytes).await, move |stop| {
                    let nanos = |seconds: u32| u64::from(seconds) * 1_000_000_000;
                    let view = recent
                        .view(&tenant, nanos(start), nanos(end), operation)
                        .map_err(recent_error)?;
                    let bounds = Bounds {
                        max_column_bytes,
                        max_series_bytes,
                        stop: &stop,
                    };
                    let mut tables = view.tables.into_iter();
                    let result = evaluate(&mut tables, Some(start..=end), bounds);
                    drop(tables);
                    drop(view.hold);
                    result
                })
                .await
            }
            DataPlace::Block {
                meta,
                first_row_group,
                row_groups,
            } => {
                let started = Instant::now();
                let part = BlockPart::new(&meta, first_row_group, row_groups)?;
                let share = self.scans.share(part.bytes() + held_bytes).await;
                let blocks = self.blocks()?.clone();
                let result = blocking(share, move |stop| {
                    let bounds = Bounds {
                        max_column_bytes,
                        max_series_bytes,
                        stop: &stop,
                    };
                    evaluate(&mut blocks.tables(&part)?, None, bounds)
                })
                .await?;
                self.metrics.block_job(operation, tenant, started.elapsed());
                Ok(result)
            }
        }
    }
}

/// Runs work on a thread that may block; it is told to stop when the returned future is dropped.
/// The share is held until the work has really ended.
pub(crate) fn blocking<T: Send + 'static>(
    share: Share,
    work: impl FnOnce(Arc<AtomicBool>) -> Result<T, JobError> + Send + 'static,
) -> impl Future<Output = Result<T, JobError>> {
    let stop = Arc::new(AtomicBool::new(false));
    let guard = StopOnDrop(Arc::clone(&stop));
    let span = tracing::Span::current();
    let task = tokio::task::spawn_blocking(move || {
        let _entered = span.entered();
        let _share = share;
        if stop.load(Ordering::Relaxed) {
            return Err(JobError::Cancelled);
        }
        work(stop)
    });
    async move {
        let result = task.await;
        drop(guard);
        result.unwrap_or_else(|error| {
            tracing::error!(%error, "a job panicked");
            Err(JobError::Failed("a job panicked; see the log".to_owned()))
        })
    }
}

fn no_recent_data() -> JobError {
    JobError::Failed("recent data was asked of a process that holds none".to_owned())
}

fn recent_error(error: RecentError) -> JobError {
    match error {
        RecentError::Unavailable(text) => JobError::Unavailable(text),
        RecentError::Failed(text) => JobError::Failed(text),
    }
}
