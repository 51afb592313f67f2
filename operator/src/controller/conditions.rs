//! The status of a stack, from what was planned, found and done: pure.

use std::collections::BTreeMap;

use super::apply::Rejected;
use crate::api::{
    At, ComponentStatus, Condition, Endpoints, KafkaStatus, LiveStoreStatus, MigrationPhase, Mode,
    Partitions, Phase, TempoStack, TempoStackStatus, Versions,
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

/// How the pods are.
struct Health {
    /// Components that serving needs and that have no ready pod.
    down: Vec<String>,
    /// Components with fewer ready pods than they shall have.
    short: Vec<String>,
    /// Roll-outs under way.
    rolling: Vec<String>,
    /// Why pods do not start.
    trouble: Option<String>,
    /// Whether there is any pod.
    any: bool,
}

impl Health {
    fn of(findings: &Findings<'_>, components: &BTreeMap<String, ComponentStatus>) -> Self {
        let observed = findings.observed;
        let mut health = Self {
            down: Vec::new(),
            short: Vec::new(),
            rolling: Vec::new(),
            trouble: None,
            any: observed.pods.iter().any(|pod| pod.is_tempo),
        };
        let serving = findings.plan.map(|plan| {
            let mut needed = Vec::new();
            if [plan.topology.reads, plan.topology.writes].contains(&Mode::Monolithic) {
                needed.push("monolith");
            }
            if [plan.topology.reads, plan.topology.writes].contains(&Mode::Microservices) {
                needed.extend([
                    "distributor",
                    "liveStore",
                    "querier",
                    "queryFrontend",
                    "blockBuilder",
                    "backendScheduler",
                ]);
            }
            needed
        });
        for name in serving.iter().flatten() {
            // While the mode changes, compaction may rest.
            let may_rest = *name == "backendScheduler"
                && findings.plan.is_some_and(|plan| {
                    plan.topology
                        .cluster
                        .as_ref()
                        .is_some_and(|cluster| cluster.schedulers == 0)
                });
            match components.get(*name) {
                Some(component) if component.ready > 0 || (may_rest && component.desired == 0) => {}
                _ if may_rest => {}
                _ => health.down.push((*name).to_owned()),
            }
        }
        for (name, workload) in &observed.workloads {
            if workload.ready < workload.replicas {
                health
                    .short
                    .push(format!("{name} {}/{}", workload.ready, workload.replicas));
            }
            if !workload.current || workload.updated < workload.replicas {
                health.rolling.push(name.clone());
            }
        }
        health.trouble = observed
            .pods
            .iter()
            .find_map(|pod| Some(format!("{}: {}", pod.name, pod.trouble.as_ref()?)));
        health
    }

    fn is_broken(&self, findings: &Findings<'_>) -> bool {
        findings.config.is_some() || !findings.rejected.is_empty()
    }

    fn phase(&self, findings: &Findings<'_>) -> Phase {
        let spec = &findings.stack.spec;
        let plan = findings.plan;
        let migrates = plan
            .and_then(|plan| plan.migration.as_ref())
            .is_some_and(|migration| migration.phase != MigrationPhase::Completed);
        if spec.paused {
            Phase::Paused
        } else if spec.stopped && !self.any && !migrates {
            Phase::Stopped
        } else if self.is_broken(findings) && !self.any {
            Phase::Failed
        } else if migrates {
            Phase::Migrating
        } else if !self.down.is_empty() || !self.any {
            // A node may still come; a container that fails will not mend by itself.
            let waits = self
                .trouble
                .as_ref()
                .is_none_or(|trouble| trouble.contains("Unschedulable"));
            if waits { Phase::Pending } else { Phase::Failed }
        } else if self.is_broken(findings) || self.recent_reads(findings).is_some() {
            Phase::Degraded
        } else if plan.is_some_and(|plan| plan.progress.is_some()) || !self.rolling.is_empty() {
            Phase::Progressing
        } else if !self.short.is_empty() || plan.is_some_and(|plan| plan.kafka.is_some()) {
            Phase::Degraded
        } else {
            Phase::Ready
        }
    }

    /// A partition without a ready owner fails recent queries.
    fn recent_reads(&self, findings: &Findings<'_>) -> Option<String> {
        let plan = findings.plan?;
        if let Some(reason) = &plan.recent_reads {
            return Some(reason.clone());
        }
        if plan.topology.reads != Mode::Microservices {
            return None;
        }
        let unowned: Vec<String> = findings
            .observed
            .partitions()
            .filter(|partition| {
                partition.state == PartitionState::Active
                    || (partition.id < plan.live_stores
                        && partition.state == PartitionState::Inactive)
            })
            .filter(|partition| {
                !findings
                    .observed
                    .owners_of(partition.id)
                    .any(|pod| pod.ready)
            })
            .map(|partition| partition.id.to_string())
            .collect();
        (!unowned.is_empty()).then(|| {
            format!(
                "partitions {} have no ready live-store: recent queries fail; look at the pods of these numbers",
                unowned.join(", ")
            )
        })
    }

    fn conditions(
        &self,
        findings: &Findings<'_>,
        mode: Option<Mode>,
        conditions: &mut Conditions<'_>,
    ) {
        let plan = findings.plan;
        self.ready(findings, conditions);
        self.progressing(findings, conditions);
        self.degraded(findings, conditions);
        match (&findings.config, findings.rejected.first()) {
            (Some((reason, message)), _) => conditions.set("ConfigValid", false, reason, message),
            (None, Some(rejected)) => conditions.set(
                "ConfigValid",
                false,
                "ManifestRejected",
                &format!(
                    "Kubernetes does not take {}: {}",
                    rejected.object, rejected.reason
                ),
            ),
            (None, None) => conditions.set(
                "ConfigValid",
                true,
                "Valid",
                "references exist, and Tempo's parser takes the configuration",
            ),
        }
        self.storage(findings, conditions);
        if !findings.held_volumes.is_empty() {
            let held: Vec<String> = findings
                .held_volumes
                .iter()
                .map(|held| {
                    format!(
                        "volumes of {} stay as they are: {}",
                        held.object, held.reason
                    )
                })
                .collect();
            let message = format!(
                "{}; let their StorageClass say allowVolumeExpansion: true",
                held.join("; ")
            );
            conditions.set("VolumesGrown", false, "CannotGrow", &message);
        }
        if mode == Some(Mode::Microservices)
            || plan.is_some_and(|plan| plan.topology.cluster.is_some())
            || plan.is_some_and(|plan| plan.kafka.is_some())
        {
            match plan.and_then(|plan| plan.kafka.as_ref()) {
                Some(problem) => {
                    conditions.set("KafkaReady", false, problem.reason, &problem.message)
                }
                None if findings.observed.kafka.is_some() => conditions.set(
                    "KafkaReady",
                    true,
                    "Ready",
                    "brokers answer, and the topic has enough partitions",
                ),
                None => {}
            }
        }
        let migration = plan
            .and_then(|plan| plan.migration.as_ref())
            .filter(|migration| migration.phase != MigrationPhase::Completed);
        match (migration, plan.and_then(|plan| plan.blocked.as_ref())) {
            (_, Some(blocked)) => conditions.set("Migrating", true, "MigrationBlocked", blocked),
            (Some(migration), None) => {
                let reason = format!("{:?}", migration.phase);
                conditions.set("Migrating", true, &reason, &migration.message);
            }
            (None, None) => conditions.set("Migrating", false, "Idle", ""),
        }
        let version_changes = findings.observed.workloads.values().any(|workload| {
            workload.component.is_none_or(Component::is_tempo)
                && workload.image != findings.observed.image
                && !workload.image.is_empty()
        });
        conditions.set(
            "Upgrading",
            version_changes,
            if version_changes {
                "RollingOut"
            } else {
                "Idle"
            },
            "",
        );
        conditions.set(
            "Paused",
            findings.stack.spec.paused,
            if findings.stack.spec.paused {
                "PausedBySpec"
            } else {
                "Running"
            },
            "",
        );
        if findings.missing_kinds.is_empty() {
            match findings.awaited_certificates {
                [] => conditions.set("IntegrationsReady", true, "Ready", ""),
                awaited => conditions.set(
                    "IntegrationsReady",
                    false,
                    "CertificateNotReady",
                    &format!(
                        "cert-manager has not made {} yet, and pods wait for it; see: kubectl describe certificate",
                        awaited.join(", ")
                    ),
                ),
            }
        } else {
            conditions.set(
                "IntegrationsReady",
                false,
                "KindMissing",
                &format!("the cluster does not know {}; what needs it is left out until the operator is started after it was installed", findings.missing_kinds.join(", ")),
            );
        }
    }

    fn ready(&self, findings: &Findings<'_>, conditions: &mut Conditions<'_>) {
        if findings.stack.spec.stopped {
            return conditions.set("Ready", false, "Stopped", "spec.stopped is true");
        }
        if let Some(reason) = self.recent_reads(findings) {
            return conditions.set("Ready", false, "RecentReadsUnavailable", &reason);
        }
        if !self.any {
            return conditions.set("Ready", false, "MissingComponents", "there are no pods yet");
        }
        let trouble = self
            .trouble
            .as_deref()
            .map(|trouble| format!("; {trouble}"))
            .unwrap_or_default();
        if !self.down.is_empty() {
            return conditions.set(
                "Ready",
                false,
                "MissingComponents",
                &format!("no pod is ready of {}{trouble}", self.down.join(", ")),
            );
        }
        if !self.short.is_empty() || !self.rolling.is_empty() {
            let what = if self.short.is_empty() {
                &self.rolling
            } else {
                &self.short
            };
            return conditions.set(
                "Ready",
                false,
                "WaitingForPods",
                &format!("{}{trouble}", what.join(", ")),
            );
        }
        if self.is_broken(findings) {
            return conditions.set(
                "Ready",
                false,
                "OldSpecRuns",
                "pods run as the last valid spec said; see ConfigValid",
            );
        }
        conditions.set(
            "Ready",
            true,
            "AllComponentsReady",
            "spans and queries are served",
        );
    }

    fn progressing(&self, findings: &Findings<'_>, conditions: &mut Conditions<'_>) {
        let under_way = findings.plan.and_then(|plan| plan.progress.clone());
        match (under_way, &findings.failed_action) {
            (_, Some(failed)) => conditions.set("Progressing", true, "Retrying", failed),
            (Some((reason, message)), None) => {
                conditions.set("Progressing", true, reason, &message)
            }
            (None, None) if !self.rolling.is_empty() => {
                conditions.set("Progressing", true, "RollingOut", &self.rolling.join(", "));
            }
            (None, None) => conditions.set("Progressing", false, "Idle", ""),
        }
    }

    fn degraded(&self, findings: &Findings<'_>, conditions: &mut Conditions<'_>) {
        let zone_down = findings.observed.workloads.iter().find(|(_, workload)| {
            workload.component == Some(Component::LiveStore)
                && workload.replicas > 0
                && workload.ready == 0
        });
        if let Some((name, _)) = zone_down {
            conditions.set(
                "Degraded",
                true,
                "ZoneDown",
                &format!("no live-store of {name} is ready"),
            );
        } else if let Some(reason) = self.recent_reads(findings) {
            conditions.set("Degraded", true, "PartitionUnowned", &reason);
        } else if self.down.iter().any(|name| name == "backendScheduler") {
            conditions.set(
                "Degraded",
                true,
                "SchedulerDown",
                "blocks are not joined while the backend-scheduler is down",
            );
        } else if !self.short.is_empty() {
            conditions.set("Degraded", true, "PodsMissing", &self.short.join(", "));
        } else {
            conditions.set("Degraded", false, "Healthy", "");
        }
    }

    /// Pods are ready only when they could read the list of blocks once.
    fn storage(&self, findings: &Findings<'_>, conditions: &mut Conditions<'_>) {
        let text = findings
            .observed
            .pods
            .iter()
            .filter_map(|pod| pod.trouble.as_deref())
            .find_map(storage_fault);
        match text {
            Some((reason, message)) => conditions.set("StorageReady", false, reason, &message),
            None if self.any && self.down.is_empty() => {
                conditions.set("StorageReady", true, "Reachable", "")
            }
            None => conditions.unknown("StorageReady", "NotAskedYet", "pods tell once they run"),
        }
    }
}

fn storage_fault(trouble: &str) -> Option<(&'static str, String)> {
    let lower = trouble.to_lowercase();
    let reason = if lower.contains("accessdenied")
        || lower.contains("access denied")
        || lower.contains("invalidaccesskeyid")
    {
        "AccessDenied"
    } else if lower.contains("nosuchbucket") || lower.contains("no such bucket") {
        "NoSuchBucket"
    } else {
        return None;
    };
    Some((reason, trouble.to_owned()))
}

struct Conditions<'a> {
    before: &'a [Condition],
    now: At,
    generation: Option<i64>,
    list: Vec<Condition>,
}

impl Conditions<'_> {
    fn set(&mut self, kind: &str, holds: bool, reason: &str, message: &str) {
        self.push(kind, if holds { "True" } else { "False" }, reason, message);
    }

    fn unknown(&mut self, kind: &str, reason: &str, message: &str) {
        self.push(kind, "Unknown", reason, message);
    }

    fn push(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let since = self
            .before
            .iter()
            .find(|condition| condition.kind == kind && condition.status == status)
            .map_or(self.now, |condition| condition.last_transition_time);
        self.list.push(Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: crate::text::cut(message, 2000).to_owned(),
            last_transition_time: since,
            observed_generation: self.generation,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::check;
    use crate::plan::{Pod, Workload, plan};

    fn stack() -> TempoStack {
        check::load(include_str!("../../../crds/samples/minimal.yaml"))
            .unwrap()
            .remove(0)
    }

    fn observed(stack: &TempoStack, ready: bool, trouble: Option<&str>) -> Observed {
        let name = Names::of(stack).component(Component::Monolith);
        let mut observed = Observed {
            now: At(1000),
            image: "tempo:1".to_owned(),
            ..Observed::default()
        };
        observed.pods.push(Pod {
            name: format!("{name}-0"),
            component: Some(Component::Monolith),
            ordinal: Some(0),
            ready,
            is_tempo: true,
            trouble: trouble.map(ToOwned::to_owned),
            ..Pod::default()
        });
        observed.workloads.insert(
            name,
            Workload {
                component: Some(Component::Monolith),
                replicas: 1,
                ready: u32::from(ready),
                updated: 1,
                current: true,
                image: "tempo:1".to_owned(),
                ..Workload::default()
            },
        );
        observed
    }

    fn make(
        stack: &TempoStack,
        observed: &Observed,
        config: Option<(&'static str, String)>,
    ) -> TempoStackStatus {
        let plan = plan(stack, observed);
        status(&Findings {
            stack,
            observed,
            plan: config.is_none().then_some(&plan),
            config,
            rejected: &[],
            held_volumes: &[],
            awaited_certificates: &[],
            missing_kinds: &[],
            failed_action: None,
        })
    }

    fn condition<'a>(status: &'a TempoStackStatus, kind: &str) -> (&'a str, &'a str) {
        let found = status
            .conditions
            .iter()
            .find(|condition| condition.kind == kind)
            .unwrap();
        (&found.status, &found.reason)
    }

    #[test]
    fn ready_means_that_pods_are() {
        let stack = stack();
        let none = make(&stack, &Observed::default(), None);
        assert_eq!(none.phase, Some(Phase::Pending));
        assert_eq!(condition(&none, "Ready"), ("False", "MissingComponents"));
        let starting = make(&stack, &observed(&stack, false, None), None);
        assert_eq!(starting.phase, Some(Phase::Pending));
        let ready = make(&stack, &observed(&stack, true, None), None);
        assert_eq!(ready.phase, Some(Phase::Ready));
        assert_eq!(condition(&ready, "Ready"), ("True", "AllComponentsReady"));
        assert_eq!(ready.version.tempo, "1");
        assert!(
            ready
                .conditions
                .iter()
                .all(|condition| condition.kind != "KafkaReady")
        );
    }

    #[test]
    fn why_pods_fail_is_told() {
        let stack = stack();
        let crashing = make(
            &stack,
            &observed(&stack, false, Some("CrashLoopBackOff: AccessDenied: no")),
            None,
        );
        assert_eq!(crashing.phase, Some(Phase::Failed));
        assert_eq!(
            condition(&crashing, "StorageReady"),
            ("False", "AccessDenied")
        );
        assert!(
            crashing.message.contains("AccessDenied"),
            "{}",
            crashing.message
        );
        let waiting = make(
            &stack,
            &observed(&stack, false, Some("Unschedulable: no nodes")),
            None,
        );
        assert_eq!(waiting.phase, Some(Phase::Pending));
    }

    #[test]
    fn old_pods_go_on_under_a_broken_spec() {
        let stack = stack();
        let broken = Some(("SecretNotFound", "Secret \"a\" does not exist".to_owned()));
        let running = make(&stack, &observed(&stack, true, None), broken.clone());
        assert_eq!(running.phase, Some(Phase::Degraded));
        assert_eq!(
            condition(&running, "ConfigValid"),
            ("False", "SecretNotFound")
        );
        assert_eq!(condition(&running, "Ready"), ("False", "OldSpecRuns"));
        let fresh = make(&stack, &Observed::default(), broken);
        assert_eq!(fresh.phase, Some(Phase::Failed));
    }

    #[test]
    fn conditions_keep_the_time_of_their_last_change() {
        let mut stack = stack();
        let mut seen = observed(&stack, true, None);
        stack.status = Some(make(&stack, &seen, None));
        seen.now = At(5000);
        let again = make(&stack, &seen, None);
        assert_eq!(
            Some(&again),
            stack.status.as_ref(),
            "nothing changed, so nothing is written"
        );
        seen.pods[0].ready = false;
        seen.workloads
            .values_mut()
            .for_each(|workload| workload.ready = 0);
        let later = make(&stack, &seen, None);
        let ready = later
            .conditions
            .iter()
            .find(|condition| condition.kind == "Ready")
            .unwrap();
        assert_eq!(ready.last_transition_time, At(5000));
    }

    #[test]
    fn paused_and_stopped_are_told() {
        let mut stack = stack();
        stack.spec.stopped = true;
        assert_eq!(
            make(&stack, &Observed::default(), None).phase,
            Some(Phase::Stopped)
        );
        stack.spec.paused = true;
        let paused = make(&stack, &Observed::default(), None);
        assert_eq!(paused.phase, Some(Phase::Paused));
        assert_eq!(condition(&paused, "Paused").0, "True");
    }

    #[test]
    fn what_is_waited_for_beside_pods_is_told() {
        let stack = stack();
        let observed = observed(&stack, true, None);
        let plan = plan(&stack, &observed);
        let status = status(&Findings {
            stack: &stack,
            observed: &observed,
            plan: Some(&plan),
            config: None,
            rejected: &[],
            held_volumes: &[Rejected {
                object: "tempo-demo-monolith".to_owned(),
                reason: "10Gi can't become 20Gi: only classes that allow it".to_owned(),
            }],
            awaited_certificates: &["tempo-demo-internal-tls".to_owned()],
            missing_kinds: &[],
            failed_action: None,
        });
        assert_eq!(condition(&status, "VolumesGrown"), ("False", "CannotGrow"));
        assert_eq!(
            condition(&status, "IntegrationsReady"),
            ("False", "CertificateNotReady")
        );
        // Serving goes on, and the one sentence says what is amiss.
        assert_eq!(condition(&status, "Ready"), ("True", "AllComponentsReady"));
        assert!(
            status.message.contains("allowVolumeExpansion"),
            "{}",
            status.message
        );
    }
}
