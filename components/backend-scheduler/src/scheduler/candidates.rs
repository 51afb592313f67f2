//! Blocks that could be merged: reserved, looked at in the bucket, and handed out.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use tempo_backend::ObjectKey;
use tempo_proto::tempopb;
use uuid::Uuid;

use super::{Scheduler, State};
use crate::{
    Error, Job, JobKind, JobStatus,
    plan::{Candidate, Scene},
    redaction,
};

/// Blocks of candidates that are being looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Reserved(Arc<Mutex<HashSet<Uuid>>>);

impl Reserved {
    pub(super) fn contains(&self, block: &Uuid) -> bool {
        self.0.lock().contains(block)
    }

    pub(super) fn add_to(&self, blocks: &mut HashSet<Uuid>) {
        blocks.extend(self.0.lock().iter().copied());
    }
}

/// A candidate whose blocks nobody else gets as long as this is kept: a worker that goes while its
/// candidate is looked at takes nothing with it.
pub(super) struct Reservation {
    candidate: Candidate,
    /// Jobs that failed, some with blocks of the candidate, and may have been done all the same.
    doubtful: Vec<Job>,
    reserved: Reserved,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut reserved = self.reserved.0.lock();
        for block in &self.candidate.blocks {
            reserved.remove(block);
        }
    }
}

/// What the bucket tells of a candidate.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Blocks that their writers hide from compaction.
    hidden: Vec<Uuid>,
    /// Jobs that count as failed, and whose block is public.
    done: Vec<Job>,
    /// Whether it does not tell all.
    incomplete: bool,
}

impl Scheduler {
    /// Blocks to be merged.
    pub(super) fn candidate(&self, state: &mut State) -> Option<Reservation> {
        let busy = state.busy();
        let State {
            work,
            plan,
            reserved,
            ..
        } = state;
        let barred = |tenant: &str| work.batch_of(tenant).is_some_and(redaction::is_apply);
        let inner = &*self.0;
        let candidate = plan.next(&Scene {
            blocklist: &inner.blocklist,
            busy: &busy,
            barred: &barred,
            limits: &*inner.limits,
            config: &inner.config,
            metrics: &inner.metrics,
            now: self.now(),
        })?;
        reserved.0.lock().extend(&candidate.blocks);
        let names: HashSet<String> = candidate.blocks.iter().map(Uuid::to_string).collect();
        let doubtful = work.jobs().filter(|job| {
            job.kind == JobKind::Compaction
                && job.status == JobStatus::Failed
                && job.tenant() == &*candidate.tenant
                && job.outputs().next().is_some()
                && job.blocks().any(|block| names.contains(block))
        });
        Some(Reservation {
            doubtful: doubtful.cloned().collect(),
            candidate,
            reserved: reserved.clone(),
        })
    }

    /// Looks at the blocks of a candidate in the bucket.
    pub(super) async fn examine(&self, reservation: &Reservation) -> Findings {
        let Reservation {
            candidate,
            doubtful,
            ..
        } = reservation;
        let mut findings = Findings::default();
        let tenant = &*candidate.tenant;
        for &block in &candidate.fresh {
            match self.0.backend.has_no_compact(tenant, block).await {
                Ok(false) => {}
                Ok(true) => findings.hidden.push(block),
                Err(error) => {
                    tracing::warn!(tenant, block_id = %block, %error,
                        "cannot tell whether the block may be merged");
                    findings.incomplete = true;
                }
            }
        }
        for job in doubtful {
            match self.is_public(tenant, job).await {
                Ok(false) => {}
                Ok(true) => findings.done.push(job.clone()),
                Err(error) => {
                    tracing::warn!(tenant, job_id = job.id, %error,
                        "cannot tell whether a failed job was done all the same");
                    findings.incomplete = true;
                }
            }
        }
        findings
    }

    /// Whether the block that a job makes is, or was, there for all to read.
    async fn is_public(&self, tenant: &str, job: &Job) -> Result<bool, tempo_backend::Error> {
        for output in job.outputs() {
            for key in [
                ObjectKey::meta(tenant, output),
                ObjectKey::compacted_meta(tenant, output),
            ] {
                if self.0.backend.exists(&key).await? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Gives a candidate to a worker, unless the bucket or a redaction forbids it.
    pub(super) fn assign_candidate(
        &self,
        state: &mut State,
        reservation: Reservation,
        findings: &Findings,
        worker: &str,
    ) -> Result<Option<tempopb::NextJobResponse>, Error> {
        let candidate = &reservation.candidate;
        let now = self.now();
        state.plan.pause(findings.hidden.iter().copied(), now);
        for job in &findings.done {
            tracing::warn!(
                tenant = job.tenant(),
                job_id = job.id,
                "job that counted as failed was done: its block is there"
            );
            let mut job = job.clone();
            job.status = JobStatus::Succeeded;
            state.work.put(job.clone())?;
            self.hide(&job);
        }
        let is_free =
            findings.hidden.is_empty() && findings.done.is_empty() && !findings.incomplete;
        // A redaction may have been asked for in between.
        if !is_free || state.is_redacted(&candidate.tenant) {
            return Ok(None);
        }
        let input = candidate.blocks.iter().map(Uuid::to_string).collect();
        let job = Job::compaction(&candidate.tenant, input, now);
        self.assign(state, job, worker).map(Some)
    }
}
