//! OTLP over gRPC on a real socket: with the generated client, and with calls that it cannot make.

use std::{convert::Infallible, io::Write, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tempo_distributor::{GrpcReceiver, PartialSuccess, SinkError};
use tempo_proto::opentelemetry::proto::collector::trace::v1::{
    ExportTracePartialSuccess, trace_service_client::TraceServiceClient,
};
use tokio::net::TcpStream;
use tonic::{
    Code, Status,
    codec::CompressionEncoding,
    transport::{Channel, Endpoint},
};

use crate::{
    regroup::assert_batch,
    samples::{Request, request, span},
    server::{Fixture, TestSink, config},
};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

async fn channel(addr: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap();
    endpoint.connect().await.unwrap()
}

/// A connection for calls made by hand.
async fn connect(addr: SocketAddr) -> SendRequest<BoxBody<Bytes, Infallible>> {
    let stream = TokioIo::new(TcpStream::connect(addr).await.unwrap());
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn two_traces() -> Request {
    request(vec![span(1, 1), span(2, 2), span(1, 3)])
}

fn with_tenant(request: Request, tenants: &[&str]) -> tonic::Request<Request> {
    let mut request = tonic::Request::new(request);
    for tenant in tenants {
        let tenant = tenant.parse().unwrap();
        request.metadata_mut().append("x-scope-orgid", tenant);
    }
    request
}

/// A call made by hand.
struct Call {
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

impl Call {
    fn export(body: Vec<u8>) -> Self {
        Self {
            path: EXPORT,
            headers: Vec::new(),
            body,
        }
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The body and the status of the answer.
    async fn make(
        self,
        connection: &mut SendRequest<BoxBody<Bytes, Infallible>>,
    ) -> (Bytes, Status) {
        let mut request = http::Request::post(format!("http://test{}", self.path))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let body = Full::new(Bytes::from(self.body)).boxed();
        let request = request.body(body).unwrap();
        connection.ready().await.unwrap();
        let (head, body) = connection.send_request(request).await.unwrap().into_parts();
        assert_eq!(head.status, 200);
        if let Some(status) = Status::from_header_map(&head.headers) {
            return (Bytes::new(), status);
        }
        let collected = body.collect().await.unwrap();
        let status = Status::from_header_map(collected.trailers().unwrap()).unwrap();
        (collected.to_bytes(), status)
    }
}

/// A message with the five bytes before it.
fn framed(compressed: u8, message: &[u8]) -> Vec<u8> {
    let mut framed = vec![compressed];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    framed
}

#[tokio::test]
async fn the_generated_client_in_each_of_its_encodings() {
    let mut fixture = Fixture::new(config(), TestSink::default());
    let running = fixture.serve();
    let channel = channel(fixture.grpc()).await;
    let client = TraceServiceClient::new(channel);
    let clients = [
        client.clone(),
        client.clone().send_compressed(CompressionEncoding::Gzip),
        client.clone().send_compressed(CompressionEncoding::Zstd),
    ];
    for mut client in clients {
        let response = client.export(two_traces()).await.unwrap().into_inner();
        assert_eq!(
            response.partial_success,
            Some(ExportTracePartialSuccess::default())
        );
    }
    let mut marked = tonic::Request::new(two_traces());
    marked
        .metadata_mut()
        .insert("no-generate-metrics", "1".parse().unwrap());
    client.clone().export(marked).await.unwrap();

    let taken = fixture.sink.taken();
    let skipped: Vec<_> = taken
        .iter()
        .map(|(_, batch)| batch.skip_metrics_generation)
        .collect();
    assert_eq!(skipped, [false, false, false, true]);
    for (tenant, batch) in taken.iter() {
        assert_eq!(tenant, "single-tenant");
        assert_batch(&two_traces(), batch);
    }
    let labels = [("receiver", "otlp/otlp_receiver"), ("transport", "grpc")];
    assert_eq!(
        fixture.metric("tempo_receiver_accepted_spans", &labels),
        12.0
    );
    running.stop().await;
}

#[tokio::test]
async fn the_client_is_told_what_was_left_out() {
    let mut fixture = Fixture::new(config(), TestSink::default());
    let running = fixture.serve();
    *fixture.sink.success.lock().unwrap() = PartialSuccess {
        rejected_spans: 3,
        error_message: "large".to_owned(),
    };
    let mut connection = connect(fixture.grpc()).await;
    let call = Call::export(framed(0, &two_traces().encode_to_vec()));
    let (body, status) = call.make(&mut connection).await;
    assert_eq!(status.code(), Code::Ok);
    assert_eq!(body, framed(0, b"\x0a\x09\x08\x03\x12\x05large"));
    running.stop().await;
}

#[tokio::test]
async fn snappy_and_a_message_in_many_pieces() {
    let mut fixture = Fixture::new(config(), TestSink::default());
    let running = fixture.serve();
    let mut connection = connect(fixture.grpc()).await;
    let message = two_traces().encode_to_vec();
    let mut snappy = snap::write::FrameEncoder::new(Vec::new());
    snappy.write_all(&message).unwrap();
    let snappy = snappy.into_inner().unwrap();
    let (body, status) = Call::export(framed(1, &snappy))
        .header("grpc-encoding", "snappy")
        .make(&mut connection)
        .await;
    assert_eq!(status.code(), Code::Ok);
    assert_eq!(body, framed(0, b"\x0a\x00"));
    assert_batch(&two_traces(), &fixture.sink.taken()[0].1);

    // Larger than a frame and than the threshold for another thread.
    let large = request(
        (1..=16_000)
            .map(|n| span(u128::from(n % 9 + 1), n))
            .collect(),
    );
    let (_, status) = Call::export(framed(0, &large.encode_to_vec()))
        .make(&mut connection)
        .await;
    assert_eq!(status.code(), Code::Ok);
    assert_batch(&large, &fixture.sink.taken()[1].1);
    running.stop().await;
}

#[tokio::test]
async fn tenants_and_refusals() {
    let mut config = config();
    config.multitenancy_enabled = true;
    let mut fixture = Fixture::new(config, TestSink::default());
    let running = fixture.serve();
    let mut client = TraceServiceClient::new(channel(fixture.grpc()).await);
    for (tenants, code, message) in [
        (&[][..], Code::Unavailable, "no org id"),
        (&["a", "b"], Code::Unavailable, "no org id"),
        (&["a|b"], Code::InvalidArgument, "multiple org IDs present"),
        (
            &["a b%"],
            Code::InvalidArgument,
            "tenant ID 'a b%' contains unsupported character ' '",
        ),
    ] {
        let status = client
            .export(with_tenant(two_traces(), tenants))
            .await
            .unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message));
    }
    client
        .export(with_tenant(two_traces(), &["a"]))
        .await
        .unwrap();
    assert_eq!(fixture.sink.taken()[0].0, "a");
    client.export(Request::default()).await.unwrap();

    let short_id = {
        let mut request = two_traces();
        request.resource_spans[0].scope_spans[0].spans[2].trace_id = vec![1; 8];
        request
    };
    let status = client
        .export(with_tenant(short_id, &["a"]))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status
            .message()
            .starts_with("trace ids must be 128 bit, received 64 bits"),
        "{status}"
    );

    *fixture.sink.answer.lock().unwrap() = Some(SinkError::Unavailable {
        message: "the disk is full: é".to_owned(),
    });
    let status = client
        .export(with_tenant(two_traces(), &["a"]))
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "the disk is full: é")
    );
    assert!(status.details().is_empty());
    running.stop().await;
}

/// The parts of `google.rpc.Status` with a `google.rpc.RetryInfo` that a client reads.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

#[tokio::test]
async fn over_the_rate_the_client_is_told_when_to_try_again() {
    let mut fixture = Fixture::new(config(), TestSink::default());
    fixture.set_limits(|limits| limits.burst_size_bytes = 10);
    let running = fixture.serve();
    let mut client = TraceServiceClient::new(channel(fixture.grpc()).await);
    let status = client.export(two_traces()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with("RATE_LIMITED: "), "{status}");
    let details = RpcStatus::decode(status.details()).unwrap();
    assert_eq!(details.code, 8);
    assert_eq!(
        details.details[0].type_url,
        "type.googleapis.com/google.rpc.RetryInfo"
    );
    let retry = RetryInfo::decode(&*details.details[0].value).unwrap();
    assert_eq!(retry.retry_delay.unwrap().seconds, 5);

    fixture.set_limits(|limits| limits.retry_info_enabled = false);
    let status = client.export(two_traces()).await.unwrap_err();
    assert!(status.details().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn calls_that_are_not_a_proper_export() {
    let mut config = config();
    config.receivers.otlp_grpc = Some(GrpcReceiver {
        endpoint: "localhost:0".to_owned(),
        max_message_bytes: 10_000,
        ..GrpcReceiver::default()
    });
    let mut fixture = Fixture::new(config, TestSink::default());
    let running = fixture.serve();
    let mut connection = connect(fixture.grpc()).await;
    let message = two_traces().encode_to_vec();
    let bomb = zstd::encode_all(&*vec![0; 1 << 20], 1).unwrap();
    let mut two_messages = framed(0, &message);
    two_messages.extend(framed(0, &message));
    let cases = [
        (
            Call {
                path: "/opentelemetry.proto.collector.trace.v1.TraceService/Import",
                ..Call::export(framed(0, &message))
            },
            Code::Unimplemented,
            "unknown method Import for service \
             opentelemetry.proto.collector.trace.v1.TraceService",
        ),
        (
            Call {
                path: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
                ..Call::export(framed(0, &message))
            },
            Code::Unimplemented,
            "unknown service opentelemetry.proto.collector.logs.v1.LogsService",
        ),
        (
            Call::export(framed(1, &message)).header("grpc-encoding", "br"),
            Code::Unimplemented,
            "grpc: Decompressor is not installed for grpc-encoding \"br\"",
        ),
        (
            Call::export(framed(1, &message)),
            Code::Internal,
            "grpc: compressed flag set with identity or empty encoding",
        ),
        (
            Call::export(framed(0, &vec![0; 10_001])),
            Code::ResourceExhausted,
            "grpc: received message larger than max (10001 vs. 10000)",
        ),
        (
            Call::export(framed(1, &bomb)).header("grpc-encoding", "zstd"),
            Code::ResourceExhausted,
            "grpc: received message after decompression larger than max 10000",
        ),
        (
            Call::export(framed(1, b"nonsense")).header("grpc-encoding", "gzip"),
            Code::InvalidArgument,
            "request body is not valid gzip",
        ),
        (
            Call::export(framed(0, b"\x0a\x7f")),
            Code::InvalidArgument,
            "truncated protobuf message at byte 0",
        ),
        (
            Call::export(framed(0, &message)[..30].to_vec()),
            Code::Internal,
            "the call ended within its message of ",
        ),
        (
            Call::export(two_messages),
            Code::Internal,
            "a unary call has one message: received more",
        ),
        (
            Call::export(Vec::new()),
            Code::Internal,
            "the call ended before its message began",
        ),
        (
            Call::export(framed(0, &message)).header("grpc-timeout", "soon"),
            Code::Internal,
            "malformed grpc-timeout: \"soon\"",
        ),
    ];
    for (call, code, message) in cases {
        let (_, status) = call.make(&mut connection).await;
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().starts_with(message), "{status}");
        assert!(status.details().is_empty());
    }
    // The connection has survived all of it.
    let (_, status) = Call::export(framed(0, &message))
        .make(&mut connection)
        .await;
    assert_eq!(status.code(), Code::Ok);
    running.stop().await;
}

#[tokio::test]
async fn the_clients_deadline_ends_a_call() {
    let sink = TestSink::behind_a_gate();
    let mut fixture = Fixture::new(config(), sink);
    let running = fixture.serve();
    let mut connection = connect(fixture.grpc()).await;
    let (_, status) = Call::export(framed(0, &two_traces().encode_to_vec()))
        .header("grpc-timeout", "20m")
        .make(&mut connection)
        .await;
    assert_eq!(
        (status.code(), status.message()),
        (Code::DeadlineExceeded, "context deadline exceeded")
    );
    drop(connection);
    running.stop().await;
    assert_eq!(
        fixture.metric("tempo_distributor_inflight_request_bytes", &[]),
        0.0
    );
}

#[tokio::test]
async fn a_slow_sender_is_cut_off() {
    let mut config = config();
    config.receivers.otlp_grpc = Some(GrpcReceiver {
        endpoint: "localhost:0".to_owned(),
        read_timeout: Duration::from_millis(20),
        ..GrpcReceiver::default()
    });
    let mut fixture = Fixture::new(config, TestSink::default());
    let running = fixture.serve();
    let mut connection = connect(fixture.grpc()).await;
    let (sender, body) = http_body_util::channel::Channel::<Bytes>::new(1);
    let request = http::Request::post(format!("http://test{EXPORT}"))
        .header("content-type", "application/grpc")
        .body(body.boxed())
        .unwrap();
    let response = connection.send_request(request).await.unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains("did not arrive whole within"),
        "{status}"
    );
    drop(sender);
    running.stop().await;
}
