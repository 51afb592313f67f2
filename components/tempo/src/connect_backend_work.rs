//! What connects the maintenance of blocks with the rest of the process.

use std::time::Duration;

use tempo_backend::RetentionPolicy;
use tempo_backend_scheduler::Scheduler;
use tempo_backend_worker::{JobSource, SourceError};
use tempo_proto::tempopb::{NextJobResponse, UpdateJobStatusRequest};

use crate::limits::Limits;

/// The worker's jobs are those of the scheduler of this process.
pub(crate) struct LocalJobs(pub(crate) Scheduler);

#[async_trait::async_trait]
impl JobSource for LocalJobs {
    async fn next(&self, worker_id: &str) -> Result<Option<NextJobResponse>, SourceError> {
        let next = self.0.next(worker_id).await;
        next.map_err(|error| SourceError::Unavailable(error.to_string()))
    }

    async fn update(&self, update: UpdateJobStatusRequest) -> Result<(), SourceError> {
        use tempo_backend_scheduler::UpdateError;
        let updated = self.0.update(update).await;
        updated.map_err(|error| match error {
            UpdateError::Unknown(_) | UpdateError::Ended(_) | UpdateError::Status => {
                SourceError::NotRunning(error.to_string())
            }
            UpdateError::NotInCharge(_) | UpdateError::NotKept(_) => {
                SourceError::Unavailable(error.to_string())
            }
        })
    }
}

impl tempo_backend_scheduler::Limits for Limits {
    fn compaction_disabled(&self, tenant: &str) -> bool {
        self.overrides.tenant(tenant).compaction_disabled()
    }

    fn compaction_window(&self, tenant: &str) -> Option<Duration> {
        self.overrides.tenant(tenant).compaction_window()
    }
}

impl tempo_backend_worker::Limits for Limits {
    fn retention(&self, tenant: &str) -> Option<RetentionPolicy> {
        let limits = self.overrides.tenant(tenant);
        if limits.compaction_disabled() {
            return None;
        }
        let block_retention = limits
            .block_retention()
            .unwrap_or(self.retention.block_retention);
        Some(RetentionPolicy {
            block_retention,
            ..self.retention
        })
    }

    fn max_trace_bytes(&self, tenant: &str) -> u64 {
        self.overrides
            .tenant(tenant)
            .max_bytes_per_trace()
            .unwrap_or(0)
    }
}
