//! Writes the binary seeds of the corpus: a segment of the log, and blocks as this program and as
//! other writers store them. Run it after a format has changed:
//! `cargo run -p tempo-fuzz --example seeds`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::Path, sync::Arc};

use parquet::{
    basic::Compression,
    column::{
        reader::{ColumnReader, get_typed_column_reader},
        writer::{ColumnWriter, ColumnWriterImpl},
    },
    data_type::{self as types, DataType},
    file::{
        properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion},
        reader::{FileReader, SerializedFileReader},
        writer::SerializedFileWriter,
    },
};
use prometheus::Registry;
use tempo_backend::{DedicatedColumns, cache::Cache, testing};
use tempo_block::{
    schema::Version,
    write::{BlockBuilder, BlockOptions},
};
use tempo_distributor::regroup::{Bounds, Scratch, regroup};
use tempo_live_store::{Config, Dependencies, Limits, SystemClock, build};
use tempo_model::{TraceBatch, TraceChunk};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

struct NoLimits;

impl Limits for NoLimits {
    fn max_bytes_per_trace(&self, _: &str) -> u64 {
        0
    }

    fn max_live_traces(&self, _: &str) -> u32 {
        0
    }

    fn dedicated_columns(&self, _: &str) -> DedicatedColumns {
        DedicatedColumns::tempo_defaults()
    }
}

fn corpus(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(path)
}

fn chunks(seed: &str) -> Vec<TraceChunk> {
    let request = fs::read(corpus(seed)).unwrap();
    let bounds = Bounds {
        max_attribute_bytes: usize::MAX,
        max_regrouped_bytes: usize::MAX,
    };
    let regrouped = regroup(&request, &bounds, &mut Scratch::default()).unwrap();
    regrouped.traces
}

/// A segment of three pushes by two tenants.
async fn write_segment() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::new();
    let config = Config {
        data_path: folder.path().to_owned(),
        ..Config::default()
    };
    let dependencies = Dependencies {
        backend: Some(testing::memory()),
        cache: Cache::new(1 << 20, &registry).unwrap(),
        limits: Arc::new(NoLimits),
        clock: Arc::new(SystemClock),
        registry: &registry,
    };
    let (live, service) = build(config, dependencies).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(service.run(stop.clone()));
    while live.ready().is_err() {
        tokio::task::yield_now().await;
    }
    for (tenant, seed) in [
        ("single-tenant", "otlp/split-trace"),
        ("another", "otlp/every-attribute-type"),
        ("single-tenant", "otlp/split-trace"),
    ] {
        let batch = TraceBatch {
            traces: chunks(seed),
            skip_metrics_generation: false,
        };
        live.push(tenant, batch).await.unwrap();
    }
    // Before the stop, which would put everything into blocks and remove the segment.
    let segment = fs::read(find_segment(folder.path()).unwrap()).unwrap();
    fs::write(corpus("wal/three-records"), segment).unwrap();
    stop.cancel();
    running.await.unwrap();
}

fn find_segment(folder: &Path) -> Option<std::path::PathBuf> {
    fs::read_dir(folder).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return find_segment(&path);
        }
        path.extension()
            .is_some_and(|kind| kind == "wal")
            .then_some(path)
    })
}

fn block(version: Version) -> Vec<u8> {
    let mut traces = chunks("otlp/every-attribute-type");
    traces.extend(chunks("otlp/split-trace"));
    traces.sort_by_key(|chunk| chunk.id);
    let options = BlockOptions::new(version, "t".into(), Uuid::from_u128(1), 10);
    let mut builder = BlockBuilder::new(options, Vec::new()).unwrap();
    for chunk in traces {
        builder.push_trace(chunk.id, &[&chunk.trace]).unwrap();
    }
    builder.finish().unwrap().1
}

fn copy<T: DataType>(reader: ColumnReader, writer: &mut ColumnWriterImpl<'_, T>) {
    let mut reader = get_typed_column_reader::<T>(reader);
    let (mut defs, mut reps, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let (mut defs_of, mut reps_of) = (Some(&mut defs), Some(&mut reps));
    while reader
        .read_records(
            1 << 20,
            defs_of.as_deref_mut(),
            reps_of.as_deref_mut(),
            &mut values,
        )
        .unwrap()
        .0
        > 0
    {}
    let defs = (!defs.is_empty()).then_some(defs.as_slice());
    let reps = (!reps.is_empty()).then_some(reps.as_slice());
    writer.write_batch(&values, defs, reps).unwrap();
}

/// The file as the parquet library stores it: without checksums, so that changes reach the
/// decoders.
fn rewrite(file: Vec<u8>, properties: WriterPropertiesBuilder) -> Vec<u8> {
    let reader = SerializedFileReader::new(bytes::Bytes::from(file)).unwrap();
    let schema = reader
        .metadata()
        .file_metadata()
        .schema_descr()
        .root_schema_ptr();
    let mut out = Vec::new();
    let properties = Arc::new(properties.build());
    let mut writer = SerializedFileWriter::new(&mut out, schema, properties).unwrap();
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).unwrap();
        let mut rows = writer.next_row_group().unwrap();
        for column in 0..group.num_columns() {
            let source = group.get_column_reader(column).unwrap();
            let mut target = rows.next_column().unwrap().unwrap();
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
        rows.close().unwrap();
    }
    writer.close().unwrap();
    out
}

fn write_blocks() {
    let old = || WriterProperties::builder().set_writer_version(WriterVersion::PARQUET_1_0);
    let new = || WriterProperties::builder().set_writer_version(WriterVersion::PARQUET_2_0);
    let small_pages = |builder: WriterPropertiesBuilder| {
        builder
            .set_data_page_row_count_limit(2)
            .set_write_batch_size(2)
            .set_statistics_enabled(EnabledStatistics::Chunk)
    };
    for (version, digit) in [(Version::VParquet4, '4'), (Version::VParquet5, '5')] {
        let own = block(version);
        let save = |name: &str, file: Vec<u8>| {
            let mut input = vec![digit as u8];
            input.extend(file);
            fs::write(corpus(&format!("parquet/v{digit}-{name}")), input).unwrap();
        };
        let plain = old().set_dictionary_enabled(false);
        save("plain", rewrite(own.clone(), plain));
        save("dictionaries", rewrite(own.clone(), small_pages(old())));
        let deltas = small_pages(new()).set_dictionary_enabled(false);
        save("deltas", rewrite(own.clone(), deltas));
        let compressed = new().set_compression(Compression::SNAPPY);
        save("snappy", rewrite(own.clone(), compressed));
        save("own", own);
    }
}

#[tokio::main]
async fn main() {
    write_segment().await;
    write_blocks();
}
