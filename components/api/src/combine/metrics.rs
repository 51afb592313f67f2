//! Merging what was counted over time.

use std::sync::Arc;

use tempo_engine::{
    EngineError,
    metrics::{MetricsPartial, MetricsPlan, Window},
};
use tempo_proto::tempopb::{PartialStatus, QueryRangeResponse, SearchMetrics};

use super::{Progress, SearchPlan, Shard};
use crate::{convert, job::CountedSpans};

const MILLIS_PER_SECOND: i64 = 1_000;

/// What a query over time has counted so far.
#[derive(Debug)]
pub struct MetricsCombiner {
    plan: Arc<MetricsPlan>,
    counted: MetricsPartial,
    max_series: u32,
    max_bytes: usize,
    /// One per tenant.
    progress: Vec<Progress>,
    metrics: SearchMetrics,
    /// The second down to which samples were told as changes; `None` while none were.
    told_through_seconds: Option<u32>,
}

impl MetricsCombiner {
    /// For the series of `plan` within `window`, of which nothing outside is kept. There is one
    /// plan of jobs per tenant. `max_series` is shown in messages, 0 if there is none; series may
    /// take `max_bytes`.
    pub fn new(
        plan: Arc<MetricsPlan>,
        window: Window,
        jobs: &[SearchPlan],
        max_series: u32,
        max_bytes: usize,
    ) -> Self {
        let mut metrics = SearchMetrics::default();
        for jobs in jobs {
            metrics.total_blocks += jobs.blocks;
            metrics.total_jobs += jobs.jobs;
            metrics.total_block_bytes += jobs.block_bytes;
        }
        // Tempo counts the planning as a job when there is no other.
        if metrics.total_jobs == 0 && !plan.matches_nothing() {
            metrics.completed_jobs = 1;
        }
        Self {
            counted: MetricsPartial::new(&plan, window),
            plan,
            max_series,
            max_bytes,
            progress: jobs
                .iter()
                .map(|jobs| Progress::new(jobs.shards.clone()))
                .collect(),
            metrics,
            told_through_seconds: None,
        }
    }

    /// About how many bytes the series take.
    pub fn heap_bytes(&self) -> usize {
        self.counted.heap_bytes()
    }

    /// Changes how many bytes the series may take.
    pub fn set_max_bytes(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
    }

    /// Adds what one job of `shard` of the plan of tenant number `tenant` has counted.
    ///
    /// # Errors
    /// When there are more series than may be held.
    pub fn add(
        &mut self,
        counted: CountedSpans,
        tenant: usize,
        shard: usize,
    ) -> Result<(), EngineError> {
        if let Some(progress) = self.progress.get_mut(tenant) {
            progress.job_done(shard);
        }
        self.metrics.completed_jobs += 1;
        self.metrics.inspected_bytes = self
            .metrics
            .inspected_bytes
            .saturating_add(counted.inspected_bytes);
        self.metrics.inspected_spans = self
            .metrics
            .inspected_spans
            .saturating_add(counted.series.counted_spans());
        self.counted
            .merge(&self.plan, counted.series, self.max_bytes)
    }

    /// Whether there are as many series as there may be, and the newest jobs have been heard.
    pub fn is_complete(&self) -> bool {
        self.counted.is_full(&self.plan) && self.completed_through_seconds().is_some()
    }

    /// The second down to which every tenant's answer is complete.
    fn completed_through_seconds(&self) -> Option<u32> {
        self.progress
            .iter()
            .map(Progress::completed_through_seconds)
            .try_fold(0, |latest, seconds| Some(latest.max(seconds?)))
    }

    /// What is known about the work done so far.
    pub fn metrics(&self) -> &SearchMetrics {
        &self.metrics
    }

    /// Everything counted so far.
    pub fn finish(&self) -> QueryRangeResponse {
        let mut response = QueryRangeResponse {
            metrics: Some(self.metrics.clone()),
            ..QueryRangeResponse::default()
        };
        if self.plan.matches_nothing() {
            return response;
        }
        let answer = self.counted.finish(&self.plan);
        if answer.is_truncated {
            response.status = PartialStatus::Partial as i32;
            response.message = format!(
                "Response exceeds maximum series limit of {}, a partial response is returned. \
                 Warning: the accuracy of each individual value is not guaranteed.",
                self.max_series
            );
        }
        response.series = convert::range_series(answer);
        response
    }

    /// The samples that have become complete since the last call: newer ones first, as jobs are
    /// done; all of them in the end.
    pub fn take_changes(&mut self) -> QueryRangeResponse {
        let told = self.told_through_seconds;
        let through = match self.completed_through_seconds() {
            Some(through) if told.is_none_or(|told| through < told) => through,
            _ => {
                return QueryRangeResponse {
                    metrics: Some(self.metrics.clone()),
                    ..QueryRangeResponse::default()
                };
            }
        };
        self.told_through_seconds = Some(through);
        let mut response = self.finish();
        if through == Shard::EVERYTHING {
            return response;
        }
        let millis = |seconds: u32| i64::from(seconds).saturating_mul(MILLIS_PER_SECOND);
        let is_new = |timestamp_ms: i64| {
            timestamp_ms > millis(through) && told.is_none_or(|told| timestamp_ms <= millis(told))
        };
        for series in &mut response.series {
            series.samples.retain(|sample| is_new(sample.timestamp_ms));
            series
                .exemplars
                .retain(|exemplar| is_new(exemplar.timestamp_ms));
        }
        response.series.retain(|series| !series.samples.is_empty());
        response
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use tempo_engine::{
        Limits,
        metrics::{MetricsOptions, evaluate},
    };
    use tempo_model::TraceId;
    use tempo_proto::{
        opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans, Span},
        tempopb::Trace,
    };
    use tempo_table::{MemoryTable, MemoryTableBuilder};

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    static RUNNING: AtomicBool = AtomicBool::new(false);

    fn window() -> Window {
        Window {
            start_nano: 0,
            end_nano: 100 * SECOND,
            step_nano: 10 * SECOND,
            is_instant: false,
        }
    }

    fn plan(query: &str, max_series: usize) -> Arc<MetricsPlan> {
        let options = MetricsOptions {
            max_series,
            ..MetricsOptions::default()
        };
        let query = tempo_traceql::parse(query).unwrap();
        Arc::new(MetricsPlan::new(&query, &options).unwrap())
    }

    /// Spans that start at these seconds.
    fn table(seconds: &[u64]) -> MemoryTable {
        let spans = seconds.iter().map(|&second| Span {
            span_id: second.to_be_bytes().to_vec(),
            name: format!("at {second}"),
            start_time_unix_nano: second * SECOND,
            end_time_unix_nano: second * SECOND,
            ..Span::default()
        });
        let trace = Trace {
            resource_spans: vec![ResourceSpans {
                scope_spans: vec![ScopeSpans {
                    spans: spans.collect(),
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let mut builder = MemoryTableBuilder::new();
        let bytes = prost::Message::encode_to_vec(&trace);
        builder
            .push_trace(TraceId::from_padded(&[1]), &[&bytes])
            .unwrap();
        builder.finish()
    }

    fn counted(plan: &MetricsPlan, seconds: &[u64]) -> CountedSpans {
        let limits = Limits {
            max_column_bytes: 1 << 30,
            cancel: &RUNNING,
        };
        CountedSpans {
            series: evaluate(plan, &table(seconds), window(), limits).unwrap(),
            inspected_bytes: 10,
        }
    }

    fn jobs(shards: &[(u32, u32)]) -> SearchPlan {
        SearchPlan {
            blocks: 1,
            block_bytes: 99,
            jobs: shards.iter().map(|(jobs, _)| jobs).sum(),
            shards: shards
                .iter()
                .map(|&(jobs, completed_through_seconds)| Shard {
                    jobs,
                    completed_through_seconds,
                })
                .collect(),
        }
    }

    fn samples(response: &QueryRangeResponse) -> Vec<(i64, f64)> {
        response
            .series
            .iter()
            .flat_map(|series| &series.samples)
            .map(|sample| (sample.timestamp_ms / 1000, sample.value))
            .collect()
    }

    #[test]
    fn samples_are_told_when_they_are_complete_and_all_in_the_end() {
        let plan = plan("{ } | count_over_time()", 0);
        let jobs = [jobs(&[(1, Shard::NOTHING), (1, 60), (2, 1)])];
        let mut combiner = MetricsCombiner::new(Arc::clone(&plan), window(), &jobs, 0, 1 << 30);
        assert_eq!(samples(&combiner.take_changes()), []);
        combiner.add(counted(&plan, &[95, 96]), 0, 0).unwrap();
        assert_eq!(samples(&combiner.take_changes()), []);
        combiner.add(counted(&plan, &[65, 75]), 0, 1).unwrap();
        assert_eq!(
            samples(&combiner.take_changes()),
            [(70, 1.0), (80, 1.0), (90, 0.0), (100, 2.0)]
        );
        combiner.add(counted(&plan, &[5]), 0, 2).unwrap();
        assert_eq!(samples(&combiner.take_changes()), []);
        assert!(!combiner.is_complete());
        combiner.add(counted(&plan, &[5, 35]), 0, 2).unwrap();
        let all = combiner.take_changes();
        assert_eq!(all, combiner.finish());
        assert_eq!(samples(&all).len(), 10);
        assert_eq!(
            samples(&all)[..4],
            [(10, 2.0), (20, 0.0), (30, 0.0), (40, 1.0)]
        );
        let metrics = all.metrics.unwrap();
        assert_eq!(
            (
                metrics.completed_jobs,
                metrics.total_jobs,
                metrics.inspected_bytes,
                metrics.inspected_spans,
                metrics.total_block_bytes
            ),
            (4, 4, 40, 7, 99)
        );
    }

    #[test]
    fn too_many_series_make_a_partial_answer() {
        let plan = plan("{ } | rate() by (name)", 3);
        let jobs = [jobs(&[(1, 50), (1, 1)])];
        let mut combiner = MetricsCombiner::new(Arc::clone(&plan), window(), &jobs, 3, 1 << 30);
        combiner
            .add(counted(&plan, &[10, 20, 30, 40]), 0, 0)
            .unwrap();
        assert!(combiner.is_complete());
        let answer = combiner.finish();
        assert_eq!(answer.series.len(), 3);
        assert_eq!(answer.status, PartialStatus::Partial as i32);
        assert_eq!(
            answer.message,
            "Response exceeds maximum series limit of 3, a partial response is returned. \
             Warning: the accuracy of each individual value is not guaranteed."
        );
        let mut narrow = MetricsCombiner::new(Arc::clone(&plan), window(), &jobs, 3, 10);
        assert!(narrow.add(counted(&plan, &[10]), 0, 0).is_err());
    }

    #[test]
    fn without_jobs_there_are_zeros_and_of_nothing_there_is_nothing() {
        let empty = MetricsCombiner::new(plan("{ } | rate()", 0), window(), &[], 0, 1 << 20);
        let answer = empty.finish();
        assert_eq!(samples(&answer).len(), 10);
        assert_eq!(answer.metrics.unwrap().completed_jobs, 1);
        let nothing =
            MetricsCombiner::new(plan("{ false } | rate()", 0), window(), &[], 0, 1 << 20);
        assert_eq!(
            nothing.finish(),
            QueryRangeResponse {
                metrics: Some(SearchMetrics::default()),
                ..QueryRangeResponse::default()
            }
        );
    }

    #[test]
    fn an_instant_is_the_first_sample_of_each_series() {
        let plan = plan("{ } | count_over_time() by (name)", 0);
        let instant = Window {
            is_instant: true,
            step_nano: 100 * SECOND,
            ..window()
        };
        let mut combiner = MetricsCombiner::new(Arc::clone(&plan), instant, &[], 0, 1 << 30);
        let limits = Limits {
            max_column_bytes: 1 << 30,
            cancel: &RUNNING,
        };
        let series = evaluate(&plan, &table(&[10, 20]), instant, limits).unwrap();
        let counted = CountedSpans {
            series,
            inspected_bytes: 0,
        };
        combiner.add(counted, 0, 0).unwrap();
        let response = convert::instant_response(combiner.finish());
        let values: Vec<f64> = response.series.iter().map(|series| series.value).collect();
        assert_eq!(values, [1.0, 1.0]);
        assert_eq!(response.series[0].labels[0].key, "name");
    }
}
