//! `kafka`: the log between components with mode Microservices.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::rules;
use super::schema::{Duration, NameRef, SecretKey};

/// The Kafka log between components.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Kafka {
    /// Brokers to begin with, as host and port.
    #[schemars(
        length(min = 1, max = 32),
        inner(length(min = 3, max = 300), regex(pattern = "^[^\\s,/]+:[0-9]{1,5}$"))
    )]
    pub bootstrap_servers: Vec<String>,
    /// The topic.
    #[serde(default)]
    pub topic: Topic,
    /// Name of this client in the brokers' logs; unset means `tempo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249))]
    pub client_id: Option<String>,
    /// TLS to the brokers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<KafkaTls>,
    /// Login to the brokers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
    /// Largest record in bytes.
    #[serde(default = "max_record_bytes")]
    #[schemars(range(min = 1_048_576, max = 15_983_616))]
    pub producer_max_record_size: u32,
    /// How records are compressed; unset means the library's choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
}

fn max_record_bytes() -> u32 {
    15_983_616
}

/// How records are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// By gzip.
    Gzip,
    /// By Snappy.
    Snappy,
    /// By LZ4.
    Lz4,
    /// By Zstandard.
    Zstd,
}

/// The topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!has(oldSelf.partitions) || (has(self.partitions) && self.partitions >= oldSelf.partitions)",
     "kafka.topic.partitions can't decrease: Kafka only adds partitions"),
    ("has(self.name) == has(oldSelf.name) && (!has(self.name) || self.name == oldSelf.name)",
     "kafka.topic.name can't be changed: spans in the old topic would be left behind; make a new stack instead"),
])))]
pub struct Topic {
    /// Name; unset means `tempo-<namespace>-<name>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[A-Za-z0-9._-]+$"))]
    pub name: Option<String>,
    /// Partitions; unset means as many as live-stores in a zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub partitions: Option<u32>,
    /// Brokers that hold each partition.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 15))]
    pub replication_factor: u32,
    /// How long records are kept.
    #[serde(default = "one_day")]
    pub retention: Duration,
    /// Further settings of the topic, for its creation.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32), inner(length(max = 1024)))]
    pub config: BTreeMap<String, String>,
    /// What the operator may do with the topic.
    #[serde(default)]
    pub manage: TopicManagement,
}

impl Default for Topic {
    fn default() -> Self {
        Self {
            name: None,
            partitions: None,
            replication_factor: three(),
            retention: one_day(),
            config: BTreeMap::new(),
            manage: TopicManagement::default(),
        }
    }
}

fn three() -> u32 {
    3
}
fn one_day() -> Duration {
    Duration::from("24h")
}

/// What the operator may do with the topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TopicManagement {
    /// Nothing.
    None,
    /// Create it when it is missing.
    #[default]
    Create,
    /// Create it, and add partitions when live-stores are added.
    CreateAndGrow,
}

/// TLS to the brokers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaTls {
    /// Certificates to trust (PEM); unset means those of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKey>,
    /// Secret with a client certificate in `tls.crt` and its key in `tls.key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_secret_ref: Option<NameRef>,
    /// Name that the brokers' certificates must bear.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
    /// Trust any certificate: for trials.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

/// Login to the brokers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.mechanism == 'OAUTHBEARER' ? has(self.tokenSecretRef) : true",
     "kafka.sasl.mechanism OAUTHBEARER needs kafka.sasl.tokenSecretRef"),
    ("self.mechanism in ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'] ? has(self.usernameSecretRef) && has(self.passwordSecretRef) : true",
     "this kafka.sasl.mechanism needs kafka.sasl.usernameSecretRef and kafka.sasl.passwordSecretRef"),
])))]
pub struct Sasl {
    /// How to log in.
    pub mechanism: SaslMechanism,
    /// User name, or the access key for AWS_MSK_IAM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username_secret_ref: Option<SecretKey>,
    /// Password, or the secret key for AWS_MSK_IAM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKey>,
    /// Token, for OAUTHBEARER.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKey>,
}

/// How to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SaslMechanism {
    /// Name and password as they are.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Name and password, shown by SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Name and password, shown by SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// A bearer token.
    #[serde(rename = "OAUTHBEARER")]
    OauthBearer,
    /// Amazon's identity management.
    #[serde(rename = "AWS_MSK_IAM")]
    AwsMskIam,
}

impl SaslMechanism {
    /// The name that Kafka knows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OauthBearer => "OAUTHBEARER",
            Self::AwsMskIam => "AWS_MSK_IAM",
        }
    }
}
