//! What a span costs from push to object store, and what it weighs while it is live. Run with
//! `cargo bench -p tempo-live-store --bench push -- <seconds> <pushers>`.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

#[path = "../../table/benches/shared/spans.rs"]
mod spans;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use prometheus::Registry;
use tempo_backend::{Backend, BackendConfig, DedicatedColumns, cache::Cache};
use tempo_live_store::{Config, Dependencies, Limits, LiveStore, Operation, SystemClock, build};
use tempo_model::{TraceBatch, TraceChunk, TraceId};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SPANS_PER_PUSH: u32 = 222;

struct NoLimits;

impl Limits for NoLimits {
    fn max_bytes_per_trace(&self, _: &str) -> u64 {
        5_000_000
    }

    fn max_live_traces(&self, _: &str) -> u32 {
        0
    }

    fn dedicated_columns(&self, _: &str) -> DedicatedColumns {
        DedicatedColumns::tempo_defaults()
    }
}

/// User and system time of this process, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let numbers: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = numbers[11].parse::<u64>().unwrap() + numbers[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

fn status_mb(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kb: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kb / 1024
}

fn main() {
    let argument = |at: usize| {
        std::env::args()
            .filter(|word| !word.starts_with('-'))
            .nth(at)
    };
    let seconds: u64 = argument(1).and_then(|text| text.parse().ok()).unwrap_or(20);
    let pushers: u64 = argument(2).and_then(|text| text.parse().ok()).unwrap_or(8);
    // Spans per second; flat out when 0.
    let rate: u64 = argument(3).and_then(|text| text.parse().ok()).unwrap_or(0);
    let made: Vec<(Bytes, u32)> = spans::traces(100_000)
        .into_iter()
        .map(|(_, bytes)| {
            let spans = tempo_model::otlp::resource_spans(&bytes)
                .flat_map(|resource| resource.unwrap().scope_spans())
                .map(|scope| scope.unwrap().raw_spans().count() as u32)
                .sum();
            (Bytes::from(bytes), spans)
        })
        .collect();
    let made = Arc::new(made);
    let wire: usize = made.iter().map(|(bytes, _)| bytes.len()).sum();
    let spans: u32 = made.iter().map(|(_, spans)| spans).sum();
    println!("{} bytes per span on the wire", wire as u32 / spans);
    let base_mb = status_mb("VmRSS");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(made, seconds, pushers, rate, base_mb));
}

/// A live-store on `folder`, and what ends it. It cuts traces as Tempo does, or never.
async fn open(folder: &Path, cuts: bool) -> (LiveStore, CancellationToken, JoinHandle<()>) {
    let registry = Registry::new();
    let store = BackendConfig::local(folder.join("store"));
    let config = Config {
        data_path: folder.join("data"),
        flush_check_period: Duration::from_secs(if cuts { 5 } else { 3600 }),
        ..Config::default()
    };
    let dependencies = Dependencies {
        backend: Some(Backend::open(&store, &registry).await.unwrap()),
        cache: Cache::new(64 << 20, &registry).unwrap(),
        limits: Arc::new(NoLimits),
        clock: Arc::new(SystemClock),
        registry: &registry,
    };
    let (live, service) = build(config, dependencies).await.unwrap();
    let shutdown = CancellationToken::new();
    let service = tokio::spawn(service.run(shutdown.clone()));
    while live.ready().is_err() {
        tokio::task::yield_now().await;
    }
    (live, shutdown, service)
}

fn push_of(made: &[(Bytes, u32)], next: &mut usize, random: &mut spans::Random) -> TraceBatch {
    let mut batch = TraceBatch::default();
    let mut spans = 0;
    while spans < SPANS_PER_PUSH {
        let (trace, count) = &made[*next % made.len()];
        *next += 1;
        spans += count;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random.next().to_be_bytes());
        id[8..].copy_from_slice(&random.next().to_be_bytes());
        batch.traces.push(TraceChunk {
            id: TraceId::from_bytes(id),
            // As from the network: every push has memory of its own.
            trace: Bytes::copy_from_slice(trace),
            spans: *count,
        });
    }
    batch
}

/// How long a restart takes that finds `spans` spans in the log.
async fn restart(made: &[(Bytes, u32)], spans: u64) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let (live, _, service) = open(folder.path(), false).await;
    let mut random = spans::Random::new(99);
    let mut next = 0;
    let mut pushed = 0;
    while pushed < spans {
        let outcome = live.push("t", push_of(made, &mut next, &mut random)).await;
        pushed += outcome.unwrap().accepted_spans;
    }
    // Background work on other threads ends by itself.
    service.abort();
    let _ = service.await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let wal_mb = live.stats().wal_bytes >> 20;
    drop(live);
    let began = Instant::now();
    let (live, shutdown, service) = open(folder.path(), true).await;
    let ready = began.elapsed();
    let viewer = live.clone();
    let seen = tokio::task::spawn_blocking(move || {
        let view = viewer.view("t", 0, u64::MAX, Operation::Search).unwrap();
        view.tables().len()
    });
    let tables = seen.await.unwrap();
    println!(
        "restart with {wal_mb} MB in the log: ready after {ready:.1?}, {tables} tables searchable after {:.1?}",
        began.elapsed()
    );
    shutdown.cancel();
    service.await.unwrap();
}

async fn run(made: Arc<Vec<(Bytes, u32)>>, seconds: u64, pushers: u64, rate: u64, base_mb: u64) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let (live, shutdown, service) = open(folder.path(), true).await;
    let stop = Arc::new(AtomicBool::new(false));
    let pushed = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let cpu_before = cpu_seconds();
    let tasks: Vec<_> = (0..pushers)
        .map(|pusher| {
            let (live, made, stop, pushed) =
                (live.clone(), made.clone(), stop.clone(), pushed.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut next = pusher as usize * 1000;
                let mut random = spans::Random::new(pusher);
                while !stop.load(Ordering::Relaxed) {
                    if rate > 0 {
                        let due = began.elapsed().as_secs_f64() * rate as f64;
                        if pushed.load(Ordering::Relaxed) as f64 > due {
                            tokio::time::sleep(Duration::from_millis(2)).await;
                            continue;
                        }
                    }
                    let batch = push_of(&made, &mut next, &mut random);
                    let start = Instant::now();
                    match live.push("t", batch).await {
                        Ok(outcome) => {
                            latencies.push(start.elapsed());
                            pushed.fetch_add(outcome.accepted_spans, Ordering::Relaxed);
                        }
                        Err(error) => println!("{error}"),
                    }
                }
                latencies
            })
        })
        .collect();
    let mut peak_mb = 0;
    for second in 1..=seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        peak_mb = peak_mb.max(status_mb("VmRSS"));
        if second % 5 == 0 {
            let stats = live.stats();
            println!(
                "{second:3} s: {:7} spans/s, RSS {} MB, {} live traces, {} tables of {} spans, {} B/span, WAL {} MB, {} blocks",
                pushed.load(Ordering::Relaxed) / second,
                status_mb("VmRSS") - base_mb,
                stats.live_traces,
                stats.live_tables,
                stats.live_table_spans,
                stats.live_table_bytes / stats.live_table_spans.max(1),
                stats.wal_bytes >> 20,
                stats.local_blocks,
            );
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    let pushing = began.elapsed();
    let cpu_pushing = cpu_seconds() - cpu_before;
    let spans = pushed.load(Ordering::Relaxed);
    println!(
        "pushed {spans} spans in {pushing:.1?}, {cpu_pushing:.1} CPU-s: {:.0} spans per CPU-second",
        spans as f64 / cpu_pushing
    );
    latencies.sort_unstable();
    let quantile = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    println!(
        "acknowledged after p50 {:.2?} p90 {:.2?} p99 {:.2?} max {:.2?}",
        quantile(0.5),
        quantile(0.9),
        quantile(0.99),
        quantile(1.0)
    );
    let viewer = live.clone();
    let viewing = Instant::now();
    let tables = tokio::task::spawn_blocking(move || {
        let view = viewer.view("t", 0, u64::MAX, Operation::Search).unwrap();
        view.tables().len()
    });
    println!(
        "view of {} tables took {:.1?}",
        tables.await.unwrap(),
        viewing.elapsed()
    );
    live.flush_all().await.unwrap();
    let cpu_all = cpu_seconds() - cpu_before;
    println!(
        "all in the store after {:.1?}, {cpu_all:.1} CPU-s: {:.0} spans per CPU-second; peak {} MB above {base_mb} MB",
        began.elapsed(),
        spans as f64 / cpu_all,
        peak_mb - base_mb,
    );
    shutdown.cancel();
    service.await.unwrap();
    restart(&made, 500_000).await;
}
