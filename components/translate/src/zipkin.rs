//! Zipkin's spans as OTLP.

mod json;
mod proto;
mod spans;
mod v1;

use serde::Deserialize;
use tempo_proto::opentelemetry::proto::{common::v1::any_value::Value, trace::v1::ResourceSpans};

use crate::{Malformed, Tags};

pub(crate) fn from_json(input: &[u8], tags: Tags) -> Result<Vec<ResourceSpans>, Malformed> {
    spans::translate(json::read(input)?, tags)
}

pub(crate) fn from_proto(input: &[u8], tags: Tags) -> Result<Vec<ResourceSpans>, Malformed> {
    spans::translate(proto::read(input)?, tags)
}

pub(crate) fn from_v1_json(input: &[u8], tags: Tags) -> Result<Vec<ResourceSpans>, Malformed> {
    v1::from_json(input, tags)
}

pub(crate) fn from_v1_thrift(input: &[u8]) -> Result<Vec<ResourceSpans>, Malformed> {
    v1::from_thrift(input)
}

/// A span of Zipkin v2.
#[derive(Debug, Default)]
struct Span {
    trace_id: [u8; 16],
    id: [u8; 8],
    parent_id: Option<[u8; 8]>,
    kind: Kind,
    name: String,
    /// Microseconds since the epoch; 0 is unknown.
    timestamp: u64,
    /// Microseconds.
    duration: u64,
    local: Option<Endpoint>,
    remote: Option<Endpoint>,
    annotations: Vec<Annotation>,
    tags: Vec<(String, String)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[default]
    Unspecified,
    Client,
    Server,
    Producer,
    Consumer,
}

#[derive(Debug, Default)]
struct Endpoint {
    service_name: String,
    ipv4: Option<String>,
    ipv6: Option<String>,
    port: u16,
}

#[derive(Debug, Deserialize)]
struct Annotation {
    /// Microseconds since the epoch.
    #[serde(default, deserialize_with = "json::micros")]
    timestamp: u64,
    value: String,
}

/// What a text becomes.
fn tag_value(text: String, tags: Tags) -> Value {
    match tags {
        Tags::Text => Value::StringValue(text),
        Tags::Parsed => parsed(text),
    }
}

/// A whole number, a decimal number or a truth if the text is written like one.
fn parsed(text: String) -> Value {
    let unsigned = text.strip_prefix('-').unwrap_or(&text);
    let is_number = unsigned.starts_with(|c: char| c.is_ascii_digit());
    if is_number && let Ok(number) = text.parse::<i64>() {
        return Value::IntValue(number);
    }
    let is_decimal = is_number && unsigned.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if is_decimal && let Ok(number) = text.parse::<f64>() {
        return Value::DoubleValue(number);
    }
    match text.as_str() {
        "true" => Value::BoolValue(true),
        "false" => Value::BoolValue(false),
        _ => Value::StringValue(text),
    }
}

/// An id of 16 or fewer hexadecimal digits.
fn short_id(what: &str, text: &str) -> Result<[u8; 8], Malformed> {
    hexadecimal(text)
        .filter(|_| text.len() <= 16)
        .map(u64::to_be_bytes)
        .ok_or_else(|| Malformed::new(format!("{what} '{text}' is not 16 hexadecimal digits")))
}

/// An id of 32 or fewer hexadecimal digits.
fn long_id(what: &str, text: &str) -> Result<[u8; 16], Malformed> {
    let halves = || {
        if text.len() > 32 {
            return None;
        }
        let (high, low) = text.split_at_checked(text.len().saturating_sub(16))?;
        let high = match high {
            "" => 0,
            high => hexadecimal(high)?,
        };
        Some((high, hexadecimal(low)?))
    };
    let (high, low) = halves().ok_or_else(|| {
        Malformed::new(format!(
            "{what} '{text}' is not 16 or 32 hexadecimal digits"
        ))
    })?;
    let mut id = [0; 16];
    id[..8].copy_from_slice(&high.to_be_bytes());
    id[8..].copy_from_slice(&low.to_be_bytes());
    Ok(id)
}

fn hexadecimal(digits: &str) -> Option<u64> {
    // A sign is no digit.
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| all_digits)
}

/// Microseconds as nanoseconds; what does not fit is the most that does, in the year 2554.
fn nanos(micros: u64) -> u64 {
    micros.saturating_mul(1_000)
}
