//! `check`: whether blocks and indexes are sound.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};
use tempo_backend::{BlockMeta, TenantBlocks, TenantIndex};
use tempo_block::check::check_block;

use super::{
    CliError,
    arguments::Arguments,
    output::{Output, Progress},
    store::{Store, blocking},
};

const COLUMNS: [&str; 4] = ["tenant", "block", "place", "problem"];

fn problem(tenant: &str, block: &str, place: &str, problem: impl ToString) -> Value {
    json!({
        "tenant": tenant,
        "block": block,
        "place": place,
        "problem": problem.to_string(),
    })
}

async fn problems_of(store: &Store, meta: &Arc<BlockMeta>) -> Result<Vec<Value>, CliError> {
    let (backend, meta) = (store.backend.clone(), Arc::clone(meta));
    blocking(move || {
        let (tenant, block) = (&*meta.tenant_id, meta.block_id.to_string());
        Ok(match check_block(&backend, &meta) {
            Err(error) => vec![problem(tenant, &block, "block", error)],
            Ok(report) => {
                let listed = report.problems.iter();
                let mut rows: Vec<Value> = listed
                    .map(|found| problem(tenant, &block, &found.place, &found.what))
                    .collect();
                if report.problems_left_out > 0 {
                    let more = format!("{} more problems", report.problems_left_out);
                    rows.push(problem(tenant, &block, "block", more));
                }
                rows
            }
        })
    })
    .await
}

fn finish(problems: Vec<Value>, output: &Output) -> Result<(), CliError> {
    let count = problems.len();
    output.rows(&COLUMNS, problems);
    match count {
        0 => {
            eprintln!("no problems found");
            Ok(())
        }
        count => Err(CliError::Problems(count)),
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
    finish(problems_of(&store, &meta).await?, output)
}

pub(super) async fn bucket(
    tenant: Option<&str>,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), CliError> {
    let store = Store::open(arguments).await?;
    let tenants = match tenant {
        Some(tenant) => vec![tenant.to_owned()],
        None => store
            .backend
            .list_tenants()
            .await
            .map_err(CliError::failed)?,
    };
    let mut problems = Vec::new();
    for tenant in tenants {
        let blocks = store.blocks(&tenant).await?;
        let mut progress = Progress::new("blocks checked", blocks.live().len());
        for meta in blocks.live() {
            problems.extend(problems_of(&store, meta).await?);
            progress.step();
        }
        match store.backend.read_tenant_index(&tenant).await {
            Ok(index) => problems.extend(problems_of_index(&tenant, &index, &blocks)),
            Err(error) if error.is_not_found() && blocks.is_empty() => {}
            Err(error) if error.is_not_found() => {
                eprintln!("tenant {tenant} has no index yet: readers list its blocks themselves");
            }
            Err(error) => problems.push(problem(&tenant, "", "tenant index", error)),
        }
    }
    finish(problems, output)
}

/// An index may lag behind, but what it names must be there.
fn problems_of_index(tenant: &str, index: &TenantIndex, blocks: &TenantBlocks) -> Vec<Value> {
    let known: BTreeSet<_> = blocks
        .live()
        .iter()
        .map(|meta| meta.block_id)
        .chain(blocks.compacted().iter().map(|block| block.meta.block_id))
        .chain(blocks.superseded().iter().copied())
        .collect();
    let listed = index.live.iter().map(|meta| meta.block_id);
    listed
        .filter(|block| !known.contains(block))
        .map(|block| {
            let what = "is listed as live and is not in the bucket";
            problem(tenant, &block.to_string(), "tenant index", what)
        })
        .collect()
}
