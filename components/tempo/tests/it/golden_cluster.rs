//! What Grafana Tempo answered, asked of a whole installation: from blocks that its block-builders
//! wrote, while its workers merge them, and of spans that were sent twice.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use tempo_ingest::KafkaConfig;
use tempo_testkit::{
    cluster::{Cluster, Shape},
    golden::Golden,
    http_client::Client,
};

use crate::{
    cluster::{PATIENCE, caught_up},
    golden,
    support::{binary, eventually_within, unix_seconds},
    upkeep::{TENANT, json, tool},
};

const PARTITIONS: u32 = 2;

/// How often each block was merged, sorted.
fn levels(bucket: &Path) -> Vec<u64> {
    let blocks = json(bucket, &["list", "blocks", TENANT]);
    let level = |block: &serde_json::Value| block["lvl"].as_u64().unwrap();
    let mut levels: Vec<_> = blocks.as_array().unwrap().iter().map(level).collect();
    levels.sort_unstable();
    levels
}

/// Whether merging has come to its end: only blocks of one level are merged.
fn is_at_rest(levels: &[u64]) -> bool {
    levels.windows(2).all(|pair| pair[0] != pair[1])
}

/// Sends everything recorded while block-builders are away, so that it comes into few blocks.
fn push_for_few_blocks(cluster: &mut Cluster, recorded: &Golden) {
    for builder in 0..PARTITIONS {
        let builder = cluster.node_mut(&format!("block-builder-{builder}"));
        builder.kill().unwrap();
    }
    push(cluster, recorded);
    for builder in 0..PARTITIONS {
        let builder = cluster.node_mut(&format!("block-builder-{builder}"));
        builder.spawn().unwrap();
    }
}

/// Sends everything recorded, again where it was not acknowledged: a block-builder keeps one of what
/// is in one section twice.
fn push(cluster: &Cluster, recorded: &Golden) {
    let distributor = &cluster.node("distributor-0").otlp_http;
    let headers = [("content-type", "application/x-protobuf")];
    for body in &recorded.requests {
        eventually_within(PATIENCE, "a request is taken", || {
            let mut client = Client::connect(distributor).unwrap();
            let answer = client.request("POST", "/v1/traces", &headers, body);
            let answer = answer.unwrap();
            assert!([200, 503].contains(&answer.status), "{}", answer.text());
            (answer.status == 200).then_some(())
        });
    }
}

/// Waits until everything that was sent is in blocks.
fn until_built(cluster: &Cluster) {
    let kafka = KafkaConfig {
        address: cluster.kafka.bootstrap().to_owned(),
        topic: "tempo".to_owned(),
        ..KafkaConfig::default()
    };
    caught_up(&kafka, PARTITIONS as i32);
}

/// Waits until every process knows what there is, so that all is answered as recorded.
fn until_right(way: &str, cluster: &Cluster, recorded: &Golden) {
    let frontend = cluster.node("query-frontend");
    let begun = Instant::now();
    loop {
        let different = golden::differences(frontend, recorded);
        if different.is_empty() {
            return;
        }
        let shown: Vec<&String> = different.values().take(5).collect();
        assert!(
            begun.elapsed() < 5 * PATIENCE,
            "{way}: {} answers differ, such as {shown:#?}",
            different.len()
        );
    }
}

#[test]
#[ignore = "takes minutes and most of a machine; `make test-system` runs it"]
fn a_whole_installation_answers_as_recorded() {
    let data = tempfile::tempdir().unwrap();
    let bucket = data.path().join("bucket");
    let shape = Shape {
        partitions: PARTITIONS,
        zones: 1,
        is_hasty: true,
        ..Shape::default()
    };
    let mut cluster = Cluster::start(&binary(), &shape, Some(data.path())).unwrap();
    let begin = i64::try_from(unix_seconds() - golden::AGE_SECONDS).unwrap();
    let recorded = Golden::load().moved_to(begin);
    // Most traces of several requests are in one block, as conditions on whole traces need; the others
    // are united when blocks are merged.
    push_for_few_blocks(&mut cluster, &recorded);
    until_right("built", &cluster, &recorded);
    until_built(&cluster);
    let begun = Instant::now();
    while !is_at_rest(&levels(&bucket)) {
        let frontend = cluster.node("query-frontend");
        golden::check("while blocks are merged", frontend, &recorded);
        assert!(begun.elapsed() < PATIENCE, "blocks are never merged");
    }
    golden::check("merged", cluster.node("query-frontend"), &recorded);

    // Blocks of different levels are left apart: with more of the same they find their like.
    eventually_within(
        3 * PATIENCE,
        "the same spans are merged into one block",
        || {
            push_for_few_blocks(&mut cluster, &recorded);
            until_built(&cluster);
            eventually_within(PATIENCE, "blocks are merged", || {
                thread::sleep(Duration::from_millis(100));
                is_at_rest(&levels(&bucket)).then_some(())
            });
            (levels(&bucket).len() == 1).then_some(())
        },
    );
    until_right("sent twice", &cluster, &recorded);
    golden::check("sent twice", cluster.node("query-frontend"), &recorded);

    let (code, _, problems) = tool(&bucket, &["check", "bucket"]);
    assert_eq!(code, Some(0), "{problems}");
    cluster.stop().unwrap();
}
