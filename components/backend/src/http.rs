//! HTTP towards the store: every request measured, slow reads sent a second time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::{StreamExt, stream::FuturesUnordered};
use http::Method;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService,
        ReqwestConnector,
    },
};

use crate::{HedgeConfig, metrics::RequestMetrics};

/// Connects clients that measure and hedge.
#[derive(Debug, Clone)]
pub(crate) struct MeasuredConnector {
    pub(crate) metrics: RequestMetrics,
    pub(crate) hedge: HedgeConfig,
    pub(crate) last_status: LastStatus,
    /// Sends no credentials, whatever the library says.
    pub(crate) anonymous: bool,
}

/// The status of the last answer. The library's errors do not always tell it.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastStatus(Arc<AtomicU16>);

impl LastStatus {
    /// The status; 0 when there was no answer.
    pub(crate) fn get(&self) -> u16 {
        self.0.load(Ordering::Relaxed)
    }
}

impl HttpConnector for MeasuredConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(MeasuredService {
            client,
            metrics: self.metrics.clone(),
            hedge: self.hedge,
            last_status: self.last_status.clone(),
            anonymous: self.anonymous,
        }))
    }
}

#[derive(Debug)]
struct MeasuredService {
    client: HttpClient,
    metrics: RequestMetrics,
    hedge: HedgeConfig,
    last_status: LastStatus,
    anonymous: bool,
}

#[async_trait]
impl HttpService for MeasuredService {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if self.anonymous {
            request.headers_mut().remove(http::header::AUTHORIZATION);
        }
        if *request.method() == Method::GET && !self.hedge.at.is_zero() && self.hedge.up_to > 1 {
            self.hedged(request).await
        } else {
            self.measured(request).await
        }
    }
}

impl MeasuredService {
    async fn measured(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let method = request.method().clone();
        let start = Instant::now();
        let answer = self.client.execute(request).await;
        let status = match &answer {
            Ok(response) => response.status().as_u16(),
            Err(_) => 0,
        };
        self.last_status.0.store(status, Ordering::Relaxed);
        self.metrics.observe(&method, status, start.elapsed());
        answer
    }

    /// Sends the request again each time `hedge.at` passes without an answer; the first good
    /// answer counts, the other requests are dropped. A request that fails while others are under
    /// way leaves the answer to them.
    async fn hedged(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let mut under_way = FuturesUnordered::new();
        under_way.push(self.measured(request.clone()));
        let mut sent = 1;
        loop {
            tokio::select! {
                biased;
                Some(answer) = under_way.next() => {
                    let good = answer.as_ref().is_ok_and(|response| !response.status().is_server_error());
                    if good || under_way.is_empty() {
                        return answer;
                    }
                }
                () = tokio::time::sleep(self.hedge.at), if sent < self.hedge.up_to => {
                    sent += 1;
                    self.metrics.hedged.inc();
                    under_way.push(self.measured(request.clone()));
                }
            }
        }
    }
}

impl RequestMetrics {
    /// Counts one request; status 0 is one without an answer.
    fn observe(&self, method: &Method, status: u16, elapsed: Duration) {
        let status = match status {
            0 => "error".to_owned(),
            status => status.to_string(),
        };
        self.duration_seconds
            .with_label_values(&[method.as_str(), &status])
            .observe(elapsed.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use object_store::client::{HttpErrorKind, HttpRequestBody, HttpResponseBody};
    use parking_lot::Mutex;
    use tokio::sync::oneshot;

    use super::*;

    /// Answers the n-th request as the test says; a missing sender never answers.
    #[derive(Debug, Default)]
    struct Scripted {
        calls: AtomicUsize,
        answers: Mutex<Vec<oneshot::Receiver<u16>>>,
    }

    #[derive(Debug)]
    struct ScriptedClient(Arc<Scripted>);

    #[async_trait]
    impl HttpService for ScriptedClient {
        async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
            self.0.calls.fetch_add(1, Ordering::SeqCst);
            let answer = self.0.answers.lock().remove(0);
            match answer.await {
                Ok(status) => Ok(http::Response::builder()
                    .status(status)
                    .body(HttpResponseBody::from("x".to_owned()))
                    .unwrap()),
                Err(gone) => Err(HttpError::new(HttpErrorKind::Interrupted, gone)),
            }
        }
    }

    fn service(
        answers: usize,
        up_to: u32,
    ) -> (MeasuredService, Arc<Scripted>, Vec<oneshot::Sender<u16>>) {
        let (senders, receivers) = (0..answers).map(|_| oneshot::channel()).unzip();
        let script = Arc::new(Scripted {
            calls: AtomicUsize::new(0),
            answers: Mutex::new(receivers),
        });
        let service = MeasuredService {
            client: HttpClient::new(ScriptedClient(Arc::clone(&script))),
            metrics: RequestMetrics::register(&prometheus::Registry::new()).unwrap(),
            hedge: HedgeConfig {
                at: Duration::from_millis(500),
                up_to,
            },
            last_status: LastStatus::default(),
            anonymous: false,
        };
        (service, script, senders)
    }

    fn request(method: Method) -> HttpRequest {
        http::Request::builder()
            .method(method)
            .uri("http://store/object")
            .body(HttpRequestBody::empty())
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_read_is_answered_by_its_hedge() {
        let (service, script, mut senders) = service(2, 2);
        senders.pop().unwrap().send(200).unwrap();
        let answer = service.call(request(Method::GET)).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(script.calls.load(Ordering::SeqCst), 2);
        assert_eq!(service.metrics.hedged.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_read_and_a_write_are_sent_once() {
        for method in [Method::GET, Method::PUT] {
            let (service, script, mut senders) = service(1, 2);
            senders.pop().unwrap().send(200).unwrap();
            service.call(request(method)).await.unwrap();
            assert_eq!(script.calls.load(Ordering::SeqCst), 1);
            assert_eq!(service.metrics.hedged.get(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn hedges_stop_at_their_limit_and_the_last_failure_is_the_answer() {
        let (service, script, senders) = service(3, 3);
        let call = service.call(request(Method::GET));
        tokio::pin!(call);
        // Nobody answers: after two pauses all three requests are under way.
        tokio::select! {
            _ = &mut call => panic!("answered without an answer"),
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
        assert_eq!(script.calls.load(Ordering::SeqCst), 3);
        for sender in senders {
            sender.send(503).unwrap();
        }
        assert_eq!(call.await.unwrap().status(), 503);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_leaves_the_answer_to_the_other_request() {
        let (service, _, mut senders) = service(2, 2);
        let second = senders.pop().unwrap();
        let first = senders.pop().unwrap();
        let call = service.call(request(Method::GET));
        tokio::pin!(call);
        tokio::select! {
            _ = &mut call => panic!("answered without an answer"),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        drop(first);
        second.send(200).unwrap();
        assert_eq!(call.await.unwrap().status(), 200);
    }
}
