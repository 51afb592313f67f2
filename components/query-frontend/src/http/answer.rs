//! The answer to an HTTP request.

use std::io::Write as _;

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, StatusCode, header};

use crate::error::QueryError;

/// Smaller bodies are sent as they are.
const MIN_GZIP_BYTES: usize = 1024;

/// Status, type and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: Option<&'static str>,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn ok(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: Some(content_type),
            body: body.into(),
        }
    }

    /// A bare text, without a type, as Tempo writes it.
    pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: None,
            body: Bytes::from(body.into()),
        }
    }

    pub(super) fn error(error: &QueryError) -> Self {
        Self::text(error.status(), error.body())
    }

    /// The response; a large body is compressed if the client takes that.
    pub(super) fn into_response(self, accepts_gzip: bool) -> Response {
        let mut headers = http::HeaderMap::new();
        if let Some(content_type) = self.content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let mut body = self.body;
        if accepts_gzip
            && body.len() >= MIN_GZIP_BYTES
            && let Some(compressed) = gzip(&body)
        {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            body = compressed;
        }
        (self.status, headers, Body::from(body)).into_response()
    }
}

fn gzip(body: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok().map(Bytes::from)
}
