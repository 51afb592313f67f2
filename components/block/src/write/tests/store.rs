//! Blocks in a store: the order of writing, copies, and traces found again.

use std::sync::Arc;

use tempo_backend::{
    Backend, BackendConfig, BlockMeta, ObjectKey, ReadStats,
    cache::Cache,
    testing::{Operation, faulty, memory},
};

use super::*;
use crate::{
    check::check_block,
    copy_block,
    read::find_trace,
    testing::{golden, input_traces},
};

const TENANT: &str = "single-tenant";

async fn write(
    backend: &Backend,
    no_compact: bool,
) -> Result<FinishedBlock, PublishError<io::Error>> {
    let feed = |builder: &mut BlockBuilder<_>| {
        for (id, chunks) in &input_traces() {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            builder.push_trace(*id, &chunks)?;
        }
        Ok(())
    };
    write_block(backend, options(Version::VParquet4), no_compact, feed).await
}

/// Names of the objects in the order in which they were begun.
fn written(requests: &[(Operation, String)]) -> Vec<String> {
    let mut names: Vec<String> = requests
        .iter()
        .filter(|(operation, _)| *operation == Operation::Write)
        .map(|(_, key)| key.rsplit('/').next().unwrap().to_owned())
        .collect();
    names.dedup();
    names
}

#[tokio::test]
async fn the_meta_is_written_last() {
    let (backend, faults) = faulty(&memory());
    let block = write(&backend, true).await.unwrap();
    assert_eq!(
        written(&faults.requests()),
        [
            "data.parquet",
            "nocompact.flg",
            "bloom-0",
            "index",
            "meta.json"
        ]
    );
    let meta = backend
        .read_meta(TENANT, block.meta.block_id)
        .await
        .unwrap();
    assert_eq!(meta, block.meta);
    let checked = tokio::task::spawn_blocking(move || check_block(&backend, &meta));
    let report = checked.await.unwrap().unwrap();
    assert_eq!((report.problems, report.spans), (Vec::new(), 1073));
}

#[tokio::test]
async fn what_fails_half_way_is_not_seen_and_can_be_done_again() {
    for object in [
        "data.parquet",
        "nocompact.flg",
        "bloom-0",
        "index",
        "meta.json",
    ] {
        let (backend, faults) = faulty(&memory());
        faults.fail_next_on(Operation::Write, object, 1);
        write(&backend, true).await.unwrap_err();
        let listing = backend.list_blocks(TENANT).await.unwrap();
        assert!(listing.live.is_empty(), "{object}");
        write(&backend, true).await.unwrap();
        let listing = backend.list_blocks(TENANT).await.unwrap();
        assert_eq!(listing.live.len(), 1, "{object}");
        assert_eq!(listing.no_compact.len(), 1, "{object}");
    }
}

#[tokio::test]
async fn an_error_of_the_feed_leaves_nothing() {
    let (backend, faults) = faulty(&memory());
    let feed = |builder: &mut BlockBuilder<_>| {
        let (id, chunks) = input_traces().pop_first().unwrap();
        builder.push_trace(id, &[&chunks[0]])?;
        Err(PublishError::Traces(io::Error::other("the log ends here")))
    };
    let options = options(Version::VParquet5);
    let error = write_block(&backend, options, false, feed)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "the log ends here");
    let listing = backend.list_blocks(TENANT).await.unwrap();
    assert!(listing.live.is_empty());
    assert_eq!(faults.count(Operation::Write, "meta.json"), 0);
}

#[tokio::test]
async fn a_copy_holds_the_same_bytes_and_has_its_meta_last() {
    let from = memory();
    let block = write(&from, true).await.unwrap().meta.block_id;
    let (to, faults) = faulty(&memory());
    faults.fail_next_on(Operation::Write, "index", 1);
    copy_block(&from, &to, TENANT, block).await.unwrap_err();
    assert!(to.list_blocks(TENANT).await.unwrap().live.is_empty());
    faults.forget_requests();
    let meta = copy_block(&from, &to, TENANT, block).await.unwrap();
    assert_eq!(
        written(&faults.requests()),
        [
            "data.parquet",
            "bloom-0",
            "index",
            "nocompact.flg",
            "meta.json"
        ]
    );
    let stats = ReadStats::new();
    for key in [
        ObjectKey::data(TENANT, block),
        ObjectKey::bloom(TENANT, block, 0),
        ObjectKey::index(TENANT, block),
        ObjectKey::meta(TENANT, block),
        ObjectKey::no_compact(TENANT, block),
    ] {
        let copied = to.read(&key, &stats).await.unwrap();
        assert!(copied == from.read(&key, &stats).await.unwrap(), "{key}");
    }
    assert_eq!(to.read_meta(TENANT, block).await.unwrap(), meta);
}

#[tokio::test]
async fn a_copy_does_without_index_and_flag() {
    let from = memory();
    let block = write(&from, false).await.unwrap().meta.block_id;
    from.delete(&ObjectKey::index(TENANT, block)).await.unwrap();
    let to = memory();
    copy_block(&from, &to, TENANT, block).await.unwrap();
    assert!(!to.has_no_compact(TENANT, block).await.unwrap());
    let missing = ObjectKey::index(TENANT, block);
    assert!(
        to.read(&missing, &ReadStats::new())
            .await
            .unwrap_err()
            .is_not_found()
    );

    from.delete(&ObjectKey::bloom(TENANT, block, 0))
        .await
        .unwrap();
    let error = copy_block(&from, &to, TENANT, block).await.unwrap_err();
    assert!(error.is_not_found(), "a block without bloom is damaged");
    let gone = Uuid::from_u128(1);
    assert!(
        copy_block(&from, &to, TENANT, gone)
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn traces_are_found_again_as_tempo_would_give_them() {
    let registry = prometheus::Registry::new();
    let config = BackendConfig::local(golden("blocks/vparquet4"));
    let theirs = Backend::open(&config, &registry).await.unwrap();
    let ours = memory();
    let our_meta = Arc::new(write(&ours, false).await.unwrap().meta);
    let mut their_metas = Vec::new();
    for block in theirs.list_blocks(TENANT).await.unwrap().live {
        their_metas.push(Arc::new(theirs.read_meta(TENANT, block).await.unwrap()));
    }
    let compare = move || {
        let cache = Cache::new(64 << 20, &registry).unwrap();
        let find = |backend: &Backend, meta: &Arc<BlockMeta>, id: &TraceId| {
            find_trace(backend, &cache, meta, id, &ReadStats::new()).unwrap()
        };
        for id in input_traces().keys() {
            let wanted = their_metas.iter().find_map(|meta| find(&theirs, meta, id));
            assert!(wanted.is_some());
            assert!(find(&ours, &our_meta, id) == wanted, "{id}");
        }
    };
    tokio::task::spawn_blocking(compare).await.unwrap();
}
