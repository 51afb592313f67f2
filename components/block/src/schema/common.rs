//! The parts that both versions share.

use parquet::schema::types::TypePtr;
use tempo_table::AttributeScope;

use super::{
    leaf::{Codec, LeafColumn, LeafEncoding, LeafType},
    tree::{COUNT, DICT, ID, Storage, TEXT, Tree, delta},
};

pub(super) const PLAIN_COUNT: Storage = (LeafType::I32, LeafEncoding::Plain, Codec::Snappy);

pub(super) fn trace_fields(tree: &mut Tree) -> Vec<TypePtr> {
    let name = (
        LeafType::Text,
        LeafEncoding::Dictionary,
        Codec::Uncompressed,
    );
    let nanos = delta(LeafType::U64);
    vec![
        tree.required("TraceID", LeafColumn::TraceId, ID),
        tree.required("TraceIDText", LeafColumn::TraceIdText, TEXT),
        tree.required("StartTimeUnixNano", LeafColumn::TraceStart, nanos),
        tree.required("EndTimeUnixNano", LeafColumn::TraceEnd, nanos),
        tree.required("DurationNano", LeafColumn::TraceDuration, nanos),
        tree.required("RootServiceName", LeafColumn::RootServiceName, name),
        tree.required("RootSpanName", LeafColumn::RootSpanName, name),
    ]
}

pub(super) fn scope(tree: &mut Tree) -> Vec<TypePtr> {
    vec![
        tree.required("Name", LeafColumn::ScopeName, DICT),
        tree.required("Version", LeafColumn::ScopeVersion, DICT),
        tree.attributes(AttributeScope::Instrumentation),
        tree.required(
            "DroppedAttributesCount",
            LeafColumn::ScopeDroppedAttributes,
            COUNT,
        ),
    ]
}

pub(super) fn span_ids(tree: &mut Tree) -> Vec<TypePtr> {
    let number = delta(LeafType::I32);
    vec![
        tree.required("SpanID", LeafColumn::SpanId, ID),
        tree.required("ParentSpanID", LeafColumn::ParentSpanId, ID),
        tree.required("ParentID", LeafColumn::ParentId, number),
        tree.required("NestedSetLeft", LeafColumn::NestedSetLeft, number),
        tree.required("NestedSetRight", LeafColumn::NestedSetRight, number),
    ]
}

/// From the name to the links; `event` lists the fields of an event.
pub(super) fn span_body(
    tree: &mut Tree,
    event: impl FnOnce(&mut Tree) -> Vec<TypePtr>,
) -> Vec<TypePtr> {
    let nanos = delta(LeafType::U64);
    let number = delta(LeafType::I64);
    vec![
        tree.required("Name", LeafColumn::SpanName, DICT),
        tree.required("Kind", LeafColumn::SpanKind, number),
        tree.required("TraceState", LeafColumn::TraceState, TEXT),
        tree.required("StartTimeUnixNano", LeafColumn::SpanStart, nanos),
        tree.required("DurationNano", LeafColumn::SpanDuration, nanos),
        tree.required("StatusCode", LeafColumn::StatusCode, number),
        tree.required("StatusMessage", LeafColumn::StatusMessage, TEXT),
        tree.attributes(AttributeScope::Span),
        tree.required(
            "DroppedAttributesCount",
            LeafColumn::SpanDroppedAttributes,
            COUNT,
        ),
        tree.list("Events", event),
        tree.required("DroppedEventsCount", LeafColumn::DroppedEvents, PLAIN_COUNT),
        tree.list("Links", link),
        tree.required("DroppedLinksCount", LeafColumn::DroppedLinks, PLAIN_COUNT),
    ]
}

pub(super) fn event(tree: &mut Tree) -> Vec<TypePtr> {
    vec![
        tree.required(
            "TimeSinceStartNano",
            LeafColumn::EventTimeSinceStart,
            delta(LeafType::U64),
        ),
        tree.required("Name", LeafColumn::EventName, DICT),
        tree.attributes(AttributeScope::Event),
        tree.required(
            "DroppedAttributesCount",
            LeafColumn::EventDroppedAttributes,
            COUNT,
        ),
    ]
}

fn link(tree: &mut Tree) -> Vec<TypePtr> {
    vec![
        tree.required("TraceID", LeafColumn::LinkTraceId, ID),
        tree.required("SpanID", LeafColumn::LinkSpanId, ID),
        tree.required("TraceState", LeafColumn::LinkTraceState, TEXT),
        tree.attributes(AttributeScope::Link),
        tree.required(
            "DroppedAttributesCount",
            LeafColumn::LinkDroppedAttributes,
            COUNT,
        ),
    ]
}
