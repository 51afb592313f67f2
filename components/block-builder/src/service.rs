//! Putting the block-builder together and running it.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::Arc,
    time::Duration,
};

use prometheus::Registry;
use tempo_backend::{Backend, DedicatedColumns};
use tempo_ingest::{Offsets, admin, lag::LagMetrics};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, ConsumableState, Error,
    build::Builder,
    cycle::{Cycles, Worker},
    metrics::Metrics,
    runs::Sorter,
};

/// Longest time that a section may take to be published once the process is told to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// What each tenant may store, and how.
pub trait Limits: Send + Sync + 'static {
    /// Bytes of a trace within a section; beyond, spans are left out. 0 is no limit.
    fn max_bytes_per_trace(&self, tenant: &str) -> u64;

    /// Attributes that get a column of their own.
    fn dedicated_columns(&self, tenant: &str) -> DedicatedColumns;
}

/// Says which partitions hold something to build.
pub trait Partitions: Send + Sync + 'static {
    /// Those that are active or inactive at this moment.
    fn consumable(&self) -> BTreeMap<i32, ConsumableState>;
}

/// What the block-builder needs from around it.
pub struct Dependencies<'a> {
    /// Where blocks go.
    pub backend: Backend,
    /// Limits of tenants.
    pub limits: Arc<dyn Limits>,
    /// Partitions of the cluster.
    pub partitions: Arc<dyn Partitions>,
    /// Where metrics are registered.
    pub registry: &'a Registry,
}

/// What others may know of a block-builder.
#[derive(Clone)]
pub struct Handle {
    cycles: Cycles,
}

impl Handle {
    /// How often all partitions have been brought up to date since the start.
    pub fn completed_cycles(&self) -> u64 {
        self.cycles.completed()
    }
}

/// A block-builder that does not run yet.
pub struct Service {
    worker: Worker,
    lag: LagMetrics,
    offsets: Arc<Offsets>,
    lag_update_interval: Duration,
}

/// Reaches Kafka, empties the folder, registers metrics.
///
/// # Errors
/// When Kafka does not answer, the topic is missing, or the folder cannot be used.
pub async fn build(config: Config, deps: Dependencies<'_>) -> Result<(Handle, Service), Error> {
    let metrics = Metrics::register(deps.registry)?;
    let lag = LagMetrics::register(&config.group, deps.registry)?;
    empty(&config.spill_path).map_err(|source| Error::Folder {
        path: config.spill_path.clone(),
        source,
    })?;
    admin::ensure_topic(&config.kafka).await?;
    let offsets = Arc::new(Offsets::new(&config.kafka, &config.group)?);
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let builder = Builder {
        backend: deps.backend,
        limits: deps.limits,
        settings: config.block.clone(),
        slack_millis: millis(config.ingestion_time_range_slack),
        cycle_millis: millis(config.consume_cycle_duration),
        metrics: metrics.clone(),
    };
    let cycles = Cycles::default();
    let service = Service {
        lag_update_interval: config.kafka.lag_update_interval,
        worker: Worker {
            sorter: Sorter::new(&config.spill_path, config.buffer_bytes),
            config,
            builder,
            metrics,
            lag: lag.clone(),
            offsets: Arc::clone(&offsets),
            partitions: deps.partitions,
            cycles: cycles.clone(),
            owned: Arc::default(),
            released: HashMap::new(),
            held: HashMap::new(),
            // Replaced when it runs.
            shutdown: CancellationToken::new(),
        },
        lag,
        offsets,
    };
    Ok((Handle { cycles }, service))
}

/// Creates the folder and removes what an earlier process left in it.
fn empty(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("run-") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl Service {
    /// Builds until `shutdown`. A section that is being read is given up then; one that is being
    /// built may take [`STOP_TIMEOUT`] to be completed.
    pub async fn run(self, shutdown: CancellationToken) {
        let owned = self.worker.owned.clone();
        let lag = self.lag.run(
            self.offsets,
            move || owned.lock().clone(),
            self.lag_update_interval,
            shutdown.clone(),
        );
        let mut worker = self.worker;
        worker.shutdown = shutdown.clone();
        let overdue = async move {
            shutdown.cancelled().await;
            tokio::time::sleep(STOP_TIMEOUT).await;
        };
        let work = async move {
            tokio::select! {
                () = worker.run() => {}
                () = overdue => {
                    tracing::warn!("section given up; the next start builds it");
                }
            }
        };
        tokio::join!(lag, work);
    }
}
