//! Builds a message type and its table of leaves side by side.

use std::sync::Arc;

use parquet::{
    basic::{LogicalType, Repetition},
    schema::types::{Type, TypePtr},
};
use tempo_table::AttributeScope;

use super::leaf::{AttributeLeaf, Codec, Leaf, LeafColumn, LeafEncoding, LeafType};

/// How lists are laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lists {
    /// `required group X (LIST) { repeated group list { required E element } }`.
    ThreeLevel,
    /// `repeated E X`.
    Bare,
}

/// Type, encoding and codec of a leaf.
pub(super) type Storage = (LeafType, LeafEncoding, Codec);

pub(super) const DICT: Storage = (LeafType::Text, LeafEncoding::Dictionary, Codec::Snappy);
pub(super) const TEXT: Storage = (LeafType::Text, LeafEncoding::DeltaLength, Codec::Snappy);
pub(super) const ID: Storage = (
    LeafType::Bytes,
    LeafEncoding::DeltaLength,
    Codec::Uncompressed,
);
pub(super) const COUNT: Storage = (
    LeafType::I32,
    LeafEncoding::DeltaBinaryPacked,
    Codec::Snappy,
);
pub(super) const PLAIN_INT: Storage = (LeafType::I64, LeafEncoding::Plain, Codec::Snappy);

/// A delta-coded, uncompressed integer.
pub(super) const fn delta(value_type: LeafType) -> Storage {
    (
        value_type,
        LeafEncoding::DeltaBinaryPacked,
        Codec::Uncompressed,
    )
}

/// The walk through the tree: where it stands and which leaves it has passed.
pub(super) struct Tree {
    lists: Lists,
    path: Vec<String>,
    rep: i16,
    def: i16,
    leaves: Vec<Leaf>,
}

impl Tree {
    pub(super) fn new(lists: Lists) -> Self {
        Self {
            lists,
            path: Vec::new(),
            rep: 0,
            def: 0,
            leaves: Vec::new(),
        }
    }

    /// Closes the root message.
    pub(super) fn finish(self, fields: Vec<TypePtr>) -> (TypePtr, Vec<Leaf>) {
        let root = built(
            Type::group_type_builder("Trace")
                .with_fields(fields)
                .build(),
        );
        (root, self.leaves)
    }

    fn leaf(
        &mut self,
        name: &str,
        repetition: Repetition,
        column: LeafColumn,
        (value_type, encoding, codec): Storage,
    ) -> TypePtr {
        self.path.push(name.to_owned());
        let repeated = i16::from(repetition == Repetition::REPEATED);
        let optional = i16::from(repetition != Repetition::REQUIRED);
        self.leaves.push(Leaf {
            column,
            path: self.path.join("."),
            value_type,
            encoding,
            codec,
            max_rep: self.rep + repeated,
            max_def: self.def + optional,
            blob: codec == Codec::Zstd,
        });
        self.path.pop();
        let logical = match value_type {
            LeafType::Text => Some(LogicalType::String),
            LeafType::I32 => Some(LogicalType::integer(32, true)),
            LeafType::U32 => Some(LogicalType::integer(32, false)),
            LeafType::I64 => Some(LogicalType::integer(64, true)),
            LeafType::U64 => Some(LogicalType::integer(64, false)),
            LeafType::Bytes | LeafType::F64 | LeafType::Bool => None,
        };
        built(
            Type::primitive_type_builder(name, value_type.physical())
                .with_repetition(repetition)
                .with_logical_type(logical)
                .build(),
        )
    }

    pub(super) fn required(&mut self, name: &str, column: LeafColumn, storage: Storage) -> TypePtr {
        self.leaf(name, Repetition::REQUIRED, column, storage)
    }

    pub(super) fn optional(&mut self, name: &str, column: LeafColumn, storage: Storage) -> TypePtr {
        self.leaf(name, Repetition::OPTIONAL, column, storage)
    }

    /// A list of scalars.
    pub(super) fn values(&mut self, name: &str, column: LeafColumn, storage: Storage) -> TypePtr {
        match self.lists {
            Lists::Bare => self.leaf(name, Repetition::REPEATED, column, storage),
            Lists::ThreeLevel => self.list_wrapper(name, |tree| {
                tree.leaf("element", Repetition::REQUIRED, column, storage)
            }),
        }
    }

    /// A list of groups.
    pub(super) fn list(
        &mut self,
        name: &str,
        fields: impl FnOnce(&mut Self) -> Vec<TypePtr>,
    ) -> TypePtr {
        match self.lists {
            Lists::Bare => self.group_of(name, Repetition::REPEATED, None, fields),
            Lists::ThreeLevel => self.list_wrapper(name, |tree| tree.group("element", fields)),
        }
    }

    fn list_wrapper(&mut self, name: &str, element: impl FnOnce(&mut Self) -> TypePtr) -> TypePtr {
        self.group_of(
            name,
            Repetition::REQUIRED,
            Some(LogicalType::List),
            |tree| {
                vec![tree.group_of("list", Repetition::REPEATED, None, |tree| {
                    vec![element(tree)]
                })]
            },
        )
    }

    /// `required group X (MAP) { repeated group key_value { … } }`.
    pub(super) fn map(
        &mut self,
        name: &str,
        fields: impl FnOnce(&mut Self) -> Vec<TypePtr>,
    ) -> TypePtr {
        self.group_of(name, Repetition::REQUIRED, Some(LogicalType::Map), |tree| {
            vec![tree.group_of("key_value", Repetition::REPEATED, None, fields)]
        })
    }

    /// A required group.
    pub(super) fn group(
        &mut self,
        name: &str,
        fields: impl FnOnce(&mut Self) -> Vec<TypePtr>,
    ) -> TypePtr {
        self.group_of(name, Repetition::REQUIRED, None, fields)
    }

    fn group_of(
        &mut self,
        name: &str,
        repetition: Repetition,
        logical: Option<LogicalType>,
        fields: impl FnOnce(&mut Self) -> Vec<TypePtr>,
    ) -> TypePtr {
        let repeated = i16::from(repetition == Repetition::REPEATED);
        self.path.push(name.to_owned());
        self.rep += repeated;
        self.def += repeated;
        let fields = fields(self);
        self.path.pop();
        self.rep -= repeated;
        self.def -= repeated;
        built(
            Type::group_type_builder(name)
                .with_repetition(repetition)
                .with_logical_type(logical)
                .with_fields(fields)
                .build(),
        )
    }

    /// The generic attributes of a scope.
    pub(super) fn attributes(&mut self, scope: AttributeScope) -> TypePtr {
        let column = |leaf| LeafColumn::Attribute(scope, leaf);
        self.list("Attrs", |tree| {
            vec![
                tree.required("Key", column(AttributeLeaf::Key), DICT),
                tree.required(
                    "IsArray",
                    column(AttributeLeaf::IsArray),
                    (LeafType::Bool, LeafEncoding::Plain, Codec::Snappy),
                ),
                tree.values("Value", column(AttributeLeaf::Value), DICT),
                tree.values("ValueInt", column(AttributeLeaf::ValueInt), PLAIN_INT),
                tree.values(
                    "ValueDouble",
                    column(AttributeLeaf::ValueDouble),
                    (LeafType::F64, LeafEncoding::Plain, Codec::Snappy),
                ),
                tree.values(
                    "ValueBool",
                    column(AttributeLeaf::ValueBool),
                    (LeafType::Bool, LeafEncoding::Plain, Codec::Snappy),
                ),
                tree.optional(
                    "ValueUnsupported",
                    column(AttributeLeaf::ValueUnsupported),
                    TEXT,
                ),
            ]
        })
    }
}

/// The trees are constants of the format: a failure to build one is a defect of this file that
/// every test of the schema would meet.
#[expect(clippy::expect_used)]
fn built(result: parquet::errors::Result<Type>) -> TypePtr {
    Arc::new(result.expect("the block schema is a valid parquet schema"))
}
