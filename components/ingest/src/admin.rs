//! Topics and their partitions.

use std::time::Duration;

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{
    Error, KafkaConfig, Offsets, Sasl,
    client::{Context, client_config},
    producer::REQUEST_MAX_BYTES,
};

/// Longest change of a topic.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How often, and how far apart, brokers are asked for a topic that was just created.
const VISIBLE_ATTEMPTS: u32 = 60;
const VISIBLE_PAUSE: Duration = Duration::from_millis(250);

/// The group under which questions are asked; nothing is committed.
const NOBODY: &str = "tempo-admin";

/// How many partitions the topic has; creates it if that is wanted and it is missing.
///
/// Tempo lets the broker create it, and sets the broker's default number of partitions for that,
/// which other topics get, too. Here only this topic is touched. Its replicas are as many as the
/// broker's default says.
///
/// # Errors
/// [`Error::UnknownPartition`] when it is missing and shall not be created; those of the brokers.
pub async fn ensure_topic(config: &KafkaConfig) -> Result<i32, Error> {
    if let Some(count) = partition_count(config).await? {
        return Ok(count);
    }
    let Some(partitions) = config.auto_create_partitions.filter(|&count| count > 0) else {
        return Err(Error::UnknownPartition {
            action: "start".to_owned(),
            topic: config.topic.clone(),
        });
    };
    let topic = TopicSettings {
        partitions,
        replication_factor: None,
        settings: &[],
    };
    create_topic(config, &topic).await
}

/// What a topic is created with.
#[derive(Debug, Clone, Copy)]
pub struct TopicSettings<'a> {
    /// Partitions.
    pub partitions: i32,
    /// Brokers that hold each partition; the brokers' own default when `None`.
    pub replication_factor: Option<i32>,
    /// Kafka's settings of a topic, by name.
    pub settings: &'a [(&'a str, &'a str)],
}

/// Creates the topic, and waits until brokers know of it; how many partitions it has then. One
/// that exists stays as it is. Unless `settings` say otherwise, it takes the largest record there
/// can be, and with three replicas an acknowledgement needs two of them, so that it outlives a
/// broker.
///
/// # Errors
/// Those of the brokers.
pub async fn create_topic(config: &KafkaConfig, topic: &TopicSettings<'_>) -> Result<i32, Error> {
    let action = || format!("creating topic '{}'", config.topic);
    let admin = connect(config, &action())?;
    let replication = TopicReplication::Fixed(topic.replication_factor.unwrap_or(-1));
    let max_bytes = REQUEST_MAX_BYTES.to_string();
    let is_safe = topic.replication_factor.is_some_and(|factor| factor >= 3);
    let defaults = [
        ("max.message.bytes", max_bytes.as_str(), true),
        ("min.insync.replicas", "2", is_safe),
    ];
    let is_set = |name| topic.settings.iter().any(|(set, _)| *set == name);
    let defaults = defaults
        .into_iter()
        .filter(|&(name, _, applies)| applies && !is_set(name))
        .map(|(name, value, _)| (name, value));
    let topic = topic.settings.iter().copied().chain(defaults).fold(
        NewTopic::new(&config.topic, topic.partitions, replication),
        |new, (name, value)| new.set(name, value),
    );
    let results = admin
        .create_topics(
            [&topic],
            &AdminOptions::new().operation_timeout(Some(TIMEOUT)),
        )
        .await
        .map_err(|error| Error::of(action(), config, &error))?;
    finish(
        results,
        RDKafkaErrorCode::TopicAlreadyExists,
        config,
        &action(),
    )?;
    // Brokers learn of it a moment after the controller has answered.
    for _ in 0..VISIBLE_ATTEMPTS {
        if let Some(count) = partition_count(config).await? {
            tracing::info!(
                topic = config.topic,
                partitions = count,
                "kafka topic created"
            );
            return Ok(count);
        }
        tokio::time::sleep(VISIBLE_PAUSE).await;
    }
    Err(Error::UnknownPartition {
        action: action(),
        topic: config.topic.clone(),
    })
}

/// How many partitions the topic has; `None` when it does not exist.
///
/// # Errors
/// Those of the brokers.
pub async fn partition_count(config: &KafkaConfig) -> Result<Option<i32>, Error> {
    let config = config.clone();
    let asked = tokio::task::spawn_blocking(move || {
        Offsets::new(&config, NOBODY).and_then(|offsets| offsets.partition_count())
    });
    asked.await.unwrap_or_else(|stopped| {
        Err(Error::Failed {
            action: "partitions of the topic".to_owned(),
            cause: stopped.to_string(),
        })
    })
}

/// Raises the number of partitions to `total`. Kafka cannot lower it.
///
/// # Errors
/// Those of the brokers.
pub async fn create_partitions(config: &KafkaConfig, total: i32) -> Result<(), Error> {
    let action = format!("raising topic '{}' to {total} partitions", config.topic);
    let admin = connect(config, &action)?;
    let wanted = NewPartitions::new(&config.topic, usize::try_from(total).unwrap_or(0));
    let results = admin
        .create_partitions(
            [&wanted],
            &AdminOptions::new().operation_timeout(Some(TIMEOUT)),
        )
        .await
        .map_err(|error| Error::of(action.clone(), config, &error))?;
    finish(results, RDKafkaErrorCode::NoError, config, &action)
}

fn connect(config: &KafkaConfig, action: &str) -> Result<AdminClient<Context>, Error> {
    if matches!(config.sasl, Sasl::OAuthBearer(_)) {
        return Err(Error::Settings(format!(
            "{action} is not possible with sasl_mechanism OAUTHBEARER: create the topic beforehand"
        )));
    }
    client_config(config)
        .create_with_context(Context::new(config))
        .map_err(|error| Error::of(action, config, &error))
}

fn finish(
    results: Vec<Result<String, (String, RDKafkaErrorCode)>>,
    fine: RDKafkaErrorCode,
    config: &KafkaConfig,
    action: &str,
) -> Result<(), Error> {
    for result in results {
        match result {
            Err((_, code)) if code != fine => {
                return Err(Error::of(action, config, &KafkaError::AdminOp(code)));
            }
            _ => {}
        }
    }
    Ok(())
}
