//! Jobs that wait for a querier.
//!
//! One bounded queue per tenant; queriers take from the tenants in turn, so that a tenant with many
//! jobs does not hold up one with few. A job that weighs more than one takes as many turns. A job
//! whose asker is gone is never handed out.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;
use tempo_api::job::{Job, JobError, JobResult};
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::metrics::QueueMetrics;

/// The queue. Clones share it.
#[derive(Clone)]
pub struct QueueHandle {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Woken once per job, and for good when the queue closes.
    arrived: Notify,
    /// How many queries run.
    queries: watch::Sender<usize>,
    max_outstanding_per_tenant: usize,
    metrics: QueueMetrics,
}

#[derive(Default)]
struct State {
    waiting: HashMap<Arc<str>, TenantQueue>,
    /// The same tenants, the next to be served first.
    turns: VecDeque<Arc<str>>,
    queriers: usize,
    closed: bool,
}

/// The jobs of one tenant.
#[derive(Default)]
struct TenantQueue {
    jobs: VecDeque<Waiting>,
    /// Turns that were saved for a job which takes more than one.
    saved_turns: u32,
}

struct Waiting {
    job: Job,
    /// How many turns it takes; none and one are the same.
    weight: u32,
    cancelled: CancellationToken,
    answer: oneshot::Sender<JobResult>,
    since: Instant,
}

impl TenantQueue {
    /// Uses a turn: for the next job, or towards it if it takes more.
    fn take(&mut self) -> Option<Waiting> {
        while self.jobs.front().is_some_and(|next| !next.is_wanted()) {
            self.jobs.pop_front();
        }
        let turns = self.saved_turns.saturating_add(1);
        if self.jobs.front()?.weight > turns {
            self.saved_turns = turns;
            return None;
        }
        self.saved_turns = 0;
        self.jobs.pop_front()
    }
}

impl Waiting {
    /// Whether its asker still waits: one that is gone has dropped its receiver or cancelled.
    fn is_wanted(&self) -> bool {
        !self.cancelled.is_cancelled() && !self.answer.is_closed()
    }
}

/// A job that a querier has taken.
pub struct QueuedJob {
    /// Whose data to look into.
    pub tenant: Arc<str>,
    /// What to do.
    pub job: Job,
    /// Cancelled when nobody waits for the answer any more.
    pub cancelled: CancellationToken,
    answer: oneshot::Sender<JobResult>,
}

impl QueuedJob {
    /// Takes the job apart, for whoever runs it, and the way to answer it. A job that is dropped
    /// without an answer may be handed out again.
    pub fn into_parts(self) -> (Arc<str>, Job, CancellationToken, Responder) {
        let responder = Responder {
            answer: self.answer,
        };
        (self.tenant, self.job, self.cancelled, responder)
    }
}

/// The way back from a querier.
pub struct Responder {
    answer: oneshot::Sender<JobResult>,
}

impl Responder {
    /// Answers the job. That nobody waits any more is no error.
    pub fn respond(self, result: JobResult) {
        let _ = self.answer.send(result);
    }
}

impl QueueHandle {
    pub(crate) fn new(max_outstanding_per_tenant: usize, metrics: QueueMetrics) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State::default()),
                arrived: Notify::new(),
                queries: watch::Sender::new(0),
                max_outstanding_per_tenant,
                metrics,
            }),
        }
    }

    /// Puts a job at the end of its tenant's queue. The answer ends without a value when the
    /// querier that took the job is gone.
    pub(crate) fn push(
        &self,
        tenant: &Arc<str>,
        job: Job,
        weight: u32,
        cancelled: CancellationToken,
    ) -> Result<oneshot::Receiver<JobResult>, JobError> {
        let shared = &self.shared;
        let (answer, receiver) = oneshot::channel();
        let mut state = shared.state.lock();
        if state.closed {
            return Err(JobError::Unavailable(
                "the query-frontend is shutting down".to_owned(),
            ));
        }
        let State { waiting, turns, .. } = &mut *state;
        let queue = waiting.entry(Arc::clone(tenant)).or_insert_with(|| {
            turns.push_back(Arc::clone(tenant));
            TenantQueue::default()
        });
        let queue = &mut queue.jobs;
        if queue.len() >= shared.max_outstanding_per_tenant {
            queue.retain(Waiting::is_wanted);
        }
        if queue.len() >= shared.max_outstanding_per_tenant {
            shared.metrics.discarded(tenant);
            return Err(JobError::Busy("job queue full".to_owned()));
        }
        queue.push_back(Waiting {
            job,
            weight,
            cancelled,
            answer,
            since: Instant::now(),
        });
        shared.metrics.length(tenant, queue.len());
        drop(state);
        shared.arrived.notify_one();
        Ok(receiver)
    }

    /// Waits for the next job; `None` when the queue is closed and no more will come. Losing the
    /// returned future loses no job.
    pub async fn next(&self) -> Option<QueuedJob> {
        loop {
            let arrived = self.shared.arrived.notified();
            tokio::pin!(arrived);
            // Registered before looking, so that a job that comes in between is not missed.
            arrived.as_mut().enable();
            {
                let mut state = self.shared.state.lock();
                if let Some(job) = self.take(&mut state) {
                    return Some(job);
                }
                if state.closed {
                    return None;
                }
            }
            arrived.await;
        }
    }

    fn take(&self, state: &mut State) -> Option<QueuedJob> {
        while let Some(tenant) = state.turns.pop_front() {
            let Some(queue) = state.waiting.get_mut(&tenant) else {
                continue;
            };
            let taken = queue.take();
            self.shared.metrics.length(&tenant, queue.jobs.len());
            if queue.jobs.is_empty() {
                state.waiting.remove(&tenant);
            } else {
                state.turns.push_back(Arc::clone(&tenant));
            }
            if let Some(waiting) = taken {
                self.shared.metrics.waited(waiting.since.elapsed());
                return Some(QueuedJob {
                    tenant,
                    job: waiting.job,
                    cancelled: waiting.cancelled,
                    answer: waiting.answer,
                });
            }
        }
        None
    }

    /// Counts a querier that takes jobs from here, until the returned value is dropped.
    pub fn connect(&self) -> ConnectedQuerier {
        self.count_queriers(|queriers| queriers + 1);
        ConnectedQuerier {
            queue: self.clone(),
        }
    }

    /// How many queriers take jobs from here. Without any, no query is ever answered.
    pub fn connected_queriers(&self) -> usize {
        self.shared.state.lock().queriers
    }

    fn count_queriers(&self, change: impl FnOnce(usize) -> usize) {
        let mut state = self.shared.state.lock();
        state.queriers = change(state.queriers);
        self.shared.metrics.connected_queriers(state.queriers);
    }

    /// Counts a query that may still have jobs, until the returned value is dropped.
    pub(crate) fn query(&self) -> RunningQuery {
        self.shared.queries.send_modify(|queries| *queries += 1);
        RunningQuery {
            queue: self.clone(),
        }
    }

    /// Waits until no query runs.
    pub(crate) async fn idle(&self) {
        let mut queries = self.shared.queries.subscribe();
        // The sender lives as long as `self`.
        let _ = queries.wait_for(|&queries| queries == 0).await;
    }

    /// Takes no more jobs; those that wait are still handed out.
    pub(crate) fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.arrived.notify_waiters();
    }
}

/// A query that may still have jobs.
pub(crate) struct RunningQuery {
    queue: QueueHandle,
}

impl Drop for RunningQuery {
    fn drop(&mut self) {
        let queries = &self.queue.shared.queries;
        queries.send_modify(|queries| *queries = queries.saturating_sub(1));
    }
}

/// A querier that takes jobs from a queue.
pub struct ConnectedQuerier {
    queue: QueueHandle,
}

impl ConnectedQuerier {
    /// Waits for the next job, as [`QueueHandle::next`].
    pub async fn next(&self) -> Option<QueuedJob> {
        self.queue.next().await
    }
}

impl Drop for ConnectedQuerier {
    fn drop(&mut self) {
        self.queue
            .count_queriers(|queriers| queriers.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use tempo_api::job::{JobOutput, TraceParts, TracePlace};
    use tempo_model::TraceId;

    use super::*;

    fn queue(max_outstanding: usize) -> QueueHandle {
        let metrics = QueueMetrics::register(&prometheus::Registry::new()).unwrap();
        QueueHandle::new(max_outstanding, metrics)
    }

    fn job(id: u8) -> Job {
        Job::FindTrace {
            trace_id: TraceId::from_padded(&[id]),
            max_bytes: 0,
            place: TracePlace::Recent,
        }
    }

    fn id(job: &Job) -> u8 {
        match job {
            Job::FindTrace { trace_id, .. } => trace_id.as_bytes()[15],
            _ => panic!("unexpected job"),
        }
    }

    #[tokio::test]
    async fn tenants_are_served_in_turn() {
        let queue = queue(10);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut answers = Vec::new();
        for (tenant, number) in [(&a, 1), (&a, 2), (&a, 3), (&b, 4), (&b, 5)] {
            let token = CancellationToken::new();
            answers.push(queue.push(tenant, job(number), 1, token).unwrap());
        }
        let mut order = Vec::new();
        for _ in 0..5 {
            order.push(id(&queue.next().await.unwrap().job));
        }
        assert_eq!(order, [1, 4, 2, 5, 3]);
    }

    #[tokio::test]
    async fn heavy_jobs_take_more_turns() {
        let queue = queue(10);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut answers = Vec::new();
        for (tenant, number, weight) in [
            (&a, 1, 3),
            (&a, 2, 3),
            (&b, 3, 1),
            (&b, 4, 1),
            (&b, 5, 1),
            (&b, 6, 1),
        ] {
            let token = CancellationToken::new();
            let job = job(number);
            answers.push(queue.push(tenant, job, weight, token).unwrap());
        }
        let mut order = Vec::new();
        for _ in 0..6 {
            order.push(id(&queue.next().await.unwrap().job));
        }
        assert_eq!(order, [3, 4, 1, 5, 6, 2]);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_jobs_without_asker_are_skipped() {
        let queue = queue(2);
        let tenant: Arc<str> = "a".into();
        let cancelled = CancellationToken::new();
        let first = queue
            .push(&tenant, job(1), 1, CancellationToken::new())
            .unwrap();
        let _second = queue.push(&tenant, job(2), 1, cancelled.clone()).unwrap();
        assert_eq!(
            queue
                .push(&tenant, job(3), 1, CancellationToken::new())
                .unwrap_err(),
            JobError::Busy("job queue full".to_owned())
        );
        drop(first);
        let _third = queue
            .push(&tenant, job(3), 1, CancellationToken::new())
            .unwrap();
        cancelled.cancel();
        assert_eq!(id(&queue.next().await.unwrap().job), 3);
    }

    #[tokio::test]
    async fn answers_find_their_way_back() {
        let queue = queue(2);
        let tenant: Arc<str> = "a".into();
        let answered = queue
            .push(&tenant, job(1), 1, CancellationToken::new())
            .unwrap();
        let dropped = queue
            .push(&tenant, job(2), 1, CancellationToken::new())
            .unwrap();
        let (_, _, _, responder) = queue.next().await.unwrap().into_parts();
        responder.respond(Ok(JobOutput::Trace(TraceParts::default())));
        assert!(matches!(answered.await, Ok(Ok(JobOutput::Trace(_)))));
        drop(queue.next().await);
        assert!(dropped.await.is_err());
    }

    #[tokio::test]
    async fn a_closed_queue_hands_out_the_rest_and_ends() {
        let queue = queue(2);
        let querier = queue.connect();
        assert_eq!(queue.connected_queriers(), 1);
        let tenant: Arc<str> = "a".into();
        let _answer = queue
            .push(&tenant, job(1), 1, CancellationToken::new())
            .unwrap();
        let waiting = tokio::spawn(async move {
            let mut count = 0;
            while querier.next().await.is_some() {
                count += 1;
            }
            count
        });
        tokio::task::yield_now().await;
        queue.close();
        assert_eq!(waiting.await.unwrap(), 1);
        assert_eq!(queue.connected_queriers(), 0);
        assert!(
            queue
                .push(&tenant, job(1), 1, CancellationToken::new())
                .is_err()
        );
    }
}
