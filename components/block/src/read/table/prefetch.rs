//! Fetching the bytes of columns before they are asked for, in few requests.

use tempo_table::{ColumnKey, TableError};

use super::{MIN_SHARE, RowGroupTable};
use crate::{
    read::{group::LeafIndex, pages::Selection, view::intrinsic_leaf},
    schema::{AttributeLeaf, LeafColumn},
};

/// Most bytes of columns that are read before it is known whether they are needed, where a request
/// costs more than bytes.
const MAX_LOOK_AHEAD_BYTES: u64 = 8 * 1024 * 1024;

impl RowGroupTable {
    /// Fetches whole columns.
    pub(super) fn fetch_whole(
        &self,
        keys: &[ColumnKey],
        later: &[ColumnKey],
    ) -> Result<(), TableError> {
        let missing = |keys: &[ColumnKey]| -> Vec<ColumnKey> {
            let keys = keys.iter().filter(|key| self.cached(key).is_none());
            keys.cloned().collect()
        };
        let mut keys = missing(keys);
        if self.bytes().request_cost_bytes() > 0 {
            let later = missing(later);
            if self.stored_bytes(&later) <= MAX_LOOK_AHEAD_BYTES {
                keys.extend(later);
            }
        }
        // First the names, which tell whether an attribute's values are needed at all.
        let names: Vec<LeafIndex> = keys
            .iter()
            .filter_map(|key| match key {
                ColumnKey::Attribute { scope, .. } => {
                    let column = LeafColumn::Attribute(*scope, AttributeLeaf::Key);
                    self.file().position(column)
                }
                ColumnKey::Intrinsic(_) => None,
            })
            .filter(|&leaf| self.bytes().chunk(leaf).dictionary_only)
            .collect();
        self.bytes().load_dictionaries(&names)?;
        let mut leaves: Vec<LeafIndex> = Vec::new();
        if !self.all.knows_structure() {
            leaves.extend(self.file().position(LeafColumn::StatusCode));
        }
        for key in &keys {
            leaves.extend(self.leaves_of(key)?);
        }
        leaves.sort_unstable();
        leaves.dedup();
        self.bytes()
            .load(&leaves, &Selection::all(self.bytes().rows()))
    }

    /// Fetches what some traces need of columns.
    pub(super) fn fetch_of(&self, keys: &[ColumnKey], traces: &[u32]) -> Result<(), TableError> {
        let rows = self.bytes().rows();
        if traces.is_empty() {
            return Ok(());
        }
        let all = Selection::all(rows);
        let some = Selection::of_rows(traces.iter().copied(), rows);
        let are_few = traces.len() <= rows as usize / MIN_SHARE;
        let mut wanted: Vec<(LeafIndex, &Selection)> = Vec::new();
        for key in keys.iter().filter(|key| self.cached(key).is_none()) {
            let leaves = self.leaves_of(key)?;
            let is_kept = || {
                let kept = self.bytes().kept();
                kept.is_some_and(|kept| self.is_small(&leaves) && kept.will_be_asked_again(key))
            };
            let selection = match are_few && !is_kept() && self.is_worth_it(&some, &leaves)? {
                true => &some,
                false => &all,
            };
            wanted.extend(leaves.into_iter().map(|leaf| (leaf, selection)));
        }
        self.bytes().load_each(wanted.into_iter())
    }

    /// Bytes of intrinsics and of attributes with a leaf of their own; of generic attributes, which
    /// share their leaves, those of the values.
    fn stored_bytes(&self, keys: &[ColumnKey]) -> u64 {
        let values = |scope| LeafColumn::Attribute(scope, AttributeLeaf::Value);
        let leaves = keys.iter().flat_map(|key| match key {
            ColumnKey::Intrinsic(intrinsic) => {
                vec![self.file().position(intrinsic_leaf(*intrinsic))]
            }
            ColumnKey::Attribute { scope, name } => {
                let own = self.file().own_leaves(*scope, name).map(Some);
                own.chain([self.file().position(values(*scope))]).collect()
            }
        });
        let mut leaves: Vec<LeafIndex> = leaves.flatten().collect();
        leaves.sort_unstable();
        leaves.dedup();
        leaves
            .iter()
            .map(|&leaf| self.bytes().chunk_len(leaf))
            .sum()
    }
}
