//! Talking to pods of a stack over HTTP.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use serde_json::Value;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, crypto::aws_lc_rs};

use crate::api::At;
use crate::plan::{Partition, PartitionState};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for all data of a pod to reach the object store.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(120);
/// Largest answer.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// Port of the HTTP API of every pod.
const PORT: u16 = 3200;

/// Whom certificates of pods must come from, and which name they must have: pods are known by
/// their addresses, which no certificate has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    /// Certificates to trust (PEM).
    pub(super) pem: &'a [u8],
    /// The name.
    pub(super) server_name: String,
}

/// Clients by stack: each trusts its own authority.
pub(super) struct Clients {
    plain: PodClient,
    by_stack: Mutex<HashMap<String, Trusting>>,
}

struct Trusting {
    pem: Vec<u8>,
    server_name: String,
    client: PodClient,
}

impl Clients {
    /// # Errors
    /// When there can be no TLS at all.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        Ok(Self {
            plain: PodClient::new(RootCertStore::empty(), None)?,
            by_stack: Mutex::default(),
        })
    }

    /// The client for a stack, whose pods speak TLS when there is an authority.
    pub(super) fn of(&self, stack: &str, authority: Option<Authority<'_>>) -> PodClient {
        let Some(Authority { pem, server_name }) = authority else {
            self.forget(stack);
            return self.plain.clone();
        };
        let mut by_stack = self.by_stack.lock();
        let known = by_stack
            .get(stack)
            .filter(|known| known.pem == pem && known.server_name == server_name);
        if let Some(known) = known {
            return known.client.clone();
        }
        let client = match PodClient::new(roots(pem), Some(server_name.as_str())) {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!(stack, %error, "pods can't be asked by TLS");
                return self.plain.clone();
            }
        };
        by_stack.insert(
            stack.to_owned(),
            Trusting {
                pem: pem.to_vec(),
                server_name,
                client: client.clone(),
            },
        );
        client
    }

    pub(super) fn forget(&self, stack: &str) {
        self.by_stack.lock().remove(stack);
    }
}

fn roots(pem: &[u8]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).flatten());
    roots
}

/// A client for pods. Cheap to clone.
#[derive(Clone)]
pub(super) struct PodClient {
    client: Client<HttpsConnector<HttpConnector>, Empty<axum::body::Bytes>>,
    scheme: &'static str,
    port: u16,
}

impl PodClient {
    /// Speaks TLS when there is a name to expect.
    fn new(roots: RootCertStore, server_name: Option<&str>) -> Result<Self, rustls::Error> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(TIMEOUT));
        connector.enforce_http(false);
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connectors = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http();
        let connectors = match server_name.and_then(|name| ServerName::try_from(name).ok()) {
            Some(name) => {
                connectors.with_server_name_resolver(FixedServerNameResolver::new(name.to_owned()))
            }
            None => connectors,
        };
        Ok(Self {
            client: Client::builder(TokioExecutor::new())
                .pool_idle_timeout(Duration::from_secs(30))
                .build(connectors.enable_http1().wrap_connector(connector)),
            scheme: if server_name.is_some() {
                "https"
            } else {
                "http"
            },
            port: PORT,
        })
    }
}

/// A pod did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{method} {url}: {reason}")]
pub(super) struct PodError {
    method: Method,
    url: String,
    /// The answer's status, if there was one.
    pub(super) status: Option<StatusCode>,
    reason: String,
}

impl PodClient {
    async fn send(
        &self,
        method: Method,
        ip: &str,
        path: &str,
        timeout: Duration,
    ) -> Result<(StatusCode, String), PodError> {
        let host = if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip.to_owned()
        };
        let url = format!("{}://{host}:{}{path}", self.scheme, self.port);
        let fail = |status, reason: String| PodError {
            method: method.clone(),
            url: url.clone(),
            status,
            reason,
        };
        let request = Request::builder()
            .method(method.clone())
            .uri(&url)
            .header("accept", "application/json")
            .body(Empty::new())
            .map_err(|error| fail(None, error.to_string()))?;
        let answer = tokio::time::timeout(timeout, async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|error| fail(None, error.to_string()))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES)
                .collect()
                .await
                .map_err(|error| fail(Some(status), error.to_string()))?;
            Ok((
                status,
                String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            ))
        })
        .await;
        answer.unwrap_or_else(|_| Err(fail(None, format!("no answer in {timeout:?}"))))
    }

    async fn ask(
        &self,
        method: Method,
        ip: &str,
        path: &str,
        timeout: Duration,
    ) -> Result<String, PodError> {
        let (status, body) = self.send(method.clone(), ip, path, timeout).await?;
        if status.is_success() {
            return Ok(body);
        }
        Err(PodError {
            method,
            url: format!("{}://{ip}:{}{path}", self.scheme, self.port),
            status: Some(status),
            reason: format!("{status}: {}", crate::text::cut(body.trim(), 200)),
        })
    }

    /// Partitions, as a member of the ring tells.
    pub(super) async fn ring(&self, ip: &str) -> Result<Vec<Partition>, PodError> {
        let body = self
            .ask(Method::GET, ip, "/partition-ring", TIMEOUT)
            .await?;
        Ok(parse_ring(&body).unwrap_or_default())
    }

    /// Metrics of a pod.
    pub(super) async fn metrics(&self, ip: &str) -> Result<String, PodError> {
        self.ask(Method::GET, ip, "/metrics", TIMEOUT).await
    }

    /// Whether a live-store leaves for good when it stops.
    pub(super) async fn is_leaving(&self, ip: &str) -> Result<bool, PodError> {
        let body = self
            .ask(Method::GET, ip, "/live-store/prepare-downscale", TIMEOUT)
            .await?;
        Ok(body.trim() == "set")
    }

    /// Whether the partition of a live-store takes no spans: `None` when the pod has no partition
    /// to tell of.
    pub(super) async fn is_inactive(&self, ip: &str) -> Result<Option<bool>, PodError> {
        match self
            .ask(
                Method::GET,
                ip,
                "/live-store/prepare-partition-downscale",
                TIMEOUT,
            )
            .await
        {
            Ok(body) => {
                let state: Value = serde_json::from_str(&body).unwrap_or_default();
                Ok(Some(state["state"] == "PartitionInactive"))
            }
            Err(error) if error.status == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn deactivate(&self, ip: &str) -> Result<(), PodError> {
        self.ask(
            Method::POST,
            ip,
            "/live-store/prepare-partition-downscale",
            TIMEOUT,
        )
        .await
        .map(drop)
    }

    pub(super) async fn reactivate(&self, ip: &str) -> Result<(), PodError> {
        self.ask(
            Method::DELETE,
            ip,
            "/live-store/prepare-partition-downscale",
            TIMEOUT,
        )
        .await
        .map(drop)
    }

    /// The pod notes it before it looks whether it may: after a refusal the note is taken back.
    pub(super) async fn prepare_downscale(&self, ip: &str) -> Result<(), PodError> {
        match self
            .ask(Method::POST, ip, "/live-store/prepare-downscale", TIMEOUT)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) => {
                if error.status == Some(StatusCode::CONFLICT) {
                    self.cancel_downscale(ip).await?;
                }
                Err(error)
            }
        }
    }

    pub(super) async fn cancel_downscale(&self, ip: &str) -> Result<(), PodError> {
        self.ask(Method::DELETE, ip, "/live-store/prepare-downscale", TIMEOUT)
            .await
            .map(drop)
    }

    /// Answers when all that the pod holds is in the object store.
    pub(super) async fn flush(&self, ip: &str) -> Result<(), PodError> {
        self.ask(Method::POST, ip, "/flush", FLUSH_TIMEOUT)
            .await
            .map(drop)
    }
}

/// `/partition-ring` as JSON; states are numbers: 1 pending, 2 active, 3 inactive.
fn parse_ring(body: &str) -> Option<Vec<Partition>> {
    let ring: Value = serde_json::from_str(body).ok()?;
    let partitions = ring["partitions"].as_array()?;
    Some(
        partitions
            .iter()
            .filter_map(|partition| {
                let state = match (partition["state"].as_i64(), partition["state"].as_str()) {
                    (Some(1), _) | (_, Some("PartitionPending")) => PartitionState::Pending,
                    (Some(2), _) | (_, Some("PartitionActive")) => PartitionState::Active,
                    (Some(3), _) | (_, Some("PartitionInactive")) => PartitionState::Inactive,
                    _ => return None,
                };
                Some(Partition {
                    id: u32::try_from(partition["id"].as_i64()?).ok()?,
                    state,
                    since: moment(&partition["state_timestamp"]),
                    owners: partition["owner_ids"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .map(ToOwned::to_owned)
                        .collect(),
                })
            })
            .collect(),
    )
}

/// Seconds of Unix, or a date.
fn moment(value: &Value) -> At {
    value
        .as_i64()
        .map(At)
        .or_else(|| serde_json::from_value(value.clone()).ok())
        .unwrap_or_default()
}

/// The sum of all series of a metric; `None` when there is no such metric.
pub(super) fn sum(page: &str, metric: &str) -> Option<f64> {
    let mut total = None;
    for line in page.lines() {
        let Some(rest) = line.strip_prefix(metric) else {
            continue;
        };
        let value = match rest.as_bytes().first() {
            Some(b' ') => rest.trim_start(),
            Some(b'{') => rest.rsplit_once("} ").map_or("", |(_, value)| value),
            _ => continue,
        };
        let number = value.split_whitespace().next().unwrap_or_default();
        if let Ok(number) = number.parse::<f64>() {
            total = Some(total.unwrap_or(0.0) + number);
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_read() {
        let ring = parse_ring(
            r#"{"partitions":[{"id":0,"corrupted":false,"state":2,"state_timestamp":"2026-01-01T00:00:00Z","state_change_locked":false,"owner_ids":["a-0","b-0"],"tokens":[1]},{"id":1,"state":3,"state_timestamp":1767225600,"owner_ids":[]},{"id":2,"corrupted":true,"state":0}]}"#,
        )
        .unwrap();
        assert_eq!(ring.len(), 2);
        assert_eq!(ring[0].state, PartitionState::Active);
        assert_eq!(ring[0].owners, ["a-0", "b-0"]);
        assert_eq!(ring[1].state, PartitionState::Inactive);
        assert_eq!(ring[0].since, ring[1].since);
    }

    /// A pod that answers by a script and notes what it was asked.
    async fn pod(
        answers: Vec<(&'static str, StatusCode, &'static str)>,
    ) -> (PodClient, std::sync::Arc<parking_lot::Mutex<Vec<String>>>) {
        let asked = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
        let notes = asked.clone();
        let answers = std::sync::Arc::new(answers);
        let router = axum::Router::new().fallback(move |method: Method, uri: http::Uri| {
            let request = format!("{method} {}", uri.path());
            notes.lock().push(request.clone());
            let answer = answers
                .iter()
                .find(|(wanted, _, _)| *wanted == request)
                .map_or((StatusCode::NOT_FOUND, ""), |(_, status, body)| {
                    (*status, *body)
                });
            async move { answer }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = Clients::new().unwrap().of("demo", None);
        (PodClient { port, ..client }, asked)
    }

    /// A pod that answers every request with "set", and only by TLS.
    async fn pod_with_tls(certificate: &rcgen::Certificate, key: &rcgen::KeyPair) -> u16 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Who does not trust it goes away.
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        request.push(stream.read_u8().await.unwrap());
                    }
                    let answer =
                        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nset\n";
                    stream.write_all(answer).await.unwrap();
                    stream.shutdown().await.unwrap();
                });
            }
        });
        port
    }

    #[tokio::test]
    async fn pods_with_tls_are_known_by_name_and_authority() {
        const NAME: &str = "tempo-demo-query-frontend.tracing.svc";
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let port = pod_with_tls(&made.cert, &made.signing_key).await;
        let clients = Clients::new().unwrap();
        let ask = async |pem: &str, name: &str| {
            let authority = Authority {
                pem: pem.as_bytes(),
                server_name: name.to_owned(),
            };
            let client = clients.of("tracing/demo", Some(authority));
            PodClient { port, ..client }.is_leaving("127.0.0.1").await
        };
        assert!(ask(&made.cert.pem(), NAME).await.unwrap());
        // Replaced at once when the authority is another, and back again.
        let stranger = ask(&other.cert.pem(), NAME).await.unwrap_err();
        assert!(
            stranger.to_string().contains("https://127.0.0.1"),
            "{stranger}"
        );
        assert!(ask(&made.cert.pem(), NAME).await.unwrap());
        assert!(
            ask(&made.cert.pem(), "elsewhere.tracing.svc")
                .await
                .is_err()
        );
        assert!(ask("", NAME).await.is_err());
        let plain = clients.of("tracing/demo", None);
        assert!(
            PodClient { port, ..plain }
                .is_leaving("127.0.0.1")
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn a_note_that_was_refused_is_taken_back() {
        let (client, asked) = pod(vec![
            (
                "POST /live-store/prepare-downscale",
                StatusCode::CONFLICT,
                "partition is active",
            ),
            (
                "DELETE /live-store/prepare-downscale",
                StatusCode::NO_CONTENT,
                "",
            ),
        ])
        .await;
        let refused = client.prepare_downscale("127.0.0.1").await.unwrap_err();
        assert!(
            refused.to_string().contains("partition is active"),
            "{refused}"
        );
        assert_eq!(
            *asked.lock(),
            [
                "POST /live-store/prepare-downscale",
                "DELETE /live-store/prepare-downscale"
            ]
        );
    }

    #[tokio::test]
    async fn a_pod_without_partitions_is_told_from_one_that_fails() {
        let (client, _) = pod(vec![]).await;
        assert_eq!(client.is_inactive("127.0.0.1").await.unwrap(), None);
        let (client, _) = pod(vec![(
            "GET /live-store/prepare-partition-downscale",
            StatusCode::OK,
            r#"{"timestamp":1700000000,"state":"PartitionInactive"}"#,
        )])
        .await;
        assert_eq!(client.is_inactive("127.0.0.1").await.unwrap(), Some(true));
        let (client, _) = pod(vec![(
            "GET /live-store/prepare-partition-downscale",
            StatusCode::SERVICE_UNAVAILABLE,
            "not running",
        )])
        .await;
        assert!(client.is_inactive("127.0.0.1").await.is_err());
    }

    #[tokio::test]
    async fn marks_are_read_and_failures_of_a_flush_are_told() {
        let (client, _) = pod(vec![
            ("GET /live-store/prepare-downscale", StatusCode::OK, "set\n"),
            (
                "POST /flush",
                StatusCode::INTERNAL_SERVER_ERROR,
                "2 blocks are left",
            ),
        ])
        .await;
        assert!(client.is_leaving("127.0.0.1").await.unwrap());
        let failed = client.flush("127.0.0.1").await.unwrap_err();
        assert!(failed.to_string().contains("2 blocks are left"));
    }

    #[test]
    fn metrics_are_summed() {
        let page =
            "# HELP a b\na_total{x=\"1\"} 2\na_total{x=\"2} \"} 3 123\na_total_more 9\nb 7\n";
        assert_eq!(sum(page, "a_total"), Some(5.0));
        assert_eq!(sum(page, "b"), Some(7.0));
        assert_eq!(sum(page, "c"), None);
    }
}
