//! Columns of selected traces of one row group.
//!
//! Everything here is in the rows of the selection: row 0 is the first resource, span or event of
//! the first selected trace. The whole row group is the selection of all its traces.

use std::sync::{Arc, OnceLock};

use tempo_table::{
    AttributeScope, Column, ColumnKey, IdLane, Intrinsic, Level, NumberLane, StringLane, Structure,
    TableError,
    shape::{NestedSets, TreeSpan, span_key},
};

use super::{
    attributes::{AttributeLeaves, AttributeSlots, Match, owner_depth},
    builder::ColumnBuilder,
    dedicated_leaf,
    file::BlockFile,
    group::{GroupBytes, LeafIndex},
    kept::Kept,
    lanes, leaf,
    pages::Selection,
    structure,
};
use crate::schema::{AttributeLeaf, LeafColumn};

/// The attribute whose leaf holds a text for every resource.
pub(crate) const SERVICE_NAME: &str = "service.name";

/// Selected traces of a row group.
pub(crate) struct View {
    bytes: Arc<GroupBytes>,
    selection: Selection,
    structure: OnceLock<Arc<Structure>>,
    events: OnceLock<Arc<[u32]>>,
    links: OnceLock<Arc<[u32]>>,
    slots: [OnceLock<Option<Arc<AttributeSlots>>>; 5],
}

/// What is in `cell`, or what `read` gives, kept for the next time unless it is an error.
fn once<T: Clone>(
    cell: &OnceLock<T>,
    read: impl FnOnce() -> Result<T, TableError>,
) -> Result<T, TableError> {
    if let Some(known) = cell.get() {
        return Ok(known.clone());
    }
    let value = read()?;
    Ok(cell.get_or_init(|| value).clone())
}

impl View {
    pub(crate) fn new(bytes: Arc<GroupBytes>, selection: Selection) -> Self {
        Self {
            bytes,
            selection,
            structure: OnceLock::new(),
            events: OnceLock::new(),
            links: OnceLock::new(),
            slots: Default::default(),
        }
    }

    /// A part of `self`, which must be the view of all traces.
    pub(crate) fn part(&self, selection: Selection) -> Result<Self, TableError> {
        let structure = structure::slice(&*self.structure()?, &selection);
        let view = Self::new(Arc::clone(&self.bytes), selection);
        let _ = view.structure.set(Arc::new(structure));
        Ok(view)
    }

    pub(crate) fn bytes(&self) -> &Arc<GroupBytes> {
        &self.bytes
    }

    pub(crate) fn selection(&self) -> &Selection {
        &self.selection
    }

    fn file(&self) -> &BlockFile {
        self.bytes.file()
    }

    pub(crate) fn structure(&self) -> Result<Arc<Structure>, TableError> {
        once(&self.structure, || {
            if let Some(structure) = self.kept().and_then(Kept::structure) {
                return Ok(structure);
            }
            let leaf = self.essential(LeafColumn::StatusCode)?;
            let structure = structure::read(&self.bytes, leaf, &self.selection).map(Arc::new)?;
            if let Some(kept) = self.kept() {
                kept.keep_structure(&structure);
            }
            Ok(structure)
        })
    }

    /// Whether the structure is known without reading anything.
    pub(crate) fn knows_structure(&self) -> bool {
        self.structure.get().is_some() || self.kept().is_some_and(|kept| kept.structure().is_some())
    }

    /// What is kept of these rows between queries: all of them, or nothing.
    fn kept(&self) -> Option<&Kept> {
        self.bytes.kept().filter(|_| self.selection.is_all())
    }

    /// A leaf without which the file would not have been opened.
    fn essential(&self, column: LeafColumn) -> Result<LeafIndex, TableError> {
        self.file()
            .position(column)
            .ok_or_else(|| TableError::Corrupt {
                what: format!("schema of row group, {column:?}"),
                reason: "column is missing".to_owned(),
            })
    }

    pub(crate) fn event_offsets(&self) -> Result<Arc<[u32]>, TableError> {
        once(&self.events, || {
            self.child_offsets(
                true,
                &[
                    LeafColumn::EventTimeSinceStart,
                    LeafColumn::EventName,
                    LeafColumn::EventDroppedAttributes,
                ],
            )
        })
    }

    pub(crate) fn link_offsets(&self) -> Result<Arc<[u32]>, TableError> {
        once(&self.links, || {
            self.child_offsets(
                false,
                &[
                    LeafColumn::LinkSpanId,
                    LeafColumn::LinkTraceId,
                    LeafColumn::LinkDroppedAttributes,
                ],
            )
        })
    }

    /// Offsets from the smallest of the leaves, whose levels are all the same.
    fn child_offsets(
        &self,
        of_events: bool,
        columns: &[LeafColumn],
    ) -> Result<Arc<[u32]>, TableError> {
        if let Some(offsets) = self.kept().and_then(|kept| kept.offsets(of_events)) {
            return Ok(offsets);
        }
        let spans = self.structure()?.spans();
        let size = |&leaf: &LeafIndex| {
            let bytes = &self.bytes.chunk(leaf).bytes;
            bytes.end - bytes.start
        };
        let smallest = columns
            .iter()
            .filter_map(|&column| self.file().position(column))
            .min_by_key(size);
        let offsets = match smallest {
            Some(leaf) => structure::child_offsets(&self.bytes, leaf, &self.selection, spans)?,
            None => std::iter::repeat_n(0, spans + 1).collect(),
        };
        if let Some(kept) = self.kept() {
            kept.keep_offsets(of_events, &offsets);
        }
        Ok(offsets)
    }

    /// How many rows of a level are selected.
    pub(crate) fn rows(&self, level: Level) -> Result<usize, TableError> {
        let last = |offsets: Arc<[u32]>| offsets.last().map_or(0, |&end| end as usize);
        Ok(match level {
            Level::Trace => self.selection.rows() as usize,
            Level::Resource => self.structure()?.resources(),
            Level::Scope => self.structure()?.scopes(),
            Level::Span => self.structure()?.spans(),
            Level::Event => last(self.event_offsets()?),
            Level::Link => last(self.link_offsets()?),
        })
    }

    /// The generic attributes of a scope, decoded once; `None` when there are none.
    pub(super) fn slots(
        &self,
        scope: AttributeScope,
    ) -> Result<Option<Arc<AttributeSlots>>, TableError> {
        once(&self.slots[scope as usize], || {
            let Some(leaves) = AttributeLeaves::of(self.file(), scope) else {
                return Ok(None);
            };
            if !self.bytes.may_have_values(leaves.key) {
                return Ok(None);
            }
            if let Some(slots) = self.kept().and_then(|kept| kept.slots(scope)) {
                return Ok(Some(slots));
            }
            let owners = self.rows(scope.level())?;
            let slots = AttributeSlots::read(&self.bytes, leaves, scope, &self.selection, owners)?;
            let slots = Arc::new(slots);
            if let Some(kept) = self.kept() {
                kept.keep_slots(scope, &slots);
            }
            if self.selection.is_all() {
                self.bytes.release(leaves.key);
                leaves
                    .is_array
                    .iter()
                    .for_each(|&leaf| self.bytes.release(leaf));
            }
            Ok(Some(slots))
        })
    }

    /// The column of all selected rows.
    pub(crate) fn column(&self, key: &ColumnKey) -> Result<Column, TableError> {
        match key {
            ColumnKey::Intrinsic(intrinsic) => self.intrinsic(*intrinsic),
            ColumnKey::Attribute { scope, name } => self.attribute(*scope, name),
        }
    }

    fn intrinsic(&self, intrinsic: Intrinsic) -> Result<Column, TableError> {
        let level = intrinsic.level();
        let len = self.rows(level)?;
        let mut column = Column::absent(level, len);
        let Some(leaf) = self.file().position(intrinsic_leaf(intrinsic)) else {
            if intrinsic == Intrinsic::ChildCount {
                column.ints = Some(all_present(self.child_counts()?));
            }
            return Ok(column);
        };
        let (bytes, selection) = (&*self.bytes, &self.selection);
        match lane_of(intrinsic) {
            Lane::Ids(width) => {
                let bytes = leaf::ids(bytes, leaf, selection, len, width)?;
                column.ids = Some(IdLane { width, bytes });
            }
            Lane::Ints => {
                column.ints = Some(all_present(leaf::ints(bytes, leaf, selection, len)?));
            }
            Lane::Strings => {
                let (dict, codes) = leaf::strings(bytes, leaf, selection, len)?;
                column.strings = Some(StringLane { dict, codes });
            }
        }
        // The levels of the status code are the structure; other bytes are not needed again.
        if selection.is_all() {
            bytes.release(leaf);
        }
        Ok(column)
    }

    /// vParquet4 does not store them; see `tempo_table::shape`.
    fn child_counts(&self) -> Result<Arc<[i64]>, TableError> {
        let structure = self.structure()?;
        let ids = self.intrinsic(Intrinsic::SpanId)?.ids;
        let parents = self.intrinsic(Intrinsic::ParentSpanId)?.ids;
        let kinds = self.intrinsic(Intrinsic::SpanKind)?.ints;
        let sets = self.intrinsic(Intrinsic::NestedSetParent)?.ints;
        let (Some(ids), Some(parents), Some(kinds), Some(sets)) = (ids, parents, kinds, sets)
        else {
            return Ok(std::iter::repeat_n(0, structure.spans()).collect());
        };
        let mut numbering = NestedSets::default();
        let mut trace = Vec::new();
        let mut numbers = Vec::with_capacity(structure.spans());
        for row in 0..structure.traces() {
            trace.clear();
            trace.extend(structure.spans_of_trace(row).map(|span| TreeSpan {
                id: span_key(ids.get(span)),
                parent: (sets.values[span] != -1).then(|| span_key(parents.get(span))),
                kind: kinds.values[span] as i32,
            }));
            numbering.number(&trace, &mut numbers);
        }
        Ok(numbers.iter().map(|set| i64::from(set.children)).collect())
    }

    /// Whether any generic attribute of the scope may have that name, judged by the dictionary of
    /// names if that is all there is.
    pub(crate) fn may_have(&self, scope: AttributeScope, name: &str) -> Result<bool, TableError> {
        if let Some(slots) = self.slots[scope as usize].get() {
            return Ok(slots
                .as_ref()
                .is_some_and(|slots| slots.has_name(name.as_bytes())));
        }
        let column = LeafColumn::Attribute(scope, AttributeLeaf::Key);
        let Some(leaf) = self.file().position(column) else {
            return Ok(false);
        };
        if !self.bytes.may_have_values(leaf) {
            return Ok(false);
        }
        if !self.bytes.chunk(leaf).dictionary_only {
            return Ok(true);
        }
        let names = self.bytes.string_dictionary(leaf)?;
        Ok(names.iter().any(|known| known == name.as_bytes()))
    }

    fn attribute(&self, scope: AttributeScope, name: &str) -> Result<Column, TableError> {
        let level = scope.level();
        let owners = self.rows(level)?;
        let generic = self.may_have(scope, name)?;
        let is_service = scope == AttributeScope::Resource && name == SERVICE_NAME;
        if is_service && !generic {
            return self.service_name(owners);
        }
        let mut column = ColumnBuilder::new(level, owners);
        let depth = owner_depth(scope);
        for leaf in self.file().own_leaves(scope, name) {
            dedicated_leaf::add(
                &self.bytes,
                leaf,
                depth,
                &self.selection,
                owners,
                &mut column,
            )?;
        }
        if generic && let Some(slots) = self.slots(scope)? {
            self.add_generic(&slots, name, &mut column)?;
        }
        if is_service {
            self.add_service_name(owners, &mut column)?;
        }
        Ok(column.finish())
    }

    fn service_name(&self, owners: usize) -> Result<Column, TableError> {
        let mut column = Column::absent(Level::Resource, owners);
        let leaf = self.essential(LeafColumn::ResourceServiceName)?;
        let (dict, codes) = leaf::strings(&self.bytes, leaf, &self.selection, owners)?;
        column.strings = Some(StringLane { dict, codes });
        Ok(column)
    }

    /// Resources whose service name is not a text have it among the generic attributes and an
    /// empty text in its own leaf. Every other resource gets what its own leaf holds: Tempo says
    /// that a service name is never nil.
    fn add_service_name(
        &self,
        owners: usize,
        column: &mut ColumnBuilder,
    ) -> Result<(), TableError> {
        let leaf = self.essential(LeafColumn::ResourceServiceName)?;
        let (dict, codes) = leaf::strings(&self.bytes, leaf, &self.selection, owners)?;
        let rows: Vec<usize> = (0..owners).filter(|&row| !column.has(row)).collect();
        let sink = column.strings();
        let base = sink.base();
        for row in rows {
            sink.codes[row] = base + codes[row];
        }
        sink.add_source(dict)
            .map_err(|malformed| self.bytes.corrupt(leaf, malformed))
    }

    /// Adds the generic attributes of that name, for rows that have no value yet.
    fn add_generic(
        &self,
        slots: &AttributeSlots,
        name: &str,
        column: &mut ColumnBuilder,
    ) -> Result<(), TableError> {
        let mut wanted = slots.find(name.as_bytes());
        if !column.is_empty() {
            wanted.retain(|found| !column.has(found.owner as usize));
        }
        let arrays: Vec<Match> = wanted
            .iter()
            .copied()
            .filter(|found| slots.is_array(found.slot as usize))
            .collect();
        if !arrays.is_empty() {
            wanted.retain(|found| !slots.is_array(found.slot as usize));
            let values = lanes::arrays(&self.bytes, slots, &self.selection, &arrays)?;
            let owners = arrays.iter().map(|found| found.owner);
            column.add_arrays(owners.zip(values));
        }
        self.add_scalars(slots, wanted, column)
    }

    /// Goes from value leaf to value leaf until every slot has its value. Most attributes have one
    /// type, so that the others are not read.
    fn add_scalars(
        &self,
        slots: &AttributeSlots,
        mut wanted: Vec<Match>,
        column: &mut ColumnBuilder,
    ) -> Result<(), TableError> {
        let (bytes, selection) = (&*self.bytes, &self.selection);
        let with_values =
            |leaf: Option<LeafIndex>| leaf.filter(|&leaf| bytes.may_have_values(leaf));
        let mut found = vec![false; wanted.len()];
        let next = |wanted: &mut Vec<Match>, found: &mut Vec<bool>| {
            let mut kept = found.iter();
            wanted.retain(|_| kept.next() == Some(&false));
            found.clear();
            found.resize(wanted.len(), false);
        };
        if let Some(leaf) = with_values(slots.leaves.strings).filter(|_| !wanted.is_empty()) {
            let base = column.strings().base();
            let codes = &mut column.strings().codes;
            let dict = lanes::strings(bytes, leaf, slots, selection, &wanted, |at, code| {
                codes[wanted[at].owner as usize] = base + code;
                found[at] = true;
            })?;
            column
                .strings()
                .add_source(dict)
                .map_err(|malformed| bytes.corrupt(leaf, malformed))?;
            next(&mut wanted, &mut found);
        }
        if let Some(leaf) = with_values(slots.leaves.ints).filter(|_| !wanted.is_empty()) {
            lanes::numbers(bytes, leaf, slots, selection, &wanted, |at, value| {
                column.set_int(wanted[at].owner as usize, value);
                found[at] = true;
            })?;
            next(&mut wanted, &mut found);
        }
        if let Some(leaf) = with_values(slots.leaves.doubles).filter(|_| !wanted.is_empty()) {
            lanes::numbers(bytes, leaf, slots, selection, &wanted, |at, bits| {
                column.set_float(wanted[at].owner as usize, f64::from_bits(bits as u64));
                found[at] = true;
            })?;
            next(&mut wanted, &mut found);
        }
        if let Some(leaf) = with_values(slots.leaves.bools).filter(|_| !wanted.is_empty()) {
            lanes::booleans(bytes, leaf, slots, selection, &wanted, |at, value| {
                column.set_bool(wanted[at].owner as usize, value);
                found[at] = true;
            })?;
            next(&mut wanted, &mut found);
        }
        if let Some(leaf) = with_values(slots.leaves.unsupported).filter(|_| !wanted.is_empty()) {
            lanes::presence(bytes, leaf, slots, selection, &wanted, |at| {
                column.set_opaque(wanted[at].owner as usize);
            })?;
        }
        Ok(())
    }
}

fn all_present(values: Arc<[i64]>) -> NumberLane<i64> {
    NumberLane {
        values,
        present: None,
    }
}

/// How an intrinsic is held.
enum Lane {
    Ids(usize),
    Ints,
    Strings,
}

fn lane_of(intrinsic: Intrinsic) -> Lane {
    match intrinsic {
        Intrinsic::TraceId | Intrinsic::LinkTraceId => Lane::Ids(16),
        Intrinsic::SpanId | Intrinsic::ParentSpanId | Intrinsic::LinkSpanId => Lane::Ids(8),
        Intrinsic::RootServiceName
        | Intrinsic::RootSpanName
        | Intrinsic::SpanName
        | Intrinsic::StatusMessage
        | Intrinsic::TraceState
        | Intrinsic::ScopeName
        | Intrinsic::ScopeVersion
        | Intrinsic::EventName => Lane::Strings,
        Intrinsic::TraceStartNano
        | Intrinsic::TraceDurationNano
        | Intrinsic::SpanKind
        | Intrinsic::StatusCode
        | Intrinsic::SpanStartNano
        | Intrinsic::SpanDurationNano
        | Intrinsic::NestedSetLeft
        | Intrinsic::NestedSetRight
        | Intrinsic::NestedSetParent
        | Intrinsic::ChildCount
        | Intrinsic::EventTimeSinceStartNano => Lane::Ints,
    }
}

/// The column that stores an intrinsic.
pub(crate) fn intrinsic_leaf(intrinsic: Intrinsic) -> LeafColumn {
    match intrinsic {
        Intrinsic::TraceId => LeafColumn::TraceId,
        Intrinsic::TraceStartNano => LeafColumn::TraceStart,
        Intrinsic::TraceDurationNano => LeafColumn::TraceDuration,
        Intrinsic::RootServiceName => LeafColumn::RootServiceName,
        Intrinsic::RootSpanName => LeafColumn::RootSpanName,
        Intrinsic::SpanId => LeafColumn::SpanId,
        Intrinsic::ParentSpanId => LeafColumn::ParentSpanId,
        Intrinsic::SpanName => LeafColumn::SpanName,
        Intrinsic::SpanKind => LeafColumn::SpanKind,
        Intrinsic::StatusCode => LeafColumn::StatusCode,
        Intrinsic::StatusMessage => LeafColumn::StatusMessage,
        Intrinsic::TraceState => LeafColumn::TraceState,
        Intrinsic::SpanStartNano => LeafColumn::SpanStart,
        Intrinsic::SpanDurationNano => LeafColumn::SpanDuration,
        Intrinsic::NestedSetLeft => LeafColumn::NestedSetLeft,
        Intrinsic::NestedSetRight => LeafColumn::NestedSetRight,
        Intrinsic::NestedSetParent => LeafColumn::ParentId,
        Intrinsic::ChildCount => LeafColumn::ChildCount,
        Intrinsic::ScopeName => LeafColumn::ScopeName,
        Intrinsic::ScopeVersion => LeafColumn::ScopeVersion,
        Intrinsic::EventName => LeafColumn::EventName,
        Intrinsic::EventTimeSinceStartNano => LeafColumn::EventTimeSinceStart,
        Intrinsic::LinkTraceId => LeafColumn::LinkTraceId,
        Intrinsic::LinkSpanId => LeafColumn::LinkSpanId,
    }
}
