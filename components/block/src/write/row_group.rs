//! One row group while it is filled: the stripe that is being read, and the pages before it.

use std::io::Write;

use tempo_table::AttributeScope;

use super::{
    WriteError,
    chunk::{Bounds, ColumnChunk, FinishedColumn},
    columns::Columns,
    encode::Compressor,
    file::FileWriter,
    interner::Interner,
    keys::Keys,
    pages::PageMaker,
    trace::TraceTemplates,
};
use crate::{
    dedicated::DedicatedAttribute,
    schema::{AttributeLeaf, BlockSchema, Leaf, LeafColumn, LeafEncoding, Version},
};

/// A stripe is closed when its largest page reaches this, before compression.
const PAGE_BYTES: usize = 256 * 1024;
/// A stripe is closed when it has read this much, whatever came of it.
const STRIPE_WIRE_BYTES: u64 = 16 << 20;

/// A row group that is being filled.
pub(super) struct RowGroup {
    schema: BlockSchema,
    pub(super) columns: Columns,
    pub(super) templates: TraceTemplates,
    chunks: Vec<ColumnChunk>,
    pages: PageMaker,
    /// Rows of closed stripes.
    rows: u64,
    /// Tempo's estimate of closed stripes.
    estimate: u64,
    /// Bytes read for the open stripe.
    wire_bytes: u64,
}

impl RowGroup {
    pub(super) fn new(schema: BlockSchema, dedicated: &[DedicatedAttribute]) -> Self {
        let chunks = schema.leaves().iter().map(|_| ColumnChunk::default());
        Self {
            chunks: chunks.collect(),
            columns: Columns::new(&schema, dedicated),
            templates: TraceTemplates::default(),
            pages: PageMaker::new(),
            rows: 0,
            estimate: 0,
            wire_bytes: 0,
            schema,
        }
    }

    /// Rows, those of the open stripe included.
    pub(super) fn rows(&self) -> u64 {
        self.rows + self.columns.rows() as u64
    }

    /// To be called after a trace of `wire_bytes` was added; closes the stripe when it is full.
    /// Returns whether the row group is.
    pub(super) fn after_trace(&mut self, wire_bytes: u64, limit: u64) -> Result<bool, WriteError> {
        self.wire_bytes += wire_bytes;
        self.templates.trim();
        let estimate = self.estimate + estimate(self.schema.version(), &self.columns);
        let is_full = self.columns.largest_page_bytes() >= PAGE_BYTES;
        if !is_full && self.wire_bytes < STRIPE_WIRE_BYTES {
            return Ok(estimate > limit);
        }
        self.close_stripe()?;
        Ok(estimate > limit || self.stored_bytes() > limit)
    }

    fn close_stripe(&mut self) -> Result<(), WriteError> {
        if self.columns.rows() == 0 {
            return Ok(());
        }
        self.pages
            .make(&self.schema, &self.columns, &mut self.chunks)?;
        self.rows += self.columns.rows() as u64;
        self.estimate += estimate(self.schema.version(), &self.columns);
        self.wire_bytes = 0;
        self.columns.clear_stripe();
        Ok(())
    }

    /// Bytes that closed stripes and dictionaries take, the latter uncompressed.
    fn stored_bytes(&self) -> u64 {
        let pages: u64 = self.chunks.iter().map(ColumnChunk::stored_bytes).sum();
        pages + self.columns.dictionary_bytes()
    }

    /// Writes the row group and begins the next.
    pub(super) fn write<W: Write>(&mut self, file: &mut FileWriter<W>) -> Result<(), WriteError> {
        self.close_stripe()?;
        let Self {
            schema,
            columns,
            chunks,
            pages,
            ..
        } = self;
        let finished = schema.layout().iter().map(|&index| {
            let (leaf, chunk) = (&schema.leaves()[index], &mut chunks[index]);
            let dictionary = dictionary_of(index, leaf.column, columns);
            finish_column(leaf, chunk, dictionary, pages.compressor())
                .map(|column| (index, column))
                .map_err(|error| error.in_column(&leaf.path))
        });
        file.write_row_group(self.rows, finished)?;
        self.pages.compressor().trim();
        self.columns.clear_dictionaries();
        self.templates.clear();
        self.rows = 0;
        self.estimate = 0;
        Ok(())
    }

    /// Heap bytes held.
    pub(super) fn heap_bytes(&self) -> u64 {
        let pages: u64 = self.chunks.iter().map(ColumnChunk::stored_bytes).sum();
        pages + self.columns.heap_bytes() + self.templates.heap_bytes()
    }
}

fn finish_column(
    leaf: &Leaf,
    chunk: &mut ColumnChunk,
    dictionary: Dictionary<'_>,
    compressor: &mut Compressor,
) -> Result<FinishedColumn, WriteError> {
    if leaf.encoding != LeafEncoding::Dictionary {
        return Ok(chunk.finish(leaf, None, compressor)?);
    }
    let finished = match dictionary {
        Dictionary::Texts(dict) => {
            chunk.bounds.bytes(dict.iter());
            chunk.finish(leaf, Some((dict.plain(), dict.len())), compressor)
        }
        Dictionary::Keys(keys) => {
            let mut plain = Vec::new();
            for key in keys.generic() {
                plain.extend_from_slice(&(key.len() as u32).to_le_bytes());
                plain.extend_from_slice(key);
            }
            chunk.bounds = Bounds::Unknown;
            chunk.bounds.bytes(keys.generic());
            chunk.finish(leaf, Some((&plain, keys.generic_len())), compressor)
        }
        Dictionary::Empty => chunk.finish(leaf, Some((&[], 0)), compressor),
    };
    Ok(finished?)
}

/// What the dictionary page of a column holds.
enum Dictionary<'a> {
    Texts(&'a Interner),
    Keys(&'a Keys),
    Empty,
}

/// `index` is the position of the column in the schema.
fn dictionary_of(index: usize, column: LeafColumn, columns: &Columns) -> Dictionary<'_> {
    let Columns {
        traces,
        resources,
        scopes,
        spans,
        events,
        links,
    } = columns;
    let texts = match column {
        LeafColumn::RootServiceName => &traces.root_services.dict,
        LeafColumn::RootSpanName => &traces.root_names.dict,
        LeafColumn::StatsServiceName => &traces.stats_services.dict,
        LeafColumn::ResourceServiceName => &resources.services.dict,
        LeafColumn::ScopeName => &scopes.names.dict,
        LeafColumn::ScopeVersion => &scopes.versions.dict,
        LeafColumn::SpanName => &spans.names.dict,
        LeafColumn::EventName => &events.names.dict,
        LeafColumn::Attribute(scope, leaf) => {
            let (keys, attributes) = match scope {
                AttributeScope::Resource => (&resources.keys, &resources.attributes),
                AttributeScope::Instrumentation => (&scopes.keys, &scopes.attributes),
                AttributeScope::Span => (&spans.keys, &spans.attributes),
                AttributeScope::Event => (&events.keys, &events.attributes),
                AttributeScope::Link => (&links.keys, &links.attributes),
            };
            match leaf {
                AttributeLeaf::Key => return Dictionary::Keys(keys),
                _ => &attributes.values,
            }
        }
        _ => {
            let spare = [&resources.spare, &spans.spare, &events.spare];
            let assigned = spare
                .into_iter()
                .flatten()
                .find(|column| column.leaf == index);
            match assigned {
                Some(column) => &column.dict,
                None => return Dictionary::Empty,
            }
        }
    };
    Dictionary::Texts(texts)
}

/// Tempo's estimate of what a row group will take, by which it closes one: a weight per object,
/// not bytes.
fn estimate(version: Version, columns: &Columns) -> u64 {
    let traces = columns.rows();
    let resources = columns.resources.reps.len();
    let scopes = columns.scopes.reps.len();
    let spans = columns.spans.reps.len();
    let events = columns.events.times.len();
    let links = columns.links.trace_ids.len();
    let attributes = [
        &columns.resources.attributes,
        &columns.scopes.attributes,
        &columns.spans.attributes,
        &columns.events.attributes,
        &columns.links.attributes,
    ]
    .map(|attributes| attributes.lanes.keys.len());
    let [of_resources, of_scopes, of_spans, of_events, of_links] = attributes;
    let weight = match version {
        Version::VParquet4 => {
            7 * (traces + of_resources + of_spans)
                + 10 * resources
                + 2 * scopes
                + 14 * spans
                + 4 * (events + of_events)
        }
        Version::VParquet5 => {
            7 * (of_resources + of_scopes + of_spans + of_events + of_links)
                + (7 + 16) * traces
                + 31 * resources
                + 6 * scopes
                + (45 + 16) * spans
                + 14 * events
                + (5 + 24) * links
        }
    };
    weight as u64
}
