//! Jaeger and Zipkin: translated as the collector translates, and received on real sockets.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use prost::Message as _;
use tempo_distributor::{
    GrpcReceiver, HttpReceiver, SinkError, Tags, UdpReceiver, ZipkinReceiver, otlp_json, place,
};
use tempo_proto::{
    jaeger::api_v2::{PostSpansRequest, collector_service_client::CollectorServiceClient},
    opentelemetry::proto::common::v1::KeyValue,
};
use tempo_translate::{Format, to_otlp};
use tokio::net::UdpSocket;
use tonic::transport::Endpoint;

use crate::{
    http::{Client, gzip},
    samples::Request,
    server::{Fixture, TestSink, config},
};

const SHOP_TRACE_SPANS: u64 = 9;

fn recorded(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign");
    let path: PathBuf = folder.join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn sort_attributes(attributes: &mut [KeyValue]) {
    attributes.sort_by(|a, b| a.key.cmp(&b.key));
}

/// The same request, with everything whose order means nothing in one order.
fn sorted(otlp: &[u8]) -> Request {
    let mut request = Request::decode(otlp).unwrap();
    for resource_spans in &mut request.resource_spans {
        let resource = resource_spans.resource.get_or_insert_default();
        sort_attributes(&mut resource.attributes);
        for scope_spans in &mut resource_spans.scope_spans {
            scope_spans.scope.get_or_insert_default();
            for span in &mut scope_spans.spans {
                sort_attributes(&mut span.attributes);
                span.status.get_or_insert_default();
                for event in &mut span.events {
                    sort_attributes(&mut event.attributes);
                }
            }
            scope_spans.spans.sort_by(|a, b| a.span_id.cmp(&b.span_id));
        }
        let scopes = &mut resource_spans.scope_spans;
        scopes.sort_by_key(|scope| scope.scope.clone().map(|scope| (scope.name, scope.version)));
    }
    let resources = &mut request.resource_spans;
    resources.sort_by_key(|resource| format!("{:?}", resource.resource));
    request
}

#[test]
fn spans_are_translated_as_the_collector_does() {
    for (input, format, wanted) in [
        ("jaeger-thrift.bin", Format::JaegerThrift, "jaeger-thrift"),
        (
            "jaeger-agent-binary.bin",
            Format::JaegerAgentBinary,
            "jaeger-thrift",
        ),
        (
            "jaeger-agent-compact.bin",
            Format::JaegerAgentCompact,
            "jaeger-thrift",
        ),
        ("jaeger-proto.bin", Format::JaegerProto, "jaeger-proto"),
        (
            "zipkin-v2.json",
            Format::ZipkinJson(Tags::Text),
            "zipkin-v2",
        ),
        (
            "zipkin-v2.json",
            Format::ZipkinJson(Tags::Parsed),
            "zipkin-v2-parsed",
        ),
        (
            "zipkin-v2-proto.bin",
            Format::ZipkinProto(Tags::Text),
            "zipkin-v2-proto",
        ),
        (
            "zipkin-v1.json",
            Format::ZipkinV1Json(Tags::Text),
            "zipkin-v1",
        ),
        (
            "zipkin-v1-thrift.bin",
            Format::ZipkinV1Thrift,
            "zipkin-v1-thrift",
        ),
    ] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        to_otlp(format, &recorded(input), &mut ours)
            .unwrap_or_else(|error| panic!("{input}: {error}"));
        let recorded = String::from_utf8(recorded(&format!("{wanted}.otlp.json"))).unwrap();
        // Thrift knows no unsigned numbers; the collector leaves the port 65535 as it is read.
        let recorded = recorded.replace(r#""-1""#, r#""65535""#);
        otlp_json::to_protobuf(recorded.as_bytes(), &mut theirs).unwrap();
        let (ours, theirs) = (sorted(&ours), sorted(&theirs));
        assert!(!theirs.resource_spans.is_empty(), "{wanted}");
        assert_eq!(ours, theirs, "{input} as {format:?}");
    }
}

#[test]
fn what_is_cut_off_anywhere_is_refused_and_never_a_panic() {
    for (input, format) in [
        ("jaeger-thrift.bin", Format::JaegerThrift),
        ("jaeger-agent-binary.bin", Format::JaegerAgentBinary),
        ("jaeger-agent-compact.bin", Format::JaegerAgentCompact),
        ("zipkin-v2.json", Format::ZipkinJson(Tags::Text)),
        ("zipkin-v1.json", Format::ZipkinV1Json(Tags::Text)),
        ("zipkin-v1-thrift.bin", Format::ZipkinV1Thrift),
    ] {
        let whole = recorded(input);
        let whole = whole.trim_ascii_end();
        let mut out = Vec::new();
        for length in 0..whole.len() {
            assert!(
                to_otlp(format, &whole[..length], &mut out).is_err(),
                "{input} to {length}"
            );
        }
        // With any byte changed it may be something else, but never ends the process.
        let mut changed = whole.to_vec();
        for at in 0..changed.len() {
            for value in [0x00, 0x7f, 0x80, 0xff] {
                let before = std::mem::replace(&mut changed[at], value);
                let _ = to_otlp(format, &changed, &mut out);
                changed[at] = before;
            }
        }
    }
}

#[test]
fn a_length_that_is_only_claimed_takes_no_memory() {
    // A batch whose list of spans claims 2^31 - 1 elements, and a text that claims as many bytes.
    let claims: [&[u8]; 3] = [
        &[15, 0, 2, 12, 0x7f, 0xff, 0xff, 0xff],
        &[12, 0, 1, 11, 0, 1, 0x7f, 0xff, 0xff, 0xff],
        &[11, 0, 9, 0x80, 0, 0, 0],
    ];
    for claim in claims {
        let mut out = Vec::new();
        let error = to_otlp(Format::JaegerThrift, claim, &mut out).unwrap_err();
        assert!(error.to_string().starts_with("thrift, byte "), "{error}");
    }
    // Structures within structures, each a field of the one before.
    let deep = [12, 0, 9].repeat(1_000);
    let error = to_otlp(Format::JaegerThrift, &deep, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("nested too deeply"), "{error}");
}

/// A distributor that receives everything.
fn everything() -> Fixture {
    let mut config = config();
    let http = HttpReceiver {
        endpoint: "localhost:0".to_owned(),
        ..HttpReceiver::default()
    };
    let udp = UdpReceiver {
        endpoint: "localhost:0".to_owned(),
        ..UdpReceiver::default()
    };
    let receivers = &mut config.receivers;
    receivers.jaeger_grpc = Some(GrpcReceiver {
        endpoint: "localhost:0".to_owned(),
        ..GrpcReceiver::default()
    });
    receivers.jaeger_thrift_http = Some(http.clone());
    receivers.jaeger_thrift_binary = Some(udp.clone());
    receivers.jaeger_thrift_compact = Some(udp);
    receivers.zipkin = Some(ZipkinReceiver {
        http,
        tags: Tags::Text,
    });
    Fixture::new(config, TestSink::default())
}

impl Fixture {
    fn accepted(&self, receiver: &str, transport: &str) -> f64 {
        let receiver = format!("{receiver}/{receiver}_receiver");
        let labels = [("receiver", receiver.as_str()), ("transport", transport)];
        self.metric("tempo_receiver_accepted_spans", &labels)
    }
}

#[tokio::test]
async fn jaeger_is_received_over_grpc_http_and_datagrams() {
    let mut fixture = everything();
    let running = fixture.serve();
    let addr = |place| fixture.handle.addrs[place];

    let endpoint = format!("http://{}", addr(place::JAEGER_GRPC));
    let channel = Endpoint::from_shared(endpoint)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let request = PostSpansRequest::decode(&*recorded("jaeger-proto.bin")).unwrap();
    let mut client = CollectorServiceClient::new(channel);
    client.post_spans(request.clone()).await.unwrap();
    assert_eq!(fixture.accepted("jaeger", "grpc"), 4.0);

    let mut http = Client::connect(addr(place::JAEGER_THRIFT_HTTP)).await;
    for kind in [
        "application/x-thrift",
        "application/vnd.apache.thrift.binary; charset=utf-8",
    ] {
        let body = recorded("jaeger-thrift.bin");
        let answer = http
            .request(
                "POST",
                "/api/traces?format=jaeger.thrift",
                &[("content-type", kind)],
                &body,
            )
            .await;
        assert_eq!((answer.status, answer.text()), (202, ""));
    }
    assert_eq!(fixture.accepted("jaeger", "collector_http"), 18.0);
    let text = http
        .request(
            "POST",
            "/api/traces",
            &[("content-type", "text/plain")],
            b"x",
        )
        .await;
    assert_eq!(text.status, 400);
    assert!(
        text.text()
            .starts_with("Unsupported content type: 'text/plain'")
    );
    // What is refused by its head is not read, and the connection closes.
    let mut http = Client::connect(addr(place::JAEGER_THRIFT_HTTP)).await;
    let got = http.request("GET", "/api/traces", &[], b"").await;
    assert_eq!((got.status, got.header("allow")), (405, Some("POST")));
    let broken = http
        .request(
            "POST",
            "/api/traces",
            &[("content-type", "application/x-thrift")],
            b"x",
        )
        .await;
    assert_eq!(broken.status, 400);
    assert!(
        broken.text().starts_with("thrift, byte "),
        "{}",
        broken.text()
    );

    for (place, file, transport) in [
        (
            place::JAEGER_THRIFT_BINARY,
            "jaeger-agent-binary.bin",
            "udp_thrift_binary",
        ),
        (
            place::JAEGER_THRIFT_COMPACT,
            "jaeger-agent-compact.bin",
            "udp_thrift_compact",
        ),
    ] {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(b"no spans", addr(place)).await.unwrap();
        socket.send_to(&recorded(file), addr(place)).await.unwrap();
        tokio::time::timeout(Duration::from_secs(60), async {
            while fixture.accepted("jaeger", transport) < SHOP_TRACE_SPANS as f64 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{transport}"));
    }

    *fixture.sink.answer.lock().unwrap() = Some(SinkError::Unavailable {
        message: "the disk is full".to_owned(),
    });
    let refused = client.post_spans(request).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (tonic::Code::Unavailable, "the disk is full")
    );
    let body = recorded("jaeger-thrift.bin");
    let refused = http
        .request(
            "POST",
            "/api/traces",
            &[("content-type", "application/x-thrift")],
            &body,
        )
        .await;
    assert_eq!(
        (refused.status, refused.text()),
        (503, "the disk is full\n")
    );
    running.stop().await;
}

#[tokio::test]
async fn zipkin_is_received_in_all_its_forms() {
    let mut fixture = everything();
    let running = fixture.serve();
    let mut http = Client::connect(fixture.handle.addrs[place::ZIPKIN]).await;
    let gzipped = gzip(&recorded("zipkin-v2.json"));
    for (path, headers, body, transport, spans) in [
        (
            "/api/v2/spans",
            vec![("content-type", "application/json")],
            recorded("zipkin-v2.json"),
            "http_v2_json",
            5.0,
        ),
        (
            "/",
            vec![("content-encoding", "gzip")],
            gzipped,
            "http_v2_json",
            10.0,
        ),
        (
            "/api/v2/spans",
            vec![("content-type", "application/x-protobuf")],
            recorded("zipkin-v2-proto.bin"),
            "http_v2_proto",
            2.0,
        ),
        (
            "/api/v1/spans",
            vec![("content-type", "application/json")],
            recorded("zipkin-v1.json"),
            "http_v1_json",
            2.0,
        ),
        (
            "/api/v1/spans",
            vec![("content-type", "application/x-thrift")],
            recorded("zipkin-v1-thrift.bin"),
            "http_v1_thrift",
            1.0,
        ),
    ] {
        let answer = http.request("POST", path, &headers, &body).await;
        assert_eq!(
            (answer.status, answer.text()),
            (202, ""),
            "{path} {headers:?}"
        );
        assert_eq!(
            fixture.accepted("zipkin", transport),
            spans,
            "{path} {headers:?}"
        );
    }
    let nothing = http.request("POST", "/api/v2/spans", &[], b"[]").await;
    assert_eq!(nothing.status, 202);
    let broken = http
        .request(
            "POST",
            "/api/v2/spans",
            &[],
            br#"[{"traceId":"1","id":"x"}]"#,
        )
        .await;
    assert_eq!(
        (broken.status, broken.text()),
        (400, "id 'x' is not 16 hexadecimal digits\n")
    );
    running.stop().await;
}
