//! How fast OTLP becomes columns, and what the columns weigh. Run with
//! `cargo bench -p tempo-table --bench build`.

#![allow(clippy::print_stdout, missing_docs)]

#[path = "shared/spans.rs"]
mod spans;

use std::time::Instant;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use tempo_table::MemoryTableBuilder;

fn main() {
    let spans = std::env::args().find_map(|arg| arg.parse().ok());
    let traces = spans::traces(spans.unwrap_or(400_000));
    let wire: usize = traces.iter().map(|(_, bytes)| bytes.len()).sum();
    let all: usize = traces.len();
    for parts in [16, 4, 1] {
        let mut best = (f64::MAX, f64::MAX);
        let mut held = 0;
        let mut spans = 0;
        let mut builder = MemoryTableBuilder::new();
        for _ in 0..5 {
            (held, spans) = (0, 0);
            let (mut pushing, mut finishing) = (0, 0);
            for part in traces.chunks(all.div_ceil(parts)) {
                // Bytes come from the network or the WAL, so the cache knows them.
                for batch in part.chunks(100) {
                    let touched: u64 = batch
                        .iter()
                        .flat_map(|(_, bytes)| bytes.iter().step_by(64))
                        .map(|&byte| u64::from(byte))
                        .sum();
                    std::hint::black_box(touched);
                    let begin = Instant::now();
                    for (id, bytes) in batch {
                        if let Err(error) = builder.push_trace(*id, &[bytes]) {
                            println!("{error}");
                        }
                    }
                    pushing += begin.elapsed().as_nanos();
                }
                let begin = Instant::now();
                let table = builder.finish();
                finishing += begin.elapsed().as_nanos();
                held += table.heap_bytes();
                spans += table.spans();
            }
            let sum = (pushing as f64, finishing as f64);
            if sum.0 + sum.1 < best.0 + best.1 {
                best = sum;
            }
        }
        let per_span = |total: f64| total / spans as f64;
        println!(
            "{} tables of {} spans: push {:.0} + finish {:.0} ns/span, {:.0} B/span held, {:.0} B/span on the wire",
            parts,
            spans / parts,
            per_span(best.0),
            per_span(best.1),
            per_span(held as f64),
            per_span(wire as f64),
        );
    }
}
