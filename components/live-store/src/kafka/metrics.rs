//! What a reader of Kafka counts besides what every live-store does.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use tempo_ingest::lag::LagMetrics;

use super::KafkaFeed;

#[derive(Clone)]
pub(crate) struct KafkaMetrics {
    pub(crate) records_processed: IntCounterVec,
    pub(crate) records_dropped: IntCounterVec,
    pub(crate) lagged_requests: IntCounterVec,
    pub(crate) discarded_spans: IntCounterVec,
    pub(crate) lag: LagMetrics,
    partition_owned: IntGaugeVec,
}

impl KafkaMetrics {
    pub(crate) fn new(feed: &KafkaFeed, registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let partition_owned = IntGaugeVec::new(
            Opts::new(
                "tempo_live_store_partition_owned",
                "Indicates partition ownership by this instance (1 = owned).",
            ),
            &["partition", "zone"],
        )?;
        registry.register(Box::new(partition_owned.clone()))?;
        Ok(Self {
            records_processed: counters(
                "tempo_live_store_records_processed_total",
                "Records that were taken.",
                &["tenant"],
            )?,
            records_dropped: counters(
                "tempo_live_store_records_dropped_total",
                "Records that were not taken.",
                &["tenant", "reason"],
            )?,
            lagged_requests: counters(
                "tempo_live_store_lagged_requests_total",
                "Queries that asked for what was not read yet.",
                &["route"],
            )?,
            discarded_spans: counters(
                "tempo_discarded_spans_total",
                "The total number of spans that were discarded.",
                &["reason", "tenant"],
            )?,
            lag: LagMetrics::register(&feed.group, registry)?,
            partition_owned,
        })
    }

    pub(crate) fn owns(&self, feed: &KafkaFeed, owns: bool) {
        self.partition_owned
            .with_label_values(&[&feed.partition.to_string(), &feed.group])
            .set(i64::from(owns));
    }

    pub(crate) fn dropped(&self, tenant: &str, reason: &str) {
        self.records_dropped
            .with_label_values(&[tenant, reason])
            .inc();
    }

    pub(crate) fn discarded(&self, tenant: &str, reason: &str, spans: u64) {
        if spans > 0 {
            self.discarded_spans
                .with_label_values(&[reason, tenant])
                .inc_by(spans);
        }
    }
}
