//! Recent data at live-stores, asked over real connections.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use tempo_api::{
    job::{DataPlace, Job, JobError, JobOutput, JobResult, TraceParts, TracePlace},
    wire,
};
use tempo_engine::metrics::{MetricsOptions, MetricsPlan, Window};
use tempo_model::TraceId;
use tempo_proto::{
    tempopb::{
        QueryRangeRequest, SearchTagValuesRequest, SearchTagsRequest, backend::v1::BlockMeta,
    },
    tempostack::query::v1::{
        JobResult as Answer, RunRequest,
        jobs_client::JobsClient,
        jobs_server::{Jobs, JobsServer},
    },
};
use tempo_querier::{
    Config, Deps, LiveStores, LiveStoresConfig, Owner, Partition, PartitionState, PartitionView,
    Querier, Recent, jobs_service,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Server};

use crate::support::{NOW, TellWhenDropped, over, recent, search, table};

/// Partitions that a test may change.
#[derive(Default)]
struct View(Mutex<Vec<Partition>>);

impl PartitionView for View {
    fn partitions(&self) -> Vec<Partition> {
        self.0.lock().unwrap().clone()
    }
}

fn owner(zone: &str, address: SocketAddr) -> Owner {
    Owner {
        instance_id: format!("live-store-{zone}-{}", address.port()),
        address: address.to_string(),
        zone: zone.to_owned(),
    }
}

fn partition(id: i32, owners: Vec<Owner>) -> Partition {
    Partition {
        id,
        state: PartitionState::Active,
        state_since: i64::from(NOW) - 60,
        owners,
    }
}

/// Serves the jobs of a live-store until the test ends.
async fn serve<S: Jobs>(service: JobsServer<S>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = TcpListenerStream::new(listener);
    tokio::spawn(
        Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming),
    );
    address
}

/// An address where nobody is.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

type Script = Box<dyn Fn() -> BoxFuture<'static, JobResult> + Send + Sync>;

/// A live-store that answers as a test says.
struct Scripted(Script);

#[tonic::async_trait]
impl Jobs for Scripted {
    async fn run(&self, _: Request<RunRequest>) -> Result<Response<Answer>, Status> {
        Ok(Response::new(wire::encode_result((self.0)().await)))
    }
}

async fn scripted(
    answer: impl Fn() -> BoxFuture<'static, JobResult> + Send + Sync + 'static,
) -> SocketAddr {
    serve(JobsServer::new(Scripted(Box::new(answer)))).await
}

/// One that fails, and counts how often it is asked.
async fn failing(error: JobError) -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let address = scripted(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        let error = error.clone();
        Box::pin(async move { Err(error) })
    })
    .await;
    (address, asked)
}

/// A querier whose recent data is at these live-stores; zone `a` is asked first.
fn querier(partitions: Vec<Partition>, change: impl FnOnce(&mut LiveStoresConfig)) -> Querier {
    let registry = prometheus::Registry::new();
    let mut config = LiveStoresConfig {
        preferred_zone: "a".to_owned(),
        // Longer than any test: what is asked later is asked for a reason.
        hedging_delay: Duration::from_secs(3_600),
        restart_patience: Duration::ZERO,
        ..LiveStoresConfig::default()
    };
    change(&mut config);
    let live_stores = LiveStores::build(
        config,
        Arc::new(View(Mutex::new(partitions))),
        Arc::new(|| i64::from(NOW) * 1_000_000_000),
        &registry,
    )
    .unwrap();
    Querier::build(
        Config::default(),
        Deps {
            blocks: None,
            recent: Recent::LiveStores(live_stores),
            registry: &registry,
        },
    )
    .unwrap()
}

async fn run(querier: &Querier, job: Job) -> JobResult {
    querier
        .run(&Arc::from("tenant"), job, CancellationToken::new())
        .await
}

fn find_trace() -> Job {
    Job::FindTrace {
        trace_id: TraceId::from_padded(&[1]),
        max_bytes: 0,
        place: TracePlace::Recent,
    }
}

fn part(byte: u8) -> JobResult {
    Ok(JobOutput::Trace(TraceParts {
        parts: vec![vec![byte].into()],
        inspected_bytes: u64::from(byte),
    }))
}

/// The parts of a trace that are found, sorted.
async fn parts(querier: &Querier) -> Result<Vec<u8>, JobError> {
    let JobOutput::Trace(found) = run(querier, find_trace()).await? else {
        panic!("a trace is answered with a trace");
    };
    let mut parts: Vec<u8> = found.parts.iter().map(|part| part[0]).collect();
    parts.sort_unstable();
    assert_eq!(
        found.inspected_bytes,
        parts.iter().map(|&byte| u64::from(byte)).sum::<u64>()
    );
    Ok(parts)
}

const WINDOW: Window = Window {
    start_nano: NOW as u64 * 1_000_000_000 - 1,
    end_nano: (NOW as u64 + 20) * 1_000_000_000,
    step_nano: 5_000_000_000,
    is_instant: false,
};

fn jobs() -> Vec<Job> {
    let mut jobs: Vec<Job> = ["{ }", "{ .a >= 3 }", "{ .a > 1 } with (most_recent=true)"]
        .into_iter()
        .flat_map(|query| [search(query, 0), search(query, 3)])
        .collect();
    jobs.push(Job::TagNames {
        request: Arc::new(SearchTagsRequest {
            scope: "span".to_owned(),
            ..SearchTagsRequest::default()
        }),
        max_bytes: 0,
        place: recent(),
    });
    jobs.push(Job::TagValues {
        request: Arc::new(SearchTagValuesRequest {
            tag_name: "name".to_owned(),
            ..SearchTagValuesRequest::default()
        }),
        max_bytes: 0,
        place: recent(),
    });
    jobs
}

fn counting(query: &str) -> Job {
    Job::QueryRange {
        request: Arc::new(QueryRangeRequest {
            query: query.to_owned(),
            ..QueryRangeRequest::default()
        }),
        window: WINDOW,
        max_exemplars: 0,
        place: recent(),
    }
}

/// An answer without the order of what has none.
fn told(output: JobOutput, query: &str) -> String {
    match output {
        JobOutput::Search(mut found) => {
            found.traces.sort_by(|a, b| a.trace_id.cmp(&b.trace_id));
            format!("{found:?}")
        }
        JobOutput::TagValues(mut found) => {
            found.tag_values.sort_by(|a, b| a.value.cmp(&b.value));
            format!("{found:?}")
        }
        JobOutput::QueryRange(counted) => {
            let query = tempo_traceql::parse(query).unwrap();
            let plan = MetricsPlan::new(&query, &MetricsOptions::default()).unwrap();
            format!("{:?}", counted.series.finish(&plan))
        }
        output => format!("{output:?}"),
    }
}

#[tokio::test]
async fn live_stores_together_answer_as_one_process_would() {
    let together = over(vec![table(1..4), table(5..9)]).await;
    let first = serve(jobs_service(over(vec![table(1..4)]).await)).await;
    let second = serve(jobs_service(over(vec![table(5..9)]).await)).await;
    let apart = querier(
        vec![
            partition(0, vec![owner("a", first)]),
            partition(1, vec![owner("a", second)]),
        ],
        |_| {},
    );
    for job in jobs() {
        let want = run(&together, job.clone()).await.unwrap();
        let got = run(&apart, job.clone()).await.unwrap();
        let limited = matches!(&job, Job::Search { request, .. }
            if request.limit > 0 && !request.query.contains("most_recent"));
        if limited {
            // Any of them; the first live-store to answer may have enough.
            let (JobOutput::Search(want), JobOutput::Search(got)) = (want, got) else {
                panic!("searches are answered with searches");
            };
            assert_eq!(got.traces.len(), want.traces.len());
            continue;
        }
        assert_eq!(told(got, ""), told(want, ""), "{job:?}");
    }
    for query in [
        "{ } | rate() by (.a)",
        "{ } | quantile_over_time(.a, .5, .9)",
        "{ .a > 2 } | avg_over_time(.a)",
        "{ } | compare({ .a > 4 })",
    ] {
        let want = run(&together, counting(query)).await.unwrap();
        let got = run(&apart, counting(query)).await.unwrap();
        assert_eq!(told(got, query), told(want, query), "{query}");
    }
}

#[tokio::test]
async fn one_owner_of_each_partition_answers() {
    let (asked_sender, mut asked) = mpsc::unbounded_channel();
    let mut addresses = Vec::new();
    for byte in 1..=4 {
        let asked = asked_sender.clone();
        addresses.push(
            scripted(move || {
                asked.send(byte).unwrap();
                Box::pin(async move { part(byte) })
            })
            .await,
        );
    }
    let [one, two, three, four] = addresses.try_into().unwrap();
    let partitions = vec![
        partition(0, vec![owner("b", one), owner("a", two)]),
        partition(1, vec![owner("a", three), owner("b", four)]),
    ];
    let querier = querier(partitions, |_| {});
    assert_eq!(parts(&querier).await, Ok(vec![2, 3]));
    let mut who = vec![asked.recv().await, asked.recv().await];
    who.sort_unstable();
    assert_eq!(who, [Some(2), Some(3)]);
    assert!(asked.try_recv().is_err(), "zone b is not bothered");
}

#[tokio::test]
async fn an_owner_that_fails_is_replaced_at_once() {
    let well = scripted(|| Box::pin(async { part(7) })).await;
    for error in [
        JobError::Unavailable("starting".to_owned()),
        JobError::Busy("busy".to_owned()),
        JobError::TimedOut,
        JobError::Cancelled,
    ] {
        let (ill, asked) = failing(error).await;
        let owners = vec![owner("a", ill), owner("b", well)];
        let querier = querier(vec![partition(0, owners)], |_| {});
        assert_eq!(parts(&querier).await, Ok(vec![7]));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
    let owners = vec![owner("a", nobody().await), owner("b", well)];
    let querier = querier(vec![partition(0, owners)], |_| {});
    assert_eq!(parts(&querier).await, Ok(vec![7]));
}

#[tokio::test]
async fn an_answer_that_would_be_the_same_elsewhere_is_final() {
    let (other, asked) = failing(JobError::Failed("unused".to_owned())).await;
    for error in [
        JobError::Failed("division by zero".to_owned()),
        JobError::OverBudget("much".to_owned()),
        JobError::TraceTooLarge("large".to_owned()),
    ] {
        let (first, _) = failing(error.clone()).await;
        let owners = vec![owner("a", first), owner("b", other)];
        let querier = querier(vec![partition(0, owners)], |_| {});
        assert_eq!(parts(&querier).await, Err(error));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

/// A live-store that never answers; it tells when it is asked, and when nobody waits any more.
async fn silent() -> (
    SocketAddr,
    mpsc::UnboundedReceiver<()>,
    mpsc::UnboundedReceiver<()>,
) {
    let (asked_sender, asked) = mpsc::unbounded_channel();
    let (ended_sender, ended) = mpsc::unbounded_channel();
    let address = scripted(move || {
        asked_sender.send(()).unwrap();
        let guard = TellWhenDropped(ended_sender.clone());
        Box::pin(async move {
            let _guard = guard;
            std::future::pending().await
        })
    })
    .await;
    (address, asked, ended)
}

#[tokio::test]
async fn another_owner_is_asked_when_the_first_is_slow_and_then_nobody_waits_for_it() {
    let (slow, mut asked, mut ended) = silent().await;
    let well = scripted(|| Box::pin(async { part(7) })).await;
    let owners = vec![owner("a", slow), owner("b", well)];
    let partitions = vec![partition(0, owners)];
    let hedging = querier(partitions.clone(), |config| {
        config.hedging_delay = Duration::from_millis(50);
    });
    assert_eq!(parts(&hedging).await, Ok(vec![7]));
    asked.recv().await.unwrap();
    ended.recv().await.unwrap();

    let asking_all = querier(partitions, |config| config.minimize_requests = false);
    assert_eq!(parts(&asking_all).await, Ok(vec![7]));
}

#[tokio::test]
async fn work_at_live_stores_ends_with_the_job() {
    let (slow, mut asked, mut ended) = silent().await;
    let querier = querier(vec![partition(0, vec![owner("a", slow)])], |_| {});
    let cancelled = CancellationToken::new();
    let running = tokio::spawn({
        let (querier, cancelled) = (querier.clone(), cancelled.clone());
        async move {
            let tenant = Arc::from("tenant");
            querier.run(&tenant, find_trace(), cancelled).await
        }
    });
    asked.recv().await.unwrap();
    cancelled.cancel();
    assert_eq!(running.await.unwrap().unwrap_err(), JobError::Cancelled);
    ended.recv().await.unwrap();
}

#[tokio::test]
async fn a_partition_without_an_answer_fails_the_job_so_that_it_is_tried_again() {
    let well = scripted(|| Box::pin(async { part(7) })).await;
    let with = |owners: Vec<Owner>| {
        let partitions = vec![partition(0, vec![owner("a", well)]), partition(1, owners)];
        querier(partitions, |_| {})
    };
    let (ill, _) = failing(JobError::Unavailable("starting".to_owned())).await;
    let gone = nobody().await;
    for (owners, want) in [
        (vec![], "partition 1 has no healthy owner"),
        (vec![owner("a", gone)], "live-store 127.0.0.1"),
        (vec![owner("a", gone), owner("b", ill)], "starting"),
    ] {
        let error = parts(&with(owners)).await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        assert!(error.to_string().contains(want), "{error}");
    }
    let nowhere = querier(Vec::new(), |_| {});
    assert!(parts(&nowhere).await.unwrap_err().is_retryable());
}

/// One that answers only when it is asked for the `which`-th time.
async fn back_at(which: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let address = scripted(move || {
        let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
        Box::pin(async move {
            match number < which {
                true => Err(JobError::Unavailable("starting".to_owned())),
                false => part(7),
            }
        })
    })
    .await;
    (address, asked)
}

#[tokio::test]
async fn one_that_starts_anew_is_waited_for_and_one_that_is_away_for_long_is_not() {
    let (address, asked) = back_at(3).await;
    let partitions = vec![partition(0, vec![owner("a", address)])];
    let patient = querier(partitions, |config| {
        config.restart_patience = Duration::from_secs(3_600);
    });
    assert_eq!(parts(&patient).await, Ok(vec![7]));
    assert_eq!(asked.load(Ordering::SeqCst), 3);

    let (address, asked) = failing(JobError::Unavailable("gone".to_owned())).await;
    let partitions = vec![partition(0, vec![owner("a", address)])];
    let impatient = querier(partitions, |config| {
        config.restart_patience = Duration::from_millis(500);
    });
    assert!(parts(&impatient).await.is_err());
    asked.store(0, Ordering::SeqCst);
    // By now it is known to be gone.
    assert!(parts(&impatient).await.is_err());
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_live_store_answers_for_recent_data_only_and_within_the_time_given() {
    let address = serve(jobs_service(over(vec![table(1..4)]).await)).await;
    let mut client = JobsClient::connect(format!("http://{address}"))
        .await
        .unwrap();
    let mut ask = async |job: Option<&Job>| {
        let request = RunRequest {
            tenant: "tenant".to_owned(),
            job: job.map(wire::encode_job),
            timeout_ms: 60_000,
        };
        let answer = client.run(request).await.unwrap().into_inner();
        wire::decode_result(answer, usize::MAX)
    };
    assert!(ask(Some(&search("{ }", 0))).await.is_ok());
    let on_block = Job::TagNames {
        request: Arc::default(),
        max_bytes: 0,
        place: DataPlace::Block {
            meta: Arc::new(BlockMeta::default()),
            first_row_group: 0,
            row_groups: 1,
        },
    };
    for (job, want) in [
        (Some(&on_block), "recent data only"),
        (None, "does not know"),
    ] {
        let error = ask(job).await.unwrap_err();
        assert!(!error.is_retryable());
        assert!(error.to_string().contains(want), "{error}");
    }
}
