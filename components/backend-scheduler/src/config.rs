//! Settings of the backend-scheduler.

use std::{path::PathBuf, time::Duration};

use crate::{Error, select::SelectionConfig};

/// Settings, with Tempo's defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// `work.prune_age`: how long finished jobs are remembered.
    pub prune_age: Duration,
    /// `work.dead_job_timeout`: a job that runs for longer has failed, and its blocks can be
    /// chosen again.
    pub dead_job_timeout: Duration,
    /// A job whose worker has given signs of life, and none for this long, has failed, too.
    pub silent_job_timeout: Duration,
    /// `maintenance_interval`: time between looks for jobs that are lost or to be forgotten.
    pub maintenance_interval: Duration,
    /// `backend_flush_interval`: time between writes of the jobs to the bucket.
    pub backend_flush_interval: Duration,
    /// How long a scheduler that takes over waits before it looks whether another did so at the
    /// same time; must be longer than a write to the bucket takes.
    pub claim_pause: Duration,
    /// `job_timeout`: how long a worker that asks is kept waiting for a job.
    pub job_timeout: Duration,
    /// `local_work_path`: folder of the jobs.
    pub local_work_path: PathBuf,
    /// `provider.retention.interval`.
    pub retention_interval: Duration,
    /// `provider.compaction.max_jobs_per_tenant`: before it is the next tenant's turn.
    pub max_jobs_per_tenant: usize,
    /// `provider.compaction.min_cycle_interval`: shortest time between two rounds over all tenants.
    pub min_cycle_interval: Duration,
    /// `provider.redaction.rescan_delay`.
    pub rescan_delay: Duration,
    /// Which blocks are merged.
    pub selection: SelectionConfig,
    /// Whether requests for redaction name their tenant.
    pub multitenancy: bool,
    /// Name of this machine: two schedulers with one name and one folder are one that restarted.
    pub host: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            prune_age: Duration::from_secs(3600),
            dead_job_timeout: Duration::from_secs(24 * 3600),
            silent_job_timeout: Duration::from_secs(5 * 60),
            maintenance_interval: Duration::from_secs(60),
            backend_flush_interval: Duration::from_secs(60),
            claim_pause: Duration::from_secs(2),
            job_timeout: Duration::from_secs(15),
            local_work_path: PathBuf::from("/var/tempo"),
            retention_interval: Duration::from_secs(3600),
            max_jobs_per_tenant: 1000,
            min_cycle_interval: Duration::from_secs(30),
            rescan_delay: Duration::from_secs(5 * 60),
            selection: SelectionConfig::default(),
            multitenancy: false,
            host: String::new(),
        }
    }
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refused = |setting: &'static str, problem: &str| {
            Err(Error::Setting {
                setting,
                problem: problem.to_owned(),
            })
        };
        if self.prune_age.is_zero() {
            return refused("backend_scheduler.work.prune_age", "must be more than 0");
        }
        if self.prune_age <= self.rescan_delay {
            return refused(
                "backend_scheduler.work.prune_age",
                "must be more than provider.redaction.rescan_delay",
            );
        }
        if self.maintenance_interval.is_zero() || self.backend_flush_interval.is_zero() {
            return refused(
                "backend_scheduler.maintenance_interval, backend_flush_interval",
                "must be more than 0",
            );
        }
        if self.max_jobs_per_tenant == 0 || self.min_cycle_interval.is_zero() {
            return refused(
                "backend_scheduler.provider.compaction",
                "max_jobs_per_tenant and min_cycle_interval must be more than 0",
            );
        }
        if self.retention_interval.is_zero() {
            return refused(
                "backend_scheduler.provider.retention.interval",
                "must be more than 0",
            );
        }
        self.selection.check()
    }
}
