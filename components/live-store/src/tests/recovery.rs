//! A crash at every step between the acknowledgement and the object store: nothing is lost, and
//! nothing is doubled.

use tempo_backend::{
    BlockMeta, ObjectKey,
    testing::{Effect, Fault, Gate, Operation as StoreOperation, faulty},
};

use uuid::Uuid;

use super::*;
use crate::{local::LocalStore, testing::batch, wal::CoverageFile};

/// Starts on what a crash left, and checks that everything is there once, before and after a flush.
async fn assert_recovers(world: World, expected: &Spans) {
    let running = world.start().await;
    assert_eq!(&running.seen().await, expected);
    for &(n, _) in expected.keys() {
        let mut numbers = expected.keys().filter(|(trace, _)| *trace == n);
        let numbers: Vec<u32> = numbers.by_ref().map(|(_, number)| *number).collect();
        assert_eq!(running.find(n).await, Some(numbers));
    }
    running.store.flush_all().await.unwrap();
    assert_eq!(&world.stored().await, expected);
    assert_eq!(&running.seen().await, expected);
    running.stop().await;
    // And once more, from what is left now.
    let running = world.start().await;
    assert_eq!(&running.seen().await, expected);
    running.stop().await;
    assert_eq!(&world.stored().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_acknowledgement() {
    let world = World::new();
    let running = world.start().await;
    running
        .push(batch([trace(1, 1, 2), trace(2, 1, 1)]))
        .await
        .unwrap();
    running.push_trace(1, 3, 1).await;
    let crash = world.snapshot();
    running.stop().await;
    assert_recovers(world.after_crash(crash), &once(&[(1, 1, 3), (2, 1, 1)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_block_is_built_and_right_before_it_is_complete() {
    let world = World::new();
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    let crash = world.snapshot();
    running.store.flush_all().await.unwrap();
    // The folder as it is before the rename, beside the log as it was then.
    let block = local_blocks(world.data_path()).remove(0);
    let unfinished = crash.path().join("building").join("t");
    copy_folder(&block, &unfinished.join(block.file_name().unwrap()));
    fs::remove_file(unfinished.join(block.file_name().unwrap()).join("flushed")).unwrap();
    running.stop().await;
    let world = World {
        backend: testing::memory(),
        ..world
    };
    let world = world.after_crash(crash);
    assert_recovers(world, &once(&[(1, 1, 2)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_block_is_complete_before_the_log_forgets() {
    let world = World::new();
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    running.push_trace(2, 1, 2).await;
    let crash = world.snapshot();
    running.store.flush_all().await.unwrap();
    let block = local_blocks(world.data_path()).remove(0);
    let complete = crash
        .path()
        .join("blocks")
        .join("t")
        .join(block.file_name().unwrap());
    copy_folder(&block, &complete);
    fs::remove_file(complete.join("flushed")).unwrap();
    running.stop().await;
    assert_eq!(segments(crash.path()).len(), 1);
    let world = World {
        backend: testing::memory(),
        ..world
    };
    let world = world.after_crash(crash);
    assert_recovers(world, &once(&[(1, 1, 2), (2, 1, 2)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_block_is_copied_to_the_store() {
    for object in ["data.parquet", "bloom-0", "index", "meta.json"] {
        let mut world = World::new();
        let (backend, faults) = faulty(&world.backend);
        world.backend = backend;
        let gate = Gate::new();
        faults.inject(Fault {
            operation: Some(StoreOperation::Write),
            key_contains: object.to_owned(),
            times: Some(1),
            effect: Effect::Wait(gate.clone()),
        });
        let running = world.start().await;
        running.push_trace(1, 1, 2).await;
        let store = running.store.clone();
        let flushing = tokio::spawn(async move { store.flush_all().await });
        gate.arrived().await;
        let crash = world.snapshot();
        running.stop().await;
        assert!(flushing.await.unwrap().is_err());
        assert!(world.stored().await.is_empty(), "not live before its meta");
        let world = world.after_crash(crash);
        assert_recovers(world, &once(&[(1, 1, 2)])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_store_has_it_before_that_is_noted() {
    let mut world = World::new();
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    running.store.flush_all().await.unwrap();
    let crash = world.snapshot();
    let flushed = local_blocks(crash.path()).remove(0).join("flushed");
    fs::remove_file(flushed).unwrap();
    running.stop().await;
    let (backend, faults) = faulty(&world.backend);
    world.backend = backend;
    let world = world.after_crash(crash);
    assert_recovers(world, &once(&[(1, 1, 2)])).await;
    assert_eq!(
        faults.count(StoreOperation::Write, ""),
        0,
        "what is there is not written again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_was_compacted_meanwhile_does_not_come_back() {
    let world = World::new();
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    running.store.flush_all().await.unwrap();
    let crash = world.snapshot();
    let block = local_blocks(crash.path()).remove(0);
    fs::remove_file(block.join("flushed")).unwrap();
    running.stop().await;
    let id = block
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    world.backend.mark_compacted("t", id).await.unwrap();
    let world = world.after_crash(crash);
    let running = world.start().await;
    running.store.flush_all().await.unwrap();
    let meta = ObjectKey::meta("t", id);
    assert!(!world.backend.exists(&meta).await.unwrap());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_came_after_the_cut_survive_beside_their_block() {
    let world = World::new();
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    running.store.flush_all().await.unwrap();
    running.push_trace(1, 3, 1).await;
    running.push_trace(2, 1, 1).await;
    let crash = world.snapshot();
    running.stop().await;
    assert_recovers(world.after_crash(crash), &once(&[(1, 1, 3), (2, 1, 1)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_block_that_cannot_be_read_is_put_aside_and_the_log_replaces_it() {
    let world = World::new();
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    let crash = world.snapshot();
    running.store.flush_all().await.unwrap();
    let block = local_blocks(world.data_path()).remove(0);
    let complete = crash
        .path()
        .join("blocks")
        .join("t")
        .join(block.file_name().unwrap());
    copy_folder(&block, &complete);
    fs::remove_file(complete.join("flushed")).unwrap();
    let data = fs::read(complete.join("data.parquet")).unwrap();
    fs::write(complete.join("data.parquet"), &data[..data.len() - 1]).unwrap();
    running.stop().await;
    let world = World {
        backend: testing::memory(),
        ..world
    };
    let world = world.after_crash(crash);
    assert_recovers(world, &once(&[(1, 1, 2)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_block_that_the_system_does_not_give_is_no_damaged_one() {
    let mut world = World::new();
    let (backend, faults) = faulty(&world.backend);
    world.backend = backend;
    let running = world.start().await;
    running.push_trace(1, 1, 2).await;
    faults.fail_all();
    running.store.flush_all().await.unwrap_err();
    running.stop().await;
    // The log is gone: only the block has the spans.
    assert!(segments(world.data_path()).is_empty());
    let block = local_blocks(world.data_path()).remove(0);
    let files = ["meta.json", "data.parquet", "wal-coverage"].map(|name| block.join(name));
    for path in files.iter().chain([&block]) {
        // As with too many open files, or without the right to read it: an error that passes.
        let away = world.folder.path().join("away");
        fs::rename(path, &away).unwrap();
        std::os::unix::fs::symlink(path, path).unwrap();
        let Err(refused) = world.try_start().await else {
            panic!("started without {}", path.display());
        };
        let named = path.display().to_string();
        assert!(refused.to_string().contains(&named), "{refused}");
        fs::remove_file(path).unwrap();
        fs::rename(&away, path).unwrap();
    }
    faults.heal();
    assert_recovers(world, &once(&[(1, 1, 2)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_block_was_put_aside_those_that_are_left_are_not_all() {
    let world = World::new();
    let running = world.start().await;
    for n in [1, 2] {
        running.push_trace(n, 1, 2).await;
        running.store.flush_all().await.unwrap();
    }
    running.stop().await;
    let load = async || {
        let cache = Cache::new(0, &Registry::new()).unwrap();
        let local = LocalStore::open(world.data_path(), cache).await.unwrap();
        let found = local.load().unwrap();
        (found.blocks.len(), found.is_whole())
    };
    assert_eq!(load().await, (2, true));
    fs::remove_file(local_blocks(world.data_path())[0].join("meta.json")).unwrap();
    assert_eq!(load().await, (1, false));
    fs::remove_dir_all(world.data_path().join("blocks")).unwrap();
    assert_eq!(load().await, (0, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_completes_where_a_failed_attempt_left_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(0, &Registry::new()).unwrap();
    let local = LocalStore::open(folder.path(), cache).await.unwrap();
    let meta = BlockMeta {
        tenant_id: "t".into(),
        block_id: Uuid::from_u128(7),
        ..BlockMeta::default()
    };
    let coverage = CoverageFile {
        segments: Vec::new(),
    };
    // As if syncing the folder had failed after each, three times in a row.
    for attempt in 1..=3_u8 {
        let built = folder
            .path()
            .join("building/t")
            .join(meta.block_id.to_string());
        fs::create_dir_all(&built).unwrap();
        fs::write(built.join("data.parquet"), [attempt]).unwrap();
        local.commit(meta.clone(), &coverage, 1).unwrap();
        let complete = local_blocks(folder.path()).remove(0);
        assert_eq!(fs::read(complete.join("data.parquet")).unwrap(), [attempt]);
    }
    let left = fs::read_dir(folder.path().join("building")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["t"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_belongs_to_one_process() {
    let world = World::new();
    let running = world.start().await;
    assert!(matches!(
        world.try_start().await,
        Err(crate::Error::InUse { .. })
    ));
    running.stop().await;
    // Handles are gone with the process; here they must be dropped.
    world.start().await.stop().await;
}
