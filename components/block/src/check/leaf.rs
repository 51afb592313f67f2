//! One column of a row group: levels, values, statistics and page index.

use parquet::{
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, DataType},
    errors::Result,
    file::{
        metadata::{ColumnChunkMetaData, ParquetMetaData},
        page_index::column_index::ColumnIndexMetaData,
        reader::RowGroupReader,
        statistics::Statistics,
    },
};

use super::{CheckReport, PageSummary};
use crate::schema::{Leaf, LeafType};

/// The values of a column that are there.
#[derive(Debug)]
pub(super) enum Values {
    Bools(Vec<bool>),
    Int32s(Vec<i32>),
    Int64s(Vec<i64>),
    Doubles(Vec<f64>),
    Bytes(Vec<ByteArray>),
}

/// A column as it was stored.
#[derive(Debug)]
pub(super) struct LeafColumnData {
    pub(super) reps: Vec<i16>,
    pub(super) defs: Vec<i16>,
    pub(super) values: Values,
}

impl LeafColumnData {
    pub(super) fn read(reader: &dyn RowGroupReader, position: usize) -> Result<Self> {
        let column = reader.metadata().column(position);
        let descriptor = column.column_descr();
        let levels = (descriptor.max_rep_level(), descriptor.max_def_level());
        Ok(match reader.get_column_reader(position)? {
            ColumnReader::BoolColumnReader(reader) => read_all(reader, levels, Values::Bools)?,
            ColumnReader::Int32ColumnReader(reader) => read_all(reader, levels, Values::Int32s)?,
            ColumnReader::Int64ColumnReader(reader) => read_all(reader, levels, Values::Int64s)?,
            ColumnReader::DoubleColumnReader(reader) => read_all(reader, levels, Values::Doubles)?,
            ColumnReader::ByteArrayColumnReader(reader) => read_all(reader, levels, Values::Bytes)?,
            _ => {
                return Err(parquet::errors::ParquetError::General(
                    "unexpected type".to_owned(),
                ));
            }
        })
    }

    pub(super) fn ints(&self) -> Vec<i64> {
        match &self.values {
            Values::Int32s(values) => values.iter().map(|&value| i64::from(value)).collect(),
            Values::Int64s(values) => values.clone(),
            _ => Vec::new(),
        }
    }

    pub(super) fn bytes(&self) -> &[ByteArray] {
        match &self.values {
            Values::Bytes(values) => values,
            _ => &[],
        }
    }

    /// How many values each entry has, entries deeper than `max_rep` counted with the one before.
    pub(super) fn counts(&self, max_rep: i16, max_def: i16) -> Vec<u32> {
        let mut counts = Vec::new();
        for (&rep, &def) in self.reps.iter().zip(&self.defs) {
            let count = u32::from(def == max_def);
            match counts.last_mut() {
                Some(last) if rep > max_rep => *last += count,
                _ => counts.push(count),
            }
        }
        counts
    }
}

fn read_all<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    (max_rep, max_def): (i16, i16),
    wrap: impl Fn(Vec<T::T>) -> Values,
) -> Result<LeafColumnData> {
    let (mut defs, mut reps, mut values) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let (records, ..) =
            reader.read_records(1 << 16, Some(&mut defs), Some(&mut reps), &mut values)?;
        if records == 0 {
            break;
        }
    }
    if max_def == 0 {
        defs = vec![0; values.len()];
    }
    if max_rep == 0 {
        reps = vec![0; defs.len()];
    }
    Ok(LeafColumnData {
        reps,
        defs,
        values: wrap(values),
    })
}

/// Counts, text and statistics.
pub(super) fn check(
    leaf: &Leaf,
    data: &LeafColumnData,
    chunk: &ColumnChunkMetaData,
    place: &str,
    report: &mut CheckReport,
) {
    report.expect(
        place,
        "num_values",
        chunk.num_values(),
        data.defs.len() as i64,
    );
    report.expect(place, "levels", data.reps.len(), data.defs.len());
    if let Some(level) = data.defs.iter().find(|&&def| def > leaf.max_def) {
        report.problem(place, format!("definition level {level}"));
    }
    if let Some(level) = data.reps.iter().find(|&&rep| rep > leaf.max_rep) {
        report.problem(place, format!("repetition level {level}"));
    }
    if leaf.value_type == LeafType::Text {
        let broken = data
            .bytes()
            .iter()
            .filter(|value| std::str::from_utf8(value.data()).is_err())
            .count();
        report.expect(place, "texts that are not UTF-8", broken, 0);
    }
    let Some(statistics) = chunk.statistics() else {
        return;
    };
    let nulls = data.defs.iter().filter(|&&def| def < leaf.max_def).count() as u64;
    if let Some(count) = statistics.null_count_opt() {
        report.expect(place, "null count", count, nulls);
    }
    let is_unsigned = matches!(leaf.value_type, LeafType::U32 | LeafType::U64);
    if !is_within(statistics, &data.values, is_unsigned) {
        report.problem(place, "values beyond the bounds of its statistics");
    }
}

/// Whether all values lie within the bounds, if there are any.
fn is_within(statistics: &Statistics, values: &Values, is_unsigned: bool) -> bool {
    match (statistics, values) {
        (Statistics::Boolean(s), Values::Bools(values)) => {
            between(s.min_opt(), s.max_opt(), values.iter(), |value| *value)
        }
        (Statistics::Int32(s), Values::Int32s(values)) => {
            between(s.min_opt(), s.max_opt(), values.iter(), |value| {
                if is_unsigned {
                    i64::from(*value as u32)
                } else {
                    i64::from(*value)
                }
            })
        }
        (Statistics::Int64(s), Values::Int64s(values)) => {
            between(s.min_opt(), s.max_opt(), values.iter(), |value| {
                if is_unsigned {
                    i128::from(*value as u64)
                } else {
                    i128::from(*value)
                }
            })
        }
        (Statistics::Double(s), Values::Doubles(values)) => {
            let known = values.iter().filter(|value| !value.is_nan());
            between(s.min_opt(), s.max_opt(), known, |value| *value)
        }
        (Statistics::ByteArray(s), Values::Bytes(values)) => {
            between(s.min_opt(), s.max_opt(), values.iter(), |value| {
                value.data().to_vec()
            })
        }
        _ => false,
    }
}

fn between<'a, T: 'a, K: PartialOrd>(
    min: Option<&'a T>,
    max: Option<&'a T>,
    mut values: impl Iterator<Item = &'a T>,
    key: impl Fn(&'a T) -> K,
) -> bool {
    let (min, max) = match (min, max) {
        (Some(min), Some(max)) => (key(min), key(max)),
        (None, None) => return true,
        // Some readers take a missing bound for an empty one.
        _ => return false,
    };
    values.all(|value| {
        let value = key(value);
        min <= value && value <= max
    })
}

/// Offset and column index.
pub(super) fn check_index(
    metadata: &ParquetMetaData,
    (group, position): (usize, usize),
    leaf: &Leaf,
    data: &LeafColumnData,
    pages: &[PageSummary],
    place: &str,
    report: &mut CheckReport,
) {
    let index = metadata.page_index_for_row_group(group);
    let Some(offsets) = index.offset_index(position) else {
        report.problem(place, "no offset index");
        return;
    };
    let locations = offsets.page_locations();
    report.expect(
        place,
        "pages in the offset index",
        locations.len(),
        pages.len(),
    );
    let chunk = metadata.row_group(group).column(position);
    let (start, length) = chunk.byte_range();
    let rows: Vec<usize> = data
        .reps
        .iter()
        .enumerate()
        .filter(|&(_, &rep)| rep == 0)
        .map(|(entry, _)| entry)
        .collect();
    let (mut entry, mut row) = (0, 0);
    let mut end = chunk.data_page_offset();
    for (number, (location, page)) in locations.iter().zip(pages).enumerate() {
        report.expect(place, "offset of a page", location.offset, end);
        end = location.offset + i64::from(location.compressed_page_size);
        let first = location.first_row_index.max(0) as usize;
        report.expect(place, "first row of a page", first, row);
        report.expect(
            place,
            "entry where a page begins",
            rows.get(first).copied(),
            Some(entry),
        );
        let until = entry + page.entries;
        if let Some(count) = page.rows {
            row += count;
        } else {
            row = rows.partition_point(|&begins| begins < until);
        }
        if let Some(column_index) = index.column_index(position) {
            let defs = data.defs.get(entry..until).unwrap_or_default();
            let has_values = defs.contains(&leaf.max_def);
            check_column_index(column_index, number, leaf, has_values, place, report);
        }
        entry = until;
    }
    report.expect(place, "end of the last page", end, (start + length) as i64);
    report.expect(place, "entries of all pages", entry, data.defs.len());
}

/// A page that is called null although it holds values is never looked at.
fn check_column_index(
    index: &ColumnIndexMetaData,
    page: usize,
    leaf: &Leaf,
    has_values: bool,
    place: &str,
    report: &mut CheckReport,
) {
    match (index.is_null_page(page), has_values) {
        (true, true) => report.problem(
            place,
            format!("column index calls page {page} null although it holds values"),
        ),
        (false, false) => report.problem(
            place,
            format!("column index does not call page {page} null although it holds no value"),
        ),
        _ => {}
    }
    if leaf.blob && has_values {
        report.problem(
            place,
            format!("column index has bounds for page {page} of a blob column, which are made up"),
        );
    }
}
