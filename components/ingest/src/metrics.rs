//! Metrics of a producer, under Tempo's names.

use prometheus::{
    Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, exponential_buckets,
};

#[derive(Clone)]
pub(crate) struct ProducerMetrics {
    pub(crate) write_latency_seconds: Histogram,
    pub(crate) write_bytes: IntCounterVec,
    pub(crate) failures: IntCounterVec,
    pub(crate) buffered_bytes: IntGauge,
    pub(crate) records: IntCounterVec,
}

impl ProducerMetrics {
    pub(crate) fn register(registry: &Registry, limit_bytes: u64) -> prometheus::Result<Self> {
        let metrics = Self {
            write_latency_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "tempo_distributor_kafka_write_latency_seconds",
                    "Time until Kafka acknowledged the records of one push.",
                )
                .buckets(exponential_buckets(0.001, 2.0, 16)?),
            )?,
            write_bytes: IntCounterVec::new(
                Opts::new(
                    "tempo_distributor_kafka_write_bytes_total",
                    "Bytes of acknowledged records before compression.",
                ),
                &["partition"],
            )?,
            failures: IntCounterVec::new(
                Opts::new(
                    "tempo_distributor_produce_failures_total",
                    "Records that were not acknowledged.",
                ),
                &["reason"],
            )?,
            buffered_bytes: IntGauge::new(
                "tempo_distributor_buffered_produce_bytes",
                "Bytes of records that wait for their acknowledgement.",
            )?,
            records: IntCounterVec::new(
                Opts::new(
                    "tempo_distributor_produce_records_total",
                    "Records that were acknowledged.",
                ),
                &["partition"],
            )?,
        };
        let limit = IntGauge::new(
            "tempo_distributor_buffered_produce_bytes_limit",
            "Bytes of records that may wait; 0 is no limit.",
        )?;
        limit.set(i64::try_from(limit_bytes).unwrap_or(i64::MAX));
        registry.register(Box::new(limit))?;
        registry.register(Box::new(metrics.write_latency_seconds.clone()))?;
        registry.register(Box::new(metrics.write_bytes.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        registry.register(Box::new(metrics.buffered_bytes.clone()))?;
        registry.register(Box::new(metrics.records.clone()))?;
        Ok(metrics)
    }
}
