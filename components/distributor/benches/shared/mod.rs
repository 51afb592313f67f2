//! Requests of the usual shape: traces of 6 spans each, about 400 bytes per span, from 4 services.

use prost::Message;
use tempo_proto::opentelemetry::proto::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Event},
};

const SERVICES: u64 = 4;
const SPANS_PER_TRACE: u64 = 6;

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn span(trace: u64, number: u64, long_value: bool) -> Span {
    let mut trace_id = vec![0x5a; 16];
    trace_id[8..].copy_from_slice(
        &(trace + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .to_be_bytes(),
    );
    let start = 1_700_000_000_000_000_000 + trace * 1_000_000 + number * 1_000;
    let mut attributes = vec![
        text("http.request.method", "GET"),
        attribute("http.response.status_code", Value::IntValue(200)),
        text("http.route", format!("/api/v1/orders/{{id}}/{number}")),
        text(
            "url.path",
            format!("/api/v1/orders/{}", trace * 31 + number),
        ),
        text("server.address", "checkout.shop.svc.cluster.local"),
        text("component", "net/http"),
        attribute("thread.id", Value::IntValue(12_345)),
        attribute("cache.hit", Value::BoolValue(number.is_multiple_of(2))),
        text("user.id", format!("user-{:08}", trace * 977)),
    ];
    if long_value {
        attributes.push(text("db.statement", "SELECT ".repeat(600)));
    }
    Span {
        trace_id,
        span_id: (trace * 1_000 + number + 1).to_be_bytes().to_vec(),
        parent_span_id: (trace * 1_000 + number).to_be_bytes().to_vec(),
        name: format!("HTTP GET /api/v1/orders/{number}"),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + 5_000_000,
        attributes,
        events: (number == 3)
            .then(|| Event {
                time_unix_nano: start + 1_000,
                name: "retry".to_owned(),
                attributes: vec![text("reason", "connection reset by peer")],
                ..Event::default()
            })
            .into_iter()
            .collect(),
        status: Some(Status::default()),
        flags: 0x101,
        ..Span::default()
    }
}

/// A request of `traces` traces, encoded. Spans of the same trace are spread over services, as a
/// collector's batch has them; every so many spans one has a long attribute (0: none has).
pub(crate) fn request(traces: u64, long_value_every: u64) -> Vec<u8> {
    let resource_spans = (0..SERVICES).map(|service| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![
                text("service.name", format!("service-{service}")),
                text("service.namespace", "shop"),
                text(
                    "service.instance.id",
                    "2b1e8c1d-6f6b-4e4f-9f64-1c1d8b0f6a11",
                ),
                text("k8s.cluster.name", "prod-eu-west-1"),
                text("k8s.namespace.name", "shop"),
                text("k8s.pod.name", format!("service-{service}-7d4b9c6f5-x2x7p")),
                text("k8s.node.name", "ip-10-0-12-34.eu-west-1.compute.internal"),
                text("telemetry.sdk.name", "opentelemetry"),
                text("telemetry.sdk.language", "go"),
                text("telemetry.sdk.version", "1.29.0"),
            ],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope {
                name: "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp".to_owned(),
                version: "0.54.0".to_owned(),
                ..InstrumentationScope::default()
            }),
            spans: (0..traces)
                .flat_map(|trace| (0..SPANS_PER_TRACE).map(move |number| (trace, number)))
                .filter(|(trace, number)| (trace + number / 3) % SERVICES == service)
                .map(|(trace, number)| {
                    let long = long_value_every > 0
                        && (trace * SPANS_PER_TRACE + number).is_multiple_of(long_value_every);
                    span(trace, number, long)
                })
                .collect(),
            schema_url: "https://opentelemetry.io/schemas/1.26.0".to_owned(),
        }],
        schema_url: "https://opentelemetry.io/schemas/1.26.0".to_owned(),
    });
    ExportTraceServiceRequest {
        resource_spans: resource_spans.collect(),
    }
    .encode_to_vec()
}
