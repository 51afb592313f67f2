//! `ingest`, `block_builder`: the Kafka log between components.

use std::collections::BTreeMap;

use crate::block::block;
use crate::blocks::clients::ClientTls;
use crate::units::{ByteSize, GoDuration, Secret};

block! {
    /// The Kafka log between components of a distributed installation.
    pub struct Ingest {
        /// Kafka.
        used kafka: Kafka = Kafka::default(),
    }
}

block! {
    /// Kafka.
    pub struct Kafka {
        /// Host and port of a broker.
        used address: String = "localhost:9092",
        /// Topic.
        used topic: String = "",
        /// Name of this client.
        used client_id: String = "",
        /// Rack of this client, to read from near brokers.
        used client_rack: String = "",
        /// Longest time to connect.
        used dial_timeout: GoDuration = GoDuration::seconds(2),
        /// Longest time to write a record.
        used write_timeout: GoDuration = GoDuration::seconds(10),
        /// PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or AWS_MSK_IAM.
        used sasl_mechanism: String = "PLAIN",
        /// User name; PLAIN without name and password means no login.
        used sasl_username: String = "",
        /// Password.
        used sasl_password: Secret = Secret::default(),
        /// OAUTHBEARER: token.
        used sasl_oauthbearer_token: Secret = Secret::default(),
        /// OAUTHBEARER: authorization id.
        later sasl_oauthbearer_zid: String = "",
        /// OAUTHBEARER: extensions.
        later sasl_oauthbearer_extensions: BTreeMap<String, String> = BTreeMap::new(),
        /// OAUTHBEARER: file with the token (JSON).
        used sasl_oauthbearer_file_path: String = "",
        /// OAUTHBEARER: Unix socket to ask for the token.
        used sasl_oauthbearer_http_socket_path: String = "",
        /// OAUTHBEARER: longest time to ask.
        used sasl_oauthbearer_http_socket_timeout: GoDuration = GoDuration::seconds(10),
        /// AWS_MSK_IAM: access key.
        later sasl_msk_iam_access_key: String = "",
        /// AWS_MSK_IAM: secret key.
        later sasl_msk_iam_secret_key: Secret = Secret::default(),
        /// AWS_MSK_IAM: session token.
        later sasl_msk_iam_session_token: Secret = Secret::default(),
        /// AWS_MSK_IAM: name of this client.
        later sasl_msk_iam_user_agent: String = "",
        /// AWS_MSK_IAM: file with the keys (JSON).
        later sasl_msk_iam_file_path: String = "",
        /// AWS_MSK_IAM: Unix socket to ask for the keys.
        later sasl_msk_iam_http_socket_path: String = "",
        /// AWS_MSK_IAM: longest time to ask.
        later sasl_msk_iam_http_socket_timeout: GoDuration = GoDuration::seconds(10),
        /// Use TLS.
        used tls_enabled: bool = false,
        /// Consumer group; set by each component.
        ignored consumer_group: String = "",
        /// Time between commits.
        ignored consumer_group_offset_commit_interval: GoDuration = GoDuration::seconds(1),
        /// Longest time to ask for the last offset.
        used last_produced_offset_retry_timeout: GoDuration = GoDuration::seconds(10),
        /// Create the topic when it is missing.
        used auto_create_topic_enabled: bool = true,
        /// Partitions of a topic that is created.
        used auto_create_topic_default_partitions: i32 = 1000,
        /// Largest record; 1048576 to 15983616.
        used producer_max_record_size_bytes: ByteSize = ByteSize(15_983_616),
        /// Records that wait to be written; 0 means any number.
        used producer_max_buffered_bytes: ByteSize = ByteSize(1_073_741_824),
        /// none, gzip, snappy, lz4 or zstd; empty means the library's choice.
        used producer_compression: String = "",
        /// Lag to reach at start.
        ignored target_consumer_lag_at_startup: GoDuration = GoDuration::seconds(2),
        /// Lag to accept at start.
        ignored max_consumer_lag_at_startup: GoDuration = GoDuration::seconds(15),
        /// Do not tell brokers about this client.
        used disable_kafka_telemetry: bool = false,
        /// Time between measurements of the lag.
        used consumer_group_lag_metric_update_interval: GoDuration = GoDuration::minutes(1),
        ..tls: ClientTls = ClientTls::default(),
    }
}

impl Kafka {
    /// As Tempo's distributor has it, where it has no effect.
    pub(crate) fn zero() -> Self {
        Self {
            address: String::new(),
            dial_timeout: GoDuration::ZERO,
            write_timeout: GoDuration::ZERO,
            sasl_mechanism: String::new(),
            sasl_oauthbearer_http_socket_timeout: GoDuration::ZERO,
            sasl_msk_iam_http_socket_timeout: GoDuration::ZERO,
            consumer_group_offset_commit_interval: GoDuration::ZERO,
            last_produced_offset_retry_timeout: GoDuration::ZERO,
            auto_create_topic_enabled: false,
            auto_create_topic_default_partitions: 0,
            producer_max_record_size_bytes: ByteSize(0),
            producer_max_buffered_bytes: ByteSize(0),
            target_consumer_lag_at_startup: GoDuration::ZERO,
            max_consumer_lag_at_startup: GoDuration::ZERO,
            consumer_group_lag_metric_update_interval: GoDuration::ZERO,
            ..Self::default()
        }
    }
}

block! {
    /// A write-ahead log on disk.
    pub struct Wal {
        /// Folder.
        used path: String = "/var/tempo/wal",
        /// How far span times may lie from now to count for the time range of a block.
        used ingestion_time_range_slack: GoDuration = GoDuration::minutes(2),
    }
}

impl Wal {
    pub(crate) fn at(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            ..Self::default()
        }
    }
}

block! {
    /// Blocks that the block-builder writes.
    pub struct BuilderBlock {
        /// Not read by Tempo.
        ignored max_block_bytes: ByteSize = ByteSize(20_971_520),
    }
}

block! {
    /// Builds blocks from Kafka, in a distributed installation.
    pub struct BlockBuilder {
        /// Name of this process; the host name when empty.
        used instance_id: String = "",
        /// Partitions by name of the process.
        used assigned_partitions: BTreeMap<String, Vec<i32>> = BTreeMap::new(),
        /// Partitions per process, counted by the number at the end of its name.
        used partitions_per_instance: u32 = 0u32,
        /// Time between two rounds.
        used consume_cycle_duration: GoDuration = GoDuration::minutes(5),
        /// Bytes of one round; 0 means any number.
        used max_consuming_bytes: ByteSize = ByteSize(5_000_000_000),
        /// Bytes of a round that are held in memory; what is more is sorted below `wal.path`. At least
        /// a 256th of `max_consuming_bytes`. Not a key of Tempo.
        used max_buffered_bytes: ByteSize = ByteSize(268_435_456),
        /// Blocks that are written.
        used block: BuilderBlock = BuilderBlock::default(),
        /// Write-ahead log.
        used wal: Wal = Wal::at("/var/tempo/block-builder/traces"),
    }
}
