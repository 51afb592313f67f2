//! What keeps a bucket small, and the tools that look into it.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use tempo_testkit::process::{Options, Tempo};

use crate::{
    shop::{ORDERS, Shop},
    support::{binary, copy_folder, eventually, flush, search, terminate},
};

pub(crate) const TENANT: &str = "single-tenant";

/// A subcommand on a bucket: exit code, standard output, standard error.
pub(crate) fn tool(bucket: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(binary())
        .args(words)
        .args(["--backend", "local", "--bucket"])
        .arg(bucket)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The JSON that a subcommand prints.
pub(crate) fn json(bucket: &Path, words: &[&str]) -> Value {
    let words = [words, &["--format", "json"]].concat();
    let (code, out, problems) = tool(bucket, &words);
    assert_eq!(code, Some(0), "{words:?}: {problems}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words:?}: {error}: {out}"))
}

fn golden_bucket() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let golden = tempo_testkit::golden::folder().join("blocks/vparquet4");
    copy_folder(&golden, folder.path()).unwrap();
    folder
}

#[test]
fn a_bucket_can_be_looked_into() {
    let folder = golden_bucket();
    let bucket = folder.path();
    let (code, out, _) = tool(bucket, &["list", "tenants"]);
    assert_eq!((code, out.as_str()), (Some(0), "tenant\nsingle-tenant\n"));

    let blocks = json(bucket, &["list", "blocks", TENANT]);
    let ids: Vec<&str> = blocks
        .as_array()
        .unwrap()
        .iter()
        .map(|block| block["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 2);
    let meta = json(bucket, &["list", "block", TENANT, ids[0]]);
    assert_eq!(meta["blockID"], ids[0]);
    let index = json(bucket, &["list", "index", TENANT]);
    assert_eq!(index.as_array().unwrap().len(), 2);
    let levels = json(bucket, &["list", "compaction-summary", TENANT]);
    let counted: u64 = levels
        .as_array()
        .unwrap()
        .iter()
        .map(|level| level["blocks"].as_u64().unwrap())
        .sum();
    assert_eq!(counted, 2);

    let columns = json(bucket, &["view", "schema", TENANT, ids[0]]);
    assert_eq!(columns.as_array().unwrap().len(), 103);
    let attributes = json(bucket, &["analyse", "block", TENANT, ids[0]]);
    assert!(attributes.as_array().unwrap().iter().any(|attribute| {
        attribute["scope"] == "resource" && attribute["values"].as_u64() > Some(0)
    }));

    let found = json(bucket, &["query", "search", "{}", TENANT, "--limit", "5"]);
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), 5);
    let id = found[0]["traceID"].as_str().unwrap();
    let (code, trace, problems) = tool(bucket, &["query", "trace-id", id, TENANT]);
    assert_eq!(code, Some(0), "{problems}");
    let trace: Value = serde_json::from_str(&trace).unwrap();
    assert!(trace.to_string().contains("spans"), "{trace}");
    let summary = json(bucket, &["query", "trace-summary", id, TENANT]);
    assert!(summary["spans"].as_u64() > Some(0), "{summary}");

    let (code, _, problems) = tool(bucket, &["query", "trace-id", "ffff", TENANT]);
    assert_eq!(code, Some(1));
    assert!(problems.contains("is in no block"), "{problems}");
    let (code, _, problems) = tool(bucket, &["list", "everything"]);
    assert_eq!(code, Some(2));
    assert!(problems.contains("list everything"), "{problems}");
}

#[test]
fn damage_is_found_and_named() {
    let folder = golden_bucket();
    let bucket = folder.path();
    let (code, _, problems) = tool(bucket, &["check", "bucket"]);
    assert_eq!(code, Some(0), "{problems}");
    let blocks = json(bucket, &["list", "blocks", TENANT]);
    let id = blocks[0]["id"].as_str().unwrap();
    let bloom = bucket.join(TENANT).join(id).join("bloom-0");
    let mut bytes = fs::read(&bloom).unwrap();
    bytes[24..].fill(0);
    fs::write(&bloom, bytes).unwrap();
    let (code, out, _) = tool(bucket, &["check", "bucket", "--format", "json"]);
    assert_eq!(code, Some(1));
    let found: Value = serde_json::from_str(&out).unwrap();
    let found = found.as_array().unwrap();
    assert!(!found.is_empty());
    assert!(
        found.iter().all(|problem| problem["block"] == id),
        "{found:?}"
    );
}

#[test]
fn blocks_of_one_process_are_merged_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = folder.path();
    let options = Options {
        storage_yaml: Some(format!(
            "    backend: local\n    local:\n      path: {}\n    blocklist_poll: 1s\n",
            bucket.display()
        )),
        extra_yaml: "backend_scheduler:
  provider:
    compaction:
      min_cycle_interval: 1s
query_frontend:
  query_end_cutoff: 0s
  search:
    query_backend_after: 0s
  metrics:
    query_backend_after: 0s
"
        .to_owned(),
        merges_blocks: true,
        ..Options::default()
    };
    let mut tempo = Tempo::configure(&binary(), &options).unwrap();
    tempo.start().unwrap();
    let shop = Shop::recent();
    let requests: Vec<Vec<u8>> = shop.requests().collect();
    for part in requests.chunks(requests.len().div_ceil(3)) {
        Shop::push_requests(&tempo, None, part);
        flush(&tempo);
    }
    let sent = usize::from(ORDERS);
    eventually("all blocks are listed", || {
        (search(&tempo, "{}").len() == sent).then_some(())
    });
    eventually("blocks are merged", || {
        // Nothing is missing in between.
        assert_eq!(search(&tempo, "{}").len(), sent);
        let blocks = json(bucket, &["list", "blocks", TENANT]);
        let blocks = blocks.as_array().unwrap().clone();
        // Two of three at least are of the same hour.
        let merged = blocks.iter().any(|block| block["lvl"].as_u64() > Some(0));
        (merged && blocks.len() < 3).then_some(())
    });
    assert_eq!(search(&tempo, "{}").len(), sent);
    let page = tempo_testkit::http_client::get(&tempo.http, "/status/backendscheduler").unwrap();
    assert!(page.text().contains("Active jobs"), "{}", page.text());
    terminate(&mut tempo);
    let (code, _, problems) = tool(bucket, &["check", "bucket"]);
    assert_eq!(code, Some(0), "{problems}");
}
