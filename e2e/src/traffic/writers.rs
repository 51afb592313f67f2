//! Who sends: numbered traces, one after another, and what became of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read},
    ops::Range,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rand::Rng;
use serde_json::{Value, json};
use tempo_testkit::http_client::Client;

use super::{GRACE, MAX_TOLD, PACE, SPANS};
use crate::{Failure, Outcome};

/// What a writer knows of one trace.
#[derive(Debug, Clone)]
pub(super) struct Trace {
    pub(super) id: String,
    pub(super) sent: Instant,
    /// A trace without an acknowledgement may be kept all the same, one that was sent again may be
    /// counted twice.
    pub(super) acknowledged: bool,
    once: bool,
}

/// What one writer has sent.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) traces: BTreeMap<u32, Trace>,
    pub(super) last: Option<Instant>,
    pub(super) longest_pause: Duration,
    pub(super) refusals: BTreeMap<String, usize>,
}

impl Written {
    fn acknowledged(&mut self, number: u32, id: String, sent: Instant, once: bool) {
        let now = Instant::now();
        if let Some(last) = self.last {
            self.longest_pause = self.longest_pause.max(now - last);
        }
        self.last = Some(now);
        let trace = Trace {
            id,
            sent,
            acknowledged: true,
            once,
        };
        self.traces.insert(number, trace);
    }

    fn refused(&mut self, number: u32, id: String, sent: Instant, why: String) {
        let trace = Trace {
            id,
            sent,
            acknowledged: false,
            once: false,
        };
        self.traces.insert(number, trace);
        if self.refusals.len() < MAX_TOLD || self.refusals.contains_key(&why) {
            *self.refusals.entry(why).or_default() += 1;
        }
    }

    /// Numbers below this are old enough to be found.
    pub(super) fn settled(&self) -> u32 {
        self.traces
            .iter()
            .find(|(_, trace)| trace.sent.elapsed() < GRACE)
            .map_or_else(
                || self.traces.keys().next_back().map_or(0, |last| last + 1),
                |(number, _)| *number,
            )
    }

    pub(super) fn acknowledged_count(&self) -> usize {
        self.traces
            .values()
            .filter(|trace| trace.acknowledged)
            .count()
    }

    /// What there is to know of these numbers, now.
    pub(super) fn of(&self, numbers: &Range<u32>) -> Self {
        let traces = self.traces.range(numbers.clone());
        Self {
            traces: traces.map(|(n, trace)| (*n, trace.clone())).collect(),
            ..Self::default()
        }
    }

    pub(super) fn ids(&self, numbers: &Range<u32>, holds: fn(&Trace) -> bool) -> BTreeSet<String> {
        self.traces
            .range(numbers.clone())
            .filter(|(_, trace)| holds(trace))
            .map(|(_, trace)| trace.id.clone())
            .collect()
    }

    /// Spans that a count may come to.
    pub(super) fn counts(&self, numbers: &Range<u32>) -> (f64, f64) {
        let (mut least, mut most) = (0, 0);
        for (_, trace) in self.traces.range(numbers.clone()) {
            least += usize::from(trace.acknowledged);
            most += if trace.once { 1 } else { 2 };
        }
        ((least * SPANS.len()) as f64, (most * SPANS.len()) as f64)
    }
}

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) service: String,
    written: Mutex<Written>,
}

impl Writer {
    pub(super) fn new(protocol: &str) -> Arc<Self> {
        let mark = rand::rng().random_range(0..1_000_000);
        Arc::new(Self {
            service: format!("load-{protocol}-{mark}"),
            written: Mutex::default(),
        })
    }

    pub(super) fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn selector(&self, numbers: &Range<u32>) -> String {
        format!(
            "{{ resource.service.name = \"{}\" && span.load.number >= {} && span.load.number < {} }}",
            self.service, numbers.start, numbers.end
        )
    }
}
impl crate::traces::Sdk {
    /// Starts a sender that goes on until its standard input is closed.
    pub(super) fn steady(&self, address: &str, service: &str, pace: Duration) -> Outcome<Child> {
        Command::new(&self.python)
            .arg(self.script.with_file_name("steady.py"))
            .args([address, service, &pace.as_secs_f64().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Failure::from(error).during("the SDK"))
    }
}

/// Notes what the SDK's sender tells.
pub(super) fn listen(told: impl Read, writer: &Writer) {
    for line in BufReader::new(told).lines().map_while(Result::ok) {
        let told: Value = serde_json::from_str(&line).unwrap_or_default();
        let number = told["number"].as_u64().and_then(|n| u32::try_from(n).ok());
        let (Some(number), Some(id)) = (number, told["trace"].as_str()) else {
            continue;
        };
        let mut written = writer.written();
        if told["acknowledged"] == true {
            let once = told["retried"] == false;
            written.acknowledged(number, id.to_owned(), Instant::now(), once);
        } else {
            let why = "the SDK gave up".to_owned();
            written.refused(number, id.to_owned(), Instant::now(), why);
        }
    }
}

fn unix_nanos() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos()
}

/// One trace in OTLP's JSON.
fn trace(service: &str, id: &str, number: u32) -> Vec<u8> {
    let now = unix_nanos();
    let spans: Vec<Value> = SPANS
        .iter()
        .zip(1..)
        .map(|(name, ordinal)| {
            let mut span = json!({
                "traceId": id, "spanId": format!("{ordinal:016x}"), "name": name, "kind": 1,
                "startTimeUnixNano": now.to_string(),
                "endTimeUnixNano": (now + 1_000_000).to_string(),
                "attributes": [{"key": "load.number", "value": {"intValue": number.to_string()}}],
            });
            if ordinal > 1 {
                span["parentSpanId"] = json!(format!("{:016x}", 1));
            }
            span
        })
        .collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]},
        "scopeSpans": [{"spans": spans}],
    }]})
    .to_string()
    .into_bytes()
}

/// Sends one trace after another on a connection that is kept, to whoever answers, until `stop`.
pub(super) fn write(address: &str, writer: &Writer, stop: &AtomicBool) {
    let mut client = None;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let id = format!("{:032x}", rand::rng().random::<u128>());
        let sent = Instant::now();
        let answer = match client.take().map_or_else(|| Client::connect(address), Ok) {
            Ok(mut connected) => {
                let headers = [("content-type", "application/json")];
                let body = trace(&writer.service, &id, number);
                let answer = connected.request("POST", "/v1/traces", &headers, &body);
                let closes = |answer: &tempo_testkit::http_client::Response| {
                    answer.header("connection") == Some("close")
                };
                if answer.as_ref().is_ok_and(|answer| !closes(answer)) {
                    client = Some(connected);
                }
                answer
            }
            Err(error) => Err(error),
        };
        let mut written = writer.written();
        match answer {
            Ok(answer) if answer.status == 200 => written.acknowledged(number, id, sent, true),
            Ok(answer) => {
                let why = format!("{} {}", answer.status, answer.text());
                written.refused(number, id, sent, why);
            }
            Err(error) => written.refused(number, id, sent, error.to_string()),
        }
        drop(written);
        thread::sleep(PACE);
    }
}
