//! The status: what the operator found and does, and what a person can do about it.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stack::Mode;

/// A moment, to the second, as `2026-01-02T03:04:05Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct At(pub i64);

impl At {
    /// Seconds from `earlier` to this moment, none if it is not later.
    pub fn seconds_since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Timestamp::from_second(self.0) {
            Ok(moment) => write!(f, "{moment}"),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for At {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let moment: Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(moment.as_second()))
    }
}

impl JsonSchema for At {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "At".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "date-time"})
    }
}

impl From<i64> for At {
    fn from(seconds: i64) -> Self {
        Self(seconds)
    }
}

/// What the operator found and does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TempoStackStatus {
    /// Generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Mode in effect; that of the spec once a migration is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Versions.
    #[serde(default)]
    pub version: Versions,
    /// In one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// In one sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Labels of the live-stores' pods, for autoscalers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Live-stores and partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_store: Option<LiveStoreStatus>,
    /// Pods of each component.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub components: BTreeMap<String, ComponentStatus>,
    /// Kafka.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaStatus>,
    /// Where to send spans and queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
    /// A change of mode under way, or the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationStatus>,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Versions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Versions {
    /// Of the operator.
    pub operator: String,
    /// Of Tempo, in all its pods.
    pub tempo: String,
    /// Of Tempo, once a roll-out is complete.
    pub target: String,
}

/// The state in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Not there yet.
    Pending,
    /// All is as it shall be.
    Ready,
    /// On the way to a new spec, and serving.
    Progressing,
    /// Changing the mode, and serving.
    Migrating,
    /// Serving, with something amiss.
    Degraded,
    /// Not serving; the conditions tell why.
    Failed,
    /// Nothing is changed, as the spec says.
    Paused,
    /// No pods run, as the spec says.
    Stopped,
}

/// Live-stores and partitions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveStoreStatus {
    /// Live-stores of each zone.
    pub replicas: i32,
    /// Partitions by state.
    #[serde(default)]
    pub partitions: Partitions,
    /// Partitions on their way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
}

/// Partitions by state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Partitions {
    /// Take spans.
    pub active: u32,
    /// Wait for their owners.
    pub pending: u32,
    /// Are on their way out.
    pub inactive: u32,
}

/// Partitions on their way out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Live-stores of each zone when it began.
    pub from: u32,
    /// Live-stores of each zone when it is done.
    pub target: u32,
    /// Where it is.
    pub phase: DrainPhase,
    /// When this step began.
    #[serde(default)]
    pub phase_started_at: At,
    /// When the last of the partitions stopped taking spans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<At>,
    /// When block-builders had read all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caught_up_at: Option<At>,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Steps of a drain.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum DrainPhase {
    /// Partitions are told to take no more spans.
    Deactivate,
    /// Spans become blocks, and queries turn to them.
    Wait,
    /// Live-stores are told to leave for good.
    Prepare,
    /// Pods go, one zone after another.
    Shrink,
    /// Members forget the partitions.
    Forget,
    /// Live-stores that stay are told that they stay.
    Cancel,
}

/// Pods of a component.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ComponentStatus {
    /// How many there shall be.
    pub desired: u32,
    /// How many are ready.
    pub ready: u32,
    /// How many are of the present spec.
    pub updated: u32,
    /// Version of their image.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// Kafka.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KafkaStatus {
    /// Topic.
    pub topic: String,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Whether the brokers answer.
    pub reachable: bool,
}

/// Where to send spans and queries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoints {
    /// OTLP over gRPC.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub otlp_grpc: String,
    /// OTLP over HTTP.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub otlp_http: String,
    /// Queries.
    pub query: String,
}

/// A change of mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationStatus {
    /// Mode that is left.
    pub from: Mode,
    /// Mode that is gone to.
    pub to: Mode,
    /// Where it is.
    pub phase: MigrationPhase,
    /// Mode whose pods join blocks.
    pub compaction: Mode,
    /// When it began.
    pub started_at: At,
    /// When this phase began.
    pub phase_started_at: At,
    /// Since when the gate of this phase holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_open_since: Option<At>,
    /// Spans that the mode that is left had received when this was last looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_spans_received: Option<i64>,
    /// Generation of the spec that asked for it.
    pub generation: i64,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Steps of a change of mode.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum MigrationPhase {
    /// Storage, Kafka and Secrets are looked at; nothing is changed.
    Preflight,
    /// The monolith is seen by the other mode's queries, and not written to by it.
    Bridge,
    /// The pods of the mode that is gone to start; no compaction runs there.
    ProvisionTarget,
    /// Queries go to the mode that is gone to.
    ReadCutover,
    /// Spans go to the mode that is gone to.
    WriteCutover,
    /// What the mode that is left holds becomes blocks.
    DrainSource,
    /// Compaction ends in the mode that is left, and begins in the other.
    CompactionHandover,
    /// The pods of the mode that is left go.
    Retire,
    /// Done; volumes of the mode that was left are kept for a while.
    Completed,
}

/// A condition, as Kubernetes has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, and what to do, in a sentence.
    #[serde(default)]
    pub message: String,
    /// When `status` changed.
    pub last_transition_time: At,
    /// Generation of the spec that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
