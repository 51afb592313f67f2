//! One tenant: everything recent, in one place, under one lock.
//!
//! Two locks. `state` is held for moments: what is where. `building` is held while tables are
//! built from chunks, and by whoever looks at tables, so that tables do not change meanwhile; it is
//! taken before `state`, never after.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::{Mutex, MutexGuard};
use prometheus::{IntCounter, IntGauge};
use tempo_model::{TraceBatch, TraceId};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    columns::{self, Builders, Columns, Pending, TableView},
    cut::{BlockCut, BlockCutReason, TraceCut},
    head::{CutBlock, Head},
    traces::{LiveTraces, TraceSizes},
};
use crate::{
    error::PushError,
    local::LocalBlock,
    metrics::Metrics,
    wal::{ChunkReader, ChunkRef, Placement, Wal},
};

/// Spans built into tables before the locks are given back for a moment.
const BUILD_SPANS: usize = 262_144;
/// Traces handed over from tables to a block before the lock is given back for a moment.
const COMPLETED_TRACES: usize = 4_096;

/// What a push is checked against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PushLimits {
    /// 0 for no limit.
    pub(crate) max_bytes_per_trace: u64,
    /// 0 for no limit.
    pub(crate) max_live_traces: u32,
    /// What becomes of a push with traces beyond it.
    pub(crate) overflow: Overflow,
}

/// What becomes of traces beyond the limit of live ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// The whole push is refused: its sender can send it again later.
    Refuse,
    /// Those traces are left out: nobody can send them again.
    LeaveOut,
}

/// Which traces are cut.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    /// Those that are due.
    Due(TraceCut),
    /// Those that were idle longest, until so many serialized bytes are left; and those that are
    /// due.
    DownTo(TraceCut, u64),
    /// All, and their block is closed.
    All,
}

/// What of a tenant is where.
#[derive(Default)]
struct State {
    traces: LiveTraces,
    sizes: TraceSizes,
    /// Traces that pushes on their way to the log will begin.
    reserved_traces: usize,
    head: Head,
    cut_blocks: Vec<Arc<CutBlock>>,
    columns: Columns,
    blocks: Vec<Arc<LocalBlock>>,
}

struct Gauges {
    live_traces: IntGauge,
    live_trace_bytes: IntGauge,
    live_tables: IntGauge,
    live_table_bytes: IntGauge,
    live_table_spans: IntGauge,
    pending_bytes: IntGauge,
}

/// One tenant's recent data.
pub(crate) struct Tenant {
    pub(crate) name: Arc<str>,
    state: Mutex<State>,
    building: Mutex<()>,
    gauges: Gauges,
    bytes_received: IntCounter,
    metrics: Metrics,
    /// Wakes pushes that wait for room.
    pub(crate) room: Notify,
    shared: Arc<AllColumns>,
}

/// What the columns of all tenants share.
#[derive(Default)]
pub(crate) struct AllColumns {
    /// Memory of live tables, in bytes.
    table_bytes: AtomicU64,
    builders: Builders,
}

impl AllColumns {
    /// Memory of live tables of all tenants, in bytes.
    pub(crate) fn table_bytes(&self) -> u64 {
        self.table_bytes.load(Ordering::Acquire)
    }
}

/// Sizes of what a tenant holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) live_traces: usize,
    pub(crate) live_bytes: u64,
    pub(crate) pending_bytes: u64,
    pub(crate) pending_spans: u64,
    pub(crate) table_bytes: usize,
    pub(crate) table_spans: usize,
    pub(crate) tables: usize,
    /// Serialized bytes of cut traces that are in no complete block.
    pub(crate) uncompleted_bytes: u64,
    pub(crate) uncompleted_blocks: usize,
    pub(crate) local_blocks: usize,
}

/// Room that a push has taken before it is in the log. Gives it back when dropped.
pub(crate) struct Reservation {
    tenant: Arc<Tenant>,
    new_traces: usize,
    /// Sizes counted for the limit of bytes per trace.
    counted: Vec<(TraceId, u64)>,
    kept: bool,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.tenant.state.lock();
        state.reserved_traces -= self.new_traces;
        if !self.kept {
            for (id, bytes) in &self.counted {
                state.sizes.take_back(id, *bytes);
            }
        }
    }
}

/// A push that may be written.
pub(crate) struct Admitted {
    pub(crate) batch: TraceBatch,
    pub(crate) reservation: Reservation,
    /// Spans left out because their trace is too large.
    pub(crate) too_large_spans: u64,
    /// Spans left out because too many traces are live.
    pub(crate) overflow_spans: u64,
    /// Places in the push of the traces that were left out, ascending.
    pub(crate) left_out: Vec<usize>,
}

impl Tenant {
    pub(crate) fn new(name: &str, metrics: &Metrics, shared: Arc<AllColumns>) -> Self {
        let gauge = |gauges: &prometheus::IntGaugeVec| gauges.with_label_values(&[name]);
        Self {
            name: Arc::from(name),
            state: Mutex::default(),
            building: Mutex::default(),
            gauges: Gauges {
                live_traces: gauge(&metrics.live_traces),
                live_trace_bytes: gauge(&metrics.live_trace_bytes),
                live_tables: gauge(&metrics.live_tables),
                live_table_bytes: gauge(&metrics.live_table_bytes),
                live_table_spans: gauge(&metrics.live_table_spans),
                pending_bytes: gauge(&metrics.pending_bytes),
            },
            bytes_received: metrics.bytes_received.with_label_values(&[name, "trace"]),
            metrics: metrics.clone(),
            room: Notify::new(),
            shared,
        }
    }

    /// Checks a push against the limits and takes the room it needs. Chunks of traces that are too
    /// large are left out; a push that would begin too many traces is refused whole, or without
    /// those that are too many.
    pub(crate) fn admit(
        self: &Arc<Self>,
        mut batch: TraceBatch,
        limits: PushLimits,
    ) -> Result<Admitted, PushError> {
        let (mut too_large_spans, mut overflow_spans) = (0, 0);
        let mut counted = Vec::new();
        let mut left_out = Vec::new();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let live = state.traces.len() + state.reserved_traces;
        // Traces that may still begin; `None` where that is not looked at one by one.
        let mut room = match (limits.overflow, limits.max_live_traces) {
            (Overflow::Refuse, _) | (_, 0) => None,
            (Overflow::LeaveOut, max) => Some((max as usize).saturating_sub(live)),
        };
        if limits.max_bytes_per_trace > 0 || room.is_some() {
            let mut places = 0..;
            batch.traces.retain(|chunk| {
                let place = places.next().unwrap_or_default();
                let begins = room.is_some() && !state.traces.contains(&chunk.id);
                if begins && room == Some(0) {
                    overflow_spans += u64::from(chunk.spans);
                    left_out.push(place);
                    return false;
                }
                if limits.max_bytes_per_trace > 0 {
                    let bytes = chunk.trace.len() as u64;
                    if !state.sizes.add(chunk.id, bytes, limits.max_bytes_per_trace) {
                        too_large_spans += u64::from(chunk.spans);
                        left_out.push(place);
                        return false;
                    }
                    counted.push((chunk.id, bytes));
                }
                if begins {
                    room = room.map(|room| room - 1);
                }
                true
            });
        }
        let new_traces = batch
            .traces
            .iter()
            .filter(|chunk| !state.traces.contains(&chunk.id))
            .count();
        if limits.overflow == Overflow::Refuse
            && limits.max_live_traces > 0
            && new_traces > 0
            && live + new_traces > limits.max_live_traces as usize
        {
            for (id, bytes) in &counted {
                state.sizes.take_back(id, *bytes);
            }
            return Err(PushError::LiveTraces {
                tenant: self.name.to_string(),
                live,
                new: new_traces,
                limit: limits.max_live_traces,
            });
        }
        state.reserved_traces += new_traces;
        drop(guard);
        Ok(Admitted {
            batch,
            reservation: Reservation {
                tenant: Arc::clone(self),
                new_traces,
                counted,
                kept: false,
            },
            too_large_spans,
            overflow_spans,
            left_out,
        })
    }

    /// A push is durable: from now on its spans are found.
    pub(crate) fn accept(&self, placement: Placement, arrival: u64, mut reservation: Reservation) {
        let mut state = self.state.lock();
        let mut received = 0;
        for (trace_id, chunk, bytes) in placement.chunks {
            received += u64::from(chunk.bytes);
            state.traces.append(trace_id, chunk, arrival);
            state.columns.push_pending(Pending {
                trace_id,
                chunk,
                bytes: Some(bytes),
            });
        }
        self.update_gauges(&state);
        drop(state);
        self.bytes_received.inc_by(received);
        reservation.kept = true;
    }

    /// Takes chunks that the log held at start.
    pub(crate) fn accept_replayed(&self, chunks: Vec<(TraceId, ChunkRef)>, arrival: u64) {
        let mut state = self.state.lock();
        for (trace_id, chunk) in chunks {
            state.traces.append(trace_id, chunk, arrival);
            state.columns.push_pending(Pending {
                trace_id,
                chunk,
                bytes: None,
            });
        }
    }

    /// Cuts traces and closes blocks that are due; `ratio` is what blocks are expected to compress
    /// to. Returns the closed blocks.
    pub(crate) fn cut(
        &self,
        now: u64,
        cut: Cut,
        block_cut: BlockCut,
        ratio: f64,
        early: Option<BlockCutReason>,
    ) -> Vec<Arc<CutBlock>> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut taken = match cut {
            Cut::Due(due) => state.traces.take_due(&due, now),
            Cut::DownTo(due, keep_bytes) => {
                let mut taken = state.traces.take_due(&due, now);
                taken.extend(state.traces.take_idlest(keep_bytes));
                taken
            }
            Cut::All => state.traces.take_all(),
        };
        let created = self.metrics.traces_created.with_label_values(&[&self.name]);
        created.inc_by(taken.len() as u64);
        let expected = |head: &Head| (head.bytes() as f64 * ratio) as u64;
        let mut closed = Vec::new();
        let mut close = |state_head: &mut Head, sizes: &mut TraceSizes, reason: BlockCutReason| {
            let block = Arc::new(state_head.close(Uuid::new_v4()));
            sizes.block_closed();
            self.metrics
                .blocks_cut
                .with_label_values(&[reason.label()])
                .inc();
            closed.push(block);
        };
        let max_trace_bytes = block_cut.max_trace_bytes;
        let parts = taken
            .drain(..)
            .flat_map(|(id, trace)| trace.split(max_trace_bytes).map(move |part| (id, part)));
        for (id, part) in parts {
            // What a block cannot hold of a trace goes into the next.
            if !state.head.has_room_for(&id, part.bytes, max_trace_bytes) {
                close(
                    &mut state.head,
                    &mut state.sizes,
                    BlockCutReason::MaxBlockBytes,
                );
            }
            state.head.push(id, part, now);
            if expected(&state.head) >= block_cut.max_bytes {
                close(
                    &mut state.head,
                    &mut state.sizes,
                    BlockCutReason::MaxBlockBytes,
                );
            }
        }
        if !state.head.is_empty() {
            let due = block_cut.reason(state.head.since(), expected(&state.head), now);
            let reason = match cut {
                Cut::All => Some(BlockCutReason::Immediate),
                Cut::Due(_) | Cut::DownTo(..) => due.or(early),
            };
            if let Some(reason) = reason {
                close(&mut state.head, &mut state.sizes, reason);
            }
        }
        state.cut_blocks.extend(closed.iter().cloned());
        self.update_gauges(state);
        closed
    }

    /// Builds all pending chunks into tables. Blocks.
    #[cfg(test)]
    pub(crate) fn build_pending(&self, wal: &Wal) {
        let guard = self.building.lock();
        self.build_pending_locked(wal, &guard);
    }

    fn build_pending_locked(&self, wal: &Wal, _building: &MutexGuard<'_, ()>) {
        loop {
            let mut state = self.state.lock();
            let traces = state.columns.take_pending(BUILD_SPANS);
            if traces.is_empty() {
                return;
            }
            let reader = reader_for(wal, &traces);
            drop(state);
            for built in columns::build(traces, &reader, &self.shared.builders) {
                let mut state = self.state.lock();
                state.columns.install(built);
                self.update_gauges(&state);
            }
            self.room.notify_waiters();
        }
    }

    fn replace_locked(
        &self,
        wal: &Wal,
        pick: impl Fn(&Columns) -> Vec<columns::TraceChunks>,
        _building: &MutexGuard<'_, ()>,
    ) {
        let state = self.state.lock();
        let traces = pick(&state.columns);
        if traces.is_empty() {
            return;
        }
        let reader = reader_for(wal, &traces);
        drop(state);
        let built = columns::build(traces, &reader, &self.shared.builders);
        for built in built {
            let mut state = self.state.lock();
            state.columns.replace(built);
            self.update_gauges(&state);
        }
    }

    /// Builds what is pending and gathers small and sparse tables. Blocks.
    pub(crate) fn tidy_tables(&self, wal: &Wal) {
        let guard = self.building.lock();
        self.build_pending_locked(wal, &guard);
        self.replace_locked(wal, Columns::traces_to_gather, &guard);
    }

    /// All that can be found now: tables with spans between the two times (nanoseconds since the
    /// epoch, both included), every trace in one row, and local blocks. Blocks.
    pub(crate) fn view(
        &self,
        wal: &Wal,
        start: u64,
        end: u64,
    ) -> (Vec<TableView>, Vec<Arc<LocalBlock>>) {
        let guard = self.building.lock();
        self.build_pending_locked(wal, &guard);
        self.replace_locked(wal, Columns::spread_traces, &guard);
        let mut state = self.state.lock();
        (state.columns.view(start, end), state.blocks.clone())
    }

    /// Where a trace is: its chunks in log order with what reads them, and the local blocks, which
    /// may hold more of it.
    pub(crate) fn find(
        &self,
        wal: &Wal,
        id: &TraceId,
    ) -> (Vec<ChunkRef>, ChunkReader, Vec<Arc<LocalBlock>>) {
        let state = self.state.lock();
        let cut = state.cut_blocks.iter().flat_map(|block| block.chunks(id));
        let mut chunks: Vec<ChunkRef> = state
            .traces
            .chunks(id)
            .iter()
            .chain(state.head.chunks(id))
            .chain(cut)
            .copied()
            .collect();
        chunks.sort_unstable();
        let reader = wal.reader(chunks.iter());
        (chunks, reader, state.blocks.clone())
    }

    /// `block` takes the place of `cut`: from now on its spans are found there, or, if nothing could
    /// be stored, nowhere. Then the log is told that it need not hold them. Blocks.
    pub(crate) fn complete(&self, wal: &Wal, cut: &CutBlock, block: Option<Arc<LocalBlock>>) {
        let guard = self.building.lock();
        // Nothing of the block may still be pending.
        self.build_pending_locked(wal, &guard);
        let mut state = self.state.lock();
        state.cut_blocks.retain(|held| held.id != cut.id);
        state.blocks.extend(block);
        drop(state);
        // Tables are looked at under `building` only, so their rows may go bit by bit. What of a
        // trace is left goes back to what is pending, so all that was cut of it comes at once.
        for traces in cut.sorted().chunks(COMPLETED_TRACES) {
            let mut state = self.state.lock();
            state
                .columns
                .completed(traces.iter().map(|trace| (&trace.id, &trace.chunks[..])));
            self.update_gauges(&state);
        }
        drop(guard);
        wal.release(cut.all_chunks());
        self.room.notify_waiters();
    }

    /// Registers a local block that was found at start.
    pub(crate) fn add_block(&self, block: Arc<LocalBlock>) {
        self.state.lock().blocks.push(block);
    }

    /// A local block is found no longer.
    pub(crate) fn remove_block(&self, id: Uuid) {
        self.state.lock().blocks.retain(|block| block.id() != id);
    }

    pub(crate) fn holds_block(&self, id: Uuid) -> bool {
        self.state
            .lock()
            .blocks
            .iter()
            .any(|block| block.id() == id)
    }

    pub(crate) fn blocks(&self) -> Vec<Arc<LocalBlock>> {
        self.state.lock().blocks.clone()
    }

    /// When the first of the spans came that are in no complete block, in nanoseconds since the epoch.
    pub(crate) fn first_live_unix_nanos(&self) -> Option<u64> {
        let state = self.state.lock();
        let closed = state.cut_blocks.iter().map(|block| block.first_came).min();
        let live = [state.traces.first_came(), state.head.first_came(), closed];
        live.into_iter().flatten().min()
    }

    pub(crate) fn sizes(&self) -> Sizes {
        let state = self.state.lock();
        let closed: u64 = state.cut_blocks.iter().map(|block| block.bytes).sum();
        Sizes {
            live_traces: state.traces.len(),
            live_bytes: state.traces.bytes(),
            pending_bytes: state.columns.pending_bytes(),
            pending_spans: state.columns.pending_spans(),
            table_bytes: state.columns.heap_bytes(),
            table_spans: state.columns.spans(),
            tables: state.columns.tables(),
            uncompleted_bytes: closed + state.head.bytes(),
            uncompleted_blocks: state.cut_blocks.len(),
            local_blocks: state.blocks.len(),
        }
    }

    /// Whether nothing at all is held, or on its way.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.traces.is_empty()
            && state.reserved_traces == 0
            && state.head.is_empty()
            && state.cut_blocks.is_empty()
            && state.columns.pending_spans() == 0
            && state.columns.tables() == 0
            && state.blocks.is_empty()
    }

    fn update_gauges(&self, state: &State) {
        let columns = &state.columns;
        self.gauges.live_traces.set(state.traces.len() as i64);
        self.gauges
            .live_trace_bytes
            .set(state.traces.bytes() as i64);
        self.gauges.live_tables.set(columns.tables() as i64);
        self.gauges.live_table_spans.set(columns.spans() as i64);
        self.gauges
            .pending_bytes
            .set(columns.pending_bytes() as i64);
        let before = self.gauges.live_table_bytes.get();
        let now = columns.heap_bytes() as i64;
        self.gauges.live_table_bytes.set(now);
        // Wraps around when it shrinks, which is what adding a negative number is.
        self.shared
            .table_bytes
            .fetch_add((now - before) as u64, Ordering::AcqRel);
    }
}

fn reader_for(wal: &Wal, traces: &[columns::TraceChunks]) -> ChunkReader {
    let chunks = traces.iter().flat_map(|(_, chunks)| chunks);
    wal.reader(
        chunks
            .filter(|pending| pending.bytes.is_none())
            .map(|pending| &pending.chunk),
    )
}

impl Sizes {
    pub(crate) fn add(&mut self, other: &Self) {
        self.live_traces += other.live_traces;
        self.live_bytes += other.live_bytes;
        self.pending_bytes += other.pending_bytes;
        self.pending_spans += other.pending_spans;
        self.table_bytes += other.table_bytes;
        self.table_spans += other.table_spans;
        self.tables += other.tables;
        self.uncompleted_bytes += other.uncompleted_bytes;
        self.uncompleted_blocks += other.uncompleted_blocks;
        self.local_blocks += other.local_blocks;
    }
}

#[cfg(test)]
mod tests;
