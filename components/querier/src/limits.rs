//! How much the process does at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::{Evaluating, Metrics};

/// The budget is counted in units of this many bytes, so that it fits a semaphore.
const BYTES_PER_PERMIT: u64 = 64 * 1024;

/// Jobs and bytes that may be in work at once.
#[derive(Clone)]
pub(crate) struct Budget {
    jobs: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    byte_permits: u32,
    metrics: Metrics,
}

/// A share of the budget; given back when dropped.
pub(crate) struct Share {
    _job: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
    _counted: Evaluating,
}

impl Budget {
    pub(crate) fn new(max_jobs: usize, max_bytes: u64, metrics: Metrics) -> Self {
        let byte_permits = u32::try_from(max_bytes.div_ceil(BYTES_PER_PERMIT))
            .unwrap_or(u32::MAX)
            .max(1);
        Self {
            jobs: Arc::new(Semaphore::new(max_jobs.max(1))),
            bytes: Arc::new(Semaphore::new(byte_permits as usize)),
            byte_permits,
            metrics,
        }
    }

    /// Waits for room for one job that reads `bytes`. One that is larger than the whole budget
    /// waits until it is alone.
    pub(crate) async fn share(&self, bytes: u64) -> Share {
        let permits = u32::try_from(bytes.div_ceil(BYTES_PER_PERMIT))
            .unwrap_or(u32::MAX)
            .min(self.byte_permits);
        Share {
            _bytes: acquire(&self.bytes, permits).await,
            _job: acquire(&self.jobs, 1).await,
            _counted: self.metrics.evaluation(),
        }
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, permits: u32) -> OwnedSemaphorePermit {
    match Arc::clone(semaphore).acquire_many_owned(permits).await {
        Ok(permit) => permit,
        // Nobody closes these semaphores.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn budget(max_jobs: usize, max_bytes: u64) -> Budget {
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        Budget::new(max_jobs, max_bytes, metrics)
    }

    #[tokio::test]
    async fn jobs_and_bytes_are_shared() {
        let budget = budget(2, 4 * BYTES_PER_PERMIT);
        let first = budget.share(3 * BYTES_PER_PERMIT).await;
        assert!(budget.share(2 * BYTES_PER_PERMIT).now_or_never().is_none());
        let second = budget.share(BYTES_PER_PERMIT).await;
        drop(second);
        let _without_bytes = budget.share(0).await;
        assert!(budget.share(0).now_or_never().is_none());
        drop(first);
        assert!(budget.share(0).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_job_larger_than_the_budget_runs_alone() {
        let budget = budget(8, 4 * BYTES_PER_PERMIT);
        let small = budget.share(1).await;
        assert!(budget.share(u64::MAX).now_or_never().is_none());
        drop(small);
        assert!(budget.share(u64::MAX).now_or_never().is_some());
    }
}
