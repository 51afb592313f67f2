//! Reading all that a table has, and comparing tables.

use tempo_table::{
    ABSENT, AttributeScope, Bitmap, Column, ColumnKey, Intrinsic, SpanTable, TableError,
};

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

/// Attributes of each scope whose columns are read.
const MAX_ATTRIBUTES_PER_SCOPE: usize = 48;

/// Reads everything a table has and checks that what it answers fits together.
///
/// # Errors
/// The first refusal; what comes after it is asked for all the same.
pub(crate) fn read_all(table: &dyn SpanTable) -> Result<(), TableError> {
    let mut first: Option<TableError> = None;
    let mut refused = |error: TableError| {
        first.get_or_insert(error);
    };
    if let Ok(structure) = table.structure().map_err(&mut refused) {
        let spans = structure.spans();
        assert_eq!(
            structure.trace_spans.last().copied().unwrap_or(0) as usize,
            spans
        );
        assert_eq!(
            structure.scope_spans.last().copied().unwrap_or(0) as usize,
            spans
        );
        assert!(structure.trace_spans.is_sorted() && structure.scope_spans.is_sorted());
        for offsets in [table.event_offsets(), table.link_offsets()] {
            if let Ok(offsets) = offsets.map_err(&mut refused) {
                assert_eq!(offsets.len(), spans + 1);
                assert!(offsets.is_sorted());
            }
        }
    }
    let mut keys: Vec<ColumnKey> = INTRINSICS.into_iter().map(ColumnKey::from).collect();
    for scope in SCOPES {
        match table.attribute_names(scope, None) {
            Ok(names) => {
                let names = names.iter().take(MAX_ATTRIBUTES_PER_SCOPE);
                keys.extend(names.map(|name| ColumnKey::attribute(scope, name)));
            }
            Err(error) => refused(error),
        }
    }
    if let Err(error) = table.prefetch(&keys, &[]) {
        refused(error);
    }
    for key in &keys {
        if let Err(error) = read_column(table, key) {
            refused(error);
        }
    }
    first.map_or(Ok(()), Err)
}

/// A column whole, by rows, and gathered: all three agree.
fn read_column(table: &dyn SpanTable, key: &ColumnKey) -> Result<(), TableError> {
    let rows = table.rows(key.level())?;
    let some: Vec<u32> = (0..rows as u32).filter(|row| row % 7 == 3).collect();
    // Before the whole column, which a table may keep.
    let gathered = table.gather(key, &some);
    let mut wanted = Bitmap::new(rows);
    some.iter().for_each(|&row| wanted.insert(row as usize));
    let selected = table.column(key, Some(&wanted));
    let _ = (table.string_superset(key)?, table.int_bounds(key)?);
    let whole = table.column(key, None)?;
    assert_eq!(whole.len, rows, "{key:?}");
    let (gathered, selected) = (gathered?, selected?);
    for (at, &row) in some.iter().enumerate() {
        let want = cell(&whole, row as usize);
        assert_eq!(cell(&gathered, at), want, "{key:?} row {row} gathered");
        assert_eq!(
            cell(&selected, row as usize),
            want,
            "{key:?} row {row} selected"
        );
    }
    Ok(())
}

/// Checks that two tables of the same traces hold the same; attributes only if `by_name`.
pub(crate) fn assert_alike(
    left: &dyn SpanTable,
    right: &dyn SpanTable,
    by_name: bool,
) -> Result<(), TableError> {
    let (a, b) = (left.structure()?, right.structure()?);
    assert_eq!(a.trace_spans, b.trace_spans, "spans of traces");
    // Resources and scopes of equal content but different bytes are one row in blocks only, and
    // their spans stand in another order then.
    if (&a.resource_scopes, &a.scope_spans) != (&b.resource_scopes, &b.scope_spans) {
        return Ok(());
    }
    let mut keys: Vec<ColumnKey> = INTRINSICS.into_iter().map(ColumnKey::from).collect();
    for scope in SCOPES {
        let names = left.attribute_names(scope, None)?;
        assert_eq!(names, right.attribute_names(scope, None)?, "{scope:?}");
        if !by_name {
            continue;
        }
        let names = names.iter().take(MAX_ATTRIBUTES_PER_SCOPE);
        keys.extend(names.map(|name| ColumnKey::attribute(scope, name)));
    }
    for key in keys {
        let (a, b) = (left.column(&key, None)?, right.column(&key, None)?);
        assert_eq!(a.len, b.len, "{key:?}");
        for row in 0..a.len {
            assert_eq!(cell(&a, row), cell(&b, row), "{key:?} row {row}");
        }
    }
    Ok(())
}

/// The value of a row, as text.
fn cell(column: &Column, row: usize) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    if let Some(lane) = &column.strings
        && lane.codes[row] != ABSENT
    {
        let _ = write!(text, "text {:?} ", lane.dict.bytes(lane.codes[row]));
    }
    if let Some(value) = column.ints.as_ref().and_then(|lane| lane.get(row)) {
        let _ = write!(text, "int {value} ");
    }
    if let Some(value) = column.floats.as_ref().and_then(|lane| lane.get(row)) {
        let _ = write!(text, "double {value:?} ");
    }
    if let Some(value) = column.bools.as_ref().and_then(|lane| lane.get(row)) {
        let _ = write!(text, "bool {value} ");
    }
    if let Some(value) = column.arrays.as_ref().and_then(|lane| lane.get(row)) {
        let _ = write!(text, "array {value:?} ");
    }
    if let Some(lane) = &column.ids {
        let _ = write!(text, "id {:02x?} ", lane.get(row));
    }
    if column
        .opaque
        .as_ref()
        .is_some_and(|rows| rows.contains(row))
    {
        text.push_str("opaque ");
    }
    text
}
