//! `analyse`: which attributes take the space.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use serde_json::json;
use tempo_backend::{BlockMeta, ReadStats};
use tempo_block::read::BlockReader;
use tempo_table::{AttributeScope, Column, ColumnKey, SpanTable};

use super::{
    CliError,
    arguments::Arguments,
    output::{Output, Progress, size},
    store::{Store, blocking},
};

const SCOPES: [(AttributeScope, &str); 5] = [
    (AttributeScope::Resource, "resource"),
    (AttributeScope::Instrumentation, "instrumentation"),
    (AttributeScope::Span, "span"),
    (AttributeScope::Event, "event"),
    (AttributeScope::Link, "link"),
];

/// Distinct texts counted per attribute at most.
const MAX_DISTINCT: usize = 1_000_000;

/// What an attribute takes.
#[derive(Default)]
struct Usage {
    values: u64,
    text_values: u64,
    int_values: u64,
    bytes: u64,
    distinct: HashSet<Box<[u8]>>,
}

type Usages = BTreeMap<(&'static str, Arc<str>), Usage>;

impl Usage {
    fn add(&mut self, column: &Column) {
        let rows = (0..column.len).filter(|&row| !column.is_nil(row));
        self.values += rows.count() as u64;
        if let Some(lane) = &column.strings {
            for row in 0..column.len {
                let Some(code) = lane.codes.get(row).copied() else {
                    continue;
                };
                if (code as usize) >= lane.dict.len() {
                    continue;
                }
                let text = lane.dict.bytes(code);
                self.text_values += 1;
                self.bytes += text.len() as u64;
                if self.distinct.len() < MAX_DISTINCT && !self.distinct.contains(text) {
                    self.distinct.insert(text.into());
                }
            }
        }
        if let Some(lane) = &column.ints {
            let ints = (0..column.len)
                .filter(|&row| lane.get(row).is_some())
                .count() as u64;
            self.int_values += ints;
            self.bytes += 8 * ints;
        }
        if let Some(lane) = &column.floats {
            let count = (0..column.len)
                .filter(|&row| lane.get(row).is_some())
                .count() as u64;
            self.bytes += 8 * count;
        }
    }
}

pub(super) async fn block(
    tenant: &str,
    block: &str,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), CliError> {
    let store = Store::open(arguments).await?;
    let meta = store.meta(tenant, block).await?;
    let usages = read(store, vec![meta]).await?;
    print(usages, arguments, output)
}

pub(super) async fn blocks(
    tenant: &str,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), CliError> {
    let store = Store::open(arguments).await?;
    let lowest = arguments.number("min-compaction-level", 3)?;
    let most = arguments.number("max-blocks", 10)?;
    let blocks = store.blocks(tenant).await?;
    let metas: Vec<Arc<BlockMeta>> = blocks
        .live()
        .iter()
        .filter(|meta| meta.compaction_level as usize >= lowest)
        .take(most)
        .cloned()
        .collect();
    if metas.is_empty() {
        return Err(CliError::Failed(format!(
            "tenant {tenant} has no block of level {lowest} or more: lower --min-compaction-level"
        )));
    }
    let usages = read(store, metas).await?;
    print(usages, arguments, output)
}

async fn read(store: Store, metas: Vec<Arc<BlockMeta>>) -> Result<Usages, CliError> {
    blocking(move || {
        let mut usages = Usages::new();
        let mut progress = Progress::new("blocks analysed", metas.len());
        for meta in metas {
            let reader = BlockReader::open(&store.backend, &store.cache, meta, ReadStats::new())
                .map_err(CliError::failed)?;
            for group in 0..reader.row_groups() {
                if let Some(table) = reader.table(group, ReadStats::new()) {
                    read_table(&table, &mut usages)?;
                }
            }
            progress.step();
        }
        Ok(usages)
    })
    .await
}

fn read_table(table: &dyn SpanTable, usages: &mut Usages) -> Result<(), CliError> {
    for (scope, label) in SCOPES {
        let names = table
            .attribute_names(scope, None)
            .map_err(CliError::failed)?;
        for name in names {
            let key = ColumnKey::attribute(scope, &name);
            let column = table.column(&key, None).map_err(CliError::failed)?;
            usages.entry((label, name)).or_default().add(&column);
            table.release(&key);
        }
    }
    Ok(())
}

fn print(usages: Usages, arguments: &Arguments, output: &Output) -> Result<(), CliError> {
    let most = arguments.number("num-attr", 20)?;
    let mut rows = Vec::new();
    for (_, label) in SCOPES {
        let mut of_scope: Vec<_> = usages
            .iter()
            .filter(|((scope, _), _)| *scope == label)
            .collect();
        let all: u64 = of_scope.iter().map(|(_, usage)| usage.bytes).sum();
        of_scope.sort_by_key(|(_, usage)| std::cmp::Reverse(usage.bytes));
        rows.extend(
            of_scope
                .into_iter()
                .take(most)
                .map(|((scope, name), usage)| {
                    json!({
                        "scope": scope,
                        "attribute": &**name,
                        "size": size(usage.bytes),
                        "size_bytes": usage.bytes,
                        "share": format!("{:.1}%", usage.bytes as f64 * 100.0 / all.max(1) as f64),
                        "values": usage.values,
                        "texts": usage.text_values,
                        "ints": usage.int_values,
                        "distinct_texts": usage.distinct.len(),
                    })
                }),
        );
    }
    let columns = [
        "scope",
        "attribute",
        "size",
        "share",
        "values",
        "texts",
        "ints",
        "distinct_texts",
    ];
    output.rows(&columns, rows);
    Ok(())
}
