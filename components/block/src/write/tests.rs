//! Blocks written from the recorded input, against those that Tempo wrote from it.

use std::collections::BTreeMap;

use bytes::Bytes;
use tempo_model::TraceId;
use uuid::Uuid;

use super::*;
use crate::{
    schema::Version,
    testing::{Entry, golden, input_traces, read_leaves},
};

fn options(version: Version) -> BlockOptions {
    let id = Uuid::from_u128(0x1111_1111_2222_4333_8444_5555_5555_5555);
    BlockOptions::new(version, "single-tenant".into(), id, 200)
}

fn build(
    options: BlockOptions,
    traces: &BTreeMap<TraceId, Vec<Vec<u8>>>,
) -> (FinishedBlock, Bytes) {
    let mut builder = BlockBuilder::new(options, Vec::new()).unwrap();
    for (id, chunks) in traces {
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        builder.push_trace(*id, &chunks).unwrap();
    }
    let (block, data) = builder.finish().unwrap();
    (block, data.into())
}

/// The rows of a file by trace, each with the entries of every leaf.
fn by_trace(file: Bytes) -> (Vec<String>, BTreeMap<String, Vec<Vec<Entry>>>) {
    let leaves = read_leaves(file);
    let paths = leaves.iter().map(|leaf| leaf.path.clone()).collect();
    let mut rows = BTreeMap::new();
    for row in 0..leaves[0].rows.len() {
        let id = leaves[1].rows[row][0].2.clone().unwrap();
        let entries: Vec<Vec<Entry>> = leaves.iter().map(|leaf| leaf.rows[row].clone()).collect();
        assert!(rows.insert(id.clone(), entries).is_none(), "{id} twice");
    }
    (paths, rows)
}

/// Every entry of every leaf of every trace, against files that Tempo wrote from the same input.
fn assert_rows_match(version: Version, files: &[&str]) {
    let (block, ours) = build(options(version), &input_traces());
    assert_eq!(block.spans, 1073);
    let (paths, ours) = by_trace(ours);
    assert_eq!(ours.len(), 192);
    let mut compared = 0;
    let mut differences = Vec::new();
    for path in files {
        let file = Bytes::from(std::fs::read(golden(path)).unwrap());
        let (their_paths, theirs) = by_trace(file);
        assert_eq!(paths, their_paths);
        for (id, theirs) in theirs {
            compared += 1;
            for ((path, ours), theirs) in paths.iter().zip(&ours[&id]).zip(&theirs) {
                if ours != theirs {
                    differences.push(format!("{id} {path}:\n  {ours:?}\n  {theirs:?}"));
                }
            }
        }
    }
    assert_eq!(compared, 192);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn v4_rows_are_those_of_tempo() {
    assert_rows_match(
        Version::VParquet4,
        &[
            "blocks/vparquet4/single-tenant/6c401b8e-0867-416f-85bd-e133cda96d43/data.parquet",
            "blocks/vparquet4/single-tenant/f4d8cfb0-8d16-48c1-bbd7-31a78c75b6cb/data.parquet",
        ],
    );
}

#[test]
fn v5_rows_are_those_of_tempo() {
    assert_rows_match(
        Version::VParquet5,
        &["blocks/vparquet5/single-tenant/baffe872-1067-45e4-b074-ef083fb6730e/data.parquet"],
    );
}
