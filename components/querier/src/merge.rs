//! What several places have found for one job, as the output of that job.

use tempo_api::{
    combine::{CollectLimits, SearchCombiner, TagNamesCombiner, TagValuesCombiner},
    job::{CountedSpans, Job, JobError, JobOutput, TraceParts, parse_query},
};
use tempo_engine::{
    EngineError,
    metrics::{MetricsOptions, MetricsPartial, MetricsPlan},
};
use tempo_model::TraceUnion;
use tempo_proto::tempopb::{
    QueryRangeRequest, SearchMetrics, SearchRequest, SearchResponse, SearchTagValuesRequest,
    SearchTagsRequest, TraceSearchMetadata,
};
use tempo_traceql::{Query, hints::names};

/// Traces of a search job.
pub(crate) struct FoundTraces {
    limit: usize,
    /// What the first place has that has any: often the only one, and then there is nothing to
    /// merge.
    first: Vec<TraceSearchMetadata>,
    /// What several places have.
    combiner: SearchCombiner,
    metrics: SearchMetrics,
    wants_most_recent: bool,
}

impl FoundTraces {
    pub(crate) fn new(request: &SearchRequest, query: &Query) -> Self {
        let wants_most_recent = query.hints.bool(names::MOST_RECENT, false).unwrap_or(false);
        Self {
            limit: request.limit as usize,
            first: Vec::new(),
            combiner: SearchCombiner::new(request.limit, wants_most_recent, false, &[]),
            metrics: SearchMetrics::default(),
            wants_most_recent,
        }
    }

    pub(crate) fn wants_most_recent(&self) -> bool {
        self.wants_most_recent
    }

    pub(crate) fn add(&mut self, mut response: SearchResponse) -> Result<(), JobError> {
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
        if response.traces.is_empty() {
            return Ok(());
        }
        if self.first.is_empty() && self.combiner.is_empty() {
            self.first = response.traces;
            return Ok(());
        }
        let first = SearchResponse {
            traces: std::mem::take(&mut self.first),
            metrics: None,
        };
        self.combiner.add(first, 0, 0)?;
        self.combiner.add(response, 0, 0)
    }

    /// Of the newest, any place may have more.
    pub(crate) fn is_complete(&self) -> bool {
        let is_enough = self.limit > 0 && self.first.len() >= self.limit;
        !self.wants_most_recent && (is_enough || self.combiner.is_complete())
    }

    pub(crate) fn finish(self) -> SearchResponse {
        SearchResponse {
            traces: match self.combiner.is_empty() {
                true => self.first,
                false => self.combiner.into_traces(),
            },
            metrics: Some(self.metrics),
        }
    }
}

/// What is found of one trace in several places. With a limit the copies of spans that several
/// places have count once, as they do for whoever asked: then there is too much for him too.
pub(crate) struct FoundTrace {
    max_bytes: u64,
    /// Its parts, unless there is a limit.
    found: TraceParts,
    /// Its parts when there is one.
    union: TraceUnion,
}

impl FoundTrace {
    /// Nothing yet. Nothing is added once there are more than `max_bytes`; 0 means no limit.
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            found: TraceParts::default(),
            union: TraceUnion::new(),
        }
    }

    pub(crate) fn add(&mut self, found: TraceParts) -> Result<(), JobError> {
        let inspected_bytes = &mut self.found.inspected_bytes;
        *inspected_bytes = inspected_bytes.saturating_add(found.inspected_bytes);
        if self.max_bytes == 0 {
            self.found.parts.extend(found.parts);
            return Ok(());
        }
        for part in found.parts {
            if self.is_complete() {
                break;
            }
            self.union.add(part).map_err(|error| {
                JobError::Failed(format!("stored trace is not readable: {error}"))
            })?;
        }
        Ok(())
    }

    /// Whether it is more than anybody is shown.
    pub(crate) fn is_complete(&self) -> bool {
        self.max_bytes > 0 && self.union.byte_len() as u64 > self.max_bytes
    }

    pub(crate) fn finish(mut self) -> TraceParts {
        if !self.union.is_empty() {
            self.found.parts.push(self.union.finish());
        }
        self.found
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
    Trace(FoundTrace),
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
            Job::FindTrace { max_bytes, .. } => Self::Trace(FoundTrace::new(*max_bytes)),
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
            (Self::Trace(into), JobOutput::Trace(found)) => into.add(found)?,
            (Self::Search(into), JobOutput::Search(found)) => into.add(found)?,
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
            Self::Trace(found) => found.is_complete(),
            Self::Search(found) => found.is_complete(),
            Self::TagNames(found) => found.is_complete(),
            Self::TagValues(found) => found.is_complete(),
            Self::QueryRange { plan, counted, .. } => counted.series.is_full(plan),
        }
    }

    pub(crate) fn finish(self) -> JobOutput {
        match self {
            Self::Trace(found) => JobOutput::Trace(found.finish()),
            Self::Search(found) => JobOutput::Search(found.finish()),
            Self::TagNames(found) => JobOutput::TagNames(found.finish()),
            Self::TagValues(found) => JobOutput::TagValues(found.finish()),
            Self::QueryRange { counted, .. } => JobOutput::QueryRange(counted),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tempo_api::combine::TraceCombiner;
    use tempo_proto::{
        opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans, Span},
        tempopb::Trace,
    };

    use super::*;

    /// A part with one span of a kilobyte.
    fn part(id: u8) -> TraceParts {
        let span = Span {
            span_id: vec![id; 8],
            name: "n".repeat(1_000),
            ..Span::default()
        };
        let trace = Trace {
            resource_spans: vec![ResourceSpans {
                scope_spans: vec![ScopeSpans {
                    spans: vec![span],
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        TraceParts {
            parts: vec![trace.encode_to_vec().into()],
            inspected_bytes: 7,
        }
    }

    fn bytes(found: &TraceParts) -> usize {
        found.parts.iter().map(|part| part.len()).sum()
    }

    #[test]
    fn of_a_trace_no_more_is_collected_than_is_shown() {
        let mut found = FoundTrace::new(2_500);
        for id in 0..3 {
            assert!(!found.is_complete());
            // Other places have the same: that does not count.
            found.add(part(id)).unwrap();
            found.add(part(id)).unwrap();
        }
        assert!(found.is_complete());
        for id in 3..30 {
            found.add(part(id)).unwrap();
        }
        let found = found.finish();
        assert!((3_000..3_500).contains(&bytes(&found)));
        assert_eq!(found.inspected_bytes, 7 * (6 + 27));
        // Whoever asked sees that it is not all.
        let mut shown = TraceCombiner::new(2_500, true);
        shown.add(found).unwrap();
        assert!(shown.finish().message.contains("exceeds maximum size"));
    }

    #[test]
    fn a_small_trace_is_whole_however_many_copies_there_are() {
        let mut found = FoundTrace::new(2_500);
        for _ in 0..10 {
            found.add(part(1)).unwrap();
            found.add(part(2)).unwrap();
        }
        assert!(!found.is_complete());
        let mut shown = TraceCombiner::new(2_500, true);
        shown.add(found.finish()).unwrap();
        let shown = shown.finish();
        assert_eq!(shown.message, "");
        assert_eq!(Trace::decode(shown.trace).unwrap().resource_spans.len(), 2);
    }

    #[test]
    fn without_a_limit_parts_stay_as_they_are() {
        let mut found = FoundTrace::new(0);
        for _ in 0..3 {
            found.add(part(1)).unwrap();
        }
        assert!(!found.is_complete());
        assert_eq!(found.finish().parts.len(), 3);
    }
}
