//! The loop: take a job, do it, tell the scheduler.

use std::{sync::Arc, time::Duration};

use prometheus::IntCounterVec;
use tempo_backend::{Backend, Blocklist, Retention, RetentionPolicy, Timestamp, cache::Cache};
use tempo_proto::tempopb::{
    CompactionDetail, JobStatus, JobType, NextJobResponse, RedactionResult, UpdateJobStatusRequest,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Config, Error, JobError, JobSource, SourceError, block_id::output_id, compact::Replacement,
    control::Abandon, metrics::Metrics, running::Running,
};

/// What the worker wants to know of tenants.
pub trait Limits: Send + Sync {
    /// How long blocks are kept; `None`: they are not touched.
    fn retention(&self, tenant: &str) -> Option<RetentionPolicy>;
    /// Largest trace that parts are united to, in bytes; 0: no limit.
    fn max_trace_bytes(&self, tenant: &str) -> u64;
}

/// What the worker works with.
pub struct Deps<'a> {
    /// Where jobs come from.
    pub jobs: Arc<dyn JobSource>,
    /// The bucket.
    pub backend: Backend,
    /// The blocks, kept current by someone else; what the worker does is seen in it at once.
    pub blocklist: Blocklist,
    /// Footers and bloom filters.
    pub cache: Cache,
    /// Limits of tenants.
    pub limits: Arc<dyn Limits>,
    /// `tempo_discarded_spans_total{reason,tenant}`.
    pub discarded_spans: IntCounterVec,
    /// Where metrics go.
    pub registry: &'a prometheus::Registry,
}

struct Inner {
    config: Config,
    jobs: Arc<dyn JobSource>,
    backend: Backend,
    blocklist: Blocklist,
    cache: Cache,
    limits: Arc<dyn Limits>,
    discarded_spans: IntCounterVec,
    retention: Retention,
    metrics: Metrics,
}

/// The worker. Cheap to clone.
#[derive(Clone)]
pub struct Worker(Arc<Inner>);

/// What runs.
pub struct Service(Worker);

/// How long the scheduler may take to answer an update. One that hangs is asked again.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(10);

/// As long as the scheduler may be away before it is worth a warning: it starts, or is replaced.
const QUIET_ABSENCE: Duration = Duration::from_secs(30);

/// What a job came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) compaction: Option<CompactionDetail>,
    pub(crate) redaction: Option<RedactionResult>,
}

/// Builds the worker.
///
/// # Errors
/// When a setting cannot work or metrics are registered already.
pub fn build(config: Config, deps: Deps<'_>) -> Result<(Worker, Service), Error> {
    let refused = |setting, problem: &str| {
        Err(Error::Setting {
            setting,
            problem: problem.to_owned(),
        })
    };
    if config.worker_id.is_empty() {
        return refused("backend_worker.ring.instance_id", "must not be empty");
    }
    if config.backoff.min.is_zero() || config.backoff.max < config.backoff.min {
        return refused(
            "backend_worker.backoff",
            "min_period must be more than 0, and max_period not below it",
        );
    }
    if config.heartbeat_interval.is_zero() {
        return refused(
            "backend_worker.ring.heartbeat_period",
            "must be more than 0",
        );
    }
    let retention = Retention::build(
        deps.backend.clone(),
        deps.blocklist.clone(),
        Some(deps.cache.clone()),
        config.retention_concurrency,
        deps.registry,
    )?;
    let worker = Worker(Arc::new(Inner {
        metrics: Metrics::register(deps.registry)?,
        config,
        jobs: deps.jobs,
        backend: deps.backend,
        blocklist: deps.blocklist,
        cache: deps.cache,
        limits: deps.limits,
        discarded_spans: deps.discarded_spans,
        retention,
    }));
    Ok((worker.clone(), Service(worker)))
}

impl Worker {
    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.0.backend
    }

    pub(crate) fn blocklist(&self) -> &Blocklist {
        &self.0.blocklist
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.0.cache
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn discarded_spans(&self) -> &IntCounterVec {
        &self.0.discarded_spans
    }

    pub(crate) async fn do_job(
        &self,
        job: &NextJobResponse,
        running: &Running,
    ) -> Result<Outcome, JobError> {
        let bad = |problem: &str| JobError::Bad(problem.to_owned());
        let detail = job.detail.as_ref().ok_or_else(|| bad("it has no detail"))?;
        let tenant = detail.tenant.as_str();
        tempo_model::tenant::validate(tenant).map_err(|error| bad(&error.to_string()))?;
        match job.r#type() {
            JobType::Unspecified => Err(bad("its type is unknown")),
            JobType::Compaction => {
                let compaction = detail.compaction.as_ref().ok_or_else(|| bad("no blocks"))?;
                let inputs = compaction.input.iter().map(|id| {
                    Uuid::try_parse(id).map_err(|error| bad(&format!("block '{id}': {error}")))
                });
                let inputs: Vec<Uuid> = inputs.collect::<Result<_, _>>()?;
                if inputs.is_empty() {
                    return Err(bad("no blocks"));
                }
                let replacement = Replacement {
                    tenant,
                    inputs: &inputs,
                    output: output_id(tenant, &inputs, ""),
                    dropped: Vec::new(),
                    max_trace_bytes: self.0.limits.max_trace_bytes(tenant),
                };
                let merged = self.replace(replacement, running).await;
                let output = merged.inspect_err(|_| self.0.metrics.errors.inc())?;
                Ok(Outcome {
                    compaction: Some(CompactionDetail {
                        input: compaction.input.clone(),
                        output: output.iter().map(Uuid::to_string).collect(),
                    }),
                    redaction: None,
                })
            }
            JobType::Retention => {
                if let Some(policy) = self.0.limits.retention(tenant) {
                    let now = Timestamp::now();
                    let done = self.0.retention.run_tenant(tenant, policy, now).await;
                    if done.marked + done.cleared + done.failed > 0 {
                        tracing::info!(
                            tenant,
                            marked = done.marked,
                            cleared = done.cleared,
                            failed = done.failed,
                            "retention applied"
                        );
                    }
                }
                Ok(Outcome::default())
            }
            JobType::Redaction => {
                let redaction = detail.redaction.as_ref().ok_or_else(|| bad("no block"))?;
                let found = self
                    .redact(tenant, &detail.batch_id, redaction, running)
                    .await?;
                Ok(Outcome {
                    compaction: None,
                    redaction: Some(RedactionResult {
                        traces_found: i32::try_from(found).unwrap_or(i32::MAX),
                    }),
                })
            }
        }
    }

    /// Does a job and tells how it went.
    async fn work(&self, job: NextJobResponse, abandon: Abandon, shutdown: &CancellationToken) {
        self.0.metrics.jobs.inc();
        let running = Running::new(self, &job.job_id, abandon, shutdown);
        // Side by side: a scheduler that does not answer holds nothing up.
        let outcome = tokio::select! {
            outcome = self.do_job(&job, &running) => outcome,
            never = running.give_signs_of_life() => match never {},
        };
        let mut update = UpdateJobStatusRequest {
            job_id: job.job_id.clone(),
            ..Default::default()
        };
        match outcome {
            Ok(Outcome {
                compaction,
                redaction,
            }) => {
                update.set_status(JobStatus::Succeeded);
                update.compaction = compaction;
                update.redaction = redaction;
            }
            // Asked for the next job, the scheduler will say whether this one is to be done again.
            Err(JobError::Abandoned) => return,
            Err(error) => {
                if let JobError::Bad(_) = &error {
                    let status = ["bad_request"];
                    self.0.metrics.bad_jobs.with_label_values(&status).inc();
                }
                tracing::error!(job_id = job.job_id, job_type = job.r#type().as_str_name(), %error, "job failed");
                update.set_status(JobStatus::Failed);
                update.error = error.to_string();
            }
        }
        self.tell(update, shutdown).await;
    }

    /// One call of the scheduler.
    pub(crate) async fn update(&self, update: UpdateJobStatusRequest) -> Result<(), SourceError> {
        let answer = self.0.jobs.update(update);
        match tokio::time::timeout(UPDATE_TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(SourceError::Unavailable(format!(
                "no answer within {} s",
                UPDATE_TIMEOUT.as_secs()
            ))),
        }
    }

    /// Tells the scheduler, as often as it takes.
    async fn tell(&self, update: UpdateJobStatusRequest, shutdown: &CancellationToken) {
        let mut pause = self.0.config.backoff.min;
        loop {
            match self.update(update.clone()).await {
                Ok(()) => return,
                Err(error @ SourceError::NotRunning(_)) => {
                    tracing::warn!(job_id = update.job_id, %error, "the end of a job was of no interest");
                    return;
                }
                Err(error @ SourceError::Unavailable(_)) => {
                    tracing::warn!(job_id = update.job_id, %error, "the end of a job was not told yet");
                }
            }
            self.0.metrics.call_retries.inc();
            if !self.pause(&mut pause, shutdown).await {
                return;
            }
        }
    }

    /// Waits, longer each time. Whether to go on.
    pub(crate) async fn pause(&self, pause: &mut Duration, shutdown: &CancellationToken) -> bool {
        let jitter = pause.mul_f64(rand::random::<f64>() / 4.0);
        let wait = *pause + jitter;
        *pause = (*pause * 2).min(self.0.config.backoff.max);
        tokio::select! {
            () = shutdown.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }
}

impl Service {
    /// Does jobs until shut down. A job that runs then may be finished within
    /// `finish_on_shutdown_timeout`; after that it is given up, and done again after the restart.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self(worker) = self;
        let config = &worker.0.config;
        let mut pause = config.backoff.min;
        let mut unanswered_since = None;
        while !shutdown.is_cancelled() {
            let next = tokio::select! {
                () = shutdown.cancelled() => return,
                next = worker.0.jobs.next(&config.worker_id) => next,
            };
            if next.is_ok() {
                unanswered_since = None;
            }
            let job = match next {
                Ok(Some(job)) => job,
                Ok(None) => {
                    pause = config.backoff.min;
                    // A scheduler that does not keep its workers waiting is not to be rushed.
                    if !worker.pause(&mut pause, &shutdown).await {
                        return;
                    }
                    continue;
                }
                Err(error) => {
                    match unanswered_since {
                        None => {
                            unanswered_since = Some(Instant::now());
                            tracing::info!(%error, "no job yet");
                        }
                        Some(since) if since.elapsed() < QUIET_ABSENCE => {
                            tracing::debug!(%error, pause = ?pause, "no job yet");
                        }
                        Some(_) => {
                            tracing::warn!(%error, pause = ?pause, "no answer from the backend-scheduler");
                        }
                    }
                    worker.0.metrics.call_retries.inc();
                    if !worker.pause(&mut pause, &shutdown).await {
                        return;
                    }
                    continue;
                }
            };
            pause = config.backoff.min;
            let abandon = Abandon::default();
            let working = worker.work(job, abandon.clone(), &shutdown);
            tokio::pin!(working);
            tokio::select! {
                () = &mut working => continue,
                () = shutdown.cancelled() => {}
            }
            if tokio::time::timeout(config.finish_on_shutdown_timeout, &mut working)
                .await
                .is_err()
            {
                tracing::warn!("job given up to shut down; it is done again after the restart");
                abandon.set();
            }
        }
    }
}
