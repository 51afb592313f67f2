//! Commits that only one process may make.
//!
//! A process that was thought dead and comes back must not commit over its successor, nor believe
//! that it still may write what it had planned. Kafka's transactions give just that: whoever takes
//! a transactional id shuts out whoever had it before, and offsets committed in a transaction are
//! refused from then on to the former.

use std::{
    io,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::Consumer,
    error::{KafkaError, RDKafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, Producer, ProducerContext},
};

use crate::{
    Committed, Error, KafkaConfig, Offsets,
    client::{Context, client_config},
};

/// Longest step of a transaction.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// After this time brokers abort a transaction that nobody ends, in milliseconds.
const TRANSACTION_TIMEOUT_MILLIS: u32 = 15_000;

/// After this time connections that nobody uses are closed, in milliseconds. While the library waits
/// for a group coordinator that is gone, it looks for the new one only when some connection comes or
/// goes, and no timeout ends the wait (confluentinc/librdkafka#5456 and #5511, open as of 2.14).
const MAX_IDLE_MILLIS: u32 = 10_000;

/// Attempts at one step.
const ATTEMPTS: u32 = 5;

/// How long the library is listened to at a time. At the end of each, it spins for up to a
/// millisecond: with the 100 ms of its own polling thread, that was a hundredth of a processor per
/// partition.
const LISTEN: Duration = Duration::from_secs(1);

/// Why a commit was not made.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// Another process has taken the partition over: everything planned for it is to be dropped.
    #[error("another process has taken over partition {partition} of group '{group}'")]
    Overtaken {
        /// The group.
        group: String,
        /// The partition.
        partition: i32,
    },
    /// Kafka did not do it, or did not say that it did.
    #[error(transparent)]
    Kafka(#[from] Error),
}

/// The right to commit offsets of one partition for a group, until another process takes it.
pub struct Fence {
    producer: Arc<BaseProducer<Context>>,
    offsets: Offsets,
    config: KafkaConfig,
    partition: i32,
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &rdkafka::message::DeliveryResult<'_>, (): ()) {}
}

/// Hears what the library has to say, such as that its token runs out, until nobody else needs the
/// producer. It says so at once; how long it is listened to only tells when the thread ends.
fn listen(producer: Weak<BaseProducer<Context>>) -> io::Result<()> {
    thread::Builder::new()
        .name("kafka fence".to_owned())
        .spawn(move || {
            while let Some(producer) = producer.upgrade() {
                producer.poll(LISTEN);
            }
        })
        .map(drop)
}

enum Step {
    Offsets,
    Commit,
}

impl Fence {
    /// Takes the right over. What a former owner has committed is final, what it had begun to
    /// commit is undone. Blocks.
    ///
    /// # Errors
    /// Those of the brokers.
    pub fn raise(config: &KafkaConfig, group: &str, partition: i32) -> Result<Self, FenceError> {
        let action = || format!("taking over partition {partition} for group '{group}'");
        let producer: BaseProducer<Context> = client_config(config)
            .set(
                "transactional.id",
                format!("{group}/{}/{partition}", config.topic),
            )
            .set(
                "transaction.timeout.ms",
                TRANSACTION_TIMEOUT_MILLIS.to_string(),
            )
            .set("connections.max.idle.ms", MAX_IDLE_MILLIS.to_string())
            .create_with_context(Context::new(config))
            .map_err(|error| Error::of(action(), config, &error))?;
        let producer = Arc::new(producer);
        listen(Arc::downgrade(&producer)).map_err(|error| Error::Failed {
            action: action(),
            cause: format!("no thread for it: {error}"),
        })?;
        let fence = Self {
            producer,
            offsets: Offsets::settled(config, group)?,
            config: config.clone(),
            partition,
        };
        let mut attempts_left = ATTEMPTS;
        while let Err(error) = fence.producer.init_transactions(STEP_TIMEOUT) {
            attempts_left -= 1;
            let again = matches!(&error, KafkaError::Transaction(error) if error.is_retriable());
            if attempts_left == 0 || !again {
                return Err(fence.sort(action(), &error));
            }
        }
        Ok(fence)
    }

    /// What is committed. Blocks.
    ///
    /// # Errors
    /// Those of the brokers.
    pub fn committed(&self) -> Result<Option<Committed>, Error> {
        let mut committed = self.offsets.committed(&[self.partition])?;
        Ok(committed.remove(&self.partition))
    }

    /// Commits an offset and a note of at most 4,000 bytes. When it returns, both are there, and
    /// this process was still the one that may. Blocks.
    ///
    /// # Errors
    /// After [`FenceError::Overtaken`] nothing was committed, and nothing ever will be. After
    /// another error it is not known.
    pub fn commit(&self, offset: i64, metadata: &str) -> Result<(), FenceError> {
        let action = || format!("committing offset {offset} of partition {}", self.partition);
        let failed = |error: &KafkaError| self.sort(action(), error);
        let mut offsets = TopicPartitionList::with_capacity(1);
        {
            let mut element = offsets.add_partition(&self.config.topic, self.partition);
            element
                .set_offset(Offset::Offset(offset))
                .map_err(|error| failed(&error))?;
            element.set_metadata(metadata);
        }
        let group = self
            .offsets
            .consumer
            .group_metadata()
            .ok_or_else(|| failed(&KafkaError::NoMessageReceived))?;
        let mut attempts_left = ATTEMPTS;
        'transaction: loop {
            self.producer
                .begin_transaction()
                .map_err(|error| failed(&error))?;
            let mut step = Step::Offsets;
            loop {
                let done = match step {
                    Step::Offsets => {
                        self.producer
                            .send_offsets_to_transaction(&offsets, &group, STEP_TIMEOUT)
                    }
                    Step::Commit => self.producer.commit_transaction(STEP_TIMEOUT),
                };
                let error = match (done, &step) {
                    (Ok(()), Step::Offsets) => {
                        step = Step::Commit;
                        continue;
                    }
                    (Ok(()), Step::Commit) => return Ok(()),
                    (Err(error), _) => error,
                };
                let KafkaError::Transaction(cause) = &error else {
                    return Err(failed(&error));
                };
                attempts_left -= 1;
                if cause.is_fatal() || attempts_left == 0 {
                    return Err(failed(&error));
                }
                if cause.txn_requires_abort() {
                    self.producer
                        .abort_transaction(STEP_TIMEOUT)
                        .map_err(|error| failed(&error))?;
                    continue 'transaction;
                }
                if !cause.is_retriable() {
                    return Err(failed(&error));
                }
            }
        }
    }

    fn sort(&self, action: String, error: &KafkaError) -> FenceError {
        use RDKafkaErrorCode as Code;
        let told = match error {
            KafkaError::Transaction(error) => Some(RDKafkaError::code(error)),
            error => error.rdkafka_error_code(),
        };
        let fatal = self.producer.client().fatal_error().map(|(code, _)| code);
        let is_overtaken = |code| {
            matches!(
                code,
                Some(Code::Fenced | Code::InvalidProducerEpoch | Code::ProducerFenced)
            )
        };
        if is_overtaken(told) || is_overtaken(fatal) {
            return FenceError::Overtaken {
                group: self.offsets.group().to_owned(),
                partition: self.partition,
            };
        }
        FenceError::Kafka(Error::of(action, &self.config, error))
    }
}
