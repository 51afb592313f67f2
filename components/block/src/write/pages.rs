//! From the columns of a stripe to one page per leaf.
//!
//! Every leaf's page holds the same traces, so levels are encoded once and shared by all leaves of
//! a shape, and a trace is found at the same page number in every column.

use std::cell::OnceCell;

use tempo_table::AttributeScope;

use super::{
    WriteError,
    attributes::{AttributeColumns, kind},
    chunk::{ColumnChunk, encoding_of},
    columns::{Columns, level},
    encode::{Compressor, DataPage, encode_levels},
    lanes::ByteLane,
    spare::SpareColumn,
    values::{ValueScratch, Values},
};
use crate::schema::{AttributeLeaf, BlockSchema, Leaf, LeafColumn, LeafEncoding};

/// Levels of a column, encoded when first asked for, per width in bits (1 to 3).
struct Levels<'a> {
    levels: &'a [u8],
    encoded: [OnceCell<Vec<u8>>; 3],
}

impl<'a> Levels<'a> {
    fn new(levels: &'a [u8]) -> Self {
        Self {
            levels,
            encoded: Default::default(),
        }
    }

    /// The encoded form for levels up to `max`.
    fn encoded(&self, max: i16) -> &[u8] {
        let width = width_of(max);
        if width == 0 {
            return &[];
        }
        self.encoded[width as usize - 1].get_or_init(|| {
            let mut out = Vec::new();
            encode_levels(self.levels, width, &mut out);
            out
        })
    }
}

fn width_of(max: i16) -> u32 {
    16 - max.leading_zeros()
}

/// The levels that the leaves of one group share.
struct Shape<'a> {
    reps: Levels<'a>,
    defs: Levels<'a>,
    /// Level entries; without levels, rows.
    entries: usize,
    /// Owners that are there.
    present: usize,
}

impl<'a> Shape<'a> {
    /// Owners are there where the definition level is `present_def`.
    fn new(reps: &'a [u8], defs: &'a [u8], present_def: u8) -> Self {
        Self {
            entries: reps.len(),
            present: defs.iter().filter(|&&def| def == present_def).count(),
            reps: Levels::new(reps),
            defs: Levels::new(defs),
        }
    }

    /// One value per row, no levels.
    fn rows(rows: usize) -> Self {
        Self {
            entries: rows,
            present: rows,
            ..Self::new(&[], &[], 0)
        }
    }
}

/// Turns stripes into pages; keeps its buffers.
pub(super) struct PageMaker {
    compressor: Compressor,
    values: Vec<u8>,
    reps: Vec<u8>,
    defs: Vec<u8>,
    encoded_reps: Vec<u8>,
    encoded_defs: Vec<u8>,
    numbers: Vec<i32>,
    scratch: ValueScratch,
    flags: Vec<bool>,
}

/// Everything that the page of a leaf needs beside its values.
struct Target<'a> {
    leaf: &'a Leaf,
    chunk: &'a mut ColumnChunk,
    rows: usize,
}

impl PageMaker {
    pub(super) fn new() -> Self {
        Self {
            compressor: Compressor::new(),
            values: Vec::new(),
            reps: Vec::new(),
            defs: Vec::new(),
            encoded_reps: Vec::new(),
            encoded_defs: Vec::new(),
            numbers: Vec::new(),
            scratch: ValueScratch::default(),
            flags: Vec::new(),
        }
    }

    pub(super) fn compressor(&mut self) -> &mut Compressor {
        &mut self.compressor
    }

    /// Appends one page to every chunk.
    pub(super) fn make(
        &mut self,
        schema: &BlockSchema,
        columns: &Columns,
        chunks: &mut [ColumnChunk],
    ) -> Result<(), WriteError> {
        let filled = |level: u8, like: &[u8]| vec![level; like.len()];
        let stats_defs = filled(1, &columns.traces.stats_reps);
        let resource_defs = filled(level::RESOURCE, &columns.resources.reps);
        let scope_defs = filled(level::SCOPE, &columns.scopes.reps);
        let span_defs = filled(level::SPAN, &columns.spans.reps);
        let (events, links) = (&columns.events, &columns.links);
        let shapes = Shapes {
            traces: Shape::rows(columns.rows()),
            stats: Shape::new(&columns.traces.stats_reps, &stats_defs, 1),
            resources: Shape::new(&columns.resources.reps, &resource_defs, level::RESOURCE),
            scopes: Shape::new(&columns.scopes.reps, &scope_defs, level::SCOPE),
            spans: Shape::new(&columns.spans.reps, &span_defs, level::SPAN),
            events: Shape::new(&events.reps, &events.defs, level::PART),
            links: Shape::new(&links.reps, &links.defs, level::PART),
            attributes: [
                attribute_shape(&columns.resources.attributes, level::RESOURCE),
                attribute_shape(&columns.scopes.attributes, level::SCOPE),
                attribute_shape(&columns.spans.attributes, level::SPAN),
                attribute_shape(&events.attributes, level::PART),
                attribute_shape(&links.attributes, level::PART),
            ],
        };
        for (index, (leaf, chunk)) in schema.leaves().iter().zip(chunks).enumerate() {
            let target = Target {
                leaf,
                chunk,
                rows: columns.rows(),
            };
            self.leaf(index, columns, &shapes, target)
                .map_err(|error| error.in_column(&leaf.path))?;
        }
        Ok(())
    }

    fn leaf(
        &mut self,
        index: usize,
        columns: &Columns,
        shapes: &Shapes<'_>,
        target: Target<'_>,
    ) -> Result<(), WriteError> {
        let Columns {
            traces,
            resources,
            scopes,
            spans,
            events,
            links,
        } = columns;
        let (shape, values) = match target.leaf.column {
            LeafColumn::TraceId => (&shapes.traces, Values::Fixed(&traces.ids, 16)),
            LeafColumn::TraceIdText => {
                let mut texts = ByteLane::default();
                for id in traces.ids.chunks_exact(16) {
                    let id = tempo_model::TraceId::from_padded(id);
                    texts.push(id.to_short_hex().as_bytes());
                }
                return self.required(&shapes.traces, Values::Bytes(&texts), target);
            }
            LeafColumn::TraceStart => (&shapes.traces, Values::U64(&traces.starts)),
            LeafColumn::TraceEnd => (&shapes.traces, Values::U64(&traces.ends)),
            LeafColumn::TraceDuration => (&shapes.traces, Values::U64(&traces.durations)),
            LeafColumn::RootServiceName => (&shapes.traces, (&traces.root_services).into()),
            LeafColumn::RootSpanName => (&shapes.traces, (&traces.root_names).into()),
            LeafColumn::StatsServiceName => (&shapes.stats, (&traces.stats_services).into()),
            LeafColumn::StatsSpanCount => (&shapes.stats, Values::U32(&traces.stats_spans)),
            LeafColumn::StatsErrorCount => (&shapes.stats, Values::U32(&traces.stats_errors)),
            LeafColumn::ResourceServiceName => (&shapes.resources, (&resources.services).into()),
            LeafColumn::ResourceDroppedAttributes => (
                &shapes.resources,
                Values::I32(&resources.dropped_attributes),
            ),
            LeafColumn::ScopeName => (&shapes.scopes, (&scopes.names).into()),
            LeafColumn::ScopeVersion => (&shapes.scopes, (&scopes.versions).into()),
            LeafColumn::ScopeDroppedAttributes => {
                (&shapes.scopes, Values::I32(&scopes.dropped_attributes))
            }
            LeafColumn::ScopeSpanCount => (&shapes.scopes, Values::I32(&scopes.span_counts)),
            LeafColumn::SpanId => (&shapes.spans, Values::Bytes(&spans.ids)),
            LeafColumn::ParentSpanId => (&shapes.spans, Values::Bytes(&spans.parent_ids)),
            LeafColumn::ParentId => {
                return self.nested(columns, shapes, |set| set.parent, target);
            }
            LeafColumn::NestedSetLeft => {
                return self.nested(columns, shapes, |set| set.left, target);
            }
            LeafColumn::NestedSetRight => {
                return self.nested(columns, shapes, |set| set.right, target);
            }
            LeafColumn::ChildCount => {
                return self.nested(columns, shapes, |set| set.children, target);
            }
            LeafColumn::SpanName => (&shapes.spans, (&spans.names).into()),
            LeafColumn::SpanKind => (&shapes.spans, Values::I64(&spans.kinds)),
            LeafColumn::TraceState => (&shapes.spans, Values::Bytes(&spans.trace_states)),
            LeafColumn::SpanStart => (&shapes.spans, Values::U64(&spans.starts)),
            LeafColumn::SpanDuration => (&shapes.spans, Values::U64(&spans.durations)),
            LeafColumn::StatusCode => (&shapes.spans, Values::I64(&spans.status_codes)),
            LeafColumn::StatusMessage => (&shapes.spans, Values::Bytes(&spans.status_messages)),
            LeafColumn::SpanDroppedAttributes => {
                (&shapes.spans, Values::I32(&spans.dropped_attributes))
            }
            LeafColumn::DroppedEvents => (&shapes.spans, Values::I32(&spans.dropped_events)),
            LeafColumn::DroppedLinks => (&shapes.spans, Values::I32(&spans.dropped_links)),
            LeafColumn::StartRounded(step) => {
                let rounded: Vec<u32> = spans
                    .starts
                    .iter()
                    .map(|&start| start_interval(start, step))
                    .collect();
                return self.required(&shapes.spans, Values::U32(&rounded), target);
            }
            LeafColumn::EventTimeSinceStart => (&shapes.events, Values::U64(&events.times)),
            LeafColumn::EventName => (&shapes.events, (&events.names).into()),
            LeafColumn::EventDroppedAttributes => {
                (&shapes.events, Values::I32(&events.dropped_attributes))
            }
            LeafColumn::LinkTraceId => (&shapes.links, Values::Bytes(&links.trace_ids)),
            LeafColumn::LinkSpanId => (&shapes.links, Values::Bytes(&links.span_ids)),
            LeafColumn::LinkTraceState => (&shapes.links, Values::Bytes(&links.trace_states)),
            LeafColumn::LinkDroppedAttributes => {
                (&shapes.links, Values::I32(&links.dropped_attributes))
            }
            LeafColumn::Attribute(scope, leaf) => {
                let (at, attributes) = match scope {
                    AttributeScope::Resource => (0, &resources.attributes),
                    AttributeScope::Instrumentation => (1, &scopes.attributes),
                    AttributeScope::Span => (2, &spans.attributes),
                    AttributeScope::Event => (3, &events.attributes),
                    AttributeScope::Link => (4, &links.attributes),
                };
                return self.attribute(&shapes.attributes[at], attributes, leaf, target);
            }
            LeafColumn::WellKnown(column) => {
                let scope = column.scope();
                return self.spare(index, columns, shapes, scope, target);
            }
            LeafColumn::Dedicated(scope, ..) => {
                return self.spare(index, columns, shapes, scope, target);
            }
        };
        self.required(shape, values, target)
    }

    /// A leaf that every owner has once.
    fn required(
        &mut self,
        shape: &Shape<'_>,
        values: Values<'_>,
        target: Target<'_>,
    ) -> Result<(), WriteError> {
        let leaf = target.leaf;
        let (reps, defs) = (
            shape.reps.encoded(leaf.max_rep),
            shape.defs.encoded(leaf.max_def),
        );
        self.page(reps, defs, shape.entries, shape.present, values, target)
    }

    fn nested(
        &mut self,
        columns: &Columns,
        shapes: &Shapes<'_>,
        number: impl Fn(&tempo_table::shape::NestedSet) -> i32,
        target: Target<'_>,
    ) -> Result<(), WriteError> {
        let mut numbers = std::mem::take(&mut self.numbers);
        numbers.clear();
        numbers.extend(columns.spans.nested.iter().map(number));
        let done = self.required(&shapes.spans, Values::I32(&numbers), target);
        self.numbers = numbers;
        done
    }

    /// A leaf of the generic attributes.
    fn attribute(
        &mut self,
        shape: &Shape<'_>,
        attributes: &AttributeColumns,
        attribute_leaf: AttributeLeaf,
        target: Target<'_>,
    ) -> Result<(), WriteError> {
        let lanes = &attributes.lanes;
        let (lane, values) = match attribute_leaf {
            AttributeLeaf::Key => {
                // Its dictionary belongs to the keys of the scope; bounds are set at the end.
                let values = Values::Codes(&lanes.keys, &attributes.values);
                return self.required(shape, values, target);
            }
            AttributeLeaf::IsArray => {
                let mut flags = std::mem::take(&mut self.flags);
                flags.clear();
                let kinds = lanes.kinds.iter().filter(|&&kind| kind != kind::NONE);
                flags.extend(kinds.map(|&kind| kind & kind::ARRAY != 0));
                let done = self.required(shape, Values::Bool(&flags), target);
                self.flags = flags;
                return done;
            }
            AttributeLeaf::Value => (
                kind::STRING,
                Values::Codes(&lanes.strings, &attributes.values),
            ),
            AttributeLeaf::ValueInt => (kind::INT, Values::I64(&lanes.ints)),
            AttributeLeaf::ValueDouble => (kind::DOUBLE, Values::F64(&lanes.doubles)),
            AttributeLeaf::ValueBool => (kind::BOOL, Values::Bool(&lanes.bools)),
            AttributeLeaf::ValueUnsupported => {
                (kind::UNSUPPORTED, Values::Bytes(&lanes.unsupported))
            }
        };
        let counts = lanes
            .kinds
            .iter()
            .scan(lanes.array_lengths.iter(), |arrays, &kind| {
                let elements = if kind & kind::ARRAY != 0 {
                    arrays.next().copied().unwrap_or(0)
                } else {
                    1
                };
                Some(if kind & kind::LANE == lane {
                    elements
                } else {
                    0
                })
            });
        let repeats = lanes.long_arrays >> lane & 1 == 1;
        let holds = lanes.kinds.iter().map(|kind| kind & kind::LANE == lane);
        self.optional(shape, holds, repeats.then_some(counts), values, target)
    }

    /// The column of a dedicated or well-known attribute.
    fn spare(
        &mut self,
        index: usize,
        columns: &Columns,
        shapes: &Shapes<'_>,
        scope: AttributeScope,
        target: Target<'_>,
    ) -> Result<(), WriteError> {
        let (shape, spare): (_, &[SpareColumn]) = match scope {
            AttributeScope::Resource => (&shapes.resources, &columns.resources.spare),
            AttributeScope::Event => (&shapes.events, &columns.events.spare),
            _ => (&shapes.spans, &columns.spans.spare),
        };
        let Some(column) = spare.iter().find(|column| column.leaf == index) else {
            // No attribute is assigned to the leaf.
            let values = match target.leaf.encoding {
                LeafEncoding::Plain => Values::I64(&[]),
                _ => Values::Codes(&[], &columns.spans.names.dict),
            };
            let counts = None::<std::iter::Empty<u32>>;
            let holds = std::iter::empty();
            return self.optional(shape, holds, counts, values, target);
        };
        let values = if column.is_int {
            Values::I64(&column.ints)
        } else {
            Values::Codes(&column.codes, &column.dict)
        };
        let counts = column.counts.iter().copied();
        self.optional(
            shape,
            column.counts.iter().map(|&count| count > 0),
            column.repeats.then_some(counts),
            values,
            target,
        )
    }

    /// A leaf one deeper than its owner: there where `holds` says so of the owner, several times where
    /// `counts` (given only when some owner repeats it) says so.
    fn optional(
        &mut self,
        shape: &Shape<'_>,
        holds: impl Iterator<Item = bool>,
        counts: Option<impl Iterator<Item = u32>>,
        values: Values<'_>,
        target: Target<'_>,
    ) -> Result<(), WriteError> {
        let leaf = target.leaf;
        let present = values.len();
        if present == 0 {
            let (reps, defs) = (
                shape.reps.encoded(leaf.max_rep),
                shape.defs.encoded(leaf.max_def),
            );
            return self.page(reps, defs, shape.entries, 0, values, target);
        }
        let mut defs = std::mem::take(&mut self.defs);
        let mut reps = std::mem::take(&mut self.reps);
        let mut encoded_defs = std::mem::take(&mut self.encoded_defs);
        let mut encoded_reps = std::mem::take(&mut self.encoded_reps);
        defs.clear();
        encoded_defs.clear();
        encoded_reps.clear();
        let base = shape.defs.levels;
        let done = match counts {
            None => {
                let held = base.iter().zip(holds);
                defs.extend(held.map(|(def, holds)| def + u8::from(holds)));
                assert_eq!(defs.len(), base.len(), "one of each entry");
                encode_levels(&defs, width_of(leaf.max_def), &mut encoded_defs);
                let reps = shape.reps.encoded(leaf.max_rep);
                self.page(reps, &encoded_defs, defs.len(), present, values, target)
            }
            Some(counts) => {
                reps.clear();
                for ((&rep, &def), count) in shape.reps.levels.iter().zip(base).zip(counts) {
                    reps.push(rep);
                    defs.push(def + u8::from(count > 0));
                    for _ in 1..count {
                        reps.push(leaf.max_rep as u8);
                        defs.push(leaf.max_def as u8);
                    }
                }
                encode_levels(&defs, width_of(leaf.max_def), &mut encoded_defs);
                encode_levels(&reps, width_of(leaf.max_rep), &mut encoded_reps);
                self.page(
                    &encoded_reps,
                    &encoded_defs,
                    defs.len(),
                    present,
                    values,
                    target,
                )
            }
        };
        self.defs = defs;
        self.reps = reps;
        self.encoded_defs = encoded_defs;
        self.encoded_reps = encoded_reps;
        done
    }

    fn page(
        &mut self,
        rep_levels: &[u8],
        def_levels: &[u8],
        entries: usize,
        present: usize,
        values: Values<'_>,
        target: Target<'_>,
    ) -> Result<(), WriteError> {
        let Target { leaf, chunk, rows } = target;
        self.values.clear();
        values.encode(leaf.encoding, &mut self.scratch, &mut self.values);
        if !leaf.blob {
            values.widen(leaf.encoding, &mut chunk.bounds);
        }
        let page = DataPage {
            rep_levels,
            def_levels,
            values: &self.values,
            encoding: encoding_of(leaf) as i32,
            entries,
            nulls: entries - present,
            rows,
        };
        chunk.push(leaf, &page, &mut self.compressor)?;
        Ok(())
    }
}

/// The shapes of all groups of a stripe.
struct Shapes<'a> {
    traces: Shape<'a>,
    stats: Shape<'a>,
    resources: Shape<'a>,
    scopes: Shape<'a>,
    spans: Shape<'a>,
    events: Shape<'a>,
    links: Shape<'a>,
    /// Of resources, scopes, spans, events, links.
    attributes: [Shape<'a>; 5],
}

fn attribute_shape(attributes: &AttributeColumns, owner: u8) -> Shape<'_> {
    Shape::new(&attributes.reps, &attributes.defs, owner + 1)
}

/// Number of the interval of `step` seconds that ends at or after `start` nanoseconds: intervals
/// hold their right end, and 0 stands for a start that is not set.
fn start_interval(start_unix_nano: u64, step_seconds: u32) -> u32 {
    let step = u64::from(step_seconds) * 1_000_000_000;
    match start_unix_nano {
        0 => 0,
        start => (start.div_ceil(step) - 1) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_intervals_are_closed_on_the_right() {
        let start = 1_700_000_007_123_456_789;
        assert_eq!(start_interval(start, 15), 113_333_333);
        assert_eq!(start_interval(start, 60), 28_333_333);
        assert_eq!(start_interval(start, 300), 5_666_666);
        assert_eq!(start_interval(start, 3600), 472_222);
        assert_eq!(start_interval(15_000_000_000, 15), 0);
        assert_eq!(start_interval(15_000_000_001, 15), 1);
        assert_eq!(start_interval(0, 15), 0);
    }
}
