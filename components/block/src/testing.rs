//! What tests of this crate share.

use std::path::PathBuf;

/// A file of the recorded data: `TEMPO_GOLDEN_DIR`, or `shared/golden` beside the repository.
pub(crate) fn golden(path: &str) -> PathBuf {
    let root = std::env::var_os("TEMPO_GOLDEN_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden")),
        PathBuf::from,
    );
    let file = root.join(path);
    assert!(
        file.exists(),
        "{} is missing: set TEMPO_GOLDEN_DIR to the folder of recorded data",
        file.display()
    );
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
