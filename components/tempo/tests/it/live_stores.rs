//! Live-stores that read real Kafka: zones, crashes, replay, being taken away.

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use tempo_ingest::{KafkaConfig, Offsets};
use tempo_model::TraceId;
use tempo_testkit::{
    golden::Golden,
    http_client::{self, Client, Response, encode},
    kafka::Kafka,
    process::{Options, Tempo},
    traces::{TraceMaker, encode_request},
};
use tokio::runtime::Runtime;

use crate::{
    cluster::{PATIENCE, free_port, new_topic},
    golden,
    support::{binary, eventually, metric, rounds, search, terminate, unix_seconds},
};

mod bridge;

/// Everything quick, so that a test sees in seconds what takes minutes.
const QUICK: &str = "  commit_interval: 1s
  flush_check_period: 100ms
  max_trace_idle: 300ms
  max_trace_live: 1s
  max_block_duration: 500ms
  partition_ring:
    min_partition_owners_duration: 0s
    delete_inactive_partition_after: 2s
";

/// Queries ask live-stores alone, up to now.
const RECENT_ONLY: &str = "query_frontend:
  query_end_cutoff: 0s
  search:
    query_backend_after: 1h
  metrics:
    query_backend_after: 1h
";

/// Requests of 100 traces that a live-store can't read before its first block is complete.
const LOST_DISK_REQUESTS: usize = 40;

/// Processes around one topic.
struct Installation {
    log: KafkaConfig,
    seed: String,
    folder: tempfile::TempDir,
}

impl Installation {
    fn new(kafka: &Kafka, partitions: i32) -> Self {
        Self {
            log: new_topic(&Runtime::new().unwrap(), kafka, partitions),
            seed: format!("127.0.0.1:{}", free_port()),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A process that is not started yet. The first one has the address that all others ask.
    fn process(&self, target: &str, name: &str, more_yaml: &str, live_store_yaml: &str) -> Tempo {
        let data = self.folder.path().join(name);
        let port = match fs::exists(self.folder.path().join("first")).unwrap() {
            true => free_port().to_string(),
            false => {
                fs::write(self.folder.path().join("first"), name).unwrap();
                self.seed.rsplit(':').next().unwrap().to_owned()
            }
        };
        let yaml = format!(
            "target: {target}\n\
             memberlist:\n  bind_addr: [127.0.0.1]\n  bind_port: {port}\n  gossip_interval: 100ms\n  join_members: ['{}']\n\
             ingest:\n  kafka:\n    address: {}\n    topic: {}\n    auto_create_topic_enabled: false\n{more_yaml}",
            self.seed, self.log.address, self.log.topic
        );
        let options = Options {
            extra_yaml: yaml,
            live_store_yaml: format!("{QUICK}{live_store_yaml}"),
            data: Some(data),
            storage_yaml: Some(format!(
                "    backend: local\n    local:\n      path: {}\n    blocklist_poll: 1s\n",
                self.folder.path().join("bucket").display()
            )),
            ..Options::default()
        };
        Tempo::configure(&binary(), &options).unwrap()
    }

    fn live_store(&self, zone: &str, partition: i32) -> Tempo {
        self.live_store_with(zone, partition, "")
    }

    fn live_store_with(&self, zone: &str, partition: i32, yaml: &str) -> Tempo {
        let id = format!("live-store-zone-{zone}-{partition}");
        let ring = format!(
            "{yaml}  ring:\n    instance_id: {id}\n    instance_zone: zone-{zone}\n    instance_addr: 127.0.0.1\n"
        );
        self.process("live-store", &id, "", &ring)
    }

    /// The block-builder of partition 0, started.
    fn block_builder(&self) -> Tempo {
        let spill = self.folder.path().join("spill");
        self.started(
            "block-builder",
            &format!(
                "block_builder:\n  instance_id: block-builder-0\n  partitions_per_instance: 1\n  consume_cycle_duration: 500ms\n  wal:\n    path: {}\n",
                spill.display()
            ),
        )
    }

    fn started(&self, target: &str, yaml: &str) -> Tempo {
        let mut tempo = self.process(target, target, yaml, "");
        tempo.start().unwrap();
        tempo
    }
}

fn request(tempo: &Tempo, method: &str, path: &str) -> Response {
    let mut client = Client::connect(&tempo.http).unwrap();
    client
        .request(method, path, &[("accept", "application/json")], &[])
        .unwrap()
}

/// The partitions that a process knows: state and owners.
fn ring(tempo: &Tempo) -> BTreeMap<i64, (i64, Vec<String>)> {
    let answer = request(tempo, "GET", "/partition-ring");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|partition| {
            let owners = partition["owner_ids"].as_array().unwrap();
            assert_eq!(partition["tokens"].as_array().unwrap().len(), 512);
            (
                partition["id"].as_i64().unwrap(),
                (
                    partition["state"].as_i64().unwrap(),
                    owners
                        .iter()
                        .map(|owner| owner.as_str().unwrap().to_owned())
                        .collect(),
                ),
            )
        })
        .collect()
}

fn until_ring(
    tempo: &Tempo,
    what: &str,
    wanted: impl Fn(&BTreeMap<i64, (i64, Vec<String>)>) -> bool,
) {
    eventually(what, || wanted(&ring(tempo)).then_some(()));
}

const ACTIVE: i64 = 2;
const INACTIVE: i64 = 3;

/// What was acknowledged: spans by trace.
#[derive(Default)]
struct Sent {
    spans: BTreeMap<TraceId, usize>,
}

impl Sent {
    fn push(&mut self, distributor: &Tempo, maker: &mut TraceMaker, traces: usize) {
        let made: Vec<_> = (0..traces)
            .map(|_| maker.next_trace(unix_seconds() * 1_000_000_000))
            .collect();
        let body = encode_request(&made);
        eventually("the distributor takes it", || {
            let answer = Client::connect(&distributor.otlp_http)
                .unwrap()
                .request(
                    "POST",
                    "/v1/traces",
                    &[("content-type", "application/x-protobuf")],
                    &body,
                )
                .unwrap();
            assert!([200, 503].contains(&answer.status), "{}", answer.text());
            (answer.status == 200).then_some(())
        });
        for trace in made {
            self.spans
                .insert(TraceId::from_bytes(trace.id), trace.spans);
        }
    }

    fn total(&self) -> usize {
        self.spans.values().sum()
    }

    /// Waits until all of it is found by id.
    fn until_found(&self, frontend: &Tempo) {
        let begun = Instant::now();
        for (id, spans) in &self.spans {
            loop {
                let answer =
                    http_client::get(&frontend.http, &format!("/api/traces/{id}")).unwrap();
                let found = match answer.status {
                    200 => count_spans(&answer.json()),
                    _ => 0,
                };
                if found == *spans {
                    break;
                }
                assert!(
                    begun.elapsed() < PATIENCE,
                    "trace {id}: {found} of {spans} spans, status {}: {}",
                    answer.status,
                    answer.text()
                );
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// Waits until metrics count each span once.
    fn until_counted(&self, frontend: &Tempo) {
        let begun = Instant::now();
        loop {
            let (status, counted) = count(frontend);
            if status == 200 && counted == self.total() as f64 {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "status {status}: {counted} of {} spans counted",
                self.total()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn count_spans(trace: &serde_json::Value) -> usize {
    let each =
        |value: &serde_json::Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    each(trace, "batches")
        .iter()
        .flat_map(|batch| each(batch, "scopeSpans"))
        .map(|scope| each(&scope, "spans").len())
        .sum()
}

/// Spans of the last hour, by a metrics query.
fn count(frontend: &Tempo) -> (u16, f64) {
    let now = unix_seconds();
    let path = format!(
        "/api/metrics/query_range?q={}&start={}&end={}&step=5s",
        encode("{ } | count_over_time()"),
        now - 1800,
        now + 60
    );
    let answer = http_client::get(&frontend.http, &path).unwrap();
    if answer.status != 200 {
        return (answer.status, 0.0);
    }
    let series = answer.json()["series"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let samples = series
        .iter()
        .flat_map(|series| series["samples"].as_array().cloned().unwrap_or_default());
    let total = samples
        .map(|sample| sample["value"].as_f64().unwrap_or(0.0))
        .sum();
    (200, total)
}

/// The processes that ask.
fn readers(installation: &Installation) -> (Tempo, Tempo) {
    let frontend = installation.process("query-frontend", "query-frontend", RECENT_ONLY, "");
    readers_behind(frontend, installation)
}

/// A query-frontend, which is started, and a querier.
fn readers_behind(mut frontend: Tempo, installation: &Installation) -> (Tempo, Tempo) {
    frontend.spawn().unwrap();
    let querier = installation.started(
        "querier",
        &format!(
            "querier:\n  frontend_worker:\n    frontend_address: {}\n",
            frontend.grpc
        ),
    );
    eventually("the query-frontend is ready", || {
        let answer = http_client::get(&frontend.http, "/ready").ok()?;
        (answer.status == 200).then_some(())
    });
    (frontend, querier)
}

#[test]
fn any_zone_answers_for_all_that_was_acknowledged() {
    let kafka = Kafka::shared().unwrap();
    let installation = Installation::new(&kafka, 2);
    let mut zones: BTreeMap<(&str, i32), Tempo> = BTreeMap::new();
    for zone in ["a", "b"] {
        for partition in 0..2 {
            let mut store = installation.live_store(zone, partition);
            store.start().unwrap();
            zones.insert((zone, partition), store);
        }
    }
    let distributor = installation.started("distributor", "");
    let (frontend, querier) = readers(&installation);
    for tempo in [&distributor, &querier] {
        until_ring(tempo, "both partitions with both owners", |ring| {
            ring.len() == 2
                && ring
                    .values()
                    .all(|(state, owners)| *state == ACTIVE && owners.len() == 2)
        });
    }
    let mut maker = TraceMaker::new(5);
    let mut sent = Sent::default();
    for _ in 0..10 {
        sent.push(&distributor, &mut maker, 5);
    }
    sent.until_found(&frontend);

    for partition in 0..2 {
        zones.get_mut(&("a", partition)).unwrap().kill().unwrap();
    }
    // At once: whoever is gone is passed over.
    sent.until_found(&frontend);
    for _ in 0..10 {
        sent.push(&distributor, &mut maker, 5);
    }
    sent.until_found(&frontend);

    for partition in 0..2 {
        zones.get_mut(&("a", partition)).unwrap().start().unwrap();
    }
    until_ring(&querier, "all owners", |ring| {
        ring.values().all(|(_, owners)| owners.len() == 2)
    });
    for partition in 0..2 {
        zones.get_mut(&("b", partition)).unwrap().kill().unwrap();
    }
    // What zone a missed, it has read since.
    sent.until_found(&frontend);
    sent.until_counted(&frontend);
}

#[test]
fn kill_9_at_any_time_loses_and_doubles_nothing() {
    let kafka = Kafka::shared().unwrap();
    let installation = Installation::new(&kafka, 1);
    let mut store = installation.live_store("a", 0);
    store.start().unwrap();
    let distributor = installation.started("distributor", "");
    let (frontend, _querier) = readers(&installation);
    let mut maker = TraceMaker::new(9);
    let mut sent = Sent::default();
    let mut committed = 0.0;
    for round in 0..rounds(6, 60) {
        for _ in 0..5 {
            sent.push(&distributor, &mut maker, 3);
            std::thread::sleep(Duration::from_millis(30 + 97 * (round as u64 % 7)));
        }
        committed += metric(&store, "tempo_live_store_blocks_completed_total");
        store.kill().unwrap();
        store.start().unwrap();
    }
    assert!(committed > 0.0, "no block was completed in between");
    sent.until_found(&frontend);
    sent.until_counted(&frontend);

    // A clean stop leaves nothing to be read again but what is in blocks.
    terminate(&mut store);
    store.start().unwrap();
    sent.until_found(&frontend);
    sent.until_counted(&frontend);
    let processed = || {
        metric(
            &store,
            "tempo_live_store_records_processed_total{tenant=\"single-tenant\"}",
        )
    };
    assert_eq!(processed(), 0.0, "records read once more");
    sent.push(&distributor, &mut maker, 1);
    sent.until_found(&frontend);
    assert!(processed() > 0.0, "records are counted");
}

#[test]
fn a_lost_disk_is_read_again_whole_also_when_that_is_interrupted() {
    let kafka = Kafka::shared().unwrap();
    let installation = Installation::new(&kafka, 1);
    // Blocks are full at once, so that the first is complete long before all is read.
    let mut store = installation.live_store_with("a", 0, "  max_block_bytes: 100_000\n");
    store.start().unwrap();
    let distributor = installation.started("distributor", "");
    let (frontend, _querier) = readers(&installation);
    let mut maker = TraceMaker::new(10);
    let mut sent = Sent::default();
    for _ in 0..LOST_DISK_REQUESTS {
        sent.push(&distributor, &mut maker, 100);
    }
    sent.until_counted(&frontend);
    let log = &installation.log;
    let end = Offsets::new(log, "any")
        .unwrap()
        .watermarks(0)
        .unwrap()
        .high;
    let offsets = Offsets::new(log, "live-store-zone-a").unwrap();
    let committed = || offsets.committed(&[0]).unwrap()[&0].offset;
    eventually("all of it is in blocks of the live-store", || {
        (committed() == end).then_some(())
    });

    store.kill().unwrap();
    for folder in ["live-store", "wal"] {
        let folder = store.data().join(folder);
        if folder.exists() {
            fs::remove_dir_all(folder).unwrap();
        }
    }
    store.start().unwrap();
    eventually("a first block is there", || {
        (metric(&store, "tempo_live_store_blocks_completed_total") > 0.0).then_some(())
    });
    store.kill().unwrap();
    assert!(
        committed() < end,
        "the commit goes back with what is read again"
    );
    store.start().unwrap();
    sent.until_counted(&frontend);
}

#[test]
fn what_only_blocks_hold_is_not_left_out_of_a_count() {
    let kafka = Kafka::shared().unwrap();
    let installation = Installation::new(&kafka, 1);
    let mut store = installation.live_store_with("a", 0, "  complete_block_timeout: 20s\n");
    store.start().unwrap();
    let distributor = installation.started("distributor", "");
    let soon_from_blocks = RECENT_ONLY.replace("1h", "1s");
    let frontend = installation.process("query-frontend", "frontend", &soon_from_blocks, "");
    let (frontend, _querier) = readers_behind(frontend, &installation);
    let mut sent = Sent::default();
    sent.push(&distributor, &mut TraceMaker::new(8), 5);
    sent.until_counted(&frontend);

    let kept = || metric(&store, "tempo_live_store_local_blocks");
    let until_in_blocks = || {
        eventually("all is in blocks of the live-store", || {
            let live = "tempo_live_store_live_traces{tenant=\"single-tenant\"}";
            (kept() > 0.0 && metric(&store, live) == 0.0).then_some(())
        });
    };
    until_in_blocks();

    // While it is stopped it does not hear that all of it is built and no longer kept here.
    frontend.signal("STOP").unwrap();
    let _builder = installation.block_builder();
    eventually("the live-store lets go of what is built", || {
        (kept() == 0.0).then_some(())
    });
    // And still knows it when it starts again with what is younger, which is counted when its
    // interval has ended.
    let built = sent.total() as f64;
    sent.push(&distributor, &mut TraceMaker::new(9), 1);
    until_in_blocks();
    store.kill().unwrap();
    store.start().unwrap();
    thread::scope(|scope| {
        let asked_before_it_goes_on = scope.spawn(|| count(&frontend));
        thread::sleep(Duration::from_millis(200));
        frontend.signal("CONT").unwrap();
        let mut answer = asked_before_it_goes_on.join().unwrap();
        eventually("it is counted in blocks", || {
            let (status, counted) = answer;
            let is_whole = (built..=sent.total() as f64).contains(&counted);
            assert!(status != 200 || is_whole, "{counted} of {built}");
            answer = count(&frontend);
            (status == 200).then_some(())
        });
    });
}

/// `{"timestamp", "state"}`.
fn partition_state(answer: &Response) -> (i64, String) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    (
        json["timestamp"].as_i64().unwrap(),
        json["state"].as_str().unwrap().to_owned(),
    )
}

#[test]
fn a_partition_is_taken_away_as_operators_do() {
    const PARTITION: &str = "/live-store/prepare-partition-downscale";
    const INSTANCE: &str = "/live-store/prepare-downscale";
    let kafka = Kafka::shared().unwrap();
    let installation = Installation::new(&kafka, 2);
    let mut stays = installation.live_store("a", 0);
    stays.start().unwrap();
    let mut goes = installation.live_store("a", 1);
    goes.start().unwrap();
    until_ring(&stays, "two active partitions", |ring| {
        ring.len() == 2 && ring.values().all(|(state, _)| *state == ACTIVE)
    });

    let ask = |method: &str| partition_state(&request(&goes, method, PARTITION));
    assert_eq!(ask("GET"), (0, "PartitionActive".to_owned()));
    let (since, state) = ask("POST");
    assert!(since > 0 && state == "PartitionInactive");
    assert_eq!(ask("POST"), (since, "PartitionInactive".to_owned()));
    assert_eq!(ask("GET"), (since, "PartitionInactive".to_owned()));
    until_ring(&stays, "the change elsewhere", |ring| {
        ring[&1].0 == INACTIVE
    });
    assert_eq!(ask("DELETE"), (0, "PartitionActive".to_owned()));
    assert_eq!(request(&goes, "PUT", PARTITION).status, 405);

    assert_eq!(request(&goes, "GET", INSTANCE).text(), "unset\n");
    assert_eq!(request(&goes, "POST", INSTANCE).status, 409);
    assert_eq!(request(&goes, "GET", INSTANCE).text(), "set\n");
    assert_eq!(request(&goes, "DELETE", INSTANCE).status, 204);
    assert_eq!(request(&goes, "GET", INSTANCE).text(), "unset\n");

    // Locked by hand, on any process.
    let form = |body: &str| {
        let mut client = Client::connect(&stays.http).unwrap();
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        client
            .request("POST", "/partition-ring", &headers, body.as_bytes())
            .unwrap()
            .status
    };
    assert_eq!(
        form("action=state_change_lock&partition_id=1&locked=true"),
        302
    );
    let is_locked = || {
        let page = request(&goes, "GET", "/partition-ring").json();
        page["partitions"][1]["state_change_locked"]
            .as_bool()
            .unwrap()
    };
    eventually("the lock", || is_locked().then_some(()));
    assert_eq!(request(&goes, "POST", PARTITION).status, 500);
    eventually("the lock here", || {
        let page = request(&stays, "GET", "/partition-ring").json();
        page["partitions"][1]["state_change_locked"]
            .as_bool()?
            .then_some(())
    });
    assert_eq!(
        form("action=change_state&partition_id=1&partition_state=PartitionInactive"),
        400
    );
    assert_eq!(
        form("action=state_change_lock&partition_id=1&locked=false"),
        302
    );
    eventually("unlocked", || (!is_locked()).then_some(()));
    assert_eq!(ask("POST").1, "PartitionInactive");

    assert_eq!(request(&goes, "POST", INSTANCE).status, 204);
    terminate(&mut goes);
    until_ring(&stays, "the partition gone", |ring| !ring.contains_key(&1));
    assert_eq!(ring(&stays)[&0].0, ACTIVE);
}

#[test]
fn a_live_store_without_a_number_says_what_is_wrong() {
    let kafka = Kafka::shared().unwrap();
    let installation = Installation::new(&kafka, 1);
    let mut store = installation.process(
        "live-store",
        "nameless",
        "",
        "  ring:\n    instance_id: live-store\n",
    );
    let error = store.start().unwrap_err().to_string();
    assert!(error.contains("does not end in -<number>"), "{error}");
}

#[test]
fn recorded_queries_are_answered_by_live_stores_together() {
    let kafka = Kafka::shared().unwrap();
    let installation = Installation::new(&kafka, 2);
    let mut stores: Vec<Tempo> = (0..2)
        .map(|partition| installation.live_store("a", partition))
        .collect();
    for store in &mut stores {
        store.start().unwrap();
    }
    let distributor = installation.started("distributor", "");
    let (frontend, querier) = readers(&installation);
    for tempo in [&distributor, &querier] {
        until_ring(tempo, "both partitions", |ring| {
            ring.len() == 2 && ring.values().all(|(state, _)| *state == ACTIVE)
        });
    }
    let begin = i64::try_from(unix_seconds() - golden::AGE_SECONDS).unwrap();
    let recorded = Golden::load().moved_to(begin);
    golden::push(&distributor, &recorded);
    let all = recorded.traces().len();
    eventually("all of it is read from Kafka", || {
        (search(&frontend, "{ }").len() == all).then_some(())
    });
    golden::check("live-stores", &frontend, &recorded);
}
