//! What connects the distributor and the block-builder with the Kafka log.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use prometheus::{Histogram, HistogramOpts, Registry, exponential_buckets};
use tempo_block_builder::ConsumableState;
use tempo_distributor::{PartialSuccess, SinkError, TraceSink};
use tempo_ingest::{ProduceError, Producer, record};
use tempo_membership::{Membership, PartitionState};
use tempo_model::{TraceBatch, hash::trace_token};
use tempo_overrides::Overrides;

/// Partitions that one push is written to at once.
const MAX_CONCURRENT_PARTITIONS: usize = 64;

/// The distributor's spans go to Kafka, each trace to the partition that its id leads to.
pub(crate) struct KafkaSink {
    producer: Producer,
    membership: Membership,
    overrides: Overrides,
    records_per_request: Histogram,
}

/// Values of Kafka records.
type Records = Vec<Vec<u8>>;

impl KafkaSink {
    pub(crate) fn new(
        producer: Producer,
        membership: Membership,
        overrides: Overrides,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let records_per_request = Histogram::with_opts(
            HistogramOpts::new(
                "tempo_distributor_kafka_records_per_request",
                "Records that one push became.",
            )
            .buckets(exponential_buckets(1.0, 2.0, 10)?),
        )?;
        registry.register(Box::new(records_per_request.clone()))?;
        Ok(Self {
            producer,
            membership,
            overrides,
            records_per_request,
        })
    }

    /// The records of a push, by partition.
    fn encode(&self, tenant: &str, batch: &TraceBatch) -> Result<Vec<(i32, Records)>, SinkError> {
        let shard_size = self
            .overrides
            .tenant(tenant)
            .ingestion_tenant_shard_size()
            .unwrap_or(0);
        let ring = self
            .membership
            .partitions()
            .shuffle_shard(tenant, usize::try_from(shard_size).unwrap_or(usize::MAX));
        let mut by_partition: HashMap<i32, Vec<usize>> = HashMap::new();
        for (at, chunk) in batch.traces.iter().enumerate() {
            let partition = ring
                .partition_for(trace_token(tenant, &chunk.id))
                .ok_or_else(|| SinkError::Unavailable {
                    message: "no partition of the log is active: no live-store has been up for \
                              live_store.partition_ring.min_partition_owners_duration yet"
                        .to_owned(),
                })?;
            by_partition.entry(partition).or_default().push(at);
        }
        by_partition
            .into_iter()
            .map(|(partition, traces)| {
                let traces = traces.iter().filter_map(|&at| {
                    let chunk = batch.traces.get(at)?;
                    Some((chunk.id, &*chunk.trace))
                });
                record::encode(
                    traces,
                    batch.skip_metrics_generation,
                    self.producer.config().max_record_bytes,
                )
                .map(|records| (partition, records))
                .map_err(|error| SinkError::InvalidArgument {
                    message: error.to_string(),
                })
            })
            .collect()
    }
}

#[async_trait]
impl TraceSink for KafkaSink {
    async fn push(&self, tenant: &str, batch: TraceBatch) -> Result<PartialSuccess, SinkError> {
        let records = self.encode(tenant, &batch)?;
        drop(batch);
        self.records_per_request.observe(
            records
                .iter()
                .map(|(_, values)| values.len())
                .sum::<usize>() as f64,
        );
        let producer = &self.producer;
        stream::iter(records)
            .map(|(partition, values)| {
                async move { producer.send(partition, tenant, &values).await }.boxed()
            })
            .buffer_unordered(MAX_CONCURRENT_PARTITIONS)
            .try_collect::<Vec<()>>()
            .await
            .map_err(|error| {
                let message = format!("failed to write spans to Kafka: {error}");
                match error {
                    ProduceError::RecordTooLarge { .. } => SinkError::InvalidArgument { message },
                    _ => SinkError::Unavailable { message },
                }
            })?;
        Ok(PartialSuccess::default())
    }
}

/// The partitions of the cluster, as the block-builder wants to know them.
pub(crate) struct RingPartitions(pub(crate) Membership);

impl tempo_block_builder::Partitions for RingPartitions {
    fn consumable(&self) -> BTreeMap<i32, ConsumableState> {
        self.0
            .partitions()
            .partitions
            .values()
            .filter_map(|partition| {
                let state = match partition.state {
                    PartitionState::Active => ConsumableState::Active,
                    PartitionState::Inactive => ConsumableState::Inactive,
                    _ => return None,
                };
                Some((partition.id, state))
            })
            .collect()
    }
}
