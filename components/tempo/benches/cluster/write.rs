//! The write path, one process after another.

use std::{
    fs,
    path::Path,
    sync::atomic::AtomicU64,
    thread,
    time::{Duration, Instant},
};

use tempo_ingest::KafkaConfig;
use tempo_testkit::{
    kafka::{Kafka, KafkaOptions},
    load::{Template, templates},
    object_server::ObjectServer,
    process::{Options, Tempo, UNLIMITED, bytes_below},
};

use crate::{
    GOSSIP_INTERVAL, SPANS_PER_REQUEST, Senders, binary,
    cluster::{Owners, PATIENCE, caught_up, process, topic},
    line, memory, percentile,
    requests::Counter,
    seconds,
};

const PARTITIONS: i32 = 2;
const CONNECTIONS: u64 = 16;

/// Time between rounds of the block-builder, if sending is not longer: shorter than by default, since a
/// second one is waited for.
const ROUND: Duration = Duration::from_secs(60);

/// Time in which disks take what was sent, before it is read again; about as long as the live-store takes
/// before the first round.
const QUIET: Duration = Duration::from_secs(30);

/// A process that has used less than this within [`LULL`] has nothing left to do.
const IDLE_CPU_SECONDS: f64 = 0.3;
const LULL: Duration = Duration::from_secs(6);

/// What one process used for so many spans.
fn report(name: &str, spans: f64, cpu: f64, elapsed: Duration) {
    line(
        &format!("{name}: spans per second"),
        spans / elapsed.as_secs_f64(),
    );
    line(&format!("{name}: spans per CPU-second"), spans / cpu);
}

fn stop(mut tempo: Tempo) {
    tempo.signal("TERM").unwrap();
    tempo.wait().unwrap();
}

/// Waits until a process has nothing left to do, and tells what it used.
fn until_idle(tempo: &Tempo) -> f64 {
    loop {
        let before = tempo.cpu_seconds().unwrap();
        thread::sleep(LULL);
        let after = tempo.cpu_seconds().unwrap();
        if after - before < IDLE_CPU_SECONDS {
            return after;
        }
    }
}

/// Blocks in a bucket.
fn blocks(bucket: &Path) -> usize {
    let tenant = bucket.join("single-tenant");
    let folders = fs::read_dir(tenant).into_iter().flatten().flatten();
    folders
        .filter(|folder| folder.path().join("meta.json").exists())
        .count()
}

pub(crate) fn run() {
    let counter = Counter::start().unwrap();
    let kafka = Kafka::start(&KafkaOptions {
        entrances: vec![vec![counter.address.clone()]],
        ..KafkaOptions::default()
    })
    .unwrap();
    counter.aim(kafka.entrance(0).next().unwrap());
    let owners = Owners::of(PARTITIONS, GOSSIP_INTERVAL);
    let partitions = owners.first.partitions().active().count();
    line("partitions", partitions as f64);
    let topic = KafkaConfig {
        address: counter.address.clone(),
        ..topic(&owners, &kafka, PARTITIONS)
    };
    let written = distributor(&kafka, &owners, &topic, &counter);
    live_store(&owners, &topic, &written);
    let bucket = tempfile::tempdir().unwrap();
    let store = ObjectServer::start(bucket.path()).unwrap();
    let spans = block_builder(&owners, &topic, &written, &counter, &store, bucket.path());
    backend_worker(spans, &store, bucket.path());
}

/// What is in the log.
struct Written {
    spans: f64,
    /// The share of the first partition.
    first_share: f64,
    /// The number of the next span.
    next_serial: u64,
}

fn start_distributor(owners: &Owners, topic: &KafkaConfig) -> Tempo {
    let options = Options {
        extra_yaml: UNLIMITED.to_owned(),
        ..Options::default()
    };
    let mut distributor = process(&binary(), "distributor", owners, topic, &options);
    distributor.start().unwrap();
    distributor
}

/// As fast as answers come; the first span has this number.
fn senders<'a>(templates: &'a [Template], serial: &'a AtomicU64) -> Senders<'a> {
    Senders {
        templates,
        serial,
        connections: CONNECTIONS,
        spans_per_second: 0.0,
        tenants: 0,
    }
}

fn distributor(kafka: &Kafka, owners: &Owners, topic: &KafkaConfig, counter: &Counter) -> Written {
    let distributor = start_distributor(owners, topic);
    let (templates, serial) = (templates(SPANS_PER_REQUEST), AtomicU64::new(1));
    let senders = senders(&templates, &serial);
    let warm_up = senders.until_taken(&distributor);
    let (cpu_before, produced) = (distributor.cpu_seconds().unwrap(), counter.produced());
    let begun = Instant::now();
    let sent = senders.send(&distributor, Duration::from_secs(seconds()));
    let elapsed = begun.elapsed();
    let cpu = distributor.cpu_seconds().unwrap() - cpu_before;
    let produced = counter.produced() - produced;
    let spans = sent.spans as f64;
    line("distributor: spans", spans);
    line("distributor: refused spans", sent.refused as f64);
    report("distributor", spans, cpu, elapsed);
    line(
        "distributor: wire bytes per span",
        sent.bytes as f64 / spans,
    );
    line(
        "distributor: acknowledged, p50 ms",
        percentile(&sent.ack_micros, 0.5),
    );
    line(
        "distributor: acknowledged, p99 ms",
        percentile(&sent.ack_micros, 0.99),
    );
    line(
        "distributor: requests to Kafka per million spans",
        produced as f64 * 1e6 / spans,
    );
    memory("distributor", &distributor);
    let all = (sent.spans + warm_up.spans) as f64;
    line(
        "Kafka: bytes per span",
        kafka.log_bytes(&topic.topic) as f64 / all,
    );
    let page = tempo_testkit::http_client::get(&distributor.http, "/metrics").unwrap();
    let of_partition = |partition: i32| -> f64 {
        let name = format!(
            "tempo_distributor_kafka_write_bytes_total{{partition=\"partition_{partition}\"}} "
        );
        let page = page.text();
        let value = page.lines().find_map(|line| line.strip_prefix(&name));
        value.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    };
    let total: f64 = (0..PARTITIONS).map(of_partition).sum();
    stop(distributor);
    Written {
        spans: all,
        first_share: of_partition(0) / total,
        next_serial: serial.into_inner(),
    }
}

/// As much again; how many spans.
fn again(owners: &Owners, topic: &KafkaConfig, written: &Written) -> f64 {
    let distributor = start_distributor(owners, topic);
    let (templates, serial) = (
        templates(SPANS_PER_REQUEST),
        AtomicU64::new(written.next_serial),
    );
    let senders = senders(&templates, &serial);
    let mut sent = senders.until_taken(&distributor);
    sent.add(senders.send(&distributor, Duration::from_secs(seconds())));
    stop(distributor);
    sent.spans as f64
}

fn live_store(owners: &Owners, topic: &KafkaConfig, written: &Written) {
    let options = Options {
        extra_yaml: UNLIMITED.to_owned(),
        live_store_yaml: "  ring:\n    instance_id: live-store-bench-0\n    instance_zone: bench\n    instance_addr: 127.0.0.1\n  readiness_target_lag: 1s\n".to_owned(),
        ..Options::default()
    };
    let mut store = process(&binary(), "live-store", owners, topic, &options);
    let begun = Instant::now();
    store.spawn().unwrap();
    loop {
        let answer = tempo_testkit::http_client::get(&store.http, "/ready");
        if answer.is_ok_and(|answer| answer.status == 200) {
            break;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "the live-store is never ready\n{}",
            store.log_tail()
        );
        thread::sleep(Duration::from_millis(20));
    }
    let elapsed = begun.elapsed();
    let spans = written.spans * written.first_share;
    line("live-store: spans", spans);
    report(
        "live-store, until read",
        spans,
        store.cpu_seconds().unwrap(),
        elapsed,
    );
    let cpu = until_idle(&store);
    line(
        "live-store, until in local blocks: spans per CPU-second",
        spans / cpu,
    );
    memory("live-store", &store);
    // It goes for good, and the partition stays with its other owner.
    stop(store);
}

fn storage(store: &ObjectServer) -> Option<String> {
    Some(format!("    blocklist_poll: 1s\n{}", store.storage_yaml()))
}

/// A first round, in which memory is taken that the process keeps, and a second, which is like all
/// that follow. How many spans are in blocks.
fn block_builder(
    owners: &Owners,
    topic: &KafkaConfig,
    written: &Written,
    counter: &Counter,
    store: &ObjectServer,
    bucket: &Path,
) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        storage_yaml: storage(store),
        extra_yaml: format!(
            "block_builder:\n  instance_id: block-builder-0\n  partitions_per_instance: {PARTITIONS}\n  consume_cycle_duration: {}s\n  wal:\n    path: {}\n",
            ROUND.as_secs().max(3 * seconds()),
            folder.path().join("spill").display()
        ),
        ..Options::default()
    };
    let (fetched, requests) = (counter.fetched(), store.counted().requests);
    let mut builder = process(&binary(), "block-builder", owners, topic, &options);
    builder.start().unwrap();
    let begun = Instant::now();
    caught_up(topic, PARTITIONS);
    let first_cpu = builder.cpu_seconds().unwrap();
    report(
        "block-builder, first round",
        written.spans,
        first_cpu,
        begun.elapsed(),
    );
    // It must not read before everything is there.
    builder.signal("STOP").unwrap();
    let more = again(owners, topic, written);
    thread::sleep(QUIET);
    builder.signal("CONT").unwrap();
    caught_up(topic, PARTITIONS);
    let cpu = builder.cpu_seconds().unwrap() - first_cpu;
    line("block-builder: spans per CPU-second", more / cpu);
    let spans = written.spans + more;
    let per_million = |requests: u64| requests as f64 * 1e6 / spans;
    line(
        "block-builder: requests to Kafka per million spans",
        per_million(counter.fetched() - fetched),
    );
    line(
        "block-builder: requests to the store per million spans",
        per_million(store.counted().requests - requests),
    );
    line(
        "block-builder: stored bytes per span",
        bytes_below(bucket) as f64 / spans,
    );
    line("block-builder: blocks", blocks(bucket) as f64);
    memory("block-builder", &builder);
    stop(builder);
    spans
}

fn backend_worker(spans: f64, store: &ObjectServer, bucket: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        storage_yaml: storage(store),
        extra_yaml: format!(
            "target: backend-scheduler\nbackend_scheduler:\n  local_work_path: {}\n  provider:\n    compaction:\n      min_cycle_interval: 1s\n",
            folder.path().join("work").display()
        ),
        merges_blocks: true,
        ..Options::default()
    };
    let mut scheduler = Tempo::configure(&binary(), &options).unwrap();
    scheduler.start().unwrap();
    let options = Options {
        storage_yaml: storage(store),
        extra_yaml: format!(
            "target: backend-worker\nbackend_worker:\n  backend_scheduler_addr: {}\n",
            scheduler.grpc
        ),
        merges_blocks: true,
        ..Options::default()
    };
    let requests = store.counted().requests;
    let mut worker = Tempo::configure(&binary(), &options).unwrap();
    let begun = Instant::now();
    worker.start().unwrap();
    while blocks(bucket) > 1 {
        assert!(
            begun.elapsed() < PATIENCE,
            "blocks are never merged\n{}",
            worker.log_tail()
        );
        thread::sleep(Duration::from_millis(50));
    }
    let elapsed = begun.elapsed();
    let cpu = worker.cpu_seconds().unwrap();
    report("backend-worker, merging", spans, cpu, elapsed);
    line(
        "backend-worker: requests to the store per million spans",
        (store.counted().requests - requests) as f64 * 1e6 / spans,
    );
    memory("backend-worker", &worker);
    memory("backend-scheduler", &scheduler);
    stop(worker);
    stop(scheduler);
}
