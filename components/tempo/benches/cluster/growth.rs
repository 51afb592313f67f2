//! The same work with more partitions, more tenants, and more blocks in the list.

use std::{
    fs,
    path::Path,
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use tempo_testkit::{
    http_client::Client,
    kafka::{Kafka, KafkaOptions},
    load::templates,
    process::{BACKEND_ONLY, Options, Tempo, UNLIMITED, bytes_below},
};

use crate::{
    GOSSIP_INTERVAL, SPANS_PER_REQUEST, Senders, binary,
    cluster::{Owners, caught_up, process, topic},
    line, seconds,
};

pub(crate) fn run() {
    let kafka = Kafka::start(&KafkaOptions::default()).unwrap();
    for partitions in [1, 10, 50] {
        write(&kafka, partitions, 0);
    }
    for tenants in [1, 10, 100, 1_000] {
        write(&kafka, 2, tenants);
    }
    for blocks in [10, 100, 1_000, 10_000] {
        listed(blocks);
    }
}

/// Distributor, then block-builder.
fn write(kafka: &Kafka, partitions: i32, tenants: u64) {
    let name = match tenants {
        0 => format!("{partitions} partitions"),
        _ => format!("{tenants} tenants"),
    };
    let owners = Owners::of(partitions, GOSSIP_INTERVAL);
    let topic = topic(&owners, kafka, partitions);
    let multitenancy = match tenants {
        0 => "",
        _ => "multitenancy_enabled: true\n",
    };
    let options = Options {
        extra_yaml: format!("{multitenancy}{UNLIMITED}"),
        ..Options::default()
    };
    let mut distributor = process(&binary(), "distributor", &owners, &topic, &options);
    distributor.start().unwrap();
    let senders = Senders {
        templates: &templates(SPANS_PER_REQUEST),
        serial: &AtomicU64::new(1),
        connections: 8,
        spans_per_second: 0.0,
        tenants,
    };
    let warm_up = senders.until_taken(&distributor);
    let before = distributor.cpu_seconds().unwrap();
    let sent = senders.send(&distributor, Duration::from_secs(seconds() / 4));
    let cpu = distributor.cpu_seconds().unwrap() - before;
    let mib = |tempo: &Tempo| tempo.memory_bytes("VmHWM").unwrap() as f64 / f64::from(1 << 20);
    line(
        &format!("{name}: distributor, spans per CPU-second"),
        sent.spans as f64 / cpu,
    );
    line(&format!("{name}: distributor, peak MiB"), mib(&distributor));
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
            "{multitenancy}block_builder:\n  instance_id: block-builder-0\n  partitions_per_instance: {partitions}\n  wal:\n    path: {}\n",
            folder.path().join("spill").display()
        ),
        ..Options::default()
    };
    let mut builder = process(&binary(), "block-builder", &owners, &topic, &options);
    builder.start().unwrap();
    caught_up(&topic, partitions);
    let spans = (sent.spans + warm_up.spans) as f64;
    line(
        &format!("{name}: block-builder, spans per CPU-second"),
        spans / builder.cpu_seconds().unwrap(),
    );
    line(&format!("{name}: block-builder, peak MiB"), mib(&builder));
    line(
        &format!("{name}: stored bytes per span"),
        bytes_below(&bucket) as f64 / spans,
    );
    builder.signal("TERM").unwrap();
    builder.wait().unwrap();
}

/// Hours before the data begins at which the first listed block lies.
const HOURS_AGO: u64 = 24;

/// A bucket with the recorded blocks and the metas of so many older ones.
fn fill(bucket: &Path, blocks: usize) {
    let golden = tempo_testkit::golden::folder().join("blocks/vparquet4/single-tenant");
    let tenant = bucket.join("single-tenant");
    let mut meta = None;
    for entry in fs::read_dir(golden).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        let target = tenant.join(folder.file_name().unwrap());
        fs::create_dir_all(&target).unwrap();
        for file in fs::read_dir(&folder).unwrap() {
            let file = file.unwrap().path();
            fs::copy(&file, target.join(file.file_name().unwrap())).unwrap();
        }
        meta = Some(fs::read_to_string(folder.join("meta.json")).unwrap());
    }
    let mut meta: serde_json::Value = serde_json::from_str(&meta.unwrap()).unwrap();
    for block in 0..blocks {
        let id = uuid::Uuid::new_v4().to_string();
        let folder = tenant.join(&id);
        fs::create_dir(&folder).unwrap();
        // Days apart from the data, over two weeks.
        let hour = HOURS_AGO as usize + block % (14 * 24);
        let day = 21 - hour / 24;
        meta["blockID"] = id.into();
        meta["startTime"] = format!("2026-11-{day:02}T{:02}:00:00Z", hour % 24).into();
        meta["endTime"] = format!("2026-11-{day:02}T{:02}:59:00Z", hour % 24).into();
        fs::write(folder.join("meta.json"), meta.to_string()).unwrap();
    }
}

/// A process that lists so many blocks, and searches in two of them.
fn listed(blocks: usize) {
    let bucket = tempfile::tempdir().unwrap();
    fill(bucket.path(), blocks);
    let golden = tempo_testkit::golden::Golden::load();
    let options = Options {
        storage_yaml: Some(format!(
            "    backend: local\n    local:\n      path: {}\n",
            bucket.path().display()
        )),
        extra_yaml: BACKEND_ONLY.to_owned(),
        ..Options::default()
    };
    let mut tempo = Tempo::configure(&binary(), &options).unwrap();
    let begun = Instant::now();
    tempo.start().unwrap();
    line(
        &format!("{blocks} blocks: listed and ready, ms"),
        begun.elapsed().as_secs_f64() * 1000.0,
    );
    line(
        &format!("{blocks} blocks: listed and ready, CPU ms"),
        tempo.cpu_seconds().unwrap() * 1000.0,
    );
    let resident = tempo.memory_bytes("VmRSS").unwrap() as f64 / f64::from(1 << 20);
    line(&format!("{blocks} blocks: resident MiB"), resident);
    let mut client = Client::connect(&tempo.http).unwrap();
    const SEARCHES: u32 = 200;
    let before = tempo.cpu_seconds().unwrap();
    for search in 0..SEARCHES {
        // No two are the same, so that none is answered from what is kept.
        let path = format!(
            "/api/search?q=%7B%20name%20%3D%20%22nothing-{search}%22%20%7D&{}",
            golden.range()
        );
        let answer = client.get(&path).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    line(
        &format!("{blocks} blocks: a search in two of them, CPU ms"),
        (tempo.cpu_seconds().unwrap() - before) * 1000.0 / f64::from(SEARCHES),
    );
    tempo.signal("TERM").unwrap();
    tempo.wait().unwrap();
}
