//! How fast queries run on a table of a million spans in memory. Run with
//! `cargo bench -p tempo-engine --bench queries [part of a query]`.

#![allow(clippy::print_stdout, missing_docs)]

#[path = "../../table/benches/shared/spans.rs"]
mod spans;

use std::{sync::atomic::AtomicBool, time::Instant};

use tempo_engine::{Limits, Plan, SearchOptions, TagFilter, TagValueLimits, search, tag_values};
use tempo_table::{MemoryTable, MemoryTableBuilder};
use tempo_traceql::{ConditionGroups, parse, parse_identifier};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static RUNNING: AtomicBool = AtomicBool::new(false);

const QUERIES: [&str; 22] = [
    "{ }",
    "{ span.component = \"redis\" }",
    "{ .component = \"redis\" }",
    "{ span.url.full = \"https://service-1.example.com/api/v1/resource-1/1?page=2\" }",
    "{ span.dne = \"x\" }",
    "{ span.component =~ \"data.*\" }",
    "{ name =~ \"operation 1.*\" }",
    "{ span.url.full =~ \".*/resource-17/.*\" }",
    "{ resource.service.name = \"service-3\" }",
    "{ status = error }",
    "{ status = error && duration > 100ms }",
    "{ duration > 100ms }",
    "{ span.http.response.status_code >= 400 && span.http.response.status_code < 500 }",
    "{ resource.service.name = \"service-3\" && span.http.request.method = \"POST\" && status = error }",
    "{ span.thread.id * 2 = 62 }",
    "{ event.exception.type = \"Error3\" }",
    "{ resource.service.name = \"service-1\" } >> { status = error }",
    "{ } >> { }",
    "{ } > { status = error }",
    "{ status = error } && { span.http.request.method = \"POST\" }",
    "{ } | count() > 20",
    "{ } | avg(duration) > 100ms",
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
    let table = table(1_000_000);
    let spans = table.spans() as f64;
    println!(
        "{spans} spans, {} traces, {:.0} B/span",
        table.traces(),
        table.heap_bytes() as f64 / spans
    );
    let limits = Limits {
        max_column_bytes: usize::MAX,
        cancel: &RUNNING,
    };
    let options = SearchOptions {
        time_range_nano: None,
        max_traces: 20,
        max_spans_per_span_set: 3,
        most_recent: false,
        limits,
    };
    for query in QUERIES {
        if wanted
            .as_ref()
            .is_some_and(|wanted| !query.contains(wanted.as_str()))
        {
            continue;
        }
        let Some(plan) = parse(query).ok().and_then(|query| Plan::new(&query).ok()) else {
            println!("{query}: cannot be planned");
            continue;
        };
        let mut best = f64::MAX;
        let mut traces = 0;
        // A single query is asked for to be profiled.
        for _ in 0..if wanted.is_some() { 300 } else { 15 } {
            let begin = Instant::now();
            match search(&plan, &table, &options) {
                Ok(output) => traces = output.traces.len(),
                Err(error) => println!("{error}"),
            }
            best = best.min(begin.elapsed().as_nanos() as f64);
        }
        println!(
            "{:7.3} ns/span {:8.2} ms {traces:5} traces  {query}",
            best / spans,
            best / 1e6
        );
    }
    let Ok(filter) = TagFilter::new(&ConditionGroups::MatchAll) else {
        return;
    };
    for tag in [
        "span.component",
        "resource.service.name",
        "span.url.full",
        "name",
    ] {
        let Ok(attribute) = parse_identifier(tag) else {
            continue;
        };
        let mut best = f64::MAX;
        let mut values = 0;
        for _ in 0..5 {
            let begin = Instant::now();
            let max = TagValueLimits {
                max_values: 0,
                max_bytes: 1_000_000,
            };
            if let Ok(found) = tag_values(&table, &attribute, &filter, max, limits) {
                values = found.len();
            }
            best = best.min(begin.elapsed().as_nanos() as f64);
        }
        println!(
            "{:7.3} ns/span {:8.2} ms {values:5} values  of {tag}",
            best / spans,
            best / 1e6
        );
    }
}
