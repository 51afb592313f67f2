//! Requests for redaction.

use tempo_proto::tempopb::{RedactionMode, SubmitRedactionRequest};

use super::*;
use crate::SubmitError;

#[tokio::test]
async fn what_a_lost_job_may_have_made_is_redacted_too() {
    let bench = Bench::new();
    let (scheduler, _) = lost_while_publishing(&bench).await;
    let request = redact(&[[7; 16]], RedactionMode::Apply);
    scheduler.submit_redaction("t", request).await.unwrap();
    bench.pass(301);
    scheduler.maintain().await;
    let mut seen = BTreeSet::new();
    while let Some(job) = next(&scheduler, "b").await {
        let detail = job.detail.clone().unwrap().redaction.unwrap();
        seen.insert(Uuid::try_parse(&detail.block_id).unwrap().as_u128());
        let done = update(&job, tempopb::JobStatus::Succeeded);
        scheduler.update(done).await.unwrap();
    }
    assert_eq!(seen, BTreeSet::from([1, 2, 3, 4, 5, 100]));
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
    done.compaction = Some(merged_into(100));
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
async fn a_redaction_that_left_a_block_as_it_was_is_not_done() {
    const FAILED: &str = "tempo_backend_scheduler_redactions_failed";
    let bench = Bench::new();
    bench.add("t", 1..=2);
    let mut scheduler = bench.start(bench.config()).await.unwrap();
    let submit = |ids: &[[u8; 16]]| redact(ids, RedactionMode::Apply);
    let request = submit(&[[7; 16], [8; 16]]);
    let batch = scheduler.submit_redaction("t", request).await.unwrap();
    while let Some(job) = next(&scheduler, "a").await {
        let detail = job.detail.clone().unwrap().redaction.unwrap();
        let status = match Uuid::try_parse(&detail.block_id).unwrap().as_u128() {
            1 => tempopb::JobStatus::Failed,
            _ => tempopb::JobStatus::Succeeded,
        };
        scheduler.update(update(&job, status)).await.unwrap();
    }
    // Long enough for its jobs to be forgotten.
    for _ in 0..3 {
        bench.pass(4000);
        scheduler.maintain().await;
    }
    for restarted in [false, true] {
        if restarted {
            drop(scheduler);
            scheduler = bench.start(bench.config()).await.unwrap();
            scheduler.maintain().await;
        }
        let page = scheduler.status_page().await;
        let line = format!("Failed redaction {}  t", batch.batch_id);
        assert!(page.contains(&line), "{page}");
        assert!(page.contains(&Uuid::from_u128(1).to_string()), "{page}");
        assert!(!page.contains(&Uuid::from_u128(2).to_string()), "{page}");
        assert_eq!(bench.gauge(FAILED), 1.0);
    }
    // It bars nothing, and less than it asked for does not make up for it.
    let merge = next_merge(&scheduler, "a").await.unwrap();
    let mut done = update(&merge, tempopb::JobStatus::Succeeded);
    done.compaction = Some(merged_into(100));
    scheduler.update(done).await.unwrap();
    bench.add("t", [100]);
    for (ids, left) in [(&[[7; 16]][..], 1.0), (&[[7; 16], [8; 16]], 0.0)] {
        let answer = scheduler.submit_redaction("t", submit(ids)).await.unwrap();
        assert_eq!(answer.jobs_created, 1);
        let job = next(&scheduler, "a").await.unwrap();
        let done = update(&job, tempopb::JobStatus::Succeeded);
        scheduler.update(done).await.unwrap();
        scheduler.maintain().await;
        bench.pass(121);
        scheduler.maintain().await;
        assert_eq!(bench.gauge(FAILED), left);
    }
    let page = scheduler.status_page().await;
    assert!(!page.contains("Failed redaction"), "{page}");
}

#[tokio::test]
async fn a_redaction_outlives_the_disk() {
    let mut bench = Bench::new();
    bench.add("t", [1, 2]);
    let scheduler = bench.start(bench.rivalling()).await.unwrap();
    let request = || redact(&[[7; 16]], RedactionMode::Apply);
    let batch = scheduler.submit_redaction("t", request()).await.unwrap();
    drop(scheduler);
    bench.folder = tempfile::tempdir().unwrap();
    bench.pass(181);
    let scheduler = bench.start(bench.rivalling()).await.unwrap();
    assert!(matches!(
        scheduler.submit_redaction("t", request()).await,
        Err(SubmitError::InProgress { batch: found, .. }) if found == batch.batch_id
    ));
    let mut blocks = BTreeSet::new();
    for worker in ["a", "b"] {
        let job = next(&scheduler, worker).await.unwrap();
        let redaction = job.detail.unwrap().redaction.unwrap();
        assert_eq!(redaction.trace_ids, [[7; 16].to_vec()]);
        blocks.insert(redaction.block_id);
    }
    assert_eq!(blocks.len(), 2);
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
