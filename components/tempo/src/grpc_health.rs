//! `grpc.health.v1.Health`: readiness for those who ask over gRPC.

use std::pin::Pin;

use futures::Stream;
use tempo_runtime::health::Board;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

/// The service; it says of the whole process what `/ready` says.
pub(crate) fn service(board: Board) -> HealthServer<Readiness> {
    HealthServer::new(Readiness(board))
}

/// Answers with the state of the board.
pub(crate) struct Readiness(Board);

#[tonic::async_trait]
impl Health for Readiness {
    async fn check(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = match self.0.ready() {
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        };
        Ok(Response::new(HealthCheckResponse {
            status: status.into(),
        }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("use Check instead of Watch"))
    }
}
