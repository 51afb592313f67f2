//! The same blocks as other writers would store them: other page versions, encodings, codecs and
//! page sizes, with and without offset index.

use std::sync::Arc;

use bytes::Bytes;
use parquet::{
    basic::{Compression, Encoding},
    column::{reader::ColumnReader, reader::get_typed_column_reader, writer::ColumnWriter},
    data_type::DataType,
    file::{
        properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion},
        reader::{FileReader, SerializedFileReader},
        writer::SerializedFileWriter,
    },
};
use tempo_backend::ReadStats;
use tempo_table::SpanTable;

use super::{BLOCKS, cell, cells, columns::patterns, keys, meta_and_file, open, table};
use crate::read::BlockReader;

fn copy<T: DataType>(
    reader: ColumnReader,
    writer: &mut parquet::column::writer::ColumnWriterImpl<'_, T>,
) {
    let mut reader = get_typed_column_reader::<T>(reader);
    let (mut defs, mut reps, mut values) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let read = reader.read_records(1 << 20, Some(&mut defs), Some(&mut reps), &mut values);
        if read.unwrap().0 == 0 {
            break;
        }
    }
    // Columns without nesting have no levels.
    let defs = (!defs.is_empty()).then_some(defs.as_slice());
    let reps = (!reps.is_empty()).then_some(reps.as_slice());
    writer.write_batch(&values, defs, reps).unwrap();
}

/// The file, written again with other properties.
pub(super) fn rewrite(file: &Bytes, properties: WriterPropertiesBuilder) -> Bytes {
    let reader = SerializedFileReader::new(file.clone()).unwrap();
    let schema = reader
        .metadata()
        .file_metadata()
        .schema_descr()
        .root_schema_ptr();
    let mut out = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut out, schema, Arc::new(properties.build())).unwrap();
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).unwrap();
        let mut group_writer = writer.next_row_group().unwrap();
        for column in 0..group.num_columns() {
            let source = group.get_column_reader(column).unwrap();
            let mut target = group_writer.next_column().unwrap().unwrap();
            use parquet::data_type as types;
            match target.untyped() {
                ColumnWriter::BoolColumnWriter(w) => copy::<types::BoolType>(source, w),
                ColumnWriter::Int32ColumnWriter(w) => copy::<types::Int32Type>(source, w),
                ColumnWriter::Int64ColumnWriter(w) => copy::<types::Int64Type>(source, w),
                ColumnWriter::DoubleColumnWriter(w) => copy::<types::DoubleType>(source, w),
                ColumnWriter::ByteArrayColumnWriter(w) => copy::<types::ByteArrayType>(source, w),
                _ => panic!("blocks have no such column"),
            }
            target.close().unwrap();
        }
        group_writer.close().unwrap();
    }
    writer.close().unwrap();
    Bytes::from(out)
}

fn small_pages(builder: WriterPropertiesBuilder) -> WriterPropertiesBuilder {
    builder
        .set_data_page_row_count_limit(13)
        .set_write_batch_size(5)
        .set_data_page_size_limit(300)
        .set_statistics_enabled(EnabledStatistics::Chunk)
}

pub(super) fn variants() -> Vec<(&'static str, WriterPropertiesBuilder)> {
    let v1 = || WriterProperties::builder().set_writer_version(WriterVersion::PARQUET_1_0);
    let v2 = || WriterProperties::builder().set_writer_version(WriterVersion::PARQUET_2_0);
    vec![
        (
            "version 1, plain, uncompressed",
            small_pages(v1()).set_dictionary_enabled(false),
        ),
        (
            "version 1, dictionaries for everything, Snappy",
            small_pages(v1()).set_compression(Compression::SNAPPY),
        ),
        (
            "version 2, dictionaries that overflow into plain pages, Snappy",
            small_pages(v2())
                .set_dictionary_page_size_limit(40)
                .set_compression(Compression::SNAPPY),
        ),
        (
            "version 2, the library's own choice of encodings, Zstandard",
            small_pages(v2())
                .set_dictionary_enabled(false)
                .set_compression(Compression::ZSTD(Default::default())),
        ),
        (
            "version 2, no offset index, no statistics",
            small_pages(v2())
                .set_offset_index_disabled(true)
                .set_statistics_enabled(EnabledStatistics::None),
        ),
        (
            "version 2, one page per column, everything in dictionaries",
            v2().set_statistics_enabled(EnabledStatistics::None),
        ),
    ]
}

#[test]
fn blocks_read_alike_however_they_are_stored() {
    for block in BLOCKS {
        let (meta, file) = meta_and_file(block);
        let original = open(block);
        for (variant, properties) in variants() {
            let file = rewrite(&file, properties);
            let reader = BlockReader::in_memory(meta.clone(), file).unwrap();
            for group in 0..reader.row_groups() {
                let (have, want) = (table(&reader, group), table(&original, group));
                for key in keys(&want) {
                    let column = want.column(&key, None).unwrap();
                    for rows in patterns(column.len) {
                        let gathered = have.gather(&key, &rows).unwrap();
                        let want: Vec<String> = rows
                            .iter()
                            .map(|&row| cell(&column, row as usize))
                            .collect();
                        assert_eq!(cells(&gathered), want, "{block} {variant} {key:?}");
                    }
                    let whole = have.column(&key, None).unwrap();
                    assert_eq!(cells(&whole), cells(&column), "{block} {variant} {key:?}");
                }
            }
            let traces = |reader: &BlockReader| -> Vec<_> {
                let traces = reader.traces(ReadStats::new());
                traces.map(Result::unwrap).collect()
            };
            let found = traces(&reader);
            assert_eq!(found, traces(&original), "{block} {variant}");
            let mut group = 0;
            let mut passed = 0;
            for (row, (id, trace)) in found.iter().enumerate() {
                if row - passed == reader.traces_in(group) as usize {
                    passed = row;
                    group += 1;
                }
                let stats = ReadStats::new();
                let by_id = reader.find_in_group(group, id, &stats).unwrap();
                assert_eq!(by_id.as_ref(), Some(trace), "{block} {variant} {id}");
            }
        }
    }
}

#[test]
fn encodings_that_blocks_do_not_use_are_named() {
    let (meta, file) = meta_and_file(BLOCKS[0]);
    let column = "DurationNano";
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_column_encoding(column.into(), Encoding::BYTE_STREAM_SPLIT);
    let reader = BlockReader::in_memory(meta, rewrite(&file, properties)).unwrap();
    let error = table(&reader, 0)
        .column(&tempo_table::Intrinsic::TraceDurationNano.into(), None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("column DurationNano"), "{error}");
    assert!(error.contains("encoding is not supported"), "{error}");
}
