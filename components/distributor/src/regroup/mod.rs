//! From one request to one chunk per trace, on the wire bytes.
//!
//! Owns the single walk that checks every field of an `ExportTraceServiceRequest` (`walk`), the
//! cutting of oversized attributes (`truncate`) and the writing of the per-trace messages
//! (`assemble`). Spans travel as byte ranges: nothing of them is decoded into objects, nothing
//! is lost (schema URLs, flags, dropped counts, unknown fields), and no span costs an allocation.
//! Must never do I/O, read a clock or know a tenant.

mod assemble;
mod malformed;
mod scratch;
mod truncate;
mod walk;

use tempo_model::{TraceBatch, TraceChunk};

pub use malformed::{Fault, Malformed};
pub use scratch::Scratch;
pub use truncate::{AttributeScope, TruncationExample, Truncations};
pub use walk::count_spans;

/// What bounds one regrouping.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Longest attribute key or string value, in bytes; `usize::MAX` for no limit.
    pub max_attribute_bytes: usize,
    /// Most bytes that all chunks together may take. A resource is repeated for each of its
    /// traces, so a small request can ask for a huge answer.
    pub max_regrouped_bytes: usize,
}

/// A request, regrouped.
#[derive(Debug)]
pub struct Regrouped {
    /// One chunk per trace.
    pub traces: Vec<TraceChunk>,
    /// What was cut.
    pub truncations: Truncations,
}

impl Regrouped {
    /// The batch to hand on.
    pub fn into_batch(self, skip_metrics_generation: bool) -> TraceBatch {
        TraceBatch {
            traces: self.traces,
            skip_metrics_generation,
        }
    }
}

/// Why a request was not regrouped.
#[derive(Debug, thiserror::Error)]
pub enum RegroupError {
    /// The request breaks the protocol; it will never be accepted.
    #[error("{0}")]
    Malformed(#[from] Box<Malformed>),
    /// Splitting by trace multiplies the request beyond what one push may take.
    #[error(
        "regrouped by trace the request takes {regrouped_bytes} bytes, more than the limit of \
         {max_regrouped_bytes}: its resources and scopes are repeated for each of {traces} traces; \
         send smaller batches or smaller resources"
    )]
    Amplified {
        /// What the chunks would take.
        regrouped_bytes: u64,
        /// [`Bounds::max_regrouped_bytes`].
        max_regrouped_bytes: usize,
        /// Distinct traces in the request.
        traces: usize,
    },
}

/// Checks `request`, a serialized `ExportTraceServiceRequest`, and regroups its spans by trace.
///
/// Within a trace, spans of the same input `ResourceSpans` and `ScopeSpans` stay together under
/// one header each, in input order. `ResourceSpans` and `ScopeSpans` without spans vanish.
pub fn regroup(
    request: &[u8],
    bounds: &Bounds,
    scratch: &mut Scratch,
) -> Result<Regrouped, RegroupError> {
    scratch.clear();
    let truncations = walk::walk(request, bounds.max_attribute_bytes, scratch)?;
    let traces = assemble::assemble(request, bounds.max_regrouped_bytes, scratch)?;
    Ok(Regrouped {
        traces,
        truncations,
    })
}
