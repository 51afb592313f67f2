//! The traces of one tenant that still receive spans, and those waiting in the next block.
//!
//! Only places in the log are held, no spans.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tempo_model::TraceId;

use super::cut::{TraceAge, TraceCut};
use crate::wal::ChunkRef;

/// The chunks of one trace.
#[derive(Debug, Clone)]
pub(crate) struct LiveTrace {
    pub(crate) chunks: Vec<ChunkRef>,
    pub(crate) age: TraceAge,
    pub(crate) bytes: u64,
}

impl LiveTrace {
    /// Parts of at most `max_bytes` each, in log order; a larger chunk is a part of its own.
    pub(crate) fn split(self, max_bytes: u64) -> impl Iterator<Item = Self> {
        let mut parts = Vec::new();
        let mut rest = self;
        while rest.bytes > max_bytes && rest.chunks.len() > 1 {
            let mut bytes = 0;
            let fitting = rest.chunks.iter().take_while(|chunk| {
                bytes += u64::from(chunk.bytes);
                bytes <= max_bytes
            });
            let count = fitting.count().max(1);
            let chunks: Vec<ChunkRef> = rest.chunks.drain(..count).collect();
            let bytes = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
            rest.bytes -= bytes;
            parts.push(Self {
                chunks,
                age: rest.age,
                bytes,
            });
        }
        parts.into_iter().chain(std::iter::once(rest))
    }
}

/// Traces by id, with their serialized bytes counted.
#[derive(Debug, Default)]
pub(crate) struct LiveTraces {
    by_id: HashMap<TraceId, LiveTrace, RandomState>,
    bytes: u64,
}

impl LiveTraces {
    /// Adds a chunk that arrived at `now` (nanoseconds since the epoch).
    pub(crate) fn append(&mut self, id: TraceId, chunk: ChunkRef, now: u64) {
        let bytes = u64::from(chunk.bytes);
        self.bytes += bytes;
        let trace = self.by_id.entry(id).or_insert_with(|| LiveTrace {
            chunks: Vec::with_capacity(1),
            age: TraceAge {
                created: now,
                last_append: now,
            },
            bytes: 0,
        });
        trace.chunks.push(chunk);
        trace.age.last_append = trace.age.last_append.max(now);
        trace.bytes += bytes;
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Serialized bytes of all traces.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn contains(&self, id: &TraceId) -> bool {
        self.by_id.contains_key(id)
    }

    pub(crate) fn chunks(&self, id: &TraceId) -> &[ChunkRef] {
        self.by_id.get(id).map_or(&[], |trace| &trace.chunks)
    }

    /// When the first of their spans came, in nanoseconds since the epoch.
    pub(crate) fn first_came(&self) -> Option<u64> {
        self.by_id.values().map(|trace| trace.age.created).min()
    }

    /// Takes out the traces that are due at `now`.
    pub(crate) fn take_due(&mut self, cut: &TraceCut, now: u64) -> Vec<(TraceId, LiveTrace)> {
        let due: Vec<_> = self
            .by_id
            .extract_if(|_, trace| cut.is_due(&trace.age, now))
            .collect();
        self.forget_bytes(&due);
        due
    }

    /// Takes out the traces that were idle longest, until at most `keep_bytes` are held.
    pub(crate) fn take_idlest(&mut self, keep_bytes: u64) -> Vec<(TraceId, LiveTrace)> {
        let mut by_age: Vec<(u64, u64)> = self
            .by_id
            .values()
            .map(|trace| (trace.age.last_append, trace.bytes))
            .collect();
        by_age.sort_unstable();
        let mut excess = self.bytes.saturating_sub(keep_bytes);
        let mut cut_until = None;
        for (last_append, bytes) in by_age {
            if excess == 0 && cut_until != Some(last_append) {
                break;
            }
            excess = excess.saturating_sub(bytes);
            cut_until = Some(last_append);
        }
        let Some(cut_until) = cut_until else {
            return Vec::new();
        };
        let idlest: Vec<_> = self
            .by_id
            .extract_if(|_, trace| trace.age.last_append <= cut_until)
            .collect();
        self.forget_bytes(&idlest);
        idlest
    }

    /// Takes out all traces.
    pub(crate) fn take_all(&mut self) -> Vec<(TraceId, LiveTrace)> {
        self.bytes = 0;
        std::mem::take(&mut self.by_id).into_iter().collect()
    }

    fn forget_bytes(&mut self, taken: &[(TraceId, LiveTrace)]) {
        self.bytes -= taken.iter().map(|(_, trace)| trace.bytes).sum::<u64>();
        // A burst's table is not kept for ever.
        if self.by_id.len() < self.by_id.capacity() / 8 {
            self.by_id.shrink_to(self.by_id.len() * 2);
        }
    }
}

/// Sizes of traces for the limit of bytes per trace. Rejected bytes count too, so that a trace
/// over its limit stays over it. A trace that was not pushed between two closings of a block is
/// forgotten at the second.
#[derive(Debug, Default)]
pub(crate) struct TraceSizes {
    by_id: HashMap<TraceId, TraceSize, RandomState>,
}

#[derive(Debug, Clone, Copy, Default)]
struct TraceSize {
    bytes: u64,
    pushed: bool,
}

impl TraceSizes {
    /// Counts `bytes` more; whether the trace is within `max_bytes` with them.
    pub(crate) fn add(&mut self, id: TraceId, bytes: u64, max_bytes: u64) -> bool {
        let size = self.by_id.entry(id).or_default();
        size.bytes += bytes;
        size.pushed = true;
        size.bytes <= max_bytes
    }

    /// Takes back bytes that were counted but are not kept after all.
    pub(crate) fn take_back(&mut self, id: &TraceId, bytes: u64) {
        if let Some(size) = self.by_id.get_mut(id) {
            size.bytes = size.bytes.saturating_sub(bytes);
        }
    }

    /// A block was closed.
    pub(crate) fn block_closed(&mut self) {
        self.by_id
            .retain(|_, size| std::mem::replace(&mut size.pushed, false));
        self.by_id.shrink_to(self.by_id.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(n: u8) -> TraceId {
        TraceId::from_padded(&[n])
    }

    fn chunk(offset: u32, bytes: u32) -> ChunkRef {
        ChunkRef {
            segment: 1,
            offset,
            bytes,
            spans: 1,
            crc: 0,
        }
    }

    fn ids(taken: &[(TraceId, LiveTrace)]) -> Vec<TraceId> {
        let mut ids: Vec<_> = taken.iter().map(|(id, _)| *id).collect();
        ids.sort();
        ids
    }

    #[test]
    fn chunks_gather_by_trace_and_leave_together() {
        let mut traces = LiveTraces::default();
        traces.append(id(1), chunk(0, 10), 100);
        traces.append(id(2), chunk(10, 20), 100);
        traces.append(id(1), chunk(30, 30), 200);
        assert_eq!((traces.len(), traces.bytes()), (2, 60));
        assert_eq!(traces.chunks(&id(1)), [chunk(0, 10), chunk(30, 30)]);
        let cut = TraceCut {
            max_idle: Duration::from_nanos(50),
            max_live: Duration::from_nanos(1000),
        };
        let due = traces.take_due(&cut, 210);
        assert_eq!(ids(&due), [id(2)]);
        assert_eq!((traces.len(), traces.bytes()), (1, 40));
        assert_eq!(traces.take_all()[0].1.chunks.len(), 2);
        assert_eq!((traces.len(), traces.bytes()), (0, 0));
    }

    #[test]
    fn a_large_trace_is_split_between_chunks() {
        let parts = |sizes: &[u32]| {
            let mut traces = LiveTraces::default();
            for (offset, bytes) in (0..).zip(sizes) {
                traces.append(id(1), chunk(offset, *bytes), 100);
            }
            let (_, trace) = traces.take_all().remove(0);
            trace
                .split(100)
                .map(|part| {
                    let sizes: Vec<u32> = part.chunks.iter().map(|chunk| chunk.bytes).collect();
                    assert_eq!(
                        part.bytes,
                        sizes.iter().map(|&size| u64::from(size)).sum::<u64>()
                    );
                    sizes
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(parts(&[40, 60]), [vec![40, 60]]);
        assert_eq!(
            parts(&[40, 61, 39, 1, 250, 5]),
            [vec![40], vec![61, 39], vec![1], vec![250], vec![5]]
        );
        assert_eq!(parts(&[250]), [vec![250]]);
    }

    #[test]
    fn the_idlest_traces_go_first() {
        let mut traces = LiveTraces::default();
        for n in 0..10_u8 {
            traces.append(id(n), chunk(u32::from(n), 10), 1000 - u64::from(n) / 2);
        }
        // Two share each time: taking the 25 bytes that are too many takes two pairs.
        let taken = traces.take_idlest(75);
        assert_eq!(ids(&taken), [id(6), id(7), id(8), id(9)]);
        assert_eq!(traces.bytes(), 60);
        assert!(traces.take_idlest(60).is_empty());
        assert_eq!(traces.take_idlest(0).len(), 6);
    }

    #[test]
    fn a_trace_over_its_size_stays_over_it_until_two_blocks_closed_without_it() {
        let mut sizes = TraceSizes::default();
        assert!(sizes.add(id(1), 60, 100));
        assert!(!sizes.add(id(1), 60, 100));
        sizes.block_closed();
        assert!(!sizes.add(id(1), 60, 100), "rejected bytes count too");
        sizes.block_closed();
        sizes.block_closed();
        assert!(sizes.add(id(1), 60, 100));
        sizes.take_back(&id(1), 60);
        assert!(
            sizes.add(id(1), 100, 100),
            "what was refused is not counted twice"
        );
    }
}
