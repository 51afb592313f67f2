//! Which attribute lives in which spare leaf of a block.
//!
//! Owns the assignment that a block's `dedicatedColumns` imply, so that writer and reader cannot
//! disagree: per scope and type the k-th listed column takes the k-th spare leaf; what the version
//! has no leaf for is ignored, and such attributes stay generic.

use std::sync::Arc;

use tempo_backend::{
    BlockFormat, DedicatedColumns, DedicatedScope, DedicatedType as ListedType, MAX_INT_COLUMNS_V5,
    MAX_STRING_COLUMNS_V4, MAX_STRING_COLUMNS_V5,
};
use tempo_table::AttributeScope;

use crate::schema::{BlockSchema, DedicatedLeaf, DedicatedType, LeafColumn, Version};

/// An attribute with a leaf of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DedicatedAttribute {
    /// The attribute's key.
    pub name: Arc<str>,
    /// The leaf that holds it.
    pub leaf: DedicatedLeaf,
}

impl DedicatedAttribute {
    /// The column in the block's schema.
    pub fn column(&self) -> LeafColumn {
        LeafColumn::Dedicated(self.leaf.scope, self.leaf.value_type, self.leaf.slot)
    }
}

/// The attributes that get a leaf of their own in a block of `version` whose meta lists
/// `columns`, in the order of the list.
pub fn assign(version: Version, columns: &DedicatedColumns) -> Vec<DedicatedAttribute> {
    let (format, strings, ints) = match version {
        Version::VParquet4 => (BlockFormat::VParquet4, MAX_STRING_COLUMNS_V4, 0),
        Version::VParquet5 => (
            BlockFormat::VParquet5,
            MAX_STRING_COLUMNS_V5,
            MAX_INT_COLUMNS_V5,
        ),
    };
    let mut assigned: Vec<DedicatedAttribute> = Vec::new();
    for column in columns.retained_by(&format).as_slice() {
        let scope = match column.scope {
            DedicatedScope::Resource => AttributeScope::Resource,
            DedicatedScope::Span => AttributeScope::Span,
            DedicatedScope::Event => AttributeScope::Event,
            DedicatedScope::Other(_) => continue,
        };
        let (value_type, available) = match column.kind {
            ListedType::String => (DedicatedType::String, strings),
            ListedType::Int => (DedicatedType::Int, ints),
            ListedType::Other(_) => continue,
        };
        let taken = assigned
            .iter()
            .filter(|other| other.leaf.scope == scope && other.leaf.value_type == value_type)
            .count();
        if taken >= available {
            continue;
        }
        assigned.push(DedicatedAttribute {
            name: Arc::from(column.name.as_str()),
            leaf: DedicatedLeaf {
                scope,
                value_type,
                slot: taken as u8,
                blob: column.is_blob(),
            },
        });
    }
    assigned
}

/// The physical schema of a block of `version` with these dedicated attributes.
pub fn schema_of(version: Version, dedicated: &[DedicatedAttribute]) -> BlockSchema {
    match version {
        Version::VParquet4 => BlockSchema::v4(),
        Version::VParquet5 => {
            let leaves: Vec<DedicatedLeaf> = dedicated.iter().map(|column| column.leaf).collect();
            BlockSchema::v5(&leaves)
        }
    }
}

#[cfg(test)]
mod tests {
    use tempo_backend::DedicatedColumn;

    use super::*;

    fn names(version: Version, columns: &DedicatedColumns) -> Vec<String> {
        assign(version, columns)
            .iter()
            .map(|column| {
                let leaf = column.leaf;
                format!(
                    "{:?} {:?} {} {}",
                    leaf.scope, leaf.value_type, leaf.slot, column.name
                )
            })
            .collect()
    }

    #[test]
    fn columns_take_leaves_per_scope_and_type_in_list_order() {
        let defaults = DedicatedColumns::tempo_defaults();
        let v5 = names(Version::VParquet5, &defaults);
        assert_eq!(v5.len(), 14);
        assert_eq!(v5[3], "Resource String 3 k8s.container.name");
        assert_eq!(v5[4], "Span String 0 http.request.method");
        assert_eq!(v5[5], "Span Int 0 http.response.status_code");
        assert_eq!(v5[13], "Span Int 2 http.status_code");
        // vParquet4 has no integers and columns of its own for the well-known ones.
        assert_eq!(
            names(Version::VParquet4, &defaults),
            [
                "Span String 0 http.request.method",
                "Span String 1 url.path",
                "Span String 2 url.route",
                "Span String 3 server.address",
                "Span String 4 http.route",
            ]
        );
    }

    #[test]
    fn a_surplus_is_left_generic() {
        let many: Vec<DedicatedColumn> = (0..25)
            .map(|index| DedicatedColumn::string(DedicatedScope::Span, &format!("a{index}")))
            .collect();
        let columns = DedicatedColumns::from(many);
        assert_eq!(assign(Version::VParquet5, &columns).len(), 20);
        assert_eq!(assign(Version::VParquet4, &columns).len(), 10);
    }
}
