//! How the pods of a stack are, and the phase that this makes.

use std::collections::BTreeMap;

use super::Findings;
use crate::api::{ComponentStatus, MigrationPhase, Mode, Phase};
use crate::plan::PartitionState;

/// How the pods are.
pub(super) struct Health {
    /// Components that serving needs and that have no ready pod.
    pub(super) down: Vec<String>,
    /// Components with fewer ready pods than they shall have.
    pub(super) short: Vec<String>,
    /// Roll-outs under way.
    pub(super) rolling: Vec<String>,
    /// Why pods do not start.
    pub(super) trouble: Option<String>,
    /// Whether there is any pod.
    pub(super) any: bool,
}

impl Health {
    pub(super) fn of(
        findings: &Findings<'_>,
        components: &BTreeMap<String, ComponentStatus>,
    ) -> Self {
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

    pub(super) fn is_broken(&self, findings: &Findings<'_>) -> bool {
        findings.config.is_some() || !findings.rejected.is_empty()
    }

    pub(super) fn phase(&self, findings: &Findings<'_>) -> Phase {
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
    pub(super) fn recent_reads(&self, findings: &Findings<'_>) -> Option<String> {
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
}
