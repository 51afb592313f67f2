//! What the receivers over HTTP share: reading a request within its bounds, and plain answers.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER},
};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::body::{BodyError, BodyReader, Reply};
use crate::{
    config::HttpReceiver,
    decompress::Encoding,
    inflight::InflightPermit,
    refusal::{Refusal, RefusalKind},
};

/// The refusal of a body of more than so many bytes.
pub(super) fn too_large(_max_bytes: usize) -> Refusal {
    Refusal::invalid("http: request body too large")
}

/// Reads a body within the size and the time that the settings allow.
pub(super) async fn read(
    config: &HttpReceiver,
    body: Incoming,
    permit: &mut InflightPermit,
) -> Result<Bytes, Refusal> {
    let read = BodyReader::new(body).read_to_end(config.max_request_body_bytes, permit);
    match timeout(config.read_timeout, read).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(BodyError::TooLarge)) => Err(too_large(config.max_request_body_bytes)),
        Ok(Err(BodyError::Overloaded(overloaded))) => Err(overloaded.into()),
        Ok(Err(error @ BodyError::Broken(_))) => Err(Refusal::invalid(error.to_string())),
        Err(_) => Err(Refusal::unavailable(format!(
            "the request did not arrive whole within {:?}",
            config.read_timeout
        ))),
    }
}

/// The content type without its parameters, which do not matter.
pub(super) fn media_type(headers: &HeaderMap) -> Option<&str> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(content_type.split(';').next()?.trim())
}

pub(super) fn content_encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
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

/// Tells the client when to try again, if it is to be told.
pub(super) fn set_retry_after(response: &mut Response<Reply>, refusal: &Refusal) {
    if refusal.kind == RefusalKind::ResourceExhausted
        && let Some(after) = refusal.retry_after
    {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
}

pub(super) fn plain_text(status: StatusCode, text: impl Into<Bytes>) -> Response<Reply> {
    response(status, "text/plain", text)
}

pub(super) fn response(
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
