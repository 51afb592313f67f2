//! Several distributors, several tenants: who gets which partitions, and who may send how much.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tempo_ingest::{KafkaConfig, PartitionConsumer, Polled, StartAt};
use tempo_testkit::{
    http_client::{Client, Response},
    kafka::Kafka,
    process::{Options, Tempo},
    traces::{TraceMaker, encode_request},
};

use crate::{
    cluster::{self, Owners, PATIENCE, topic},
    support::{QUICK_GOSSIP, binary, eventually, terminate, unix_seconds},
};

fn distributor(owners: &Owners, topic: &KafkaConfig, yaml: &str) -> Tempo {
    let options = Options {
        extra_yaml: yaml.to_owned(),
        ..Options::default()
    };
    let mut tempo = cluster::process(&binary(), "distributor", owners, topic, &options);
    tempo.start().unwrap();
    tempo
}

fn push(tempo: &Tempo, tenant: &str, body: &[u8]) -> Response {
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("x-scope-orgid", tenant),
    ];
    Client::connect(&tempo.otlp_http)
        .unwrap()
        .request("POST", "/v1/traces", &headers, body)
        .unwrap()
}

/// The tenants of a partition's records.
fn tenants_of(topic: &KafkaConfig, partition: i32) -> BTreeSet<String> {
    let consumer = PartitionConsumer::open(topic, partition, StartAt::Beginning).unwrap();
    let begun = Instant::now();
    let mut tenants = BTreeSet::new();
    loop {
        match consumer.poll(Duration::from_secs(5)).unwrap() {
            Polled::Record(record) => {
                tenants.insert(String::from_utf8(record.key().to_vec()).unwrap());
            }
            Polled::EndOfPartition => return tenants,
            Polled::Nothing => assert!(begun.elapsed() < PATIENCE, "no end"),
        }
    }
}

#[test]
fn a_tenant_has_as_many_partitions_as_its_shard() {
    const PARTITIONS: i32 = 8;
    const SHARD: usize = 2;
    let kafka = Kafka::shared().unwrap();
    let owners = Owners::of(PARTITIONS, QUICK_GOSSIP);
    let topic = topic(&owners, &kafka, PARTITIONS);
    let yaml = format!(
        "multitenancy_enabled: true\noverrides:\n  defaults:\n    ingestion:\n      tenant_shard_size: {SHARD}\n"
    );
    let mut distributor = distributor(&owners, &topic, &yaml);
    let page = || {
        let mut client = Client::connect(&distributor.http).unwrap();
        let json = [("accept", "application/json")];
        client
            .request("GET", "/partition-ring", &json, &[])
            .unwrap()
    };
    eventually("all partitions are active", || {
        let page = page().json();
        let partitions = page["partitions"].as_array()?;
        let active = partitions.iter().filter(|one| one["state"] == 2).count();
        (active == PARTITIONS as usize).then_some(())
    });
    let mut maker = TraceMaker::new(3);
    let tenants = ["a", "b", "c", "d"];
    for tenant in tenants {
        // So many that each partition of a tenant has some.
        let traces: Vec<_> = (0..100)
            .map(|_| maker.next_trace(unix_seconds() * 1_000_000_000))
            .collect();
        let answer = push(&distributor, tenant, &encode_request(&traces));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    terminate(&mut distributor);

    let mut used: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        for tenant in tenants_of(&topic, partition) {
            used.entry(tenant).or_default().insert(partition);
        }
    }
    let ring = owners.first.partitions();
    for tenant in tenants {
        let shard = ring.shuffle_shard(tenant, SHARD);
        let shard: BTreeSet<i32> = shard.active().map(|partition| partition.id).collect();
        assert_eq!(shard.len(), SHARD);
        assert_eq!(used[tenant], shard, "tenant {tenant}");
    }
    let together: BTreeSet<i32> = used.into_values().flatten().collect();
    assert!(together.len() > SHARD, "tenants are spread: {together:?}");
}

#[test]
fn distributors_share_a_global_rate() {
    let kafka = Kafka::shared().unwrap();
    let owners = Owners::of(1, QUICK_GOSSIP);
    let topic = topic(&owners, &kafka, 1);
    let yaml = "overrides:\n  defaults:\n    ingestion:\n      rate_strategy: global\n      rate_limit_bytes: 1000\n      burst_size_bytes: 10\n";
    let trace = TraceMaker::new(4).next_trace(unix_seconds() * 1_000_000_000);
    let body = encode_request(&[trace]);
    let until_told = |distributor: &Tempo, rates: &str| {
        eventually(rates, || {
            let refused = push(distributor, "single-tenant", &body);
            // Until it has heard of the partition.
            if refused.status == 503 {
                return None;
            }
            assert_eq!(refused.status, 429, "{}", refused.text());
            refused.text().contains(rates).then_some(())
        });
    };
    let one = distributor(&owners, &topic, yaml);
    until_told(&one, "local: 1000 bytes/s, global: 1000 bytes/s");
    let mut other = distributor(&owners, &topic, yaml);
    for distributor in [&one, &other] {
        until_told(distributor, "local: 500 bytes/s, global: 1000 bytes/s");
    }
    other.kill().unwrap();
    until_told(&one, "local: 1000 bytes/s, global: 1000 bytes/s");
}
