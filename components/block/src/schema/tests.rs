use parquet::{
    basic::{Compression, ConvertedType, Encoding},
    file::reader::{FileReader, SerializedFileReader},
    schema::printer::print_schema,
};
use tempo_table::AttributeScope::{Event, Resource, Span};

use super::*;
use crate::testing::golden;

fn dedicated(text: &[(tempo_table::AttributeScope, DedicatedType, bool)]) -> Vec<DedicatedLeaf> {
    let mut taken = std::collections::HashMap::new();
    text.iter()
        .map(|&(scope, value_type, blob)| {
            let next = taken.entry((scope, value_type)).or_insert(0);
            let slot = *next;
            *next += 1;
            DedicatedLeaf {
                scope,
                value_type,
                slot,
                blob,
            }
        })
        .collect()
}

fn default_dedicated() -> Vec<DedicatedLeaf> {
    let mut columns = vec![(Resource, DedicatedType::String, false); 4];
    columns.extend([(Span, DedicatedType::String, false); 7]);
    columns.extend([(Span, DedicatedType::Int, false); 3]);
    dedicated(&columns)
}

fn printed(schema: &parquet::schema::types::Type) -> String {
    let mut text = Vec::new();
    print_schema(&mut text, schema);
    String::from_utf8(text).unwrap()
}

/// The legacy types, which the printed form hides, in file order.
fn converted_types(node: &parquet::schema::types::Type) -> Vec<ConvertedType> {
    let mut types = vec![node.get_basic_info().converted_type()];
    if node.is_group() {
        types.extend(
            node.get_fields()
                .iter()
                .flat_map(|field| converted_types(field)),
        );
    }
    types
}

/// Everything that another implementation's reader sees of the schema, against Tempo's own file.
fn assert_matches_file(schema: &BlockSchema, path: &str) {
    let file = std::fs::File::open(golden(path)).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let metadata = reader.metadata();
    let theirs = metadata.file_metadata().schema_descr();
    assert_eq!(
        printed(schema.descriptor().root_schema()),
        printed(theirs.root_schema())
    );
    assert_eq!(
        converted_types(schema.descriptor().root_schema()),
        converted_types(theirs.root_schema())
    );
    assert_eq!(schema.leaves().len(), theirs.num_columns());
    for (leaf, chunk) in schema.leaves().iter().zip(metadata.row_group(0).columns()) {
        let column = chunk.column_descr();
        assert_eq!(leaf.path, column.path().string());
        assert_eq!(
            (leaf.max_rep, leaf.max_def),
            (column.max_rep_level(), column.max_def_level()),
            "{}",
            leaf.path
        );
        let encodings: Vec<Encoding> = chunk.encodings().collect();
        let (wanted, dictionary) = match leaf.encoding {
            LeafEncoding::Plain => (Encoding::PLAIN, false),
            LeafEncoding::DeltaBinaryPacked => (Encoding::DELTA_BINARY_PACKED, false),
            LeafEncoding::DeltaLength => (Encoding::DELTA_LENGTH_BYTE_ARRAY, false),
            LeafEncoding::Dictionary => (Encoding::RLE_DICTIONARY, true),
        };
        assert!(encodings.contains(&wanted), "{} {encodings:?}", leaf.path);
        assert_eq!(
            encodings.contains(&Encoding::RLE_DICTIONARY),
            dictionary,
            "{}",
            leaf.path
        );
        let codec = match chunk.compression() {
            Compression::UNCOMPRESSED => Codec::Uncompressed,
            Compression::SNAPPY => Codec::Snappy,
            Compression::ZSTD(_) => Codec::Zstd,
            other => panic!("{other:?}"),
        };
        assert_eq!(leaf.codec, codec, "{}", leaf.path);
    }
}

#[test]
fn v4_is_the_schema_of_a_file_that_tempo_wrote() {
    let schema = BlockSchema::v4();
    assert_eq!(schema.leaves().len(), 103);
    assert_matches_file(
        &schema,
        "blocks/vparquet4/single-tenant/f4d8cfb0-8d16-48c1-bbd7-31a78c75b6cb/data.parquet",
    );
}

#[test]
fn v5_has_only_the_assigned_dedicated_leaves() {
    assert_eq!(BlockSchema::v5(&[]).leaves().len(), 78);
    let schema = BlockSchema::v5(&default_dedicated());
    assert_eq!(schema.leaves().len(), 92);
    assert_matches_file(
        &schema,
        "blocks/vparquet5/single-tenant/baffe872-1067-45e4-b074-ef083fb6730e/data.parquet",
    );
}

#[test]
fn v5_blobs_and_event_columns_are_stored_as_tempo_stores_them() {
    let schema = BlockSchema::v5(&dedicated(&[
        (Span, DedicatedType::String, true),
        (Span, DedicatedType::Int, true),
        (Event, DedicatedType::String, false),
    ]));
    assert_matches_file(
        &schema,
        "roundtrip/blob/single-tenant/11111111-2222-4333-8444-555555555555/data.parquet",
    );
    let blob = LeafColumn::Dedicated(Span, DedicatedType::Int, 0);
    assert!(schema.leaf(blob).unwrap().blob);
}

#[test]
fn versions_are_exact() {
    assert_eq!("vParquet4".parse(), Ok(Version::VParquet4));
    assert_eq!(Version::VParquet5.to_string(), "vParquet5");
    assert_eq!(
        "vparquet4".parse::<Version>(),
        Err(UnknownVersion("vparquet4".to_owned()))
    );
}
