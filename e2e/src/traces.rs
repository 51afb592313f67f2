//! Traces of a real OpenTelemetry SDK, sent and asked for.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use tempo_testkit::http_client::{Client, Response, encode};

use crate::{Failure, Outcome, command, ensure};

/// Longest time for a sender of a few traces.
const SEND_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two questions for something that is not there yet.
const PAUSE: Duration = Duration::from_millis(250);

/// A trace that the backend has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Trace id, hexadecimal.
    pub id: String,
    /// Names of its spans, sorted.
    pub spans: Vec<String>,
    /// The service that sent it.
    pub service: String,
}

/// How a sender speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP.
    Http,
}

/// The OpenTelemetry SDK for Python.
#[derive(Debug, Clone)]
pub struct Sdk {
    pub(crate) python: PathBuf,
    pub(crate) script: PathBuf,
}

impl Sdk {
    /// The SDK that `python` can import, driven by `script` (`e2e/sdk/send.py`).
    pub fn new(python: PathBuf, script: PathBuf) -> Self {
        Self { python, script }
    }

    /// Sends `count` traces of `service` to `host:port`; returns those acknowledged, which are all.
    ///
    /// # Errors
    /// When one was refused.
    pub fn send(
        &self,
        protocol: Protocol,
        address: &str,
        tenant: Option<&str>,
        service: &str,
        count: usize,
    ) -> Outcome<Vec<Acknowledged>> {
        let protocol = match protocol {
            Protocol::Grpc => "grpc",
            Protocol::Http => "http",
        };
        let mut sender = Command::new(&self.python);
        sender
            .arg(&self.script)
            .args([protocol, address, service, &count.to_string()]);
        if let Some(tenant) = tenant {
            sender.env(
                "OTEL_EXPORTER_OTLP_HEADERS",
                format!("x-scope-orgid={tenant}"),
            );
        }
        let said = command::run(&mut sender, "", SEND_LIMIT)?;
        ensure(said.success, || {
            format!(
                "the SDK could not send to {address} over {protocol}: {}",
                said.stderr.trim()
            )
        })?;
        let traces = said
            .stdout
            .lines()
            .map(|line| {
                let told: Value = serde_json::from_str(line)?;
                Ok(Acknowledged {
                    id: told["trace"].as_str().unwrap_or_default().to_owned(),
                    spans: strings(&told["spans"]),
                    service: service.to_owned(),
                })
            })
            .collect::<Outcome<Vec<_>>>()?;
        ensure(traces.len() == count, || {
            format!("{} of {count} traces were acknowledged", traces.len())
        })?;
        Ok(traces)
    }
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// The query API at `host:port`, for one tenant.
#[derive(Debug)]
pub struct Query {
    address: String,
    tenant: Option<String>,
    /// A connection that is kept, as Grafana keeps its own; none where each question has one.
    kept: Option<RefCell<Option<Client>>>,
}

impl Query {
    /// Asks at `address`.
    pub fn new(address: &str, tenant: Option<&str>) -> Self {
        Self {
            address: address.to_owned(),
            tenant: tenant.map(str::to_owned),
            kept: None,
        }
    }

    /// The same over a connection that is kept as long as the server keeps it.
    #[must_use]
    pub fn keeping_its_connection(&self) -> Self {
        Self {
            address: self.address.clone(),
            tenant: self.tenant.clone(),
            kept: Some(RefCell::new(None)),
        }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn get(&self, path: &str) -> Outcome<Response> {
        let tenant = self.tenant.iter().map(|id| ("X-Scope-OrgID", id.as_str()));
        let headers: Vec<_> = tenant.collect();
        let ask = |client: &mut Client| client.request("GET", path, &headers, &[]);
        let failed = |error| Failure::from(error).during(&format!("{}{path}", self.address));
        let kept = self.kept.as_ref().and_then(RefCell::take);
        // A question may be asked again when the server has just closed the connection.
        let answered = kept.and_then(|mut client| Some((ask(&mut client).ok()?, client)));
        let (answer, client) = match answered {
            Some(answered) => answered,
            None => {
                let mut client = Client::connect(&self.address).map_err(failed)?;
                (ask(&mut client).map_err(failed)?, client)
            }
        };
        if let Some(kept) = &self.kept
            && answer.header("connection") != Some("close")
        {
            kept.replace(Some(client));
        }
        Ok(answer)
    }

    /// Waits until each trace is found by its id, whole.
    ///
    /// # Errors
    /// When one is not within `limit`.
    pub fn wait_by_id(&self, traces: &[Acknowledged], limit: Duration) -> Outcome {
        let deadline = Instant::now() + limit;
        for trace in traces {
            until(deadline, || {
                let found = self.spans(&trace.id)?;
                ensure(found == trace.spans, || {
                    format!(
                        "trace {}: spans {found:?}, sent were {:?}",
                        trace.id, trace.spans
                    )
                })
            })?;
        }
        Ok(())
    }

    /// Names of a trace's spans, sorted; none when it is not known.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn spans(&self, trace_id: &str) -> Outcome<Vec<String>> {
        let path = format!("/api/v2/traces/{trace_id}");
        let answer = self.get(&path)?;
        ensure(answer.status == 200, || {
            format!("{path}: status {}: {}", answer.status, answer.text())
        })?;
        let mut names = span_names(&answer.json());
        names.sort();
        Ok(names)
    }

    /// Trace ids that a TraceQL search of the last hour finds, at most 1000. Without times a search
    /// would ask for the most recent spans only.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn search(&self, query: &str) -> Outcome<BTreeSet<String>> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let path = format!(
            "/api/search?limit=1000&start={}&end={}&q={}",
            now - 3600,
            now + 60,
            encode(query)
        );
        let answer = self.get(&path)?;
        ensure(answer.status == 200, || {
            format!(
                "search {query}: status {}: {}",
                answer.status,
                answer.text()
            )
        })?;
        Ok(answer.json()["traces"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|trace| trace["traceID"].as_str())
            // Tempo leaves leading zeros away in searches.
            .map(|id| format!("{id:0>32}"))
            .collect())
    }

    /// Spans of the last hour that a TraceQL selector selects, as a query over time counts them.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn count(&self, selector: &str) -> Outcome<f64> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let query = format!("{selector} | count_over_time()");
        let path = format!(
            "/api/metrics/query?start={}&end={}&q={}",
            now - 3600,
            now + 60,
            encode(&query)
        );
        let answer = self.get(&path)?;
        ensure(answer.status == 200, || {
            format!("{query}: status {}: {}", answer.status, answer.text())
        })?;
        Ok(answer.json()["series"][0]["value"].as_f64().unwrap_or(0.0))
    }

    /// Waits until a search finds exactly these traces.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn wait_search(&self, query: &str, traces: &[Acknowledged], limit: Duration) -> Outcome {
        let wanted: BTreeSet<String> = traces.iter().map(|trace| trace.id.clone()).collect();
        until(Instant::now() + limit, || {
            let found = self.search(query)?;
            ensure(found == wanted, || {
                format!(
                    "search {query}: found {} traces, {} of the {} that were sent",
                    found.len(),
                    found.intersection(&wanted).count(),
                    wanted.len()
                )
            })
        })
    }
}

/// Tries until it succeeds. The query API has no way to be told when something is there.
///
/// # Errors
/// The last failure, at `deadline`.
pub fn until<T>(deadline: Instant, mut attempt: impl FnMut() -> Outcome<T>) -> Outcome<T> {
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(failure) if Instant::now() >= deadline => return Err(failure),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Names of all spans in an answer of `/api/v2/traces`.
fn span_names(answer: &Value) -> Vec<String> {
    let mut names = Vec::new();
    for resource in answer["trace"]["resourceSpans"]
        .as_array()
        .into_iter()
        .flatten()
    {
        for scope in resource["scopeSpans"].as_array().into_iter().flatten() {
            for span in scope["spans"].as_array().into_iter().flatten() {
                names.extend(span["name"].as_str().map(str::to_owned));
            }
        }
    }
    names
}
