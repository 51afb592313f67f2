//! The frontend's metrics, under Tempo's names.

use std::time::Duration;

use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts,
    Registry,
};
use tempo_runtime::metrics::register;

use crate::config::Slo;

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("tempo_query_frontend_{name}"), help)
}

fn histogram_opts(name: &str, help: &str, buckets: Vec<f64>) -> HistogramOpts {
    HistogramOpts::from(opts(name, help)).buckets(buckets)
}

/// What kind of query, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Traces,
    Search,
    Metadata,
    Metrics,
}

impl Op {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Search => "search",
            Self::Metadata => "metadata",
            Self::Metrics => "metrics",
        }
    }
}

/// Metrics of queries.
#[derive(Clone)]
pub(crate) struct QueryMetrics {
    queries: IntCounterVec,
    queries_within_slo: IntCounterVec,
    bytes_inspected: CounterVec,
    bytes_per_second: CounterVec,
    jobs_per_query: HistogramVec,
    retries: Histogram,
    mcp_calls: IntCounterVec,
}

impl QueryMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let by_result = ["tenant", "op", "result"];
        let by_op = ["tenant", "op"];
        Ok(Self {
            queries: register(
                registry,
                IntCounterVec::new(
                    opts("queries_total", "Queries received, by tenant."),
                    &by_result,
                ),
            )?,
            queries_within_slo: register(
                registry,
                IntCounterVec::new(
                    opts(
                        "queries_within_slo_total",
                        "Queries that were fast enough, by tenant.",
                    ),
                    &by_result,
                ),
            )?,
            bytes_inspected: register(
                registry,
                CounterVec::new(
                    opts(
                        "bytes_inspected_total",
                        "Bytes that queries read from storage, by tenant.",
                    ),
                    &by_op,
                ),
            )?,
            bytes_per_second: register(
                registry,
                CounterVec::new(
                    opts(
                        "bytes_processed_per_second",
                        "Sum over queries of bytes read per second, by tenant.",
                    ),
                    &by_op,
                ),
            )?,
            jobs_per_query: register(
                registry,
                HistogramVec::new(
                    histogram_opts(
                        "jobs_per_query",
                        "Jobs that a query was cut into.",
                        prometheus::exponential_buckets(1.0, 10.0, 7)?,
                    ),
                    &["op"],
                ),
            )?,
            retries: register(
                registry,
                Histogram::with_opts(histogram_opts(
                    "retries",
                    "How often a job was tried again.",
                    vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
                )),
            )?,
            mcp_calls: register(
                registry,
                IntCounterVec::new(
                    opts("mcp_calls_total", "Calls of language models, by tool."),
                    &["tool"],
                ),
            )?,
        })
    }

    pub(crate) fn jobs(&self, op: Op, jobs: usize) {
        self.jobs_per_query
            .with_label_values(&[op.label()])
            .observe(jobs as f64);
    }

    pub(crate) fn retries(&self, retries: u32) {
        self.retries.observe(f64::from(retries));
    }

    pub(crate) fn mcp_call(&self, tool: &str) {
        self.mcp_calls.with_label_values(&[tool]).inc();
    }

    /// A query that was given up by its client.
    pub(crate) fn cancelled(&self, tenant: &str, op: Op) {
        let labels = [tenant, op.label(), "canceled"];
        self.queries.with_label_values(&labels).inc();
        self.queries_within_slo.with_label_values(&labels).inc();
    }

    /// A query that was answered, or refused for a reason that lies with the client.
    pub(crate) fn completed(
        &self,
        tenant: &str,
        op: Op,
        slo: Slo,
        took: Duration,
        inspected_bytes: u64,
    ) {
        let labels = [tenant, op.label(), "completed"];
        self.queries.with_label_values(&labels).inc();
        let by_op = [tenant, op.label()];
        self.bytes_inspected
            .with_label_values(&by_op)
            .inc_by(inspected_bytes as f64);
        let throughput = if took.is_zero() {
            0.0
        } else {
            inspected_bytes as f64 / took.as_secs_f64()
        };
        if slo.throughput_bytes_per_second.is_some() {
            self.bytes_per_second
                .with_label_values(&by_op)
                .inc_by(throughput);
        }
        if is_within(slo, took, throughput) {
            self.queries_within_slo.with_label_values(&labels).inc();
        }
    }

    /// A query that failed for a reason that does not lie with the client.
    pub(crate) fn failed(&self, tenant: &str, op: Op) {
        self.queries
            .with_label_values(&[tenant, op.label(), "completed"])
            .inc();
    }
}

/// Any bound that is kept suffices; without bounds every query is fast enough.
fn is_within(slo: Slo, took: Duration, throughput: f64) -> bool {
    let duration_kept = slo.duration.map(|bound| took < bound);
    let throughput_kept = slo
        .throughput_bytes_per_second
        .map(|bound| throughput >= bound);
    match (duration_kept, throughput_kept) {
        (None, None) => true,
        (duration, throughput) => duration == Some(true) || throughput == Some(true),
    }
}

/// Metrics of the queue.
#[derive(Clone)]
pub(crate) struct QueueMetrics {
    length: GaugeVec,
    discarded: IntCounterVec,
    duration: Histogram,
    connected: Gauge,
}

impl QueueMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            length: register(
                registry,
                GaugeVec::new(
                    opts("queue_length", "Jobs that wait, by tenant."),
                    &["user"],
                ),
            )?,
            discarded: register(
                registry,
                IntCounterVec::new(
                    opts(
                        "discarded_requests_total",
                        "Jobs refused because the tenant's queue was full.",
                    ),
                    &["user"],
                ),
            )?,
            duration: register(
                registry,
                Histogram::with_opts(histogram_opts(
                    "queue_duration_seconds",
                    "How long jobs wait for a querier.",
                    prometheus::DEFAULT_BUCKETS.to_vec(),
                )),
            )?,
            connected: register(
                registry,
                Gauge::with_opts(opts("connected_clients", "Queriers that take jobs.")),
            )?,
        })
    }

    pub(crate) fn length(&self, tenant: &str, length: usize) {
        if length == 0 {
            // Tenants come and go; only those with jobs are shown.
            let _ = self.length.remove_label_values(&[tenant]);
        } else {
            self.length.with_label_values(&[tenant]).set(length as f64);
        }
    }

    pub(crate) fn discarded(&self, tenant: &str) {
        self.discarded.with_label_values(&[tenant]).inc();
    }

    pub(crate) fn waited(&self, time: Duration) {
        self.duration.observe(time.as_secs_f64());
    }

    pub(crate) fn connected_queriers(&self, queriers: usize) {
        self.connected.set(queriers as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bound_that_is_kept_suffices() {
        let second = Duration::from_secs(1);
        let slo = |duration: Option<u64>, throughput| Slo {
            duration: duration.map(Duration::from_secs),
            throughput_bytes_per_second: throughput,
        };
        assert!(is_within(slo(None, None), second, 0.0));
        assert!(is_within(slo(Some(2), None), second, 0.0));
        assert!(!is_within(slo(Some(1), None), second, 0.0));
        assert!(is_within(slo(Some(1), Some(5.0)), second, 5.0));
        assert!(!is_within(slo(None, Some(5.0)), second, 4.0));
    }
}
