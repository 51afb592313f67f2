//! What happens by itself: cutting, closing, expiring, pressure.

use super::*;
use crate::{PushErrorKind, testing::batch};

/// Waits until background work has made something true.
pub(super) async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_traces_become_a_block_in_the_store() {
    let mut world = World::new();
    world.config.flush_check_period = Duration::from_millis(1);
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    running.push_trace(2, 1, 1).await;
    let stats = || running.store.stats();
    assert_eq!(stats().live_traces, 2);
    world.clock.advance(Duration::from_secs(6));
    until(|| stats().live_traces == 0).await;
    assert_eq!(stats().local_blocks, 0, "cut, but its block stays open");
    world.clock.advance(Duration::from_secs(31));
    until(|| stats().local_blocks == 1 && stats().unflushed_blocks == 0).await;
    assert_eq!(world.stored().await, once(&[(1, 1, 2), (2, 1, 1)]));
    let cut = [("reason", "max_block_duration")];
    assert_eq!(
        running.metric("tempo_live_store_blocks_cut_total", &cut),
        1.0
    );
    let created = running.metric("tempo_live_store_traces_created_total", &[("tenant", "t")]);
    assert_eq!(created, 2.0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_removed_when_blocks_have_it_and_blocks_when_their_time_is_over() {
    let mut world = World::new();
    world.config.flush_check_period = Duration::from_millis(1);
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    running.store.flush_all().await.unwrap();
    until(|| segments(world.data_path()).is_empty()).await;
    assert_eq!(local_blocks(world.data_path()).len(), 1);
    world.clock.advance(Duration::from_secs(20 * 60 - 1));
    running.push_trace(2, 1, 1).await;
    assert_eq!(running.seen().await.len(), 3);
    world.clock.advance(Duration::from_secs(2));
    let cleared = [("block_type", "complete")];
    until(|| running.metric("tempo_live_store_blocks_cleared_total", &cleared) == 1.0).await;
    assert!(local_blocks(world.data_path()).is_empty());
    assert_eq!(running.seen().await, once(&[(2, 1, 1)]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_known_to_the_nanosecond_what_was_let_go() {
    let mut world = World::new();
    world.config.flush_check_period = Duration::from_millis(1);
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    world.clock.advance(Duration::from_secs(1));
    running.store.flush_all().await.unwrap();
    let shared = &running.store.shared;
    let tenant = shared.tenant("t").unwrap();
    let end = tenant.blocks()[0].meta().end_time.unix_nanos() as u64;
    assert!(
        end > TEST_TIME && end - TEST_TIME < 1_000_000_000,
        "in one second"
    );
    assert!(!shared.forgotten.reaches(0), "all is here");
    world.clock.advance(Duration::from_secs(3600));
    until(|| running.store.stats().local_blocks == 0).await;
    assert!(shared.forgotten.reaches(TEST_TIME));
    assert!(shared.forgotten.reaches(end), "of a span without duration");
    assert!(!shared.forgotten.reaches(end + 1));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_later_was_not_let_go_whatever_clocks_say() {
    let mut world = World::new();
    world.config.flush_check_period = Duration::from_millis(1);
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    running.store.flush_all().await.unwrap();
    let shared = &running.store.shared;
    let block = Arc::clone(&shared.tenant("t").unwrap().blocks()[0]);
    let stored = block.flushed_unix_nanos().unwrap();
    assert!(stored < block.meta().end_time.unix_nanos() as u64);
    drop(block);
    world.clock.advance(Duration::from_secs(3600));
    until(|| running.store.stats().local_blocks == 0).await;
    assert!(shared.forgotten.reaches(stored - 1) && !shared.forgotten.reaches(stored));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_stays_while_a_query_reads_it() {
    let mut world = World::new();
    world.config.flush_check_period = Duration::from_millis(1);
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    running.store.flush_all().await.unwrap();
    until(|| segments(world.data_path()).is_empty()).await;
    let view = running
        .store
        .view("t", 0, u64::MAX, Operation::Search)
        .unwrap();
    world.clock.advance(Duration::from_secs(3600));
    until(|| running.store.stats().local_blocks == 0).await;
    let mut spans = Spans::new();
    add_spans(&*view.tables()[0], &mut spans);
    assert_eq!(spans, once(&[(1, 1, 2)]));
    assert!(view.bytes_read() > 0);
    drop(view);
    until(|| local_blocks(world.data_path()).is_empty()).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unflushed_block_never_expires() {
    let mut world = World::new();
    let (backend, faults) = tempo_backend::testing::faulty(&world.backend);
    world.backend = backend;
    world.config.flush_check_period = Duration::from_millis(1);
    faults.fail_all();
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    assert!(running.store.flush_all().await.is_err());
    world.clock.advance(Duration::from_secs(24 * 3600));
    until(|| segments(world.data_path()).is_empty()).await;
    assert_eq!(local_blocks(world.data_path()).len(), 1);
    faults.heal();
    running.store.flush_all().await.unwrap();
    assert_eq!(world.stored().await, once(&[(1, 1, 2)]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_live_bytes_are_cut_early_instead_of_stopping_pushes() {
    let mut world = World::new();
    let one = trace(1, 1, 1).encode().len() as u64;
    world.config.max_live_traces_bytes = 4 * one;
    let running = world.start().await;
    for n in 1..=40 {
        running.push_trace(n, 1, 1).await;
        world.clock.advance(Duration::from_millis(1));
    }
    assert!(running.store.stats().live_trace_bytes <= 8 * one);
    assert_eq!(running.seen().await.len(), 40);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_cannot_be_completed_make_pushes_wait_and_then_fail() {
    let mut world = World::new();
    world.config.max_push_wait = Duration::from_millis(20);
    world.config.max_uncompleted_blocks = 0;
    let running = world.start().await;
    running.push_trace(1, 1, 1).await;
    // The folder of finished blocks cannot be written to: a file is in the way of the tenant's.
    fs::write(world.data_path().join("blocks").join("t"), b"in the way").unwrap();
    let error = running.store.flush_all().await.unwrap_err();
    assert_eq!(error.left.len(), 1);
    let refused = running.push(trace(2, 1, 1).batch()).await.unwrap_err();
    assert_eq!(refused.kind(), PushErrorKind::ResourceExhausted);
    assert!(refused.to_string().contains("waiting_for_wal"), "{refused}");
    let waited = [("reason", "waiting_for_wal")];
    assert!(running.metric("tempo_live_store_back_pressure_seconds_total", &waited) >= 0.02);
    assert_eq!(running.seen().await, once(&[(1, 1, 1)]));
    assert_eq!(
        running.metric("tempo_live_store_failed_completions_total", &[]),
        1.0
    );
    // A push that waits goes on as soon as there is room.
    fs::remove_file(world.data_path().join("blocks").join("t")).unwrap();
    running.store.flush_all().await.unwrap();
    running.push_trace(2, 1, 1).await;
    assert_eq!(running.seen().await, once(&[(1, 1, 1), (2, 1, 1)]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told_to_the_sender() {
    let mut world = World::new();
    let one = trace(1, 1, 1).encode().len() as u64;
    world.limits = TestLimits {
        max_bytes_per_trace: one + 10,
        max_live_traces: 2,
    };
    let running = world.start().await;
    let outcome = running
        .push(batch([trace(1, 1, 1), trace(2, 1, 5)]))
        .await
        .unwrap();
    assert_eq!(
        outcome,
        PushOutcome {
            accepted_spans: 1,
            too_large_spans: 5,
            max_bytes_per_trace: one + 10
        }
    );
    let only_too_large = running.push(trace(3, 1, 9).batch()).await.unwrap();
    assert_eq!(
        (
            only_too_large.accepted_spans,
            only_too_large.too_large_spans
        ),
        (0, 9)
    );
    let refused = running
        .push(batch([trace(4, 1, 1), trace(5, 1, 1)]))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), PushErrorKind::ResourceExhausted);
    assert!(
        refused.to_string().starts_with("LIVE_TRACES_EXCEEDED"),
        "{refused}"
    );
    assert_eq!(running.seen().await, once(&[(1, 1, 1)]));
    assert_eq!(
        running.push(TraceBatch::default()).await.unwrap(),
        PushOutcome::default()
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_tables_close_blocks_early() {
    let mut world = World::new();
    world.config.max_live_table_bytes = 1;
    world.config.max_push_wait = Duration::from_secs(60);
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    assert_eq!(running.seen().await, once(&[(1, 1, 2)]));
    // Tables are over twice their limit: this push waits until a block has taken them.
    running.push_trace(2, 1, 1).await;
    let early = [("reason", "max_live_table_bytes")];
    assert!(running.metric("tempo_live_store_blocks_cut_total", &early) >= 1.0);
    assert_eq!(running.seen().await, once(&[(1, 1, 2), (2, 1, 1)]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_without_recent_data_is_forgotten() {
    let mut world = World::new();
    world.config.flush_check_period = Duration::from_millis(1);
    let running = world.start().await;
    running.push_trace(1, 1, 1).await;
    running.store.flush_all().await.unwrap();
    assert_eq!(running.store.stats().tenants, 1);
    until(|| segments(world.data_path()).is_empty()).await;
    world.clock.advance(Duration::from_secs(3600));
    until(|| running.store.stats().tenants == 0).await;
    assert_eq!(running.seen().await, Spans::new());
    running.push_trace(1, 2, 1).await;
    assert_eq!(running.seen().await, once(&[(1, 2, 1)]));
    running.stop().await;
}
