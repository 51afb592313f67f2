//! Queriers of other processes: each stream is a place for one job at a time.
//!
//! A querier whose stream breaks, or that has a job and gives no sign of life, is lost; its job
//! then has no answer, and is given to another by whoever waits for it.

use tempo_api::wire;
use tempo_proto::tempostack::query::v1::{
    Cancel, FromQuerier, Hello, TenantJob, ToQuerier,
    from_querier::Message as From,
    queue_server::{Queue, QueueServer},
    to_querier::Message as To,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    QueueHandle,
    queue::{ConnectedQuerier, QueuedJob},
};

/// Messages that wait to be sent: a job and its cancellation.
const OUTGOING_MESSAGES: usize = 2;

/// `tempostack.query.v1.Queue`.
pub struct PullService {
    queue: QueueHandle,
    max_series_bytes: usize,
}

pub(crate) fn service(queue: QueueHandle, max_series_bytes: usize) -> QueueServer<PullService> {
    QueueServer::new(PullService {
        queue,
        max_series_bytes,
    })
    .max_decoding_message_size(wire::MAX_RESULT_BYTES)
}

#[tonic::async_trait]
impl Queue for PullService {
    type PullStream = ReceiverStream<Result<ToQuerier, Status>>;

    async fn pull(
        &self,
        request: Request<Streaming<FromQuerier>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let (outgoing, to_send) = mpsc::channel(OUTGOING_MESSAGES);
        let mut place = Place {
            incoming: request.into_inner(),
            outgoing,
            max_series_bytes: self.max_series_bytes,
            is_leaving: false,
        };
        let queue = self.queue.clone();
        // Answered before the first message has come: the querier waits for it.
        tokio::spawn(async move {
            if let Err(status) = place.serve(&queue).await {
                let error = status.message();
                tracing::debug!(error, "a querier's stream ended");
                let _ = place.outgoing.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(to_send)))
    }
}

/// A place for one job at a querier.
struct Place {
    incoming: Streaming<FromQuerier>,
    outgoing: mpsc::Sender<Result<ToQuerier, Status>>,
    max_series_bytes: usize,
    /// The querier wants no further job.
    is_leaving: bool,
}

impl Place {
    /// Hands out jobs until the querier leaves, or the queue is closed and empty.
    async fn serve(&mut self, queue: &QueueHandle) -> Result<(), Status> {
        let Some(FromQuerier {
            message: Some(From::Hello(Hello { querier_id })),
        }) = timeout(wire::SILENCE_TIMEOUT, self.incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the querier did not say hello"))??
        else {
            return Err(Status::invalid_argument("the first message must be hello"));
        };
        tracing::debug!(querier_id, "a querier takes jobs");
        let querier = queue.connect();
        while !self.is_leaving {
            let Some(job) = self.next_job(&querier).await? else {
                break;
            };
            self.hand_out(job).await?;
        }
        Ok(())
    }

    /// Waits for a job; `None` when there is none any more or none is wanted.
    async fn next_job(&mut self, querier: &ConnectedQuerier) -> Result<Option<QueuedJob>, Status> {
        loop {
            tokio::select! {
                // First of all whether it is still there.
                biased;
                message = self.incoming.message() => match message? {
                    None | Some(FromQuerier { message: Some(From::Leaving(_)) }) => {
                        self.is_leaving = true;
                        return Ok(None);
                    }
                    // Of a job that was given up.
                    Some(_) => {}
                },
                job = querier.next() => return Ok(job),
            }
        }
    }

    /// Sends a job and waits for its answer.
    async fn hand_out(&mut self, queued: QueuedJob) -> Result<(), Status> {
        let (tenant, job, cancelled, responder) = queued.into_parts();
        self.send(To::Job(TenantJob {
            tenant: tenant.to_string(),
            job: Some(wire::encode_job(&job)),
        }))
        .await?;
        drop(job);
        let mut is_cancelled = false;
        loop {
            let message = tokio::select! {
                message = timeout(wire::SILENCE_TIMEOUT, self.incoming.message()) => message,
                () = cancelled.cancelled(), if !is_cancelled => {
                    is_cancelled = true;
                    self.send(To::Cancel(Cancel {})).await?;
                    continue;
                }
            };
            let message = message
                .map_err(|_| Status::deadline_exceeded("the querier gave no sign of life"))??;
            match message.and_then(|message| message.message) {
                None => return Err(Status::unavailable("the querier left with a job")),
                Some(From::Result(result)) => {
                    responder.respond(wire::decode_result(result, self.max_series_bytes));
                    return Ok(());
                }
                Some(From::Leaving(_)) => self.is_leaving = true,
                Some(From::Working(_) | From::Hello(_)) => {}
            }
        }
    }

    async fn send(&self, message: To) -> Result<(), Status> {
        let message = ToQuerier {
            message: Some(message),
        };
        self.outgoing
            .send(Ok(message))
            .await
            .map_err(|_| Status::unavailable("the querier is gone"))
    }
}
