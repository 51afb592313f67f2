//! Searches for traces.

use std::sync::Arc;

use tempo_api::{
    BadRequest,
    combine::{SearchCombiner, SearchPlan},
    job::{Job, JobError, JobOutput},
    params::{QueryParams, TimeRange, resolve_limit, trace_query},
};
use tempo_backend::Timestamp;
use tempo_engine::Plan;
use tempo_proto::tempopb::{SearchRequest, SearchResponse};

use crate::{
    error::QueryError,
    frontend::{Frontend, parse_query, wants_most_recent},
    metrics::Op,
    run::{Combine, Origin, PlannedJob, Query, unexpected_output},
    shard::{block_range, plan_search, whole_seconds},
    tenants::Tenants,
    weight::{QueryShape, Weighed},
};

impl Frontend {
    /// Starts a search for the traces that `request` describes. `params` hold the range as it was
    /// asked for; `url` is what the deny list is matched against.
    pub(crate) fn search(
        &self,
        tenants: &Tenants,
        request: SearchRequest,
        params: &QueryParams,
        url: &str,
    ) -> Result<Query<Search>, QueryError> {
        let limits = self.limits.read_limits(&tenants.joined());
        let search = &self.config.search;
        self.check_query_size(&request.query)?;
        let limit = resolve_limit(
            request.limit,
            search.default_result_limit,
            search.max_result_limit,
        )?;
        let is_old_search = request.query.is_empty();
        let query_text = trace_query(&request);
        let query = parse_query(&query_text, limits.unsafe_query_hints)?;
        // Of a metrics query the part that selects spans is searched, as in Tempo.
        if query.single_pipeline().is_none() {
            return Err(QueryError::Bad(BadRequest(
                "invalid TraceQL query: arithmetic between queries finds no traces; send it to \
                 /api/metrics/query_range or /api/metrics/query"
                    .to_owned(),
            )));
        }
        Plan::new(&query).map_err(|error| BadRequest(format!("invalid TraceQL query: {error}")))?;
        let range = self.clamp(params)?;
        self.check_url(url)?;
        if range.end <= range.start {
            return Err(QueryError::Bad(BadRequest(format!(
                "http parameter start must be before end. received start={} end={}",
                range.start, range.end
            ))));
        }
        for tenant in tenants.names() {
            self.check_duration(range, &self.limits.read_limits(tenant))?;
        }
        let (max, asked) = (search.max_spans_per_span_set, request.spans_per_span_set);
        if max != 0 && asked > max {
            return Err(QueryError::Bad(BadRequest(format!(
                "spans per span set exceeds {max}. received {asked}"
            ))));
        }

        let request = Arc::new(SearchRequest {
            query: query_text,
            limit,
            start: range.start,
            end: range.end,
            spans_per_span_set: asked,
            skip_ast_transformations: self.skipped_rewrites(&request.skip_ast_transformations),
            ..SearchRequest::default()
        });
        let (plans, jobs) = self.plan(tenants, range, &request)?;
        self.count_jobs(Op::Search, jobs.len());
        let combiner = SearchCombiner::new(
            limit,
            wants_most_recent(&query, &limits),
            limits.left_pad_trace_ids,
            &plans,
        );
        let shape = QueryShape::of(&query);
        let weighed = Weighed::Query(&shape);
        Ok(Query {
            combiner: Search {
                found: combiner,
                is_old_search,
            },
            jobs: self
                .runner
                .start(tenants.names(), jobs, weighed, search.concurrent_jobs),
        })
    }

    fn plan(
        &self,
        tenants: &Tenants,
        range: TimeRange,
        request: &Arc<SearchRequest>,
    ) -> Result<(Vec<SearchPlan>, Vec<PlannedJob>), QueryError> {
        let search = &self.config.search;
        let division = self.division(tenants, search.query_backend_after)?;
        let recent_from = whole_seconds(division.recent_from_nanos);
        let blocks_until = whole_seconds(division.blocks_until_nanos);
        let mut plans = Vec::new();
        let mut jobs = Vec::new();
        for (index, tenant) in tenants.names().iter().enumerate() {
            let blocks = self.blocks_of(tenant, block_range(range, blocks_until));
            let (plan, places) = plan_search(range, recent_from, blocks, search);
            plans.push(plan);
            jobs.extend(places.into_iter().map(|planned| PlannedJob {
                tenant: index,
                shard: planned.shard,
                job: Job::Search {
                    request: Arc::clone(request),
                    place: planned.place,
                },
            }));
        }
        Ok((plans, jobs))
    }

    /// The blocks that may hold spans of the range; none for no range.
    pub(crate) fn blocks_of(
        &self,
        tenant: &str,
        range: Option<TimeRange>,
    ) -> Vec<Arc<tempo_backend::BlockMeta>> {
        match range {
            Some(range) => self.blocklist.blocks_in_range(
                tenant,
                Timestamp::from_unix_seconds(i64::from(range.start)),
                Timestamp::from_unix_seconds(i64::from(range.end)),
            ),
            None => Vec::new(),
        }
    }

    /// The rewrites that the request and the settings leave out.
    pub(crate) fn skipped_rewrites(&self, asked: &[String]) -> Vec<String> {
        let mut names: Vec<String> = self
            .config
            .skip_ast_transformations
            .iter()
            .chain(asked)
            .cloned()
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// The traces found so far.
pub(crate) struct Search {
    pub(crate) found: SearchCombiner,
    is_old_search: bool,
}

impl Combine for Search {
    fn add(&mut self, output: JobOutput, origin: Origin) -> Result<(), JobError> {
        let JobOutput::Search(mut response) = output else {
            return Err(unexpected_output());
        };
        if self.is_old_search {
            without_span_sets(&mut response);
        }
        self.found.add(response, origin.tenant, origin.shard)
    }

    fn is_complete(&self) -> bool {
        self.found.is_complete()
    }
}

/// Old searches tell which traces match, not which of their spans.
fn without_span_sets(response: &mut SearchResponse) {
    for trace in &mut response.traces {
        trace.span_set = None;
        trace.span_sets.clear();
        trace.service_stats.clear();
    }
}
