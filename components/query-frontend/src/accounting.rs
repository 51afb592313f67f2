//! What is told about each query when it ends, in metrics and in the log.

use std::time::Instant;

use crate::{
    config::Slo,
    error::QueryError,
    metrics::{Op, QueryMetrics},
    queue::RunningQuery,
};

/// A query that is being counted. Dropped before it ends, it counts as given up by its client.
pub(crate) struct Accounting {
    metrics: QueryMetrics,
    tenant: String,
    op: Op,
    slo: Slo,
    started: Instant,
    ended: bool,
    /// Queriers are kept until all queries have ended.
    _running: RunningQuery,
}

impl Accounting {
    pub(crate) fn start(
        metrics: QueryMetrics,
        running: RunningQuery,
        tenant: String,
        op: Op,
        slo: Slo,
    ) -> Self {
        Self {
            metrics,
            tenant,
            op,
            slo,
            started: Instant::now(),
            ended: false,
            _running: running,
        }
    }

    /// The query has ended; `result` holds the bytes that it read.
    pub(crate) fn end(mut self, result: Result<u64, &QueryError>) {
        self.ended = true;
        let took = self.started.elapsed();
        let tenant = self.tenant.as_str();
        let op = self.op.label();
        let duration_seconds = took.as_secs_f64();
        match result {
            Ok(inspected_bytes) => {
                self.metrics
                    .completed(tenant, self.op, self.slo, took, inspected_bytes);
                tracing::info!(tenant, op, duration_seconds, inspected_bytes, "query stats");
            }
            Err(error) => {
                let status = error.status().as_u16();
                match status {
                    499 => self.metrics.cancelled(tenant, self.op),
                    400..=498 => {
                        self.metrics
                            .completed(tenant, self.op, Slo::default(), took, 0);
                    }
                    _ => self.metrics.failed(tenant, self.op),
                }
                tracing::info!(tenant, op, duration_seconds, status, %error, "query stats");
            }
        }
    }
}

impl Drop for Accounting {
    fn drop(&mut self) {
        if !self.ended {
            self.metrics.cancelled(&self.tenant, self.op);
            tracing::info!(
                tenant = self.tenant.as_str(),
                op = self.op.label(),
                duration_seconds = self.started.elapsed().as_secs_f64(),
                status = 499,
                "query stats"
            );
        }
    }
}
