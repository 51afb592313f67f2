//! Evaluating queries on tables, on a thread that may block.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tempo_api::{
    convert,
    job::{CountedSpans, JobError},
    params::TagScope,
};
use tempo_engine::{
    EngineError, Limits, Plan, SearchOptions, TagFilter, TagValueLimits,
    metrics::{MetricsPartial, Window, evaluate as count_spans},
    search as search_table, tag_names as names_in_table, tag_values as values_in_table,
};
use tempo_proto::tempopb::{
    QueryRangeRequest, SearchMetrics, SearchRequest, SearchResponse, SearchTagValuesRequest,
    SearchTagValuesV2Response, SearchTagsRequest, SearchTagsV2Response,
};
use tempo_table::{AttributeScope, SpanTable};
use tempo_traceql::ConditionGroups;

use crate::{
    blocks::table_error,
    merge::{self, FoundTraces},
};

/// Alternatives of a tag query above which it filters nothing. The frontend has its own, lower limit.
const MAX_CONDITION_GROUPS: usize = 10_000;

/// Tables, made one by one: each is dropped, with all columns that were read of it, before the next.
pub(crate) type Tables<'a> = &'a mut dyn Iterator<Item = Arc<dyn SpanTable>>;

/// What evaluations may use.
#[derive(Clone, Copy)]
pub(crate) struct Bounds<'a> {
    /// Bytes of columns of one table.
    pub(crate) max_column_bytes: usize,
    /// Bytes of series that are counted.
    pub(crate) max_series_bytes: usize,
    /// Set when nobody waits any more.
    pub(crate) stop: &'a AtomicBool,
}

impl<'a> Bounds<'a> {
    fn limits(self) -> Limits<'a> {
        Limits {
            max_column_bytes: self.max_column_bytes,
            cancel: self.stop,
        }
    }

    fn check(self) -> Result<(), JobError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(JobError::Cancelled);
        }
        Ok(())
    }
}

fn engine_error(error: EngineError) -> JobError {
    match error {
        EngineError::Table(error) => table_error(&error),
        error @ (EngineError::OverBudget { .. }
        | EngineError::TooManySeries { .. }
        | EngineError::TooManySpanSets { .. }) => JobError::OverBudget(error.to_string()),
        // The query is to blame, or the versions of processes, and will be the next time.
        error @ (EngineError::Evaluation(_) | EngineError::OtherSeries) => {
            JobError::Failed(error.to_string())
        }
    }
}

/// Searches tables one after another, until enough is found.
pub(crate) fn search(
    request: &SearchRequest,
    tables: Tables<'_>,
    seconds: RangeInclusive<u32>,
    bounds: Bounds<'_>,
) -> Result<SearchResponse, JobError> {
    let query = merge::search_query(request)?;
    let plan =
        Plan::new(&query).map_err(|error| JobError::Failed(format!("search job: {error}")))?;
    let mut all = FoundTraces::new(request, &query);
    let nanos = |seconds: u32| u64::from(seconds) * 1_000_000_000;
    let options = SearchOptions {
        time_range_nano: Some((nanos(*seconds.start()), nanos(*seconds.end()))),
        max_traces: request.limit as usize,
        max_spans_per_span_set: request.spans_per_span_set as usize,
        most_recent: all.wants_most_recent(),
        limits: bounds.limits(),
    };
    for table in tables {
        bounds.check()?;
        let found = search_table(&plan, &*table, &options).map_err(engine_error)?;
        all.add(SearchResponse {
            traces: found
                .traces
                .into_iter()
                .map(convert::search_result)
                .collect(),
            metrics: Some(SearchMetrics {
                inspected_traces: u32::try_from(found.inspected_traces).unwrap_or(u32::MAX),
                inspected_spans: found.inspected_spans,
                inspected_bytes: table.bytes_read(),
                ..SearchMetrics::default()
            }),
        })?;
        if all.is_complete() {
            break;
        }
    }
    Ok(all.finish())
}

/// Which spans a tag query is about; all of them if it cannot be told.
fn tag_filter(query: &str) -> Result<TagFilter, JobError> {
    let groups = match query.trim() {
        "" => ConditionGroups::MatchAll,
        query => tempo_traceql::condition_groups(query, MAX_CONDITION_GROUPS)
            .unwrap_or(ConditionGroups::MatchAll),
    };
    TagFilter::new(&groups).map_err(|error| JobError::Failed(format!("tag job: {error}")))
}

/// Collects tag names from tables one after another, until there are enough.
pub(crate) fn tag_names(
    request: &SearchTagsRequest,
    max_bytes: u64,
    tables: Tables<'_>,
    bounds: Bounds<'_>,
) -> Result<SearchTagsV2Response, JobError> {
    let scope = TagScope::parse(&request.scope).map_err(|error| JobError::Failed(error.0))?;
    let mut combiner = merge::tag_names(request, max_bytes);
    let scope = match scope {
        TagScope::All => None,
        TagScope::Resource => Some(AttributeScope::Resource),
        TagScope::Span => Some(AttributeScope::Span),
        TagScope::Event => Some(AttributeScope::Event),
        TagScope::Link => Some(AttributeScope::Link),
        TagScope::Instrumentation => Some(AttributeScope::Instrumentation),
        // Known without looking; the frontend does not ask.
        TagScope::Trace | TagScope::Intrinsic => return Ok(combiner.finish()),
    };
    let filter = tag_filter(&request.query)?;
    for table in tables {
        bounds.check()?;
        let names =
            names_in_table(&*table, scope, &filter, bounds.limits()).map_err(engine_error)?;
        combiner.add(convert::tag_names(names, table.bytes_read()));
        if combiner.is_complete() {
            break;
        }
    }
    Ok(combiner.finish())
}

/// Collects the values of a tag from tables one after another, until there are enough.
pub(crate) fn tag_values(
    request: &SearchTagValuesRequest,
    max_bytes: u64,
    tables: Tables<'_>,
    bounds: Bounds<'_>,
) -> Result<SearchTagValuesV2Response, JobError> {
    let attribute = tempo_traceql::parse_identifier(&request.tag_name)
        .map_err(|error| JobError::Failed(format!("tag value job: {error}")))?;
    let filter = tag_filter(&request.query)?;
    let mut combiner = merge::tag_values(request, max_bytes);
    let per_table = TagValueLimits {
        max_values: request.max_tag_values as usize,
        max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
    };
    for table in tables {
        bounds.check()?;
        let values = values_in_table(&*table, &attribute, &filter, per_table, bounds.limits())
            .map_err(engine_error)?;
        combiner.add(convert::tag_values(values, table.bytes_read()));
        if combiner.is_complete() {
            break;
        }
    }
    Ok(combiner.finish())
}

/// Bytes of a cell of a series and interval while spans are counted: the cell, its weight, and both
/// once more in what was counted of the tables before.
const BYTES_PER_COUNTED_CELL: u64 = 32;

/// What counting may hold at most: as many series as there may be, in each interval, within the
/// bound of what a job may bring.
pub(crate) fn counting_bytes(
    request: &QueryRangeRequest,
    window: Window,
    max_series_bytes: usize,
) -> u64 {
    let bound = 2 * max_series_bytes as u64;
    match request.max_series {
        0 => bound,
        series => (window.grid().len() as u64)
            .saturating_mul(u64::from(series))
            .saturating_mul(BYTES_PER_COUNTED_CELL)
            .min(bound),
    }
}

/// Counts the spans of tables, one after another, until there are as many series as there may be.
pub(crate) fn query_range(
    request: &QueryRangeRequest,
    window: Window,
    max_exemplars: u32,
    tables: Tables<'_>,
    bounds: Bounds<'_>,
) -> Result<CountedSpans, JobError> {
    let plan = merge::metrics_plan(request, max_exemplars)?;
    let mut counted = CountedSpans {
        series: MetricsPartial::new(&plan, window),
        inspected_bytes: 0,
    };
    for table in tables {
        bounds.check()?;
        let found = count_spans(&plan, &*table, window, bounds.limits()).map_err(engine_error)?;
        counted.inspected_bytes += table.bytes_read();
        counted
            .series
            .merge(&plan, found, bounds.max_series_bytes)
            .map_err(engine_error)?;
        if counted.series.is_full(&plan) {
            break;
        }
    }
    Ok(counted)
}
