//! A job that is being done, and whether it is still this worker's.

use std::convert::Infallible;

use tempo_proto::tempopb::{CompactionDetail, JobStatus, UpdateJobStatusRequest};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{JobError, SourceError, control::Abandon, worker::Worker};

/// A job that is being done.
pub(crate) struct Running {
    worker: Worker,
    id: String,
    pub(crate) abandon: Abandon,
    shutdown: CancellationToken,
}

impl Running {
    pub(crate) fn new(
        worker: &Worker,
        id: &str,
        abandon: Abandon,
        shutdown: &CancellationToken,
    ) -> Self {
        Self {
            worker: worker.clone(),
            id: id.to_owned(),
            abandon,
            shutdown: shutdown.clone(),
        }
    }

    fn sign_of_life(&self) -> UpdateJobStatusRequest {
        UpdateJobStatusRequest {
            job_id: self.id.clone(),
            status: JobStatus::Running.into(),
            ..Default::default()
        }
    }

    /// Tells the scheduler once in a while that the job is worked at, and abandons it when the
    /// scheduler does not count on this worker any more. As long as it cannot be reached the work
    /// goes on: whether it was for nothing turns out before anything is done for good.
    pub(crate) async fn give_signs_of_life(&self) -> Infallible {
        let interval = self.worker.config().heartbeat_interval;
        loop {
            tokio::time::sleep(interval).await;
            match self.worker.update(self.sign_of_life()).await {
                Ok(()) | Err(SourceError::Unavailable(_)) => {}
                Err(SourceError::NotRunning(_)) => {
                    tracing::warn!(job_id = self.id, "job is not this worker's any more");
                    self.abandon.set();
                }
            }
        }
    }

    /// Waits until the scheduler says that the job is still this worker's; asked before something
    /// is done for good. A scheduler that cannot be reached from here may have given the blocks to
    /// another. It hears which block is about to become public, so that it knows where to look if
    /// it hears nothing more.
    ///
    /// # Errors
    /// [`JobError::Abandoned`] when it is not, or the process is to end before there is an answer.
    pub(crate) async fn confirm(&self, inputs: &[Uuid], output: Uuid) -> Result<(), JobError> {
        let update = UpdateJobStatusRequest {
            compaction: Some(CompactionDetail {
                input: inputs.iter().map(Uuid::to_string).collect(),
                output: vec![output.to_string()],
            }),
            ..self.sign_of_life()
        };
        let mut pause = self.worker.config().backoff.min;
        while !self.abandon.is_set() {
            match self.worker.update(update.clone()).await {
                Ok(()) => return Ok(()),
                Err(SourceError::NotRunning(_)) => break,
                Err(error @ SourceError::Unavailable(_)) => {
                    tracing::warn!(job_id = self.id, %error, "job not confirmed yet, its result waits");
                }
            }
            self.worker.metrics().call_retries.inc();
            if !self.worker.pause(&mut pause, &self.shutdown).await {
                break;
            }
        }
        Err(JobError::Abandoned)
    }
}
