//! The scheduler: hands out jobs, hears what became of them, and keeps both.

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tempo_backend::{Backend, BlockChange, Blocklist, ObjectKey, ReadStats, Timestamp, WORK};
use tempo_proto::tempopb::{self, backend_scheduler_server::BackendSchedulerServer};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Config, Error, Job, JobKind, JobStatus, SubmitError,
    conflict::{Owner, rival},
    metrics::Metrics,
    plan::{Candidate, Plan},
    redaction::{self, MAX_ATTEMPTS, Step},
    rpc::Rpc,
    work::{self, Work, WorkObject},
};

/// What the scheduler wants to know of tenants.
pub trait Limits: Send + Sync {
    /// Whether blocks of the tenant are left alone.
    fn compaction_disabled(&self, tenant: &str) -> bool;
    /// The tenant's own compaction window.
    fn compaction_window(&self, tenant: &str) -> Option<Duration>;
}

/// What the scheduler works with.
pub struct Deps<'a> {
    /// The bucket.
    pub backend: Backend,
    /// The blocks, kept current by someone else.
    pub blocklist: Blocklist,
    /// Limits of tenants.
    pub limits: Arc<dyn Limits>,
    /// The time.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Where metrics go.
    pub registry: &'a prometheus::Registry,
}

/// How often a waiting worker looks for a job, at most.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Pause before the bucket is read again while no job can be handed out.
const CHARGE_RETRY: Duration = Duration::from_secs(5);

struct State {
    work: Work,
    /// Whether the folder had jobs, which are newer than those of the bucket.
    has_folder: bool,
    plan: Plan,
    /// Blocks of candidates that are being looked at.
    reserved: HashSet<Uuid>,
    /// When retention of each tenant was last asked for.
    retained: std::collections::HashMap<Arc<str>, Timestamp>,
}

impl State {
    fn busy(&self) -> HashSet<Uuid> {
        let jobs = self.work.jobs().filter(|job| !job.status.is_final());
        let blocks = jobs.flat_map(|job| job.blocks().filter_map(|id| Uuid::try_parse(id).ok()));
        blocks.chain(self.reserved.iter().copied()).collect()
    }

    fn is_redacted(&self, tenant: &str) -> bool {
        self.work.batch_of(tenant).is_some_and(redaction::is_apply)
    }
}

/// Why a worker gets no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NextError {
    /// Jobs are given to someone.
    #[error("worker_id is empty")]
    NoWorkerId,
    /// This scheduler is not the only one.
    #[error("{0}")]
    NotInCharge(String),
    /// The job could not be kept.
    #[error("failed to flush cache to store: {0}")]
    NotKept(String),
}

/// Why an update is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// Never heard of.
    #[error("job not found: {0}")]
    Unknown(String),
    /// The job was given up, or to another: what its worker did does not count.
    #[error("job {0} is not running any more")]
    Ended(String),
    /// A status that is none.
    #[error("invalid job status")]
    Status,
    /// The update could not be kept.
    #[error("failed to flush cache to store: {0}")]
    NotKept(String),
}

/// Who works on the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Charge {
    /// Not known yet: the bucket was not read.
    Unknown,
    /// This scheduler.
    Own,
    /// Another one that is alive.
    Other(Owner),
}

struct Inner {
    config: Config,
    backend: Backend,
    blocklist: Blocklist,
    limits: Arc<dyn Limits>,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    metrics: Metrics,
    state: Mutex<State>,
    own: Owner,
    charge: Mutex<Charge>,
    wake: Notify,
}

/// The scheduler. Cheap to clone.
#[derive(Clone)]
pub struct Scheduler(Arc<Inner>);

/// What runs beside it.
pub struct Service(Scheduler);

/// Opens the folder of the jobs. Jobs are handed out once the [`Service`] runs and the bucket has
/// told that there is no other scheduler.
///
/// # Errors
/// When a setting cannot work, the folder cannot be used, or the jobs in it cannot be read.
pub async fn build(config: Config, deps: Deps<'_>) -> Result<(Scheduler, Service), Error> {
    config.check()?;
    let metrics = Metrics::register(deps.registry)?;
    let folder = config.local_work_path.clone();
    let (work, has_folder) = blocking(move || Work::open(&folder)).await?;
    let own = Owner {
        instance: Uuid::new_v4().to_string(),
        place: format!("{} {}", config.host, config.local_work_path.display()),
        renewed: Timestamp::ZERO,
    };
    let scheduler = Scheduler(Arc::new(Inner {
        backend: deps.backend,
        blocklist: deps.blocklist,
        limits: deps.limits,
        now: deps.now,
        metrics,
        state: Mutex::new(State {
            work,
            has_folder,
            plan: Plan::default(),
            reserved: HashSet::new(),
            retained: Default::default(),
        }),
        own,
        charge: Mutex::new(Charge::Unknown),
        wake: Notify::new(),
        config,
    }));
    Ok((scheduler.clone(), Service(scheduler)))
}

async fn blocking<R: Send + 'static>(task: impl FnOnce() -> R + Send + 'static) -> R {
    match tokio::task::spawn_blocking(task).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and with it whoever waits for this.
            Err(_) => std::future::pending().await,
        },
    }
}

impl Scheduler {
    /// The gRPC service.
    pub fn grpc(&self) -> BackendSchedulerServer<Rpc> {
        BackendSchedulerServer::new(Rpc(self.clone()))
    }

    pub(crate) fn multitenancy(&self) -> bool {
        self.0.config.multitenancy
    }

    /// Whether it hands out jobs; if not, why.
    ///
    /// # Errors
    /// Another scheduler works on the bucket, or the bucket was not read yet.
    pub fn ready(&self) -> Result<(), String> {
        match &*self.0.charge.lock() {
            Charge::Own => Ok(()),
            Charge::Unknown => Err("the bucket was not read yet".to_owned()),
            Charge::Other(other) => Err(format!(
                "another backend-scheduler works on this bucket ({}, last seen {}): stop one of them",
                other.place, other.renewed
            )),
        }
    }

    fn now(&self) -> Timestamp {
        (self.0.now)()
    }

    /// Changes the state on a thread that may wait for the disk.
    async fn with<R: Send + 'static>(
        &self,
        change: impl FnOnce(&mut State) -> R + Send + 'static,
    ) -> R {
        let inner = Arc::clone(&self.0);
        blocking(move || change(&mut inner.state.lock())).await
    }

    /// A job for a worker: the one that it has, or a new one; `None` when there is none within
    /// `job_timeout`.
    ///
    /// # Errors
    /// See [`NextError`].
    pub async fn next(&self, worker: &str) -> Result<Option<tempopb::NextJobResponse>, NextError> {
        if worker.is_empty() {
            return Err(NextError::NoWorkerId);
        }
        self.ready().map_err(NextError::NotInCharge)?;
        let deadline = tokio::time::Instant::now() + self.0.config.job_timeout;
        loop {
            if let Some(job) = self.try_next(worker).await? {
                return Ok(Some(job));
            }
            let look = tokio::time::Instant::now() + LOOK_INTERVAL;
            if look >= deadline {
                self.0.metrics.not_found.with_label_values(&[worker]).inc();
                return Ok(None);
            }
            tokio::select! {
                () = tokio::time::sleep_until(look) => {}
                () = self.0.wake.notified() => {}
            }
        }
    }

    async fn try_next(&self, worker: &str) -> Result<Option<tempopb::NextJobResponse>, NextError> {
        let not_kept = |error: Error| NextError::NotKept(error.to_string());
        let (this, name) = (self.clone(), worker.to_owned());
        let known = self
            .with(move |state| this.known_job(state, &name))
            .await
            .map_err(not_kept)?;
        if known.is_some() {
            return Ok(known);
        }
        loop {
            let this = self.clone();
            let Some(candidate) = self.with(move |state| this.candidate(state)).await else {
                return Ok(None);
            };
            let is_free = self.is_free(&candidate).await;
            let (this, name) = (self.clone(), worker.to_owned());
            let assigned = self
                .with(move |state| this.assign_candidate(state, candidate, is_free, &name))
                .await
                .map_err(not_kept)?;
            if assigned.is_some() {
                return Ok(assigned);
            }
        }
    }

    /// What the worker has already, or what waits.
    fn known_job(
        &self,
        state: &mut State,
        worker: &str,
    ) -> Result<Option<tempopb::NextJobResponse>, Error> {
        if let Some(job) = state.work.running_of(worker) {
            let mut job = job.clone();
            self.0.metrics.handed_out_again(&job);
            job.retries += 1;
            state.work.put(job.clone())?;
            return Ok(Some(job.response(state.work.batch_of(job.tenant()))));
        }
        while let Some(job) = state.work.oldest_pending(JobKind::Redaction) {
            let job = job.clone();
            let batch = state.work.batch_of(job.tenant());
            if batch.is_none_or(|batch| batch.batch_id != job.detail.batch_id) {
                self.drop_job(state, job)?;
                continue;
            }
            return self.assign(state, job, worker).map(Some);
        }
        while let Some(job) = state.work.oldest_pending(JobKind::Retention) {
            let job = job.clone();
            if state.is_redacted(job.tenant()) {
                self.drop_job(state, job)?;
                continue;
            }
            return self.assign(state, job, worker).map(Some);
        }
        Ok(None)
    }

    fn drop_job(&self, state: &mut State, job: Job) -> Result<(), Error> {
        self.0.metrics.dropped(&job);
        state.work.remove(&[job.id])
    }

    fn assign(
        &self,
        state: &mut State,
        mut job: Job,
        worker: &str,
    ) -> Result<tempopb::NextJobResponse, Error> {
        job.status = JobStatus::Running;
        worker.clone_into(&mut job.worker_id);
        job.start_time = self.now();
        state.work.put(job.clone())?;
        self.0.metrics.handed_out(&job);
        tracing::info!(
            tenant = job.tenant(),
            job_id = job.id,
            job_type = job.kind.label(),
            worker_id = worker,
            "job handed out"
        );
        Ok(job.response(state.work.batch_of(job.tenant())))
    }

    /// Blocks to be merged, reserved until they are assigned.
    fn candidate(&self, state: &mut State) -> Option<Candidate> {
        let busy = state.busy();
        let State {
            work,
            plan,
            reserved,
            ..
        } = state;
        let barred = |tenant: &str| work.batch_of(tenant).is_some_and(redaction::is_apply);
        let inner = &*self.0;
        let candidate = plan.next(
            &inner.blocklist,
            &busy,
            barred,
            &*inner.limits,
            &inner.config,
            &inner.metrics,
            self.now(),
        )?;
        reserved.extend(&candidate.blocks);
        Some(candidate)
    }

    /// Whether no block of a candidate is hidden from compaction. When the store does not tell, it
    /// may be.
    async fn is_free(&self, candidate: &Candidate) -> bool {
        for &block in &candidate.fresh {
            match self
                .0
                .backend
                .has_no_compact(&candidate.tenant, block)
                .await
            {
                Ok(false) => {}
                Ok(true) => return false,
                Err(error) => {
                    tracing::warn!(tenant = &*candidate.tenant, block_id = %block, %error,
                        "cannot tell whether the block may be merged");
                    return false;
                }
            }
        }
        true
    }

    fn assign_candidate(
        &self,
        state: &mut State,
        candidate: Candidate,
        is_free: bool,
        worker: &str,
    ) -> Result<Option<tempopb::NextJobResponse>, Error> {
        for block in &candidate.blocks {
            state.reserved.remove(block);
        }
        // A redaction may have been asked for in between.
        if !is_free || state.is_redacted(&candidate.tenant) {
            return Ok(None);
        }
        let input = candidate.blocks.iter().map(Uuid::to_string).collect();
        let job = Job::compaction(&candidate.tenant, input, self.now());
        self.assign(state, job, worker).map(Some)
    }

    /// Hears of a job.
    ///
    /// # Errors
    /// See [`UpdateError`].
    pub async fn update(&self, update: tempopb::UpdateJobStatusRequest) -> Result<(), UpdateError> {
        let this = self.clone();
        let done = self
            .with(move |state| this.update_state(state, update))
            .await;
        self.0.wake.notify_waiters();
        done
    }

    fn update_state(
        &self,
        state: &mut State,
        update: tempopb::UpdateJobStatusRequest,
    ) -> Result<(), UpdateError> {
        let now = self.now();
        let mut job = match state.work.get(&update.job_id) {
            None => return Err(UpdateError::Unknown(update.job_id)),
            Some(job) if job.status == JobStatus::Running => job.clone(),
            // Told again: the answer to the first time was lost.
            Some(job)
                if job.status == JobStatus::Succeeded
                    && update.status() == tempopb::JobStatus::Succeeded =>
            {
                return Ok(());
            }
            Some(_) => return Err(UpdateError::Ended(update.job_id)),
        };
        match update.status() {
            tempopb::JobStatus::Unspecified => return Err(UpdateError::Status),
            tempopb::JobStatus::Running => {
                state.work.see(&update.job_id, now);
                return Ok(());
            }
            tempopb::JobStatus::Succeeded => {
                job.status = JobStatus::Succeeded;
                if let (Some(detail), Some(result)) =
                    (&mut job.detail.compaction, &update.compaction)
                {
                    detail.output.clone_from(&result.output);
                }
                if let Some(result) = update.redaction {
                    let mode = state.work.batch_of(job.tenant()).map_or("", |batch| {
                        if redaction::is_apply(batch) {
                            "apply"
                        } else {
                            "dry_run"
                        }
                    });
                    self.0
                        .metrics
                        .traces_found
                        .with_label_values(&[job.tenant(), mode])
                        .inc_by(u64::try_from(result.traces_found).unwrap_or(0));
                }
            }
            tempopb::JobStatus::Failed => self.fail(state, &mut job, &update.error, now),
        }
        job.end_time = now;
        let failed = job.status != JobStatus::Succeeded;
        state
            .work
            .put(job.clone())
            .map_err(|error| UpdateError::NotKept(error.to_string()))?;
        self.0.metrics.ended(&job, failed);
        if !failed {
            self.hide(&job);
        }
        Ok(())
    }

    fn fail(&self, state: &mut State, job: &mut Job, reason: &str, now: Timestamp) {
        tracing::error!(
            tenant = job.tenant(),
            job_id = job.id,
            job_type = job.kind.label(),
            worker_id = job.worker_id,
            reason,
            "job failed"
        );
        job.status = JobStatus::Failed;
        match job.kind {
            JobKind::Compaction => {
                let blocks: Vec<Uuid> = job
                    .blocks()
                    .filter_map(|id| Uuid::try_parse(id).ok())
                    .collect();
                state.plan.failed(blocks.into_iter(), now);
            }
            JobKind::Redaction if job.retries + 1 < MAX_ATTEMPTS => {
                job.retries += 1;
                job.status = JobStatus::Pending;
                job.worker_id.clear();
            }
            _ => {}
        }
    }

    /// Takes merged blocks from the list: the next poll may be long to come.
    fn hide(&self, job: &Job) {
        if job.kind != JobKind::Compaction {
            return;
        }
        let blocks = self.0.blocklist.tenant(job.tenant());
        let merged = job.blocks().filter_map(|id| Uuid::try_parse(id).ok());
        let removed: Vec<Uuid> = merged
            .filter(|block| blocks.live_block(*block).is_some())
            .collect();
        if !removed.is_empty() {
            let change = BlockChange {
                removed,
                ..BlockChange::default()
            };
            self.0.blocklist.apply_change(job.tenant(), change);
        }
    }

    async fn hide_merged(&self) {
        let this = self.clone();
        self.with(move |state| {
            let merged = state
                .work
                .jobs()
                .filter(|job| job.status == JobStatus::Succeeded);
            merged.for_each(|job| this.hide(job));
        })
        .await;
    }

    /// Asks for traces to be removed from all blocks of a tenant.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit_redaction(
        &self,
        tenant: &str,
        request: tempopb::SubmitRedactionRequest,
    ) -> Result<tempopb::SubmitRedactionResponse, SubmitError> {
        self.ready().map_err(SubmitError::NotInCharge)?;
        let request = redaction::check(request)?;
        if self.0.limits.compaction_disabled(tenant) {
            return Err(SubmitError::CompactionDisabled(tenant.to_owned()));
        }
        let (this, tenant) = (self.clone(), tenant.to_owned());
        let done = self
            .with(move |state| this.submit_state(state, &tenant, request))
            .await;
        self.0.wake.notify_waiters();
        done
    }

    fn submit_state(
        &self,
        state: &mut State,
        tenant: &str,
        request: redaction::Request,
    ) -> Result<tempopb::SubmitRedactionResponse, SubmitError> {
        if let Some(batch) = state.work.batch_of(tenant) {
            return Err(SubmitError::InProgress {
                tenant: tenant.to_owned(),
                batch: batch.batch_id.clone(),
            });
        }
        let blocks = self.0.blocklist.tenant(tenant);
        // Blocks that are merged or were lately, as long as their successor is not listed.
        let now = self.now();
        let merging: Vec<&Job> = state
            .work
            .jobs()
            .filter(|job| job.kind == JobKind::Compaction && job.tenant() == tenant)
            .filter(|job| match job.status {
                JobStatus::Pending | JobStatus::Running => true,
                JobStatus::Succeeded => job.detail.compaction.iter().any(|detail| {
                    let listed = |id: &String| {
                        Uuid::try_parse(id).is_ok_and(|id| {
                            blocks.live_block(id).is_some() || blocks.compacted_block(id).is_some()
                        })
                    };
                    !detail.output.iter().all(listed)
                }),
                JobStatus::Failed => false,
            })
            .collect();
        if blocks.live().is_empty() && merging.is_empty() {
            return Err(SubmitError::NoBlocks(tenant.to_owned()));
        }
        let busy = state.busy();
        let batch_id = Uuid::new_v4().to_string();
        let jobs: Vec<Job> = blocks
            .live()
            .iter()
            .map(|meta| meta.block_id)
            .filter(|block| !busy.contains(block) || state.reserved.contains(block))
            .map(|block| Job::redaction(tenant, &batch_id, block.to_string(), now))
            .collect();
        if jobs.is_empty() && request.mode == tempopb::RedactionMode::DryRun {
            return Err(SubmitError::AllBusy(tenant.to_owned()));
        }
        let skipped: Vec<String> = match request.mode {
            tempopb::RedactionMode::Apply => merging.iter().map(|job| job.id.clone()).collect(),
            tempopb::RedactionMode::DryRun => Vec::new(),
        };
        let rescan_after = if skipped.is_empty() {
            0
        } else {
            now.saturating_add(self.0.config.rescan_delay).unix_nanos()
        };
        let batch = tempopb::RedactionBatch {
            batch_id: batch_id.clone(),
            tenant_id: tenant.to_owned(),
            trace_ids: request.trace_ids,
            created_at_unix_nano: now.unix_nanos(),
            skipped_compaction_job_ids: skipped,
            rescan_after_unix_nano: rescan_after,
            mode: request.mode.into(),
            ..Default::default()
        };
        let not_kept = |error: Error| SubmitError::NotKept(error.to_string());
        let before = state.work.batches().to_vec();
        let mut batches = before.clone();
        batches.push(batch);
        state.work.set_batches(batches).map_err(not_kept)?;
        let jobs_created = i32::try_from(jobs.len()).unwrap_or(i32::MAX);
        if let Err(error) = state.work.put_all(jobs) {
            // Jobs without a batch are dropped when their turn comes.
            if let Err(error) = state.work.set_batches(before) {
                tracing::error!(tenant, batch_id, %error, "redaction without jobs stays");
            }
            return Err(not_kept(error));
        }
        tracing::info!(tenant, batch_id, jobs = jobs_created, "redaction begun");
        Ok(tempopb::SubmitRedactionResponse {
            batch_id,
            jobs_created,
        })
    }

    /// Forgets what is done, gives up what is lost, asks for retention, moves redactions on.
    pub(crate) async fn maintain(&self) {
        let this = self.clone();
        let done = self.with(move |state| this.maintain_state(state)).await;
        if let Err(error) = done {
            tracing::error!(%error, "jobs cannot be kept");
        }
        self.0.wake.notify_waiters();
    }

    fn maintain_state(&self, state: &mut State) -> Result<(), Error> {
        let (now, config) = (self.now(), &self.0.config);
        let mut forgotten = Vec::new();
        let mut lost = Vec::new();
        for job in state.work.jobs() {
            let age = |since| now.saturating_since(since);
            if job.status.is_final() && age(job.end_time) > config.prune_age {
                forgotten.push(job.id.clone());
            } else if job.status == JobStatus::Running {
                let silent = job
                    .seen
                    .is_some_and(|seen| age(seen) > config.silent_job_timeout);
                if silent || age(job.start_time) > config.dead_job_timeout {
                    lost.push(job.clone());
                }
            }
        }
        for mut job in lost {
            self.fail(state, &mut job, "its worker is lost", now);
            job.end_time = now;
            state.work.put(job.clone())?;
            self.0.metrics.ended(&job, true);
        }
        state.work.remove(&forgotten)?;
        self.ask_for_retention(state, now)?;
        self.step_redactions(state, now)?;
        let jobs = state.work.jobs().filter(|job| !job.status.is_final());
        let jobs: Vec<_> = jobs
            .map(|job| (job.tenant(), job.kind, job.status == JobStatus::Running))
            .collect();
        self.0.metrics.report(&jobs);
        Ok(())
    }

    fn ask_for_retention(&self, state: &mut State, now: Timestamp) -> Result<(), Error> {
        let tenants = self.0.blocklist.tenants();
        state.retained.retain(|tenant, _| tenants.contains(tenant));
        for tenant in tenants {
            let due = state
                .retained
                .get(&tenant)
                .is_none_or(|last| now.saturating_since(*last) >= self.0.config.retention_interval);
            let open = |job: &Job| {
                job.kind == JobKind::Retention && !job.status.is_final() && *job.tenant() == *tenant
            };
            if !due
                || self.0.limits.compaction_disabled(&tenant)
                || state.is_redacted(&tenant)
                || state.work.jobs().any(open)
            {
                continue;
            }
            state.work.put(Job::retention(&tenant, now))?;
            state.retained.insert(tenant, now);
        }
        Ok(())
    }

    fn step_redactions(&self, state: &mut State, now: Timestamp) -> Result<(), Error> {
        let mut kept = Vec::new();
        let mut jobs = Vec::new();
        for batch in state.work.batches() {
            let open = state.work.jobs().any(|job| {
                job.kind == JobKind::Redaction
                    && !job.status.is_final()
                    && job.detail.batch_id == batch.batch_id
            });
            let find = |id: &str| state.work.get(id);
            match redaction::step(batch, find, open, &self.0.config, now) {
                Step::Wait => kept.push(batch.clone()),
                Step::Remove => {
                    tracing::info!(
                        tenant = batch.tenant_id,
                        batch_id = batch.batch_id,
                        "redaction done"
                    );
                }
                Step::Keep(batch, blocks) => {
                    jobs.extend(blocks.into_iter().map(|block| {
                        Job::redaction(&batch.tenant_id, &batch.batch_id, block, now)
                    }));
                    kept.push(batch);
                }
            }
        }
        // Jobs first: a batch that forgot what it skipped must have them.
        state.work.put_all(jobs)?;
        if kept != state.work.batches() {
            state.work.set_batches(kept)?;
        }
        Ok(())
    }

    fn rival_in(&self, object: Option<&WorkObject>) -> Option<Owner> {
        let found = object.and_then(|object| object.owner.as_ref());
        let interval = self.0.config.backend_flush_interval;
        rival(found, &self.0.own, interval, self.now())
    }

    fn stand_back(&self, found: Owner) {
        tracing::error!(
            other = found.place,
            last_seen = %found.renewed,
            "another backend-scheduler works on this bucket: this one stands back until the other \
             is silent; stop one of them"
        );
        self.0.metrics.rival.set(1);
        *self.0.charge.lock() = Charge::Other(found);
    }

    async fn read_object(&self) -> Result<Option<WorkObject>, Error> {
        match self
            .0
            .backend
            .read(&ObjectKey::root(WORK), &ReadStats::new())
            .await
        {
            Ok(bytes) => work::parse(WORK, &bytes).map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn write_object(&self, running: bool) -> Result<(), Error> {
        let owner = Owner {
            renewed: self.now(),
            ..self.0.own.clone()
        };
        let json = self
            .with(move |state| {
                let mut object = state.work.object(owner);
                if !running {
                    object.owner = None;
                }
                serde_json::to_vec(&object)
            })
            .await
            .map_err(|error| Error::Corrupt {
                place: WORK.to_owned(),
                problem: error.to_string(),
            })?;
        let written = self
            .0
            .backend
            .write(&ObjectKey::root(WORK), json.into())
            .await;
        let metrics = &self.0.metrics;
        match written {
            Ok(()) => {
                metrics.flushes.inc();
                Ok(())
            }
            Err(error) => {
                metrics.flushes_failed.inc();
                Err(error.into())
            }
        }
    }

    /// Writes the jobs to the bucket, unless another scheduler does.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let object = match self.read_object().await {
            // What cannot be read is written anew.
            Err(Error::Corrupt { place, problem }) => {
                tracing::error!(
                    place,
                    problem,
                    "jobs in the bucket cannot be read, writing them anew"
                );
                None
            }
            read => read?,
        };
        if let Some(found) = self.rival_in(object.as_ref()) {
            self.stand_back(found);
            return Ok(());
        }
        let charge = self.0.charge.lock().clone();
        if charge != Charge::Own {
            if matches!(charge, Charge::Other(_)) {
                tracing::warn!("the other backend-scheduler is silent: this one takes over");
            }
            // What another did since is only there.
            let taken_over = charge != Charge::Unknown;
            self.with(move |state| {
                let Some(object) = object.filter(|_| taken_over || !state.has_folder) else {
                    return Ok(());
                };
                state.plan.refresh();
                state.work.load(object)
            })
            .await?;
            self.hide_merged().await;
        }
        self.write_object(true).await?;
        *self.0.charge.lock() = Charge::Own;
        self.0.metrics.rival.set(0);
        self.0.wake.notify_waiters();
        Ok(())
    }

    /// The jobs as a page of text.
    pub async fn status_page(&self) -> String {
        self.with(|state| {
            let mut jobs: Vec<&Job> = state.work.jobs().collect();
            jobs.sort_by_key(|job| (job.created_time, &job.id));
            let mut page = String::new();
            for (title, status) in [
                ("Active", JobStatus::Running),
                ("Pending", JobStatus::Pending),
            ] {
                page.push_str(&format!("{title} jobs\n"));
                for job in jobs.iter().filter(|job| job.status == status) {
                    page.push_str(&format!(
                        "{}  {}  {}  worker={}  created={}  start={}  blocks={}\n",
                        job.id,
                        job.tenant(),
                        job.kind.label(),
                        job.worker_id,
                        job.created_time,
                        job.start_time,
                        job.blocks().collect::<Vec<_>>().join(","),
                    ));
                }
                page.push('\n');
            }
            page
        })
        .await
    }
}

impl Service {
    /// Keeps the jobs in order until shut down, then writes them to the bucket a last time.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self(scheduler) = self;
        let config = &scheduler.0.config;
        let mut maintain = tokio::time::interval(config.maintenance_interval);
        let mut flush_after = Duration::ZERO;
        loop {
            let flush = tokio::time::sleep(flush_after);
            tokio::pin!(flush);
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = &mut flush => break,
                    _ = maintain.tick() => {
                        if scheduler.ready().is_ok() {
                            scheduler.maintain().await;
                        }
                    }
                }
            }
            if shutdown.is_cancelled() {
                break;
            }
            if let Err(error) = scheduler.flush().await {
                tracing::error!(%error, "jobs not written to the bucket, trying again later");
            }
            flush_after = match scheduler.ready() {
                Ok(()) => config.backend_flush_interval,
                Err(_) => config.backend_flush_interval.min(CHARGE_RETRY),
            };
        }
        if scheduler.ready().is_ok()
            && let Err(error) = scheduler.write_object(false).await
        {
            tracing::error!(%error, "jobs not written to the bucket; they are in the local folder");
        }
    }
}
