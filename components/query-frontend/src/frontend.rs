//! The parts of the frontend, put together.

use std::{sync::Arc, time::Duration};

use regex::RegexSet;
use tempo_api::{
    BadRequest,
    job::JobError,
    params::{Clamp, QueryParams, TimeRange},
};
use tempo_backend::{Blocklist, cache::Cache};
use tempo_proto::{
    tempopb::streaming_querier_server::StreamingQuerierServer,
    tempostack::query::v1::queue_server::QueueServer,
};
use tempo_traceql::{Query, hints::names};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Error, LimitsSource, QueueHandle, ReadLimits, StreamingService,
    accounting::Accounting,
    config::Slo,
    error::QueryError,
    http,
    metrics::{Op, QueryMetrics, QueueMetrics},
    pull::{self, PullService},
    results::Results,
    run::Runner,
    series_memory::SeriesMemory,
    tenants::Tenants,
};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Largest message that is sent or received over gRPC.
const MAX_GRPC_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Tells the time, in nanoseconds since the epoch.
pub type NowNanos = Arc<dyn Fn() -> i64 + Send + Sync>;

/// How far the object store has everything that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuiltUntil {
    /// As far as the settings promise: spans older than `query_backend_after` are there.
    AsConfigured,
    /// Spans that began before this unix second are; later ones may be at live-stores alone.
    UnixSeconds(i64),
    /// Not known yet.
    Unknown,
    /// Told, but no list of the tenants' blocks is young enough to go by it.
    Outdated {
        /// How long ago they were last listed; `None` when they never were.
        listed: Option<Duration>,
    },
}

/// Tells how far the object store has everything that came of these tenants.
pub type TellBuiltUntil = Arc<dyn Fn(&[Arc<str>]) -> BuiltUntil + Send + Sync>;

/// What the frontend needs from others.
pub struct Deps<'a> {
    /// Which blocks there are.
    pub blocklist: Blocklist,
    /// What tenants may read.
    pub limits: Arc<dyn LimitsSource>,
    /// Where answers of jobs on blocks are kept for whoever asks the same again; nowhere if `None`.
    pub results: Option<Cache>,
    /// The clock.
    pub now_nanos: NowNanos,
    /// Block-builders may be behind: then more is asked of live-stores than the settings say.
    pub built_until: TellBuiltUntil,
    /// Where metrics are registered.
    pub registry: &'a prometheus::Registry,
}

/// The frontend as others see it. Clones share it.
#[derive(Clone)]
pub struct Handle {
    frontend: Arc<Frontend>,
}

impl Handle {
    /// The routes of the query API, prefix included.
    pub fn router(&self) -> axum::Router {
        http::router(Arc::clone(&self.frontend))
    }

    /// The gRPC service that streams partial answers.
    pub fn streaming_service(&self) -> StreamingQuerierServer<StreamingService> {
        StreamingQuerierServer::new(StreamingService::new(Arc::clone(&self.frontend)))
            .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_GRPC_MESSAGE_BYTES)
    }

    /// The gRPC service by which queriers of other processes take jobs.
    pub fn pull_service(&self) -> QueueServer<PullService> {
        let max_series_bytes = self.frontend.config.metrics.max_series_bytes_per_query;
        pull::service(self.queue(), max_series_bytes)
    }

    /// The queue from which queriers take jobs.
    pub fn queue(&self) -> QueueHandle {
        self.frontend.runner.queue.clone()
    }

    /// Whether queries can be answered; the error is what a readiness page shows.
    pub fn ready(&self) -> Result<(), String> {
        match self.frontend.runner.queue.connected_queriers() {
            0 => Err(
                "Query Frontend not ready: not ready: number of queriers connected to \
                 query-frontend is 0"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }
}

/// Which times are looked for where, in nanoseconds since the epoch.
///
/// Block-builders of some partitions may be behind, and others not. Then live-stores have all that
/// came since a time before `query_backend_after`, and blocks have a part of it. Where a trace counts
/// once however often it is found, both are asked for that time; spans are counted at live-stores,
/// which keep all of it for that long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Division {
    /// Later spans are looked for at live-stores.
    pub(crate) recent_from_nanos: u64,
    /// Spans up to there are looked for in blocks.
    pub(crate) blocks_until_nanos: u64,
}

/// The running frontend.
pub struct Service {
    queue: QueueHandle,
    max_drain: Duration,
}

impl Service {
    /// Serves until `shutdown`, then lets the queries that run end, and lets the queriers go.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.cancelled().await;
        let drained = tokio::time::timeout(self.max_drain, self.queue.idle()).await;
        if drained.is_err() {
            tracing::warn!(patience = ?self.max_drain, "queries cut off at shutdown");
        }
        self.queue.close();
    }
}

/// Checks the settings and makes the frontend.
pub fn build(config: Config, deps: Deps<'_>) -> Result<(Handle, Service), Error> {
    config.check()?;
    let deny_list = RegexSet::new(&config.url_deny_list).map_err(|error| Error::Setting {
        setting: "query_frontend.url_deny_list",
        problem: error.to_string(),
    })?;
    let max_drain = config.max_drain;
    let metrics = QueryMetrics::register(deps.registry)?;
    let queue = QueueHandle::new(
        config.max_outstanding_jobs_per_tenant,
        QueueMetrics::register(deps.registry)?,
    );
    let runner = Runner {
        queue: queue.clone(),
        metrics: metrics.clone(),
        max_attempts: config.max_attempts.max(1),
        weights: config.weights.clone(),
        results: deps
            .results
            .map(|cache| Results::new(cache, config.metrics.max_series_bytes_per_query)),
    };
    let series_memory = SeriesMemory::new(config.metrics.max_series_bytes_of_all_queries);
    let frontend = Frontend {
        config,
        deny_list,
        blocklist: deps.blocklist,
        limits: deps.limits,
        now_nanos: deps.now_nanos,
        built_until: deps.built_until,
        metrics,
        series_memory,
        runner,
    };
    let handle = Handle {
        frontend: Arc::new(frontend),
    };
    Ok((handle, Service { queue, max_drain }))
}

/// Everything that queries share.
pub(crate) struct Frontend {
    pub(crate) config: Config,
    deny_list: RegexSet,
    pub(crate) blocklist: Blocklist,
    pub(crate) limits: Arc<dyn LimitsSource>,
    now_nanos: NowNanos,
    built_until: TellBuiltUntil,
    pub(crate) metrics: QueryMetrics,
    pub(crate) series_memory: SeriesMemory,
    pub(crate) runner: Runner,
}

impl Frontend {
    pub(crate) fn now_nanos(&self) -> i64 {
        (self.now_nanos)()
    }

    /// Where time is divided.
    pub(crate) fn division(
        &self,
        tenants: &Tenants,
        query_backend_after: Duration,
    ) -> Result<Division, QueryError> {
        let back = i64::try_from(query_backend_after.as_nanos()).unwrap_or(i64::MAX);
        let configured = self.now_nanos().saturating_sub(back);
        let built = match (self.built_until)(tenants.names()) {
            BuiltUntil::AsConfigured => configured,
            BuiltUntil::UnixSeconds(seconds) => {
                configured.min(seconds.saturating_mul(NANOS_PER_SECOND))
            }
            BuiltUntil::Unknown => {
                return Err(QueryError::Job(JobError::Unavailable(
                    "of some partition no live-store has told yet how far its blocks go, so it is not \
                     known where to look; see /partition-ring"
                        .to_owned(),
                )));
            }
            BuiltUntil::Outdated { listed } => {
                return Err(QueryError::Job(JobError::outdated_list(listed)));
            }
        };
        let nanos = |time: i64| u64::try_from(time).unwrap_or(0);
        Ok(Division {
            recent_from_nanos: nanos(built),
            blocks_until_nanos: nanos(configured),
        })
    }

    /// Counts a query from now on.
    pub(crate) fn account(&self, tenants: &Tenants, op: Op) -> Accounting {
        Accounting::start(
            self.metrics.clone(),
            self.runner.queue.query(),
            tenants.joined(),
            op,
            self.slo(op),
        )
    }

    fn slo(&self, op: Op) -> Slo {
        match op {
            Op::Traces => self.config.trace_by_id.slo,
            Op::Search => self.config.search.slo,
            Op::Metadata => self.config.search.metadata_slo,
            Op::Metrics => self.config.metrics.slo,
        }
    }

    pub(crate) fn count_jobs(&self, op: Op, jobs: usize) {
        self.metrics.jobs(op, jobs);
    }

    /// The range that a search or tag request means.
    pub(crate) fn clamp(&self, params: &QueryParams) -> Result<TimeRange, BadRequest> {
        Clamp {
            now_nanos: self.now_nanos(),
            default_lookback: self.config.search.query_backend_after,
            end_cutoff: self.config.query_end_cutoff,
        }
        .range(params)
    }

    /// A path of the API with the prefix that clients write before it.
    pub(crate) fn api_path(&self, path: &str) -> String {
        match self.config.http_api_prefix.trim_matches('/') {
            "" => path.to_owned(),
            prefix => format!("/{prefix}{path}"),
        }
    }

    /// Refuses a URL that is known to do harm.
    pub(crate) fn check_url(&self, url: &str) -> Result<(), BadRequest> {
        if self.deny_list.is_match(url) {
            return Err(BadRequest(format!(
                "Invalid request {url}. This query has been identified as one that destabilizes \
                 our system. Contact your system administrator for more information"
            )));
        }
        Ok(())
    }

    /// Refuses a query text that is too long.
    pub(crate) fn check_query_size(&self, query: &str) -> Result<(), BadRequest> {
        tempo_traceql::check_size(query, self.config.max_query_expression_bytes)
            .map_err(|error| BadRequest(error.to_string()))
    }

    /// Refuses a range that is longer than the tenant may ask for.
    pub(crate) fn check_duration(
        &self,
        range: TimeRange,
        limits: &ReadLimits,
    ) -> Result<(), BadRequest> {
        let max = limits
            .max_search_duration
            .filter(|duration| !duration.is_zero())
            .unwrap_or(self.config.search.max_duration);
        let asked = Duration::from_secs(u64::from(range.end.saturating_sub(range.start)));
        if !max.is_zero() && asked > max {
            let max = tempo_traceql::duration::GoDuration {
                nanos: i64::try_from(max.as_nanos()).unwrap_or(i64::MAX),
            };
            return Err(BadRequest(format!(
                "range specified by start and end exceeds {max}. received start={} end={}",
                range.start, range.end
            )));
        }
        Ok(())
    }
}

/// Parses and checks a search query.
pub(crate) fn parse_query(text: &str, allow_unsafe_hints: bool) -> Result<Query, QueryError> {
    let options = tempo_traceql::ParseOptions {
        // Checked before, with the configured limit.
        max_query_bytes: 0,
        allow_unsafe_hints,
        skip_rewrites: true,
    };
    tempo_traceql::parse_with(text, &options)
        .map_err(|error| BadRequest(format!("invalid TraceQL query: {error}")).into())
}

/// Whether the query asks for the newest traces rather than any.
pub(crate) fn wants_most_recent(query: &Query, limits: &ReadLimits) -> bool {
    query
        .hints
        .bool(names::MOST_RECENT, limits.unsafe_query_hints)
        .unwrap_or(false)
}
