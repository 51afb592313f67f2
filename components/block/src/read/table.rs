//! One row group as a span table.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use tempo_backend::ReadStats;
use tempo_table::{
    AttributeScope, Bitmap, Column, ColumnKey, Level, SpanTable, StringDict, Structure, TableError,
};

use super::{
    expand,
    file::BlockFile,
    group::{GroupBytes, LeafIndex},
    kept::Kept,
    pages::Selection,
    source::Source,
    view::{SERVICE_NAME, View, intrinsic_leaf},
};
use crate::schema::{AttributeLeaf, LeafColumn};

mod names;
mod prefetch;

/// A column that is decoded, or about to be by whoever holds the lock.
type Cell = Arc<Mutex<Option<Column>>>;

/// One row group of a block. Columns are read when they are asked for and kept until they are
/// released or the table is dropped. Blocks on storage: use it on threads that may block.
pub struct RowGroupTable {
    all: View,
    /// The last selection that was smaller than the row group: results ask for several columns of
    /// the same rows.
    recent: Mutex<Option<Arc<View>>>,
    columns: Mutex<HashMap<ColumnKey, Cell>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Up to this share of the rows (as a divisor) it is tried to read only their pages. More rows than
/// that lie in most pages.
const MIN_SHARE: usize = 4;

/// Most bytes of storage that are read so that a column can be kept, although few rows of it are
/// needed.
const MAX_KEPT_READ_BYTES: u64 = 16 * 1024 * 1024;

/// A view and the wanted rows in its own count.
struct Localized {
    view: Option<Arc<View>>,
    rows: Vec<u32>,
}

impl RowGroupTable {
    pub(super) fn new(
        file: Arc<BlockFile>,
        source: Source,
        group: usize,
        kept: Option<Kept>,
    ) -> Self {
        let bytes = Arc::new(GroupBytes::new(file, source, group).with_kept(kept));
        let rows = bytes.rows();
        Self {
            all: View::new(bytes, Selection::all(rows)),
            recent: Mutex::new(None),
            columns: Mutex::default(),
        }
    }

    fn bytes(&self) -> &GroupBytes {
        self.all.bytes()
    }

    fn file(&self) -> &BlockFile {
        self.bytes().file()
    }

    /// Requests and bytes that this table has cost so far.
    pub fn read_stats(&self) -> &ReadStats {
        self.bytes().stats()
    }

    fn cell(&self, key: &ColumnKey) -> Cell {
        let mut columns = lock(&self.columns);
        match columns.get(key) {
            Some(cell) => Arc::clone(cell),
            None => Arc::clone(columns.entry(key.clone()).or_default()),
        }
    }

    /// The whole column, if this query or one before it has decoded it.
    fn cached(&self, key: &ColumnKey) -> Option<Column> {
        let cell = lock(&self.columns).get(key).map(Arc::clone);
        if let Some(cell) = cell
            && let Some(column) = &*lock(&cell)
        {
            return Some(column.clone());
        }
        self.bytes().kept()?.column(key)
    }

    /// Whether to read all of a column although few of its rows are asked for: who asks for the
    /// second time will ask again.
    fn is_worth_keeping(&self, key: &ColumnKey, leaves: &[LeafIndex]) -> bool {
        self.bytes()
            .kept()
            .is_some_and(|kept| self.is_small(leaves) && kept.asked_again(key))
    }

    fn is_small(&self, leaves: &[LeafIndex]) -> bool {
        let bytes = leaves.iter().map(|&leaf| self.bytes().chunk_len(leaf));
        bytes.sum::<u64>() <= MAX_KEPT_READ_BYTES
    }

    fn whole_column(&self, key: &ColumnKey) -> Result<Column, TableError> {
        let cell = self.cell(key);
        // Held while reading, so that a column is read once however many ask for it.
        let mut cell = lock(&cell);
        if let Some(column) = &*cell {
            return Ok(column.clone());
        }
        if let Some(column) = self.bytes().kept().and_then(|kept| kept.column(key)) {
            return Ok(column);
        }
        let column = self.all.column(key)?;
        *cell = Some(column.clone());
        if let Some(kept) = self.bytes().kept() {
            kept.keep_column(key, &column);
        }
        Ok(column)
    }

    /// First row of every trace at a level, and the end.
    fn first_rows(&self, level: Level) -> Result<FirstRows, TableError> {
        let children = match level {
            Level::Event => Some(self.all.event_offsets()?),
            Level::Link => Some(self.all.link_offsets()?),
            _ => None,
        };
        Ok(FirstRows {
            structure: self.all.structure()?,
            level,
            children,
        })
    }

    /// The part of the row group that holds `count` `rows` of `level`, if reading only that is
    /// worth it for `leaves`.
    fn localize(
        &self,
        level: Level,
        count: usize,
        rows: impl Iterator<Item = u32>,
        leaves: &[LeafIndex],
    ) -> Result<Option<Localized>, TableError> {
        if count > self.all.rows(level)? / MIN_SHARE {
            return Ok(None);
        }
        let first = self.first_rows(level)?;
        let rows: Vec<u32> = rows.collect();
        let mut trace = 0;
        let traces = rows.iter().map(|&row| {
            while first.of(trace + 1) <= row && trace + 1 < self.bytes().rows() {
                trace += 1;
            }
            trace
        });
        let selection = Selection::of_rows(traces, self.bytes().rows());
        if rows.is_empty() {
            return Ok(Some(Localized { view: None, rows }));
        }
        if !self.is_worth_it(&selection, leaves)? {
            return Ok(None);
        }
        let mut rows = rows;
        let mut ranges = selection.ranges().iter();
        // Rows of the current range, and how much lower its rows are in the view.
        let (mut end, mut shift, mut skipped_to) = (0, 0, 0);
        for row in &mut rows {
            while *row >= end {
                let Some(range) = ranges.next() else { break };
                shift += first.of(range.start) - skipped_to;
                end = first.of(range.end);
                skipped_to = end;
            }
            *row -= shift;
        }
        Ok(Some(Localized {
            view: Some(self.view_of(selection)?),
            rows,
        }))
    }

    /// Whether the selected pages are clearly fewer than all.
    fn is_worth_it(&self, selection: &Selection, leaves: &[LeafIndex]) -> Result<bool, TableError> {
        let (mut selected, mut all) = (0, 0);
        for &leaf in leaves {
            let bytes = &self.bytes().chunk(leaf).bytes;
            all += bytes.end - bytes.start;
            let map = self.bytes().page_map(leaf)?;
            let dictionary = map.dictionary.iter().cloned();
            let dictionary = dictionary.filter(|_| self.bytes().reads_whole_dictionary(leaf));
            let pages = map.selected(selection).map(|page| page.bytes.clone());
            selected += dictionary
                .chain(pages)
                .map(|bytes| bytes.end - bytes.start)
                .sum::<u64>();
        }
        Ok(selected * 2 <= all)
    }

    fn view_of(&self, selection: Selection) -> Result<Arc<View>, TableError> {
        let mut recent = lock(&self.recent);
        match &*recent {
            Some(view) if *view.selection() == selection => Ok(Arc::clone(view)),
            _ => {
                let view = Arc::new(self.all.part(selection)?);
                *recent = Some(Arc::clone(&view));
                Ok(view)
            }
        }
    }

    /// The leaves that hold most of what a column needs.
    fn leaves_of(&self, key: &ColumnKey) -> Result<Vec<LeafIndex>, TableError> {
        let mut leaves = Vec::new();
        match key {
            ColumnKey::Intrinsic(intrinsic) => {
                leaves.extend(self.file().position(intrinsic_leaf(*intrinsic)));
            }
            ColumnKey::Attribute { scope, name } => {
                leaves.extend(self.file().own_leaves(*scope, name));
                if *scope == AttributeScope::Resource && &**name == SERVICE_NAME {
                    leaves.extend(self.file().position(LeafColumn::ResourceServiceName));
                }
                if self.all.may_have(*scope, name)? {
                    leaves.extend(self.generic_leaves(*scope));
                }
            }
        }
        Ok(leaves)
    }

    fn generic_leaves(&self, scope: AttributeScope) -> impl Iterator<Item = LeafIndex> {
        [
            AttributeLeaf::Key,
            AttributeLeaf::IsArray,
            AttributeLeaf::Value,
        ]
        .into_iter()
        .filter_map(move |leaf| self.file().position(LeafColumn::Attribute(scope, leaf)))
        .filter(|&leaf| self.bytes().may_be_nonzero(leaf))
    }

    /// The dictionary of a leaf, if it holds all of the leaf's texts.
    fn whole_dictionary(&self, leaf: LeafIndex) -> Result<Option<Arc<StringDict>>, TableError> {
        if self.bytes().chunk(leaf).dictionary_only {
            self.bytes().string_dictionary(leaf).map(Some)
        } else {
            Ok(None)
        }
    }

    /// How many spans there are, if statistics tell: each has a status.
    fn spans_by_footer(&self) -> Option<usize> {
        let chunk = self
            .bytes()
            .chunk(self.file().position(LeafColumn::StatusCode)?);
        let spans = u64::from(chunk.entries).checked_sub(chunk.nulls?)?;
        usize::try_from(spans).ok()
    }

    fn has_values(&self, leaf: LeafIndex) -> Option<bool> {
        let chunk = self.bytes().chunk(leaf);
        chunk.nulls.map(|nulls| nulls < u64::from(chunk.entries))
    }
}

/// First row of every trace at a level.
struct FirstRows {
    structure: Arc<Structure>,
    level: Level,
    children: Option<Arc<[u32]>>,
}

impl FirstRows {
    /// The first row of a trace; of the one after the last, the count of rows.
    fn of(&self, trace: u32) -> u32 {
        let at = |offsets: &[u32], row: u32| offsets.get(row as usize).copied().unwrap_or(0);
        let resource = || at(&self.structure.trace_resources, trace);
        let span = || at(&self.structure.trace_spans, trace);
        match (self.level, &self.children) {
            (Level::Trace, _) => trace,
            (Level::Resource, _) => resource(),
            (Level::Scope, _) => at(&self.structure.resource_scopes, resource()),
            (Level::Span, _) => span(),
            (_, Some(children)) => at(children, span()),
            (_, None) => 0,
        }
    }
}

impl SpanTable for RowGroupTable {
    fn structure(&self) -> Result<Arc<Structure>, TableError> {
        self.all.structure()
    }

    fn event_offsets(&self) -> Result<Arc<[u32]>, TableError> {
        self.all.event_offsets()
    }

    fn link_offsets(&self) -> Result<Arc<[u32]>, TableError> {
        self.all.link_offsets()
    }

    fn column(&self, key: &ColumnKey, rows: Option<&Bitmap>) -> Result<Column, TableError> {
        if let Some(column) = self.cached(key) {
            return Ok(column);
        }
        let Some(rows) = rows else {
            return self.whole_column(key);
        };
        let leaves = self.leaves_of(key)?;
        if self.is_worth_keeping(key, &leaves) {
            return self.whole_column(key);
        }
        let wanted = rows.iter().map(|row| row as u32);
        match self.localize(key.level(), rows.count(), wanted, &leaves)? {
            None => self.whole_column(key),
            Some(Localized { view: None, .. }) => {
                Ok(Column::absent(key.level(), self.all.rows(key.level())?))
            }
            Some(Localized {
                view: Some(view), ..
            }) => {
                let column = view.column(key)?;
                let first = self.first_rows(key.level())?;
                let ranges: Vec<_> = view
                    .selection()
                    .ranges()
                    .iter()
                    .map(|range| first.of(range.start) as usize..first.of(range.end) as usize)
                    .collect();
                Ok(expand::expand(
                    &column,
                    &ranges,
                    self.all.rows(key.level())?,
                ))
            }
        }
    }

    fn gather(&self, key: &ColumnKey, rows: &[u32]) -> Result<Column, TableError> {
        if let Some(column) = self.cached(key) {
            return Ok(column.gather(rows));
        }
        let leaves = self.leaves_of(key)?;
        if self.is_worth_keeping(key, &leaves) {
            return Ok(self.whole_column(key)?.gather(rows));
        }
        match self.localize(key.level(), rows.len(), rows.iter().copied(), &leaves)? {
            None => Ok(self.whole_column(key)?.gather(rows)),
            Some(Localized { view: None, .. }) => Ok(Column::absent(key.level(), 0)),
            Some(Localized {
                view: Some(view),
                rows,
            }) => Ok(view.column(key)?.gather(&rows)),
        }
    }

    fn rows(&self, level: Level) -> Result<usize, TableError> {
        match level {
            Level::Trace => Ok(self.bytes().rows() as usize),
            Level::Span if !self.all.knows_structure() => match self.spans_by_footer() {
                Some(spans) => Ok(spans),
                None => self.all.rows(level),
            },
            _ => self.all.rows(level),
        }
    }

    fn string_superset(&self, key: &ColumnKey) -> Result<Option<Arc<StringDict>>, TableError> {
        // Elements of arrays count too, and only leaves have them in one dictionary.
        if let Some(column) = self.cached(key)
            && column.arrays.is_none()
        {
            match (column.strings, key) {
                (Some(lane), _) => return Ok(Some(lane.dict)),
                (None, ColumnKey::Attribute { .. }) => return Ok(Some(Arc::default())),
                // Ids, statuses and kinds are compared as texts, too.
                (None, ColumnKey::Intrinsic(_)) => {}
            }
        }
        match key {
            ColumnKey::Intrinsic(intrinsic) => {
                match self.file().position(intrinsic_leaf(*intrinsic)) {
                    Some(leaf) => self.whole_dictionary(leaf),
                    None => Ok(None),
                }
            }
            ColumnKey::Attribute { scope, name } => {
                let mut leaves: Vec<LeafIndex> = self
                    .file()
                    .own_leaves(*scope, name)
                    .filter(|&leaf| self.bytes().may_have_values(leaf))
                    .collect();
                if *scope == AttributeScope::Resource && &**name == SERVICE_NAME {
                    leaves.extend(self.file().position(LeafColumn::ResourceServiceName));
                }
                if self.all.may_have(*scope, name)? {
                    let values = LeafColumn::Attribute(*scope, AttributeLeaf::Value);
                    leaves.extend(
                        self.file()
                            .position(values)
                            .filter(|&leaf| self.bytes().may_have_values(leaf)),
                    );
                }
                match leaves.as_slice() {
                    [] => Ok(Some(Arc::default())),
                    [only] => self.whole_dictionary(*only),
                    // Rare, and uniting dictionaries costs as much as reading the column.
                    _ => Ok(None),
                }
            }
        }
    }

    fn int_bounds(&self, key: &ColumnKey) -> Result<Option<(i64, i64)>, TableError> {
        let bounds = |leaf: LeafIndex| self.bytes().chunk(leaf).int_bounds;
        match key {
            ColumnKey::Intrinsic(intrinsic) => Ok(self
                .file()
                .position(intrinsic_leaf(*intrinsic))
                .and_then(bounds)),
            ColumnKey::Attribute { scope, name } => {
                // Tempo writes made-up bounds for these.
                let is_blob = self.file().dedicated().iter().any(|column| {
                    column.leaf.scope == *scope && *column.name == **name && column.leaf.blob
                });
                if is_blob {
                    return Ok(None);
                }
                let mut leaves: Vec<LeafIndex> = self.file().own_leaves(*scope, name).collect();
                if self.all.may_have(*scope, name)? {
                    let ints = LeafColumn::Attribute(*scope, AttributeLeaf::ValueInt);
                    leaves.extend(self.file().position(ints));
                }
                let mut all: Option<(i64, i64)> = None;
                for leaf in leaves {
                    let is_text =
                        self.bytes().leaf(leaf).physical == super::footer::Physical::ByteArray;
                    if is_text || !self.bytes().may_have_values(leaf) {
                        continue;
                    }
                    let Some((min, max)) = bounds(leaf) else {
                        return Ok(None);
                    };
                    all = Some(all.map_or((min, max), |(low, high)| (low.min(min), high.max(max))));
                }
                Ok(all)
            }
        }
    }

    fn attribute_names(
        &self,
        scope: AttributeScope,
        rows: Option<&Bitmap>,
    ) -> Result<Vec<Arc<str>>, TableError> {
        let mut names = match rows {
            None => self.names_of_all(scope)?,
            Some(rows) => self.names_of_rows(scope, rows)?,
        };
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn prefetch(&self, keys: &[ColumnKey], later: &[ColumnKey]) -> Result<(), TableError> {
        self.fetch_whole(keys, later)
    }

    fn prefetch_of(&self, keys: &[ColumnKey], traces: &[u32]) -> Result<(), TableError> {
        self.fetch_of(keys, traces)
    }

    fn release(&self, key: &ColumnKey) {
        lock(&self.columns).remove(key);
    }

    fn bytes_read(&self) -> u64 {
        self.bytes().stats().bytes()
    }
}
