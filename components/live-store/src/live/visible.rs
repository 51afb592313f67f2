//! A table with some of its traces hidden.
//!
//! Traces leave a table one by one: for a local block, or for another table that holds them whole.
//! Queries see only the rows that are left, numbered anew; their values are gathered when asked for.

use std::sync::Arc;

use tempo_table::{
    AttributeScope, Bitmap, Column, ColumnKey, Level, MemoryTable, SpanTable, StringDict,
    Structure, TableError,
};

/// The traces of `inner` that are not hidden.
pub(crate) struct VisibleTable {
    inner: Arc<MemoryTable>,
    structure: Arc<Structure>,
    event_offsets: Arc<[u32]>,
    link_offsets: Arc<[u32]>,
    /// For each row of a level, its row in `inner`.
    traces: Vec<u32>,
    resources: Vec<u32>,
    scopes: Vec<u32>,
    spans: Vec<u32>,
    events: Vec<u32>,
    links: Vec<u32>,
}

/// Offsets that start with 0 and grow with each group that is taken.
struct Offsets(Vec<u32>);

impl Offsets {
    fn new() -> Self {
        Self(vec![0])
    }

    fn close(&mut self, end: usize) {
        self.0.push(end as u32);
    }
}

fn range(offsets: &[u32], row: usize) -> std::ops::Range<u32> {
    offsets[row]..offsets[row + 1]
}

impl VisibleTable {
    /// The traces of `inner` that are not in `hidden` (rows of traces).
    pub(crate) fn new(inner: Arc<MemoryTable>, hidden: &Bitmap) -> Result<Self, TableError> {
        let all = inner.structure()?;
        let (all_events, all_links) = (inner.event_offsets()?, inner.link_offsets()?);
        let (mut traces, mut resources, mut scopes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut spans, mut events, mut links) = (Vec::new(), Vec::new(), Vec::new());
        let mut trace_spans = Offsets::new();
        let mut trace_resources = Offsets::new();
        let mut resource_scopes = Offsets::new();
        let mut scope_spans = Offsets::new();
        let mut event_offsets = Offsets::new();
        let mut link_offsets = Offsets::new();
        let (mut span_resource, mut span_scope) = (Vec::new(), Vec::new());
        for trace in (0..all.traces()).filter(|&trace| !hidden.contains(trace)) {
            traces.push(trace as u32);
            for resource in range(&all.trace_resources, trace) {
                let resource_row = resources.len() as u32;
                resources.push(resource);
                for scope in range(&all.resource_scopes, resource as usize) {
                    let scope_row = scopes.len() as u32;
                    scopes.push(scope);
                    for span in range(&all.scope_spans, scope as usize) {
                        spans.push(span);
                        span_resource.push(resource_row);
                        span_scope.push(scope_row);
                        events.extend(range(&all_events, span as usize));
                        event_offsets.close(events.len());
                        links.extend(range(&all_links, span as usize));
                        link_offsets.close(links.len());
                    }
                    scope_spans.close(spans.len());
                }
                resource_scopes.close(scopes.len());
            }
            trace_resources.close(resources.len());
            trace_spans.close(spans.len());
        }
        Ok(Self {
            inner,
            structure: Arc::new(Structure {
                trace_spans: trace_spans.0.into(),
                trace_resources: trace_resources.0.into(),
                resource_scopes: resource_scopes.0.into(),
                scope_spans: scope_spans.0.into(),
                span_resource: span_resource.into(),
                span_scope: span_scope.into(),
            }),
            event_offsets: event_offsets.0.into(),
            link_offsets: link_offsets.0.into(),
            traces,
            resources,
            scopes,
            spans,
            events,
            links,
        })
    }

    fn inner_rows(&self, level: Level) -> &[u32] {
        match level {
            Level::Trace => &self.traces,
            Level::Resource => &self.resources,
            Level::Scope => &self.scopes,
            Level::Span => &self.spans,
            Level::Event => &self.events,
            Level::Link => &self.links,
        }
    }
}

impl SpanTable for VisibleTable {
    fn structure(&self) -> Result<Arc<Structure>, TableError> {
        Ok(Arc::clone(&self.structure))
    }

    fn event_offsets(&self) -> Result<Arc<[u32]>, TableError> {
        Ok(Arc::clone(&self.event_offsets))
    }

    fn link_offsets(&self) -> Result<Arc<[u32]>, TableError> {
        Ok(Arc::clone(&self.link_offsets))
    }

    fn column(&self, key: &ColumnKey, _rows: Option<&Bitmap>) -> Result<Column, TableError> {
        self.inner.gather(key, self.inner_rows(key.level()))
    }

    fn gather(&self, key: &ColumnKey, rows: &[u32]) -> Result<Column, TableError> {
        let inner_rows = self.inner_rows(key.level());
        let rows: Vec<u32> = rows.iter().map(|&row| inner_rows[row as usize]).collect();
        self.inner.gather(key, &rows)
    }

    fn string_superset(&self, key: &ColumnKey) -> Result<Option<Arc<StringDict>>, TableError> {
        self.inner.string_superset(key)
    }

    fn int_bounds(&self, key: &ColumnKey) -> Result<Option<(i64, i64)>, TableError> {
        self.inner.int_bounds(key)
    }

    fn attribute_names(
        &self,
        scope: AttributeScope,
        rows: Option<&Bitmap>,
    ) -> Result<Vec<Arc<str>>, TableError> {
        let level = scope.level();
        let mut wanted = Bitmap::new(self.inner.rows(level)?);
        for (row, &inner_row) in self.inner_rows(level).iter().enumerate() {
            if rows.is_none_or(|rows| rows.contains(row)) {
                wanted.insert(inner_row as usize);
            }
        }
        self.inner.attribute_names(scope, Some(&wanted))
    }

    fn bytes_read(&self) -> u64 {
        self.inner.bytes_read()
    }
}

#[cfg(test)]
mod tests {
    use tempo_model::TraceId;
    use tempo_table::{Intrinsic, MemoryTableBuilder};

    use super::*;
    use crate::testing::TestTrace;

    /// What queries see must be the same as if only the visible traces had been pushed.
    fn assert_same(found: &dyn SpanTable, expected: &dyn SpanTable) {
        let structure = |table: &dyn SpanTable| {
            let all = table.structure().unwrap();
            [
                all.trace_spans.to_vec(),
                all.trace_resources.to_vec(),
                all.resource_scopes.to_vec(),
                all.scope_spans.to_vec(),
                all.span_resource.to_vec(),
                all.span_scope.to_vec(),
                table.event_offsets().unwrap().to_vec(),
                table.link_offsets().unwrap().to_vec(),
            ]
        };
        assert_eq!(structure(found), structure(expected));
        let mut keys: Vec<ColumnKey> = [
            Intrinsic::TraceId,
            Intrinsic::RootServiceName,
            Intrinsic::SpanId,
            Intrinsic::SpanName,
            Intrinsic::SpanStartNano,
            Intrinsic::NestedSetLeft,
            Intrinsic::NestedSetParent,
            Intrinsic::ScopeName,
            Intrinsic::EventName,
            Intrinsic::LinkTraceId,
        ]
        .map(ColumnKey::from)
        .to_vec();
        for scope in [
            AttributeScope::Resource,
            AttributeScope::Instrumentation,
            AttributeScope::Span,
            AttributeScope::Event,
            AttributeScope::Link,
        ] {
            let names = found.attribute_names(scope, None).unwrap();
            assert_eq!(names, expected.attribute_names(scope, None).unwrap());
            keys.extend(names.iter().map(|name| ColumnKey::attribute(scope, name)));
        }
        for key in &keys {
            let column = found.column(key, None).unwrap();
            assert_eq!(
                values(&column),
                values(&expected.column(key, None).unwrap()),
                "{key:?}"
            );
            let odd: Vec<u32> = (0..column.len as u32).filter(|row| row % 2 == 1).collect();
            assert_eq!(
                values(&found.gather(key, &odd).unwrap()),
                values(&column.gather(&odd)),
                "{key:?}"
            );
        }
    }

    fn values(column: &Column) -> Vec<String> {
        (0..column.len)
            .map(|row| {
                let text = column.strings.as_ref().and_then(|lane| {
                    let code = lane.codes[row];
                    (code != tempo_table::ABSENT).then(|| lane.dict.text(code).into_owned())
                });
                let int = column.ints.as_ref().and_then(|lane| lane.get(row));
                let id = column.ids.as_ref().map(|lane| lane.get(row).to_vec());
                format!("{text:?} {int:?} {id:?} {}", column.is_nil(row))
            })
            .collect()
    }

    fn table(traces: impl IntoIterator<Item = u8>) -> MemoryTable {
        let mut builder = MemoryTableBuilder::new();
        for n in traces {
            let trace = TestTrace::new(n).spans(1 + u32::from(n % 4)).encode();
            builder
                .push_trace(TraceId::from_padded(&[n]), &[&trace])
                .unwrap();
        }
        builder.finish()
    }

    #[test]
    fn hidden_traces_are_gone_and_the_rest_is_as_if_it_stood_alone() {
        let all = Arc::new(table(1..9));
        for keep in [vec![], vec![1], vec![2, 3, 7], (1..9).collect::<Vec<u8>>()] {
            let hidden = Bitmap::from_fn(8, |row| !keep.contains(&(row as u8 + 1)));
            let visible = VisibleTable::new(Arc::clone(&all), &hidden).unwrap();
            assert_same(&visible, &table(keep));
        }
    }
}
