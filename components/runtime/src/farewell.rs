//! Letting go of old HTTP/1 connections: with the next answer, so that no request is cut off.
//!
//! HTTP/2 has a message for it; an HTTP/1 client that is about to send when its connection is
//! closed cannot tell whether its request was taken.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use hyper::{body::Incoming, service::Service};

/// What is known of one connection, shared by its service and by who watches its age.
#[derive(Debug, Clone, Default)]
pub(crate) struct Farewell(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_http1: AtomicBool,
    due: AtomicBool,
}

impl Farewell {
    /// The next answer over HTTP/1 shall be the last. Whether that is how this connection ends;
    /// otherwise it speaks HTTP/2, or has not spoken yet.
    pub(crate) fn say(&self) -> bool {
        self.0.due.store(true, Ordering::Relaxed);
        self.0.is_http1.load(Ordering::Relaxed)
    }
}

/// A service that says farewell.
#[derive(Debug, Clone)]
pub(crate) struct Polite<S> {
    pub(crate) service: S,
    pub(crate) farewell: Farewell,
}

impl<S, B> Service<Request<Incoming>> for Polite<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, S::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let is_http1 = request.version() <= Version::HTTP_11;
        let state = Arc::clone(&self.farewell.0);
        state.is_http1.store(is_http1, Ordering::Relaxed);
        let answer = self.service.call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            if is_http1 && state.due.load(Ordering::Relaxed) {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(CONNECTION, close);
            }
            Ok(answer)
        })
    }
}
