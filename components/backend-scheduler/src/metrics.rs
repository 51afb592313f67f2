//! Metrics of the scheduler, under Tempo's names.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use tempo_proto::tempopb::RedactionBatch;
use tempo_runtime::metrics::register;

use crate::{Job, JobKind};

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("tempo_backend_scheduler_{name}"), help)
}

const BY_TENANT_AND_TYPE: [&str; 2] = ["tenant", "job_type"];

/// Metrics of the scheduler.
#[derive(Clone)]
pub(crate) struct Metrics {
    created: IntCounterVec,
    completed: IntCounterVec,
    failed: IntCounterVec,
    dropped: IntCounterVec,
    active: IntGaugeVec,
    pending: IntGaugeVec,
    retry: IntCounterVec,
    pub(crate) not_found: IntCounterVec,
    duration: HistogramVec,
    pub(crate) flushes: IntCounter,
    pub(crate) flushes_failed: IntCounter,
    pub(crate) traces_found: IntCounterVec,
    failed_redactions: IntGaugeVec,
    pub(crate) compaction_jobs_created: IntCounterVec,
    pub(crate) outstanding_blocks: IntGaugeVec,
    pub(crate) empty_cycles: IntCounter,
    pub(crate) rival: IntGauge,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(opts(name, help), labels))
        };
        let by = &BY_TENANT_AND_TYPE;
        let gauge =
            |name: &str, help: &str| register(registry, IntGaugeVec::new(opts(name, help), by));
        Ok(Self {
            created: counter("jobs_created_total", "Jobs handed out.", by)?,
            completed: counter("jobs_completed_total", "Jobs done.", by)?,
            failed: counter("jobs_failed_total", "Jobs given up.", by)?,
            dropped: counter("jobs_dropped_total", "Jobs that lost their purpose.", by)?,
            active: gauge("jobs_active", "Jobs that workers have.")?,
            pending: gauge("jobs_pending", "Jobs that wait for a worker.")?,
            retry: counter(
                "jobs_retry_total",
                "Jobs given again to the worker that has them.",
                &["tenant", "job_type", "worker_id"],
            )?,
            not_found: counter(
                "jobs_not_found_total",
                "Requests of workers for which there was no job.",
                &["worker_id"],
            )?,
            duration: register(
                registry,
                HistogramVec::new(
                    HistogramOpts::from(opts("job_duration_seconds", "Time to do a job."))
                        .buckets(vec![1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0]),
                    &["job_type"],
                ),
            )?,
            flushes: register(
                registry,
                IntCounter::with_opts(opts(
                    "work_flushes_total",
                    "Writes of the jobs to the bucket.",
                )),
            )?,
            flushes_failed: register(
                registry,
                IntCounter::with_opts(opts(
                    "work_flushes_failed_total",
                    "Writes of the jobs to the bucket that failed.",
                )),
            )?,
            traces_found: counter(
                "redaction_traces_found_total",
                "Traces that redactions found.",
                &["tenant", "mode"],
            )?,
            failed_redactions: register(
                registry,
                IntGaugeVec::new(
                    opts(
                        "redactions_failed",
                        "Redactions that left blocks as they were, and were not submitted again.",
                    ),
                    &["tenant"],
                ),
            )?,
            compaction_jobs_created: counter(
                "compaction_jobs_created_total",
                "Compactions handed out.",
                &["tenant"],
            )?,
            outstanding_blocks: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "tempodb_compaction_outstanding_blocks",
                        "Blocks that wait to be merged.",
                    ),
                    &["tenant"],
                ),
            )?,
            empty_cycles: register(
                registry,
                IntCounter::with_opts(opts(
                    "compaction_empty_tenant_cycle_total",
                    "Rounds over all tenants that found nothing to merge.",
                )),
            )?,
            rival: register(
                registry,
                IntGauge::with_opts(opts(
                    "rival_present",
                    "1 while another scheduler works on this bucket and this one stands back.",
                )),
            )?,
        })
    }

    pub(crate) fn handed_out(&self, job: &Job) {
        let labels = [job.tenant(), job.kind.label()];
        self.created.with_label_values(&labels).inc();
        self.active.with_label_values(&labels).inc();
        if job.kind == JobKind::Compaction {
            self.compaction_jobs_created
                .with_label_values(&[job.tenant()])
                .inc();
        }
    }

    pub(crate) fn handed_out_again(&self, job: &Job) {
        self.retry
            .with_label_values(&[job.tenant(), job.kind.label(), &job.worker_id])
            .inc();
    }

    pub(crate) fn ended(&self, job: &Job, failed: bool) {
        let labels = [job.tenant(), job.kind.label()];
        self.active.with_label_values(&labels).dec();
        let counter = if failed {
            &self.failed
        } else {
            &self.completed
        };
        counter.with_label_values(&labels).inc();
        self.duration
            .with_label_values(&[job.kind.label()])
            .observe(job.end_time.saturating_since(job.start_time).as_secs_f64());
    }

    pub(crate) fn dropped(&self, job: &Job) {
        self.dropped
            .with_label_values(&[job.tenant(), job.kind.label()])
            .inc();
    }

    /// What gauges tell after a restart, and once in a while.
    pub(crate) fn report(&self, jobs: &[(&str, JobKind, bool)]) {
        self.active.reset();
        self.pending.reset();
        for &(tenant, kind, running) in jobs {
            let gauge = if running { &self.active } else { &self.pending };
            gauge.with_label_values(&[tenant, kind.label()]).inc();
        }
    }

    pub(crate) fn report_failed<'b>(&self, batches: impl Iterator<Item = &'b RedactionBatch>) {
        self.failed_redactions.reset();
        for batch in batches {
            let tenant = [batch.tenant_id.as_str()];
            self.failed_redactions.with_label_values(&tenant).inc();
        }
    }
}
