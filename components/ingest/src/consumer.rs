//! Reading one partition, in order.

use std::time::Duration;

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};

use crate::{
    Error, KafkaConfig,
    client::{Context, FETCH_MAX_BYTES, client_config},
    record::{self, DecodeError, PushRequest},
};

/// Bytes of records that the library holds ahead of whoever reads, in KiB. Beyond, it asks for no
/// more.
const QUEUED_MAX_KIBIBYTES: usize = 16 << 10;

/// How long it waits then before it looks again, in milliseconds.
const QUEUE_FULL_MILLIS: u32 = 5;

/// Compressed bytes that one fetch asks of a partition. Records come to several times as much, all at
/// once: together with those held they should fit into a processor's cache.
const PARTITION_FETCH_BYTES: usize = 2_000_000;

/// Longest time that a broker keeps a fetch waiting for records, in milliseconds.
const FETCH_WAIT_MILLIS: u32 = 5000;

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// With the oldest record that there is.
    Beginning,
    /// With the next record that is written.
    End,
    /// With the record of this offset; with the oldest one when it is gone.
    Offset(i64),
}

/// Reads the records of one partition, without being a member of a consumer group and without
/// committing anything.
pub struct PartitionConsumer {
    consumer: BaseConsumer<Context>,
    config: KafkaConfig,
    partition: i32,
}

/// What a poll gave.
pub enum Polled<'a> {
    /// The next record.
    Record(Record<'a>),
    /// Everything was read that was there when the broker was asked; more may come.
    EndOfPartition,
    /// Nothing, for as long as the poll was allowed to take.
    Nothing,
}

/// A record, borrowed from the library's memory.
pub struct Record<'a>(BorrowedMessage<'a>);

impl PartitionConsumer {
    /// Begins to fetch in the background.
    ///
    /// # Errors
    /// [`Error::Settings`]. Whether brokers and partition are there shows when polling.
    pub fn open(config: &KafkaConfig, partition: i32, start: StartAt) -> Result<Self, Error> {
        let failed = |error| Error::of(format!("reading partition {partition}"), config, &error);
        let consumer: BaseConsumer<Context> = client_config(config)
            // Named because the library wants a name. Nothing is committed under it.
            .set("group.id", "tempo-partition-reader")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_uncommitted")
            .set("fetch.wait.max.ms", FETCH_WAIT_MILLIS.to_string())
            .set("fetch.max.bytes", FETCH_MAX_BYTES.to_string())
            .set(
                "max.partition.fetch.bytes",
                PARTITION_FETCH_BYTES.to_string(),
            )
            .set(
                "queued.max.messages.kbytes",
                QUEUED_MAX_KIBIBYTES.to_string(),
            )
            .set("fetch.queue.backoff.ms", QUEUE_FULL_MILLIS.to_string())
            .create_with_context(Context::new(config))
            .map_err(failed)?;
        let mut assignment = TopicPartitionList::new();
        let offset = match start {
            StartAt::Beginning => Offset::Beginning,
            StartAt::End => Offset::End,
            StartAt::Offset(offset) => Offset::Offset(offset),
        };
        assignment
            .add_partition_offset(&config.topic, partition, offset)
            .map_err(failed)?;
        consumer.assign(&assignment).map_err(failed)?;
        Ok(Self {
            consumer,
            config: config.clone(),
            partition,
        })
    }

    /// The partition.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The next record, waiting for it up to `timeout`. Blocks.
    ///
    /// That brokers are away is no error: the library goes on when they are back, and says so in
    /// the log.
    ///
    /// # Errors
    /// What will not pass by itself, such as a missing partition or permission.
    pub fn poll(&self, timeout: Duration) -> Result<Polled<'_>, Error> {
        match self.consumer.poll(timeout) {
            None => Ok(Polled::Nothing),
            Some(Ok(message)) => Ok(Polled::Record(Record(message))),
            Some(Err(KafkaError::PartitionEOF(_))) => Ok(Polled::EndOfPartition),
            Some(Err(error)) if is_passing(&error) => Ok(Polled::Nothing),
            Some(Err(error)) => Err(Error::of(
                format!("reading partition {}", self.partition),
                &self.config,
                &error,
            )),
        }
    }
}

/// Whether the library itself tries again.
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::Resolve
                | Code::OperationTimedOut
                | Code::RequestTimedOut
                | Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
        )
    )
}

impl Record<'_> {
    /// Its place in the partition.
    pub fn offset(&self) -> i64 {
        self.0.offset()
    }

    /// When its producer made it, milliseconds since the epoch; 0 when that is not known.
    pub fn timestamp_millis(&self) -> i64 {
        self.0.timestamp().to_millis().unwrap_or(0)
    }

    /// Its key, the tenant, as it came.
    pub fn key(&self) -> &[u8] {
        self.0.key().unwrap_or_default()
    }

    /// Its bytes.
    pub fn value(&self) -> &[u8] {
        self.0.payload().unwrap_or_default()
    }

    /// Its traces.
    ///
    /// # Errors
    /// When its bytes are no record of ours or Tempo's.
    pub fn request(&self) -> Result<PushRequest<'_>, DecodeError> {
        record::decode(self.value())
    }
}
