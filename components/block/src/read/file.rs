//! The footer of a block, resolved: which leaf of the file holds which column.
//!
//! Owns what is the same for every query of a block and therefore cached: footer, positions of the
//! columns, offset indexes. Must never hold data.

use std::ops::Range;

use bytes::Bytes;
use hashbrown::HashMap;
use tempo_backend::{BlockMeta, cache::CacheRole};
use tempo_table::{AttributeScope, TableError};

use super::{
    Malformed,
    footer::{self, FileLeaf, Footer, Physical, TAIL_BYTES},
    group::LeafIndex,
    source::Source,
};
use crate::{
    dedicated::{self, DedicatedAttribute},
    schema::{Leaf, LeafColumn, LeafType, Version, WellKnown},
};

/// Bytes read before the footer in the same request, where the offset indexes usually are.
const INDEX_GUESS_BYTES: u64 = 64 * 1024;

/// Offset indexes beyond this size are not kept; pages are then found by walking their headers.
const MAX_OFFSET_INDEX_BYTES: u64 = 64 * 1024 * 1024;

/// What is known of a block's file before any data is read.
#[derive(Debug)]
pub(crate) struct BlockFile {
    version: Version,
    footer: Footer,
    columns: HashMap<LeafColumn, LeafIndex>,
    dedicated: Vec<DedicatedAttribute>,
    /// Where the kept bytes begin in the file, and those bytes.
    offset_indexes: Option<(u64, Bytes)>,
}

impl BlockFile {
    /// Reads the end of the file, in one request when the meta is right about the footer's length.
    pub(crate) fn read(
        source: &Source,
        version: Version,
        meta: &BlockMeta,
    ) -> Result<Self, TableError> {
        let corrupt = |Malformed(reason): Malformed| TableError::Corrupt {
            what: format!("footer of {}", source.name()),
            reason: reason.to_owned(),
        };
        let len = source.len();
        if len < TAIL_BYTES as u64 * 2 {
            return Err(corrupt(Malformed("meta.json names no size of the file")));
        }
        let guess = u64::from(meta.footer_size) + TAIL_BYTES as u64 + INDEX_GUESS_BYTES;
        let mut start = len.saturating_sub(guess);
        let mut tail = source.read_range_of(CacheRole::ParquetFooter, start..len)?;
        let footer_len = footer::footer_len(&tail).map_err(corrupt)? as u64;
        let footer_start = len
            .checked_sub(footer_len + TAIL_BYTES as u64)
            .ok_or_else(|| corrupt(Malformed("footer is longer than the file")))?;
        if footer_start < start {
            start = footer_start;
            tail = source.read_range_of(CacheRole::ParquetFooter, start..len)?;
        }
        let message = (footer_start - start) as usize..tail.len() - TAIL_BYTES;
        let footer = Footer::parse(&tail[message], len).map_err(corrupt)?;
        let offset_indexes = match offset_index_range(&footer) {
            Some(range) if range.start >= start && range.end <= len => {
                let within = (range.start - start) as usize..(range.end - start) as usize;
                Some((range.start, Bytes::copy_from_slice(&tail[within])))
            }
            Some(range) => {
                let role = CacheRole::ParquetOffsetIndex;
                Some((range.start, source.read_range_of(role, range)?))
            }
            None => None,
        };
        Self::resolve(version, meta, footer, offset_indexes).map_err(
            |UnexpectedColumn { path, reason }| TableError::Corrupt {
                what: format!("schema of {}", source.name()),
                reason: format!("column {path} {reason}"),
            },
        )
    }

    fn resolve(
        version: Version,
        meta: &BlockMeta,
        footer: Footer,
        offset_indexes: Option<(u64, Bytes)>,
    ) -> Result<Self, UnexpectedColumn> {
        let dedicated = dedicated::assign(version, &meta.dedicated_columns);
        let schema = dedicated::schema_of(version, &dedicated);
        let by_path: HashMap<&str, (LeafIndex, &FileLeaf)> = footer
            .leaves
            .iter()
            .enumerate()
            .map(|(index, leaf)| (&*leaf.path, (index, leaf)))
            .collect();
        let mut columns = HashMap::new();
        for leaf in schema.leaves() {
            match by_path.get(leaf.path.as_str()) {
                Some(&(index, found)) => {
                    check(leaf, found)?;
                    columns.insert(leaf.column, index);
                }
                None if is_essential(leaf.column) => {
                    return Err(UnexpectedColumn {
                        path: leaf.path.clone(),
                        reason: "is missing",
                    });
                }
                None => {}
            }
        }
        drop(by_path);
        Ok(Self {
            version,
            footer,
            columns,
            dedicated,
            offset_indexes,
        })
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The leaf that holds a column; `None` when this file has none.
    pub(crate) fn position(&self, column: LeafColumn) -> Option<LeafIndex> {
        self.columns.get(&column).copied()
    }

    /// All columns and their leaves.
    pub(crate) fn positions(&self) -> impl Iterator<Item = (LeafColumn, LeafIndex)> {
        self.columns.iter().map(|(&column, &leaf)| (column, leaf))
    }

    /// The attributes with a leaf of their own that the meta lists, in its order.
    pub(crate) fn dedicated(&self) -> &[DedicatedAttribute] {
        &self.dedicated
    }

    /// The leaves that hold attribute `name` apart from the generic ones. (`service.name` is not
    /// among them: its leaf holds a text for every resource.)
    pub(crate) fn own_leaves(
        &self,
        scope: AttributeScope,
        name: &str,
    ) -> impl Iterator<Item = LeafIndex> {
        let well_known = WellKnown::ALL
            .into_iter()
            .filter(move |column| column.scope() == scope && column.key() == name)
            .map(LeafColumn::WellKnown);
        let dedicated = self
            .dedicated
            .iter()
            .filter(move |column| column.leaf.scope == scope && &*column.name == name)
            .map(DedicatedAttribute::column);
        well_known
            .chain(dedicated)
            .filter_map(|column| self.position(column))
    }

    /// The bytes of an offset index, if they were kept.
    pub(crate) fn offset_index(&self, range: &Range<u64>) -> Option<Bytes> {
        let (start, bytes) = self.offset_indexes.as_ref()?;
        let from = usize::try_from(range.start.checked_sub(*start)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(*start)?).ok()?;
        (to <= bytes.len()).then(|| bytes.slice(from..to))
    }

    /// Heap bytes held, for caches.
    pub(crate) fn heap_bytes(&self) -> u64 {
        let indexes = self
            .offset_indexes
            .as_ref()
            .map_or(0, |(_, bytes)| bytes.len());
        let columns = self.columns.capacity() * size_of::<(LeafColumn, LeafIndex)>();
        let dedicated: usize = self
            .dedicated
            .iter()
            .map(|column| size_of::<DedicatedAttribute>() + column.name.len())
            .sum();
        (self.footer.heap_bytes() + indexes + columns + dedicated) as u64
    }
}

/// Why a file is not a block of its version.
struct UnexpectedColumn {
    path: String,
    reason: &'static str,
}

/// Without these nothing of a block can be told.
fn is_essential(column: LeafColumn) -> bool {
    matches!(
        column,
        LeafColumn::TraceId
            | LeafColumn::ResourceServiceName
            | LeafColumn::ScopeName
            | LeafColumn::SpanId
            | LeafColumn::StatusCode
    )
}

fn check(want: &Leaf, found: &FileLeaf) -> Result<(), UnexpectedColumn> {
    let physical = match want.value_type {
        LeafType::Text | LeafType::Bytes => Physical::ByteArray,
        LeafType::I32 | LeafType::U32 => Physical::Int32,
        LeafType::I64 | LeafType::U64 => Physical::Int64,
        LeafType::F64 => Physical::Double,
        LeafType::Bool => Physical::Boolean,
    };
    let levels = (i16::from(found.max_rep), i16::from(found.max_def));
    if found.physical != physical || levels != (want.max_rep, want.max_def) {
        return Err(UnexpectedColumn {
            path: want.path.clone(),
            reason: "has another type or nesting than the format says",
        });
    }
    Ok(())
}

/// Where the offset indexes of all chunks lie, if they are together and not too large.
fn offset_index_range(footer: &Footer) -> Option<Range<u64>> {
    let mut all: Option<Range<u64>> = None;
    let mut sum = 0;
    for chunk in footer.row_groups.iter().flat_map(|group| &group.chunks) {
        let Some(range) = &chunk.offset_index else {
            continue;
        };
        sum += range.end - range.start;
        all = Some(match all {
            None => range.clone(),
            Some(all) => all.start.min(range.start)..all.end.max(range.end),
        });
    }
    // Column indexes may lie between those of several row groups, but nothing larger.
    all.filter(|all| {
        let len = all.end - all.start;
        len <= MAX_OFFSET_INDEX_BYTES && len <= sum.saturating_mul(16) + INDEX_GUESS_BYTES
    })
}
