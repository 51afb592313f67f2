//! More and fewer live-stores, new pods and new images, while spans come in and questions are
//! asked.

use std::{collections::BTreeMap, thread, time::Duration};

use serde_json::{Value, json};

use super::{ROLLOUT_LIMIT, microservices};
use crate::{
    Failure, Outcome,
    access::Access,
    context::Context,
    ensure,
    operator::pod_is_ready,
    stack::{Stack, uids},
    traffic::Traffic,
};

/// Time for a change of the number of live-stores, with the short times of
/// [`microservices::under_load`].
const SCALE_LIMIT: Duration = Duration::from_secs(900);
/// Spans go on for so long after what was done, so that what comes late is seen, too.
const AFTERWARDS: Duration = Duration::from_secs(40);

/// A cluster of components with so many live-stores in each of two zones, and traffic on it.
struct Busy<'c, 'w> {
    context: &'c Context<'w>,
    stack: Stack<'w>,
    traffic: Traffic,
}

impl<'c, 'w> Busy<'c, 'w> {
    fn with(context: &'c Context<'w>, live_stores: usize) -> Outcome<Self> {
        let (kafka, s3) = microservices::surroundings(context)?;
        let spec = microservices::under_load(&s3, &context.namespace, &kafka)
            .replace(
                "partitions: 3,",
                &format!("partitions: {live_stores}, manage: CreateAndGrow,"),
            )
            .replace("replicas: 3", &format!("replicas: {live_stores}"));
        context.apply(&spec)?;
        let stack = context.stack("demo");
        stack.wait_ready(microservices::CLUSTER_READY_LIMIT)?;
        let traffic = Traffic::begin(context, &stack)?;
        Ok(Self {
            context,
            stack,
            traffic,
        })
    }

    fn patch(&self, spec: Value) -> Outcome {
        self.context.cluster().patch(
            &self.context.namespace,
            "tempostack/demo",
            &json!({"spec": spec}),
        )
    }

    fn scale(&self, live_stores: usize) -> Outcome {
        self.traffic.now(&format!("to {live_stores}"));
        let partitions = live_stores.max(
            self.context
                .world
                .neighbours
                .topic(&self.context.namespace)?
                .len(),
        );
        self.patch(json!({
            "components": {"liveStore": {"replicas": live_stores}},
            "kafka": {"topic": {"partitions": partitions}},
        }))
    }

    /// Waits until so many partitions take spans and no drain is under way; the phases of the drain
    /// in their order. `at` is called at the beginning of each with its status.
    fn arrive(
        &self,
        live_stores: usize,
        mut at: impl FnMut(&str, &Value) -> Outcome,
    ) -> Outcome<Vec<String>> {
        let mut phases: Vec<String> = Vec::new();
        let mut failed = Ok(());
        self.stack.wait(
            SCALE_LIMIT,
            &format!("{live_stores} live-stores in each zone"),
            |stack| {
                let live = &stack["status"]["liveStore"];
                let drain = &live["drain"];
                if let Some(phase) = drain["phase"].as_str()
                    && phases.last().is_none_or(|last| last != phase)
                {
                    phases.push(phase.to_owned());
                    failed = std::mem::replace(&mut failed, Ok(())).and_then(|()| at(phase, drain));
                }
                self.traffic.now(&format!(
                    "{} {}",
                    drain["phase"].as_str().unwrap_or("no drain"),
                    drain["message"].as_str().unwrap_or_default()
                ));
                failed.is_err()
                    || (drain.is_null()
                        && live["replicas"] == live_stores
                        && live["partitions"]["active"] == live_stores
                        && live["partitions"]["inactive"].as_u64().unwrap_or(0) == 0)
            },
        )?;
        failed?;
        self.stack.wait_ready(microservices::CLUSTER_READY_LIMIT)?;
        Ok(phases)
    }

    fn block_builders(&self, wanted: usize) -> Outcome {
        self.stack
            .wait_owned(
                "statefulsets",
                ROLLOUT_LIMIT,
                &format!("{wanted} block-builders"),
                |sets| {
                    sets.get("tempo-demo-block-builder")
                        .is_some_and(|set| set["status"]["readyReplicas"] == wanted)
                },
            )
            .map(drop)
    }

    /// A while longer, and then what came of it.
    fn finish(self) -> Outcome {
        self.traffic.now("after it");
        thread::sleep(AFTERWARDS);
        self.traffic.finish().map(drop)
    }
}

fn live_store_uids(stack: &Stack<'_>) -> Outcome<Vec<(String, String)>> {
    let mut pods = stack.owned("pods")?;
    pods.retain(|_, pod| is_live_store(pod));
    Ok(uids(&pods))
}

fn is_live_store(pod: &Value) -> bool {
    pod["metadata"]["labels"]["app.kubernetes.io/component"] == "live-store"
}

pub(super) fn up(context: &Context<'_>) -> Outcome {
    let busy = Busy::with(context, 2)?;
    let before = live_store_uids(&busy.stack)?;
    busy.scale(4)?;
    busy.stack
        .wait_owned("pods", ROLLOUT_LIMIT, "a fourth live-store", |pods| {
            pods.iter()
                .any(|(name, pod)| is_live_store(pod) && name.ends_with("-3"))
        })?;
    let topic = context.world.neighbours.topic(&context.namespace)?;
    ensure(topic.len() == 4, || {
        format!("a live-store came before its partition: {topic:?}")
    })?;
    busy.arrive(4, |_, _| Ok(()))?;
    busy.block_builders(4)?;
    let after = live_store_uids(&busy.stack)?;
    ensure(before.iter().all(|pod| after.contains(pod)), || {
        "live-stores that there were must stay".to_owned()
    })?;
    busy.finish()
}

/// Steps of a drain, in their order.
const DRAIN: [&str; 5] = ["Deactivate", "Wait", "Prepare", "Shrink", "Forget"];

fn is_drain(phases: &[String]) -> Outcome {
    let mut rest = DRAIN.iter();
    let ordered = phases.iter().all(|phase| rest.any(|next| next == phase));
    ensure(
        ordered && phases.iter().any(|phase| phase == "Wait"),
        || format!("a drain went by the phases {phases:?}"),
    )
}

pub(super) fn down(context: &Context<'_>) -> Outcome {
    let busy = Busy::with(context, 4)?;
    busy.scale(2)?;
    is_drain(&busy.arrive(2, |_, _| Ok(()))?)?;
    busy.block_builders(2)?;
    busy.finish()
}

pub(super) fn cancel(context: &Context<'_>) -> Outcome {
    let busy = Busy::with(context, 4)?;
    let before = live_store_uids(&busy.stack)?;
    busy.scale(2)?;
    busy.stack
        .wait(SCALE_LIMIT, "two partitions take no spans", |stack| {
            let live = &stack["status"]["liveStore"];
            live["drain"]["phase"] == "Wait" && live["partitions"]["inactive"] == 2
        })?;
    busy.scale(4)?;
    let phases = busy.arrive(4, |_, _| Ok(()))?;
    ensure(
        phases
            .iter()
            .all(|phase| ["Wait", "Cancel"].contains(&phase.as_str())),
        || format!("a drain that is cancelled went by {phases:?}"),
    )?;
    ensure(live_store_uids(&busy.stack)? == before, || {
        "no live-store may be another".to_owned()
    })?;
    for (pod, _) in before {
        let way = Access::forward(
            context.cluster(),
            &context.namespace,
            &format!("pod/{pod}"),
            3200,
        )?;
        let path = "/live-store/prepare-downscale";
        let mark = tempo_testkit::http_client::get(&way.address, path)?.text();
        ensure(mark.trim() == "unset", || {
            format!("{pod} would leave for good: {mark}")
        })?;
    }
    busy.finish()
}

/// The operator is killed at the beginning of each step.
pub(super) fn restart(context: &Context<'_>) -> Outcome {
    let busy = Busy::with(context, 4)?;
    let mut begun: Vec<String> = Vec::new();
    busy.scale(2)?;
    let phases = busy.arrive(2, |_, drain| {
        begun.extend(drain["startedAt"].as_str().map(str::to_owned));
        context.world.operator.kill()
    })?;
    is_drain(&phases)?;
    begun.dedup();
    ensure(begun.len() == 1, || {
        format!("a drain that goes on began once, not at {begun:?}")
    })?;
    busy.finish()
}

pub(super) fn back(context: &Context<'_>) -> Outcome {
    let busy = Busy::with(context, 3)?;
    busy.scale(2)?;
    busy.arrive(2, |_, _| Ok(()))?;
    busy.scale(3)?;
    busy.arrive(3, |_, _| Ok(()))?;
    busy.finish()
}

/// New resources for live-stores: one zone after another, and never both owners of a partition.
pub(super) fn zones(context: &Context<'_>) -> Outcome {
    let busy = Busy::with(context, 2)?;
    let before = live_store_uids(&busy.stack)?;
    let watcher = busy.stack.watch_pods(|pods| {
        let mut ready: BTreeMap<&str, usize> = BTreeMap::from([("0", 0), ("1", 0)]);
        for (name, pod) in pods.iter().filter(|(_, pod)| is_live_store(pod)) {
            let ordinal = name.rsplit('-').next().unwrap_or_default();
            let leaves = pod["metadata"]["deletionTimestamp"].is_string();
            *ready.entry(ordinal).or_default() += usize::from(pod_is_ready(pod) && !leaves);
        }
        ensure(ready.values().all(|owners| *owners > 0), || {
            format!("a partition had no owner that is ready: {ready:?}")
        })
    });
    busy.traffic.now("new resources");
    busy.patch(json!({"components": {"liveStore": {
        "resources": {"requests": {"memory": "70Mi"}},
    }}}))?;
    busy.stack
        .wait_owned("pods", SCALE_LIMIT, "all live-stores are new", |pods| {
            let stores: Vec<_> = pods.iter().filter(|(_, pod)| is_live_store(pod)).collect();
            stores.len() == 4
                && stores.iter().all(|(name, pod)| {
                    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
                    pod_is_ready(pod) && !before.iter().any(|(n, u)| n == *name && u == uid)
                })
        })?;
    busy.stack.wait_ready(microservices::CLUSTER_READY_LIMIT)?;
    watcher.end()?;
    busy.finish()
}

/// Who is asked comes before who asks, who reads before who writes.
const UPGRADE: [&str; 7] = [
    "live-store",
    "querier",
    "query-frontend",
    "backend-worker",
    "backend-scheduler",
    "block-builder",
    "distributor",
];

pub(super) fn upgrade(context: &Context<'_>) -> Outcome {
    let tag = context
        .world
        .next_tag
        .as_deref()
        .ok_or_else(|| Failure::new("there is no image of another version"))?;
    let busy = Busy::with(context, 2)?;
    // A component may get the new image when all pods of those before have it and are ready.
    let (wanted, suffix) = (tag.to_owned(), format!(":{tag}"));
    let watcher = busy.stack.watch_pods(move |pods| {
        let rank = |pod: &Value| {
            let component = &pod["metadata"]["labels"]["app.kubernetes.io/component"];
            UPGRADE.iter().position(|name| component == name)
        };
        let is_new = |pod: &Value| {
            pod["spec"]["containers"][0]["image"]
                .as_str()
                .is_some_and(|image| image.ends_with(&suffix))
        };
        let newest = pods
            .values()
            .filter(|pod| is_new(pod))
            .filter_map(rank)
            .max();
        let behind = pods.iter().find(|(_, pod)| {
            let leaves = pod["metadata"]["deletionTimestamp"].is_string();
            !is_new(pod) && !leaves && rank(pod).is_some() && rank(pod) < newest
        });
        match behind {
            Some((name, _)) => Err(Failure::new(format!(
                "{} has version {wanted} before {name}",
                newest.map_or("", |rank| UPGRADE[rank])
            ))),
            None => Ok(()),
        }
    });
    busy.traffic.now("upgrade");
    busy.patch(json!({"image": {"tag": tag}}))?;
    busy.stack
        .wait(SCALE_LIMIT, "all run on the new version", |stack| {
            busy.traffic
                .now(stack["status"]["message"].as_str().unwrap_or_default());
            stack["status"]["version"]["tempo"] == tag && stack["status"]["phase"] == "Ready"
        })?;
    watcher.end()?;
    busy.finish()
}
