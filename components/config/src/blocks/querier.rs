//! `querier`: answering jobs of the query-frontend.

use crate::block::block;
use crate::blocks::clients::GrpcClient;
use crate::units::GoDuration;

block! {
    /// Search.
    pub struct SearchQuerier {
        /// Longest time of a job.
        used query_timeout: GoDuration = GoDuration::seconds(30),
    }
}

block! {
    /// Another system to ask for traces.
    pub struct External {
        /// Its address.
        later endpoint: String = "",
        /// Longest time to ask.
        later timeout: GoDuration = GoDuration::seconds(10),
    }
}

block! {
    /// Traces by id.
    pub struct TraceByIdQuerier {
        /// Longest time of a job.
        used query_timeout: GoDuration = GoDuration::seconds(10),
        /// Another system to ask for traces.
        used external: External = External::default(),
    }
}

block! {
    /// TraceQL metrics.
    pub struct MetricsQuerier {
        /// Not read by Tempo.
        ignored concurrent_blocks: u32 = 2u32,
        /// Below this share of a block in the time range, times of traces are looked at first.
        later time_overlap_cutoff: f64 = 0.2,
    }
}

block! {
    /// Which live-stores are asked.
    pub struct PartitionRingQuerier {
        /// Ask one owner of each partition first.
        used minimize_requests: bool = true,
        /// Time after which another owner is asked.
        used hedging_delay: GoDuration = GoDuration::seconds(3),
        /// Availability zone to ask first.
        used preferred_zone: String = "",
    }
}

block! {
    /// How a querier gets its jobs.
    pub struct FrontendWorker {
        /// Host and port of the query-frontends.
        used frontend_address: String = "",
        /// Time between looks for query-frontends.
        used dns_lookup_duration: GoDuration = GoDuration::seconds(10),
        /// Jobs at once per query-frontend.
        used parallelism: u32 = 2u32,
        /// Share `max_concurrent_queries` among query-frontends instead.
        used match_max_concurrent: bool = true,
        /// Name of this process; the host name when empty.
        used id: String = "",
        /// The client. Of it only `connect_timeout` counts; messages are not compressed.
        used grpc_client_config: GrpcClient = GrpcClient::worker(),
    }
}

block! {
    /// Answering jobs of the query-frontend.
    pub struct Querier {
        /// Search.
        used search: SearchQuerier = SearchQuerier::default(),
        /// Traces by id.
        used trace_by_id: TraceByIdQuerier = TraceByIdQuerier::default(),
        /// TraceQL metrics.
        used metrics: MetricsQuerier = MetricsQuerier::default(),
        /// Which live-stores are asked.
        used partition_ring: PartitionRingQuerier = PartitionRingQuerier::default(),
        /// Not read by Tempo.
        ignored extra_query_delay: GoDuration = GoDuration::ZERO,
        /// Jobs at once.
        used max_concurrent_queries: u32 = 20u32,
        /// How a querier gets its jobs.
        used frontend_worker: FrontendWorker = FrontendWorker::default(),
        /// Not read by Tempo.
        ignored shuffle_sharding_ingesters_enabled: bool = false,
        /// Not read by Tempo.
        ignored shuffle_sharding_ingesters_lookback_period: GoDuration = GoDuration::hours(1),
        /// Not read by Tempo.
        ignored query_relevant_ingesters: bool = false,
        /// Not read by Tempo.
        ignored secondary_ingester_ring: String = "",
    }
}
