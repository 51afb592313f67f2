//! `tempo-bench-query`: what a query costs on blocks of a million spans.
//!
//! Makes its data once with the binary it is given, then asks each class of query of a fresh
//! process that has nothing but the blocks, and again at a tenth of the data. Allocations are not
//! measured: they cannot be seen from outside of a process.

#![allow(clippy::print_stdout)]

mod classes;
mod data;
mod measure;

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use serde_json::json;

use crate::{
    classes::{Class, classes},
    data::{Data, data},
    measure::{Figures, measure},
};

const HELP: &str = "\
tempo-bench-query: measure the queries of a tempo binary on blocks

  --binary PATH        the tempo binary (required)
  --cache PATH         where data is kept (~/.cache/tempostack/bench-query)
  --spans N            spans, at least; a tenth is measured too (1000000)
  --spans-per-block N  (200000)
  --seconds N          how long to repeat each query (2)
  --only TEXT          only classes with this in their name
  --no-tenth           leave out the tenth of the data
  --json               print one JSON object instead of tables
";

struct Arguments {
    binary: PathBuf,
    cache: PathBuf,
    spans: u64,
    spans_per_block: u64,
    seconds: u64,
    only: String,
    has_tenth: bool,
    is_json: bool,
}

fn cache_folder() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(home, PathBuf::from)
        .join("tempostack/bench-query")
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments {
        binary: PathBuf::new(),
        cache: cache_folder(),
        spans: 1_000_000,
        spans_per_block: 200_000,
        seconds: 2,
        only: String::new(),
        has_tenth: true,
        is_json: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => parsed.is_json = true,
            "--no-tenth" => parsed.has_tenth = false,
            "--help" | "-h" => return Err(HELP.to_owned()),
            option => {
                let value = words
                    .next()
                    .ok_or_else(|| format!("{option} needs a value\n\n{HELP}"))?;
                let number = || {
                    value
                        .parse::<u64>()
                        .map_err(|_| format!("{option} {value}: not a number"))
                };
                match option {
                    "--binary" => parsed.binary = PathBuf::from(&value),
                    "--cache" => parsed.cache = PathBuf::from(&value),
                    "--spans" => parsed.spans = number()?.max(10),
                    "--spans-per-block" => parsed.spans_per_block = number()?.max(1),
                    "--seconds" => parsed.seconds = number()?,
                    "--only" => parsed.only.clone_from(&value),
                    _ => return Err(format!("unknown option {option}\n\n{HELP}")),
                }
            }
        }
    }
    if parsed.binary.as_os_str().is_empty() {
        return Err(format!("--binary is required\n\n{HELP}"));
    }
    Ok(parsed)
}

fn main() -> ExitCode {
    match arguments().and_then(|arguments| run(&arguments).map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// A class with what it costs.
type Row = (Class, Figures);

fn measure_all(arguments: &Arguments, spans: u64) -> io::Result<(Data, Vec<Row>)> {
    let data = data(
        &arguments.binary,
        &arguments.cache,
        spans,
        arguments.spans_per_block,
    )?;
    let budget = Duration::from_secs(arguments.seconds);
    let mut rows = Vec::new();
    for class in classes(&data) {
        if class.name.contains(&arguments.only) {
            eprintln!("{spans} spans: {}", class.name);
            let figures = measure(&arguments.binary, &data, &class, budget)?;
            rows.push((class, figures));
        }
    }
    Ok((data, rows))
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let mut sizes = vec![arguments.spans];
    if arguments.has_tenth {
        sizes.push(arguments.spans / 10);
    }
    let measured = sizes
        .into_iter()
        .map(|spans| measure_all(arguments, spans))
        .collect::<io::Result<Vec<_>>>()?;
    if arguments.is_json {
        let sizes: Vec<_> = measured
            .iter()
            .map(|(data, rows)| to_json(data, rows))
            .collect();
        println!("{}", json!({ "sizes": sizes }));
        return Ok(());
    }
    for (data, rows) in &measured {
        print_table(data, rows);
    }
    if let [(_, whole), (_, tenth)] = measured.as_slice() {
        print_growth(whole, tenth);
    }
    Ok(())
}

fn to_json(data: &Data, rows: &[Row]) -> serde_json::Value {
    let classes: Vec<_> = rows
        .iter()
        .map(|(class, figures)| {
            json!({
                "class": class.name,
                "query": class.query,
                "results": figures.results,
                "cold_ms": figures.cold_ms,
                "warm_p50_ms": figures.warm_p50_ms,
                "repeated_p50_ms": figures.repeated_p50_ms,
                "cold_cpu_ms": figures.cold_cpu_ms,
                "warm_cpu_ms": figures.warm_cpu_ms,
                "gets": figures.gets,
                "read_bytes": figures.read_bytes,
                "peak_resident_bytes": figures.peak_resident_bytes,
            })
        })
        .collect();
    json!({
        "spans": data.spans,
        "traces": data.traces,
        "blocks": data.blocks,
        "stored_bytes": data.stored_bytes,
        "classes": classes,
    })
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn print_table(data: &Data, rows: &[Row]) {
    println!(
        "{} spans, {} traces, {} blocks, {:.1} MiB\n",
        data.spans,
        data.traces,
        data.blocks,
        mib(data.stored_bytes)
    );
    println!(
        "| query | results | cold, ms | warm p50, ms | repeated, ms | CPU cold, ms | CPU warm, ms | GETs | read, MiB | peak, MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (class, figures) in rows {
        println!(
            "| {} | {} | {:.1} | {:.1} | {:.1} | {:.0} | {:.1} | {} | {:.2} | {:.0} |",
            class.name,
            figures.results,
            figures.cold_ms,
            figures.warm_p50_ms,
            figures.repeated_p50_ms,
            figures.cold_cpu_ms,
            figures.warm_cpu_ms,
            figures.gets,
            mib(figures.read_bytes),
            mib(figures.peak_resident_bytes)
        );
    }
    println!();
}

/// How much more the whole costs than its tenth.
fn print_growth(whole: &[Row], tenth: &[Row]) {
    println!("| query | CPU warm | GETs | bytes read |\n|---|---|---|---|");
    for ((class, whole), (_, tenth)) in whole.iter().zip(tenth) {
        let ratio = |whole: f64, tenth: f64| {
            if tenth > 0.0 {
                format!("{:.1}×", whole / tenth)
            } else {
                "–".to_owned()
            }
        };
        println!(
            "| {} | {} | {} | {} |",
            class.name,
            ratio(whole.warm_cpu_ms, tenth.warm_cpu_ms),
            ratio(whole.gets as f64, tenth.gets as f64),
            ratio(whole.read_bytes as f64, tenth.read_bytes as f64)
        );
    }
}
