//! Evaluating queries on tables, on a thread that may block.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tempo_api::{combine::SearchCombiner, convert, job::JobError};
use tempo_engine::{EngineError, Limits, Plan, SearchOptions, search as search_table};
use tempo_proto::tempopb::{SearchMetrics, SearchRequest, SearchResponse};
use tempo_table::SpanTable;
use tempo_traceql::{ParseOptions, hints::names};

use crate::blocks::table_error;

/// Names by which a request leaves out the rewrites of its query.
const SKIP_REWRITES: [&str; 2] = ["or_to_in", "all"];

/// What evaluations may use.
#[derive(Clone, Copy)]
pub(crate) struct Bounds<'a> {
    /// Bytes of columns of one table.
    pub(crate) max_column_bytes: usize,
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
        error @ (EngineError::Evaluation(_) | EngineError::OverBudget { .. }) => {
            JobError::Failed(error.to_string())
        }
    }
}

/// Searches tables one after another, until enough is found.
pub(crate) fn search(
    request: &SearchRequest,
    tables: &[Arc<dyn SpanTable>],
    seconds: RangeInclusive<u32>,
    bounds: Bounds<'_>,
) -> Result<SearchResponse, JobError> {
    let unusable = |error: String| JobError::Failed(format!("search job: {error}"));
    let options = ParseOptions {
        max_query_bytes: 0,
        allow_unsafe_hints: false,
        skip_rewrites: request
            .skip_ast_transformations
            .iter()
            .any(|name| SKIP_REWRITES.contains(&name.as_str())),
    };
    let query = tempo_traceql::parse_with(&request.query, &options)
        .map_err(|error| unusable(error.to_string()))?;
    let plan = Plan::new(&query).map_err(|error| unusable(error.to_string()))?;
    let most_recent = query.hints.bool(names::MOST_RECENT, false).unwrap_or(false);
    let nanos = |seconds: u32| u64::from(seconds) * 1_000_000_000;
    let options = SearchOptions {
        time_range_nano: Some((nanos(*seconds.start()), nanos(*seconds.end()))),
        max_traces: request.limit as usize,
        max_spans_per_span_set: request.spans_per_span_set as usize,
        most_recent,
        limits: bounds.limits(),
    };
    let mut combiner = SearchCombiner::new(request.limit, most_recent, false, &[]);
    let mut metrics = SearchMetrics::default();
    for table in tables {
        bounds.check()?;
        let found = search_table(&plan, &**table, &options).map_err(engine_error)?;
        metrics.inspected_traces = metrics
            .inspected_traces
            .saturating_add(u32::try_from(found.inspected_traces).unwrap_or(u32::MAX));
        metrics.inspected_spans += found.inspected_spans;
        metrics.inspected_bytes += table.bytes_read();
        let response = SearchResponse {
            traces: found
                .traces
                .into_iter()
                .map(convert::search_result)
                .collect(),
            metrics: None,
        };
        combiner.add(response, 0, 0);
        // Of the newest, any table may have more.
        if !most_recent && combiner.is_complete() {
            break;
        }
    }
    Ok(SearchResponse {
        traces: combiner.into_traces(),
        metrics: Some(metrics),
    })
}
