//! Whether a block is what the format and its readers expect.
//!
//! Owns the invariants of a block, checked with the parquet library's own reader, which shares no
//! code with this crate's: sorted ids, levels that agree between columns, nested sets and
//! statistics that follow from the spans, dictionaries that hold every value, page indexes that
//! tell the truth. Must never change anything.

mod leaf;
mod object;
mod structure;
mod traces;

use bytes::Bytes;
use parquet::{
    basic::{Encoding, Type},
    column::page::Page,
    file::{
        reader::{ChunkReader, FileReader, RowGroupReader, SerializedFileReader},
        serialized_reader::ReadOptionsBuilder,
    },
};
use tempo_backend::{Backend, BlockMeta, ObjectKey, ReadStats};
use tempo_model::TraceId;
use tempo_table::TableError;

use self::{leaf::LeafColumnData, structure::Structure, traces::RowGroupTraces};
use crate::{
    Error,
    bloom::{BloomShard, shard_of},
    dedicated::{assign, schema_of},
    index::RowGroupIndex,
    schema::{BlockSchema, LeafColumn, Version},
};

/// Most problems that a report lists.
pub const MAX_PROBLEMS: usize = 100;

/// What a block was found to be.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Row groups of the file.
    pub row_groups: u32,
    /// Rows of the file.
    pub traces: u64,
    /// Spans of the file.
    pub spans: u64,
    /// What is wrong; empty for a good block. At most [`MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub problems_left_out: u64,
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which part of the block.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl CheckReport {
    fn problem(&mut self, place: impl Into<String>, what: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem {
                place: place.into(),
                what: what.into(),
            });
        } else {
            self.problems_left_out += 1;
        }
    }

    fn expect<T: PartialEq + std::fmt::Debug>(
        &mut self,
        place: impl Into<String>,
        what: &str,
        got: T,
        wanted: T,
    ) {
        if got != wanted {
            self.problem(place, format!("{what} is {got:?}, should be {wanted:?}"));
        }
    }
}

/// Reads a whole block and checks it, a row group at a time. Blocks, so call it on threads that
/// may. Holds some columns of one row group in memory.
///
/// # Errors
/// Only when the block cannot be read at all: the storage does not answer, an object is missing,
/// the format is not supported, or `data.parquet` has no footer. Everything else is a problem in
/// the report.
pub fn check_block(backend: &Backend, meta: &BlockMeta) -> Result<CheckReport, Error> {
    let read = |key: ObjectKey| {
        backend
            .read_blocking(&key, &ReadStats::new())
            .map_err(|error| TableError::Read {
                what: key.to_string(),
                source: Box::new(error),
            })
    };
    let (tenant, block) = (&*meta.tenant_id, meta.block_id);
    let mut blooms = Vec::new();
    for shard in 0..meta.bloom_shard_count() {
        blooms.push(read(ObjectKey::bloom(tenant, block, shard))?);
    }
    let index = read(ObjectKey::index(tenant, block))?;
    let data = object::ObjectReader::new(backend, ObjectKey::data(tenant, block), meta.size);
    check_parts(data, meta, &blooms, &index)
}

/// Checks the parts of a block; see [`check_block`].
///
/// # Errors
/// As [`check_block`].
pub fn check_parts<R: ChunkReader + 'static>(
    data: R,
    meta: &BlockMeta,
    blooms: &[Bytes],
    index: &[u8],
) -> Result<CheckReport, Error> {
    let version = meta
        .format
        .as_str()
        .parse::<Version>()
        .map_err(|_| Error::Unsupported {
            block: meta.block_id,
            format: meta.format.as_str().to_owned(),
        })?;
    let schema = schema_of(version, &assign(version, &meta.dedicated_columns));
    let size = data.len();
    let tail = data.get_bytes(size.saturating_sub(8), 8);
    let options = ReadOptionsBuilder::new().with_page_index().build();
    let file = SerializedFileReader::new_with_options(data, options).map_err(|error| {
        TableError::Corrupt {
            what: format!("data.parquet of block {}", meta.block_id),
            reason: error.to_string(),
        }
    })?;
    let mut report = CheckReport::default();
    let metadata = file.metadata();
    report.row_groups = metadata.num_row_groups() as u32;
    report.traces = metadata.file_metadata().num_rows().max(0) as u64;
    report.expect("meta.json", "size", meta.size, size);
    let footer = tail.ok().and_then(|tail| tail.first_chunk().copied());
    let footer = footer.map(u32::from_le_bytes);
    report.expect("meta.json", "footerSize", Some(meta.footer_size), footer);
    let row_groups = report.row_groups;
    report.expect("meta.json", "totalRecords", meta.total_records, row_groups);
    let traces = report.traces as i64;
    report.expect("meta.json", "totalObjects", meta.total_objects, traces);
    if !check_schema(&file, &schema, &mut report) {
        return Ok(report);
    }
    let mut ids = Ids::new(blooms, index, &mut report);
    for group in 0..metadata.num_row_groups() {
        check_row_group(&file, group, &schema, &mut ids, &mut report);
    }
    Ok(report)
}

/// Readers decode rows by position and find columns by name: both must be exact.
fn check_schema<R: ChunkReader + 'static>(
    file: &SerializedFileReader<R>,
    schema: &BlockSchema,
    report: &mut CheckReport,
) -> bool {
    let theirs = file.metadata().file_metadata().schema_descr();
    let columns = theirs.num_columns();
    report.expect("schema", "number of leaves", columns, schema.leaves().len());
    let before = report.problems.len();
    for (leaf, column) in schema.leaves().iter().zip(theirs.columns()) {
        let levels = (column.max_rep_level(), column.max_def_level());
        let place = format!("schema, {}", leaf.path);
        report.expect(&place, "path", column.path().string(), leaf.path.clone());
        report.expect(&place, "levels", levels, (leaf.max_rep, leaf.max_def));
        report.expect(
            &place,
            "type",
            column.physical_type(),
            leaf.value_type.physical(),
        );
    }
    report.problems.len() == before && columns == schema.leaves().len()
}

/// What is known of trace ids beside the column.
struct Ids {
    blooms: Vec<BloomShard>,
    index: Option<RowGroupIndex>,
    previous: Option<TraceId>,
}

impl Ids {
    fn new(blooms: &[Bytes], index: &[u8], report: &mut CheckReport) -> Self {
        let mut shards = Vec::new();
        for (number, bloom) in blooms.iter().enumerate() {
            match BloomShard::parse(bloom.clone()) {
                Ok(shard) => shards.push(shard),
                Err(error) => report.problem(format!("bloom-{number}"), error.to_string()),
            }
        }
        if shards.len() < blooms.len() {
            shards.clear();
        }
        let index = RowGroupIndex::parse(index)
            .inspect_err(|error| report.problem("index", error.to_string()))
            .ok();
        if let Some(index) = &index {
            let groups = report.row_groups as usize;
            report.expect(
                "index",
                "number of row groups",
                index.last_ids().len(),
                groups,
            );
        }
        Self {
            blooms: shards,
            index,
            previous: None,
        }
    }

    fn check(&mut self, group: usize, ids: &[TraceId], report: &mut CheckReport) {
        let place = format!("row group {group}, TraceID");
        for id in ids {
            if self.previous.is_some_and(|previous| previous >= *id) {
                report.problem(&place, format!("{id} does not ascend"));
            }
            self.previous = Some(*id);
            let shards = self.blooms.len() as u32;
            if shards > 0 && !self.blooms[shard_of(id, shards) as usize].may_contain(id) {
                report.problem("bloom", format!("{id} is not in its shard"));
            }
        }
        let last = self
            .index
            .as_ref()
            .and_then(|index| index.last_ids().get(group));
        if let Some(last) = last {
            report.expect("index", "last id of a row group", Some(last), ids.last());
        }
    }
}

fn check_row_group<R: ChunkReader + 'static>(
    file: &SerializedFileReader<R>,
    group: usize,
    schema: &BlockSchema,
    ids: &mut Ids,
    report: &mut CheckReport,
) {
    let reader = match file.get_row_group(group) {
        Ok(reader) => reader,
        Err(error) => {
            report.problem(format!("row group {group}"), error.to_string());
            return;
        }
    };
    let rows = reader.metadata().num_rows().max(0) as usize;
    let mut structure = Structure::new(rows);
    let mut traces = RowGroupTraces::default();
    for (position, leaf) in schema.leaves().iter().enumerate() {
        let place = format!("row group {group}, {}", leaf.path);
        let data = match LeafColumnData::read(&*reader, position) {
            Ok(data) => data,
            Err(error) => {
                report.problem(&place, error.to_string());
                continue;
            }
        };
        let pages = check_pages(&*reader, position, &place, report);
        leaf::check(
            leaf,
            &data,
            reader.metadata().column(position),
            &place,
            report,
        );
        leaf::check_index(
            file.metadata(),
            (group, position),
            leaf,
            &data,
            &pages,
            &place,
            report,
        );
        structure.check(leaf, &data, &place, report);
        traces.keep(leaf.column, data);
    }
    structure.finish(group, report);
    let found = traces.ids();
    report.expect(
        format!("row group {group}"),
        "number of trace ids",
        found.len(),
        rows,
    );
    ids.check(group, &found, report);
    report.spans += traces.check(group, schema.version(), report);
}

/// A data page as its header describes it.
struct PageSummary {
    entries: usize,
    rows: Option<usize>,
}

/// A dictionary must hold all values of its column: readers prune by it alone.
fn check_pages(
    reader: &dyn RowGroupReader,
    position: usize,
    place: &str,
    report: &mut CheckReport,
) -> Vec<PageSummary> {
    let mut summaries = Vec::new();
    let mut has_dictionary = false;
    let pages = match reader.get_column_page_reader(position) {
        Ok(pages) => pages,
        Err(error) => {
            report.problem(place, error.to_string());
            return summaries;
        }
    };
    for page in pages {
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                report.problem(place, error.to_string());
                return summaries;
            }
        };
        let (encoding, summary) = match &page {
            Page::DictionaryPage {
                buf, num_values, ..
            } => {
                has_dictionary = true;
                if reader.metadata().column(position).column_type() == Type::BYTE_ARRAY {
                    check_dictionary(buf, *num_values, place, report);
                }
                continue;
            }
            Page::DataPage {
                encoding,
                num_values,
                ..
            } => (
                *encoding,
                PageSummary {
                    entries: *num_values as usize,
                    rows: None,
                },
            ),
            Page::DataPageV2 {
                encoding,
                num_values,
                num_rows,
                ..
            } => (
                *encoding,
                PageSummary {
                    entries: *num_values as usize,
                    rows: Some(*num_rows as usize),
                },
            ),
        };
        if has_dictionary && encoding != Encoding::RLE_DICTIONARY {
            report.problem(
                place,
                format!(
                    "page {} is encoded as {encoding} although the column has a dictionary: \
                     searches miss its values",
                    summaries.len()
                ),
            );
        }
        summaries.push(summary);
    }
    summaries
}

/// No value twice: readers compare codes.
fn check_dictionary(plain: &[u8], entries: u32, place: &str, report: &mut CheckReport) {
    let mut seen = std::collections::HashSet::new();
    let mut rest = plain;
    while let Some((length, tail)) = rest.split_first_chunk() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some((value, tail)) = tail.split_at_checked(length) else {
            break;
        };
        rest = tail;
        if !seen.insert(value) {
            let value = String::from_utf8_lossy(value);
            report.problem(place, format!("dictionary holds '{value}' twice"));
        }
    }
    report.expect(place, "dictionary entries", seen.len(), entries as usize);
}

/// Columns whose values decide whether others are right.
fn is_needed(column: LeafColumn) -> bool {
    matches!(
        column,
        LeafColumn::TraceId
            | LeafColumn::TraceIdText
            | LeafColumn::TraceStart
            | LeafColumn::TraceEnd
            | LeafColumn::TraceDuration
            | LeafColumn::RootServiceName
            | LeafColumn::RootSpanName
            | LeafColumn::StatsServiceName
            | LeafColumn::StatsSpanCount
            | LeafColumn::StatsErrorCount
            | LeafColumn::ResourceServiceName
            | LeafColumn::ScopeName
            | LeafColumn::ScopeSpanCount
            | LeafColumn::SpanId
            | LeafColumn::ParentSpanId
            | LeafColumn::ParentId
            | LeafColumn::NestedSetLeft
            | LeafColumn::NestedSetRight
            | LeafColumn::ChildCount
            | LeafColumn::SpanName
            | LeafColumn::SpanKind
            | LeafColumn::SpanStart
            | LeafColumn::SpanDuration
            | LeafColumn::StatusCode
            | LeafColumn::StartRounded(_)
    )
}

#[cfg(test)]
mod tests;
