//! The contract between what holds spans and what queries them.

use std::sync::Arc;

use crate::{AttributeScope, Bitmap, Column, ColumnKey, Level, StringDict};

/// Why a column cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The storage did not answer; trying again may help.
    #[error("reading {what}: {source}")]
    Read {
        /// Which object and part of it.
        what: String,
        /// The storage's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The bytes are not what the format says; trying again does not help.
    #[error("corrupt data in {what}: {reason}")]
    Corrupt {
        /// Which object and part of it.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The one who asked is gone.
    #[error("query cancelled")]
    Cancelled,
}

/// How the rows of the levels belong together. Spans of a trace, resource and scope are contiguous,
/// in stored order.
#[derive(Debug, Clone)]
pub struct Structure {
    /// Span rows of trace `t`: `trace_spans[t]..trace_spans[t + 1]`; one entry more than traces.
    pub trace_spans: Arc<[u32]>,
    /// Resource rows of trace `t`: `trace_resources[t]..trace_resources[t + 1]`.
    pub trace_resources: Arc<[u32]>,
    /// Scope rows of resource `r`: `resource_scopes[r]..resource_scopes[r + 1]`.
    pub resource_scopes: Arc<[u32]>,
    /// Span rows of scope `s`: `scope_spans[s]..scope_spans[s + 1]`.
    pub scope_spans: Arc<[u32]>,
    /// Resource row of each span.
    pub span_resource: Arc<[u32]>,
    /// Scope row of each span.
    pub span_scope: Arc<[u32]>,
}

impl Structure {
    /// Number of traces.
    pub fn traces(&self) -> usize {
        self.trace_spans.len().saturating_sub(1)
    }

    /// Number of resources.
    pub fn resources(&self) -> usize {
        self.resource_scopes.len().saturating_sub(1)
    }

    /// Number of scopes.
    pub fn scopes(&self) -> usize {
        self.scope_spans.len().saturating_sub(1)
    }

    /// Number of spans.
    pub fn spans(&self) -> usize {
        self.span_resource.len()
    }

    /// The span rows of a trace.
    pub fn spans_of_trace(&self, trace: usize) -> std::ops::Range<usize> {
        self.trace_spans[trace] as usize..self.trace_spans[trace + 1] as usize
    }
}

/// Traces as columns: a live segment or a row group of a block. Read-only and shared.
///
/// Calls may block on storage, so they are made from threads that may block. Everything returned
/// is reference-counted: asking twice for a column is cheap.
pub trait SpanTable: Send + Sync {
    /// How the levels belong together.
    fn structure(&self) -> Result<Arc<Structure>, TableError>;

    /// Event rows of span `s`: `[s]..[s + 1]`; one entry more than spans.
    fn event_offsets(&self) -> Result<Arc<[u32]>, TableError>;

    /// Link rows of span `s`: `[s]..[s + 1]`; one entry more than spans.
    fn link_offsets(&self) -> Result<Arc<[u32]>, TableError>;

    /// The column `key`, of all rows of its level; an attribute that nobody set is all absent.
    /// Only [`SERVICE_NAME`] of a resource is never absent: it is the empty text where it is not
    /// set, for that is what blocks hold.
    ///
    /// With `rows` (at the column's own level) only those rows are needed: the table may leave
    /// the others absent and skip what holds only them.
    fn column(&self, key: &ColumnKey, rows: Option<&Bitmap>) -> Result<Column, TableError>;

    /// The values of `rows` only (ascending, at the column's own level), as a column of
    /// `rows.len()` rows: row `i` of the answer is row `rows[i]` of the table. Results are made of
    /// these, so tables that can should answer at the cost of the rows, not of the table.
    fn gather(&self, key: &ColumnKey, rows: &[u32]) -> Result<Column, TableError> {
        let mut wanted = Bitmap::new(self.rows(key.level())?);
        for &row in rows {
            wanted.insert(row as usize);
        }
        Ok(self.column(key, Some(&wanted))?.gather(rows))
    }

    /// The rows that hold a value of `key`, ascending, where the table knows them without its values
    /// and they are few; `None` otherwise. Who looks at all columns then gathers those rows only.
    fn few_rows(&self, key: &ColumnKey) -> Result<Option<Vec<u32>>, TableError> {
        let _ = key;
        Ok(None)
    }

    /// How many rows a level has.
    fn rows(&self, level: Level) -> Result<usize, TableError> {
        let last = |offsets: Arc<[u32]>| offsets.last().map_or(0, |&end| end as usize);
        Ok(match level {
            Level::Trace => self.structure()?.traces(),
            Level::Resource => self.structure()?.resources(),
            Level::Scope => self.structure()?.scopes(),
            Level::Span => self.structure()?.spans(),
            Level::Event => last(self.event_offsets()?),
            Level::Link => last(self.link_offsets()?),
        })
    }

    /// A superset of the texts that `key` takes, alone or within arrays, if it is cheaper to have
    /// than the column: when a predicate holds for none of them, no row needs to be read. `None`
    /// when unknown. Says nothing about values of other types.
    fn string_superset(&self, key: &ColumnKey) -> Result<Option<Arc<StringDict>>, TableError>;

    /// Inclusive bounds of the integers that `key` takes, alone or within arrays, if statistics
    /// tell. `None` when unknown.
    fn int_bounds(&self, key: &ColumnKey) -> Result<Option<(i64, i64)>, TableError>;

    /// The distinct attribute names of `scope`, sorted. With `rows` (at the scope's level) only of
    /// those rows. [`SERVICE_NAME`] of resources is among them if it is anything but the empty text.
    fn attribute_names(
        &self,
        scope: AttributeScope,
        rows: Option<&Bitmap>,
    ) -> Result<Vec<Arc<str>>, TableError>;

    /// Tells which columns will be asked for next, so that their bytes can be fetched together, and
    /// which will be asked for after that if these leave any rows: where a request costs more than
    /// some bytes, those may be fetched along with the others.
    fn prefetch(&self, keys: &[ColumnKey], later: &[ColumnKey]) -> Result<(), TableError> {
        let _ = (keys, later);
        Ok(())
    }

    /// Tells which columns will be asked for next of rows that belong to `traces` (ascending), so
    /// that their bytes can be fetched together.
    fn prefetch_of(&self, keys: &[ColumnKey], traces: &[u32]) -> Result<(), TableError> {
        let _ = (keys, traces);
        Ok(())
    }

    /// Tells that a column will not be asked for again, so that a table that keeps columns can let go
    /// of it.
    fn release(&self, key: &ColumnKey) {
        let _ = key;
    }

    /// Bytes read from storage so far on behalf of this table, for `inspectedBytes`.
    fn bytes_read(&self) -> u64;
}
