//! Traces removed on request, and blocks that have lived long enough.

use tempo_proto::tempopb::{RedactionMode, SubmitRedactionRequest};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn redacted_traces_are_gone_from_every_block_and_nothing_else() {
    let backend = memory();
    let parts = spread(5, 6, 40);
    for traces in &parts {
        put(&backend, "single-tenant", traces).await;
    }
    let (blocklist, _) = listed(&backend).await;
    let folder = tempfile::tempdir().unwrap();
    let shutdown = CancellationToken::new();
    let scheduler = scheduler(&backend, &blocklist, folder.path(), &shutdown).await;
    // Those that are in two blocks, too, and a block as a whole.
    let mut removed: BTreeSet<TraceId> = parts[0].keys().copied().collect();
    removed.extend(parts[3].keys().take(2));
    let request = |mode: RedactionMode| SubmitRedactionRequest {
        trace_ids: removed.iter().map(|id| id.as_bytes().to_vec()).collect(),
        mode: mode.into(),
        ..Default::default()
    };
    let submit = |mode| scheduler.submit_redaction("single-tenant", request(mode));
    let answer = submit(RedactionMode::DryRun).await.unwrap();
    assert_eq!(answer.jobs_created, 6);
    assert!(submit(RedactionMode::Apply).await.is_err());
    let limits: Arc<dyn Limits> = Arc::new(Unlimited);
    let jobs = Arc::new(Local(scheduler.clone()));
    let (_, service) = worker(jobs, &backend, &blocklist, limits);
    let working = tokio::spawn(service.run(shutdown.clone()));
    // The dry run ends, changes nothing, and makes way.
    until(async || submit(RedactionMode::Apply).await.is_ok()).await;
    let mut expected = before(&parts);
    expected.retain(|(id, _), _| !removed.contains(id));
    let live = async || {
        listed(&backend)
            .await
            .0
            .tenant("single-tenant")
            .live()
            .to_vec()
    };
    until(async || names(&seen(&backend, live().await).await) == names(&expected)).await;
    // Then merging goes on.
    until(async || live().await.len() == 1).await;
    assert_eq!(names(&seen(&backend, live().await).await), names(&expected));
    assert_sound(&backend, &live().await).await;
    shutdown.cancel();
    working.await.unwrap();
}

/// Everything is too old.
struct Brief;

impl Limits for Brief {
    fn retention(&self, tenant: &str) -> Option<RetentionPolicy> {
        (tenant == "old").then_some(RetentionPolicy {
            block_retention: Duration::from_secs(3600),
            compacted_block_retention: Duration::ZERO,
        })
    }

    fn max_trace_bytes(&self, _: &str) -> u64 {
        0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_blocks_are_marked_then_removed() {
    let backend = memory();
    let parts = spread(5, 1, 3);
    for tenant in ["old", "kept"] {
        put(&backend, tenant, &parts[0]).await;
    }
    let (blocklist, poller) = listed(&backend).await;
    let folder = tempfile::tempdir().unwrap();
    let shutdown = CancellationToken::new();
    let config = tempo_backend_scheduler::Config {
        local_work_path: folder.path().to_owned(),
        job_timeout: Duration::from_millis(50),
        maintenance_interval: Duration::from_millis(20),
        retention_interval: Duration::from_millis(20),
        ..Default::default()
    };
    let deps = tempo_backend_scheduler::Deps {
        backend: backend.clone(),
        blocklist: blocklist.clone(),
        limits: Arc::new(Unlimited),
        now: Arc::new(Timestamp::now),
        registry: &Registry::new(),
    };
    let (scheduler, service) = tempo_backend_scheduler::build(config, deps).await.unwrap();
    tokio::spawn(service.run(shutdown.clone()));
    let jobs = Arc::new(Local(scheduler));
    let (_, service) = worker(jobs, &backend, &blocklist, Arc::new(Brief));
    let working = tokio::spawn(service.run(shutdown.clone()));
    until(async || {
        poller.poll_once().await.unwrap();
        let listing = backend.list_blocks("old").await.unwrap();
        listing.live.is_empty() && listing.compacted.is_empty()
    })
    .await;
    assert_eq!(backend.list_blocks("kept").await.unwrap().live.len(), 1);
    shutdown.cancel();
    working.await.unwrap();
}
