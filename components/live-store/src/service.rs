//! Start, background work, and stop.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use prometheus::Registry;
use tempo_backend::{Backend, cache::Cache};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{
    boundary::Bridge,
    clock::Clock,
    config::Config,
    error::Error,
    feed,
    forgotten::Forgotten,
    handle::LiveStore,
    kafka::{self, Consumer, KafkaMetrics, Reading},
    limits::Limits,
    live::{AllColumns, Tenant},
    local::{LocalBlock, LocalStore},
    lock,
    metrics::Metrics,
    pipeline::{self, Work},
    store::{Parts, Shared},
    wal::{Coverage, Disk, Options, RealDisk, ScratchDisk, Wal},
};

/// What the live-store needs of the rest.
pub struct Dependencies<'a> {
    /// The object store. Needed where spans are pushed; with Kafka, block-builders bring them there.
    pub backend: Option<Backend>,
    /// For footers of local blocks.
    pub cache: Cache,
    /// What tenants may do.
    pub limits: Arc<dyn Limits>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where metrics are registered.
    pub registry: &'a Registry,
}

/// The background work. Nothing is cut, completed or flushed unless it runs.
pub struct Service {
    shared: Arc<Shared>,
    /// Blocks found at start that the object store does not have.
    unflushed: Vec<(Arc<Tenant>, Arc<LocalBlock>)>,
    /// With Kafka: what local blocks hold, and whether they are there and none was put aside.
    covered: Coverage,
    has_local_blocks: bool,
    began: Instant,
}

/// Opens the data directory: takes its lock, loads complete blocks, replays the log. Must be called
/// within a tokio runtime.
///
/// # Errors
/// See [`Error`]. Damage on disk is none: it is logged, counted and stepped over.
pub async fn build(
    config: Config,
    dependencies: Dependencies<'_>,
) -> Result<(LiveStore, Service), Error> {
    let disk: Arc<dyn Disk> = match config.kafka {
        Some(_) => Arc::new(ScratchDisk),
        None => Arc::new(RealDisk),
    };
    build_on(config, dependencies, disk).await
}

/// [`build`], with the log on any disk.
pub(crate) async fn build_on(
    config: Config,
    dependencies: Dependencies<'_>,
    disk: Arc<dyn Disk>,
) -> Result<(LiveStore, Service), Error> {
    let began = Instant::now();
    config.validate()?;
    let backend = match (dependencies.backend, &config.kafka) {
        (_, Some(_)) => None,
        (Some(backend), None) => Some(backend),
        (None, None) => {
            return Err(Error::Config {
                key: "storage.trace",
                reason: "without Kafka, an object store to flush to is needed".to_owned(),
            });
        }
    };
    let metrics = Metrics::new(dependencies.registry)?;
    let lock = lock::acquire(&config.data_path)?;
    feed::claim(&config.data_path, config.kafka.as_ref())?;
    let reading = match &config.kafka {
        None => None,
        Some(feed) => {
            let metrics = KafkaMetrics::new(feed, dependencies.registry)?;
            Some(Arc::new(Reading::new(
                feed.clone(),
                metrics,
                &config.data_path,
            )?))
        }
    };
    let bridge = match (&config.kafka, &config.bridge) {
        (None, Some(settings)) => Some(Bridge::new(settings, &config.data_path)),
        _ => None,
    };
    let forgotten = Forgotten::open(&config.data_path, dependencies.clock.now_unix_nanos())?;
    let local = LocalStore::open(&config.data_path, dependencies.cache).await?;
    let opening = tokio::task::spawn_blocking(move || open(config, metrics, local, disk));
    let opened = opening.await.map_err(|panic| Error::Folder {
        path: "replay".into(),
        source: std::io::Error::other(panic),
    })??;
    let shared = Arc::new(Shared::new(Parts {
        config: opened.config,
        limits: dependencies.limits,
        clock: dependencies.clock,
        metrics: opened.metrics,
        wal: opened.wal,
        local: opened.local,
        backend,
        reading,
        bridge,
        tenants: opened.tenants,
        columns: opened.columns,
        forgotten,
        lock,
    }));
    let service = Service {
        shared: Arc::clone(&shared),
        unflushed: opened.unflushed,
        covered: opened.covered,
        has_local_blocks: opened.has_local_blocks,
        began,
    };
    Ok((LiveStore::new(shared), service))
}

struct Opened {
    config: Config,
    metrics: Metrics,
    wal: Wal,
    local: LocalStore,
    tenants: BTreeMap<Arc<str>, Arc<Tenant>>,
    columns: Arc<AllColumns>,
    unflushed: Vec<(Arc<Tenant>, Arc<LocalBlock>)>,
    covered: Coverage,
    has_local_blocks: bool,
}

fn open(
    config: Config,
    metrics: Metrics,
    local: LocalStore,
    disk: Arc<dyn Disk>,
) -> Result<Opened, Error> {
    let columns = Arc::new(AllColumns::default());
    let mut tenants: BTreeMap<Arc<str>, Arc<Tenant>> = BTreeMap::new();
    let mut tenant_of = |name: &str| -> Arc<Tenant> {
        if let Some(tenant) = tenants.get(name) {
            return Arc::clone(tenant);
        }
        let tenant = Arc::new(Tenant::new(name, &metrics, Arc::clone(&columns)));
        tenants.insert(Arc::clone(&tenant.name), Arc::clone(&tenant));
        tenant
    };
    let mut covered = Coverage::default();
    let mut unflushed = Vec::new();
    let found = local.load()?;
    let (blocks, has_local_blocks) = (found.blocks.len(), found.is_whole());
    for loaded in found.blocks {
        let tenant = tenant_of(&loaded.tenant);
        covered.add(&loaded.coverage);
        if loaded.block.flushed_unix_nanos().is_none() {
            unflushed.push((Arc::clone(&tenant), Arc::clone(&loaded.block)));
        }
        tenant.add_block(loaded.block);
    }
    let options = Options {
        directory: feed::segments(&config.data_path, config.kafka.as_ref())?,
        quarantine: config.data_path.join("quarantine"),
        segment_bytes: config.wal_segment_bytes,
        max_queue_bytes: config.max_wal_queue_bytes,
    };
    let mut replayed_spans = 0_u64;
    // With Kafka, blocks name records of it and no segments; there is nothing to replay either.
    let in_blocks = match config.kafka {
        Some(_) => &Coverage::default(),
        None => &covered,
    };
    let wal = Wal::open(options, disk, metrics.wal.clone(), in_blocks, |record| {
        let spans = record
            .chunks
            .iter()
            .map(|(_, chunk)| u64::from(chunk.spans));
        replayed_spans += spans.sum::<u64>();
        tenant_of(record.tenant).accept_replayed(record.chunks, record.arrival_unix_nanos);
    })?;
    tracing::info!(
        blocks,
        unflushed_blocks = unflushed.len(),
        replayed_spans,
        wal_bytes = wal.bytes(),
        "live-store opened"
    );
    Ok(Opened {
        config,
        metrics,
        wal,
        local,
        tenants,
        columns,
        unflushed,
        covered,
        has_local_blocks,
    })
}

impl Service {
    /// Serves until `shutdown`, then stops in order: pushes are refused, those under way are
    /// written, blocks are completed as far as time allows. What is not complete is in the log, and
    /// what is not flushed is on disk: the next start goes on with both. The process may be ended
    /// at any time without loss.
    pub async fn run(self, shutdown: CancellationToken) {
        // Of our own, so that reading can end the rest of this service and nothing else.
        let shutdown = shutdown.child_token();
        let shared = self.shared;
        for (tenant, block) in self.unflushed {
            pipeline::start(&shared, tenant, Work::Local(block));
        }
        // Before queries of others are served.
        let looking = Arc::clone(&shared);
        blocking("looking what is seen", move || {
            looking.look_what_is_seen(looking.clock.now_unix_nanos());
        })
        .await;
        let maintenance = maintain(Arc::clone(&shared), shutdown.clone());
        let columns = build_columns(Arc::clone(&shared), shutdown.clone());
        let began = self.began;
        let serving = async {
            if let Some(reading) = &shared.reading {
                kafka::caught_up(&shared, reading, &shutdown).await;
            }
            let took = began.elapsed().as_secs_f64();
            shared.metrics.catch_up_duration_seconds.set(took);
            shared.set_running();
        };
        let reading = async {
            if let Some(reading) = &shared.reading {
                let reading = Arc::clone(reading);
                let consumer = Consumer::new(
                    Arc::clone(&shared),
                    Arc::clone(&reading),
                    self.covered,
                    self.has_local_blocks,
                    shutdown.clone(),
                );
                read_log(&shared, reading, consumer, &shutdown).await;
            }
        };
        tokio::join!(maintenance, columns, serving, reading);
        stop(&shared).await;
    }
}

/// Reads Kafka, commits, and measures, until `shutdown`. If reading ends before, so does all else.
async fn read_log(
    shared: &Arc<Shared>,
    reading: Arc<Reading>,
    consumer: Consumer,
    shutdown: &CancellationToken,
) {
    let thread = std::thread::Builder::new()
        .name("kafka-reader".to_owned())
        .spawn(move || consumer.run());
    let thread = match thread {
        Ok(thread) => thread,
        Err(error) => {
            tracing::error!(%error, "no thread to read Kafka, stopping");
            shutdown.cancel();
            return;
        }
    };
    let watching = kafka::watch_end(
        Arc::clone(shared),
        Arc::clone(&reading),
        shutdown.child_token(),
    );
    let asking = kafka::watch_builders(
        Arc::clone(shared),
        Arc::clone(&reading),
        shutdown.child_token(),
    );
    let partition = reading.feed.partition;
    let measuring = reading.metrics.lag.clone().run(
        Arc::clone(&reading.offsets),
        move || vec![partition],
        reading.feed.log.lag_update_interval,
        shutdown.child_token(),
    );
    let committing = kafka::commit(Arc::clone(shared), reading, shutdown.child_token());
    let joining = async {
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("reading Kafka failed, stopping");
        }
        shutdown.cancel();
    };
    tokio::join!(watching, asking, measuring, committing, joining);
}

async fn maintain(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(shared.config.flush_check_period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
            () = shared.wake_maintenance.notified() => {}
        }
        let round = Arc::clone(&shared);
        blocking("maintenance", move || round.maintain()).await;
        for tenant in shared.all_tenants() {
            tenant.room.notify_waiters();
        }
    }
}

async fn build_columns(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(shared.config.columns_tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
            () = shared.wake_columns.notified() => {}
        }
        if shared.has_pending() {
            let round = Arc::clone(&shared);
            blocking("building columns", move || round.build_columns()).await;
        }
    }
}

/// Runs a piece of work on a thread that may block. A panic in it is a defect that must not end the
/// background work.
async fn blocking(what: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::error!(%error, what, "background work failed");
    }
}

async fn stop(shared: &Arc<Shared>) {
    shared.set_stopping();
    shared.stop_flushing.cancel();
    let closing = Arc::clone(shared);
    blocking("closing the log", move || closing.wal.close()).await;
    let cutting = Arc::clone(shared);
    blocking("cutting", move || cutting.cut_all()).await;
    shared.tasks.close();
    let limit = shared.config.max_shutdown_completion;
    if tokio::time::timeout(limit, shared.tasks.wait())
        .await
        .is_err()
    {
        shared.stop_completing.cancel();
        shared.tasks.wait().await;
        tracing::warn!("not all blocks completed, the rest is in the log");
    }
    if let Some(reading) = &shared.reading {
        kafka::commit_once(shared, reading).await;
    }
    shared.wal.reclaim();
    tracing::info!("live-store stopped");
}
