//! What was observed of a stack: workloads, pods, partitions, Kafka.

use std::collections::BTreeMap;

use crate::api::At;
use crate::topology::Component;

use super::KafkaProblem;

/// What was observed.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Now.
    pub now: At,
    /// Deployments and StatefulSets of the stack by name.
    pub workloads: BTreeMap<String, Workload>,
    /// Pods of the stack.
    pub pods: Vec<Pod>,
    /// Partitions, as members tell; `None` when no member answered.
    pub ring: Option<Vec<Partition>>,
    /// Live-stores that answered whether they leave for good, by pod.
    pub leaving: BTreeMap<String, bool>,
    /// Kafka; `None` when it was not asked.
    pub kafka: Option<KafkaView>,
    /// The monolith, during a change of mode.
    pub monolith: Option<MonolithView>,
    /// Spans that distributors of the cluster have received; `None` when not all answered.
    pub cluster_spans_received: Option<i64>,
    /// Image of Tempo that the spec asks for.
    pub image: String,
}

/// A Deployment or StatefulSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Component of its pods.
    pub component: Option<Component>,
    /// Pods that it shall have.
    pub replicas: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// Pods of the present spec.
    pub updated: u32,
    /// Pods of any spec that there are.
    pub pods: u32,
    /// Whether its controller has seen the present spec.
    pub current: bool,
    /// Hash of the present spec, of a StatefulSet.
    pub revision: String,
    /// Image of the first container.
    pub image: String,
}

impl Workload {
    /// Whether all pods are of the present spec and ready, and those of the old one are gone.
    pub fn is_rolled_out(&self) -> bool {
        self.current
            && self.updated >= self.replicas
            && self.ready >= self.replicas
            && self.pods <= self.updated
    }
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its component.
    pub component: Option<Component>,
    /// Zone of a live-store, counted from 0.
    pub zone: Option<usize>,
    /// Number at the end of its name, of a StatefulSet.
    pub ordinal: Option<u32>,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is on its way out.
    pub terminating: bool,
    /// Hash of the spec that it was made from, of a StatefulSet.
    pub revision: String,
    /// Whether it runs Tempo.
    pub is_tempo: bool,
    /// Why it does not start, if it does not.
    pub trouble: Option<String>,
}

/// State of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionState {
    /// Waits for its owners.
    Pending,
    /// Takes spans.
    Active,
    /// Takes no more spans.
    Inactive,
}

/// A partition of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub id: u32,
    /// Its state.
    pub state: PartitionState,
    /// Since when.
    pub since: At,
    /// Live-stores that own it.
    pub owners: Vec<String>,
}

/// The partition under which a monolith takes part in a cluster: above any of a topic.
pub const BRIDGE_PARTITION_ID: u32 = 9999;
/// Partitions of a topic are below.
pub(super) const BRIDGE_PARTITION: u32 = 1000;

/// Kafka.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaView {
    /// Why it does not answer, if it does not.
    pub problem: Option<KafkaProblem>,
    /// Partitions of the topic, if it exists.
    pub topic_partitions: Option<u32>,
    /// Records that block-builders (and metrics-generators, where there are some) have not read,
    /// by partition; a partition that nobody knows of is not in it.
    pub lag: BTreeMap<u32, u64>,
}

/// The monolith, during a change of mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonolithView {
    /// Whether it can take part in a cluster; `None` when it did not answer.
    pub can_bridge: Option<bool>,
    /// Whether its partition takes no spans of others.
    pub inactive: bool,
    /// Whether it leaves for good when it stops.
    pub leaves: bool,
    /// Blocks and traces that are not in the object store yet.
    pub unflushed: Option<u64>,
    /// Blocks that queries still look for there, although they are in the object store: processes of
    /// the cluster turn to blocks together, and some are behind. `None` when it does not tell.
    pub needed: Option<u64>,
    /// Spans that it has received.
    pub spans_received: Option<i64>,
}

impl Observed {
    /// Live-stores of the cluster.
    pub fn live_stores(&self) -> impl Iterator<Item = &Pod> {
        self.pods
            .iter()
            .filter(|pod| pod.component == Some(Component::LiveStore))
    }

    /// Live-stores of this number, that are not on their way out.
    pub fn owners_of(&self, id: u32) -> impl Iterator<Item = &Pod> {
        self.live_stores()
            .filter(move |pod| pod.ordinal == Some(id) && !pod.terminating)
    }

    /// Partitions of the cluster: without that of a monolith.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.ring
            .iter()
            .flatten()
            .filter(|partition| partition.id < BRIDGE_PARTITION)
    }

    /// A partition.
    pub fn partition(&self, id: u32) -> Option<&Partition> {
        self.partitions().find(|partition| partition.id == id)
    }

    /// Partitions from 0 to the last that holds data.
    pub fn ring_size(&self) -> Option<u32> {
        self.ring.as_ref()?;
        Some(
            self.partitions()
                .filter(|partition| partition.state != PartitionState::Pending)
                .map(|partition| partition.id + 1)
                .max()
                .unwrap_or(0),
        )
    }
}
