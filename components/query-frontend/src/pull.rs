//! Queriers of other processes: each stream is a place for one job at a time.
//!
//! A querier whose stream breaks, or that gives no sign of life, is lost; its job then has no answer,
//! and is given to another by whoever waits for it. One that has been silent for a while is given
//! none: of a querier that hangs all places hang, and they would have the same job one by one.

use tempo_api::wire;
use tempo_proto::tempostack::query::v1::{
    Cancel, FromQuerier, Hello, TenantJob, ToQuerier,
    from_querier::Message as From,
    queue_server::{Queue, QueueServer},
    to_querier::Message as To,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};
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
            last_heard: Instant::now(),
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
    last_heard: Instant,
}

impl Place {
    /// Hands out jobs until the querier leaves, or the queue is closed and empty.
    async fn serve(&mut self, queue: &QueueHandle) -> Result<(), Status> {
        let Some(FromQuerier {
            message: Some(From::Hello(Hello { querier_id })),
        }) = self.hear().await?
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
            let doubtful_at = self.last_heard + wire::DOUBT_TIMEOUT;
            let is_doubtful = Instant::now() >= doubtful_at;
            tokio::select! {
                // First of all whether it is still there.
                biased;
                message = self.hear() => match message? {
                    None | Some(FromQuerier { message: Some(From::Leaving(_)) }) => {
                        self.is_leaving = true;
                        return Ok(None);
                    }
                    // A sign of life.
                    Some(_) => {}
                },
                job = querier.next(), if !is_doubtful => return Ok(job),
                () = sleep_until(doubtful_at), if !is_doubtful => {}
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
                message = self.hear() => message?,
                () = cancelled.cancelled(), if !is_cancelled => {
                    is_cancelled = true;
                    self.send(To::Cancel(Cancel {})).await?;
                    continue;
                }
            };
            match message.and_then(|message| message.message) {
                None => return Err(Status::unavailable("the querier left with a job")),
                Some(From::Result(result)) => {
                    responder.respond(wire::decode_result(result, self.max_series_bytes));
                    return Ok(());
                }
                Some(From::Leaving(_)) => self.is_leaving = true,
                Some(From::Alive(_) | From::Hello(_)) => {}
            }
        }
    }

    /// Waits for the next message, but not for ever.
    async fn hear(&mut self) -> Result<Option<FromQuerier>, Status> {
        let lost_at = self.last_heard + wire::SILENCE_TIMEOUT;
        let message = timeout_at(lost_at, self.incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the querier gave no sign of life"))??;
        self.last_heard = Instant::now();
        Ok(message)
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
