//! The status of a stack, from what was planned, found and done: pure.

mod conditions;
mod health;

use std::collections::BTreeMap;

use self::conditions::Conditions;
use self::health::Health;
use super::apply::Rejected;
use crate::api::{
    ComponentStatus, Endpoints, KafkaStatus, LiveStoreStatus, MigrationPhase, Partitions,
    TempoStack, TempoStackStatus, Versions,
};
use crate::manifests::version_of;
use crate::plan::{Observed, PartitionState, Plan};
use crate::topology::{Component, Names};

/// What a status is made from.
pub(super) struct Findings<'a> {
    pub(super) stack: &'a TempoStack,
    pub(super) observed: &'a Observed,
    pub(super) plan: Option<&'a Plan>,
    /// Why configuration or references can't be used.
    pub(super) config: Option<(&'static str, String)>,
    /// Objects that Kubernetes does not take.
    pub(super) rejected: &'a [Rejected],
    /// StatefulSets whose volumes can't have the size that was asked for.
    pub(super) held_volumes: &'a [Rejected],
    /// Secrets that cert-manager has yet to make.
    pub(super) awaited_certificates: &'a [String],
    /// Kinds that the stack asks for and the cluster lacks.
    pub(super) missing_kinds: &'a [&'static str],
    /// What was tried and did not work.
    pub(super) failed_action: Option<String>,
}

/// Makes the status.
pub(super) fn status(findings: &Findings<'_>) -> TempoStackStatus {
    let stack = findings.stack;
    let observed = findings.observed;
    let before = stack.status.clone().unwrap_or_default();
    let names = Names::of(stack);
    let mode = findings.plan.map_or(before.mode, |plan| Some(plan.mode));
    let components = components(observed);
    let health = Health::of(findings, &components);
    let mut status = TempoStackStatus {
        observed_generation: stack.metadata.generation,
        mode,
        version: versions(observed, &before),
        phase: Some(health.phase(findings)),
        message: String::new(),
        selector: format!(
            "app.kubernetes.io/instance={},app.kubernetes.io/component=live-store",
            names.stack()
        ),
        live_store: live_stores(findings, &before),
        kafka: observed.kafka.as_ref().map(|kafka| KafkaStatus {
            topic: names.topic(stack),
            partitions: kafka.topic_partitions.unwrap_or(0),
            reachable: kafka.problem.is_none(),
        }),
        endpoints: Some(endpoints(stack, &names)),
        migration: findings
            .plan
            .map_or(before.migration.clone(), |plan| plan.migration.clone()),
        components,
        conditions: Vec::new(),
    };
    let mut conditions = Conditions {
        before: &before.conditions,
        now: observed.now,
        generation: stack.metadata.generation,
        list: Vec::new(),
    };
    health.conditions(findings, mode, &mut conditions);
    status.conditions = conditions.list;
    status.message = headline(findings, &status);
    status
}

/// The one sentence that `kubectl get -o wide` shows: the first thing amiss, or what goes on.
fn headline(findings: &Findings<'_>, status: &TempoStackStatus) -> String {
    let amiss = |kind: &str| {
        status
            .conditions
            .iter()
            .find(|condition| condition.kind == kind && condition.status == "False")
            .map(|condition| condition.message.clone())
    };
    let progress = findings
        .plan
        .and_then(|plan| plan.progress.as_ref())
        .map(|(_, message)| message.clone());
    let migrating = status
        .migration
        .as_ref()
        .filter(|migration| migration.phase != MigrationPhase::Completed)
        .map(|migration| format!("{:?}: {}", migration.phase, migration.message));
    let text = amiss("ConfigValid")
        .or_else(|| amiss("KafkaReady"))
        .or(migrating)
        .or(progress)
        .or_else(|| amiss("VolumesGrown"))
        .or_else(|| amiss("Ready"))
        .unwrap_or_default();
    crate::text::cut(&text, 1000).to_owned()
}

fn components(observed: &Observed) -> BTreeMap<String, ComponentStatus> {
    let mut components: BTreeMap<String, ComponentStatus> = BTreeMap::new();
    for workload in observed.workloads.values() {
        let Some(component) = workload.component else {
            continue;
        };
        let entry = components.entry(component.key().to_owned()).or_default();
        entry.desired += workload.replicas;
        entry.ready += workload.ready;
        entry.updated += workload.updated;
        version_of(&workload.image).clone_into(&mut entry.version);
    }
    components
}

fn versions(observed: &Observed, before: &TempoStackStatus) -> Versions {
    let mut tempo: Vec<&str> = observed
        .workloads
        .values()
        .filter(|workload| {
            workload.component.is_none_or(Component::is_tempo)
                && workload.replicas > 0
                && workload.is_rolled_out()
        })
        .map(|workload| version_of(&workload.image))
        .collect();
    tempo.dedup();
    let all_done = observed
        .workloads
        .values()
        .all(|workload| workload.is_rolled_out());
    let current = match tempo.as_slice() {
        [first, rest @ ..] if all_done && rest.iter().all(|other| other == first) => {
            (*first).to_owned()
        }
        _ => before.version.tempo.clone(),
    };
    Versions {
        operator: env!("CARGO_PKG_VERSION").to_owned(),
        tempo: current,
        target: version_of(&observed.image).to_owned(),
    }
}

fn live_stores(findings: &Findings<'_>, before: &TempoStackStatus) -> Option<LiveStoreStatus> {
    let Some(plan) = findings.plan else {
        return before.live_store.clone();
    };
    plan.topology.cluster.as_ref()?;
    let count = |state: PartitionState| {
        let count = findings
            .observed
            .partitions()
            .filter(|partition| partition.state == state)
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    Some(LiveStoreStatus {
        replicas: i32::try_from(plan.live_stores).unwrap_or(i32::MAX),
        partitions: Partitions {
            active: count(PartitionState::Active),
            pending: count(PartitionState::Pending),
            inactive: count(PartitionState::Inactive),
        },
        drain: plan.drain.clone(),
    })
}

fn endpoints(stack: &TempoStack, names: &Names) -> Endpoints {
    let distributor = names.host(&names.component(Component::Distributor));
    let frontend = names.host(&names.component(Component::QueryFrontend));
    let otlp = &stack.spec.receivers.otlp;
    let scheme = if stack.spec.security.internal_tls.is_some() {
        "https"
    } else {
        "http"
    };
    Endpoints {
        otlp_grpc: if otlp.grpc {
            format!("{distributor}:4317")
        } else {
            String::new()
        },
        otlp_http: if otlp.http {
            format!("{distributor}:4318")
        } else {
            String::new()
        },
        query: format!("{scheme}://{frontend}:3200"),
    }
}

#[cfg(test)]
mod tests;
