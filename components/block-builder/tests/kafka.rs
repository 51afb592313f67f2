//! From real brokers, which `scripts/kafka.sh` starts, to blocks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use prometheus::Registry;
use prost::Message;
use tempo_backend::{
    Backend, DedicatedColumns, ObjectKey, ReadStats,
    cache::Cache,
    testing::{self, Effect, Fault, Gate, Operation},
};
use tempo_block_builder::{Assignment, Config, ConsumableState, Dependencies, Limits, Partitions};
use tempo_ingest::{Fence, KafkaConfig, Offsets, Producer, admin, record};
use tempo_model::{TraceId, hash::fnv1_32};
use tempo_proto::tempopb::Trace;
use tempo_testkit::{
    disk::SmallDisk,
    kafka::Kafka,
    traces::{MadeTrace, TraceMaker},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(90);

static NAMES: AtomicU32 = AtomicU32::new(0);

struct TempoDefaults;

impl Limits for TempoDefaults {
    fn max_bytes_per_trace(&self, tenant: &str) -> u64 {
        if tenant == "narrow" {
            20_000
        } else {
            5_000_000
        }
    }

    fn dedicated_columns(&self, _: &str) -> DedicatedColumns {
        DedicatedColumns::tempo_defaults()
    }
}

/// Every partition is active.
struct AllActive(i32);

impl Partitions for AllActive {
    fn consumable(&self) -> BTreeMap<i32, ConsumableState> {
        (0..self.0)
            .map(|partition| (partition, ConsumableState::Active))
            .collect()
    }
}

/// A topic of its own, with two partitions.
async fn topic(kafka: &Kafka) -> KafkaConfig {
    let config = KafkaConfig {
        address: kafka.bootstrap().to_owned(),
        topic: format!("builder-{}", NAMES.fetch_add(1, Ordering::Relaxed)),
        auto_create_partitions: Some(2),
        write_timeout: Duration::from_secs(30),
        ..KafkaConfig::default()
    };
    admin::ensure_topic(&config).await.unwrap();
    config
}

async fn kafka() -> Arc<Kafka> {
    tokio::task::spawn_blocking(|| Kafka::shared().unwrap())
        .await
        .unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn chunk(trace: &MadeTrace) -> Vec<u8> {
    Trace {
        resource_spans: trace.resource_spans.clone(),
    }
    .encode_to_vec()
}

/// A partition for a trace; which one does not matter here, only that it is one.
fn partition_of(id: &[u8; 16]) -> i32 {
    (fnv1_32(&[id]) % 2) as i32
}

/// Tenant, id and spans of every trace that was sent.
type Sent = BTreeMap<(String, TraceId), usize>;

/// Sends traces of two tenants, a few in a record, some in two parts, some parts twice.
async fn send(config: &KafkaConfig, seed: u64, traces: usize) -> Sent {
    let producer = Producer::new(config.clone(), &Registry::new()).unwrap();
    let mut maker = TraceMaker::new(seed);
    let mut sent = Sent::new();
    let mut waiting = Vec::new();
    for number in 0..traces {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let trace = maker.next_trace(now.as_nanos() as u64);
        let tenant = if number % 3 == 0 {
            "tenant-1"
        } else {
            "tenant-2"
        };
        let id = TraceId::from_bytes(trace.id);
        sent.insert((tenant.to_owned(), id), trace.spans);
        let mut parts = vec![chunk(&trace)];
        if number % 4 == 0 && trace.resource_spans.len() > 1 {
            let mut rest = trace.clone();
            let mut half = trace.clone();
            half.resource_spans = rest.resource_spans.split_off(1);
            parts = vec![chunk(&half), chunk(&rest), chunk(&half)];
        }
        let values: Vec<Vec<u8>> = parts
            .iter()
            .flat_map(|part| {
                record::encode([(id, part.as_slice())].into_iter(), false, 1 << 20).unwrap()
            })
            .collect();
        let (producer, partition) = (producer.clone(), partition_of(&trace.id));
        waiting.push(tokio::spawn(async move {
            producer.send(partition, tenant, &values).await.unwrap();
        }));
    }
    for sent in waiting {
        sent.await.unwrap();
    }
    sent
}

/// A running block-builder.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
    handle: tempo_block_builder::Handle,
    registry: Registry,
    _folder: tempfile::TempDir,
}

async fn start(kafka: &KafkaConfig, group: &str, backend: &Backend) -> Running {
    start_with(kafka, group, backend, |_| {}).await
}

async fn start_with(
    kafka: &KafkaConfig,
    group: &str,
    backend: &Backend,
    change: impl FnOnce(&mut Config),
) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let assignment = Assignment::new(&BTreeMap::new(), 2, "block-builder-0").unwrap();
    let mut config = Config {
        group: group.to_owned(),
        consume_cycle_duration: Duration::from_millis(300),
        // By size, so that the same records are the same sections whenever they are read.
        max_consuming_bytes: 40_000,
        max_silence: Duration::from_secs(1),
        spill_path: folder.path().join("spill"),
        buffer_bytes: 25_000,
        ..Config::new(kafka.clone(), assignment)
    };
    change(&mut config);
    let registry = Registry::new();
    let deps = Dependencies {
        backend: backend.clone(),
        limits: Arc::new(TempoDefaults),
        partitions: Arc::new(AllActive(2)),
        registry: &registry,
    };
    let (handle, service) = tempo_block_builder::build(config, deps).await.unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(service.run(stop.clone()));
    Running {
        stop,
        task,
        handle,
        registry,
        _folder: folder,
    }
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// As `kill -9` would: wherever it is.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    fn counter(&self, name: &str) -> f64 {
        self.registry
            .gather()
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(|family| family.get_metric().to_vec())
            .map(|metric| metric.get_counter().get_value())
            .sum()
    }
}

/// Waits until the group has got through everything.
async fn caught_up(config: &KafkaConfig, group: &str) {
    let (config, group) = (config.clone(), group.to_owned());
    tokio::task::spawn_blocking(move || {
        let offsets = Offsets::new(&config, &group).unwrap();
        let begun = std::time::Instant::now();
        loop {
            let left = tempo_ingest::lag::lag(&offsets, &[0, 1]).unwrap();
            if left.iter().all(|(_, records)| *records == 0) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "not caught up: {left:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    })
    .await
    .unwrap();
}

/// Every object of the store, by key. Of blocks that have no `meta.json` nothing is looked at.
async fn objects(backend: &Backend) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for tenant in backend.list_tenants().await.unwrap() {
        let listing = backend.list_blocks(&tenant).await.unwrap();
        assert!(listing.compacted.is_empty());
        for id in listing.live {
            for name in [
                "data.parquet",
                "bloom-0",
                "index",
                "meta.json",
                "nocompact.flg",
            ] {
                let key = ObjectKey::block(&tenant, id, name);
                if backend.exists(&key).await.unwrap() {
                    let bytes = backend.read(&key, &ReadStats::new()).await.unwrap();
                    found.insert(key.to_string(), bytes.to_vec());
                }
            }
        }
    }
    found
}

/// Every span that was sent is in exactly one block, and each trace of a section is one row.
async fn check(backend: &Backend, sent: &Sent) {
    let cache = Cache::new(1 << 20, &Registry::new()).unwrap();
    let mut spans: BTreeMap<(String, TraceId), BTreeSet<Vec<u8>>> = BTreeMap::new();
    for tenant in backend.list_tenants().await.unwrap() {
        for id in backend.list_blocks(&tenant).await.unwrap().live {
            let meta = Arc::new(backend.read_meta(&tenant, id).await.unwrap());
            assert!(!backend.has_no_compact(&tenant, id).await.unwrap());
            let (backend, cache, meta) = (backend.clone(), cache.clone(), Arc::clone(&meta));
            let wanted: Vec<TraceId> = sent
                .keys()
                .filter(|(of, _)| *of == tenant)
                .map(|(_, id)| *id)
                .collect();
            let found = tokio::task::spawn_blocking(move || {
                let stats = ReadStats::new();
                let found: Vec<(TraceId, Vec<u8>)> = wanted
                    .into_iter()
                    .filter_map(|id| {
                        let trace =
                            tempo_block::read::find_trace(&backend, &cache, &meta, &id, &stats)
                                .unwrap()?;
                        Some((id, trace.to_vec()))
                    })
                    .collect();
                assert_eq!(found.len() as i64, meta.total_objects, "no other traces");
                found
            })
            .await
            .unwrap();
            for (id, trace) in found {
                let trace = Trace::decode(trace.as_slice()).unwrap();
                let all = spans.entry((tenant.clone(), id)).or_default();
                for span in trace
                    .resource_spans
                    .into_iter()
                    .flat_map(|resource| resource.scope_spans)
                    .flat_map(|scope| scope.spans)
                {
                    let mut key = span.span_id;
                    key.push(span.kind as u8);
                    // The same span again is only kept when it came in a later section.
                    all.insert(key);
                }
            }
        }
    }
    for ((tenant, id), count) in sent {
        let found = spans.get(&(tenant.clone(), *id)).map_or(0, BTreeSet::len);
        assert_eq!(found, *count, "trace {} of {tenant}", hex(id.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_hold_what_was_written_and_are_the_same_for_everybody() {
    let kafka = kafka().await;
    let config = topic(&kafka).await;
    let sent = send(&config, 1, 120).await;
    let first = testing::memory();
    let running = start(&config, "first", &first).await;
    caught_up(&config, "first").await;
    assert!(running.counter("tempo_block_builder_spans_deduped_total") > 0.0);
    let flushed = running.counter("tempo_block_builder_flushed_blocks");
    running.stop().await;
    check(&first, &sent).await;
    let expected = objects(&first).await;
    let blocks = expected
        .keys()
        .filter(|key| key.ends_with("meta.json"))
        .count();
    assert_eq!(blocks as f64, flushed);
    assert!(blocks > 8, "several sections: {blocks}");

    // Everything in memory, and nothing of the first store: the same bytes.
    let second = testing::memory();
    let running = start_with(&config, "second", &second, |config| {
        config.buffer_bytes = 100 << 20;
    })
    .await;
    caught_up(&config, "second").await;
    running.stop().await;
    let again = objects(&second).await;
    assert_eq!(
        again.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (key, bytes) in expected {
        assert!(again[&key] == bytes, "{key} differs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_a_topic_that_is_gone_are_left_alone() {
    let kafka = kafka().await;
    let backend = testing::memory();
    let mut all = Sent::new();
    // Offsets, and with them the ids of blocks, begin again with each topic.
    for seed in [6, 7] {
        let config = topic(&kafka).await;
        all.extend(send(&config, seed, 20).await);
        let running = start_with(&config, "group", &backend, |config| {
            config.ingestion_time_range_slack = Duration::ZERO;
        })
        .await;
        caught_up(&config, "group").await;
        running.stop().await;
        // Until what is sent next is younger, also by a clock of whole seconds.
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    check(&backend, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_the_store_fails_the_blocks_become_the_same() {
    let kafka = kafka().await;
    let config = topic(&kafka).await;
    send(&config, 2, 40).await;
    let reference = testing::memory();
    let running = start(&config, "reference", &reference).await;
    caught_up(&config, "reference").await;
    running.stop().await;
    let expected = objects(&reference).await;

    let memory = testing::memory();
    let (store, faults) = testing::faulty(&memory);
    let mut gates = Vec::new();
    // The process is killed later and later, and everything it had begun is left as it is.
    for writes in (0..).step_by(3) {
        if writes > 0 {
            faults.inject(Fault {
                operation: Some(Operation::Write),
                key_contains: String::new(),
                times: Some(writes),
                effect: Effect::Delay(Duration::ZERO),
            });
        }
        let gate = Gate::new();
        faults.inject(Fault {
            operation: Some(Operation::Write),
            key_contains: String::new(),
            times: None,
            effect: Effect::Wait(gate.clone()),
        });
        let running = start(&config, "killed", &store).await;
        let done = tokio::select! {
            () = gate.arrived() => false,
            () = caught_up(&config, "killed") => true,
        };
        running.kill().await;
        faults.heal();
        gates.push(gate);
        if done {
            break;
        }
    }
    let attempts = gates.len();
    assert!(attempts > 5, "{attempts}");
    // What the killed ones left hidden from compaction is let go by the next.
    let running = start(&config, "killed", &memory).await;
    send(&config, 3, 10).await;
    caught_up(&config, "killed").await;
    running.stop().await;
    let found = objects(&memory).await;
    for (key, bytes) in &expected {
        assert!(found.get(key) == Some(bytes), "{key} differs");
    }
    assert!(!found.keys().any(|key| key.ends_with("nocompact.flg")));
    // Threads of the killed ones still stand there.
    gates.iter().for_each(Gate::open);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_comes_back_from_the_dead_changes_nothing() {
    let kafka = kafka().await;
    let config = topic(&kafka).await;
    let sent = send(&config, 4, 60).await;
    let memory = testing::memory();
    let (store, faults) = testing::faulty(&memory);
    let gate = Gate::new();
    faults.inject(Fault {
        operation: Some(Operation::Write),
        key_contains: "meta.json".to_owned(),
        times: Some(1),
        effect: Effect::Wait(gate.clone()),
    });
    let zombie = start(&config, "group", &store).await;
    gate.arrived().await;
    // It stands before its first meta.json, and another takes over.
    let successor = start(&config, "group", &memory).await;
    caught_up(&config, "group").await;
    let cycles = successor.handle.completed_cycles();
    successor.stop().await;
    check(&memory, &sent).await;
    let before = objects(&memory).await;
    // Compaction retires one block meanwhile, the one that the other is about to publish.
    let retired = faults
        .requests()
        .into_iter()
        .find(|(operation, key)| *operation == Operation::Write && key.ends_with("meta.json"))
        .map(|(_, key)| key)
        .unwrap();
    let mut parts = retired.split('/');
    let (tenant, id) = (parts.next().unwrap(), parts.next().unwrap());
    let id = id.parse().unwrap();
    memory.mark_compacted(tenant, id).await.unwrap();
    gate.open();
    // It notices at its commit, takes back what it did, and finds nothing left to do.
    let begun = std::time::Instant::now();
    while zombie.handle.completed_cycles() == 0 {
        assert!(begun.elapsed() < PATIENCE, "never done; cycles {cycles}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    zombie.stop().await;
    let listing = memory.list_blocks(tenant).await.unwrap();
    assert!(!listing.live.contains(&id), "the retired block came back");
    assert!(listing.no_compact.is_empty());
    memory
        .delete(&ObjectKey::compacted_meta(tenant, id))
        .await
        .unwrap();
    let after = objects(&memory).await;
    let kept: BTreeMap<_, _> = before
        .into_iter()
        .filter(|(key, _)| !key.contains(&id.to_string()))
        .collect();
    assert!(after == kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_delays_blocks_and_loses_nothing() {
    let kafka = kafka().await;
    let config = topic(&kafka).await;
    let sent = send(&config, 8, 60).await;
    let disk = SmallDisk::mount(512).unwrap();
    std::fs::create_dir(disk.path().join("spill")).unwrap();
    disk.fill().unwrap();
    let backend = testing::memory();
    let running = start_with(&config, "group", &backend, |config| {
        config.spill_path = disk.path().join("spill");
    })
    .await;
    let begun = std::time::Instant::now();
    while running.counter("tempo_block_builder_section_failures_total") < 2.0 {
        assert!(begun.elapsed() < PATIENCE, "no section fails");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    disk.relieve().unwrap();
    caught_up(&config, "group").await;
    running.stop().await;
    check(&backend, &sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decided_section_is_not_finished_before_its_last_record_came() {
    let kafka = kafka().await;
    let config = topic(&kafka).await;
    let mut sent = send(&config, 8, 20).await;
    let offsets = Arc::new(Offsets::new(&config, "group").unwrap());
    let committed = async || {
        let offsets = Arc::clone(&offsets);
        tokio::task::spawn_blocking(move || offsets.committed(&[0]).unwrap().remove(&0))
            .await
            .unwrap()
    };
    // What a process noted before it died, as a leader that is behind makes it look: the end of the
    // partition comes before that of the section.
    let noted = {
        let (config, offsets) = (config.clone(), Arc::clone(&offsets));
        let millis = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis();
        tokio::task::spawn_blocking(move || {
            let until = offsets.watermarks(0).unwrap().high + 3;
            let note = format!("tempostack/1 planned start=0 until={until} millis={millis}");
            let fence = Fence::raise(&config, "group", 0).unwrap();
            fence.commit(0, &note).unwrap();
            note
        })
        .await
        .unwrap()
    };
    let backend = testing::memory();
    let running = start_with(&config, "group", &backend, |config| {
        // Brokers take five seconds to tell that there is no more.
        config.max_silence = Duration::from_secs(2);
    })
    .await;
    let begun = std::time::Instant::now();
    while running.counter("tempo_block_builder_fetch_errors_total") == 0.0 {
        assert!(begun.elapsed() < PATIENCE, "never given up");
        // A commit is told a moment after it was made.
        if let Some(still) = committed().await {
            assert_eq!((still.offset, still.metadata), (0, noted.clone()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    sent.extend(send(&config, 9, 20).await);
    caught_up(&config, "group").await;
    running.stop().await;
    check(&backend, &sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_a_process_that_died_are_let_go_without_new_records() {
    let kafka = kafka().await;
    let config = topic(&kafka).await;
    let sent = send(&config, 10, 20).await;
    let memory = testing::memory();
    let (store, faults) = testing::faulty(&memory);
    faults.fail_on(Operation::Delete, "nocompact.flg");
    let one_section = |config: &mut Config| {
        config.max_consuming_bytes = 0;
        config.consume_cycle_duration = Duration::from_secs(3);
    };
    let running = start_with(&config, "group", &store, one_section).await;
    caught_up(&config, "group").await;
    running.kill().await;
    let hidden = async || {
        let found = objects(&memory).await;
        let flags = found.keys().filter(|key| key.ends_with("nocompact.flg"));
        flags.count()
    };
    assert!(hidden().await > 0);
    let running = start_with(&config, "group", &memory, one_section).await;
    let begun = std::time::Instant::now();
    while hidden().await > 0 {
        assert!(begun.elapsed() < PATIENCE, "hidden for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.stop().await;
    check(&memory, &sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_is_counted_and_stops_nothing() {
    let kafka = kafka().await;
    let config = topic(&kafka).await;
    let producer = Producer::new(config.clone(), &Registry::new()).unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    let mut maker = TraceMaker::new(5);
    let good = maker.next_trace(now);
    let id = TraceId::from_bytes(good.id);
    let entry = |bytes: &[u8]| record::encode([(id, bytes)].into_iter(), false, 1 << 20).unwrap();
    let send = async |key: &str, values: Vec<Vec<u8>>| {
        producer.send(0, key, &values).await.unwrap();
    };
    send("tenant-1", vec![b"not protobuf".to_vec()]).await;
    send("../../etc", entry(&chunk(&good))).await;
    // A damaged chunk of a trace, before and after a sound one.
    send("tenant-1", entry(&[0x0a, 0x03, 0x12, 0x05, 1])).await;
    send("tenant-1", entry(&chunk(&good))).await;
    send("tenant-1", entry(&[0x0a, 0x7f, 1])).await;
    let mut large = maker.next_trace(now);
    let copies: Vec<_> = (0..10).flat_map(|_| large.resource_spans.clone()).collect();
    large.resource_spans = copies;
    large.id = good.id;
    send("narrow", entry(&chunk(&large))).await;
    let backend = testing::memory();
    let running = start(&config, "group", &backend).await;
    caught_up(&config, "group").await;
    assert_eq!(
        running.counter("tempo_block_builder_records_dropped_total"),
        2.0
    );
    assert!(running.counter("tempo_discarded_spans_total") > 2.0);
    running.stop().await;
    let sent = Sent::from([(("tenant-1".to_owned(), id), good.spans)]);
    check(&backend, &sent).await;
    assert_eq!(backend.list_tenants().await.unwrap(), ["tenant-1"]);
}
