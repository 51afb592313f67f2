//! Metrics of the worker, under Tempo's names.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};
use tempo_block::merge::MergeCounts;
use tempo_runtime::metrics::register;

/// Metrics of the worker.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) jobs: IntCounter,
    pub(crate) bad_jobs: IntCounterVec,
    pub(crate) call_retries: IntCounter,
    pub(crate) block_missing: IntCounterVec,
    blocks: IntCounterVec,
    objects_written: IntCounterVec,
    bytes_written: IntCounterVec,
    objects_combined: IntCounterVec,
    pub(crate) errors: IntCounter,
    spans_deduped: IntCounterVec,
    output_size: Histogram,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            register(registry, IntCounter::with_opts(Opts::new(name, help)))
        };
        let counters = |name: &str, help: &str, label: &str| {
            register(
                registry,
                IntCounterVec::new(Opts::new(name, help), &[label]),
            )
        };
        Ok(Self {
            jobs: counter("tempo_backend_worker_jobs_total", "Jobs begun.")?,
            bad_jobs: counters(
                "tempo_backend_worker_bad_jobs_received_total",
                "Jobs that could not be understood.",
                "status",
            )?,
            call_retries: counter(
                "tempo_backend_worker_call_retries_total",
                "Calls of the scheduler that were tried again.",
            )?,
            block_missing: counters(
                "tempo_backend_worker_redaction_block_missing_total",
                "Redactions of blocks that were gone.",
                "tenant",
            )?,
            blocks: counters("tempodb_compaction_blocks_total", "Blocks merged.", "level")?,
            objects_written: counters(
                "tempodb_compaction_objects_written_total",
                "Traces written by merging.",
                "level",
            )?,
            bytes_written: counters(
                "tempodb_compaction_bytes_written_total",
                "Bytes written by merging.",
                "level",
            )?,
            objects_combined: counters(
                "tempodb_compaction_objects_combined_total",
                "Traces of which several blocks had a part.",
                "level",
            )?,
            errors: counter("tempodb_compaction_errors_total", "Merges that failed.")?,
            spans_deduped: counters(
                "tempodb_compaction_spans_deduped_total",
                "Spans left out because another block had them.",
                "replication_factor",
            )?,
            output_size: register(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "tempodb_compaction_output_block_size_bytes",
                        "Size of blocks made by merging.",
                    )
                    .buckets(
                        (0..12)
                            .map(|step| f64::from(1 << 20) * 4_f64.powi(step))
                            .collect(),
                    ),
                ),
            )?,
        })
    }

    /// A merge of `blocks` blocks, the highest of `level`, into one of `bytes`.
    pub(crate) fn merged(
        &self,
        level: u32,
        replication_factor: u32,
        blocks: usize,
        bytes: u64,
        counts: &MergeCounts,
    ) {
        let level = level.to_string();
        let labels = [level.as_str()];
        self.blocks.with_label_values(&labels).inc_by(blocks as u64);
        self.objects_written
            .with_label_values(&labels)
            .inc_by(counts.traces);
        self.bytes_written.with_label_values(&labels).inc_by(bytes);
        self.objects_combined
            .with_label_values(&labels)
            .inc_by(counts.traces_united);
        self.spans_deduped
            .with_label_values(&[&replication_factor.to_string()])
            .inc_by(counts.spans_deduplicated);
        self.output_size.observe(bytes as f64);
    }
}
