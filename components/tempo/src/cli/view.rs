//! `view`: what a block is made of.

use serde_json::json;
use tempo_backend::ReadStats;
use tempo_block::read::BlockReader;

use super::{
    CliError,
    arguments::Arguments,
    output::{Output, size},
    store::{Store, blocking},
};

pub(super) async fn schema(
    tenant: &str,
    block: &str,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), CliError> {
    let store = Store::open(arguments).await?;
    let meta = store.meta(tenant, block).await?;
    let columns = blocking(move || {
        let reader = BlockReader::open(&store.backend, &store.cache, meta, ReadStats::new())
            .map_err(CliError::failed)?;
        Ok(reader.columns())
    })
    .await?;
    let all: u64 = columns.iter().map(|column| column.stored_bytes).sum();
    let rows = columns.into_iter().map(|column| {
        json!({
            "column": column.path,
            "size": size(column.stored_bytes),
            "size_bytes": column.stored_bytes,
            "uncompressed": size(column.uncompressed_bytes),
            "uncompressed_bytes": column.uncompressed_bytes,
            "share": format!("{:.1}%", column.stored_bytes as f64 * 100.0 / all.max(1) as f64),
            "values": column.entries - column.nulls.min(column.entries),
            "nulls": column.nulls,
        })
    });
    let shown = ["column", "size", "uncompressed", "share", "values", "nulls"];
    output.rows(&shown, rows.collect());
    Ok(())
}
