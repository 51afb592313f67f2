//! What was acknowledged is there: after `kill -9`, with a full disk, with the store away, after
//! a pause.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tempo_testkit::{
    disk::SmallDisk,
    http_client::{self, Client},
    process::{Options, Tempo},
    proxy::Proxy,
    traces::{TraceMaker, encode_request},
};

use crate::{
    s3::S3,
    support::{binary, eventually, flush, rounds, search, spans, terminate, unix_seconds},
};

/// Cuts, completes and flushes every moment, so that a kill falls into each stage.
const HASTY: &str = "  flush_check_period: 100ms\n  max_trace_idle: 200ms\n  max_trace_live: 1s\n  max_block_duration: 500ms\n";

/// Pause of a writer after each acknowledgement: enough traces to tell, few enough to check all.
const PACE: Duration = Duration::from_millis(15);

/// Acknowledged traces: id in hex to the number of its spans.
pub(crate) type Acknowledged = Mutex<BTreeMap<String, usize>>;

static SEED: AtomicU64 = AtomicU64::new(1);

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sends traces, some of them in two requests, until `stop` or until nobody answers. Returns how
/// many requests were refused.
fn write(address: &str, acknowledged: &Acknowledged, stop: &AtomicBool) -> usize {
    let mut maker = TraceMaker::new(SEED.fetch_add(1, Ordering::Relaxed));
    let Ok(mut client) = Client::connect(address) else {
        return 0;
    };
    let mut refused = 0;
    while !stop.load(Ordering::Relaxed) {
        let trace = maker.next_trace(unix_seconds() * 1_000_000_000);
        let (first, second) = trace
            .resource_spans
            .split_at(trace.resource_spans.len() / 2);
        for part in [first, second] {
            if part.is_empty() {
                continue;
            }
            let mut half = trace.clone();
            half.resource_spans = part.to_vec();
            let body = encode_request(&[half]);
            let headers = [("content-type", "application/x-protobuf")];
            match client.request("POST", "/v1/traces", &headers, &body) {
                Ok(answer) if answer.status == 200 => {
                    let sent: usize = part
                        .iter()
                        .flat_map(|r| &r.scope_spans)
                        .map(|s| s.spans.len())
                        .sum();
                    *acknowledged
                        .lock()
                        .unwrap()
                        .entry(hex(&trace.id))
                        .or_default() += sent;
                    thread::sleep(PACE);
                }
                Ok(answer) => {
                    assert!(
                        [429, 503].contains(&answer.status),
                        "a refusal must be retryable: {} {}",
                        answer.status,
                        answer.text()
                    );
                    refused += 1;
                    thread::sleep(Duration::from_millis(20));
                }
                Err(_) => return refused,
            }
        }
    }
    refused
}

/// Every acknowledged span is found once by id, and its trace by search.
pub(crate) fn check(tempo: &Tempo, acknowledged: &Acknowledged) {
    let acknowledged = acknowledged.lock().unwrap();
    assert!(
        !acknowledged.is_empty(),
        "the writers got something through"
    );
    for (id, count) in acknowledged.iter() {
        let found = spans(tempo, id);
        let mut ids: Vec<_> = found.iter().map(|(id, _)| id.clone()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), found.len(), "trace {id} holds a span twice");
        // What was sent but not acknowledged may be there, too.
        assert!(
            found.len() >= *count,
            "trace {id}: {} of {count} acknowledged spans",
            found.len()
        );
    }
    let found = search(tempo, "{ }");
    let lost: Vec<_> = acknowledged
        .keys()
        .filter(|id| !found.contains(*id))
        .collect();
    assert!(
        lost.is_empty(),
        "not found by search: {} of {}",
        lost.len(),
        acknowledged.len()
    );
}

fn hasty() -> Options {
    Options {
        live_store_yaml: HASTY.to_owned(),
        ..Options::default()
    }
}

/// Runs three writers while `meanwhile` does its worst; returns the number of refusals.
pub(crate) fn under_load(
    tempo: &Tempo,
    acknowledged: &Acknowledged,
    meanwhile: impl FnOnce(),
) -> usize {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| write(&tempo.otlp_http, acknowledged, &stop)))
            .collect();
        meanwhile();
        stop.store(true, Ordering::Relaxed);
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .sum()
    })
}

#[test]
fn kill_9_loses_nothing() {
    let everything = Acknowledged::default();
    let mut random = StdRng::seed_from_u64(u64::from(std::process::id()));
    let mut tempo = Tempo::configure(&binary(), &hasty()).unwrap();
    for _ in 0..rounds(5, 50) {
        let acknowledged = Acknowledged::default();
        tempo.start().unwrap();
        let after = Duration::from_millis(random.random_range(100..2500));
        under_load(&tempo, &acknowledged, || {
            thread::sleep(after);
            tempo.signal("KILL").unwrap();
        });
        tempo.wait().unwrap();
        tempo.start().unwrap();
        check(&tempo, &acknowledged);
        everything
            .lock()
            .unwrap()
            .append(&mut acknowledged.lock().unwrap());
        tempo.kill().unwrap();
    }
    tempo.start().unwrap();
    flush(&tempo);
    check(&tempo, &everything);
}

#[test]
fn a_second_sigterm_ends_at_once_and_loses_nothing() {
    let acknowledged = Acknowledged::default();
    let mut tempo = Tempo::configure(&binary(), &hasty()).unwrap();
    tempo.start().unwrap();
    let mut code = None;
    under_load(&tempo, &acknowledged, || {
        thread::sleep(Duration::from_millis(700));
        tempo.signal("TERM").unwrap();
        eventually("the first signal is seen", || {
            tempo.log_tail().contains("shutting down").then_some(())
        });
        // Harmless when the orderly end was quicker.
        let _ = tempo.signal("TERM");
    });
    code = tempo.wait().unwrap().or(code);
    assert!(
        [Some(0), Some(143)].contains(&code),
        "{code:?}\n{}",
        tempo.log_tail()
    );
    tempo.start().unwrap();
    check(&tempo, &acknowledged);
    terminate(&mut tempo);
}

#[test]
fn a_pause_loses_nothing() {
    let acknowledged = Acknowledged::default();
    let mut tempo = Tempo::configure(&binary(), &hasty()).unwrap();
    tempo.start().unwrap();
    under_load(&tempo, &acknowledged, || {
        thread::sleep(Duration::from_millis(300));
        tempo.signal("STOP").unwrap();
        thread::sleep(Duration::from_secs(2));
        tempo.signal("CONT").unwrap();
        thread::sleep(Duration::from_millis(500));
    });
    check(&tempo, &acknowledged);
    tempo.kill().unwrap();
    tempo.start().unwrap();
    check(&tempo, &acknowledged);
}

#[test]
fn a_store_that_is_away_loses_nothing_and_gets_everything_later() {
    let s3 = S3::start();
    let way = Proxy::to(&s3.address).unwrap();
    let acknowledged = Acknowledged::default();
    let options = Options {
        storage_yaml: Some(S3::yaml(&way.address)),
        ..hasty()
    };
    let mut tempo = Tempo::configure(&binary(), &options).unwrap();
    tempo.start().unwrap();
    under_load(&tempo, &acknowledged, || {
        eventually("the first block in the store", || {
            (s3.blocks() > 0).then_some(())
        });
        way.cut();
        thread::sleep(Duration::from_secs(2));
    });
    let before = s3.blocks();
    tempo.kill().unwrap();
    // It starts without the store, takes spans, and finds what is here.
    tempo.start().unwrap();
    under_load(&tempo, &acknowledged, || {
        thread::sleep(Duration::from_millis(500))
    });
    let found = search(&tempo, "{ }");
    let sent = acknowledged
        .lock()
        .unwrap()
        .keys()
        .cloned()
        .collect::<Vec<_>>();
    assert!(
        sent.iter().all(|id| found.contains(id)),
        "{} of {}",
        found.len(),
        sent.len()
    );
    assert_eq!(s3.blocks(), before, "the store is away");

    way.mend();
    flush(&tempo);
    assert!(s3.blocks() > before);
    check(&tempo, &acknowledged);
}

#[test]
fn a_full_disk_refuses_and_recovers_and_loses_nothing() {
    let disk = SmallDisk::mount(64 << 10).unwrap();
    let bucket = tempfile::tempdir().unwrap();
    let acknowledged = Acknowledged::default();
    let options = Options {
        data: Some(disk.path().to_owned()),
        storage_yaml: Some(format!(
            "    backend: local\n    local:\n      path: {}\n",
            bucket.path().display()
        )),
        ..Options::default()
    };
    let mut tempo = Tempo::configure(&binary(), &options).unwrap();
    tempo.start().unwrap();
    let refused = under_load(&tempo, &acknowledged, || {
        thread::sleep(Duration::from_millis(500));
        disk.fill().unwrap();
        thread::sleep(Duration::from_secs(2));
    });
    assert!(refused > 0, "a full disk must refuse");
    check(&tempo, &acknowledged);

    disk.relieve().unwrap();
    let before = acknowledged.lock().unwrap().len();
    under_load(&tempo, &acknowledged, || {
        eventually("pushes are taken again", || {
            (acknowledged.lock().unwrap().len() > before).then_some(())
        });
    });
    check(&tempo, &acknowledged);
    tempo.kill().unwrap();
    tempo.start().unwrap();
    check(&tempo, &acknowledged);
    assert_eq!(http_client::get(&tempo.http, "/ready").unwrap().status, 200);
}
