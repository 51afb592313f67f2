//! The data that is asked about: realistic traces over an hour, pushed through the binary and
//! flushed into blocks of equal size; made once and kept.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tempo_model::to_hex;
use tempo_proto::opentelemetry::proto::{common::v1::any_value, trace::v1::Span};
use tempo_testkit::{
    http_client::Client,
    load::unix_nanos,
    process::{Options, Tempo},
    traces::{MadeTrace, TraceMaker, encode_request},
};

/// How long the traces lie apart, from the first to the last.
pub(crate) const RANGE_SECONDS: u64 = 3600;
/// Spans of one request, as a collector sends them.
const SPANS_PER_REQUEST: usize = 222;
/// Ids that are remembered, so that each request asks for another trace.
const REMEMBERED_IDS: usize = 200;
/// Part of the name of the folder: changes whenever the data does.
const GENERATION: u32 = 4;

/// Times of the past count for a block, and nothing is refused.
const WHILE_MAKING: &str = "overrides:
  defaults:
    ingestion:
      rate_limit_bytes: 1000000000
      burst_size_bytes: 1000000000
      max_traces_per_user: 0
";

/// What is known about the data.
#[derive(Debug, Clone)]
pub(crate) struct Data {
    pub(crate) bucket: PathBuf,
    pub(crate) spans: u64,
    pub(crate) traces: u64,
    pub(crate) blocks: u64,
    pub(crate) stored_bytes: u64,
    /// Unix seconds that hold all traces.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Ids of traces from everywhere in the data.
    pub(crate) ids: Vec<String>,
    /// A `user.id` from the middle of the data; a few spans have it.
    pub(crate) user: String,
}

impl Data {
    fn to_json(&self) -> Value {
        json!({
            "spans": self.spans, "traces": self.traces, "start": self.start, "end": self.end,
            "ids": self.ids, "user": self.user,
        })
    }

    /// The data in `folder`, if it was made to the end.
    fn read(folder: &Path) -> Option<Self> {
        let known = fs::read(folder.join("data.json")).ok()?;
        let known: Value = serde_json::from_slice(&known).ok()?;
        let number = |name: &str| known[name].as_u64();
        let bucket = folder.join("blocks");
        let (blocks, stored_bytes) = measure(&bucket).ok()?;
        let ids = known["ids"].as_array()?;
        Some(Self {
            bucket,
            spans: number("spans")?,
            traces: number("traces")?,
            blocks,
            stored_bytes,
            start: number("start")?,
            end: number("end")?,
            ids: ids
                .iter()
                .filter_map(|id| Some(id.as_str()?.to_owned()))
                .collect(),
            user: known["user"].as_str()?.to_owned(),
        })
    }
}

/// How many blocks there are, and how large all files are.
fn measure(folder: &Path) -> io::Result<(u64, u64)> {
    let (mut blocks, mut bytes) = (0, 0);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_dir() {
            let (inner_blocks, inner_bytes) = measure(&entry.path())?;
            blocks += inner_blocks;
            bytes += inner_bytes;
        } else {
            blocks += u64::from(entry.file_name() == "meta.json");
            bytes += meta.len();
        }
    }
    Ok((blocks, bytes))
}

/// Data of at least `spans` spans in blocks of `spans_per_block`, below `cache`.
///
/// # Errors
/// When files cannot be written, or the binary refuses the traces.
pub(crate) fn data(
    binary: &Path,
    cache: &Path,
    spans: u64,
    spans_per_block: u64,
) -> io::Result<Data> {
    let folder = cache.join(format!("{GENERATION}-{spans}-{spans_per_block}"));
    if let Some(data) = Data::read(&folder) {
        return Ok(data);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    eprintln!("making {spans} spans in {}", folder.display());
    make(binary, &folder, spans, spans_per_block)?;
    Data::read(&folder).ok_or_else(|| io::Error::other("the data just made cannot be read"))
}

fn make(binary: &Path, folder: &Path, spans: u64, spans_per_block: u64) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let storage = format!(
        "    backend: local\n    local:\n      path: {}/blocks\n",
        folder.display()
    );
    let options = Options {
        data: Some(folder.to_owned()),
        // Without this the traces of an hour ago would not count for the time of a block.
        storage_yaml: Some(storage),
        extra_yaml: WHILE_MAKING.to_owned(),
        wal_yaml: "      ingestion_time_range_slack: 3h\n".to_owned(),
        ..Options::default()
    };
    let mut tempo = Tempo::configure(binary, &options)?;
    tempo.start()?;
    let now = unix_nanos();
    let end = now / 1_000_000_000 + 60;
    let begin_nanos = now - RANGE_SECONDS * 1_000_000_000;
    let mut known = Data {
        bucket: PathBuf::new(),
        spans: 0,
        traces: 0,
        blocks: 0,
        stored_bytes: 0,
        start: end - 120 - RANGE_SECONDS,
        end,
        ids: Vec::new(),
        user: String::new(),
    };
    let remember_each = (spans / 25 / REMEMBERED_IDS as u64).max(1);
    let mut maker = TraceMaker::new(1);
    let mut client = Client::connect(&tempo.otlp_http)?;
    let mut in_block = 0;
    let mut batch: Vec<MadeTrace> = Vec::new();
    let mut in_batch = 0;
    while known.spans < spans {
        let progress = known.spans as f64 / spans as f64;
        let offset = (progress * RANGE_SECONDS as f64 * 1e9) as u64;
        let trace = maker.next_trace(begin_nanos + offset);
        if known.traces.is_multiple_of(remember_each) && known.ids.len() < REMEMBERED_IDS {
            known.ids.push(to_hex(&trace.id));
        }
        if known.user.is_empty() && known.spans >= spans / 2 {
            known.user = user(&trace).unwrap_or_default();
        }
        known.traces += 1;
        known.spans += trace.spans as u64;
        in_block += trace.spans as u64;
        in_batch += trace.spans;
        batch.push(trace);
        let is_end = known.spans >= spans;
        if in_batch >= SPANS_PER_REQUEST || is_end {
            let headers = [("content-type", "application/x-protobuf")];
            let body = encode_request(&batch);
            expect_success(client.request("POST", "/v1/traces", &headers, &body)?)?;
            batch.clear();
            in_batch = 0;
            if in_block >= spans_per_block || is_end {
                let flush = Client::connect(&tempo.http)?.request("POST", "/flush", &[], &[])?;
                expect_success(flush)?;
                in_block = 0;
            }
        }
    }
    tempo.signal("TERM")?;
    tempo.wait()?;
    for left in ["live-store", "wal"] {
        let left = folder.join(left);
        if left.exists() {
            fs::remove_dir_all(left)?;
        }
    }
    // Written last: without it the data is made anew.
    fs::write(folder.join("data.json"), known.to_json().to_string())
}

fn expect_success(answer: tempo_testkit::http_client::Response) -> io::Result<()> {
    if answer.status < 300 {
        return Ok(());
    }
    let (status, text) = (answer.status, answer.text());
    Err(io::Error::other(format!("tempo answers {status}: {text}")))
}

fn user(trace: &MadeTrace) -> Option<String> {
    let spans = trace
        .resource_spans
        .iter()
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| &scope.spans);
    spans
        .flat_map(|span: &Span| &span.attributes)
        .find_map(|attribute| {
            match (
                attribute.key.as_str(),
                attribute.value.as_ref()?.value.as_ref()?,
            ) {
                ("user.id", any_value::Value::StringValue(user)) => Some(user.clone()),
                _ => None,
            }
        })
}
