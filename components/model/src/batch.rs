//! What one push hands from the distributor to whatever keeps it.

use bytes::Bytes;

use crate::TraceId;

/// The spans of one push, regrouped by trace.
#[derive(Debug, Clone, Default)]
pub struct TraceBatch {
    /// One entry per distinct trace, in no particular order.
    pub traces: Vec<TraceChunk>,
    /// Whether the sender asked that no metrics be generated from these spans.
    pub skip_metrics_generation: bool,
}

/// Some spans of one trace.
#[derive(Debug, Clone)]
pub struct TraceChunk {
    /// The trace.
    pub id: TraceId,
    /// A serialized `tempopb.Trace` (repeated OTLP `ResourceSpans`, field 1).
    pub trace: Bytes,
    /// How many spans it holds.
    pub spans: u32,
}

impl TraceBatch {
    /// Spans of all traces together.
    pub fn span_count(&self) -> u64 {
        self.traces.iter().map(|chunk| u64::from(chunk.spans)).sum()
    }

    /// Serialized bytes of all traces together.
    pub fn byte_count(&self) -> u64 {
        self.traces
            .iter()
            .map(|chunk| chunk.trace.len() as u64)
            .sum()
    }
}
