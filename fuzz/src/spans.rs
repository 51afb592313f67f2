//! Spans as senders deliver them, all the way into a block and back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tempo_backend::ReadStats;
use tempo_block::{
    read::find_trace,
    schema::Version,
    write::{BlockBuilder, BlockOptions},
};
use tempo_distributor::{
    otlp_json::to_protobuf,
    regroup::{Bounds, Regrouped, Scratch, count_spans, regroup},
};
use tempo_model::{
    TraceChunk,
    otlp::{KeyValueRef, WireError, resource_spans},
};
use tempo_table::{MemoryTable, MemoryTableBuilder, SpanTable};

use crate::{
    check::{assert_alike, read_all},
    store::{BLOCK, Store, TENANT, with_store},
};

/// Bytes that the chunks of one request may take.
const MAX_REGROUPED_BYTES: usize = 4 << 20;

/// An `ExportTraceServiceRequest` as protobuf.
pub fn otlp(data: &[u8]) {
    let mut scratch = Scratch::default();
    // A limit that cuts much, then none, with the same working memory.
    for max_attribute_bytes in [5, usize::MAX] {
        let bounds = Bounds {
            max_attribute_bytes,
            max_regrouped_bytes: MAX_REGROUPED_BYTES,
        };
        if let Ok(regrouped) = regroup(data, &bounds, &mut scratch) {
            store_and_read(data, regrouped);
        }
    }
}

/// The same as JSON.
pub fn otlp_json(data: &[u8]) {
    let mut protobuf = Vec::new();
    if to_protobuf(data, &mut protobuf).is_ok() {
        assert!(
            count_spans(&protobuf).is_ok(),
            "what is made of JSON is protobuf"
        );
        otlp(&protobuf);
    }
}

#[expect(clippy::expect_used, clippy::panic, reason = "that is the check")]
fn store_and_read(request: &[u8], regrouped: Regrouped) {
    let mut chunks = regrouped.traces;
    let spans: u64 = chunks.iter().map(|chunk| u64::from(chunk.spans)).sum();
    assert_eq!(count_spans(request).expect("it was regrouped"), spans);
    for chunk in &chunks {
        assert_eq!(spans_of(&chunk.trace), chunk.spans, "trace {}", chunk.id);
    }
    chunks.sort_by_key(|chunk| chunk.id);
    let distinct = chunks.windows(2).all(|pair| pair[0].id < pair[1].id);
    assert!(distinct, "a trace in two chunks");
    if chunks.is_empty() {
        return;
    }
    let table = memory_table(&chunks);
    if let Err(error) = read_all(&table) {
        panic!("a table in memory refuses: {error}");
    }
    with_store(|store| {
        for version in [Version::VParquet4, Version::VParquet5] {
            through_block(store, version, &chunks, &table);
        }
    });
}

/// How many spans a `tempopb.Trace` has, and that each can be read.
#[expect(clippy::expect_used, reason = "that is the check")]
fn spans_of(trace: &[u8]) -> u32 {
    let mut spans = 0;
    for resource in resource_spans(trace) {
        for scope in resource.expect("checked bytes").scope_spans() {
            for span in scope.expect("checked bytes").spans() {
                span.expect("checked bytes");
                spans += 1;
            }
        }
    }
    spans
}

/// Whether no resource, scope, span, event or link has two attributes of one name. Of such only
/// one can be asked for: in live data the first, in a block perhaps another, as in Tempo's.
#[expect(clippy::expect_used, reason = "that is the check")]
fn names_each_once(trace: &[u8]) -> bool {
    fn distinct<'a>(attributes: impl Iterator<Item = Result<KeyValueRef<'a>, WireError>>) -> bool {
        let mut seen = BTreeSet::new();
        attributes
            .flatten()
            .all(|attribute| seen.insert(attribute.key))
    }
    resource_spans(trace).flatten().all(|resource| {
        distinct(resource.resource_attributes().expect("checked bytes"))
            && resource.scope_spans().flatten().all(|scope| {
                distinct(scope.scope().expect("checked bytes").attributes())
                    && scope.spans().flatten().all(|span| {
                        let mut events = span.events().flatten();
                        let mut links = span.links().flatten();
                        distinct(span.attributes())
                            && events.all(|event| distinct(event.attributes()))
                            && links.all(|link| distinct(link.attributes()))
                    })
            })
    })
}

#[expect(clippy::expect_used, reason = "that is the check")]
fn memory_table(chunks: &[TraceChunk]) -> MemoryTable {
    let mut builder = MemoryTableBuilder::new();
    for chunk in chunks {
        let before = builder.spans();
        builder
            .push_trace(chunk.id, &[&chunk.trace])
            .expect("what the distributor hands on is taken");
        assert_eq!(builder.spans() - before, chunk.spans as usize);
    }
    let once = builder.finish();
    // A retry brings every span twice; each is kept at least once, and at most as often as sent.
    for chunk in chunks {
        builder
            .push_trace(chunk.id, &[&chunk.trace, &chunk.trace])
            .expect("taken before");
    }
    let again = builder.finish();
    assert_eq!(spans_in(&again), spans_in(&once), "duplicates are dropped");
    once
}

#[expect(clippy::expect_used, reason = "that is the check")]
fn spans_in(table: &dyn SpanTable) -> usize {
    table.structure().expect("what was just built").spans()
}

#[expect(clippy::expect_used, reason = "that is the check")]
fn through_block(store: &Store, version: Version, chunks: &[TraceChunk], live: &MemoryTable) {
    let options = BlockOptions {
        bloom_shard_size_bytes: 1024,
        ..BlockOptions::new(version, TENANT.into(), BLOCK, chunks.len() as u64)
    };
    let mut builder = BlockBuilder::new(options, Vec::new()).expect("memory takes all");
    let mut stored = BTreeMap::new();
    for chunk in chunks {
        let pushed = builder
            .push_trace(chunk.id, &[&chunk.trace])
            .expect("what the distributor hands on is taken");
        assert_eq!(pushed.spans + pushed.duplicates, chunk.spans);
        stored.insert(chunk.id, pushed.spans);
    }
    let (block, data) = builder.finish().expect("a block");
    store.put_block(&block, data);
    let meta = Arc::new(block.meta);
    let reader = store.open(&meta).expect("what was just written");
    assert_eq!(reader.row_groups(), 1);
    let table = reader.table(0, ReadStats::new()).expect("the row group");
    read_all(&table).expect("what was just written");
    if stored.values().map(|&spans| spans as usize).sum::<usize>() == spans_in(live) {
        let by_name = chunks.iter().all(|chunk| names_each_once(&chunk.trace));
        assert_alike(live, &table, by_name).expect("what was just written");
    }
    let mut read = BTreeMap::new();
    for trace in reader.traces(ReadStats::new()) {
        let (id, trace) = trace.expect("what was just written");
        read.insert(id, spans_of(&trace));
    }
    assert_eq!(read, stored);
    for chunk in [chunks.first(), chunks.last()].into_iter().flatten() {
        let found = find_trace(
            store.backend(),
            &store.cache(),
            &meta,
            &chunk.id,
            &ReadStats::new(),
        );
        let found = found.expect("what was just written").expect("it is there");
        assert_eq!(Some(&spans_of(&found)), stored.get(&chunk.id));
    }
}
