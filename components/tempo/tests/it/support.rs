//! What these tests share.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prost::Message;
use tempo_proto::tempopb::TraceByIdResponse;
use tempo_testkit::{
    http_client::{self, Client, encode},
    process::{BACKEND_ONLY, Options, Tempo},
};

/// So that a test sees in moments what takes seconds.
pub(crate) const QUICK_GOSSIP: Duration = Duration::from_millis(100);

pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tempo"))
}

pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// How many rounds a test of chance runs: `short`, or `long` with `TEMPO_LONG_TESTS` set.
pub(crate) fn rounds(short: usize, long: usize) -> usize {
    if std::env::var_os("TEMPO_LONG_TESTS").is_some() {
        long
    } else {
        short
    }
}

/// A trace by id as Grafana asks for it: the names of its spans, sorted.
pub(crate) fn span_names(tempo: &Tempo, id: &str) -> Vec<String> {
    let mut names: Vec<String> = spans(tempo, id).into_iter().map(|(_, name)| name).collect();
    names.sort();
    names
}

/// A trace by id as Grafana asks for it: span ids and names, as they come.
pub(crate) fn spans(tempo: &Tempo, id: &str) -> Vec<(Vec<u8>, String)> {
    let mut client = Client::connect(&tempo.http).unwrap();
    let answer = client
        .request(
            "GET",
            &format!("/api/v2/traces/{id}"),
            &[("accept", "application/protobuf")],
            &[],
        )
        .unwrap();
    assert_eq!(answer.status, 200, "trace {id}: {}", answer.text());
    let response = TraceByIdResponse::decode(answer.body.as_slice()).unwrap();
    response
        .trace
        .expect("Grafana dereferences the trace, even of an empty answer")
        .resource_spans
        .into_iter()
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans)
        .map(|span| (span.span_id, span.name))
        .collect()
}

/// The trace ids, padded to 32 digits, that a search finds.
pub(crate) fn search(tempo: &Tempo, query: &str) -> BTreeSet<String> {
    let now = unix_seconds();
    let path = format!(
        "/api/search?q={}&limit=10000&spss=3&start={}&end={}",
        encode(query),
        now - 3600,
        now + 60
    );
    let answer = http_client::get(&tempo.http, &path).unwrap();
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer.json()["traces"]
        .as_array()
        .cloned()
        .unwrap_or_default()
        .iter()
        .map(|trace| format!("{:0>32}", trace["traceID"].as_str().unwrap()))
        .collect()
}

/// A value on the metrics page; 0 when it is not there.
pub(crate) fn metric(tempo: &Tempo, name: &str) -> f64 {
    let page = http_client::get(&tempo.http, "/metrics").unwrap().text();
    page.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        .unwrap_or(0.0)
}

pub(crate) fn flush(tempo: &Tempo) {
    let mut client = Client::connect(&tempo.http).unwrap();
    let answer = client.request("POST", "/flush", &[], &[]).unwrap();
    assert!(
        answer.status < 300,
        "flush: {} {}",
        answer.status,
        answer.text()
    );
}

pub(crate) fn terminate(tempo: &mut Tempo) {
    tempo.signal("TERM").unwrap();
    assert_eq!(
        tempo.wait().unwrap(),
        Some(0),
        "an orderly end\n{}",
        tempo.log_tail()
    );
}

/// Traces that an SDK sent and that were acknowledged: id to span names, sorted.
pub(crate) type Acknowledged = BTreeMap<String, Vec<String>>;

/// Runs a sender of `e2e/sdk` and reads what it reports.
pub(crate) fn run_sender(mut command: Command) -> Acknowledged {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let names = line["spans"].as_array().unwrap();
            let names = names
                .iter()
                .map(|name| name.as_str().unwrap().to_owned())
                .collect();
            (line["trace"].as_str().unwrap().to_owned(), names)
        })
        .collect()
}

/// Asks until `question` has an answer; for what happens by itself after a while.
pub(crate) fn eventually<T>(what: &str, question: impl FnMut() -> Option<T>) -> T {
    eventually_within(Duration::from_secs(60), what, question)
}

/// The same for what may take longer.
pub(crate) fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut question: impl FnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(begun.elapsed() < patience, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A setting that `make test` provides.
pub(crate) fn required_env(name: &str) -> PathBuf {
    match std::env::var_os(name) {
        Some(value) => PathBuf::from(value),
        None => panic!("{name} is not set: run `make test`, or `scripts/setup.sh test` and set it"),
    }
}

pub(crate) fn sdk_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../e2e/sdk")
}

/// A process that has nothing but this bucket, with more settings.
pub(crate) fn on_bucket(bucket: &Path, more_yaml: &str) -> Tempo {
    let options = Options {
        storage_yaml: Some(format!(
            "    backend: local\n    local:\n      path: {}\n",
            bucket.display()
        )),
        extra_yaml: format!("{BACKEND_ONLY}{more_yaml}"),
        ..Options::default()
    };
    let mut tempo = Tempo::configure(&binary(), &options).unwrap();
    tempo.start().unwrap();
    tempo
}

pub(crate) fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::write(target, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}
