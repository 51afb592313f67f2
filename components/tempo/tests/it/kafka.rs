//! The write path of a distributed installation: distributor, real Kafka, block-builder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use prost::Message;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempo_ingest::{KafkaConfig, Offsets, PartitionConsumer, Polled, StartAt};
use tempo_model::{TraceId, hash::trace_token};
use tempo_proto::tempopb::Trace;
use tempo_testkit::{
    http_client::{self, Client, encode},
    kafka::Kafka,
    process::{Options, Tempo},
    traces::{TraceMaker, encode_request},
};

use crate::{
    cluster::{self, Owners, PATIENCE, caught_up, topic},
    crash::{self, Acknowledged},
    support::{QUICK_GOSSIP, binary, eventually, on_bucket, rounds, terminate, unix_seconds},
};

fn process(target: &str, owners: &Owners, kafka: &KafkaConfig, options: &Options) -> Tempo {
    cluster::process(&binary(), target, owners, kafka, options)
}

fn push(tempo: &Tempo, body: &[u8]) -> http_client::Response {
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("no-generate-metrics", "1"),
    ];
    Client::connect(&tempo.otlp_http)
        .unwrap()
        .request("POST", "/v1/traces", &headers, body)
        .unwrap()
}

#[test]
fn a_distributor_answers_when_kafka_has_the_spans() {
    const PARTITIONS: i32 = 3;
    let kafka = Kafka::shared().unwrap();
    let owners = Owners::of(PARTITIONS, QUICK_GOSSIP);
    let topic = topic(&owners, &kafka, PARTITIONS);
    let mut tempo = process("distributor", &owners, &topic, &Options::default());
    tempo.start().unwrap();

    let mut maker = TraceMaker::new(11);
    let mut sent: BTreeMap<TraceId, usize> = BTreeMap::new();
    let mut answers = BTreeMap::new();
    for _ in 0..20 {
        let traces: Vec<_> = (0..5)
            .map(|_| maker.next_trace(unix_seconds() * 1_000_000_000))
            .collect();
        let body = encode_request(&traces);
        eventually("Kafka takes it", || {
            let answer = push(&tempo, &body);
            *answers.entry(answer.status).or_insert(0) += 1;
            // Until it has heard of a partition, what is sent is to be sent again.
            assert!([200, 503].contains(&answer.status), "{}", answer.text());
            (answer.status == 200).then_some(())
        });
        for trace in traces {
            sent.insert(TraceId::from_bytes(trace.id), trace.spans);
        }
    }
    terminate(&mut tempo);

    let mut found: BTreeMap<TraceId, usize> = BTreeMap::new();
    let ring = owners.first.partitions();
    for partition in 0..PARTITIONS {
        let consumer = PartitionConsumer::open(&topic, partition, StartAt::Beginning).unwrap();
        let begun = Instant::now();
        loop {
            match consumer.poll(Duration::from_secs(5)).unwrap() {
                Polled::Record(record) => {
                    assert_eq!(record.key(), b"single-tenant");
                    let request = record.request().unwrap();
                    assert!(request.skip_metrics_generation);
                    for (id, trace) in request.traces() {
                        assert_eq!(
                            ring.partition_for(trace_token("single-tenant", &id)),
                            Some(partition)
                        );
                        *found.entry(id).or_default() += Trace::decode(trace)
                            .unwrap()
                            .resource_spans
                            .iter()
                            .flat_map(|resource| &resource.scope_spans)
                            .map(|scope| scope.spans.len())
                            .sum::<usize>();
                    }
                }
                Polled::EndOfPartition => break,
                Polled::Nothing => assert!(begun.elapsed() < PATIENCE, "no end"),
            }
        }
    }
    assert_eq!(found, sent);
    the_tool_sees_the_same(&topic, &sent, PARTITIONS);
}

/// The JSON that `tempo kafka` prints.
fn tool(topic: &KafkaConfig, words: &[&str]) -> Vec<serde_json::Value> {
    let output = Command::new(binary())
        .arg("kafka")
        .args(words)
        .args(["--kafka-address", &topic.address, "--topic", &topic.topic])
        .args(["--format", "json"])
        .output()
        .unwrap();
    let problems = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{words:?}: {problems}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// That of every partition all records are counted and shown, and what a group has still to read.
fn the_tool_sees_the_same(topic: &KafkaConfig, sent: &BTreeMap<TraceId, usize>, partitions: i32) {
    let group = format!("group-of-{}", topic.topic);
    let offsets = Offsets::new(topic, &group).unwrap();
    offsets.commit(0, 1).unwrap();
    let lag = tool(topic, &["lag"]);
    assert_eq!(lag.len(), usize::try_from(partitions).unwrap());
    assert_eq!(lag[0]["group"], group.as_str());
    let (records, unread) = (&lag[0]["records"], &lag[0]["lag"]);
    assert_eq!(records.as_i64().unwrap() - 1, unread.as_i64().unwrap());
    assert!(lag[0]["first_unread"].is_string(), "{}", lag[0]);
    assert!(lag[1]["group"].is_null(), "{}", lag[1]);

    let mut shown: BTreeSet<String> = BTreeSet::new();
    for partition in 0..partitions {
        let partition = partition.to_string();
        let records = tool(topic, &["records", &partition, "--limit", "1000"]);
        for record in records {
            assert_eq!(record["tenant"], "single-tenant");
            let ids = record["trace_ids"].as_array().unwrap().iter();
            shown.extend(ids.map(|id| id.as_str().unwrap().to_owned()));
        }
    }
    let sent: BTreeSet<String> = sent.keys().map(TraceId::to_string).collect();
    assert_eq!(shown, sent);
}

/// Rows of all live blocks, and flags that hide blocks from compaction.
fn rows_and_flags(bucket: &Path) -> (i64, usize) {
    let (mut rows, mut flags) = (0, 0);
    for tenant in fs::read_dir(bucket).unwrap().flatten() {
        for block in fs::read_dir(tenant.path()).unwrap().flatten() {
            flags += usize::from(block.path().join("nocompact.flg").exists());
            if let Ok(meta) = fs::read(block.path().join("meta.json")) {
                let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
                rows += meta["totalObjects"].as_i64().unwrap();
            }
        }
    }
    (rows, flags)
}

#[test]
fn kill_9_of_a_block_builder_loses_and_doubles_nothing() {
    const PARTITIONS: i32 = 2;
    let kafka = Kafka::shared().unwrap();
    let owners = Owners::of(PARTITIONS, QUICK_GOSSIP);
    let topic = topic(&owners, &kafka, PARTITIONS);
    let folder = tempfile::tempdir().unwrap();
    let bucket = folder.path().join("bucket");
    let mut distributor = process("distributor", &owners, &topic, &Options::default());
    distributor.start().unwrap();
    let builder_options = Options {
        storage_yaml: Some(format!(
            "    backend: local\n    local:\n      path: {}\n",
            bucket.display()
        )),
        extra_yaml: format!(
            "block_builder:\n  instance_id: block-builder-0\n  partitions_per_instance: {PARTITIONS}\n  consume_cycle_duration: 500ms\n  max_consuming_bytes: 200000\n  wal:\n    path: {}\n",
            folder.path().join("spill").display()
        ),
        ..Options::default()
    };
    let mut builder = process("block-builder", &owners, &topic, &builder_options);
    let acknowledged = Acknowledged::default();
    let mut random = StdRng::seed_from_u64(u64::from(std::process::id()));
    let refused = crash::under_load(&distributor, &acknowledged, || {
        for _ in 0..rounds(8, 100) {
            builder.spawn().unwrap();
            std::thread::sleep(Duration::from_millis(random.random_range(200..2500)));
            builder.kill().unwrap();
        }
    });
    terminate(&mut distributor);
    builder.start().unwrap();
    caught_up(&topic, PARTITIONS);
    terminate(&mut builder);
    // A further start finds the last sections built, and lets their blocks go once there is more.
    let (rows, flags) = rows_and_flags(&bucket);
    let traces = acknowledged.lock().unwrap().len();
    assert!(rows >= traces as i64, "{rows} rows of {traces} traces");
    assert!(
        flags <= 2 * PARTITIONS as usize,
        "{flags} blocks are hidden"
    );

    let reader = on_bucket(&bucket, "");
    crash::check(&reader, &acknowledged);
    // A span that is in two blocks would be counted twice.
    let spans: usize = acknowledged.lock().unwrap().values().sum();
    let now = unix_seconds();
    let path = format!(
        "/api/metrics/query?q={}&start={}&end={}",
        encode("{ } | count_over_time()"),
        now - 3600,
        now + 60
    );
    let answer = http_client::get(&reader.http, &path).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let counted = answer.json()["series"][0]["value"].as_f64().unwrap();
    if refused == 0 {
        assert_eq!(counted, spans as f64);
    } else {
        assert!(counted >= spans as f64);
    }
}

#[test]
fn a_process_without_its_settings_says_which() {
    let owners = Owners::of(1, QUICK_GOSSIP);
    let nowhere = KafkaConfig {
        address: "127.0.0.1:1".to_owned(),
        topic: String::new(),
        ..KafkaConfig::default()
    };
    for (target, yaml, expected) in [
        ("distributor", "", "ingest.kafka.topic"),
        ("block-builder", "", "block_builder.partitions_per_instance"),
    ] {
        let options = Options {
            extra_yaml: yaml.to_owned(),
            ..Options::default()
        };
        let mut tempo = process(target, &owners, &nowhere, &options);
        let error = tempo.start().unwrap_err().to_string();
        assert!(error.contains(expected), "{target}: {error}");
    }
    let unreachable = KafkaConfig {
        topic: "traces".to_owned(),
        ..nowhere
    };
    let mut tempo = process("distributor", &owners, &unreachable, &Options::default());
    let error = tempo.start().unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:1"), "{error}");
}
