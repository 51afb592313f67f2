//! Realistic traces: many services, trees of 5 to 60 spans, 8 to 20 attributes a span.
//!
//! Deterministic for a seed. The vocabulary follows what instrumented services send: HTTP, database
//! and messaging attributes of very different cardinality, Kubernetes resources, some errors,
//! events with stack traces, and links.

use prost::Message;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempo_proto::opentelemetry::proto::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span},
};

const SERVICES: usize = 200;
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];
const STATUS_CODES: [i64; 9] = [200, 200, 200, 200, 201, 204, 302, 404, 500];
const COMPONENTS: [&str; 4] = ["net/http", "grpc", "database/sql", "kafka"];

/// Makes one trace after another.
#[derive(Debug)]
pub struct TraceMaker {
    rng: StdRng,
}

/// One made trace.
#[derive(Debug, Clone)]
pub struct MadeTrace {
    /// Its id.
    pub id: [u8; 16],
    /// Its spans, one `ResourceSpans` per service.
    pub resource_spans: Vec<ResourceSpans>,
    /// How many spans it has.
    pub spans: usize,
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..Default::default()
    }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

impl TraceMaker {
    /// The traces of `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Small numbers far more often than large ones, below `bound`.
    fn skewed(&mut self, bound: usize) -> usize {
        let uniform: f64 = self.rng.random();
        ((bound as f64).powf(uniform) - 1.0) as usize % bound
    }

    /// The next trace; it begins at `start_unix_nano`.
    pub fn next_trace(&mut self, start_unix_nano: u64) -> MadeTrace {
        let id: [u8; 16] = self.rng.random();
        let count = 5 + self.skewed(56);
        let services: Vec<usize> = (0..1 + count / 8).map(|_| self.skewed(SERVICES)).collect();
        let mut per_service: Vec<Vec<Span>> = vec![Vec::new(); services.len()];
        let mut ids: Vec<[u8; 8]> = Vec::with_capacity(count);
        for index in 0..count {
            let span_id: [u8; 8] = self.rng.random();
            let parent =
                (index > 0).then(|| ids[self.rng.random_range(index.saturating_sub(6)..index)]);
            ids.push(span_id);
            let slot = index % services.len();
            let offset = index as u64 * 700_000 + self.rng.random_range(0..500_000);
            let span = self.span(
                id,
                span_id,
                parent,
                services[slot],
                start_unix_nano + offset,
            );
            per_service[slot].push(span);
        }
        let resource_spans = services
            .iter()
            .zip(per_service)
            .filter(|(_, spans)| !spans.is_empty())
            .map(|(&service, spans)| ResourceSpans {
                resource: Some(resource(service)),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: format!("instrumentation-{}", service % 7),
                        version: "1.4.2".to_owned(),
                        ..Default::default()
                    }),
                    spans,
                    schema_url: String::new(),
                }],
                schema_url: "https://opentelemetry.io/schemas/1.26.0".to_owned(),
            })
            .collect();
        MadeTrace {
            id,
            resource_spans,
            spans: count,
        }
    }

    fn span(
        &mut self,
        trace_id: [u8; 16],
        span_id: [u8; 8],
        parent: Option<[u8; 8]>,
        service: usize,
        start: u64,
    ) -> Span {
        let operation = self.skewed(40);
        let route = format!("/api/v{}/{}/{{id}}", 1 + service % 3, noun(operation));
        let status_code = STATUS_CODES[self.rng.random_range(0..STATUS_CODES.len())];
        let failed = status_code == 500 && self.rng.random_bool(0.2);
        let duration = (1_000_000.0 * (1.0 + 40.0 * self.rng.random::<f64>().powi(3))) as u64;
        let entity: u32 = self.rng.random_range(0..1_000_000);
        let mut attributes = vec![
            text("http.request.method", METHODS[self.skewed(METHODS.len())]),
            attribute("http.response.status_code", Value::IntValue(status_code)),
            text(
                "url.path",
                format!("/api/v1/{}/{}", noun(operation), entity % 50_000),
            ),
            text("http.route", route.clone()),
            text(
                "server.address",
                format!("host-{}.internal", self.skewed(200)),
            ),
            attribute("server.port", Value::IntValue(8080)),
            text("component", COMPONENTS[service % COMPONENTS.len()]),
            attribute("thread.id", Value::IntValue(self.rng.random_range(1..65))),
        ];
        if self.rng.random_bool(0.3) {
            attributes.push(text(
                "db.query.text",
                format!("SELECT * FROM {} WHERE id = $1 AND state IN ('open', 'held') ORDER BY updated_at DESC LIMIT 50", noun(operation)),
            ));
            attributes.push(text("db.system.name", "postgresql"));
        }
        if self.rng.random_bool(0.5) {
            attributes.push(text("user.id", format!("user-{entity}")));
        }
        if self.rng.random_bool(0.1) {
            attributes.push(attribute(
                "cache.hit",
                Value::BoolValue(entity.is_multiple_of(2)),
            ));
            attributes.push(attribute(
                "queue.lag",
                Value::DoubleValue(f64::from(entity) / 1000.0),
            ));
        }
        let mut events = Vec::new();
        if failed {
            events.push(span::Event {
                time_unix_nano: start + duration / 2,
                name: "exception".to_owned(),
                attributes: vec![
                    text("exception.type", "java.io.IOException"),
                    text("exception.message", "connection reset by peer"),
                    text(
                        "exception.stacktrace",
                        "at com.example.Client.call(Client.java:120)\n".repeat(12),
                    ),
                ],
                dropped_attributes_count: 0,
            });
        } else if self.rng.random_bool(0.08) {
            events.push(span::Event {
                time_unix_nano: start + duration / 3,
                name: "message".to_owned(),
                attributes: vec![attribute("message.id", Value::IntValue(i64::from(entity)))],
                dropped_attributes_count: 0,
            });
        }
        let links = if self.rng.random_bool(0.02) {
            vec![span::Link {
                trace_id: self.rng.random::<[u8; 16]>().to_vec(),
                span_id: self.rng.random::<[u8; 8]>().to_vec(),
                ..Default::default()
            }]
        } else {
            Vec::new()
        };
        Span {
            trace_id: trace_id.to_vec(),
            span_id: span_id.to_vec(),
            parent_span_id: parent.map_or_else(Vec::new, |id| id.to_vec()),
            name: format!("{} {route}", METHODS[operation % METHODS.len()]),
            kind: 1 + (operation % 5) as i32,
            start_time_unix_nano: start,
            end_time_unix_nano: start + duration,
            attributes,
            events,
            links,
            status: failed.then(|| Status {
                message: "upstream failed".to_owned(),
                code: 2,
            }),
            flags: 0x101,
            ..Default::default()
        }
    }
}

fn noun(index: usize) -> String {
    const NOUNS: [&str; 8] = [
        "orders", "users", "carts", "payments", "invoices", "sessions", "items", "reports",
    ];
    format!("{}{}", NOUNS[index % NOUNS.len()], index / NOUNS.len())
}

/// The resource of a service; the same every time.
pub fn resource(service: usize) -> Resource {
    Resource {
        attributes: vec![
            text("service.name", service_name(service)),
            text("service.namespace", format!("team-{}", service % 20)),
            text(
                "service.version",
                format!("2.{}.{}", service % 9, service % 5),
            ),
            text(
                "service.instance.id",
                format!("{:08x}-{service}", service * 2_654_435_761 % 0xffff_ffff),
            ),
            text("k8s.cluster.name", format!("prod-{}", service % 4)),
            text("k8s.namespace.name", format!("team-{}", service % 20)),
            text(
                "k8s.pod.name",
                format!("service-{service}-7d9f8b6c5-{:05}", service * 7919 % 99_999),
            ),
            text("k8s.container.name", "app"),
            text("k8s.node.name", format!("node-{}", service % 50)),
            text("host.arch", "amd64"),
            text("os.type", "linux"),
            text(
                "telemetry.sdk.language",
                ["go", "java", "python", "rust"][service % 4],
            ),
            text("telemetry.sdk.name", "opentelemetry"),
            text("telemetry.sdk.version", "1.30.0"),
        ],
        ..Default::default()
    }
}

/// The name of a service.
pub fn service_name(service: usize) -> String {
    format!("service-{service:03}")
}

/// Several traces as one request body, as a collector's batch would hold them.
pub fn encode_request(traces: &[MadeTrace]) -> Vec<u8> {
    ExportTraceServiceRequest {
        resource_spans: traces
            .iter()
            .flat_map(|trace| trace.resource_spans.clone())
            .collect(),
    }
    .encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_deterministic_and_of_the_promised_size() {
        let make = || {
            let mut maker = TraceMaker::new(7);
            (0..500)
                .map(|_| maker.next_trace(1_700_000_000_000_000_000))
                .collect::<Vec<_>>()
        };
        let traces = make();
        let body = encode_request(&traces);
        assert_eq!(body, encode_request(&make()));
        let spans: usize = traces.iter().map(|trace| trace.spans).sum();
        assert!(traces.iter().all(|trace| (5..=60).contains(&trace.spans)));
        let per_span = body.len() / spans;
        assert!((350..650).contains(&per_span), "{per_span} bytes per span");
    }
}
