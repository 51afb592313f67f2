//! Asking Kafka: topic, partitions, and how far its readers are.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempo_ingest::{Credentials, Error, KafkaConfig, Offsets, Sasl, Tls, TokenSource, admin};

use crate::api::{Kafka, SaslMechanism, SecretKey, TempoStack};
use crate::plan::{KafkaProblem, KafkaView};
use crate::references::{Found, Kind};
use crate::topology::Names;

/// Group of block-builders, the same in every stack, as in Tempo.
const BLOCK_BUILDERS: &str = "block-builder";
/// Group of metrics-generators.
const METRICS_GENERATORS: &str = "metrics-generator";
/// How long an answer counts while nothing is under way.
const IDLE_TTL: Duration = Duration::from_secs(60);
/// How long an answer counts otherwise.
const BUSY_TTL: Duration = Duration::from_secs(3);
/// Longest wait for brokers.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Asks Kafka, and remembers answers for a moment.
#[derive(Default)]
pub(super) struct Admin {
    answers: Mutex<HashMap<String, (Instant, KafkaView)>>,
}

impl Admin {
    /// What there is to know of a stack's topic.
    pub(super) async fn view(
        &self,
        stack: &TempoStack,
        found: &Found,
        busy: bool,
    ) -> Option<KafkaView> {
        let kafka = stack.spec.kafka.as_ref()?;
        let key = super::key(stack);
        let ttl = if busy { BUSY_TTL } else { IDLE_TTL };
        if let Some((asked, view)) = self.answers.lock().get(&key)
            && asked.elapsed() < ttl
        {
            return Some(view.clone());
        }
        let view = match ask(stack, kafka, found, busy).await {
            Ok(view) => view,
            Err(problem) => KafkaView {
                problem: Some(problem),
                ..KafkaView::default()
            },
        };
        self.answers
            .lock()
            .insert(key, (Instant::now(), view.clone()));
        Some(view)
    }

    /// Forgets what was answered: something changed.
    pub(super) fn forget(&self, stack: &TempoStack) {
        self.answers.lock().remove(&super::key(stack));
    }

    /// Creates the topic.
    pub(super) async fn create(
        &self,
        stack: &TempoStack,
        found: &Found,
        partitions: u32,
    ) -> Result<(), String> {
        let Some(kafka) = &stack.spec.kafka else {
            return Ok(());
        };
        let files = Files::new(stack, found)?;
        let config = config(stack, kafka, found, &files)?;
        let retention = millis(&kafka.topic.retention).to_string();
        let mut settings = vec![("retention.ms", retention.as_str())];
        settings.extend(
            kafka
                .topic
                .config
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        let topic = admin::TopicSettings {
            partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            replication_factor: i32::try_from(kafka.topic.replication_factor).ok(),
            settings: &settings,
        };
        let created = tokio::time::timeout(TIMEOUT, admin::create_topic(&config, &topic)).await;
        self.forget(stack);
        flatten(created).map(drop)
    }

    /// Adds partitions to the topic.
    pub(super) async fn grow(
        &self,
        stack: &TempoStack,
        found: &Found,
        partitions: u32,
    ) -> Result<(), String> {
        let Some(kafka) = &stack.spec.kafka else {
            return Ok(());
        };
        let files = Files::new(stack, found)?;
        let config = config(stack, kafka, found, &files)?;
        let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        let grown =
            tokio::time::timeout(TIMEOUT, admin::create_partitions(&config, partitions)).await;
        self.forget(stack);
        flatten(grown)
    }
}

fn millis(span: &crate::api::Duration) -> u128 {
    span.get().unwrap_or_default().as_millis()
}

fn flatten<T>(outcome: Result<Result<T, Error>, tokio::time::error::Elapsed>) -> Result<T, String> {
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("Kafka did not answer in {TIMEOUT:?}")),
    }
}

fn problem(error: &Error) -> KafkaProblem {
    let reason = match error {
        Error::NotAllowed { .. } => "AuthFailed",
        Error::Settings(_) => "InvalidSettings",
        _ => "Unreachable",
    };
    KafkaProblem {
        reason,
        message: format!("{error}; look at spec.kafka"),
    }
}

async fn ask(
    stack: &TempoStack,
    kafka: &Kafka,
    found: &Found,
    busy: bool,
) -> Result<KafkaView, KafkaProblem> {
    let unusable = |message: String| KafkaProblem {
        reason: "InvalidSettings",
        message,
    };
    let late = || KafkaProblem {
        reason: "Unreachable",
        message: format!(
            "Kafka at {} did not answer in {TIMEOUT:?}; look at spec.kafka.bootstrapServers",
            kafka.bootstrap_servers.join(",")
        ),
    };
    let files = Files::new(stack, found).map_err(unusable)?;
    let config = config(stack, kafka, found, &files).map_err(unusable)?;
    let partitions = tokio::time::timeout(TIMEOUT, admin::partition_count(&config))
        .await
        .map_err(|_| late())?
        .map_err(|error| problem(&error))?;
    let mut view = KafkaView {
        topic_partitions: partitions.and_then(|count| u32::try_from(count).ok()),
        ..KafkaView::default()
    };
    // How far readers are matters while partitions are drained.
    if busy && let Some(count) = partitions {
        let mut groups = vec![BLOCK_BUILDERS];
        if stack.spec.metrics_generator.enabled {
            groups.push(METRICS_GENERATORS);
        }
        for group in groups {
            let config = config.clone();
            let lag = tokio::task::spawn_blocking(move || lag(&config, group, count));
            let lag = tokio::time::timeout(TIMEOUT, lag)
                .await
                .map_err(|_| late())?;
            match lag {
                Ok(Ok(lag)) => {
                    for (partition, records) in lag {
                        *view.lag.entry(partition).or_insert(0) += records;
                    }
                }
                Ok(Err(error)) => return Err(problem(&error)),
                Err(_) => return Err(late()),
            }
        }
    }
    Ok(view)
}

/// Records that a group has not read, by partition.
fn lag(config: &KafkaConfig, group: &str, count: i32) -> Result<BTreeMap<u32, u64>, Error> {
    let offsets = Offsets::new(config, group)?;
    let partitions: Vec<i32> = (0..count).collect();
    let committed = offsets.committed(&partitions)?;
    let mut lag = BTreeMap::new();
    for partition in partitions {
        let watermarks = offsets.watermarks(partition)?;
        // Without a commit a group begins at the oldest record.
        let next = committed
            .get(&partition)
            .map_or(watermarks.low, |committed| {
                committed.offset.max(watermarks.low)
            });
        if let Ok(partition) = u32::try_from(partition) {
            lag.insert(
                partition,
                u64::try_from(watermarks.high - next).unwrap_or(0),
            );
        }
    }
    Ok(lag)
}

fn value<'a>(found: &'a Found, name: &str, key: &str) -> Option<&'a [u8]> {
    found
        .get(&(Kind::Secret, name.to_owned()))
        .and_then(|content| content.get(key))
        .map(Vec::as_slice)
}

fn text(found: &Found, reference: Option<&SecretKey>) -> String {
    reference
        .and_then(|reference| value(found, &reference.name, &reference.key))
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .unwrap_or_default()
}

/// Certificates as files, for the library that wants them so; they go with this value.
struct Files {
    folder: Option<PathBuf>,
}

impl Files {
    fn new(stack: &TempoStack, found: &Found) -> Result<Self, String> {
        let Some(tls) = stack
            .spec
            .kafka
            .as_ref()
            .and_then(|kafka| kafka.tls.as_ref())
        else {
            return Ok(Self { folder: None });
        };
        let name = format!("tempo-operator-{}-{:016x}", std::process::id(), unique());
        let folder = std::env::temp_dir().join(name);
        let files = Self {
            folder: Some(folder.clone()),
        };
        let write = |name: &str, bytes: Option<&[u8]>| match bytes {
            Some(bytes) => fs::write(folder.join(name), bytes),
            None => Ok(()),
        };
        make_private_folder(&folder)
            .and_then(|()| {
                let ca = tls.ca_secret_ref.as_ref();
                write("ca.crt", ca.and_then(|ca| value(found, &ca.name, &ca.key)))
            })
            .and_then(|()| {
                let cert = tls.cert_secret_ref.as_ref();
                write(
                    "tls.crt",
                    cert.and_then(|cert| value(found, &cert.name, "tls.crt")),
                )?;
                write(
                    "tls.key",
                    cert.and_then(|cert| value(found, &cert.name, "tls.key")),
                )
            })
            .map_err(|error| {
                format!(
                    "certificates can't be written to {}: {error}",
                    folder.display()
                )
            })?;
        Ok(files)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(name))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder
            && let Err(error) = fs::remove_dir_all(folder)
        {
            tracing::warn!(%error, folder = %folder.display(), "files were left behind");
        }
    }
}

fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(folder)
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

fn config(
    stack: &TempoStack,
    kafka: &Kafka,
    found: &Found,
    files: &Files,
) -> Result<KafkaConfig, String> {
    let sasl = match &kafka.sasl {
        None => Sasl::Off,
        Some(sasl) => {
            let credentials = Credentials {
                username: text(found, sasl.username_secret_ref.as_ref()),
                password: text(found, sasl.password_secret_ref.as_ref()),
            };
            match sasl.mechanism {
                SaslMechanism::Plain => Sasl::Plain(credentials),
                SaslMechanism::ScramSha256 => Sasl::ScramSha256(credentials),
                SaslMechanism::ScramSha512 => Sasl::ScramSha512(credentials),
                SaslMechanism::OauthBearer => Sasl::OAuthBearer(TokenSource::Static {
                    token: text(found, sasl.token_secret_ref.as_ref()),
                }),
                SaslMechanism::AwsMskIam => {
                    return Err("kafka.sasl.mechanism AWS_MSK_IAM is not supported by this version; use SCRAM-SHA-512".to_owned());
                }
            }
        }
    };
    let tls = kafka.tls.as_ref().map(|tls| Tls {
        ca_path: tls
            .ca_secret_ref
            .as_ref()
            .and_then(|_| files.path("ca.crt")),
        certificate: tls
            .cert_secret_ref
            .as_ref()
            .and_then(|_| Some((files.path("tls.crt")?, files.path("tls.key")?))),
        cipher_suites: String::new(),
        insecure_skip_verify: tls.insecure_skip_verify,
    });
    Ok(KafkaConfig {
        address: kafka.bootstrap_servers.join(","),
        topic: Names::of(stack).topic(stack),
        client_id: "tempo-operator".to_owned(),
        sasl,
        tls,
        auto_create_partitions: None,
        offset_timeout: Duration::from_secs(10),
        ..KafkaConfig::default()
    })
}
