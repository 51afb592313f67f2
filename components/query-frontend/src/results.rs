//! Answers of jobs, kept for whoever asks the same of the same block again.
//!
//! Owns which answers may be kept: those of whole blocks, which do not change, and of queries whose
//! time holds all of the block's, so that it makes no difference. Must never keep an answer about
//! recent data, nor that of a block that nobody could read.

use std::{hash::Hasher as _, sync::Arc};

use bytes::Bytes;
use prost::Message as _;
use tempo_api::{
    job::{DataPlace, Job, JobOutput},
    wire,
};
use tempo_backend::{
    BlockFormat, BlockMeta,
    cache::{Cache, CacheKey, CacheRole},
};
use tempo_proto::{tempopb::backend::v1 as proto, tempostack::query::v1::JobOutput as Stored};
use twox_hash::XxHash64;

/// Larger answers are not kept.
const MAX_KEPT_ANSWER_BYTES: usize = 1024 * 1024;
/// With more series an answer is larger, however short they are.
const MAX_KEPT_SERIES: usize = MAX_KEPT_ANSWER_BYTES / 64;
/// With more traces, too.
const MAX_KEPT_TRACES: usize = MAX_KEPT_ANSWER_BYTES / 64;
/// Part of every key outside of the process: changes whenever stored answers change their meaning.
const FORMAT: &str = "tempostack-1";

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Answers of jobs, in this process and in the cache for `frontend-search`.
#[derive(Clone)]
pub(crate) struct Results {
    cache: Cache,
    max_series_bytes: usize,
}

/// What an answer is kept under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResultKey {
    /// Tempo's prefix for jobs of this kind.
    kind: &'static str,
    key: CacheKey,
}

impl ResultKey {
    fn text(&self) -> String {
        let CacheKey {
            tenant,
            block,
            part: (hash, groups),
            ..
        } = &self.key;
        let kind = self.kind;
        format!("{FORMAT}:{kind}:{tenant}:{hash}:{block}:{groups}")
    }
}

impl Results {
    pub(crate) fn new(cache: Cache, max_series_bytes: usize) -> Self {
        Self {
            cache,
            max_series_bytes,
        }
    }

    /// The answer of an equal job. What it reads was read before, and is not counted again.
    pub(crate) async fn get(&self, key: &ResultKey) -> Option<JobOutput> {
        if let Some(kept) = self.cache.get::<Bytes>(&key.key) {
            return self.decode(&kept);
        }
        let remote = self.cache.remote();
        if !remote.has(CacheRole::FrontendSearch) {
            return None;
        }
        let keys = [key.text()];
        let found = remote.get(CacheRole::FrontendSearch, &keys).await;
        let kept = found.into_iter().next().flatten()?;
        let output = self.decode(&kept)?;
        self.keep(key, kept);
        Some(output)
    }

    /// Keeps an answer, unless it is large.
    pub(crate) fn put(&self, key: &ResultKey, output: &JobOutput) {
        if is_surely_large(output) {
            return;
        }
        let Some(encoded) = wire::output_bytes(output, MAX_KEPT_ANSWER_BYTES) else {
            return;
        };
        let encoded = Bytes::from(encoded);
        let remote = self.cache.remote();
        if remote.has(CacheRole::FrontendSearch) {
            remote.put(CacheRole::FrontendSearch, key.text(), encoded.clone());
        }
        self.keep(key, encoded);
    }

    fn keep(&self, key: &ResultKey, encoded: Bytes) {
        let weight_bytes = encoded.len() as u64;
        self.cache
            .insert(key.key.clone(), Arc::new(encoded), weight_bytes);
    }

    /// Nothing when what was kept is not readable: then the job is run.
    fn decode(&self, kept: &[u8]) -> Option<JobOutput> {
        let message = Stored::decode(kept).ok()?;
        let mut output = wire::decode_output(message, self.max_series_bytes).ok()?;
        match &mut output {
            JobOutput::Search(found) => {
                if let Some(metrics) = &mut found.metrics {
                    metrics.inspected_bytes = 0;
                    metrics.inspected_traces = 0;
                    metrics.inspected_spans = 0;
                }
            }
            JobOutput::TagNames(found) => {
                if let Some(metrics) = &mut found.metrics {
                    metrics.inspected_bytes = 0;
                }
            }
            JobOutput::TagValues(found) => {
                if let Some(metrics) = &mut found.metrics {
                    metrics.inspected_bytes = 0;
                }
            }
            JobOutput::QueryRange(counted) => {
                counted.inspected_bytes = 0;
                counted.series.forget_counted_spans();
            }
            JobOutput::Trace(_) => {}
        }
        Some(output)
    }
}

/// Whether an answer need not be encoded to know that it is too large.
fn is_surely_large(output: &JobOutput) -> bool {
    match output {
        JobOutput::Trace(_) => true,
        JobOutput::Search(found) => found.traces.len() > MAX_KEPT_TRACES,
        JobOutput::TagNames(_) | JobOutput::TagValues(_) => false,
        JobOutput::QueryRange(counted) => counted.series.len() > MAX_KEPT_SERIES,
    }
}

/// Under what the answer of a job may be kept, if at all.
pub(crate) fn key(tenant: &Arc<str>, job: &Job) -> Option<ResultKey> {
    let (kind, place, hash) = match job {
        Job::FindTrace { .. } => return None,
        Job::Search { request, place } => {
            let meta = block(place)?;
            holds_seconds(request.start, request.end, meta)?;
            let mut key = Key::new("search");
            key.text(&canonical(&request.query)?);
            key.number(u64::from(request.limit));
            key.number(u64::from(request.spans_per_span_set));
            key.texts(&request.skip_ast_transformations);
            ("sj", place, key.finish())
        }
        Job::TagNames {
            request,
            max_bytes,
            place,
        } => {
            let meta = block(place)?;
            holds_seconds(request.start, request.end, meta)?;
            let mut key = Key::new("names");
            key.text(&request.scope);
            key.text(&tempo_traceql::normalize(&request.query));
            key.number(u64::from(request.max_tags_per_scope));
            key.number(u64::from(request.stale_values_threshold));
            key.number(*max_bytes);
            ("st", place, key.finish())
        }
        Job::TagValues {
            request,
            max_bytes,
            place,
        } => {
            let meta = block(place)?;
            holds_seconds(request.start, request.end, meta)?;
            let mut key = Key::new("values");
            key.text(&request.tag_name);
            key.text(&tempo_traceql::normalize(&request.query));
            key.number(u64::from(request.max_tag_values));
            key.number(u64::from(request.stale_value_threshold));
            key.number(*max_bytes);
            ("stv", place, key.finish())
        }
        Job::QueryRange {
            request,
            window,
            max_exemplars,
            place,
        } => {
            let meta = block(place)?;
            let start = window.start_nano.div_ceil(NANOS_PER_SECOND);
            let end = window.end_nano / NANOS_PER_SECOND;
            holds(start, end, meta)?;
            let mut key = Key::new("range");
            key.text(&canonical(&request.query)?);
            key.texts(&request.skip_ast_transformations);
            key.number(window.step_nano);
            key.number(u64::from(request.max_series));
            key.number(u64::from(*max_exemplars));
            key.number(u64::from(request.exemplars));
            // The one interval of an instant query is the query's own.
            key.number(u64::from(window.is_instant));
            if window.is_instant {
                key.number(window.start_nano);
                key.number(window.end_nano);
            }
            ("qr", place, key.finish())
        }
    };
    let DataPlace::Block {
        meta,
        first_row_group,
        row_groups,
    } = place
    else {
        return None;
    };
    Some(ResultKey {
        kind,
        key: CacheKey {
            role: CacheRole::FrontendSearch,
            tenant: Arc::clone(tenant),
            block: BlockMeta::from_proto(meta).ok()?.block_id,
            part: (
                hash,
                u64::from(*first_row_group) << 32 | u64::from(*row_groups),
            ),
        },
    })
}

/// The block, if queriers can read it: of others they find nothing, until they are of a version
/// that can.
fn block(place: &DataPlace) -> Option<&proto::BlockMeta> {
    match place {
        DataPlace::Block { meta, .. } => {
            let format = BlockFormat::from(meta.format.as_str());
            format.is_supported().then_some(&**meta)
        }
        DataPlace::Recent { .. } => None,
    }
}

fn holds_seconds(start: u32, end: u32, meta: &proto::BlockMeta) -> Option<()> {
    holds(u64::from(start), u64::from(end), meta)
}

/// Something, if the block's time lies strictly within the seconds.
fn holds(start: u64, end: u64, meta: &proto::BlockMeta) -> Option<()> {
    let second = |time: &Option<prost_types::Timestamp>| u64::try_from(time.as_ref()?.seconds).ok();
    let first = second(&meta.start_time)?;
    // Up to the end of its last second.
    let last = second(&meta.end_time)? + 1;
    (start < first && last < end).then_some(())
}

/// The text that equal queries have in common, hints included.
fn canonical(query: &str) -> Option<String> {
    let query = tempo_traceql::parse_without_rewrites(query).ok()?;
    Some(query.to_string())
}

/// A hash of parts that cannot run into each other.
struct Key(XxHash64);

impl Key {
    fn new(kind: &str) -> Self {
        let mut key = Self(XxHash64::with_seed(0));
        key.text(kind);
        key
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.write(text.as_bytes());
    }

    fn texts(&mut self, texts: &[String]) {
        self.number(texts.len() as u64);
        texts.iter().for_each(|text| self.text(text));
    }

    fn number(&mut self, number: u64) {
        self.0.write(&number.to_le_bytes());
    }

    fn finish(self) -> u64 {
        self.0.finish()
    }
}
