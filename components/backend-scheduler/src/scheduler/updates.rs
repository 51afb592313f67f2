//! What workers tell of their jobs.

use tempo_backend::{BlockChange, Timestamp};
use tempo_proto::tempopb;
use uuid::Uuid;

use super::{Scheduler, State, UpdateError};
use crate::{
    Error, Job, JobKind, JobStatus,
    redaction::{self, MAX_ATTEMPTS},
};

impl Scheduler {
    /// Hears of a job.
    ///
    /// # Errors
    /// See [`UpdateError`].
    pub async fn update(&self, update: tempopb::UpdateJobStatusRequest) -> Result<(), UpdateError> {
        self.ready().map_err(UpdateError::NotInCharge)?;
        let this = self.clone();
        let done = self
            .with(move |state| this.update_state(state, update))
            .await;
        self.0.wake.notify_waiters();
        done
    }

    pub(super) fn update_state(
        &self,
        state: &mut State,
        update: tempopb::UpdateJobStatusRequest,
    ) -> Result<(), UpdateError> {
        let now = self.now();
        let not_kept = |error: Error| UpdateError::NotKept(error.to_string());
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
                // What is about to become public is kept first: should the worker not be heard of
                // any more, it is known where to look.
                if let (Some(detail), Some(intent)) =
                    (&mut job.detail.compaction, update.compaction)
                    && detail.output != intent.output
                {
                    detail.output = intent.output;
                    state.work.put(job).map_err(not_kept)?;
                }
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
        state.work.put(job.clone()).map_err(not_kept)?;
        self.0.metrics.ended(&job, failed);
        if !failed {
            if job.kind == JobKind::Compaction && job.outputs().next().is_none() {
                // Some of its blocks were gone. The others are not, and until the next poll the
                // same would be chosen again.
                state.plan.pause(block_ids(&job), now);
            }
            self.hide(&job);
        }
        Ok(())
    }

    pub(super) fn fail(&self, state: &mut State, job: &mut Job, reason: &str, now: Timestamp) {
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
            JobKind::Compaction => state.plan.pause(block_ids(job), now),
            JobKind::Redaction if job.retries + 1 < MAX_ATTEMPTS => {
                job.retries += 1;
                job.status = JobStatus::Pending;
                job.worker_id.clear();
            }
            _ => {}
        }
    }

    /// Takes merged blocks from the list: the next poll may be long to come. Without a block that
    /// has their traces they stay.
    pub(super) fn hide(&self, job: &Job) {
        if job.kind != JobKind::Compaction || job.outputs().next().is_none() {
            return;
        }
        let blocks = self.0.blocklist.tenant(job.tenant());
        let removed: Vec<Uuid> = block_ids(job)
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

    pub(super) async fn hide_merged(&self) {
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
}

fn block_ids(job: &Job) -> impl Iterator<Item = Uuid> {
    job.blocks().filter_map(|id| Uuid::try_parse(id).ok())
}
