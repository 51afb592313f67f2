//! What queries cost in a block. Run with
//! `cargo bench -p tempo-block --bench read [-- SPANS [ROUNDS]]`: CPU milliseconds per million
//! spans, mean of the rounds, for a block that this program wrote, read from a local file.
//! With `TEMPO_BENCH_BLOCK=<dir>/<tenant>/<block id>` an existing block is read instead.

#![allow(clippy::print_stdout, clippy::expect_used, missing_docs)]

use std::{collections::BTreeMap, convert::Infallible, path::PathBuf, sync::Arc};

use prost::Message;
use tempo_backend::{Backend, BackendConfig, BlockMeta, ReadStats, cache::Cache};
use tempo_block::{
    read::{BlockReader, RowGroupTable, find_trace},
    schema::Version,
    write::{BlockOptions, PublishError, write_block},
};
use tempo_model::TraceId;
use tempo_proto::tempopb::Trace;
use tempo_table::{AttributeScope, ColumnKey, Intrinsic, SpanTable};
use tempo_testkit::traces::TraceMaker;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// CPU time of this thread, in nanoseconds: neighbours do not count.
fn cpu_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split_whitespace().next().unwrap_or_default();
    first.parse().unwrap_or(0)
}

async fn open(path: PathBuf) -> (Backend, Cache) {
    let registry = prometheus::Registry::new();
    let config = BackendConfig::local(path);
    let backend = Backend::open(&config, &registry)
        .await
        .expect("a directory");
    let cache = Cache::new(256 << 20, &registry).expect("a fresh registry");
    (backend, cache)
}

async fn built(backend: &Backend, version: Version, wanted: usize) -> BlockMeta {
    let mut maker = TraceMaker::new(1);
    let mut spans = 0;
    let mut traces = BTreeMap::new();
    while spans < wanted {
        let made = maker.next_trace(1_700_000_000_000_000_000 + spans as u64 * 20_000);
        spans += made.spans;
        let resource_spans = made.resource_spans;
        traces.insert(
            TraceId::from_bytes(made.id),
            Trace { resource_spans }.encode_to_vec(),
        );
    }
    let id = uuid::Uuid::from_u128(0x1111_1111_2222_4333_8444_5555_5555_5555);
    let options = BlockOptions::new(version, "bench".into(), id, traces.len() as u64);
    let block = write_block(backend, options, false, move |builder| {
        for (id, trace) in &traces {
            builder.push_trace(*id, &[trace])?;
        }
        Ok::<(), PublishError<Infallible>>(())
    });
    block.await.expect("a block").meta
}

fn attribute(scope: AttributeScope, name: &str) -> ColumnKey {
    ColumnKey::attribute(scope, name)
}

fn column(table: &RowGroupTable, key: &ColumnKey) -> usize {
    table.column(key, None).expect("a sound block").len
}

type Query = Box<dyn Fn(&RowGroupTable)>;

/// The columns that typical queries need, each on a fresh table.
fn queries() -> Vec<(&'static str, Query)> {
    use AttributeScope::{Event, Resource, Span};
    let single = |key: ColumnKey| -> Query {
        Box::new(move |table| {
            column(table, &key);
        })
    };
    let all = |keys: Vec<ColumnKey>| -> Query {
        Box::new(move |table| {
            keys.iter().for_each(|key| {
                column(table, key);
            });
        })
    };
    vec![
        ("structure", Box::new(|table| drop(table.structure()))),
        (
            "resource.service.name",
            single(attribute(Resource, "service.name")),
        ),
        ("span start (rate)", single(Intrinsic::SpanStartNano.into())),
        ("duration", single(Intrinsic::SpanDurationNano.into())),
        ("name", single(Intrinsic::SpanName.into())),
        ("status", single(Intrinsic::StatusCode.into())),
        ("span id", single(Intrinsic::SpanId.into())),
        ("parent span id", single(Intrinsic::ParentSpanId.into())),
        ("status message", single(Intrinsic::StatusMessage.into())),
        (
            "nested set",
            all(vec![
                Intrinsic::NestedSetLeft.into(),
                Intrinsic::NestedSetRight.into(),
                Intrinsic::NestedSetParent.into(),
            ]),
        ),
        ("child count", single(Intrinsic::ChildCount.into())),
        (
            "dedicated text",
            single(attribute(Span, "http.request.method")),
        ),
        (
            "dedicated text, many values",
            single(attribute(Span, "url.path")),
        ),
        (
            "dedicated int",
            single(attribute(Span, "http.response.status_code")),
        ),
        (
            "generic text, every span",
            single(attribute(Span, "component")),
        ),
        (
            "generic text, half, many values",
            single(attribute(Span, "user.id")),
        ),
        (
            "generic int, every span",
            single(attribute(Span, "thread.id")),
        ),
        (
            "generic double, tenth",
            single(attribute(Span, "queue.lag")),
        ),
        ("generic bool, tenth", single(attribute(Span, "cache.hit"))),
        (
            "two generic texts",
            all(vec![
                attribute(Span, "component"),
                attribute(Span, "db.system.name"),
            ]),
        ),
        (
            "resource attribute",
            single(attribute(Resource, "k8s.node.name")),
        ),
        (
            "attribute that nobody has",
            single(attribute(Span, "nobody")),
        ),
        ("event name", single(Intrinsic::EventName.into())),
        (
            "event attribute",
            single(attribute(Event, "exception.type")),
        ),
        (
            "texts of a generic attribute",
            Box::new(|table| {
                let key = attribute(Span, "component");
                drop(table.string_superset(&key).expect("a sound block"));
            }),
        ),
        (
            "attribute names",
            Box::new(|table| {
                drop(table.attribute_names(Span, None).expect("a sound block"));
            }),
        ),
        (
            "five columns of 20 spans",
            Box::new(|table| {
                let spans = table.rows(tempo_table::Level::Span).expect("a sound block") as u32;
                let rows: Vec<u32> = (0..20).map(|at| spans / 3 + at).collect();
                for key in [
                    Intrinsic::SpanName.into(),
                    Intrinsic::SpanStartNano.into(),
                    Intrinsic::SpanDurationNano.into(),
                    attribute(Span, "user.id"),
                    attribute(Span, "component"),
                ] {
                    drop(table.gather(&key, &rows).expect("a sound block"));
                }
            }),
        ),
    ]
}

fn report(backend: &Backend, cache: &Cache, meta: BlockMeta, rounds: usize) {
    let meta = Arc::new(meta);
    let reader = BlockReader::open(backend, cache, Arc::clone(&meta), ReadStats::new())
        .expect("a sound block");
    let table = |group| {
        let stats = ReadStats::new();
        (
            reader.table(group, stats.clone()).expect("a row group"),
            stats,
        )
    };
    let spans: usize = (0..reader.row_groups())
        .map(|group| table(group).0.structure().expect("a sound block").spans())
        .sum();
    println!(
        "{}: {} traces, {spans} spans, {} row groups, {} B/span",
        meta.format,
        meta.total_objects,
        reader.row_groups(),
        meta.size / spans as u64,
    );
    for (name, query) in queries() {
        let mut bytes = 0;
        // The clock of a thread may tick as rarely as every 4 ms, so rounds are timed together.
        let begin = cpu_nanos();
        for _ in 0..rounds {
            for group in 0..reader.row_groups() {
                let (table, stats) = table(group);
                query(&table);
                bytes += stats.bytes();
            }
        }
        let nanos = cpu_nanos() - begin;
        println!(
            "  {name:34} {:8.2} ms/M spans {:8.2} MB read",
            nanos as f64 / (spans * rounds) as f64,
            bytes as f64 / rounds as f64 / 1e6,
        );
    }
    by_id(backend, cache, &meta, &reader);
    let begin = cpu_nanos();
    let mut bytes = 0;
    for trace in reader.traces(ReadStats::new()) {
        bytes += trace.expect("a sound block").1.len();
    }
    let nanos = cpu_nanos() - begin;
    println!(
        "  all traces: {:.0} ns/span, {:.0} MB/s of OTLP",
        nanos as f64 / spans as f64,
        bytes as f64 * 1e3 / nanos as f64
    );
}

fn by_id(backend: &Backend, cache: &Cache, meta: &Arc<BlockMeta>, reader: &BlockReader) {
    let mut ids = Vec::new();
    for group in 0..reader.row_groups() {
        let table = reader.table(group, ReadStats::new()).expect("a row group");
        let key = Intrinsic::TraceId.into();
        let lane = table.column(&key, None).expect("a sound block").ids;
        let lane = lane.expect("ids");
        let count = table
            .rows(tempo_table::Level::Trace)
            .expect("a sound block");
        ids.extend(
            (0..count)
                .step_by(count / 20 + 1)
                .map(|row| TraceId::from_padded(lane.get(row))),
        );
    }
    let stats = ReadStats::new();
    let begin = cpu_nanos();
    for id in &ids {
        let found = find_trace(backend, cache, meta, id, &stats).expect("a sound block");
        assert!(found.is_some());
    }
    let nanos = cpu_nanos() - begin;
    let count = ids.len() as u64;
    println!(
        "  trace by id: {:.2} ms, {} requests, {:.2} MB",
        nanos as f64 / count as f64 / 1e6,
        stats.requests() / count,
        stats.bytes() as f64 / count as f64 / 1e6
    );
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut numbers = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok());
    let wanted = numbers.next().unwrap_or(1_000_000);
    let rounds = numbers.next().unwrap_or(20);
    if let Some(block) = std::env::var_os("TEMPO_BENCH_BLOCK") {
        let block = PathBuf::from(block);
        let meta = std::fs::read(block.join("meta.json")).expect("a block's meta.json");
        let meta = serde_json::from_slice(&meta).expect("a block's meta.json");
        let root = block.parent().and_then(|tenant| tenant.parent());
        let (backend, cache) = runtime.block_on(open(root.expect("a path").to_owned()));
        report(&backend, &cache, meta, rounds);
        return;
    }
    for version in [Version::VParquet4, Version::VParquet5] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (backend, cache) = runtime.block_on(open(directory.path().to_owned()));
        let meta = runtime.block_on(built(&backend, version, wanted));
        report(&backend, &cache, meta, rounds);
    }
}
