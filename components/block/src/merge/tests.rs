//! Merged blocks beside blocks that were built from the same spans at once.

mod store;

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use tempo_proto::tempopb::Trace;
use tempo_table::AttributeScope;
use tempo_testkit::traces::TraceMaker;

use super::*;
use crate::{
    check::check_parts,
    schema::{AttributeLeaf, LeafColumn, Version},
    testing::{Entry, golden, read_leaves},
    write::{BlockBuilder, BlockOptions},
};

/// Serialized parts of each trace, in the order in which they are united.
type Traces = BTreeMap<TraceId, Vec<Vec<u8>>>;

fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(0x1111_1111_2222_4333_8444_0000_0000_0000 + number)
}

fn build(
    number: u128,
    options: impl Fn(&mut BlockOptions),
    version: Version,
    traces: &Traces,
) -> (FinishedBlock, Bytes) {
    let mut block = BlockOptions::new(version, "t".into(), uuid(number), traces.len() as u64);
    options(&mut block);
    let mut builder = BlockBuilder::new(block, Vec::new()).unwrap();
    for (id, chunks) in traces {
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        builder.push_trace(*id, &chunks).unwrap();
    }
    let (block, file) = builder.finish().unwrap();
    (block, file.into())
}

fn reader((block, file): &(FinishedBlock, Bytes)) -> Arc<BlockReader> {
    BlockReader::in_memory(block.meta.clone(), file.clone()).unwrap()
}

fn merged(
    inputs: &[Arc<BlockReader>],
    options: &MergeOptions,
    control: &dyn MergeControl,
) -> (FinishedBlock, MergeCounts, Bytes) {
    let (block, counts, file) =
        merge(inputs, options, control, &ReadStats::new(), Vec::new()).unwrap();
    let file = Bytes::from(file);
    assert_eq!(block.meta.size, file.len() as u64);
    let report = check_parts(file.clone(), &block.meta, &block.blooms, &block.index).unwrap();
    assert!(report.problems.is_empty(), "{:#?}", report.problems);
    assert_eq!(report.spans, block.spans);
    assert_eq!(report.traces, counts.traces);
    (block, counts, file)
}

/// Path and rows of every leaf.
fn leaves(file: &Bytes) -> Vec<(String, Vec<Vec<Entry>>)> {
    let leaves = read_leaves(file.clone()).into_iter();
    leaves.map(|leaf| (leaf.path, leaf.rows)).collect()
}

#[track_caller]
fn assert_same_rows(one: &Bytes, other: &Bytes) {
    let (one, other) = (leaves(one), leaves(other));
    assert_eq!(one.len(), other.len());
    for ((path, rows), (other_path, other_rows)) in one.into_iter().zip(other) {
        assert_eq!(path, other_path);
        assert_eq!(rows.len(), other_rows.len(), "{path}");
        for (at, (row, other)) in rows.iter().zip(&other_rows).enumerate() {
            assert_eq!(row, other, "{path} row {at}");
        }
    }
}

/// Blocks of made traces: most traces are in one block, some have their services spread over
/// several, some are in two blocks as they are. Also all of it together.
fn spread(blocks: usize, traces: usize) -> (Vec<Traces>, Traces) {
    let mut maker = TraceMaker::new(7);
    let mut parts: Vec<Traces> = vec![Traces::new(); blocks];
    let mut whole = Traces::new();
    for number in 0..traces {
        let made = maker.next_trace(1_700_000_000_000_000_000 + number as u64 * 20_000_000);
        let id = TraceId::from_bytes(made.id);
        let bytes = |resource_spans| Trace { resource_spans }.encode_to_vec();
        let home = number % blocks;
        match number % 5 {
            0 if made.resource_spans.len() > 1 => {
                let mut services = made.resource_spans;
                let rest = services.split_off(1);
                // In the order of the blocks, which is that of uniting.
                let mut homes = [home, (home + 1) % blocks];
                homes.sort_unstable();
                for (home, services) in homes.into_iter().zip([services, rest]) {
                    parts[home].insert(id, vec![bytes(services.clone())]);
                    whole.entry(id).or_default().push(bytes(services));
                }
            }
            1 => {
                for home in [home, (home + 1) % blocks] {
                    parts[home].insert(id, vec![bytes(made.resource_spans.clone())]);
                }
                whole.insert(id, vec![bytes(made.resource_spans)]);
            }
            _ => {
                parts[home].insert(id, vec![bytes(made.resource_spans.clone())]);
                whole.insert(id, vec![bytes(made.resource_spans)]);
            }
        }
    }
    (parts, whole)
}

const VERSIONS: [Version; 2] = [Version::VParquet4, Version::VParquet5];

#[test]
fn a_merged_block_is_the_block_of_all_spans() {
    let (parts, whole) = spread(3, 240);
    for version in VERSIONS {
        for small in [false, true] {
            // Small row groups: ends of row groups everywhere.
            let limit = |options: &mut BlockOptions| {
                if small {
                    options.row_group_size_bytes = 60_000;
                }
            };
            let inputs: Vec<_> = (0..)
                .zip(&parts)
                .map(|(number, traces)| reader(&build(number, limit, version, traces)))
                .collect();
            let mut options = MergeOptions::new(uuid(9));
            if small {
                options.row_group_size_bytes = 100_000;
            }
            let (block, counts, file) = merged(&inputs, &options, &());
            let (expected, expected_file) = build(9, |_| (), version, &whole);
            assert_same_rows(&file, &expected_file);
            assert_eq!(block.spans, expected.spans);
            assert_eq!(counts.traces, whole.len() as u64);
            assert!(
                counts.traces_united >= 48 && counts.spans_deduplicated > 400,
                "{counts:?}"
            );
            assert_eq!(small, block.meta.total_records > 3);
            assert_eq!(block.meta.compaction_level, 1);
            assert_eq!(block.meta.replaces, [uuid(0), uuid(1), uuid(2)]);
            assert_eq!(block.meta.start_time, expected.meta.start_time);
            assert_eq!(block.meta.end_time, expected.meta.end_time);
            assert_eq!(
                block.meta.dedicated_columns,
                expected.meta.dedicated_columns
            );
        }
    }
}

#[test]
fn merging_a_merged_block_again_changes_nothing() {
    let (parts, whole) = spread(2, 200);
    for version in VERSIONS {
        let inputs: Vec<_> = (0..)
            .zip(&parts)
            .map(|(number, traces)| reader(&build(number, |_| (), version, traces)))
            .collect();
        let (block, _, file) = merged(&inputs, &MergeOptions::new(uuid(9)), &());
        let again = [reader(&(block, file)), Arc::clone(&inputs[0])];
        let (block, counts, file) = merged(&again, &MergeOptions::new(uuid(10)), &());
        assert_same_rows(&file, &build(9, |_| (), version, &whole).1);
        assert_eq!(counts.traces, whole.len() as u64);
        assert_eq!(block.meta.compaction_level, 2);
    }
}

#[test]
fn row_groups_apart_from_all_others_are_copied() {
    let mut maker = TraceMaker::new(3);
    let mut blocks = [Traces::new(), Traces::new()];
    let mut whole = Traces::new();
    for number in 0..600_u64 {
        let made = maker.next_trace(1_700_000_000_000_000_000 + number * 1000);
        let id = TraceId::from_bytes(made.id);
        let chunks = vec![
            Trace {
                resource_spans: made.resource_spans,
            }
            .encode_to_vec(),
        ];
        blocks[usize::from(made.id[0] >= 0x80)].insert(id, chunks.clone());
        whole.insert(id, chunks);
    }
    for version in VERSIONS {
        let limit = |options: &mut BlockOptions| options.row_group_size_bytes = 200_000;
        let inputs: Vec<_> = (0..)
            .zip(&blocks)
            .map(|(number, traces)| reader(&build(number, limit, version, traces)))
            .collect();
        let mut options = MergeOptions::new(uuid(9));
        options.row_group_size_bytes = 1_000_000;
        let (block, counts, file) = merged(&inputs, &options, &());
        let groups = inputs.iter().map(|input| input.row_groups()).sum::<usize>();
        assert!(counts.row_groups_copied >= 2, "{counts:?} of {groups}");
        assert_eq!(counts.traces, whole.len() as u64);
        let (expected, expected_file) = build(9, |_| (), version, &whole);
        assert_same_rows(&file, &expected_file);
        assert_eq!(block.spans, expected.spans);
        // What was copied can be read, found and merged again.
        let copied = reader(&(block, file));
        let hints = &copied.file().footer().hints;
        assert_eq!(hints.len(), copied.row_groups());
        let names = LeafColumn::Attribute(AttributeScope::Span, AttributeLeaf::Key);
        let names = copied.file().position(names).unwrap();
        assert!(hints.iter().all(|group| group.of(names).is_some()));
        let traces = copied
            .traces(ReadStats::new())
            .map(|trace| trace.unwrap().0);
        assert!(traces.eq(whole.keys().copied()));
    }
}

struct Without(Vec<TraceId>);

impl MergeControl for Without {
    fn drops(&self, id: &TraceId) -> bool {
        self.0.binary_search(id).is_ok()
    }
}

#[test]
fn dropped_traces_are_gone_and_nothing_else() {
    let (parts, mut whole) = spread(2, 300);
    let dropped: Vec<TraceId> = whole.keys().copied().step_by(3).collect();
    let inputs: Vec<_> = (0..)
        .zip(&parts)
        .map(|(number, traces)| reader(&build(number, |_| (), Version::VParquet4, traces)))
        .collect();
    let control = Without(dropped.clone());
    let (_, counts, file) = merged(&inputs, &MergeOptions::new(uuid(9)), &control);
    assert_eq!(counts.traces_dropped, dropped.len() as u64);
    whole.retain(|id, _| dropped.binary_search(id).is_err());
    assert_same_rows(&file, &build(9, |_| (), Version::VParquet4, &whole).1);

    let all = Without(
        inputs
            .iter()
            .flat_map(|input| input.traces(ReadStats::new()).map(|trace| trace.unwrap().0))
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect(),
    );
    let options = MergeOptions::new(uuid(9));
    let (block, counts, _) = merge(&inputs, &options, &all, &ReadStats::new(), Vec::new()).unwrap();
    assert_eq!((counts.traces, block.meta.total_objects), (0, 0));
}

#[test]
fn a_trace_beyond_the_limit_keeps_its_first_part() {
    let (parts, whole) = spread(2, 100);
    let inputs: Vec<_> = (0..)
        .zip(&parts)
        .map(|(number, traces)| reader(&build(number, |_| (), Version::VParquet5, traces)))
        .collect();
    let mut options = MergeOptions::new(uuid(9));
    options.max_trace_bytes = 1;
    let (block, counts, file) = merged(&inputs, &options, &());
    assert_eq!(counts.traces, whole.len() as u64);
    assert!(counts.spans_discarded > 0);
    let mut kept = parts[0].clone();
    for (id, chunks) in &parts[1] {
        kept.entry(*id).or_insert_with(|| chunks.clone());
    }
    assert_same_rows(&file, &build(9, |_| (), Version::VParquet5, &kept).1);
    let spans = |traces: &Traces| build(8, |_| (), Version::VParquet5, traces).0.spans;
    assert_eq!(block.spans + counts.spans_discarded, spans(&whole));
}

#[test]
fn blocks_of_tempo_are_merged() {
    let read = |block: &str| {
        let folder = format!("blocks/{block}");
        let meta = std::fs::read(golden(&format!("{folder}/meta.json"))).unwrap();
        let file = std::fs::read(golden(&format!("{folder}/data.parquet"))).unwrap();
        let meta: BlockMeta = serde_json::from_slice(&meta).unwrap();
        (
            BlockReader::in_memory(meta, file.clone().into()).unwrap(),
            Bytes::from(file),
        )
    };
    let rows_by_id = |files: &[&Bytes]| {
        let mut by_id: BTreeMap<String, Vec<Vec<Entry>>> = BTreeMap::new();
        for file in files {
            let leaves = leaves(file);
            for (at, id) in leaves[0].1.iter().enumerate() {
                let row = leaves.iter().map(|(_, rows)| rows[at].clone()).collect();
                let again = by_id.insert(id[0].2.clone().unwrap(), row);
                assert!(again.is_none(), "a trace in two blocks");
            }
        }
        by_id
    };
    let v4 = "vparquet4/single-tenant";
    let (one, one_file) = read(&format!("{v4}/6c401b8e-0867-416f-85bd-e133cda96d43"));
    let (two, two_file) = read(&format!("{v4}/f4d8cfb0-8d16-48c1-bbd7-31a78c75b6cb"));
    let (v5, v5_file) = read("vparquet5/single-tenant/baffe872-1067-45e4-b074-ef083fb6730e");
    let (_, _, file) = merged(&[one, two], &MergeOptions::new(uuid(9)), &());
    assert_eq!(rows_by_id(&[&file]), rows_by_id(&[&one_file, &two_file]));
    let (_, _, file) = merged(&[v5], &MergeOptions::new(uuid(9)), &());
    assert_eq!(rows_by_id(&[&file]), rows_by_id(&[&v5_file]));
}

#[test]
fn blocks_that_do_not_fit_together_are_refused() {
    let (parts, _) = spread(2, 10);
    let one = reader(&build(0, |_| (), Version::VParquet4, &parts[0]));
    let other = reader(&build(1, |_| (), Version::VParquet5, &parts[1]));
    let columns = |options: &mut BlockOptions| options.dedicated_columns = Default::default();
    let third = reader(&build(2, columns, Version::VParquet4, &parts[1]));
    for other in [other, third] {
        let inputs = [Arc::clone(&one), other];
        let options = MergeOptions::new(uuid(9));
        let result = merge(&inputs, &options, &(), &ReadStats::new(), Vec::new());
        assert!(matches!(result, Err(MergeError::Incompatible { .. })));
    }
}
