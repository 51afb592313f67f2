//! A merge that dies at every request to the store.

use tempo_backend::testing::{faulty, memory};
use tempo_proto::tempopb::{CompactionDetail, JobDetail, JobType};

use super::*;
use crate::{control::Abandon, worker::Running};

/// A scheduler that counts on its worker.
struct Patient;

#[async_trait::async_trait]
impl JobSource for Patient {
    async fn next(&self, _: &str) -> Result<Option<NextJobResponse>, SourceError> {
        Ok(None)
    }

    async fn update(&self, _: UpdateJobStatusRequest) -> Result<(), SourceError> {
        Ok(())
    }
}

fn job(inputs: &[Arc<BlockMeta>]) -> NextJobResponse {
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

/// Does the job as a worker that has just started, on a store that may fail.
async fn attempt(
    backend: &Backend,
    inputs: &[Arc<BlockMeta>],
) -> Result<Vec<String>, crate::JobError> {
    let blocklist = Blocklist::new();
    let jobs: Arc<dyn JobSource> = Arc::new(Patient);
    let (worker, _) = worker(jobs.clone(), backend, &blocklist, Arc::new(Unlimited));
    let running = Running::new("job".into(), jobs, Abandon::default());
    let outcome = worker.do_job(&job(inputs), &running).await?;
    Ok(outcome.compaction.unwrap().output)
}

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

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_can_die_anywhere() {
    let parts = spread(1, 3, 6);
    let (store, inputs) = filled(&parts).await;
    let (backend, faults) = faulty(&store);
    attempt(&backend, &inputs).await.unwrap();
    let requests = faults.requests().len();
    assert!(requests > 20, "{requests}");
    let expected = before(&parts);
    let once: Spans = expected.keys().map(|span| (span.clone(), 1)).collect();
    assert_eq!(seen(&store, live(&store).await).await, once);

    for crash in 0..requests {
        for answer_lost in [false, true] {
            let place = format!("crash after {crash} of {requests}, answer lost: {answer_lost}");
            let (store, inputs) = filled(&parts).await;
            let (backend, faults) = faulty(&store);
            faults.crash_after(crash, answer_lost);
            assert!(attempt(&backend, &inputs).await.is_err(), "{place}");
            let between = seen(&store, live(&store).await).await;
            assert!(between == expected || between == once, "{place}");
            let output = attempt(&store, &inputs).await.unwrap();
            assert_eq!(output.len(), 1, "{place}");
            let (blocklist, _) = listed(&store).await;
            let blocks = blocklist.tenant("t");
            assert_eq!(blocks.live().len(), 1, "{place}");
            assert!(blocks.superseded().is_empty(), "{place}");
            assert_eq!(blocks.compacted().len(), inputs.len(), "{place}");
            assert_eq!(seen(&store, blocks.live().to_vec()).await, once, "{place}");
            // Done a third time it changes nothing.
            assert_eq!(attempt(&store, &inputs).await.unwrap(), output, "{place}");
        }
    }
    assert_sound(&store, &live(&store).await).await;
}

/// A scheduler that has given the job to another.
struct Faithless;

#[async_trait::async_trait]
impl JobSource for Faithless {
    async fn next(&self, _: &str) -> Result<Option<NextJobResponse>, SourceError> {
        Ok(None)
    }

    async fn update(&self, _: UpdateJobStatusRequest) -> Result<(), SourceError> {
        Err(SourceError::NotRunning("gone".into()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lost_its_job_publishes_nothing() {
    let parts = spread(1, 2, 4);
    let (store, inputs) = filled(&parts).await;
    let jobs: Arc<dyn JobSource> = Arc::new(Faithless);
    let (worker, _) = worker(jobs.clone(), &store, &Blocklist::new(), Arc::new(Unlimited));
    let running = Running::new("job".into(), jobs, Abandon::default());
    let outcome = worker.do_job(&job(&inputs), &running).await;
    assert!(matches!(outcome, Err(crate::JobError::Abandoned)));
    assert_eq!(live(&store).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_are_gone_are_left_to_a_better_plan() {
    let parts = spread(1, 2, 4);
    let (store, inputs) = filled(&parts).await;
    store.mark_compacted("t", inputs[0].block_id).await.unwrap();
    assert!(attempt(&store, &inputs).await.unwrap().is_empty());
    assert_eq!(live(&store).await.len(), 1);
}
