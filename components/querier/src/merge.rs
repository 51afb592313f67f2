//! What several places have found for one job, as the output of that job.

use tempo_api::{
    combine::{CollectLimits, SearchCombiner, TagNamesCombiner, TagValuesCombiner},
    job::{CountedSpans, Job, JobError, JobOutput, TraceParts, parse_query},
};
use tempo_engine::{
    EngineError,
    metrics::{MetricsOptions, MetricsPartial, MetricsPlan},
};
use tempo_proto::tempopb::{
    QueryRangeRequest, SearchMetrics, SearchRequest, SearchResponse, SearchTagValuesRequest,
    SearchTagsRequest,
};
use tempo_traceql::{Query, hints::names};

/// Traces of a search job.
pub(crate) struct FoundTraces {
    combiner: SearchCombiner,
    metrics: SearchMetrics,
    wants_most_recent: bool,
}

impl FoundTraces {
    pub(crate) fn new(request: &SearchRequest, query: &Query) -> Self {
        let wants_most_recent = query.hints.bool(names::MOST_RECENT, false).unwrap_or(false);
        Self {
            combiner: SearchCombiner::new(request.limit, wants_most_recent, false, &[]),
            metrics: SearchMetrics::default(),
            wants_most_recent,
        }
    }

    pub(crate) fn wants_most_recent(&self) -> bool {
        self.wants_most_recent
    }

    pub(crate) fn add(&mut self, mut response: SearchResponse) {
        let found = response.metrics.take().unwrap_or_default();
        let metrics = &mut self.metrics;
        metrics.inspected_traces = metrics
            .inspected_traces
            .saturating_add(found.inspected_traces);
        metrics.inspected_spans = metrics
            .inspected_spans
            .saturating_add(found.inspected_spans);
        metrics.inspected_bytes = metrics
            .inspected_bytes
            .saturating_add(found.inspected_bytes);
        self.combiner.add(response, 0, 0);
    }

    /// Of the newest, any place may have more.
    pub(crate) fn is_complete(&self) -> bool {
        !self.wants_most_recent && self.combiner.is_complete()
    }

    pub(crate) fn finish(self) -> SearchResponse {
        SearchResponse {
            traces: self.combiner.into_traces(),
            metrics: Some(self.metrics),
        }
    }
}

/// The query of a search job.
pub(crate) fn search_query(request: &SearchRequest) -> Result<Query, JobError> {
    parse_query(&request.query, &request.skip_ast_transformations)
        .map_err(|error| JobError::Failed(format!("search job: {error}")))
}

/// Collects the names of a tag job.
pub(crate) fn tag_names(request: &SearchTagsRequest, max_bytes: u64) -> TagNamesCombiner {
    let limits = CollectLimits {
        max_bytes,
        max_items: request.max_tags_per_scope,
        max_stale_items: request.stale_values_threshold,
    };
    TagNamesCombiner::new(limits, true)
}

/// Collects the values of a tag job.
pub(crate) fn tag_values(request: &SearchTagValuesRequest, max_bytes: u64) -> TagValuesCombiner {
    TagValuesCombiner::new(CollectLimits {
        max_bytes,
        max_items: request.max_tag_values,
        max_stale_items: request.stale_value_threshold,
    })
}

/// The plan of a metrics job.
pub(crate) fn metrics_plan(
    request: &QueryRangeRequest,
    max_exemplars: u32,
) -> Result<MetricsPlan, JobError> {
    let unusable = |error: String| JobError::Failed(format!("metrics job: {error}"));
    let query = parse_query(&request.query, &request.skip_ast_transformations)
        .map_err(|error| unusable(error.to_string()))?;
    let options = MetricsOptions {
        max_exemplars: max_exemplars as usize,
        max_series: request.max_series as usize,
        allow_unsafe_hints: false,
    };
    MetricsPlan::new(&query, &options).map_err(|error| unusable(error.to_string()))
}

/// Outputs of one job from several processes, merged as they come.
pub(crate) enum Merged {
    Trace(TraceParts),
    Search(Box<FoundTraces>),
    TagNames(TagNamesCombiner),
    TagValues(TagValuesCombiner),
    QueryRange {
        plan: Box<MetricsPlan>,
        counted: CountedSpans,
        max_bytes: usize,
    },
}

impl Merged {
    /// Nothing yet. Series may take `max_series_bytes`.
    pub(crate) fn new(job: &Job, max_series_bytes: usize) -> Result<Self, JobError> {
        Ok(match job {
            Job::FindTrace { .. } => Self::Trace(TraceParts::default()),
            Job::Search { request, .. } => {
                let found = FoundTraces::new(request, &search_query(request)?);
                Self::Search(Box::new(found))
            }
            Job::TagNames {
                request, max_bytes, ..
            } => Self::TagNames(tag_names(request, *max_bytes)),
            Job::TagValues {
                request, max_bytes, ..
            } => Self::TagValues(tag_values(request, *max_bytes)),
            Job::QueryRange {
                request,
                window,
                max_exemplars,
                ..
            } => {
                let plan = metrics_plan(request, *max_exemplars)?;
                Self::QueryRange {
                    counted: CountedSpans {
                        series: MetricsPartial::new(&plan, *window),
                        inspected_bytes: 0,
                    },
                    plan: Box::new(plan),
                    max_bytes: max_series_bytes,
                }
            }
        })
    }

    pub(crate) fn add(&mut self, output: JobOutput) -> Result<(), JobError> {
        match (self, output) {
            (Self::Trace(into), JobOutput::Trace(found)) => {
                into.parts.extend(found.parts);
                into.inspected_bytes = into.inspected_bytes.saturating_add(found.inspected_bytes);
            }
            (Self::Search(into), JobOutput::Search(found)) => into.add(found),
            (Self::TagNames(into), JobOutput::TagNames(found)) => into.add(found),
            (Self::TagValues(into), JobOutput::TagValues(found)) => into.add(found),
            (
                Self::QueryRange {
                    plan,
                    counted: into,
                    max_bytes,
                },
                JobOutput::QueryRange(found),
            ) => {
                into.inspected_bytes = into.inspected_bytes.saturating_add(found.inspected_bytes);
                into.series
                    .merge(plan, found.series, *max_bytes)
                    .map_err(|error| match error {
                        EngineError::TooManySeries { .. } => {
                            JobError::OverBudget(error.to_string())
                        }
                        error => JobError::Failed(error.to_string()),
                    })?;
            }
            _ => {
                return Err(JobError::Failed(
                    "a live-store answered a job with the output of another kind".to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// Whether further outputs need not be waited for.
    pub(crate) fn is_complete(&self) -> bool {
        match self {
            Self::Trace(_) => false,
            Self::Search(found) => found.is_complete(),
            Self::TagNames(found) => found.is_complete(),
            Self::TagValues(found) => found.is_complete(),
            Self::QueryRange { plan, counted, .. } => counted.series.is_full(plan),
        }
    }

    pub(crate) fn finish(self) -> JobOutput {
        match self {
            Self::Trace(found) => JobOutput::Trace(found),
            Self::Search(found) => JobOutput::Search(found.finish()),
            Self::TagNames(found) => JobOutput::TagNames(found.finish()),
            Self::TagValues(found) => JobOutput::TagValues(found.finish()),
            Self::QueryRange { counted, .. } => JobOutput::QueryRange(counted),
        }
    }
}
