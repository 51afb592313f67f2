//! `list`: what is in the bucket.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tempo_backend::{BlockMeta, Timestamp};

use super::{
    CliError,
    arguments::Arguments,
    output::{Output, size},
    store::Store,
};

const BLOCK_COLUMNS: [&str; 10] = [
    "id", "lvl", "objects", "size", "vers", "window", "start", "end", "duration", "cmp",
];

pub(super) async fn tenants(arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let store = Store::open(arguments).await?;
    let tenants = store
        .backend
        .list_tenants()
        .await
        .map_err(CliError::failed)?;
    let rows = tenants
        .into_iter()
        .map(|tenant| json!({ "tenant": tenant }));
    output.rows(&["tenant"], rows.collect());
    Ok(())
}

fn block_row(meta: &BlockMeta, compacted: Option<Timestamp>) -> Value {
    let duration = meta.end_time.saturating_since(meta.start_time);
    json!({
        "id": meta.block_id.to_string(),
        "lvl": meta.compaction_level,
        "objects": meta.total_objects,
        "size": size(meta.size),
        "size_bytes": meta.size,
        "vers": meta.format.as_str(),
        "window": meta.end_time.unix_seconds() / 3600,
        "start": meta.start_time.to_string(),
        "end": meta.end_time.to_string(),
        "duration": format!("{duration:?}"),
        "cmp": compacted.map(|time| time.to_string()),
    })
}

pub(super) async fn blocks(
    tenant: &str,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), CliError> {
    let store = Store::open(arguments).await?;
    let blocks = store.blocks(tenant).await?;
    let mut listed: Vec<(Timestamp, Value)> = blocks
        .live()
        .iter()
        .map(|meta| (meta.end_time, block_row(meta, None)))
        .collect();
    if arguments.is_set("include-compacted") {
        listed.extend(blocks.compacted().iter().map(|block| {
            let meta = &block.meta;
            (meta.end_time, block_row(meta, Some(block.compacted_time)))
        }));
    }
    listed.sort_by_key(|(end, _)| *end);
    let count = listed.len();
    output.rows(
        &BLOCK_COLUMNS,
        listed.into_iter().map(|(_, row)| row).collect(),
    );
    let total: u64 = blocks.live().iter().map(|meta| meta.size).sum();
    let objects: i64 = blocks.live().iter().map(|meta| meta.total_objects).sum();
    eprintln!(
        "{count} blocks listed; live: {} blocks, {objects} objects, {}",
        blocks.live().len(),
        size(total)
    );
    if !blocks.superseded().is_empty() {
        eprintln!(
            "{} more are replaced by a merged block and wait to be marked compacted",
            blocks.superseded().len()
        );
    }
    Ok(())
}

pub(super) async fn block(
    tenant: &str,
    block: &str,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), CliError> {
    let store = Store::open(arguments).await?;
    let meta = store.meta(tenant, block).await?;
    output.object(serde_json::to_value(&*meta).map_err(CliError::failed)?);
    Ok(())
}

pub(super) async fn index(
    tenant: &str,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), CliError> {
    let store = Store::open(arguments).await?;
    let index = store
        .backend
        .read_tenant_index(tenant)
        .await
        .map_err(CliError::failed)?;
    eprintln!(
        "written {}; {} live blocks, {} compacted",
        index.created_at,
        index.live.len(),
        index.compacted.len()
    );
    let live = index.live.iter().map(|meta| block_row(meta, None));
    let compacted = index
        .compacted
        .iter()
        .map(|block| block_row(&block.meta, Some(block.compacted_time)));
    output.rows(&BLOCK_COLUMNS, live.chain(compacted).collect());
    Ok(())
}

pub(super) async fn compaction_summary(
    tenant: &str,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), CliError> {
    let store = Store::open(arguments).await?;
    let blocks = store.blocks(tenant).await?;
    let mut levels: BTreeMap<u32, Vec<&BlockMeta>> = BTreeMap::new();
    for meta in blocks.live() {
        levels.entry(meta.compaction_level).or_default().push(meta);
    }
    let rows = levels.into_iter().map(|(level, metas)| {
        let sizes = || metas.iter().map(|meta| meta.size);
        let objects: i64 = metas.iter().map(|meta| meta.total_objects).sum();
        let shards: u64 = metas
            .iter()
            .map(|meta| u64::from(meta.bloom_shard_count()))
            .sum();
        json!({
            "lvl": level,
            "blocks": metas.len(),
            "size": size(sizes().sum()),
            "smallest": size(sizes().min().unwrap_or(0)),
            "largest": size(sizes().max().unwrap_or(0)),
            "objects": objects,
            "earliest": metas.iter().map(|meta| meta.start_time).min().map(|time| time.to_string()),
            "latest": metas.iter().map(|meta| meta.end_time).max().map(|time| time.to_string()),
            "bloom_shards": shards,
        })
    });
    let columns = [
        "lvl",
        "blocks",
        "size",
        "smallest",
        "largest",
        "objects",
        "earliest",
        "latest",
        "bloom_shards",
    ];
    output.rows(&columns, rows.collect());
    Ok(())
}

pub(super) async fn cache_summary(
    tenant: &str,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), CliError> {
    const DAY_SECONDS: i64 = 24 * 3600;
    let store = Store::open(arguments).await?;
    let blocks = store.blocks(tenant).await?;
    let today = Timestamp::now().unix_seconds() / DAY_SECONDS;
    let mut shards: BTreeMap<(i64, u32), u64> = BTreeMap::new();
    for meta in blocks.live() {
        let age = today - meta.start_time.unix_seconds() / DAY_SECONDS;
        *shards.entry((age, meta.compaction_level)).or_default() +=
            u64::from(meta.bloom_shard_count());
    }
    let rows = shards.into_iter().map(
        |((age, level), shards)| json!({ "age_days": age, "lvl": level, "bloom_shards": shards }),
    );
    output.rows(&["age_days", "lvl", "bloom_shards"], rows.collect());
    Ok(())
}
