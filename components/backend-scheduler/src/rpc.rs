//! The scheduler as workers and operators reach it: `tempopb.BackendScheduler`.

use tempo_proto::tempopb::{
    NextJobRequest, NextJobResponse, SubmitRedactionRequest, SubmitRedactionResponse,
    UpdateJobStatusRequest, UpdateJobStatusResponse, backend_scheduler_server::BackendScheduler,
};
use tonic::{Request, Response, Status};

use crate::{
    Scheduler, SubmitError,
    scheduler::{NextError, UpdateError},
};

const TENANT: &str = "x-scope-orgid";
const SINGLE_TENANT: &str = "single-tenant";

/// The service.
#[derive(Clone)]
pub struct Rpc(pub(crate) Scheduler);

#[async_trait::async_trait]
impl BackendScheduler for Rpc {
    async fn next(
        &self,
        request: Request<NextJobRequest>,
    ) -> Result<Response<NextJobResponse>, Status> {
        match self.0.next(&request.into_inner().worker_id).await {
            Ok(Some(job)) => Ok(Response::new(job)),
            Ok(None) => Err(Status::not_found("no jobs found")),
            Err(error @ NextError::NoWorkerId) => Err(Status::invalid_argument(error.to_string())),
            Err(error @ NextError::NotInCharge(_)) => Err(Status::unavailable(error.to_string())),
            Err(error @ NextError::NotKept(_)) => Err(Status::internal(error.to_string())),
        }
    }

    async fn update_job(
        &self,
        request: Request<UpdateJobStatusRequest>,
    ) -> Result<Response<UpdateJobStatusResponse>, Status> {
        match self.0.update(request.into_inner()).await {
            Ok(()) => Ok(Response::new(UpdateJobStatusResponse { success: true })),
            Err(error @ UpdateError::Unknown(_)) => Err(Status::not_found(error.to_string())),
            Err(error @ UpdateError::Status) => Err(Status::invalid_argument(error.to_string())),
            Err(error @ UpdateError::Ended(_)) => {
                Err(Status::failed_precondition(error.to_string()))
            }
            Err(error @ UpdateError::NotInCharge(_)) => Err(Status::unavailable(error.to_string())),
            Err(error @ UpdateError::NotKept(_)) => Err(Status::internal(error.to_string())),
        }
    }

    async fn submit_redaction(
        &self,
        request: Request<SubmitRedactionRequest>,
    ) -> Result<Response<SubmitRedactionResponse>, Status> {
        let tenant = if self.0.multitenancy() {
            let named = request
                .metadata()
                .get(TENANT)
                .and_then(|value| value.to_str().ok());
            match named {
                Some(tenant) if !tenant.is_empty() => tenant.to_owned(),
                _ => return Err(Status::unauthenticated("no org id")),
            }
        } else {
            SINGLE_TENANT.to_owned()
        };
        match self.0.submit_redaction(&tenant, request.into_inner()).await {
            Ok(answer) => Ok(Response::new(answer)),
            Err(error) => {
                let text = error.to_string();
                Err(match error {
                    SubmitError::Invalid(_) => Status::invalid_argument(text),
                    SubmitError::CompactionDisabled(_) | SubmitError::AllBusy(_) => {
                        Status::failed_precondition(text)
                    }
                    SubmitError::InProgress { .. } => Status::already_exists(text),
                    SubmitError::NoBlocks(_) => Status::not_found(text),
                    SubmitError::NotKept(_) => Status::internal(text),
                    SubmitError::NotInCharge(_) => Status::unavailable(text),
                })
            }
        }
    }
}
