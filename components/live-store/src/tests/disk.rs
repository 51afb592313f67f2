//! Full and failing disks.

use tempo_backend::BackendConfig;

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

/// On a disk of 24 MiB, much more is pushed than fits: what is acknowledged is kept and reaches the
/// store, the rest is refused, and pushes are taken again as blocks leave.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_disk_works_on_for_ever() {
    let Some(disk) = SmallDisk::mount(24 << 20) else {
        eprintln!("skipped: mounting a tmpfs is not permitted here");
        return;
    };
    let mut world = World::new();
    let store = BackendConfig::local(world.folder.path().join("store"));
    world.backend = Backend::open(&store, &Registry::new()).await.unwrap();
    world.config.data_path = disk.0.path().join("data");
    world.config.wal_segment_bytes = 1 << 20;
    world.config.flush_check_period = Duration::from_millis(20);
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
