//! How fast blocks are merged: of interleaved ids (every trace is encoded anew), of ids apart (row
//! groups are copied), and with every tenth trace in two blocks. Run with
//! `cargo bench -p tempo-block --bench merge [-- SPANS [ROUNDS]]`.

#![allow(clippy::print_stdout, clippy::expect_used, missing_docs)]

use std::{collections::BTreeMap, io, sync::Arc};

use prost::Message;
use tempo_backend::{Backend, BackendConfig, BlockMeta, ReadStats, cache::Cache};
use tempo_block::{
    merge::{MergeOptions, merge},
    read::BlockReader,
    schema::Version,
    write::{BlockOptions, write_block},
};
use tempo_model::TraceId;
use tempo_proto::tempopb::Trace;
use tempo_testkit::traces::TraceMaker;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BLOCKS: usize = 4;

type Traces = BTreeMap<TraceId, Vec<Vec<u8>>>;

/// Which block a trace goes to, by its id and number.
type Home = fn(&TraceId, usize) -> usize;

/// CPU time of this thread, in nanoseconds: neighbours do not count.
fn cpu_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split_whitespace().next().unwrap_or_default();
    first.parse().unwrap_or(0)
}

/// Largest resident set so far, in MiB.
fn peak_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmHWM"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|number| number.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

async fn store(backend: &Backend, version: Version, traces: Traces) -> Arc<BlockMeta> {
    let id = uuid::Uuid::new_v4();
    let options = BlockOptions::new(version, "bench".into(), id, traces.len() as u64);
    let block = write_block::<io::Error, _>(backend, options, false, move |builder| {
        for (id, chunks) in &traces {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            builder.push_trace(*id, &chunks)?;
        }
        Ok(())
    });
    Arc::new(block.await.expect("a block").meta)
}

fn make(
    wanted: usize,
    home: impl Fn(&TraceId, usize) -> usize,
    shared: bool,
) -> (Vec<Traces>, u64) {
    let mut maker = TraceMaker::new(1);
    let mut blocks = vec![Traces::new(); BLOCKS];
    let (mut spans, mut number) = (0, 0);
    while spans < wanted {
        let made = maker.next_trace(1_700_000_000_000_000_000 + spans as u64 * 20_000);
        spans += made.spans;
        number += 1;
        let id = TraceId::from_bytes(made.id);
        let at = home(&id, number) % BLOCKS;
        let mut services = made.resource_spans;
        if shared && number % 10 == 0 && services.len() > 1 {
            let rest = Trace {
                resource_spans: services.split_off(1),
            };
            blocks[(at + 1) % BLOCKS].insert(id, vec![rest.encode_to_vec()]);
        }
        let trace = Trace {
            resource_spans: services,
        };
        blocks[at].insert(id, vec![trace.encode_to_vec()]);
    }
    (blocks, spans as u64)
}

fn main() {
    let mut numbers = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok());
    let wanted = numbers.next().unwrap_or(1_000_000);
    let rounds = numbers.next().unwrap_or(3);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let backend = runtime
        .block_on(Backend::open(
            &BackendConfig::local(folder.path()),
            &prometheus::Registry::new(),
        ))
        .expect("a store");
    let cases: [(&str, Home, bool); 3] = [
        ("interleaved", |_, number| number, false),
        ("shared", |_, number| number, true),
        ("apart", |id, _| usize::from(id.as_bytes()[0] >> 6), false),
    ];
    for version in [Version::VParquet4, Version::VParquet5] {
        for (name, home, shared) in cases {
            let (blocks, spans) = make(wanted, home, shared);
            let metas: Vec<Arc<BlockMeta>> = blocks
                .into_iter()
                .map(|traces| runtime.block_on(store(&backend, version, traces)))
                .collect();
            let before = peak_mib();
            let mut best = f64::MAX;
            let mut line = String::new();
            for _ in 0..rounds {
                let cache = Cache::new(64 << 20, &prometheus::Registry::new()).expect("a cache");
                let begin = cpu_nanos();
                let readers: Vec<_> = metas
                    .iter()
                    .map(|meta| {
                        let meta = Arc::clone(meta);
                        BlockReader::open(&backend, &cache, meta, ReadStats::new())
                            .expect("a block")
                    })
                    .collect();
                let options = MergeOptions::new(uuid::Uuid::new_v4());
                let stats = ReadStats::new();
                let (block, counts, _) =
                    merge(&readers, &options, &(), &stats, io::sink()).expect("a block");
                best = best.min((cpu_nanos() - begin) as f64 / spans as f64);
                line = format!(
                    "{} row groups, {} copied, {} traces united, {} B/span, {} requests",
                    block.meta.total_records,
                    counts.row_groups_copied,
                    counts.traces_united,
                    block.meta.size / spans,
                    stats.requests(),
                );
            }
            println!(
                "{version} {name}: {best:.0} ns/span, {:.0} k spans/CPU-s; {line}; peak {before} to {} MiB",
                1e6 / best,
                peak_mib()
            );
        }
    }
}
