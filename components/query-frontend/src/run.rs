//! Running the jobs of one query.

use std::{sync::Arc, vec};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tempo_api::job::{Job, JobError, JobOutput, JobResult};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    config::WeightsConfig,
    metrics::QueryMetrics,
    queue::QueueHandle,
    results::{self, Results},
    weight::{Weighed, weight},
};

/// One job of a query.
#[derive(Debug, Clone)]
pub(crate) struct PlannedJob {
    /// Whose data, as an index into the query's tenants.
    pub(crate) tenant: usize,
    /// The shard of that tenant's plan.
    pub(crate) shard: usize,
    /// What to do.
    pub(crate) job: Job,
}

/// Where an output comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) tenant: usize,
    pub(crate) shard: usize,
}

/// How often a job is given to another querier because the one that had it is gone. Not an attempt
/// that failed, but not for ever either: it may be the job that kills them.
const MAX_LOST_QUERIERS_PER_JOB: u32 = 3;

/// How jobs are run.
#[derive(Clone)]
pub(crate) struct Runner {
    pub(crate) queue: QueueHandle,
    pub(crate) metrics: QueryMetrics,
    pub(crate) max_attempts: u32,
    pub(crate) weights: WeightsConfig,
    pub(crate) results: Option<Results>,
}

impl Runner {
    /// Runs jobs in order, up to `concurrent` at a time, as long as their outputs are taken.
    pub(crate) fn start(
        &self,
        tenants: &[Arc<str>],
        jobs: Vec<PlannedJob>,
        weighed: Weighed<'_>,
        concurrent: usize,
    ) -> RunningJobs {
        let cancelled = CancellationToken::new();
        let mut running = RunningJobs {
            runner: self.clone(),
            weight: weight(weighed, &self.weights),
            tenants: tenants.into(),
            waiting: jobs.into_iter(),
            running: FuturesUnordered::new(),
            _cancel_on_drop: cancelled.clone().drop_guard(),
            cancelled,
        };
        for _ in 0..concurrent.max(1) {
            running.start_next();
        }
        running
    }

    /// The answer of a job, from an earlier one if there was an equal job.
    async fn answer(
        self,
        tenant: Arc<str>,
        job: Job,
        weight: u32,
        cancelled: CancellationToken,
    ) -> JobResult {
        let kept = self.results.clone();
        let kept = kept.and_then(|results| Some((results::key(&tenant, &job)?, results)));
        let Some((key, results)) = kept else {
            return self.attempt(tenant, job, weight, cancelled).await;
        };
        if let Some(output) = results.get(&key).await {
            return Ok(output);
        }
        let output = self.attempt(tenant, job, weight, cancelled).await?;
        results.put(&key, &output);
        Ok(output)
    }

    /// Runs a job until it succeeds, fails for good, or was tried often enough.
    async fn attempt(
        self,
        tenant: Arc<str>,
        job: Job,
        mut weight: u32,
        cancelled: CancellationToken,
    ) -> JobResult {
        let mut attempts = 0;
        let mut lost = 0;
        loop {
            let answer = self
                .queue
                .push(&tenant, job.clone(), weight, cancelled.clone())?;
            let Ok(result) = answer.await else {
                lost += 1;
                if lost > MAX_LOST_QUERIERS_PER_JOB {
                    self.metrics.retries(attempts + lost - 1);
                    return Err(JobError::Unavailable(format!(
                        "{lost} queriers, one after the other, were lost while they ran the job"
                    )));
                }
                tracing::warn!(tenant = &*tenant, "the querier that had a job is gone");
                continue;
            };
            attempts += 1;
            match result {
                Err(error) if error.is_retryable() && attempts < self.max_attempts => {
                    tracing::debug!(%error, attempts, tenant = &*tenant, "job failed, trying again");
                    weight += u32::from(self.weights.retry_with_weights);
                }
                result => {
                    self.metrics.retries(attempts + lost - 1);
                    return result;
                }
            }
        }
    }
}

/// The jobs of one query. Dropped, it cancels those that wait or run.
pub(crate) struct RunningJobs {
    runner: Runner,
    /// Of each job.
    weight: u32,
    tenants: Arc<[Arc<str>]>,
    waiting: vec::IntoIter<PlannedJob>,
    running: FuturesUnordered<BoxFuture<'static, (Origin, JobResult)>>,
    cancelled: CancellationToken,
    _cancel_on_drop: DropGuard,
}

impl RunningJobs {
    /// Waits for the next output, in no order; `None` when all jobs are done. A job that failed
    /// for good is an error, after which the query should be dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<(JobOutput, Origin)>, JobError> {
        match self.running.next().await {
            Some((origin, result)) => {
                let output = result?;
                self.start_next();
                Ok(Some((output, origin)))
            }
            None => Ok(None),
        }
    }

    fn start_next(&mut self) {
        let Some(planned) = self.waiting.next() else {
            return;
        };
        let Some(tenant) = self.tenants.get(planned.tenant).cloned() else {
            return;
        };
        let origin = Origin {
            tenant: planned.tenant,
            shard: planned.shard,
        };
        let attempt =
            self.runner
                .clone()
                .answer(tenant, planned.job, self.weight, self.cancelled.clone());
        self.running
            .push(Box::pin(async move { (origin, attempt.await) }));
    }
}

/// What merges the outputs of a query's jobs.
pub(crate) trait Combine {
    /// Adds the output of one job.
    fn add(&mut self, output: JobOutput, origin: Origin) -> Result<(), JobError>;

    /// Whether further outputs cannot change the answer.
    fn is_complete(&self) -> bool;
}

/// A query that runs: its jobs, and what they have found so far.
pub(crate) struct Query<C> {
    pub(crate) combiner: C,
    pub(crate) jobs: RunningJobs,
}

impl<C: Combine> Query<C> {
    /// Waits for one more output and adds it; false when the answer is complete.
    pub(crate) async fn step(&mut self) -> Result<bool, JobError> {
        if self.combiner.is_complete() {
            return Ok(false);
        }
        match self.jobs.next().await? {
            Some((output, origin)) => {
                self.combiner.add(output, origin)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Runs to the end.
    pub(crate) async fn finish(mut self) -> Result<C, JobError> {
        while self.step().await? {}
        Ok(self.combiner)
    }
}

/// The error for an output that does not belong to the job.
pub(crate) fn unexpected_output() -> JobError {
    JobError::Failed("a querier answered a job with the output of another kind".to_owned())
}

#[cfg(test)]
mod tests {
    use tempo_api::job::{TraceParts, TracePlace};
    use tempo_model::TraceId;

    use super::*;
    use crate::metrics::QueueMetrics;

    fn runner(max_attempts: u32, max_outstanding: usize) -> Runner {
        let registry = prometheus::Registry::new();
        Runner {
            queue: QueueHandle::new(max_outstanding, QueueMetrics::register(&registry).unwrap()),
            metrics: QueryMetrics::register(&registry).unwrap(),
            max_attempts,
            results: None,
            weights: WeightsConfig::default(),
        }
    }

    fn jobs(count: u8) -> Vec<PlannedJob> {
        (0..count)
            .map(|id| PlannedJob {
                tenant: 0,
                shard: usize::from(id),
                job: Job::FindTrace {
                    trace_id: TraceId::from_padded(&[id]),
                    max_bytes: 0,
                    place: TracePlace::Recent,
                },
            })
            .collect()
    }

    fn found() -> JobResult {
        Ok(JobOutput::Trace(TraceParts::default()))
    }

    /// Answers each job with what `answer` makes of its number, counted over all attempts.
    fn querier(queue: &QueueHandle, answer: impl Fn(usize) -> JobResult + Send + 'static) {
        let queue = queue.clone();
        tokio::spawn(async move {
            let mut number = 0;
            while let Some(queued) = queue.next().await {
                let (_, _, _, responder) = queued.into_parts();
                responder.respond(answer(number));
                number += 1;
            }
        });
    }

    /// Counts outputs, up to a number that is enough.
    struct Count {
        outputs: usize,
        enough: usize,
    }

    impl Combine for Count {
        fn add(&mut self, _: JobOutput, _: Origin) -> Result<(), JobError> {
            self.outputs += 1;
            Ok(())
        }

        fn is_complete(&self) -> bool {
            self.outputs >= self.enough
        }
    }

    async fn run(runner: &Runner, count: u8, enough: usize) -> Result<usize, JobError> {
        let query = Query {
            combiner: Count { outputs: 0, enough },
            jobs: runner.start(&["t".into()], jobs(count), Weighed::Tags, 3),
        };
        query.finish().await.map(|count| count.outputs)
    }

    #[tokio::test]
    async fn all_jobs_run_unless_the_answer_is_complete_before() {
        let runner = runner(1, 100);
        querier(&runner.queue, |_| found());
        assert_eq!(run(&runner, 10, usize::MAX).await, Ok(10));
        assert_eq!(run(&runner, 10, 4).await, Ok(4));
        assert_eq!(run(&runner, 0, 4).await, Ok(0));
    }

    #[tokio::test]
    async fn what_may_succeed_is_tried_again_up_to_the_limit() {
        let unavailable = || Err(JobError::Unavailable("no".to_owned()));
        let often = runner(5, 100);
        let (attempts, mut counted) = tokio::sync::mpsc::unbounded_channel();
        querier(&often.queue, move |number| {
            attempts.send(number).unwrap();
            unavailable()
        });
        assert_eq!(
            run(&often, 1, usize::MAX).await,
            Err(JobError::Unavailable("no".to_owned()))
        );
        let mut last = None;
        while let Ok(number) = counted.try_recv() {
            last = Some(number);
        }
        assert_eq!(last, Some(4));

        let twice = runner(2, 100);
        querier(&twice.queue, move |number| {
            if number == 0 { unavailable() } else { found() }
        });
        assert_eq!(run(&twice, 1, usize::MAX).await, Ok(1));

        let never = runner(5, 100);
        querier(&never.queue, |number| {
            if number == 0 {
                Err(JobError::Failed("broken".to_owned()))
            } else {
                found()
            }
        });
        assert_eq!(
            run(&never, 1, usize::MAX).await,
            Err(JobError::Failed("broken".to_owned()))
        );
    }

    #[tokio::test]
    async fn a_querier_that_is_lost_is_replaced_but_not_for_ever() {
        for (lost, want_found) in [(1, true), (3, true), (4, false)] {
            // A job that may not fail even once.
            let runner = runner(1, 100);
            let queue = runner.queue.clone();
            tokio::spawn(async move {
                for _ in 0..lost {
                    drop(queue.next().await);
                }
                querier(&queue, |_| found());
            });
            let result = run(&runner, 1, usize::MAX).await;
            assert_eq!(result.is_ok(), want_found, "{lost}: {result:?}");
        }
    }

    #[tokio::test]
    async fn more_jobs_than_fit_the_queue_fail_the_query() {
        let runner = runner(1, 2);
        assert_eq!(
            run(&runner, 3, usize::MAX).await,
            Err(JobError::Busy("job queue full".to_owned()))
        );
    }

    #[tokio::test]
    async fn dropping_the_query_cancels_its_jobs() {
        let runner = runner(1, 100);
        let queue = runner.queue.clone();
        let query = tokio::spawn(async move { run(&runner, 2, usize::MAX).await });
        let (_, _, cancelled, _responder) = queue.next().await.unwrap().into_parts();
        assert!(!cancelled.is_cancelled());
        query.abort();
        cancelled.cancelled().await;
    }
}
