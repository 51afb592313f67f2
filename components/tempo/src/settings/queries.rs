//! Asking.

use std::time::Duration;

use tempo_config::{Config, Target, blocks::query_frontend};
use tempo_querier::{LiveStoresConfig, WorkerConfig};
use tempo_query_frontend::{MetricsConfig, SearchConfig, Slo, TraceByIdConfig, WeightsConfig};

use super::{UnusableSetting, client_tls, host_name, not_zero};

fn slo(slo: &query_frontend::Slo) -> Slo {
    Slo {
        duration: not_zero(slo.duration_slo.0),
        throughput_bytes_per_second: (slo.throughput_bytes_slo > 0.0)
            .then_some(slo.throughput_bytes_slo),
    }
}

pub(crate) fn frontend(config: &Config) -> tempo_query_frontend::Config {
    let frontend = &config.query_frontend;
    let search = &frontend.search;
    let trace_by_id = &frontend.trace_by_id;
    let metrics = &frontend.metrics;
    // The cutoff covers the lag of consumers behind a log. In one process there is none: a span is
    // searchable when it is acknowledged.
    let lagging = config.target != Target::All || config.is_set("query_frontend.query_end_cutoff");
    tempo_query_frontend::Config {
        http_api_prefix: config.http_api_prefix.clone(),
        multitenancy_enabled: config.multitenancy(),
        multi_tenant_queries_enabled: frontend.multi_tenant_queries_enabled,
        max_outstanding_jobs_per_tenant: frontend.max_outstanding_per_tenant as usize,
        max_attempts: frontend.max_retries,
        api_timeout: not_zero(frontend.api_timeout.0),
        query_end_cutoff: if lagging {
            frontend.query_end_cutoff.0
        } else {
            Duration::ZERO
        },
        max_query_expression_bytes: frontend.max_query_expression_size_bytes.0 as usize,
        url_deny_list: frontend.url_deny_list.clone(),
        skip_ast_transformations: frontend.skip_ast_transformations.clone(),
        max_grpc_streaming_packet_bytes: frontend.max_grpc_streaming_packet_size.0 as usize,
        max_drain: config.server.graceful_shutdown_timeout.0,
        log_query_request_headers: frontend.log_query_request_headers.0.clone(),
        mcp_server_enabled: frontend.mcp_server.enabled,
        search: SearchConfig {
            concurrent_jobs: search.concurrent_jobs as usize,
            target_bytes_per_job: search.target_bytes_per_job.0,
            default_result_limit: search.default_result_limit,
            max_result_limit: search.max_result_limit,
            max_duration: search.max_duration.0,
            query_backend_after: search.query_backend_after.0,
            ingester_shards: search.ingester_shards,
            most_recent_shards: search.most_recent_shards as usize,
            default_spans_per_span_set: search.default_spans_per_span_set,
            max_spans_per_span_set: search.max_spans_per_span_set,
            slo: slo(&search.slo),
            metadata_slo: slo(&search.metadata_slo),
        },
        trace_by_id: TraceByIdConfig {
            query_shards: trace_by_id.query_shards,
            blocks_per_shard: trace_by_id.blocks_per_shard,
            concurrent_shards: trace_by_id.concurrent_shards as usize,
            slo: slo(&trace_by_id.slo),
        },
        metrics: MetricsConfig {
            concurrent_jobs: metrics.concurrent_jobs as usize,
            target_bytes_per_job: metrics.target_bytes_per_job.0,
            max_duration: metrics.max_duration.0,
            query_backend_after: metrics.query_backend_after.0,
            max_exemplars: metrics.max_exemplars,
            max_response_series: metrics.max_response_series,
            streaming_shards: metrics.streaming_shards as usize,
            max_intervals: metrics.max_intervals,
            slo: slo(&metrics.slo),
            ..MetricsConfig::default()
        },
        weights: WeightsConfig {
            request_with_weights: frontend.weights.request_with_weights,
            retry_with_weights: frontend.weights.retry_with_weights,
            max_traceql_conditions: frontend.weights.max_traceql_conditions,
            max_regex_conditions: frontend.weights.max_regex_conditions,
        },
    }
}

pub(crate) fn querier(config: &Config) -> tempo_querier::Config {
    tempo_querier::Config {
        max_concurrent_jobs: config.querier.max_concurrent_queries as usize,
        trace_by_id_query_timeout: config.querier.trace_by_id.query_timeout.0,
        search_query_timeout: config.querier.search.query_timeout.0,
        compacted_block_lookback: config.storage.trace.blocklist_poll.0 * 2,
        ..tempo_querier::Config::default()
    }
}

/// How a querier of its own process finds its jobs.
pub(crate) fn worker(config: &Config) -> Result<WorkerConfig, UnusableSetting> {
    let worker = &config.querier.frontend_worker;
    let client = &worker.grpc_client_config;
    let defaults = WorkerConfig::default();
    Ok(WorkerConfig {
        frontend_address: worker.frontend_address.clone(),
        dns_lookup_interval: worker.dns_lookup_duration.0,
        parallelism: worker.parallelism as usize,
        match_max_concurrent: worker.match_max_concurrent,
        querier_id: match worker.id.as_str() {
            "" => host_name(),
            id => id.to_owned(),
        },
        connect_timeout: not_zero(client.connect_timeout.0).unwrap_or(defaults.connect_timeout),
        tls: client_tls("querier.frontend_worker.grpc_client_config", client)?,
        ..defaults
    })
}

/// How far back queries ask nobody but live-stores.
pub(super) fn asked_of_live_stores(config: &Config) -> Duration {
    let frontend = &config.query_frontend;
    let search = frontend.search.query_backend_after.0;
    search.max(frontend.metrics.query_backend_after.0)
}

/// After so long an inactive partition without owners has all of its spans in blocks that are known.
pub(crate) fn partition_forgotten_after(config: &Config) -> Duration {
    asked_of_live_stores(config) + config.storage.trace.blocklist_poll.0
}

/// How a querier of its own process asks live-stores.
pub(crate) fn live_stores(config: &Config) -> Result<LiveStoresConfig, UnusableSetting> {
    let ring = &config.querier.partition_ring;
    let client = &config.live_store_client.grpc_client_config;
    let defaults = LiveStoresConfig::default();
    Ok(LiveStoresConfig {
        minimize_requests: ring.minimize_requests,
        hedging_delay: ring.hedging_delay.0,
        preferred_zone: ring.preferred_zone.clone(),
        connect_timeout: not_zero(client.connect_timeout.0).unwrap_or(defaults.connect_timeout),
        tls: client_tls("live_store_client.grpc_client_config", client)?,
        // Its last span is then asked of blocks, and queriers have listed the block that it is in.
        partition_forgotten_after: partition_forgotten_after(config),
        ..defaults
    })
}
