//! Live spans as columns: which table holds which trace, and what is hidden where.
//!
//! Owns the bookkeeping only. New chunks wait as *pending*; they are built into tables, one row per
//! trace. A trace whose chunks came at different times has *fragments* in several tables until
//! they are merged into one row, so that a query sees it whole. Rows are hidden when a merged row
//! or a local block takes their place, and a table goes when all its rows are hidden.
//!
//! Building happens outside, without the tenant's lock, under its build lock: at most one builder
//! reads chunks and installs tables, so nothing moves under its feet but new pending chunks.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use tempo_model::TraceId;
use tempo_table::{Bitmap, MemoryTable, MemoryTableBuilder, PushError, SpanTable, TableError};

use super::visible::VisibleTable;
use crate::wal::{ChunkReader, ChunkRef};

/// Spans of one table, roughly: a larger build is split.
const MAX_TABLE_SPANS: usize = 65_536;
/// Tables with fewer visible spans than this are merged when there are too many of them.
const SMALL_TABLE_SPANS: usize = 4_096;
/// How many small tables may be before they are merged.
const MAX_SMALL_TABLES: usize = 8;
/// A table with less than this share of its spans visible is rebuilt: one part in so many.
const SPARSE_PART: usize = 4;

/// A chunk that is in no table yet.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) trace_id: TraceId,
    pub(crate) chunk: ChunkRef,
    /// Its bytes, if they are still at hand; otherwise they are read from the log.
    pub(crate) bytes: Option<Bytes>,
}

/// A trace to be built into one row: its chunks in log order.
pub(crate) type TraceChunks = (TraceId, Vec<Pending>);

/// A finished table and the chunks of each of its rows.
pub(crate) struct Built {
    table: Arc<MemoryTable>,
    chunks: Vec<ChunkRef>,
    /// End of each row's chunks.
    ends: Vec<u32>,
}

/// Table builders that are not in use: their memory serves the next table.
#[derive(Default)]
pub(crate) struct Builders(Mutex<Vec<MemoryTableBuilder>>);

/// Builders kept for later; more are in use at once only while several tenants build.
const MAX_IDLE_BUILDERS: usize = 2;

impl Builders {
    fn take(&self) -> MemoryTableBuilder {
        self.0.lock().pop().unwrap_or_default()
    }

    fn give_back(&self, builder: MemoryTableBuilder) {
        let mut idle = self.0.lock();
        if idle.len() < MAX_IDLE_BUILDERS {
            idle.push(builder);
        }
    }
}

/// Builds tables of `traces`. Chunks that cannot be read or understood are logged and left out:
/// they are still in the log, and whoever builds the block decides about them.
pub(crate) fn build(
    traces: Vec<TraceChunks>,
    reader: &ChunkReader,
    builders: &Builders,
) -> Vec<Built> {
    let mut built = Vec::new();
    let mut unfinished = Unfinished {
        builder: builders.take(),
        chunks: Vec::new(),
        ends: Vec::new(),
    };
    for (trace_id, pending) in traces {
        let mut chunks: Vec<(ChunkRef, Bytes)> = Vec::with_capacity(pending.len());
        for item in pending {
            let bytes = match item.bytes {
                Some(bytes) => Ok(bytes),
                None => reader.bytes(&item.chunk),
            };
            match bytes {
                Ok(bytes) => chunks.push((item.chunk, bytes)),
                Err(error) => tracing::error!(%error, %trace_id, "spans cannot be made searchable"),
            }
        }
        if let Err(PushError::Full { .. }) = unfinished.push(trace_id, &chunks) {
            built.extend(unfinished.finish());
            // A trace that no table can hold is logged by the second attempt.
            if let Err(error) = unfinished.push(trace_id, &chunks) {
                tracing::error!(%error, %trace_id, "spans cannot be made searchable");
            }
        }
        if unfinished.builder.spans() >= MAX_TABLE_SPANS {
            built.extend(unfinished.finish());
        }
    }
    built.extend(unfinished.finish());
    builders.give_back(unfinished.builder);
    built
}

struct Unfinished {
    builder: MemoryTableBuilder,
    chunks: Vec<ChunkRef>,
    ends: Vec<u32>,
}

impl Unfinished {
    fn push(&mut self, trace_id: TraceId, chunks: &[(ChunkRef, Bytes)]) -> Result<(), PushError> {
        let slices: Vec<&[u8]> = chunks.iter().map(|(_, bytes)| bytes.as_ref()).collect();
        match self.builder.push_trace(trace_id, &slices) {
            Ok(()) => {}
            Err(error @ PushError::Full { .. }) => return Err(error),
            Err(error) => {
                tracing::error!(%error, "spans cannot be made searchable");
                return Ok(());
            }
        }
        // A trace without spans makes no row.
        if self.builder.traces() > self.ends.len() {
            self.chunks.extend(chunks.iter().map(|(chunk, _)| *chunk));
            self.ends.push(self.chunks.len() as u32);
        }
        Ok(())
    }

    /// The table of what was pushed; the next one begins.
    fn finish(&mut self) -> Option<Built> {
        (self.builder.traces() > 0).then(|| Built {
            table: Arc::new(self.builder.finish()),
            chunks: std::mem::take(&mut self.chunks),
            ends: std::mem::take(&mut self.ends),
        })
    }
}

/// Where a trace has a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fragment {
    table: u32,
    row: u32,
}

/// The rows of a trace; nearly always one.
#[derive(Debug)]
enum Fragments {
    One(Fragment),
    Many(Vec<Fragment>),
}

impl Fragments {
    fn as_slice(&self) -> &[Fragment] {
        match self {
            Self::One(fragment) => std::slice::from_ref(fragment),
            Self::Many(fragments) => fragments,
        }
    }
}

struct LiveTable {
    table: Arc<MemoryTable>,
    chunks: Vec<ChunkRef>,
    ends: Vec<u32>,
    hidden: Bitmap,
    visible_rows: usize,
    visible_spans: usize,
    heap_bytes: usize,
    /// Earliest start and latest end, nanoseconds since the epoch.
    time_range: (u64, u64),
    /// Made when a query asks, until more rows are hidden.
    filtered: Option<Arc<Filtered>>,
}

impl LiveTable {
    fn chunks_of(&self, row: u32) -> &[ChunkRef] {
        let row = row as usize;
        let start = match row {
            0 => 0,
            _ => self.ends[row - 1] as usize,
        };
        &self.chunks[start..self.ends[row] as usize]
    }

    fn spans_of(&self, row: u32) -> usize {
        self.table
            .structure()
            .map_or(0, |structure| structure.spans_of_trace(row as usize).len())
    }
}

/// A table without its hidden rows, built by the first query that needs it.
pub(crate) struct Filtered {
    table: Arc<MemoryTable>,
    hidden: Bitmap,
    visible: OnceLock<Arc<VisibleTable>>,
}

/// What a query sees of one live table.
#[derive(Clone)]
pub(crate) enum TableView {
    Whole(Arc<MemoryTable>),
    Filtered(Arc<Filtered>),
}

impl TableView {
    /// The table; hides rows now if that was not done before, which costs time.
    pub(crate) fn table(&self) -> Result<Arc<dyn SpanTable>, TableError> {
        match self {
            Self::Whole(table) => Ok(table.clone()),
            Self::Filtered(filtered) => {
                if let Some(visible) = filtered.visible.get() {
                    return Ok(visible.clone());
                }
                let made = VisibleTable::new(filtered.table.clone(), &filtered.hidden)?;
                Ok(filtered.visible.get_or_init(|| Arc::new(made)).clone())
            }
        }
    }
}

/// The columns of one tenant.
#[derive(Default)]
pub(crate) struct Columns {
    pending: Vec<Pending>,
    pending_bytes: u64,
    pending_spans: u64,
    tables: BTreeMap<u32, LiveTable>,
    next_table: u32,
    fragments: HashMap<TraceId, Fragments, RandomState>,
    /// Traces with more than one fragment.
    spread: HashSet<TraceId, RandomState>,
    heap_bytes: usize,
    spans: usize,
}

impl Columns {
    /// A chunk waits to become columns.
    pub(crate) fn push_pending(&mut self, pending: Pending) {
        self.pending_bytes += u64::from(pending.chunk.bytes);
        self.pending_spans += u64::from(pending.chunk.spans);
        self.pending.push(pending);
    }

    pub(crate) fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    pub(crate) fn pending_spans(&self) -> u64 {
        self.pending_spans
    }

    /// Memory of all tables, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.heap_bytes
    }

    /// Visible spans of all tables.
    pub(crate) fn spans(&self) -> usize {
        self.spans
    }

    pub(crate) fn tables(&self) -> usize {
        self.tables.len()
    }

    /// Takes pending chunks, oldest first, until about `max_spans` are taken; by trace.
    pub(crate) fn take_pending(&mut self, max_spans: usize) -> Vec<TraceChunks> {
        let mut spans = 0;
        let count = self
            .pending
            .iter()
            .take_while(|pending| {
                let taken = spans < max_spans;
                spans += pending.chunk.spans as usize;
                taken
            })
            .count();
        let taken: Vec<Pending> = if count == self.pending.len() {
            std::mem::take(&mut self.pending)
        } else {
            self.pending.drain(..count).collect()
        };
        for pending in &taken {
            self.pending_bytes -= u64::from(pending.chunk.bytes);
            self.pending_spans -= u64::from(pending.chunk.spans);
        }
        by_trace(taken)
    }

    /// Makes rows visible. Their traces may have rows elsewhere.
    pub(crate) fn install(&mut self, built: Built) {
        let rows = built.ends.len();
        let id = self.next_table;
        self.next_table += 1;
        for (row, trace_id) in (0..).zip(built.table.trace_ids()) {
            let fragment = Fragment { table: id, row };
            match self.fragments.entry(trace_id) {
                hashbrown::hash_map::Entry::Vacant(free) => {
                    free.insert(Fragments::One(fragment));
                }
                hashbrown::hash_map::Entry::Occupied(mut held) => {
                    let mut fragments = held.get().as_slice().to_vec();
                    fragments.push(fragment);
                    held.insert(Fragments::Many(fragments));
                    self.spread.insert(trace_id);
                }
            }
        }
        let spans = built.table.spans();
        let heap_bytes = built.table.heap_bytes()
            + built.chunks.capacity() * size_of::<ChunkRef>()
            + built.ends.capacity() * 4;
        self.spans += spans;
        self.heap_bytes += heap_bytes;
        let time_range = built.table.time_range_nano().unwrap_or((0, u64::MAX));
        self.tables.insert(
            id,
            LiveTable {
                hidden: Bitmap::new(rows),
                visible_rows: rows,
                visible_spans: spans,
                heap_bytes,
                time_range,
                filtered: None,
                table: built.table,
                chunks: built.chunks,
                ends: built.ends,
            },
        );
    }

    /// The traces that have several rows, each with the chunks of all of them.
    pub(crate) fn spread_traces(&self) -> Vec<TraceChunks> {
        self.spread
            .iter()
            .map(|trace_id| (*trace_id, self.chunks_of(trace_id)))
            .collect()
    }

    /// The traces of tables that are too small or too empty to be worth a table of their own.
    pub(crate) fn traces_to_gather(&self) -> Vec<TraceChunks> {
        let is_small = |table: &LiveTable| table.visible_spans < SMALL_TABLE_SPANS;
        let is_sparse = |table: &LiveTable| table.visible_spans * SPARSE_PART < table.table.spans();
        let small = self.tables.values().filter(|table| is_small(table)).count();
        let mut traces = Vec::new();
        for table in self.tables.values() {
            if (small > MAX_SMALL_TABLES && is_small(table)) || is_sparse(table) {
                let visible = table.table.trace_ids().enumerate();
                traces.extend(
                    visible
                        .filter(|(row, _)| !table.hidden.contains(*row))
                        .map(|(_, trace_id)| (trace_id, self.chunks_of(&trace_id))),
                );
            }
        }
        // A trace in two of them comes twice.
        traces.sort_unstable_by_key(|(trace_id, _)| *trace_id);
        traces.dedup_by_key(|(trace_id, _)| *trace_id);
        traces
    }

    fn chunks_of(&self, trace_id: &TraceId) -> Vec<Pending> {
        let fragments = self
            .fragments
            .get(trace_id)
            .map_or(&[] as &[_], Fragments::as_slice);
        let mut chunks: Vec<Pending> = fragments
            .iter()
            .filter_map(|fragment| {
                let table = self.tables.get(&fragment.table)?;
                Some(table.chunks_of(fragment.row))
            })
            .flatten()
            .map(|chunk| Pending {
                trace_id: *trace_id,
                chunk: *chunk,
                bytes: None,
            })
            .collect();
        chunks.sort_unstable_by_key(|pending| pending.chunk);
        chunks
    }

    /// Puts newly built rows of traces in the place of all rows that they had. A trace that could
    /// not be built keeps its rows.
    pub(crate) fn replace(&mut self, built: Built) {
        for trace_id in built.table.trace_ids() {
            self.hide(&trace_id);
        }
        self.install(built);
        self.drop_empty_tables();
    }

    /// The chunks of `traces` are in a local block from now on: what else is held of a trace goes
    /// on alone. Each trace comes once, its chunks in log order.
    pub(crate) fn completed<'a>(
        &mut self,
        traces: impl Iterator<Item = (&'a TraceId, &'a [ChunkRef])>,
    ) {
        for (trace_id, completed) in traces {
            let remaining: Vec<Pending> = self
                .chunks_of(trace_id)
                .into_iter()
                .filter(|pending| completed.binary_search(&pending.chunk).is_err())
                .collect();
            self.hide(trace_id);
            remaining
                .into_iter()
                .for_each(|pending| self.push_pending(pending));
        }
        self.drop_empty_tables();
    }

    /// Hides all rows of a trace.
    fn hide(&mut self, trace_id: &TraceId) {
        let Some(fragments) = self.fragments.remove(trace_id) else {
            return;
        };
        self.spread.remove(trace_id);
        for fragment in fragments.as_slice() {
            if let Some(table) = self.tables.get_mut(&fragment.table) {
                let spans = table.spans_of(fragment.row);
                table.hidden.insert(fragment.row as usize);
                table.visible_rows -= 1;
                table.visible_spans -= spans;
                table.filtered = None;
                self.spans -= spans;
            }
        }
    }

    fn drop_empty_tables(&mut self) {
        self.tables.retain(|_, table| {
            if table.visible_rows == 0 {
                self.heap_bytes -= table.heap_bytes;
            }
            table.visible_rows > 0
        });
        if self.fragments.len() < self.fragments.capacity() / 8 {
            self.fragments.shrink_to(self.fragments.len() * 2);
        }
    }

    /// The tables with spans between the two times, nanoseconds since the epoch, both included.
    pub(crate) fn view(&mut self, start: u64, end: u64) -> Vec<TableView> {
        let mut views = Vec::with_capacity(self.tables.len());
        for table in self.tables.values_mut() {
            if table.time_range.0 > end || table.time_range.1 < start {
                continue;
            }
            if table.visible_rows == table.ends.len() {
                views.push(TableView::Whole(table.table.clone()));
                continue;
            }
            let filtered = table.filtered.get_or_insert_with(|| {
                Arc::new(Filtered {
                    table: table.table.clone(),
                    hidden: table.hidden.clone(),
                    visible: OnceLock::new(),
                })
            });
            views.push(TableView::Filtered(filtered.clone()));
        }
        views
    }
}

fn by_trace(mut pending: Vec<Pending>) -> Vec<TraceChunks> {
    // Stable: the chunks of a trace stay in log order.
    pending.sort_by_key(|pending| pending.trace_id);
    let mut traces: Vec<TraceChunks> = Vec::new();
    for item in pending {
        match traces.last_mut() {
            Some((trace_id, chunks)) if *trace_id == item.trace_id => chunks.push(item),
            _ => traces.push((item.trace_id, vec![item])),
        }
    }
    traces
}
