//! Answers recorded from Grafana Tempo: how to ask for each, and whether an answer is the same.
//!
//! The data and its rules are described in `testdata/golden/README.md`.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test whose data is not as described has to fail"
)]

mod compare;
mod series;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use prost::Message as _;
use serde_json::Value;
use tempo_model::TraceId;
use tempo_proto::{
    opentelemetry::proto::{
        collector::trace::v1::ExportTraceServiceRequest,
        trace::v1::{ResourceSpans, ScopeSpans},
    },
    tempopb::Trace,
};

pub use self::compare::trace;
use crate::http_client::encode;

const SECONDS_PER_MINUTE: i64 = 60;

/// The folder of recorded data: `TEMPO_GOLDEN_DIR`, or `testdata/golden` of the repository.
///
/// # Panics
/// When it is not there.
pub fn folder() -> PathBuf {
    let folder = std::env::var_os("TEMPO_GOLDEN_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden"),
        PathBuf::from,
    );
    assert!(
        folder.join("cases.json").is_file(),
        "no recorded data in {}: set TEMPO_GOLDEN_DIR to its folder",
        folder.display()
    );
    folder
}

/// A recorded request with its answer.
#[derive(Debug, Clone)]
pub struct Case {
    question: Value,
    expect: Value,
}

impl Case {
    /// `search`, `search_error`, `values`, `tags`, `trace`, `range`, `range_error` or `instant`.
    pub fn kind(&self) -> &str {
        self.text("kind")
    }

    /// What is asked, as recorded.
    pub fn question(&self) -> &Value {
        &self.question
    }

    /// Id of the trace that a case of kind `trace` asks for.
    ///
    /// # Panics
    /// For other kinds.
    pub fn trace_id(&self) -> TraceId {
        let id = self.expect["spans"][0]["span"]["traceId"].as_str();
        let id = BASE64_STANDARD.decode(id.expect("a recorded trace"));
        TraceId::from_padded(&id.expect("ids are recorded in base64"))
    }

    fn text(&self, key: &str) -> &str {
        self.question[key].as_str().unwrap_or_default()
    }
}

/// What was recorded.
#[derive(Debug, Clone)]
pub struct Golden {
    /// Where it is.
    pub folder: PathBuf,
    /// When the input begins, unix seconds.
    pub t0: i64,
    /// Requests and answers.
    pub cases: Vec<Case>,
    /// What was sent: bodies of OTLP requests, in order.
    pub requests: Vec<Vec<u8>>,
}

impl Golden {
    /// Reads all of it.
    ///
    /// # Panics
    /// When it is not there or not as described.
    pub fn load() -> Self {
        let folder = folder();
        let read = |name: &str| {
            fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let mut recorded: Value =
            serde_json::from_slice(&read("cases.json")).expect("cases.json is JSON");
        let Value::Array(cases) = recorded["cases"].take() else {
            panic!("cases.json holds no list of cases");
        };
        let cases = cases.into_iter().map(|mut case| Case {
            question: case["case"].take(),
            expect: case["expect"].take(),
        });
        Self {
            t0: recorded["t0"].as_i64().expect("cases.json has a t0"),
            cases: cases.collect(),
            requests: (0..8).map(|n| read(&format!("input/{n:02}.pb"))).collect(),
            folder,
        }
    }

    /// The same, moved by whole minutes so that it begins at or less than a minute before
    /// `begin_unix_seconds`.
    #[must_use]
    pub fn moved_to(mut self, begin_unix_seconds: i64) -> Self {
        let minutes = (begin_unix_seconds - self.t0).div_euclid(SECONDS_PER_MINUTE);
        let seconds = minutes * SECONDS_PER_MINUTE;
        self.t0 += seconds;
        for case in &mut self.cases {
            move_answer(&mut case.expect, seconds);
        }
        for body in &mut self.requests {
            let mut request = decode(body);
            move_request(&mut request, seconds);
            *body = request.encode_to_vec();
        }
        self
    }

    /// The traces that were sent: of each, one serialized `tempopb.Trace` per request.
    pub fn traces(&self) -> BTreeMap<TraceId, Vec<Vec<u8>>> {
        let mut traces: BTreeMap<TraceId, Vec<Vec<u8>>> = BTreeMap::new();
        for body in &self.requests {
            let mut of_request: BTreeMap<TraceId, Trace> = BTreeMap::new();
            for batch in decode(body).resource_spans {
                for scope in &batch.scope_spans {
                    let mut of_scope: BTreeMap<TraceId, Vec<_>> = BTreeMap::new();
                    for span in &scope.spans {
                        let id = TraceId::from_padded(&span.trace_id);
                        of_scope.entry(id).or_default().push(span.clone());
                    }
                    for (id, spans) in of_scope {
                        let scope_spans = vec![ScopeSpans {
                            spans,
                            ..scope.clone()
                        }];
                        let trace = of_request.entry(id).or_default();
                        trace.resource_spans.push(ResourceSpans {
                            scope_spans,
                            ..batch.clone()
                        });
                    }
                }
            }
            for (id, trace) in of_request {
                traces.entry(id).or_default().push(trace.encode_to_vec());
            }
        }
        traces
    }

    /// The range that cases ask about, as parameters.
    pub fn range(&self) -> String {
        format!("start={}&end={}", self.t0 - 60, self.t0 + 180)
    }

    /// Path and parameters of a case's request.
    ///
    /// # Panics
    /// For a kind that is not known.
    pub fn path(&self, case: &Case) -> String {
        let (query, range) = (case.text("q"), self.range());
        match case.kind() {
            "search" | "search_error" => {
                let query = encode(&query.replace("SHORTID", &self.short_id()));
                format!("/api/search?q={query}&{range}&limit=1000&spss=100")
            }
            "tags" => {
                let (scope, query) = (case.text("scope"), encode(query));
                format!("/api/v2/search/tags?scope={scope}&q={query}&{range}")
            }
            "values" => {
                let (tag, query) = (encode(case.text("tag")), encode(query));
                format!("/api/v2/search/tag/{tag}/values?q={query}&{range}")
            }
            "trace" => format!("/api/v2/traces/{}", case.trace_id().to_short_hex()),
            "range" | "range_error" | "instant" => {
                let start = self.t0 / 10 * 10;
                let window = format!("q={}&start={start}&end={}", encode(query), start + 60);
                if case.kind() == "instant" {
                    format!("/api/metrics/query?{window}")
                } else {
                    format!("/api/metrics/query_range?{window}&step=10s")
                }
            }
            other => panic!("a kind of case that nobody has decided about: {other}"),
        }
    }

    /// Compares an answer with the recorded one.
    ///
    /// # Errors
    /// When they differ; says how.
    pub fn compare(&self, case: &Case, status: u16, body: &[u8]) -> Result<(), String> {
        let expect = &case.expect;
        let differs = |ours: &str, recorded: &str| {
            let question = &case.question;
            format!("{question}\n  ours:    {ours}\n  Tempo's: {recorded}")
        };
        if expect["status"] != status {
            let text = String::from_utf8_lossy(body);
            return Err(differs(
                &format!("{status} {text}"),
                &format!("{} {}", expect["status"], expect["error"]),
            ));
        }
        let (answer, recorded) = match case.kind() {
            "search" => (compare::searched(body), compare::recorded_search(expect)),
            "search_error" | "range_error" => {
                let error = String::from_utf8_lossy(body).into_owned();
                (Value::from(error), expect["error"].clone())
            }
            "tags" => {
                let answer = compare::tags(body);
                let is_filtered = case.question["q"].is_string();
                let recorded = compare::recorded_tags(expect, &answer, is_filtered);
                (answer, recorded)
            }
            "values" => (compare::values(body), compare::recorded_values(expect)),
            "trace" => (compare::trace(body), compare::recorded_trace(expect)),
            _ => {
                return series::compare(case.text("q"), body, expect, &self.requests)
                    .map_err(|(ours, recorded)| differs(&ours, &recorded));
            }
        };
        if answer == recorded {
            Ok(())
        } else {
            Err(differs(&answer.to_string(), &recorded.to_string()))
        }
    }

    /// The last half of the one trace id that begins with 16 zeros.
    fn short_id(&self) -> String {
        self.requests
            .iter()
            .flat_map(|body| decode(body).resource_spans)
            .flat_map(|batch| batch.scope_spans)
            .flat_map(|scope| scope.spans)
            .map(|span| TraceId::from_padded(&span.trace_id).to_string())
            .find_map(|id| id.strip_prefix("0000000000000000").map(str::to_owned))
            .expect("one trace has an id of 64 bits")
    }
}

fn decode(body: &[u8]) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(body).expect("recorded requests are OTLP")
}

/// A time that is not set stays so.
fn move_time(nanos: &mut u64, seconds: i64) {
    if *nanos != 0 {
        *nanos = nanos.wrapping_add_signed(seconds * 1_000_000_000);
    }
}

fn move_request(request: &mut ExportTraceServiceRequest, seconds: i64) {
    let spans = request
        .resource_spans
        .iter_mut()
        .flat_map(|batch| &mut batch.scope_spans)
        .flat_map(|scope| &mut scope.spans);
    for span in spans {
        move_time(&mut span.start_time_unix_nano, seconds);
        move_time(&mut span.end_time_unix_nano, seconds);
        for event in &mut span.events {
            move_time(&mut event.time_unix_nano, seconds);
        }
    }
}

/// Recorded times are texts: of nanoseconds, and in samples of milliseconds.
fn move_answer(value: &mut Value, seconds: i64) {
    let move_text = |text: &mut Value, per_second: i64| {
        let time = text.as_str().and_then(|text| text.parse::<i64>().ok());
        match time.expect("recorded times are texts of integers") {
            0 => {}
            time => *text = Value::from((time + seconds * per_second).to_string()),
        }
    };
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| move_answer(item, seconds)),
        Value::Object(fields) => {
            for (key, field) in fields {
                match key.as_str() {
                    "start" | "startTimeUnixNano" | "endTimeUnixNano" | "timeUnixNano" => {
                        move_text(field, 1_000_000_000);
                    }
                    "samples" => {
                        for sample in field.as_array_mut().into_iter().flatten() {
                            move_text(&mut sample[0], 1_000);
                        }
                    }
                    _ => move_answer(field, seconds),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_and_answers_move_together() {
        let recorded = Golden::load();
        let moved = recorded.clone().moved_to(recorded.t0 + 3_600 + 59);
        assert_eq!(moved.t0, recorded.t0 + 3_600);
        assert_eq!(
            recorded.clone().moved_to(recorded.t0 - 1).t0,
            recorded.t0 - 60
        );
        assert_eq!(moved.traces().len(), 192);
        let back = moved.clone().moved_to(recorded.t0);
        let of = |golden: &Golden| -> Vec<(Value, Value)> {
            let cases = golden.cases.iter();
            cases
                .map(|case| (case.question.clone(), case.expect.clone()))
                .collect()
        };
        assert_eq!(of(&back), of(&recorded));
        for ((body, moved), back) in recorded
            .requests
            .iter()
            .zip(&moved.requests)
            .zip(&back.requests)
        {
            assert_eq!(decode(body), decode(back));
            assert_ne!(decode(body), decode(moved));
        }
        // Whatever tells a time is told differently.
        let has_times =
            |case: &&Case| case.kind() == "trace" || !case.expect["traces"][0].is_null();
        for (recorded, moved) in recorded
            .cases
            .iter()
            .filter(has_times)
            .zip(moved.cases.iter().filter(has_times))
        {
            assert_ne!(recorded.expect, moved.expect, "{}", recorded.question);
        }
    }
}
