//! Blocks that Tempo wrote, read in every way.

mod columns;
mod damage;
mod golden_traces;
mod own;
mod rewritten;

use std::sync::Arc;

use bytes::Bytes;
use tempo_backend::{BlockMeta, ReadStats};
use tempo_table::{ABSENT, ArrayValue, AttributeScope, Column, ColumnKey, Intrinsic};

use super::{BlockReader, RowGroupTable};
use crate::testing::golden;

/// Directories of recorded blocks.
const BLOCKS: [&str; 6] = [
    "blocks/vparquet4/single-tenant/6c401b8e-0867-416f-85bd-e133cda96d43",
    "blocks/vparquet4/single-tenant/f4d8cfb0-8d16-48c1-bbd7-31a78c75b6cb",
    "blocks/vparquet5/single-tenant/baffe872-1067-45e4-b074-ef083fb6730e",
    "roundtrip/vParquet4/single-tenant/11111111-2222-4333-8444-555555555555",
    "roundtrip/vParquet5/single-tenant/11111111-2222-4333-8444-555555555555",
    "roundtrip/blob/single-tenant/11111111-2222-4333-8444-555555555555",
];

fn meta_and_file(block: &str) -> (BlockMeta, Bytes) {
    let meta = std::fs::read(golden(&format!("{block}/meta.json"))).unwrap();
    let file = std::fs::read(golden(&format!("{block}/data.parquet"))).unwrap();
    (serde_json::from_slice(&meta).unwrap(), Bytes::from(file))
}

fn open(block: &str) -> Arc<BlockReader> {
    let (meta, file) = meta_and_file(block);
    BlockReader::in_memory(meta, file).unwrap()
}

fn table(reader: &BlockReader, row_group: usize) -> RowGroupTable {
    reader.table(row_group, ReadStats::new()).unwrap()
}

const INTRINSICS: [Intrinsic; 24] = [
    Intrinsic::TraceId,
    Intrinsic::TraceStartNano,
    Intrinsic::TraceDurationNano,
    Intrinsic::RootServiceName,
    Intrinsic::RootSpanName,
    Intrinsic::SpanId,
    Intrinsic::ParentSpanId,
    Intrinsic::SpanName,
    Intrinsic::SpanKind,
    Intrinsic::StatusCode,
    Intrinsic::StatusMessage,
    Intrinsic::TraceState,
    Intrinsic::SpanStartNano,
    Intrinsic::SpanDurationNano,
    Intrinsic::NestedSetLeft,
    Intrinsic::NestedSetRight,
    Intrinsic::NestedSetParent,
    Intrinsic::ChildCount,
    Intrinsic::ScopeName,
    Intrinsic::ScopeVersion,
    Intrinsic::EventName,
    Intrinsic::EventTimeSinceStartNano,
    Intrinsic::LinkTraceId,
    Intrinsic::LinkSpanId,
];

const SCOPES: [AttributeScope; 5] = [
    AttributeScope::Resource,
    AttributeScope::Instrumentation,
    AttributeScope::Span,
    AttributeScope::Event,
    AttributeScope::Link,
];

/// Every column that a table has, and some that it has not.
fn keys(table: &dyn tempo_table::SpanTable) -> Vec<ColumnKey> {
    let mut keys: Vec<ColumnKey> = INTRINSICS.into_iter().map(ColumnKey::from).collect();
    for scope in SCOPES {
        for name in table.attribute_names(scope, None).unwrap() {
            keys.push(ColumnKey::attribute(scope, &name));
        }
        keys.push(ColumnKey::attribute(scope, "nobody sets this"));
    }
    keys.push(ColumnKey::attribute(
        AttributeScope::Resource,
        "service.name",
    ));
    keys
}

/// The value of a row, as text.
fn cell(column: &Column, row: usize) -> String {
    let mut found = Vec::new();
    if let Some(lane) = &column.strings
        && lane.codes[row] != ABSENT
    {
        found.push(format!("text {:?}", lane.dict.text(lane.codes[row])));
    }
    if let Some(value) = column.ints.as_ref().and_then(|lane| lane.get(row)) {
        found.push(format!("int {value}"));
    }
    if let Some(value) = column.floats.as_ref().and_then(|lane| lane.get(row)) {
        found.push(format!("double {value:?}"));
    }
    if let Some(value) = column.bools.as_ref().and_then(|lane| lane.get(row)) {
        found.push(format!("bool {value}"));
    }
    if let Some(value) = column.arrays.as_ref().and_then(|lane| lane.get(row)) {
        found.push(match value {
            ArrayValue::Strings(texts) => format!("array {texts:?}"),
            other => format!("array {other:?}"),
        });
    }
    if let Some(lane) = &column.ids {
        found.push(format!("id {:02x?}", lane.get(row)));
    }
    if column
        .opaque
        .as_ref()
        .is_some_and(|rows| rows.contains(row))
    {
        found.push("opaque".to_owned());
    }
    assert!(found.len() <= 1, "row {row} has several values: {found:?}");
    found.pop().unwrap_or_else(|| "nil".to_owned())
}

/// The values of all rows, as text.
fn cells(column: &Column) -> Vec<String> {
    (0..column.len).map(|row| cell(column, row)).collect()
}
