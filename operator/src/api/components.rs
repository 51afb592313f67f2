//! `components`: the pods of each component.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::rules;
use super::schema::{Anything, Items};
use super::storage::QUANTITY;

/// The pods of each component.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Components {
    /// What holds for every component that says nothing else.
    pub defaults: Component,
    /// The one pod of mode Monolithic.
    pub monolith: Singleton,
    /// Receives spans.
    pub distributor: Component,
    /// Holds recent traces; each zone has as many as `replicas`, and each is a partition.
    pub live_store: LiveStore,
    /// Builds blocks from Kafka.
    pub block_builder: BlockBuilder,
    /// Does the work of queries.
    pub querier: Component,
    /// Takes queries.
    pub query_frontend: QueryFrontend,
    /// Plans compaction and retention; there is one.
    pub backend_scheduler: Singleton,
    /// Does compaction and retention.
    pub backend_worker: Component,
    /// Makes metrics from spans.
    pub metrics_generator: Component,
    /// Lets in those who may.
    pub gateway: Gateway,
    /// Keeps what was read from the object store.
    pub memcached: Memcached,
}

/// The pods of a component.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!(has(self.replicas) && has(self.autoscaling))",
     "set either replicas or autoscaling: two can't decide on one number"),
])))]
pub struct Component {
    /// How many; unset means what `size` says, else the component's own number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 500))]
    pub replicas: Option<u32>,
    /// CPU and memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels that a node must bear.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32), inner(length(max = 63)))]
    pub node_selector: BTreeMap<String, String>,
    /// Affinity, as in a pod; replaces the operator's own.
    #[serde(default, skip_serializing_if = "Anything::is_empty")]
    pub affinity: Anything,
    /// Tolerations, as in a pod.
    #[serde(default, skip_serializing_if = "Items::is_empty")]
    pub tolerations: Items,
    /// Spread over nodes and zones, as in a pod.
    #[serde(default, skip_serializing_if = "Items::is_empty")]
    pub topology_spread_constraints: Items,
    /// Priority class.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), inner(length(max = 4096)))]
    pub pod_annotations: BTreeMap<String, String>,
    /// Labels of the pods; the operator's own can't be replaced.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), inner(length(max = 63)))]
    pub pod_labels: BTreeMap<String, String>,
    /// Environment variables, as in a container.
    #[serde(default, skip_serializing_if = "Items::is_empty")]
    pub env: Items,
    /// Sources of environment variables, as in a container.
    #[serde(default, skip_serializing_if = "Items::is_empty")]
    pub env_from: Items,
    /// Further volumes, as in a pod.
    #[serde(default, skip_serializing_if = "Items::is_empty")]
    pub volumes: Items,
    /// Where they are mounted, as in a container.
    #[serde(default, skip_serializing_if = "Items::is_empty")]
    pub volume_mounts: Items,
    /// Further arguments of the process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024)))]
    pub extra_args: Vec<String>,
    /// Time to finish before the process is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub termination_grace_period_seconds: Option<u32>,
    /// Security context of the container, as in a container; laid over the operator's own.
    #[serde(default, skip_serializing_if = "Anything::is_empty")]
    pub security_context: Anything,
    /// Laid over the pod template last of all, as `kubectl patch --type=strategic` would:
    /// containers and volumes are matched by name. Name, selector labels and ServiceAccount stay.
    #[serde(default, skip_serializing_if = "Anything::is_empty")]
    pub pod_template: Anything,
    /// The volume for data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<ComponentStorage>,
    /// Let a HorizontalPodAutoscaler choose the number; not for what holds partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
}

/// CPU and memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What a node must have free.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16), inner(length(max = 32), regex(pattern = QUANTITY)))]
    pub requests: BTreeMap<String, String>,
    /// What may be used at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16), inner(length(max = 32), regex(pattern = QUANTITY)))]
    pub limits: BTreeMap<String, String>,
}

/// The volume for data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!(has(self.emptyDir) && (has(self.size) || has(self.storageClassName)))",
     "set either storage.emptyDir, or size and storageClassName of a volume that stays"),
    ("!has(self.size) || !has(oldSelf.size) || quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
     "storage.size can't shrink: volumes of Kubernetes only grow"),
])))]
pub struct ComponentStorage {
    /// Size of a volume that stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = QUANTITY))]
    pub size: Option<String>,
    /// Class of that volume; unset means the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// A volume that goes with the pod instead, as in a pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<Anything>,
    /// What becomes of volumes that are not used any more.
    #[serde(default)]
    pub retention_policy: VolumeRetention,
}

/// What becomes of volumes that are not used any more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeRetention {
    /// When there are fewer pods.
    pub when_scaled: RetentionPolicy,
    /// When the stack is deleted.
    pub when_deleted: RetentionPolicy,
}

/// What becomes of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RetentionPolicy {
    /// It stays.
    #[default]
    Retain,
    /// It is deleted.
    Delete,
}

/// Lets a HorizontalPodAutoscaler choose the number of pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.maxReplicas >= self.minReplicas",
     "autoscaling.maxReplicas must not be below autoscaling.minReplicas"),
    ("!(has(self.targetCPUUtilization) && has(self.targetOutstandingBlocks))",
     "set either autoscaling.targetCPUUtilization or autoscaling.targetOutstandingBlocks"),
])))]
pub struct Autoscaling {
    /// Fewest pods.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 500))]
    pub min_replicas: u32,
    /// Most pods.
    #[schemars(range(min = 1, max = 500))]
    pub max_replicas: u32,
    /// Used share of the requested CPU to aim at, in percent; unset means 70.
    #[serde(
        rename = "targetCPUUtilization",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 1, max = 100))]
    pub target_cpu_utilization: Option<u32>,
    /// Blocks that wait for compaction per backend-worker to aim at; needs KEDA.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub target_outstanding_blocks: Option<u32>,
    /// Address of the Prometheus that KEDA asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub prometheus_address: Option<String>,
    /// How fast, as in a HorizontalPodAutoscaler.
    #[serde(default, skip_serializing_if = "Anything::is_empty")]
    pub behavior: Anything,
}

fn one() -> u32 {
    1
}

/// A component of which there is one pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!has(self.replicas) || self.replicas == 1",
     "there is exactly one of this component: drop replicas"),
    ("!has(self.autoscaling)",
     "there is exactly one of this component: drop autoscaling"),
])))]
pub struct Singleton {
    /// Its pod.
    #[serde(flatten)]
    pub pods: Component,
}

/// Live-stores: each zone has as many as `replicas`, and each is a partition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!has(self.autoscaling)",
     "live-stores hold partitions: let an autoscaler use the scale subresource of the TempoStack, which drains first"),
    ("!has(self.replicas) || self.replicas >= 1",
     "components.liveStore.replicas must be at least 1; to stop the stack set stopped: true"),
])))]
pub struct LiveStore {
    /// Their pods.
    #[serde(flatten)]
    pub pods: Component,
}

/// Block-builders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!has(self.autoscaling)",
     "block-builders follow the partitions: drop autoscaling"),
])))]
pub struct BlockBuilder {
    /// Their pods; without `replicas` there are as many as the partitions need.
    #[serde(flatten)]
    pub pods: Component,
    /// Partitions that each reads.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub partitions_per_instance: u32,
}

impl Default for BlockBuilder {
    fn default() -> Self {
        Self {
            pods: Component::default(),
            partitions_per_instance: 1,
        }
    }
}

/// Query-frontends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueryFrontend {
    /// Their pods.
    #[serde(flatten)]
    pub pods: Component,
    /// Offer traces to language models by the Model Context Protocol.
    #[serde(default)]
    pub mcp_server: bool,
    /// Traces that a search finds when it does not say how many.
    #[serde(default = "twenty")]
    #[schemars(range(min = 1, max = 262_144))]
    pub default_search_limit: u32,
    /// Longest time range of a search; unset means a week, `0` any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_search_duration: Option<super::Duration>,
}

fn twenty() -> u32 {
    20
}

impl Default for QueryFrontend {
    fn default() -> Self {
        Self {
            pods: Component::default(),
            mcp_server: false,
            default_search_limit: twenty(),
            max_search_duration: None,
        }
    }
}

/// The pods of memcached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!has(self.autoscaling)",
     "with another number of pods much of what memcached keeps is lost: set components.memcached.replicas"),
])))]
pub struct Memcached {
    /// Their pods.
    #[serde(flatten)]
    pub pods: Component,
}

/// The gateway's pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Its pods.
    #[serde(flatten)]
    pub pods: Component,
}
