//! A change of mode while spans come in and questions are asked.

use std::{cell::RefCell, thread, time::Duration};

use serde_json::{Value, json};

use super::{AT_ONCE, ROLLOUT_LIMIT, microservices, refusals};
use crate::{
    Failure, Outcome,
    context::Context,
    ensure,
    neighbours::FIRST,
    stack::{READY_LIMIT, Stack, condition, uids},
    traffic::Traffic,
    watcher::Watcher,
};

/// Time for a change of mode with the short times of [`specs`].
const MIGRATION_LIMIT: Duration = Duration::from_secs(900);
/// Spans go on for so long after what was done, so that what comes late is seen, too.
const AFTERWARDS: Duration = Duration::from_secs(40);

/// Phases of a change of mode, in the order of each way.
const UP: [&str; 9] = [
    "Preflight",
    "Bridge",
    "ProvisionTarget",
    "ReadCutover",
    "WriteCutover",
    "DrainSource",
    "CompactionHandover",
    "Retire",
    "Completed",
];
const DOWN: [&str; 9] = [
    "Preflight",
    "ProvisionTarget",
    "Bridge",
    "WriteCutover",
    "DrainSource",
    "ReadCutover",
    "CompactionHandover",
    "Retire",
    "Completed",
];

/// A stack that is ready in one of the modes, and how to change it.
struct Move<'c, 'w> {
    context: &'c Context<'w>,
    stack: Stack<'w>,
}

impl<'c, 'w> Move<'c, 'w> {
    fn ready_in(context: &'c Context<'w>, mode: &str) -> Outcome<Self> {
        Self::begin(context, mode, &context.world.neighbours.kafka()?)
    }

    fn begin(context: &'c Context<'w>, mode: &str, kafka: &str) -> Outcome<Self> {
        let neighbours = &context.world.neighbours;
        let s3 = neighbours.s3()?;
        neighbours.make_bucket(&context.namespace)?;
        context.apply(&refusals::s3_secret("access_key_secret", FIRST))?;
        let spec = microservices::under_load(&s3, &context.namespace, kafka)
            + "  migration: {writeQuietPeriod: 10s, keepSourceVolumesFor: 1h}\n";
        context.apply(&spec.replace("mode: Microservices", &format!("mode: {mode}")))?;
        let stack = context.stack("demo");
        stack.wait_ready(microservices::CLUSTER_READY_LIMIT)?;
        Ok(Self { context, stack })
    }

    fn patch(&self, spec: Value) -> Outcome {
        self.context.cluster().patch(
            &self.context.namespace,
            "tempostack/demo",
            &json!({"spec": spec}),
        )
    }

    fn to(&self, mode: &str) -> Outcome {
        self.patch(json!({"mode": mode}))
    }

    /// Waits until `holds`, and tells `traffic` of each phase; the phases in their order. `at` is
    /// called at the beginning of each.
    fn follow(
        &self,
        traffic: &Traffic,
        wanted: &str,
        mut at: impl FnMut(&str) -> Outcome,
        mut holds: impl FnMut(&Value) -> bool,
    ) -> Outcome<Vec<String>> {
        let mut phases: Vec<String> = Vec::new();
        let mut failed = Ok(());
        self.stack.wait(MIGRATION_LIMIT, wanted, |stack| {
            let migration = &stack["status"]["migration"];
            if let Some(phase) = migration["phase"].as_str()
                && phases.last().is_none_or(|last| last != phase)
            {
                phases.push(phase.to_owned());
                failed = std::mem::replace(&mut failed, Ok(())).and_then(|()| at(phase));
            }
            traffic.now(&format!(
                "{} {}",
                phases.last().map_or("", String::as_str),
                migration["message"].as_str().unwrap_or_default()
            ));
            failed.is_err() || holds(stack)
        })?;
        failed?;
        Ok(phases)
    }

    /// Waits until the stack runs in `mode`, and is ready.
    fn arrive(
        &self,
        traffic: &Traffic,
        mode: &str,
        at: impl FnMut(&str) -> Outcome,
    ) -> Outcome<Vec<String>> {
        let phases = self.follow(traffic, &format!("the mode is {mode}"), at, |stack| {
            let status = &stack["status"];
            status["mode"] == mode
                && status["phase"] == "Ready"
                && [&json!("Completed"), &Value::Null].contains(&&status["migration"]["phase"])
        })?;
        traffic.now("after it");
        thread::sleep(AFTERWARDS);
        Ok(phases)
    }
}

fn is(pod: &Value, component: &str) -> bool {
    pod["metadata"]["labels"]["app.kubernetes.io/component"] == component
}

/// Fails when a monolith that is being left and a scheduler exist at once (I5).
fn one_scheduler(stack: &Stack<'_>) -> Watcher {
    stack.watch_pods(|pods| {
        let count = |component| pods.values().filter(|pod| is(pod, component)).count();
        ensure(count("all") == 0 || count("backend-scheduler") == 0, || {
            "a scheduler ran beside the monolith".to_owned()
        })
    })
}

pub(super) fn up(context: &Context<'_>) -> Outcome {
    let change = Move::ready_in(context, "Monolithic")?;
    let traffic = Traffic::begin(context, &change.stack)?;
    let watcher = one_scheduler(&change.stack);
    change.to("Microservices")?;
    let phases = change.arrive(&traffic, "Microservices", |_| Ok(()))?;
    watcher.end()?;
    is_in_order(&phases, &UP)?;
    let claims = context
        .cluster()
        .list(&context.namespace, "persistentvolumeclaims", "")?;
    ensure(
        claims.keys().any(|claim| claim.contains("monolith")),
        || {
            format!(
                "the monolith's volume must stay for a while: {:?}",
                claims.keys()
            )
        },
    )?;
    traffic.finish().map(drop)
}

pub(super) fn down(context: &Context<'_>) -> Outcome {
    let change = Move::ready_in(context, "Microservices")?;
    let traffic = Traffic::begin(context, &change.stack)?;
    change.to("Monolithic")?;
    let phases = change.arrive(&traffic, "Monolithic", |_| Ok(()))?;
    is_in_order(&phases, &DOWN)?;
    let topic = context.world.neighbours.topic(&context.namespace)?;
    ensure(topic.len() == 3, || {
        format!("the topic must stay: {topic:?}")
    })?;
    traffic.finish().map(drop)
}

/// Quick phases may pass between two looks; none may come before its time, or again.
fn is_in_order(phases: &[String], order: &[&str]) -> Outcome {
    let mut rest = order.iter();
    let ordered = phases.iter().all(|phase| rest.any(|next| next == phase));
    ensure(
        ordered && phases.last().is_some_and(|last| last == "Completed"),
        || format!("phases {phases:?} are not in the order {order:?}"),
    )
}

/// The operator is killed at the beginning of each phase.
pub(super) fn restart(context: &Context<'_>) -> Outcome {
    let change = Move::ready_in(context, "Monolithic")?;
    let traffic = Traffic::begin(context, &change.stack)?;
    let watcher = one_scheduler(&change.stack);
    change.to("Microservices")?;
    let phases = change.arrive(&traffic, "Microservices", |_| context.world.operator.kill())?;
    watcher.end()?;
    is_in_order(&phases, &UP)?;
    traffic.finish().map(drop)
}

/// The mode is edited back: before spans have moved, and after.
pub(super) fn revert(context: &Context<'_>) -> Outcome {
    let change = Move::ready_in(context, "Monolithic")?;
    let before = uids(&change.stack.owned("pods")?);
    let traffic = Traffic::begin(context, &change.stack)?;
    for turning in ["ReadCutover", "DrainSource"] {
        change.to("Microservices")?;
        let phase = RefCell::new(String::new());
        change.follow(
            &traffic,
            &format!("the phase is {turning}"),
            |now| {
                now.clone_into(&mut phase.borrow_mut());
                Ok(())
            },
            |_| *phase.borrow() == turning,
        )?;
        change.to("Monolithic")?;
        change.arrive(&traffic, "Monolithic", |_| Ok(()))?;
        // Pods of the target take their time to end; the source has never gone.
        change
            .stack
            .wait_owned("pods", ROLLOUT_LIMIT, "the pods of before", |pods| {
                uids(pods) == before
            })?;
    }
    traffic.finish().map(drop)
}

/// Kafka does not answer: the stack says so, the source goes on, and the way back is open; when it
/// answers, the change goes on by itself.
pub(super) fn blocked(context: &Context<'_>) -> Outcome {
    let kafka = context.world.neighbours.kafka()?;
    let host = kafka.split(':').next().unwrap_or_default();
    let change = Move::begin(context, "Monolithic", &format!("{host}:1"))?;
    let before = uids(&change.stack.owned("pods")?);
    let traffic = Traffic::begin(context, &change.stack)?;
    let is_untouched = || {
        ensure(uids(&change.stack.owned("pods")?) == before, || {
            "a change of mode that can't begin must touch nothing".to_owned()
        })
    };
    for round in 0..2 {
        traffic.now("blocked");
        change.to("Microservices")?;
        let told =
            change
                .stack
                .wait_condition("Migrating", "True", "MigrationBlocked", ROLLOUT_LIMIT)?;
        let message = condition(&told, "Migrating")
            .map(|told| told["message"].to_string())
            .unwrap_or_default();
        ensure(message.contains(&format!("{host}:1")), || {
            format!("the message must name the address: {message}")
        })?;
        is_untouched()?;
        if round == 0 {
            change.to("Monolithic")?;
            change
                .stack
                .wait(AT_ONCE, "nothing is changed any more", |stack| {
                    condition(stack, "Migrating").is_none_or(|now| now["status"] != "True")
                })?;
            change.stack.wait_ready(READY_LIMIT)?;
            is_untouched()?;
        }
    }
    change.patch(json!({"kafka": {"bootstrapServers": [kafka]}}))?;
    change.arrive(&traffic, "Microservices", |_| Ok(()))?;
    traffic.finish().map(drop)
}

/// The monolith is killed while what it holds becomes blocks.
pub(super) fn source_crash(context: &Context<'_>) -> Outcome {
    let change = Move::ready_in(context, "Monolithic")?;
    let traffic = Traffic::begin(context, &change.stack)?;
    change.to("Microservices")?;
    let mut killed = false;
    let phases = change.arrive(&traffic, "Microservices", |phase| {
        if phase != "DrainSource" {
            return Ok(());
        }
        killed = true;
        let pods = change.stack.owned("pods")?;
        let (name, pod) = pods
            .iter()
            .find(|(_, pod)| is(pod, "all"))
            .ok_or_else(|| Failure::new("there is no monolith"))?;
        context.kill(name, pod)
    })?;
    ensure(killed, || "the monolith was not killed".to_owned())?;
    is_in_order(&phases, &UP)?;
    // While it replays its log, recent spans can't be told; nobody may be told that there are none.
    traffic.finish_after_failures().map(drop)
}
