//! What Grafana Tempo answered, asked of the process over HTTP: from blocks that Tempo wrote, from
//! live data, and from blocks that we wrote.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use tempo_testkit::{
    golden::Golden,
    http_client::Client,
    process::{Options, Tempo},
};

use crate::support::{binary, copy_folder, flush, on_bucket, terminate, unix_seconds};

/// Recorded requests, of all kinds.
const CASES: usize = 213;

/// Connections that ask at the same time.
const CONNECTIONS: usize = 4;

/// How long before the present live data begins: its last spans are then older than the last half
/// minute, which queries leave out, and no request asks about the future.
pub(crate) const AGE_SECONDS: u64 = 180;

pub(crate) fn push(tempo: &Tempo, golden: &Golden) {
    let mut client = Client::connect(&tempo.otlp_http).unwrap();
    let headers = [("content-type", "application/x-protobuf")];
    for body in &golden.requests {
        let answer = client
            .request("POST", "/v1/traces", &headers, body)
            .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// Asks every case, in parallel; differences by the index of their case.
pub(crate) fn differences(tempo: &Tempo, golden: &Golden) -> BTreeMap<usize, String> {
    let next = AtomicUsize::new(0);
    let ask = || {
        let mut client = Client::connect(&tempo.http).unwrap();
        let mut different = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = golden.cases.get(index) else {
                return different;
            };
            let answer = client.get(&golden.path(case)).unwrap();
            if let Err(difference) = golden.compare(case, answer.status, &answer.body) {
                different.push((index, difference));
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(ask)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    })
}

pub(crate) fn check(way: &str, tempo: &Tempo, golden: &Golden) {
    assert_eq!(golden.cases.len(), CASES);
    let different = differences(tempo, golden);
    println!("{way}: {} of {CASES} pass", CASES - different.len());
    let shown: Vec<String> = different
        .values()
        .map(|difference| difference.chars().take(3_000).collect())
        .collect();
    assert!(
        shown.is_empty(),
        "{way}: answered differently:\n\n{}\n\n{}",
        shown.join("\n\n"),
        tempo.log_tail()
    );
}

#[test]
fn blocks_that_tempo_wrote_answer_as_recorded() {
    let golden = Golden::load();
    for format in ["vparquet4", "vparquet5"] {
        let bucket = tempfile::tempdir().unwrap();
        let blocks = golden.folder.join("blocks").join(format);
        copy_folder(&blocks, bucket.path()).unwrap();
        check(
            &format!("recorded {format}"),
            &on_bucket(bucket.path(), ""),
            &golden,
        );
    }
}

#[test]
fn live_data_and_blocks_that_we_wrote_answer_as_recorded() {
    let begin = i64::try_from(unix_seconds() - AGE_SECONDS).unwrap();
    let golden = Golden::load().moved_to(begin);
    let mut tempo = Tempo::configure(&binary(), &Options::default()).unwrap();
    tempo.start().unwrap();
    push(&tempo, &golden);
    check("live", &tempo, &golden);

    flush(&tempo);
    check("flushed", &tempo, &golden);

    terminate(&mut tempo);
    let bucket = tempo.data().join("blocks");
    check("ours", &on_bucket(&bucket, ""), &golden);
}
