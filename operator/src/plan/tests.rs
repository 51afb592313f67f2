//! Single decisions, each by itself; what holds over all of them is in the simulation.

use super::*;
use crate::api::{DrainPhase, LiveStoreStatus, MigrationPhase, TempoStackStatus, check};
use crate::topology::{Component, Names};

fn stack() -> TempoStack {
    let mut stack = check::load(include_str!("../../../crds/samples/production.yaml"))
        .unwrap()
        .remove(0);
    stack.spec.components.live_store.pods.replicas = Some(4);
    stack.spec.kafka.as_mut().unwrap().topic.partitions = None;
    stack.spec.metrics_generator.enabled = false;
    stack.status = Some(TempoStackStatus {
        mode: Some(Mode::Microservices),
        ..TempoStackStatus::default()
    });
    stack
}

/// A cluster of 2 zones with so many live-stores in each, all well.
fn cluster(stack: &TempoStack, replicas: u32) -> Observed {
    let names = Names::of(stack);
    let mut observed = Observed {
        now: At(100_000),
        image: "tempo:1".to_owned(),
        ..Observed::default()
    };
    let mut add = |component: Component, name: String, zone: Option<usize>, replicas: u32| {
        for ordinal in 0..replicas {
            observed.pods.push(Pod {
                name: format!("{name}-{ordinal}"),
                component: Some(component),
                zone,
                ordinal: Some(ordinal),
                ready: true,
                revision: "r1".to_owned(),
                is_tempo: true,
                ..Pod::default()
            });
        }
        observed.workloads.insert(
            name,
            Workload {
                component: Some(component),
                replicas,
                ready: replicas,
                updated: replicas,
                pods: replicas,
                current: true,
                revision: "r1".to_owned(),
                image: "tempo:1".to_owned(),
            },
        );
    };
    for zone in 0..2 {
        add(
            Component::LiveStore,
            names.live_store(zone),
            Some(zone),
            replicas,
        );
    }
    for component in Component::UPGRADE_ORDER {
        if component != Component::LiveStore {
            let count = if component == Component::BlockBuilder {
                replicas
            } else {
                1
            };
            add(component, names.component(component), None, count);
        }
    }
    observed.ring = Some(
        (0..replicas)
            .map(|id| Partition {
                id,
                state: PartitionState::Active,
                since: At(0),
                owners: Vec::new(),
            })
            .collect(),
    );
    observed.leaving = observed
        .live_stores()
        .map(|pod| (pod.name.clone(), false))
        .collect();
    observed.kafka = Some(KafkaView {
        problem: None,
        topic_partitions: Some(replicas),
        lag: (0..replicas).map(|id| (id, 0)).collect(),
    });
    observed
}

fn drain(stack: &mut TempoStack, phase: DrainPhase, started_at: i64, caught_up_at: Option<i64>) {
    let status = stack.status.get_or_insert_default();
    status.live_store = Some(LiveStoreStatus {
        drain: Some(Drain {
            from: 4,
            target: 2,
            phase,
            phase_started_at: At(started_at),
            started_at: Some(At(started_at)),
            caught_up_at: caught_up_at.map(At),
            message: String::new(),
        }),
        ..LiveStoreStatus::default()
    });
}

fn deactivate(observed: &mut Observed, ids: &[u32], since: i64) {
    for partition in observed.ring.iter_mut().flatten() {
        if ids.contains(&partition.id) {
            partition.state = PartitionState::Inactive;
            partition.since = At(since);
        }
    }
}

fn phase(plan: &Plan) -> Option<DrainPhase> {
    plan.drain.as_ref().map(|drain| drain.phase)
}

fn live_stores(plan: &Plan) -> Vec<u32> {
    plan.topology.cluster.as_ref().unwrap().live_stores.clone()
}

#[test]
fn a_settled_stack_needs_nothing() {
    let stack = stack();
    let plan = plan(&stack, &cluster(&stack, 4));
    assert_eq!(plan.actions, []);
    assert_eq!(plan.progress, None);
    assert_eq!(live_stores(&plan), [4, 4]);
    assert_eq!(plan.look_again_secs, IDLE_SECS);
}

#[test]
fn the_topic_grows_before_live_stores() {
    let mut stack = stack();
    stack.spec.components.live_store.pods.replicas = Some(6);
    let mut observed = cluster(&stack, 4);
    let first = plan(&stack, &observed);
    assert_eq!(live_stores(&first), [4, 4]);
    assert_eq!(first.actions, [Action::GrowTopic { partitions: 6 }]);
    assert_eq!(first.kafka.unwrap().reason, "TopicTooSmall");
    observed.kafka.as_mut().unwrap().topic_partitions = Some(6);
    let second = plan(&stack, &observed);
    assert_eq!(live_stores(&second), [6, 6]);
    assert_eq!(second.topology.cluster.unwrap().block_builders, 6);
    // Without the right to grow it, it says so and waits.
    stack.spec.kafka.as_mut().unwrap().topic.manage = TopicManagement::Create;
    observed.kafka.as_mut().unwrap().topic_partitions = Some(4);
    let refused = plan(&stack, &observed);
    assert_eq!(refused.actions, []);
    assert!(refused.kafka.unwrap().message.contains("CreateAndGrow"));
}

#[test]
fn no_live_store_starts_before_kafka_answers() {
    let stack = stack();
    let mut observed = Observed {
        now: At(0),
        kafka: Some(KafkaView {
            problem: Some(KafkaProblem {
                reason: "Unreachable",
                message: "no broker".to_owned(),
            }),
            ..KafkaView::default()
        }),
        ..Observed::default()
    };
    let waiting = plan(&stack, &observed);
    assert_eq!(live_stores(&waiting), [0, 0]);
    let cluster = waiting.topology.cluster.unwrap();
    assert!(
        !cluster.others
            && !cluster.workers
            && cluster.schedulers == 0
            && cluster.block_builders == 0
    );
    observed.kafka = Some(KafkaView::default());
    let missing = plan(&stack, &observed);
    assert_eq!(live_stores(&missing), [0, 0]);
    assert_eq!(missing.actions, [Action::CreateTopic { partitions: 4 }]);
}

#[test]
fn a_drain_goes_step_by_step() {
    let mut stack = stack();
    stack.spec.components.live_store.pods.replicas = Some(2);
    let mut observed = cluster(&stack, 4);
    let begun = plan(&stack, &observed);
    assert_eq!(phase(&begun), Some(DrainPhase::Deactivate));
    assert_eq!(begun.actions.len(), 4);
    assert_eq!(live_stores(&begun), [4, 4]);

    drain(&mut stack, DrainPhase::Deactivate, 100_000, None);
    deactivate(&mut observed, &[2, 3], 100_001);
    let marked = plan(&stack, &observed);
    assert_eq!(phase(&marked), Some(DrainPhase::Wait));
    assert_eq!(marked.drain.unwrap().started_at, Some(At(100_001)));

    // Time alone is not enough: what is not read holds it.
    drain(&mut stack, DrainPhase::Wait, 100_001, None);
    observed.now = At(200_000);
    observed.kafka.as_mut().unwrap().lag.insert(3, 7);
    let behind = plan(&stack, &observed);
    assert_eq!(phase(&behind), Some(DrainPhase::Wait));
    assert!(behind.drain.unwrap().message.contains("7 records"));

    // Nor is being read: queries turn to blocks later.
    observed.kafka.as_mut().unwrap().lag.insert(3, 0);
    let read = plan(&stack, &observed);
    assert_eq!(read.drain.as_ref().unwrap().caught_up_at, Some(At(200_000)));
    drain(&mut stack, DrainPhase::Wait, 100_001, Some(199_000));
    let ready = plan(&stack, &observed);
    assert_eq!(phase(&ready), Some(DrainPhase::Prepare));
    assert_eq!(ready.actions.len(), 4);
    assert_eq!(live_stores(&ready), [4, 4]);

    drain(&mut stack, DrainPhase::Prepare, 100_001, Some(199_000));
    observed
        .leaving
        .values_mut()
        .for_each(|leaving| *leaving = true);
    let told = plan(&stack, &observed);
    assert_eq!(phase(&told), Some(DrainPhase::Shrink));
    // Zone after zone.
    assert_eq!(live_stores(&told), [2, 4]);
    // I3: block-builders keep the drained partitions while the ring has them.
    assert_eq!(told.topology.cluster.unwrap().block_builders, 4);

    drain(&mut stack, DrainPhase::Shrink, 100_001, Some(199_000));
    let gone = cluster(&stack, 2);
    observed.pods = gone.pods;
    observed.workloads = gone.workloads;
    let shrunk = plan(&stack, &observed);
    assert_eq!(phase(&shrunk), Some(DrainPhase::Forget));
    observed.ring = gone.ring;
    drain(&mut stack, DrainPhase::Forget, 100_001, Some(199_000));
    let done = plan(&stack, &observed);
    assert_eq!(done.drain, None);
    assert_eq!(live_stores(&done), [2, 2]);
    assert_eq!(done.topology.cluster.unwrap().block_builders, 2);
}

#[test]
fn a_drain_is_cancelled_by_the_spec() {
    let mut stack = stack();
    let mut observed = cluster(&stack, 4);
    deactivate(&mut observed, &[2, 3], 100_001);
    drain(&mut stack, DrainPhase::Wait, 100_001, None);
    let cancelled = plan(&stack, &observed);
    assert_eq!(phase(&cancelled), Some(DrainPhase::Cancel));
    let reactivated = cancelled
        .actions
        .iter()
        .filter(|action| matches!(action, Action::Reactivate { .. }))
        .count();
    assert_eq!(reactivated, 2);
    drain(&mut stack, DrainPhase::Cancel, 100_001, None);
    let done = plan(&stack, &cluster(&stack, 4));
    assert_eq!(done.drain, None);
    assert_eq!(done.actions, []);
}

#[test]
fn a_partition_that_someone_reactivated_is_not_taken_away() {
    let mut stack = stack();
    stack.spec.components.live_store.pods.replicas = Some(2);
    drain(&mut stack, DrainPhase::Prepare, 1, Some(1));
    let plan = plan(&stack, &cluster(&stack, 4));
    assert_eq!(phase(&plan), Some(DrainPhase::Deactivate));
    assert_eq!(live_stores(&plan), [4, 4]);
}

#[test]
fn a_partition_that_stays_takes_spans() {
    let stack = stack();
    let mut observed = cluster(&stack, 4);
    deactivate(&mut observed, &[3], 1);
    let plan = plan(&stack, &observed);
    let pod = format!("{}-3", Names::of(&stack).live_store(0));
    assert_eq!(plan.actions, [Action::Reactivate { pod }]);
}

#[test]
fn partitions_that_are_not_forgotten_are_told_with_a_remedy() {
    let mut stack = stack();
    stack.spec.components.live_store.pods.replicas = Some(2);
    let mut observed = cluster(&stack, 2);
    observed.ring.as_mut().unwrap().push(Partition {
        id: 3,
        state: PartitionState::Inactive,
        since: At(0),
        owners: Vec::new(),
    });
    drain(&mut stack, DrainPhase::Forget, 0, Some(0));
    let plan = plan(&stack, &observed);
    assert!(
        plan.recent_reads
            .unwrap()
            .contains("Set components.liveStore.replicas to 4")
    );
}

#[test]
fn live_stores_are_replaced_zone_by_zone() {
    let stack = stack();
    let mut observed = cluster(&stack, 4);
    for workload in observed.workloads.values_mut() {
        workload.revision = "r2".to_owned();
    }
    let names = Names::of(&stack);
    let victims = |observed: &Observed| -> Vec<String> {
        plan(&stack, observed)
            .actions
            .into_iter()
            .filter_map(|action| match action {
                Action::DeletePod { pod } if pod.contains("live-store") => Some(pod),
                _ => None,
            })
            .collect()
    };
    // 25 % of 4 is one at a time.
    assert_eq!(victims(&observed), [format!("{}-3", names.live_store(0))]);
    // While a pod of the other zone is down, nothing is replaced.
    let other = observed
        .pods
        .iter_mut()
        .find(|pod| pod.zone == Some(1))
        .unwrap();
    other.ready = false;
    assert_eq!(victims(&observed), Vec::<String>::new());
}

#[test]
fn a_new_image_goes_first_to_who_is_asked() {
    let stack = stack();
    let mut observed = cluster(&stack, 4);
    observed.image = "tempo:2".to_owned();
    let first = plan(&stack, &observed);
    assert!(
        !first
            .topology
            .held_images
            .contains_key(&Component::LiveStore)
    );
    for component in &Component::UPGRADE_ORDER[1..] {
        assert_eq!(
            first
                .topology
                .held_images
                .get(component)
                .map(String::as_str),
            Some("tempo:1"),
            "{component:?}"
        );
    }
    let names = Names::of(&stack);
    for zone in 0..2 {
        observed
            .workloads
            .get_mut(&names.live_store(zone))
            .unwrap()
            .image = "tempo:2".to_owned();
    }
    let second = plan(&stack, &observed);
    assert!(
        !second
            .topology
            .held_images
            .contains_key(&Component::Querier)
    );
    assert!(
        second
            .topology
            .held_images
            .contains_key(&Component::QueryFrontend)
    );
    // An old pod beside the new one still asks as before.
    let querier = names.component(Component::Querier);
    let mut replaced = observed.clone();
    replaced.workloads.get_mut(&querier).unwrap().image = "tempo:2".to_owned();
    let holds_frontends = |observed: &Observed| {
        let held = plan(&stack, observed).topology.held_images;
        held.contains_key(&Component::QueryFrontend)
    };
    assert!(!holds_frontends(&replaced));
    replaced.workloads.get_mut(&querier).unwrap().pods += 1;
    assert!(holds_frontends(&replaced));
    // A first component that does not come up holds all behind it.
    observed
        .workloads
        .get_mut(&names.live_store(1))
        .unwrap()
        .ready = 0;
    let held = plan(&stack, &observed);
    assert!(held.topology.held_images.contains_key(&Component::Querier));
}

#[test]
fn a_change_of_mode_needs_a_monolith_that_can_be_bridged() {
    let mut stack = stack();
    stack.status.as_mut().unwrap().mode = Some(Mode::Monolithic);
    let names = Names::of(&stack);
    let mut observed = Observed {
        now: At(1000),
        ..Observed::default()
    };
    observed.workloads.insert(
        names.component(Component::Monolith),
        Workload {
            component: Some(Component::Monolith),
            replicas: 1,
            ready: 1,
            updated: 1,
            current: true,
            ..Workload::default()
        },
    );
    observed.kafka = Some(KafkaView::default());
    let topic = plan(&stack, &observed);
    assert_eq!(topic.actions, [Action::CreateTopic { partitions: 4 }]);
    assert!(topic.blocked.is_some());
    assert_eq!(topic.topology.cluster, None);

    observed.kafka.as_mut().unwrap().topic_partitions = Some(4);
    let mut status = plan(&stack, &observed);
    assert_eq!(
        status.migration.as_ref().unwrap().phase,
        MigrationPhase::Bridge
    );
    stack.status.as_mut().unwrap().migration = status.migration.take();
    observed.monolith = Some(MonolithView {
        can_bridge: Some(false),
        ..MonolithView::default()
    });
    let blocked = plan(&stack, &observed);
    assert!(
        blocked
            .blocked
            .unwrap()
            .contains("can't take part in a cluster")
    );
    assert_eq!(blocked.topology.cluster, None);
    assert_eq!(blocked.topology.monolith.unwrap().replicas, 1);
    // Turned back, nothing is left of it.
    stack.spec.mode = Mode::Monolithic;
    let back = plan(&stack, &observed);
    assert_eq!(back.migration, None);
}
