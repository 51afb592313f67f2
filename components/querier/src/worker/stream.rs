//! One place for a job: a stream to a query-frontend, opened again whenever it breaks.

use std::{net::SocketAddr, sync::Arc};

use tempo_api::{job::JobError, wire};
use tempo_proto::tempostack::query::v1::{
    Alive, FromQuerier, Hello, Leaving, TenantJob, ToQuerier, from_querier::Message as From,
    queue_client::QueueClient, to_querier::Message as To,
};
use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, transport::Channel};

use super::WorkerConfig;
use crate::{Querier, live_stores::full_text};

/// Messages that wait to be sent: hello or a result, and a sign of life.
const OUTGOING_MESSAGES: usize = 4;

/// One place for a job.
pub(super) struct Place {
    pub(super) config: Arc<WorkerConfig>,
    pub(super) querier: Querier,
    pub(super) address: SocketAddr,
    pub(super) channel: Channel,
}

impl Place {
    /// Takes jobs until `leaving`, and answers the last one.
    pub(super) async fn run(self, leaving: CancellationToken) {
        let mut backoff = self.config.min_backoff;
        let mut broken = false;
        while !leaving.is_cancelled() {
            match self.pull(&leaving).await {
                // The query-frontend is leaving, or this one.
                Ok(()) => {}
                Err(status) => {
                    // Told once, not at every try.
                    if !broken {
                        tracing::warn!(
                            address = %self.address,
                            error = full_text(&status),
                            "no jobs from a query-frontend, trying again"
                        );
                    }
                    broken = true;
                }
            }
            if leaving.is_cancelled() {
                return;
            }
            tokio::select! {
                () = leaving.cancelled() => return,
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(self.config.max_backoff);
        }
    }

    /// Opens a stream and runs what comes, until either side ends it.
    async fn pull(&self, leaving: &CancellationToken) -> Result<(), Status> {
        let (outgoing, to_send) = mpsc::channel(OUTGOING_MESSAGES);
        send(
            &outgoing,
            From::Hello(Hello {
                querier_id: self.config.querier_id.clone(),
            }),
        )
        .await?;
        let mut client = QueueClient::new(self.channel.clone())
            .max_encoding_message_size(wire::MAX_RESULT_BYTES);
        let opening = client.pull(ReceiverStream::new(to_send));
        let mut incoming = tokio::select! {
            () = leaving.cancelled() => return Ok(()),
            opened = opening => opened?.into_inner(),
        };
        let mut has_said_leaving = false;
        let mut signs_of_life = tokio::time::interval(wire::ALIVE_INTERVAL);
        signs_of_life.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let message = tokio::select! {
                message = incoming.message() => message?,
                _ = signs_of_life.tick() => {
                    say_alive(&outgoing);
                    continue;
                }
                () = leaving.cancelled(), if !has_said_leaving => {
                    has_said_leaving = true;
                    send(&outgoing, From::Leaving(Leaving {})).await?;
                    continue;
                }
            };
            match message {
                None => return Ok(()),
                Some(ToQuerier {
                    message: Some(To::Job(job)),
                }) => {
                    self.work(job, &mut incoming, &outgoing, &mut signs_of_life)
                        .await?;
                }
                // Of a job that was answered in the meantime, or of a newer version.
                Some(_) => {}
            }
        }
    }

    /// Runs a job and sends its result; ends early when the stream breaks, since then another
    /// querier is given the job.
    async fn work(
        &self,
        job: TenantJob,
        incoming: &mut Streaming<ToQuerier>,
        outgoing: &mpsc::Sender<FromQuerier>,
        signs_of_life: &mut Interval,
    ) -> Result<(), Status> {
        let tenant: Arc<str> = job.tenant.into();
        let cancelled = CancellationToken::new();
        let work = async {
            let job = wire::decode_job(job.job.unwrap_or_default())?;
            self.querier.run(&tenant, job, cancelled.clone()).await
        };
        tokio::pin!(work);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                message = incoming.message() => match message? {
                    None => return Err(Status::unavailable("the query-frontend ended the stream")),
                    Some(ToQuerier { message: Some(To::Cancel(_)) }) => cancelled.cancel(),
                    Some(_) => {}
                },
                _ = signs_of_life.tick() => say_alive(outgoing),
            }
        };
        if matches!(result, Err(JobError::Failed(_))) {
            tracing::debug!(tenant = &*tenant, ?result, "job failed");
        }
        let result = wire::encode_result_within_limit(result);
        send(outgoing, From::Result(result)).await
    }
}

fn say_alive(outgoing: &mpsc::Sender<FromQuerier>) {
    // When there is no room, others wait that are signs of life, too.
    let _ = outgoing.try_send(FromQuerier {
        message: Some(From::Alive(Alive {})),
    });
}

async fn send(outgoing: &mpsc::Sender<FromQuerier>, message: From) -> Result<(), Status> {
    let message = FromQuerier {
        message: Some(message),
    };
    outgoing
        .send(message)
        .await
        .map_err(|_| Status::unavailable("the connection to the query-frontend is gone"))
}
