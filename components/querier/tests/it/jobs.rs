//! What jobs find, and how they fail.

use std::{any::Any, sync::Arc};

use tempo_api::job::{DataPlace, Job, JobError, JobOutput, JobResult, TracePlace};
use tempo_backend::{BlockChange, BlockFormat, BlockMeta, Blocklist};
use tempo_engine::metrics::Window;
use tempo_model::TraceId;
use tempo_proto::tempopb::{QueryRangeRequest, SearchTagValuesRequest, SearchTagsRequest};
use tempo_querier::{Config, Querier, RecentError};
use tempo_table::SpanTable;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{NOW, Recent, over, querier, recent, search, table};

async fn run(querier: &Querier, job: Job) -> JobResult {
    querier
        .run(&Arc::from("tenant"), job, CancellationToken::new())
        .await
}

async fn found(querier: &Querier, query: &str, limit: u32) -> Vec<u64> {
    let JobOutput::Search(response) = run(querier, search(query, limit)).await.unwrap() else {
        panic!("a search is answered with a search");
    };
    let mut starts: Vec<u64> = response
        .traces
        .iter()
        .map(|trace| trace.start_time_unix_nano / 1_000_000_000 - u64::from(NOW))
        .collect();
    starts.sort_unstable();
    starts
}

#[tokio::test]
async fn searches_merge_tables_up_to_the_limit() {
    let querier = over(vec![table(1..4), table(3..6)]).await;
    assert_eq!(found(&querier, "{ }", 0).await, [1, 2, 3, 4, 5]);
    assert_eq!(found(&querier, "{ .a >= 3 }", 0).await, [3, 4, 5]);
    assert_eq!(found(&querier, "{ }", 2).await, [1, 2]);
    let newest = "{ } with (most_recent=true)";
    assert_eq!(found(&querier, newest, 2).await, [4, 5]);
}

#[tokio::test]
async fn searches_tell_what_they_looked_into() {
    let querier = over(vec![table(1..4), table(3..6)]).await;
    let JobOutput::Search(response) = run(&querier, search("{ }", 0)).await.unwrap() else {
        panic!("a search is answered with a search");
    };
    let metrics = response.metrics.unwrap();
    assert_eq!((metrics.inspected_traces, metrics.inspected_spans), (6, 6));
}

fn count(query: &str, max_series: u32) -> Job {
    let at = |second: u32| u64::from(second) * 1_000_000_000;
    Job::QueryRange {
        request: Arc::new(QueryRangeRequest {
            query: query.to_owned(),
            max_series,
            ..QueryRangeRequest::default()
        }),
        window: Window {
            start_nano: at(NOW),
            end_nano: at(NOW + 10),
            step_nano: at(10),
            is_instant: true,
        },
        max_exemplars: 0,
        place: recent(),
    }
}

#[tokio::test]
async fn spans_of_all_tables_are_counted_once_each() {
    let querier = over(vec![table(1..4), table(3..6)]).await;
    let counted = async |query: &str, max_series: u32| {
        let job = count(query, max_series);
        let JobOutput::QueryRange(counted) = run(&querier, job).await.unwrap() else {
            panic!("counting is answered with counts");
        };
        (counted.series.counted_spans(), counted.series.len())
    };
    assert_eq!(counted("{ } | rate()", 0).await, (6, 1));
    assert_eq!(counted("{ .a >= 3 } | rate() by (.a)", 0).await, (4, 3));
    // The second table is not looked into once there are enough series.
    assert_eq!(counted("{ } | rate() by (.a)", 2).await, (3, 2));
    for (query, want) in [
        ("{ 1 / 0 = .a } | rate()", "division by zero"),
        ("{ }", "metrics job: not a metrics query"),
    ] {
        let error = run(&querier, count(query, 0)).await.unwrap_err();
        assert_eq!(error, JobError::Failed(want.to_owned()));
    }
}

#[tokio::test]
async fn names_and_values_are_collected_up_to_their_limits() {
    let querier = over(vec![table(1..4), table(3..6)]).await;
    let names = |scope: &str, query: &str| Job::TagNames {
        request: Arc::new(SearchTagsRequest {
            scope: scope.to_owned(),
            query: query.to_owned(),
            ..SearchTagsRequest::default()
        }),
        max_bytes: 0,
        place: recent(),
    };
    for (scope, query, want) in [
        ("", "", 1),
        ("span", "{ .a = 1 }", 1),
        ("span", "{ .a = 77 }", 0),
        ("resource", "", 0),
    ] {
        let JobOutput::TagNames(found) = run(&querier, names(scope, query)).await.unwrap() else {
            panic!("a tag name job is answered with tag names");
        };
        let spans = found.scopes.iter().filter(|scope| scope.name == "span");
        assert_eq!(spans.count(), want, "{scope} {query}");
    }
    let values = async |query: &str, max_tag_values, max_bytes| {
        let job = Job::TagValues {
            request: Arc::new(SearchTagValuesRequest {
                tag_name: "span.a".to_owned(),
                query: query.to_owned(),
                max_tag_values,
                ..SearchTagValuesRequest::default()
            }),
            max_bytes,
            place: recent(),
        };
        let JobOutput::TagValues(found) = run(&querier, job).await.unwrap() else {
            panic!("a tag value job is answered with tag values");
        };
        let values = found.tag_values.into_iter().map(|value| value.value);
        values.collect::<Vec<_>>().concat()
    };
    assert_eq!(values("", 0, 0).await, "12345");
    assert_eq!(values("{ name =~ `span [45]` }", 0, 0).await, "45");
    assert_eq!(values("", 2, 0).await, "12");
    // "int" and one digit.
    assert_eq!(values("", 0, 9).await, "12");
}

#[tokio::test]
async fn recent_data_that_fails_says_whether_to_try_again() {
    for (error, want) in [
        (
            RecentError::Unavailable("starting".to_owned()),
            JobError::Unavailable("starting".to_owned()),
        ),
        (
            RecentError::Failed("broken".to_owned()),
            JobError::Failed("broken".to_owned()),
        ),
    ] {
        type View = (Vec<Arc<dyn SpanTable>>, Box<dyn Any + Send>);
        let recent = Recent(move || Err::<View, _>(error.clone()));
        let querier = querier(Config::default(), Blocklist::new(), recent).await;
        let lookup = Job::FindTrace {
            trace_id: TraceId::from_padded(&[1]),
            max_bytes: 0,
            place: TracePlace::Recent,
        };
        for job in [search("{ }", 0), lookup] {
            assert_eq!(run(&querier, job).await.unwrap_err(), want);
        }
    }
}

#[tokio::test]
async fn what_a_querier_cannot_read_is_skipped_or_fails_the_job() {
    let blocklist = Blocklist::new();
    let block = |format| BlockMeta {
        total_records: 1,
        size: 100,
        ..BlockMeta::new("tenant".into(), Uuid::new_v4(), format)
    };
    let recent = Recent(|| Ok((Vec::new(), Box::new(()) as Box<dyn Any + Send>)));
    let querier = querier(Config::default(), blocklist.clone(), recent).await;
    let search_in = |meta: &BlockMeta| {
        let Job::Search { request, .. } = search("{ }", 0) else {
            unreachable!()
        };
        Job::Search {
            request,
            place: DataPlace::Block {
                meta: Arc::new(meta.to_proto()),
                first_row_group: 0,
                row_groups: 1,
            },
        }
    };
    let lookup = || Job::FindTrace {
        trace_id: TraceId::from_padded(&[1]),
        max_bytes: 0,
        place: TracePlace::Blocks {
            first: [0; 16],
            last: [0xff; 16],
            range: None,
        },
    };
    let old = block(BlockFormat::from("vParquet2"));
    blocklist.apply_change(
        "tenant",
        BlockChange {
            added: vec![Arc::new(old.clone())],
            ..BlockChange::default()
        },
    );
    let JobOutput::Search(nothing) = run(&querier, search_in(&old)).await.unwrap() else {
        panic!("a search is answered with a search");
    };
    assert!(nothing.traces.is_empty());
    assert!(run(&querier, lookup()).await.is_ok());

    let missing = block(BlockFormat::VParquet4);
    blocklist.apply_change(
        "tenant",
        BlockChange {
            added: vec![Arc::new(missing.clone())],
            ..BlockChange::default()
        },
    );
    for job in [search_in(&missing), lookup()] {
        let error = run(&querier, job).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let registry = prometheus::Registry::new();
    let result = Querier::build(
        Config {
            max_concurrent_jobs: 0,
            ..Config::default()
        },
        tempo_querier::Deps {
            blocks: None,
            recent: tempo_querier::Recent::Nowhere,
            registry: &registry,
        },
    );
    assert_eq!(
        result.err().map(|error| error.to_string()).as_deref(),
        Some("querier.max_concurrent_queries: must be greater than 0")
    );
}
