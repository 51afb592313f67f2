//! Recent data at live-stores: one owner of every partition is asked, their answers are merged.
//!
//! An owner that does not answer in a while is not given up, but another is asked, too; one that
//! fails is replaced at once. The first answer counts.

mod connections;
mod partitions;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use prometheus::{IntGauge, Opts, Registry};
use tempo_api::job::{Job, JobError, JobResult};
use tempo_runtime::tls::{ClientTls, Connector};
use tokio::time::Instant;

pub(crate) use self::connections::full_text;
pub use self::partitions::{Owner, Partition, PartitionState, PartitionView};
use self::{
    connections::Connections,
    partitions::{Replicas, ZoneOrder, whom_to_ask},
};
use crate::{Error, NowNanos, merge::Merged};

/// Pause before live-stores that did not answer are asked again.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// Partitions that are asked at the same time for one job.
const MAX_PARTITIONS_AT_ONCE: usize = 256;

/// How live-stores are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveStoresConfig {
    /// Whether one owner of a partition is asked first, rather than all at once.
    pub minimize_requests: bool,
    /// After so long without an answer another owner is asked, too.
    pub hedging_delay: Duration,
    /// Owners of this zone are asked first; empty for any.
    pub preferred_zone: String,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// TLS towards live-stores; none: in plain text.
    pub tls: Option<ClientTls>,
    /// After so long an inactive partition has all of its spans in blocks that are known.
    pub partition_forgotten_after: Duration,
    /// For so long after a partition went without an answer its owners are asked again: one that
    /// crashed is back in seconds. Who is away for longer is not waited for.
    pub restart_patience: Duration,
    /// Bytes of the series of one answer, and of all answers to one job.
    pub max_series_bytes: usize,
}

impl Default for LiveStoresConfig {
    fn default() -> Self {
        Self {
            minimize_requests: true,
            hedging_delay: Duration::from_secs(3),
            preferred_zone: String::new(),
            connect_timeout: Duration::from_secs(5),
            tls: None,
            partition_forgotten_after: Duration::from_secs(20 * 60),
            restart_patience: Duration::from_secs(10),
            max_series_bytes: 512 * 1024 * 1024,
        }
    }
}

/// The live-stores of an installation. Clones share connections.
#[derive(Clone)]
pub struct LiveStores {
    shared: Arc<Shared>,
}

struct Shared {
    config: LiveStoresConfig,
    view: Arc<dyn PartitionView>,
    connections: Connections,
    now_nanos: NowNanos,
    turn: AtomicUsize,
    /// Since when no job had an answer of every partition; none: the last one had.
    unanswered_since: Mutex<Option<Instant>>,
}

impl LiveStores {
    /// Connects to nobody yet.
    ///
    /// # Errors
    /// When the files of TLS cannot be used, or metrics are registered already.
    pub fn build(
        config: LiveStoresConfig,
        view: Arc<dyn PartitionView>,
        now_nanos: NowNanos,
        registry: &Registry,
    ) -> Result<Self, Error> {
        let count = IntGauge::with_opts(Opts::new(
            "tempo_querier_livestore_clients",
            "The current number of livestore clients.",
        ))?;
        registry.register(Box::new(count.clone()))?;
        let tls = config.tls.clone().map(Connector::load).transpose();
        let tls = tls.map_err(|error| Error::Setting {
            setting: "live_store_client.grpc_client_config",
            problem: error.to_string(),
        })?;
        Ok(Self {
            shared: Arc::new(Shared {
                connections: Connections::new(config.connect_timeout, tls, count),
                config,
                view,
                now_nanos,
                turn: AtomicUsize::new(0),
                unanswered_since: Mutex::default(),
            }),
        })
    }

    /// Runs a job on the recent data of all partitions. Where one has no answer, its owners may be
    /// starting anew: for a moment it is tried again.
    pub(crate) async fn run(&self, tenant: &str, job: &Job, deadline: Instant) -> JobResult {
        loop {
            let answer = self.run_once(tenant, job, deadline).await;
            if !self.shared.is_worth_a_wait(&answer, deadline) {
                return answer;
            }
            // Neither gossip nor a connection tells when one that was gone can answer.
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    async fn run_once(&self, tenant: &str, job: &Job, deadline: Instant) -> JobResult {
        let shared = &self.shared;
        let mut merged = Merged::new(job, shared.config.max_series_bytes)?;
        let mut answers = futures::stream::iter(shared.replicas()?)
            .map(|replicas| shared.ask(replicas, tenant, job, deadline))
            .buffer_unordered(MAX_PARTITIONS_AT_ONCE);
        while let Some(answer) = answers.next().await {
            merged.add(answer?)?;
            if merged.is_complete() {
                break;
            }
        }
        drop(answers);
        Ok(merged.finish())
    }
}

impl Shared {
    fn replicas(&self) -> Result<Vec<Replicas>, JobError> {
        let partitions = self.view.partitions();
        self.connections.keep_only(|address| {
            let mut owners = partitions.iter().flat_map(|partition| &partition.owners);
            owners.any(|owner| owner.address == address)
        });
        whom_to_ask(
            partitions,
            (self.now_nanos)() / 1_000_000_000,
            self.config.partition_forgotten_after,
            &ZoneOrder {
                preferred: &self.config.preferred_zone,
                turn: self.turn.fetch_add(1, Ordering::Relaxed),
            },
        )
    }

    /// Whether those that did not answer may do so soon.
    fn is_worth_a_wait(&self, answer: &JobResult, deadline: Instant) -> bool {
        let mut unanswered_since = self.unanswered_since.lock();
        match answer {
            Err(JobError::Unavailable(_)) => {
                let now = Instant::now();
                let since = *unanswered_since.get_or_insert(now);
                let until = deadline.min(since + self.config.restart_patience);
                now + RESTART_PAUSE < until
            }
            Err(_) => false,
            Ok(_) => {
                *unanswered_since = None;
                false
            }
        }
    }

    /// The first answer of those that hold the same.
    async fn ask(
        &self,
        replicas: Replicas,
        tenant: &str,
        job: &Job,
        deadline: Instant,
    ) -> JobResult {
        let mut waiting = replicas.owners.iter();
        let mut asked = FuturesUnordered::new();
        let at_once = match self.config.minimize_requests {
            true => 1,
            false => replicas.owners.len(),
        };
        let ask_one = |owner: &Owner| {
            let address = owner.address.clone();
            async move {
                let left = deadline.saturating_duration_since(Instant::now());
                self.connections
                    .run(&address, tenant, job, left, self.config.max_series_bytes)
                    .await
            }
        };
        asked.extend(waiting.by_ref().take(at_once).map(ask_one));
        loop {
            let hedge = async {
                match waiting.len() {
                    0 => std::future::pending().await,
                    _ => tokio::time::sleep(self.config.hedging_delay).await,
                }
            };
            let error = tokio::select! {
                Some(answer) = asked.next() => match answer {
                    Err(error) if may_succeed_elsewhere(&error) => Some(error),
                    answer => return answer,
                },
                () = hedge => None,
            };
            match (waiting.next(), error) {
                (Some(owner), error) => {
                    if let Some(error) = error {
                        tracing::debug!(%error, "asking another owner");
                    }
                    asked.push(ask_one(owner));
                }
                (None, Some(error)) if asked.is_empty() => {
                    tracing::warn!(%error, partitions = ?replicas.partitions, "no owner answered");
                    return Err(error);
                }
                (None, _) => {}
            }
        }
    }
}

/// Whether another owner may have the answer that this one has not.
fn may_succeed_elsewhere(error: &JobError) -> bool {
    match error {
        JobError::Unavailable(_) | JobError::Busy(_) | JobError::Cancelled | JobError::TimedOut => {
            true
        }
        JobError::TraceTooLarge(_) | JobError::OverBudget(_) | JobError::Failed(_) => false,
    }
}
