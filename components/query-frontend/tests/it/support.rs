//! A frontend whose jobs are answered by a function, and a client for it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use prost::Message as _;
use tempo_api::job::{CountedSpans, Job, JobOutput, JobResult, TraceParts, parse_query};
use tempo_backend::{BlockChange, BlockFormat, BlockMeta, Blocklist, Timestamp, cache::Cache};
use tempo_engine::{
    Limits,
    metrics::{MetricsOptions, MetricsPlan, Window, evaluate},
};
use tempo_model::TraceId;
use tempo_proto::{
    opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans, Span},
    tempopb::{
        MetadataMetrics, QueryRangeRequest, SearchMetrics, SearchResponse,
        SearchTagValuesV2Response, SearchTagsV2Response, SearchTagsV2Scope, TagValue, Trace,
        TraceSearchMetadata,
    },
};
use tempo_query_frontend::{BuiltUntil, Config, Deps, Handle, QueueHandle, ReadLimits, build};
use tempo_table::MemoryTableBuilder;
use tower::ServiceExt as _;
use uuid::Uuid;

/// What the frontend takes for the present, unix seconds.
pub(crate) const NOW: u32 = 1_700_000_000;

/// A frontend at [`NOW`], and the blocks it knows.
pub(crate) struct Stack {
    pub(crate) handle: Handle,
    pub(crate) registry: prometheus::Registry,
    pub(crate) blocklist: Blocklist,
    router: Router,
}

impl Stack {
    pub(crate) fn new(config: Config) -> Self {
        Self::with_limits(config, ReadLimits::default())
    }

    pub(crate) fn with_limits(config: Config, limits: ReadLimits) -> Self {
        Self::build(i64::from(NOW), config, limits)
    }

    /// With another present.
    pub(crate) fn at(now: i64, config: Config) -> Self {
        Self::build(now, config, ReadLimits::default())
    }

    /// With a place for answers of jobs.
    pub(crate) fn with_results(config: Config, results: Cache) -> Self {
        Self::build_with(i64::from(NOW), config, ReadLimits::default(), Some(results))
    }

    /// Where block-builders are so far.
    pub(crate) fn with_built(config: Config, built: BuiltUntil) -> Self {
        let limits = ReadLimits::default();
        Self::build_all(i64::from(NOW), config, limits, None, built)
    }

    fn build(now: i64, config: Config, limits: ReadLimits) -> Self {
        Self::build_with(now, config, limits, None)
    }

    fn build_with(now: i64, config: Config, limits: ReadLimits, results: Option<Cache>) -> Self {
        Self::build_all(now, config, limits, results, BuiltUntil::AsConfigured)
    }

    fn build_all(
        now: i64,
        config: Config,
        limits: ReadLimits,
        results: Option<Cache>,
        built: BuiltUntil,
    ) -> Self {
        let registry = prometheus::Registry::new();
        let blocklist = Blocklist::new();
        let (handle, _service) = build(
            config,
            Deps {
                blocklist: blocklist.clone(),
                limits: Arc::new(limits),
                results,
                now_nanos: Arc::new(move || now * 1_000_000_000),
                built_until: Arc::new(move |_| built),
                registry: &registry,
            },
        )
        .expect("settings are right");
        Self {
            router: handle.router(),
            handle,
            registry,
            blocklist,
        }
    }

    /// Makes a block known that ends `age_seconds` before [`NOW`].
    pub(crate) fn add_block(&self, tenant: &str, age_seconds: u32, row_groups: u32) {
        self.add(tenant, age_seconds, row_groups, 1, BlockFormat::VParquet4);
    }

    /// The same for a block of another format.
    pub(crate) fn add_block_of_format(&self, tenant: &str, age_seconds: u32, format: &str) {
        self.add(tenant, age_seconds, 1, 1, format.into());
    }

    /// The same for a block whose spans are stored in others, too.
    pub(crate) fn add_replicas(&self, tenant: &str, age_seconds: u32) {
        self.add(tenant, age_seconds, 1, 3, BlockFormat::VParquet4);
    }

    fn add(
        &self,
        tenant: &str,
        age_seconds: u32,
        row_groups: u32,
        replication_factor: u32,
        format: BlockFormat,
    ) {
        let mut meta = BlockMeta::new(tenant.into(), Uuid::new_v4(), format);
        let end = i64::from(NOW - age_seconds);
        meta.start_time = Timestamp::from_unix_seconds(end - 60);
        meta.end_time = Timestamp::from_unix_seconds(end);
        meta.size = 1_000 * u64::from(row_groups);
        meta.total_records = row_groups;
        meta.replication_factor = replication_factor;
        self.blocklist.apply_change(
            tenant,
            BlockChange {
                added: vec![Arc::new(meta)],
                ..BlockChange::default()
            },
        );
    }

    /// Answers every job, several at a time, and notes it.
    pub(crate) fn querier(
        &self,
        answer: impl Fn(&str, &Job) -> JobResult + Send + Sync + 'static,
    ) -> Seen {
        let seen = Seen::default();
        let answer = Arc::new(answer);
        for _ in 0..4 {
            let (queue, answer, seen) = (self.handle.queue(), Arc::clone(&answer), seen.clone());
            tokio::spawn(async move { serve(queue, &*answer, seen).await });
        }
        seen
    }

    pub(crate) async fn get(&self, url: &str) -> Reply {
        self.send(Request::get(url)).await
    }

    pub(crate) async fn send(&self, request: http::request::Builder) -> Reply {
        let request = request.body(Body::empty()).expect("a proper request");
        Reply::of(&self.router, request).await
    }

    pub(crate) async fn post(&self, url: &str, body: impl Into<Body>) -> Reply {
        let request = Request::post(url).body(body.into());
        Reply::of(&self.router, request.expect("a proper request")).await
    }

    /// The value of a metric with these labels, 0 if there is none.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        families
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(|family| family.get_metric())
            .filter(|metric| {
                labels.iter().all(|(label, value)| {
                    metric
                        .get_label()
                        .iter()
                        .any(|pair| pair.name() == *label && pair.value() == *value)
                })
            })
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }
}

async fn serve(queue: QueueHandle, answer: &(dyn Fn(&str, &Job) -> JobResult + Sync), seen: Seen) {
    let connection = queue.connect();
    while let Some(queued) = connection.next().await {
        let (tenant, job, _, responder) = queued.into_parts();
        seen.0
            .lock()
            .expect("no test panics with it")
            .push_back((tenant.to_string(), job.clone()));
        responder.respond(answer(&tenant, &job));
    }
}

/// The jobs that were handed out, with their tenants.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<VecDeque<(String, Job)>>>);

impl Seen {
    pub(crate) fn take(&self) -> Vec<(String, Job)> {
        self.0
            .lock()
            .expect("no test panics with it")
            .drain(..)
            .collect()
    }
}

/// An answer, read to the end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) async fn of(router: &Router, request: Request<Body>) -> Self {
        let response = router
            .clone()
            .oneshot(request)
            .await
            .expect("routers do not fail");
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX)
            .await
            .expect("bodies are in memory");
        Self {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn content_type(&self) -> &str {
        self.headers
            .get(header::CONTENT_TYPE)
            .map_or("", |value| value.to_str().expect("text"))
    }

    /// Status and text.
    pub(crate) fn pair(&self) -> (u16, &str) {
        (self.status.as_u16(), self.text())
    }
}

/// What a querier answers that finds nothing.
pub(crate) fn nothing(job: &Job) -> JobResult {
    Ok(match job {
        Job::FindTrace { .. } => JobOutput::Trace(TraceParts::default()),
        Job::Search { .. } => JobOutput::Search(SearchResponse {
            traces: Vec::new(),
            metrics: Some(SearchMetrics {
                inspected_bytes: 10,
                ..SearchMetrics::default()
            }),
        }),
        Job::TagNames { .. } => JobOutput::TagNames(SearchTagsV2Response::default()),
        Job::TagValues { .. } => JobOutput::TagValues(SearchTagValuesV2Response::default()),
        Job::QueryRange {
            request, window, ..
        } => JobOutput::QueryRange(counted(request, *window, &[])),
    })
}

/// What a querier counts of a table with spans that start at these seconds, each in a trace of its
/// own and named after its second.
pub(crate) fn counted(
    request: &QueryRangeRequest,
    window: Window,
    seconds: &[u64],
) -> CountedSpans {
    static RUNNING: AtomicBool = AtomicBool::new(false);
    let mut builder = MemoryTableBuilder::new();
    for &second in seconds {
        let span = Span {
            span_id: second.to_be_bytes().to_vec(),
            name: format!("at {second}"),
            start_time_unix_nano: second * 1_000_000_000,
            end_time_unix_nano: second * 1_000_000_000 + 1,
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
        builder
            .push_trace(
                TraceId::from_padded(&second.to_be_bytes()),
                &[&trace.encode_to_vec()],
            )
            .expect("a small table");
    }
    let query = parse_query(&request.query, &request.skip_ast_transformations)
        .expect("the frontend has parsed it");
    let options = MetricsOptions {
        max_exemplars: request.exemplars as usize,
        max_series: request.max_series as usize,
        ..MetricsOptions::default()
    };
    let plan = MetricsPlan::new(&query, &options).expect("the frontend has planned it");
    let limits = Limits {
        max_column_bytes: 1 << 30,
        cancel: &RUNNING,
    };
    CountedSpans {
        series: evaluate(&plan, &builder.finish(), window, limits).expect("a small table"),
        inspected_bytes: 10,
    }
}

pub(crate) fn found_traces(ids: &[(&str, u64)]) -> JobOutput {
    JobOutput::Search(SearchResponse {
        traces: ids
            .iter()
            .map(|(id, start_seconds)| TraceSearchMetadata {
                trace_id: (*id).to_owned(),
                start_time_unix_nano: start_seconds * 1_000_000_000,
                ..TraceSearchMetadata::default()
            })
            .collect(),
        metrics: Some(SearchMetrics {
            inspected_bytes: 10,
            ..SearchMetrics::default()
        }),
    })
}

pub(crate) fn found_names(scope: &str, tags: &[&str]) -> JobOutput {
    JobOutput::TagNames(SearchTagsV2Response {
        scopes: vec![SearchTagsV2Scope {
            name: scope.to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        }],
        metrics: Some(MetadataMetrics {
            inspected_bytes: 7,
            ..MetadataMetrics::default()
        }),
    })
}

pub(crate) fn found_values(values: &[(&str, &str)]) -> JobOutput {
    JobOutput::TagValues(SearchTagValuesV2Response {
        tag_values: values
            .iter()
            .map(|(of_type, value)| TagValue {
                r#type: (*of_type).to_owned(),
                value: (*value).to_owned(),
            })
            .collect(),
        metrics: None,
    })
}

/// A serialized trace with spans of these ids.
pub(crate) fn trace(span_ids: &[u8]) -> Bytes {
    Trace {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: span_ids
                    .iter()
                    .map(|&id| Span {
                        trace_id: vec![1; 16],
                        span_id: vec![id; 8],
                        name: format!("span {id}"),
                        ..Span::default()
                    })
                    .collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
    .encode_to_vec()
    .into()
}

pub(crate) fn found_trace(parts: Vec<Bytes>) -> JobOutput {
    JobOutput::Trace(TraceParts {
        parts,
        inspected_bytes: 5,
    })
}
