//! The controller: carries out what planning decided, and tells how far it is.
//!
//! Owns every request to the API of Kubernetes, to pods and to Kafka. It keeps nothing that it
//! could not lose: what must survive is in the status of the resource.

mod apply;
mod kafka;
mod kinds;
mod lease;
mod metrics;
mod observe;
mod pods;
mod reconcile;
mod server;
mod status;
mod volumes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::Mutex;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::api::TempoStack;
use crate::manifests::{Defaults, MANAGER};
use crate::references;

pub use lease::LeaseConfig;

/// How the controller runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace whose stacks are looked after; `None` means all.
    pub watch_namespace: Option<String>,
    /// Leader election; `None` means that there is one operator.
    pub lease: Option<LeaseConfig>,
    /// Address of `/healthz`, `/readyz` and `/metrics`.
    pub listen_address: String,
    /// What the operator's surroundings give.
    pub defaults: Defaults,
    /// Name of this process, in events and the lease.
    pub identity: String,
    /// Stacks that are looked after at once.
    pub max_concurrent_stacks: u16,
}

/// The controller can't go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API of Kubernetes does not answer, or refuses.
    #[error(
        "the API of Kubernetes: {0}; is there a kubeconfig, or a ServiceAccount with the operator's role?"
    )]
    Kubernetes(#[from] kube::Error),
    /// How to reach the API is not known.
    #[error("how to reach Kubernetes is not known: {0}")]
    Connection(#[from] kube::config::InferConfigError),
    /// The definition of the resource is missing.
    #[error(
        "the cluster does not know TempoStack: run `tempo-operator crd | kubectl apply --server-side -f -` first"
    )]
    NoDefinition,
    /// Another operator holds the lease now.
    #[error("the lease was lost to another operator")]
    LeaseLost,
    /// The address can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// Metrics can't be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What every look at a stack needs.
struct Context {
    client: Client,
    config: Config,
    recorder: Recorder,
    metrics: metrics::Metrics,
    kinds: kinds::Kinds,
    pods: pods::Clients,
    kafka: kafka::Admin,
    memory: Mutex<HashMap<String, Memory>>,
}

/// What is remembered of a stack, and may be lost.
#[derive(Default)]
struct Memory {
    /// Looks that failed in a row, and at which generation.
    failures: u32,
    generation: Option<i64>,
    /// Objects as they were after they were applied.
    applied: HashMap<String, apply::Applied>,
    /// Sizes of volumes that Kubernetes has refused, by StatefulSet.
    refused_sizes: HashMap<String, volumes::Refused>,
    /// When the source of a migration was flushed.
    flushed_at: Option<i64>,
    /// Events that were told, and when.
    told: HashMap<String, i64>,
}

/// Objects that one page of a list brings.
const WATCH_PAGE_OBJECTS: u32 = 100;
/// Longest wait after failures.
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// Looks after stacks until `shutdown`.
///
/// # Errors
/// When Kubernetes can't be reached at the start, or the lease is lost.
pub async fn run(
    config: Config,
    registry: Registry,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let client = Client::try_default().await?;
    let metrics = metrics::Metrics::register(&registry)?;
    let health = server::Health::default();
    let server = server::Server::bind(&config.listen_address, registry, health.clone()).await?;
    let serving = tokio::spawn(server.run(shutdown.clone()));
    let outcome = lead(config, client, metrics, &health, shutdown.clone()).await;
    shutdown.cancel();
    if let Err(error) = serving.await {
        tracing::error!(%error, "serving ended");
    }
    outcome
}

async fn lead(
    config: Config,
    client: Client,
    metrics: metrics::Metrics,
    health: &server::Health,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let kinds = kinds::Kinds::discover(&client).await?;
    if !kinds.has_definition {
        return Err(Error::NoDefinition);
    }
    health.set_ready();
    let lease = match &config.lease {
        Some(lease) => {
            let lease = lease::Lease::new(client.clone(), lease.clone(), config.identity.clone());
            if !lease.acquire(&shutdown).await? {
                return Ok(());
            }
            Some(lease)
        }
        None => None,
    };
    metrics.leader.set(1);
    tracing::info!(identity = config.identity, "leading");
    let controlling = control(
        config,
        client,
        metrics.clone(),
        kinds,
        health.clone(),
        shutdown,
    );
    let outcome = match lease {
        // What was begun is brought to an end while the lease is still ours.
        Some(lease) => tokio::select! {
            () = controlling => {
                lease.release().await;
                Ok(())
            }
            lost = lease.keep() => Err(lost),
        },
        None => {
            controlling.await;
            Ok(())
        }
    };
    metrics.leader.set(0);
    outcome
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Looks after stacks until `stop`; begins anew when others bring kinds to the cluster, or take them.
async fn control(
    config: Config,
    client: Client,
    metrics: metrics::Metrics,
    mut kinds: kinds::Kinds,
    health: server::Health,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let round = stop.child_token();
        let watching = watch(
            config.clone(),
            client.clone(),
            metrics.clone(),
            kinds.clone(),
            health.clone(),
            round.clone(),
        );
        tokio::pin!(watching);
        let changed = tokio::select! {
            () = &mut watching => return,
            changed = kinds.changed(&client) => changed,
        };
        tracing::info!(
            others = changed.brought(),
            "the cluster knows other kinds now"
        );
        round.cancel();
        watching.await;
        kinds = changed;
    }
}

/// Watches stacks, what was made for them, and what they name, until `stop`.
async fn watch(
    config: Config,
    client: Client,
    metrics: metrics::Metrics,
    kinds: kinds::Kinds,
    health: server::Health,
    stop: CancellationToken,
) {
    let pods = match pods::Clients::new() {
        Ok(pods) => pods,
        Err(error) => {
            tracing::error!(%error, "there is no TLS library to ask pods with");
            return;
        }
    };
    let namespace = config.watch_namespace.clone();
    let stacks: Api<TempoStack> = api(&client, namespace.as_deref());
    let reporter = Reporter {
        controller: MANAGER.to_owned(),
        instance: Some(config.identity.clone()),
    };
    let concurrency = config.max_concurrent_stacks;
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        pods,
        kafka: kafka::Admin::default(),
        memory: Mutex::default(),
        metrics,
        client: client.clone(),
        kinds: kinds.clone(),
        config,
    });
    // Waits a moment for what comes together: a roll-out is many small changes.
    let pace = controller::Config::default()
        .debounce(Duration::from_millis(500))
        .concurrency(concurrency);
    let mut controller = Controller::new(stacks, watcher::Config::default()).with_config(pace);
    let store = controller.store();
    // Of what is watched only names and labels are needed: what changed is read when it is looked
    // at. Clusters have large Secrets and ConfigMaps that are none of our business.
    let pages = watcher::Config::default().page_size(WATCH_PAGE_OBJECTS);
    let ours = pages
        .clone()
        .labels(&format!("app.kubernetes.io/managed-by={MANAGER}"));
    for resource in kinds.watched() {
        let api: Api<PartialObjectMeta<DynamicObject>> = match &namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        controller = controller.watches_with(api, resource, ours.clone(), |object| owner(&object));
    }
    let secrets = store.clone();
    let config_maps = store.clone();
    controller = controller
        .watches(
            api::<PartialObjectMeta<Secret>>(&client, namespace.as_deref()),
            pages.clone(),
            move |secret| naming(&secrets, references::Kind::Secret, &secret),
        )
        .watches(
            api::<PartialObjectMeta<ConfigMap>>(&client, namespace.as_deref()),
            pages,
            move |config_map| naming(&config_maps, references::Kind::ConfigMap, &config_map),
        )
        .graceful_shutdown_on(stop.cancelled_owned());
    controller
        .run(reconcile::reconcile, on_error, context)
        .for_each(|outcome| {
            health.set_alive();
            if let Err(error) = outcome {
                // A stack that is gone, or a watch that begins anew: neither needs a person.
                tracing::debug!(%error, "controller");
            }
            futures::future::ready(())
        })
        .await;
}

/// The stack that an object was made for.
fn owner(object: &impl ResourceExt) -> Option<ObjectRef<TempoStack>> {
    let name = object.labels().get("app.kubernetes.io/instance")?;
    let namespace = object.namespace()?;
    Some(ObjectRef::new(name).within(&namespace))
}

/// The stacks that name a Secret or ConfigMap.
fn naming(
    stacks: &Store<TempoStack>,
    kind: references::Kind,
    object: &impl ResourceExt,
) -> Vec<ObjectRef<TempoStack>> {
    let name = object.name_any();
    let namespace = object.namespace();
    stacks
        .state()
        .into_iter()
        .filter(|stack| stack.namespace() == namespace)
        .filter(|stack| {
            references::of(stack)
                .iter()
                .any(|reference| reference.kind == kind && reference.name == name)
        })
        .map(|stack| ObjectRef::from_obj(&*stack))
        .collect()
}

fn key(stack: &TempoStack) -> String {
    format!(
        "{}/{}",
        stack.namespace().unwrap_or_default(),
        stack.name_any()
    )
}

/// Waits longer with every failure, each stack by itself; a change of the spec begins anew.
fn on_error(stack: Arc<TempoStack>, error: &reconcile::Error, context: Arc<Context>) -> Action {
    let key = key(&stack);
    let failures = {
        let mut memory = context.memory.lock();
        let memory = memory.entry(key.clone()).or_default();
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    };
    context.metrics.reconciled("error");
    tracing::warn!(stack = key, %error, failures, "stack could not be looked after");
    Action::requeue(backoff(failures, &key))
}

/// 1 s, 2 s, 4 s … 5 min, and up to a fifth more, so that stacks do not all come at once.
fn backoff(failures: u32, key: &str) -> Duration {
    let seconds = 1u64 << failures.saturating_sub(1).min(9);
    let base = Duration::from_secs(seconds).min(MAX_BACKOFF);
    let spread = key.bytes().map(u64::from).sum::<u64>() % 20;
    base + base * u32::try_from(spread).unwrap_or(0) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_limit() {
        let waits: Vec<u64> = (1..12)
            .map(|failures| backoff(failures, "").as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert!(backoff(1000, "tracing/prod") <= MAX_BACKOFF * 6 / 5);
    }
}
