//! What a Jaeger span says in OpenTelemetry's words.

use std::collections::HashMap;

use prost::Message as _;
use prost_types::{Duration, Timestamp};
use tempo_proto::{
    jaeger::api_v2::{Batch, KeyValue, Log, Process, Span, SpanRef, SpanRefType, ValueType},
    opentelemetry::proto::{
        common::v1::{InstrumentationScope, any_value::Value},
        resource::v1::Resource,
        trace::v1::{
            self as otlp, ResourceSpans, ScopeSpans, Status,
            span::{Event, Link, SpanKind},
            status::StatusCode,
        },
    },
};

use crate::{Malformed, attributes::Attributes};

/// What Jaeger's exporters write where there is no service name.
const NO_SERVICE_NAME: &str = "OTLPResourceNoServiceName";

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// The spans of a process, by the library that made them.
#[derive(Default)]
struct OfProcess {
    resource: Resource,
    /// By name and version of the library.
    places: HashMap<(String, String), usize>,
    scopes: Vec<ScopeSpans>,
}

/// A resource for each process, a scope for each library.
pub(super) fn translate(batch: Batch) -> Result<Vec<ResourceSpans>, Malformed> {
    let shared = batch.process.unwrap_or_default();
    let shared_key = shared.encode_to_vec();
    let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut processes: Vec<OfProcess> = Vec::new();
    for mut span in batch.spans {
        if span == Span::default() {
            continue;
        }
        let own = span.process.take();
        let key = own
            .as_ref()
            .map_or_else(|| shared_key.clone(), Process::encode_to_vec);
        let place = *places.entry(key).or_insert_with(|| {
            processes.push(OfProcess {
                resource: resource(own.unwrap_or_else(|| shared.clone())),
                ..OfProcess::default()
            });
            processes.len() - 1
        });
        processes[place].add(span)?;
    }
    let translated = processes.into_iter().map(|process| ResourceSpans {
        resource: Some(process.resource),
        scope_spans: process.scopes,
        ..ResourceSpans::default()
    });
    Ok(translated.collect())
}

impl OfProcess {
    fn add(&mut self, span: Span) -> Result<(), Malformed> {
        let (library, span) = translate_span(span)?;
        let scopes = &mut self.scopes;
        let place = *self
            .places
            .entry(library)
            .or_insert_with_key(|(name, version)| {
                scopes.push(ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: name.clone(),
                        version: version.clone(),
                        ..InstrumentationScope::default()
                    }),
                    ..ScopeSpans::default()
                });
                scopes.len() - 1
            });
        scopes[place].spans.push(span);
        Ok(())
    }
}

fn resource(process: Process) -> Resource {
    let mut attributes = Attributes::default();
    if process.service_name != NO_SERVICE_NAME {
        if !process.service_name.is_empty() {
            attributes.put_text("service.name", process.service_name);
        }
        put_tags(process.tags, &mut attributes);
        if attributes.get("host.name").is_none()
            && let Some(name) = attributes.take("hostname")
        {
            attributes.put("host.name", name);
        }
        if attributes.get("opencensus.exporterversion").is_none()
            && let Some(version) = attributes.take_text("jaeger.version")
        {
            attributes.put_text("opencensus.exporterversion", format!("Jaeger-{version}"));
        }
    }
    Resource {
        attributes: attributes.into_key_values(),
        ..Resource::default()
    }
}

/// Name and version of its library, and the span.
fn translate_span(span: Span) -> Result<((String, String), otlp::Span), Malformed> {
    let trace_id = id::<16>("trace id", &span.trace_id)?;
    let parent = parent(&trace_id, &span.references)?;
    let mut attributes = Attributes::default();
    put_tags(span.tags, &mut attributes);
    let library = match attributes.take_text("otel.scope.name") {
        Some(name) => {
            let version = attributes.take_text("otel.scope.version");
            (name, version.unwrap_or_default())
        }
        None => (String::new(), String::new()),
    };
    let kind = match attributes.take_text("span.kind") {
        Some(name) => kind(&name),
        None => SpanKind::Unspecified,
    };
    let status = status(&mut attributes, kind);
    let trace_state = attributes.take_text("w3c.tracestate").unwrap_or_default();
    let start = nanos(span.start_time.as_ref());
    let end = start.saturating_add(duration_nanos(span.duration.as_ref()));
    let translated = otlp::Span {
        span_id: id::<8>("span id", &span.span_id)?,
        parent_span_id: parent.clone().unwrap_or_default(),
        trace_state,
        name: span.operation_name,
        kind: kind.into(),
        start_time_unix_nano: unsigned(start),
        end_time_unix_nano: unsigned(end),
        attributes: attributes.into_key_values(),
        events: span.logs.into_iter().map(event).collect(),
        links: links(span.references, parent.as_deref())?,
        status,
        trace_id,
        ..otlp::Span::default()
    };
    Ok((library, translated))
}

/// An id of `N` bytes; shorter ones stand at the end. None at all stays none.
fn id<const N: usize>(what: &str, bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    if bytes.is_empty() || bytes.len() == N {
        return Ok(bytes.to_vec());
    }
    let Some(missing) = N.checked_sub(bytes.len()) else {
        let length = bytes.len();
        return Err(Malformed::new(format!(
            "a {what} of {length} bytes, {N} are allowed"
        )));
    };
    let mut id = vec![0; missing];
    id.extend_from_slice(bytes);
    Ok(id)
}

/// The span that the references name as the parent: the first that is a child's, or else the first
/// that follows, of the same trace.
fn parent(trace_id: &[u8], references: &[SpanRef]) -> Result<Option<Vec<u8>>, Malformed> {
    let mut followed = None;
    for reference in references {
        if id::<16>("trace id", &reference.trace_id)? != trace_id {
            continue;
        }
        let parent = id::<8>("span id", &reference.span_id)?;
        match reference.ref_type() {
            SpanRefType::ChildOf => return Ok(not_zero(parent)),
            SpanRefType::FollowsFrom => followed = followed.or(Some(parent)),
        }
    }
    Ok(followed.and_then(not_zero))
}

fn not_zero(id: Vec<u8>) -> Option<Vec<u8>> {
    id.iter().any(|byte| *byte != 0).then_some(id)
}

fn links(references: Vec<SpanRef>, parent: Option<&[u8]>) -> Result<Vec<Link>, Malformed> {
    let mut links = Vec::new();
    for reference in references {
        let span_id = id::<8>("span id", &reference.span_id)?;
        let how = match reference.ref_type() {
            SpanRefType::ChildOf if Some(span_id.as_slice()) == parent => continue,
            SpanRefType::ChildOf => "child_of",
            SpanRefType::FollowsFrom => "follows_from",
        };
        let mut attributes = Attributes::default();
        attributes.put_text("opentracing.ref_type", how);
        links.push(Link {
            trace_id: id::<16>("trace id", &reference.trace_id)?,
            span_id,
            attributes: attributes.into_key_values(),
            ..Link::default()
        });
    }
    Ok(links)
}

fn event(log: Log) -> Event {
    let mut attributes = Attributes::default();
    put_tags(log.fields, &mut attributes);
    Event {
        time_unix_nano: unsigned(nanos(log.timestamp.as_ref())),
        name: attributes.take_text("event").unwrap_or_default(),
        attributes: attributes.into_key_values(),
        ..Event::default()
    }
}

fn put_tags(tags: Vec<KeyValue>, attributes: &mut Attributes) {
    for tag in tags {
        let value = match ValueType::try_from(tag.v_type) {
            Ok(ValueType::String) => Value::StringValue(tag.v_str),
            Ok(ValueType::Bool) => Value::BoolValue(tag.v_bool),
            Ok(ValueType::Int64) => Value::IntValue(tag.v_int64),
            Ok(ValueType::Float64) => Value::DoubleValue(tag.v_float64),
            Ok(ValueType::Binary) => Value::BytesValue(tag.v_binary),
            Err(_) => Value::StringValue(format!("<Unknown Jaeger TagType \"{}\">", tag.v_type)),
        };
        attributes.put(tag.key, value);
    }
}

fn kind(name: &str) -> SpanKind {
    match name {
        "client" => SpanKind::Client,
        "server" => SpanKind::Server,
        "producer" => SpanKind::Producer,
        "consumer" => SpanKind::Consumer,
        "internal" => SpanKind::Internal,
        _ => SpanKind::Unspecified,
    }
}

/// The tag `error` tells, or else that of OpenTelemetry, or else the status of HTTP.
fn status(attributes: &mut Attributes, kind: SpanKind) -> Option<Status> {
    let failed = attributes.get("error") == Some(&Value::BoolValue(true));
    if failed {
        attributes.take("error");
    }
    let told = attributes.take_text("otel.status_code");
    if failed {
        let message = attributes
            .take_text("otel.status_description")
            .or_else(|| attributes.text("http.status_message").map(str::to_owned));
        return Some(of(StatusCode::Error, message));
    }
    if let Some(told) = told {
        let code = match told.to_ascii_uppercase().as_str() {
            "OK" => StatusCode::Ok,
            "ERROR" => StatusCode::Error,
            _ => StatusCode::Unset,
        };
        let message = attributes.take_text("otel.status_description");
        return Some(of(code, message));
    }
    let http = match attributes.get("http.status_code")? {
        Value::IntValue(code) => *code,
        Value::StringValue(text) => text.parse().ok()?,
        _ => return None,
    };
    match http {
        100..400 => None,
        // The client's fault is not the server's.
        400..500 if kind == SpanKind::Server => None,
        _ => {
            let message = attributes.text("http.status_message").map(str::to_owned);
            Some(of(StatusCode::Error, message))
        }
    }
}

fn of(code: StatusCode, message: Option<String>) -> Status {
    Status {
        code: code.into(),
        message: message.unwrap_or_default(),
    }
}

fn nanos(time: Option<&Timestamp>) -> i64 {
    time.map_or(0, |time| {
        time.seconds
            .saturating_mul(NANOS_PER_SECOND)
            .saturating_add(i64::from(time.nanos))
    })
}

fn duration_nanos(duration: Option<&Duration>) -> i64 {
    duration.map_or(0, |duration| {
        duration
            .seconds
            .saturating_mul(NANOS_PER_SECOND)
            .saturating_add(i64::from(duration.nanos))
    })
}

/// Times before 1970 are none.
fn unsigned(nanos: i64) -> u64 {
    u64::try_from(nanos).unwrap_or(0)
}
