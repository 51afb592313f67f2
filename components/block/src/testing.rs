//! What tests of this crate share.

use std::path::PathBuf;

/// A file of the recorded data.
pub(crate) fn golden(path: &str) -> PathBuf {
    let file = tempo_testkit::golden::folder().join(path);
    assert!(file.exists(), "{} is missing", file.display());
    file
}

/// The trace ids of a `data.parquet` in the recorded data, in file order.
pub(crate) fn trace_ids_of(path: &str) -> Vec<tempo_model::TraceId> {
    use parquet::{
        column::reader::ColumnReader,
        file::reader::{FileReader, SerializedFileReader},
    };
    let file = std::fs::File::open(golden(path)).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let mut ids = Vec::new();
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).unwrap();
        let ColumnReader::ByteArrayColumnReader(mut column) = group.get_column_reader(0).unwrap()
        else {
            panic!("TraceID is not a byte array");
        };
        let mut values = Vec::new();
        column
            .read_records(usize::MAX, None, None, &mut values)
            .unwrap();
        ids.extend(
            values
                .iter()
                .map(|value| tempo_model::TraceId::from_padded(value.data())),
        );
    }
    ids
}

/// One entry of a leaf column: repetition level, definition level, and the value as text.
pub(crate) type Entry = (i16, i16, Option<String>);

/// A leaf column as an independent reader sees it.
pub(crate) struct LeafRows {
    /// Dotted path.
    pub(crate) path: String,
    /// The entries of each row.
    pub(crate) rows: Vec<Vec<Entry>>,
}

/// Every leaf of a file, read with the parquet library.
pub(crate) fn read_leaves(file: bytes::Bytes) -> Vec<LeafRows> {
    use parquet::{
        column::reader::{ColumnReader, get_column_reader},
        file::reader::{FileReader, SerializedFileReader},
    };

    fn rows_of<T: parquet::data_type::DataType>(
        mut reader: parquet::column::reader::ColumnReaderImpl<T>,
        max_rep: i16,
        max_def: i16,
        text: impl Fn(&T::T) -> String,
    ) -> Vec<Vec<Entry>> {
        let (mut defs, mut reps, mut values) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let (records, _, _) = reader
                .read_records(1 << 20, Some(&mut defs), Some(&mut reps), &mut values)
                .unwrap();
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
        assert_eq!(reps.len(), defs.len());
        let mut values = values.iter().map(text);
        let mut rows: Vec<Vec<Entry>> = Vec::new();
        for (rep, def) in reps.into_iter().zip(defs) {
            let value = (def == max_def).then(|| values.next().unwrap());
            if rep == 0 {
                rows.push(Vec::new());
            }
            rows.last_mut().unwrap().push((rep, def, value));
        }
        assert!(values.next().is_none());
        rows
    }

    let bytes_text = |value: &parquet::data_type::ByteArray| match std::str::from_utf8(value.data())
    {
        Ok(text) => text.to_owned(),
        Err(_) => format!("{:02x?}", value.data()),
    };
    let reader = SerializedFileReader::new(file).unwrap();
    let mut leaves: Vec<LeafRows> = reader
        .metadata()
        .file_metadata()
        .schema_descr()
        .columns()
        .iter()
        .map(|column| LeafRows {
            path: column.path().string(),
            rows: Vec::new(),
        })
        .collect();
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).unwrap();
        for (index, leaf) in leaves.iter_mut().enumerate() {
            let column = group.metadata().column(index).column_descr_ptr();
            let (max_rep, max_def) = (column.max_rep_level(), column.max_def_level());
            let pages = group.get_column_page_reader(index).unwrap();
            let rows = match get_column_reader(column, pages) {
                ColumnReader::BoolColumnReader(r) => rows_of(r, max_rep, max_def, bool::to_string),
                ColumnReader::Int32ColumnReader(r) => rows_of(r, max_rep, max_def, i32::to_string),
                ColumnReader::Int64ColumnReader(r) => rows_of(r, max_rep, max_def, i64::to_string),
                ColumnReader::DoubleColumnReader(r) => {
                    rows_of(r, max_rep, max_def, |value| format!("{value:?}"))
                }
                ColumnReader::ByteArrayColumnReader(r) => rows_of(r, max_rep, max_def, bytes_text),
                _ => panic!("{}: unexpected type", leaf.path),
            };
            leaf.rows.extend(rows);
        }
    }
    leaves
}

/// The traces of the recorded input: for each, one serialized `tempopb.Trace` per request.
pub(crate) fn input_traces() -> std::collections::BTreeMap<tempo_model::TraceId, Vec<Vec<u8>>> {
    tempo_testkit::golden::Golden::load().traces()
}
