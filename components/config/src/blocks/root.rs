//! The top of the configuration.

use crate::block::block;
use crate::blocks::backend::{BackendScheduler, BackendSchedulerClient, BackendWorker};
use crate::blocks::cache::Cache;
use crate::blocks::clients::Backoff;
use crate::blocks::distributor::Distributor;
use crate::blocks::ingest::{BlockBuilder, Ingest};
use crate::blocks::live_store::{LiveStore, LiveStoreClient};
use crate::blocks::memberlist::Memberlist;
use crate::blocks::metrics_generator::MetricsGenerator;
use crate::blocks::overrides::Overrides;
use crate::blocks::querier::Querier;
use crate::blocks::query_frontend::QueryFrontend;
use crate::blocks::server::{InternalServer, Server};
use crate::blocks::storage::Storage;
use crate::target::Target;
use crate::units::{Anything, GoDuration};

block! {
    /// The limit of Go's memory management, which does not exist here.
    pub struct Memory {
        /// Take it from the control group.
        ignored automemlimit_enabled: bool = false,
        /// Share of the control group's limit.
        ignored automemlimit_ratio: f64 = 0.8,
    }
}

block! {
    /// Reports to the makers of Tempo, which are never sent from here.
    pub struct UsageReport {
        /// Send reports.
        ignored reporting_enabled: bool = true,
        /// Waiting between tries.
        ignored backoff: Backoff = Backoff {
            max_retries: 0,
            ..Backoff::default()
        },
    }
}

block! {
    /// Everything that can be configured.
    pub struct RawConfig {
        /// Which components this process runs.
        used target: Target = Target::All,
        /// Deprecated for `multitenancy_enabled`.
        used auth_enabled: bool = false,
        /// Take the tenant of every request from X-Scope-OrgID, and refuse requests without.
        used multitenancy_enabled: bool = false,
        /// How long to go on serving, but not ready, before stopping.
        used shutdown_delay: GoDuration = GoDuration::ZERO,
        /// Serve gRPC on the HTTP port, too.
        used stream_over_http_enabled: bool = false,
        /// Prefix of the paths of the HTTP API.
        used http_api_prefix: String = "",
        /// Metrics of the Go runtime, which does not exist here.
        ignored enable_go_runtime_metrics: bool = false,
        /// Profiles by own traces.
        ignored span_profiling: bool = false,
        /// The limit of Go's memory management, which does not exist here.
        ignored memory: Memory = Memory::default(),
        /// The main listeners, HTTP and gRPC, and logging.
        used server: Server = Server::default(),
        /// A second HTTP listener for health checks and metrics.
        later internal_server: InternalServer = InternalServer::default(),
        /// Receiving spans.
        used distributor: Distributor = Distributor::default(),
        /// Deprecated; has no effect.
        ignored metrics_generator_client: Anything = Anything::default(),
        /// How queriers reach live-stores, in a distributed installation.
        used live_store_client: LiveStoreClient = LiveStoreClient::default(),
        /// Answering jobs of the query-frontend.
        used querier: Querier = Querier::default(),
        /// Taking queries apart and putting answers together.
        used query_frontend: QueryFrontend = QueryFrontend::default(),
        /// Prometheus metrics from spans.
        later metrics_generator: MetricsGenerator = MetricsGenerator::default(),
        /// The Kafka log between components of a distributed installation.
        used ingest: Ingest = Ingest::default(),
        /// Builds blocks from Kafka, in a distributed installation.
        used block_builder: BlockBuilder = BlockBuilder::default(),
        /// Storage.
        used storage: Storage = Storage::default(),
        /// Limits and switches per tenant.
        used overrides: Overrides = Overrides::default(),
        /// Who is alive, in a distributed installation.
        used memberlist: Memberlist = Memberlist::default(),
        /// Reports to the makers of Tempo, which are never sent from here.
        ignored usage_report: UsageReport = UsageReport::default(),
        /// Caches of the object store.
        used cache: Cache = Cache::default(),
        /// Plans compaction, retention and redaction.
        used backend_scheduler: BackendScheduler = BackendScheduler::default(),
        /// How workers reach the scheduler.
        used backend_scheduler_client: BackendSchedulerClient = BackendSchedulerClient::default(),
        /// Does what the scheduler plans.
        used backend_worker: BackendWorker = BackendWorker::default(),
        /// Holds recent traces, and writes blocks in a monolith.
        used live_store: LiveStore = LiveStore::default(),
    }
}
