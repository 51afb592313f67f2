//! Every target at once, at a steady rate.

use std::{
    sync::atomic::AtomicU64,
    thread,
    time::{Duration, Instant},
};

use tempo_model::to_hex;
use tempo_testkit::{
    cluster::{Cluster, Shape},
    http_client::{self, Client, encode},
    load::{templates, unix_nanos},
    object_server::ObjectServer,
    process::Tempo,
    traces::{TraceMaker, encode_request},
};

use crate::{SPANS_PER_REQUEST, Senders, binary, line, memory, percentile, seconds};

const SPANS_PER_SECOND: f64 = 5_000.0;
const CONNECTIONS: u64 = 4;

/// Longest wait for a trace.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(60);

/// From before a trace is sent until a search finds it.
fn end_to_end(distributor: &Tempo, frontend: &Tempo) -> Duration {
    let now = unix_nanos();
    // Searches leave out the last `query_end_cutoff`, 30 s: what is measured is not that.
    let trace = TraceMaker::new(now).next_trace(now - 35_000_000_000);
    let body = encode_request(std::slice::from_ref(&trace));
    let headers = [("content-type", "application/x-protobuf")];
    let begun = Instant::now();
    let mut client = Client::connect(&distributor.otlp_http).unwrap();
    let answer = client
        .request("POST", "/v1/traces", &headers, &body)
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let query = encode(&format!("{{ trace:id = \"{}\" }}", to_hex(&trace.id)));
    let seconds = now / 1_000_000_000;
    let path = format!(
        "/api/search?q={query}&start={}&end={}",
        seconds - 600,
        seconds + 60
    );
    let mut client = Client::connect(&frontend.http).unwrap();
    while begun.elapsed() < SEARCH_TIMEOUT {
        let answer = client.get(&path).unwrap();
        let found = answer.json()["traces"].as_array().map_or(0, Vec::len);
        if found > 0 {
            return begun.elapsed();
        }
        thread::sleep(Duration::from_millis(2));
    }
    panic!("a trace was not found by search within {SEARCH_TIMEOUT:?}");
}

pub(crate) fn run() {
    let bucket = tempfile::tempdir().unwrap();
    let store = ObjectServer::start(bucket.path()).unwrap();
    let shape = Shape {
        object_store: Some(store.address.clone()),
        is_unlimited: true,
        ..Shape::default()
    };
    let cluster = Cluster::start(&binary(), &shape, None).unwrap();
    let (distributor, frontend) = (
        cluster.node("distributor-0"),
        cluster.node("query-frontend"),
    );
    let senders = Senders {
        templates: &templates(SPANS_PER_REQUEST),
        serial: &AtomicU64::new(1),
        connections: CONNECTIONS,
        spans_per_second: SPANS_PER_SECOND,
        tenants: 0,
    };
    senders.until_taken(distributor);
    // Block-builders come round once a minute.
    let duration = Duration::from_secs(60 + 3 * seconds());
    let requests = store.counted().requests;
    let cpu = |cluster: &Cluster| -> Vec<f64> {
        let of = |name: &String| cluster.node(name).cpu_seconds().unwrap();
        cluster.names().iter().map(of).collect()
    };
    let before = cpu(&cluster);
    let (sent, mut found) = thread::scope(|scope| {
        let sending = scope.spawn(|| senders.send(distributor, duration));
        let mut found = Vec::new();
        while !sending.is_finished() {
            found.push(end_to_end(distributor, frontend).as_micros() as u32);
            thread::sleep(Duration::from_millis(200));
        }
        (sending.join().unwrap(), found)
    });
    let after = cpu(&cluster);
    let spans = sent.spans as f64;
    found.sort_unstable();
    line("whole: spans", spans);
    line("whole: spans per second", spans / duration.as_secs_f64());
    line("whole: refused spans", sent.refused as f64);
    line(
        "whole: acknowledged, p99 ms",
        percentile(&sent.ack_micros, 0.99),
    );
    line("whole: searches for a new trace", found.len() as f64);
    line(
        "whole: sent until found by search, p50 ms",
        percentile(&found, 0.5),
    );
    line(
        "whole: sent until found by search, p99 ms",
        percentile(&found, 0.99),
    );
    line(
        "whole: requests to the store per million spans",
        (store.counted().requests - requests) as f64 * 1e6 / spans,
    );
    for ((name, before), after) in cluster.names().iter().zip(before).zip(after) {
        line(
            &format!("{name}: CPU seconds per million spans"),
            (after - before) * 1e6 / spans,
        );
        memory(name, cluster.node(name));
    }
    let ready = http_client::get(&frontend.http, "/ready").unwrap();
    assert_eq!(ready.status, 200);
}
