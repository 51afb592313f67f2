//! The gRPC service by which a live-store answers jobs on its recent data.

use std::{sync::Arc, time::Duration};

use tempo_api::{
    job::{Job, JobError},
    wire,
};
use tempo_proto::tempostack::query::v1::{
    Job as WireJob, JobResult, RunRequest,
    jobs_server::{Jobs, JobsServer},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::Querier;

/// Largest job that is taken: its query and the columns of a block, with much to spare.
const MAX_JOB_BYTES: usize = 4 * 1024 * 1024;

/// Answers jobs on recent data.
pub struct JobsService {
    querier: Querier,
}

/// The service to mount on the gRPC port of a live-store; `querier` has its data as
/// [`Recent::Here`](crate::Recent::Here).
pub fn jobs_service(querier: Querier) -> JobsServer<JobsService> {
    JobsServer::new(JobsService { querier })
        .max_decoding_message_size(MAX_JOB_BYTES)
        .max_encoding_message_size(wire::MAX_RESULT_BYTES)
}

#[tonic::async_trait]
impl Jobs for JobsService {
    /// Ends when the caller is gone, since then the future is dropped.
    async fn run(&self, request: Request<RunRequest>) -> Result<Response<JobResult>, Status> {
        let request = request.into_inner();
        let result = match recent_job(request.job) {
            Ok(job) => {
                let tenant: Arc<str> = request.tenant.into();
                let running = self.querier.run(&tenant, job, CancellationToken::new());
                match request.timeout_ms {
                    0 => running.await,
                    timeout => tokio::time::timeout(Duration::from_millis(timeout), running)
                        .await
                        .unwrap_or(Err(JobError::TimedOut)),
                }
            }
            Err(error) => Err(error),
        };
        Ok(Response::new(wire::encode_result_within_limit(result)))
    }
}

fn recent_job(job: Option<WireJob>) -> Result<Job, JobError> {
    let job = wire::decode_job(job.unwrap_or_default())?;
    if !job.is_recent() {
        return Err(JobError::Failed(
            "a job on blocks was sent to a live-store, which answers for recent data only"
                .to_owned(),
        ));
    }
    Ok(job)
}
