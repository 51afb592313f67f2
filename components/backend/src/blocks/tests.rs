use super::*;
use crate::{
    BackendConfig, BlockFormat,
    testing::{self, Operation},
};

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn meta(tenant: &str, number: u128) -> BlockMeta {
    BlockMeta::new(Arc::from(tenant), id(number), BlockFormat::VParquet4)
}

async fn put(backend: &Backend, key: &str) {
    backend
        .write(&ObjectKey::root(key), Bytes::from_static(b"{}"))
        .await
        .unwrap();
}

async fn local(directory: &tempfile::TempDir) -> Backend {
    Backend::open(
        &BackendConfig::local(directory.path()),
        &prometheus::Registry::new(),
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn blocks_are_found_by_their_metas_and_foreign_directories_are_left_out() {
    let directory = tempfile::tempdir().unwrap();
    for backend in [testing::memory(), local(&directory).await] {
        let (one, two, both) = (id(1), id(2), id(3));
        for key in [
            format!("t/{one}/meta.json"),
            format!("t/{one}/data.parquet"),
            format!("t/{one}/nocompact.flg"),
            format!("t/{two}/meta.compacted.json"),
            format!("t/{both}/meta.json"),
            format!("t/{both}/meta.compacted.json"),
            format!("t/{}/data.parquet", id(4)),
            format!("t/{}/deeper/meta.json", id(5)),
            "t/not-a-uuid/meta.json".to_owned(),
            format!("t/{}/meta.json", id(6).simple()),
            "t/meta.json".to_owned(),
            "t/index.json.gz".to_owned(),
            format!("tt/{}/meta.json", id(7)),
        ] {
            put(&backend, &key).await;
        }
        let listing = backend.list_blocks("t").await.unwrap();
        assert_eq!(listing.live, [one, both]);
        let compacted: Vec<Uuid> = listing.compacted.iter().map(|(id, _)| *id).collect();
        assert_eq!(compacted, [two, both]);
        assert!(listing.compacted.iter().all(|(_, time)| !time.is_zero()));
        assert_eq!(listing.no_compact, HashSet::from([one]));
        assert_eq!(
            backend.list_blocks("absent").await.unwrap(),
            BlockListing::default()
        );
    }
}

#[tokio::test]
async fn tenants_are_directories_whose_name_can_be_one() {
    let directory = tempfile::tempdir().unwrap();
    for backend in [testing::memory(), local(&directory).await] {
        for key in [
            "b/x/meta.json",
            "a*'(1)/x",
            "overrides/t/overrides.json",
            "work.json",
            "tempo_cluster_seed.json",
            "lost+found/x",
        ] {
            put(&backend, key).await;
        }
        assert_eq!(
            backend.list_tenants().await.unwrap(),
            ["a*'(1)", "b", "overrides"]
        );
        assert!(backend.list_blocks("../b").await.is_err());
    }
}

#[test]
fn slices_cover_every_id_once() {
    for count in [1_usize, 2, 3, 7] {
        let slices = id_slices(count);
        assert_eq!(slices.len(), count);
        for number in [0, 1, 1 << 126, u128::MAX / 3, u128::MAX / 2, u128::MAX] {
            let inside = slices.iter().filter(|slice| {
                slice.from.is_none_or(|from| id(number) >= from)
                    && slice.until.is_none_or(|until| id(number) < until)
            });
            assert_eq!(inside.count(), 1, "{number:x} in {count} slices");
        }
    }
}

#[tokio::test]
async fn a_meta_is_read_back_and_must_lie_where_it_says() {
    let backend = testing::memory();
    let written = meta("t", 1);
    backend.write_meta(&written).await.unwrap();
    assert_eq!(backend.read_meta("t", id(1)).await.unwrap(), written);
    assert!(
        backend
            .read_meta("t", id(2))
            .await
            .unwrap_err()
            .is_not_found()
    );

    let text = Bytes::from(serde_json::to_vec(&written).unwrap());
    for key in [ObjectKey::meta("t", id(2)), ObjectKey::meta("u", id(1))] {
        backend.write(&key, text.clone()).await.unwrap();
    }
    for (tenant, block) in [("t", id(2)), ("u", id(1))] {
        let error = backend.read_meta(tenant, block).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    let key = ObjectKey::meta("t", id(3));
    for damaged in ["", "[]", "{", r#"{"blockID":""}"#] {
        backend
            .write(&key, Bytes::from_static(damaged.as_bytes()))
            .await
            .unwrap();
        let error = backend.read_meta("t", id(3)).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{damaged}: {error}");
    }
    backend
        .write(&key, Bytes::from_static(b"{}"))
        .await
        .unwrap();
    let filled = backend.read_meta("t", id(3)).await.unwrap();
    assert_eq!((&*filled.tenant_id, filled.block_id), ("t", id(3)));
}

#[tokio::test]
async fn marking_moves_the_meta_and_can_be_repeated_after_a_fault() {
    let (backend, faults) = testing::faulty(&testing::memory());
    backend.write_meta(&meta("t", 1)).await.unwrap();
    let before = Timestamp::now();

    faults.fail_next_on(Operation::Delete, "meta.json", 1);
    assert!(backend.mark_compacted("t", id(1)).await.is_err());
    let listing = backend.list_blocks("t").await.unwrap();
    assert_eq!((listing.live.len(), listing.compacted.len()), (1, 1));

    backend.mark_compacted("t", id(1)).await.unwrap();
    backend.mark_compacted("t", id(1)).await.unwrap();
    let listing = backend.list_blocks("t").await.unwrap();
    assert_eq!((listing.live.len(), listing.compacted.len()), (0, 1));
    let compacted = backend.read_compacted_meta("t", id(1)).await.unwrap();
    assert_eq!(*compacted.meta, meta("t", 1));
    assert!(compacted.compacted_time >= before);
    assert!(
        backend
            .mark_compacted("t", id(2))
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn a_local_block_is_compacted_from_now_on_not_from_its_birth() {
    let directory = tempfile::tempdir().unwrap();
    let backend = local(&directory).await;
    backend.write_meta(&meta("t", 1)).await.unwrap();
    let file = directory.path().join(ObjectKey::meta("t", id(1)).as_str());
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
    std::fs::File::options()
        .write(true)
        .open(file)
        .unwrap()
        .set_modified(old)
        .unwrap();
    let before = Timestamp::now().saturating_sub(std::time::Duration::from_secs(60));
    backend.mark_compacted("t", id(1)).await.unwrap();
    let compacted = backend.read_compacted_meta("t", id(1)).await.unwrap();
    assert!(compacted.compacted_time > before);
}

#[tokio::test]
async fn an_interrupted_removal_is_seen_and_completed() {
    let (backend, faults) = testing::faulty(&testing::memory());
    for name in ["data.parquet", "bloom-0", "index", "meta.compacted.json"] {
        put(&backend, &format!("t/{}/{name}", id(1))).await;
    }
    put(&backend, &format!("t/{}/meta.json", id(2))).await;
    faults.fail_next_on(Operation::Delete, "bloom-0", 1);
    assert!(backend.delete_block("t", id(1)).await.is_err());
    let listing = backend.list_blocks("t").await.unwrap();
    assert_eq!(listing.compacted.len(), 1);

    backend.delete_block("t", id(1)).await.unwrap();
    let left = backend.list_tenant_objects("t").await.unwrap();
    assert_eq!(left.len(), 1);
    backend.delete_block("t", id(1)).await.unwrap();
}

#[tokio::test]
async fn a_removed_local_block_leaves_no_directory() {
    let directory = tempfile::tempdir().unwrap();
    let backend = local(&directory).await;
    put(&backend, &format!("t/{}/data.parquet", id(1))).await;
    let block = directory.path().join(format!("t/{}", id(1)));
    std::fs::write(block.join("bloom-0#1"), "left by a crash").unwrap();
    put(&backend, &format!("t/{}/meta.json", id(2))).await;
    backend.delete_block("t", id(1)).await.unwrap();
    assert!(!block.exists());
    assert_eq!(backend.list_blocks("t").await.unwrap().live, [id(2)]);
}

#[tokio::test]
async fn the_flag_against_compaction_comes_and_goes() {
    let backend = testing::memory();
    assert!(!backend.has_no_compact("t", id(1)).await.unwrap());
    backend.set_no_compact("t", id(1)).await.unwrap();
    assert!(backend.has_no_compact("t", id(1)).await.unwrap());
    backend.clear_no_compact("t", id(1)).await.unwrap();
    backend.clear_no_compact("t", id(1)).await.unwrap();
    assert!(!backend.has_no_compact("t", id(1)).await.unwrap());
}
