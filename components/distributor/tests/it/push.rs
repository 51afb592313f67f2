//! The order in which a push is judged, its limits and its counters, without a socket.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tempo_distributor::{
    Encoding, Format, OrgId, PushRequest, ReceivedSpansMetric, Refusal, RefusalKind, SinkError,
    Source,
};
use tokio::time::{Instant, advance};

use crate::{
    samples::{Request, request, span, text},
    server::{Fixture, TestSink, config},
};

static SOURCE: Source = Source {
    receiver: "test",
    transport: "none",
    too_large: |max_bytes| Refusal::invalid(format!("more than {max_bytes} bytes")),
};

const SINGLE: &[(&str, &str)] = &[("tenant", "single-tenant")];

fn push_request(body: impl Into<Bytes>) -> PushRequest {
    PushRequest {
        body: body.into(),
        format: Format::Protobuf,
        encoding: Encoding::Identity,
        max_decompressed_bytes: 20 << 20,
        org_id: OrgId::Absent,
        skip_metrics_generation: false,
        source: &SOURCE,
    }
}

impl Fixture {
    async fn push(&self, request: PushRequest) -> Result<(), Refusal> {
        let mut permit = self.distributor().inflight().open();
        permit.grow(request.body.len())?;
        self.distributor().push(request, permit).await.map(drop)
    }

    async fn push_as(&self, org_id: OrgId, request: &Request) -> Result<(), Refusal> {
        self.push(PushRequest {
            org_id,
            ..push_request(request.encode_to_vec())
        })
        .await
    }
}

fn present(header: &str) -> OrgId {
    OrgId::Present(header.to_owned())
}

#[tokio::test]
async fn a_push_reaches_the_sink_regrouped_and_is_counted() {
    let fixture = Fixture::new(config(), TestSink::default());
    let body = request(vec![span(1, 1), span(2, 2), span(1, 3)]).encode_to_vec();
    let bytes = body.len() as f64;
    fixture
        .push(PushRequest {
            skip_metrics_generation: true,
            org_id: present("ignored while there is one tenant"),
            ..push_request(body)
        })
        .await
        .unwrap();
    {
        let taken = fixture.sink.taken();
        let (tenant, batch) = &taken[0];
        assert_eq!(tenant, "single-tenant");
        assert!(batch.skip_metrics_generation);
        let spans: Vec<_> = batch.traces.iter().map(|chunk| chunk.spans).collect();
        assert_eq!(spans, [2, 1]);
    }
    for (name, labels, want) in [
        ("tempo_distributor_spans_received_total", SINGLE, 3.0),
        ("tempo_distributor_bytes_received_total", SINGLE, bytes),
        ("tempo_distributor_ingress_bytes_total", SINGLE, bytes),
        ("tempo_distributor_traces_per_batch", &[], 1.0),
        ("tempo_distributor_push_duration_seconds", &[], 1.0),
        ("tempo_spans_distance_in_past_seconds", SINGLE, 3.0),
        ("tempo_spans_distance_in_future_seconds", SINGLE, 0.0),
        ("tempo_distributor_inflight_request_bytes", &[], 0.0),
        (
            "tempo_receiver_accepted_spans",
            &[("receiver", "test"), ("transport", "none")],
            3.0,
        ),
    ] {
        assert_eq!(fixture.metric(name, labels), want, "{name}");
    }
}

#[tokio::test]
async fn tenants_come_from_exactly_one_valid_header() {
    let mut config = config();
    config.multitenancy_enabled = true;
    let fixture = Fixture::new(config, TestSink::default());
    let one_span = request(vec![span(1, 1)]);
    let too_long = "a".repeat(151);
    use RefusalKind::{InvalidArgument, Unavailable};
    let cases = [
        (OrgId::Absent, Unavailable, "no org id"),
        (
            present(""),
            InvalidArgument,
            "tenant ID is '.', '..' or empty",
        ),
        (
            present("tenant#1"),
            InvalidArgument,
            "tenant ID 'tenant#1' contains unsupported character '#'",
        ),
        (present("a|b"), InvalidArgument, "multiple org IDs present"),
        (
            present(&too_long),
            InvalidArgument,
            "tenant ID is too long: max 150 characters",
        ),
    ];
    for (org_id, kind, message) in cases {
        let refusal = fixture.push_as(org_id, &one_span).await.unwrap_err();
        assert_eq!(refusal, Refusal::new(kind, message));
    }
    assert_eq!(fixture.sink.spans(), 0);
    assert_eq!(fixture.metric("tempo_receiver_refused_spans", &[]), 5.0);

    fixture.push_as(present("a|a"), &one_span).await.unwrap();
    fixture.push_as(present("b:k=v"), &one_span).await.unwrap();
    let taken = fixture.sink.taken();
    let tenants: Vec<_> = taken.iter().map(|(tenant, _)| tenant.as_str()).collect();
    assert_eq!(tenants, ["a", "b"]);
}

#[tokio::test]
async fn a_push_without_spans_is_fine_whoever_sends_it() {
    let mut config = config();
    config.multitenancy_enabled = true;
    let fixture = Fixture::new(config, TestSink::default());
    fixture.set_limits(|limits| limits.burst_size_bytes = 0);
    for empty in [Request::default(), request(Vec::new())] {
        fixture.push_as(OrgId::Absent, &empty).await.unwrap();
    }
    assert!(fixture.sink.taken().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_refused_with_advice_and_comes_back() {
    let fixture = Fixture::new(config(), TestSink::default());
    let body = request(vec![span(1, 1), span(2, 2)]);
    let size = body.encoded_len() as u64;
    fixture.set_limits(|limits| {
        limits.rate_limit_bytes = size / 2;
        limits.burst_size_bytes = size;
    });
    fixture.push_as(OrgId::Absent, &body).await.unwrap();
    let refusal = fixture.push_as(OrgId::Absent, &body).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::ResourceExhausted);
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(5)));
    assert!(
        refusal
            .message
            .starts_with("RATE_LIMITED: ingestion rate limit (local: "),
        "{refusal}"
    );
    fixture.set_limits(|limits| limits.retry_info_enabled = false);
    let refusal = fixture.push_as(OrgId::Absent, &body).await.unwrap_err();
    assert_eq!(refusal.retry_after, None);

    let discarded = [("reason", "rate_limited"), ("tenant", "single-tenant")];
    assert_eq!(
        fixture.metric("tempo_discarded_spans_total", &discarded),
        4.0
    );
    assert_eq!(
        fixture.metric("tempo_distributor_ingress_bytes_total", SINGLE),
        3.0 * size as f64
    );
    assert_eq!(
        fixture.metric("tempo_distributor_spans_received_total", SINGLE),
        2.0
    );

    advance(Duration::from_secs(3)).await;
    fixture.push_as(OrgId::Absent, &body).await.unwrap();
}

#[tokio::test]
async fn one_bad_id_refuses_the_whole_push_after_it_was_counted() {
    let fixture = Fixture::new(config(), TestSink::default());
    let bad_trace = request(vec![span(1, 1), span(0, 2)]);
    let bad_span = request(vec![span(1, 1), span(2, 0), span(3, 3)]);
    for (body, reason, message) in [
        (
            bad_trace,
            "invalid_trace_id",
            "trace ids must be 128 bit, received 0 bits",
        ),
        (
            bad_span,
            "invalid_span_id",
            "span ids must be 64 bit and not all zero, received 0 bits",
        ),
    ] {
        let refusal = fixture.push_as(OrgId::Absent, &body).await.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::InvalidArgument);
        assert!(refusal.message.starts_with(message), "{refusal}");
        let spans = body.resource_spans[0].scope_spans[0].spans.len() as f64;
        let labels = [("reason", reason), ("tenant", "single-tenant")];
        assert_eq!(
            fixture.metric("tempo_discarded_spans_total", &labels),
            spans
        );
    }
    assert_eq!(
        fixture.metric("tempo_distributor_spans_received_total", SINGLE),
        5.0
    );
    assert!(fixture.sink.taken().is_empty());
}

#[tokio::test]
async fn malformed_requests_are_invalid_and_not_received() {
    let fixture = Fixture::new(config(), TestSink::default());
    let mut body = request(vec![span(1, 1)]).encode_to_vec();
    let name = body
        .windows(4)
        .position(|window| window == b"span")
        .unwrap();
    body[name] = 0xff;
    let refusal = fixture.push(push_request(body)).await.unwrap_err();
    assert_eq!(
        refusal,
        Refusal::invalid(
            "text is not valid UTF-8 in resource_spans[0].scope_spans[0].spans[0].name"
        )
    );
    assert_eq!(
        fixture.metric("tempo_distributor_spans_received_total", SINGLE),
        0.0
    );
}

#[tokio::test]
async fn the_sink_decides_what_the_client_hears() {
    let fixture = Fixture::new(config(), TestSink::default());
    let body = request(vec![span(1, 1)]);
    let message = || "the disk is full".to_owned();
    let cases = [
        (
            SinkError::Unavailable { message: message() },
            Refusal::unavailable(message()),
        ),
        (
            SinkError::InvalidArgument { message: message() },
            Refusal::invalid(message()),
        ),
        (
            SinkError::ResourceExhausted {
                message: message(),
                retry_after: None,
            },
            Refusal {
                kind: RefusalKind::ResourceExhausted,
                message: message(),
                retry_after: Some(Duration::from_secs(5)),
            },
        ),
        (
            SinkError::ResourceExhausted {
                message: message(),
                retry_after: Some(Duration::from_secs(1)),
            },
            Refusal {
                kind: RefusalKind::ResourceExhausted,
                message: message(),
                retry_after: Some(Duration::from_secs(1)),
            },
        ),
    ];
    for (answer, want) in cases {
        *fixture.sink.answer.lock().unwrap() = Some(answer);
        assert_eq!(fixture.push_as(OrgId::Absent, &body).await, Err(want));
    }
    assert_eq!(fixture.metric("tempo_receiver_refused_spans", &[]), 4.0);
}

#[tokio::test]
async fn attributes_are_cut_to_the_tenants_limit_or_the_distributors() {
    let mut config = config();
    config.max_attribute_bytes = 40;
    let fixture = Fixture::new(config, TestSink::default());
    let mut body = request(vec![span(1, 1)]);
    let long = "é".repeat(50);
    body.resource_spans[0].scope_spans[0].spans[0].attributes = vec![text("k", &long)];
    let longest = |fixture: &Fixture| {
        let taken = fixture.sink.taken();
        let trace = crate::samples::decode_trace(&taken.last().unwrap().1.traces[0].trace);
        let span = &trace.resource_spans[0].scope_spans[0].spans[0];
        span.attributes[0].value.clone().unwrap().value.unwrap()
    };
    use tempo_proto::opentelemetry::proto::common::v1::any_value::Value;
    for (tenant_limit, want) in [(0, 20), (41, 20), (60, 30), (1_000, 50)] {
        fixture.set_limits(|limits| limits.max_attribute_bytes = tenant_limit);
        fixture.push_as(OrgId::Absent, &body).await.unwrap();
        assert_eq!(
            longest(&fixture),
            Value::StringValue("é".repeat(want)),
            "{tenant_limit}"
        );
    }
    let truncated = "tempo_distributor_attributes_truncated_total";
    let of_spans = [("tenant", "single-tenant"), ("scope", "span")];
    assert_eq!(fixture.metric(truncated, &of_spans), 3.0);
    let family = fixture.registry.gather();
    let family = family.iter().find(|family| family.name() == truncated);
    assert_eq!(family.unwrap().get_metric().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn pushes_take_as_long_as_they_are_told_to_even_if_refused() {
    let mut config = config();
    config.artificial_delay = Duration::from_secs(10);
    config.multitenancy_enabled = true;
    let fixture = Fixture::new(config, TestSink::default());
    let body = request(vec![span(1, 1)]);
    let about = |took: Duration, target: u64| {
        let target = Duration::from_secs(target);
        took >= target.mul_f64(0.9) && took <= target.mul_f64(1.1) + Duration::from_millis(1)
    };

    let started = Instant::now();
    fixture.push_as(present("a"), &body).await.unwrap();
    assert!(about(started.elapsed(), 10), "{:?}", started.elapsed());

    *fixture.sink.answer.lock().unwrap() = Some(SinkError::Unavailable {
        message: String::new(),
    });
    fixture.set_limits(|limits| limits.artificial_delay = Some(Duration::from_secs(20)));
    let started = Instant::now();
    fixture.push_as(present("a"), &body).await.unwrap_err();
    assert!(about(started.elapsed(), 20), "{:?}", started.elapsed());
    assert_eq!(
        fixture.metric(
            "tempo_distributor_added_latency_seconds",
            &[("tenant", "a")]
        ),
        2.0
    );

    let started = Instant::now();
    fixture.push_as(present(".."), &body).await.unwrap_err();
    fixture.set_limits(|limits| limits.artificial_delay = Some(Duration::ZERO));
    fixture.push_as(present("a"), &body).await.unwrap_err();
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn requests_beyond_the_budget_are_refused_for_now() {
    let mut config = config();
    let body = request((1..=50).map(|n| span(u128::from(n), n)).collect());
    // Room for the body, not for what becomes of it: fifty traces repeat its resource.
    config.max_inflight_request_bytes = body.encoded_len() + 10;
    let fixture = Fixture::new(config, TestSink::default());
    let refusal = fixture.push_as(OrgId::Absent, &body).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Unavailable);
    assert!(
        refusal.message.contains("max_inflight_request_bytes"),
        "{refusal}"
    );
    assert_eq!(
        fixture.metric("tempo_distributor_inflight_request_bytes", &[]),
        0.0
    );
    let small = request(vec![span(1, 1)]);
    fixture.push_as(OrgId::Absent, &small).await.unwrap();
}

#[tokio::test]
async fn one_request_may_not_multiply_without_end() {
    let mut config = config();
    config.max_regrouped_bytes = 10_000;
    let fixture = Fixture::new(config, TestSink::default());
    let body = request((1..=500).map(|n| span(u128::from(n), n)).collect());
    let refusal = fixture.push_as(OrgId::Absent, &body).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::InvalidArgument);
    assert!(refusal.message.contains("500 traces"), "{refusal}");
}

#[tokio::test]
async fn large_requests_take_the_same_way_on_another_thread() {
    let fixture = Fixture::new(config(), TestSink::default());
    let body = request(
        (1..=16_000)
            .map(|n| span(u128::from(n % 70 + 1), n))
            .collect(),
    );
    assert!(body.encoded_len() > 1 << 20);
    fixture.push_as(OrgId::Absent, &body).await.unwrap();
    assert_eq!(fixture.sink.spans(), 16_000);
    let mut bad = body.clone();
    bad.resource_spans[0].scope_spans[0].spans[15_999]
        .trace_id
        .clear();
    let refusal = fixture.push_as(OrgId::Absent, &bad).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::InvalidArgument);
}

#[tokio::test]
async fn spans_can_be_counted_by_name_and_service() {
    let mut config = config();
    config.metric_received_spans = ReceivedSpansMetric {
        enabled: true,
        root_only: true,
    };
    let fixture = Fixture::new(config, TestSink::default());
    let mut child = span(1, 2);
    child.parent_span_id = 1_u64.to_be_bytes().to_vec();
    fixture
        .push_as(OrgId::Absent, &request(vec![span(1, 1), child]))
        .await
        .unwrap();
    let name = "tempo_distributor_debug_spans_received_total";
    let root = [("name", "span 1"), ("service", "shop")];
    assert_eq!(fixture.metric(name, &root), 1.0);
    assert_eq!(fixture.metric(name, &[]), 1.0);
}
