//! Jobs on real blocks: done, interrupted anywhere, and done while others read.

mod contested;
mod crash;
mod many;
mod redaction;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use prometheus::{IntCounterVec, Opts, Registry};
use prost::Message;
use tempo_backend::{
    Backend, BlockMeta, Blocklist, Poller, PollerConfig, ReadStats, Retention, RetentionPolicy,
    TenantIndexRole, Timestamp,
    cache::Cache,
    testing::{Fault, faulty, memory},
};
use tempo_backend_scheduler::Scheduler;
use tempo_block::{
    check::check_block,
    read::BlockReader,
    schema::Version,
    write::{BlockOptions, write_block},
};
use tempo_model::TraceId;
use tempo_proto::tempopb::{
    CompactionDetail, JobDetail, JobStatus, JobType, NextJobResponse, Trace, UpdateJobStatusRequest,
};
use tempo_testkit::traces::TraceMaker;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Config, Deps, JobSource, Limits, Service, SourceError, Worker, build, control::Abandon,
    running::Running,
};

/// Serialized parts of traces.
type Traces = BTreeMap<TraceId, Vec<Vec<u8>>>;

/// How often each span is seen, by trace and span id.
type Spans = BTreeMap<(TraceId, Vec<u8>), usize>;

/// Spans of serialized traces.
fn spans_of<'a>(traces: impl Iterator<Item = (TraceId, &'a [u8])>) -> Spans {
    let mut spans = Spans::new();
    for (id, trace) in traces {
        let trace = Trace::decode(trace).unwrap();
        let resources = trace.resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        for span in scopes.flat_map(|scope| scope.spans) {
            *spans.entry((id, span.span_id)).or_default() += 1;
        }
    }
    spans
}

async fn put(backend: &Backend, tenant: &str, traces: &Traces) -> Arc<BlockMeta> {
    let options = BlockOptions::new(
        Version::VParquet4,
        tenant.into(),
        Uuid::new_v4(),
        traces.len() as u64,
    );
    let traces = traces.clone();
    let block = write_block::<std::io::Error, _>(backend, options, false, move |builder| {
        for (id, chunks) in &traces {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            builder.push_trace(*id, &chunks)?;
        }
        Ok(())
    });
    Arc::new(block.await.unwrap().meta)
}

/// A list that a process of its own would have.
async fn listed(backend: &Backend) -> (Blocklist, Poller) {
    let blocklist = Blocklist::new();
    let poller = Poller::build(
        PollerConfig::default(),
        TenantIndexRole::Builder,
        backend.clone(),
        blocklist.clone(),
        &Registry::new(),
    )
    .unwrap();
    poller.poll_once().await.unwrap();
    (blocklist, poller)
}

/// What a reader of the listed blocks sees.
async fn seen(backend: &Backend, metas: Vec<Arc<BlockMeta>>) -> Spans {
    let backend = backend.clone();
    let reading = move || {
        let cache = Cache::new(0, &Registry::new()).unwrap();
        let mut spans = Spans::new();
        for meta in metas {
            let reader = BlockReader::open(&backend, &cache, meta, ReadStats::new()).unwrap();
            let traces: Vec<_> = reader
                .traces(ReadStats::new())
                .collect::<Result<_, _>>()
                .unwrap();
            for (span, count) in spans_of(traces.iter().map(|(id, trace)| (*id, &trace[..]))) {
                *spans.entry(span).or_default() += count;
            }
        }
        spans
    };
    tokio::task::spawn_blocking(reading).await.unwrap()
}

async fn assert_sound(backend: &Backend, metas: &[Arc<BlockMeta>]) {
    let (backend, metas) = (backend.clone(), metas.to_vec());
    let checking = move || {
        for meta in metas {
            let report = check_block(&backend, &meta).unwrap();
            assert!(report.problems.is_empty(), "{:?}", report.problems);
        }
    };
    tokio::task::spawn_blocking(checking).await.unwrap();
}

/// Nothing is too old, nothing is too large.
struct Unlimited;

impl Limits for Unlimited {
    fn retention(&self, _: &str) -> Option<RetentionPolicy> {
        Some(RetentionPolicy {
            block_retention: Duration::ZERO,
            compacted_block_retention: Duration::from_secs(3600),
        })
    }

    fn max_trace_bytes(&self, _: &str) -> u64 {
        0
    }
}

impl tempo_backend_scheduler::Limits for Unlimited {
    fn compaction_disabled(&self, _: &str) -> bool {
        false
    }

    fn compaction_window(&self, _: &str) -> Option<Duration> {
        None
    }
}

fn worker(
    jobs: Arc<dyn JobSource>,
    backend: &Backend,
    blocklist: &Blocklist,
    limits: Arc<dyn Limits>,
) -> (Worker, Service) {
    let mut config = Config::new("worker".into());
    config.backoff.min = Duration::from_millis(1);
    worker_of(config, jobs, backend, blocklist, limits)
}

fn worker_of(
    config: Config,
    jobs: Arc<dyn JobSource>,
    backend: &Backend,
    blocklist: &Blocklist,
    limits: Arc<dyn Limits>,
) -> (Worker, Service) {
    let registry = Registry::new();
    let deps = Deps {
        jobs,
        backend: backend.clone(),
        blocklist: blocklist.clone(),
        cache: Cache::new(1 << 20, &registry).unwrap(),
        limits,
        discarded_spans: IntCounterVec::new(Opts::new("d", "d"), &["reason", "tenant"]).unwrap(),
        registry: &registry,
    };
    build(config, deps).unwrap()
}

/// A scheduler in the same process.
struct Local(Scheduler);

#[async_trait::async_trait]
impl JobSource for Local {
    async fn next(&self, worker_id: &str) -> Result<Option<NextJobResponse>, SourceError> {
        let next = self.0.next(worker_id).await;
        next.map_err(|error| SourceError::Unavailable(error.to_string()))
    }

    async fn update(&self, update: UpdateJobStatusRequest) -> Result<(), SourceError> {
        let update = self.0.update(update).await;
        update.map_err(|error| SourceError::NotRunning(error.to_string()))
    }
}

/// A scheduler over `blocklist`, running.
async fn scheduler(
    backend: &Backend,
    blocklist: &Blocklist,
    folder: &std::path::Path,
    shutdown: &CancellationToken,
) -> Scheduler {
    let config = tempo_backend_scheduler::Config {
        local_work_path: folder.to_owned(),
        job_timeout: Duration::from_millis(50),
        claim_pause: Duration::ZERO,
        min_cycle_interval: Duration::from_millis(1),
        maintenance_interval: Duration::from_millis(20),
        rescan_delay: Duration::from_millis(20),
        ..Default::default()
    };
    let (scheduler, service) = tempo_backend_scheduler::build(
        config,
        tempo_backend_scheduler::Deps {
            backend: backend.clone(),
            blocklist: blocklist.clone(),
            limits: Arc::new(Unlimited),
            now: Arc::new(Timestamp::now),
            registry: &Registry::new(),
        },
    )
    .await
    .unwrap();
    tokio::spawn(service.run(shutdown.clone()));
    until(async || scheduler.ready().is_ok()).await;
    scheduler
}

async fn until(condition: impl AsyncFn() -> bool) {
    while !condition().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A merge of these blocks.
fn merge_job(inputs: &[Arc<BlockMeta>]) -> NextJobResponse {
    NextJobResponse {
        job_id: "job".into(),
        r#type: JobType::Compaction.into(),
        detail: Some(JobDetail {
            tenant: "t".into(),
            compaction: Some(CompactionDetail {
                input: inputs
                    .iter()
                    .map(|meta| meta.block_id.to_string())
                    .collect(),
                output: Vec::new(),
            }),
            ..Default::default()
        }),
    }
}

/// Does a merge, as a worker that is asked by `jobs` and knows these blocks; what it made.
async fn merge(
    jobs: Arc<dyn JobSource>,
    backend: &Backend,
    blocklist: &Blocklist,
    inputs: &[Arc<BlockMeta>],
) -> Result<Vec<String>, crate::JobError> {
    let (worker, _) = worker(jobs, backend, blocklist, Arc::new(Unlimited));
    let running = Running::new(
        &worker,
        "job",
        Abandon::default(),
        &CancellationToken::new(),
    );
    let outcome = worker.do_job(&merge_job(inputs), &running).await?;
    Ok(outcome.compaction.unwrap().output)
}

/// A store with a block for each of these.
async fn filled(parts: &[Traces]) -> (Backend, Vec<Arc<BlockMeta>>) {
    let backend = memory();
    let mut inputs = Vec::new();
    for traces in parts {
        inputs.push(put(&backend, "t", traces).await);
    }
    (backend, inputs)
}

/// Live blocks, as a process sees them that has just started.
async fn live(backend: &Backend) -> Vec<Arc<BlockMeta>> {
    listed(backend).await.0.tenant("t").live().to_vec()
}

/// Traces over blocks: some in one, some with their services spread over two, some twice.
fn spread(seed: u64, blocks: usize, traces: usize) -> Vec<Traces> {
    let mut maker = TraceMaker::new(seed);
    let mut parts: Vec<Traces> = vec![Traces::new(); blocks];
    for number in 0..traces {
        let mut made = maker.next_trace(1_700_000_000_000_000_000 + number as u64 * 1_000_000);
        let id = TraceId::from_bytes(made.id);
        let (home, next) = (number % blocks, (number + 1) % blocks);
        let bytes = |resource_spans| Trace { resource_spans }.encode_to_vec();
        match number % 4 {
            0 if made.resource_spans.len() > 1 => {
                let rest = made.resource_spans.split_off(1);
                parts[next].insert(id, vec![bytes(rest)]);
            }
            1 => {
                parts[next].insert(id, vec![bytes(made.resource_spans.clone())]);
            }
            _ => {}
        }
        parts[home].insert(id, vec![bytes(made.resource_spans)]);
    }
    parts
}

/// What a reader of all blocks sees before any are merged.
fn before(parts: &[Traces]) -> Spans {
    let all = parts.iter().flatten();
    spans_of(all.flat_map(|(id, chunks)| chunks.iter().map(|chunk| (*id, &chunk[..]))))
}

fn names(spans: &Spans) -> BTreeSet<&(TraceId, Vec<u8>)> {
    spans.keys().collect()
}
