//! Spans and questions all the time, while something is changed beneath them: what was acknowledged
//! is found, whole and once.
//!
//! Two writers keep their connections as real senders do, one over HTTP, one with an SDK over gRPC;
//! so does the reader, as Grafana does.
//! Each trace has a number, so that searches and counts over ranges of numbers know their answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    ops::Range,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rand::Rng;
use serde_json::{Value, json};
use tempo_testkit::http_client::Client;

use crate::{
    Failure, Outcome,
    context::Context,
    ensure,
    stack::Stack,
    traces::{Query, until},
};

/// Pause of each writer between two traces.
const PACE: Duration = Duration::from_millis(200);
/// Pause of the reader between two questions.
const READ_PACE: Duration = Duration::from_millis(100);
/// How long after its acknowledgement a span may be unknown: live-stores read what others wrote to
/// Kafka. On a busy machine that takes seconds.
const GRACE: Duration = Duration::from_secs(15);
/// Traces that one search or count asks for.
const RANGE: u32 = 40;
/// Names of the spans of each trace, sorted.
const SPANS: [&str; 3] = ["a", "b", "c"];
/// At the end, time for all to be found.
const ALL_FOUND_LIMIT: Duration = Duration::from_secs(180);
/// Traces of a writer that are asked for by id at the end.
const MAX_WHOLE: usize = 300;
/// Wrong answers and failures that are kept, to be told.
const MAX_TOLD: usize = 12;

/// What a writer knows of one trace.
#[derive(Debug, Clone)]
struct Trace {
    id: String,
    sent: Instant,
    /// A trace without an acknowledgement may be kept all the same, one that was sent again may be
    /// counted twice.
    acknowledged: bool,
    once: bool,
}

/// What one writer has sent.
#[derive(Debug, Default)]
struct Written {
    traces: BTreeMap<u32, Trace>,
    last: Option<Instant>,
    longest_pause: Duration,
    refusals: BTreeMap<String, usize>,
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
    fn settled(&self) -> u32 {
        self.traces
            .iter()
            .find(|(_, trace)| trace.sent.elapsed() < GRACE)
            .map_or_else(
                || self.traces.keys().next_back().map_or(0, |last| last + 1),
                |(number, _)| *number,
            )
    }

    fn ids(&self, numbers: &Range<u32>, holds: fn(&Trace) -> bool) -> BTreeSet<String> {
        self.traces
            .range(numbers.clone())
            .filter(|(_, trace)| holds(trace))
            .map(|(_, trace)| trace.id.clone())
            .collect()
    }

    /// Spans that a count may come to.
    fn counts(&self, numbers: &Range<u32>) -> (f64, f64) {
        let (mut least, mut most) = (0, 0);
        for (_, trace) in self.traces.range(numbers.clone()) {
            least += usize::from(trace.acknowledged);
            most += if trace.once { 1 } else { 2 };
        }
        ((least * SPANS.len()) as f64, (most * SPANS.len()) as f64)
    }
}

#[derive(Debug)]
struct Writer {
    service: String,
    written: Mutex<Written>,
}

impl Writer {
    fn new(protocol: &str) -> Arc<Self> {
        let mark = rand::rng().random_range(0..1_000_000);
        Arc::new(Self {
            service: format!("load-{protocol}-{mark}"),
            written: Mutex::default(),
        })
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn selector(&self, numbers: &Range<u32>) -> String {
        format!(
            "{{ resource.service.name = \"{}\" && span.load.number >= {} && span.load.number < {} }}",
            self.service, numbers.start, numbers.end
        )
    }
}

/// What the reader has seen.
#[derive(Debug, Default)]
struct Seen {
    answers: usize,
    failed: Vec<String>,
    wrong: Vec<String>,
    failures: usize,
    mistakes: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// Traces that were acknowledged.
    pub acknowledged: usize,
    /// Traces that were not.
    pub refused: usize,
    /// Questions that were answered.
    pub answers: usize,
    /// Longest time without an acknowledgement, of each writer.
    pub longest_pause: Duration,
    /// The first questions that failed, and how.
    pub failed: Vec<String>,
}

/// Writers and a reader at work.
#[derive(Debug)]
pub struct Traffic {
    writers: Vec<Arc<Writer>>,
    seen: Arc<Mutex<Seen>>,
    moment: Arc<Mutex<String>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    sdk: Child,
    query: Query,
    begun: Instant,
}

impl Traffic {
    /// Begins to write and to ask, through the Services of `stack`.
    ///
    /// # Errors
    /// When they cannot be reached.
    pub fn begin(context: &Context<'_>, stack: &Stack<'_>) -> Outcome<Self> {
        let http = stack.receiver(4318)?;
        let grpc = stack.receiver(4317)?;
        let (_way, query) = stack.query(None)?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let moment = Arc::new(Mutex::new("before".to_owned()));
        let (by_http, by_sdk) = (Writer::new("http"), Writer::new("grpc"));
        let mut sdk = context
            .world
            .sdk
            .steady(&grpc.address, &by_sdk.service, PACE)?;
        let mut threads = Vec::new();
        if let Some(told) = sdk.stdout.take() {
            let writer = Arc::clone(&by_sdk);
            threads.push(thread::spawn(move || listen(told, &writer)));
        }
        let writers = vec![by_http, by_sdk];
        {
            let (writer, stop) = (Arc::clone(&writers[0]), Arc::clone(&stop));
            let address = http.address.clone();
            threads.push(thread::spawn(move || write(&address, &writer, &stop)));
        }
        {
            let reader = Reader {
                writers: writers.clone(),
                seen: Arc::clone(&seen),
                moment: Arc::clone(&moment),
                query: query.keeping_its_connection(),
                begun: Instant::now(),
            };
            let stop = Arc::clone(&stop);
            threads.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    reader.ask();
                    thread::sleep(READ_PACE);
                }
            }));
        }
        let traffic = Self {
            writers,
            seen,
            moment,
            stop,
            threads,
            sdk,
            query,
            begun: Instant::now(),
        };
        // What is changed next shall meet questions that know their answers.
        until(Instant::now() + ALL_FOUND_LIMIT, || {
            let settled = traffic.writers.iter().map(|w| w.written().settled()).min();
            ensure(settled >= Some(RANGE), || {
                "the writers get no acknowledgements".to_owned()
            })
        })?;
        Ok(traffic)
    }

    /// Tells what is being done from now on, for the words about what goes wrong.
    pub fn now(&self, moment: &str) {
        let mut now = self.moment.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != moment {
            eprintln!(
                "e2e: {:>6.1} s: {moment}",
                self.begun.elapsed().as_secs_f64()
            );
            moment.clone_into(&mut now);
        }
    }

    /// Ends writing, and asks once more for all: by id, by searches, by counts.
    ///
    /// # Errors
    /// When an acknowledged span is lost or counted twice, or a question on the way failed or was
    /// answered wrongly.
    pub fn finish(self) -> Outcome<Report> {
        let report = self.finish_after_failures()?;
        ensure(report.failed.is_empty(), || {
            format!("questions failed: {}", report.failed.join("; "))
        })?;
        Ok(report)
    }

    /// The same, where questions may fail on the way; answers must be right all the same.
    ///
    /// # Errors
    /// When an acknowledged span is lost or counted twice, or a question was answered wrongly.
    pub fn finish_after_failures(mut self) -> Outcome<Report> {
        self.end();
        let deadline = Instant::now() + ALL_FOUND_LIMIT;
        let mut report = Report {
            acknowledged: 0,
            refused: 0,
            answers: 0,
            longest_pause: Duration::ZERO,
            failed: Vec::new(),
        };
        let mut refusals = Vec::new();
        for writer in &self.writers {
            let written = writer.written();
            let acknowledged = written.traces.values().filter(|t| t.acknowledged).count();
            report.acknowledged += acknowledged;
            report.refused += written.traces.len() - acknowledged;
            report.longest_pause = report.longest_pause.max(written.longest_pause);
            refusals.extend(
                written
                    .refusals
                    .iter()
                    .map(|(why, n)| format!("{n}× {why}")),
            );
            // Searches find each; that they are whole is looked at for some hundreds of them.
            let step = acknowledged.div_ceil(MAX_WHOLE).max(1);
            let all = written.traces.values().filter(|trace| trace.acknowledged);
            for trace in all.step_by(step) {
                until(deadline, || Ok(by_id(&self.query, &trace.id)?))
                    .map_err(|failure| failure.during("at the end"))?;
            }
            let end = written.traces.keys().next_back().map_or(0, |last| last + 1);
            for start in (0..end).step_by(RANGE as usize) {
                let numbers = start..end.min(start + RANGE);
                until(deadline, || {
                    search(&self.query, writer, &written, &numbers)?;
                    Ok(count(&self.query, writer, &written, &numbers)?)
                })
                .map_err(|failure| failure.during("at the end"))?;
            }
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        report.answers = seen.answers;
        eprintln!(
            "e2e: {} traces acknowledged, {} not ({}), longest pause {:.1} s; {} questions answered, {} failed, {} wrongly",
            report.acknowledged,
            report.refused,
            refusals.join("; "),
            report.longest_pause.as_secs_f64(),
            seen.answers,
            seen.failures,
            seen.mistakes,
        );
        ensure(seen.mistakes == 0, || {
            format!("wrong answers: {}", seen.wrong.join("; "))
        })?;
        report.failed.clone_from(&seen.failed);
        Ok(report)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.sdk.stdin.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let _ = self.sdk.wait();
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.end();
    }
}

impl crate::traces::Sdk {
    /// Starts a sender that goes on until its standard input is closed.
    fn steady(&self, address: &str, service: &str, pace: Duration) -> Outcome<Child> {
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
fn listen(told: impl std::io::Read, writer: &Writer) {
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
fn write(address: &str, writer: &Writer, stop: &AtomicBool) {
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

/// Why a question was not answered as it must be.
#[derive(Debug)]
enum Fault {
    Failed(String),
    Wrong(String),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Failed(why) | Fault::Wrong(why) => Self::new(why),
        }
    }
}

fn answered<T>(answer: Outcome<T>) -> Result<T, Fault> {
    answer.map_err(|failure| Fault::Failed(failure.to_string()))
}

fn right(holds: bool, why: impl FnOnce() -> String) -> Result<(), Fault> {
    if holds {
        Ok(())
    } else {
        Err(Fault::Wrong(why()))
    }
}

fn by_id(query: &Query, id: &str) -> Result<(), Fault> {
    let spans = answered(query.spans(id))?;
    right(spans == SPANS, || format!("trace {id} has spans {spans:?}"))
}

fn search(
    query: &Query,
    writer: &Writer,
    written: &Written,
    numbers: &Range<u32>,
) -> Result<(), Fault> {
    let found = answered(query.search(&writer.selector(numbers)))?;
    let wanted = written.ids(numbers, |trace| trace.acknowledged);
    let possible = written.ids(numbers, |_| true);
    right(
        wanted.is_subset(&found) && found.is_subset(&possible),
        || {
            format!(
                "search for {numbers:?} of {}: {} found, {} missing, {} foreign",
                writer.service,
                found.len(),
                wanted.difference(&found).count(),
                found.difference(&possible).count()
            )
        },
    )
}

fn count(
    query: &Query,
    writer: &Writer,
    written: &Written,
    numbers: &Range<u32>,
) -> Result<(), Fault> {
    let found = answered(query.count(&writer.selector(numbers)))?;
    let (least, most) = written.counts(numbers);
    right((least..=most).contains(&found), || {
        format!(
            "count of {numbers:?} of {}: {found} spans, there are {least} to {most}",
            writer.service
        )
    })
}

struct Reader {
    writers: Vec<Arc<Writer>>,
    seen: Arc<Mutex<Seen>>,
    moment: Arc<Mutex<String>>,
    query: Query,
    begun: Instant,
}

impl Reader {
    /// Asks one question, of a kind and about traces that chance chooses; the newest that must be
    /// known are asked for as often as all others together.
    fn ask(&self) {
        let mut random = rand::rng();
        let writer = &self.writers[random.random_range(0..self.writers.len())];
        let (written, numbers) = {
            let written = writer.written();
            let settled = written.settled();
            if settled == 0 {
                return;
            }
            let newest = settled.saturating_sub(RANGE);
            let start = if random.random_bool(0.5) {
                newest
            } else {
                random.random_range(0..=newest)
            };
            let numbers = start..settled.min(start + RANGE);
            let traces = written.traces.range(numbers.clone());
            let copy = Written {
                traces: traces.map(|(n, trace)| (*n, trace.clone())).collect(),
                ..Written::default()
            };
            (copy, numbers)
        };
        let asked = Instant::now();
        let (kind, outcome) = match random.random_range(0..3) {
            0 => {
                let trace = written.traces.values().find(|trace| trace.acknowledged);
                let Some(trace) = trace else { return };
                ("by id", by_id(&self.query, &trace.id))
            }
            1 => ("search", search(&self.query, writer, &written, &numbers)),
            _ => ("count", count(&self.query, writer, &written, &numbers)),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(fault) = outcome else {
            seen.answers += 1;
            return;
        };
        let moment = self
            .moment
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let age = written
            .traces
            .values()
            .next()
            .map_or(0.0, |trace| trace.sent.elapsed().as_secs_f64());
        let tell = |what: String| {
            format!(
                "{moment}, {:.1} s, {kind} after {:.1} s, of {age:.0} s ago: {what}",
                self.begun.elapsed().as_secs_f64(),
                asked.elapsed().as_secs_f64()
            )
        };
        let (count, told, what) = match fault {
            Fault::Failed(what) => (seen.failures + 1, false, tell(what)),
            Fault::Wrong(what) => (seen.mistakes + 1, true, tell(what)),
        };
        eprintln!("e2e: {what}");
        let Seen {
            failed,
            wrong,
            failures,
            mistakes,
            ..
        } = &mut *seen;
        let (list, number) = if told {
            (wrong, mistakes)
        } else {
            (failed, failures)
        };
        *number = count;
        if list.len() < MAX_TOLD {
            list.push(what);
        }
    }
}
