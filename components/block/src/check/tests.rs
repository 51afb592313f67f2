//! Good blocks pass, and each kind of damage is found.

use std::sync::Arc;

use bytes::Bytes;
use parquet::{
    basic::Compression,
    column::writer::ColumnWriter,
    file::{
        properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion},
        writer::SerializedFileWriter,
    },
};
use tempo_backend::{
    BlockMeta, DedicatedColumn, DedicatedColumns, DedicatedOption, DedicatedScope,
};

use super::{leaf::Values, *};
use crate::{
    testing::{golden, input_traces},
    write::{BlockBuilder, BlockOptions},
};

struct Parts {
    meta: BlockMeta,
    data: Bytes,
    blooms: Vec<Bytes>,
    index: Vec<u8>,
}

impl Parts {
    fn recorded(folder: &str) -> Self {
        let read = |name: &str| std::fs::read(golden(&format!("{folder}/{name}"))).unwrap();
        Self {
            meta: serde_json::from_slice(&read("meta.json")).unwrap(),
            data: read("data.parquet").into(),
            blooms: vec![read("bloom-0").into()],
            index: read("index"),
        }
    }

    fn built(version: Version, row_group_size_bytes: u64, dedicated: DedicatedColumns) -> Self {
        let traces = input_traces();
        let options = BlockOptions {
            row_group_size_bytes,
            dedicated_columns: dedicated,
            ..BlockOptions::new(version, "t".into(), uuid::Uuid::from_u128(1), 192)
        };
        let mut builder = BlockBuilder::new(options, Vec::new()).unwrap();
        for (id, chunks) in &traces {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            builder.push_trace(*id, &chunks).unwrap();
        }
        let (block, data) = builder.finish().unwrap();
        Self {
            meta: block.meta,
            data: data.into(),
            blooms: block.blooms,
            index: block.index.to_vec(),
        }
    }

    fn report(&self) -> CheckReport {
        check_parts(self.data.clone(), &self.meta, &self.blooms, &self.index).unwrap()
    }

    fn problems(&self) -> Vec<String> {
        self.report()
            .problems
            .iter()
            .map(Problem::to_string)
            .collect()
    }

    /// The same block, written by the parquet library, with columns changed on the way.
    fn rewritten(
        &self,
        properties: WriterPropertiesBuilder,
        change: impl Fn(&str, &mut LeafColumnData),
    ) -> Self {
        let reader = SerializedFileReader::new(self.data.clone()).unwrap();
        let schema = reader
            .metadata()
            .file_metadata()
            .schema_descr()
            .root_schema_ptr();
        let properties = properties
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_compression(Compression::SNAPPY)
            .build();
        let mut writer =
            SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group).unwrap();
            let mut out = writer.next_row_group().unwrap();
            for position in 0..group.num_columns() {
                let path = group.metadata().column(position).column_path().string();
                let mut data = LeafColumnData::read(&*group, position).unwrap();
                change(&path, &mut data);
                let (defs, reps) = (Some(&data.defs[..]), Some(&data.reps[..]));
                let mut column = out.next_column().unwrap().unwrap();
                match (column.untyped(), &data.values) {
                    (ColumnWriter::BoolColumnWriter(w), Values::Bools(v)) => {
                        w.write_batch(v, defs, reps)
                    }
                    (ColumnWriter::Int32ColumnWriter(w), Values::Int32s(v)) => {
                        w.write_batch(v, defs, reps)
                    }
                    (ColumnWriter::Int64ColumnWriter(w), Values::Int64s(v)) => {
                        w.write_batch(v, defs, reps)
                    }
                    (ColumnWriter::DoubleColumnWriter(w), Values::Doubles(v)) => {
                        w.write_batch(v, defs, reps)
                    }
                    (ColumnWriter::ByteArrayColumnWriter(w), Values::Bytes(v)) => {
                        w.write_batch(v, defs, reps)
                    }
                    _ => panic!("{path}: type changed"),
                }
                .unwrap();
                column.close().unwrap();
            }
            out.close().unwrap();
        }
        let data = Bytes::from(writer.into_inner().unwrap());
        let footer = data[data.len() - 8..].first_chunk().unwrap();
        Self {
            meta: BlockMeta {
                size: data.len() as u64,
                footer_size: u32::from_le_bytes(*footer),
                ..self.meta.clone()
            },
            data,
            blooms: self.blooms.clone(),
            index: self.index.clone(),
        }
    }
}

const V4: &str = "blocks/vparquet4/single-tenant/f4d8cfb0-8d16-48c1-bbd7-31a78c75b6cb";

fn safe() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_dictionary_page_size_limit(usize::MAX)
        .set_statistics_enabled(EnabledStatistics::Chunk)
}

#[test]
fn blocks_of_tempo_are_good() {
    let mut spans = 0;
    for folder in [
        "blocks/vparquet4/single-tenant/6c401b8e-0867-416f-85bd-e133cda96d43",
        V4,
        "blocks/vparquet5/single-tenant/baffe872-1067-45e4-b074-ef083fb6730e",
        "roundtrip/vParquet4/single-tenant/11111111-2222-4333-8444-555555555555",
        "roundtrip/vParquet5/single-tenant/11111111-2222-4333-8444-555555555555",
    ] {
        let report = Parts::recorded(folder).report();
        assert_eq!(report.problems, [], "{folder}");
        spans += report.spans;
    }
    assert!(spans > 2 * 1073);
}

#[test]
fn our_blocks_are_good() {
    let blob = DedicatedColumn {
        options: vec![DedicatedOption::Blob],
        ..DedicatedColumn::string(DedicatedScope::Span, "foo")
    };
    let event = DedicatedColumn::string(DedicatedScope::Event, "exception.type");
    let blobs = DedicatedColumns::from(vec![blob, event]);
    let blobs = || blobs.clone();
    for (version, row_group_size_bytes, dedicated, row_groups) in [
        (
            Version::VParquet4,
            0,
            DedicatedColumns::tempo_defaults(),
            1..=1,
        ),
        (Version::VParquet4, 5000, blobs(), 5..=60),
        (Version::VParquet5, 0, blobs(), 1..=1),
        (Version::VParquet5, 5000, blobs(), 5..=60),
        (
            Version::VParquet5,
            1,
            DedicatedColumns::tempo_defaults(),
            192..=192,
        ),
    ] {
        let report = Parts::built(version, row_group_size_bytes, dedicated).report();
        assert_eq!(report.problems, [], "{version} {row_group_size_bytes}");
        assert_eq!((report.traces, report.spans), (192, 1073));
        assert!(
            row_groups.contains(&report.row_groups),
            "{}",
            report.row_groups
        );
    }
}

#[test]
fn made_up_bounds_of_blob_columns_are_found() {
    let folder = "roundtrip/blob/single-tenant/11111111-2222-4333-8444-555555555555";
    let problems = Parts::recorded(folder).problems();
    assert_eq!(
        problems,
        [
            "row group 0, rs.ss.Spans.DedicatedAttributes.String01: column index has bounds for \
             page 0 of a blob column, which are made up",
            "row group 0, rs.ss.Spans.DedicatedAttributes.Int01: column index has bounds for \
             page 0 of a blob column, which are made up",
        ]
    );
}

#[test]
fn a_library_with_safe_settings_writes_good_blocks() {
    let rewritten = Parts::recorded(V4).rewritten(safe(), |_, _| {});
    assert_eq!(rewritten.problems(), Vec::<String>::new());
}

#[test]
fn values_outside_the_dictionary_are_found() {
    let properties = safe()
        .set_dictionary_page_size_limit(64)
        .set_write_batch_size(16)
        .set_data_page_row_count_limit(20);
    let problems = Parts::recorded(V4)
        .rewritten(properties, |_, _| {})
        .problems();
    assert!(
        problems
            .iter()
            .any(|problem| problem.contains("Spans.list.element.Name")
                && problem.contains("although the column has a dictionary")),
        "{problems:?}"
    );
}

#[test]
fn null_pages_that_hold_values_are_found() {
    let properties = safe().set_statistics_enabled(EnabledStatistics::Page);
    let parts = Parts::recorded(V4);
    // The library calls a page null when it has as many nulls as rows.
    let problems = parts
        .rewritten(properties, |path, data| {
            if path.ends_with("Spans.list.element.HttpUrl") {
                let rows = data.reps.iter().filter(|&&rep| rep == 0).count();
                let Values::Bytes(values) = &mut data.values else {
                    panic!("text");
                };
                let mut nulls = data.defs.len() - values.len();
                for def in &mut data.defs {
                    if nulls > rows && *def == 3 {
                        *def = 4;
                        nulls -= 1;
                    }
                }
                let present = data.defs.iter().filter(|&&def| def == 4).count();
                values.resize(present, "https://x".into());
            }
        })
        .problems();
    assert!(
        problems
            .iter()
            .any(|problem| problem.contains("HttpUrl: column index calls page 0 null")),
        "{problems:?}"
    );
}

/// Damage to one column, and what the report must say about it.
#[test]
fn damage_is_found_where_it_is() {
    let parts = Parts::built(Version::VParquet5, 0, DedicatedColumns::tempo_defaults());
    // By two: a status that was not set becomes an error.
    let alter = |data: &mut LeafColumnData| match &mut data.values {
        Values::Int32s(values) => values[0] += 2,
        Values::Int64s(values) => values[0] += 2,
        Values::Bytes(values) => values[0] = "something else".into(),
        Values::Bools(values) => values[0] = !values[0],
        Values::Doubles(values) => values[0] += 1.0,
    };
    for (column, said) in [
        ("TraceIDText", "TraceIDText: text is"),
        ("StartTimeUnixNano", "start is"),
        ("EndTimeUnixNano", "end is"),
        ("DurationNano", "duration is"),
        ("RootSpanName", "root names are those of no root span"),
        ("ServiceStats.SpanCount", "statistics of a trace is"),
        ("ServiceStats.ServiceName", "statistics of a trace is"),
        ("rs.ss.Spans.NestedSetLeft", "nested set is"),
        ("rs.ss.Spans.ParentID", "nested set is"),
        ("rs.ss.Spans.ChildCount", "nested set is"),
        ("rs.ss.Spans.StatusCode", "statistics of a trace is"),
        ("rs.ss.SpanCount", "SpanCount is"),
        (
            "rs.ss.Spans.StartTimeRounded300",
            "StartTimeRounded300 right is",
        ),
    ] {
        let damaged = parts.rewritten(safe(), |path, data| {
            if path == column {
                alter(data);
            }
        });
        let problems = damaged.problems();
        assert!(
            problems.iter().any(|problem| problem.contains(said)),
            "{column}: {problems:?}"
        );
    }

    let levels = parts.rewritten(safe(), |path, data| {
        if path == "rs.ss.Spans.Kind" {
            let at = data.reps.iter().position(|&rep| rep == 3).unwrap();
            data.reps[at] = 2;
        }
    });
    assert!(
        levels
            .problems()
            .iter()
            .any(|problem| problem.contains("Spans.Kind: levels differ from those of")),
    );

    let two_values = parts.rewritten(safe(), |path, data| {
        if path == "rs.ss.Spans.Attrs.ValueInt" {
            let at = data.defs.iter().position(|&def| def == 4).unwrap();
            let before = data.defs[..at].iter().filter(|&&def| def == 5).count();
            data.defs[at] = 5;
            let Values::Int64s(values) = &mut data.values else {
                panic!("integers");
            };
            values.insert(before, 7);
        }
    });
    assert!(
        two_values
            .problems()
            .iter()
            .any(|problem| problem.contains("attributes without exactly one value is 1")),
    );

    let swapped = parts.rewritten(safe(), |path, data| {
        if let ("TraceID", Values::Bytes(ids)) = (path, &mut data.values) {
            ids.swap(0, 1);
        }
    });
    assert!(
        swapped
            .problems()
            .iter()
            .any(|problem| problem.contains("does not ascend")),
    );
}

#[test]
fn parts_that_do_not_fit_the_data_are_found() {
    let good = Parts::built(Version::VParquet4, 0, DedicatedColumns::tempo_defaults());
    let mut parts = Parts::recorded(V4);
    parts.meta.total_objects += 1;
    parts.meta.footer_size -= 1;
    parts.meta.total_records = 2;
    parts.blooms = vec![Bytes::from(vec![0; 24 + 8])];
    parts.index = good.index.clone();
    let problems = parts.problems().join("\n");
    for said in [
        "meta.json: totalObjects is 133, should be 132",
        "meta.json: footerSize is",
        "meta.json: totalRecords is 2, should be 1",
        "bloom-0: bloom shard with 0 bits",
    ] {
        assert!(problems.contains(said), "{said}: {problems}");
    }
    let mut parts = Parts::recorded(V4);
    parts.index = br#"{"rowGroups":["KAAAAAAAAAAAAAAAAAAAKA=="]}"#.to_vec();
    let problems = parts.problems();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("index: last id of a row group is"));
    parts.blooms = vec![empty_bloom()];
    let problems = parts.problems().join("\n");
    assert!(problems.contains("bloom: 110fbe74567305df339cf1a7fed8fd08 is not in its shard"));
    assert!(parts.report().problems_left_out > 0);

    let mut parts = Parts::recorded(V4);
    parts.meta.format = "vParquet5".into();
    assert!(
        parts.problems()[0].starts_with("schema"),
        "{:?}",
        parts.problems()
    );
    parts.meta.format = "vParquet3".into();
    assert!(check_parts(parts.data, &parts.meta, &[], &[]).is_err());
}

fn empty_bloom() -> Bytes {
    use crate::bloom::{BloomBuilder, BloomParameters};
    BloomBuilder::new(BloomParameters::new(0.01, 1000, 1))
        .finish()
        .remove(0)
}
