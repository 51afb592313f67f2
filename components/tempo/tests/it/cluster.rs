//! A cluster around the process under test: partitions with owners, a topic, other processes.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::{Duration, Instant},
};

use prometheus::Registry;
use tempo_ingest::{KafkaConfig, Offsets, admin, lag};
use tempo_membership::{Instance, Membership};
use tempo_testkit::{
    kafka::Kafka,
    ports,
    process::{Options, Tempo},
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Partitions, each with an owner in this process that takes part in the gossip.
pub(crate) struct Owners {
    runtime: Runtime,
    stop: CancellationToken,
    /// What one of them knows.
    pub(crate) first: Membership,
    seed: String,
    gossip_interval: Duration,
}

pub(crate) fn free_port() -> u16 {
    ports::free_port().unwrap()
}

impl Owners {
    /// They and all processes around them gossip so often.
    pub(crate) fn of(partitions: i32, gossip_interval: Duration) -> Self {
        let runtime = Runtime::new().unwrap();
        let stop = CancellationToken::new();
        let seed = format!("127.0.0.1:{}", free_port());
        let mut first = None;
        for partition in 0..partitions {
            let port = match partition {
                0 => seed.rsplit(':').next().unwrap().parse().unwrap(),
                _ => free_port(),
            };
            let id = format!("live-store-{partition}");
            let config = tempo_membership::Config {
                node_name: id.clone(),
                bind_addr: IpAddr::V4(Ipv4Addr::LOCALHOST),
                bind_port: port,
                join_members: vec![seed.clone()],
                gossip_interval,
                min_partition_owners_duration: Duration::ZERO,
                instance: Some(Instance {
                    id,
                    partition,
                    read_only: false,
                    zone: String::new(),
                    grpc_host: None,
                    grpc_port: 1,
                    create_partition: true,
                    log_was_empty: true,
                    remove_owner_on_shutdown: true,
                }),
                ..tempo_membership::Config::default()
            };
            let (membership, service) = runtime
                .block_on(tempo_membership::build(config, &Registry::new()))
                .unwrap();
            runtime.spawn(service.run(stop.clone()));
            first.get_or_insert(membership);
        }
        let first = first.unwrap();
        let begun = Instant::now();
        while first.partitions().active().count() < partitions as usize {
            assert!(begun.elapsed() < PATIENCE, "partitions never become active");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            runtime,
            stop,
            first,
            seed,
            gossip_interval,
        }
    }
}

impl Drop for Owners {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A topic with as many partitions.
pub(crate) fn topic(owners: &Owners, kafka: &Kafka, partitions: i32) -> KafkaConfig {
    new_topic(&owners.runtime, kafka, partitions)
}

/// A topic with as many partitions, without owners.
pub(crate) fn new_topic(runtime: &Runtime, kafka: &Kafka, partitions: i32) -> KafkaConfig {
    let config = KafkaConfig {
        address: kafka.bootstrap().to_owned(),
        topic: format!("tempo-{}", free_port()),
        auto_create_partitions: Some(partitions),
        ..KafkaConfig::default()
    };
    runtime.block_on(admin::ensure_topic(&config)).unwrap();
    config
}

/// A process of another target than `all`, not started yet.
pub(crate) fn process(
    binary: &Path,
    target: &str,
    owners: &Owners,
    kafka: &KafkaConfig,
    options: &Options,
) -> Tempo {
    let options = Options {
        extra_yaml: format!(
            "target: {target}\n\
             memberlist:\n  bind_addr: [127.0.0.1]\n  bind_port: {}\n  gossip_interval: {}ms\n  join_members: ['{}']\n\
             ingest:\n  kafka:\n    address: {}\n    topic: {}\n    auto_create_topic_enabled: false\n{}",
            free_port(),
            owners.gossip_interval.as_millis(),
            owners.seed,
            kafka.address,
            kafka.topic,
            options.extra_yaml
        ),
        ..options.clone()
    };
    Tempo::configure(binary, &options).unwrap()
}

/// Waits until the block-builders have got through everything.
pub(crate) fn caught_up(kafka: &KafkaConfig, partitions: i32) {
    let offsets = Offsets::new(kafka, "block-builder").unwrap();
    let all: Vec<i32> = (0..partitions).collect();
    let begun = Instant::now();
    loop {
        let left = lag::lag(&offsets, &all).unwrap();
        if left.iter().all(|(_, records)| *records == 0) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "not caught up: {left:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
