//! A shop whose traces are known span by span.

use prost::Message as _;
use tempo_proto::opentelemetry::proto::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span},
};
use tempo_testkit::{http_client::Client, process::Tempo};

use crate::support::unix_seconds;

/// How many orders there are, each a trace of [`SPANS_PER_ORDER`] spans.
pub(crate) const ORDERS: u8 = 12;
pub(crate) const SPANS_PER_ORDER: u8 = 3;

/// Orders that come in every five seconds of one whole minute. Every fourth fails.
pub(crate) struct Shop {
    /// The minute in unix seconds.
    pub(crate) begin: u64,
}

pub(crate) const CHECKOUT: u8 = 1;
pub(crate) const CHARGE: u8 = 2;
pub(crate) const PAYMENT: u8 = 3;

const NANOS_PER_MILLISECOND: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

impl Shop {
    /// The last minute that is over and was over two minutes ago: nothing of it is in the future or
    /// in the last half minute.
    pub(crate) fn recent() -> Self {
        Self {
            begin: (unix_seconds() / 60 - 3) * 60,
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.begin + 60
    }

    pub(crate) fn fails(order: u8) -> bool {
        order % 4 == 3
    }

    /// The first id has 64 bits.
    pub(crate) fn trace_id(order: u8) -> Vec<u8> {
        let mut id = vec![0; 16];
        if order > 0 {
            id[0] = 0xc0 + order;
        }
        id[14] = 0xaa;
        id[15] = order;
        id
    }

    /// As searches show it: hexadecimal, without leading zeros.
    pub(crate) fn short_id(order: u8) -> String {
        let id: String = Self::trace_id(order)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        id.trim_start_matches('0').to_owned()
    }

    pub(crate) fn span_id(order: u8, span: u8) -> Vec<u8> {
        vec![0xe0, 0, 0, 0, 0, 0, order, span]
    }

    pub(crate) fn hex_span_id(order: u8, span: u8) -> String {
        format!("e0000000000{order:03x}{span:02x}")
    }

    pub(crate) fn start_nanos(&self, order: u8) -> u64 {
        (self.begin + 1 + u64::from(order) * 5) * NANOS_PER_SECOND
    }

    pub(crate) fn duration_nanos(order: u8) -> u64 {
        (100 + u64::from(order)) * NANOS_PER_MILLISECOND
    }

    fn of_web(&self, order: u8) -> ResourceSpans {
        let start = self.start_nanos(order);
        let failed = Self::fails(order);
        let checkout = Span {
            name: "GET /checkout".to_owned(),
            kind: span::SpanKind::Server as i32,
            end_time_unix_nano: start + Self::duration_nanos(order),
            attributes: vec![
                number("http.status_code", if failed { 500 } else { 200 }),
                number("order.number", i64::from(order)),
            ],
            status: Some(Status {
                code: if failed { 2 } else { 0 },
                message: String::new(),
            }),
            ..self.span(order, CHECKOUT, start)
        };
        let charge = Span {
            parent_span_id: Self::span_id(order, CHECKOUT),
            name: "charge card".to_owned(),
            kind: span::SpanKind::Client as i32,
            end_time_unix_nano: start + 50 * NANOS_PER_MILLISECOND,
            ..self.span(order, CHARGE, start)
        };
        service("web", vec![checkout, charge])
    }

    fn of_payment(&self, order: u8) -> ResourceSpans {
        let start = self.start_nanos(order) + NANOS_PER_MILLISECOND;
        let event = span::Event {
            time_unix_nano: start + NANOS_PER_MILLISECOND,
            name: "exception".to_owned(),
            attributes: vec![text("exception.message", "declined")],
            ..span::Event::default()
        };
        let payment = Span {
            parent_span_id: Self::span_id(order, CHARGE),
            name: "POST /charge".to_owned(),
            kind: span::SpanKind::Server as i32,
            end_time_unix_nano: start + 40 * NANOS_PER_MILLISECOND,
            attributes: vec![attribute("amount", Value::DoubleValue(1.5))],
            events: Self::fails(order).then_some(event).into_iter().collect(),
            ..self.span(order, PAYMENT, start)
        };
        service("payment", vec![payment])
    }

    fn span(&self, order: u8, span: u8, start: u64) -> Span {
        Span {
            trace_id: Self::trace_id(order),
            span_id: Self::span_id(order, span),
            start_time_unix_nano: start,
            ..Span::default()
        }
    }

    /// One request body per order.
    pub(crate) fn requests(&self) -> impl Iterator<Item = Vec<u8>> {
        (0..ORDERS).map(|order| {
            ExportTraceServiceRequest {
                resource_spans: vec![self.of_web(order), self.of_payment(order)],
            }
            .encode_to_vec()
        })
    }

    /// Sends all orders.
    pub(crate) fn push(&self, tempo: &Tempo, tenant: Option<&str>) {
        Self::push_requests(tempo, tenant, &self.requests().collect::<Vec<_>>());
    }

    /// Sends some of the [requests](Self::requests).
    pub(crate) fn push_requests(tempo: &Tempo, tenant: Option<&str>, requests: &[Vec<u8>]) {
        let mut client = Client::connect(&tempo.otlp_http).unwrap();
        let mut headers = vec![("content-type", "application/x-protobuf")];
        headers.extend(tenant.map(|tenant| ("x-scope-orgid", tenant)));
        for body in requests {
            let answer = client
                .request("POST", "/v1/traces", &headers, body)
                .unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
}

fn service(name: &str, spans: Vec<Span>) -> ResourceSpans {
    ResourceSpans {
        resource: Some(Resource {
            attributes: vec![text("service.name", name), text("k8s.cluster.name", "prod")],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope {
                name: "shop".to_owned(),
                version: "1".to_owned(),
                ..InstrumentationScope::default()
            }),
            spans,
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}
