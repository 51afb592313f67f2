//! Full and failing disks.

use tempo_backend::{
    BackendConfig,
    testing::{Operation as StoreOperation, faulty},
};

use super::*;
use crate::{PushErrorKind, wal::FaultyDisk};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_pushes_and_takes_them_again_when_there_is_room() {
    let mut world = World::new();
    let disk = FaultyDisk::default();
    world.disk = Arc::new(disk.clone());
    let running = world.start().await;
    running.push_trace(1, 1, 1).await;
    disk.limit(Some(50));
    for _ in 0..3 {
        let refused = running.push(trace(2, 1, 1).batch()).await.unwrap_err();
        assert_eq!(refused.kind(), PushErrorKind::ResourceExhausted);
        assert!(refused.to_string().contains("retry"), "{refused}");
    }
    assert_eq!(running.seen().await, once(&[(1, 1, 1)]));
    disk.limit(None);
    running.push_trace(3, 1, 1).await;
    let crash = world.snapshot();
    running.stop().await;
    let world = world.after_crash(crash);
    let running = world.start().await;
    assert_eq!(running.seen().await, once(&[(1, 1, 1), (3, 1, 1)]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_is_never_acknowledged() {
    let mut world = World::new();
    let disk = FaultyDisk::default();
    world.disk = Arc::new(disk.clone());
    let running = world.start().await;
    running.push_trace(1, 1, 1).await;
    disk.fail_sync(true);
    assert!(running.push(trace(2, 1, 1).batch()).await.is_err());
    disk.fail_sync(false);
    running.push_trace(3, 1, 1).await;
    assert_eq!(segments(world.data_path()).len(), 2);
    assert_eq!(running.seen().await, once(&[(1, 1, 1), (3, 1, 1)]));
    running.store.flush_all().await.unwrap();
    assert_eq!(world.stored().await, once(&[(1, 1, 1), (3, 1, 1)]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_damaged_on_disk_after_they_were_written_are_counted_and_the_rest_is_kept() {
    let world = World::new();
    let running = world.start().await;
    running.push_trace(1, 1, 1).await;
    running.push_trace(2, 1, 1).await;
    let segment = segments(world.data_path()).remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&segment, bytes).unwrap();
    running.store.flush_all().await.unwrap();
    assert_eq!(world.stored().await, once(&[(1, 1, 1)]));
    let lost = running.metric("tempo_live_store_lost_spans_total", &[("tenant", "t")]);
    assert_eq!(lost, 1.0);
    running.stop().await;
}

/// The mark of a flushed block needs room that only the removal of blocks gives.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_cannot_be_marked_as_flushed_goes_when_its_time_is_over() {
    let mut world = World::new();
    let (backend, faults) = faulty(&world.backend);
    world.backend = backend;
    world.config.flush_check_period = Duration::from_millis(1);
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    faults.fail_all();
    running.store.flush_all().await.unwrap_err();
    let block = local_blocks(world.data_path()).remove(0);
    // In the way of the mark.
    fs::create_dir(block.join("flushed.unfinished")).unwrap();
    faults.heal();
    for _ in 0..2 {
        let error = running.store.flush_all().await.unwrap_err();
        assert!(error.to_string().contains("marking as flushed"), "{error}");
    }
    assert_eq!(world.stored().await, once(&[(1, 1, 2)]));
    assert_eq!(faults.count(StoreOperation::Write, "meta.json"), 1);
    world.clock.advance(world.config.complete_block_timeout);
    while !local_blocks(world.data_path()).is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    running.store.flush_all().await.unwrap();
    assert_eq!(running.store.stats().unflushed_blocks, 0);
    running.stop().await;
}

/// A file system of its own, small, for as long as the value lives. `None` without the right to
/// mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .output()
            .ok()?;
        mount.status.success().then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status();
    }
}

async fn on_small_disk(disk: &SmallDisk) -> World {
    let mut world = World::new();
    let store = BackendConfig::local(world.folder.path().join("store"));
    world.backend = Backend::open(&store, &Registry::new()).await.unwrap();
    world.config.data_path = disk.0.path().join("data");
    world.config.wal_segment_bytes = 1 << 20;
    world.config.flush_check_period = Duration::from_millis(20);
    world
}

/// On a disk of 24 MiB, much more is pushed than fits: what is acknowledged is kept and reaches the
/// store, the rest is refused, and pushes are taken again as blocks leave.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_disk_works_on_for_ever() {
    let Some(disk) = SmallDisk::mount(24 << 20) else {
        eprintln!("skipped: mounting a tmpfs is not permitted here");
        return;
    };
    let mut world = on_small_disk(&disk).await;
    // As if queries found in the store at once what is flushed.
    world.config.min_flushed_block_age = Duration::ZERO;
    let running = world.start().await;
    let mut acknowledged = Spans::new();
    let mut refused = 0;
    for round in 0..120_u32 {
        // About 1 MiB that does not compress well.
        let n = (round % 200) as u8 + 1;
        let batch = trace(n, round * 2000 + 1, 2000).batch();
        match running.push(batch).await {
            Ok(_) => acknowledged.extend(once(&[(n, round * 2000 + 1, 2000)])),
            Err(error) => {
                assert_eq!(error.kind(), PushErrorKind::ResourceExhausted, "{error}");
                refused += 1;
                running.store.flush_all().await.unwrap();
            }
        }
    }
    running.store.flush_all().await.unwrap();
    assert!(refused > 0, "the disk was never full");
    assert!(
        acknowledged.len() > 100 * 2000,
        "{} spans",
        acknowledged.len()
    );
    assert_eq!(world.stored().await, acknowledged);
    running.stop().await;
}

/// On a full disk, pushes are refused for as long as queries ask nobody else for what is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_hides_no_recent_spans() {
    let Some(disk) = SmallDisk::mount(24 << 20) else {
        eprintln!("skipped: mounting a tmpfs is not permitted here");
        return;
    };
    let mut world = on_small_disk(&disk).await;
    world.config.complete_block_timeout = Duration::from_secs(3600);
    world.config.min_flushed_block_age = Duration::from_secs(600);
    let running = world.start().await;
    let mut acknowledged = Spans::new();
    let push = async |round: u32| {
        let n = round as u8 + 1;
        let pushed = running.push(trace(n, 1, 2000).batch()).await;
        pushed.map(|_| once(&[(n, 1, 2000)]))
    };
    // A push is refused for good when it is after several rounds of background work, too: what was
    // flushed has left the log.
    let refused_for_good = async |round: u32| {
        for _ in 0..5 {
            match push(round).await {
                Ok(spans) => return Err(spans),
                Err(error) => assert_eq!(error.kind(), PushErrorKind::ResourceExhausted),
            }
            running.store.flush_all().await.unwrap();
            tokio::time::sleep(world.config.flush_check_period).await;
        }
        Ok(())
    };
    let mut round = 0;
    while let Err(spans) = refused_for_good(round).await {
        acknowledged.extend(spans);
        round += 1;
        assert!(round < 200, "the disk was never full");
    }
    world.clock.advance(Duration::from_secs(599));
    assert_eq!(refused_for_good(round).await, Ok(()));
    assert_eq!(running.seen().await, acknowledged);
    world.clock.advance(Duration::from_secs(1));
    while push(round).await.is_err() {
        tokio::time::sleep(world.config.flush_check_period).await;
    }
    assert!(running.store.stats().local_blocks < round as usize);
    running.stop().await;
}
