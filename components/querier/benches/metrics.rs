//! How fast queries over time run on a block. Run with
//! `cargo bench -p tempo-querier --bench metrics [part of a query]`: CPU of the evaluating thread,
//! best of the rounds, for a block of a million spans in a local file, opened anew each time.

#![allow(clippy::print_stdout, clippy::expect_used, missing_docs)]

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, sync::atomic::AtomicBool};

use prost::Message as _;
use tempo_backend::{Backend, BackendConfig, BlockMeta, ReadStats, cache::Cache};
use tempo_block::{
    read::BlockReader,
    schema::Version,
    write::{BlockOptions, PublishError, write_block},
};
use tempo_engine::{
    Limits,
    metrics::{MetricsOptions, MetricsPartial, MetricsPlan, Window, evaluate},
};
use tempo_model::TraceId;
use tempo_proto::tempopb::Trace;
use tempo_testkit::traces::TraceMaker;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static RUNNING: AtomicBool = AtomicBool::new(false);

const SPANS: usize = 1_000_000;
const ROUNDS: usize = 5;
const START_NANO: u64 = 1_700_000_000_000_000_000;
const NANOS_PER_SPAN: u64 = 20_000;

const QUERIES: [&str; 10] = [
    "{ } | rate()",
    "{ } | rate() by (resource.service.name)",
    "{ } | rate() by (span.http.request.method)",
    "{ } | rate() by (name)",
    "{ status = error } | rate() by (resource.service.name)",
    "{ } | quantile_over_time(duration, .5, .9, .99) by (resource.service.name)",
    "{ } | histogram_over_time(duration)",
    "{ } >> { status = error } | rate()",
    "{ } | compare({ status = error })",
    "{ status = error } | compare({ duration > 100ms })",
];

/// CPU time of this thread, in nanoseconds: neighbours do not count.
fn cpu_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split_whitespace().next().unwrap_or_default();
    first.parse().unwrap_or(0)
}

async fn build(backend: &Backend) -> (BlockMeta, usize) {
    let mut maker = TraceMaker::new(1);
    let mut spans = 0;
    let mut traces = BTreeMap::new();
    while spans < SPANS {
        let made = maker.next_trace(START_NANO + spans as u64 * NANOS_PER_SPAN);
        spans += made.spans;
        let resource_spans = made.resource_spans;
        traces.insert(
            TraceId::from_bytes(made.id),
            Trace { resource_spans }.encode_to_vec(),
        );
    }
    let id = uuid::Uuid::from_u128(0x1111_1111_2222_4333_8444_5555_5555_5555);
    let options = BlockOptions::new(Version::VParquet4, "bench".into(), id, traces.len() as u64);
    let block = write_block(backend, options, false, move |builder| {
        for (id, trace) in &traces {
            builder.push_trace(*id, &[trace])?;
        }
        Ok::<(), PublishError<Infallible>>(())
    });
    (block.await.expect("a block").meta, spans)
}

fn main() {
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let folder = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let registry = prometheus::Registry::new();
    let config = BackendConfig::local(folder.path().to_owned());
    let backend = runtime
        .block_on(Backend::open(&config, &registry))
        .expect("a directory");
    let cache = Cache::new(256 << 20, &registry).expect("a fresh registry");
    let (meta, spans) = runtime.block_on(build(&backend));
    let meta = Arc::new(meta);
    println!(
        "{spans} spans, {} bytes, {} row groups",
        meta.size, meta.total_records
    );
    let window = Window {
        start_nano: START_NANO - 1_000_000_000,
        end_nano: START_NANO + 60_000_000_000,
        step_nano: 1_000_000_000,
        is_instant: false,
    };
    let limits = Limits {
        max_column_bytes: usize::MAX,
        cancel: &RUNNING,
    };
    let options = MetricsOptions {
        max_exemplars: std::env::var("EXEMPLARS").map_or(100, |n| n.parse().unwrap_or(100)),
        ..MetricsOptions::default()
    };
    for query in QUERIES {
        if wanted
            .as_ref()
            .is_some_and(|wanted| !query.contains(wanted.as_str()))
        {
            continue;
        }
        let parsed = tempo_traceql::parse(query).expect("a right query");
        let plan = MetricsPlan::new(&parsed, &options).expect("a metrics query");
        let run = || {
            let reader = BlockReader::open(&backend, &cache, Arc::clone(&meta), ReadStats::new())
                .expect("a block");
            let mut all = MetricsPartial::new(&plan, window);
            let mut bytes = 0;
            for group in 0..reader.row_groups() {
                let Some(table) = reader.table(group, ReadStats::new()) else {
                    continue;
                };
                let found = evaluate(&plan, &table, window, limits).expect("a sound block");
                all.merge(&plan, found, usize::MAX).expect("room");
                bytes += tempo_table::SpanTable::bytes_read(&table);
            }
            (all.finish(&plan).series.len(), bytes)
        };
        let mut best = u64::MAX;
        let mut result = (0, 0);
        let _entered = runtime.enter();
        for _ in 0..std::env::var("ROUNDS").map_or(ROUNDS, |n| n.parse().unwrap_or(ROUNDS)) {
            let begin = cpu_nanos();
            result = run();
            best = best.min(cpu_nanos() - begin);
        }
        let per_span = best as f64 / spans as f64;
        let (series, bytes) = result;
        println!(
            "{per_span:8.2} ns/span {:6.1} M spans/s {bytes:10} bytes {series:6} series  {query}",
            1e3 / per_span
        );
    }
}
