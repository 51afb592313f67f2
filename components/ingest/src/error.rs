//! What can go wrong with Kafka, by what the caller is to do.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Why Kafka did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that the client library refuses.
    #[error("Kafka client: {0}")]
    Settings(String),
    /// No broker answers, or not in time: to be tried again.
    #[error("{action}: Kafka at '{address}' does not answer: {cause}")]
    Unreachable {
        /// What was asked.
        action: String,
        /// `ingest.kafka.address`.
        address: String,
        /// What the library says.
        cause: String,
    },
    /// The topic or the partition is not there.
    #[error(
        "{action}: the topic '{topic}' or that partition does not exist; create it, or set ingest.kafka.auto_create_topic_enabled"
    )]
    UnknownPartition {
        /// What was asked.
        action: String,
        /// The topic.
        topic: String,
    },
    /// The brokers do not allow it.
    #[error("{action}: Kafka refuses it to this client: {cause}")]
    NotAllowed {
        /// What was asked.
        action: String,
        /// What the library says.
        cause: String,
    },
    /// Anything else.
    #[error("{action}: {cause}")]
    Failed {
        /// What was asked.
        action: String,
        /// What the library says.
        cause: String,
    },
    /// Metrics cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Error {
    /// Sorts an error of the library.
    pub(crate) fn of(
        action: impl Into<String>,
        config: &crate::KafkaConfig,
        error: &KafkaError,
    ) -> Self {
        use RDKafkaErrorCode as Code;
        let (action, cause) = (action.into(), describe(error));
        match error.rdkafka_error_code() {
            _ if matches!(
                error,
                KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_)
            ) =>
            {
                Self::Settings(cause)
            }
            Some(
                Code::AllBrokersDown
                | Code::BrokerTransportFailure
                | Code::OperationTimedOut
                | Code::RequestTimedOut
                | Code::MessageTimedOut
                | Code::Resolve
                | Code::WaitingForCoordinator
                | Code::CoordinatorNotAvailable
                | Code::CoordinatorLoadInProgress
                | Code::NetworkException,
            ) => Self::Unreachable {
                action,
                address: config.address.clone(),
                cause,
            },
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                Self::UnknownPartition {
                    action,
                    topic: config.topic.clone(),
                }
            }
            Some(
                Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::SaslAuthenticationFailed
                | Code::Authentication,
            ) => Self::NotAllowed { action, cause },
            _ => Self::Failed { action, cause },
        }
    }
}

/// The library's error without the name of its Rust type.
pub(crate) fn describe(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(error) => error.to_string(),
        KafkaError::ClientConfig(_, description, key, value) => {
            format!("{description} (setting {key} = '{value}')")
        }
        error => match error.rdkafka_error_code() {
            Some(code) => code.to_string(),
            None => error.to_string(),
        },
    }
}

/// Why records were not acknowledged. Of several records some may be in the log all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// Not within [`KafkaConfig::write_timeout`](crate::KafkaConfig::write_timeout).
    #[error("Kafka did not acknowledge the records of partition {partition} within {seconds} s")]
    Timeout {
        /// The partition.
        partition: i32,
        /// The limit.
        seconds: u64,
    },
    /// Too much waits already.
    #[error(
        "{buffered_bytes} bytes wait for Kafka already, and ingest.kafka.producer_max_buffered_bytes allows {limit_bytes}"
    )]
    BufferFull {
        /// Bytes that wait.
        buffered_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The topic does not take a record of that size; it never will.
    #[error(
        "a record of {bytes} bytes is too large for the topic: raise its max.message.bytes, or lower ingest.kafka.producer_max_record_size_bytes"
    )]
    RecordTooLarge {
        /// Bytes of the largest record.
        bytes: usize,
    },
    /// Anything else; a later attempt may succeed.
    #[error("partition {partition}: {cause}")]
    Failed {
        /// The partition.
        partition: i32,
        /// What the library says.
        cause: String,
    },
}

impl ProduceError {
    /// The value of the label `reason` of `tempo_distributor_produce_failures_total`.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::BufferFull { .. } => "buffer-full",
            Self::RecordTooLarge { .. } => "record-too-large",
            Self::Failed { .. } => "other",
        }
    }
}
