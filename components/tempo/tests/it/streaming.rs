//! Answers that come in pieces, to a client in another language with stubs from our `.proto` files;
//! and what becomes of the work when the client goes.

use std::{
    collections::BTreeSet, io::Write as _, net::TcpStream, process::Command, time::Duration,
};

use serde_json::{Value, json};
use tempo_testkit::{
    http_client::encode,
    process::{BACKEND_ONLY, Options, Tempo},
    proxy::Proxy,
};

use crate::{
    s3::S3,
    shop::{ORDERS, Shop},
    support::{binary, eventually, flush, metric, required_env, sdk_folder, terminate},
};

/// Each of them a block, and each block a job.
const BLOCKS: usize = 4;

/// Longer than the least time between two partial answers: each block brings one.
const FAR: Duration = Duration::from_millis(600);

/// A process that has the shop in a store that is far away, and works on one block at a time.
struct Distant {
    tempo: Tempo,
    shop: Shop,
    way: Proxy,
    _store: S3,
}

impl Distant {
    fn new() -> Self {
        let store = S3::start();
        let mut writer = Tempo::configure(
            &binary(),
            &Options {
                storage_yaml: Some(S3::yaml(&store.address)),
                ..Options::default()
            },
        )
        .unwrap();
        writer.start().unwrap();
        let shop = Shop::recent();
        let requests: Vec<Vec<u8>> = shop.requests().collect();
        for orders in requests.chunks(requests.len() / BLOCKS) {
            Shop::push_requests(&writer, None, orders);
            flush(&writer);
        }
        assert_eq!(store.blocks(), BLOCKS);
        terminate(&mut writer);

        let way = Proxy::to(&store.address).unwrap();
        let one_by_one = BACKEND_ONLY
            .replace("  search:\n", "  search:\n    concurrent_jobs: 1\n")
            .replace("  metrics:\n", "  metrics:\n    concurrent_jobs: 1\n");
        let options = Options {
            storage_yaml: Some(S3::yaml(&way.address)),
            extra_yaml: format!("{one_by_one}stream_over_http_enabled: true\n"),
            ..Options::default()
        };
        let mut tempo = Tempo::configure(&binary(), &options).unwrap();
        tempo.start().unwrap();
        eventually("all blocks are known", || {
            let blocks = metric(&tempo, "tempodb_blocklist_length{tenant=\"single-tenant\"}");
            (blocks == BLOCKS as f64).then_some(())
        });
        way.delay(FAR);
        Self {
            tempo,
            shop,
            way,
            _store: store,
        }
    }

    /// What the Python client prints: the answers, and how the call ended.
    fn stream(&self, method: &str, request: &Value, more: &[&str]) -> (Vec<Value>, Value) {
        let output = Command::new(required_env("TEMPO_TEST_PYTHON"))
            .arg(sdk_folder().join("stream.py"))
            .args([&self.tempo.http, method, &request.to_string()])
            .args(more)
            .output()
            .unwrap();
        let mut lines: Vec<Value> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let end = lines
            .pop()
            .unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (lines, end)
    }

    fn search(&self) -> Value {
        json!({
            "Query": "{ name = `GET /checkout` }",
            "start": self.shop.begin,
            "end": self.shop.end(),
            "Limit": 100,
        })
    }

    /// Waits until no thread works; returns how many jobs were begun in all.
    fn jobs_begun_when_idle(&self) -> f64 {
        eventually("nobody works any more", || {
            (metric(&self.tempo, "tempo_querier_evaluations_running") == 0.0).then_some(())
        });
        metric(&self.tempo, "tempo_querier_worker_request_executed_total")
    }

    fn cancelled_queries(&self) -> f64 {
        metric(
            &self.tempo,
            "tempo_query_frontend_queries_total{op=\"search\",result=\"canceled\",tenant=\"single-tenant\"}",
        )
    }
}

fn ids(answer: &Value) -> BTreeSet<String> {
    let traces = answer["traces"].as_array().into_iter().flatten();
    traces
        .map(|trace| trace["traceID"].as_str().unwrap().to_owned())
        .collect()
}

/// Completed jobs of all jobs.
fn progress(answer: &Value) -> (u64, u64) {
    let metrics = &answer["metrics"];
    let jobs = |key: &str| metrics[key].as_u64().unwrap_or(0);
    (jobs("completedJobs"), jobs("totalJobs"))
}

#[test]
fn another_languages_client_sees_news_as_they_are_found_and_everything_at_the_end() {
    let distant = Distant::new();
    let (answers, end) = distant.stream("Search", &distant.search(), &[]);
    assert_eq!(end["end"], "OK", "{end}");
    let (last, news) = answers.split_last().unwrap();
    assert!(news.len() >= 2, "{answers:?}");
    let mut known = BTreeSet::new();
    let mut completed = 0;
    for answer in news {
        let (now, all) = progress(answer);
        assert!(completed < now && now <= all, "{answer}");
        completed = now;
        let new = ids(answer);
        assert!(!new.is_empty() && new.is_disjoint(&known), "{answer}");
        known.extend(new);
    }
    let orders: BTreeSet<String> = (0..ORDERS).map(Shop::short_id).collect();
    assert!(known.is_subset(&orders));
    assert_eq!(ids(last), orders);
    assert_eq!(progress(last), (BLOCKS as u64, BLOCKS as u64));

    // One that has kept nothing of what the search read.
    let distant = Distant::new();
    let nanos = |seconds: u64| (seconds * 1_000_000_000).to_string();
    let range = json!({
        "query": "{ name = `GET /checkout` } | count_over_time()",
        "start": nanos(distant.shop.begin),
        "end": nanos(distant.shop.end()),
        "step": nanos(60),
    });
    let (answers, end) = distant.stream("MetricsQueryRange", &range, &[]);
    assert_eq!(end["end"], "OK", "{end}");
    let (last, news) = answers.split_last().unwrap();
    assert!(!news.is_empty(), "{answers:?}");
    assert!(progress(&news[0]).0 < BLOCKS as u64, "{news:?}");
    let samples = last["series"][0]["samples"].as_array().unwrap();
    let counted: f64 = samples
        .iter()
        .filter_map(|sample| sample["value"].as_f64())
        .sum();
    assert_eq!(counted, f64::from(ORDERS), "{last}");
    assert_eq!(progress(last).0, progress(last).1);

    distant.way.delay(Duration::ZERO);
    for (method, request, wanted) in [
        (
            "SearchTagsV2",
            json!({"scope": "resource"}),
            "k8s.cluster.name",
        ),
        (
            "SearchTagValuesV2",
            json!({"tagName": "name"}),
            "charge card",
        ),
    ] {
        let mut request = request;
        request["start"] = distant.shop.begin.into();
        request["end"] = distant.shop.end().into();
        let (answers, end) = distant.stream(method, &request, &[]);
        assert_eq!(end["end"], "OK", "{end}");
        let last = answers.last().unwrap().to_string();
        assert!(last.contains(wanted), "{method}: {last}");
    }
    let (answers, end) = distant.stream("Search", &json!({"Query": "{"}), &[]);
    assert_eq!(
        (answers.len(), &end["end"]),
        (0, &json!("INVALID_ARGUMENT"))
    );
}

#[test]
fn work_ends_when_its_client_goes() {
    let distant = Distant::new();
    let all = BLOCKS as f64;

    // A stream that is cancelled after the first news.
    let (answers, end) = distant.stream("Search", &distant.search(), &["--cancel-after", "1"]);
    assert_eq!((answers.len(), &end["end"]), (1, &json!("CANCELLED")));
    eventually("the stream counts as cancelled", || {
        (distant.cancelled_queries() == 1.0).then_some(())
    });
    let begun = distant.jobs_begun_when_idle();
    assert!((1.0..all).contains(&begun), "{begun} of {all} jobs");

    // A connection that is closed while its query runs.
    let path = format!(
        "/api/search?q={}&limit=100&start={}&end={}",
        encode("{ kind = server }"),
        distant.shop.begin,
        distant.shop.end()
    );
    let mut connection = TcpStream::connect(&distant.tempo.http).unwrap();
    connection
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: tempo\r\n\r\n").as_bytes())
        .unwrap();
    eventually("the next query has begun", || {
        let jobs = metric(
            &distant.tempo,
            "tempo_querier_worker_request_executed_total",
        );
        (jobs > begun).then_some(())
    });
    drop(connection);
    eventually("the request counts as cancelled", || {
        (distant.cancelled_queries() == 2.0).then_some(())
    });
    let more = distant.jobs_begun_when_idle() - begun;
    assert!((1.0..all).contains(&more), "{more} of {all} jobs");
}
