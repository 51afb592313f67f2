//! Where jobs come from.

use tempo_proto::tempopb::{
    NextJobRequest, NextJobResponse, UpdateJobStatusRequest,
    backend_scheduler_client::BackendSchedulerClient,
};
use tempo_runtime::causes::with_causes;
use tonic::{Code, Status, transport::Channel};

/// Why the scheduler did not answer as hoped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It cannot be reached, or cannot do it now: try again.
    #[error("backend-scheduler: {0}")]
    Unavailable(String),
    /// The job is not this worker's any more.
    #[error("backend-scheduler: {0}")]
    NotRunning(String),
}

/// The scheduler, as workers see it.
#[async_trait::async_trait]
pub trait JobSource: Send + Sync {
    /// The next job; `None` when there is none for a while.
    async fn next(&self, worker_id: &str) -> Result<Option<NextJobResponse>, SourceError>;
    /// Tells how a job goes.
    async fn update(&self, update: UpdateJobStatusRequest) -> Result<(), SourceError>;
}

/// A scheduler in another process.
#[derive(Debug, Clone)]
pub struct GrpcJobSource {
    client: BackendSchedulerClient<Channel>,
}

impl GrpcJobSource {
    /// The scheduler at the other end of `channel`.
    pub fn new(channel: Channel) -> Self {
        Self {
            client: BackendSchedulerClient::new(channel),
        }
    }
}

fn unavailable(status: &Status) -> SourceError {
    let message = with_causes(status.message(), status);
    SourceError::Unavailable(format!("{}: {message}", status.code()))
}

#[async_trait::async_trait]
impl JobSource for GrpcJobSource {
    async fn next(&self, worker_id: &str) -> Result<Option<NextJobResponse>, SourceError> {
        let request = NextJobRequest {
            worker_id: worker_id.to_owned(),
        };
        match self.client.clone().next(request).await {
            Ok(job) => Ok(Some(job.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(unavailable(&status)),
        }
    }

    async fn update(&self, update: UpdateJobStatusRequest) -> Result<(), SourceError> {
        match self.client.clone().update_job(update).await {
            Ok(_) => Ok(()),
            Err(status) if matches!(status.code(), Code::NotFound | Code::FailedPrecondition) => {
                Err(SourceError::NotRunning(status.message().to_owned()))
            }
            Err(status) => Err(unavailable(&status)),
        }
    }
}
