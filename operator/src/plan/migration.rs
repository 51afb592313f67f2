//! Changing the mode of a stack that is in use: steps, gates, and the way back.
//!
//! Both modes run side by side for a while and are one to queries: the monolith takes part in the
//! cluster under a partition that nobody else writes to. So queries move first, then spans, then
//! what the source holds becomes blocks, and only then compaction changes hands and the source
//! goes. Until compaction changes hands the way back is a change of the spec back.

use crate::api::{MigrationPhase as Phase, MigrationStatus, Mode, TempoStack};
use crate::topology::{Component, MonolithShape, Names, Topology, live_store_replicas, zone_count};

use super::observed::{Observed, PartitionState};
use super::{Action, Note, Plan, cluster, has_passed, topology_of, usable_partitions};

/// Longest wait for partitions of a target that is given up: its live-stores may never start.
const LEAVE_ANYWAY_SECS: u64 = 300;
/// Time for every node to learn that a Service leads elsewhere.
const ROUTING_SECS: u64 = 10;

/// Whether a change of mode is under way.
pub(super) fn is_under_way(migration: Option<&MigrationStatus>) -> bool {
    migration.is_some_and(|migration| migration.phase != Phase::Completed)
}

/// Whether the cluster is what is left or given up, and spans do not go to it any more.
pub(super) fn leaves_cluster(stack: &TempoStack, migration: Option<&MigrationStatus>) -> bool {
    migration.is_some_and(|migration| {
        let is_left = migration.from == Mode::Microservices
            && has_reached(migration.phase, Phase::DrainSource, migration.to)
            && migration.phase != Phase::Completed;
        let is_given_up = migration.to == Mode::Microservices
            && stack.spec.mode == Mode::Monolithic
            && !has_reached(migration.phase, Phase::WriteCutover, migration.to);
        is_left || is_given_up
    })
}

/// The steps of a change to this mode, in their order.
///
/// Queries of the cluster see the monolith, and not the other way round. So they go to the cluster
/// before spans do, and from it only when all that it held is in blocks. And the monolith must
/// exist before it can be bridged.
fn steps(to: Mode) -> [Phase; 9] {
    use Phase as P;
    match to {
        Mode::Microservices => [
            P::Preflight,
            P::Bridge,
            P::ProvisionTarget,
            P::ReadCutover,
            P::WriteCutover,
            P::DrainSource,
            P::CompactionHandover,
            P::Retire,
            P::Completed,
        ],
        Mode::Monolithic => [
            P::Preflight,
            P::ProvisionTarget,
            P::Bridge,
            P::WriteCutover,
            P::DrainSource,
            P::ReadCutover,
            P::CompactionHandover,
            P::Retire,
            P::Completed,
        ],
    }
}

/// Whether this step, or a later one, is reached.
fn has_reached(phase: Phase, step: Phase, to: Mode) -> bool {
    let rank = |wanted: Phase| steps(to).iter().position(|phase| *phase == wanted);
    rank(phase) >= rank(step)
}

/// The step after this one.
fn after(phase: Phase, to: Mode) -> Phase {
    steps(to)
        .into_iter()
        .skip_while(|step| *step != phase)
        .nth(1)
        .unwrap_or(Phase::Completed)
}

/// Whether the target's pods exist at this step.
fn target_exists(phase: Phase, to: Mode) -> bool {
    match phase {
        Phase::Preflight => false,
        Phase::Bridge => to == Mode::Monolithic,
        _ => true,
    }
}

/// Takes one look at a change of mode: begins one, goes on with one, or turns one back.
pub(super) fn advance(stack: &TempoStack, observed: &Observed, plan: &mut Plan) {
    let Some(mut migration) = plan
        .migration
        .take()
        .filter(|m| m.phase != Phase::Completed)
    else {
        let last = stack
            .status
            .as_ref()
            .and_then(|status| status.migration.clone());
        if stack.spec.mode == plan.mode {
            plan.topology = topology_of(stack, plan.mode);
            keep_source(stack, observed, last.as_ref(), &mut plan.topology);
            plan.migration = last;
            return;
        }
        if plan.drain.is_some() {
            plan.topology = topology_of(stack, plan.mode);
            plan.migration = last;
            plan.blocked = Some(
                "partitions are being drained; the change of mode begins after that".to_owned(),
            );
            return;
        }
        plan.notes.push(Note::normal(
            "MigrationStarted",
            format!("from {} to {}", plan.mode.name(), stack.spec.mode.name()),
        ));
        let begun = MigrationStatus {
            from: plan.mode,
            to: stack.spec.mode,
            phase: Phase::Preflight,
            compaction: plan.mode,
            started_at: observed.now,
            phase_started_at: observed.now,
            gate_open_since: None,
            source_spans_received: None,
            generation: stack.metadata.generation.unwrap_or(0),
            message: String::new(),
        };
        return carry(stack, observed, plan, begun);
    };
    let may_turn = !has_reached(migration.phase, Phase::CompactionHandover, migration.to);
    if stack.spec.mode == migration.from && may_turn {
        match turn_back(stack, observed, plan, &mut migration) {
            Turn::Done => {
                plan.topology = topology_of(stack, plan.mode);
                return;
            }
            Turn::Waits => {
                let step = Step {
                    stack,
                    observed,
                    names: Names::of(stack),
                };
                plan.topology = step.topology(&migration);
                plan.migration = Some(migration);
                return;
            }
            Turn::GoesOn => {}
        }
    }
    carry(stack, observed, plan, migration);
}

/// How a change of mode is turned back.
enum Turn {
    /// Nothing of it is left.
    Done,
    /// Nodes are learning that queries go to the source again.
    Waits,
    /// It goes the other way from here.
    GoesOn,
}

/// The spec asks for the old mode again.
fn turn_back(
    stack: &TempoStack,
    observed: &Observed,
    plan: &mut Plan,
    migration: &mut MigrationStatus,
) -> Turn {
    let from = migration.from;
    let went_back = Note::normal(
        "MigrationReverted",
        format!("back to {}, as the spec says", from.name()),
    );
    if migration.phase == Phase::ReadCutover && migration.to == Mode::Microservices {
        // First queries, then the pods that answered them.
        migration.phase = Phase::ProvisionTarget;
        migration.phase_started_at = observed.now;
        "turning back: queries go to the source again".clone_into(&mut migration.message);
        return Turn::Waits;
    }
    if !has_reached(migration.phase, Phase::WriteCutover, migration.to) {
        if migration.phase == Phase::ProvisionTarget
            && !has_passed(observed.now, Some(migration.phase_started_at), ROUTING_SECS)
        {
            return Turn::Waits;
        }
        // No span went to the target: it goes, and all is as before. Its partitions are told to
        // take none, so that members forget them.
        let since = *migration.gate_open_since.get_or_insert(observed.now);
        let waited = has_passed(observed.now, Some(since), LEAVE_ANYWAY_SECS);
        if migration.to == Mode::Microservices && !is_forgettable(observed) && !waited {
            deactivate_all(observed, plan);
            "turning back: partitions are told to take no spans".clone_into(&mut migration.message);
            return Turn::Waits;
        }
        if from == Mode::Monolithic
            && let Some(pod) = monolith_pod(observed)
            && observed
                .monolith
                .as_ref()
                .is_some_and(|monolith| monolith.inactive)
        {
            plan.actions.push(Action::Reactivate { pod });
        }
        plan.notes.push(went_back);
        return Turn::Done;
    }
    if from == Mode::Microservices && reactivate_all(observed, plan) {
        "turning back: partitions are told to take spans again".clone_into(&mut migration.message);
        return Turn::Waits;
    }
    // Spans are in the target, so the way back is the same way from there: queries see both.
    plan.notes.push(went_back);
    plan.mode = migration.to;
    *migration = MigrationStatus {
        from: migration.to,
        to: from,
        phase: Phase::WriteCutover,
        compaction: migration.compaction,
        started_at: observed.now,
        phase_started_at: observed.now,
        gate_open_since: None,
        source_spans_received: None,
        generation: stack.metadata.generation.unwrap_or(0),
        message: String::new(),
    };
    Turn::GoesOn
}

fn carry(stack: &TempoStack, observed: &Observed, plan: &mut Plan, mut migration: MigrationStatus) {
    let step = Step {
        stack,
        observed,
        names: Names::of(stack),
    };
    match step.gate(&mut migration, plan) {
        Gate::Open => {
            let next = after(migration.phase, migration.to);
            plan.notes.push(Note::normal(
                "MigrationPhase",
                format!("{:?} is done, {next:?} begins", migration.phase),
            ));
            if next == Phase::Retire {
                // From here on the source is history.
                plan.mode = migration.to;
            }
            migration.phase = next;
            migration.phase_started_at = observed.now;
            migration.gate_open_since = None;
            migration.source_spans_received = None;
            migration.message = String::new();
        }
        Gate::Waits(message) => migration.message = message,
        Gate::Blocked(message) => {
            migration.message.clone_from(&message);
            plan.blocked = Some(message);
        }
    }
    plan.topology = step.topology(&migration);
    plan.migration = Some(migration);
}

enum Gate {
    Open,
    Waits(String),
    /// Nothing will change by waiting alone.
    Blocked(String),
}

impl Gate {
    fn when(open: bool, otherwise: impl Into<String>) -> Self {
        if open {
            Self::Open
        } else {
            Self::Waits(otherwise.into())
        }
    }
}

struct Step<'a> {
    stack: &'a TempoStack,
    observed: &'a Observed,
    names: Names,
}

/// Whether members forget all partitions of the cluster once their owners are gone.
fn is_forgettable(observed: &Observed) -> bool {
    let are_inactive = observed
        .partitions()
        .all(|partition| partition.state == PartitionState::Inactive);
    observed.live_stores().next().is_none() || (observed.ring.is_some() && are_inactive)
}

/// Partitions that nobody writes to any more are told so, that members may forget them.
fn deactivate_all(observed: &Observed, plan: &mut Plan) {
    for partition in observed.partitions() {
        if partition.state == PartitionState::Active {
            plan.actions
                .extend(
                    observed
                        .owners_of(partition.id)
                        .take(1)
                        .map(|pod| Action::Deactivate {
                            pod: pod.name.clone(),
                        }),
                );
        }
    }
}

/// Tells partitions to take spans again; whether one still does not.
fn reactivate_all(observed: &Observed, plan: &mut Plan) -> bool {
    let mut waits = observed.ring.is_none();
    for partition in observed.partitions() {
        if partition.state == PartitionState::Inactive {
            waits = true;
            plan.actions
                .extend(
                    observed
                        .owners_of(partition.id)
                        .take(1)
                        .map(|pod| Action::Reactivate {
                            pod: pod.name.clone(),
                        }),
                );
        }
    }
    waits
}

fn monolith_pod(observed: &Observed) -> Option<String> {
    observed
        .pods
        .iter()
        .find(|pod| pod.component == Some(Component::Monolith) && !pod.terminating)
        .map(|pod| pod.name.clone())
}

impl Step<'_> {
    /// What runs at this step.
    fn topology(&self, migration: &MigrationStatus) -> Topology {
        let (from, to, phase) = (migration.from, migration.to, migration.phase);
        if phase == Phase::Completed {
            let mut topology = topology_of(self.stack, to);
            keep_source(self.stack, self.observed, Some(migration), &mut topology);
            return topology;
        }
        let exists = |mode: Mode| mode == from || target_exists(phase, to);
        let handed_over = has_reached(phase, Phase::CompactionHandover, to);
        let mut cluster = exists(Mode::Microservices)
            .then(|| cluster(self.stack, migration.compaction == Mode::Microservices));
        let mut monolith = exists(Mode::Monolithic).then(|| MonolithShape {
            replicas: 1,
            compaction: migration.compaction == Mode::Monolithic,
        });
        if handed_over && from == Mode::Monolithic {
            // Before the cluster joins blocks, the monolith is gone; its volume stays.
            if let Some(monolith) = &mut monolith {
                monolith.replicas = 0;
            }
        }
        if handed_over
            && migration.compaction == from
            && from == Mode::Microservices
            && let Some(cluster) = &mut cluster
        {
            cluster.schedulers = 0;
            cluster.workers = false;
        }
        if phase == Phase::Retire && from == Mode::Microservices {
            cluster = None;
        }
        let side = |moved: bool| if moved { to } else { from };
        Topology {
            monolith,
            cluster,
            reads: side(has_reached(phase, Phase::ReadCutover, to)),
            writes: side(has_reached(phase, Phase::WriteCutover, to)),
            held_images: Default::default(),
        }
    }

    fn gate(&self, migration: &mut MigrationStatus, plan: &mut Plan) -> Gate {
        match migration.phase {
            Phase::Preflight => self.preflight(migration, plan),
            Phase::Bridge => self.bridge(migration.to, plan),
            Phase::ProvisionTarget => self.provision(migration, plan),
            Phase::ReadCutover => {
                if let Some(waits) = self.bridge_holds(migration.to, plan) {
                    return waits;
                }
                Gate::when(
                    has_passed(
                        self.observed.now,
                        Some(migration.phase_started_at),
                        self.routing_secs(),
                    ) && self.is_ready(migration.to),
                    "queries go to the target; nodes and clients are learning it",
                )
            }
            Phase::WriteCutover => self.quiet(migration, plan),
            Phase::DrainSource => self.drain(migration, plan),
            Phase::CompactionHandover => self.hand_over(migration),
            Phase::Retire => self.retire(migration, plan),
            Phase::Completed => Gate::Open,
        }
    }

    /// Time until all queries come to the target: connections to the source must be at their end,
    /// too, and they get a tenth older than told.
    fn routing_secs(&self) -> u64 {
        let age = self.stack.spec.receivers.otlp.max_connection_age.seconds();
        ROUTING_SECS + age + age.div_ceil(10)
    }

    fn preflight(&self, migration: &MigrationStatus, plan: &mut Plan) -> Gate {
        if self.stack.spec.storage.local.is_some() {
            return Gate::Blocked(
                "traces on a local volume can't be reached by other pods; move them to an object store first".to_owned(),
            );
        }
        if migration.to == Mode::Monolithic {
            return Gate::when(self.is_ready(migration.from), "the cluster is not ready");
        }
        let needed = live_store_replicas(self.stack);
        let Some(partitions) = usable_partitions(self.stack, self.observed, plan) else {
            let reason = plan.kafka.as_ref().map_or_else(
                || "Kafka has not answered yet".to_owned(),
                |problem| problem.message.clone(),
            );
            return Gate::Blocked(reason);
        };
        if partitions < needed {
            let reason = plan.kafka.as_ref().map(|problem| problem.message.clone());
            return Gate::Blocked(reason.unwrap_or_default());
        }
        Gate::when(self.is_ready(migration.from), "the monolith is not ready")
    }

    /// The monolith's partition takes no spans of others.
    fn bridge(&self, to: Mode, plan: &mut Plan) -> Gate {
        self.bridge_holds(to, plan).unwrap_or(Gate::Open)
    }

    /// `None` while it holds; otherwise it is set up again: a monolith that starts anew forgets.
    fn bridge_holds(&self, to: Mode, plan: &mut Plan) -> Option<Gate> {
        let Some(view) = &self.observed.monolith else {
            return Some(Gate::Waits("the monolith does not answer".to_owned()));
        };
        if to == Mode::Monolithic && view.leaves {
            // It was left, and is come back to.
            plan.actions
                .extend(monolith_pod(self.observed).map(|pod| Action::CancelDownscale { pod }));
        }
        match view.can_bridge {
            None => Some(Gate::Waits("the monolith does not answer".to_owned())),
            Some(false) => Some(Gate::Blocked(
                "this version of Tempo can't take part in a cluster as a monolith: recent queries would have a gap; use an image that can".to_owned(),
            )),
            Some(true) if view.inactive => None,
            Some(true) => {
                plan.actions.extend(monolith_pod(self.observed).map(|pod| Action::Deactivate { pod }));
                Some(Gate::Waits("the monolith's partition is told to take no spans of others".to_owned()))
            }
        }
    }

    fn provision(&self, migration: &MigrationStatus, plan: &mut Plan) -> Gate {
        if migration.to == Mode::Monolithic {
            return Gate::when(self.is_ready(Mode::Monolithic), "the monolith starts");
        }
        if let Some(waits) = self.bridge_holds(migration.to, plan) {
            return waits;
        }
        let replicas = live_store_replicas(self.stack);
        let zones = zone_count(self.stack);
        let is_left_over =
            |id: u32| id >= replicas && !self.observed.owners_of(id).any(|pod| pod.ready);
        if self
            .observed
            .partitions()
            .any(|partition| is_left_over(partition.id))
        {
            return Gate::Waits(
                "partitions of an earlier attempt get their live-stores back, or are forgotten"
                    .to_owned(),
            );
        }
        let owned = (0..replicas)
            .filter(|id| {
                let is_active = self
                    .observed
                    .partition(*id)
                    .is_some_and(|partition| partition.state == PartitionState::Active);
                is_active && self.observed.owners_of(*id).filter(|pod| pod.ready).count() >= zones
            })
            .count();
        if owned < replicas as usize {
            return Gate::Waits(format!(
                "{owned} of {replicas} partitions are active, with an owner in each zone"
            ));
        }
        Gate::when(
            self.is_ready(Mode::Microservices),
            "components of the cluster start",
        )
    }

    /// Whether all that a mode needs to take spans and queries is there and ready.
    fn is_ready(&self, mode: Mode) -> bool {
        let ready = |name: &str| {
            self.observed
                .workloads
                .get(name)
                .is_some_and(|workload| workload.replicas > 0 && workload.is_rolled_out())
        };
        match mode {
            Mode::Monolithic => ready(&self.names.component(Component::Monolith)),
            Mode::Microservices => {
                let zones = (0..zone_count(self.stack)).all(|zone| {
                    self.observed
                        .workloads
                        .get(&self.names.live_store(zone))
                        .is_some_and(|workload| {
                            workload.replicas > 0 && workload.ready >= workload.replicas
                        })
                });
                zones
                    && [
                        Component::Distributor,
                        Component::Querier,
                        Component::QueryFrontend,
                        Component::BlockBuilder,
                    ]
                    .into_iter()
                    .all(|component| ready(&self.names.component(component)))
            }
        }
    }

    /// No span reaches the source any more: its clients' connections are closed.
    fn quiet(&self, migration: &mut MigrationStatus, plan: &mut Plan) -> Gate {
        if let Some(waits) = self.bridge_holds(migration.to, plan) {
            return waits;
        }
        let received = match migration.from {
            Mode::Monolithic => self
                .observed
                .monolith
                .as_ref()
                .and_then(|view| view.spans_received),
            Mode::Microservices => self.observed.cluster_spans_received,
        };
        let Some(received) = received else {
            migration.gate_open_since = None;
            return Gate::Waits("the source does not tell how many spans it received".to_owned());
        };
        if migration.source_spans_received != Some(received) || migration.gate_open_since.is_none()
        {
            migration.source_spans_received = Some(received);
            migration.gate_open_since = Some(self.observed.now);
        }
        let quiet = self.stack.spec.migration.write_quiet_period.seconds();
        Gate::when(
            has_passed(self.observed.now, migration.gate_open_since, quiet),
            format!("spans go to the target; the source must receive none for {quiet}s"),
        )
    }

    /// What the source holds is in blocks, and queries turn to them.
    fn drain(&self, migration: &mut MigrationStatus, plan: &mut Plan) -> Gate {
        let timings = &self.stack.spec.timings;
        let (left, wait) = match migration.from {
            Mode::Monolithic => {
                if let Some(waits) = self.bridge_holds(migration.to, plan) {
                    migration.gate_open_since = None;
                    return waits;
                }
                let left = self
                    .observed
                    .monolith
                    .as_ref()
                    .and_then(|view| view.unflushed);
                if left != Some(0) {
                    plan.actions
                        .extend(monolith_pod(self.observed).map(|pod| Action::Flush { pod }));
                }
                (
                    left,
                    timings.query_backend_after.seconds() + timings.blocklist_poll.seconds(),
                )
            }
            Mode::Microservices => {
                let kafka = self
                    .observed
                    .kafka
                    .as_ref()
                    .filter(|kafka| kafka.problem.is_none());
                // Of every partition of the topic, whoever owns it.
                let left = kafka.and_then(|kafka| {
                    (0..kafka.topic_partitions?)
                        .map(|id| kafka.lag.get(&id).copied())
                        .sum()
                });
                deactivate_all(self.observed, plan);
                (left, self.stack.spec.update_strategy.drain_wait.seconds())
            }
        };
        match left {
            Some(0) => {
                migration.gate_open_since.get_or_insert(self.observed.now);
            }
            _ => migration.gate_open_since = None,
        }
        // A monolith of before they were told has none.
        let needed = match (migration.from, &self.observed.monolith) {
            (Mode::Monolithic, Some(view)) => view.needed.unwrap_or(0),
            _ => 0,
        };
        let what = match migration.from {
            Mode::Monolithic => "blocks and traces",
            Mode::Microservices => "records",
        };
        let has_waited = has_passed(self.observed.now, migration.gate_open_since, wait);
        if left == Some(0) && has_waited && needed > 0 {
            return Gate::Waits(format!(
                "queries still look for {needed} blocks in the monolith until block-builders have caught up: see tempo_ingest_group_partition_lag_seconds"
            ));
        }
        if left == Some(0)
            && has_waited
            && migration.from == Mode::Monolithic
            && !self
                .observed
                .monolith
                .as_ref()
                .is_some_and(|view| view.leaves)
        {
            // Told before it stops, it takes its name off its partition while it still answers.
            plan.actions
                .extend(monolith_pod(self.observed).map(|pod| Action::PrepareDownscale { pod }));
            return Gate::Waits("the monolith is told that it leaves".to_owned());
        }
        match left {
            None => Gate::Waits(format!(
                "how many {what} of the source are not in the object store is not known"
            )),
            Some(0) => Gate::when(has_waited, "all is in the object store; queries turn to it"),
            Some(left) => Gate::Waits(format!(
                "{left} {what} of the source are not in the object store"
            )),
        }
    }

    /// Compaction ends in one mode before it begins in the other (I5).
    fn hand_over(&self, migration: &mut MigrationStatus) -> Gate {
        if migration.compaction == migration.from {
            let ended = match migration.from {
                Mode::Monolithic => self.is_gone(&[Component::Monolith]),
                Mode::Microservices => {
                    self.is_gone(&[Component::BackendScheduler, Component::BackendWorker])
                }
            };
            if !ended {
                return Gate::Waits("compaction ends in the source".to_owned());
            }
            migration.compaction = migration.to;
        }
        let begun = match migration.to {
            Mode::Monolithic => self.is_ready(Mode::Monolithic),
            Mode::Microservices => {
                let name = self.names.component(Component::BackendScheduler);
                self.observed
                    .workloads
                    .get(&name)
                    .is_some_and(|workload| workload.replicas > 0 && workload.is_rolled_out())
            }
        };
        Gate::when(begun, "compaction begins in the target")
    }

    fn is_gone(&self, components: &[Component]) -> bool {
        let has_pods = self.observed.pods.iter().any(|pod| {
            pod.component
                .is_some_and(|component| components.contains(&component))
        });
        let shall_have = self.observed.workloads.values().any(|workload| {
            workload
                .component
                .is_some_and(|component| components.contains(&component))
                && workload.replicas > 0
        });
        !has_pods && !shall_have
    }

    fn retire(&self, migration: &MigrationStatus, plan: &mut Plan) -> Gate {
        let gone = match migration.from {
            Mode::Monolithic => self.is_gone(&[Component::Monolith]),
            Mode::Microservices => self.is_gone(&Component::UPGRADE_ORDER),
        };
        if gone {
            plan.notes.push(Note::normal(
                "MigrationCompleted",
                format!("the stack runs as {}", migration.to.name()),
            ));
        }
        Gate::when(gone, "pods of the source go")
    }
}

/// The monolith that was left stays for a while, without a pod: when it goes, its volume goes by
/// the policy of the stack.
fn keep_source(
    stack: &TempoStack,
    observed: &Observed,
    last: Option<&MigrationStatus>,
    topology: &mut Topology,
) {
    let keep = stack.spec.migration.keep_source_volumes_for.seconds();
    let is_kept = last.is_some_and(|last| {
        last.from == Mode::Monolithic
            && !has_passed(observed.now, Some(last.phase_started_at), keep)
    });
    if is_kept && topology.monolith.is_none() {
        topology.monolith = Some(MonolithShape {
            replicas: 0,
            compaction: false,
        });
    }
}
