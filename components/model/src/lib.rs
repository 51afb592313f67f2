//! The words that every component shares: trace ids, tenants, hashes, and OTLP on the wire.
//!
//! Owns the zero-copy walk over OTLP protobuf bytes ([`otlp`]), the identity of traces
//! ([`TraceId`]) and tenants ([`tenant`]), the hashes that Tempo's formats fix ([`hash`]) and the
//! union of partial traces ([`TraceUnion`]). Must never do I/O, read a clock, or spawn a task.

mod batch;
pub mod hash;
pub mod otlp;
pub mod tenant;
mod trace_id;
mod trace_union;

pub use batch::{TraceBatch, TraceChunk};
pub use trace_id::{ParseTraceIdError, TraceId, to_hex};
pub use trace_union::TraceUnion;
