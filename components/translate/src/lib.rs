//! Spans of Jaeger and Zipkin as OTLP.
//!
//! Owns what a batch of Jaeger or a list of Zipkin says in OpenTelemetry's words, as the
//! OpenTelemetry collector's receivers translate it, which Tempo embeds: a trace looks the same
//! whoever received it. Pure. Must never believe a length that its input claims: nothing is set
//! aside for what has not been read.

mod attributes;
mod jaeger;
mod thrift;
mod zipkin;

use prost::Message as _;
use tempo_proto::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;

/// How spans are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `jaeger.api_v2.PostSpansRequest` in protobuf, as over gRPC.
    JaegerProto,
    /// `jaeger.thrift` `Batch` in Thrift's binary protocol, as over HTTP.
    JaegerThrift,
    /// A call of the agent's `emitBatch` in Thrift's binary protocol, as over UDP.
    JaegerAgentBinary,
    /// The same in Thrift's compact protocol.
    JaegerAgentCompact,
    /// A list of spans of Zipkin v2 in JSON.
    ZipkinJson(Tags),
    /// `zipkin.proto3.ListOfSpans` in protobuf.
    ZipkinProto(Tags),
    /// A list of spans of Zipkin v1 in JSON.
    ZipkinV1Json(Tags),
    /// A list of spans of Zipkin v1 in Thrift's binary protocol.
    ZipkinV1Thrift,
}

/// What becomes of Zipkin's tags, which are all texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tags {
    /// They stay texts.
    Text,
    /// Those that look like a number or a truth become one (`parse_string_tags`).
    Parsed,
}

/// Spans that are not what they are said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Malformed {
    fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

/// Replaces `otlp` by the protobuf form of an `ExportTraceServiceRequest` with the spans of `input`.
///
/// # Errors
/// When `input` is not in that format; the message says what and, in JSON and Thrift, where.
pub fn to_otlp(format: Format, input: &[u8], otlp: &mut Vec<u8>) -> Result<(), Malformed> {
    let resource_spans = match format {
        Format::JaegerProto => jaeger::from_proto(input)?,
        Format::JaegerThrift => jaeger::from_thrift(input)?,
        Format::JaegerAgentBinary => jaeger::from_agent(input, thrift::Protocol::Binary)?,
        Format::JaegerAgentCompact => jaeger::from_agent(input, thrift::Protocol::Compact)?,
        Format::ZipkinJson(tags) => zipkin::from_json(input, tags)?,
        Format::ZipkinProto(tags) => zipkin::from_proto(input, tags)?,
        Format::ZipkinV1Json(tags) => zipkin::from_v1_json(input, tags)?,
        Format::ZipkinV1Thrift => zipkin::from_v1_thrift(input)?,
    };
    otlp.clear();
    let request = ExportTraceServiceRequest { resource_spans };
    // A vector grows as it must.
    let _ = request.encode(otlp);
    Ok(())
}
