//! `tempo-bench-query`: what a query costs on blocks of a million spans.
//!
//! Makes its data once with the binary it is given, then asks each class of query of a fresh
//! process that has nothing but the blocks, and again at a tenth of the data. Another binary may be
//! asked the very same beside it. Allocations cannot be seen from outside of a process: they are
//! told by a binary that counts them, which is asked the same and not timed.

#![allow(clippy::print_stdout)]

mod classes;
mod data;
mod measure;
mod report;

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use crate::{
    classes::classes,
    data::data,
    measure::{Figures, allocated, measure},
    report::{Measured, Row},
};

const HELP: &str = "\
tempo-bench-query: measure the queries of a tempo binary on blocks

  --binary PATH        the tempo binary (required)
  --beside PATH        another binary with Tempo's API, to ask the same of the same blocks
  --counting PATH      the binary, built with the feature count-allocations
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
    beside: Option<PathBuf>,
    counting: Option<PathBuf>,
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
        beside: None,
        counting: None,
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
                    "--beside" => parsed.beside = Some(PathBuf::from(&value)),
                    "--counting" => parsed.counting = Some(PathBuf::from(&value)),
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

fn measure_all(arguments: &Arguments, spans: u64) -> io::Result<Measured> {
    let data = data(
        &arguments.binary,
        &arguments.cache,
        spans,
        arguments.spans_per_block,
    )?;
    let budget = Duration::from_secs(arguments.seconds);
    let load_before = load();
    let mut rows = Vec::new();
    for class in classes(&data) {
        if !class.name.contains(&arguments.only) {
            continue;
        }
        eprintln!("{spans} spans: {}", class.name);
        let mut figures = measure(&arguments.binary, &data, &class, budget)?;
        if let Some(counting) = &arguments.counting {
            figures.allocated = Some(allocated(counting, &data, &class)?);
        }
        if (figures.answer.len() == 0) != class.is_empty {
            let results = figures.answer.len();
            return Err(io::Error::other(format!(
                "{}: {results} results",
                class.name
            )));
        }
        // Right after it, so that both have the same neighbours on the machine.
        let beside = arguments.beside.as_ref().map(|other| {
            measure(other, &data, &class, budget).unwrap_or_else(|error| {
                eprintln!("{}: {error}", other.display());
                Figures::default()
            })
        });
        rows.push(Row {
            class,
            figures,
            beside,
        });
    }
    Ok(Measured {
        data,
        rows,
        loads: [load_before, load()],
    })
}

/// Load of the machine over the last minute.
fn load() -> f64 {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
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
        println!("{}", report::to_json(&measured));
    } else {
        report::print(&measured);
    }
    Ok(())
}
