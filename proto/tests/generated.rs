//! The checked-in code is what the .proto files say. `make generate` rewrites it.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

const PROTOS: &[&str] = &[
    "opentelemetry/proto/common/v1/common.proto",
    "opentelemetry/proto/resource/v1/resource.proto",
    "opentelemetry/proto/trace/v1/trace.proto",
    "opentelemetry/proto/collector/trace/v1/trace_service.proto",
    "tempopb/tempo.proto",
    "tempopb/backend.proto",
    "tempopb/backendwork.proto",
    "tempostack/query/v1/query.proto",
    "jaeger/api_v2/collector.proto",
    "zipkin/proto3/zipkin.proto",
];

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempdir();
    let descriptors = protox::compile(PROTOS, [root]).expect("the .proto files compile");
    tonic_prost_build::configure()
        .out_dir(&fresh)
        .bytes(".tempopb.PushBytesRequest")
        .bytes(".tempostack.query.v1.TraceParts")
        // Small, made for each of many traces, and told in order.
        .btree_map(".tempopb.TraceSearchMetadata.serviceStats")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .expect("code is generated");

    let checked_in = root.join("src/generated");
    let rewrite = std::env::var_os("TEMPO_GENERATE").is_some();
    let mut stale = Vec::new();
    for entry in fs::read_dir(&fresh).unwrap() {
        let entry = entry.unwrap();
        let want = fs::read_to_string(entry.path()).unwrap();
        let target = checked_in.join(entry.file_name());
        if rewrite {
            fs::write(&target, &want).unwrap();
        } else if fs::read_to_string(&target).unwrap_or_default() != want {
            stale.push(entry.file_name());
        }
    }
    fs::remove_dir_all(&fresh).unwrap();
    assert!(
        stale.is_empty(),
        "stale generated code, run `make generate`: {stale:?}"
    );
}

fn tempdir() -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("tempo-proto-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    dir
}
