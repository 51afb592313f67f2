//! Deployments and StatefulSets.

use serde_json::{Value, json};

use super::pods::{self, DATA, Zone};
use super::{Context, ZONE_LABEL};
use crate::api::{Component as Pods, RetentionPolicy};
use crate::settings;
use crate::topology::Component;

/// Size of a volume that stays where the stack does not say.
const DEFAULT_VOLUME: &str = "10Gi";

pub(super) fn all(context: &Context<'_>, hashes: &[(Component, String)]) -> Vec<Value> {
    let mut workloads = Vec::new();
    for (component, hash) in hashes {
        let pods = settings::pods(context.stack, *component);
        let workload = Workload {
            context,
            component: *component,
            pods,
            hash,
        };
        match component {
            Component::LiveStore => {
                let zones = context
                    .topology
                    .cluster
                    .iter()
                    .flat_map(|cluster| cluster.live_stores.iter().enumerate());
                for (index, replicas) in zones {
                    workloads.push(workload.stateful_set(*replicas, Some(Zone { index })));
                }
            }
            component if component.is_stateful() => {
                let replicas = workload.replicas();
                workloads.push(workload.stateful_set(replicas, None));
            }
            _ => workloads.push(workload.deployment()),
        }
    }
    workloads
}

struct Workload<'a> {
    context: &'a Context<'a>,
    component: Component,
    pods: Pods,
    hash: &'a str,
}

impl Workload<'_> {
    fn replicas(&self) -> u32 {
        let topology = self.context.topology;
        if self.component == Component::Monolith {
            return topology
                .monolith
                .as_ref()
                .map_or(0, |monolith| monolith.replicas);
        }
        let Some(cluster) = &topology.cluster else {
            return 0;
        };
        let asked = settings::replicas(self.context.stack, self.component);
        match self.component {
            Component::BlockBuilder => cluster.block_builders,
            Component::BackendScheduler => cluster.schedulers,
            Component::BackendWorker if cluster.workers => asked,
            Component::BackendWorker => 0,
            _ if cluster.others => asked,
            _ => 0,
        }
    }

    /// Whether an autoscaler chooses the number, so that it must not be named here.
    fn is_autoscaled(&self) -> bool {
        let cluster = self.context.topology.cluster.as_ref();
        self.pods.autoscaling.is_some()
            && cluster.is_some_and(|cluster| match self.component {
                Component::BackendWorker => cluster.workers,
                _ => cluster.others,
            })
    }

    fn data_volume(&self) -> Option<Value> {
        if self.claim().is_some() {
            return None;
        }
        let empty_dir = self
            .pods
            .storage
            .as_ref()
            .and_then(|storage| storage.empty_dir.as_ref())
            .map_or_else(|| json!({}), |empty_dir| empty_dir.value());
        Some(json!({"name": DATA, "emptyDir": empty_dir}))
    }

    /// The claim for a volume that stays, where there is one.
    fn claim(&self) -> Option<Value> {
        if !self.component.is_stateful() {
            return None;
        }
        let storage = self.pods.storage.clone().unwrap_or_default();
        if storage.empty_dir.is_some() {
            return None;
        }
        let keeps_data = matches!(
            self.component,
            Component::Monolith | Component::LiveStore | Component::BackendScheduler
        );
        let mut size = storage.size.clone();
        let mut class = storage.storage_class_name.clone();
        if self.component == Component::Monolith
            && let Some(local) = &self.context.stack.spec.storage.local
        {
            if local.ephemeral {
                return None;
            }
            size = size.or_else(|| Some(local.size.clone()));
            class = class.or_else(|| local.storage_class_name.clone());
        }
        let size = match size {
            Some(size) => size,
            None if keeps_data => DEFAULT_VOLUME.to_owned(),
            None => return None,
        };
        Some(json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": DATA, "labels": self.context.selector(self.component)},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": size}},
                "storageClassName": class,
            },
        }))
    }

    fn template(&self, zone: Option<Zone>) -> Value {
        pods::template(
            self.context,
            self.component,
            &self.pods,
            self.hash,
            zone,
            self.data_volume(),
        )
    }

    fn deployment(&self) -> Value {
        let context = self.context;
        // Queues of a frontend keep their queriers: where there are others, the new one comes when
        // the old one is gone. Who is alone has to be replaced first.
        let (surge, unavailable) = match self.component {
            Component::QueryFrontend if self.replicas() > 1 => (json!(0), json!(1)),
            _ => (json!("25%"), json!(0)),
        };
        let mut spec = json!({
            "revisionHistoryLimit": 5,
            "selector": {"matchLabels": context.selector(self.component)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
            "template": self.template(None),
        });
        if !self.is_autoscaled() {
            spec["replicas"] = json!(self.replicas());
        }
        context.object(
            "apps/v1",
            "Deployment",
            &context.names.component(self.component),
            context.labels(self.component),
            json!({"spec": spec}),
        )
    }

    fn stateful_set(&self, replicas: u32, zone: Option<Zone>) -> Value {
        let context = self.context;
        let name = zone.map_or_else(
            || context.names.component(self.component),
            |zone| context.names.live_store(zone.index),
        );
        let mut selector = context.selector(self.component);
        let mut labels = context.labels(self.component);
        if let Some(zone) = zone {
            selector[ZONE_LABEL] = json!(zone.name());
            labels[ZONE_LABEL] = json!(zone.name());
        }
        let update = match self.component {
            // The operator replaces them one by one: zone after zone, and never two owners of one
            // partition; and of schedulers the new one must not start beside the old one.
            Component::LiveStore | Component::BackendScheduler => json!({"type": "OnDelete"}),
            Component::BackendWorker => {
                json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
            }
            _ => json!({"type": "RollingUpdate"}),
        };
        let policy = self
            .pods
            .storage
            .as_ref()
            .map(|storage| storage.retention_policy.clone())
            .unwrap_or_default();
        let word = |policy: RetentionPolicy| match policy {
            RetentionPolicy::Retain => "Retain",
            RetentionPolicy::Delete => "Delete",
        };
        // A monolith without a pod is stopped or was left: its volume may hold what is nowhere else.
        let when_scaled = match self.component {
            Component::Monolith => RetentionPolicy::Retain,
            _ => policy.when_scaled,
        };
        let claim = self.claim();
        let retention = claim.is_some().then(|| {
            json!({
                "whenScaled": word(when_scaled),
                "whenDeleted": word(policy.when_deleted),
            })
        });
        let mut spec = json!({
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "revisionHistoryLimit": 5,
            "updateStrategy": update,
            "selector": {"matchLabels": selector},
            "persistentVolumeClaimRetentionPolicy": retention,
            "volumeClaimTemplates": claim.into_iter().collect::<Vec<_>>(),
            "template": self.template(zone),
        });
        if !self.is_autoscaled() {
            spec["replicas"] = json!(replicas);
        }
        context.object(
            "apps/v1",
            "StatefulSet",
            &name,
            labels,
            json!({"spec": spec}),
        )
    }
}
