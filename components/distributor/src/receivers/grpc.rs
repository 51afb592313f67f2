//! Spans over gRPC: `TraceService/Export` of OTLP, `CollectorService/PostSpans` of Jaeger.
//!
//! A unary call is five bytes before a message and a status behind it, so it is served directly on
//! HTTP/2: the message stays the bytes that came, in whichever compression, and no object is made
//! of it. Statuses and texts are those of grpc-go, which Tempo uses.

use std::{fmt::Write, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{
    Handler, NO_GENERATE_METRICS_HEADER,
    body::{BodyError, BodyReader, Reply},
    partial_success, rpc_status,
};
use crate::{
    config::GrpcReceiver,
    decompress::Encoding,
    inflight::InflightPermit,
    push::{Distributor, Format, OrgId, PushRequest, Source},
    refusal::{Refusal, RefusalKind},
    sink::PartialSuccess,
};

/// A unary method that takes spans.
pub(crate) struct SpanMethod {
    path: &'static str,
    format: Format,
    source: Source,
    /// The message of the answer.
    answer: fn(&PartialSuccess) -> Vec<u8>,
}

/// OTLP's.
pub(crate) static OTLP: SpanMethod = SpanMethod {
    path: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    format: Format::Protobuf,
    source: Source {
        receiver: "otlp/otlp_receiver",
        transport: "grpc",
        too_large: too_large_decompressed,
    },
    answer: partial_success::to_protobuf,
};

/// Jaeger's, whose answer has no field.
pub(crate) static JAEGER: SpanMethod = SpanMethod {
    path: "/jaeger.api_v2.CollectorService/PostSpans",
    format: Format::Foreign(tempo_translate::Format::JaegerProto),
    source: Source {
        receiver: "jaeger/jaeger_receiver",
        transport: "grpc",
        too_large: too_large_decompressed,
    },
    answer: |_| Vec::new(),
};

/// The encodings a client may use, as it is told in a refusal.
const ACCEPTED_ENCODINGS: &str = "identity,gzip,snappy,zstd";

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

fn too_large_decompressed(max_bytes: usize) -> Refusal {
    Refusal::new(
        RefusalKind::ResourceExhausted,
        format!("grpc: received message after decompression larger than max {max_bytes}"),
    )
}

/// The receiver.
pub(crate) struct Grpc {
    config: GrpcReceiver,
    method: &'static SpanMethod,
    distributor: Arc<Distributor>,
}

impl Grpc {
    pub(crate) fn new(
        config: GrpcReceiver,
        method: &'static SpanMethod,
        distributor: Arc<Distributor>,
    ) -> Self {
        Self {
            config,
            method,
            distributor,
        }
    }

    async fn call(&self, request: Request<Incoming>) -> Result<PartialSuccess, Refusal> {
        if request.uri().path() != self.method.path {
            return Err(unknown_method(request.uri().path(), self.method.path));
        }
        let deadline = deadline(request.headers())?;
        let call = self.export(request);
        match deadline {
            None => call.await,
            Some(deadline) => timeout(deadline, call).await.unwrap_or_else(|_| {
                Err(Refusal::new(
                    RefusalKind::DeadlineExceeded,
                    "context deadline exceeded",
                ))
            }),
        }
    }

    async fn export(&self, request: Request<Incoming>) -> Result<PartialSuccess, Refusal> {
        let (head, body) = request.into_parts();
        let mut permit = self.distributor.inflight().open();
        let read = self.read_message(body, &head.headers, &mut permit);
        let (encoding, message) = timeout(self.config.read_timeout, read)
            .await
            .unwrap_or_else(|_| {
                Err(Refusal::unavailable(format!(
                    "the request did not arrive whole within {:?}",
                    self.config.read_timeout
                )))
            })?;
        let request = PushRequest {
            body: message,
            format: self.method.format,
            encoding,
            max_decompressed_bytes: self.config.max_message_bytes,
            org_id: OrgId::from_headers(&head.headers),
            skip_metrics_generation: head.headers.contains_key(NO_GENERATE_METRICS_HEADER),
            source: &self.method.source,
        };
        self.distributor.push(request, permit).await
    }

    async fn read_message(
        &self,
        body: Incoming,
        headers: &HeaderMap,
        permit: &mut InflightPermit,
    ) -> Result<(Encoding, Bytes), Refusal> {
        let max_bytes = self.config.max_message_bytes;
        let mut reader = BodyReader::new(body);
        reader
            .read_to_length(PREFIX_BYTES, permit)
            .await
            .map_err(body_refusal)?;
        let Some((&[compressed, ref length @ ..], _)) =
            reader.so_far().split_first_chunk::<PREFIX_BYTES>()
        else {
            return Err(internal("the call ended before its message began"));
        };
        let length = u32::from_be_bytes(*length) as usize;
        let encoding = match compressed {
            0 => Encoding::Identity,
            1 => message_encoding(headers)?,
            other => return Err(internal(format!("invalid compression flag {other}"))),
        };
        if length > max_bytes {
            return Err(Refusal::new(
                RefusalKind::ResourceExhausted,
                format!("grpc: received message larger than max ({length} vs. {max_bytes})"),
            ));
        }
        let mut body = reader
            .read_to_end(PREFIX_BYTES + length, permit)
            .await
            .map_err(body_refusal)?;
        body.advance(PREFIX_BYTES);
        if body.len() < length {
            return Err(internal(format!(
                "the call ended within its message of {length} bytes: received {}",
                body.len()
            )));
        }
        Ok((encoding, body))
    }
}

impl Handler for Grpc {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Reply> {
        if request.method() != Method::POST {
            return http_error(StatusCode::METHOD_NOT_ALLOWED);
        }
        if !is_grpc(request.headers()) {
            return http_error(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        match self.call(request).await {
            Ok(success) => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                respond(
                    Reply::new(message(&(self.method.answer)(&success))).with_trailers(trailers),
                )
            }
            Err(refusal) => refused(&refusal),
        }
    }
}

/// The answer as a message of its own, not compressed.
fn message(response: &[u8]) -> Vec<u8> {
    let length = u32::try_from(response.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(PREFIX_BYTES + response.len());
    message.push(0);
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(response);
    message
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type
        .and_then(|name| name.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest, [] | [b'+' | b';', ..]))
}

/// The encoding of a message that is marked as compressed.
fn message_encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let name = headers
        .get("grpc-encoding")
        .map_or(&b""[..], HeaderValue::as_bytes);
    match Encoding::from_grpc(name) {
        Some(Encoding::Identity) => Err(internal(
            "grpc: compressed flag set with identity or empty encoding",
        )),
        Some(encoding) => Ok(encoding),
        None => Err(Refusal::new(
            RefusalKind::Unimplemented,
            format!(
                "grpc: Decompressor is not installed for grpc-encoding {:?}",
                String::from_utf8_lossy(name)
            ),
        )),
    }
}

/// How long the client is going to wait (`grpc-timeout`).
fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .and_then(parse_timeout)
        .map(Some)
        .ok_or_else(|| internal(format!("malformed grpc-timeout: {value:?}")))
}

/// Up to eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

fn unknown_method(path: &str, known: &str) -> Refusal {
    let message = match path.trim_start_matches('/').rsplit_once('/') {
        Some((service, method)) if known[1..].starts_with(&format!("{service}/")) => {
            format!("unknown method {method} for service {service}")
        }
        Some((service, _)) => format!("unknown service {service}"),
        None => format!("malformed method name: {path:?}"),
    };
    Refusal::new(RefusalKind::Unimplemented, message)
}

fn internal(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::Internal, message)
}

fn body_refusal(error: BodyError) -> Refusal {
    match error {
        BodyError::Overloaded(overloaded) => overloaded.into(),
        // There is something behind the one message.
        BodyError::TooLarge => internal("a unary call has one message: received more"),
        BodyError::Broken(_) => internal(error.to_string()),
    }
}

/// An answer that is only a status: it travels in the headers, there is no body.
fn refused(refusal: &Refusal) -> Response<Reply> {
    let mut response = respond(Reply::default());
    let headers = response.headers_mut();
    headers.insert("grpc-status", HeaderValue::from(refusal.kind.grpc_code()));
    if let Ok(message) = HeaderValue::try_from(percent_encoded(&refusal.message)) {
        headers.insert("grpc-message", message);
    }
    if refusal.retry_after.is_some() {
        let details = STANDARD_NO_PAD.encode(rpc_status::to_protobuf(refusal));
        if let Ok(details) = HeaderValue::try_from(details) {
            headers.insert("grpc-status-details-bin", details);
        }
    }
    if refusal.kind == RefusalKind::Unimplemented {
        headers.insert(
            "grpc-accept-encoding",
            HeaderValue::from_static(ACCEPTED_ENCODINGS),
        );
    }
    response
}

/// `text` as `grpc-message` carries it: printable ASCII but `%`, all else percent-encoded.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn respond(reply: Reply) -> Response<Reply> {
    let mut response = Response::new(reply);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn http_error(status: StatusCode) -> Response<Reply> {
    let mut response = Response::new(Reply::default());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        assert_eq!(parse_timeout("10S"), Some(Duration::from_secs(10)));
        assert_eq!(parse_timeout("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(
            parse_timeout("99999999n"),
            Some(Duration::from_nanos(99_999_999))
        );
        for bad in ["", "S", "10", "10s", "-1S", "123456789S", "1\u{b5}"] {
            assert_eq!(parse_timeout(bad), None, "{bad}");
        }
    }

    #[test]
    fn messages_survive_as_header_values() {
        assert_eq!(percent_encoded("100% é\n"), "100%25 %C3%A9%0A");
    }

    #[test]
    fn content_types_of_grpc() {
        let is_grpc = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            super::is_grpc(&headers)
        };
        assert!(is_grpc("application/grpc"));
        assert!(is_grpc("application/grpc+proto"));
        assert!(is_grpc("application/grpc; charset=utf-8"));
        assert!(!is_grpc("application/grpc-web"));
        assert!(!is_grpc("application/json"));
    }
}
