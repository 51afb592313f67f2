//! Requests for redaction.

use tempo_proto::tempopb;
use uuid::Uuid;

use super::{Scheduler, State};
use crate::{Error, Job, JobKind, JobStatus, SubmitError, redaction};

impl Scheduler {
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
        // Jobs may be planned once more; what people asked for is not to be lost with the disk.
        if done.is_ok()
            && let Err(error) = self.write_object(true).await
        {
            tracing::warn!(%error, "redaction not in the bucket yet; it is in the local folder");
        }
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
                // One that counts as failed may have been done all the same.
                JobStatus::Succeeded | JobStatus::Failed => !job.outputs().all(|id| {
                    blocks.live_block(id).is_some() || blocks.compacted_block(id).is_some()
                }),
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
        batches.retain(|old| !redaction::makes_up_for(&batch, old));
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
        self.0.metrics.report_failed(state.work.failed_batches());
        tracing::info!(tenant, batch_id, jobs = jobs_created, "redaction begun");
        Ok(tempopb::SubmitRedactionResponse {
            batch_id,
            jobs_created,
        })
    }
}
