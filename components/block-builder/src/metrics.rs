//! Metrics, under Tempo's names.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) fetch_bytes: IntCounterVec,
    pub(crate) fetch_records: IntCounterVec,
    pub(crate) fetch_errors: IntCounterVec,
    pub(crate) fetch_seconds: HistogramVec,
    pub(crate) cycle_seconds: Histogram,
    pub(crate) section_seconds: HistogramVec,
    pub(crate) failed_sections: IntCounterVec,
    pub(crate) owned_partitions: IntGaugeVec,
    pub(crate) deduped_spans: IntCounterVec,
    pub(crate) flushed_blocks: IntCounterVec,
    pub(crate) flush_bytes: Histogram,
    pub(crate) dropped_records: IntCounterVec,
    pub(crate) discarded_spans: IntCounterVec,
    pub(crate) warnings: IntCounterVec,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let seconds = |name: &str, help: &str| {
            prometheus::Result::Ok(
                HistogramOpts::new(name, help).buckets(exponential_buckets(0.01, 2.0, 18)?),
            )
        };
        let metrics = Self {
            fetch_bytes: counter(
                "tempo_block_builder_fetch_bytes_total",
                "Bytes of records read.",
                &["partition"],
            )?,
            fetch_records: counter(
                "tempo_block_builder_fetch_records_total",
                "Records read.",
                &["partition"],
            )?,
            fetch_errors: counter(
                "tempo_block_builder_fetch_errors_total",
                "Failed attempts to read.",
                &["partition"],
            )?,
            fetch_seconds: HistogramVec::new(
                seconds(
                    "tempo_block_builder_fetch_duration_seconds",
                    "Time until the records of a section were read.",
                )?,
                &["partition"],
            )?,
            cycle_seconds: Histogram::with_opts(seconds(
                "tempo_block_builder_consume_cycle_duration_seconds",
                "Time of a round over all partitions.",
            )?)?,
            section_seconds: HistogramVec::new(
                seconds(
                    "tempo_block_builder_process_partition_section_duration_seconds",
                    "Time from the first record of a section until its offset was committed.",
                )?,
                &["partition"],
            )?,
            failed_sections: counter(
                "tempo_block_builder_section_failures_total",
                "Attempts at a section that failed; it is tried again.",
                &["partition"],
            )?,
            owned_partitions: IntGaugeVec::new(
                Opts::new(
                    "tempo_block_builder_owned_partitions",
                    "1 for each partition that this process builds.",
                ),
                &["partition", "state"],
            )?,
            deduped_spans: counter(
                "tempo_block_builder_spans_deduped_total",
                "Spans left out because the same was there already.",
                &["tenant"],
            )?,
            flushed_blocks: counter(
                "tempo_block_builder_flushed_blocks",
                "Blocks published.",
                &["tenant"],
            )?,
            flush_bytes: Histogram::with_opts(
                HistogramOpts::new(
                    "tempo_block_builder_flush_size_bytes",
                    "Size of a published block's columns.",
                )
                .buckets(exponential_buckets(1024.0 * 1024.0, 2.0, 12)?),
            )?,
            dropped_records: counter(
                "tempo_block_builder_records_dropped_total",
                "Records that cannot be read, and never will be.",
                &["tenant", "reason"],
            )?,
            discarded_spans: counter(
                "tempo_discarded_spans_total",
                "Spans that were left out.",
                &["reason", "tenant"],
            )?,
            warnings: counter(
                "tempo_warnings_total",
                "Things that look wrong, by tenant.",
                &["tenant", "reason"],
            )?,
        };
        for collector in [&metrics.fetch_seconds, &metrics.section_seconds] {
            registry.register(Box::new(collector.clone()))?;
        }
        for collector in [&metrics.cycle_seconds, &metrics.flush_bytes] {
            registry.register(Box::new(collector.clone()))?;
        }
        registry.register(Box::new(metrics.owned_partitions.clone()))?;
        Ok(metrics)
    }
}
