//! What to do next: a pure function of the spec, of what was observed, and of the last status.
//!
//! Long operations (draining partitions, changing the mode) are steps kept in the status, so that
//! an operator that was killed goes on where it was. Every action may be repeated. Must never ask
//! anyone, and never look at a clock.

mod live_stores;
mod migration;
mod observed;
mod rollout;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use crate::api::{At, Drain, MigrationStatus, Mode, TempoStack, TopicManagement};
use crate::topology::{
    ClusterShape, MonolithShape, Topology, block_builder_replicas, live_store_replicas, zone_count,
};

pub use observed::{
    BRIDGE_PARTITION_ID, KafkaView, MonolithView, Observed, Partition, PartitionState, Pod,
    Workload,
};

/// Something to do outside the API of Kubernetes, or to a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Create the topic with so many partitions.
    CreateTopic {
        /// Partitions.
        partitions: u32,
    },
    /// Add partitions to the topic until there are so many.
    GrowTopic {
        /// Partitions.
        partitions: u32,
    },
    /// Tell the partition of this pod to take no more spans.
    Deactivate {
        /// The pod.
        pod: String,
    },
    /// Tell the partition of this pod to take spans again.
    Reactivate {
        /// The pod.
        pod: String,
    },
    /// Tell this pod that it leaves for good when it stops.
    PrepareDownscale {
        /// The pod.
        pod: String,
    },
    /// Tell this pod that it stays.
    CancelDownscale {
        /// The pod.
        pod: String,
    },
    /// Tell this pod to bring all that it holds to the object store.
    Flush {
        /// The pod.
        pod: String,
    },
    /// Replace this pod by one of the present spec.
    DeletePod {
        /// The pod.
        pod: String,
    },
}

/// Something that a person should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether something is amiss.
    pub warning: bool,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, and what to do.
    pub message: String,
}

impl Note {
    fn normal(reason: &'static str, message: String) -> Self {
        Self {
            warning: false,
            reason,
            message,
        }
    }
    fn warning(reason: &'static str, message: String) -> Self {
        Self {
            warning: true,
            reason,
            message,
        }
    }
}

/// Why Kafka is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaProblem {
    /// Reason of the condition.
    pub reason: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What to do next.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What shall run.
    pub topology: Topology,
    /// What to do beside applying that, in this order.
    pub actions: Vec<Action>,
    /// Mode in effect.
    pub mode: Mode,
    /// Live-stores of each zone, for the scale subresource.
    pub live_stores: u32,
    /// Partitions on their way out.
    pub drain: Option<Drain>,
    /// A change of mode.
    pub migration: Option<MigrationStatus>,
    /// Why a change of mode does not go on.
    pub blocked: Option<String>,
    /// What is amiss with Kafka.
    pub kafka: Option<KafkaProblem>,
    /// What a person should hear of.
    pub notes: Vec<Note>,
    /// What is under way: reason and message.
    pub progress: Option<(&'static str, String)>,
    /// Whether recent queries fail now, and why.
    pub recent_reads: Option<String>,
    /// When to look again at the latest.
    pub look_again_secs: u64,
}

/// Time between looks while something is under way.
const BUSY_SECS: u64 = 5;
/// Time between looks while all is as it shall be.
const IDLE_SECS: u64 = 600;

/// Decides what to do next.
pub fn plan(stack: &TempoStack, observed: &Observed) -> Plan {
    let status = stack.status.clone().unwrap_or_default();
    let mode = mode_in_effect(stack, observed);
    let mut plan = Plan {
        topology: Topology::settled(stack),
        actions: Vec::new(),
        mode,
        live_stores: 0,
        drain: status
            .live_store
            .as_ref()
            .and_then(|live| live.drain.clone()),
        migration: status.migration.clone(),
        blocked: None,
        kafka: None,
        notes: Vec::new(),
        progress: None,
        recent_reads: None,
        look_again_secs: IDLE_SECS,
    };
    if stack.spec.stopped && !migration::is_under_way(plan.migration.as_ref()) {
        stop(stack, observed, &mut plan);
        return plan;
    }
    migration::advance(stack, observed, &mut plan);
    if plan.topology.cluster.is_some() {
        live_stores::plan(stack, observed, &mut plan);
    } else {
        plan.drain = None;
    }
    rollout::plan(stack, observed, &mut plan);
    if plan.drain.is_some()
        || migration::is_under_way(plan.migration.as_ref())
        || !plan.actions.is_empty()
        || plan.kafka.is_some()
        || plan.progress.is_some()
    {
        plan.look_again_secs = BUSY_SECS;
    }
    plan
}

/// No pods; what holds data comes down last.
fn stop(stack: &TempoStack, observed: &Observed, plan: &mut Plan) {
    let mut topology = topology_of(stack, plan.mode);
    let zones = zone_count(stack);
    if let Some(monolith) = &mut topology.monolith {
        monolith.replicas = 0;
    }
    if let Some(cluster) = &mut topology.cluster {
        *cluster = ClusterShape {
            live_stores: vec![0; zones],
            block_builders: 0,
            schedulers: 0,
            workers: false,
            others: false,
        };
    }
    plan.topology = topology;
    plan.live_stores = 0;
    if observed.pods.iter().any(|pod| pod.is_tempo) {
        plan.progress = Some(("Stopping", "pods are stopping".to_owned()));
        plan.look_again_secs = BUSY_SECS;
    }
}

/// The mode whose pods serve: that of the status, or what pods there are when it was lost.
fn mode_in_effect(stack: &TempoStack, observed: &Observed) -> Mode {
    if let Some(mode) = stack.status.as_ref().and_then(|status| status.mode) {
        return mode;
    }
    let names = crate::topology::Names::of(stack);
    let runs = |name: &str| {
        observed
            .workloads
            .get(name)
            .is_some_and(|workload| workload.replicas > 0)
    };
    use crate::topology::Component;
    if runs(&names.component(Component::BackendScheduler)) {
        Mode::Microservices
    } else if runs(&names.component(Component::Monolith)) {
        Mode::Monolithic
    } else {
        stack.spec.mode
    }
}

/// All of one mode, and nothing of the other.
fn topology_of(stack: &TempoStack, mode: Mode) -> Topology {
    let settled = Topology::settled(stack);
    if stack.spec.mode == mode {
        return settled;
    }
    Topology {
        monolith: (mode == Mode::Monolithic).then_some(MonolithShape {
            replicas: 1,
            compaction: true,
        }),
        cluster: (mode == Mode::Microservices).then(|| cluster(stack, true)),
        reads: mode,
        writes: mode,
        held_images: settled.held_images,
    }
}

/// All pods of the cluster; without `compaction` those that join blocks are left out.
fn cluster(stack: &TempoStack, compaction: bool) -> ClusterShape {
    let replicas = live_store_replicas(stack);
    ClusterShape {
        live_stores: vec![replicas; zone_count(stack)],
        block_builders: block_builder_replicas(stack, replicas),
        schedulers: u32::from(compaction),
        workers: compaction,
        others: true,
    }
}

/// Partitions that the topic must have.
fn wanted_partitions(stack: &TempoStack) -> u32 {
    let live_stores = live_store_replicas(stack);
    stack
        .spec
        .kafka
        .as_ref()
        .and_then(|kafka| kafka.topic.partitions)
        .map_or(live_stores, |partitions| partitions.max(live_stores))
}

/// Partitions that live-stores can own now, after what can be done about it; what is wrong goes
/// into the plan. `None` while nobody knows.
fn usable_partitions(stack: &TempoStack, observed: &Observed, plan: &mut Plan) -> Option<u32> {
    let manage = stack
        .spec
        .kafka
        .as_ref()
        .map(|kafka| kafka.topic.manage)
        .unwrap_or_default();
    let wanted = wanted_partitions(stack);
    let needed = live_store_replicas(stack);
    let name = crate::topology::Names::of(stack).topic(stack);
    let view = observed.kafka.as_ref()?;
    if let Some(problem) = &view.problem {
        plan.kafka = Some(problem.clone());
        return None;
    }
    match view.topic_partitions {
        Some(partitions) if partitions >= needed => {
            if partitions < wanted && manage == TopicManagement::CreateAndGrow {
                plan.actions.push(Action::GrowTopic { partitions: wanted });
            }
            Some(partitions)
        }
        Some(partitions) => {
            if manage == TopicManagement::CreateAndGrow {
                plan.actions.push(Action::GrowTopic { partitions: wanted });
            }
            plan.kafka = Some(KafkaProblem {
                reason: "TopicTooSmall",
                message: format!(
                    "topic {name:?} has {partitions} partitions, and {needed} live-stores need one each; {}",
                    if manage == TopicManagement::CreateAndGrow {
                        "partitions are being added"
                    } else {
                        "add partitions, or set kafka.topic.manage: CreateAndGrow"
                    }
                ),
            });
            Some(partitions)
        }
        None => {
            if manage != TopicManagement::None {
                plan.actions
                    .push(Action::CreateTopic { partitions: wanted });
            }
            plan.kafka = Some(KafkaProblem {
                reason: "TopicMissing",
                message: format!(
                    "topic {name:?} does not exist; {}",
                    if manage == TopicManagement::None {
                        "create it, or set kafka.topic.manage: Create"
                    } else {
                        "it is being created"
                    }
                ),
            });
            None
        }
    }
}

/// Whether so much time has passed.
fn has_passed(now: At, since: Option<At>, seconds: u64) -> bool {
    since.is_some_and(|since| now.seconds_since(since) >= seconds)
}
