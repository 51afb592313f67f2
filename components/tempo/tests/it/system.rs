//! Every target as a process of its own, real Kafka, and one fault after another under load: what
//! was acknowledged is found whole, and counted once.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    cluster::{Cluster, Shape},
    http_client::{self, Client, encode},
    object_server::ObjectServer,
    proxy::Proxy,
    traces::{TraceMaker, encode_request},
};

use crate::support::{binary, unix_seconds};

/// Pause of a writer after each request.
const WRITING_PACE: Duration = Duration::from_millis(200);

/// Pause of a reader after each question.
const PACE: Duration = Duration::from_millis(50);

/// Writers, and readers where everything is asked for.
const WORKERS: usize = 3;

/// How long anything may take in the end that must come true. Says nothing of how long it takes:
/// the machine may have much else to do.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long after its acknowledgement a span may be unknown to live-stores that are busy with a
/// fault: the lag at which one of them is ready, and the time to see who has died.
const GRACE: Duration = Duration::from_secs(20);

/// What the writers know.
#[derive(Default)]
struct Written {
    /// Acknowledged: the trace's id to its spans and the moment.
    acknowledged: Mutex<BTreeMap<String, (usize, Instant)>>,
    /// Spans of requests without an acknowledgement, which may be kept all the same.
    doubtful: AtomicUsize,
}

/// Sends one trace after another, to whoever answers, until `stop`.
fn write(address: &str, seed: u64, written: &Written, stop: &AtomicBool) {
    let mut maker = TraceMaker::new(seed);
    let mut client = None;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(WRITING_PACE);
        let trace = maker.next_trace(unix_seconds() * 1_000_000_000);
        if client.is_none() {
            client = Client::connect(address).ok();
        }
        let Some(connected) = &mut client else {
            continue;
        };
        let headers = [("content-type", "application/x-protobuf")];
        let body = encode_request(std::slice::from_ref(&trace));
        match connected.request("POST", "/v1/traces", &headers, &body) {
            Ok(answer) if answer.status == 200 => {
                let id = trace.id.iter().map(|byte| format!("{byte:02x}")).collect();
                let known = (trace.spans, Instant::now());
                written.acknowledged.lock().unwrap().insert(id, known);
            }
            Ok(answer) => {
                assert!(
                    [429, 500, 502, 503, 504].contains(&answer.status),
                    "a fault is something to try again: {} {}",
                    answer.status,
                    answer.text()
                );
                written.doubtful.fetch_add(trace.spans, Ordering::Relaxed);
            }
            Err(_) => {
                written.doubtful.fetch_add(trace.spans, Ordering::Relaxed);
                client = None;
            }
        }
    }
}

/// What a reader has seen.
#[derive(Debug, Default)]
struct Seen {
    answers: usize,
    failures: usize,
    /// Answers that were given as if they were whole, and were not.
    wrong: Vec<String>,
}

/// The spans of a trace; nothing when the question fails.
fn ask(address: &str, id: &str) -> Option<Vec<Vec<u8>>> {
    let answer = Client::connect(address)
        .ok()?
        .request(
            "GET",
            &format!("/api/v2/traces/{id}"),
            &[("accept", "application/protobuf")],
            &[],
        )
        .ok()?;
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
            Some(spans)
        }
        404 => Some(Vec::new()),
        _ => None,
    }
}

/// What is wrong with an answer, if anything.
fn fault_of(id: &str, expected: usize, mut spans: Vec<Vec<u8>>) -> Option<String> {
    let found = spans.len();
    spans.dedup();
    if spans.len() != found {
        return Some(format!("trace {id} holds a span twice"));
    }
    (found < expected).then(|| format!("trace {id}: {found} of {expected} acknowledged spans"))
}

/// Asks for one trace after another until `stop`.
fn read(address: &str, written: &Written, fault: &Mutex<String>, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut after = String::new();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(PACE);
        let next = {
            let acknowledged = written.acknowledged.lock().unwrap();
            let old = |(_, (_, at)): &(&String, &(usize, Instant))| at.elapsed() > GRACE;
            acknowledged
                .range(after.clone()..)
                .skip(1)
                .find(old)
                .or_else(|| acknowledged.iter().find(old))
                .map(|(id, (spans, _))| (id.clone(), *spans))
        };
        let Some((id, expected)) = next else {
            continue;
        };
        match ask(address, &id) {
            None => seen.failures += 1,
            Some(spans) => {
                seen.answers += 1;
                let now = fault.lock().unwrap();
                let wrong = fault_of(&id, expected, spans);
                seen.wrong
                    .extend(wrong.map(|wrong| format!("{now}, {}: {wrong}", unix_seconds())));
            }
        }
        after = id;
    }
    seen
}

/// A fault, and its end.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// `kill -9`, then start again.
    Kill(&'static str),
    /// `kill -9`, and nobody there for longer than live-stores keep blocks that are built.
    Absence(&'static str),
    /// SIGSTOP for a while.
    Pause(&'static str),
    /// `kill -9` of a broker, then start it again.
    Broker(u16),
    /// The network from one to another is cut for a while.
    Cut(&'static str, &'static str),
    /// The object store does not answer anybody for a while.
    Store,
    /// `kill -9` of all at once.
    Everything,
}

/// Longer than `complete_block_timeout` and `query_backend_after` of a hasty installation.
const ABSENCE: Duration = Duration::from_secs(50);

/// What happens, and to what.
struct Scenario {
    shape: Shape,
    faults: &'static [Fault],
    /// How long each fault lasts.
    duration: Duration,
}

fn strike(cluster: &mut Cluster, fault: Fault, duration: Duration) {
    match fault {
        Fault::Kill(name) => {
            cluster.node_mut(name).kill().unwrap();
            thread::sleep(duration / 3);
            cluster.node_mut(name).spawn().unwrap();
        }
        Fault::Absence(name) => {
            cluster.node_mut(name).kill().unwrap();
            thread::sleep(ABSENCE);
            cluster.node_mut(name).spawn().unwrap();
        }
        Fault::Pause(name) => {
            cluster.node(name).signal("STOP").unwrap();
            thread::sleep(duration);
            cluster.node(name).signal("CONT").unwrap();
        }
        Fault::Broker(number) => {
            cluster.kafka.kill_broker(number).unwrap();
            thread::sleep(duration);
            cluster.kafka.start_broker(number).unwrap();
        }
        Fault::Cut(from, to) => {
            cluster.link(from, to).cut();
            thread::sleep(duration);
            cluster.link(from, to).mend();
        }
        Fault::Store => {
            cluster.links_to("store").for_each(Proxy::cut);
            thread::sleep(duration);
            cluster.links_to("store").for_each(Proxy::mend);
        }
        Fault::Everything => {
            for name in cluster.names() {
                cluster.node_mut(&name).kill().unwrap();
            }
            for name in cluster.names() {
                cluster.node_mut(&name).spawn().unwrap();
            }
        }
    }
    cluster
        .until_ready()
        .unwrap_or_else(|error| panic!("after {fault:?}: {error}"));
}

/// Spans of the last hour, as a query over time counts them.
fn counted(cluster: &Cluster) -> Option<f64> {
    let now = unix_seconds();
    let path = format!(
        "/api/metrics/query?q={}&start={}&end={}",
        encode("{ } | count_over_time()"),
        now - 3600,
        now + 60
    );
    let answer = http_client::get(&cluster.node("query-frontend").http, &path).ok()?;
    if answer.status != 200 {
        return None;
    }
    answer.json()["series"][0]["value"].as_f64()
}

/// The traces that a search of the last hour finds; nothing when the question fails.
fn searched(cluster: &Cluster) -> Option<BTreeSet<String>> {
    let now = unix_seconds();
    let path = format!(
        "/api/search?q={}&limit=100000&start={}&end={}",
        encode("{ }"),
        now - 3600,
        now + 60
    );
    let answer = http_client::get(&cluster.node("query-frontend").http, &path).ok()?;
    if answer.status != 200 {
        return None;
    }
    let traces = answer.json()["traces"].as_array().cloned();
    let id = |trace: &serde_json::Value| format!("{:0>32}", trace["traceID"].as_str().unwrap());
    Some(traces.unwrap_or_default().iter().map(id).collect())
}

/// The ends of all logs.
fn logs(cluster: &Cluster) -> String {
    let log = |name: &String| format!("{name}:\n{}\n", cluster.node(name).log_tail());
    cluster.names().iter().map(log).collect()
}

/// Asks until `question` has an answer.
fn in_the_end<T>(what: &str, cluster: &Cluster, mut question: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        if begun.elapsed() > PATIENCE {
            panic!("never: {what}\n{}", logs(cluster));
        }
        thread::sleep(PACE);
    }
}

/// Every trace is found by its id, whole.
fn assert_found_by_id(cluster: &Cluster, traces: &[(&String, usize)]) {
    let frontend = &cluster.node("query-frontend").http;
    thread::scope(|scope| {
        for some in traces.chunks(traces.len().div_ceil(WORKERS).max(1)) {
            scope.spawn(move || {
                for &(id, expected) in some {
                    let mut last = None;
                    let whole = || {
                        last = ask(frontend, id).or(last.take());
                        last.clone().filter(|spans| spans.len() >= expected)
                    };
                    let what = format!("{expected} spans of trace {id}");
                    let spans = in_the_end(&what, cluster, whole);
                    assert_eq!(fault_of(id, expected, spans), None);
                }
            });
        }
    });
}

/// Plays a scenario, and checks what is found while it lasts and afterwards.
fn play(scenario: &Scenario) {
    let bucket = tempfile::tempdir().unwrap();
    let store = ObjectServer::start(bucket.path()).unwrap();
    let shape = Shape {
        object_store: Some(store.address.clone()),
        is_proxied: true,
        is_hasty: true,
        ..scenario.shape.clone()
    };
    let mut cluster = Cluster::start(&binary(), &shape, None).unwrap();
    let (distributor, frontend) = (
        cluster.node("distributor-0").otlp_http.clone(),
        cluster.node("query-frontend").http.clone(),
    );
    let (written, stop) = (Written::default(), AtomicBool::new(false));
    let now = Mutex::new("the beginning".to_owned());
    let seen = thread::scope(|scope| {
        for seed in 0..WORKERS as u64 {
            let (written, stop, address) = (&written, &stop, &distributor);
            scope.spawn(move || write(address, 1000 + seed, written, stop));
        }
        let reader = scope.spawn(|| read(&frontend, &written, &now, &stop));
        let stop_at_end = StopOnDrop(&stop);
        for fault in scenario.faults {
            *now.lock().unwrap() = format!("{fault:?}");
            strike(&mut cluster, *fault, scenario.duration);
            thread::sleep(Duration::from_secs(2));
        }
        drop(stop_at_end);
        reader.join().unwrap()
    });
    let acknowledged = written.acknowledged.into_inner().unwrap();
    let spans: usize = acknowledged.values().map(|(spans, _)| spans).sum();
    let doubtful = written.doubtful.into_inner();
    println!(
        "{} traces, {spans} spans acknowledged, {doubtful} not; {} questions answered, {} failed",
        acknowledged.len(),
        seen.answers,
        seen.failures
    );
    assert!(
        acknowledged.len() > 100,
        "only {} traces",
        acknowledged.len()
    );
    assert!(seen.wrong.is_empty(), "meanwhile: {:?}", seen.wrong);

    // By id, whole; by search, all; and counted once each.
    let traces: Vec<_> = acknowledged
        .iter()
        .map(|(id, (spans, _))| (id, *spans))
        .collect();
    assert_found_by_id(&cluster, &traces);
    in_the_end("every trace is found by search", &cluster, || {
        let found = searched(&cluster)?;
        acknowledged
            .keys()
            .all(|id| found.contains(id))
            .then_some(())
    });
    let possible = spans as f64..=(spans + doubtful) as f64;
    let count = in_the_end("every span is counted", &cluster, || {
        counted(&cluster).filter(|count| *count >= spans as f64)
    });
    assert!(possible.contains(&count), "{count} of {possible:?}");
    // The same once live-stores have let go of it, and while blocks are compacted.
    let begun = Instant::now();
    while begun.elapsed() < ABSENCE {
        thread::sleep(Duration::from_secs(1));
        let now = in_the_end("an answer", &cluster, || counted(&cluster));
        assert_eq!(now, count, "the count has changed");
    }
    cluster.stop().unwrap();
}

/// Writers and readers end also when a check fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn in_a_small_cluster_no_acknowledged_span_is_lost_or_doubled() {
    play(&Scenario {
        shape: Shape {
            partitions: 2,
            ..Shape::default()
        },
        faults: &[
            Fault::Kill("live-store-zone-a-0"),
            Fault::Cut("querier", "live-store-zone-b-1"),
            Fault::Kill("block-builder-1"),
            Fault::Everything,
        ],
        duration: Duration::from_secs(3),
    });
}

#[test]
#[ignore = "takes a quarter of an hour and most of a machine; `make test-system` runs it"]
fn whatever_dies_no_acknowledged_span_is_lost_or_doubled() {
    play(&Scenario {
        shape: Shape {
            brokers: 3,
            ..Shape::default()
        },
        faults: &[
            Fault::Kill("live-store-zone-a-0"),
            Fault::Kill("block-builder-1"),
            Fault::Kill("querier-0"),
            Fault::Kill("query-frontend"),
            Fault::Kill("backend-scheduler"),
            Fault::Kill("backend-worker-0"),
            Fault::Kill("distributor-0"),
            Fault::Broker(2),
            Fault::Cut("querier", "live-store-zone-a-1"),
            Fault::Cut("querier-0", "query-frontend"),
            Fault::Cut("backend-worker-0", "backend-scheduler"),
            Fault::Cut("backend-worker-0", "store"),
            Fault::Cut("block-builder-2", "store"),
            Fault::Store,
            Fault::Pause("live-store-zone-b-1"),
            Fault::Pause("block-builder-0"),
            Fault::Absence("block-builder-2"),
            Fault::Everything,
        ],
        duration: Duration::from_secs(20),
    });
}
