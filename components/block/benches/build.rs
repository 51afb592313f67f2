//! How fast OTLP becomes a block, and what the block weighs. Run with
//! `cargo bench -p tempo-block --bench build [-- SPANS [ROUNDS]]`.

#![allow(clippy::print_stdout, clippy::expect_used, missing_docs)]

use std::{collections::BTreeMap, io};

use prost::Message;
use tempo_block::{
    schema::Version,
    write::{BlockBuilder, BlockOptions},
};
use tempo_model::TraceId;
use tempo_proto::tempopb::Trace;
use tempo_testkit::traces::TraceMaker;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Counts what goes by.
struct Drain(u64);

impl io::Write for Drain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// CPU time of this thread, in nanoseconds: neighbours do not count.
fn cpu_nanos() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split_whitespace().next().unwrap_or_default();
    first.parse().unwrap_or(0)
}

fn main() {
    let mut numbers = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok());
    let wanted = numbers.next().unwrap_or(1_000_000);
    let rounds = numbers.next().unwrap_or(3);
    let mut maker = TraceMaker::new(1);
    let mut spans = 0;
    let mut traces = BTreeMap::new();
    while spans < wanted {
        let made = maker.next_trace(1_700_000_000_000_000_000 + spans as u64 * 20_000);
        spans += made.spans;
        // Two pushes, as of services that report on their own.
        let (first, second): (Vec<_>, Vec<_>) = made
            .resource_spans
            .into_iter()
            .enumerate()
            .partition(|(index, _)| index % 2 == 0);
        let chunks: Vec<Vec<u8>> = [first, second]
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(|part| {
                let resource_spans = part.into_iter().map(|(_, resource)| resource).collect();
                Trace { resource_spans }.encode_to_vec()
            })
            .collect();
        traces.insert(TraceId::from_bytes(made.id), chunks);
    }
    let wire: usize = traces.values().flatten().map(Vec::len).sum();
    println!(
        "{} traces, {spans} spans, {} B/span on the wire",
        traces.len(),
        wire / spans
    );
    for version in [Version::VParquet4, Version::VParquet5] {
        let mut best = f64::MAX;
        let mut line = String::new();
        for _ in 0..rounds {
            let options = BlockOptions::new(version, "bench".into(), uuid(), traces.len() as u64);
            let begin = cpu_nanos();
            let mut builder = BlockBuilder::new(options, Drain(0)).expect("a sink that takes all");
            let mut held = 0;
            for (number, (id, chunks)) in traces.iter().enumerate() {
                let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
                builder.push_trace(*id, &chunks).expect("a valid trace");
                if number % 256 == 0 {
                    held = held.max(builder.buffered_bytes());
                }
            }
            let (block, _) = builder.finish().expect("a block");
            let nanos = (cpu_nanos() - begin) as f64 / spans as f64;
            best = best.min(nanos);
            line = format!(
                "{} row groups, {} B/span, at most {} MiB held",
                block.meta.total_records,
                block.meta.size / spans as u64,
                held >> 20
            );
        }
        println!(
            "{version}: {best:.0} ns/span, {:.0} k spans/CPU-s; {line}",
            1e6 / best
        );
    }
}

fn uuid() -> uuid::Uuid {
    uuid::Uuid::from_u128(0x1111_1111_2222_4333_8444_5555_5555_5555)
}
