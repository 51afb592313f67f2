//! OTLP over HTTP: `POST /v1/traces`, protobuf or JSON.
//!
//! Statuses, bodies and headers are those of the OpenTelemetry collector's receiver, which Tempo
//! embeds.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, X_CONTENT_TYPE_OPTIONS},
};
use hyper::body::Incoming;

use super::{
    Handler, NO_GENERATE_METRICS_HEADER,
    body::Reply,
    http::{content_encoding, media_type, plain_text, read, response, set_retry_after, too_large},
    partial_success, rpc_status,
};
use crate::{
    config::HttpReceiver,
    push::{Distributor, Format, OrgId, PushRequest, Source},
    refusal::Refusal,
    sink::PartialSuccess,
};

const PROTOBUF_TYPE: &str = "application/x-protobuf";
const JSON_TYPE: &str = "application/json";

static SOURCE: Source = Source {
    receiver: "otlp/otlp_receiver",
    transport: "http",
    too_large,
};

/// The receiver.
pub(crate) struct OtlpHttp {
    config: HttpReceiver,
    distributor: Arc<Distributor>,
}

impl OtlpHttp {
    pub(crate) fn new(config: HttpReceiver, distributor: Arc<Distributor>) -> Self {
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
        let encoding = content_encoding(&head.headers)?;
        let mut permit = self.distributor.inflight().open();
        let body = read(&self.config, body, &mut permit).await?;
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
    let media_type = media_type(headers)?;
    if media_type.eq_ignore_ascii_case(PROTOBUF_TYPE) {
        Some(Format::Protobuf)
    } else if media_type.eq_ignore_ascii_case(JSON_TYPE) {
        Some(Format::Json)
    } else {
        None
    }
}

fn accepted(format: Format, success: &PartialSuccess) -> Response<Reply> {
    let ok = StatusCode::OK;
    if format == Format::Json {
        response(ok, JSON_TYPE, partial_success::to_json(success))
    } else {
        response(ok, PROTOBUF_TYPE, partial_success::to_protobuf(success))
    }
}

fn refused(format: Format, refusal: &Refusal) -> Response<Reply> {
    let status = refusal.kind.http_status();
    let mut response = if format == Format::Json {
        response(status, JSON_TYPE, rpc_status::to_json(refusal))
    } else {
        response(status, PROTOBUF_TYPE, rpc_status::to_protobuf(refusal))
    };
    set_retry_after(&mut response, refusal);
    response
}
