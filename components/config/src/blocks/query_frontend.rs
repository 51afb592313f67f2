//! `query_frontend`: taking queries apart and putting answers together.

use crate::block::block;
use crate::units::{ByteSize, CommaList, GoDuration};

block! {
    /// What a query should keep to count as good in the metrics.
    pub struct Slo {
        /// Longest time; 0 means none.
        used duration_slo: GoDuration = GoDuration::ZERO,
        /// Bytes per second that excuse a longer time; 0 means none.
        used throughput_bytes_slo: f64 = 0.0,
    }
}

block! {
    /// Search, and tags.
    pub struct SearchFrontend {
        /// Jobs of a query at once.
        used concurrent_jobs: u32 = 1000u32,
        /// Bytes that a job should read.
        used target_bytes_per_job: ByteSize = ByteSize(104_857_600),
        /// Traces when the request does not say.
        used default_result_limit: u32 = 20u32,
        /// Most traces that a request may ask for; 0 means any number.
        used max_result_limit: u32 = 262_144u32,
        /// Longest time range; 0 means any.
        used max_duration: GoDuration = GoDuration::hours(168),
        /// Age from which blocks are searched, not only live-stores.
        used query_backend_after: GoDuration = GoDuration::minutes(15),
        /// Parts into which recent time is split.
        used ingester_shards: u32 = 3u32,
        /// Parts into which blocks are split when the newest traces are asked for.
        used most_recent_shards: u32 = 200u32,
        /// Spans per span set when the request does not say.
        used default_spans_per_span_set: u32 = 3u32,
        /// Most spans per span set that a request may ask for; 0 means any number.
        used max_spans_per_span_set: u32 = 100u32,
        /// Not read by Tempo.
        ignored timeout: GoDuration = GoDuration::ZERO,
        /// The same for tags and their values.
        used metadata_slo: Slo = Slo::default(),
        ..slo: Slo = Slo::default(),
    }
}

block! {
    /// Traces by id.
    pub struct TraceByIdFrontend {
        /// Parts into which blocks are split; 2 to 100000.
        used query_shards: u32 = 50u32,
        /// Blocks of a part; the number of parts follows. 0 means `query_shards` parts.
        used blocks_per_shard: u32 = 30u32,
        /// Parts at once; 0 means all.
        used concurrent_shards: u32 = 0u32,
        /// Ask `querier.trace_by_id.external`, too.
        later external_enabled: bool = false,
        /// Leave out spans that say little, in requests that ask for it.
        later span_pruning_enabled: bool = false,
        /// Leave them out in all requests.
        later span_pruning_enabled_by_default: bool = false,
        ..slo: Slo = Slo::default(),
    }
}

block! {
    /// TraceQL metrics.
    pub struct MetricsFrontend {
        /// Jobs of a query at once.
        used concurrent_jobs: u32 = 1000u32,
        /// Bytes that a job should read.
        used target_bytes_per_job: ByteSize = ByteSize(104_857_600),
        /// Longest time range; 0 means any.
        used max_duration: GoDuration = GoDuration::hours(24),
        /// Age from which blocks are read, not only live-stores.
        used query_backend_after: GoDuration = GoDuration::minutes(15),
        /// Not read by Tempo, but must not be 0.
        ignored interval: GoDuration = GoDuration::minutes(5),
        /// Most exemplars of a query.
        used max_exemplars: u32 = 100u32,
        /// Most series of an answer; 0 means any number.
        used max_response_series: u32 = 0u32,
        /// Parts of an answer that is streamed.
        used streaming_shards: u32 = 200u32,
        /// Most steps of a query; 0 means any number.
        used max_intervals: u64 = 10_000u64,
        ..slo: Slo = Slo::default(),
    }
}

block! {
    /// How much queries weigh when they wait.
    pub struct Weights {
        /// Let heavy queries count more.
        used request_with_weights: bool = true,
        /// Let retries count more.
        used retry_with_weights: bool = true,
        /// Conditions from which a query is heavy.
        used max_traceql_conditions: u32 = 4u32,
        /// Patterns from which a query is heavy.
        used max_regex_conditions: u32 = 1u32,
    }
}

block! {
    /// A server for language models.
    pub struct McpServer {
        /// Serve /api/mcp.
        used enabled: bool = false,
    }
}

block! {
    /// Taking queries apart and putting answers together.
    pub struct QueryFrontend {
        /// Jobs that wait per tenant; more are refused.
        used max_outstanding_per_tenant: u32 = 2000u32,
        /// Jobs that a querier of Tempo takes at once; here each of its streams takes one.
        ignored max_batch_size: u32 = 7u32,
        /// Headers that are logged with each query.
        used log_query_request_headers: CommaList = CommaList::default(),
        /// Tries of a job after the first.
        used max_retries: u32 = 2u32,
        /// Search, and tags.
        used search: SearchFrontend = SearchFrontend::default(),
        /// Traces by id.
        used trace_by_id: TraceByIdFrontend = TraceByIdFrontend::default(),
        /// TraceQL metrics.
        used metrics: MetricsFrontend = MetricsFrontend::default(),
        /// Let a request ask for several tenants (`a|b`).
        used multi_tenant_queries_enabled: bool = true,
        /// Answers put together at once.
        later response_consumers: u32 = 10u32,
        /// How much queries weigh when they wait.
        used weights: Weights = Weights::default(),
        /// A server for language models.
        used mcp_server: McpServer = McpServer::default(),
        /// Longest time of a request; 0 means any.
        used api_timeout: GoDuration = GoDuration::ZERO,
        /// Patterns of paths that are refused.
        used url_deny_list: Vec<String> = [""; 0],
        /// Largest message of a streamed answer.
        used max_grpc_streaming_packet_size: ByteSize = ByteSize(1_048_576),
        /// Longest TraceQL text; 0 means any.
        used max_query_expression_size_bytes: ByteSize = ByteSize(131_072),
        /// Headers that reach queriers.
        later allowed_headers: Vec<String> = [""; 0],
        /// Deprecated; has no effect.
        ignored rf1_after: String = "",
        /// The end of a query is not later than this before now.
        used query_end_cutoff: GoDuration = GoDuration::seconds(30),
        /// Rewrites of TraceQL to leave out: or_to_in, all.
        used skip_ast_transformations: Vec<String> = [""; 0],
    }
}
