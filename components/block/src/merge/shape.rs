//! Which leaves share their levels.

use tempo_table::AttributeScope;

use crate::schema::{AttributeLeaf, BlockSchema, Leaf, LeafColumn};

/// What the levels of a leaf are the levels of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    /// No levels: one value per row.
    Rows,
    /// Those of the leaf at this position, which is the first of its kind.
    LikeLeaf(usize),
}

/// The shape of every leaf.
pub(super) fn shapes(schema: &BlockSchema) -> Vec<Shape> {
    let leaves = schema.leaves();
    leaves
        .iter()
        .enumerate()
        .map(|(at, leaf)| {
            if leaf.max_def == 0 {
                return Shape::Rows;
            }
            let group = group_of(leaf);
            let first = leaves.iter().position(|other| {
                group.is_some() && group == group_of(other) && other.max_def == leaf.max_def
            });
            Shape::LikeLeaf(first.unwrap_or(at))
        })
        .collect()
}

/// The owner of a leaf that every owner has exactly once; `None` for leaves with levels of their
/// own.
fn group_of(leaf: &Leaf) -> Option<(u8, Option<AttributeScope>)> {
    use LeafColumn as C;
    let group = match leaf.column {
        C::StatsServiceName | C::StatsSpanCount | C::StatsErrorCount => 0,
        C::ResourceServiceName | C::ResourceDroppedAttributes => 1,
        C::ScopeName | C::ScopeVersion | C::ScopeDroppedAttributes | C::ScopeSpanCount => 2,
        C::SpanId
        | C::ParentSpanId
        | C::ParentId
        | C::NestedSetLeft
        | C::NestedSetRight
        | C::ChildCount
        | C::SpanName
        | C::SpanKind
        | C::TraceState
        | C::SpanStart
        | C::SpanDuration
        | C::StatusCode
        | C::StatusMessage
        | C::SpanDroppedAttributes
        | C::DroppedEvents
        | C::DroppedLinks
        | C::StartRounded(_) => 3,
        C::EventTimeSinceStart | C::EventName | C::EventDroppedAttributes => 4,
        C::LinkTraceId | C::LinkSpanId | C::LinkTraceState | C::LinkDroppedAttributes => 5,
        C::Attribute(scope, AttributeLeaf::Key | AttributeLeaf::IsArray) => {
            return Some((6, Some(scope)));
        }
        _ => return None,
    };
    Some((group, None))
}
