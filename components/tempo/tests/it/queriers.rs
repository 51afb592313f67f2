//! Query-frontend and queriers as processes of their own: the same answers as from one process,
//! and no query that fails because one of them ends.

use std::{path::Path, thread, time::Duration};

use tempo_proto::tempopb::{SearchRequest, streaming_querier_client::StreamingQuerierClient};
use tempo_testkit::{
    golden::Golden,
    http_client::{self, Client, encode},
    process::{BACKEND_ONLY, Options, Tempo},
    proxy::Proxy,
};

use crate::{
    golden,
    support::{binary, copy_folder, eventually, metric, terminate, unix_seconds},
};

/// Processes that have nothing but a bucket.
struct Cluster {
    frontend: Tempo,
    queriers: Vec<Tempo>,
    bucket: tempfile::TempDir,
}

fn options(bucket: &Path, yaml: &str) -> Options {
    Options {
        storage_yaml: Some(format!(
            "    backend: local\n    local:\n      path: {}\n",
            bucket.display()
        )),
        extra_yaml: format!("{BACKEND_ONLY}{yaml}"),
        ..Options::default()
    }
}

impl Cluster {
    /// On blocks that Tempo wrote.
    fn new(golden: &Golden, format: &str, queriers: usize) -> Self {
        let bucket = tempfile::tempdir().unwrap();
        copy_folder(&golden.folder.join("blocks").join(format), bucket.path()).unwrap();
        let options = options(bucket.path(), "target: query-frontend\n");
        let mut frontend = Tempo::configure(&binary(), &options).unwrap();
        frontend.spawn().unwrap();
        let mut cluster = Self {
            frontend,
            queriers: Vec::new(),
            bucket,
        };
        for _ in 0..queriers {
            let address = cluster.frontend.grpc.clone();
            cluster.add_querier(&address, 20);
        }
        if queriers > 0 {
            cluster.until_ready();
        }
        cluster
    }

    /// One more querier, which finds the query-frontend there.
    fn add_querier(&mut self, frontend: &str, jobs: usize) {
        let yaml = format!(
            "target: querier\nquerier:\n  max_concurrent_queries: {jobs}\n  frontend_worker:\n    frontend_address: {frontend}\n"
        );
        let options = options(self.bucket.path(), &yaml);
        let mut querier = Tempo::configure(&binary(), &options).unwrap();
        querier.start().unwrap();
        self.queriers.push(querier);
    }

    fn until_ready(&self) {
        eventually("the query-frontend is ready", || {
            let answer = http_client::get(&self.frontend.http, "/ready").ok()?;
            (answer.status == 200).then_some(())
        });
    }

    /// How many jobs were taken from the queue.
    fn jobs_taken(&self) -> f64 {
        metric(
            &self.frontend,
            "tempo_query_frontend_queue_duration_seconds_count",
        )
    }

    fn places(&self) -> f64 {
        metric(&self.frontend, "tempo_query_frontend_connected_clients")
    }
}

/// A search that finds all 192 traces of the recording.
fn all_traces(golden: &Golden) -> String {
    format!(
        "/api/search?q={}&limit=1000&{}",
        encode("{ }"),
        golden.range()
    )
}

const TRACES: usize = 192;

/// Status and number of traces.
fn search(address: &str, path: &str) -> (u16, usize) {
    let mut client = Client::connect(address).unwrap();
    let answer = client.get(path).unwrap();
    let found = match answer.status {
        200 => answer.json()["traces"].as_array().map_or(0, Vec::len),
        _ => panic!("{}: {}", answer.status, answer.text()),
    };
    (answer.status, found)
}

#[test]
fn a_cluster_answers_as_recorded() {
    let golden = Golden::load();
    for format in ["vparquet4", "vparquet5"] {
        let cluster = Cluster::new(&golden, format, 2);
        golden::check(
            &format!("query-frontend and queriers, {format}"),
            &cluster.frontend,
            &golden,
        );
        for querier in &cluster.queriers {
            let jobs = metric(querier, "tempo_querier_worker_request_executed_total");
            assert!(jobs > 0.0, "both queriers work");
        }
    }
}

#[test]
fn answers_are_streamed() {
    let golden = Golden::load();
    let cluster = Cluster::new(&golden, "vparquet5", 1);
    let seconds = |offset: i64| u32::try_from(golden.t0 + offset).unwrap();
    let request = SearchRequest {
        query: "{ }".to_owned(),
        limit: 1_000,
        start: seconds(-60),
        end: seconds(180),
        ..SearchRequest::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let last = runtime.block_on(async {
        let address = format!("http://{}", cluster.frontend.grpc);
        let mut client = StreamingQuerierClient::connect(address).await.unwrap();
        let mut answers = client.search(request).await.unwrap().into_inner();
        let mut last = None;
        while let Some(answer) = answers.message().await.unwrap() {
            last = Some(answer);
        }
        last.unwrap()
    });
    assert_eq!(last.traces.len(), TRACES);
    let metrics = last.metrics.unwrap();
    assert!(metrics.total_jobs > 0);
    assert_eq!(metrics.completed_jobs, metrics.total_jobs);
}

/// What becomes of a querier that has jobs.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Killed,
    Paused,
    Terminated,
    Unreachable,
}

#[test]
fn a_querier_that_is_lost_with_a_job_does_not_fail_the_query() {
    let golden = Golden::load();
    let path = all_traces(&golden);
    for fate in [
        Fate::Killed,
        Fate::Paused,
        Fate::Terminated,
        Fate::Unreachable,
    ] {
        let mut cluster = Cluster::new(&golden, "vparquet4", 0);
        let way = Proxy::to(&cluster.frontend.grpc).unwrap();
        cluster.add_querier(&way.address, 20);
        cluster.until_ready();
        eventually("all places are taken", || {
            (cluster.places() == 20.0).then_some(())
        });
        // As many jobs as the query below has; its own answers would be remembered.
        let other = path.replace("limit=1000", "limit=999");
        assert_eq!(search(&cluster.frontend.http, &other), (200, TRACES));
        let jobs = cluster.jobs_taken();
        assert!(jobs <= 20.0, "one querier can have all {jobs} jobs at once");
        // It takes jobs, and does nothing about them.
        cluster.queriers[0].signal("STOP").unwrap();
        let address = cluster.frontend.http.clone();
        let query = thread::spawn({
            let path = path.clone();
            move || search(&address, &path)
        });
        // All of them: nobody else would take one that is left when this querier goes.
        eventually("all jobs are handed out", || {
            (cluster.jobs_taken() == 2.0 * jobs).then_some(())
        });
        assert!(!query.is_finished());
        let frontend = cluster.frontend.grpc.clone();
        match fate {
            Fate::Killed => cluster.queriers[0].kill().unwrap(),
            Fate::Paused => {}
            Fate::Terminated => {
                cluster.queriers[0].signal("TERM").unwrap();
                cluster.queriers[0].signal("CONT").unwrap();
                // It answers what it has before it goes.
                assert_eq!(query.join().unwrap(), (200, TRACES), "{fate:?}");
                assert_eq!(cluster.queriers[0].wait().unwrap(), Some(0));
                continue;
            }
            Fate::Unreachable => way.cut(),
        }
        cluster.add_querier(&frontend, 20);
        assert_eq!(query.join().unwrap(), (200, TRACES), "{fate:?}");
        if matches!(fate, Fate::Paused) {
            // Back again, it takes jobs as before.
            cluster.queriers[0].signal("CONT").unwrap();
            eventually("all places are taken", || {
                (cluster.places() == 40.0).then_some(())
            });
            assert_eq!(search(&cluster.frontend.http, &path), (200, TRACES));
        }
    }
}

#[test]
fn a_query_frontend_that_ends_answers_what_it_was_asked_before() {
    let golden = Golden::load();
    let path = all_traces(&golden);
    let mut cluster = Cluster::new(&golden, "vparquet4", 1);
    cluster.queriers[0].signal("STOP").unwrap();
    let address = cluster.frontend.http.clone();
    let query = thread::spawn({
        let path = path.clone();
        move || search(&address, &path)
    });
    eventually("jobs are handed out", || {
        (cluster.jobs_taken() > 0.0).then_some(())
    });
    cluster.frontend.signal("TERM").unwrap();
    eventually("the query-frontend takes no more requests", || {
        http_client::get(&cluster.frontend.http, "/ready")
            .is_err()
            .then_some(())
    });
    assert!(!query.is_finished());
    cluster.queriers[0].signal("CONT").unwrap();
    assert_eq!(query.join().unwrap(), (200, TRACES));
    assert_eq!(cluster.frontend.wait().unwrap(), Some(0));
    // The querier waits for the next one.
    cluster.frontend.start().unwrap();
    assert_eq!(search(&cluster.frontend.http, &path), (200, TRACES));
    terminate(&mut cluster.queriers[0]);
}

#[test]
fn queriers_come_and_go_while_queries_run() {
    let golden = Golden::load();
    let path = all_traces(&golden);
    let mut cluster = Cluster::new(&golden, "vparquet5", 2);
    let frontend = cluster.frontend.grpc.clone();
    let address = cluster.frontend.http.clone();
    let until = unix_seconds() + 8;
    let asking: Vec<_> = (0..3)
        .map(|_| {
            let (address, path) = (address.clone(), path.clone());
            thread::spawn(move || {
                let mut asked = 0;
                while unix_seconds() < until {
                    assert_eq!(search(&address, &path), (200, TRACES));
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    let mut gone = 0;
    while unix_seconds() < until {
        cluster.add_querier(&frontend, 5);
        let mut first = cluster.queriers.remove(0);
        match gone % 2 {
            0 => first.kill().unwrap(),
            _ => terminate(&mut first),
        }
        gone += 1;
        thread::sleep(Duration::from_millis(200));
    }
    let asked: usize = asking.into_iter().map(|one| one.join().unwrap()).sum();
    assert!(asked > 0 && gone > 1, "{asked} queries, {gone} queriers");
}

#[test]
fn a_querier_without_query_frontends_does_not_start() {
    let bucket = tempfile::tempdir().unwrap();
    let options = options(bucket.path(), "target: querier\n");
    let mut querier = Tempo::configure(&binary(), &options).unwrap();
    let error = querier.start().unwrap_err().to_string();
    assert!(
        error.contains("querier.frontend_worker.frontend_address"),
        "{error}"
    );
}
