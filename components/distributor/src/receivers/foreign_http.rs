//! Jaeger's Thrift and Zipkin over HTTP.
//!
//! Paths, types and the answer to what was taken (202) are those of the OpenTelemetry collector's
//! receivers. What was not taken is told more exactly than there, where everything that is not
//! the client's fault is a 500: 429 over a limit, 503 for what is to be sent again.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header::ALLOW, request::Parts,
};
use hyper::body::Incoming;
use tempo_translate::{Format as Foreign, Tags};

use super::{
    Handler, NO_GENERATE_METRICS_HEADER,
    body::Reply,
    http::{content_encoding, media_type, plain_text, read, set_retry_after, too_large},
};
use crate::{
    config::HttpReceiver,
    push::{Distributor, Format, OrgId, PushRequest, Source},
    refusal::Refusal,
};

/// Where Jaeger's clients send.
const JAEGER_PATH: &str = "/api/traces";
const JAEGER_TYPES: [&str; 2] = [
    "application/x-thrift",
    "application/vnd.apache.thrift.binary",
];

/// What is in a path to which Zipkin's first version sends.
const ZIPKIN_V1_PATH: &str = "api/v1/spans";

const JAEGER: &str = "jaeger/jaeger_receiver";
const ZIPKIN: &str = "zipkin/zipkin_receiver";

macro_rules! source {
    ($name:ident, $receiver:expr, $transport:literal) => {
        static $name: Source = Source {
            receiver: $receiver,
            transport: $transport,
            too_large,
        };
    };
}

source!(JAEGER_THRIFT, JAEGER, "collector_http");
source!(ZIPKIN_V1_THRIFT, ZIPKIN, "http_v1_thrift");
source!(ZIPKIN_V1_JSON, ZIPKIN, "http_v1_json");
source!(ZIPKIN_V2_JSON, ZIPKIN, "http_v2_json");
source!(ZIPKIN_V2_PROTO, ZIPKIN, "http_v2_proto");

/// Whose spans are received.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sender {
    Jaeger,
    Zipkin(Tags),
}

/// The receiver.
pub(crate) struct ForeignHttp {
    config: HttpReceiver,
    sender: Sender,
    distributor: Arc<Distributor>,
}

impl ForeignHttp {
    pub(crate) fn new(config: HttpReceiver, sender: Sender, distributor: Arc<Distributor>) -> Self {
        Self {
            config,
            sender,
            distributor,
        }
    }

    async fn push(
        &self,
        head: Parts,
        body: Incoming,
        format: Foreign,
        source: &'static Source,
    ) -> Result<(), Refusal> {
        let encoding = content_encoding(&head.headers)?;
        let mut permit = self.distributor.inflight().open();
        let body = read(&self.config, body, &mut permit).await?;
        let request = PushRequest {
            body,
            format: Format::Foreign(format),
            encoding,
            max_decompressed_bytes: self.config.max_request_body_bytes,
            org_id: OrgId::from_headers(&head.headers),
            skip_metrics_generation: head.headers.contains_key(NO_GENERATE_METRICS_HEADER),
            source,
        };
        self.distributor.push(request, permit).await?;
        Ok(())
    }
}

impl Handler for ForeignHttp {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Reply> {
        let (head, body) = request.into_parts();
        let known = match self.sender {
            Sender::Jaeger => jaeger(&head),
            Sender::Zipkin(tags) => Ok(zipkin(&head, tags)),
        };
        let (format, source) = match known {
            Ok(known) => known,
            Err(response) => return response,
        };
        match self.push(head, body, format, source).await {
            Ok(()) => {
                let mut accepted = Response::new(Reply::default());
                *accepted.status_mut() = StatusCode::ACCEPTED;
                accepted
            }
            Err(refusal) => {
                let text = format!("{}\n", refusal.message);
                let mut response = plain_text(refusal.kind.http_status(), text);
                set_retry_after(&mut response, &refusal);
                response
            }
        }
    }
}

type Known = (Foreign, &'static Source);

#[expect(clippy::result_large_err, reason = "is answered at once")]
fn jaeger(head: &Parts) -> Result<Known, Response<Reply>> {
    if head.uri.path() != JAEGER_PATH {
        return Err(plain_text(StatusCode::NOT_FOUND, "404 page not found\n"));
    }
    if head.method != Method::POST {
        let mut response = plain_text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed\n");
        let headers: &mut HeaderMap = response.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
        return Err(response);
    }
    match media_type(&head.headers) {
        Some(found)
            if JAEGER_TYPES
                .iter()
                .any(|known| found.eq_ignore_ascii_case(known)) =>
        {
            Ok((Foreign::JaegerThrift, &JAEGER_THRIFT))
        }
        found => Err(plain_text(
            StatusCode::BAD_REQUEST,
            format!(
                "Unsupported content type: '{}', supported: {}\n",
                found.unwrap_or_default(),
                JAEGER_TYPES.join(", ")
            ),
        )),
    }
}

/// Any path and any method.
fn zipkin(head: &Parts, tags: Tags) -> Known {
    let is = |wanted: &str| {
        media_type(&head.headers).is_some_and(|found| found.eq_ignore_ascii_case(wanted))
    };
    if head.uri.path().contains(ZIPKIN_V1_PATH) {
        if is("application/x-thrift") {
            (Foreign::ZipkinV1Thrift, &ZIPKIN_V1_THRIFT)
        } else {
            (Foreign::ZipkinV1Json(tags), &ZIPKIN_V1_JSON)
        }
    } else if is("application/x-protobuf") {
        (Foreign::ZipkinProto(tags), &ZIPKIN_V2_PROTO)
    } else {
        (Foreign::ZipkinJson(tags), &ZIPKIN_V2_JSON)
    }
}
