//! OTLP over HTTP on a real socket: every encoding, every status.

use std::{io::Write, net::SocketAddr};

use prost::Message;
use tempo_distributor::{HttpReceiver, PartialSuccess, SinkError};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::{
    regroup::assert_batch,
    samples::{Request, request, span},
    server::{Fixture, TestSink, config},
};

const PROTOBUF: &str = "application/x-protobuf";
pub(crate) const JSON: &str = "application/json";

/// An answer as it stands on the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A kept-alive HTTP/1.1 connection.
pub(crate) struct Client<S> {
    stream: BufReader<S>,
}

impl Client<TcpStream> {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::new(TcpStream::connect(addr).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        self.stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses early may close before it has read all.
        let _ = self.stream.write_all(body).await;
    }

    async fn receive(&mut self) -> Answer {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        let status = line.split(' ').nth(1).unwrap_or_default();
        let status = status.parse().unwrap_or_else(|_| panic!("answer {line:?}"));
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.unwrap();
            match line.trim_end().split_once(": ") {
                Some((name, value)) => headers.push((name.to_lowercase(), value.to_owned())),
                None => break,
            }
        }
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        let len = answer.header("content-length").unwrap().parse().unwrap();
        answer.body.resize(len, 0);
        self.stream.read_exact(&mut answer.body).await.unwrap();
        answer
    }

    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.send(method, path, headers, body).await;
        self.receive().await
    }

    pub(crate) async fn post(&mut self, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.request("POST", "/v1/traces", headers, body).await
    }
}

/// `google.rpc.Status` without its details.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

fn two_traces() -> Request {
    request(vec![span(1, 1), span(2, 2), span(1, 3)])
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    gzip.write_all(data).unwrap();
    gzip.finish().unwrap()
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), Default::default());
    zlib.write_all(data).unwrap();
    zlib.finish().unwrap()
}

fn snappy_framed(data: &[u8]) -> Vec<u8> {
    let mut framed = snap::write::FrameEncoder::new(Vec::new());
    framed.write_all(data).unwrap();
    framed.into_inner().unwrap()
}

fn lz4(data: &[u8]) -> Vec<u8> {
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    lz4.write_all(data).unwrap();
    lz4.finish().unwrap()
}

#[tokio::test]
async fn protobuf_in_every_encoding_over_one_connection() {
    let mut fixture = Fixture::new(config(), TestSink::default());
    let running = fixture.serve();
    let mut client = Client::connect(fixture.http()).await;
    let request = two_traces();
    let body = request.encode_to_vec();
    let encodings = [
        (None, body.clone()),
        (Some("gzip"), gzip(&body)),
        (Some("zstd"), zstd::encode_all(&*body, 3).unwrap()),
        (Some("zlib"), zlib(&body)),
        (Some("deflate"), zlib(&body)),
        (
            Some("snappy"),
            snap::raw::Encoder::new().compress_vec(&body).unwrap(),
        ),
        (Some("snappy"), snappy_framed(&body)),
        (Some("x-snappy-framed"), snappy_framed(&body)),
        (Some("lz4"), lz4(&body)),
    ];
    for (encoding, body) in &encodings {
        let mut headers = vec![("Content-Type", "application/x-protobuf; charset=utf-8")];
        headers.extend(encoding.map(|encoding| ("Content-Encoding", encoding)));
        let answer = client.post(&headers, body).await;
        assert_eq!(answer.status, 200, "{encoding:?} {answer:?}");
        assert_eq!(answer.header("content-type"), Some(PROTOBUF));
        assert_eq!(answer.body, b"\x0a\x00", "partial success, there and empty");
    }
    {
        let taken = fixture.sink.taken();
        assert_eq!(taken.len(), encodings.len());
        for (_, batch) in taken.iter() {
            assert!(!batch.skip_metrics_generation);
            assert_batch(&request, batch);
        }
    }
    let headers = [("Content-Type", PROTOBUF), ("no-generate-metrics", "")];
    assert_eq!(client.post(&headers, &body).await.status, 200);
    assert!(
        fixture
            .sink
            .taken()
            .last()
            .unwrap()
            .1
            .skip_metrics_generation
    );
    let labels = [("receiver", "otlp/otlp_receiver"), ("transport", "http")];
    assert_eq!(
        fixture.metric("tempo_receiver_accepted_spans", &labels),
        3.0 * (encodings.len() + 1) as f64
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
    let body = two_traces().encode_to_vec();
    let mut client = Client::connect(fixture.http()).await;
    let answer = client.post(&[("Content-Type", PROTOBUF)], &body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, b"\x0a\x09\x08\x03\x12\x05large");
    running.stop().await;
}

#[tokio::test]
async fn statuses_of_a_request_that_is_not_a_push() {
    let mut config = config();
    config.multitenancy_enabled = true;
    let mut fixture = Fixture::new(config, TestSink::default());
    let running = fixture.serve();
    let body = two_traces().encode_to_vec();
    const TENANT: (&str, &str) = ("X-Scope-OrgID", "a");
    const IN_PROTOBUF: (&str, &str) = ("Content-Type", PROTOBUF);
    let (tenant, protobuf) = (TENANT, IN_PROTOBUF);
    let text = "text/plain";
    /// Method, path, headers; status, content type, body.
    type Case = (
        &'static str,
        &'static str,
        &'static [(&'static str, &'static str)],
        u16,
        &'static str,
        &'static str,
    );
    let cases: &[Case] = &[
        (
            "GET",
            "/v1/traces",
            &[],
            405,
            text,
            "405 method not allowed, supported: [POST]",
        ),
        (
            "POST",
            "/v1/traces",
            &[("Content-Type", "text/plain")],
            415,
            text,
            "415 unsupported media type, supported: [application/json, application/x-protobuf]",
        ),
        (
            "POST",
            "/v1/traces",
            &[],
            415,
            text,
            "415 unsupported media type, supported: [application/json, application/x-protobuf]",
        ),
        (
            "POST",
            "/v1/traces/",
            &[IN_PROTOBUF],
            404,
            text,
            "404 page not found\n",
        ),
        (
            "POST",
            "/v1/traces",
            &[("Content-Type", JSON), ("Content-Encoding", "br"), TENANT],
            400,
            JSON,
            r#"{"code":3,"message":"unsupported Content-Encoding: br"}"#,
        ),
        (
            "POST",
            "/v1/traces",
            &[
                ("Content-Type", JSON),
                ("Content-Encoding", "identity"),
                TENANT,
            ],
            400,
            JSON,
            r#"{"code":3,"message":"unsupported Content-Encoding: identity"}"#,
        ),
    ];
    for (method, path, headers, status, content_type, want) in cases {
        let mut client = Client::connect(fixture.http()).await;
        client.send(method, path, headers, &body).await;
        let answer = client.receive().await;
        assert_eq!(
            (answer.status, answer.header("content-type"), answer.text()),
            (*status, Some(*content_type), *want)
        );
    }

    let mut client = Client::connect(fixture.http()).await;
    for (headers, status, code, message) in [
        (&[protobuf][..], 503, 14, "no org id"),
        (&[protobuf, tenant, tenant], 503, 14, "no org id"),
        (
            &[protobuf, ("x-scope-orgid", "")],
            400,
            3,
            "tenant ID is '.', '..' or empty",
        ),
        (
            &[protobuf, ("X-Scope-OrgID", "tenant#1")],
            400,
            3,
            "tenant ID 'tenant#1' contains unsupported character '#'",
        ),
        (
            &[protobuf, ("X-Scope-OrgID", "a|b")],
            400,
            3,
            "multiple org IDs present",
        ),
    ] {
        let answer = client.post(headers, &body).await;
        assert_eq!(answer.status, status, "{headers:?}");
        assert_eq!(answer.header("content-type"), Some(PROTOBUF));
        let status = Status::decode(&*answer.body).unwrap();
        assert_eq!((status.code, &*status.message), (code, message));
    }
    assert_eq!(client.post(&[protobuf, tenant], &body).await.status, 200);
    let answer = client.post(&[protobuf, tenant], b"\x0a\x7f").await;
    assert_eq!(answer.status, 400);
    running.stop().await;
}

#[tokio::test]
async fn limits_on_rate_and_size_and_refusals_of_the_sink() {
    let mut config = config();
    config.receivers.otlp_http = Some(HttpReceiver {
        endpoint: "localhost:0".to_owned(),
        max_request_body_bytes: 10_000,
        ..HttpReceiver::default()
    });
    let mut fixture = Fixture::new(config, TestSink::default());
    let running = fixture.serve();
    let json = ("Content-Type", JSON);
    let protobuf = ("Content-Type", PROTOBUF);
    let too_large = r#"{"code":3,"message":"http: request body too large"}"#;

    let mut client = Client::connect(fixture.http()).await;
    let answer = client.post(&[json], &vec![b' '; 10_001]).await;
    assert_eq!((answer.status, answer.text()), (400, too_large));
    // The bomb is small on the wire.
    let mut client = Client::connect(fixture.http()).await;
    let bomb = gzip(&vec![b' '; 10 << 20]);
    for (bomb, encoding) in [
        (&bomb[..9_000], "gzip"),
        (&zlib(&vec![b' '; 1 << 20]), "zlib"),
    ] {
        let answer = client
            .post(&[json, ("Content-Encoding", encoding)], bomb)
            .await;
        assert_eq!((answer.status, answer.text()), (400, too_large));
    }
    let answer = client
        .post(&[json, ("Content-Encoding", "zstd")], b"not zstd at all")
        .await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("not valid zstd"), "{answer:?}");

    let body = two_traces().encode_to_vec();
    *fixture.sink.answer.lock().unwrap() = Some(SinkError::Unavailable {
        message: "the disk is full".to_owned(),
    });
    let answer = client.post(&[protobuf], &body).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, None));
    let status = Status::decode(&*answer.body).unwrap();
    assert_eq!((status.code, &*status.message), (14, "the disk is full"));

    fixture.set_limits(|limits| limits.burst_size_bytes = 10);
    let answer = client.post(&[protobuf], &body).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (429, Some("5"))
    );
    let status = Status::decode(&*answer.body).unwrap();
    assert_eq!(status.code, 8);
    assert!(status.message.starts_with("RATE_LIMITED: "), "{status:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_chunked_body_without_length_is_bounded_too() {
    let mut fixture = Fixture::new(config(), TestSink::default());
    let running = fixture.serve();
    let mut client = Client::connect(fixture.http()).await;
    let body = two_traces().encode_to_vec();
    let head = "POST /v1/traces HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-protobuf\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    client.stream.write_all(head.as_bytes()).await.unwrap();
    for chunk in body.chunks(7) {
        let size = format!("{:x}\r\n", chunk.len());
        client.stream.write_all(size.as_bytes()).await.unwrap();
        client.stream.write_all(chunk).await.unwrap();
        client.stream.write_all(b"\r\n").await.unwrap();
    }
    client.stream.write_all(b"0\r\n\r\n").await.unwrap();
    client.stream.flush().await.unwrap();
    assert_eq!(client.receive().await.status, 200);
    assert_eq!(fixture.sink.spans(), 3);
    running.stop().await;
}

#[tokio::test]
async fn requests_at_work_are_answered_before_the_service_ends() {
    let sink = TestSink::behind_a_gate();
    let mut fixture = Fixture::new(config(), sink);
    let running = fixture.serve();
    let mut client = Client::connect(fixture.http()).await;
    let mut idle = Client::connect(fixture.http()).await;
    client
        .send(
            "POST",
            "/v1/traces",
            &[("Content-Type", PROTOBUF)],
            &two_traces().encode_to_vec(),
        )
        .await;
    let gate = fixture.sink.gate.as_ref().unwrap();
    gate.entered.acquire().await.unwrap().forget();
    assert!(fixture.metric("tempo_distributor_inflight_request_bytes", &[]) > 0.0);

    running.shutdown.cancel();
    // The idle connection is closed, which also tells that the shutdown is under way.
    let mut rest = Vec::new();
    idle.stream.read_to_end(&mut rest).await.unwrap();
    gate.opened.add_permits(1);
    assert_eq!(client.receive().await.status, 200);
    running.stop().await;
    assert_eq!(fixture.sink.spans(), 3);
    assert!(TcpStream::connect(fixture.http()).await.is_err());
}

#[tokio::test]
async fn a_client_that_goes_away_gives_its_bytes_back() {
    let sink = TestSink::behind_a_gate();
    let mut fixture = Fixture::new(config(), sink);
    let running = fixture.serve();
    let mut client = Client::connect(fixture.http()).await;
    client
        .send(
            "POST",
            "/v1/traces",
            &[("Content-Type", PROTOBUF)],
            &two_traces().encode_to_vec(),
        )
        .await;
    let gate = fixture.sink.gate.as_ref().unwrap();
    gate.entered.acquire().await.unwrap().forget();
    drop(client);
    running.stop().await;
    assert_eq!(
        fixture.metric("tempo_distributor_inflight_request_bytes", &[]),
        0.0
    );
    assert_eq!(fixture.sink.spans(), 0);
}
