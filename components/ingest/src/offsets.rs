//! What a consumer group has got through, and what there is.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{
    Error, KafkaConfig,
    client::{Context, client_config},
};

/// Attempts at a question that the brokers cannot answer for now.
const ATTEMPTS: u32 = 5;

/// Wait after the first failed attempt; doubles with each.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// Longest wait between attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Events taken from the library's queue before each question.
const MAX_EVENTS: usize = 1000;

/// What a group has committed of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next record to read.
    pub offset: i64,
    /// What the committer noted.
    pub metadata: String,
}

/// The records that there are of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// Offset of the oldest record.
    pub low: i64,
    /// Offset that the next record will get.
    pub high: i64,
}

/// Asks for offsets, and commits those of a group without being a member of it.
pub struct Offsets {
    pub(crate) consumer: BaseConsumer<Context>,
    config: KafkaConfig,
    group: String,
}

impl Offsets {
    /// Makes a client. Connects in the background. A commit that is being made in a transaction
    /// does not count until that is done.
    ///
    /// # Errors
    /// [`Error::Settings`].
    pub fn new(config: &KafkaConfig, group: &str) -> Result<Self, Error> {
        Self::with_isolation(config, group, "read_uncommitted")
    }

    /// As [`Offsets::new`], but waits until it is known what becomes of a commit that is being made
    /// in a transaction: up to its timeout if nobody takes its transactional id over.
    pub(crate) fn settled(config: &KafkaConfig, group: &str) -> Result<Self, Error> {
        Self::with_isolation(config, group, "read_committed")
    }

    fn with_isolation(config: &KafkaConfig, group: &str, isolation: &str) -> Result<Self, Error> {
        let consumer = client_config(config)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", isolation)
            .create_with_context(Context::new(config))
            .map_err(|error| Error::of("offsets", config, &error))?;
        Ok(Self {
            consumer,
            config: config.clone(),
            group: group.to_owned(),
        })
    }

    /// The group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// What is committed of each of the partitions; those without a commit are left out. Blocks.
    ///
    /// # Errors
    /// Those of the brokers, after several attempts.
    pub fn committed(&self, partitions: &[i32]) -> Result<BTreeMap<i32, Committed>, Error> {
        self.patiently(
            || format!("committed offsets of group '{}'", self.group),
            || {
                let mut asked = TopicPartitionList::with_capacity(partitions.len());
                for &partition in partitions {
                    asked.add_partition(&self.config.topic, partition);
                }
                let found = self
                    .consumer
                    .committed_offsets(asked, self.config.offset_timeout)?;
                let mut committed = BTreeMap::new();
                for element in found.elements() {
                    element.error()?;
                    if let Offset::Offset(offset) = element.offset() {
                        committed.insert(
                            element.partition(),
                            Committed {
                                offset,
                                metadata: element.metadata().to_owned(),
                            },
                        );
                    }
                }
                Ok(committed)
            },
        )
    }

    /// Commits that everything before `offset` is done; what others committed is overwritten.
    /// Blocks.
    ///
    /// # Errors
    /// Those of the brokers, after several attempts.
    pub fn commit(&self, partition: i32, offset: i64) -> Result<(), Error> {
        self.patiently(
            || format!("committing offset {offset} of partition {partition}"),
            || {
                let mut committed = TopicPartitionList::with_capacity(1);
                committed.add_partition_offset(
                    &self.config.topic,
                    partition,
                    Offset::Offset(offset),
                )?;
                self.consumer.commit(&committed, CommitMode::Sync)
            },
        )
    }

    /// The names of all consumer groups that the brokers know, sorted. Blocks.
    ///
    /// # Errors
    /// Those of the brokers, after several attempts.
    pub fn groups(&self) -> Result<Vec<String>, Error> {
        self.patiently(
            || "listing consumer groups".to_owned(),
            || {
                let timeout = self.config.offset_timeout;
                let list = self.consumer.fetch_group_list(None, timeout)?;
                let names = list.groups().iter().map(|group| group.name().to_owned());
                let mut names: Vec<String> = names.collect();
                names.sort_unstable();
                Ok(names)
            },
        )
    }

    /// How many partitions the topic has; `None` when it does not exist. Blocks.
    ///
    /// # Errors
    /// Those of the brokers, after several attempts.
    pub fn partition_count(&self) -> Result<Option<i32>, Error> {
        let topic = &self.config.topic;
        self.patiently(
            || format!("partitions of topic '{topic}'"),
            || {
                let metadata = self
                    .consumer
                    .fetch_metadata(Some(topic), self.config.offset_timeout)?;
                let found = metadata.topics().iter().find(|found| found.name() == topic);
                match found.map(|found| (found.error(), found.partitions().len())) {
                    None | Some((None, 0)) => Ok(None),
                    Some((None, count)) => Ok(i32::try_from(count).ok()),
                    Some((Some(error), _)) => match RDKafkaErrorCode::from(error) {
                        RDKafkaErrorCode::UnknownTopicOrPartition => Ok(None),
                        code => Err(KafkaError::MetadataFetch(code)),
                    },
                }
            },
        )
    }

    /// The records that there are. Blocks.
    ///
    /// # Errors
    /// Those of the brokers, after several attempts; [`Error::UnknownPartition`] at once.
    pub fn watermarks(&self, partition: i32) -> Result<Watermarks, Error> {
        self.patiently(
            || format!("end of partition {partition}"),
            || {
                self.consumer
                    .fetch_watermarks(&self.config.topic, partition, self.config.offset_timeout)
                    .map(|(low, high)| Watermarks { low, high })
            },
        )
    }

    /// The first record that is not older than a time, in milliseconds since the epoch; `None` when
    /// all are. Blocks.
    ///
    /// # Errors
    /// As [`Offsets::watermarks`].
    pub fn first_at_or_after(
        &self,
        partition: i32,
        timestamp_millis: i64,
    ) -> Result<Option<i64>, Error> {
        self.patiently(
            || format!("offset of time {timestamp_millis} in partition {partition}"),
            || {
                let mut asked = TopicPartitionList::with_capacity(1);
                asked.add_partition_offset(
                    &self.config.topic,
                    partition,
                    Offset::Offset(timestamp_millis.max(0)),
                )?;
                let found = self
                    .consumer
                    .offsets_for_times(asked, self.config.offset_timeout)?;
                let elements = found.elements();
                let Some(element) = elements.first() else {
                    return Ok(None);
                };
                element.error()?;
                Ok(match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                })
            },
        )
    }

    fn patiently<T>(
        &self,
        action: impl Fn() -> String,
        ask: impl Fn() -> Result<T, KafkaError>,
    ) -> Result<T, Error> {
        patiently(&self.consumer, &self.config, action, ask)
    }
}

/// Asks again while Kafka does not answer.
fn patiently<T>(
    consumer: &BaseConsumer<Context>,
    config: &KafkaConfig,
    action: impl Fn() -> String,
    ask: impl Fn() -> Result<T, KafkaError>,
) -> Result<T, Error> {
    let mut backoff = FIRST_BACKOFF;
    let mut attempts_left = ATTEMPTS;
    loop {
        // Log lines and requests for tokens wait to be taken from the queue.
        for _ in 0..MAX_EVENTS {
            if consumer.poll(Duration::ZERO).is_none() {
                break;
            }
        }
        let error = match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) => Error::of(action(), config, &error),
        };
        attempts_left -= 1;
        let hopeless = !matches!(error, Error::Unreachable { .. } | Error::Failed { .. });
        if attempts_left == 0 || hopeless {
            return Err(error);
        }
        std::thread::sleep(backoff);
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}
