//! OTLP trace bytes, walked in place.
//!
//! Owns the protobuf field scanner ([`Fields`]) and the borrowed views of resource spans, scopes,
//! spans, attributes, events and links. Nothing is copied and nothing is allocated: a view holds
//! the bytes of its message and scans them when asked. Must never build an object per span.
//!
//! Protobuf lets a writer send fields in any order, twice, or unknown ones; the views follow its
//! rules: the last scalar wins, unknown fields are skipped. Field numbers are those of
//! `opentelemetry/proto/trace/v1/trace.proto` and `common.proto`.

mod fields;
mod value;
mod views;

pub use fields::{
    Fields, RawField, WireError, WireType, len_prefixed_len, varint_len, write_len_prefixed,
    write_message, write_varint,
};
pub use value::{AnyValueRef, ArrayRef, KeyValueRef, MAX_VALUE_NESTING_DEPTH};
pub use views::{
    EventRef, LinkRef, ResourceSpansRef, ScopeRef, ScopeSpansRef, SpanRef, resource_spans,
};
