//! OTLP over HTTP: `POST /v1/traces`, protobuf or JSON.
//!
//! Statuses, bodies and headers are those of the OpenTelemetry collector's receiver, which Tempo
//! embeds.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS},
};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{
    Handler, NO_GENERATE_METRICS_HEADER,
    body::{BodyError, BodyReader, Reply},
    partial_success, rpc_status,
};
use crate::{
    config::OtlpHttpReceiver,
    decompress::Encoding,
    inflight::InflightPermit,
    push::{Distributor, Format, OrgId, PushRequest, Source},
    refusal::{Refusal, RefusalKind},
    sink::PartialSuccess,
};

const PROTOBUF_TYPE: &str = "application/x-protobuf";
const JSON_TYPE: &str = "application/json";

static SOURCE: Source = Source {
    receiver: "otlp/otlp_receiver",
    transport: "http",
    too_large,
};

fn too_large(_max_bytes: usize) -> Refusal {
    Refusal::invalid("http: request body too large")
}

/// The receiver.
pub(crate) struct OtlpHttp {
    config: OtlpHttpReceiver,
    distributor: Arc<Distributor>,
}

impl OtlpHttp {
    pub(crate) fn new(config: OtlpHttpReceiver, distributor: Arc<Distributor>) -> Self {
        Self {
            config,
            distributor,
        }
    }

    async fn push(
        &self,
        request: Request<Incoming>,
        format: Format,
    ) -> Result<PartialSuccess, Refusal> {
        let (head, body) = request.into_parts();
        let encoding = encoding(&head.headers)?;
        let mut permit = self.distributor.inflight().open();
        let body = self.read(body, &mut permit).await?;
        let request = PushRequest {
            body,
            format,
            encoding,
            max_decompressed_bytes: self.config.max_request_body_bytes,
            org_id: OrgId::from_headers(&head.headers),
            skip_metrics_generation: head.headers.contains_key(NO_GENERATE_METRICS_HEADER),
            source: &SOURCE,
        };
        self.distributor.push(request, permit).await
    }

    async fn read(&self, body: Incoming, permit: &mut InflightPermit) -> Result<Bytes, Refusal> {
        let read = BodyReader::new(body).read_to_end(self.config.max_request_body_bytes, permit);
        match timeout(self.config.read_timeout, read).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(BodyError::TooLarge)) => Err(too_large(self.config.max_request_body_bytes)),
            Ok(Err(BodyError::Overloaded(overloaded))) => Err(overloaded.into()),
            Ok(Err(error @ BodyError::Broken(_))) => Err(Refusal::invalid(error.to_string())),
            Err(_) => Err(Refusal::unavailable(format!(
                "the request did not arrive whole within {:?}",
                self.config.read_timeout
            ))),
        }
    }
}

impl Handler for OtlpHttp {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Reply> {
        if request.uri().path() != self.config.traces_url_path {
            let mut response = plain_text(StatusCode::NOT_FOUND, "404 page not found\n");
            response
                .headers_mut()
                .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            return response;
        }
        if request.method() != Method::POST {
            let mut response = plain_text(
                StatusCode::METHOD_NOT_ALLOWED,
                "405 method not allowed, supported: [POST]",
            );
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let Some(format) = format(request.headers()) else {
            return plain_text(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "415 unsupported media type, supported: [application/json, application/x-protobuf]",
            );
        };
        match self.push(request, format).await {
            Ok(success) => accepted(format, &success),
            Err(refusal) => refused(format, &refusal),
        }
    }
}

/// What the content type stands for; its parameters do not matter.
fn format(headers: &HeaderMap) -> Option<Format> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media_type = content_type.split(';').next()?.trim();
    if media_type.eq_ignore_ascii_case(PROTOBUF_TYPE) {
        Some(Format::Protobuf)
    } else if media_type.eq_ignore_ascii_case(JSON_TYPE) {
        Some(Format::Json)
    } else {
        None
    }
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let name = headers
        .get(CONTENT_ENCODING)
        .map_or(&b""[..], HeaderValue::as_bytes);
    Encoding::from_http(name).ok_or_else(|| {
        Refusal::invalid(format!(
            "unsupported Content-Encoding: {}",
            String::from_utf8_lossy(name)
        ))
    })
}

fn accepted(format: Format, success: &PartialSuccess) -> Response<Reply> {
    let ok = StatusCode::OK;
    match format {
        Format::Protobuf => response(ok, PROTOBUF_TYPE, partial_success::to_protobuf(success)),
        Format::Json => response(ok, JSON_TYPE, partial_success::to_json(success)),
    }
}

fn refused(format: Format, refusal: &Refusal) -> Response<Reply> {
    let status = refusal.kind.http_status();
    let mut response = match format {
        Format::Protobuf => response(status, PROTOBUF_TYPE, rpc_status::to_protobuf(refusal)),
        Format::Json => response(status, JSON_TYPE, rpc_status::to_json(refusal)),
    };
    if refusal.kind == RefusalKind::ResourceExhausted
        && let Some(after) = refusal.retry_after
    {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn plain_text(status: StatusCode, text: &'static str) -> Response<Reply> {
    response(status, "text/plain", text)
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Reply> {
    let mut response = Response::new(Reply::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
