//! Merging search results.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, hash_map::Entry},
    mem,
};

use prost::Message as _;
use tempo_model::TraceId;
use tempo_proto::tempopb::{SearchMetrics, SearchResponse, SpanSet, TraceSearchMetadata};

use super::{Progress, Shard};
use crate::job::JobError;

/// Most bytes of the traces found, as they travel; in memory they are several times as many. A result
/// of the largest limit with three spans of each trace takes about as much.
const MAX_FOUND_BYTES: usize = 128 * 1024 * 1024;

/// What search results show for a trace whose root has not arrived.
const NO_ROOT_SERVICE: &str = "<root span not yet received>";

/// What a search of one tenant is going to read.
#[derive(Debug, Clone, Default)]
pub struct SearchPlan {
    /// Blocks to look into.
    pub blocks: u32,
    /// Their sizes together, in bytes, by the jobs that were made of them.
    pub block_bytes: u64,
    /// All jobs, recent ones included.
    pub jobs: u32,
    /// The same jobs in order of time.
    pub shards: Vec<Shard>,
}

/// A trace that was found, by its id.
#[derive(Debug)]
struct Known {
    /// Without its id.
    trace: TraceSearchMetadata,
    /// Encoded, without what surrounds it.
    bytes: usize,
    /// New or other than it was in the last part of a stream.
    changed: bool,
}

impl Known {
    fn new(trace: TraceSearchMetadata) -> Self {
        Self {
            bytes: trace.encoded_len(),
            trace,
            changed: true,
        }
    }
}

/// The traces that a search has found so far. Answers of jobs need not say `spanSet`, which is the
/// first of `spanSets`; whole answers say it.
#[derive(Debug)]
pub struct SearchCombiner {
    limit: usize,
    most_recent: bool,
    pad_trace_ids: bool,
    traces: HashMap<String, Known>,
    /// Of all of them.
    bytes: usize,
    max_bytes: usize,
    /// Newest first. Kept only if the newest are wanted.
    by_start: BTreeSet<(Reverse<u64>, String)>,
    /// One per tenant.
    progress: Vec<Progress>,
    metrics: SearchMetrics,
}

impl SearchCombiner {
    /// Keeps up to `limit` traces (any number when 0): the first ones found, or with
    /// `most_recent` those that started last. There is one plan per tenant. `pad_trace_ids`
    /// writes ids with all 32 digits.
    pub fn new(limit: u32, most_recent: bool, pad_trace_ids: bool, plans: &[SearchPlan]) -> Self {
        let mut metrics = SearchMetrics::default();
        for plan in plans {
            metrics.total_blocks += plan.blocks;
            metrics.total_jobs += plan.jobs;
            metrics.total_block_bytes += plan.block_bytes;
        }
        Self {
            limit: limit as usize,
            most_recent,
            pad_trace_ids,
            traces: HashMap::new(),
            bytes: 0,
            max_bytes: MAX_FOUND_BYTES,
            by_start: BTreeSet::new(),
            progress: plans
                .iter()
                .map(|plan| Progress::new(plan.shards.clone()))
                .collect(),
            metrics,
        }
    }

    /// Adds the answer of one job of `shard` of the plan of tenant number `tenant`.
    ///
    /// # Errors
    /// [`JobError::OverBudget`] when the traces take too many bytes.
    pub fn add(
        &mut self,
        response: SearchResponse,
        tenant: usize,
        shard: usize,
    ) -> Result<(), JobError> {
        if let Some(progress) = self.progress.get_mut(tenant) {
            progress.job_done(shard);
        }
        for trace in response.traces {
            self.add_trace(trace);
            if self.bytes > self.max_bytes {
                return Err(JobError::OverBudget(format!(
                    "the traces found take more than {} bytes; ask for fewer traces (limit), or \
                     group by attributes with fewer values",
                    self.max_bytes
                )));
            }
        }
        self.metrics.completed_jobs += 1;
        if let Some(metrics) = response.metrics {
            self.metrics.inspected_traces = self
                .metrics
                .inspected_traces
                .saturating_add(metrics.inspected_traces);
            self.metrics.inspected_bytes = self
                .metrics
                .inspected_bytes
                .saturating_add(metrics.inspected_bytes);
        }
        Ok(())
    }

    fn add_trace(&mut self, mut trace: TraceSearchMetadata) {
        let full = self.limit > 0 && self.traces.len() >= self.limit;
        trace.span_set = None;
        match self.traces.entry(mem::take(&mut trace.trace_id)) {
            Entry::Occupied(mut entry) => {
                let id = entry.key().clone();
                let known = entry.get_mut();
                let before = known.trace.start_time_unix_nano;
                self.bytes -= known.bytes;
                merge(&mut known.trace, trace);
                known.bytes = known.trace.encoded_len();
                known.changed = true;
                self.bytes += known.bytes;
                let start = known.trace.start_time_unix_nano;
                if self.most_recent && start != before {
                    self.by_start.remove(&(Reverse(before), id.clone()));
                    self.by_start.insert((Reverse(start), id));
                }
            }
            Entry::Vacant(_) if full && !self.most_recent => {}
            Entry::Vacant(free) => {
                let start = trace.start_time_unix_nano;
                if full
                    && self
                        .by_start
                        .last()
                        .is_some_and(|oldest| oldest.0.0 > start)
                {
                    return;
                }
                if self.most_recent {
                    self.by_start.insert((Reverse(start), free.key().clone()));
                }
                let known = Known::new(trace);
                self.bytes += known.bytes;
                free.insert(known);
                if full && let Some((_, oldest)) = self.by_start.pop_last() {
                    let removed = self.traces.remove(&oldest);
                    self.bytes -= removed.map_or(0, |known| known.bytes);
                }
            }
        }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }

    /// Whether no further job can change which traces are in the answer.
    pub fn is_complete(&self) -> bool {
        if self.limit == 0 || self.traces.len() < self.limit {
            return false;
        }
        if !self.most_recent {
            return true;
        }
        match (self.completed_through_seconds(), self.by_start.last()) {
            (Some(seconds), Some((Reverse(oldest), _))) => {
                seconds != Shard::NOTHING && *oldest > u64::from(seconds) * 1_000_000_000
            }
            _ => false,
        }
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

    /// Everything found, newest first, for whoever writes `spanSet` himself.
    pub fn into_found(self) -> SearchResponse {
        let pad_trace_ids = self.pad_trace_ids;
        let traces = self.traces.into_iter();
        let traces = traces.map(|(id, known)| shown(id, known.trace, pad_trace_ids));
        SearchResponse {
            traces: newest_first(traces.collect()),
            metrics: Some(self.metrics),
        }
    }

    /// Everything found, newest first.
    pub fn finish(self) -> SearchResponse {
        with_span_set(self.into_found())
    }

    /// Everything found, in no order and as it was told: for a querier, whose answer is merged with
    /// others.
    pub fn into_traces(self) -> Vec<TraceSearchMetadata> {
        let traces = self.traces.into_iter();
        traces
            .map(|(trace_id, known)| TraceSearchMetadata {
                trace_id,
                ..known.trace
            })
            .collect()
    }

    /// What is new or changed since the last call. With `most_recent` only what no later job can
    /// push out.
    pub fn take_changes(&mut self) -> SearchResponse {
        let after_nanos = match (self.most_recent, self.completed_through_seconds()) {
            (false, _) => Some(0),
            (true, Some(seconds)) => Some(u64::from(seconds) * 1_000_000_000),
            (true, None) => None,
        };
        let (most_recent, pad_trace_ids) = (self.most_recent, self.pad_trace_ids);
        let is_settled =
            |start: u64| after_nanos.is_some_and(|after| !most_recent || start > after);
        let changed = self.traces.iter_mut();
        let changed = changed
            .filter(|(_, known)| known.changed && is_settled(known.trace.start_time_unix_nano));
        let traces = changed.map(|(id, known)| {
            known.changed = false;
            shown(id.clone(), known.trace.clone(), pad_trace_ids)
        });
        with_span_set(SearchResponse {
            traces: newest_first(traces.collect()),
            metrics: Some(self.metrics.clone()),
        })
    }
}

/// A trace as answers show it.
fn shown(id: String, trace: TraceSearchMetadata, pads_id: bool) -> TraceSearchMetadata {
    let padded = || Some(id.parse::<TraceId>().ok()?.to_string());
    let padded = if pads_id { padded() } else { None };
    TraceSearchMetadata {
        trace_id: padded.unwrap_or(id),
        root_service_name: match trace.root_service_name.is_empty() {
            true => NO_ROOT_SERVICE.to_owned(),
            false => trace.root_service_name,
        },
        ..trace
    }
}

fn newest_first(mut traces: Vec<TraceSearchMetadata>) -> Vec<TraceSearchMetadata> {
    traces.sort_unstable_by(|a, b| {
        (b.start_time_unix_nano, &a.trace_id).cmp(&(a.start_time_unix_nano, &b.trace_id))
    });
    traces
}

/// Says `spanSet`, too, which clients of old read.
pub fn with_span_set(mut response: SearchResponse) -> SearchResponse {
    for trace in &mut response.traces {
        trace.span_set = trace.span_sets.first().cloned();
    }
    response
}

/// Merges what two places know about one trace.
fn merge(known: &mut TraceSearchMetadata, other: TraceSearchMetadata) {
    if known.root_service_name.is_empty() {
        known.root_service_name = other.root_service_name;
    }
    if known.root_trace_name.is_empty() {
        known.root_trace_name = other.root_trace_name;
    }
    if known.start_time_unix_nano == 0 || other.start_time_unix_nano < known.start_time_unix_nano {
        known.start_time_unix_nano = other.start_time_unix_nano;
    }
    known.duration_ms = known.duration_ms.max(other.duration_ms);
    for (service, stats) in other.service_stats {
        let known = known.service_stats.entry(service).or_default();
        known.span_count = known.span_count.max(stats.span_count);
        known.error_count = known.error_count.max(stats.error_count);
    }
    // There may be one for every span. Of equal ones that are known the first counts.
    let mut places = HashMap::with_capacity(known.span_sets.len());
    for (place, set) in known.span_sets.iter().enumerate() {
        places.entry(span_set_identity(set)).or_insert(place);
    }
    for set in other.span_sets {
        match places.entry(span_set_identity(&set)) {
            Entry::Vacant(new) => {
                new.insert(known.span_sets.len());
                known.span_sets.push(set);
            }
            Entry::Occupied(place) => {
                if let Some(known) = known.span_sets.get_mut(*place.get())
                    && set.matched > known.matched
                {
                    *known = set;
                }
            }
        }
    }
}

/// The values that a set is grouped by; sets of one trace with equal values are the same set.
fn span_set_identity(set: &SpanSet) -> Vec<u8> {
    let mut identity = Vec::new();
    for attribute in &set.attributes {
        if attribute.key.starts_with("by") {
            identity.extend_from_slice(&attribute.encode_length_delimited_to_vec());
        }
    }
    identity
}

#[cfg(test)]
mod tests {
    use tempo_proto::{
        opentelemetry::proto::common::v1::{AnyValue, KeyValue, any_value::Value},
        tempopb::{ServiceStats, Span},
    };

    use super::*;

    fn found(id: &str, start_seconds: u64) -> TraceSearchMetadata {
        TraceSearchMetadata {
            trace_id: id.to_owned(),
            start_time_unix_nano: start_seconds * 1_000_000_000,
            ..TraceSearchMetadata::default()
        }
    }

    fn response(traces: Vec<TraceSearchMetadata>) -> SearchResponse {
        SearchResponse {
            traces,
            metrics: Some(SearchMetrics {
                inspected_bytes: 10,
                inspected_traces: 2,
                inspected_spans: 7,
                ..SearchMetrics::default()
            }),
        }
    }

    fn ids(response: &SearchResponse) -> Vec<&str> {
        response
            .traces
            .iter()
            .map(|trace| trace.trace_id.as_str())
            .collect()
    }

    fn plan(shards: &[(u32, u32)]) -> SearchPlan {
        SearchPlan {
            blocks: 4,
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

    #[test]
    fn the_first_traces_fill_the_limit_and_later_parts_still_merge() {
        let mut combiner = SearchCombiner::new(2, false, false, &[plan(&[(8, 1)])]);
        combiner
            .add(response(vec![found("a", 10), found("b", 20)]), 0, 0)
            .unwrap();
        assert!(combiner.is_complete());
        combiner
            .add(response(vec![found("c", 30), found("a", 5)]), 0, 0)
            .unwrap();
        let answer = combiner.finish();
        assert_eq!(ids(&answer), ["b", "a"]);
        assert_eq!(answer.traces[1].start_time_unix_nano, 5_000_000_000);
        assert_eq!(answer.traces[0].root_service_name, NO_ROOT_SERVICE);
        let metrics = answer.metrics.unwrap();
        assert_eq!(
            (
                metrics.completed_jobs,
                metrics.total_jobs,
                metrics.total_blocks,
                metrics.total_block_bytes
            ),
            (2, 8, 4, 99)
        );
        assert_eq!(
            (
                metrics.inspected_bytes,
                metrics.inspected_traces,
                metrics.inspected_spans
            ),
            (20, 4, 0)
        );
    }

    #[test]
    fn the_most_recent_are_kept_and_complete_when_time_is() {
        let plans = [plan(&[(1, Shard::NOTHING), (1, 15), (1, 1)])];
        let mut combiner = SearchCombiner::new(2, true, false, &plans);
        combiner
            .add(response(vec![found("a", 10), found("b", 20)]), 0, 0)
            .unwrap();
        assert!(!combiner.is_complete());
        assert_eq!(ids(&combiner.take_changes()), [""; 0]);
        combiner
            .add(response(vec![found("c", 30), found("d", 1)]), 0, 1)
            .unwrap();
        assert!(combiner.is_complete());
        assert_eq!(ids(&combiner.take_changes()), ["c", "b"]);
        assert_eq!(ids(&combiner.take_changes()), [""; 0]);
        combiner.add(response(vec![found("c", 40)]), 0, 2).unwrap();
        assert_eq!(ids(&combiner.take_changes()), ["c"]);
        assert_eq!(ids(&combiner.finish()), ["c", "b"]);
    }

    #[test]
    fn a_tenant_that_lags_behind_holds_the_answer_open() {
        let plans = [plan(&[(1, 5)]), plan(&[(2, 5)])];
        let mut combiner = SearchCombiner::new(1, true, false, &plans);
        combiner.add(response(vec![found("a", 10)]), 0, 0).unwrap();
        assert!(!combiner.is_complete());
        combiner.add(response(vec![]), 1, 0).unwrap();
        combiner.add(response(vec![]), 1, 0).unwrap();
        assert!(combiner.is_complete());
    }

    #[test]
    fn parts_of_one_trace_are_merged() {
        let set = |group: Option<i64>, matched: u32, span: &str| SpanSet {
            spans: vec![Span {
                span_id: span.to_owned(),
                ..Span::default()
            }],
            matched,
            attributes: group
                .map(|value| KeyValue {
                    key: "by(.x)".to_owned(),
                    value: Some(AnyValue {
                        value: Some(Value::IntValue(value)),
                    }),
                    ..KeyValue::default()
                })
                .into_iter()
                .collect(),
        };
        let stats = |spans, errors| ServiceStats {
            span_count: spans,
            error_count: errors,
        };
        let mut combiner = SearchCombiner::new(0, false, true, &[]);
        combiner
            .add(
                response(vec![TraceSearchMetadata {
                    duration_ms: 5,
                    span_sets: vec![set(Some(1), 3, "first"), set(Some(2), 1, "second")],
                    service_stats: [("s".to_owned(), stats(3, 0))].into(),
                    ..found("ab", 10)
                }]),
                0,
                0,
            )
            .unwrap();
        combiner
            .add(
                response(vec![TraceSearchMetadata {
                    root_service_name: "root".to_owned(),
                    root_trace_name: "name".to_owned(),
                    duration_ms: 4,
                    span_sets: vec![
                        set(Some(1), 2, "fewer"),
                        set(Some(2), 4, "more"),
                        set(None, 1, "other"),
                    ],
                    service_stats: [("s".to_owned(), stats(1, 1)), ("t".to_owned(), stats(1, 0))]
                        .into(),
                    ..found("ab", 11)
                }]),
                0,
                0,
            )
            .unwrap();
        assert_eq!(combiner.take_changes().traces.len(), 1);
        assert_eq!(combiner.take_changes().traces.len(), 0);
        let answer = combiner.finish();
        let [trace] = answer.traces.as_slice() else {
            panic!("one trace expected");
        };
        assert_eq!(trace.trace_id, format!("{:0>32}", "ab"));
        assert_eq!(
            (
                trace.root_service_name.as_str(),
                trace.root_trace_name.as_str()
            ),
            ("root", "name")
        );
        assert_eq!(trace.start_time_unix_nano, 10_000_000_000);
        assert_eq!(trace.duration_ms, 5);
        assert_eq!(trace.service_stats["s"], stats(3, 1));
        assert_eq!(trace.service_stats["t"], stats(1, 0));
        let spans: Vec<_> = trace
            .span_sets
            .iter()
            .map(|set| set.spans[0].span_id.as_str())
            .collect();
        assert_eq!(spans, ["first", "more", "other"]);
        assert_eq!(trace.span_set.as_ref().unwrap().spans[0].span_id, "first");
    }

    #[test]
    fn traces_that_take_too_many_bytes_end_the_search() {
        let with_sets = |id: &str, sets: std::ops::Range<i64>| TraceSearchMetadata {
            span_sets: sets
                .map(|value| SpanSet {
                    matched: 1,
                    attributes: vec![KeyValue {
                        key: "by(span:id)".to_owned(),
                        value: Some(AnyValue {
                            value: Some(Value::IntValue(value)),
                        }),
                        ..KeyValue::default()
                    }],
                    ..SpanSet::default()
                })
                .collect(),
            ..found(id, 10)
        };
        let mut combiner = SearchCombiner::new(0, false, false, &[]);
        combiner.max_bytes = 10_000;
        let mut add = |id: &str, sets| combiner.add(response(vec![with_sets(id, sets)]), 0, 0);
        // The same sets from another place take no room.
        for _ in 0..50 {
            add("a", 0..100).unwrap();
        }
        add("b", 0..100).unwrap();
        // Further ones do.
        let error = (1..50).find_map(|more| add("a", more * 100..more * 100 + 100).err());
        let Some(JobError::OverBudget(text)) = error else {
            panic!("{error:?}");
        };
        assert!(text.contains("more than 10000 bytes"), "{text}");

        // Of the newest only those count that are kept.
        let mut newest = SearchCombiner::new(2, true, false, &[]);
        newest.max_bytes = 10_000;
        for number in 0..200 {
            let trace = TraceSearchMetadata {
                start_time_unix_nano: number,
                ..with_sets(&number.to_string(), 0..100)
            };
            newest.add(response(vec![trace]), 0, 0).unwrap();
        }
        let kept: usize = newest
            .traces
            .values()
            .map(|known| known.trace.encoded_len())
            .sum();
        assert_eq!(newest.bytes, kept);
    }
}
