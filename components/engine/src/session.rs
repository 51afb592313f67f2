//! One run of a plan on one table: which columns are held, and how the rows of the levels belong
//! together.

use std::{
    cell::{Cell, OnceCell, RefCell},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use hashbrown::HashMap;
use tempo_table::{Bitmap, Column, ColumnKey, Level, SpanTable, Structure, TableError};

use crate::{error::EngineError, scan::VerdictCache};

/// What a run may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits<'a> {
    /// Bytes of columns held at once.
    pub max_column_bytes: usize,
    /// Set when nobody waits for the answer any more.
    pub cancel: &'a AtomicBool,
}

/// Spans below this share of all are asked for row by row instead of as whole columns.
const SPARSE_SHARE: usize = 16;

/// What a table tells before any of its rows is read.
pub(crate) struct Clues<'a> {
    pub(crate) table: &'a dyn SpanTable,
    pub(crate) verdicts: VerdictCache,
}

impl<'a> Clues<'a> {
    pub(crate) fn of(table: &'a dyn SpanTable) -> Self {
        Self {
            table,
            verdicts: VerdictCache::default(),
        }
    }
}

pub(crate) struct Session<'a> {
    pub(crate) table: &'a dyn SpanTable,
    pub(crate) structure: Arc<Structure>,
    pub(crate) verdicts: VerdictCache,
    limits: Limits<'a>,
    columns: RefCell<HashMap<ColumnKey, Column, foldhash::fast::RandomState>>,
    held_bytes: Cell<usize>,
    events: OnceCell<Arc<[u32]>>,
    links: OnceCell<Arc<[u32]>>,
    /// Event rows (link rows) that meet all conditions on events, when those must hold together.
    pub(crate) event_mask: Option<Bitmap>,
    pub(crate) link_mask: Option<Bitmap>,
    /// The trace that was asked for last.
    last_trace: Cell<usize>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(table: &'a dyn SpanTable, limits: Limits<'a>) -> Result<Self, EngineError> {
        Self::after(Clues::of(table), limits)
    }

    /// A run after a look at what the table tells.
    pub(crate) fn after(clues: Clues<'a>, limits: Limits<'a>) -> Result<Self, EngineError> {
        let Clues { table, verdicts } = clues;
        let session = Self {
            table,
            structure: table.structure()?,
            verdicts,
            limits,
            columns: RefCell::default(),
            held_bytes: Cell::new(0),
            events: OnceCell::new(),
            links: OnceCell::new(),
            event_mask: None,
            link_mask: None,
            last_trace: Cell::new(0),
        };
        session.check_cancelled()?;
        Ok(session)
    }

    pub(crate) fn check_cancelled(&self) -> Result<(), EngineError> {
        if self.limits.cancel.load(Ordering::Relaxed) {
            return Err(EngineError::cancelled());
        }
        Ok(())
    }

    // -----------------------------------------------------------------------------------------
    // Columns
    // -----------------------------------------------------------------------------------------

    /// All of a column; kept for the next who asks.
    pub(crate) fn column(&self, key: &ColumnKey) -> Result<Column, EngineError> {
        if let Some(column) = self.columns.borrow().get(key) {
            return Ok(column.clone());
        }
        let column = self.column_once(key)?;
        self.held_bytes
            .set(self.held_bytes.get().saturating_add(column.heap_bytes()));
        self.columns
            .borrow_mut()
            .insert(key.clone(), column.clone());
        Ok(column)
    }

    /// All of a column, which is not kept.
    pub(crate) fn column_once(&self, key: &ColumnKey) -> Result<Column, EngineError> {
        if let Some(column) = self.columns.borrow().get(key) {
            return Ok(column.clone());
        }
        self.check_cancelled()?;
        let column = self.table.column(key, None)?;
        let needed_bytes = self.held_bytes.get().saturating_add(column.heap_bytes());
        if needed_bytes > self.limits.max_column_bytes {
            return Err(EngineError::OverBudget {
                needed_bytes,
                limit_bytes: self.limits.max_column_bytes,
            });
        }
        Ok(column)
    }

    /// Bytes that a run may hold beside columns.
    pub(crate) fn max_bytes(&self) -> usize {
        self.limits.max_column_bytes
    }

    /// Some rows of a column, ascending.
    pub(crate) fn gather(&self, key: &ColumnKey, rows: &[u32]) -> Result<Column, EngineError> {
        if let Some(column) = self.columns.borrow().get(key) {
            return Ok(column.gather(rows));
        }
        self.check_cancelled()?;
        Ok(self.table.gather(key, rows)?)
    }

    /// Whether `spans` are so few that whole columns are not worth it.
    pub(crate) fn is_sparse(&self, spans: &Bitmap) -> bool {
        spans.count() < spans.len() / SPARSE_SHARE
    }

    pub(crate) fn is_held(&self, key: &ColumnKey) -> bool {
        self.columns.borrow().contains_key(key)
    }

    // -----------------------------------------------------------------------------------------
    // Levels
    // -----------------------------------------------------------------------------------------

    pub(crate) fn event_offsets(&self) -> Result<&Arc<[u32]>, TableError> {
        if let Some(offsets) = self.events.get() {
            return Ok(offsets);
        }
        let offsets = self.table.event_offsets()?;
        Ok(self.events.get_or_init(|| offsets))
    }

    pub(crate) fn link_offsets(&self) -> Result<&Arc<[u32]>, TableError> {
        if let Some(offsets) = self.links.get() {
            return Ok(offsets);
        }
        let offsets = self.table.link_offsets()?;
        Ok(self.links.get_or_init(|| offsets))
    }

    /// The trace of a span. Cheap for spans in ascending order.
    pub(crate) fn trace_of(&self, span: usize) -> usize {
        let starts = &self.structure.trace_spans;
        let last = self.last_trace.get();
        let inside = |trace: usize| {
            starts
                .get(trace)
                .is_some_and(|&start| start as usize <= span)
                && starts
                    .get(trace + 1)
                    .is_some_and(|&end| span < end as usize)
        };
        if inside(last) {
            return last;
        }
        let trace = match (last + 1..last + 5).find(|&trace| inside(trace)) {
            Some(trace) => trace,
            None => starts
                .partition_point(|&start| start as usize <= span)
                .saturating_sub(1),
        };
        self.last_trace.set(trace);
        trace
    }

    /// The row of `span` at a level that holds one row per span or fewer.
    pub(crate) fn row_of(&self, level: Level, span: usize) -> usize {
        match level {
            Level::Resource => self.structure.span_resource[span] as usize,
            Level::Scope => self.structure.span_scope[span] as usize,
            Level::Trace => self.trace_of(span),
            Level::Span | Level::Event | Level::Link => span,
        }
    }

    /// The spans that belong to rows of a level.
    pub(crate) fn to_spans(&self, level: Level, rows: Bitmap) -> Result<Bitmap, EngineError> {
        let structure = &*self.structure;
        let mut spans = Bitmap::new(structure.spans());
        let range = |starts: &[u32], row: usize| starts[row] as usize..starts[row + 1] as usize;
        match level {
            Level::Span => return Ok(rows),
            Level::Trace => {
                for row in rows.iter() {
                    spans.insert_range(range(&structure.trace_spans, row));
                }
            }
            Level::Resource => {
                for row in rows.iter() {
                    let scopes = range(&structure.resource_scopes, row);
                    let first = structure.scope_spans[scopes.start] as usize;
                    spans.insert_range(first..structure.scope_spans[scopes.end] as usize);
                }
            }
            Level::Scope => {
                for row in rows.iter() {
                    spans.insert_range(range(&structure.scope_spans, row));
                }
            }
            Level::Event => owners(self.event_offsets()?, &rows, &mut spans),
            Level::Link => owners(self.link_offsets()?, &rows, &mut spans),
        }
        Ok(spans)
    }

    /// The rows of a level that belong to some spans, ascending.
    pub(crate) fn rows_of(
        &self,
        level: Level,
        spans: impl Iterator<Item = usize>,
    ) -> Result<Vec<u32>, EngineError> {
        let mut rows: Vec<u32> = Vec::new();
        match level {
            Level::Event | Level::Link => {
                let offsets = match level {
                    Level::Event => self.event_offsets()?,
                    _ => self.link_offsets()?,
                };
                for span in spans {
                    rows.extend(offsets[span]..offsets[span + 1]);
                }
            }
            Level::Trace | Level::Resource | Level::Scope | Level::Span => {
                for span in spans {
                    let row = self.row_of(level, span) as u32;
                    if rows.last() != Some(&row) {
                        rows.push(row);
                    }
                }
            }
        }
        Ok(rows)
    }

    /// The events (links) that may count, of those at `level`.
    pub(crate) fn mask(&self, level: Level) -> Option<&Bitmap> {
        match level {
            Level::Event => self.event_mask.as_ref(),
            Level::Link => self.link_mask.as_ref(),
            _ => None,
        }
    }
}

/// Adds the spans that own some of `rows`.
fn owners(offsets: &[u32], rows: &Bitmap, spans: &mut Bitmap) {
    let mut span = 0;
    for row in rows.iter() {
        let row = row as u32;
        if offsets[span + 1] <= row {
            span += offsets[span + 1..].partition_point(|&end| end <= row);
        }
        spans.insert(span);
    }
}
