//! The reference page in the documentation is the one that the declarations make.

use std::path::Path;

#[test]
fn the_page_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/configuration.md");
    let page = tempo_config::reference_markdown();
    if std::env::var_os("TEMPO_GENERATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == page,
        "docs/reference/configuration.md is stale; TEMPO_GENERATE=1 cargo test -p tempo-config writes it anew"
    );
}

#[test]
fn the_page_names_what_matters() {
    let page = tempo_config::reference_markdown();
    for row in [
        "| `target` | one of all,",
        "| `server.http_listen_port` | whole number | `3200` |",
        "| `storage.trace.s3.secret_key` | secret text | `\"\"` |",
        "| `storage.trace.block.parquet_dedicated_columns[].name` |",
        "| `distributor.receivers.otlp.protocols.grpc.endpoint` | text | `localhost:4317` |",
        "| `live_store.max_trace_idle` | duration | `5s` |",
        "## overrides",
    ] {
        assert!(page.contains(row), "{row} is missing");
    }
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    for row in rows.clone() {
        let columns = row.replace("\\|", "").matches(" | ").count();
        assert_eq!(columns, 4, "{row}");
    }
    assert!(rows.count() > 900);
}
