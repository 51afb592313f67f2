//! The conditions of a stack: what holds, why, and what a person can do.

use super::{Findings, health::Health};
use crate::api::{At, Condition, MigrationPhase, Mode};
use crate::topology::Component;

/// Conditions as they are gathered, with those of the status before.
pub(super) struct Conditions<'a> {
    pub(super) before: &'a [Condition],
    pub(super) now: At,
    pub(super) generation: Option<i64>,
    pub(super) list: Vec<Condition>,
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

impl Health {
    /// Tells all of them.
    pub(super) fn conditions(
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
                &format!(
                    "the cluster does not know {}; what needs it is left out until it is installed",
                    findings.missing_kinds.join(", ")
                ),
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
