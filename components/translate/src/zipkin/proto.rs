//! Zipkin v2 in protobuf.

use std::net::{Ipv4Addr, Ipv6Addr};

use prost::Message as _;
use tempo_proto::zipkin::proto3::{self, ListOfSpans, span};

use super::{Annotation, Endpoint, Kind, Span};
use crate::Malformed;

pub(super) fn read(input: &[u8]) -> Result<Vec<Span>, Malformed> {
    let list = ListOfSpans::decode(input)
        .map_err(|error| Malformed::new(format!("not a ListOfSpans: {error}")))?;
    list.spans.into_iter().map(span).collect()
}

fn span(span: proto3::Span) -> Result<Span, Malformed> {
    let kind = match span.kind() {
        span::Kind::SpanKindUnspecified => Kind::Unspecified,
        span::Kind::Client => Kind::Client,
        span::Kind::Server => Kind::Server,
        span::Kind::Producer => Kind::Producer,
        span::Kind::Consumer => Kind::Consumer,
    };
    let mut tags: Vec<(String, String)> = span.tags.into_iter().collect();
    tags.sort();
    let annotations = span.annotations.into_iter();
    Ok(Span {
        trace_id: trace_id(&span.trace_id)?,
        id: id("id", &span.id)?,
        parent_id: match span.parent_id.as_slice() {
            [] => None,
            parent => Some(id("parent_id", parent)?),
        },
        kind,
        name: span.name,
        timestamp: span.timestamp,
        duration: span.duration,
        local: span.local_endpoint.map(endpoint),
        remote: span.remote_endpoint.map(endpoint),
        annotations: annotations
            .map(|annotation| Annotation {
                timestamp: annotation.timestamp,
                value: annotation.value,
            })
            .collect(),
        tags,
    })
}

/// 16 bytes, or the lower 8 of them.
fn trace_id(bytes: &[u8]) -> Result<[u8; 16], Malformed> {
    if let Ok(id) = bytes.try_into() {
        return Ok(id);
    }
    let low = id("trace_id", bytes)?;
    let mut id = [0; 16];
    id[8..].copy_from_slice(&low);
    Ok(id)
}

fn id(what: &str, bytes: &[u8]) -> Result<[u8; 8], Malformed> {
    bytes
        .try_into()
        .map_err(|_| Malformed::new(format!("{what} has {} bytes", bytes.len())))
}

fn endpoint(endpoint: proto3::Endpoint) -> Endpoint {
    let ipv4: Option<[u8; 4]> = endpoint.ipv4.try_into().ok();
    let ipv6: Option<[u8; 16]> = endpoint.ipv6.try_into().ok();
    Endpoint {
        service_name: endpoint.service_name,
        ipv4: ipv4.map(|address| Ipv4Addr::from(address).to_string()),
        ipv6: ipv6.map(|address| Ipv6Addr::from(address).to_string()),
        port: endpoint.port as u16,
    }
}
