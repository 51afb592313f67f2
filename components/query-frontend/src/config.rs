//! The settings of the query-frontend, resolved.

use std::time::Duration;

use crate::Error;

/// Settings, with Tempo's defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Path in front of every route; empty for none.
    pub http_api_prefix: String,
    /// Whether requests must name their tenant. Off, all belong to one.
    pub multitenancy_enabled: bool,
    /// Whether one request may ask several tenants (`a|b`).
    pub multi_tenant_queries_enabled: bool,
    /// Jobs of one tenant that may wait for a querier; more are refused with status 429.
    pub max_outstanding_jobs_per_tenant: usize,
    /// How often a job is tried in all; 0 and 1 both mean once.
    pub max_attempts: u32,
    /// How long a request may take, when it may not take for ever.
    pub api_timeout: Option<Duration>,
    /// How long before now a search ends: newer data may not have arrived.
    pub query_end_cutoff: Duration,
    /// Longest query text, in bytes; 0 for any.
    pub max_query_expression_bytes: usize,
    /// Requests whose URL matches one of these regular expressions are refused.
    pub url_deny_list: Vec<String>,
    /// Names of query rewrites that are never applied.
    pub skip_ast_transformations: Vec<String>,
    /// Largest message of a stream, in bytes; 0 for any.
    pub max_grpc_streaming_packet_bytes: usize,
    /// Longest wait for running queries when the process ends.
    pub max_drain: Duration,
    /// Request headers that are logged with each query.
    pub log_query_request_headers: Vec<String>,
    /// Whether language models may ask, at `/api/mcp`.
    pub mcp_server_enabled: bool,
    /// Settings of searches.
    pub search: SearchConfig,
    /// Settings of trace lookups.
    pub trace_by_id: TraceByIdConfig,
    /// Settings of TraceQL metrics.
    pub metrics: MetricsConfig,
    /// How much jobs count when tenants take turns.
    pub weights: WeightsConfig,
}

/// How much jobs count when tenants take turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightsConfig {
    /// Whether heavy jobs count more than light ones.
    pub request_with_weights: bool,
    /// Whether a job counts more each time it is tried again.
    pub retry_with_weights: bool,
    /// From so many conditions on a query is heavy.
    pub max_traceql_conditions: u32,
    /// From so many regular expressions on a query is heavy.
    pub max_regex_conditions: u32,
}

impl Default for WeightsConfig {
    fn default() -> Self {
        Self {
            request_with_weights: true,
            retry_with_weights: true,
            max_traceql_conditions: 4,
            max_regex_conditions: 1,
        }
    }
}

/// Settings of searches; those of tag names and values too.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchConfig {
    /// Jobs of one request in flight.
    pub concurrent_jobs: usize,
    /// Block bytes per job.
    pub target_bytes_per_job: u64,
    /// Traces answered when the request names no limit.
    pub default_result_limit: u32,
    /// Largest limit; 0 for any.
    pub max_result_limit: u32,
    /// Longest range; zero for any.
    pub max_duration: Duration,
    /// Data older than this is read from blocks, younger from live-stores.
    pub query_backend_after: Duration,
    /// Into how many pieces the recent part of a search is cut, by time.
    pub ingester_shards: u32,
    /// Into how many runs the block jobs are cut, by time.
    pub most_recent_shards: usize,
    /// Spans per span set when the request does not say.
    pub default_spans_per_span_set: u32,
    /// Most spans per span set; 0 for any.
    pub max_spans_per_span_set: u32,
    /// The bounds within which a search counts as fast enough.
    pub slo: Slo,
    /// The same for tag names and values.
    pub metadata_slo: Slo,
}

/// Settings of trace lookups.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceByIdConfig {
    /// Jobs of a lookup when `blocks_per_shard` is 0.
    pub query_shards: u32,
    /// Blocks per job; 0 for a fixed number of jobs.
    pub blocks_per_shard: u32,
    /// Jobs of one request in flight; 0 for all at once.
    pub concurrent_shards: usize,
    /// The bounds within which a lookup counts as fast enough.
    pub slo: Slo,
}

/// Settings of TraceQL metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsConfig {
    /// Jobs of one request in flight.
    pub concurrent_jobs: usize,
    /// Block bytes per job.
    pub target_bytes_per_job: u64,
    /// Longest range; zero for any.
    pub max_duration: Duration,
    /// Spans that start longer ago than this are counted in blocks, others in live-stores.
    pub query_backend_after: Duration,
    /// Most exemplars of an answer, and how many when the request does not say.
    pub max_exemplars: u32,
    /// Most series of an answer; 0 for any number.
    pub max_response_series: u32,
    /// Into how many runs the block jobs are cut, by time.
    pub streaming_shards: usize,
    /// Most intervals of a range; 0 for as many as there may be at all, a million.
    pub max_intervals: u64,
    /// Memory for the series of one query, in bytes; a query that needs more is refused.
    pub max_series_bytes_per_query: usize,
    /// Memory for the series of all queries that run at once, in bytes; a query that finds none
    /// left is refused for the moment.
    pub max_series_bytes_of_all_queries: usize,
    /// The bounds within which a query counts as fast enough.
    pub slo: Slo,
}

/// When a query counts as fast enough: if any bound that is set is kept.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Slo {
    /// It took less than this.
    pub duration: Option<Duration>,
    /// It read at least so many bytes per second.
    pub throughput_bytes_per_second: Option<f64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            http_api_prefix: String::new(),
            multitenancy_enabled: false,
            multi_tenant_queries_enabled: true,
            max_outstanding_jobs_per_tenant: 2_000,
            max_attempts: 2,
            api_timeout: None,
            query_end_cutoff: Duration::from_secs(30),
            max_query_expression_bytes: 128 * 1024,
            url_deny_list: Vec::new(),
            skip_ast_transformations: Vec::new(),
            max_grpc_streaming_packet_bytes: 1024 * 1024,
            max_drain: Duration::from_secs(30),
            log_query_request_headers: Vec::new(),
            mcp_server_enabled: false,
            search: SearchConfig::default(),
            trace_by_id: TraceByIdConfig::default(),
            metrics: MetricsConfig::default(),
            weights: WeightsConfig::default(),
        }
    }
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self {
            concurrent_jobs: 1_000,
            target_bytes_per_job: 100 * 1024 * 1024,
            default_result_limit: 20,
            max_result_limit: 256 * 1024,
            max_duration: Duration::from_secs(168 * 3_600),
            query_backend_after: Duration::from_secs(15 * 60),
            ingester_shards: 3,
            most_recent_shards: 200,
            default_spans_per_span_set: 3,
            max_spans_per_span_set: 100,
            slo: Slo::default(),
            metadata_slo: Slo::default(),
        }
    }
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            concurrent_jobs: 1_000,
            target_bytes_per_job: 100 * 1024 * 1024,
            max_duration: Duration::from_secs(24 * 3_600),
            query_backend_after: Duration::from_secs(15 * 60),
            max_exemplars: 100,
            max_response_series: 0,
            streaming_shards: 200,
            max_intervals: 10_000,
            max_series_bytes_per_query: 128 * 1024 * 1024,
            max_series_bytes_of_all_queries: 512 * 1024 * 1024,
            slo: Slo::default(),
        }
    }
}

impl Default for TraceByIdConfig {
    fn default() -> Self {
        Self {
            query_shards: 50,
            blocks_per_shard: 30,
            concurrent_shards: 0,
            slo: Slo::default(),
        }
    }
}

impl Config {
    /// Refuses what cannot work, before anything is started.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse =
            |setting: &'static str, problem: String| Err(Error::Setting { setting, problem });
        let search = &self.search;
        let metrics = &self.metrics;
        if !(2..=100_000).contains(&self.trace_by_id.query_shards) {
            return refuse(
                "query_frontend.trace_by_id.query_shards",
                format!(
                    "{} is not between 2 and 100000",
                    self.trace_by_id.query_shards
                ),
            );
        }
        for (setting, value) in [
            (
                "query_frontend.search.concurrent_jobs",
                search.concurrent_jobs as u64,
            ),
            (
                "query_frontend.search.target_bytes_per_job",
                search.target_bytes_per_job,
            ),
            (
                "query_frontend.search.most_recent_shards",
                search.most_recent_shards as u64,
            ),
            (
                "query_frontend.search.ingester_shards",
                u64::from(search.ingester_shards),
            ),
            (
                "query_frontend.metrics.concurrent_jobs",
                metrics.concurrent_jobs as u64,
            ),
            (
                "query_frontend.metrics.target_bytes_per_job",
                metrics.target_bytes_per_job,
            ),
            (
                "query_frontend.metrics.streaming_shards",
                metrics.streaming_shards as u64,
            ),
            (
                "query_frontend.max_outstanding_per_tenant",
                self.max_outstanding_jobs_per_tenant as u64,
            ),
        ] {
            if value == 0 {
                return refuse(setting, "must be greater than 0".to_owned());
            }
        }
        if self.query_end_cutoff > search.query_backend_after {
            return refuse(
                "query_frontend.query_end_cutoff",
                format!(
                    "{:?} is longer than query_frontend.search.query_backend_after ({:?}): data \
                     between the two would never be searched",
                    self.query_end_cutoff, search.query_backend_after
                ),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        assert!(Config::default().check().is_ok());
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            match config.check() {
                Err(Error::Setting { setting, .. }) => setting,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            refused(|config| config.trace_by_id.query_shards = 1),
            "query_frontend.trace_by_id.query_shards"
        );
        assert_eq!(
            refused(|config| config.search.concurrent_jobs = 0),
            "query_frontend.search.concurrent_jobs"
        );
        assert_eq!(
            refused(|config| config.metrics.streaming_shards = 0),
            "query_frontend.metrics.streaming_shards"
        );
        assert_eq!(
            refused(|config| config.query_end_cutoff = Duration::from_secs(3_600)),
            "query_frontend.query_end_cutoff"
        );
    }
}
