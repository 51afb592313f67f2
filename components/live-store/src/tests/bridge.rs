//! A monolith that processes of a cluster read: what it tells them, keeps for them, and refuses.

use super::{background::until, *};
use crate::{BoundarySettings, ReadError};

const LATE: u64 = 10;
const VISIBLE_AFTER: u64 = 75;
/// Unix seconds of [`TEST_TIME`].
const NOW: i64 = (TEST_TIME / 1_000_000_000) as i64;

fn bridged(world: &mut World) {
    world.config.bridge = Some(BoundarySettings {
        blocks_visible_after: Duration::from_secs(VISIBLE_AFTER),
        max_span_delay: Duration::from_secs(LATE),
    });
}

fn bridged_world() -> World {
    let mut world = World::new();
    bridged(&mut world);
    world
}

impl Running {
    /// What it tells others, in seconds since the test began.
    fn told(&self) -> i64 {
        let shared = &self.store.shared;
        shared.look_what_is_seen(shared.clock.now_unix_nanos());
        self.store.built_until_unix_seconds().unwrap() - NOW
    }

    /// Hears until when all partitions are in blocks, in seconds since the test began, and so long ago
    /// that nobody goes by what was told before.
    fn hear(&self, world: &World, seconds: i64) {
        for _ in 0..2 {
            self.store.set_all_built_until(NOW + seconds);
            world.clock.advance(Duration::from_secs(VISIBLE_AFTER));
        }
    }

    /// Lets much time pass, until the log holds nothing that is in blocks.
    async fn forget_log(&self, world: &World) {
        world.clock.advance(Duration::from_secs(24 * 3600));
        until(|| {
            self.store.shared.maintain();
            segments(world.data_path()).is_empty()
        })
        .await;
        self.store.shared.maintain();
    }

    /// Whether everything since so many seconds after the test began can be counted.
    fn counts_since(&self, seconds: i64) -> bool {
        let start = u64::try_from(NOW + seconds).unwrap() * 1_000_000_000;
        match self.store.view("t", start, u64::MAX, Operation::QueryRange) {
            Ok(_) => true,
            Err(ReadError::Forgotten) => false,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_told_of_once_everybody_sees_them() {
    let world = bridged_world();
    let running = world.start().await;
    let late = i64::try_from(LATE).unwrap();
    assert_eq!(
        running.told(),
        -late,
        "nothing came, and what comes is late"
    );
    world.clock.advance(Duration::from_secs(100));
    assert_eq!(running.told(), 100 - late);
    running.push_trace(1, 1, 1).await;
    world.clock.advance(Duration::from_secs(1000));
    running.push_trace(1, 2, 1).await;
    assert_eq!(running.told(), 100 - late, "live");
    running.store.shared.cut_all();
    assert_eq!(running.told(), 100 - late, "being built or flushed");
    running.store.flush_all().await.unwrap();
    world.clock.advance(Duration::from_secs(VISIBLE_AFTER - 1));
    assert_eq!(running.told(), 100 - late, "flushed and not seen");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(running.told(), 1175 - late);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unflushed_after_a_restart_holds_back_what_is_told() {
    let mut world = bridged_world();
    let (backend, faults) = tempo_backend::testing::faulty(&world.backend);
    world.backend = backend;
    faults.fail_all();
    world.clock.advance(Duration::from_secs(300));
    let running = world.start().await;
    let (late, begin) = (i64::try_from(LATE).unwrap(), TEST_TIME + 295_000_000_000);
    running
        .push(trace(1, 1, 1).start(begin).batch())
        .await
        .unwrap();
    running.store.flush_all().await.unwrap_err();
    let is_complete = || running.store.stats().uncompleted_blocks == 0;
    until(is_complete).await;
    running
        .push(trace(2, 1, 1).start(begin).batch())
        .await
        .unwrap();
    assert_eq!(running.told(), 300 - late);
    running.stop().await;
    world.clock.advance(Duration::from_secs(1000));
    fs::remove_file(world.data_path().join(crate::told::FILE)).unwrap();
    let running = world.start().await;
    assert_eq!(
        running.told(),
        295 - late,
        "of the block, which may hold more that came late"
    );
    faults.heal();
    running.store.flush_all().await.unwrap();
    world.clock.advance(Duration::from_secs(VISIBLE_AFTER));
    assert_eq!(running.told(), 1375 - late);
    running.push(trace(3, 1, 1).start(1).batch()).await.unwrap();
    running.store.flush_all().await.unwrap();
    running.stop().await;
    let running = world.start().await;
    assert_eq!(running.told(), 1375 - late, "what was told stays true");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_may_count_here_stays_and_then_is_refused() {
    let mut world = bridged_world();
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    world.clock.advance(Duration::from_secs(1));
    running.store.flush_all().await.unwrap();
    // Blocks that are kept, and of them those that are needed.
    let kept = async || {
        running.forget_log(&world).await;
        let needed = running.metric("tempo_live_store_needed_blocks", &[]);
        (running.store.stats().local_blocks, needed)
    };
    assert_eq!(kept().await, (1, 1.0), "nobody tells how far others are");
    running.hear(&world, -60);
    let day = 24 * 3600;
    let next_day = TEST_TIME + day * 1_000_000_000;
    let push = trace(2, 1, 1).start(next_day).batch();
    running.push(push).await.unwrap();
    running.store.flush_all().await.unwrap();
    assert_eq!(kept().await, (2, 2.0), "others are behind");
    assert!(running.counts_since(-60));
    running.hear(&world, i64::try_from(day).unwrap());
    assert_eq!(kept().await, (1, 1.0), "one of them is not needed now");
    assert!(!running.counts_since(-60) && !running.counts_since(0));
    assert!(running.counts_since(1), "what is later is here");
    running.stop().await;
    let running = world.start().await;
    assert!(
        !running.counts_since(0) && running.counts_since(1),
        "restarted"
    );
    running.stop().await;
    // Alone it asks nobody but itself, and blocks where it has let go.
    world.config.bridge = None;
    let running = world.start().await;
    assert!(running.counts_since(0));
    assert_eq!(running.store.built_until_unix_seconds(), None);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_that_stand_still_do_not_fill_the_disk() {
    let mut world = bridged_world();
    world.config.max_local_block_bytes = 0;
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    world.clock.advance(Duration::from_secs(1));
    running.store.flush_all().await.unwrap();
    running.forget_log(&world).await;
    assert_eq!(running.store.stats().local_blocks, 0);
    let dropped = "tempo_live_store_unbuilt_blocks_dropped_total";
    assert_eq!(running.metric(dropped, &[]), 1.0);
    assert!(!running.counts_since(0), "and say so");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_noted_as_gone_stays_where_others_ask() {
    for is_asked in [true, false] {
        let mut world = match is_asked {
            true => bridged_world(),
            false => World::new(),
        };
        world.config.max_local_block_bytes = 0;
        let running = world.start().await;
        let note = world.data_path().join(crate::forgotten::FILE);
        fs::create_dir(&note).unwrap();
        running.push_trace(1, 1, 2).await;
        world.clock.advance(Duration::from_secs(1));
        running.store.flush_all().await.unwrap();
        running.forget_log(&world).await;
        let kept = running.store.stats().local_blocks;
        assert_eq!(kept, usize::from(is_asked));
        assert_eq!(running.seen().await.len(), 2 * kept);
        fs::remove_dir(&note).unwrap();
        running.store.shared.maintain();
        assert_eq!(running.store.stats().local_blocks, 0);
        running.stop().await;
    }
}
