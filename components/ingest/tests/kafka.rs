//! Against real brokers, which `scripts/kafka.sh` starts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus::Registry;
use tempo_ingest::{
    Compression, Credentials, Error, Fence, FenceError, KafkaConfig, MAX_RECORD_BYTES, Offsets,
    PartitionConsumer, Polled, ProduceError, Producer, Sasl, StartAt, Tls,
    admin::{self, TopicSettings},
    lag, record,
};
use tempo_model::TraceId;
use tempo_testkit::kafka::{Kafka, KafkaOptions};

const PATIENCE: Duration = Duration::from_secs(60);

static TOPICS: AtomicU32 = AtomicU32::new(0);

/// Settings for a topic that nobody else has.
fn config(kafka: &Kafka, partitions: i32) -> KafkaConfig {
    KafkaConfig {
        address: kafka.bootstrap().to_owned(),
        topic: format!("traces-{}", TOPICS.fetch_add(1, Ordering::Relaxed)),
        auto_create_partitions: Some(partitions),
        write_timeout: Duration::from_secs(30),
        ..KafkaConfig::default()
    }
}

fn producer(config: &KafkaConfig) -> Producer {
    Producer::new(config.clone(), &Registry::new()).unwrap()
}

fn value(seed: u8) -> Vec<u8> {
    let trace = vec![seed; 300];
    let id = TraceId::from_padded(&[seed, 1]);
    record::encode([(id, trace.as_slice())].into_iter(), false, 1 << 20)
        .unwrap()
        .remove(0)
}

type Seen = Vec<(i64, String, Vec<u8>)>;

/// Reads until the end of the partition.
fn read(config: &KafkaConfig, partition: i32, start: StartAt) -> Seen {
    let consumer = PartitionConsumer::open(config, partition, start).unwrap();
    let begun = Instant::now();
    let mut seen = Vec::new();
    loop {
        match consumer.poll(Duration::from_secs(5)).unwrap() {
            Polled::Record(record) => {
                assert!(record.timestamp_millis() > 1_700_000_000_000);
                assert_eq!(record.request().unwrap().len(), 1);
                seen.push((
                    record.offset(),
                    String::from_utf8(record.key().to_vec()).unwrap(),
                    record.value().to_vec(),
                ));
            }
            Polled::EndOfPartition => return seen,
            Polled::Nothing => assert!(begun.elapsed() < PATIENCE, "the end never came"),
        }
    }
}

async fn blocking<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(ask).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_read_back_in_order() {
    let kafka = blocking(|| Kafka::shared().unwrap()).await;
    for compression in [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let config = KafkaConfig {
            compression,
            ..config(&kafka, 3)
        };
        assert_eq!(admin::partition_count(&config).await.unwrap(), None);
        assert_eq!(admin::ensure_topic(&config).await.unwrap(), 3);
        let producer = producer(&config);
        for round in 0..4_u8 {
            let values = [value(round * 2), value(round * 2 + 1)];
            producer.send(1, "tenant-1", &values).await.unwrap();
        }
        assert_eq!(producer.buffered_bytes(), 0);
        let read_back = blocking(move || {
            assert_eq!(read(&config, 0, StartAt::Beginning), []);
            assert_eq!(read(&config, 1, StartAt::Offset(6)).len(), 2);
            read(&config, 1, StartAt::Beginning)
        })
        .await;
        let expected: Seen = (0..8)
            .map(|n| (i64::from(n), "tenant-1".to_owned(), value(n)))
            .collect();
        assert_eq!(read_back, expected, "{compression:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_only_if_wanted_and_can_grow() {
    let kafka = blocking(|| Kafka::shared().unwrap()).await;
    let wanted = config(&kafka, 2);
    let unwanted = KafkaConfig {
        auto_create_partitions: None,
        ..wanted.clone()
    };
    assert!(matches!(
        admin::ensure_topic(&unwanted).await,
        Err(Error::UnknownPartition { .. })
    ));
    assert_eq!(admin::ensure_topic(&wanted).await.unwrap(), 2);
    assert_eq!(admin::ensure_topic(&unwanted).await.unwrap(), 2);
    admin::create_partitions(&wanted, 5).await.unwrap();
    assert_eq!(admin::partition_count(&wanted).await.unwrap(), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_have_offsets_lag_and_times() {
    let kafka = blocking(|| Kafka::shared().unwrap()).await;
    let config = config(&kafka, 2);
    admin::ensure_topic(&config).await.unwrap();
    let values: Vec<_> = (0..5).map(value).collect();
    producer(&config).send(0, "t", &values).await.unwrap();
    blocking(move || {
        let offsets = Offsets::new(&config, "live-store-zone-a").unwrap();
        assert!(offsets.committed(&[0, 1]).unwrap().is_empty());
        assert_eq!(lag::lag(&offsets, &[0, 1]).unwrap(), [(0, 5), (1, 0)]);
        offsets.commit(0, 3).unwrap();
        let committed = offsets.committed(&[0, 1]).unwrap();
        assert_eq!(committed.len(), 1);
        assert_eq!((committed[&0].offset, &*committed[&0].metadata), (3, ""));
        assert_eq!(lag::lag(&offsets, &[0]).unwrap(), [(0, 2)]);
        assert_eq!(offsets.first_at_or_after(0, 0).unwrap(), Some(0));
        assert_eq!(offsets.first_at_or_after(0, i64::MAX / 2).unwrap(), None);
        let ends = offsets.watermarks(0).unwrap();
        assert_eq!((ends.low, ends.high), (0, 5));
        assert!(matches!(
            offsets.watermarks(7),
            Err(Error::UnknownPartition { .. })
        ));
        // Another group has offsets of its own.
        let other = Offsets::new(&config, "block-builder").unwrap();
        assert!(other.committed(&[0]).unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_overtaken_commits_nothing_any_more() {
    let kafka = blocking(|| Kafka::shared().unwrap()).await;
    let config = config(&kafka, 2);
    admin::ensure_topic(&config).await.unwrap();
    blocking(move || {
        let first = Fence::raise(&config, "block-builder", 0).unwrap();
        assert_eq!(first.committed().unwrap(), None);
        first.commit(10, "until=20").unwrap();
        let elsewhere = Fence::raise(&config, "block-builder", 1).unwrap();
        let second = Fence::raise(&config, "block-builder", 0).unwrap();
        let found = second.committed().unwrap().unwrap();
        assert_eq!((found.offset, found.metadata.as_str()), (10, "until=20"));
        for _ in 0..2 {
            assert!(matches!(
                first.commit(99, ""),
                Err(FenceError::Overtaken { partition: 0, .. })
            ));
        }
        second.commit(20, "").unwrap();
        second.commit(20, "again").unwrap();
        elsewhere.commit(5, "").unwrap();
        let offsets = Offsets::new(&config, "block-builder").unwrap();
        let committed = offsets.committed(&[0, 1]).unwrap();
        assert_eq!((committed[&0].offset, committed[&1].offset), (20, 5));
        assert_eq!(committed[&0].metadata, "again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_beyond_a_limit_are_refused_by_what_is_to_be_done() {
    let kafka = blocking(|| Kafka::shared().unwrap()).await;
    // Random bytes, so that compression does not help.
    let mut state = 1_u64;
    let mut noise = |bytes: usize| -> Vec<u8> {
        (0..bytes)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect()
    };
    let config = KafkaConfig {
        max_buffered_bytes: 3_000_000,
        ..config(&kafka, 1)
    };
    // What a topic takes that is made by hand.
    let by_hand = TopicSettings {
        partitions: 1,
        replication_factor: None,
        settings: &[("max.message.bytes", "1048588")],
    };
    admin::create_topic(&config, &by_hand).await.unwrap();
    let producer = producer(&config);
    let refused = producer.send(0, "t", &[noise(2_000_000)]).await;
    assert_eq!(
        refused,
        Err(ProduceError::RecordTooLarge { bytes: 2_000_000 })
    );
    let refused = producer.send(0, "t", &[noise(4_000_000)]).await;
    assert!(matches!(refused, Err(ProduceError::BufferFull { .. })));
    producer.send(0, "t", &[noise(900_000)]).await.unwrap();
    // Small records are not refused for the company they are in.
    let many: Vec<Vec<u8>> = (0..20).map(|_| noise(100_000)).collect();
    producer.send(0, "t", &many).await.unwrap();
    assert_eq!(producer.buffered_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_ours_takes_and_gives_the_largest_record() {
    let kafka = blocking(|| Kafka::shared().unwrap()).await;
    let config = config(&kafka, 1);
    admin::ensure_topic(&config).await.unwrap();
    let producer = producer(&KafkaConfig {
        compression: Compression::None,
        ..config.clone()
    });
    let sizes = [MAX_RECORD_BYTES, 1, MAX_RECORD_BYTES];
    for bytes in sizes {
        producer.send(0, "t", &[vec![7; bytes]]).await.unwrap();
    }
    // Each is more than is asked for at once.
    let read = blocking(move || {
        let consumer = PartitionConsumer::open(&config, 0, StartAt::Beginning).unwrap();
        let begun = Instant::now();
        let mut read = Vec::new();
        while read.len() < sizes.len() && begun.elapsed() < PATIENCE {
            if let Polled::Record(record) = consumer.poll(Duration::from_secs(1)).unwrap() {
                read.push(record.value().len());
            }
        }
        read
    });
    assert_eq!(read.await, sizes);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_brokers_a_write_ends_in_time() {
    let config = KafkaConfig {
        address: tempo_testkit::ports::free_address().unwrap(),
        topic: "traces".to_owned(),
        write_timeout: Duration::from_secs(1),
        ..KafkaConfig::default()
    };
    let refused = producer(&config).send(0, "t", &[value(1)]).await;
    assert_eq!(
        refused,
        Err(ProduceError::Timeout {
            partition: 0,
            seconds: 1
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_log_in_by_every_mechanism_over_tls() {
    let kafka = blocking(|| Kafka::shared().unwrap()).await;
    let open = config(&kafka, 1);
    admin::ensure_topic(&open).await.unwrap();
    let who = |password: &str| Credentials {
        username: "tempo".to_owned(),
        password: password.to_owned(),
    };
    let tls = Tls {
        ca_path: Some(kafka.setting("KAFKA_CA_FILE").into()),
        ..Tls::default()
    };
    let secure = |listener: &str, sasl: Sasl, tls: Option<Tls>| KafkaConfig {
        address: kafka.setting(listener).to_owned(),
        sasl,
        tls,
        offset_timeout: Duration::from_secs(5),
        ..open.clone()
    };
    let good = [
        secure("KAFKA_BOOTSTRAP_SSL", Sasl::Off, Some(tls.clone())),
        secure(
            "KAFKA_BOOTSTRAP_SASL_SSL",
            Sasl::Plain(who("secret")),
            Some(tls.clone()),
        ),
        secure(
            "KAFKA_BOOTSTRAP_SASL_SSL",
            Sasl::ScramSha256(who("secret")),
            Some(tls.clone()),
        ),
        secure(
            "KAFKA_BOOTSTRAP_SASL_SSL",
            Sasl::ScramSha512(who("secret")),
            Some(Tls {
                insecure_skip_verify: true,
                ..Tls::default()
            }),
        ),
        secure(
            "KAFKA_BOOTSTRAP_SASL_PLAINTEXT",
            Sasl::ScramSha256(who("secret")),
            None,
        ),
    ];
    for config in &good {
        producer(config).send(0, "t", &[value(1)]).await.unwrap();
        assert_eq!(admin::partition_count(config).await.unwrap(), Some(1));
    }
    let wrong = secure(
        "KAFKA_BOOTSTRAP_SASL_SSL",
        Sasl::ScramSha256(who("wrong")),
        Some(tls),
    );
    assert!(admin::partition_count(&wrong).await.is_err());
    let untrusted = secure("KAFKA_BOOTSTRAP_SSL", Sasl::Off, Some(Tls::default()));
    assert!(admin::partition_count(&untrusted).await.is_err());
    let read_back = blocking(move || read(&open, 0, StartAt::Beginning)).await;
    assert_eq!(read_back.len(), good.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_outlive_a_broker_and_come_once() {
    let kafka = blocking(|| {
        let options = KafkaOptions {
            brokers: 3,
            ..KafkaOptions::default()
        };
        Arc::new(Kafka::start(&options).unwrap())
    })
    .await;
    let config = config(&kafka, 1);
    admin::ensure_topic(&config).await.unwrap();
    let producer = producer(&config);
    let mut acknowledged = Vec::new();
    for round in 0..30_u8 {
        if round == 10 || round == 20 {
            let kafka = Arc::clone(&kafka);
            let broker = u16::from(round / 10);
            blocking(move || {
                if broker == 2 {
                    kafka.start_broker(1).unwrap();
                }
                kafka.kill_broker(broker).unwrap();
            })
            .await;
        }
        if producer.send(0, "t", &[value(round)]).await.is_ok() {
            acknowledged.push(value(round));
        }
    }
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    let seen = blocking(move || read(&config, 0, StartAt::Beginning)).await;
    for value in acknowledged {
        let times = seen.iter().filter(|(_, _, found)| *found == value).count();
        assert_eq!(times, 1);
    }
}

#[test]
fn a_commit_ends_whichever_broker_is_lost() {
    let (done, ended) = std::sync::mpsc::channel();
    // One that hangs would keep a runtime from ending, too.
    let commits = std::thread::spawn(move || {
        commit_while_brokers_are_lost();
        let _ = done.send(());
    });
    match ended.recv_timeout(10 * PATIENCE) {
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("a commit never ends"),
        _ => commits.join().unwrap(),
    }
}

fn commit_while_brokers_are_lost() {
    let options = KafkaOptions {
        brokers: 3,
        ..KafkaOptions::default()
    };
    let kafka = Kafka::start(&options).unwrap();
    let config = config(&kafka, 1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(admin::ensure_topic(&config)).unwrap();
    let raise = || {
        let begun = Instant::now();
        loop {
            match Fence::raise(&config, "builders", 0) {
                Ok(fence) => return fence,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
        }
    };
    let mut fence = raise();
    for broker in 1..=3 {
        // One of them keeps the group's offsets, and one the transaction.
        let before = i64::from(broker) * 10;
        let after = before + 1;
        for offset in [before, after] {
            while fence.commit(offset, "").is_err() {
                fence = raise();
            }
            if offset == before {
                kafka.kill_broker(broker).unwrap();
            }
        }
        let committed = fence.committed().unwrap().unwrap();
        assert_eq!(committed.offset, after);
        kafka.start_broker(broker).unwrap();
    }
}
