//! The scheduler: hands out jobs, hears what became of them, and keeps both.

mod candidates;
mod charge;
mod requests;
mod updates;
mod upkeep;

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tempo_backend::{Backend, Blocklist, Timestamp};
use tempo_proto::tempopb::{self, backend_scheduler_server::BackendSchedulerServer};
use tokio::sync::Notify;
use uuid::Uuid;

use self::candidates::Reserved;
use crate::{
    Config, Error, Job, JobKind, JobStatus, conflict::Owner, metrics::Metrics, plan::Plan,
    redaction, rpc::Rpc, work::Work,
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

struct State {
    work: Work,
    /// Whether the folder had jobs, which are newer than those of the bucket.
    has_folder: bool,
    plan: Plan,
    reserved: Reserved,
    /// When retention of each tenant was last asked for.
    retained: std::collections::HashMap<Arc<str>, Timestamp>,
}

impl State {
    fn busy(&self) -> HashSet<Uuid> {
        let jobs = self.work.jobs().filter(|job| !job.status.is_final());
        let blocks = jobs.flat_map(|job| job.blocks().filter_map(|id| Uuid::try_parse(id).ok()));
        let mut busy: HashSet<Uuid> = blocks.collect();
        self.reserved.add_to(&mut busy);
        busy
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
    /// This scheduler is not the only one: another may have given the job away.
    #[error("{0}")]
    NotInCharge(String),
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
    /// This scheduler, until others may think that it is gone.
    Own(Timestamp),
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
            reserved: Reserved::default(),
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
    /// Another scheduler works on the bucket or may do so, or the bucket was not read yet.
    pub fn ready(&self) -> Result<(), String> {
        match &*self.0.charge.lock() {
            Charge::Own(until) if self.now() <= *until => Ok(()),
            Charge::Own(until) => Err(format!(
                "the bucket could not be written: another backend-scheduler may work on it since \
                 {until}"
            )),
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
        let deadline = tokio::time::Instant::now() + self.0.config.job_timeout;
        loop {
            self.ready().map_err(NextError::NotInCharge)?;
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
            let findings = self.examine(&candidate).await;
            let (this, name) = (self.clone(), worker.to_owned());
            let assigned = self
                .with(move |state| this.assign_candidate(state, candidate, &findings, &name))
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
            let failed = state.work.failed_batches();
            for batch in failed {
                page.push_str(&format!(
                    "Failed redaction {}  {}  failed={}  traces={}  blocks={}\n",
                    batch.batch_id,
                    batch.tenant_id,
                    Timestamp::from_unix_nanos(batch.failed_at_unix_nano),
                    batch.trace_ids.len(),
                    batch.failed_blocks.join(","),
                ));
            }
            page
        })
        .await
    }
}
