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

use crate::{classes::Class, data::Data};

/// Enough turns for the ticks in which the kernel counts CPU time.
const MIN_TURNS: u64 = 5;
const MAX_TURNS: u64 = 60;

/// What a class costs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    /// Traces, series or values in the answer.
    pub(crate) results: u64,
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
}

fn fresh(binary: &Path, storage_yaml: String) -> io::Result<Tempo> {
    let options = Options {
        storage_yaml: Some(storage_yaml),
        extra_yaml: BACKEND_ONLY.to_owned(),
        ..Options::default()
    };
    let mut tempo = Tempo::configure(binary, &options)?;
    tempo.start()?;
    Ok(tempo)
}

fn stop(mut tempo: Tempo) -> io::Result<()> {
    tempo.signal("TERM")?;
    tempo.wait().map(drop)
}

/// Asks once; returns how long it took and how many results there are.
fn ask(client: &mut Client, class: &Class, path: &str) -> io::Result<(f64, u64)> {
    let begun = Instant::now();
    let answer = client.get(path)?;
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    if answer.status != 200 {
        return Err(io::Error::other(format!(
            "{} ({path}): status {}: {}",
            class.name,
            answer.status,
            answer.text()
        )));
    }
    let results = class.results(&answer.json());
    if (results == 0) != class.is_empty {
        return Err(io::Error::other(format!(
            "{} ({path}): {results} results",
            class.name
        )));
    }
    Ok((took, results))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Time and memory on local files, requests and bytes on an object store.
///
/// # Errors
/// When a process cannot be started or gives a wrong answer.
pub(crate) fn measure(
    binary: &Path,
    data: &Data,
    class: &Class,
    budget: Duration,
) -> io::Result<Figures> {
    let mut figures = Figures::default();
    let local = format!(
        "    backend: local\n    local:\n      path: {}\n",
        data.bucket.display()
    );
    let tempo = fresh(binary, local)?;
    let cpu = || tempo.cpu_seconds().unwrap_or_default() * 1000.0;
    let mut client = Client::connect(&tempo.http)?;
    let cpu_before = cpu();
    (figures.cold_ms, figures.results) = ask(&mut client, class, &class.path(data, 0))?;
    let cpu_cold = cpu();
    figures.cold_cpu_ms = cpu_cold - cpu_before;
    let begun = Instant::now();
    let mut warm = Vec::new();
    for turn in 1..=MAX_TURNS {
        if turn > MIN_TURNS && begun.elapsed() > budget {
            break;
        }
        warm.push(ask(&mut client, class, &class.path(data, turn))?.0);
    }
    figures.warm_cpu_ms = (cpu() - cpu_cold) / warm.len() as f64;
    figures.warm_p50_ms = median(warm);
    let again = class.path(data, 0);
    let repeated = (0..MIN_TURNS).map(|_| Ok(ask(&mut client, class, &again)?.0));
    figures.repeated_p50_ms = median(repeated.collect::<io::Result<_>>()?);
    figures.peak_resident_bytes = tempo.memory_bytes("VmHWM").unwrap_or_default();
    stop(tempo)?;

    let server = ObjectServer::start(&data.bucket)?;
    let tempo = fresh(binary, server.storage_yaml())?;
    let before = server.counted();
    let mut client = Client::connect(&tempo.http)?;
    let (_, results) = ask(&mut client, class, &class.path(data, 0))?;
    let after = server.counted();
    stop(tempo)?;
    // A search with a limit may stop at other traces when they arrive in another order.
    if results != figures.results {
        return Err(io::Error::other(format!(
            "{}: {} results from files, {results} from the object store",
            class.name, figures.results
        )));
    }
    figures.gets = after.gets - before.gets;
    figures.read_bytes = after.bytes - before.bytes;
    Ok(figures)
}
