//! The streaming gRPC API.

use std::time::Duration;

use tempo_api::job::{Job, JobError};
use tempo_proto::tempopb::{
    QueryRangeRequest, SearchRequest, SearchTagValuesRequest, SearchTagsRequest,
    streaming_querier_client::StreamingQuerierClient,
};
use tempo_query_frontend::{Config, SearchConfig};
use tonic::{Code, Request, Streaming};

use crate::support::{NOW, Stack, found_names, found_traces, found_values};

async fn client(stack: &Stack) -> StreamingQuerierClient<tonic::transport::Channel> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = stack.handle.streaming_service();
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)),
    );
    StreamingQuerierClient::connect(format!("http://{address}"))
        .await
        .unwrap()
}

async fn all<T>(mut stream: Streaming<T>) -> Vec<T> {
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        messages.push(message);
    }
    messages
}

fn search(limit: u32) -> SearchRequest {
    SearchRequest {
        query: "{}".to_owned(),
        limit,
        start: NOW - 9_000,
        end: NOW - 2_000,
        ..SearchRequest::default()
    }
}

#[tokio::test]
async fn a_search_streams_news_and_ends_with_everything() {
    let stack = Stack::new(Config {
        search: SearchConfig {
            concurrent_jobs: 1,
            ..SearchConfig::default()
        },
        ..Config::default()
    });
    for age in [3_600, 3_700, 3_800] {
        stack.add_block("single-tenant", age, 1);
    }
    let mut client = client(&stack).await;
    let queue = stack.handle.queue();
    tokio::spawn(async move {
        for (wait, id) in [(0, "a"), (600, "b"), (0, "c")] {
            let (_, _, _, responder) = queue.next().await.unwrap().into_parts();
            // Past the least time between two partial answers.
            tokio::time::pause();
            tokio::time::advance(Duration::from_millis(wait)).await;
            tokio::time::resume();
            responder.respond(Ok(found_traces(&[(id, 10)])));
        }
    });
    let messages = all(client.search(search(20)).await.unwrap().into_inner()).await;
    let ids: Vec<Vec<&str>> = messages
        .iter()
        .map(|message| {
            message
                .traces
                .iter()
                .map(|trace| trace.trace_id.as_str())
                .collect()
        })
        .collect();
    assert_eq!(ids, [vec!["a", "b"], vec!["a", "b", "c"]]);
    let progress: Vec<_> = messages
        .iter()
        .map(|message| message.metrics.as_ref().unwrap())
        .map(|metrics| (metrics.completed_jobs, metrics.total_jobs))
        .collect();
    assert_eq!(progress, [(2, 3), (3, 3)]);
}

#[tokio::test]
async fn answers_are_cut_into_packets() {
    let stack = Stack::new(Config {
        max_grpc_streaming_packet_bytes: 25,
        ..Config::default()
    });
    let _querier = stack.querier(|_, job| {
        Ok(match job {
            Job::TagNames { .. } => found_names("span", &["abcdefgh", "ijklmnop", "qrstuvwx"]),
            _ => found_values(&[("string", "abcdefgh"), ("string", "ijklmnop"), ("int", "1")]),
        })
    });
    let mut client = client(&stack).await;
    let names = client
        .search_tags(SearchTagsRequest::default())
        .await
        .unwrap();
    let names = all(names.into_inner()).await;
    assert!(names.len() > 1);
    let names: Vec<String> = names
        .into_iter()
        .flat_map(|packet| packet.tag_names)
        .collect();
    assert_eq!(names, ["abcdefgh", "ijklmnop", "qrstuvwx"]);
    let scoped = client
        .search_tags_v2(SearchTagsRequest {
            scope: "span".to_owned(),
            ..SearchTagsRequest::default()
        })
        .await
        .unwrap();
    for packet in all(scoped.into_inner()).await {
        assert!(packet.scopes.iter().all(|scope| scope.name == "span"));
    }
    let request = SearchTagValuesRequest {
        tag_name: ".a".to_owned(),
        ..SearchTagValuesRequest::default()
    };
    let values = client.search_tag_values_v2(request.clone()).await.unwrap();
    let values: usize = all(values.into_inner())
        .await
        .iter()
        .map(|packet| packet.tag_values.len())
        .sum();
    assert_eq!(values, 3);
    let values = client.search_tag_values(request).await.unwrap();
    let values: Vec<String> = all(values.into_inner())
        .await
        .into_iter()
        .flat_map(|packet| packet.tag_values)
        .collect();
    assert_eq!(values, ["1", "abcdefgh", "ijklmnop"]);
}

#[tokio::test]
async fn refusals_have_their_codes() {
    let stack = Stack::new(Config {
        multitenancy_enabled: true,
        max_outstanding_jobs_per_tenant: 1,
        http_api_prefix: "/tempo".to_owned(),
        url_deny_list: vec!["^/tempo/api/search\\?q=%7B%20%2Ebad%20%7D&".to_owned()],
        ..Config::default()
    });
    let mut client = client(&stack).await;
    let named = |request| {
        let mut request = Request::new(request);
        request
            .metadata_mut()
            .insert("x-scope-orgid", "t".parse().unwrap());
        request
    };
    let status = client.search(search(1)).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unknown, "no org id")
    );
    let failure = async |client: &mut StreamingQuerierClient<_>, request| {
        let stream = client.search(named(request)).await.unwrap();
        let status = stream.into_inner().message().await.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    assert_eq!(
        failure(&mut client, search(1_000_000)).await,
        (
            Code::InvalidArgument,
            "limit 1000000 exceeds max limit 262144".to_owned()
        )
    );
    let bad = SearchRequest {
        query: "{".to_owned(),
        ..search(1)
    };
    let (code, message) = failure(&mut client, bad).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.starts_with("invalid TraceQL query: parse error at line 1"));
    let denied = SearchRequest {
        query: "{ .bad }".to_owned(),
        ..search(1)
    };
    let (code, message) = failure(&mut client, denied).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(
        message.starts_with("Invalid request /tempo/api/search?q="),
        "{message}"
    );
    let recent = SearchRequest {
        query: "{}".to_owned(),
        ..SearchRequest::default()
    };
    assert_eq!(
        failure(&mut client, recent).await,
        (Code::ResourceExhausted, "job queue full".to_owned())
    );
    let mut stream = client
        .metrics_query_range(Request::from_parts(
            named(search(1)).metadata().clone(),
            tonic::Extensions::default(),
            QueryRangeRequest::default(),
        ))
        .await
        .unwrap()
        .into_inner();
    let status = stream.message().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "end must be greater than start")
    );
}

#[tokio::test]
async fn a_failed_job_ends_the_stream() {
    let stack = Stack::new(Config::default());
    let _querier = stack.querier(|_, _| Err(JobError::Failed("corrupt".to_owned())));
    let mut client = client(&stack).await;
    let recent = SearchRequest {
        query: "{}".to_owned(),
        ..SearchRequest::default()
    };
    let mut stream = client.search(recent).await.unwrap().into_inner();
    let status = stream.message().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Internal, "corrupt")
    );
}

#[tokio::test]
async fn a_client_that_goes_cancels_its_jobs() {
    let stack = Stack::new(Config::default());
    stack.add_block("single-tenant", 3_600, 1);
    let mut client = client(&stack).await;
    let stream = client.search(search(1)).await.unwrap();
    let queued = stack.handle.queue().next().await.unwrap();
    let (_, _, cancelled, _responder) = queued.into_parts();
    drop(stream);
    cancelled.cancelled().await;
}
