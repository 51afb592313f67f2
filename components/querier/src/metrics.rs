//! The querier's metrics.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntGauge, Opts, Registry};

use crate::RecentOperation;

/// What kind of job, as a label. The names are those of Tempo's operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    FindTrace,
    Search,
    TagNames,
    TagValues,
    QueryRange,
}

impl Operation {
    fn label(self) -> &'static str {
        match self {
            Self::FindTrace => "traces",
            Self::Search => "search",
            Self::TagNames => "search-tags",
            Self::TagValues => "search-tag-values",
            Self::QueryRange => "metrics",
        }
    }
}

impl Operation {
    /// What recent data is wanted for; a trace is looked up without a view.
    pub(crate) fn on_recent(self) -> RecentOperation {
        match self {
            Self::FindTrace | Self::Search => RecentOperation::Search,
            Self::TagNames => RecentOperation::TagNames,
            Self::TagValues => RecentOperation::TagValues,
            Self::QueryRange => RecentOperation::QueryRange,
        }
    }
}

#[derive(Clone)]
pub(crate) struct Metrics {
    block_seconds: HistogramVec,
    jobs: IntCounter,
    evaluating: IntGauge,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let block_seconds = HistogramVec::new(
            HistogramOpts::new(
                "tempo_querier_backend_processing_duration_seconds",
                "How long jobs on blocks take.",
            )
            .buckets(prometheus::exponential_buckets(0.005, 4.0, 6)?),
            &["operation", "tenant"],
        )?;
        let jobs = IntCounter::with_opts(Opts::new(
            "tempo_querier_worker_request_executed_total",
            "Jobs that were run.",
        ))?;
        let evaluating = IntGauge::with_opts(Opts::new(
            "tempo_querier_evaluations_running",
            "Threads that work on jobs; those whose asker is gone count until they have stopped.",
        ))?;
        registry.register(Box::new(block_seconds.clone()))?;
        registry.register(Box::new(jobs.clone()))?;
        registry.register(Box::new(evaluating.clone()))?;
        Ok(Self {
            block_seconds,
            jobs,
            evaluating,
        })
    }

    /// Counts a thread that works, until the answer is dropped.
    pub(crate) fn evaluation(&self) -> Evaluating {
        self.evaluating.inc();
        Evaluating(self.evaluating.clone())
    }

    pub(crate) fn job(&self) {
        self.jobs.inc();
    }

    pub(crate) fn block_job(&self, operation: Operation, tenant: &str, took: Duration) {
        self.block_seconds
            .with_label_values(&[operation.label(), tenant])
            .observe(took.as_secs_f64());
    }
}

/// A thread that works on a job.
pub(crate) struct Evaluating(IntGauge);

impl Drop for Evaluating {
    fn drop(&mut self) {
        self.0.dec();
    }
}
