//! The scheduler with a clock that is set by hand.

mod redaction;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use prometheus::Registry;
use tempo_backend::{
    Backend, BlockChange, BlockFormat, BlockMeta, Blocklist, ObjectKey, ReadStats, Timestamp, WORK,
    testing::{Effect, Fault, Gate, Operation, faulty, memory},
};
use tempo_proto::tempopb::{
    self, CompactionDetail, JobType, NextJobResponse, UpdateJobStatusRequest,
};
use uuid::Uuid;

use crate::{
    Config, Deps, Error, Limits, Scheduler, build,
    scheduler::{NextError, UpdateError},
};

const NOW: i64 = 1_700_000_000;

struct Open;

impl Limits for Open {
    fn compaction_disabled(&self, tenant: &str) -> bool {
        tenant == "left-alone"
    }

    fn compaction_window(&self, _: &str) -> Option<Duration> {
        None
    }
}

struct Bench {
    backend: Backend,
    blocklist: Blocklist,
    folder: tempfile::TempDir,
    seconds: Arc<AtomicI64>,
    registry: parking_lot::Mutex<Registry>,
}

impl Bench {
    fn new() -> Self {
        Self {
            backend: memory(),
            blocklist: Blocklist::new(),
            folder: tempfile::tempdir().unwrap(),
            seconds: Arc::new(AtomicI64::new(NOW)),
            registry: Default::default(),
        }
    }

    fn config(&self) -> Config {
        Config {
            local_work_path: self.folder.path().to_owned(),
            job_timeout: Duration::ZERO,
            claim_pause: Duration::ZERO,
            // Tests that let time pass need not renew the mark, unless it is what they are about.
            backend_flush_interval: Duration::from_secs(30 * 24 * 3600),
            host: "here".into(),
            ..Config::default()
        }
    }

    /// Settings with which a mark grows old.
    fn rivalling(&self) -> Config {
        Config {
            backend_flush_interval: Duration::from_secs(60),
            ..self.config()
        }
    }

    async fn open(&self, config: Config, backend: &Backend) -> Result<Scheduler, Error> {
        let seconds = Arc::clone(&self.seconds);
        let registry = Registry::new();
        let deps = Deps {
            backend: backend.clone(),
            blocklist: self.blocklist.clone(),
            limits: Arc::new(Open),
            now: Arc::new(move || Timestamp::from_unix_seconds(seconds.load(Ordering::Relaxed))),
            registry: &registry,
        };
        let (scheduler, _) = build(config, deps).await?;
        *self.registry.lock() = registry;
        assert!(scheduler.ready().is_err());
        Ok(scheduler)
    }

    async fn start(&self, config: Config) -> Result<Scheduler, Error> {
        let scheduler = self.open(config, &self.backend).await?;
        scheduler.flush().await?;
        Ok(scheduler)
    }

    /// A gauge of the scheduler that was opened last, over all labels.
    fn gauge(&self, name: &str) -> f64 {
        let families = self.registry.lock().gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.iter().flat_map(|family| family.get_metric());
        metrics.map(|metric| metric.get_gauge().get_value()).sum()
    }

    fn pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    fn add(&self, tenant: &str, ids: impl IntoIterator<Item = u128>) {
        let added = ids.into_iter().map(|id| {
            let id = Uuid::from_u128(id);
            let mut meta = BlockMeta::new(tenant.into(), id, BlockFormat::VParquet4);
            meta.total_objects = 1;
            meta.end_time = Timestamp::from_unix_seconds(NOW);
            Arc::new(meta)
        });
        let change = BlockChange {
            added: added.collect(),
            ..BlockChange::default()
        };
        self.blocklist.apply_change(tenant, change);
    }
}

async fn next(scheduler: &Scheduler, worker: &str) -> Option<NextJobResponse> {
    scheduler.next(worker).await.unwrap()
}

fn inputs(job: &NextJobResponse) -> BTreeSet<u128> {
    let detail = job.detail.as_ref().unwrap().compaction.as_ref().unwrap();
    let ids = detail.input.iter().map(|id| Uuid::try_parse(id).unwrap());
    ids.map(|id| id.as_u128()).collect()
}

fn update(job: &NextJobResponse, status: tempopb::JobStatus) -> UpdateJobStatusRequest {
    UpdateJobStatusRequest {
        job_id: job.job_id.clone(),
        status: status.into(),
        ..Default::default()
    }
}

fn merged_into(id: u128) -> CompactionDetail {
    CompactionDetail {
        input: Vec::new(),
        output: vec![Uuid::from_u128(id).to_string()],
    }
}

#[tokio::test]
async fn blocks_are_handed_out_once_and_again_after_a_failure() {
    let bench = Bench::new();
    bench.add("t", 1..=6);
    bench.add("left-alone", 11..=16);
    let scheduler = bench.start(bench.config()).await.unwrap();
    let first = next(&scheduler, "a").await.unwrap();
    assert_eq!(first.r#type(), JobType::Compaction);
    let second = next(&scheduler, "b").await.unwrap();
    assert!(inputs(&first).is_disjoint(&inputs(&second)));
    assert_eq!(inputs(&first).len() + inputs(&second).len(), 6);
    assert_eq!(next(&scheduler, "c").await, None);
    // A worker that asks again gets what it has.
    assert_eq!(next(&scheduler, "a").await.unwrap(), first);
    assert_eq!(scheduler.next("").await, Err(NextError::NoWorkerId));

    scheduler
        .update(update(&first, tempopb::JobStatus::Failed))
        .await
        .unwrap();
    bench.pass(31);
    assert_eq!(next(&scheduler, "a").await, None, "left alone for a minute");
    bench.pass(61);
    let again = next(&scheduler, "a").await.unwrap();
    assert_eq!(inputs(&again), inputs(&first));
    assert_ne!(again.job_id, first.job_id);

    let mut done = update(&second, tempopb::JobStatus::Succeeded);
    done.compaction = Some(merged_into(100));
    scheduler.update(done.clone()).await.unwrap();
    scheduler.update(done).await.unwrap();
    let left = bench.blocklist.tenant("t").live().len();
    assert_eq!(left, inputs(&first).len());
    let late = scheduler
        .update(update(&first, tempopb::JobStatus::Succeeded))
        .await;
    assert!(matches!(late, Err(UpdateError::Ended(_))));
    let mut unknown = update(&first, tempopb::JobStatus::Running);
    unknown.job_id = "unknown".into();
    assert!(matches!(
        scheduler.update(unknown).await,
        Err(UpdateError::Unknown(_))
    ));
}

#[tokio::test]
async fn jobs_of_lost_workers_are_given_again() {
    let bench = Bench::new();
    bench.add("t", 1..=2);
    let scheduler = bench.start(bench.config()).await.unwrap();
    let first = next(&scheduler, "a").await.unwrap();
    bench.pass(3600);
    scheduler.maintain().await;
    // Tempo's workers give no signs of life: they have a day.
    scheduler
        .update(update(&first, tempopb::JobStatus::Running))
        .await
        .unwrap();
    bench.pass(301);
    scheduler.maintain().await;
    let late = scheduler
        .update(update(&first, tempopb::JobStatus::Running))
        .await;
    assert!(matches!(late, Err(UpdateError::Ended(_))));
    bench.pass(61);
    // Retention comes first.
    let retention = next(&scheduler, "b").await.unwrap();
    assert_eq!(retention.r#type(), JobType::Retention);
    scheduler
        .update(update(&retention, tempopb::JobStatus::Succeeded))
        .await
        .unwrap();
    assert_eq!(
        inputs(&next(&scheduler, "b").await.unwrap()),
        inputs(&first)
    );
    bench.pass(24 * 3600 + 1);
    scheduler.maintain().await;
    bench.pass(61);
    let retention = next(&scheduler, "c").await.unwrap();
    assert_eq!(retention.r#type(), JobType::Retention);
    scheduler
        .update(update(&retention, tempopb::JobStatus::Succeeded))
        .await
        .unwrap();
}

#[tokio::test]
async fn jobs_survive_a_restart_with_and_without_the_disk() {
    let mut bench = Bench::new();
    bench.add("t", 1..=6);
    let scheduler = bench.start(bench.rivalling()).await.unwrap();
    let first = next(&scheduler, "a").await.unwrap();
    drop(scheduler);
    let scheduler = bench.start(bench.rivalling()).await.unwrap();
    assert_eq!(next(&scheduler, "a").await.unwrap(), first);
    let second = next(&scheduler, "b").await.unwrap();
    assert!(inputs(&first).is_disjoint(&inputs(&second)));
    scheduler.flush().await.unwrap();
    drop(scheduler);
    let old = std::mem::replace(&mut bench.folder, tempfile::tempdir().unwrap());
    drop(old);
    // The old mark must grow old first: who tells that it was this one?
    bench.pass(181);
    let scheduler = bench.start(bench.rivalling()).await.unwrap();
    assert_eq!(next(&scheduler, "a").await.unwrap(), first);
    assert_eq!(next(&scheduler, "b").await.unwrap(), second);
}

#[tokio::test]
async fn a_second_scheduler_stands_back_and_says_so() {
    let bench = Bench::new();
    bench.add("t", 1..=2);
    let first = bench.start(bench.rivalling()).await.unwrap();
    assert!(matches!(
        bench.start(bench.rivalling()).await,
        Err(Error::FolderInUse { .. })
    ));
    let elsewhere = tempfile::tempdir().unwrap();
    let config = Config {
        host: "there".into(),
        local_work_path: elsewhere.path().to_owned(),
        ..bench.rivalling()
    };
    let second = bench.start(config).await.unwrap();
    let reason = second.ready().unwrap_err();
    assert!(reason.contains("here"), "{reason}");
    assert!(matches!(
        second.next("a").await,
        Err(NextError::NotInCharge(_))
    ));
    let job = next(&first, "a").await.unwrap();
    bench.pass(60);
    first.flush().await.unwrap();
    second.flush().await.unwrap();
    assert!(second.ready().is_err());
    // The first falls silent, and its jobs are those of the second.
    bench.pass(181);
    second.flush().await.unwrap();
    second.ready().unwrap();
    assert_eq!(next(&second, "a").await.unwrap(), job);
    // It comes back, and it is its turn to stand back.
    first.flush().await.unwrap();
    assert!(matches!(
        first.next("a").await,
        Err(NextError::NotInCharge(_))
    ));
    let object = bench
        .backend
        .read(&ObjectKey::root(WORK), &ReadStats::new())
        .await
        .unwrap();
    let object: serde_json::Value = serde_json::from_slice(&object).unwrap();
    assert_eq!(object["shards"].as_array().unwrap().len(), 256);
}

#[tokio::test]
async fn flagged_blocks_are_not_handed_out_and_do_not_hold_up_others() {
    let bench = Bench::new();
    bench.add("t", 1..=5);
    let hidden = Uuid::from_u128(2);
    bench.backend.set_no_compact("t", hidden).await.unwrap();
    let scheduler = bench.start(bench.config()).await.unwrap();
    assert_eq!(next(&scheduler, "a").await, None);
    bench.pass(31);
    let others = next(&scheduler, "a").await.unwrap();
    assert_eq!(inputs(&others), BTreeSet::from([1, 3, 4, 5]));
    bench.add("t", [6]);
    let flag = ObjectKey::no_compact("t", hidden);
    bench.backend.delete(&flag).await.unwrap();
    bench.pass(31);
    let freed = next(&scheduler, "b").await.unwrap();
    assert_eq!(inputs(&freed), BTreeSet::from([2, 6]));
}

#[tokio::test]
async fn a_worker_that_goes_takes_no_blocks_with_it() {
    let bench = Bench::new();
    bench.add("t", 1..=2);
    let (backend, faults) = faulty(&bench.backend);
    let scheduler = bench.open(bench.config(), &backend).await.unwrap();
    scheduler.flush().await.unwrap();
    let gate = Gate::new();
    faults.inject(Fault {
        operation: Some(Operation::Read),
        key_contains: "nocompact".into(),
        times: Some(1),
        effect: Effect::Wait(gate.clone()),
    });
    let gone = scheduler.clone();
    let gone = tokio::spawn(async move { gone.next("a").await });
    gate.arrived().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    bench.pass(31);
    let job = next(&scheduler, "b").await.unwrap();
    assert_eq!(inputs(&job), BTreeSet::from([1, 2]));
}

/// A job whose worker told what it was about to publish, and is not heard of any more.
async fn lost_while_publishing(bench: &Bench) -> (Scheduler, NextJobResponse) {
    bench.add("t", 1..=4);
    let scheduler = bench.start(bench.config()).await.unwrap();
    let job = next(&scheduler, "a").await.unwrap();
    let mut intent = update(&job, tempopb::JobStatus::Running);
    intent.compaction = Some(merged_into(100));
    scheduler.update(intent).await.unwrap();
    // What was told is kept.
    drop(scheduler);
    let scheduler = bench.start(bench.config()).await.unwrap();
    let sign_of_life = update(&job, tempopb::JobStatus::Running);
    scheduler.update(sign_of_life.clone()).await.unwrap();
    bench.pass(301);
    scheduler.maintain().await;
    let late = scheduler.update(sign_of_life).await;
    assert!(matches!(late, Err(UpdateError::Ended(_))));
    bench.add("t", [5]);
    bench.pass(61);
    (scheduler, job)
}

/// What a worker gets that is not asked for retention.
async fn next_merge(scheduler: &Scheduler, worker: &str) -> Option<NextJobResponse> {
    loop {
        let job = next(scheduler, worker).await?;
        if job.r#type() == JobType::Compaction {
            return Some(job);
        }
        let done = update(&job, tempopb::JobStatus::Succeeded);
        scheduler.update(done).await.unwrap();
    }
}

#[tokio::test]
async fn blocks_of_a_lost_job_that_was_done_are_not_merged_again() {
    let bench = Bench::new();
    let (scheduler, _) = lost_while_publishing(&bench).await;
    let output = BlockMeta::new("t".into(), Uuid::from_u128(100), BlockFormat::VParquet4);
    bench.backend.write_meta(&output).await.unwrap();
    assert_eq!(next_merge(&scheduler, "b").await, None);
    let live: Vec<u128> = bench
        .blocklist
        .tenant("t")
        .live()
        .iter()
        .map(|meta| meta.block_id.as_u128())
        .collect();
    assert_eq!(live, [5]);
}

#[tokio::test]
async fn blocks_of_a_lost_job_that_was_not_done_are_merged_again() {
    let bench = Bench::new();
    let (scheduler, first) = lost_while_publishing(&bench).await;
    let again = next_merge(&scheduler, "b").await.unwrap();
    assert_eq!(inputs(&again), inputs(&first));
}

#[tokio::test]
async fn a_merge_of_which_nothing_came_leaves_its_blocks_where_they_are() {
    let bench = Bench::new();
    bench.add("t", 1..=2);
    let scheduler = bench.start(bench.config()).await.unwrap();
    let job = next(&scheduler, "a").await.unwrap();
    let mut done = update(&job, tempopb::JobStatus::Succeeded);
    done.compaction = Some(CompactionDetail::default());
    scheduler.update(done).await.unwrap();
    assert_eq!(bench.blocklist.tenant("t").live().len(), 2);
    bench.pass(31);
    assert_eq!(next(&scheduler, "a").await, None);
    bench.pass(31);
    assert_eq!(inputs(&next(&scheduler, "a").await.unwrap()), inputs(&job));
}

/// The clock of pauses goes on by itself when there is nothing to do but to wait.
#[tokio::test(start_paused = true)]
async fn of_two_schedulers_that_start_together_one_works() {
    let bench = Bench::new();
    bench.add("t", 1..=4);
    let (backend, faults) = faulty(&bench.backend);
    let gate = Gate::new();
    faults.inject(Fault {
        operation: Some(Operation::Write),
        key_contains: "work.json".into(),
        times: Some(2),
        effect: Effect::Wait(gate.clone()),
    });
    let elsewhere = tempfile::tempdir().unwrap();
    let config = Config {
        claim_pause: Config::default().claim_pause,
        ..bench.rivalling()
    };
    let other = Config {
        host: "there".into(),
        local_work_path: elsewhere.path().to_owned(),
        ..config.clone()
    };
    let first = bench.open(config, &backend).await.unwrap();
    let second = bench.open(other, &backend).await.unwrap();
    let both_have_read = async {
        gate.arrived().await;
        gate.arrived().await;
        gate.open();
    };
    let (one, two, ()) = tokio::join!(first.flush(), second.flush(), both_have_read);
    one.and(two).unwrap();
    assert_ne!(first.ready().is_ok(), second.ready().is_ok());
    let (works, waits) = match first.ready() {
        Ok(()) => (first, second),
        Err(_) => (second, first),
    };
    let job = next(&works, "a").await.unwrap();
    let sign_of_life = update(&job, tempopb::JobStatus::Running);
    let refused = waits.update(sign_of_life).await;
    assert!(matches!(refused, Err(UpdateError::NotInCharge(_))));
}

#[tokio::test]
async fn a_scheduler_that_cannot_renew_its_mark_stops_before_another_begins() {
    let bench = Bench::new();
    bench.add("t", 1..=4);
    let (backend, faults) = faulty(&bench.backend);
    let scheduler = bench.open(bench.rivalling(), &backend).await.unwrap();
    scheduler.flush().await.unwrap();
    let job = next(&scheduler, "a").await.unwrap();
    faults.fail_all();
    bench.pass(180);
    assert!(scheduler.flush().await.is_err());
    assert_eq!(next(&scheduler, "a").await.unwrap(), job);
    bench.pass(1);
    assert!(matches!(
        scheduler.next("a").await,
        Err(NextError::NotInCharge(_))
    ));
    faults.heal();
    scheduler.flush().await.unwrap();
    assert_eq!(next(&scheduler, "a").await.unwrap(), job);
}

#[tokio::test]
async fn settings_that_cannot_work_are_named() {
    let bench = Bench::new();
    let config = Config {
        prune_age: Duration::from_secs(10),
        ..bench.config()
    };
    let error = bench.start(config).await.err().unwrap().to_string();
    assert!(error.contains("prune_age"), "{error}");
}
