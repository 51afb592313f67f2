//! The physical schema of `data.parquet`, for both block versions, as one table of leaves.
//!
//! Owns which columns a block has, in which order, with which type, encoding, codec and levels, so
//! that writer and reader cannot disagree. Readers of other implementations decode rows by leaf
//! position and find columns by dotted name: names, order, nesting and repetition are fixed by the
//! format; encodings and codecs follow Tempo's choice. Must never read or write a byte of a file.

mod common;
mod layout;
mod leaf;
mod tree;
mod v4;
mod v5;

use std::{fmt, str::FromStr, sync::Arc};

use hashbrown::HashMap;
use parquet::schema::types::{SchemaDescPtr, SchemaDescriptor, TypePtr};

pub use leaf::{
    AttributeLeaf, Codec, DedicatedLeaf, DedicatedType, Leaf, LeafColumn, LeafEncoding, LeafType,
    WellKnown,
};
pub(crate) use v5::ROUNDED_STEPS_SECONDS;

/// Which of Tempo's block formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// The default of Tempo 3.0: fixed schema of 103 leaves, three-level lists.
    VParquet4,
    /// The default after Tempo 3.0: plain repeated groups, multi-valued dedicated columns.
    VParquet5,
}

impl Version {
    /// The text of `meta.json`'s `format`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VParquet4 => "vParquet4",
            Self::VParquet5 => "vParquet5",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no block version that can be read and written here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0} is not a valid block version: use vParquet4 or vParquet5")]
pub struct UnknownVersion(pub String);

impl FromStr for Version {
    type Err = UnknownVersion;

    /// Exact and case sensitive, as in Tempo.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "vParquet4" => Ok(Self::VParquet4),
            "vParquet5" => Ok(Self::VParquet5),
            other => Err(UnknownVersion(other.to_owned())),
        }
    }
}

/// The columns of one block. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlockSchema {
    version: Version,
    leaves: Arc<[Leaf]>,
    by_column: Arc<HashMap<LeafColumn, usize>>,
    layout: Arc<[usize]>,
    descriptor: SchemaDescPtr,
}

impl BlockSchema {
    /// The schema of vParquet4; the same for every block.
    pub fn v4() -> Self {
        Self::assemble(Version::VParquet4, v4::tree())
    }

    /// The schema of vParquet5 with these dedicated leaves (assigned from the block's
    /// `dedicatedColumns`); only they exist in the file.
    pub fn v5(dedicated: &[DedicatedLeaf]) -> Self {
        Self::assemble(Version::VParquet5, v5::tree(dedicated))
    }

    fn assemble(version: Version, (root, leaves): (TypePtr, Vec<Leaf>)) -> Self {
        let by_column = leaves
            .iter()
            .enumerate()
            .map(|(index, leaf)| (leaf.column, index))
            .collect();
        let mut layout: Vec<usize> = (0..leaves.len()).collect();
        layout.sort_by_key(|&index| layout::place(leaves[index].column));
        Self {
            version,
            leaves: leaves.into(),
            by_column: Arc::new(by_column),
            layout: layout.into(),
            descriptor: Arc::new(SchemaDescriptor::new(root)),
        }
    }

    /// Which format.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The leaves in the order of the format.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// Positions of all leaves, in the order in which our row groups hold their bytes. The format
    /// leaves it open.
    pub fn layout(&self) -> &[usize] {
        &self.layout
    }

    /// The position of a column in file order; `None` when this block has no such column.
    pub fn position(&self, column: LeafColumn) -> Option<usize> {
        self.by_column.get(&column).copied()
    }

    /// The leaf of a column; `None` when this block has no such column.
    pub fn leaf(&self, column: LeafColumn) -> Option<&Leaf> {
        self.position(column).map(|index| &self.leaves[index])
    }

    /// The schema in the words of the parquet library.
    pub fn descriptor(&self) -> &SchemaDescPtr {
        &self.descriptor
    }
}

#[cfg(test)]
mod tests;
