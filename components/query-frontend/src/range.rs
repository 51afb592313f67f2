//! Queries over time: TraceQL metrics.

use std::{sync::Arc, time::Duration};

use tempo_api::{
    BadRequest,
    combine::MetricsCombiner,
    job::{Job, JobError, JobOutput, MAX_INTERVALS, parse_query},
    params::default_step_nanos,
};
use tempo_backend::Timestamp;
use tempo_engine::metrics::{MetricsOptions, MetricsPlan, Window};
use tempo_proto::tempopb::{QueryInstantRequest, QueryRangeRequest, QueryRangeResponse};
use tempo_traceql::{Query as Parsed, duration::GoDuration, hints::names};

use crate::{
    error::QueryError,
    frontend::Frontend,
    limits::ReadLimits,
    metrics::Op,
    run::{Combine, Origin, PlannedJob, Query, unexpected_output},
    series_memory::SeriesShare,
    shard::plan_range,
    tenants::Tenants,
    weight::{QueryShape, Weighed},
};

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// Blocks tell their times in whole seconds, rounded down.
const BLOCK_TIME_ERROR: Duration = Duration::from_secs(1);

fn refused(text: impl Into<String>) -> QueryError {
    QueryError::Bad(BadRequest(text.into()))
}

fn go_duration(nanos: u64) -> GoDuration {
    GoDuration {
        nanos: i64::try_from(nanos).unwrap_or(i64::MAX),
    }
}

impl Frontend {
    /// Starts a query over a range. A step of 0 is too small; `url` is what the deny list is
    /// matched against.
    pub(crate) fn query_range(
        &self,
        tenants: &Tenants,
        request: QueryRangeRequest,
        url: &str,
    ) -> Result<Query<Range>, QueryError> {
        self.check_query_size(&request.query)?;
        let latest = self.latest_end();
        let asked = Window {
            start_nano: request.start,
            end_nano: request.end,
            step_nano: request.step,
            is_instant: false,
        };
        let limits = self.limits.read_limits(&tenants.joined());
        self.check_window(asked)?;
        let clamped = asked.until(latest);
        self.check_clamped(clamped, &limits)?;
        let mut window = clamped.aligned();
        // Of an interval that has not ended there is nothing to tell yet.
        if window.end_nano > latest {
            window.end_nano = latest / request.step * request.step;
        }
        // Once more extended in front, so that the first interval of the answer is counted whole.
        self.start_range(tenants, request, window, window.aligned(), &limits, url)
    }

    /// Starts a query over one interval.
    pub(crate) fn query_instant(
        &self,
        tenants: &Tenants,
        request: QueryInstantRequest,
        url: &str,
    ) -> Result<Query<Range>, QueryError> {
        self.check_query_size(&request.query)?;
        let latest = self.latest_end();
        let asked = Window {
            start_nano: request.start,
            end_nano: request.end,
            step_nano: request.end.saturating_sub(request.start),
            is_instant: true,
        };
        let limits = self.limits.read_limits(&tenants.joined());
        self.check_window(asked)?;
        // By whole seconds, so that the end stays the same from one second to the next.
        let too_new = asked.end_nano.saturating_sub(latest);
        let back = too_new.div_ceil(NANOS_PER_SECOND) * NANOS_PER_SECOND;
        let end_nano = asked.end_nano.saturating_sub(back);
        let window = Window {
            end_nano,
            step_nano: end_nano.saturating_sub(asked.start_nano),
            ..asked
        };
        self.check_clamped(window, &limits)?;
        let request = QueryRangeRequest {
            query: request.query,
            instant: Some(true),
            ..QueryRangeRequest::default()
        };
        self.start_range(tenants, request, window, window, &limits, url)
    }

    /// The step of a request that names none.
    pub(crate) fn with_default_step(mut request: QueryRangeRequest) -> QueryRangeRequest {
        if request.step == 0 {
            request.step = default_step_nanos(request.start, request.end);
        }
        request
    }

    /// How far the end of a query may lie, nanoseconds since the epoch.
    fn latest_end(&self) -> u64 {
        let cutoff = i64::try_from(self.config.query_end_cutoff.as_nanos()).unwrap_or(i64::MAX);
        u64::try_from(self.now_nanos().saturating_sub(cutoff)).unwrap_or(0)
    }

    fn check_window(&self, window: Window) -> Result<(), QueryError> {
        match window.end_nano <= window.start_nano {
            true => Err(refused("end must be greater than start")),
            false => Ok(()),
        }
    }

    fn check_clamped(&self, window: Window, limits: &ReadLimits) -> Result<(), QueryError> {
        if window.is_empty() {
            return Err(refused(
                "query window falls entirely within query_end_cutoff",
            ));
        }
        let config = &self.config.metrics;
        let length = window.end_nano - window.start_nano;
        let max = limits
            .max_metrics_duration
            .filter(|duration| !duration.is_zero())
            .unwrap_or(config.max_duration);
        if !max.is_zero() && u128::from(length) > max.as_nanos() {
            let max = go_duration(u64::try_from(max.as_nanos()).unwrap_or(u64::MAX));
            return Err(refused(format!(
                "metrics query time range exceeds the maximum allowed duration of {max}"
            )));
        }
        if window.step_nano == 0 && config.max_intervals == 0 {
            return Err(refused("step must be greater than 0"));
        }
        let max_intervals = match config.max_intervals {
            0 => MAX_INTERVALS,
            max_intervals => max_intervals.min(MAX_INTERVALS),
        };
        let is_too_fine = length
            .checked_div(window.step_nano)
            .is_none_or(|intervals| intervals > max_intervals);
        if is_too_fine {
            return Err(refused(format!(
                "step of {} is too small, minimum step for given range is {}",
                go_duration(window.step_nano),
                go_duration(length / max_intervals),
            )));
        }
        Ok(())
    }

    fn start_range(
        &self,
        tenants: &Tenants,
        request: QueryRangeRequest,
        answered: Window,
        counted: Window,
        limits: &ReadLimits,
        url: &str,
    ) -> Result<Query<Range>, QueryError> {
        let skipped_rewrites = self.skipped_rewrites(&request.skip_ast_transformations);
        // Errors are told in the parser's own words.
        let parsed = parse_query(&request.query, &skipped_rewrites)
            .map_err(|error| refused(error.to_string()))?;
        let config = &self.config.metrics;
        let max_exemplars = match answered.is_instant {
            true => 0,
            false => exemplars(&parsed, limits, request.exemplars, config.max_exemplars),
        };
        let max_series = match (request.max_series, config.max_response_series) {
            (asked, 0) => asked,
            (0, most) => most,
            (asked, most) => asked.min(most),
        };
        let options = MetricsOptions {
            max_exemplars: max_exemplars as usize,
            max_series: max_series as usize,
            allow_unsafe_hints: limits.unsafe_query_hints,
        };
        let plan =
            MetricsPlan::new(&parsed, &options).map_err(|error| BadRequest(error.to_string()))?;
        self.check_url(url)?;
        let request = Arc::new(QueryRangeRequest {
            query: request.query,
            start: answered.start_nano,
            end: answered.end_nano,
            step: answered.step_nano,
            instant: Some(answered.is_instant),
            exemplars: max_exemplars,
            max_series,
            skip_ast_transformations: skipped_rewrites,
            ..QueryRangeRequest::default()
        });
        let mut plans = Vec::new();
        let mut jobs = Vec::new();
        if !plan.matches_nothing() {
            let cutoff = self
                .division(tenants, config.query_backend_after)?
                .recent_from_nanos;
            for (index, tenant) in tenants.names().iter().enumerate() {
                let blocks = self.counted_blocks(tenant, counted.until(cutoff));
                let (shards, pieces) = plan_range(counted, cutoff, blocks, max_exemplars, config);
                plans.push(shards);
                jobs.extend(pieces.into_iter().map(|piece| PlannedJob {
                    tenant: index,
                    shard: piece.shard,
                    job: Job::QueryRange {
                        request: Arc::clone(&request),
                        window: piece.window,
                        max_exemplars: piece.max_exemplars,
                        place: piece.place,
                    },
                }));
            }
        }
        self.count_jobs(Op::Metrics, jobs.len());
        let counted = MetricsCombiner::new(
            Arc::new(plan),
            answered,
            &plans,
            max_series,
            config.max_series_bytes_per_query,
        );
        let shape = QueryShape::of(&parsed);
        let weighed = Weighed::Query(&shape);
        Ok(Query {
            combiner: Range {
                counted,
                share: self.series_memory.share(),
                max_bytes: config.max_series_bytes_per_query,
            },
            jobs: self
                .runner
                .start(tenants.names(), jobs, weighed, config.concurrent_jobs),
        })
    }

    /// The blocks whose spans are counted. Of a span that is stored several times one copy is:
    /// blocks that are replicas of others do not count.
    fn counted_blocks(&self, tenant: &str, window: Window) -> Vec<Arc<tempo_backend::BlockMeta>> {
        if window.is_empty() {
            return Vec::new();
        }
        let at = |nanos: u64| Timestamp::from_unix_nanos(i64::try_from(nanos).unwrap_or(i64::MAX));
        let start = at(window.start_nano).saturating_sub(BLOCK_TIME_ERROR);
        let mut blocks = self
            .blocklist
            .blocks_in_range(tenant, start, at(window.end_nano));
        blocks.retain(|meta| meta.replication_factor == 1);
        blocks
    }
}

/// How many exemplars are wanted: what the query's hint says, else what the request says.
fn exemplars(query: &Parsed, limits: &ReadLimits, asked: u32, most: u32) -> u32 {
    let allow_unsafe = limits.unsafe_query_hints;
    let hinted = query
        .hints
        .int(names::EXEMPLARS, allow_unsafe)
        .map(|wanted| u32::try_from(wanted.max(0)).unwrap_or(u32::MAX));
    let is_refused = query.hints.bool(names::EXEMPLARS, allow_unsafe) == Some(false);
    match (hinted, is_refused, asked) {
        (Some(wanted), _, _) => wanted.min(most),
        (None, true, _) => 0,
        (None, false, 0) => most,
        (None, false, asked) => asked.min(most),
    }
}

/// What was counted so far.
pub(crate) struct Range {
    counted: MetricsCombiner,
    /// Of the memory of all queries.
    share: SeriesShare,
    /// Of this query.
    max_bytes: usize,
}

impl Range {
    /// Everything.
    pub(crate) fn finish(&self) -> QueryRangeResponse {
        self.counted.finish()
    }

    /// What has become complete since the last call.
    pub(crate) fn take_changes(&mut self) -> QueryRangeResponse {
        self.counted.take_changes()
    }
}

impl Combine for Range {
    fn add(&mut self, output: JobOutput, origin: Origin) -> Result<(), JobError> {
        let JobOutput::QueryRange(counted) = output else {
            return Err(unexpected_output());
        };
        let available = self.share.available_bytes();
        self.counted.set_max_bytes(self.max_bytes.min(available));
        let added = self.counted.add(counted, origin.tenant, origin.shard);
        self.share.set(self.counted.heap_bytes());
        added.map_err(|error| {
            if available < self.max_bytes {
                JobError::Busy(
                    "the series of the queries that run now take all memory that there is for \
                     them; try again, or ask for fewer series, less time or a longer step"
                        .to_owned(),
                )
            } else {
                JobError::OverBudget(error.to_string())
            }
        })
    }

    fn is_complete(&self) -> bool {
        self.counted.is_complete()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_decide_about_exemplars_before_the_request_does() {
        let wanted = |query: &str, asked| {
            let limits = ReadLimits::default();
            let query = parse_query(query, &[]).unwrap();
            exemplars(&query, &limits, asked, 100)
        };
        assert_eq!(wanted("{} | rate()", 0), 100);
        assert_eq!(wanted("{} | rate()", 7), 7);
        assert_eq!(wanted("{} | rate()", 1_000), 100);
        assert_eq!(wanted("{} | rate() with(exemplars=3)", 7), 3);
        assert_eq!(wanted("{} | rate() with(exemplars=300)", 7), 100);
        assert_eq!(wanted("{} | rate() with(exemplars=false)", 7), 0);
        assert_eq!(wanted("{} | rate() with(exemplars=true)", 7), 7);
        assert_eq!(wanted("{} | rate() with(exemplars=true)", 0), 100);
    }
}
