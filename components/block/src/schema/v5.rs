//! vParquet5: 78 leaves and those dedicated ones that the block's `dedicatedColumns` assign.

use parquet::schema::types::TypePtr;
use tempo_table::AttributeScope;

use super::{
    common,
    leaf::{Codec, DedicatedLeaf, DedicatedType, Leaf, LeafColumn, LeafEncoding, LeafType},
    tree::{COUNT, DICT, Lists, PLAIN_INT, Tree, delta},
};

/// The steps, in seconds, of the start-time columns.
pub(crate) const ROUNDED_STEPS_SECONDS: [u32; 4] = [15, 60, 300, 3600];

pub(super) fn tree(dedicated: &[DedicatedLeaf]) -> (TypePtr, Vec<Leaf>) {
    let mut tree = Tree::new(Lists::Bare);
    let mut fields = common::trace_fields(&mut tree);
    fields.push(tree.list("ServiceStats", service_stats));
    fields.push(tree.list("rs", |tree| {
        vec![
            tree.group("Resource", |tree| resource(tree, dedicated)),
            tree.list("ss", |tree| {
                vec![
                    tree.group("Scope", common::scope),
                    tree.list("Spans", |tree| span(tree, dedicated)),
                    tree.required(
                        "SpanCount",
                        LeafColumn::ScopeSpanCount,
                        delta(LeafType::I32),
                    ),
                ]
            }),
        ]
    }));
    tree.finish(fields)
}

fn service_stats(tree: &mut Tree) -> Vec<TypePtr> {
    let count = delta(LeafType::U32);
    vec![
        tree.required("ServiceName", LeafColumn::StatsServiceName, DICT),
        tree.required("SpanCount", LeafColumn::StatsSpanCount, count),
        tree.required("ErrorCount", LeafColumn::StatsErrorCount, count),
    ]
}

fn resource(tree: &mut Tree, dedicated: &[DedicatedLeaf]) -> Vec<TypePtr> {
    let mut fields = vec![
        tree.required("ServiceName", LeafColumn::ResourceServiceName, DICT),
        tree.attributes(AttributeScope::Resource),
        tree.required(
            "DroppedAttributesCount",
            LeafColumn::ResourceDroppedAttributes,
            COUNT,
        ),
    ];
    fields.extend(dedicated_group(tree, AttributeScope::Resource, dedicated));
    fields
}

fn span(tree: &mut Tree, dedicated: &[DedicatedLeaf]) -> Vec<TypePtr> {
    let mut fields = common::span_ids(tree);
    fields.push(tree.required("ChildCount", LeafColumn::ChildCount, delta(LeafType::I32)));
    fields.extend(common::span_body(tree, |tree| {
        let mut fields = common::event(tree);
        fields.extend(dedicated_group(tree, AttributeScope::Event, dedicated));
        fields
    }));
    fields.extend(dedicated_group(tree, AttributeScope::Span, dedicated));
    fields.extend(ROUNDED_STEPS_SECONDS.map(|step| {
        tree.required(
            &format!("StartTimeRounded{step}"),
            LeafColumn::StartRounded(step),
            delta(LeafType::U32),
        )
    }));
    fields
}

/// The group exists only when the scope has a dedicated column.
fn dedicated_group(
    tree: &mut Tree,
    scope: AttributeScope,
    dedicated: &[DedicatedLeaf],
) -> Option<TypePtr> {
    let mut leaves: Vec<&DedicatedLeaf> = dedicated
        .iter()
        .filter(|leaf| leaf.scope == scope)
        .collect();
    leaves.sort_by_key(|leaf| (leaf.value_type, leaf.slot));
    if leaves.is_empty() {
        return None;
    }
    Some(tree.group("DedicatedAttributes", |tree| {
        leaves
            .into_iter()
            .map(|leaf| {
                let column = LeafColumn::Dedicated(scope, leaf.value_type, leaf.slot);
                let (prefix, mut storage) = match leaf.value_type {
                    DedicatedType::String => ("String", DICT),
                    DedicatedType::Int => ("Int", PLAIN_INT),
                };
                if leaf.blob {
                    let encoding = match leaf.value_type {
                        DedicatedType::String => LeafEncoding::DeltaLength,
                        DedicatedType::Int => LeafEncoding::Plain,
                    };
                    storage = (storage.0, encoding, Codec::Zstd);
                }
                tree.values(&format!("{prefix}{:02}", leaf.slot + 1), column, storage)
            })
            .collect()
    }))
}
