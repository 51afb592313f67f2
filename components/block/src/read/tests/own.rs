//! Blocks that this program wrote, large enough to have many pages.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use prost::Message;
use tempo_backend::{
    Backend, BackendConfig, BlockMeta, BucketLookup, ObjectKey, ReadStats, S3Config, Secret,
    StoreConfig, cache::Cache,
};
use tempo_model::TraceId;
use tempo_proto::tempopb::Trace;
use tempo_table::{
    AttributeScope, ColumnKey, Intrinsic, Level, MemoryTable, MemoryTableBuilder, SpanTable,
};
use tempo_testkit::{
    object_server::{BUCKET, ObjectServer},
    traces::TraceMaker,
};

use super::{cell, cells, columns::patterns, keys, table};
use crate::{
    dedicated,
    hints::{self, DictionaryHint},
    read::{BlockReader, RowGroupTable, kept::Kept},
    schema::{BlockSchema, LeafColumn, Version},
    write::{BlockBuilder, BlockOptions},
};

/// Some thousand spans as a block in memory.
fn written(version: Version, traces: usize, row_group_size_bytes: u64) -> Arc<BlockReader> {
    written_file(version, traces, row_group_size_bytes).0
}

/// The same, and its file.
fn written_file(
    version: Version,
    traces: usize,
    row_group_size_bytes: u64,
) -> (Arc<BlockReader>, Bytes) {
    let mut maker = TraceMaker::new(5);
    let made: BTreeMap<TraceId, Vec<u8>> = (0..traces as u64)
        .map(|number| {
            let made = maker.next_trace(1_700_000_000_000_000_000 + number * 1_000_000);
            let resource_spans = made.resource_spans;
            let trace = Trace { resource_spans }.encode_to_vec();
            (TraceId::from_bytes(made.id), trace)
        })
        .collect();
    let id = uuid::Uuid::from_u128(7);
    let mut options = BlockOptions::new(version, "own".into(), id, traces as u64);
    options.row_group_size_bytes = row_group_size_bytes;
    let mut builder = BlockBuilder::new(options, Vec::new()).unwrap();
    for (id, trace) in &made {
        builder.push_trace(*id, &[trace]).unwrap();
    }
    let (block, file) = builder.finish().unwrap();
    let file = Bytes::from(file);
    let reader = BlockReader::in_memory(block.meta, file.clone()).unwrap();
    (reader, file)
}

fn in_memory(traces: &[(TraceId, Bytes)]) -> MemoryTable {
    let mut builder = MemoryTableBuilder::new();
    for (id, trace) in traces {
        builder.push_trace(*id, &[trace]).unwrap();
    }
    builder.finish()
}

#[test]
fn columns_of_many_pages_and_row_groups() {
    for version in [Version::VParquet4, Version::VParquet5] {
        let reader = written(version, 600, 250_000);
        assert!(reader.row_groups() > 2);
        let all: Vec<(TraceId, Bytes)> = reader
            .traces(ReadStats::new())
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(all.len(), 600);
        let mut rest = all.as_slice();
        for group in 0..reader.row_groups() {
            let (traces, later) = rest.split_at(reader.traces_in(group) as usize);
            rest = later;
            let memory = in_memory(traces);
            let whole = table(&reader, group);
            for key in keys(&whole) {
                let column = whole.column(&key, None).unwrap();
                let want = cells(&memory.column(&key, None).unwrap());
                assert_eq!(cells(&column), want, "{version} {key:?}");
                for rows in patterns(column.len) {
                    let gathered = table(&reader, group).gather(&key, &rows).unwrap();
                    let want: Vec<String> = rows
                        .iter()
                        .map(|&row| cell(&column, row as usize))
                        .collect();
                    assert_eq!(cells(&gathered), want, "{version} {key:?}");
                }
            }
        }
    }
}

#[test]
fn few_rows_cost_few_bytes() {
    let reader = written(Version::VParquet5, 4000, 0);
    for key in [
        ColumnKey::from(Intrinsic::SpanStartNano),
        ColumnKey::from(Intrinsic::SpanId),
        ColumnKey::attribute(AttributeScope::Span, "http.route"),
    ] {
        let cost = |rows: Option<&[u32]>| {
            let stats = ReadStats::new();
            let stored = reader.table(0, stats.clone()).unwrap();
            stored.structure().unwrap();
            let before = stats.bytes();
            match rows {
                Some(rows) => assert_eq!(stored.gather(&key, rows).unwrap().len, rows.len()),
                None => assert_eq!(
                    stored.column(&key, None).unwrap().len,
                    stored.rows(Level::Span).unwrap()
                ),
            }
            stats.bytes() - before
        };
        let (few, all) = (cost(Some(&[40_000, 40_001])), cost(None));
        assert!(few * 2 < all, "{key:?}: {few} of {all} bytes");
    }
}

#[test]
fn names_that_nobody_uses_cost_nothing() {
    let reader = written(Version::VParquet5, 2000, 0);
    let stats = ReadStats::new();
    let stored = reader.table(0, stats.clone()).unwrap();
    stored.structure().unwrap();
    let before = stats.bytes();
    let key = ColumnKey::attribute(AttributeScope::Span, "nobody");
    assert!(stored.column(&key, None).unwrap().is_absent());
    assert_eq!(stored.string_superset(&key).unwrap().unwrap().len(), 0);
    assert_eq!(stats.bytes(), before);
}

/// The same block, whose footer tells nothing of dictionaries.
fn without_hints(reader: &BlockReader, file: &Bytes) -> Arc<BlockReader> {
    let mut other = file.to_vec();
    let key = hints::KEY.as_bytes();
    let at = (0..other.len()).rfind(|&at| other[at..].starts_with(key));
    other[at.unwrap()] ^= 1;
    let other = BlockReader::in_memory(BlockMeta::clone(reader.meta()), other.into()).unwrap();
    assert!(other.file().footer().hints.is_empty());
    other
}

#[test]
fn a_trace_is_put_together_from_fragments_of_large_dictionaries() {
    let (reader, file) = written_file(Version::VParquet4, 4000, 0);
    let plain = without_hints(&reader, &file);
    let path = ColumnKey::attribute(AttributeScope::Span, "url.path");
    let ColumnKey::Attribute { scope, name } = &path else {
        unreachable!()
    };
    let leaf = reader.file().own_leaves(*scope, name).next().unwrap();
    let hint = reader.file().footer().hints[0].of(leaf);
    let Some(DictionaryHint::Fragments { fragments, .. }) = hint else {
        panic!("{hint:?}");
    };
    assert!(fragments.len() > 3);
    let all = reader.traces(ReadStats::new()).step_by(101);
    for trace in all {
        let (id, trace) = trace.unwrap();
        for reader in [&reader, &plain] {
            let found = reader.find_in_group(0, &id, &ReadStats::new()).unwrap();
            assert_eq!(found.as_ref(), Some(&trace));
        }
    }
    let rows: Vec<u32> = (0..70_000).step_by(977).collect();
    let texts = |reader: &BlockReader| cells(&table(reader, 0).gather(&path, &rows).unwrap());
    assert_eq!(texts(&reader), texts(&plain));
}

#[test]
fn columns_lie_in_the_order_in_which_queries_read_them() {
    for version in [Version::VParquet4, Version::VParquet5] {
        let reader = written(version, 50, 0);
        let chunks = &reader.file().footer().row_groups[0].chunks;
        let order = match version {
            Version::VParquet4 => BlockSchema::v4(),
            Version::VParquet5 => dedicated::schema_of(version, reader.file().dedicated()),
        };
        let starts = order.layout().iter().map(|&leaf| chunks[leaf].bytes.start);
        assert!(starts.is_sorted());
        let position = |column| reader.file().position(column).unwrap();
        let shown = chunks[position(LeafColumn::TraceId)].bytes.start
            ..chunks[position(LeafColumn::StatusCode)].bytes.end;
        for column in [
            LeafColumn::SpanId,
            LeafColumn::SpanStart,
            LeafColumn::TraceDuration,
        ] {
            assert!(
                shown.contains(&chunks[position(column)].bytes.start),
                "{column:?}"
            );
        }
    }
}

#[test]
fn a_search_is_three_requests_to_an_object_store() {
    let (reader, file) = written_file(Version::VParquet4, 300, 0);
    let folder = tempfile::tempdir().unwrap();
    let key = ObjectKey::data("own", reader.meta().block_id);
    let path = folder.path().join(key.as_str());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, &file).unwrap();
    let server = ObjectServer::start(folder.path()).unwrap();
    let config = S3Config {
        bucket: BUCKET.to_owned(),
        endpoint: server.address.clone(),
        insecure: true,
        bucket_lookup: BucketLookup::Path,
        region: "us-east-1".to_owned(),
        access_key: "a".to_owned(),
        secret_key: Secret::new("b"),
        ..S3Config::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = BackendConfig::new(StoreConfig::S3(Box::new(config)));
    let registry = prometheus::Registry::new();
    let backend = runtime.block_on(Backend::open(&config, &registry)).unwrap();
    let cache = Cache::new(1 << 20, &registry).unwrap();
    let stats = ReadStats::new();
    let reader =
        BlockReader::open(&backend, &cache, Arc::clone(reader.meta()), stats.clone()).unwrap();
    let stored = reader.table(0, stats.clone()).unwrap();
    let first = [ColumnKey::attribute(AttributeScope::Span, "component")];
    let later = [
        Intrinsic::TraceId,
        Intrinsic::SpanId,
        Intrinsic::SpanDurationNano,
    ];
    let later = later.map(ColumnKey::from);
    assert!(stored.string_superset(&first[0]).unwrap().is_some());
    stored.prefetch(&first, &later).unwrap();
    let spans = stored.structure().unwrap().spans();
    for key in first.iter().chain(&later) {
        let rows = stored.column(key, None).unwrap().len;
        assert!(rows == spans || key.level() == Level::Trace);
    }
    // The end of the file, the values of attributes with their dictionary, everything else.
    assert_eq!(stats.requests(), 3);
}

#[test]
fn what_one_table_decodes_another_has_for_nothing() {
    let reader = written(Version::VParquet4, 200, 0);
    let cache = Cache::new(1 << 30, &prometheus::Registry::new()).unwrap();
    let kept = Kept::new(&cache, reader.meta());
    let keeping = |stats: &ReadStats| {
        let (file, source) = (Arc::clone(reader.file()), reader.source());
        let source = source.counted_in(stats.clone());
        RowGroupTable::new(file, source, 0, Some(kept.of_row_group(0)))
    };
    let alone = table(&reader, 0);
    let first = keeping(&ReadStats::new());
    let keys = keys(&alone);
    assert_eq!(
        first.rows(Level::Span).unwrap(),
        alone.structure().unwrap().spans()
    );
    for key in &keys {
        let want = cells(&alone.column(key, None).unwrap());
        assert_eq!(cells(&first.column(key, None).unwrap()), want, "{key:?}");
    }
    let stats = ReadStats::new();
    let second = keeping(&stats);
    let (kept, want) = (second.structure().unwrap(), alone.structure().unwrap());
    assert_eq!(kept.scope_spans, want.scope_spans);
    assert_eq!(kept.span_resource, want.span_resource);
    assert_eq!(
        second.event_offsets().unwrap(),
        alone.event_offsets().unwrap()
    );
    assert_eq!(
        second.link_offsets().unwrap(),
        alone.link_offsets().unwrap()
    );
    for id in [Intrinsic::TraceId, Intrinsic::SpanId] {
        assert!(second.string_superset(&id.into()).unwrap().is_none());
    }
    second.prefetch(&keys, &[]).unwrap();
    second.prefetch_of(&keys, &[3, 5]).unwrap();
    for key in &keys {
        let whole = alone.column(key, None).unwrap();
        assert_eq!(
            cells(&second.column(key, None).unwrap()),
            cells(&whole),
            "{key:?}"
        );
        let rows: Vec<u32> = (0..whole.len as u32).step_by(7).collect();
        let some = second.gather(key, &rows).unwrap();
        assert_eq!(cells(&some), cells(&whole.gather(&rows)), "{key:?}");
    }
    assert_eq!(stats.bytes(), 0);
}

#[test]
fn few_rows_that_are_asked_for_twice_are_kept_with_all_others() {
    let reader = written(Version::VParquet5, 4000, 0);
    let cache = Cache::new(1 << 30, &prometheus::Registry::new()).unwrap();
    let kept = Kept::new(&cache, reader.meta());
    let key = ColumnKey::attribute(AttributeScope::Span, "http.route");
    let want = cells(&table(&reader, 0).gather(&key, &[40_000]).unwrap());
    let costs: Vec<u64> = (0..3)
        .map(|_| {
            let stats = ReadStats::new();
            let (file, source) = (Arc::clone(reader.file()), reader.source());
            let source = source.counted_in(stats.clone());
            let stored = RowGroupTable::new(file, source, 0, Some(kept.of_row_group(0)));
            stored.structure().unwrap();
            let before = stats.bytes();
            stored
                .prefetch_of(std::slice::from_ref(&key), &[2000])
                .unwrap();
            assert_eq!(cells(&stored.gather(&key, &[40_000]).unwrap()), want);
            stats.bytes() - before
        })
        .collect();
    assert!(costs[0] * 2 < costs[1], "{costs:?}");
    assert_eq!(costs[2], 0);
}
