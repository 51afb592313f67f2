//! Many small blocks become few, while readers look on.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const BLOCKS: usize = 100;
const TENANTS: [&str; 2] = ["one", "two"];

/// Looks at the blocks over and over; every span must be there, and no more often than at first.
async fn look_on(
    backend: Backend,
    shared: Blocklist,
    expected: Vec<Spans>,
    done: Arc<AtomicBool>,
) -> usize {
    // As another process sees them, too.
    let (own, poller) = listed(&backend).await;
    let mut rounds = 0;
    loop {
        let last = done.load(Ordering::Relaxed);
        poller.poll_once().await.unwrap();
        for (tenant, expected) in TENANTS.iter().zip(&expected) {
            for blocklist in [&shared, &own] {
                let metas = blocklist.tenant(tenant).live().to_vec();
                let spans = seen(&backend, metas).await;
                assert_eq!(names(&spans), names(expected), "round {rounds}");
                for (span, count) in &spans {
                    assert!(
                        count <= &expected[span],
                        "round {rounds}: {span:?} {count} times"
                    );
                }
            }
        }
        rounds += 1;
        if last {
            return rounds;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_small_blocks_become_few() {
    let backend = memory();
    let mut expected = Vec::new();
    for (seed, tenant) in (1..).zip(TENANTS) {
        let parts = spread(seed, BLOCKS, BLOCKS + 40);
        for traces in &parts {
            put(&backend, tenant, traces).await;
        }
        expected.push(before(&parts));
    }
    let (blocklist, _) = listed(&backend).await;
    let folder = tempfile::tempdir().unwrap();
    let shutdown = CancellationToken::new();
    let scheduler = scheduler(&backend, &blocklist, folder.path(), &shutdown).await;
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(look_on(
        backend.clone(),
        blocklist.clone(),
        expected.clone(),
        Arc::clone(&done),
    ));
    let limits: Arc<dyn Limits> = Arc::new(Unlimited);
    let (_, service) = worker(Arc::new(Local(scheduler)), &backend, &blocklist, limits);
    let working = tokio::spawn(service.run(shutdown.clone()));
    let few = || {
        TENANTS
            .iter()
            .all(|tenant| blocklist.tenant(tenant).live().len() == 1)
    };
    while !few() {
        assert!(!working.is_finished() && !reader.is_finished());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    done.store(true, Ordering::Relaxed);
    let rounds = reader.await.unwrap();
    assert!(rounds > 1);
    shutdown.cancel();
    working.await.unwrap();

    let (fresh, _) = listed(&backend).await;
    for (tenant, expected) in TENANTS.iter().zip(&expected) {
        let blocks = fresh.tenant(tenant);
        assert_eq!(blocks.live().len(), 1);
        assert!(blocks.superseded().is_empty());
        let spans = seen(&backend, blocks.live().to_vec()).await;
        assert_eq!(names(&spans), names(expected));
        assert!(spans.values().all(|&count| count == 1));
        assert_sound(&backend, blocks.live()).await;
    }
}
