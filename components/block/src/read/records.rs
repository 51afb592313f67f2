//! Everything that a block stores of selected traces, leaf by leaf, ready to be put together.

use std::{ops::Range, sync::Arc};

use tempo_table::{AttributeScope, Level, Structure, TableError};

use super::{
    Malformed,
    attributes::{AttributeSlots, Match, owner_depth},
    bits::Bits,
    dedicated_leaf::{self, OwnerValues, Owners},
    footer::Physical,
    group::{GroupBytes, LeafIndex},
    lanes::{self, for_picks},
    leaf,
    pages::Selection,
    texts::{self, TextCollector, Texts},
    view::View,
};
use crate::schema::{LeafColumn, Version, WellKnown};

/// Any number of values per row: those of row `r` are `offsets[r]..offsets[r + 1]`.
#[derive(Default)]
pub(super) struct PerRow<V> {
    offsets: Vec<u32>,
    pub(super) values: V,
}

impl<V> PerRow<V> {
    /// The positions of a row's values.
    pub(crate) fn of(&self, row: usize) -> Range<usize> {
        super::structure::span_of(&self.offsets, row)
    }
}

/// Grows the offsets of [`PerRow`], row by ascending row.
#[derive(Default)]
struct Offsets {
    offsets: Vec<u32>,
    count: u32,
}

impl Offsets {
    /// `count` values of `row`, which is not below that of the call before.
    fn add(&mut self, row: usize, count: usize) {
        if self.offsets.len() <= row {
            self.offsets.resize(row + 1, self.count);
        }
        self.count += count as u32;
    }

    fn finish<V>(mut self, rows: usize, values: V) -> PerRow<V> {
        self.offsets.resize(rows + 1, self.count);
        PerRow {
            offsets: self.offsets,
            values,
        }
    }
}

/// The generic attributes of a scope.
pub(super) struct GenericAttributes {
    slots: Arc<AttributeSlots>,
    /// Per owner: its attributes, as slots.
    pub(super) owned: PerRow<Vec<u32>>,
    /// Per attribute.
    pub(super) strings: PerRow<Texts>,
    pub(super) ints: PerRow<Vec<i64>>,
    /// As bits.
    pub(super) doubles: PerRow<Vec<i64>>,
    pub(super) bools: PerRow<Vec<bool>>,
    /// Protobuf JSON.
    pub(super) unsupported: PerRow<Texts>,
}

impl GenericAttributes {
    pub(crate) fn name(&self, slot: u32) -> &[u8] {
        self.slots.name(slot as usize).unwrap_or_default()
    }

    pub(crate) fn is_array(&self, slot: u32) -> bool {
        self.slots.is_array(slot as usize)
    }

    fn read(view: &View, slots: Arc<AttributeSlots>, owners: usize) -> Result<Self, TableError> {
        let matches = slots.all();
        let mut owned = Offsets::default();
        for found in &matches {
            owned.add(found.owner as usize, 1);
        }
        let source = Source {
            bytes: view.bytes(),
            selection: view.selection(),
            slots: &slots,
            matches: &matches,
        };
        let leaves = slots.leaves;
        let generic = Self {
            owned: owned.finish(owners, matches.iter().map(|found| found.slot).collect()),
            strings: source.texts(leaves.strings)?,
            ints: source.numbers(leaves.ints)?,
            doubles: source.numbers(leaves.doubles)?,
            bools: source.bools(leaves.bools)?,
            unsupported: source.texts(leaves.unsupported)?,
            slots: Arc::clone(&slots),
        };
        Ok(generic)
    }
}

/// The value leaves of all attributes of a scope.
struct Source<'a> {
    bytes: &'a GroupBytes,
    selection: &'a Selection,
    slots: &'a AttributeSlots,
    matches: &'a [Match],
}

impl Source<'_> {
    fn leaf(&self, leaf: Option<LeafIndex>) -> Option<LeafIndex> {
        leaf.filter(|&leaf| self.bytes.may_have_values(leaf))
    }

    fn texts(&self, leaf: Option<LeafIndex>) -> Result<PerRow<Texts>, TableError> {
        let mut offsets = Offsets::default();
        let Some(leaf) = self.leaf(leaf) else {
            return Ok(offsets.finish(self.matches.len(), Texts::default()));
        };
        let mut texts = TextCollector::new(self.bytes, leaf, self.selection)?;
        for_picks(
            self.bytes,
            leaf,
            self.slots,
            self.selection,
            self.matches,
            |page, picks| {
                let count = page.value_count(&mut Bits::default())?;
                for pick in picks {
                    offsets.add(pick.at, pick.values.len());
                }
                texts.add(
                    page,
                    count,
                    picks.iter().flat_map(|pick| pick.values.clone()),
                )
            },
        )?;
        let texts = texts.finish(self.bytes, leaf)?;
        Ok(offsets.finish(self.matches.len(), texts))
    }

    fn numbers(&self, leaf: Option<LeafIndex>) -> Result<PerRow<Vec<i64>>, TableError> {
        let mut offsets = Offsets::default();
        let mut numbers = Vec::new();
        if let Some(leaf) = self.leaf(leaf) {
            let mut reader = lanes::number_pages(self.bytes, leaf, self.selection)?;
            for_picks(
                self.bytes,
                leaf,
                self.slots,
                self.selection,
                self.matches,
                |page, picks| {
                    let values = reader.read(page, page.value_count(&mut Bits::default())?)?;
                    for pick in picks {
                        let values = values.get(pick.values.clone());
                        let values = values.ok_or(Malformed("page holds fewer values"))?;
                        offsets.add(pick.at, values.len());
                        numbers.extend_from_slice(values);
                    }
                    Ok(())
                },
            )?;
        }
        Ok(offsets.finish(self.matches.len(), numbers))
    }

    fn bools(&self, leaf: Option<LeafIndex>) -> Result<PerRow<Vec<bool>>, TableError> {
        let mut offsets = Offsets::default();
        let mut bools = Vec::new();
        if let Some(leaf) = self.leaf(leaf) {
            let mut scratch = Vec::new();
            let mut values = Bits::default();
            for_picks(
                self.bytes,
                leaf,
                self.slots,
                self.selection,
                self.matches,
                |page, picks| {
                    lanes::read_booleans(page, &mut scratch, &mut values)?;
                    for pick in picks {
                        offsets.add(pick.at, pick.values.len());
                        bools.extend(pick.values.clone().map(|at| values.get(at)));
                    }
                    Ok(())
                },
            )?;
        }
        Ok(offsets.finish(self.matches.len(), bools))
    }
}

/// The values of an attribute that has a leaf of its own, per owner.
pub(super) enum OwnValues {
    Texts(PerRow<Texts>),
    Ints(PerRow<Vec<i64>>),
}

/// An attribute that has a leaf of its own.
pub(super) struct OwnAttribute {
    pub(super) name: Arc<str>,
    pub(super) values: OwnValues,
}

impl OwnAttribute {
    fn read(
        view: &View,
        name: Arc<str>,
        leaf: LeafIndex,
        depth: u8,
        owners: usize,
    ) -> Result<Self, TableError> {
        let (bytes, selection) = (view.bytes(), view.selection());
        let mut offsets = Offsets::default();
        let mut positions: Vec<usize> = Vec::new();
        let mut place = |found: Owners<'_>, positions: &mut Vec<usize>| {
            positions.clear();
            match found {
                Owners::Each {
                    owners,
                    first_value,
                } => {
                    positions.extend(first_value..first_value + owners.len());
                    owners.for_each(|owner| offsets.add(owner, 1));
                }
                Owners::Some(listed) => {
                    for OwnerValues { owner, values } in listed {
                        positions.extend(values.clone());
                        offsets.add(*owner, values.len());
                    }
                }
            }
        };
        let values = if bytes.leaf(leaf).physical == Physical::ByteArray {
            let mut texts = TextCollector::new(bytes, leaf, selection)?;
            dedicated_leaf::for_owners(
                bytes,
                leaf,
                depth,
                selection,
                owners,
                |page, count, found| {
                    place(found, &mut positions);
                    texts.add(page, count, positions.iter().copied())
                },
            )?;
            let texts = texts.finish(bytes, leaf)?;
            OwnValues::Texts(offsets.finish(owners, texts))
        } else {
            let mut reader = lanes::number_pages(bytes, leaf, selection)?;
            let mut numbers = Vec::new();
            dedicated_leaf::for_owners(
                bytes,
                leaf,
                depth,
                selection,
                owners,
                |page, count, found| {
                    place(found, &mut positions);
                    let values = reader.read(page, count)?;
                    for &at in &positions {
                        let value = values.get(at);
                        numbers.push(*value.ok_or(Malformed("page holds fewer values"))?);
                    }
                    Ok(())
                },
            )?;
            OwnValues::Ints(offsets.finish(owners, numbers))
        };
        Ok(Self { name, values })
    }
}

/// The attributes of a scope, in the order in which Tempo gives them back.
pub(super) struct Attributes {
    pub(super) generic: Option<GenericAttributes>,
    pub(super) dedicated: Vec<OwnAttribute>,
    pub(super) well_known: Vec<OwnAttribute>,
    pub(super) dropped: Arc<[i64]>,
}

impl Attributes {
    fn read(
        view: &View,
        scope: AttributeScope,
        level: Level,
        dropped: LeafColumn,
    ) -> Result<Self, TableError> {
        let owners = view.rows(level)?;
        let file = view.bytes().file();
        let own = |columns: &mut dyn Iterator<Item = (Arc<str>, LeafColumn)>| {
            let mut found = Vec::new();
            for (name, column) in columns {
                if let Some(leaf) = file.position(column)
                    && view.bytes().may_have_values(leaf)
                {
                    let depth = owner_depth(scope);
                    found.push(OwnAttribute::read(view, name, leaf, depth, owners)?);
                }
            }
            Ok::<_, TableError>(found)
        };
        let mut dedicated = file
            .dedicated()
            .iter()
            .filter(|column| column.leaf.scope == scope)
            .map(|column| (Arc::clone(&column.name), column.column()));
        let mut well_known = WellKnown::ALL
            .into_iter()
            .filter(|column| column.scope() == scope)
            .map(|column| (Arc::from(column.key()), LeafColumn::WellKnown(column)));
        Ok(Self {
            generic: match view.slots(scope)? {
                Some(slots) => Some(GenericAttributes::read(view, slots, owners)?),
                None => None,
            },
            dedicated: own(&mut dedicated)?,
            well_known: own(&mut well_known)?,
            dropped: ints(view, dropped, owners)?,
        })
    }
}

/// The integers of a leaf that has one per row; zeros when the file has no such leaf.
fn ints(view: &View, column: LeafColumn, len: usize) -> Result<Arc<[i64]>, TableError> {
    match view.bytes().file().position(column) {
        Some(leaf) => leaf::ints(view.bytes(), leaf, view.selection(), len),
        None => Ok(std::iter::repeat_n(0, len).collect()),
    }
}

fn texts(view: &View, column: LeafColumn, len: usize) -> Result<Texts, TableError> {
    match view.bytes().file().position(column) {
        Some(leaf) => texts::read(view.bytes(), leaf, view.selection(), len),
        None => Ok(Texts::default()),
    }
}

/// Everything that a block stores of selected traces.
pub(crate) struct Records {
    /// vParquet4 gives attributes without a value back as empty, vParquet5 drops them.
    pub(super) keeps_empty_attributes: bool,
    pub(crate) structure: Arc<Structure>,
    pub(super) events: Arc<[u32]>,
    pub(super) links: Arc<[u32]>,
    pub(super) trace_ids: Texts,
    pub(super) resources: Attributes,
    pub(super) service_names: Texts,
    pub(super) scopes: Attributes,
    pub(super) scope_names: Texts,
    pub(super) scope_versions: Texts,
    pub(super) spans: Attributes,
    pub(super) span_ids: Texts,
    pub(super) parent_ids: Texts,
    pub(super) span_names: Texts,
    pub(super) kinds: Arc<[i64]>,
    pub(super) trace_states: Texts,
    pub(super) starts: Arc<[i64]>,
    pub(super) durations: Arc<[i64]>,
    pub(super) status_codes: Arc<[i64]>,
    pub(super) status_messages: Texts,
    pub(super) dropped_events: Arc<[i64]>,
    pub(super) dropped_links: Arc<[i64]>,
    pub(super) event_attributes: Attributes,
    pub(super) event_names: Texts,
    pub(super) event_offsets: Arc<[i64]>,
    pub(super) link_attributes: Attributes,
    pub(super) link_trace_ids: Texts,
    pub(super) link_span_ids: Texts,
    pub(super) link_trace_states: Texts,
}

impl Records {
    /// Reads all leaves, their bytes in one go.
    pub(crate) fn read(view: &View) -> Result<Self, TableError> {
        use LeafColumn as C;
        let file = view.bytes().file();
        let wanted: Vec<LeafIndex> = file
            .positions()
            .filter(|(column, leaf)| !is_derived(*column) && view.bytes().may_have_values(*leaf))
            .map(|(_, leaf)| leaf)
            .collect();
        view.bytes().load(&wanted, view.selection())?;
        let traces = view.rows(Level::Trace)?;
        let resources = view.rows(Level::Resource)?;
        let scopes = view.rows(Level::Scope)?;
        let spans = view.rows(Level::Span)?;
        let events = view.rows(Level::Event)?;
        let links = view.rows(Level::Link)?;
        let attributes =
            |scope: AttributeScope, dropped| Attributes::read(view, scope, scope.level(), dropped);
        Ok(Self {
            keeps_empty_attributes: file.version() == Version::VParquet4,
            structure: view.structure()?,
            events: view.event_offsets()?,
            links: view.link_offsets()?,
            trace_ids: texts(view, C::TraceId, traces)?,
            resources: attributes(AttributeScope::Resource, C::ResourceDroppedAttributes)?,
            service_names: texts(view, C::ResourceServiceName, resources)?,
            scopes: attributes(AttributeScope::Instrumentation, C::ScopeDroppedAttributes)?,
            scope_names: texts(view, C::ScopeName, scopes)?,
            scope_versions: texts(view, C::ScopeVersion, scopes)?,
            spans: attributes(AttributeScope::Span, C::SpanDroppedAttributes)?,
            span_ids: texts(view, C::SpanId, spans)?,
            parent_ids: texts(view, C::ParentSpanId, spans)?,
            span_names: texts(view, C::SpanName, spans)?,
            kinds: ints(view, C::SpanKind, spans)?,
            trace_states: texts(view, C::TraceState, spans)?,
            starts: ints(view, C::SpanStart, spans)?,
            durations: ints(view, C::SpanDuration, spans)?,
            status_codes: ints(view, C::StatusCode, spans)?,
            status_messages: texts(view, C::StatusMessage, spans)?,
            dropped_events: ints(view, C::DroppedEvents, spans)?,
            dropped_links: ints(view, C::DroppedLinks, spans)?,
            event_attributes: attributes(AttributeScope::Event, C::EventDroppedAttributes)?,
            event_names: texts(view, C::EventName, events)?,
            event_offsets: ints(view, C::EventTimeSinceStart, events)?,
            link_attributes: attributes(AttributeScope::Link, C::LinkDroppedAttributes)?,
            link_trace_ids: texts(view, C::LinkTraceId, links)?,
            link_span_ids: texts(view, C::LinkSpanId, links)?,
            link_trace_states: texts(view, C::LinkTraceState, links)?,
        })
    }
}

/// Whether a column only repeats what others say.
fn is_derived(column: LeafColumn) -> bool {
    use LeafColumn as C;
    matches!(
        column,
        C::TraceIdText
            | C::TraceStart
            | C::TraceEnd
            | C::TraceDuration
            | C::RootServiceName
            | C::RootSpanName
            | C::StatsServiceName
            | C::StatsSpanCount
            | C::StatsErrorCount
            | C::ScopeSpanCount
            | C::ParentId
            | C::NestedSetLeft
            | C::NestedSetRight
            | C::ChildCount
            | C::StartRounded(_)
    )
}
