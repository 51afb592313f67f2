//! From push to the object store, with a store that works and one that does not.

use tempo_backend::testing::{Effect, Fault, Gate, Operation as StoreOperation, faulty};

use super::*;
use crate::testing::batch;

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_found_at_once_and_after_it_was_flushed() {
    let world = World::new();
    let running = world.start().await;
    assert_eq!(running.find(1).await, None);
    running
        .push(batch([trace(1, 1, 3), trace(2, 1, 1)]))
        .await
        .unwrap();
    running.push_trace(1, 4, 2).await;
    let all = once(&[(1, 1, 5), (2, 1, 1)]);
    assert_eq!(running.find(1).await, Some(vec![1, 2, 3, 4, 5]));
    assert_eq!(running.seen().await, all);
    running.store.flush_all().await.unwrap();
    assert_eq!(world.stored().await, all);
    assert_eq!(running.seen().await, all, "now from the local block");
    assert_eq!(running.find(1).await, Some(vec![1, 2, 3, 4, 5]));
    assert_eq!(running.find(3).await, None);
    let stats = running.store.stats();
    assert_eq!((stats.live_traces, stats.live_table_spans), (0, 0));
    assert_eq!((stats.local_blocks, stats.unflushed_blocks), (1, 0));
    // A trace that goes on is found whole, from the block and from live data.
    running.push_trace(1, 6, 1).await;
    assert_eq!(running.find(1).await, Some(vec![1, 2, 3, 4, 5, 6]));
    running.store.flush_all().await.unwrap();
    assert_eq!(world.stored().await, once(&[(1, 1, 6), (2, 1, 1)]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_block_says_what_it_holds() {
    let mut world = World::new();
    world.clock.advance(Duration::from_secs(3600));
    world.config.ingestion_time_range_slack = Duration::from_secs(120);
    let running = world.start().await;
    let future = TEST_TIME + Duration::from_secs(7200).as_nanos() as u64;
    running
        .push(batch([trace(1, 1, 2), trace(2, 1, 1).start(future)]))
        .await
        .unwrap();
    running.store.flush_all().await.unwrap();
    let listing = world.backend.list_blocks("t").await.unwrap();
    let meta = world.backend.read_meta("t", listing.live[0]).await.unwrap();
    assert_eq!(meta.total_objects, 2);
    assert_eq!(meta.replication_factor, 1);
    assert_eq!(meta.start_time.unix_nanos() as u64, TEST_TIME + 1);
    // Two minutes after the push, not two hours.
    assert_eq!(
        meta.end_time.unix_nanos() as u64,
        TEST_TIME + Duration::from_secs(3720).as_nanos() as u64
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_kept_apart() {
    let world = World::new();
    let running = world.start().await;
    running
        .store
        .push("other", trace(1, 1, 1).batch())
        .await
        .unwrap();
    assert_eq!(running.find(1).await, None);
    assert_eq!(running.seen().await, Spans::new());
    running.push_trace(1, 5, 1).await;
    running.store.flush_all().await.unwrap();
    assert_eq!(world.backend.list_tenants().await.unwrap(), ["other", "t"]);
    assert_eq!(running.find(1).await, Some(vec![5]));
    let invalid = running.store.push("a/b", trace(1, 1, 1).batch()).await;
    assert!(matches!(invalid, Err(PushError::Tenant(_))));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_store_keeps_blocks_and_gets_them_when_it_is_back() {
    let mut world = World::new();
    let (backend, faults) = faulty(&world.backend);
    world.backend = backend;
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    faults.fail_all();
    let error = running.store.flush_all().await.unwrap_err();
    assert_eq!((error.blocks, error.left.len()), (1, 1));
    assert!(error.to_string().contains("of tenant t"), "{error}");
    // Pushes and queries go on.
    running.push_trace(2, 1, 1).await;
    let all = once(&[(1, 1, 2), (2, 1, 1)]);
    assert_eq!(running.seen().await, all);
    assert_eq!(running.store.flush_all().await.unwrap_err().left.len(), 2);
    assert_eq!(running.store.stats().unflushed_blocks, 2);
    assert!(running.metric("tempo_live_store_local_failed_flushes_total", &[]) >= 3.0);
    faults.heal();
    running.store.flush_all().await.unwrap();
    assert_eq!(world.stored().await, all);
    assert_eq!(
        running.metric("tempo_live_store_local_blocks_flushed_total", &[]),
        2.0
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_is_tried_again_by_itself() {
    let mut world = World::new();
    let (backend, faults) = faulty(&world.backend);
    world.backend = backend;
    world.config.min_retry_backoff = Duration::from_millis(1);
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    faults.fail_next_on(StoreOperation::Write, "meta.json", 3);
    assert!(running.store.flush_all().await.is_err());
    while running.store.stats().unflushed_blocks > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.stored().await, once(&[(1, 1, 2)]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn meta_is_written_last() {
    let mut world = World::new();
    let (backend, faults) = faulty(&world.backend);
    world.backend = backend;
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    running.store.flush_all().await.unwrap();
    let written: Vec<String> = faults
        .requests()
        .into_iter()
        .filter(|(operation, _)| *operation == StoreOperation::Write)
        .map(|(_, key)| key.rsplit('/').next().unwrap().to_owned())
        .collect();
    let mut objects = written.clone();
    objects.dedup();
    assert_eq!(objects, ["data.parquet", "bloom-0", "index", "meta.json"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_the_store() {
    let mut world = World::new();
    let (backend, faults) = faulty(&world.backend);
    world.backend = backend;
    let gate = Gate::new();
    faults.inject(Fault {
        operation: Some(StoreOperation::Write),
        key_contains: "data.parquet".to_owned(),
        times: None,
        effect: Effect::Wait(gate.clone()),
    });
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    let store = running.store.clone();
    let flushing = tokio::spawn(async move { store.flush_all().await });
    gate.arrived().await;
    running.push_trace(2, 1, 1).await;
    running.stop().await;
    let error = flushing.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("stopping"), "{error}");
    // What was live is in a complete block, what was complete is still there.
    assert_eq!(local_blocks(world.data_path()).len(), 2);
    faults.heal();
    gate.open();
    let running = world.start().await;
    running.store.flush_all().await.unwrap();
    assert_eq!(world.stored().await, once(&[(1, 1, 2), (2, 1, 1)]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stop_pushes_are_refused_for_another_try() {
    let world = World::new();
    let running = world.start().await;
    let store = running.store.clone();
    running.stop().await;
    let refused = store.push("t", trace(1, 1, 1).batch()).await.unwrap_err();
    assert_eq!(refused.kind(), crate::PushErrorKind::Unavailable);
    assert!(store.ready().is_err());
    assert!(store.find_trace("t", &TraceId::from_padded(&[1])).is_err());
}
