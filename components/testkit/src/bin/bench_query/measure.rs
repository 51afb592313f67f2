//! Measures one class: each in a process of its own, so that nothing is left of the class before.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use tempo_testkit::{
    http_client::Client,
    object_server::ObjectServer,
    process::{BACKEND_ONLY, Options, Tempo},
};

use crate::{
    classes::{Answer, Class},
    data::Data,
};

/// Enough turns for the ticks in which the kernel counts CPU time.
const MIN_TURNS: u64 = 5;
const MAX_TURNS: u64 = 200;
/// Turns of what takes very long.
const MIN_SLOW_TURNS: u64 = 2;
const SLOW: Duration = Duration::from_secs(60);
/// Longest wait for an answer, on a busy machine too.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Time enough for everyone, and nothing is reported to anyone while measuring.
const PATIENCE: &str = "querier:
  search:
    query_timeout: 10m
usage_report:
  reporting_enabled: false
";
const SERVER_PATIENCE: &str = "  http_server_write_timeout: 10m
";

/// Turns among which allocations are shared out; they are alike.
const COUNTED_TURNS: u64 = 3;

/// Memory that was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allocated {
    /// How often.
    pub(crate) times: f64,
    pub(crate) bytes: f64,
}

/// What a class costs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    /// Traces, spans, series or values in the answer to the first request.
    pub(crate) answer: Answer,
    /// The first request of a fresh process.
    pub(crate) cold_ms: f64,
    /// Median of further requests, all computed.
    pub(crate) warm_p50_ms: f64,
    /// CPU time of the process for the first request; the kernel counts in steps of 10 ms.
    pub(crate) cold_cpu_ms: f64,
    /// Mean CPU time for a further request.
    pub(crate) warm_cpu_ms: f64,
    /// Median of the very same request again.
    pub(crate) repeated_p50_ms: f64,
    /// Requests to an object store for the first request.
    pub(crate) gets: u64,
    /// Bytes of objects for the first request.
    pub(crate) read_bytes: u64,
    /// Peak resident memory of the process, warm requests included.
    pub(crate) peak_resident_bytes: u64,
    /// For a further request; none when no binary counts them.
    pub(crate) allocated: Option<Allocated>,
}

fn fresh(binary: &Path, storage_yaml: String) -> io::Result<Tempo> {
    let options = Options {
        storage_yaml: Some(storage_yaml),
        extra_yaml: format!("{BACKEND_ONLY}{PATIENCE}"),
        server_yaml: SERVER_PATIENCE.to_owned(),
        ..Options::default()
    };
    let mut tempo = Tempo::configure(binary, &options)?;
    tempo.start()?;
    Ok(tempo)
}

fn connect(tempo: &Tempo) -> io::Result<Client> {
    let mut client = Client::connect(&tempo.http)?;
    client.set_timeout(TIMEOUT)?;
    Ok(client)
}

/// Asks once; returns how long it took and what the answer has.
fn ask(client: &mut Client, class: &Class, path: &str) -> io::Result<(f64, Answer)> {
    let begun = Instant::now();
    let answer = client.get(path)?;
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    let is_missing_trace = answer.status == 404 && class.is_empty;
    if answer.status != 200 && !is_missing_trace {
        return Err(io::Error::other(format!(
            "{} ({path}): status {}: {}",
            class.name,
            answer.status,
            answer.text()
        )));
    }
    Ok((took, class.answer(&answer.json())))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Time and memory on local files, requests and bytes on an object store.
///
/// # Errors
/// When a process cannot be started or gives no answer.
pub(crate) fn measure(
    binary: &Path,
    data: &Data,
    class: &Class,
    budget: Duration,
) -> io::Result<Figures> {
    let mut figures = on_files(binary, data, class, budget)?;
    on_object_store(binary, data, class, &mut figures)?;
    Ok(figures)
}

/// What a further request allocates, as told by a binary that counts it.
///
/// # Errors
/// As [`measure`], and when the binary does not count.
pub(crate) fn allocated(binary: &Path, data: &Data, class: &Class) -> io::Result<Allocated> {
    let mut tempo = fresh(binary, local_storage(data))?;
    let mut client = connect(&tempo)?;
    let mut told = Client::connect(&tempo.http)?;
    let mut read = || {
        let page = told.get("/metrics")?.text();
        let value = |name: &str| {
            page.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
                .ok_or_else(|| {
                    io::Error::other(format!(
                        "{}: no {name}: build it with --features count-allocations",
                        binary.display()
                    ))
                })
        };
        Ok::<_, io::Error>((
            value("tempo_allocations ")?,
            value("tempo_allocated_bytes ")?,
        ))
    };
    ask(&mut client, class, &class.path(data, 0))?;
    // Telling allocates, too.
    let (first, before) = (read()?, read()?);
    for turn in 1..=COUNTED_TURNS {
        ask(&mut client, class, &class.path(data, turn))?;
    }
    let after = read()?;
    tempo.kill()?;
    let of_each = |first: f64, before: f64, after: f64| {
        (after - before - (before - first)).max(0.0) / COUNTED_TURNS as f64
    };
    Ok(Allocated {
        times: of_each(first.0, before.0, after.0),
        bytes: of_each(first.1, before.1, after.1),
    })
}

fn local_storage(data: &Data) -> String {
    format!(
        "    backend: local\n    local:\n      path: {}\n",
        data.bucket.display()
    )
}

fn on_files(binary: &Path, data: &Data, class: &Class, budget: Duration) -> io::Result<Figures> {
    let mut figures = Figures::default();
    let mut tempo = fresh(binary, local_storage(data))?;
    let cpu = || tempo.cpu_seconds().unwrap_or_default() * 1000.0;
    let mut client = connect(&tempo)?;
    let cpu_before = cpu();
    (figures.cold_ms, figures.answer) = ask(&mut client, class, &class.path(data, 0))?;
    let cpu_cold = cpu();
    figures.cold_cpu_ms = cpu_cold - cpu_before;
    let begun = Instant::now();
    let mut warm = Vec::new();
    for turn in 1..=MAX_TURNS {
        let elapsed = begun.elapsed();
        if (turn > MIN_TURNS && elapsed > budget) || (turn > MIN_SLOW_TURNS && elapsed > SLOW) {
            break;
        }
        warm.push(ask(&mut client, class, &class.path(data, turn))?.0);
    }
    figures.warm_cpu_ms = (cpu() - cpu_cold) / warm.len() as f64;
    figures.warm_p50_ms = median(warm);
    let again = class.path(data, 0);
    let turns = if figures.cold_ms > 1000.0 {
        1
    } else {
        MIN_TURNS
    };
    let repeated = (0..turns).map(|_| Ok(ask(&mut client, class, &again)?.0));
    figures.repeated_p50_ms = median(repeated.collect::<io::Result<_>>()?);
    figures.peak_resident_bytes = tempo.memory_bytes("VmHWM").unwrap_or_default();
    // Nothing was written that a slow shutdown could save.
    tempo.kill()?;
    Ok(figures)
}

fn on_object_store(
    binary: &Path,
    data: &Data,
    class: &Class,
    figures: &mut Figures,
) -> io::Result<()> {
    let server = ObjectServer::start(&data.bucket)?;
    let mut tempo = fresh(binary, server.storage_yaml())?;
    let before = server.counted();
    let mut client = connect(&tempo)?;
    let (_, answer) = ask(&mut client, class, &class.path(data, 0))?;
    let after = server.counted();
    tempo.kill()?;
    // A search with a limit may stop at other traces when they arrive in another order.
    if answer.len() != figures.answer.len() {
        return Err(io::Error::other(format!(
            "{}: {} results from files, {} from the object store",
            class.name,
            figures.answer.len(),
            answer.len()
        )));
    }
    figures.gets = after.gets - before.gets;
    figures.read_bytes = after.bytes - before.bytes;
    Ok(())
}
