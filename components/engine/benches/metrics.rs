//! How fast queries over time run on a table of a million spans in memory. Run with
//! `cargo bench -p tempo-engine --bench metrics [part of a query]`; `ROUNDS` says how often each
//! query runs.

#![allow(clippy::print_stdout, missing_docs)]

#[path = "../../table/benches/shared/spans.rs"]
mod spans;

use std::{sync::atomic::AtomicBool, time::Instant};

use tempo_engine::{
    Limits,
    metrics::{MetricsOptions, MetricsPartial, MetricsPlan, Window, evaluate},
};
use tempo_table::{MemoryTable, MemoryTableBuilder};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static RUNNING: AtomicBool = AtomicBool::new(false);

const QUERIES: [&str; 21] = [
    "{ } | rate()",
    "{ } | rate() by (resource.service.name)",
    "{ } | rate() by (name)",
    "{ } | rate() by (span.component)",
    "{ } | rate() by (.component)",
    "{ } | rate() by (resource.service.name, span.http.response.status_code)",
    "{ } | rate() by (span.url.full)",
    "{ } | rate() by (span.url.full) | topk(10)",
    "{ status = error } | rate() by (resource.service.name)",
    "{ span.component = \"redis\" } | rate()",
    "{ resource.service.name = \"service-1\" } >> { status = error } | rate()",
    "{ } | max_over_time(duration) by (resource.service.name)",
    "{ } | avg_over_time(duration)",
    "{ } | sum_over_time(span.thread.id) by (span.component)",
    "{ } | histogram_over_time(duration)",
    "{ } | quantile_over_time(duration, .5, .9, .99) by (resource.service.name)",
    "({ status = error } | rate()) / ({ } | rate())",
    "{ } | compare({ status = error })",
    "{ status = error } | compare({ duration > 100ms })",
    "{ } | compare({ resource.service.name = \"service-1\" }) with(span_sample=0.1)",
    "{ } | rate() with(span_sample=0.1)",
];

fn table(spans: usize) -> MemoryTable {
    let mut builder = MemoryTableBuilder::new();
    for (id, bytes) in spans::traces(spans) {
        if let Err(error) = builder.push_trace(id, &[&bytes]) {
            println!("{error}");
        }
    }
    builder.finish()
}

fn main() {
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let rounds = std::env::var("ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok());
    let rounds: usize = rounds.unwrap_or(15);
    let table = table(1_000_000);
    let spans = table.spans() as f64;
    let Some((start, end)) = table.time_range_nano() else {
        return;
    };
    let window = Window {
        start_nano: start - 1,
        end_nano: end,
        step_nano: 500_000_000,
        is_instant: false,
    }
    .aligned();
    println!("{spans} spans, {} intervals", window.grid().len());
    let limits = Limits {
        max_column_bytes: usize::MAX,
        cancel: &RUNNING,
    };
    let options = MetricsOptions {
        max_exemplars: 100,
        ..MetricsOptions::default()
    };
    for query in QUERIES {
        if wanted
            .as_ref()
            .is_some_and(|wanted| !query.contains(wanted.as_str()))
        {
            continue;
        }
        let plan = tempo_traceql::parse(query)
            .map_err(|error| error.to_string())
            .and_then(|query| {
                MetricsPlan::new(&query, &options).map_err(|error| error.to_string())
            });
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => {
                println!("{query}: {error}");
                continue;
            }
        };
        let (mut best, mut finishing) = (f64::MAX, f64::MAX);
        let mut series = 0;
        for _ in 0..rounds {
            let begin = Instant::now();
            let found = match evaluate(&plan, &table, window, limits) {
                Ok(found) => found,
                Err(error) => {
                    println!("{query}: {error}");
                    break;
                }
            };
            best = best.min(begin.elapsed().as_nanos() as f64);
            let begin = Instant::now();
            let mut all = MetricsPartial::new(&plan, window);
            if let Err(error) = all.merge(&plan, found, usize::MAX) {
                println!("{query}: {error}");
            }
            series = all.finish(&plan).series.len();
            finishing = finishing.min(begin.elapsed().as_nanos() as f64);
        }
        println!(
            "{:7.3} ns/span {:8.2} ms + {:6.2} ms to finish {series:6} series  {query}",
            best / spans,
            best / 1e6,
            finishing / 1e6,
        );
    }
}
