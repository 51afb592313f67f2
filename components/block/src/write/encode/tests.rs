//! Pages of made-up columns, read back by the parquet library.

use std::sync::Arc;

use bytes::Bytes;
use parquet::{
    basic::CompressionCodec,
    column::reader::{ColumnReaderImpl, get_column_reader, get_typed_column_reader},
    data_type::{BoolType, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type},
    file::{metadata::ColumnChunkMetaData, serialized_reader::SerializedPageReader},
    schema::{parser::parse_message_type, types::SchemaDescriptor},
};

use super::*;
use crate::schema::Codec;

/// A repeatable source of numbers.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        self.0 ^ self.0 >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Levels of rows that hold lists of lists, with runs long and short.
fn levels(numbers: &mut Numbers, entries: usize) -> (Vec<u8>, Vec<u8>, usize) {
    let (mut reps, mut defs) = (vec![0], Vec::new());
    while reps.len() < entries {
        let run = 1 + numbers.below(40) * numbers.below(2);
        let rep = numbers.below(3) as u8;
        reps.extend(std::iter::repeat_n(rep, run as usize));
    }
    while defs.len() < reps.len() {
        let run = 1 + numbers.below(40) * numbers.below(2);
        let def = numbers.below(3) as u8;
        defs.extend(std::iter::repeat_n(def, run as usize));
    }
    defs.truncate(reps.len());
    let rows = reps.iter().filter(|&&rep| rep == 0).count();
    (reps, defs, rows)
}

fn reader<T: DataType>(
    value_type: &str,
    pages: Vec<Vec<u8>>,
    has_dictionary: bool,
    entries: usize,
    codec: Codec,
) -> ColumnReaderImpl<T> {
    let text = format!("message m {{ repeated group a {{ repeated {value_type} v; }} }}");
    let schema = SchemaDescriptor::new(Arc::new(parse_message_type(&text).unwrap()));
    let dictionary = usize::from(has_dictionary);
    let data_offset: usize = pages[..dictionary].iter().map(Vec::len).sum();
    let file = Bytes::from(pages.concat());
    let chunk = ColumnChunkMetaData::builder(schema.column(0))
        .set_compression_codec(match codec {
            Codec::Uncompressed => CompressionCodec::UNCOMPRESSED,
            Codec::Snappy => CompressionCodec::SNAPPY,
            Codec::Zstd => CompressionCodec::ZSTD,
        })
        .set_num_values(entries as i64)
        .set_total_compressed_size(file.len() as i64)
        .set_data_page_offset(data_offset as i64)
        .set_dictionary_page_offset(has_dictionary.then_some(0))
        .build()
        .unwrap();
    let pages = SerializedPageReader::new(Arc::new(file), &chunk, 0, None).unwrap();
    get_typed_column_reader(get_column_reader(schema.column(0), Box::new(pages)))
}

/// Encodes two pages, reads them back, and compares values and levels.
fn round_trip<T: DataType>(
    value_type: &str,
    encoding: i32,
    codec: Codec,
    dictionary: Option<(Vec<u8>, usize)>,
    encode: impl Fn(&mut Numbers, usize) -> (Vec<u8>, Vec<T::T>),
) {
    let mut numbers = Numbers(encoding as u64 + 1);
    for entries in [1, 7, 8, 9, 100, 127, 128, 129, 5000] {
        let mut compressor = Compressor::new();
        let mut pages = Vec::new();
        if let Some((plain, count)) = &dictionary {
            let page = dictionary_page(plain, *count, codec, &mut compressor).unwrap();
            pages.push(page.0.bytes);
        }
        let (mut all_reps, mut all_defs, mut all_values) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..2 {
            let (reps, defs, rows) = levels(&mut numbers, entries);
            let present = defs.iter().filter(|&&def| def == 2).count();
            let (values, expected) = encode(&mut numbers, present);
            let (mut rep_levels, mut def_levels) = (Vec::new(), Vec::new());
            encode_levels(&reps, 2, &mut rep_levels);
            encode_levels(&defs, 2, &mut def_levels);
            let page = DataPage {
                rep_levels: &rep_levels,
                def_levels: &def_levels,
                values: &values,
                encoding,
                entries: reps.len(),
                nulls: reps.len() - present,
                rows,
            };
            pages.push(page.encode(codec, &mut compressor).unwrap().bytes);
            all_reps.extend(reps.into_iter().map(i16::from));
            all_defs.extend(defs.into_iter().map(i16::from));
            all_values.extend(expected);
        }
        let total = all_reps.len();
        let mut reader = reader::<T>(value_type, pages, dictionary.is_some(), total, codec);
        let (mut defs, mut reps, mut values) = (Vec::new(), Vec::new(), Vec::new());
        while defs.len() < total {
            let (records, _, _) = reader
                .read_records(usize::MAX, Some(&mut defs), Some(&mut reps), &mut values)
                .unwrap();
            assert!(records > 0);
        }
        assert_eq!(reps, all_reps, "{entries}");
        assert_eq!(defs, all_defs, "{entries}");
        assert!(values == all_values, "{value_type} {entries}");
    }
}

const PLAIN: i32 = 0;
const DELTA_BINARY_PACKED: i32 = 5;
const DELTA_LENGTH: i32 = 6;
const DICTIONARY: i32 = 8;

#[test]
fn deltas_come_back_at_every_width() {
    for bits in [0, 1, 7, 31, 32, 33, 47, 63, 64] {
        round_trip::<Int64Type>(
            "int64",
            DELTA_BINARY_PACKED,
            Codec::Uncompressed,
            None,
            |numbers, count| {
                let mask = u64::MAX.checked_shr(64 - bits).unwrap_or(0);
                let values: Vec<i64> = (0..count).map(|_| (numbers.next() & mask) as i64).collect();
                let mut out = Vec::new();
                delta_i64(&values, &mut out);
                (out, values)
            },
        );
    }
    for bits in [0, 3, 16, 31, 32] {
        round_trip::<Int32Type>(
            "int32",
            DELTA_BINARY_PACKED,
            Codec::Snappy,
            None,
            |numbers, count| {
                let mask = u32::MAX.checked_shr(32 - bits).unwrap_or(0);
                let values: Vec<i32> = (0..count)
                    .map(|_| (numbers.next() as u32 & mask) as i32)
                    .collect();
                let mut out = Vec::new();
                delta_i32(&values, &mut out);
                (out, values)
            },
        );
    }
}

#[test]
fn byte_strings_come_back() {
    for codec in [Codec::Uncompressed, Codec::Snappy, Codec::Zstd] {
        round_trip::<ByteArrayType>("binary", DELTA_LENGTH, codec, None, |numbers, count| {
            let texts: Vec<Vec<u8>> = (0..count)
                .map(|_| vec![b'a' + numbers.below(20) as u8; numbers.below(50) as usize])
                .collect();
            let lengths: Vec<i32> = texts.iter().map(|text| text.len() as i32).collect();
            let mut out = Vec::new();
            delta_length(&lengths, &texts.concat(), &mut out);
            (out, texts.into_iter().map(Into::into).collect())
        });
    }
}

#[test]
fn codes_come_back_at_every_width() {
    for entries in [1_usize, 2, 3, 200, 70_000] {
        let texts: Vec<Vec<u8>> = (0..entries).map(|n| format!("v{n}").into_bytes()).collect();
        let mut plain = Vec::new();
        for text in &texts {
            plain.extend_from_slice(&(text.len() as u32).to_le_bytes());
            plain.extend_from_slice(text);
        }
        round_trip::<ByteArrayType>(
            "binary",
            DICTIONARY,
            Codec::Snappy,
            Some((plain, entries)),
            |numbers, count| {
                let mut codes: Vec<u32> = Vec::new();
                while codes.len() < count {
                    let code = numbers.below(entries as u64) as u32;
                    let run = 1 + numbers.below(30) * numbers.below(2);
                    codes.extend(std::iter::repeat_n(code, run as usize));
                }
                codes.truncate(count);
                let mut out = Vec::new();
                encode_codes(&codes, &mut out);
                let values = codes
                    .iter()
                    .map(|&code| texts[code as usize].clone().into());
                (out, values.collect())
            },
        );
    }
}

#[test]
fn plain_values_come_back() {
    round_trip::<BoolType>("boolean", PLAIN, Codec::Snappy, None, |numbers, count| {
        let values: Vec<bool> = (0..count).map(|_| numbers.below(2) == 1).collect();
        let mut out = Vec::new();
        plain_bools(&values, &mut out);
        (out, values)
    });
    round_trip::<DoubleType>("double", PLAIN, Codec::Zstd, None, |numbers, count| {
        let values: Vec<f64> = (0..count).map(|_| numbers.next() as f64 / 7.0).collect();
        let out = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        (out, values)
    });
}

#[test]
fn pages_carry_the_checksum_of_their_content() {
    let page = DataPage {
        rep_levels: &[],
        def_levels: &[],
        values: b"some values that are not compressed",
        encoding: PLAIN,
        entries: 1,
        nulls: 0,
        rows: 1,
    };
    let encoded = page
        .encode(Codec::Uncompressed, &mut Compressor::new())
        .unwrap();
    let checksum = crc32fast::hash(page.values) as i32;
    let mut header = Vec::new();
    thrift::Thrift::new(&mut header).i32(4, checksum);
    // The field's tag differs within the header; its value does not.
    let value = &header[1..];
    assert!(
        encoded
            .bytes
            .windows(value.len())
            .any(|window| window == value)
    );
}
