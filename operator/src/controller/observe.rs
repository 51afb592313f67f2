//! Looking at a stack: its objects, pods, members and topic.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, ListParams};
use kube::{Api, ResourceExt};
use serde_json::Value;

use super::{Context, kinds, pods};
use crate::api::{At, TempoStack};
use crate::manifests::{self, MANAGER, ZONE_LABEL};
use crate::plan::{MonolithView, Observed, Pod, Workload};
use crate::references::{Found, Kind, Reference};
use crate::topology::{Component, ZONE_LETTERS};

/// Everything that was seen.
pub(super) struct Seen {
    /// For planning.
    pub(super) observed: Observed,
    /// Objects of the stack, as they are, by kind and name.
    pub(super) objects: BTreeMap<(String, String), Value>,
    /// Addresses of pods.
    pub(super) ips: BTreeMap<String, String>,
    /// The way to them.
    pub(super) pods: pods::PodClient,
}

/// Labels of everything that was made for a stack.
pub(super) fn selector(stack: &TempoStack) -> ListParams {
    ListParams::default().labels(&format!(
        "app.kubernetes.io/managed-by={MANAGER},app.kubernetes.io/instance={}",
        stack.name_any()
    ))
}

/// Contents of what the stack names; what does not exist is left out.
pub(super) async fn references(
    context: &Context,
    namespace: &str,
    references: &[Reference],
) -> Result<Found, kube::Error> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let config_maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let mut found = Found::new();
    for reference in references {
        let key = (reference.kind, reference.name.clone());
        if found.contains_key(&key) {
            continue;
        }
        let content: Option<BTreeMap<String, Vec<u8>>> = match reference.kind {
            Kind::Secret => secrets.get_opt(&reference.name).await?.map(|secret| {
                secret
                    .data
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(key, ByteString(value))| (key, value))
                    .collect()
            }),
            Kind::ConfigMap => config_maps
                .get_opt(&reference.name)
                .await?
                .map(|config_map| {
                    config_map
                        .data
                        .unwrap_or_default()
                        .into_iter()
                        .map(|(key, value)| (key, value.into_bytes()))
                        .collect()
                }),
        };
        if let Some(content) = content {
            found.insert(key, content);
        }
    }
    Ok(found)
}

/// Looks at the stack's objects and pods, and asks members how they are.
pub(super) async fn stack(
    context: &Context,
    stack: &TempoStack,
    found: &Found,
    client: pods::PodClient,
) -> Result<Seen, kube::Error> {
    let namespace = stack.namespace().unwrap_or_default();
    let labels = selector(stack);
    let list = |resource: &kube::core::ApiResource| {
        let api: Api<DynamicObject> =
            Api::namespaced_with(context.client.clone(), &namespace, resource);
        let labels = labels.clone();
        async move { api.list(&labels).await }
    };
    let mut seen = Seen {
        observed: Observed {
            now: At(Timestamp::now().as_second()),
            image: manifests::image(stack, &context.config.defaults),
            ..Observed::default()
        },
        objects: BTreeMap::new(),
        ips: BTreeMap::new(),
        pods: client,
    };
    // Answers take a while each, also where there is nothing.
    let made = context.kinds.made().iter().map(|resource| {
        let listing = list(resource);
        async move { listing.await.map(|objects| (resource, objects)) }
    });
    let pods = kinds::pods();
    let (made, pods) =
        futures::future::try_join(futures::future::try_join_all(made), list(&pods)).await?;
    for (resource, objects) in made {
        for object in objects {
            let name = object.name_any();
            let mut value = serde_json::to_value(&object).unwrap_or_default();
            // Entries of a list do not tell what they are.
            value["apiVersion"] = Value::from(resource.api_version.as_str());
            value["kind"] = Value::from(resource.kind.as_str());
            if let Some(workload) = workload(&resource.kind, &value) {
                seen.observed.workloads.insert(name.clone(), workload);
            }
            seen.objects.insert((resource.kind.clone(), name), value);
        }
    }
    for object in pods {
        let value = serde_json::to_value(&object).unwrap_or_default();
        if let Some(ip) = value["status"]["podIP"].as_str() {
            seen.ips.insert(object.name_any(), ip.to_owned());
        }
        seen.observed.pods.push(pod(&object.name_any(), &value));
    }
    members(context, stack, found, &mut seen).await;
    Ok(seen)
}

fn number(value: &Value) -> u32 {
    value
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
        .unwrap_or(0)
}

fn component(labels: &Value) -> Option<Component> {
    let target = labels["app.kubernetes.io/component"].as_str()?;
    Component::UPGRADE_ORDER
        .into_iter()
        .chain([Component::Monolith])
        .chain(Component::OTHERS)
        .find(|component| component.target() == target)
}

fn workload(kind: &str, object: &Value) -> Option<Workload> {
    if !matches!(kind, "Deployment" | "StatefulSet") {
        return None;
    }
    let (spec, status) = (&object["spec"], &object["status"]);
    Some(Workload {
        component: component(&object["metadata"]["labels"]),
        replicas: number(&spec["replicas"]),
        ready: number(&status["readyReplicas"]),
        updated: number(&status["updatedReplicas"]),
        pods: number(&status["replicas"]),
        current: status["observedGeneration"] == object["metadata"]["generation"],
        revision: status["updateRevision"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        image: spec["template"]["spec"]["containers"][0]["image"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    })
}

fn pod(name: &str, object: &Value) -> Pod {
    let labels = &object["metadata"]["labels"];
    let component = component(labels);
    let zone = labels[ZONE_LABEL]
        .as_str()
        .and_then(|zone| zone.strip_prefix("zone-"))
        .and_then(|letter| ZONE_LETTERS.iter().position(|known| *known == letter));
    let ordinal = component
        .filter(|component| component.is_stateful())
        .and_then(|_| name.rsplit_once('-'))
        .and_then(|(_, ordinal)| ordinal.parse().ok());
    let ready = object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    Pod {
        name: name.to_owned(),
        component,
        zone,
        ordinal,
        ready,
        terminating: object["metadata"]["deletionTimestamp"].is_string(),
        revision: labels["controller-revision-hash"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        is_tempo: component.is_some_and(Component::is_tempo),
        trouble: trouble(object),
    }
}

/// Reasons by which a container that does not start says so itself; others pass.
const TROUBLES: &[&str] = &[
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

fn trouble(pod: &Value) -> Option<String> {
    let status = &pod["status"];
    let statuses = status["containerStatuses"].as_array().into_iter().flatten();
    for container in statuses {
        let waiting = &container["state"]["waiting"];
        let reason = waiting["reason"].as_str().unwrap_or_default();
        if TROUBLES.contains(&reason) {
            let last = container["lastState"]["terminated"]["message"]
                .as_str()
                .or_else(|| waiting["message"].as_str())
                .unwrap_or_default();
            return Some(format!("{reason}: {}", crate::text::cut(last, 300)));
        }
    }
    let unscheduled = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False")?;
    Some(format!(
        "{}: {}",
        unscheduled["reason"].as_str().unwrap_or_default(),
        crate::text::cut(unscheduled["message"].as_str().unwrap_or_default(), 300)
    ))
}

/// Asks members and Kafka for what Kubernetes does not know.
async fn members(context: &Context, stack: &TempoStack, found: &Found, seen: &mut Seen) {
    let status = stack.status.clone().unwrap_or_default();
    let migration = status
        .migration
        .filter(|migration| migration.phase != crate::api::MigrationPhase::Completed);
    let drain = status.live_store.and_then(|live| live.drain);
    let changes_mode =
        migration.is_some() || status.mode.is_some_and(|mode| mode != stack.spec.mode);
    let has_cluster = changes_mode || stack.spec.mode == crate::api::Mode::Microservices;
    if !has_cluster {
        return;
    }
    seen.observed.ring = ring(seen).await;
    let wanted = crate::topology::live_store_replicas(stack);
    let present = seen
        .observed
        .workloads
        .values()
        .filter(|workload| workload.component == Some(Component::LiveStore))
        .map(|workload| workload.replicas)
        .max();
    let busy = drain.is_some() || changes_mode || present.is_some_and(|present| present != wanted);
    seen.observed.kafka = context.kafka.view(stack, found, busy).await;
    leaving(seen, busy).await;
    if changes_mode {
        let flushed_at = context
            .memory
            .lock()
            .get(&super::key(stack))
            .and_then(|memory| memory.flushed_at);
        let since = migration.map_or(At(i64::MAX), |migration| migration.phase_started_at);
        let is_flushed = flushed_at.is_some_and(|flushed| flushed >= since.0);
        seen.observed.monolith = monolith(seen, is_flushed).await;
        seen.observed.cluster_spans_received = cluster_spans(seen).await;
    }
}

/// The partitions: of live-stores first, since they make them.
async fn ring(seen: &Seen) -> Option<Vec<crate::plan::Partition>> {
    let rank = |pod: &Pod| match pod.component {
        Some(Component::LiveStore) => 0,
        Some(Component::Querier) => 1,
        Some(Component::Distributor) => 2,
        Some(Component::BlockBuilder) => 3,
        _ => 4,
    };
    let mut members: Vec<&Pod> = seen
        .observed
        .pods
        .iter()
        .filter(|pod| !pod.terminating && rank(pod) < 4)
        .collect();
    members.sort_by_key(|pod| (rank(pod), !pod.ready));
    for pod in members.into_iter().take(5) {
        let Some(ip) = seen.ips.get(&pod.name) else {
            continue;
        };
        match seen.pods.ring(ip).await {
            Ok(ring) => return Some(ring),
            Err(error) => tracing::debug!(pod = pod.name, %error, "member does not answer"),
        }
    }
    None
}

/// Whether live-stores leave for good: of all while partitions are drained, else of those that
/// are not ready, which a note of an old drain may hold back.
async fn leaving(seen: &mut Seen, busy: bool) {
    let pods: Vec<(String, String)> = seen
        .observed
        .live_stores()
        .filter(|pod| busy || !pod.ready)
        .filter_map(|pod| Some((pod.name.clone(), seen.ips.get(&pod.name)?.clone())))
        .collect();
    let client = seen.pods.clone();
    let client = &client;
    let answers = futures::future::join_all(pods.into_iter().map(|(name, ip)| async move {
        let answer = client.is_leaving(&ip).await;
        (name, answer)
    }))
    .await;
    for (name, answer) in answers {
        match answer {
            Ok(leaves) => {
                seen.observed.leaving.insert(name, leaves);
            }
            Err(error) => tracing::debug!(pod = name, %error, "live-store does not answer"),
        }
    }
}

/// Spans that a process has received.
const SPANS_RECEIVED: &str = "tempo_distributor_spans_received_total";

async fn monolith(seen: &Seen, is_flushed: bool) -> Option<MonolithView> {
    let pod = seen
        .observed
        .pods
        .iter()
        .find(|pod| pod.component == Some(Component::Monolith) && !pod.terminating)?;
    let ip = seen.ips.get(&pod.name)?;
    let partition = seen.pods.is_inactive(ip).await;
    let leaves = seen.pods.is_leaving(ip).await.unwrap_or(false);
    let page = seen.pods.metrics(ip).await.ok()?;
    #[allow(clippy::cast_possible_truncation)]
    let spans = pods::sum(&page, SPANS_RECEIVED).map_or(0, |spans| spans as i64);
    Some(MonolithView {
        can_bridge: partition.as_ref().ok().map(Option::is_some),
        inactive: matches!(partition, Ok(Some(true))),
        leaves,
        unflushed: if is_flushed {
            Some(0)
        } else {
            unflushed(&page)
        },
        needed: count(pods::sum(&page, "tempo_live_store_needed_blocks")),
        spans_received: Some(spans),
    })
}

fn count(sum: Option<f64>) -> Option<u64> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    sum.map(|sum| sum.max(0.0) as u64)
}

/// Blocks and traces that a monolith holds and the object store does not.
fn unflushed(page: &str) -> Option<u64> {
    let blocks = pods::sum(page, "tempo_live_store_unflushed_blocks")?;
    let traces = pods::sum(page, "tempo_live_store_live_traces").unwrap_or(0.0);
    count(Some(blocks + traces))
}

async fn cluster_spans(seen: &Seen) -> Option<i64> {
    let mut total = 0;
    for pod in seen
        .observed
        .pods
        .iter()
        .filter(|pod| pod.component == Some(Component::Distributor))
    {
        let page = seen.pods.metrics(seen.ips.get(&pod.name)?).await.ok()?;
        #[allow(clippy::cast_possible_truncation)]
        let spans = pods::sum(&page, SPANS_RECEIVED).map_or(0, |spans| spans as i64);
        total += spans;
    }
    Some(total)
}
