//! `live_store`, `live_store_client`: recent traces.

use crate::block::block;
use crate::blocks::clients::{GrpcClient, KvStore, Ring};
use crate::blocks::ingest::Wal;
use crate::units::{ByteSize, GoDuration};

block! {
    /// Which live-store owns which partition.
    pub struct PartitionRing {
        /// Where members find each other.
        used kvstore: KvStore = KvStore::default(),
        /// Owners that a partition needs to become active.
        used min_partition_owners_count: u32 = 1u32,
        /// How long the owners must have been there.
        used min_partition_owners_duration: GoDuration = GoDuration::seconds(10),
        /// Time after which an inactive partition is forgotten.
        used delete_inactive_partition_after: GoDuration = GoDuration::hours(13),
        /// Partition under which a monolith is read by the queriers of a distributed installation;
        /// negative means none. Choose one that the topic will never have. Not a key of Tempo.
        used partition_id: i32 = -1,
    }
}

block! {
    /// Metrics queries over recent traces.
    pub struct LiveStoreMetrics {
        /// Below this share of a block in the time range, times of traces are looked at first.
        later time_overlap_cutoff: f64 = 0.2,
    }
}

block! {
    /// Holds recent traces, and writes blocks in a monolith.
    pub struct LiveStore {
        /// How live-stores find each other.
        used ring: Ring = Ring::default(),
        /// Which live-store owns which partition.
        used partition_ring: PartitionRing = PartitionRing::default(),
        /// Metrics queries over recent traces.
        later metrics: LiveStoreMetrics = LiveStoreMetrics::default(),
        /// Time between commits to Kafka.
        used commit_interval: GoDuration = GoDuration::seconds(5),
        /// Write-ahead log and blocks on disk.
        used wal: Wal = Wal::at("/var/tempo/live-store/traces"),
        /// Blocks searched at once.
        later query_block_concurrency: u32 = 10u32,
        /// Time that a complete block stays searchable here.
        used complete_block_timeout: GoDuration = GoDuration::minutes(20),
        /// Blocks completed at once.
        used complete_block_concurrency: u32 = 2u32,
        /// Time between forgetting a block and removing its files.
        later block_reclaim_grace: GoDuration = GoDuration::minutes(2),
        /// Folder of the mark that a drain is under way.
        used shutdown_marker_dir: String = "/var/tempo/live-store/shutdown-marker",
        /// Time between looks for traces and blocks to cut.
        used flush_check_period: GoDuration = GoDuration::seconds(5),
        /// Longest time to complete or write a block.
        later flush_op_timeout: GoDuration = GoDuration::minutes(5),
        /// Age at which a trace is cut, even when spans keep coming.
        used max_trace_live: GoDuration = GoDuration::seconds(30),
        /// Silence after which a trace is cut.
        used max_trace_idle: GoDuration = GoDuration::seconds(5),
        /// Bytes of live traces per tenant; beyond, spans are refused.
        used max_live_traces_bytes: ByteSize = ByteSize(250_000_000),
        /// Age at which a block is cut.
        used max_block_duration: GoDuration = GoDuration::seconds(30),
        /// Size at which a block is cut.
        used max_block_bytes: ByteSize = ByteSize(52_428_800),
        /// Lag behind Kafka at which the process is ready; 0 means at once.
        used readiness_target_lag: GoDuration = GoDuration::ZERO,
        /// Longest time to wait for that.
        used readiness_max_wait: GoDuration = GoDuration::minutes(30),
        /// Refuse queries when the lag is high.
        used fail_on_high_lag: bool = true,
        /// Leave the ring at the end.
        used remove_owner_on_shutdown: bool = true,
    }
}

block! {
    /// Connections to live-stores. Here each is checked as long as it is used.
    pub struct ClientPool {
        /// Time between looks for gone members.
        ignored checkinterval: GoDuration = GoDuration::seconds(15),
        /// Ask members whether they are well.
        ignored healthcheckenabled: bool = true,
        /// Longest time to ask.
        ignored healthchecktimeout: GoDuration = GoDuration::seconds(1),
        /// Time after which a sick member is dropped.
        ignored healthcheckgraceperiod: GoDuration = GoDuration::ZERO,
        /// Questions at once; 0 means the library's choice.
        ignored maxconcurrenthealthchecks: u32 = 0u32,
    }
}

block! {
    /// How queriers reach live-stores, in a distributed installation.
    pub struct LiveStoreClient {
        /// Connections.
        ignored pool_config: ClientPool = ClientPool::default(),
        /// Longest time for a request. Here it is that of the job.
        ignored remote_timeout: GoDuration = GoDuration::seconds(5),
        /// The client. Of it only `connect_timeout` counts; messages are not compressed.
        used grpc_client_config: GrpcClient = GrpcClient::default(),
    }
}
