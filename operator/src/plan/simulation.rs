//! Planning against a model of a cluster: random edits, faults and crashes of the operator, and
//! what must hold after every step.
//!
//! The model is simple where planning does not look (pods start, stop and crash by themselves),
//! and exact where data can be lost: who owns a partition, what block-builders have read, what
//! the monolith has not flushed, who joins blocks.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::observed::BRIDGE_PARTITION;
use super::*;
use crate::api::{LiveStoreStatus, MigrationPhase, TempoStackStatus, check};
use crate::topology::{Component, Names};

const DELETE_AFTER_SECS: u64 = 1800;
const STEPS: u32 = 60;
/// Looks that a stack needs at most to come to rest without faults.
const SETTLE_LOOKS: u32 = 2500;

#[derive(Clone, Debug)]
struct SimWorkload {
    component: Component,
    zone: Option<usize>,
    replicas: u32,
    revision: u32,
    image: String,
    compaction: bool,
}

#[derive(Clone, Debug)]
struct SimPod {
    component: Component,
    workload: String,
    zone: Option<usize>,
    ordinal: u32,
    ready_at: i64,
    gone_at: Option<i64>,
    revision: u32,
    compaction: bool,
}

#[derive(Clone, Debug)]
struct SimPartition {
    state: PartitionState,
    since: i64,
}

struct World {
    random: StdRng,
    now: i64,
    stack: TempoStack,
    names: Names,
    workloads: BTreeMap<String, SimWorkload>,
    pods: BTreeMap<String, SimPod>,
    partitions: BTreeMap<u32, SimPartition>,
    /// Volumes that bear the note that their live-store leaves for good.
    notes: BTreeSet<String>,
    topic: Option<u32>,
    lag: BTreeMap<u32, u64>,
    kafka_works: bool,
    reads: Mode,
    writes: Mode,
    writes_since: i64,
    monolith_inactive: bool,
    unflushed: u64,
    flushed: bool,
    /// Until then queries look in the monolith for what it has flushed.
    needed_until: i64,
    monolith_spans: i64,
    cluster_spans: i64,
    image: String,
    faults: bool,
    history: Vec<String>,
    seen: Seen,
}

/// What happened, so that a simulation in which nothing does is noticed.
#[derive(Clone, Copy, Default)]
struct Seen {
    migrations: u32,
    turned_back: u32,
    drains: u32,
    replaced: u32,
}

fn sample() -> TempoStack {
    static SAMPLE: std::sync::OnceLock<TempoStack> = std::sync::OnceLock::new();
    let mut stack = SAMPLE
        .get_or_init(|| {
            check::load(include_str!("../../../crds/samples/production.yaml"))
                .unwrap()
                .remove(0)
        })
        .clone();
    stack.spec.components.live_store.pods.replicas = Some(2);
    stack.spec.kafka.as_mut().unwrap().topic.partitions = None;
    stack.metadata.generation = Some(1);
    stack
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut stack = sample();
        stack.spec.zones.names.clear();
        stack.spec.zones.count = random.random_range(1..=2);
        if random.random_bool(0.5) {
            stack.spec.mode = Mode::Monolithic;
        }
        stack.spec.components.live_store.pods.replicas = Some(random.random_range(1..=4));
        stack.spec.components.block_builder.partitions_per_instance = random.random_range(1..=2);
        Self {
            now: 1_000_000,
            names: Names::of(&stack),
            reads: stack.spec.mode,
            writes: stack.spec.mode,
            stack,
            random,
            workloads: BTreeMap::new(),
            pods: BTreeMap::new(),
            partitions: BTreeMap::new(),
            notes: BTreeSet::new(),
            topic: None,
            lag: BTreeMap::new(),
            kafka_works: true,
            writes_since: 0,
            monolith_inactive: false,
            unflushed: 0,
            flushed: false,
            needed_until: 0,
            monolith_spans: 0,
            cluster_spans: 0,
            image: "tempo:1".to_owned(),
            faults: true,
            history: Vec::new(),
            seen: Seen::default(),
        }
    }

    fn chance(&mut self, share: f64) -> bool {
        self.faults && self.random.random_bool(share)
    }

    fn note(&mut self, text: String) {
        self.history
            .push(format!("{}: {text}", self.now - 1_000_000));
    }

    /// Time goes on, and the cluster with it.
    fn pass(&mut self, seconds: i64) {
        self.now += seconds;
        let now = self.now;
        self.pods
            .retain(|_, pod| pod.gone_at.is_none_or(|gone| gone > now));
        self.run_controllers();
        self.run_ring();
        self.run_data(seconds);
    }

    fn run_controllers(&mut self) {
        let mut wanted = BTreeMap::new();
        for (name, workload) in &self.workloads {
            for ordinal in 0..workload.replicas {
                wanted.insert(
                    format!("{name}-{ordinal}"),
                    (name.clone(), workload.clone(), ordinal),
                );
            }
        }
        let now = self.now;
        for (name, pod) in &mut self.pods {
            if !wanted.contains_key(name) && pod.gone_at.is_none() {
                pod.gone_at = Some(now + 20);
            }
        }
        for (name, (workload_name, workload, ordinal)) in wanted {
            let rolls_itself = !matches!(
                workload.component,
                Component::LiveStore | Component::BackendScheduler
            );
            let delay = self.random.random_range(5..60);
            let is_missing = !self.pods.contains_key(&name);
            let is_old = rolls_itself
                && self
                    .pods
                    .get(&name)
                    .is_some_and(|pod| pod.revision != workload.revision && pod.gone_at.is_none());
            if is_old && let Some(pod) = self.pods.get_mut(&name) {
                pod.gone_at = Some(now + 10);
            }
            if is_missing {
                if workload.component == Component::Monolith {
                    // It starts anew, and forgets that it was bridged.
                    self.monolith_inactive = false;
                }
                self.pods.insert(
                    name,
                    SimPod {
                        component: workload.component,
                        workload: workload_name,
                        zone: workload.zone,
                        ordinal,
                        ready_at: now + delay,
                        gone_at: None,
                        revision: workload.revision,
                        compaction: workload.compaction,
                    },
                );
            }
        }
    }

    fn owners(&self, id: u32) -> Vec<&SimPod> {
        self.pods
            .values()
            .filter(|pod| {
                pod.component == Component::LiveStore && pod.ordinal == id && pod.gone_at.is_none()
            })
            .collect()
    }

    fn run_ring(&mut self) {
        let zones = self.stack.spec.zones.count as usize;
        let now = self.now;
        let present: BTreeSet<u32> = self
            .pods
            .values()
            .filter(|pod| pod.component == Component::LiveStore && pod.gone_at.is_none())
            .map(|pod| pod.ordinal)
            .collect();
        for id in &present {
            let is_noted = self.pods.iter().any(|(name, pod)| {
                pod.component == Component::LiveStore
                    && pod.ordinal == *id
                    && self.notes.contains(name)
            });
            if !self.partitions.contains_key(id) && !is_noted {
                self.partitions.insert(
                    *id,
                    SimPartition {
                        state: PartitionState::Pending,
                        since: now,
                    },
                );
            }
        }
        let ids: Vec<u32> = self.partitions.keys().copied().collect();
        for id in ids {
            let ready = self
                .owners(id)
                .iter()
                .filter(|pod| pod.ready_at <= now)
                .count();
            let has_owner = present.contains(&id);
            let Some(partition) = self.partitions.get_mut(&id) else {
                continue;
            };
            if partition.state == PartitionState::Pending
                && ready >= zones
                && now - partition.since >= 10
            {
                partition.state = PartitionState::Active;
                partition.since = now;
            }
            let age = u64::try_from(now - partition.since).unwrap_or(0);
            if partition.state == PartitionState::Inactive && !has_owner && age >= DELETE_AFTER_SECS
            {
                self.partitions.remove(&id);
            }
        }
    }

    fn is_ready(&self, component: Component) -> bool {
        self.pods.values().any(|pod| {
            pod.component == component && pod.ready_at <= self.now && pod.gone_at.is_none()
        })
    }

    fn run_data(&mut self, seconds: i64) {
        if self.writes == Mode::Microservices
            && self.is_ready(Component::Distributor)
            && self.kafka_works
        {
            self.cluster_spans += seconds;
            let active: Vec<u32> = self
                .partitions
                .iter()
                .filter(|(_, partition)| partition.state == PartitionState::Active)
                .map(|(id, _)| *id)
                .collect();
            for id in active {
                *self.lag.entry(id).or_insert(0) += u64::try_from(seconds).unwrap_or(0);
            }
        }
        // Old connections go on for a while after a Service leads elsewhere.
        let straggles = self.writes == Mode::Microservices && self.now - self.writes_since < 40;
        if (self.writes == Mode::Monolithic || straggles) && self.is_ready(Component::Monolith) {
            self.monolith_spans += seconds;
            self.unflushed += u64::try_from(seconds).unwrap_or(0);
            self.flushed = false;
        }
        let straggles = self.writes == Mode::Monolithic && self.now - self.writes_since < 40;
        if straggles && self.is_ready(Component::Distributor) && self.writes_since > 0 {
            self.cluster_spans += seconds;
        }
        let per_instance = self
            .stack
            .spec
            .components
            .block_builder
            .partitions_per_instance;
        if self.kafka_works {
            let readers: BTreeSet<u32> = self
                .pods
                .values()
                .filter(|pod| {
                    pod.component == Component::BlockBuilder
                        && pod.ready_at <= self.now
                        && pod.gone_at.is_none()
                })
                .flat_map(|pod| pod.ordinal * per_instance..(pod.ordinal + 1) * per_instance)
                .collect();
            for (id, lag) in &mut self.lag {
                if readers.contains(id) && self.partitions.contains_key(id) {
                    *lag = lag.saturating_sub(u64::try_from(seconds * 10).unwrap_or(0));
                }
            }
        }
    }

    fn observe(&mut self) -> Observed {
        let lies = self.chance(0.05);
        let silent = self.chance(0.1);
        let now = self.now;
        let mut observed = Observed {
            now: At(now),
            image: self.image.clone(),
            ..Observed::default()
        };
        for (name, workload) in &self.workloads {
            let pods: Vec<&SimPod> = self
                .pods
                .values()
                .filter(|pod| pod.workload == *name && pod.gone_at.is_none())
                .collect();
            let count = |pods: usize| u32::try_from(pods).unwrap_or(0);
            observed.workloads.insert(
                name.clone(),
                Workload {
                    component: Some(workload.component),
                    replicas: workload.replicas,
                    ready: count(pods.iter().filter(|pod| pod.ready_at <= now).count()),
                    updated: count(
                        pods.iter()
                            .filter(|pod| pod.revision == workload.revision)
                            .count(),
                    ),
                    pods: count(pods.len()),
                    current: !lies,
                    revision: format!("r{}", workload.revision),
                    image: workload.image.clone(),
                },
            );
        }
        for (name, pod) in &self.pods {
            observed.pods.push(Pod {
                name: name.clone(),
                component: Some(pod.component),
                zone: pod.zone,
                ordinal: Some(pod.ordinal),
                ready: pod.ready_at <= now,
                terminating: pod.gone_at.is_some(),
                revision: format!("r{}", pod.revision),
                is_tempo: true,
                trouble: None,
            });
        }
        let members = self
            .pods
            .values()
            .any(|pod| pod.component == Component::LiveStore && pod.gone_at.is_none());
        if members && !silent {
            let mut ring: Vec<Partition> = self
                .partitions
                .iter()
                .map(|(id, partition)| Partition {
                    id: *id,
                    state: partition.state,
                    since: At(partition.since),
                    owners: Vec::new(),
                })
                .collect();
            ring.push(Partition {
                id: BRIDGE_PARTITION + 8999,
                state: PartitionState::Inactive,
                since: At(now),
                owners: Vec::new(),
            });
            observed.ring = Some(ring);
            for name in self
                .pods
                .iter()
                .filter(|(_, pod)| pod.component == Component::LiveStore && pod.gone_at.is_none())
                .map(|(name, _)| name)
            {
                observed
                    .leaving
                    .insert(name.clone(), self.notes.contains(name));
            }
        }
        observed.kafka = Some(if self.kafka_works {
            KafkaView {
                problem: None,
                topic_partitions: self.topic,
                lag: (0..self.topic.unwrap_or(0))
                    .map(|id| (id, self.lag.get(&id).copied().unwrap_or(0)))
                    .collect(),
            }
        } else {
            KafkaView {
                problem: Some(KafkaProblem {
                    reason: "Unreachable",
                    message: String::new(),
                }),
                ..KafkaView::default()
            }
        });
        if self.is_ready(Component::Monolith) && !silent {
            observed.monolith = Some(MonolithView {
                can_bridge: Some(true),
                inactive: self.monolith_inactive,
                leaves: self.notes.contains(&self.names.with("monolith-0")),
                unflushed: self.flushed.then_some(0),
                needed: Some(u64::from(self.now < self.needed_until)),
                spans_received: Some(self.monolith_spans),
            });
        }
        if !silent {
            observed.cluster_spans_received = Some(self.cluster_spans);
        }
        observed
    }

    /// The operator looks once; it may die anywhere on the way.
    fn look(&mut self) -> Plan {
        let observed = self.observe();
        let plan = plan(&self.stack, &observed);
        if self.chance(0.05) {
            return plan;
        }
        for note in &plan.notes {
            match note.reason {
                "MigrationCompleted" => self.seen.migrations += 1,
                "MigrationReverted" => self.seen.turned_back += 1,
                "DrainCompleted" => self.seen.drains += 1,
                _ => {}
            }
        }
        let before = self.stack.status.clone().unwrap_or_default();
        let status = TempoStackStatus {
            mode: Some(plan.mode),
            migration: plan.migration.clone(),
            live_store: Some(LiveStoreStatus {
                drain: plan.drain.clone(),
                ..LiveStoreStatus::default()
            }),
            ..TempoStackStatus::default()
        };
        if before != status {
            self.note(format!(
                "status {:?} {:?} drain {:?}",
                plan.mode,
                plan.migration.as_ref().map(|m| (m.from, m.to, m.phase)),
                plan.drain.as_ref().map(|d| (d.from, d.target, d.phase))
            ));
            self.stack.status = Some(status);
        }
        if self.chance(0.05) {
            return plan;
        }
        self.check_removals(&plan);
        self.apply(&plan);
        for action in &plan.actions {
            if self.chance(0.05) {
                break;
            }
            if !self.chance(0.1) {
                self.act(action, &observed);
            }
        }
        plan
    }

    fn fail(&self, invariant: &str) -> ! {
        let last = self
            .history
            .iter()
            .rev()
            .take(40)
            .rev()
            .cloned()
            .collect::<Vec<_>>()
            .join("\n");
        panic!(
            "{invariant}\n{last}\nmode {:?}, status {:#?}",
            self.stack.spec.mode, self.stack.status
        );
    }

    /// I4, and that nothing is lost: who goes has nothing that others do not have.
    fn check_removals(&self, plan: &Plan) {
        let shape = plan
            .topology
            .cluster
            .as_ref()
            .map(|cluster| cluster.live_stores.clone())
            .unwrap_or_default();
        for (name, workload) in &self.workloads {
            if workload.component == Component::LiveStore {
                let zone = workload.zone.unwrap_or(0);
                let replicas = shape.get(zone).copied().unwrap_or(0);
                for ordinal in replicas..workload.replicas {
                    let Some(partition) = self.partitions.get(&ordinal) else {
                        continue;
                    };
                    let others = self
                        .owners(ordinal)
                        .iter()
                        .any(|pod| pod.zone != Some(zone) && pod.ready_at <= self.now);
                    let stays = shape
                        .iter()
                        .enumerate()
                        .any(|(other, count)| other != zone && *count > ordinal);
                    let lag = self.lag.get(&ordinal).copied().unwrap_or(0);
                    let age = u64::try_from(self.now - partition.since).unwrap_or(0);
                    let is_drained = partition.state == PartitionState::Inactive
                        && age >= DELETE_AFTER_SECS
                        && lag == 0;
                    // Before spans went to the cluster, there is nothing in it.
                    let is_unused = lag == 0
                        && self.writes == Mode::Monolithic
                        && plan.topology.cluster.is_none();
                    let may_go = is_drained || is_unused || (others && stays);
                    if !may_go {
                        self.fail(&format!("I4: {name} loses the owner of partition {ordinal} ({partition:?}, lag {lag})"));
                    }
                }
            }
            if workload.component == Component::Monolith && workload.replicas > 0 {
                let replicas = plan
                    .topology
                    .monolith
                    .as_ref()
                    .map_or(0, |monolith| monolith.replicas);
                if replicas == 0 && (self.unflushed > 0 || self.writes == Mode::Monolithic) {
                    self.fail(&format!(
                        "the monolith goes with {} that is in no store, spans go to {:?}",
                        self.unflushed, self.writes
                    ));
                }
                if replicas == 0 && self.now < self.needed_until {
                    self.fail("the monolith goes while queries look there for spans");
                }
            }
        }
        if plan.topology.writes != self.writes {
            let target_is_there = match plan.topology.writes {
                Mode::Monolithic => self.is_ready(Component::Monolith),
                Mode::Microservices => self.is_ready(Component::Distributor),
            };
            // A fault may have taken it since, but it must have been there.
            let exists = match plan.topology.writes {
                Mode::Monolithic => self
                    .workloads
                    .contains_key(&self.names.component(Component::Monolith)),
                Mode::Microservices => self
                    .workloads
                    .contains_key(&self.names.component(Component::Distributor)),
            };
            if !target_is_there && !exists && !self.workloads.is_empty() {
                self.fail("spans are sent to where nobody is");
            }
        }
    }

    fn apply(&mut self, plan: &Plan) {
        let topology = &plan.topology;
        let mut wanted: BTreeMap<String, (Component, Option<usize>, u32, bool)> = BTreeMap::new();
        if let Some(monolith) = &topology.monolith {
            wanted.insert(
                self.names.component(Component::Monolith),
                (
                    Component::Monolith,
                    None,
                    monolith.replicas,
                    monolith.compaction,
                ),
            );
        }
        if let Some(cluster) = &topology.cluster {
            for (zone, replicas) in cluster.live_stores.iter().enumerate() {
                if let Some(partitions) = self.topic.filter(|partitions| partitions < replicas) {
                    self.fail(&format!(
                        "I2: {replicas} live-stores, {partitions} partitions of the topic"
                    ));
                }
                if self.topic.is_none() && *replicas > 0 {
                    self.fail("I2: live-stores without a topic");
                }
                wanted.insert(
                    self.names.live_store(zone),
                    (Component::LiveStore, Some(zone), *replicas, false),
                );
            }
            let per_instance = self
                .stack
                .spec
                .components
                .block_builder
                .partitions_per_instance;
            let ring = self
                .partitions
                .iter()
                .filter(|(_, partition)| partition.state != PartitionState::Pending)
                .map(|(id, _)| id + 1)
                .max()
                .unwrap_or(0);
            let present = self
                .workloads
                .get(&self.names.component(Component::BlockBuilder))
                .map_or(0, |w| w.replicas);
            if cluster.block_builders * per_instance < ring && cluster.block_builders < present {
                self.fail(&format!(
                    "I3: {} block-builders for {ring} partitions",
                    cluster.block_builders
                ));
            }
            wanted.insert(
                self.names.component(Component::BlockBuilder),
                (Component::BlockBuilder, None, cluster.block_builders, false),
            );
            wanted.insert(
                self.names.component(Component::BackendScheduler),
                (Component::BackendScheduler, None, cluster.schedulers, true),
            );
            wanted.insert(
                self.names.component(Component::BackendWorker),
                (
                    Component::BackendWorker,
                    None,
                    u32::from(cluster.workers),
                    true,
                ),
            );
            for component in [
                Component::Distributor,
                Component::Querier,
                Component::QueryFrontend,
            ] {
                wanted.insert(self.names.component(component), (component, None, 2, false));
            }
        }
        self.workloads.retain(|name, _| wanted.contains_key(name));
        for (name, (component, zone, replicas, compaction)) in wanted {
            let image = topology
                .held_images
                .get(&component)
                .cloned()
                .unwrap_or_else(|| self.image.clone());
            let workload = self.workloads.entry(name).or_insert(SimWorkload {
                component,
                zone,
                replicas,
                revision: 1,
                image: image.clone(),
                compaction,
            });
            workload.replicas = replicas;
            if workload.image != image || workload.compaction != compaction {
                workload.revision += 1;
                workload.image = image;
                workload.compaction = compaction;
            }
        }
        self.reads = topology.reads;
        if self.writes != topology.writes {
            self.writes = topology.writes;
            self.writes_since = self.now;
        }
        self.run_controllers();
    }

    fn act(&mut self, action: &Action, observed: &Observed) {
        let now = self.now;
        let live = |world: &Self, pod: &str| {
            world
                .pods
                .get(pod)
                .filter(|pod| pod.ready_at <= now && pod.gone_at.is_none())
                .map(|pod| (pod.component, pod.ordinal))
        };
        match action {
            Action::CreateTopic { partitions } => {
                if self.kafka_works {
                    self.topic.get_or_insert(*partitions);
                }
            }
            Action::GrowTopic { partitions } => {
                if self.kafka_works {
                    self.topic = self.topic.map(|present| present.max(*partitions));
                }
            }
            Action::Deactivate { pod } | Action::Reactivate { pod } => {
                let inactive = matches!(action, Action::Deactivate { .. });
                match live(self, pod) {
                    Some((Component::Monolith, _)) => self.monolith_inactive = inactive,
                    Some((_, ordinal)) => {
                        if let Some(partition) = self.partitions.get_mut(&ordinal) {
                            let wanted = if inactive {
                                PartitionState::Inactive
                            } else {
                                PartitionState::Active
                            };
                            if partition.state != PartitionState::Pending
                                && partition.state != wanted
                            {
                                partition.state = wanted;
                                partition.since = now;
                            }
                        }
                    }
                    None => {}
                }
            }
            Action::PrepareDownscale { pod } => {
                if self.monolith_inactive && pod == &self.names.with("monolith-0") {
                    self.notes.insert(pod.clone());
                }
                if let Some((_, ordinal)) = live(self, pod) {
                    let inactive = self
                        .partitions
                        .get(&ordinal)
                        .is_none_or(|partition| partition.state == PartitionState::Inactive);
                    if inactive {
                        self.notes.insert(pod.clone());
                    }
                }
            }
            Action::CancelDownscale { pod } => {
                self.notes.remove(pod);
            }
            Action::Flush { .. } => {
                if self.is_ready(Component::Monolith) {
                    self.unflushed = 0;
                    self.flushed = true;
                    self.needed_until = self.now + self.random.random_range(0..3_000);
                }
            }
            Action::DeletePod { pod } => {
                let Some(victim) = self.pods.get(pod).cloned() else {
                    return;
                };
                if victim.component == Component::LiveStore && victim.ready_at <= now {
                    for zone in 0..self.stack.spec.zones.count as usize {
                        let name = self.names.live_store(zone);
                        if Some(zone) == victim.zone {
                            continue;
                        }
                        let replicas = observed
                            .workloads
                            .get(&name)
                            .map_or(0, |workload| workload.replicas);
                        let ready = observed
                            .live_stores()
                            .filter(|pod| pod.zone == Some(zone) && pod.ready && !pod.terminating)
                            .count();
                        if ready < replicas as usize {
                            self.fail(&format!("I4: {pod} is replaced while zone {zone} has {ready} of {replicas} ready"));
                        }
                    }
                }
                if let Some(pod) = self.pods.get_mut(pod) {
                    pod.gone_at = Some(now + 10);
                    self.seen.replaced += 1;
                }
            }
        }
    }

    /// I5: blocks are joined in one place.
    fn check(&self) {
        let monolith = self
            .pods
            .values()
            .any(|pod| pod.component == Component::Monolith && pod.compaction);
        let scheduler = self
            .pods
            .values()
            .filter(|pod| pod.component == Component::BackendScheduler)
            .count();
        if (monolith && scheduler > 0) || scheduler > 1 {
            self.fail("I5: blocks are joined in two places");
        }
        // I6: names never change.
        for name in self.workloads.keys() {
            if !name.starts_with("tempo-prod-") {
                self.fail("I6: a name changed");
            }
        }
    }

    /// Someone edits the spec, or something breaks.
    fn disturb(&mut self) {
        match self.random.random_range(0..100) {
            0..=5 => {
                let replicas = self.random.random_range(1..=5);
                self.note(format!("edit: {replicas} live-stores"));
                self.stack.spec.components.live_store.pods.replicas = Some(replicas);
            }
            6..=9 => {
                self.stack.spec.mode = match self.stack.spec.mode {
                    Mode::Monolithic => Mode::Microservices,
                    Mode::Microservices => Mode::Monolithic,
                };
                self.note(format!("edit: mode {:?}", self.stack.spec.mode));
            }
            10..=12 => {
                self.image = format!("tempo:{}", self.random.random_range(1..9));
                self.note(format!("edit: image {}", self.image));
            }
            13..=22 => {
                let names: Vec<String> = self.pods.keys().cloned().collect();
                if !names.is_empty() {
                    let name = &names[self.random.random_range(0..names.len())];
                    let down = self.random.random_range(10..300);
                    self.history
                        .push(format!("{}: {name} crashes", self.now - 1_000_000));
                    if let Some(pod) = self.pods.get_mut(name) {
                        pod.ready_at = self.now + down;
                        if pod.component == Component::Monolith {
                            self.monolith_inactive = false;
                        }
                    }
                }
            }
            23..=25 => self.kafka_works = false,
            26..=35 => self.kafka_works = true,
            _ => return,
        }
        let generation = self.stack.metadata.generation.get_or_insert(0);
        *generation += 1;
    }

    /// Without faults everything comes to rest where the spec says (I1).
    fn settle(&mut self) {
        self.faults = false;
        self.kafka_works = true;
        for _ in 0..SETTLE_LOOKS {
            self.pass(20);
            let plan = self.look();
            self.check();
            let migrates = plan
                .migration
                .as_ref()
                .is_some_and(|migration| migration.phase != MigrationPhase::Completed);
            if !migrates
                && plan.drain.is_none()
                && plan.mode == self.stack.spec.mode
                && plan.progress.is_none()
                && plan.kafka.is_none()
                && plan.actions.is_empty()
            {
                if plan.mode == Mode::Microservices {
                    let wanted = live_store_replicas(&self.stack);
                    let active: Vec<u32> = self
                        .partitions
                        .iter()
                        .filter(|(_, p)| p.state == PartitionState::Active)
                        .map(|(id, _)| *id)
                        .collect();
                    if active != (0..wanted).collect::<Vec<u32>>() {
                        if self
                            .partitions
                            .values()
                            .any(|p| p.state == PartitionState::Pending)
                        {
                            continue;
                        }
                        self.fail(&format!(
                            "I1: active partitions {active:?}, wanted {wanted}"
                        ));
                    }
                }
                return;
            }
        }
        let plan = self.look();
        self.fail(&format!(
            "does not come to rest: {:?} {:?} {:?} {:?} {:?}",
            plan.progress, plan.migration, plan.drain, plan.kafka, plan.actions
        ));
    }
}

fn run(seed: u64) -> Seen {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        let seconds = match world.random.random_range(0..10) {
            0 => 2400,
            1..=3 => 300,
            _ => world.random.random_range(1..60),
        };
        world.pass(seconds);
        world.disturb();
        world.look();
        world.check();
    }
    world.settle();
    world.seen
}

#[test]
fn nothing_is_lost_in_any_history() {
    let long = std::env::var_os("TEMPO_LONG_TESTS").is_some();
    let histories: u64 = if long { 100_000 } else { 2_000 };
    let threads = 2;
    let seen = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| scope.spawn(move || run_all((part..histories).step_by(threads as usize))))
            .collect();
        let mut seen = Seen::default();
        for part in parts {
            let one = part
                .join()
                .unwrap_or_else(|cause| std::panic::resume_unwind(cause));
            seen.migrations += one.migrations;
            seen.turned_back += one.turned_back;
            seen.drains += one.drains;
            seen.replaced += one.replaced;
        }
        seen
    });
    let least = u32::try_from(histories / 4).unwrap();
    assert!(
        seen.migrations > least,
        "{} changes of mode",
        seen.migrations
    );
    assert!(
        seen.turned_back > least / 2,
        "{} turned back",
        seen.turned_back
    );
    assert!(seen.drains > least, "{} drains", seen.drains);
    assert!(seen.replaced > least, "{} pods replaced", seen.replaced);
}

fn run_all(seeds: impl Iterator<Item = u64>) -> Seen {
    let mut all = Seen::default();
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        match outcome {
            Ok(seen) => {
                all.migrations += seen.migrations;
                all.turned_back += seen.turned_back;
                all.drains += seen.drains;
                all.replaced += seen.replaced;
            }
            Err(cause) => {
                let text = cause
                    .downcast_ref::<String>()
                    .map_or("a panic without text", String::as_str);
                panic!("history {seed}: {text}");
            }
        }
    }
    all
}
