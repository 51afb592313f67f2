//! The scheduler with a clock that is set by hand.

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
    testing::memory,
};
use tempo_proto::tempopb::{
    self, CompactionDetail, JobType, NextJobResponse, RedactionMode, SubmitRedactionRequest,
    UpdateJobStatusRequest,
};
use uuid::Uuid;

use crate::{
    Config, Deps, Error, Limits, Scheduler, SubmitError, build,
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
}

impl Bench {
    fn new() -> Self {
        Self {
            backend: memory(),
            blocklist: Blocklist::new(),
            folder: tempfile::tempdir().unwrap(),
            seconds: Arc::new(AtomicI64::new(NOW)),
        }
    }

    fn config(&self) -> Config {
        Config {
            local_work_path: self.folder.path().to_owned(),
            job_timeout: Duration::ZERO,
            host: "here".into(),
            ..Config::default()
        }
    }

    async fn start(&self, config: Config) -> Result<Scheduler, Error> {
        let seconds = Arc::clone(&self.seconds);
        let deps = Deps {
            backend: self.backend.clone(),
            blocklist: self.blocklist.clone(),
            limits: Arc::new(Open),
            now: Arc::new(move || Timestamp::from_unix_seconds(seconds.load(Ordering::Relaxed))),
            registry: &Registry::new(),
        };
        let (scheduler, _) = build(config, deps).await?;
        assert!(scheduler.ready().is_err());
        scheduler.flush().await?;
        Ok(scheduler)
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
    done.compaction = Some(CompactionDetail::default());
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
    let scheduler = bench.start(bench.config()).await.unwrap();
    let first = next(&scheduler, "a").await.unwrap();
    drop(scheduler);
    let scheduler = bench.start(bench.config()).await.unwrap();
    assert_eq!(next(&scheduler, "a").await.unwrap(), first);
    let second = next(&scheduler, "b").await.unwrap();
    assert!(inputs(&first).is_disjoint(&inputs(&second)));
    scheduler.flush().await.unwrap();
    drop(scheduler);
    let old = std::mem::replace(&mut bench.folder, tempfile::tempdir().unwrap());
    drop(old);
    // The old mark must grow old first: who tells that it was this one?
    bench.pass(181);
    let scheduler = bench.start(bench.config()).await.unwrap();
    assert_eq!(next(&scheduler, "a").await.unwrap(), first);
    assert_eq!(next(&scheduler, "b").await.unwrap(), second);
}

#[tokio::test]
async fn a_second_scheduler_stands_back_and_says_so() {
    let bench = Bench::new();
    bench.add("t", 1..=2);
    let first = bench.start(bench.config()).await.unwrap();
    assert!(matches!(
        bench.start(bench.config()).await,
        Err(Error::FolderInUse { .. })
    ));
    let elsewhere = tempfile::tempdir().unwrap();
    let config = Config {
        host: "there".into(),
        local_work_path: elsewhere.path().to_owned(),
        ..bench.config()
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
async fn flagged_blocks_are_not_handed_out() {
    let bench = Bench::new();
    bench.add("t", 1..=2);
    bench
        .backend
        .set_no_compact("t", Uuid::from_u128(2))
        .await
        .unwrap();
    let scheduler = bench.start(bench.config()).await.unwrap();
    assert_eq!(next(&scheduler, "a").await, None);
    bench
        .backend
        .delete(&ObjectKey::no_compact("t", Uuid::from_u128(2)))
        .await
        .unwrap();
    bench.pass(31);
    assert_eq!(inputs(&next(&scheduler, "a").await.unwrap()).len(), 2);
}

fn redact(ids: &[[u8; 16]], mode: RedactionMode) -> SubmitRedactionRequest {
    SubmitRedactionRequest {
        trace_ids: ids.iter().map(|id| id.to_vec()).collect(),
        mode: mode.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn what_was_being_merged_is_redacted_afterwards() {
    let bench = Bench::new();
    bench.add("t", 1..=6);
    let scheduler = bench.start(bench.config()).await.unwrap();
    let merge = next(&scheduler, "a").await.unwrap();
    assert_eq!(inputs(&merge).len(), 4);
    let request = redact(&[[7; 16]], RedactionMode::Apply);
    let answer = scheduler
        .submit_redaction("t", request.clone())
        .await
        .unwrap();
    assert_eq!(answer.jobs_created, 2);
    let second = scheduler.submit_redaction("t", request).await;
    assert!(matches!(second, Err(SubmitError::InProgress { .. })));
    for worker in ["b", "c"] {
        let job = next(&scheduler, worker).await.unwrap();
        assert_eq!(job.r#type(), JobType::Redaction);
        let detail = job.detail.clone().unwrap();
        assert_eq!(detail.redaction.unwrap().trace_ids, [[7; 16]]);
        assert_eq!(detail.batch_id, answer.batch_id);
        scheduler
            .update(update(&job, tempopb::JobStatus::Succeeded))
            .await
            .unwrap();
    }
    // Meanwhile nothing is merged, and nothing ended.
    bench.add("t", 21..=24);
    bench.pass(60);
    scheduler.maintain().await;
    assert_eq!(next(&scheduler, "b").await, None);
    bench.add("t", [100]);
    let mut done = update(&merge, tempopb::JobStatus::Succeeded);
    done.compaction = Some(CompactionDetail {
        input: Vec::new(),
        output: vec![Uuid::from_u128(100).to_string()],
    });
    scheduler.update(done).await.unwrap();
    bench.pass(300);
    scheduler.maintain().await;
    let job = next(&scheduler, "b").await.unwrap();
    let detail = job.detail.clone().unwrap().redaction.unwrap();
    assert_eq!(detail.block_id, Uuid::from_u128(100).to_string());
    // One that fails is tried again.
    scheduler
        .update(update(&job, tempopb::JobStatus::Failed))
        .await
        .unwrap();
    let again = next(&scheduler, "b").await.unwrap();
    assert_eq!(again.job_id, job.job_id);
    scheduler
        .update(update(&again, tempopb::JobStatus::Succeeded))
        .await
        .unwrap();
    scheduler.maintain().await;
    bench.pass(121);
    scheduler.maintain().await;
    scheduler.maintain().await;
    let kinds: BTreeSet<i32> = [next(&scheduler, "b").await, next(&scheduler, "c").await]
        .into_iter()
        .map(|job| job.unwrap().r#type)
        .collect();
    assert_eq!(
        kinds,
        BTreeSet::from([JobType::Compaction.into(), JobType::Retention.into()])
    );
}

#[tokio::test]
async fn redactions_that_make_no_sense_are_refused() {
    let bench = Bench::new();
    bench.add("t", [1]);
    let scheduler = bench.start(bench.config()).await.unwrap();
    let submit = |tenant: &'static str, request| scheduler.submit_redaction(tenant, request);
    let good = || redact(&[[7; 16]], RedactionMode::Apply);
    let invalid = [
        redact(&[], RedactionMode::Apply),
        SubmitRedactionRequest { mode: 9, ..good() },
        SubmitRedactionRequest {
            start_time_unix_nano: 1,
            ..good()
        },
        SubmitRedactionRequest {
            trace_ids: vec![vec![1; 17]],
            ..good()
        },
    ];
    for request in invalid {
        assert!(matches!(
            submit("t", request).await,
            Err(SubmitError::Invalid(_))
        ));
    }
    assert!(matches!(
        submit("left-alone", good()).await,
        Err(SubmitError::CompactionDisabled(_))
    ));
    assert!(matches!(
        submit("nobody", good()).await,
        Err(SubmitError::NoBlocks(_))
    ));
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
