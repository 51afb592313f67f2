//! The columns of finished live data.

use std::sync::Arc;

use tempo_model::TraceId;

use super::{
    packed::{PackedCodes, PackedInts},
    stored::{AttributeColumn, Attributes},
};
use crate::{
    AttributeScope, Bitmap, Column, ColumnKey, IdLane, Intrinsic, Level, NumberLane, SERVICE_NAME,
    SpanTable, StringDict, StringLane, Structure, TableError,
};

/// Traces in memory, as columns; made by [`super::MemoryTableBuilder`].
///
/// Numbers and codes are kept as narrow as their range allows, attributes of few rows as lists of
/// those rows, attributes of resources and scopes once per distinct resource and scope. A column
/// gets its full width only while a query uses it.
#[derive(Debug)]
pub struct MemoryTable {
    traces: Traces,
    resources: Resources,
    scopes: Scopes,
    spans: Spans,
    events: Events,
    links: Links,
    structure: Arc<Structure>,
}

/// What the builder hands over.
pub(super) struct Parts {
    pub(super) traces: Traces,
    pub(super) resources: Resources,
    pub(super) scopes: Scopes,
    pub(super) spans: Spans,
    pub(super) events: Events,
    pub(super) links: Links,
    pub(super) structure: Structure,
}

#[derive(Debug)]
pub(super) struct Traces {
    ids: Arc<[u8]>,
    /// Trace rows, sorted by id.
    by_id: Box<[u32]>,
    starts_nano: PackedInts,
    durations_nano: PackedInts,
    root_services: Texts,
    root_names: Texts,
}

#[derive(Debug)]
pub(super) struct Resources {
    /// Per distinct resource.
    pub(super) attributes: Attributes,
    /// Which distinct resource each row is.
    pub(super) kinds: Box<[u32]>,
}

#[derive(Debug)]
pub(super) struct Scopes {
    /// Per distinct scope, as are names and versions.
    pub(super) attributes: Attributes,
    pub(super) names: Texts,
    pub(super) versions: Texts,
    /// Which distinct scope each row is.
    pub(super) kinds: Box<[u32]>,
}

#[derive(Debug)]
pub(super) struct Spans {
    pub(super) ids: Arc<[u8]>,
    pub(super) parent_ids: Arc<[u8]>,
    pub(super) names: Texts,
    pub(super) kinds: PackedInts,
    pub(super) statuses: PackedInts,
    pub(super) status_messages: Texts,
    pub(super) trace_states: Texts,
    pub(super) starts_nano: PackedInts,
    pub(super) durations_nano: PackedInts,
    pub(super) lefts: PackedInts,
    pub(super) rights: PackedInts,
    pub(super) parents: PackedInts,
    pub(super) children: PackedInts,
    pub(super) attributes: Attributes,
}

#[derive(Debug)]
pub(super) struct Events {
    pub(super) names: Texts,
    pub(super) since_start_nano: PackedInts,
    pub(super) attributes: Attributes,
    pub(super) offsets: Arc<[u32]>,
}

#[derive(Debug)]
pub(super) struct Links {
    pub(super) trace_ids: Arc<[u8]>,
    pub(super) span_ids: Arc<[u8]>,
    pub(super) attributes: Attributes,
    pub(super) offsets: Arc<[u32]>,
}

/// A text in every row.
#[derive(Debug)]
pub(super) struct Texts {
    dict: Arc<StringDict>,
    codes: TextCodes,
}

#[derive(Debug)]
enum TextCodes {
    All(PackedCodes),
    /// The empty text (code 0) but in these rows.
    Few {
        rows: Box<[u32]>,
        codes: PackedCodes,
        len: usize,
    },
}

impl Texts {
    pub(super) fn new(codes: &[u32], dict: Arc<StringDict>) -> Self {
        Self {
            codes: TextCodes::All(PackedCodes::new(codes, dict.len())),
            dict,
        }
    }

    /// `filled` holds rows and codes; all other rows hold code 0, the empty text.
    pub(super) fn sparse(filled: &[(u32, u32)], len: usize, dict: StringDict) -> Self {
        let width = PackedCodes::width(dict.len());
        let codes = if filled.len() * (4 + width) < len * width {
            let codes: Vec<u32> = filled.iter().map(|&(_, code)| code).collect();
            TextCodes::Few {
                rows: filled.iter().map(|&(row, _)| row).collect(),
                codes: PackedCodes::new(&codes, dict.len()),
                len,
            }
        } else {
            let mut codes = vec![0; len];
            for &(row, code) in filled {
                codes[row as usize] = code;
            }
            TextCodes::All(PackedCodes::new(&codes, dict.len()))
        };
        Self {
            dict: Arc::new(dict),
            codes,
        }
    }

    fn code(&self, row: u32) -> u32 {
        match &self.codes {
            TextCodes::All(codes) => codes.get(row as usize),
            TextCodes::Few { rows, codes, .. } => {
                rows.binary_search(&row).map_or(0, |at| codes.get(at))
            }
        }
    }

    fn column(&self, level: Level) -> Column {
        let codes = match &self.codes {
            TextCodes::All(codes) => codes.expand(),
            TextCodes::Few { rows, codes, len } => {
                let mut all: Arc<[u32]> = std::iter::repeat_n(0, *len).collect();
                if let Some(all) = Arc::get_mut(&mut all) {
                    for (at, &row) in rows.iter().enumerate() {
                        all[row as usize] = codes.get(at);
                    }
                }
                all
            }
        };
        self.with_codes(level, codes)
    }

    fn gather(&self, level: Level, rows: impl ExactSizeIterator<Item = u32>) -> Column {
        self.with_codes(level, rows.map(|row| self.code(row)).collect())
    }

    fn with_codes(&self, level: Level, codes: Arc<[u32]>) -> Column {
        Column {
            strings: Some(StringLane {
                dict: Arc::clone(&self.dict),
                codes: Arc::clone(&codes),
            }),
            ..Column::absent(level, codes.len())
        }
    }

    fn heap_bytes(&self) -> usize {
        self.dict.heap_bytes()
            + match &self.codes {
                TextCodes::All(codes) => codes.heap_bytes(),
                TextCodes::Few { rows, codes, .. } => rows.len() * 4 + codes.heap_bytes(),
            }
    }
}

impl Traces {
    pub(super) fn new(
        ids: &[[u8; 16]],
        starts_nano: &[i64],
        durations_nano: &[i64],
        root_services: Texts,
        root_names: Texts,
    ) -> Self {
        let mut by_id: Box<[u32]> = (0..ids.len() as u32).collect();
        by_id.sort_unstable_by_key(|&row| ids[row as usize]);
        Self {
            ids: ids.as_flattened().into(),
            by_id,
            starts_nano: PackedInts::new(starts_nano),
            durations_nano: PackedInts::new(durations_nano),
            root_services,
            root_names,
        }
    }

    fn id(&self, row: usize) -> TraceId {
        TraceId::from_padded(&self.ids[row * 16..(row + 1) * 16])
    }
}

/// Where a column's values are.
enum Source<'a> {
    Texts(&'a Texts),
    Ints(&'a PackedInts),
    Ids(usize, &'a Arc<[u8]>),
    Attribute(&'a AttributeColumn),
    Absent,
}

impl MemoryTable {
    pub(super) fn from_parts(parts: Parts) -> Self {
        Self {
            traces: parts.traces,
            resources: parts.resources,
            scopes: parts.scopes,
            spans: parts.spans,
            events: parts.events,
            links: parts.links,
            structure: Arc::new(parts.structure),
        }
    }

    /// How many traces there are.
    pub fn traces(&self) -> usize {
        self.structure.traces()
    }

    /// How many spans there are.
    pub fn spans(&self) -> usize {
        self.structure.spans()
    }

    /// The ids of the traces, in row order.
    pub fn trace_ids(&self) -> impl ExactSizeIterator<Item = TraceId> + '_ {
        (0..self.traces()).map(|row| self.traces.id(row))
    }

    /// The row of a trace.
    pub fn find(&self, id: &TraceId) -> Option<usize> {
        self.traces
            .by_id
            .binary_search_by_key(id, |&row| self.traces.id(row as usize))
            .ok()
            .map(|at| self.traces.by_id[at] as usize)
    }

    /// Earliest start and latest end of all traces, nanoseconds since the epoch; `None` when the
    /// table is empty.
    pub fn time_range_nano(&self) -> Option<(u64, u64)> {
        (0..self.traces())
            .map(|row| {
                let start = self.traces.starts_nano.get(row) as u64;
                (
                    start,
                    start.wrapping_add(self.traces.durations_nano.get(row) as u64),
                )
            })
            .reduce(|(start, end), (other_start, other_end)| {
                (start.min(other_start), end.max(other_end))
            })
    }

    /// Heap bytes held, dictionaries included.
    pub fn heap_bytes(&self) -> usize {
        let structure = &*self.structure;
        let structure: usize = [
            &structure.trace_spans,
            &structure.trace_resources,
            &structure.resource_scopes,
            &structure.scope_spans,
            &structure.span_resource,
            &structure.span_scope,
        ]
        .iter()
        .map(|rows| rows.len() * 4)
        .sum();
        let texts: usize = [
            &self.traces.root_services,
            &self.traces.root_names,
            &self.scopes.names,
            &self.scopes.versions,
            &self.spans.names,
            &self.spans.status_messages,
            &self.spans.trace_states,
            &self.events.names,
        ]
        .iter()
        .map(|texts| texts.heap_bytes())
        .sum();
        let ints: usize = [
            &self.traces.starts_nano,
            &self.traces.durations_nano,
            &self.spans.kinds,
            &self.spans.statuses,
            &self.spans.starts_nano,
            &self.spans.durations_nano,
            &self.spans.lefts,
            &self.spans.rights,
            &self.spans.parents,
            &self.spans.children,
            &self.events.since_start_nano,
        ]
        .iter()
        .map(|ints| ints.heap_bytes())
        .sum();
        let ids: usize = [
            &self.traces.ids,
            &self.spans.ids,
            &self.spans.parent_ids,
            &self.links.trace_ids,
            &self.links.span_ids,
        ]
        .iter()
        .map(|ids| ids.len())
        .sum();
        let attributes: usize = [
            &self.resources.attributes,
            &self.scopes.attributes,
            &self.spans.attributes,
            &self.events.attributes,
            &self.links.attributes,
        ]
        .iter()
        .map(|attributes| attributes.heap_bytes())
        .sum();
        let rows = self.traces.by_id.len()
            + self.resources.kinds.len()
            + self.scopes.kinds.len()
            + self.events.offsets.len()
            + self.links.offsets.len();
        structure + texts + ints + ids + attributes + rows * 4
    }

    fn attributes(&self, scope: AttributeScope) -> &Attributes {
        match scope {
            AttributeScope::Resource => &self.resources.attributes,
            AttributeScope::Instrumentation => &self.scopes.attributes,
            AttributeScope::Span => &self.spans.attributes,
            AttributeScope::Event => &self.events.attributes,
            AttributeScope::Link => &self.links.attributes,
        }
    }

    fn level_rows(&self, level: Level) -> usize {
        match level {
            Level::Trace => self.structure.traces(),
            Level::Resource => self.resources.kinds.len(),
            Level::Scope => self.scopes.kinds.len(),
            Level::Span => self.structure.spans(),
            Level::Event => self.events.offsets.last().map_or(0, |&end| end as usize),
            Level::Link => self.links.offsets.last().map_or(0, |&end| end as usize),
        }
    }

    /// Resources and scopes keep their values per distinct message: which one each row is.
    fn kinds(&self, level: Level) -> Option<&[u32]> {
        match level {
            Level::Resource => Some(&self.resources.kinds),
            Level::Scope => Some(&self.scopes.kinds),
            Level::Trace | Level::Span | Level::Event | Level::Link => None,
        }
    }

    fn source(&self, key: &ColumnKey) -> Source<'_> {
        let intrinsic = match key {
            ColumnKey::Intrinsic(intrinsic) => *intrinsic,
            ColumnKey::Attribute { scope, name } => {
                return match self.attributes(*scope).get(name) {
                    Some(column) => Source::Attribute(column),
                    None => Source::Absent,
                };
            }
        };
        match intrinsic {
            Intrinsic::TraceId => Source::Ids(16, &self.traces.ids),
            Intrinsic::TraceStartNano => Source::Ints(&self.traces.starts_nano),
            Intrinsic::TraceDurationNano => Source::Ints(&self.traces.durations_nano),
            Intrinsic::RootServiceName => Source::Texts(&self.traces.root_services),
            Intrinsic::RootSpanName => Source::Texts(&self.traces.root_names),
            Intrinsic::SpanId => Source::Ids(8, &self.spans.ids),
            Intrinsic::ParentSpanId => Source::Ids(8, &self.spans.parent_ids),
            Intrinsic::SpanName => Source::Texts(&self.spans.names),
            Intrinsic::SpanKind => Source::Ints(&self.spans.kinds),
            Intrinsic::StatusCode => Source::Ints(&self.spans.statuses),
            Intrinsic::StatusMessage => Source::Texts(&self.spans.status_messages),
            Intrinsic::TraceState => Source::Texts(&self.spans.trace_states),
            Intrinsic::SpanStartNano => Source::Ints(&self.spans.starts_nano),
            Intrinsic::SpanDurationNano => Source::Ints(&self.spans.durations_nano),
            Intrinsic::NestedSetLeft => Source::Ints(&self.spans.lefts),
            Intrinsic::NestedSetRight => Source::Ints(&self.spans.rights),
            Intrinsic::NestedSetParent => Source::Ints(&self.spans.parents),
            Intrinsic::ChildCount => Source::Ints(&self.spans.children),
            Intrinsic::ScopeName => Source::Texts(&self.scopes.names),
            Intrinsic::ScopeVersion => Source::Texts(&self.scopes.versions),
            Intrinsic::EventName => Source::Texts(&self.events.names),
            Intrinsic::EventTimeSinceStartNano => Source::Ints(&self.events.since_start_nano),
            Intrinsic::LinkTraceId => Source::Ids(16, &self.links.trace_ids),
            Intrinsic::LinkSpanId => Source::Ids(8, &self.links.span_ids),
        }
    }

    /// The values of `rows`, which count distinct messages for resources and scopes.
    fn gather_stored(&self, key: &ColumnKey, rows: &[u32]) -> Column {
        let level = key.level();
        match self.source(key) {
            Source::Texts(texts) => texts.gather(level, rows.iter().copied()),
            Source::Ints(ints) => Column {
                ints: Some(NumberLane {
                    values: rows.iter().map(|&row| ints.get(row as usize)).collect(),
                    present: None,
                }),
                ..Column::absent(level, rows.len())
            },
            Source::Ids(width, bytes) => Column {
                ids: Some(IdLane {
                    width,
                    bytes: rows
                        .iter()
                        .flat_map(|&row| &bytes[row as usize * width..(row as usize + 1) * width])
                        .copied()
                        .collect(),
                }),
                ..Column::absent(level, rows.len())
            },
            Source::Attribute(column) => column.gather(level, rows),
            Source::Absent => Column::absent(level, rows.len()),
        }
    }
}

impl SpanTable for MemoryTable {
    fn structure(&self) -> Result<Arc<Structure>, TableError> {
        Ok(Arc::clone(&self.structure))
    }

    fn event_offsets(&self) -> Result<Arc<[u32]>, TableError> {
        Ok(Arc::clone(&self.events.offsets))
    }

    fn link_offsets(&self) -> Result<Arc<[u32]>, TableError> {
        Ok(Arc::clone(&self.links.offsets))
    }

    fn column(&self, key: &ColumnKey, _rows: Option<&Bitmap>) -> Result<Column, TableError> {
        let level = key.level();
        if let Some(kinds) = self.kinds(level) {
            return Ok(self.gather_stored(key, kinds));
        }
        let len = self.level_rows(level);
        Ok(match self.source(key) {
            Source::Texts(texts) => texts.column(level),
            Source::Ints(ints) => Column {
                ints: Some(NumberLane {
                    values: ints.expand(),
                    present: None,
                }),
                ..Column::absent(level, len)
            },
            Source::Ids(width, bytes) => Column {
                ids: Some(IdLane {
                    width,
                    bytes: Arc::clone(bytes),
                }),
                ..Column::absent(level, len)
            },
            Source::Attribute(column) => column.expand(level, len),
            Source::Absent => Column::absent(level, len),
        })
    }

    fn gather(&self, key: &ColumnKey, rows: &[u32]) -> Result<Column, TableError> {
        Ok(match self.kinds(key.level()) {
            Some(kinds) => {
                let rows: Vec<u32> = rows.iter().map(|&row| kinds[row as usize]).collect();
                self.gather_stored(key, &rows)
            }
            None => self.gather_stored(key, rows),
        })
    }

    fn few_rows(&self, key: &ColumnKey) -> Result<Option<Vec<u32>>, TableError> {
        Ok(match self.source(key) {
            // Kept per distinct message, not per row.
            _ if self.kinds(key.level()).is_some() => None,
            Source::Attribute(column) => column.few_rows(),
            Source::Absent => Some(Vec::new()),
            Source::Texts(_) | Source::Ints(_) | Source::Ids(..) => None,
        })
    }

    fn string_superset(&self, key: &ColumnKey) -> Result<Option<Arc<StringDict>>, TableError> {
        Ok(match self.source(key) {
            Source::Texts(texts) => Some(Arc::clone(&texts.dict)),
            Source::Attribute(column) => column.texts(),
            Source::Absent => Some(Arc::default()),
            Source::Ints(_) | Source::Ids(..) => None,
        })
    }

    fn int_bounds(&self, key: &ColumnKey) -> Result<Option<(i64, i64)>, TableError> {
        Ok(match self.source(key) {
            Source::Ints(ints) => Some(ints.bounds()),
            Source::Attribute(column) => column.int_bounds(),
            Source::Texts(_) | Source::Ids(..) | Source::Absent => None,
        })
    }

    fn attribute_names(
        &self,
        scope: AttributeScope,
        rows: Option<&Bitmap>,
    ) -> Result<Vec<Arc<str>>, TableError> {
        let attributes = self.attributes(scope);
        // Values are kept per distinct message there, so ask for those of the rows.
        let kinds = match (rows, self.kinds(scope.level())) {
            (Some(rows), Some(kinds)) => {
                let len = kinds.iter().max().map_or(0, |&kind| kind as usize + 1);
                let mut wanted = Bitmap::new(len);
                for row in rows.iter() {
                    wanted.insert(kinds[row] as usize);
                }
                Some(wanted)
            }
            _ => None,
        };
        let rows = kinds.as_ref().or(rows);
        Ok(attributes
            .iter()
            .filter(|column| {
                if scope == AttributeScope::Resource && &*column.name == SERVICE_NAME {
                    column.any_but_empty_text(rows)
                } else {
                    column.any(rows)
                }
            })
            .map(|column| Arc::clone(&column.name))
            .collect())
    }

    fn bytes_read(&self) -> u64 {
        0
    }
}
