//! Made-up but lifelike traces: 12 span attributes, 15 resource attributes, a few events.
//!
//! The same number always gives the same bytes.

use prost::Message;
use tempo_model::TraceId;
use tempo_proto::{
    opentelemetry::proto::{
        common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Event},
    },
    tempopb::Trace,
};

/// A small generator of numbers (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Small numbers far more often than large ones.
    fn skewed(&mut self, limit: u64) -> u64 {
        let first = self.below(limit) + 1;
        self.below(first)
    }
}

fn text(key: &str, value: String) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value)),
        }),
        ..Default::default()
    }
}

fn int(key: &str, value: u64) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue {
            value: Some(Value::IntValue(value as i64)),
        }),
        ..Default::default()
    }
}

fn resource(service: u64, random: &mut Random) -> Resource {
    let pod = random.below(10);
    let names = [
        "telemetry.sdk.name",
        "telemetry.sdk.language",
        "telemetry.sdk.version",
        "deployment.environment",
        "host.name",
        "os.type",
        "process.runtime.name",
    ];
    let mut attributes = vec![
        text("service.name", format!("service-{service}")),
        text("service.namespace", format!("namespace-{}", service % 20)),
        text("service.version", format!("1.{}.0", service % 7)),
        text(
            "service.instance.id",
            format!("instance-{service}-{pod:08x}-4a5b-8c9d"),
        ),
        text("k8s.cluster.name", format!("cluster-{}", service % 4)),
        text("k8s.namespace.name", format!("namespace-{}", service % 20)),
        text(
            "k8s.pod.name",
            format!("service-{service}-7f6d5c4b3a-{pod}"),
        ),
        text("k8s.container.name", format!("service-{service}")),
    ];
    attributes.extend(names.map(|name| text(name, format!("{name} of {}", service % 5))));
    Resource {
        attributes,
        ..Default::default()
    }
}

fn span(
    trace: &[u8; 16],
    number: u64,
    parent: Option<u64>,
    service: u64,
    random: &mut Random,
) -> Span {
    let route = random.skewed(2_000);
    let start = 1_700_000_000_000_000_000 + random.below(30_000_000_000);
    let duration = 50_000 + random.skewed(200_000_000);
    let status = [200, 200, 200, 200, 201, 204, 304, 400, 404, 500][random.below(10) as usize];
    let mut attributes = vec![
        text(
            "http.request.method",
            ["GET", "GET", "GET", "POST"][random.below(4) as usize].into(),
        ),
        int("http.response.status_code", status),
        text("http.route", format!("/api/v1/resource-{route}/:id")),
        text(
            "url.path",
            format!("/api/v1/resource-{route}/{}", random.below(50)),
        ),
        text(
            "url.full",
            format!(
                "https://service-{service}.example.com/api/v1/resource-{route}/{}?page=2",
                random.below(1_000_000)
            ),
        ),
        text("user.id", format!("user-{}", random.skewed(1_000_000))),
        text(
            "server.address",
            format!("service-{}.internal", random.below(200)),
        ),
        int("server.port", 8080 + random.below(4)),
        text(
            "component",
            ["net/http", "grpc", "database/sql", "redis"][random.below(4) as usize].into(),
        ),
        int("thread.id", random.below(64)),
        text("network.protocol.version", "1.1".into()),
        text(
            "user_agent.original",
            format!(
                "Mozilla/5.0 (X11; Linux x86_64) browser/{}",
                random.below(40)
            ),
        ),
    ];
    if random.below(1000) == 0 {
        attributes.push(text(&format!("rare.{}", random.below(200)), "yes".into()));
    }
    let events = (0..u64::from(random.below(10) == 0)).map(|_| Event {
        time_unix_nano: start + 1000,
        name: "exception".into(),
        attributes: vec![text("exception.type", format!("Error{}", random.below(9)))],
        ..Default::default()
    });
    Span {
        events: events.collect(),
        trace_id: trace.to_vec(),
        span_id: (number + 1).to_be_bytes().to_vec(),
        parent_span_id: parent.map_or(vec![], |parent| (parent + 1).to_be_bytes().to_vec()),
        name: format!("operation {} of {}", route % 40, service),
        kind: 1 + random.below(5) as i32,
        start_time_unix_nano: start,
        end_time_unix_nano: start + duration,
        attributes,
        status: Some(Status {
            code: if random.below(50) == 0 { 2 } else { 0 },
            message: String::new(),
        }),
        ..Default::default()
    }
}

/// About `spans` spans in traces of about eight, each trace over up to three services.
pub(crate) fn traces(spans: usize) -> Vec<(TraceId, Vec<u8>)> {
    let mut random = Random::new(7);
    let mut traces = Vec::new();
    let mut made = 0;
    while made < spans {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random.next().to_be_bytes());
        id[8..].copy_from_slice(&random.next().to_be_bytes());
        let size = 1 + random.skewed(30);
        let services: Vec<u64> = (0..1 + random.below(3))
            .map(|_| random.skewed(200))
            .collect();
        let mut parts: Vec<ResourceSpans> = services
            .iter()
            .map(|&service| ResourceSpans {
                resource: Some(resource(service, &mut random)),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: format!("go.opentelemetry.io/contrib/{}", service % 6),
                        version: "0.49.0".into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }],
                ..Default::default()
            })
            .collect();
        for number in 0..size {
            let parent = (number > 0).then(|| random.below(number));
            let part = random.below(services.len() as u64) as usize;
            let span = span(&id, number, parent, services[part], &mut random);
            parts[part].scope_spans[0].spans.push(span);
        }
        made += size as usize;
        let trace = Trace {
            resource_spans: parts,
        };
        traces.push((TraceId::from_bytes(id), trace.encode_to_vec()));
    }
    traces
}
