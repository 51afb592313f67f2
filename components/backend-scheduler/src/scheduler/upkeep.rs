//! What happens by itself: jobs are forgotten, given up and asked for.

use std::collections::HashMap;

use tempo_backend::Timestamp;
use tempo_proto::tempopb::RedactionBatch;

use super::{Scheduler, State};
use crate::{
    Error, Job, JobKind, JobStatus,
    redaction::{self, MAX_FAILED_BATCHES, Progress, Step},
};

impl Scheduler {
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
        self.step_redactions(state, now)?;
        state.work.remove(&forgotten)?;
        self.ask_for_retention(state, now)?;
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
        let mut kept: Vec<RedactionBatch> = Vec::new();
        let mut jobs = Vec::new();
        for batch in state.work.batches() {
            let mut progress = Progress::default();
            for job in state.work.jobs().filter(|job| {
                job.kind == JobKind::Redaction && job.detail.batch_id == batch.batch_id
            }) {
                progress.open |= !job.status.is_final();
                if job.status == JobStatus::Failed {
                    progress.failed.extend(job.blocks().map(str::to_owned));
                }
            }
            let find = |id: &str| state.work.get(id);
            match redaction::step(batch, find, progress, &self.0.config, now) {
                Step::Wait => kept.push(batch.clone()),
                Step::Remove => {
                    tracing::info!(
                        tenant = batch.tenant_id,
                        batch_id = batch.batch_id,
                        "redaction done"
                    );
                }
                Step::Fail(batch) => {
                    tracing::error!(
                        tenant = batch.tenant_id,
                        batch_id = batch.batch_id,
                        traces = batch.trace_ids.len(),
                        blocks = batch.failed_blocks.join(","),
                        "redaction failed: these blocks still have its traces; mend what their \
                         jobs complained of and submit it again"
                    );
                    kept.push(batch);
                }
                Step::Keep(batch, blocks) => {
                    jobs.extend(blocks.into_iter().map(|block| {
                        Job::redaction(&batch.tenant_id, &batch.batch_id, block, now)
                    }));
                    kept.push(batch);
                }
            }
        }
        forget_oldest_failures(&mut kept);
        // Jobs first: a batch that forgot what it skipped must have them.
        state.work.put_all(jobs)?;
        if kept != state.work.batches() {
            state.work.set_batches(kept)?;
        }
        self.0.metrics.report_failed(state.work.failed_batches());
        Ok(())
    }
}

/// Keeps the number of failed batches within its limit.
fn forget_oldest_failures(batches: &mut Vec<RedactionBatch>) {
    let mut failed: HashMap<String, usize> = HashMap::new();
    // The latest are at the end.
    batches.reverse();
    batches.retain(|batch| {
        if batch.failed_at_unix_nano == 0 {
            return true;
        }
        let count = failed.entry(batch.tenant_id.clone()).or_default();
        *count += 1;
        let keep = *count <= MAX_FAILED_BATCHES;
        if !keep {
            tracing::error!(
                tenant = batch.tenant_id,
                batch_id = batch.batch_id,
                blocks = batch.failed_blocks.join(","),
                "failed redaction forgotten: there are too many"
            );
        }
        keep
    });
    batches.reverse();
}
