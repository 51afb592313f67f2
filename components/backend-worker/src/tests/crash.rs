//! A merge that dies at every request to the store.

use tempo_backend::testing::{Effect, Operation};

use super::*;

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

/// Does the job as a worker that has just started, on a store that may fail.
async fn attempt(
    backend: &Backend,
    inputs: &[Arc<BlockMeta>],
) -> Result<Vec<String>, crate::JobError> {
    merge(Arc::new(Patient), backend, &Blocklist::new(), inputs).await
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
            let first = attempt(&backend, &inputs).await;
            let between = seen(&store, live(&store).await).await;
            assert!(between == expected || between == once, "{place}");
            // What is said to be done is done.
            assert!(first.is_err() || between == once, "{place}");
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

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_are_gone_are_left_to_a_better_plan() {
    let parts = spread(1, 2, 4);
    let (store, inputs) = filled(&parts).await;
    store.mark_compacted("t", inputs[0].block_id).await.unwrap();
    assert!(attempt(&store, &inputs).await.unwrap().is_empty());
    assert_eq!(live(&store).await.len(), 1);
}

/// Who marks what a merge left live.
enum Tidier {
    Retention,
    NextMerge,
    /// A job that was planned when the merge was not known.
    OldPlan,
}

/// A merged block that is public is a job well done, whatever fails after it; what is left live is
/// hidden, and tidied up later.
#[tokio::test(flavor = "multi_thread")]
async fn a_public_block_is_a_job_done() {
    let parts = spread(1, 4, 8);
    let once: Spans = before(&parts).into_keys().map(|span| (span, 1)).collect();
    for tidied_by in [Tidier::Retention, Tidier::NextMerge, Tidier::OldPlan] {
        let (store, inputs) = filled(&parts).await;
        let (backend, faults) = faulty(&store);
        // The answer to the last write is lost, and an input cannot be marked.
        faults.inject(Fault {
            operation: Some(Operation::Write),
            key_contains: "/meta.json".into(),
            times: Some(1),
            effect: Effect::PartialWrite(usize::MAX),
        });
        faults.fail_next_on(Operation::Write, "meta.compacted.json", 1);
        let output = attempt(&backend, &inputs[..3]).await.unwrap();
        assert_eq!(output.len(), 1);
        let (blocklist, poller) = listed(&store).await;
        let blocks = blocklist.tenant("t");
        assert_eq!(blocks.superseded().len(), 1);
        assert_eq!(
            names(&seen(&store, blocks.live().to_vec()).await),
            names(&once)
        );
        let unmarked = blocks.superseded()[0];
        let unmarked = inputs
            .iter()
            .find(|meta| meta.block_id == unmarked)
            .unwrap();
        let rest = Arc::clone(&inputs[3]);
        match tidied_by {
            Tidier::Retention => {
                let registry = Registry::new();
                let retention =
                    Retention::build(store.clone(), blocklist.clone(), None, 1, &registry).unwrap();
                let policy = Unlimited.retention("t").unwrap();
                let done = retention.run_tenant("t", policy, Timestamp::now()).await;
                assert_eq!(done.marked, 1);
            }
            Tidier::NextMerge => {
                let merged = blocks.live_block(output[0].parse().unwrap()).unwrap();
                let next = [Arc::clone(merged), rest];
                attempt(&store, &next).await.unwrap();
            }
            Tidier::OldPlan => {
                let next = [Arc::clone(unmarked), rest];
                let nothing = merge(Arc::new(Patient), &store, &blocklist, &next).await;
                assert!(nothing.unwrap().is_empty());
            }
        }
        poller.poll_once().await.unwrap();
        let blocks = blocklist.tenant("t");
        assert!(blocks.superseded().is_empty());
        assert!(
            inputs[..3]
                .iter()
                .all(|meta| { blocks.compacted_block(meta.block_id).is_some() })
        );
        assert_eq!(
            names(&seen(&store, blocks.live().to_vec()).await),
            names(&once)
        );
    }
}
