//! Every target as a process of its own, real Kafka, and one fault after another under load: what
//! was acknowledged is found whole, and counted once.

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
    cluster::{Cluster, Shape},
    http_client::{self, Client, encode},
    proxy::Proxy,
    traces::{TraceMaker, encode_request},
};

use crate::{
    s3::S3,
    support::{binary, eventually, rounds, search, unix_seconds},
};

/// Pause of a writer after each request.
const PACE: Duration = Duration::from_millis(20);

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
        thread::sleep(PACE);
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
fn read(address: &str, written: &Written, fault: &AtomicUsize, stop: &AtomicBool) -> Seen {
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
                let now = FAULTS.get(fault.load(Ordering::Relaxed));
                let wrong = fault_of(&id, expected, spans);
                seen.wrong
                    .extend(wrong.map(|wrong| format!("{now:?}: {wrong}")));
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
    /// SIGSTOP for a while.
    Pause(&'static str),
    /// `kill -9` of a broker, then start it again.
    Broker(u16),
    /// The object store does not answer for a while.
    Store,
    /// `kill -9` of all at once.
    Everything,
}

/// How long a fault lasts.
fn duration() -> Duration {
    Duration::from_secs(rounds(3, 30) as u64)
}

fn strike(cluster: &mut Cluster, store: &Proxy, fault: Fault) {
    match fault {
        Fault::Kill(name) => {
            cluster.node_mut(name).kill().unwrap();
            thread::sleep(duration() / 3);
            cluster.node_mut(name).spawn().unwrap();
        }
        Fault::Pause(name) => {
            cluster.node(name).signal("STOP").unwrap();
            thread::sleep(duration());
            cluster.node(name).signal("CONT").unwrap();
        }
        Fault::Broker(number) => {
            cluster.kafka.kill_broker(number).unwrap();
            thread::sleep(duration());
            cluster.kafka.start_broker(number).unwrap();
        }
        Fault::Store => {
            store.cut();
            thread::sleep(duration());
            store.mend();
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

/// The first [`SHORT`] of them, or all with `TEMPO_LONG_TESTS`.
const FAULTS: &[Fault] = &[
    Fault::Kill("live-store-zone-a-0"),
    Fault::Kill("block-builder-1"),
    Fault::Kill("querier-0"),
    Fault::Kill("query-frontend"),
    Fault::Kill("backend-scheduler"),
    Fault::Kill("backend-worker-0"),
    Fault::Kill("distributor-0"),
    Fault::Broker(2),
    Fault::Store,
    Fault::Pause("live-store-zone-b-1"),
    Fault::Pause("block-builder-0"),
    Fault::Everything,
];

const SHORT: usize = 9;

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

#[test]
#[ignore = "takes minutes and most of a machine; `make test-system` runs it"]
fn whatever_dies_no_acknowledged_span_is_lost_or_doubled() {
    let s3 = S3::start();
    let store = Proxy::to(&s3.address).unwrap();
    let shape = Shape {
        brokers: 3,
        storage_yaml: Some(S3::yaml(&store.address)),
        is_hasty: true,
        ..Shape::default()
    };
    let mut cluster = Cluster::start(&binary(), &shape, None).unwrap();
    let (distributor, frontend) = (
        cluster.node("distributor-0").otlp_http.clone(),
        cluster.node("query-frontend").http.clone(),
    );
    let (written, stop) = (Written::default(), AtomicBool::new(false));
    let now = AtomicUsize::new(0);
    let seen = thread::scope(|scope| {
        for seed in 0..3 {
            let (written, stop, address) = (&written, &stop, &distributor);
            scope.spawn(move || write(address, 1000 + seed, written, stop));
        }
        let reader = scope.spawn(|| read(&frontend, &written, &now, &stop));
        let faults = &FAULTS[..rounds(SHORT, FAULTS.len())];
        for (index, fault) in faults.iter().enumerate() {
            now.store(index, Ordering::Relaxed);
            strike(&mut cluster, &store, *fault);
            thread::sleep(Duration::from_secs(2));
        }
        stop.store(true, Ordering::Relaxed);
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
    for (id, (expected, _)) in &acknowledged {
        let mut last = None;
        let begun = Instant::now();
        let spans = loop {
            last = ask(&frontend, id).or(last);
            match &last {
                Some(spans) if spans.len() >= *expected => break spans.clone(),
                _ => thread::sleep(PACE),
            }
            if begun.elapsed() > Duration::from_secs(120) {
                for name in cluster.names() {
                    println!("{name}:\n{}\n", cluster.node(&name).log_tail());
                }
                panic!(
                    "trace {id}: {:?} of {expected} spans",
                    last.map(|spans| spans.len())
                );
            }
        };
        assert_eq!(fault_of(id, *expected, spans), None);
    }
    eventually("every trace is found by search", || {
        let found = search(cluster.node("query-frontend"), "{ }");
        acknowledged
            .keys()
            .all(|id| found.contains(id))
            .then_some(())
    });
    let possible = spans as f64..=(spans + doubtful) as f64;
    let count = eventually("every span is counted", || {
        counted(&cluster).filter(|count| *count >= spans as f64)
    });
    assert!(possible.contains(&count), "{count} of {possible:?}");
    // The same once live-stores have let go of it, and while blocks are compacted.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(40) {
        thread::sleep(Duration::from_secs(1));
        assert_eq!(counted(&cluster), Some(count), "the count has changed");
    }
    assert!(s3.blocks() > 0);
    cluster.stop().unwrap();
}
