//! Talking to pods of a stack over HTTP.

use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

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

/// A client for pods.
pub(super) struct PodClient {
    client: Client<HttpConnector, Empty<axum::body::Bytes>>,
    port: u16,
}

impl Default for PodClient {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(TIMEOUT));
        Self {
            client: Client::builder(TokioExecutor::new())
                .pool_idle_timeout(Duration::from_secs(30))
                .build(connector),
            port: PORT,
        }
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
        let url = format!("http://{host}:{}{path}", self.port);
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
            url: format!("http://{ip}:{}{path}", self.port),
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
        let client = PodClient {
            port,
            ..PodClient::default()
        };
        (client, asked)
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
