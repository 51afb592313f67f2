//! Zipkin v2 in JSON.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, de};

use super::{Annotation, Endpoint, Kind, Span, long_id, short_id};
use crate::Malformed;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonSpan {
    trace_id: String,
    id: String,
    parent_id: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    #[serde(default, deserialize_with = "micros")]
    timestamp: u64,
    #[serde(default, deserialize_with = "micros")]
    duration: u64,
    local_endpoint: Option<JsonEndpoint>,
    remote_endpoint: Option<JsonEndpoint>,
    annotations: Option<Vec<Annotation>>,
    tags: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonEndpoint {
    service_name: Option<String>,
    ipv4: Option<String>,
    ipv6: Option<String>,
    port: Option<u16>,
}

/// Microseconds: a whole number, or one with a fraction, which some clients write; `null` is 0.
pub(super) fn micros<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = u64;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a number of microseconds")
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
            u64::try_from(number).map_err(|_| E::custom("is before 1970"))
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<u64, E> {
            if number < 0.0 {
                return Err(E::custom("is before 1970"));
            }
            Ok(number as u64)
        }

        fn visit_unit<E: de::Error>(self) -> Result<u64, E> {
            Ok(0)
        }
    }
    deserializer.deserialize_any(Visitor)
}

pub(super) fn read(input: &[u8]) -> Result<Vec<Span>, Malformed> {
    let spans: Vec<JsonSpan> = serde_json::from_slice(input)
        .map_err(|error| Malformed::new(format!("not a list of Zipkin spans in JSON: {error}")))?;
    spans.into_iter().map(span).collect()
}

fn span(span: JsonSpan) -> Result<Span, Malformed> {
    let parent_id = span.parent_id.filter(|id| !id.is_empty());
    Ok(Span {
        trace_id: long_id("traceId", &span.trace_id)?,
        id: short_id("id", &span.id)?,
        parent_id: parent_id.map(|id| short_id("parentId", &id)).transpose()?,
        kind: match span.kind.as_deref() {
            Some("CLIENT") => Kind::Client,
            Some("SERVER") => Kind::Server,
            Some("PRODUCER") => Kind::Producer,
            Some("CONSUMER") => Kind::Consumer,
            _ => Kind::Unspecified,
        },
        name: span.name.unwrap_or_default(),
        timestamp: span.timestamp,
        duration: span.duration,
        local: span.local_endpoint.map(endpoint),
        remote: span.remote_endpoint.map(endpoint),
        annotations: span.annotations.unwrap_or_default(),
        tags: span.tags.unwrap_or_default().into_iter().collect(),
    })
}

fn endpoint(endpoint: JsonEndpoint) -> Endpoint {
    Endpoint {
        service_name: endpoint.service_name.unwrap_or_default(),
        ipv4: endpoint.ipv4.filter(|address| !address.is_empty()),
        ipv6: endpoint.ipv6.filter(|address| !address.is_empty()),
        port: endpoint.port.unwrap_or(0),
    }
}
