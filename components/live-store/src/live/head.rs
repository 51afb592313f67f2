//! The traces that were cut: those gathering for the next block, and closed blocks that are not
//! complete yet.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tempo_model::TraceId;
use uuid::Uuid;

use super::traces::LiveTrace;
use crate::wal::ChunkRef;

/// The traces of the next block. A trace may be in it several times, cut at different times.
#[derive(Debug, Default)]
pub(crate) struct Head {
    traces: Vec<(TraceId, LiveTrace)>,
    bytes: u64,
    /// When the first trace came, in nanoseconds since the epoch.
    since: u64,
    /// Bytes of each trace, once any may be too large.
    by_trace: Option<HashMap<TraceId, u64, RandomState>>,
}

impl Head {
    pub(crate) fn push(&mut self, id: TraceId, trace: LiveTrace, now: u64) {
        if self.traces.is_empty() {
            self.since = now;
        }
        self.bytes += trace.bytes;
        if let Some(by_trace) = &mut self.by_trace {
            *by_trace.entry(id).or_default() += trace.bytes;
        }
        self.traces.push((id, trace));
    }

    /// Whether so many bytes more of a trace leave it within `max_trace_bytes`.
    pub(crate) fn has_room_for(&mut self, id: &TraceId, bytes: u64, max_trace_bytes: u64) -> bool {
        if self.traces.is_empty() || self.bytes + bytes <= max_trace_bytes {
            return true;
        }
        let traces = &self.traces;
        let by_trace = self.by_trace.get_or_insert_with(|| {
            let mut by_trace = HashMap::default();
            for (id, trace) in traces {
                *by_trace.entry(*id).or_default() += trace.bytes;
            }
            by_trace
        });
        match by_trace.get(id) {
            Some(held) => held + bytes <= max_trace_bytes,
            // However large: it fits better nowhere.
            None => true,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }

    /// Serialized bytes of all traces.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn since(&self) -> u64 {
        self.since
    }

    /// When the first of the spans came, in nanoseconds since the epoch.
    pub(crate) fn first_came(&self) -> Option<u64> {
        first_came(&self.traces)
    }

    /// Closes the block and begins the next one.
    pub(crate) fn close(&mut self, id: Uuid) -> CutBlock {
        let head = std::mem::take(self);
        CutBlock {
            id,
            first_came: head.first_came().unwrap_or(0),
            traces: head.traces,
            bytes: head.bytes,
        }
    }

    pub(crate) fn chunks(&self, id: &TraceId) -> impl Iterator<Item = &ChunkRef> {
        chunks_of(&self.traces, id)
    }
}

/// A closed block: what a complete block will hold.
#[derive(Debug)]
pub(crate) struct CutBlock {
    pub(crate) id: Uuid,
    traces: Vec<(TraceId, LiveTrace)>,
    /// Serialized bytes of all traces.
    pub(crate) bytes: u64,
    /// When the first of the spans came, in nanoseconds since the epoch.
    pub(crate) first_came: u64,
}

fn first_came(traces: &[(TraceId, LiveTrace)]) -> Option<u64> {
    traces.iter().map(|(_, trace)| trace.age.created).min()
}

/// A trace of a closed block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CutTrace {
    pub(crate) id: TraceId,
    /// In log order.
    pub(crate) chunks: Vec<ChunkRef>,
    /// When its last spans came, in nanoseconds since the epoch.
    pub(crate) last_append: u64,
}

impl CutBlock {
    pub(crate) fn chunks(&self, id: &TraceId) -> impl Iterator<Item = &ChunkRef> {
        chunks_of(&self.traces, id)
    }

    /// The traces in the order in which they were cut.
    pub(crate) fn traces(&self) -> &[(TraceId, LiveTrace)] {
        &self.traces
    }

    pub(crate) fn all_chunks(&self) -> impl Iterator<Item = ChunkRef> + '_ {
        let traces = self.traces.iter();
        traces.flat_map(|(_, trace)| trace.chunks.iter().copied())
    }

    /// The traces by id, each once.
    pub(crate) fn sorted(&self) -> Vec<CutTrace> {
        let mut order: Vec<u32> = (0..self.traces.len() as u32).collect();
        order.sort_unstable_by_key(|&at| self.traces[at as usize].0);
        let mut sorted: Vec<CutTrace> = Vec::with_capacity(order.len());
        for at in order {
            let (id, trace) = &self.traces[at as usize];
            match sorted.last_mut() {
                Some(same) if same.id == *id => {
                    same.chunks.extend_from_slice(&trace.chunks);
                    same.last_append = same.last_append.max(trace.age.last_append);
                }
                _ => sorted.push(CutTrace {
                    id: *id,
                    chunks: trace.chunks.clone(),
                    last_append: trace.age.last_append,
                }),
            }
        }
        for trace in &mut sorted {
            trace.chunks.sort_unstable();
        }
        sorted
    }
}

fn chunks_of<'a>(
    traces: &'a [(TraceId, LiveTrace)],
    id: &TraceId,
) -> impl Iterator<Item = &'a ChunkRef> + use<'a> {
    let id = *id;
    traces
        .iter()
        .filter(move |(held, _)| *held == id)
        .flat_map(|(_, trace)| &trace.chunks)
}

#[cfg(test)]
mod tests {
    use super::{super::cut::TraceAge, *};

    fn trace(offsets: &[u32], last_append: u64) -> LiveTrace {
        LiveTrace {
            chunks: offsets
                .iter()
                .map(|&offset| ChunkRef {
                    segment: 1,
                    offset,
                    bytes: 10,
                    spans: 1,
                    crc: 0,
                })
                .collect(),
            age: TraceAge {
                created: 1,
                last_append,
            },
            bytes: 10 * offsets.len() as u64,
        }
    }

    #[test]
    fn a_trace_cut_twice_is_one_in_the_block() {
        let [one, two] = [1, 2].map(|n| TraceId::from_padded(&[n]));
        let mut head = Head::default();
        head.push(two, trace(&[50], 7), 100);
        head.push(one, trace(&[40, 20], 8), 200);
        head.push(two, trace(&[10], 9), 300);
        assert_eq!((head.bytes(), head.since()), (40, 100));
        assert_eq!(head.chunks(&two).count(), 2);
        let block = head.close(Uuid::nil());
        assert!(head.is_empty());
        assert_eq!(block.all_chunks().count(), 4);
        let sorted: Vec<_> = block
            .sorted()
            .into_iter()
            .map(|trace| {
                let offsets: Vec<u32> = trace.chunks.iter().map(|chunk| chunk.offset).collect();
                (trace.id, offsets, trace.last_append)
            })
            .collect();
        assert_eq!(sorted, [(one, vec![20, 40], 8), (two, vec![10, 50], 9)]);
    }
}
