//! Who writes and who asks while faults come and go.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use prost::Message;
use tempo_proto::tempopb::TraceByIdResponse;
use tempo_testkit::{
    http_client::{self, Client, encode},
    traces::{TraceMaker, encode_request},
};

use crate::support::unix_seconds;

/// Pause of a writer after each request.
const WRITING_PACE: Duration = Duration::from_millis(200);

/// Pause of a reader after each question.
pub(super) const PACE: Duration = Duration::from_millis(50);

/// How long after its acknowledgement a span may be unknown to live-stores that are busy with a
/// fault: the lag at which one of them is ready, and the time to see who has died.
const GRACE: Duration = Duration::from_secs(20);

/// Within so long after a span began it must be acknowledged to be counted in time, also while
/// block-builders are behind: a tenth of `complete_block_timeout`, less the part of a second by
/// which spans are made to begin too early.
const PROMPT: Duration = Duration::from_secs(2);

/// A trace that was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acknowledged {
    pub(super) spans: usize,
    at: Instant,
    is_prompt: bool,
}

/// What the writers know.
#[derive(Default)]
pub(super) struct Written {
    /// Traces by id.
    pub(super) acknowledged: Mutex<BTreeMap<String, Acknowledged>>,
    /// Spans that were sent, acknowledged or not.
    pub(super) sent: AtomicUsize,
}

impl Written {
    /// Spans that a count must find by now, at least.
    fn countable(&self) -> usize {
        let acknowledged = self.acknowledged.lock().unwrap();
        let due = acknowledged
            .values()
            .filter(|known| known.is_prompt && known.at.elapsed() > GRACE);
        due.map(|known| known.spans).sum()
    }

    /// The next trace after this one that must be found by now.
    fn due(&self, after: &str) -> Option<(String, usize)> {
        let acknowledged = self.acknowledged.lock().unwrap();
        let is_due = |(_, known): &(&String, &Acknowledged)| known.at.elapsed() > GRACE;
        acknowledged
            .range(after.to_owned()..)
            .filter(|(id, _)| *id != after)
            .find(is_due)
            .or_else(|| acknowledged.iter().find(is_due))
            .map(|(id, known)| (id.clone(), known.spans))
    }
}

/// Sends one trace after another, to whoever answers, until `stop`.
pub(super) fn write(address: &str, seed: u64, written: &Written, stop: &AtomicBool) {
    let mut maker = TraceMaker::new(seed);
    let mut client = None;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(WRITING_PACE);
        if client.is_none() {
            client = Client::connect(address).ok();
        }
        let Some(connected) = &mut client else {
            continue;
        };
        let begun = Instant::now();
        let trace = maker.next_trace(unix_seconds() * 1_000_000_000);
        written.sent.fetch_add(trace.spans, Ordering::SeqCst);
        let headers = [("content-type", "application/x-protobuf")];
        let body = encode_request(std::slice::from_ref(&trace));
        match connected.request("POST", "/v1/traces", &headers, &body) {
            Ok(answer) if answer.status == 200 => {
                let id = trace.id.iter().map(|byte| format!("{byte:02x}")).collect();
                let known = Acknowledged {
                    spans: trace.spans,
                    at: Instant::now(),
                    is_prompt: begun.elapsed() < PROMPT,
                };
                written.acknowledged.lock().unwrap().insert(id, known);
            }
            Ok(answer) => assert!(
                [429, 500, 502, 503, 504].contains(&answer.status),
                "a fault is something to try again: {} {}",
                answer.status,
                answer.text()
            ),
            Err(_) => client = None,
        }
    }
}

/// What came of questions of one kind during one fault.
#[derive(Debug, Default)]
struct Tally {
    answers: usize,
    failures: usize,
    /// The last of these.
    failure: String,
}

/// What readers have seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    tallies: BTreeMap<(String, &'static str), Tally>,
    /// Answers that were given as if they were whole, and were not.
    pub(super) wrong: Vec<String>,
}

impl Seen {
    /// Notes how a question went; `wrong` looks at the answer.
    fn note<T>(
        &mut self,
        fault: &Mutex<String>,
        kind: &'static str,
        answer: Result<T, String>,
        wrong: impl FnOnce(T) -> Option<String>,
    ) {
        let now = fault.lock().unwrap().clone();
        let tally = self.tallies.entry((now.clone(), kind)).or_default();
        match answer {
            Err(failure) => {
                tally.failures += 1;
                tally.failure = failure;
            }
            Ok(answer) => {
                tally.answers += 1;
                let wrong = wrong(answer);
                self.wrong
                    .extend(wrong.map(|wrong| format!("{now}, {}: {wrong}", unix_seconds())));
            }
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        for (key, tally) in other.tallies {
            let sum = self.tallies.entry(key).or_default();
            sum.answers += tally.answers;
            sum.failures += tally.failures;
            if !tally.failure.is_empty() {
                sum.failure = tally.failure;
            }
        }
        self.wrong.extend(other.wrong);
    }

    /// A line for each fault and kind of question.
    pub(super) fn table(&self) -> String {
        let line = |((fault, kind), tally): (&(String, &str), &Tally)| {
            let failure: String = tally.failure.chars().take(160).collect();
            format!(
                "{fault:<50} {kind:<8} {:>5} answered {:>5} failed {failure}\n",
                tally.answers, tally.failures
            )
        };
        self.tallies.iter().map(line).collect()
    }
}

/// Asks for one trace after another, by id and perhaps by search, until `stop`.
pub(super) fn look_up(
    address: &str,
    written: &Written,
    fault: &Mutex<String>,
    also_by_search: bool,
    stop: &AtomicBool,
) -> Seen {
    let mut seen = Seen::default();
    let mut after = String::new();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(PACE);
        let Some((id, expected)) = written.due(&after) else {
            continue;
        };
        seen.note(fault, "by id", ask(address, &id), |spans| {
            fault_of(&id, expected, spans)
        });
        if also_by_search {
            let query = format!("{{ trace:id = \"{id}\" }}");
            seen.note(fault, "searched", search(address, &query, 1), |found| {
                (found != [id.clone()]).then(|| format!("a search for trace {id} finds {found:?}"))
            });
        }
        after = id;
    }
    seen
}

/// Counts all spans over and over until `stop`.
pub(super) fn count_on(
    address: &str,
    written: &Written,
    fault: &Mutex<String>,
    stop: &AtomicBool,
) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(PACE);
        let least = written.countable();
        let counted = count(address);
        let most = written.sent.load(Ordering::SeqCst);
        seen.note(fault, "counted", counted, |counted| {
            let possible = least as f64..=most as f64;
            let wrong = !possible.contains(&counted);
            wrong.then(|| format!("{counted} spans counted, {possible:?} possible"))
        });
    }
    seen
}

fn get(address: &str, path: &str) -> Result<http_client::Response, String> {
    let headers = [("accept", "application/protobuf, application/json")];
    Client::connect(address)
        .and_then(|mut client| client.request("GET", path, &headers, &[]))
        .map_err(|error| error.to_string())
}

fn failed(answer: &http_client::Response) -> String {
    format!("{} {}", answer.status, answer.text())
}

/// The ids of a trace's spans, sorted.
pub(super) fn ask(address: &str, id: &str) -> Result<Vec<Vec<u8>>, String> {
    let answer = get(address, &format!("/api/v2/traces/{id}"))?;
    match answer.status {
        200 => {
            let response = TraceByIdResponse::decode(answer.body.as_slice()).unwrap();
            let mut spans: Vec<_> = response
                .trace
                .into_iter()
                .flat_map(|trace| trace.resource_spans)
                .flat_map(|resource| resource.scope_spans)
                .flat_map(|scope| scope.spans)
                .map(|span| span.span_id)
                .collect();
            spans.sort();
            Ok(spans)
        }
        404 => Ok(Vec::new()),
        _ => Err(failed(&answer)),
    }
}

/// What is wrong with an answer, if anything.
pub(super) fn fault_of(id: &str, expected: usize, mut spans: Vec<Vec<u8>>) -> Option<String> {
    let found = spans.len();
    spans.dedup();
    if spans.len() != found {
        return Some(format!("trace {id} holds a span twice"));
    }
    (found < expected).then(|| format!("trace {id}: {found} of {expected} acknowledged spans"))
}

/// From an hour ago until now, as parameters.
fn last_hour() -> String {
    let now = unix_seconds();
    format!("start={}&end={}", now - 3600, now + 60)
}

/// The ids of the traces of the last hour that a search finds.
pub(super) fn search(address: &str, query: &str, limit: usize) -> Result<Vec<String>, String> {
    let query = encode(query);
    let path = format!("/api/search?q={query}&limit={limit}&{}", last_hour());
    let answer = http_client::get(address, &path).map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return Err(failed(&answer));
    }
    let traces = answer.json()["traces"].as_array().cloned();
    let id = |trace: &serde_json::Value| format!("{:0>32}", trace["traceID"].as_str().unwrap());
    Ok(traces.unwrap_or_default().iter().map(id).collect())
}

/// Spans of the last hour, as a query over time counts them.
pub(super) fn count(address: &str) -> Result<f64, String> {
    let query = encode("{ } | count_over_time()");
    let path = format!("/api/metrics/query?q={query}&{}", last_hour());
    let answer = http_client::get(address, &path).map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return Err(failed(&answer));
    }
    // Without any span there is no series.
    Ok(answer.json()["series"][0]["value"].as_f64().unwrap_or(0.0))
}
