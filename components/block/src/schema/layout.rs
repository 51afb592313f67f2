//! In which order the columns of a row group lie in the file.
//!
//! The format names the order of columns, not that of their bytes. What one query reads lies
//! together, so that few requests fetch it: names, kinds and places in the tree, which many scans
//! read, then what answers show of traces and spans and what says how rows belong together, and
//! right after that the attributes of spans.

use tempo_table::AttributeScope;

use super::leaf::LeafColumn;

/// Where a column belongs; columns of one place follow each other as the format has them.
pub(super) fn place(column: LeafColumn) -> u8 {
    use LeafColumn as C;
    match column {
        C::SpanName
        | C::SpanKind
        | C::ParentId
        | C::NestedSetLeft
        | C::NestedSetRight
        | C::ChildCount
        | C::StartRounded(_) => 0,
        C::TraceId
        | C::TraceStart
        | C::TraceDuration
        | C::RootServiceName
        | C::RootSpanName
        | C::ResourceServiceName
        | C::SpanId => 1,
        C::SpanStart | C::SpanDuration | C::StatusCode => 2,
        C::Attribute(AttributeScope::Span, _) => 3,
        C::WellKnown(_) | C::Dedicated(..) => 4,
        C::Attribute(AttributeScope::Resource, _) => 5,
        _ => 6,
    }
}
