//! Whether all columns describe the same tree of traces, resources, scopes, spans and parts.

use std::collections::BTreeMap;

use tempo_table::AttributeScope;

use super::{CheckReport, leaf::LeafColumnData};
use crate::schema::{AttributeLeaf, Leaf, LeafColumn};

/// What a column has one entry for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Trace,
    Stats,
    Resource,
    Scope,
    Span,
    Event,
    Link,
    Attributes(AttributeScope),
}

impl Group {
    fn of(column: LeafColumn) -> Self {
        match column {
            LeafColumn::TraceId
            | LeafColumn::TraceIdText
            | LeafColumn::TraceStart
            | LeafColumn::TraceEnd
            | LeafColumn::TraceDuration
            | LeafColumn::RootServiceName
            | LeafColumn::RootSpanName => Self::Trace,
            LeafColumn::StatsServiceName
            | LeafColumn::StatsSpanCount
            | LeafColumn::StatsErrorCount => Self::Stats,
            LeafColumn::ResourceServiceName | LeafColumn::ResourceDroppedAttributes => {
                Self::Resource
            }
            LeafColumn::ScopeName
            | LeafColumn::ScopeVersion
            | LeafColumn::ScopeDroppedAttributes
            | LeafColumn::ScopeSpanCount => Self::Scope,
            LeafColumn::EventTimeSinceStart
            | LeafColumn::EventName
            | LeafColumn::EventDroppedAttributes => Self::Event,
            LeafColumn::LinkTraceId
            | LeafColumn::LinkSpanId
            | LeafColumn::LinkTraceState
            | LeafColumn::LinkDroppedAttributes => Self::Link,
            LeafColumn::Attribute(scope, _) => Self::Attributes(scope),
            LeafColumn::WellKnown(column) => Self::owner(column.scope()),
            LeafColumn::Dedicated(scope, ..) => Self::owner(scope),
            _ => Self::Span,
        }
    }

    fn owner(scope: AttributeScope) -> Self {
        match scope {
            AttributeScope::Resource => Self::Resource,
            AttributeScope::Instrumentation => Self::Scope,
            AttributeScope::Span => Self::Span,
            AttributeScope::Event => Self::Event,
            AttributeScope::Link => Self::Link,
        }
    }

    fn parent(self) -> Option<Self> {
        match self {
            Self::Trace => None,
            Self::Stats | Self::Resource => Some(Self::Trace),
            Self::Scope => Some(Self::Resource),
            Self::Span => Some(Self::Scope),
            Self::Event | Self::Link => Some(Self::Span),
            Self::Attributes(scope) => Some(Self::owner(scope)),
        }
    }

    /// Repetition and definition level of an entry that is there: lists are never optional.
    fn level(self) -> i16 {
        self.parent().map_or(0, |parent| parent.level() + 1)
    }
}

/// Levels of the entries of a group.
#[derive(Debug, PartialEq, Eq)]
struct Entries {
    /// The column that they were taken from.
    path: String,
    levels: Vec<(i16, i16)>,
}

/// The entries of each group, as the first column of it has them.
pub(super) struct Structure {
    groups: BTreeMap<Group, Entries>,
    /// Per scope, values of each attribute so far, and whether it is an array.
    attributes: BTreeMap<AttributeScope, Attributes>,
    rows: usize,
}

#[derive(Debug, Default)]
struct Attributes {
    values: Vec<u32>,
    lanes: Vec<u32>,
    is_array: Vec<bool>,
    /// Entries that are attributes.
    present: Vec<bool>,
}

impl Structure {
    pub(super) fn new(rows: usize) -> Self {
        Self {
            groups: BTreeMap::new(),
            attributes: BTreeMap::new(),
            rows,
        }
    }

    /// Takes a column.
    pub(super) fn check(
        &mut self,
        leaf: &Leaf,
        data: &LeafColumnData,
        place: &str,
        report: &mut CheckReport,
    ) {
        let group = Group::of(leaf.column);
        let level = group.level();
        let levels: Vec<(i16, i16)> = collapse(data, level);
        match self.groups.get(&group) {
            Some(first) if first.levels == levels => {}
            Some(first) => {
                let at = first
                    .levels
                    .iter()
                    .zip(&levels)
                    .position(|(one, other)| one != other);
                report.problem(
                    place,
                    format!(
                        "levels differ from those of {} (entries {} and {}, first at {at:?})",
                        first.path,
                        levels.len(),
                        first.levels.len()
                    ),
                );
            }
            None => {
                let path = leaf.path.clone();
                self.groups.insert(group, Entries { path, levels });
            }
        }
        if let LeafColumn::Attribute(scope, part) = leaf.column {
            let attributes = self.attributes.entry(scope).or_default();
            attributes.take(part, leaf, data, level);
        }
    }

    /// Compares groups with those that hold them, and the values of attributes.
    pub(super) fn finish(&self, row_group: usize, report: &mut CheckReport) {
        for (group, entries) in &self.groups {
            let place = format!("row group {row_group}, {}", entries.path);
            let Some(parent) = group.parent() else {
                report.expect(&place, "number of rows", entries.levels.len(), self.rows);
                continue;
            };
            let Some(parent_entries) = self.groups.get(&parent) else {
                continue;
            };
            let level = parent.level();
            let mut collapsed = Vec::new();
            for &(rep, def) in &entries.levels {
                if rep <= level {
                    collapsed.push((rep, def.min(level)));
                }
            }
            if collapsed != parent_entries.levels {
                report.problem(
                    &place,
                    format!("levels do not fit those of {}", parent_entries.path),
                );
            }
        }
        for (scope, attributes) in &self.attributes {
            let place = format!("row group {row_group}, attributes of {scope:?}");
            let broken = attributes.broken();
            report.expect(place, "attributes without exactly one value", broken, 0);
        }
    }
}

/// The entries of a column down to a level; deeper ones belong to the entry before.
fn collapse(data: &LeafColumnData, level: i16) -> Vec<(i16, i16)> {
    let levels = data.reps.iter().zip(&data.defs);
    levels
        .filter(|&(&rep, _)| rep <= level)
        .map(|(&rep, &def)| (rep, def.min(level)))
        .collect()
}

impl Attributes {
    fn take(&mut self, part: AttributeLeaf, leaf: &Leaf, data: &LeafColumnData, level: i16) {
        let counts = data.counts(level, leaf.max_def);
        match part {
            AttributeLeaf::Key => {
                self.present = counts.iter().map(|&count| count > 0).collect();
                self.values = vec![0; counts.len()];
                self.lanes = vec![0; counts.len()];
            }
            AttributeLeaf::IsArray => {
                let super::leaf::Values::Bools(flags) = &data.values else {
                    return;
                };
                let mut flags = flags.iter();
                self.is_array = self
                    .present
                    .iter()
                    .map(|&present| present && flags.next().copied().unwrap_or(false))
                    .collect();
            }
            _ => {
                for ((values, lanes), count) in
                    self.values.iter_mut().zip(&mut self.lanes).zip(counts)
                {
                    *values += count;
                    *lanes += u32::from(count > 0);
                }
            }
        }
    }

    /// A scalar has one value; an array has any number in one column.
    fn broken(&self) -> usize {
        let entries = self.present.iter().zip(&self.is_array);
        entries
            .zip(self.values.iter().zip(&self.lanes))
            .filter(
                |&((&present, &is_array), (&values, &lanes))| match (present, is_array) {
                    (false, _) => values != 0,
                    (true, false) => values != 1,
                    (true, true) => lanes > 1,
                },
            )
            .count()
    }
}
