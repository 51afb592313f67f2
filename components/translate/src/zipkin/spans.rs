//! What a span of Zipkin v2 says in OpenTelemetry's words.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};
use tempo_proto::opentelemetry::proto::{
    common::v1::{InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{
        self as otlp, ResourceSpans, ScopeSpans, Status,
        span::{Event, Link, SpanKind},
        status::StatusCode,
    },
};

use super::{Kind, Span, long_id, nanos, short_id, tag_value};
use crate::{Malformed, Tags, attributes::Attributes};

/// Where OpenTelemetry's exporter keeps name and version of the library.
const LIBRARY_NAME: &str = "otel.library.name";
const LIBRARY_VERSION: &str = "otel.library.version";
/// Under which attribute the name of the service is to stand.
const SERVICE_NAME_SOURCE: &str = "otlp.service.name.source";
/// That a span said nothing of when it began.
pub(super) const START_ABSENT: &str = "otel.zipkin.absentField.startTime";

/// Most links that OpenTelemetry's exporter writes into tags.
const MAX_LINKS: usize = 128;

/// Tags that tell of the resource: the semantic conventions of resources, as far as the collector
/// knows them.
const RESOURCE_TAGS: &[&str] = &[
    "aws.ecs.cluster.arn",
    "aws.ecs.container.arn",
    "aws.ecs.launchtype",
    "aws.ecs.task.arn",
    "aws.ecs.task.family",
    "aws.ecs.task.revision",
    "aws.eks.cluster.arn",
    "aws.log.group.arns",
    "aws.log.group.names",
    "aws.log.stream.arns",
    "aws.log.stream.names",
    "cloud.account.id",
    "cloud.availability_zone",
    "cloud.platform",
    "cloud.provider",
    "cloud.region",
    "container.id",
    "container.image.name",
    "container.image.tag",
    "container.name",
    "container.runtime",
    "deployment.environment",
    "device.id",
    "device.manufacturer",
    "device.model.identifier",
    "device.model.name",
    "faas.id",
    "faas.instance",
    "faas.name",
    "faas.version",
    "host.arch",
    "host.id",
    "host.image.id",
    "host.image.name",
    "host.image.version",
    "host.name",
    "host.type",
    "k8s.cluster.name",
    "k8s.container.name",
    "k8s.container.restart_count",
    "k8s.cronjob.name",
    "k8s.cronjob.uid",
    "k8s.daemonset.name",
    "k8s.daemonset.uid",
    "k8s.deployment.name",
    "k8s.deployment.uid",
    "k8s.job.name",
    "k8s.job.uid",
    "k8s.namespace.name",
    "k8s.node.name",
    "k8s.node.uid",
    "k8s.pod.name",
    "k8s.pod.uid",
    "k8s.replicaset.name",
    "k8s.replicaset.uid",
    "k8s.statefulset.name",
    "k8s.statefulset.uid",
    "opencensus.exporterversion",
    "opencensus.resourcetype",
    "opencensus.starttime",
    "os.description",
    "os.name",
    "os.type",
    "os.version",
    "process.command",
    "process.command_args",
    "process.command_line",
    "process.executable.name",
    "process.executable.path",
    "process.pid",
    "process.runtime.description",
    "process.runtime.name",
    "process.runtime.version",
    "service.instance.id",
    "service.name",
    "service.namespace",
    "service.version",
    "telemetry.auto.version",
    "telemetry.sdk.language",
    "telemetry.sdk.name",
    "telemetry.sdk.version",
    "webengine.description",
    "webengine.name",
    "webengine.version",
];

/// A resource for each service, a scope for each library. What the first span of a service tells of
/// its resource counts for all of them, as in the collector.
pub(super) fn translate(spans: Vec<Span>, tags: Tags) -> Result<Vec<ResourceSpans>, Malformed> {
    let mut services: BTreeMap<String, BTreeMap<String, Vec<Span>>> = BTreeMap::new();
    for span in spans {
        let service = span.local.as_ref().map(|local| local.service_name.clone());
        let library = tag(&span, LIBRARY_NAME).unwrap_or_default().to_owned();
        let libraries = services.entry(service.unwrap_or_default()).or_default();
        libraries.entry(library).or_default().push(span);
    }
    let mut translated = Vec::with_capacity(services.len());
    for (service, libraries) in services {
        let first = libraries.values().flatten().next();
        let resource = first.map(|span| resource(&service, span));
        let mut scope_spans = Vec::with_capacity(libraries.len());
        for (library, spans) in libraries {
            let version = spans.first().and_then(|span| tag(span, LIBRARY_VERSION));
            let scope = InstrumentationScope {
                version: version
                    .filter(|_| !library.is_empty())
                    .unwrap_or_default()
                    .to_owned(),
                name: library,
                ..InstrumentationScope::default()
            };
            let spans = spans.into_iter().map(|one| span(one, tags));
            scope_spans.push(ScopeSpans {
                scope: Some(scope),
                spans: spans.collect::<Result<_, _>>()?,
                ..ScopeSpans::default()
            });
        }
        translated.push(ResourceSpans {
            resource,
            scope_spans,
            ..ResourceSpans::default()
        });
    }
    Ok(translated)
}

fn tag<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    let found = span.tags.iter().find(|(name, _)| name == key);
    found.map(|(_, value)| value.as_str())
}

fn resource(service: &str, span: &Span) -> Resource {
    let mut attributes = Attributes::default();
    if !service.is_empty() {
        let key = tag(span, SERVICE_NAME_SOURCE).filter(|key| !key.is_empty());
        attributes.put_text(key.unwrap_or("service.name"), service);
        for (key, value) in &span.tags {
            if RESOURCE_TAGS.contains(&key.as_str()) {
                attributes.put_text(key, value);
            }
        }
    }
    Resource {
        attributes: attributes.into_key_values(),
        ..Resource::default()
    }
}

fn span(span: Span, tags: Tags) -> Result<otlp::Span, Malformed> {
    let mut own: BTreeMap<String, String> = span.tags.into_iter().collect();
    let trace_state = own.remove("w3c.tracestate").unwrap_or_default();
    let kind = match span.kind {
        Kind::Client => SpanKind::Client,
        Kind::Server => SpanKind::Server,
        Kind::Producer => SpanKind::Producer,
        Kind::Consumer => SpanKind::Consumer,
        Kind::Unspecified => match own.remove("span.kind").as_deref() {
            Some("internal") => SpanKind::Internal,
            _ => SpanKind::Unspecified,
        },
    };
    let status = status(&mut own);
    let links = links(&mut own)?;
    let mut attributes = Attributes::default();
    for (key, value) in own {
        let is_elsewhere = RESOURCE_TAGS.contains(&key.as_str())
            || [LIBRARY_NAME, LIBRARY_VERSION, SERVICE_NAME_SOURCE].contains(&key.as_str());
        if !is_elsewhere {
            attributes.put(key, tag_value(value, tags));
        }
    }
    if let Some(local) = span.local {
        for address in [local.ipv4, local.ipv6].into_iter().flatten() {
            attributes.put_text("net.host.ip", address);
        }
        put_port(&mut attributes, "net.host.port", local.port);
    }
    if let Some(remote) = span.remote {
        if !remote.service_name.is_empty() {
            attributes.put_text("peer.service", remote.service_name);
        }
        for address in [remote.ipv4, remote.ipv6].into_iter().flatten() {
            attributes.put_text("net.peer.ip", address);
        }
        put_port(&mut attributes, "net.peer.port", remote.port);
    }
    if span.timestamp == 0 {
        attributes.put(START_ABSENT, Value::BoolValue(true));
    }
    let annotations = span.annotations.into_iter();
    Ok(otlp::Span {
        trace_id: span.trace_id.to_vec(),
        span_id: span.id.to_vec(),
        parent_span_id: span
            .parent_id
            .filter(|parent| *parent != span.id && *parent != [0; 8])
            .map(Vec::from)
            .unwrap_or_default(),
        trace_state,
        name: span.name,
        kind: kind.into(),
        start_time_unix_nano: nanos(span.timestamp),
        end_time_unix_nano: nanos(span.timestamp.saturating_add(span.duration)),
        attributes: attributes.into_key_values(),
        events: annotations
            .map(|annotation| event(nanos(annotation.timestamp), annotation.value))
            .collect::<Result<_, _>>()?,
        links,
        status,
        ..otlp::Span::default()
    })
}

fn put_port(attributes: &mut Attributes, key: &str, port: u16) {
    if port > 0 {
        attributes.put(key, Value::IntValue(port.into()));
    }
}

fn status(tags: &mut BTreeMap<String, String>) -> Option<Status> {
    let mut status = tags.remove("otel.status_code").map(|told| Status {
        code: match told.as_str() {
            "STATUS_CODE_OK" | "Ok" | "OK" => StatusCode::Ok.into(),
            "STATUS_CODE_ERROR" | "Error" | "ERROR" => StatusCode::Error.into(),
            _ => StatusCode::Unset.into(),
        },
        message: tags.remove("otel.status_description").unwrap_or_default(),
    });
    if let Some(error) = tags.get("error") {
        let is_flag = error == "true";
        status.get_or_insert_default().code = StatusCode::Error.into();
        if is_flag {
            tags.remove("error");
        }
    }
    status
}

/// Links that OpenTelemetry's exporter has put into tags: `trace|span|state|attributes|dropped`.
fn links(tags: &mut BTreeMap<String, String>) -> Result<Vec<Link>, Malformed> {
    let mut links = Vec::new();
    for number in 0..MAX_LINKS {
        let key = format!("otlp.link.{number}");
        let Some(text) = tags.remove(&key) else {
            break;
        };
        let mut parts = text.splitn(4, '|');
        let (Some(trace), Some(span), Some(state), Some(rest)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let Some((attributes, dropped)) = rest.rsplit_once('|') else {
            continue;
        };
        let unquoted = |text: &str| text.trim_matches('"').to_owned();
        links.push(Link {
            trace_id: long_id(&key, &unquoted(trace))?.to_vec(),
            span_id: short_id(&key, &unquoted(span))?.to_vec(),
            trace_state: state.to_owned(),
            attributes: json_attributes(&key, attributes)?,
            dropped_attributes_count: count(&key, dropped)?,
            ..Link::default()
        });
    }
    Ok(links)
}

/// An annotation is a name, or what OpenTelemetry's exporter makes of an event:
/// `name|attributes|dropped`.
fn event(time_unix_nano: u64, text: String) -> Result<Event, Malformed> {
    let more = text.split_once('|').and_then(|(name, rest)| {
        let (attributes, dropped) = rest.rsplit_once('|')?;
        Some((name.to_owned(), attributes, dropped))
    });
    let Some((name, attributes, dropped)) = more else {
        let name = match text.split_once('|') {
            Some((name, _)) => name.to_owned(),
            None => text,
        };
        return Ok(Event {
            time_unix_nano,
            name,
            ..Event::default()
        });
    };
    Ok(Event {
        time_unix_nano,
        attributes: json_attributes("annotation", attributes)?,
        dropped_attributes_count: count("annotation", dropped)?,
        name,
    })
}

fn count(what: &str, text: &str) -> Result<u32, Malformed> {
    text.parse()
        .map_err(|_| Malformed::new(format!("{what}: '{text}' is not a count")))
}

fn json_attributes(what: &str, text: &str) -> Result<Vec<KeyValue>, Malformed> {
    let json: Map<String, Json> = serde_json::from_str(text)
        .map_err(|error| Malformed::new(format!("{what}: attributes are not JSON: {error}")))?;
    let mut attributes = Attributes::default();
    for (key, value) in json {
        match value {
            Json::String(text) => attributes.put_text(key, text),
            Json::Bool(truth) => attributes.put(key, Value::BoolValue(truth)),
            Json::Number(number) => {
                let value = match (number.as_i64(), number.as_f64()) {
                    (Some(whole), _) => Value::IntValue(whole),
                    (None, Some(number)) if number.fract() == 0.0 => Value::IntValue(number as i64),
                    (None, number) => Value::DoubleValue(number.unwrap_or(f64::NAN)),
                };
                attributes.put(key, value);
            }
            Json::Null | Json::Array(_) | Json::Object(_) => {}
        }
    }
    Ok(attributes.into_key_values())
}
