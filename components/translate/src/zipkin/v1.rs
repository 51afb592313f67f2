//! Zipkin v1, in JSON and in Thrift: annotations tell of kind, time and service.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use tempo_proto::opentelemetry::proto::{
    common::v1::any_value::Value,
    resource::v1::Resource,
    trace::v1::{
        self as otlp, ResourceSpans, ScopeSpans, Status,
        span::{Event, SpanKind},
        status::StatusCode,
    },
};

use super::{json::micros, long_id, nanos, short_id, spans::START_ABSENT, tag_value};
use crate::{
    Malformed, Tags,
    attributes::Attributes,
    thrift::{Kind, Protocol, Reader},
};

/// What the collector calls a service that nobody names.
const UNKNOWN_SERVICE: &str = "unknown-service";

/// The binary annotation that names the part of a program that made the span.
const LOCAL_COMPONENT: &str = "lc";

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Span {
    trace_id: String,
    name: Option<String>,
    parent_id: Option<String>,
    id: String,
    #[serde(deserialize_with = "micros")]
    timestamp: u64,
    #[serde(deserialize_with = "micros")]
    duration: u64,
    annotations: Option<Vec<Annotation>>,
    binary_annotations: Option<Vec<BinaryAnnotation>>,
}

#[derive(Default, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Endpoint {
    service_name: Option<String>,
    ipv4: Option<String>,
    ipv6: Option<String>,
    port: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotation {
    #[serde(deserialize_with = "micros")]
    timestamp: u64,
    value: String,
    endpoint: Option<Endpoint>,
}

#[derive(Deserialize)]
struct BinaryAnnotation {
    key: String,
    value: String,
    endpoint: Option<Endpoint>,
}

/// A binary annotation whose value has its type.
struct Tag {
    key: String,
    value: Value,
    endpoint: Option<Endpoint>,
}

impl Endpoint {
    fn service(&self) -> Option<&str> {
        self.service_name.as_deref().filter(|name| !name.is_empty())
    }
}

pub(super) fn from_json(input: &[u8], tags: Tags) -> Result<Vec<ResourceSpans>, Malformed> {
    let spans: Vec<Span> = serde_json::from_slice(input).map_err(|error| {
        Malformed::new(format!("not a list of Zipkin v1 spans in JSON: {error}"))
    })?;
    let mut services = Services::default();
    for span in spans {
        let trace_id = long_id("traceId", &span.trace_id)?.to_vec();
        let span_id = short_id("id", &span.id)?.to_vec();
        let parent_id = span.parent_id.filter(|id| !id.is_empty());
        let parent_span_id = match parent_id {
            Some(id) => short_id("parentId", &id)?.to_vec(),
            None => Vec::new(),
        };
        let binary = span.binary_annotations.unwrap_or_default().into_iter();
        let binary = binary.map(|annotation| Tag {
            key: annotation.key,
            value: tag_value(annotation.value, tags),
            endpoint: annotation.endpoint,
        });
        services.add(
            otlp::Span {
                trace_id,
                span_id,
                parent_span_id,
                name: span.name.unwrap_or_default(),
                start_time_unix_nano: nanos(span.timestamp),
                end_time_unix_nano: nanos(span.timestamp.saturating_add(span.duration)),
                ..otlp::Span::default()
            },
            span.annotations.unwrap_or_default(),
            binary.collect(),
        );
    }
    Ok(services.into_resource_spans())
}

pub(super) fn from_thrift(input: &[u8]) -> Result<Vec<ResourceSpans>, Malformed> {
    let mut services = Services::default();
    let mut reader = Reader::new(Protocol::Binary, input);
    reader.bare_list(|reader, kind| {
        let (span, annotations, tags) = thrift_span(reader, kind)?;
        services.add(span, annotations, tags);
        Ok(())
    })?;
    Ok(services.into_resource_spans())
}

/// The spans of each endpoint.
#[derive(Default)]
struct Services(BTreeMap<Endpoint, Vec<otlp::Span>>);

impl Services {
    fn add(&mut self, mut span: otlp::Span, annotations: Vec<Annotation>, tags: Vec<Tag>) {
        let mut endpoint = read_annotations(&mut span, annotations);
        let named = read_tags(&mut span, tags);
        if endpoint.service().is_none() {
            endpoint.service_name = Some(named.unwrap_or_else(|| UNKNOWN_SERVICE.to_owned()));
        }
        self.0.entry(endpoint).or_default().push(span);
    }

    fn into_resource_spans(self) -> Vec<ResourceSpans> {
        let services = self.0.into_iter();
        services
            .map(|(endpoint, spans)| {
                let mut attributes = Attributes::default();
                let port = endpoint.port.filter(|port| *port > 0);
                for (key, value) in [
                    ("service.name", endpoint.service_name),
                    ("ipv4", endpoint.ipv4),
                    ("ipv6", endpoint.ipv6),
                    ("port", port.map(|port| port.to_string())),
                ] {
                    if let Some(value) = value.filter(|value| !value.is_empty()) {
                        attributes.put_text(key, value);
                    }
                }
                ResourceSpans {
                    resource: Some(Resource {
                        attributes: attributes.into_key_values(),
                        ..Resource::default()
                    }),
                    scope_spans: vec![ScopeSpans {
                        spans,
                        ..ScopeSpans::default()
                    }],
                    ..ResourceSpans::default()
                }
            })
            .collect()
    }
}

/// Takes kind, events and, where the span has none, time from the annotations; returns whose span
/// it is.
fn read_annotations(span: &mut otlp::Span, annotations: Vec<Annotation>) -> Endpoint {
    let mut endpoint = None;
    let mut kind = None;
    let mut times: Option<(u64, u64)> = None;
    for annotation in annotations {
        if annotation.value.is_empty() {
            continue;
        }
        let time = nanos(annotation.timestamp);
        times = Some(times.map_or((time, time), |(first, last)| {
            (first.min(time), last.max(time))
        }));
        let told = match annotation.value.as_str() {
            "cs" | "cr" => SpanKind::Client,
            "ss" | "sr" => SpanKind::Server,
            "ms" => SpanKind::Producer,
            "mr" => SpanKind::Consumer,
            _ => {
                span.events.push(Event {
                    time_unix_nano: time,
                    name: annotation.value,
                    ..Event::default()
                });
                continue;
            }
        };
        kind = kind.or(Some(told));
        endpoint = endpoint.or(annotation.endpoint.filter(|host| host.service().is_some()));
    }
    span.kind = kind.unwrap_or(SpanKind::Unspecified).into();
    if span.start_time_unix_nano == 0 {
        let (start, end) = times.unwrap_or((0, 0));
        (span.start_time_unix_nano, span.end_time_unix_nano) = (start, end);
    }
    if span.start_time_unix_nano == 0 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_nanos() as u64);
        (span.start_time_unix_nano, span.end_time_unix_nano) = (now, now);
        let mut absent = Attributes::default();
        absent.put(START_ABSENT, Value::BoolValue(true));
        span.attributes.extend(absent.into_key_values());
    }
    endpoint.unwrap_or_default()
}

/// Takes attributes and status from the binary annotations; returns the service that they name.
fn read_tags(span: &mut otlp::Span, tags: Vec<Tag>) -> Option<String> {
    let mut attributes = Attributes::default();
    let (mut service, mut component) = (None, None);
    let mut failed = None;
    for tag in tags {
        if let Some(name) = tag.endpoint.as_ref().and_then(Endpoint::service) {
            service = Some(name.to_owned());
        }
        match (tag.key.as_str(), tag.value) {
            (LOCAL_COMPONENT, value) => {
                if let Value::StringValue(name) = &value {
                    component = Some(name.clone());
                }
                attributes.put("component", value);
            }
            ("error", value) => failed = Some(value),
            (_, value) => attributes.put(tag.key, value),
        }
    }
    span.status = status(failed, &attributes);
    span.attributes.extend(attributes.into_key_values());
    service.or(component)
}

/// An error that was told, or else a status of HTTP that is one.
fn status(failed: Option<Value>, attributes: &Attributes) -> Option<Status> {
    let message = match failed {
        Some(Value::StringValue(text)) if text != "true" => text,
        Some(_) => String::new(),
        None => {
            let code = match attributes.get("http.status_code")? {
                Value::IntValue(code) => *code,
                Value::StringValue(text) => text.parse().ok()?,
                _ => return None,
            };
            if (100..400).contains(&code) {
                return None;
            }
            attributes
                .text("http.status_message")
                .unwrap_or_default()
                .to_owned()
        }
    };
    Some(Status {
        code: StatusCode::Error.into(),
        message,
    })
}

type ThriftSpan = (otlp::Span, Vec<Annotation>, Vec<Tag>);

/// `zipkincore.Span`.
fn thrift_span(reader: &mut Reader<'_>, kind: Kind) -> Result<ThriftSpan, Malformed> {
    let mut span = otlp::Span::default();
    let (mut annotations, mut tags) = (Vec::new(), Vec::new());
    let (mut high, mut low) = (0, 0);
    let (mut timestamp, mut duration) = (0, 0);
    reader.structure(kind, "Span", &[1, 3, 4], |reader, id, kind| {
        match id {
            1 => low = reader.integer(kind)?,
            3 => span.name = reader.text(kind)?,
            4 => span.span_id = reader.integer(kind)?.to_be_bytes().to_vec(),
            5 => {
                let parent = reader.integer(kind)?;
                if parent != 0 {
                    span.parent_span_id = parent.to_be_bytes().to_vec();
                }
            }
            6 => reader.list(kind, |reader, kind| {
                annotations.push(thrift_annotation(reader, kind)?);
                Ok(())
            })?,
            8 => reader.list(kind, |reader, kind| {
                tags.push(thrift_tag(reader, kind)?);
                Ok(())
            })?,
            10 => timestamp = thrift_micros(reader, kind)?,
            11 => duration = thrift_micros(reader, kind)?,
            12 => high = reader.integer(kind)?,
            _ => reader.skip(kind)?,
        }
        Ok(())
    })?;
    span.trace_id = [high.to_be_bytes(), low.to_be_bytes()].concat();
    span.start_time_unix_nano = nanos(timestamp);
    span.end_time_unix_nano = nanos(timestamp.saturating_add(duration));
    Ok((span, annotations, tags))
}

fn thrift_micros(reader: &mut Reader<'_>, kind: Kind) -> Result<u64, Malformed> {
    Ok(u64::try_from(reader.integer(kind)?).unwrap_or(0))
}

fn thrift_annotation(reader: &mut Reader<'_>, kind: Kind) -> Result<Annotation, Malformed> {
    let mut annotation = Annotation::default();
    reader.structure(kind, "Annotation", &[1, 2], |reader, id, kind| {
        match id {
            1 => annotation.timestamp = thrift_micros(reader, kind)?,
            2 => annotation.value = reader.text(kind)?,
            3 => annotation.endpoint = Some(thrift_endpoint(reader, kind)?),
            _ => reader.skip(kind)?,
        }
        Ok(())
    })?;
    Ok(annotation)
}

fn thrift_tag(reader: &mut Reader<'_>, kind: Kind) -> Result<Tag, Malformed> {
    let (mut key, mut bytes, mut code, mut endpoint) = (String::new(), &b""[..], 0, None);
    reader.structure(kind, "BinaryAnnotation", &[1, 2, 3], |reader, id, kind| {
        match id {
            1 => key = reader.text(kind)?,
            2 => bytes = reader.binary(kind)?,
            3 => code = reader.integer(kind)?,
            4 => endpoint = Some(thrift_endpoint(reader, kind)?),
            _ => reader.skip(kind)?,
        }
        Ok(())
    })?;
    let value = thrift_value(code, bytes).ok_or_else(|| {
        reader.error(format_args!(
            "annotation '{key}' has no value of type {code}"
        ))
    })?;
    Ok(Tag {
        key,
        value,
        endpoint,
    })
}

/// `AnnotationType`: numbers are in network byte order.
fn thrift_value(code: i64, bytes: &[u8]) -> Option<Value> {
    let value = match code {
        0 => Value::BoolValue(bytes == [1]),
        1 => Value::StringValue(STANDARD.encode(bytes)),
        2 => Value::IntValue(i16::from_be_bytes(*bytes.first_chunk()?).into()),
        3 => Value::IntValue(i32::from_be_bytes(*bytes.first_chunk()?).into()),
        4 => Value::IntValue(i64::from_be_bytes(*bytes.first_chunk()?)),
        5 => Value::DoubleValue(f64::from_be_bytes(*bytes.first_chunk()?)),
        6 => Value::StringValue(String::from_utf8_lossy(bytes).into_owned()),
        _ => return None,
    };
    Some(value)
}

fn thrift_endpoint(reader: &mut Reader<'_>, kind: Kind) -> Result<Endpoint, Malformed> {
    let mut endpoint = Endpoint::default();
    reader.structure(kind, "Endpoint", &[], |reader, id, kind| {
        match id {
            1 => {
                let address = reader.integer(kind)? as u32;
                endpoint.ipv4 = (address != 0).then(|| Ipv4Addr::from(address).to_string());
            }
            // Thrift knows no unsigned numbers.
            2 => endpoint.port = Some(reader.integer(kind)? as u16),
            3 => endpoint.service_name = Some(reader.text(kind)?),
            4 => {
                let bytes: Option<[u8; 16]> = reader.binary(kind)?.try_into().ok();
                endpoint.ipv6 = bytes.map(|bytes| Ipv6Addr::from(bytes).to_string());
            }
            _ => reader.skip(kind)?,
        }
        Ok(())
    })?;
    Ok(endpoint)
}
