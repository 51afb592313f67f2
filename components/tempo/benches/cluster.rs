//! What the write path of a distributed installation costs per span: real processes of the binary,
//! a real Kafka broker, a local bucket. `make bench-cluster`.
//!
//! First a distributor writes to Kafka what several connections send as fast as they are answered;
//! then a block-builder, started on the full log, works it off. CPU is that of the one process.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "../tests/it/cluster.rs"]
mod cluster;

use std::{
    path::PathBuf,
    sync::atomic::AtomicU64,
    thread,
    time::{Duration, Instant},
};

use tempo_testkit::{
    kafka::{Kafka, KafkaOptions},
    load::{Load, Sent, send, templates},
    process::{Options, Tempo, bytes_below},
};

use crate::cluster::{Owners, PATIENCE, caught_up, process, topic};

const PARTITIONS: i32 = 2;
const CONNECTIONS: u64 = 16;
const SPANS_PER_REQUEST: usize = 222;

fn seconds() -> u64 {
    std::env::var("BENCH_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(20)
}

fn line(what: &str, value: f64) {
    println!("{what:<44} {value:>14.1}");
}

fn main() {
    // `cargo test` builds benches and runs them with this argument missing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_tempo"));
    let kafka = Kafka::start(&KafkaOptions::default()).unwrap();
    let owners = Owners::of(PARTITIONS);
    line(
        "partitions",
        owners.first.partitions().active().count() as f64,
    );
    let topic = topic(&owners, &kafka, PARTITIONS);
    // The benchmark measures the path, not the limits.
    let unlimited = "overrides:\n  defaults:\n    ingestion:\n      rate_limit_bytes: 1000000000\n      burst_size_bytes: 1000000000\n";
    let options = Options {
        extra_yaml: unlimited.to_owned(),
        ..Options::default()
    };
    let mut distributor = process(&binary, "distributor", &owners, &topic, &options);
    distributor.start().unwrap();
    let templates = templates(SPANS_PER_REQUEST);
    let serial = AtomicU64::new(1);
    let connections = |until: Instant| {
        thread::scope(|scope| {
            let senders: Vec<_> = (0..CONNECTIONS)
                .map(|sender| {
                    let load = Load {
                        address: &distributor.otlp_http,
                        templates: &templates,
                        serial: &serial,
                        sender,
                        spans_per_second: 0.0,
                        until,
                    };
                    scope.spawn(move || send(&load).unwrap())
                })
                .collect();
            let mut total = Sent::default();
            for sender in senders {
                total.add(sender.join().unwrap());
            }
            total
        })
    };
    // Until it knows the partitions, it refuses.
    let begun = Instant::now();
    let mut warm_up = Sent::default();
    while warm_up.spans == 0 {
        assert!(begun.elapsed() < PATIENCE, "the distributor takes nothing");
        warm_up.add(connections(Instant::now() + Duration::from_millis(500)));
    }
    let cpu_before = distributor.cpu_seconds().unwrap();
    let begun = Instant::now();
    let mut sent = connections(begun + Duration::from_secs(seconds()));
    let elapsed = begun.elapsed().as_secs_f64();
    let cpu = distributor.cpu_seconds().unwrap() - cpu_before;
    sent.ack_micros.sort_unstable();
    let percentile = |share: f64| {
        let at = (sent.ack_micros.len() as f64 * share) as usize;
        f64::from(sent.ack_micros[at.min(sent.ack_micros.len() - 1)]) / 1000.0
    };
    line("distributor: spans", sent.spans as f64);
    line("distributor: refused spans", sent.refused as f64);
    line("distributor: spans per second", sent.spans as f64 / elapsed);
    line("distributor: spans per CPU-second", sent.spans as f64 / cpu);
    line(
        "distributor: wire bytes per span",
        sent.bytes as f64 / sent.spans as f64,
    );
    line("distributor: acknowledged, p50 ms", percentile(0.5));
    line("distributor: acknowledged, p99 ms", percentile(0.99));
    memory("distributor", &distributor);
    distributor.signal("TERM").unwrap();
    distributor.wait().unwrap();

    let folder = tempfile::tempdir().unwrap();
    let bucket = folder.path().join("bucket");
    let options = Options {
        storage_yaml: Some(format!(
            "    backend: local\n    local:\n      path: {}\n",
            bucket.display()
        )),
        extra_yaml: format!(
            "block_builder:\n  instance_id: block-builder-0\n  partitions_per_instance: {PARTITIONS}\n  consume_cycle_duration: 5m\n  wal:\n    path: {}\n",
            folder.path().join("spill").display()
        ),
        ..Options::default()
    };
    let mut builder = process(&binary, "block-builder", &owners, &topic, &options);
    builder.start().unwrap();
    let begun = Instant::now();
    caught_up(&topic, PARTITIONS);
    let elapsed = begun.elapsed().as_secs_f64();
    let cpu = builder.cpu_seconds().unwrap();
    let spans = (sent.spans + warm_up.spans) as f64;
    line("block-builder: spans per second", spans / elapsed);
    line("block-builder: spans per CPU-second", spans / cpu);
    line(
        "block-builder: stored bytes per span",
        bytes_below(&bucket) as f64 / spans,
    );
    memory("block-builder", &builder);
    builder.signal("TERM").unwrap();
    builder.wait().unwrap();
}

fn memory(name: &str, tempo: &Tempo) {
    let peak = tempo.memory_bytes("VmHWM").unwrap_or(0);
    line(
        &format!("{name}: peak resident MiB"),
        peak as f64 / f64::from(1 << 20),
    );
}
