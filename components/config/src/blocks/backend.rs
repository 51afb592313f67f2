//! `backend_scheduler`, `backend_worker`: compaction, retention, redaction.

use crate::block::block;
use crate::blocks::clients::{Backoff, GrpcClient, KvStore, RingStore};
use crate::units::{ByteSize, GoDuration};

block! {
    /// Joining blocks, and forgetting old ones.
    pub struct Compaction {
        /// Blocks of one such span of time are joined.
        used compaction_window: GoDuration = GoDuration::hours(1),
        /// Traces of a joined block.
        used max_compaction_objects: u64 = 6_000_000u64,
        /// Size of a joined block.
        used max_block_bytes: ByteSize = ByteSize(107_374_182_400),
        /// Age at which blocks are removed.
        used block_retention: GoDuration = GoDuration::hours(336),
        /// How long blocks stay after they were joined into another.
        used compacted_block_retention: GoDuration = GoDuration::hours(1),
        /// Blocks removed at once.
        used retention_concurrency: u32 = 10u32,
        /// Not read by Tempo.
        ignored max_time_per_tenant: GoDuration = GoDuration::minutes(5),
        /// Not read by Tempo.
        ignored compaction_cycle: GoDuration = GoDuration::seconds(30),
    }
}

block! {
    /// What the scheduler remembers of jobs.
    pub struct Work {
        /// How long finished jobs are remembered.
        used prune_age: GoDuration = GoDuration::hours(1),
        /// Time after which a job counts as lost.
        used dead_job_timeout: GoDuration = GoDuration::hours(24),
    }
}

block! {
    /// Forgetting old blocks.
    pub struct RetentionProvider {
        /// Time between looks.
        used interval: GoDuration = GoDuration::hours(1),
    }
}

block! {
    /// Joining blocks.
    pub struct CompactionProvider {
        /// Time between measurements.
        ignored measure_interval: GoDuration = GoDuration::minutes(1),
        /// Which blocks are joined.
        used compaction: Compaction = Compaction::default(),
        /// Jobs of a tenant before it is the next one's turn.
        used max_jobs_per_tenant: u32 = 1000u32,
        /// Fewest blocks of a job.
        used min_input_blocks: u32 = 2u32,
        /// Most blocks of a job.
        used max_input_blocks: u32 = 4u32,
        /// Blocks joined more often are left alone; 0 means none.
        used max_compaction_level: u32 = 0u32,
        /// Shortest time between rounds.
        used min_cycle_interval: GoDuration = GoDuration::seconds(30),
    }
}

block! {
    /// Removing spans on request.
    pub struct RedactionProvider {
        /// Time between looks for requests.
        ignored poll_interval: GoDuration = GoDuration::seconds(2),
        /// Time until blocks are looked through again.
        used rescan_delay: GoDuration = GoDuration::minutes(5),
        /// How often blocks are looked through again.
        ignored max_rescan_generations: u32 = 5u32,
    }
}

block! {
    /// Where jobs come from.
    pub struct Providers {
        /// Forgetting old blocks.
        used retention: RetentionProvider = RetentionProvider::default(),
        /// Joining blocks.
        used compaction: CompactionProvider = CompactionProvider::default(),
        /// Removing spans on request.
        used redaction: RedactionProvider = RedactionProvider::default(),
    }
}

block! {
    /// Plans compaction, retention and redaction.
    pub struct BackendScheduler {
        /// What it remembers of jobs.
        used work: Work = Work::default(),
        /// Time between looks for lost jobs.
        used maintenance_interval: GoDuration = GoDuration::minutes(1),
        /// Time between writes of the plan to the store.
        used backend_flush_interval: GoDuration = GoDuration::minutes(1),
        /// Where jobs come from.
        used provider: Providers = Providers::default(),
        /// Longest time to hand out a job.
        used job_timeout: GoDuration = GoDuration::seconds(15),
        /// Folder of the plan.
        used local_work_path: String = "/var/tempo",
    }
}

block! {
    /// How workers reach the scheduler.
    pub struct BackendSchedulerClient {
        /// The client.
        used grpc_client_config: GrpcClient = GrpcClient::default(),
    }
}

block! {
    /// How workers share tenants.
    pub struct WorkerRing {
        /// Where members find each other.
        later kvstore: KvStore = KvStore {
            store: RingStore::None,
            ..KvStore::default()
        },
        /// Time between signs of life.
        later heartbeat_period: GoDuration = GoDuration::seconds(5),
        /// Silence after which a member counts as gone.
        later heartbeat_timeout: GoDuration = GoDuration::minutes(1),
        /// How long the ring must stay the same.
        later wait_stability_min_duration: GoDuration = GoDuration::minutes(1),
        /// Longest time to wait for that.
        later wait_stability_max_duration: GoDuration = GoDuration::minutes(5),
        /// Name of this process; the host name when empty.
        used instance_id: String = "",
        /// Network interfaces to take the own address from.
        later instance_interface_names: Vec<String> = ["eth0", "en0"],
        /// Port to announce; 0 means the gRPC port.
        later instance_port: u16 = 0u16,
        /// Address to announce; empty means that of the interface.
        later instance_addr: String = "",
        /// Announce IPv6 addresses.
        later enable_inet6: bool = false,
        /// Longest time to become a member.
        later wait_active_instance_timeout: GoDuration = GoDuration::minutes(10),
    }
}

block! {
    /// Does what the scheduler plans.
    pub struct BackendWorker {
        /// Host and port of the scheduler.
        used backend_scheduler_addr: String = "",
        /// Waiting between tries.
        used backoff: Backoff = Backoff {
            max_period: GoDuration::minutes(1),
            max_retries: 0,
            ..Backoff::default()
        },
        /// Joining blocks, and forgetting old ones.
        used compaction: Compaction = Compaction::default(),
        /// Key of the ring in its store.
        ignored override_ring_key: String = "backend-worker",
        /// How workers share tenants.
        used ring: WorkerRing = WorkerRing::default(),
        /// Longest time to finish a job at the end.
        used finish_on_shutdown_timeout: GoDuration = GoDuration::seconds(30),
    }
}
