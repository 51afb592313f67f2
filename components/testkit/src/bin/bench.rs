//! `tempo-bench`: what a running `tempo` costs per span, from OTLP/HTTP to flushed block.
//!
//! Starts the binary it is given on a data folder of its own, measures start and idle, sends
//! realistic traces at a rate (or flat out), measures acknowledgements and the time until a trace
//! can be searched, flushes, and reports what the process used. Its own CPU time is not counted.

#![allow(clippy::print_stdout)]

use std::{
    fs, io,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::AtomicU64,
    thread,
    time::{Duration, Instant},
};

use tempo_model::to_hex;
use tempo_testkit::{
    http_client::{self, Client, encode},
    load::{Load, Sent, send, templates, unix_nanos},
    process::{Options, Tempo, UNLIMITED, bytes_below},
    traces::{TraceMaker, encode_request},
};

const HELP: &str = "\
tempo-bench: measure a tempo binary from OTLP/HTTP to flushed block

  --binary PATH        the tempo binary (required)
  --seconds N          how long to send (30)
  --rate N             spans per second; 0 sends as fast as answers come (0)
  --connections N      parallel senders (4)
  --spans-per-request N  (222)
  --idle-seconds N     how long to idle before the idle figures (3)
  --data PATH          data folder, kept afterwards (a temporary one)
  --json               print one JSON object instead of a table
";

struct Arguments {
    binary: PathBuf,
    seconds: u64,
    rate: u64,
    connections: u64,
    spans_per_request: usize,
    idle_seconds: u64,
    data: Option<PathBuf>,
    json: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments {
        binary: PathBuf::new(),
        seconds: 30,
        rate: 0,
        connections: 4,
        spans_per_request: 222,
        idle_seconds: 3,
        data: None,
        json: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--json" {
            parsed.json = true;
            continue;
        }
        if word == "--help" || word == "-h" {
            return Err(HELP.to_owned());
        }
        let value = words
            .next()
            .ok_or_else(|| format!("{word} needs a value\n\n{HELP}"))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("{word} {value}: not a number"))
        };
        match word.as_str() {
            "--binary" => parsed.binary = PathBuf::from(&value),
            "--data" => parsed.data = Some(PathBuf::from(&value)),
            "--seconds" => parsed.seconds = number()?,
            "--rate" => parsed.rate = number()?,
            "--connections" => parsed.connections = number()?.max(1),
            "--spans-per-request" => parsed.spans_per_request = number()?.max(1) as usize,
            "--idle-seconds" => parsed.idle_seconds = number()?,
            _ => return Err(format!("unknown option {word}\n\n{HELP}")),
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

/// Milliseconds from an acknowledgement until a search finds the trace.
fn time_to_searchable(tempo: &Tempo) -> io::Result<f64> {
    let now = unix_nanos();
    let trace = TraceMaker::new(now).next_trace(now - 5_000_000_000);
    let body = encode_request(std::slice::from_ref(&trace));
    let headers = [("content-type", "application/x-protobuf")];
    Client::connect(&tempo.otlp_http)?.request("POST", "/v1/traces", &headers, &body)?;
    let acknowledged = Instant::now();
    let id = to_hex(&trace.id);
    let query = encode(&format!("{{ trace:id = \"{id}\" }}"));
    let seconds = now / 1_000_000_000;
    let path = format!(
        "/api/search?q={query}&start={}&end={}",
        seconds - 600,
        seconds + 60
    );
    let mut client = Client::connect(&tempo.http)?;
    while acknowledged.elapsed() < Duration::from_secs(60) {
        let answer = client.get(&path)?;
        if answer.json()["traces"]
            .as_array()
            .is_some_and(|traces| !traces.is_empty())
        {
            return Ok(acknowledged.elapsed().as_secs_f64() * 1000.0);
        }
        thread::sleep(Duration::from_millis(2));
    }
    Err(io::Error::other("a trace was not searchable within 60 s"))
}

fn percentile(sorted: &[u32], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share) as usize;
    sorted
        .get(index.min(sorted.len().saturating_sub(1)))
        .map_or(0.0, |&micros| f64::from(micros) / 1000.0)
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let options = Options {
        data: arguments.data.clone(),
        extra_yaml: UNLIMITED.to_owned(),
        ..Options::default()
    };
    let mut tempo = Tempo::configure(&arguments.binary, &options)?;
    let cold_start = tempo.start()?;
    thread::sleep(Duration::from_secs(arguments.idle_seconds));
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let idle = mib(tempo.memory_bytes("VmRSS").unwrap_or(0));
    let idle_cpu = tempo.cpu_seconds().unwrap_or(0.0);

    let templates = templates(arguments.spans_per_request);
    let rate = arguments.rate as f64 / arguments.connections as f64;
    let serial = AtomicU64::new(1);
    let begun = Instant::now();
    let until = begun + Duration::from_secs(arguments.seconds);
    let mut total = Sent::default();
    let mut searchable = 0.0;
    thread::scope(|scope| -> io::Result<()> {
        let senders: Vec<_> = (0..arguments.connections)
            .map(|sender| {
                let load = Load {
                    address: &tempo.otlp_http,
                    templates: &templates,
                    serial: &serial,
                    sender,
                    spans_per_second: rate,
                    tenants: 0,
                    until,
                };
                scope.spawn(move || send(&load))
            })
            .collect();
        thread::sleep(Duration::from_secs(arguments.seconds / 2));
        searchable = time_to_searchable(&tempo)?;
        for sender in senders {
            let sent = sender
                .join()
                .map_err(|_| io::Error::other("a sender panicked"))??;
            total.add(sent);
        }
        Ok(())
    })?;
    let sending = begun.elapsed();
    let cpu_sending = tempo.cpu_seconds().unwrap_or(0.0) - idle_cpu;
    let flush_begun = Instant::now();
    let flush = Client::connect(&tempo.http)?.request("POST", "/flush", &[], &[])?;
    if flush.status >= 300 {
        return Err(io::Error::other(format!(
            "flush: {} {}",
            flush.status,
            flush.text()
        )));
    }
    let flushing = flush_begun.elapsed();
    let cpu = tempo.cpu_seconds().unwrap_or(0.0) - idle_cpu;
    let peak = mib(tempo.memory_bytes("VmHWM").unwrap_or(0));
    let stored = bytes_below(&tempo.data().join("blocks"));
    total.ack_micros.sort_unstable();
    let spans = total.spans as f64;
    let binary = fs::metadata(&arguments.binary)?.len();
    let search_idle = time_to_searchable(&tempo)?;

    let figures = [
        ("spans_acknowledged", spans),
        ("spans_refused", total.refused as f64),
        ("spans_per_second", spans / sending.as_secs_f64()),
        ("wire_bytes_per_span", total.bytes as f64 / spans),
        ("cpu_seconds", cpu),
        ("cpu_seconds_while_sending", cpu_sending),
        ("spans_per_cpu_second", spans / cpu),
        ("cpu_microseconds_per_span", cpu * 1e6 / spans),
        ("stored_bytes_per_span", stored as f64 / spans),
        ("peak_resident_mib", peak),
        ("ack_p50_ms", percentile(&total.ack_micros, 0.50)),
        ("ack_p99_ms", percentile(&total.ack_micros, 0.99)),
        ("searchable_under_load_ms", searchable),
        ("searchable_idle_ms", search_idle),
        ("flush_seconds", flushing.as_secs_f64()),
        ("cold_start_ms", cold_start.as_secs_f64() * 1000.0),
        ("idle_resident_mib", idle),
        ("binary_mib", mib(binary)),
    ];
    if arguments.json {
        let object: serde_json::Map<String, serde_json::Value> = figures
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).into()))
            .collect();
        println!("{}", serde_json::Value::Object(object));
    } else {
        for (name, value) in figures {
            println!("{name:<28} {value:>14.2}");
        }
    }
    let left = http_client::get(&tempo.http, "/ready")?;
    if left.status != 200 {
        return Err(io::Error::other("tempo is not ready after the benchmark"));
    }
    tempo.signal("TERM")?;
    tempo.wait()?;
    Ok(())
}
