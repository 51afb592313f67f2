//! The resource itself, and what holds for the stack as a whole.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::caches::Caches;
use super::certificates::InternalTls;
use super::components::Components;
use super::edges::{Exposure, GatewaySpec, NetworkPolicySpec, Receivers};
use super::kafka::Kafka;
use super::observability::Observability;
use super::rules::rules;
use super::schema::{Anything, Duration, NameRef};
use super::status::TempoStackStatus;
use super::storage::Storage;
use super::tenancy::{Limits, MetricsGenerator, Tenancy};

/// A tracing backend.
// Columns repeat the names of their settings.
#[allow(clippy::duplicated_attributes)]
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "tempostack.io",
    version = "v1alpha1",
    kind = "TempoStack",
    plural = "tempostacks",
    shortname = "tms",
    category = "observability",
    namespaced,
    status = "TempoStackStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A tracing backend: one pod, or a cluster of components around Kafka.",
    scale(
        spec_replicas_path = ".spec.components.liveStore.replicas",
        status_replicas_path = ".status.liveStore.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Mode", type_ = "string", json_path = ".status.mode"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.version.tempo"
    ),
    printcolumn(
        name = "Partitions",
        type_ = "integer",
        json_path = ".status.liveStore.partitions.active",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.mode != 'Microservices' || has(self.kafka)",
     "mode Microservices needs kafka: set kafka.bootstrapServers, or mode: Monolithic"),
    ("self.mode != 'Microservices' || !has(self.storage.local)",
     "mode Microservices needs storage that all pods reach: set storage.s3, storage.gcs or storage.azure in place of storage.local"),
    ("!has(self.kafka) || !has(self.kafka.topic.partitions) || !has(self.components.liveStore.replicas) || self.kafka.topic.partitions >= self.components.liveStore.replicas",
     "kafka.topic.partitions must be at least components.liveStore.replicas: each live-store of a zone owns one partition"),
    ("!has(self.components.blockBuilder.replicas) || !has(self.components.liveStore.replicas) || self.components.blockBuilder.replicas * self.components.blockBuilder.partitionsPerInstance >= self.components.liveStore.replicas",
     "components.blockBuilder.replicas times partitionsPerInstance must be at least components.liveStore.replicas, or some partitions never become blocks; drop replicas to let the operator choose"),
    ("!self.gateway.enabled || self.tenancy.enabled",
     "gateway.enabled needs tenancy.enabled: true, since the gateway names the tenant"),
    ("!self.gateway.enabled || !has(self.receivers.otlp.tls)",
     "gateway.enabled excludes receivers.otlp.tls: senders talk to the gateway; set gateway.tlsSecretRef"),
    ("duration(self.updateStrategy.drainWait) >= duration(self.timings.queryBackendAfter)",
     "updateStrategy.drainWait must be at least timings.queryBackendAfter, or recent spans of a drained partition are missing from searches"),
    ("duration(self.updateStrategy.drainWait) >= duration(self.timings.completeBlockTimeout)",
     "updateStrategy.drainWait must be at least timings.completeBlockTimeout"),
    ("duration(self.updateStrategy.drainWait) >= duration(self.timings.consumeCycle) + duration(self.timings.blocklistPoll)",
     "updateStrategy.drainWait must be at least timings.consumeCycle plus timings.blocklistPoll, or blocks of a drained partition are not seen yet"),
])))]
pub struct TempoStackSpec {
    /// One pod, or a cluster of components. Changing it moves a running stack without losing a
    /// span; see `migration`.
    #[serde(default)]
    pub mode: Mode,
    /// Fills in replicas and resources that are not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Image of Tempo; unset means the one that belongs to the operator.
    #[serde(default)]
    pub image: Image,
    /// Secrets to pull images with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<NameRef>,
    /// Change nothing in the cluster until this is false again; status goes on.
    #[serde(default)]
    pub paused: bool,
    /// Run no pods; volumes stay.
    #[serde(default)]
    pub stopped: bool,
    /// Where traces are kept.
    pub storage: Storage,
    /// The Kafka log between components; needed with mode Microservices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<Kafka>,
    /// Zones of the live-stores: each partition has an owner in each.
    #[serde(default)]
    pub zones: Zones,
    /// The pods of each component.
    #[serde(default)]
    pub components: Components,
    /// Protocols of spans that are received.
    #[serde(default)]
    pub receivers: Receivers,
    /// Times that depend on each other.
    #[serde(default)]
    pub timings: Timings,
    /// Limits of every tenant.
    #[serde(default)]
    pub limits: Limits,
    /// Tenants.
    #[serde(default)]
    pub tenancy: Tenancy,
    /// Metrics from spans.
    #[serde(default)]
    pub metrics_generator: MetricsGenerator,
    /// What all pods share of what was read from the object store.
    #[serde(default)]
    pub caches: Caches,
    /// Lets in those who may.
    #[serde(default)]
    pub gateway: GatewaySpec,
    /// How others reach the stack.
    #[serde(default)]
    pub exposure: Exposure,
    /// How the stack is watched.
    #[serde(default)]
    pub observability: Observability,
    /// Who the pods are.
    #[serde(default)]
    pub security: Security,
    /// Who may talk to the pods.
    #[serde(default)]
    pub network_policy: NetworkPolicySpec,
    /// The ServiceAccount of the pods.
    #[serde(default)]
    pub service_account: ServiceAccount,
    /// How a change of `mode` is carried out.
    #[serde(default)]
    pub migration: Migration,
    /// How pods are replaced and partitions drained.
    #[serde(default)]
    pub update_strategy: UpdateStrategy,
    /// Further keys of Tempo's configuration, laid over what the operator writes; lists are
    /// replaced. Keys that the operator answers for are refused.
    #[serde(default, skip_serializing_if = "Anything::is_empty")]
    pub extra_config: Anything,
}

/// How the components run.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Mode {
    /// All in one pod.
    #[default]
    Monolithic,
    /// Each in pods of its own, around Kafka.
    Microservices,
}

impl Mode {
    /// The name, as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Monolithic => "Monolithic",
            Self::Microservices => "Microservices",
        }
    }
}

/// Fills in replicas and resources that are not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// For a trial: nothing is reserved.
    Demo,
    /// Up to about 100 GB a day.
    Small,
    /// Up to about 500 GB a day.
    Medium,
    /// Up to about 2 TB a day.
    Large,
}

/// Image of Tempo.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Image {
    /// Registry and repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub repository: Option<String>,
    /// Tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = "^[A-Za-z0-9_][A-Za-z0-9._-]*$")
    )]
    pub tag: Option<String>,
    /// Digest; what is pulled when both are set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = "^sha256:[a-f0-9]{64}$"))]
    pub digest: Option<String>,
    /// When it is pulled; unset means the cluster's choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At each start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Never: the node has it.
    Never,
}

/// Zones of the live-stores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!has(self.names) || self.names.size() == 0 || has(self.topologyKey)",
     "zones.names needs zones.topologyKey: the label of nodes that bears these names"),
    ("!has(self.names) || self.names.size() == 0 || self.names.size() == self.count",
     "zones.names must have zones.count entries"),
])))]
pub struct Zones {
    /// Number of zones; two or more let a live-store restart without a gap in recent queries.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 5))]
    pub count: u32,
    /// Values of the label `topologyKey`, one per zone; empty means that zones are spread by
    /// anti-affinity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), inner(length(min = 1, max = 63)))]
    pub names: Vec<String>,
    /// Label of nodes that tells zones apart; unset means that nodes do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub topology_key: Option<String>,
}

fn one() -> u32 {
    1
}

impl Default for Zones {
    fn default() -> Self {
        Self {
            count: one(),
            names: Vec::new(),
            topology_key: None,
        }
    }
}

/// Times that depend on each other. The defaults are Tempo's; change them together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("duration(self.queryBackendAfter) >= duration(self.queryEndCutoff)",
     "timings.queryBackendAfter must be at least timings.queryEndCutoff"),
    ("duration(self.completeBlockTimeout) >= duration(self.blocklistPoll)",
     "timings.completeBlockTimeout must be at least timings.blocklistPoll, or traces vanish between live-store and block"),
])))]
pub struct Timings {
    /// Age at which spans are searched in blocks rather than in live-stores.
    pub query_backend_after: Duration,
    /// The end of a query is no later than this before now.
    pub query_end_cutoff: Duration,
    /// Time that a complete block stays searchable in the live-store.
    pub complete_block_timeout: Duration,
    /// Time between two rounds of a block-builder.
    pub consume_cycle: Duration,
    /// Time between looks for new blocks.
    pub blocklist_poll: Duration,
    /// How long a new partition's owners must have been there before spans are sent to it.
    pub min_partition_owners_duration: Duration,
    /// Lag behind Kafka at which a live-store is ready.
    pub readiness_target_lag: Duration,
    /// Longest time to wait for that.
    pub readiness_max_wait: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            query_backend_after: Duration::from("15m"),
            query_end_cutoff: Duration::from("30s"),
            complete_block_timeout: Duration::from("20m"),
            consume_cycle: Duration::from("5m"),
            blocklist_poll: Duration::from("5m"),
            min_partition_owners_duration: Duration::from("10s"),
            readiness_target_lag: Duration::from("30s"),
            readiness_max_wait: Duration::from("2m"),
        }
    }
}

/// Who the pods are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Security {
    /// User of the processes; unset means 10001. Set `openshift: true` where the cluster chooses.
    #[schemars(range(min = 1))]
    pub run_as_user: i64,
    /// Group that owns the volumes.
    #[schemars(range(min = 1))]
    pub fs_group: i64,
    /// Let the cluster choose user and group, as OpenShift does.
    pub openshift: bool,
    /// TLS between components, and of queries; unset means none.
    #[serde(rename = "internalTLS", skip_serializing_if = "Option::is_none")]
    pub internal_tls: Option<InternalTls>,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            run_as_user: 10_001,
            fs_group: 10_001,
            openshift: false,
            internal_tls: None,
        }
    }
}

/// The ServiceAccount of the pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.create || has(self.name)", "serviceAccount.create: false needs serviceAccount.name of one that exists"),
])))]
pub struct ServiceAccount {
    /// Name; unset means `tempo-<name>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Annotations, for a cloud's workload identity.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32), inner(length(max = 4096)))]
    pub annotations: BTreeMap<String, String>,
    /// Whether the operator makes it.
    pub create: bool,
}

impl Default for ServiceAccount {
    fn default() -> Self {
        Self {
            name: None,
            annotations: BTreeMap::new(),
            create: true,
        }
    }
}

/// How a change of `mode` is carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Migration {
    /// How recent spans stay visible meanwhile.
    pub strategy: MigrationStrategy,
    /// How long the monolith's StatefulSet is kept, without a pod, after Microservices took over;
    /// when it goes, its volume goes or stays by `components.monolith.storage.retentionPolicy`.
    pub keep_source_volumes_for: Duration,
    /// How long the mode that is left must have received no span before it is drained.
    pub write_quiet_period: Duration,
}

impl Default for Migration {
    fn default() -> Self {
        Self {
            strategy: MigrationStrategy::Bridged,
            keep_source_volumes_for: Duration::from("24h"),
            write_quiet_period: Duration::from("60s"),
        }
    }
}

/// How recent spans stay visible during a migration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MigrationStrategy {
    /// The monolith joins the other mode's members under a partition of its own, so that queries
    /// of either see all: no gap.
    #[default]
    Bridged,
}

/// How pods are replaced and partitions drained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateStrategy {
    /// Live-stores of one zone that may be replaced at once, as a number or a share.
    #[schemars(length(min = 1, max = 8), regex(pattern = "^[0-9]+%?$"))]
    pub live_store_max_unavailable: String,
    /// How long a partition takes no spans before its live-store may go.
    pub drain_wait: Duration,
}

impl Default for UpdateStrategy {
    fn default() -> Self {
        Self {
            live_store_max_unavailable: "1".to_owned(),
            drain_wait: Duration::from("35m"),
        }
    }
}
