//! Writing records.

use std::{sync::Arc, thread, time::Duration};

use parking_lot::RwLock;
use prometheus::{IntGauge, Registry};
use rdkafka::{
    ClientContext, Message,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    Error, KafkaConfig, ProduceError,
    client::{Context, client_config},
    error::describe,
    metrics::ProducerMetrics,
};

/// Time that the library waits for more records before it writes a batch, in milliseconds.
const LINGER_MILLIS: u32 = 50;

/// Largest batch of several records, in bytes. A broker refuses a batch that is larger than the
/// topic's `max.message.bytes`, with all records in it, for good; with Kafka's own default of that,
/// 1 MiB, only a record that is too large by itself may be refused.
const BATCH_MAX_BYTES: usize = 1_000_000;

/// Largest request, in bytes: records may exceed their limit a little; see
/// [`encode`](crate::record::encode).
pub(crate) const REQUEST_MAX_BYTES: usize = 17_000_000;

/// Longest time to wait for records that are on their way when the producer is closed.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(15);

/// Writes records: an acknowledged one is in the log of every in-sync replica, once, and in order.
///
/// Cheap to clone. Holds at most [`KafkaConfig::max_buffered_bytes`] of records.
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

type Client = ThreadedProducer<Delivering>;

struct Inner {
    config: KafkaConfig,
    /// Replaced when the library has given it up.
    client: RwLock<Arc<Client>>,
    metrics: ProducerMetrics,
}

impl Producer {
    /// Makes a producer. Connects in the background: that brokers are away shows when records are
    /// sent.
    ///
    /// # Errors
    /// [`Error::Settings`], [`Error::Metrics`].
    pub fn new(config: KafkaConfig, registry: &Registry) -> Result<Self, Error> {
        let metrics = ProducerMetrics::register(registry, config.max_buffered_bytes)?;
        let client = RwLock::new(Arc::new(connect(&config)?));
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                client,
                metrics,
            }),
        })
    }

    /// The settings it was made with.
    pub fn config(&self) -> &KafkaConfig {
        &self.inner.config
    }

    /// Bytes of records that wait for their acknowledgement.
    pub fn buffered_bytes(&self) -> u64 {
        u64::try_from(self.inner.metrics.buffered_bytes.get()).unwrap_or(0)
    }

    /// Writes records with the same key to a partition, and waits until all are acknowledged.
    ///
    /// Once handed to the library, records are written even if the future is dropped.
    ///
    /// # Errors
    /// When not all were acknowledged.
    pub async fn send(
        &self,
        partition: i32,
        key: &str,
        values: &[Vec<u8>],
    ) -> Result<(), ProduceError> {
        let begun = Instant::now();
        let waiting = match self.enqueue(partition, key, values) {
            Ok(waiting) => waiting,
            Err(error) => return Err(self.failed(error)),
        };
        let limit = self.inner.config.write_timeout;
        for answer in waiting {
            // The library gives up by itself at the same time, and tells.
            let delivered = tokio::time::timeout_at(begun + limit + LATE, answer).await;
            let result = match delivered {
                Ok(Ok(result)) => result,
                Ok(Err(_closed)) => Err(KafkaError::Canceled),
                Err(_elapsed) => Err(KafkaError::MessageProduction(
                    RDKafkaErrorCode::MessageTimedOut,
                )),
            };
            if let Err(error) = result {
                return Err(self.failed(self.sort(partition, values, &error)));
            }
        }
        let metrics = &self.inner.metrics;
        let label = format!("partition_{partition}");
        metrics
            .write_latency_seconds
            .observe(begun.elapsed().as_secs_f64());
        metrics
            .write_bytes
            .with_label_values(&[&label])
            .inc_by(values.iter().map(|value| value.len() as u64).sum());
        metrics
            .records
            .with_label_values(&[&label])
            .inc_by(values.len() as u64);
        Ok(())
    }

    fn enqueue(
        &self,
        partition: i32,
        key: &str,
        values: &[Vec<u8>],
    ) -> Result<Vec<oneshot::Receiver<Result<(), KafkaError>>>, ProduceError> {
        let inner = &*self.inner;
        let client = Arc::clone(&inner.client.read());
        let mut waiting = Vec::with_capacity(values.len());
        for value in values {
            let held = Held::take(
                &inner.metrics.buffered_bytes,
                value.len() as u64,
                inner.config.max_buffered_bytes,
            )?;
            let (answer, receiver) = oneshot::channel();
            let record = BaseRecord::with_opaque_to(
                &inner.config.topic,
                Box::new(Delivery { answer, held }),
            )
            .partition(partition)
            .key(key)
            .payload(value.as_slice());
            if let Err((error, _)) = client.send(record) {
                self.replace_if_given_up(&client);
                return Err(self.sort(partition, values, &error));
            }
            waiting.push(receiver);
        }
        Ok(waiting)
    }

    fn sort(&self, partition: i32, values: &[Vec<u8>], error: &KafkaError) -> ProduceError {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge) => ProduceError::RecordTooLarge {
                bytes: values.iter().map(Vec::len).max().unwrap_or(0),
            },
            Some(Code::QueueFull) => ProduceError::BufferFull {
                buffered_bytes: self.buffered_bytes(),
                limit_bytes: self.inner.config.max_buffered_bytes,
            },
            Some(Code::MessageTimedOut | Code::OperationTimedOut | Code::RequestTimedOut) => {
                ProduceError::Timeout {
                    partition,
                    seconds: self.inner.config.write_timeout.as_secs(),
                }
            }
            _ => {
                let client = Arc::clone(&self.inner.client.read());
                self.replace_if_given_up(&client);
                ProduceError::Failed {
                    partition,
                    cause: describe(error),
                }
            }
        }
    }

    fn failed(&self, error: ProduceError) -> ProduceError {
        self.inner
            .metrics
            .failures
            .with_label_values(&[error.reason()])
            .inc();
        error
    }

    /// An idempotent producer that has lost count of what is in the log can only be given up: what
    /// it writes might be there twice. A new one begins with a new identity.
    fn replace_if_given_up(&self, client: &Arc<Client>) {
        let Some((code, reason)) = client.client().fatal_error() else {
            return;
        };
        let mut current = self.inner.client.write();
        if !Arc::ptr_eq(&current, client) {
            return;
        }
        match connect(&self.inner.config) {
            Ok(fresh) => {
                tracing::error!(%code, reason, "kafka producer given up, beginning anew");
                let old = std::mem::replace(&mut *current, Arc::new(fresh));
                // Its end waits for its threads.
                thread::spawn(move || drop(old));
            }
            Err(error) => tracing::error!(%code, reason, %error, "kafka producer given up"),
        }
    }

    /// Waits until what is on its way is acknowledged or given up. Blocks.
    pub fn flush(&self) {
        let client = Arc::clone(&self.inner.client.read());
        if let Err(error) = client.flush(FLUSH_TIMEOUT) {
            tracing::error!(
                error = describe(&error),
                "records were not flushed to kafka"
            );
        }
    }
}

/// Time by which the library may be late in giving up a record.
const LATE: Duration = Duration::from_secs(2);

fn connect(config: &KafkaConfig) -> Result<Client, Error> {
    let millis = |duration: Duration| duration.as_millis().max(1).to_string();
    client_config(config)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", LINGER_MILLIS.to_string())
        .set("message.timeout.ms", millis(config.write_timeout))
        .set("request.timeout.ms", millis(config.write_timeout + LATE))
        .set("batch.size", BATCH_MAX_BYTES.to_string())
        .set("message.max.bytes", REQUEST_MAX_BYTES.to_string())
        .set("compression.type", config.compression.name())
        // Bytes are limited here, exactly; the library counts in its own way.
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", i32::MAX.to_string())
        .create_with_context(Delivering(Context::new(config)))
        .map_err(|error| Error::of("producer", config, &error))
}

/// Bytes counted as buffered until it is dropped.
struct Held {
    gauge: IntGauge,
    bytes: i64,
}

impl Held {
    fn take(gauge: &IntGauge, bytes: u64, limit_bytes: u64) -> Result<Self, ProduceError> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let held = Self {
            gauge: gauge.clone(),
            bytes,
        };
        gauge.add(bytes);
        let buffered = u64::try_from(gauge.get()).unwrap_or(0);
        if limit_bytes != 0 && buffered > limit_bytes {
            return Err(ProduceError::BufferFull {
                buffered_bytes: buffered.saturating_sub(bytes.unsigned_abs()),
                limit_bytes,
            });
        }
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.sub(self.bytes);
    }
}

struct Delivery {
    answer: oneshot::Sender<Result<(), KafkaError>>,
    held: Held,
}

/// [`Context`], and telling who waits for a record.
struct Delivering(Context);

impl ClientContext for Delivering {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = Context::ENABLE_REFRESH_OAUTH_TOKEN;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }

    fn generate_oauth_token(
        &self,
        settings: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.0.generate_oauth_token(settings)
    }
}

impl ProducerContext for Delivering {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        let result = match result {
            Ok(message) => {
                tracing::trace!(
                    partition = message.partition(),
                    offset = message.offset(),
                    "record acknowledged"
                );
                Ok(())
            }
            Err((error, _)) => Err(error.clone()),
        };
        let Delivery { answer, held } = *delivery;
        drop(held);
        // Whoever asked may have gone.
        let _ = answer.send(result);
    }
}
