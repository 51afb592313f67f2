//! vParquet4: one fixed schema of 103 leaves.

use parquet::schema::types::TypePtr;
use tempo_table::AttributeScope;

use super::{
    common,
    leaf::{Codec, DedicatedType, Leaf, LeafColumn, LeafEncoding, LeafType, WellKnown},
    tree::{COUNT, DICT, Lists, PLAIN_INT, Tree, delta},
};

/// Spare text columns per scope.
const DEDICATED_STRINGS: u8 = 10;

pub(super) fn tree() -> (TypePtr, Vec<Leaf>) {
    let mut tree = Tree::new(Lists::ThreeLevel);
    let mut fields = common::trace_fields(&mut tree);
    fields.push(tree.map("ServiceStats", service_stats));
    fields.push(tree.list("rs", |tree| {
        vec![
            tree.group("Resource", resource),
            tree.list("ss", |tree| {
                vec![tree.group("Scope", common::scope), tree.list("Spans", span)]
            }),
        ]
    }));
    tree.finish(fields)
}

fn service_stats(tree: &mut Tree) -> Vec<TypePtr> {
    let name = (
        LeafType::Text,
        LeafEncoding::DeltaLength,
        Codec::Uncompressed,
    );
    let count = delta(LeafType::U32);
    vec![
        tree.required("key", LeafColumn::StatsServiceName, name),
        tree.group("value", |tree| {
            vec![
                tree.required("SpanCount", LeafColumn::StatsSpanCount, count),
                tree.required("ErrorCount", LeafColumn::StatsErrorCount, count),
            ]
        }),
    ]
}

fn resource(tree: &mut Tree) -> Vec<TypePtr> {
    let mut fields = vec![
        tree.attributes(AttributeScope::Resource),
        tree.required(
            "DroppedAttributesCount",
            LeafColumn::ResourceDroppedAttributes,
            COUNT,
        ),
        tree.required("ServiceName", LeafColumn::ResourceServiceName, DICT),
    ];
    fields.extend(well_known(tree, AttributeScope::Resource));
    fields.push(dedicated(tree, AttributeScope::Resource));
    fields
}

fn span(tree: &mut Tree) -> Vec<TypePtr> {
    let mut fields = common::span_ids(tree);
    fields.extend(common::span_body(tree, common::event));
    fields.extend(well_known(tree, AttributeScope::Span));
    fields.push(dedicated(tree, AttributeScope::Span));
    fields
}

fn well_known(tree: &mut Tree, scope: AttributeScope) -> Vec<TypePtr> {
    WellKnown::ALL
        .into_iter()
        .filter(|column| column.scope() == scope)
        .map(|column| {
            let storage = if column.is_int() { PLAIN_INT } else { DICT };
            tree.optional(column.column_name(), LeafColumn::WellKnown(column), storage)
        })
        .collect()
}

fn dedicated(tree: &mut Tree, scope: AttributeScope) -> TypePtr {
    tree.group("DedicatedAttributes", |tree| {
        (0..DEDICATED_STRINGS)
            .map(|slot| {
                tree.optional(
                    &format!("String{:02}", slot + 1),
                    LeafColumn::Dedicated(scope, DedicatedType::String, slot),
                    DICT,
                )
            })
            .collect()
    })
}
