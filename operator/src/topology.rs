//! What shall run: the components, their names, and how many of each at this moment.
//!
//! Owns the shape that planning decides on and manifests are made from. Names here are identity:
//! the name of a live-store's StatefulSet is its Kafka consumer group, and the number of its pod
//! is its partition, so neither may ever change for a stack.

use std::collections::BTreeMap;

use crate::api::{Mode, TempoStack};

/// Most zones; each has a letter.
pub const ZONE_LETTERS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// The components.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// All in one.
    Monolith,
    /// Receives spans.
    Distributor,
    /// Holds recent traces.
    LiveStore,
    /// Builds blocks from Kafka.
    BlockBuilder,
    /// Does the work of queries.
    Querier,
    /// Takes queries.
    QueryFrontend,
    /// Plans compaction.
    BackendScheduler,
    /// Does compaction.
    BackendWorker,
    /// Makes metrics from spans.
    MetricsGenerator,
    /// Lets in those who may.
    Gateway,
    /// Keeps what was read from the object store.
    Memcached,
}

impl Component {
    /// The components of mode Microservices that are Tempo's, in the order of an upgrade: who is
    /// asked before who asks (a job of a kind that is not known fails its query), consumers before
    /// producers.
    pub const UPGRADE_ORDER: [Self; 8] = [
        Self::LiveStore,
        Self::Querier,
        Self::QueryFrontend,
        Self::BackendWorker,
        Self::BackendScheduler,
        Self::BlockBuilder,
        Self::MetricsGenerator,
        Self::Distributor,
    ];

    /// Components that are others' programs.
    pub const OTHERS: [Self; 2] = [Self::Gateway, Self::Memcached];

    /// Whether its program is Tempo.
    pub fn is_tempo(self) -> bool {
        !Self::OTHERS.contains(&self)
    }

    /// The value of `-target`, and of the label `app.kubernetes.io/component`.
    pub fn target(self) -> &'static str {
        match self {
            Self::Monolith => "all",
            Self::Distributor => "distributor",
            Self::LiveStore => "live-store",
            Self::BlockBuilder => "block-builder",
            Self::Querier => "querier",
            Self::QueryFrontend => "query-frontend",
            Self::BackendScheduler => "backend-scheduler",
            Self::BackendWorker => "backend-worker",
            Self::MetricsGenerator => "metrics-generator",
            Self::Gateway => "gateway",
            Self::Memcached => "memcached",
        }
    }

    /// What follows `tempo-<name>-` in names of its objects.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Monolith => "monolith",
            other => other.target(),
        }
    }

    /// The key below `spec.components`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Monolith => "monolith",
            Self::Distributor => "distributor",
            Self::LiveStore => "liveStore",
            Self::BlockBuilder => "blockBuilder",
            Self::Querier => "querier",
            Self::QueryFrontend => "queryFrontend",
            Self::BackendScheduler => "backendScheduler",
            Self::BackendWorker => "backendWorker",
            Self::MetricsGenerator => "metricsGenerator",
            Self::Gateway => "gateway",
            Self::Memcached => "memcached",
        }
    }

    /// Whether its pods are of a StatefulSet.
    pub fn is_stateful(self) -> bool {
        matches!(
            self,
            Self::Monolith
                | Self::LiveStore
                | Self::BlockBuilder
                | Self::BackendScheduler
                | Self::BackendWorker
                | Self::MetricsGenerator
                | Self::Memcached
        )
    }
}

/// Names of a stack's objects.
#[derive(Clone, Debug)]
pub struct Names {
    stack: String,
    /// Namespace of the stack.
    pub namespace: String,
}

impl Names {
    /// The names of this stack's objects.
    pub fn of(stack: &TempoStack) -> Self {
        Self {
            stack: stack.metadata.name.clone().unwrap_or_default(),
            namespace: stack
                .metadata
                .namespace
                .clone()
                .unwrap_or_else(|| "default".to_owned()),
        }
    }
    /// Name of the stack.
    pub fn stack(&self) -> &str {
        &self.stack
    }
    /// Name of what belongs to the stack as a whole.
    pub fn shared(&self) -> String {
        format!("tempo-{}", self.stack)
    }
    /// A name with this end.
    pub fn with(&self, suffix: &str) -> String {
        format!("tempo-{}-{suffix}", self.stack)
    }
    /// Name of a component's workload and Service.
    pub fn component(&self, component: Component) -> String {
        self.with(component.suffix())
    }
    /// Name of a zone's live-stores; zones are counted from 0.
    pub fn live_store(&self, zone: usize) -> String {
        let letter = ZONE_LETTERS.get(zone).copied().unwrap_or("a");
        self.with(&format!("live-store-zone-{letter}"))
    }
    /// A host name within the cluster.
    pub fn host(&self, service: &str) -> String {
        format!("{service}.{}.svc", self.namespace)
    }
    /// Kafka topic.
    pub fn topic(&self, stack: &TempoStack) -> String {
        stack
            .spec
            .kafka
            .as_ref()
            .and_then(|kafka| kafka.topic.name.clone())
            .unwrap_or_else(|| format!("tempo-{}-{}", self.namespace, self.stack))
    }
    /// Name of the gossip cluster: stacks with different ones never merge.
    pub fn cluster_label(&self) -> String {
        format!("{}/{}", self.namespace, self.stack)
    }
}

/// The pods of mode Monolithic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonolithShape {
    /// 0 or 1.
    pub replicas: u32,
    /// Whether it joins blocks; never in two places at once.
    pub compaction: bool,
}

/// The pods of mode Microservices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterShape {
    /// Live-stores of each zone.
    pub live_stores: Vec<u32>,
    /// Block-builders.
    pub block_builders: u32,
    /// 0 or 1 backend-scheduler.
    pub schedulers: u32,
    /// Whether backend-workers run.
    pub workers: bool,
    /// Whether the other components run.
    pub others: bool,
}

/// What shall run now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The one pod.
    pub monolith: Option<MonolithShape>,
    /// The cluster.
    pub cluster: Option<ClusterShape>,
    /// Whose pods the Service for queries leads to.
    pub reads: Mode,
    /// Whose pods the Service for spans leads to.
    pub writes: Mode,
    /// Images of components that may not have the new one yet.
    pub held_images: BTreeMap<Component, String>,
}

impl Topology {
    /// A stack that is neither migrating nor scaling.
    pub fn settled(stack: &TempoStack) -> Self {
        let running = !stack.spec.stopped;
        match stack.spec.mode {
            Mode::Monolithic => Self {
                monolith: Some(MonolithShape {
                    replicas: u32::from(running),
                    compaction: true,
                }),
                cluster: None,
                reads: Mode::Monolithic,
                writes: Mode::Monolithic,
                held_images: BTreeMap::new(),
            },
            Mode::Microservices => {
                let live_stores = if running {
                    live_store_replicas(stack)
                } else {
                    0
                };
                let builders = if running {
                    block_builder_replicas(stack, live_stores)
                } else {
                    0
                };
                Self {
                    monolith: None,
                    cluster: Some(ClusterShape {
                        live_stores: vec![live_stores; zone_count(stack)],
                        block_builders: builders,
                        schedulers: u32::from(running),
                        workers: running,
                        others: running,
                    }),
                    reads: Mode::Microservices,
                    writes: Mode::Microservices,
                    held_images: BTreeMap::new(),
                }
            }
        }
    }
}

/// Zones of the spec.
pub fn zone_count(stack: &TempoStack) -> usize {
    (stack.spec.zones.count as usize).clamp(1, ZONE_LETTERS.len())
}

/// Live-stores of each zone that the spec asks for.
pub fn live_store_replicas(stack: &TempoStack) -> u32 {
    crate::settings::replicas(stack, Component::LiveStore)
}

/// Block-builders for so many partitions, unless the spec names more.
pub fn block_builder_replicas(stack: &TempoStack, partitions: u32) -> u32 {
    let per_instance = stack
        .spec
        .components
        .block_builder
        .partitions_per_instance
        .max(1);
    let needed = partitions.div_ceil(per_instance);
    stack
        .spec
        .components
        .block_builder
        .pods
        .replicas
        .unwrap_or(0)
        .max(needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_names_fit_a_label() {
        let mut stack = TempoStack::default();
        stack.metadata.name = Some("a".repeat(crate::api::MAX_NAME_LENGTH));
        let names = Names::of(&stack);
        // Kubernetes appends a dash and a hash of ten characters for controller-revision-hash.
        assert!(
            names.live_store(4).len() + 11 <= 63,
            "{}",
            names.live_store(4)
        );
        assert!(names.with("query-frontend-discovery").len() <= 63);
        assert_eq!(
            names.live_store(1).len() - 28,
            "tempo--live-store-zone-b".len()
        );
    }
}
