//! The live-store as a whole: push, look, cut, complete, flush, restart.

mod background;
mod bridge;
mod disk;
mod flush;
mod queries;
mod recovery;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus::Registry;
use tempo_backend::{Backend, DedicatedColumns, ReadStats, cache::Cache, testing};
use tempo_block::read::BlockReader;
use tempo_model::{TraceBatch, TraceId};
use tempo_table::{Intrinsic, SpanTable};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    Clock, Config, Dependencies, Limits, LiveStore, Operation, PushError, PushOutcome,
    service::build_on,
    testing::{TEST_TIME, TestTrace},
    wal::{Disk, RealDisk},
};

/// A clock that stands still until it is moved.
#[derive(Debug, Clone)]
struct TestClock(Arc<AtomicU64>);

impl TestClock {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_unix_nanos(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[derive(Debug, Clone, Copy)]
struct TestLimits {
    max_bytes_per_trace: u64,
    max_live_traces: u32,
}

impl Limits for TestLimits {
    fn max_bytes_per_trace(&self, _: &str) -> u64 {
        self.max_bytes_per_trace
    }

    fn max_live_traces(&self, _: &str) -> u32 {
        self.max_live_traces
    }

    fn dedicated_columns(&self, _: &str) -> DedicatedColumns {
        DedicatedColumns::tempo_defaults()
    }
}

/// What outlives a restart: the data directory, the object store, the clock.
struct World {
    folder: tempfile::TempDir,
    backend: Backend,
    clock: TestClock,
    limits: TestLimits,
    config: Config,
    disk: Arc<dyn Disk>,
}

/// A running live-store.
struct Running {
    store: LiveStore,
    registry: Registry,
    shutdown: CancellationToken,
    service: JoinHandle<()>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Nothing happens by itself, unless a test shortens its period.
        let config = Config {
            data_path: folder.path().join("data"),
            flush_check_period: Duration::from_secs(3600),
            columns_tick: Duration::from_secs(3600),
            min_retry_backoff: Duration::from_secs(3600),
            max_retry_backoff: Duration::from_secs(3600),
            ..Config::default()
        };
        Self {
            folder,
            backend: testing::memory(),
            clock: TestClock(Arc::new(AtomicU64::new(TEST_TIME))),
            limits: TestLimits {
                max_bytes_per_trace: 0,
                max_live_traces: 0,
            },
            config,
            disk: Arc::new(RealDisk),
        }
    }

    fn data_path(&self) -> &Path {
        &self.config.data_path
    }

    async fn start(&self) -> Running {
        self.try_start().await.unwrap()
    }

    async fn try_start(&self) -> Result<Running, crate::Error> {
        let registry = Registry::new();
        let dependencies = Dependencies {
            backend: Some(self.backend.clone()),
            cache: Cache::new(1 << 20, &registry).unwrap(),
            limits: Arc::new(self.limits),
            clock: Arc::new(self.clock.clone()),
            registry: &registry,
        };
        let (store, service) =
            build_on(self.config.clone(), dependencies, Arc::clone(&self.disk)).await?;
        let shutdown = CancellationToken::new();
        let service = tokio::spawn(service.run(shutdown.clone()));
        while store.ready().is_err() {
            tokio::task::yield_now().await;
        }
        Ok(Running {
            store,
            registry,
            shutdown,
            service,
        })
    }

    /// A copy of the data directory as it is now: what a crash would leave.
    fn snapshot(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(self.data_path(), copy.path());
        copy
    }

    /// The world after a crash that left `snapshot`.
    fn after_crash(self, snapshot: tempfile::TempDir) -> Self {
        let config = Config {
            data_path: snapshot.path().to_owned(),
            ..self.config
        };
        Self {
            folder: snapshot,
            config,
            ..self
        }
    }

    /// Spans by trace and number in all blocks of the object store, each with how often it is there.
    async fn stored(&self) -> Spans {
        let mut spans = Spans::new();
        for tenant in self.backend.list_tenants().await.unwrap() {
            for id in self.backend.list_blocks(&tenant).await.unwrap().live {
                let meta = Arc::new(self.backend.read_meta(&tenant, id).await.unwrap());
                let backend = self.backend.clone();
                let found = tokio::task::spawn_blocking(move || {
                    let cache = Cache::new(0, &Registry::new()).unwrap();
                    let reader =
                        BlockReader::open(&backend, &cache, meta, ReadStats::new()).unwrap();
                    let mut spans = Spans::new();
                    for row_group in 0..reader.row_groups() {
                        let table = reader.table(row_group, ReadStats::new()).unwrap();
                        add_spans(&table, &mut spans);
                    }
                    spans
                });
                for (span, count) in found.await.unwrap() {
                    *spans.entry(span).or_default() += count;
                }
            }
        }
        spans
    }
}

/// How often each span is seen, by the last byte of its trace id and its number.
type Spans = BTreeMap<(u8, u32), usize>;

fn add_spans(table: &dyn SpanTable, spans: &mut Spans) {
    let structure = table.structure().unwrap();
    let ids = |intrinsic: Intrinsic| table.column(&intrinsic.into(), None).unwrap().ids.unwrap();
    let (trace_ids, span_ids) = (ids(Intrinsic::TraceId), ids(Intrinsic::SpanId));
    for trace in 0..structure.traces() {
        for span in structure.spans_of_trace(trace) {
            let number = u64::from_be_bytes(span_ids.get(span).try_into().unwrap()) as u32;
            *spans.entry((trace_ids.get(trace)[15], number)).or_default() += 1;
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Spans `first..first + count` of trace `n`, once each.
fn once(traces: &[(u8, u32, u32)]) -> Spans {
    traces
        .iter()
        .flat_map(|&(n, first, count)| (first..first + count).map(move |span| ((n, span), 1)))
        .collect()
}

fn trace(n: u8, first_span: u32, spans: u32) -> TestTrace {
    TestTrace::new(n).first_span(first_span).spans(spans)
}

impl Running {
    async fn push(&self, batch: TraceBatch) -> Result<PushOutcome, PushError> {
        self.store.push("t", batch).await
    }

    async fn push_trace(&self, n: u8, first_span: u32, spans: u32) {
        let outcome = self.push(trace(n, first_span, spans).batch()).await;
        assert_eq!(outcome.unwrap().accepted_spans, u64::from(spans));
    }

    /// Everything that a query sees.
    async fn seen(&self) -> Spans {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || {
            let view = store.view("t", 0, u64::MAX, Operation::Search).unwrap();
            let mut spans = Spans::new();
            for table in view.tables() {
                add_spans(&**table, &mut spans);
            }
            spans
        })
        .await
        .unwrap()
    }

    /// The numbers of a trace's spans.
    async fn find(&self, n: u8) -> Option<Vec<u32>> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || {
            let found = store.find_trace("t", &TraceId::from_padded(&[n])).unwrap();
            found.map(|found| crate::testing::span_numbers(&found.trace))
        })
        .await
        .unwrap()
    }

    /// The value of a metric without labels, or with these.
    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let Some(family) = families.iter().find(|family| family.name() == name) else {
            return 0.0;
        };
        let has_labels = |metric: &&prometheus::proto::Metric| {
            labels.iter().all(|(name, value)| {
                metric
                    .get_label()
                    .iter()
                    .any(|label| label.name() == *name && label.value() == *value)
            })
        };
        let metric = family.get_metric().iter().find(has_labels);
        metric.map_or(0.0, |metric| {
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        })
    }

    /// Stops in order, as on SIGTERM.
    async fn stop(self) {
        self.shutdown.cancel();
        self.service.await.unwrap();
    }
}

/// The folders of complete blocks of tenant `t`.
fn local_blocks(data_path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(data_path.join("blocks").join("t")) else {
        return Vec::new();
    };
    let mut blocks: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    blocks.sort();
    blocks
}

fn segments(data_path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data_path.join("segments")).unwrap();
    let mut segments: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    segments
}
