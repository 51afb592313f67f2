//! `kill -9` at random instants: every acknowledged span is there afterwards, exactly once.
//!
//! The test starts itself as a child process that pushes without pause, with everything that
//! happens in the background happening all the time, and writes each acknowledgement to a pipe.
//! Five rounds on one data directory; fifty with `TEMPO_LONG_TESTS=1`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus::Registry;
use prost::Message;
use tempo_backend::{Backend, BackendConfig, DedicatedColumns, ReadStats, cache::Cache};
use tempo_block::read::BlockReader;
use tempo_live_store::{
    Config, Dependencies, Limits, LiveStore, Operation, Service, SystemClock, build,
};
use tempo_model::{TraceBatch, TraceChunk, TraceId};
use tempo_proto::{
    opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans, Span},
    tempopb::Trace,
};
use tempo_table::{Intrinsic, SpanTable};
use tokio_util::sync::CancellationToken;

const FOLDER: &str = "TEMPO_CRASH_TEST_FOLDER";
const ROUND: &str = "TEMPO_CRASH_TEST_ROUND";
const TENANT: &str = "t";
const PUSHERS: u32 = 4;
/// Spans of each push of a trace.
const SPANS: u32 = 3;

struct NoLimits;

impl Limits for NoLimits {
    fn max_bytes_per_trace(&self, _: &str) -> u64 {
        0
    }

    fn max_live_traces(&self, _: &str) -> u32 {
        0
    }

    fn dedicated_columns(&self, _: &str) -> DedicatedColumns {
        DedicatedColumns::tempo_defaults()
    }
}

async fn open(folder: &Path) -> (LiveStore, Service, Backend) {
    let registry = Registry::new();
    let store = BackendConfig::local(folder.join("store"));
    let backend = Backend::open(&store, &registry).await.unwrap();
    // Every step happens many times a second, so that a kill meets each of them.
    let config = Config {
        data_path: folder.join("data"),
        flush_check_period: Duration::from_millis(10),
        max_trace_idle: Duration::from_millis(30),
        max_trace_live: Duration::from_millis(100),
        max_block_duration: Duration::from_millis(60),
        columns_tick: Duration::from_millis(10),
        wal_segment_bytes: 64 << 10,
        complete_block_timeout: Duration::from_secs(24 * 3600),
        ..Config::default()
    };
    let dependencies = Dependencies {
        backend: Some(backend.clone()),
        cache: Cache::new(16 << 20, &registry).unwrap(),
        limits: Arc::new(NoLimits),
        clock: Arc::new(SystemClock),
        registry: &registry,
    };
    let (live, service) = build(config, dependencies).await.unwrap();
    (live, service, backend)
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_nanos() as u64
}

/// Spans `first..first + SPANS` of a trace.
fn chunk(id: TraceId, first: u32) -> TraceChunk {
    let spans = (first..first + SPANS)
        .map(|number| Span {
            trace_id: id.as_bytes().to_vec(),
            span_id: u64::from(number).to_be_bytes().to_vec(),
            name: format!("span {number}"),
            start_time_unix_nano: now(),
            end_time_unix_nano: now() + 1000,
            ..Span::default()
        })
        .collect();
    let trace = Trace {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    TraceChunk {
        id,
        trace: trace.encode_to_vec().into(),
        spans: SPANS,
    }
}

/// Pushes traces, every one in two parts, until it is killed. `ACK <trace> <first span>` on its
/// standard output says that a part was acknowledged.
async fn push_for_ever(live: LiveStore, round: u32, pusher: u32) {
    for sequence in 0_u32.. {
        let ids: Vec<TraceId> = (0..3_u32)
            .map(|trace| {
                let mut id = [0; 16];
                for (bytes, part) in
                    id.chunks_exact_mut(4)
                        .zip([round + 1, pusher, sequence, trace])
                {
                    bytes.copy_from_slice(&part.to_be_bytes());
                }
                TraceId::from_bytes(id)
            })
            .collect();
        for first in [1, 1 + SPANS] {
            let traces = ids.iter().map(|id| chunk(*id, first)).collect();
            let batch = TraceBatch {
                traces,
                skip_metrics_generation: false,
            };
            if live.push(TENANT, batch).await.is_err() {
                continue;
            }
            let mut lines = String::new();
            for id in &ids {
                lines.push_str(&format!("ACK {id} {first}\n"));
            }
            let mut out = std::io::stdout().lock();
            out.write_all(lines.as_bytes()).unwrap();
            out.flush().unwrap();
        }
    }
}

#[test]
#[ignore = "started by the other test, as a process of its own"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let round: u32 = std::env::var(ROUND).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (live, service, _) = open(Path::new(&folder)).await;
        let running = tokio::spawn(service.run(CancellationToken::new()));
        while live.ready().is_err() {
            tokio::task::yield_now().await;
        }
        for pusher in 0..PUSHERS {
            tokio::spawn(push_for_ever(live.clone(), round, pusher));
        }
        running.await.unwrap();
    });
}

/// Runs the child until it has acknowledged `kill_after` parts and kills it; returns every part
/// that it acknowledged.
fn run_and_kill(folder: &Path, round: u32, kill_after: usize) -> Vec<(TraceId, u32)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = Vec::new();
    let mut line = String::new();
    // What was written to the pipe before the kill counts too.
    while lines.read_line(&mut line).unwrap() > 0 {
        if line.ends_with('\n')
            && let Some(part) = line.trim().strip_prefix("ACK ")
        {
            let (id, first) = part.split_once(' ').unwrap();
            acknowledged.push((id.parse().unwrap(), first.parse().unwrap()));
            if acknowledged.len() == kill_after {
                child.kill().unwrap();
            }
        }
        line.clear();
    }
    child.wait().unwrap();
    assert!(
        acknowledged.len() >= kill_after,
        "the child ended by itself after {} acknowledgements",
        acknowledged.len()
    );
    acknowledged
}

/// How often each span is seen.
type Spans = BTreeMap<(TraceId, u32), u32>;

fn count(table: &dyn SpanTable, spans: &mut Spans) {
    let structure = table.structure().unwrap();
    let ids = |key: Intrinsic| table.column(&key.into(), None).unwrap().ids.unwrap();
    let (trace_ids, span_ids) = (ids(Intrinsic::TraceId), ids(Intrinsic::SpanId));
    for trace in 0..structure.traces() {
        let id = TraceId::from_padded(trace_ids.get(trace));
        for span in structure.spans_of_trace(trace) {
            let number = u64::from_be_bytes(span_ids.get(span).try_into().unwrap()) as u32;
            *spans.entry((id, number)).or_default() += 1;
        }
    }
}

fn assert_all_once(acknowledged: &[(TraceId, u32)], seen: &Spans, place: &str) {
    for (span, times) in seen {
        assert_eq!(*times, 1, "{place}: span {span:?} is there {times} times");
    }
    let missing: Vec<_> = acknowledged
        .iter()
        .flat_map(|&(id, first)| (first..first + SPANS).map(move |number| (id, number)))
        .filter(|span| !seen.contains_key(span))
        .collect();
    assert!(
        missing.is_empty(),
        "{place}: {} acknowledged spans are lost: {:?}",
        missing.len(),
        &missing[..missing.len().min(10)]
    );
}

/// Starts on what the kill left and checks that everything is there; with `flush`, also that the
/// object store gets it.
async fn check(
    folder: &Path,
    acknowledged: &[(TraceId, u32)],
    newest: &[(TraceId, u32)],
    flush: bool,
) {
    let (live, service, backend) = open(folder).await;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(service.run(shutdown.clone()));
    while live.ready().is_err() {
        tokio::task::yield_now().await;
    }
    let seen = {
        let live = live.clone();
        tokio::task::spawn_blocking(move || {
            let view = live.view(TENANT, 0, u64::MAX, Operation::Search).unwrap();
            let mut seen = Spans::new();
            for table in view.tables() {
                count(&**table, &mut seen);
            }
            seen
        })
    };
    assert_all_once(acknowledged, &seen.await.unwrap(), "live");
    // By id: whole, from wherever its parts are.
    let mut wanted: BTreeMap<TraceId, BTreeSet<u32>> = BTreeMap::new();
    for &(id, first) in newest {
        wanted.entry(id).or_default().extend(first..first + SPANS);
    }
    let finder = live.clone();
    let find = tokio::task::spawn_blocking(move || {
        for (id, wanted) in wanted {
            let found = finder.find_trace(TENANT, &id).unwrap().unwrap();
            let trace = Trace::decode(found.trace).unwrap();
            let scopes = trace
                .resource_spans
                .iter()
                .flat_map(|resource| &resource.scope_spans);
            let numbers: Vec<u32> = scopes
                .flat_map(|scope| &scope.spans)
                .map(|span| u64::from_be_bytes(span.span_id[..].try_into().unwrap()) as u32)
                .collect();
            let distinct: BTreeSet<u32> = numbers.iter().copied().collect();
            assert_eq!(distinct.len(), numbers.len(), "{id} has spans twice");
            assert!(
                distinct.is_superset(&wanted),
                "{id}: {distinct:?} of {wanted:?}"
            );
        }
    });
    find.await.unwrap();
    if flush {
        live.flush_all().await.unwrap();
    }
    shutdown.cancel();
    running.await.unwrap();
    if !flush {
        return;
    }
    // The object store alone holds everything, once.
    let mut metas = Vec::new();
    for id in backend.list_blocks(TENANT).await.unwrap().live {
        metas.push(Arc::new(backend.read_meta(TENANT, id).await.unwrap()));
    }
    let stored = tokio::task::spawn_blocking(move || {
        let cache = Cache::new(0, &Registry::new()).unwrap();
        let mut stored = Spans::new();
        for meta in metas {
            let reader = BlockReader::open(&backend, &cache, meta, ReadStats::new()).unwrap();
            for row_group in 0..reader.row_groups() {
                let table = reader.table(row_group, ReadStats::new()).unwrap();
                count(&table, &mut stored);
            }
        }
        stored
    });
    assert_all_once(acknowledged, &stored.await.unwrap(), "object store");
}

#[test]
fn every_acknowledged_span_survives_kill_nine_exactly_once() {
    let rounds = match std::env::var("TEMPO_LONG_TESTS") {
        Ok(long) if long == "1" => 50,
        _ => 5,
    };
    let folder = tempfile::tempdir().unwrap();
    let seed = now();
    println!("seed {seed}");
    let dice = AtomicU32::new(seed as u32 | 1);
    let roll = |limit: u32| {
        let mut x = dice.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        dice.store(x, Ordering::Relaxed);
        x % limit
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..rounds {
        let kill_after = 1 + roll(3000) as usize;
        let newest = run_and_kill(folder.path(), round, kill_after);
        acknowledged.extend_from_slice(&newest);
        println!(
            "round {round}: killed after {kill_after}, {} acknowledged in all",
            acknowledged.len()
        );
        // Not every time, so that the next round begins with all kinds of leftovers.
        let flush = round % 3 == 1 || round + 1 == rounds;
        runtime.block_on(check(folder.path(), &acknowledged, &newest, flush));
    }
}
