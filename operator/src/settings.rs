//! What holds for the pods of a component: its own fields over the common ones over its size's.

use std::collections::BTreeMap;

use crate::api::{Anything, Component as Pods, Items, Resources, Size, TempoStack};
use crate::topology::Component;

/// The fields of a component, those of `components.defaults` filled in.
pub(crate) fn pods(stack: &TempoStack, component: Component) -> Pods {
    let components = &stack.spec.components;
    let own = own(stack, component);
    let common = &components.defaults;
    Pods {
        replicas: own.replicas.or(common.replicas),
        resources: own
            .resources
            .clone()
            .or_else(|| common.resources.clone())
            .or_else(|| {
                stack
                    .spec
                    .size
                    .and_then(|size| size_resources(size, component))
            }),
        node_selector: both(&common.node_selector, &own.node_selector),
        affinity: object(&own.affinity, &common.affinity),
        tolerations: list(&own.tolerations, &common.tolerations),
        topology_spread_constraints: list(
            &own.topology_spread_constraints,
            &common.topology_spread_constraints,
        ),
        priority_class_name: own
            .priority_class_name
            .clone()
            .or_else(|| common.priority_class_name.clone()),
        pod_annotations: both(&common.pod_annotations, &own.pod_annotations),
        pod_labels: both(&common.pod_labels, &own.pod_labels),
        env: joined(&common.env, &own.env),
        env_from: joined(&common.env_from, &own.env_from),
        volumes: joined(&common.volumes, &own.volumes),
        volume_mounts: joined(&common.volume_mounts, &own.volume_mounts),
        extra_args: common
            .extra_args
            .iter()
            .chain(&own.extra_args)
            .cloned()
            .collect(),
        termination_grace_period_seconds: own
            .termination_grace_period_seconds
            .or(common.termination_grace_period_seconds),
        security_context: object(&own.security_context, &common.security_context),
        pod_template: object(&own.pod_template, &common.pod_template),
        storage: own.storage.clone().or_else(|| common.storage.clone()),
        // One number for all is no sensible default of a range.
        autoscaling: own.autoscaling.clone(),
    }
}

fn own(stack: &TempoStack, component: Component) -> &Pods {
    let components = &stack.spec.components;
    match component {
        Component::Monolith => &components.monolith.pods,
        Component::Distributor => &components.distributor,
        Component::LiveStore => &components.live_store.pods,
        Component::BlockBuilder => &components.block_builder.pods,
        Component::Querier => &components.querier,
        Component::QueryFrontend => &components.query_frontend.pods,
        Component::BackendScheduler => &components.backend_scheduler.pods,
        Component::BackendWorker => &components.backend_worker,
        Component::MetricsGenerator => &components.metrics_generator,
        Component::Gateway => &components.gateway.pods,
        Component::Memcached => &components.memcached.pods,
    }
}

/// How many pods the spec asks for; of live-stores, in each zone.
pub(crate) fn replicas(stack: &TempoStack, component: Component) -> u32 {
    if matches!(component, Component::Monolith | Component::BackendScheduler) {
        return 1;
    }
    own(stack, component)
        .replicas
        .or(match component {
            // Their number is that of partitions, or follows from it.
            Component::LiveStore | Component::BlockBuilder => None,
            _ => stack.spec.components.defaults.replicas,
        })
        .or_else(|| stack.spec.size.map(|size| size_replicas(size, component)))
        .unwrap_or(1)
}

fn both(
    below: &BTreeMap<String, String>,
    above: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut map = below.clone();
    map.extend(above.clone());
    map
}

fn object(own: &Anything, common: &Anything) -> Anything {
    if own.is_empty() { common } else { own }.clone()
}

fn list(own: &Items, common: &Items) -> Items {
    if own.is_empty() { common } else { own }.clone()
}

fn joined(common: &Items, own: &Items) -> Items {
    Items(common.0.iter().chain(&own.0).cloned().collect())
}

/// Requests of CPU (millicores) and memory (MiB) by size: what the load that the size is named
/// for was measured to need, with half as much again.
fn size_requests(size: Size, component: Component) -> Option<(u32, u32)> {
    let (small, medium, large) = match component {
        Component::Monolith => ((500, 1024), (1500, 3072), (4000, 8192)),
        Component::Distributor => ((200, 128), (500, 256), (1000, 256)),
        Component::LiveStore => ((250, 512), (500, 1024), (1000, 2048)),
        Component::BlockBuilder => ((200, 512), (400, 1024), (800, 1024)),
        Component::Querier => ((250, 512), (1000, 1024), (2000, 2048)),
        Component::QueryFrontend => ((100, 128), (250, 256), (500, 512)),
        Component::BackendScheduler => ((50, 64), (100, 128), (100, 256)),
        Component::BackendWorker => ((200, 512), (400, 1024), (600, 2048)),
        Component::MetricsGenerator => ((250, 256), (500, 512), (1000, 1024)),
        Component::Gateway => ((50, 32), (100, 64), (200, 64)),
        // Its memory is what caches.memcached says.
        Component::Memcached => return None,
    };
    match size {
        Size::Demo => None,
        Size::Small => Some(small),
        Size::Medium => Some(medium),
        Size::Large => Some(large),
    }
}

fn size_resources(size: Size, component: Component) -> Option<Resources> {
    let (millicores, mebibytes) = size_requests(size, component)?;
    let memory = format!("{mebibytes}Mi");
    Some(Resources {
        requests: BTreeMap::from([
            ("cpu".to_owned(), format!("{millicores}m")),
            ("memory".to_owned(), memory),
        ]),
        limits: BTreeMap::from([("memory".to_owned(), format!("{}Mi", mebibytes * 2))]),
    })
}

fn size_replicas(size: Size, component: Component) -> u32 {
    let (small, medium, large) = match component {
        Component::Distributor => (2, 2, 3),
        Component::LiveStore => (1, 3, 6),
        Component::Querier => (2, 3, 6),
        Component::QueryFrontend | Component::MetricsGenerator | Component::Gateway => (2, 2, 2),
        Component::Memcached => (1, 2, 3),
        Component::BackendWorker => (1, 2, 3),
        Component::Monolith | Component::BackendScheduler | Component::BlockBuilder => (1, 1, 1),
    };
    match size {
        Size::Demo => 1,
        Size::Small => small,
        Size::Medium => medium,
        Size::Large => large,
    }
}
