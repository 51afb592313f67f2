//! Reading request bodies within bounds, and the body of an answer.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::inflight::{InflightPermit, Overloaded};

/// Most bytes set aside for a body by its announced length alone.
const MAX_TRUSTED_LENGTH_BYTES: usize = 1 << 20;

/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// It is longer than allowed.
    #[error("request body too large")]
    TooLarge,
    /// There is no memory for it now.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// The connection or the framing broke.
    #[error("request body ended early: {0}")]
    Broken(#[from] hyper::Error),
}

/// A body as it arrives. A body of one piece is never copied.
pub(crate) struct BodyReader {
    incoming: Incoming,
    read: Read,
}

enum Read {
    Nothing,
    One(Bytes),
    Many(BytesMut),
}

impl BodyReader {
    pub(crate) fn new(incoming: Incoming) -> Self {
        Self {
            incoming,
            read: Read::Nothing,
        }
    }

    /// What has been read so far.
    pub(crate) fn so_far(&self) -> &[u8] {
        match &self.read {
            Read::Nothing => &[],
            Read::One(bytes) => bytes,
            Read::Many(bytes) => bytes,
        }
    }

    /// Reads on until there are `bytes`, or fewer if the body ends; what came along with them is
    /// kept. Every byte is counted in `permit`.
    pub(crate) async fn read_to_length(
        &mut self,
        bytes: usize,
        permit: &mut InflightPermit,
    ) -> Result<(), BodyError> {
        while self.so_far().len() < bytes {
            let Some(frame) = self.incoming.frame().await else {
                break;
            };
            if let Ok(data) = frame?.into_data() {
                permit.grow(data.len())?;
                self.add(data);
            }
        }
        Ok(())
    }

    /// Reads all, at most `max_bytes`.
    pub(crate) async fn read_to_end(
        mut self,
        max_bytes: usize,
        permit: &mut InflightPermit,
    ) -> Result<Bytes, BodyError> {
        // Of a body without announced length the lower bound is 0.
        let announced = usize::try_from(self.incoming.size_hint().lower()).unwrap_or(usize::MAX);
        if announced.saturating_add(self.so_far().len()) > max_bytes {
            return Err(BodyError::TooLarge);
        }
        self.read_to_length(max_bytes.saturating_add(1), permit)
            .await?;
        let body = match self.read {
            Read::Nothing => Bytes::new(),
            Read::One(bytes) => bytes,
            Read::Many(bytes) => bytes.freeze(),
        };
        if body.len() > max_bytes {
            return Err(BodyError::TooLarge);
        }
        Ok(body)
    }

    fn add(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        match &mut self.read {
            Read::Nothing => self.read = Read::One(data),
            Read::One(first) => {
                let announced = self.incoming.size_hint().lower() as usize;
                let mut all = BytesMut::with_capacity(
                    first.len() + data.len() + announced.min(MAX_TRUSTED_LENGTH_BYTES),
                );
                all.extend_from_slice(first);
                all.extend_from_slice(&data);
                self.read = Read::Many(all);
            }
            Read::Many(all) => all.extend_from_slice(&data),
        }
    }
}

/// The body of an answer: some bytes, then trailers if there are any.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Reply {
    pub(crate) fn new(data: impl Into<Bytes>) -> Self {
        let data: Bytes = data.into();
        Self {
            data: Some(data).filter(|data| !data.is_empty()),
            trailers: None,
        }
    }

    pub(crate) fn with_trailers(self, trailers: HeaderMap) -> Self {
        Self {
            trailers: Some(trailers),
            ..self
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = self.data.take().map(Frame::data);
        let frame = data.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, Bytes::len) as u64)
    }
}
