//! Merging in a store.

use tempo_backend::{
    Backend,
    cache::Cache,
    testing::{Operation, faulty, memory},
};

use super::*;
use crate::{
    check::check_block,
    write::{publish, write_block},
};

async fn put(backend: &Backend, number: u128, traces: &Traces) -> Arc<BlockMeta> {
    let options = BlockOptions::new(
        Version::VParquet4,
        "t".into(),
        uuid(number),
        traces.len() as u64,
    );
    let traces = traces.clone();
    let block = write_block::<std::io::Error, _>(backend, options, false, move |builder| {
        for (id, chunks) in &traces {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            builder.push_trace(*id, &chunks)?;
        }
        Ok(())
    });
    Arc::new(block.await.unwrap().meta)
}

fn cache() -> Cache {
    Cache::new(1 << 20, &prometheus::Registry::new()).unwrap()
}

#[tokio::test]
async fn a_merged_block_is_live_and_sound() {
    let (parts, whole) = spread(2, 100);
    let (backend, faults) = faulty(&memory());
    let mut inputs = Vec::new();
    for (number, traces) in (0..).zip(&parts) {
        inputs.push(put(&backend, number, traces).await);
    }
    let options = MergeOptions::new(uuid(9));
    let merged = merge_blocks(&backend, &cache(), inputs.clone(), options, Arc::new(()))
        .await
        .unwrap();
    let block = merged.block.unwrap();
    assert!(backend.read_meta("t", uuid(9)).await.is_err());
    publish(&backend, &block, false).await.unwrap();
    let meta = backend.read_meta("t", uuid(9)).await.unwrap();
    assert_eq!(meta, block.meta);
    let last = faults
        .requests()
        .into_iter()
        .rfind(|(operation, _)| *operation == Operation::Write);
    assert!(last.unwrap().1.ends_with("meta.json"));
    let report = tokio::task::spawn_blocking(move || check_block(&backend, &meta).unwrap());
    let report = report.await.unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(report.traces, whole.len() as u64);
}

#[tokio::test]
async fn a_block_that_is_gone_is_told() {
    let (parts, _) = spread(2, 10);
    let backend = memory();
    let mut inputs = Vec::new();
    for (number, traces) in (0..).zip(&parts) {
        inputs.push(put(&backend, number, traces).await);
    }
    backend.mark_compacted("t", uuid(1)).await.unwrap();
    let options = MergeOptions::new(uuid(9));
    let result = merge_blocks(&backend, &cache(), inputs, options, Arc::new(())).await;
    assert!(matches!(result, Err(MergeError::Gone { block }) if block == uuid(1)));
    assert!(backend.read_meta("t", uuid(9)).await.is_err());
}
