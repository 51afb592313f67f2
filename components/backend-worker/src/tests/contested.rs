//! Workers that are cut off from their scheduler, or whose blocks another one got.

use std::sync::atomic::{AtomicUsize, Ordering};

use tempo_backend::testing::{Effect, Gate, Operation};
use tokio::sync::Semaphore;

use super::*;
use crate::JobError;

/// A scheduler that can be reached after so many attempts, and has given the job to another by
/// then, or not.
struct CutOff {
    attempts_left: AtomicUsize,
    is_faithful: bool,
}

#[async_trait::async_trait]
impl JobSource for CutOff {
    async fn next(&self, _: &str) -> Result<Option<NextJobResponse>, SourceError> {
        Ok(None)
    }

    async fn update(&self, _: UpdateJobStatusRequest) -> Result<(), SourceError> {
        let one_less = |left: usize| left.checked_sub(1);
        let order = Ordering::Relaxed;
        if self
            .attempts_left
            .fetch_update(order, order, one_less)
            .is_ok()
        {
            return Err(SourceError::Unavailable("no route".into()));
        }
        match self.is_faithful {
            true => Ok(()),
            false => Err(SourceError::NotRunning("gone".into())),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_published_before_the_scheduler_has_confirmed_the_job() {
    let parts = spread(1, 2, 4);
    for (attempts, is_faithful) in [(0, false), (3, false), (3, true)] {
        let (store, inputs) = filled(&parts).await;
        let jobs = CutOff {
            attempts_left: AtomicUsize::new(attempts),
            is_faithful,
        };
        let merged = merge(Arc::new(jobs), &store, &Blocklist::new(), &inputs).await;
        if is_faithful {
            assert_eq!(merged.unwrap().len(), 1);
            assert_eq!(live(&store).await.len(), 1);
        } else {
            assert!(matches!(merged, Err(JobError::Abandoned)));
            assert_eq!(live(&store).await.len(), 2);
        }
    }
}

/// A scheduler that forgot that another worker merges one of the blocks, which ends just now.
struct Forgetful {
    backend: Backend,
    merged: Uuid,
}

#[async_trait::async_trait]
impl JobSource for Forgetful {
    async fn next(&self, _: &str) -> Result<Option<NextJobResponse>, SourceError> {
        Ok(None)
    }

    async fn update(&self, _: UpdateJobStatusRequest) -> Result<(), SourceError> {
        self.backend.mark_compacted("t", self.merged).await.unwrap();
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_another_merged_meanwhile_are_not_published_again() {
    let (store, inputs) = filled(&spread(1, 2, 4)).await;
    let jobs = Forgetful {
        backend: store.clone(),
        merged: inputs[0].block_id,
    };
    let merged = merge(Arc::new(jobs), &store, &Blocklist::new(), &inputs).await;
    assert!(matches!(merged, Err(JobError::Abandoned)));
    let left: Vec<Uuid> = live(&store)
        .await
        .iter()
        .map(|meta| meta.block_id)
        .collect();
    assert_eq!(left, [inputs[1].block_id]);
}

/// A scheduler that has one job, never answers to signs of life, and hears everything else.
struct Deaf {
    job: NextJobResponse,
    signs_of_life: Semaphore,
    done: CancellationToken,
}

#[async_trait::async_trait]
impl JobSource for Deaf {
    async fn next(&self, _: &str) -> Result<Option<NextJobResponse>, SourceError> {
        match self.done.is_cancelled() {
            true => Ok(None),
            false => Ok(Some(self.job.clone())),
        }
    }

    async fn update(&self, update: UpdateJobStatusRequest) -> Result<(), SourceError> {
        match update.status() {
            JobStatus::Running if update.compaction.is_none() => {
                self.signs_of_life.add_permits(1);
                std::future::pending().await
            }
            JobStatus::Running => Ok(()),
            status => {
                assert_eq!(status, JobStatus::Succeeded);
                self.done.cancel();
                Ok(())
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_of_life_without_an_answer_does_not_stop_the_merge() {
    let (store, inputs) = filled(&spread(1, 2, 4)).await;
    let (backend, faults) = faulty(&store);
    let gate = Gate::new();
    faults.inject(Fault {
        operation: Some(Operation::Write),
        key_contains: "data.parquet".into(),
        times: None,
        effect: Effect::Wait(gate.clone()),
    });
    let jobs = Arc::new(Deaf {
        job: merge_job(&inputs),
        signs_of_life: Semaphore::new(0),
        done: CancellationToken::new(),
    });
    let mut config = Config::new("worker".into());
    config.heartbeat_interval = Duration::from_millis(1);
    let limits = Arc::new(Unlimited);
    let (_, service) = worker_of(config, jobs.clone(), &backend, &Blocklist::new(), limits);
    let shutdown = CancellationToken::new();
    let working = tokio::spawn(service.run(shutdown.clone()));
    gate.arrived().await;
    jobs.signs_of_life.acquire().await.unwrap().forget();
    gate.open();
    let patience = Duration::from_secs(120);
    let done = tokio::time::timeout(patience, jobs.done.cancelled()).await;
    done.expect("the merge stopped");
    assert_eq!(live(&store).await.len(), 1);
    shutdown.cancel();
    working.await.unwrap();
}

/// A scheduler whose first answers never come.
struct Slow(Semaphore);

#[async_trait::async_trait]
impl JobSource for Slow {
    async fn next(&self, _: &str) -> Result<Option<NextJobResponse>, SourceError> {
        Ok(None)
    }

    async fn update(&self, _: UpdateJobStatusRequest) -> Result<(), SourceError> {
        match self.0.try_acquire() {
            Ok(hanging) => {
                hanging.forget();
                std::future::pending().await
            }
            Err(_) => Ok(()),
        }
    }
}

/// The clock goes on by itself when there is nothing to do but to wait.
#[tokio::test(start_paused = true)]
async fn an_update_without_an_answer_is_sent_again() {
    let jobs = Arc::new(Slow(Semaphore::new(2)));
    let limits = Arc::new(Unlimited);
    let (worker, _) = worker(jobs, &memory(), &Blocklist::new(), limits);
    let shutdown = CancellationToken::new();
    let running = Running::new(&worker, "job", Abandon::default(), &shutdown);
    let confirmed = running.confirm(&[], Uuid::nil());
    let hour = Duration::from_secs(3600);
    let confirmed = tokio::time::timeout(hour, confirmed).await;
    confirmed.expect("it waited for ever").unwrap();
}
