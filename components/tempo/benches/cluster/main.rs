//! What a distributed installation costs: real processes of the binary, a real Kafka broker, a
//! bucket. `make bench-cluster`; with `BENCH_CLUSTER_ARGS="write growth"` only these parts:
//!
//! - `write`: a distributor writes to Kafka what several connections send as fast as they are
//!   answered; then a live-store, a block-builder and a backend-worker, each started on what there
//!   is, work it off.
//! - `whole`: every target at once, at a steady rate: memory, requests, time until searchable.
//! - `growth`: the same work with more partitions, tenants and blocks in the list.
//!
//! CPU is that of the one process, so that what else runs on the machine counts little.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "../../tests/it/cluster.rs"]
mod cluster;
mod growth;
mod requests;
mod whole;
mod write;

use std::{
    path::PathBuf,
    sync::atomic::AtomicU64,
    thread,
    time::{Duration, Instant},
};

use tempo_testkit::{
    load::{Load, Sent, Template, send},
    process::Tempo,
};

/// As by default: what processes do without spans counts, too.
const GOSSIP_INTERVAL: Duration = Duration::from_secs(1);

const SPANS_PER_REQUEST: usize = 222;

fn main() {
    // `cargo test` builds benches and runs them with this argument missing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    for (name, run) in [
        ("write", write::run as fn()),
        ("whole", whole::run),
        ("growth", growth::run),
    ] {
        if chosen.is_empty() || chosen.iter().any(|word| word == name) {
            run();
        }
    }
}

fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tempo"))
}

/// How long to send.
fn seconds() -> u64 {
    std::env::var("BENCH_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(20)
}

fn line(what: &str, value: f64) {
    println!("{what:<52} {value:>14.1}");
}

fn memory(name: &str, tempo: &Tempo) {
    let peak = tempo.memory_bytes("VmHWM").unwrap_or(0);
    line(
        &format!("{name}: peak resident MiB"),
        peak as f64 / f64::from(1 << 20),
    );
}

/// Sends over several connections at once.
struct Senders<'a> {
    templates: &'a [Template],
    serial: &'a AtomicU64,
    connections: u64,
    /// Of all connections together; 0 sends as fast as answers come.
    spans_per_second: f64,
    /// Each request is of the next of these; 0 names none.
    tenants: u64,
}

impl Senders<'_> {
    fn send(&self, distributor: &Tempo, duration: Duration) -> Sent {
        let until = Instant::now() + duration;
        thread::scope(|scope| {
            let senders: Vec<_> = (0..self.connections)
                .map(|sender| {
                    let load = Load {
                        address: &distributor.otlp_http,
                        templates: self.templates,
                        serial: self.serial,
                        sender,
                        spans_per_second: self.spans_per_second / self.connections as f64,
                        tenants: self.tenants,
                        until,
                    };
                    scope.spawn(move || send(&load).unwrap())
                })
                .collect();
            let mut total = Sent::default();
            for sender in senders {
                total.add(sender.join().unwrap());
            }
            total.ack_micros.sort_unstable();
            total
        })
    }

    /// Until the distributor knows the partitions, it refuses.
    fn until_taken(&self, distributor: &Tempo) -> Sent {
        let begun = Instant::now();
        let mut taken = Sent::default();
        while taken.spans == 0 {
            assert!(
                begun.elapsed() < cluster::PATIENCE,
                "the distributor takes nothing"
            );
            taken.add(self.send(distributor, Duration::from_millis(500)));
        }
        taken
    }
}

/// Milliseconds, of sorted microseconds.
fn percentile(sorted: &[u32], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .map_or(0.0, |&micros| f64::from(micros) / 1000.0)
}
