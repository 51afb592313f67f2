//! `/live-store/prepare-partition-downscale` and `/live-store/prepare-downscale`: how an operator
//! takes a live-store away without losing anything.
//!
//! First the partition is made inactive and its data is waited for to be in blocks; then the
//! live-store is told that it will not come back, which a file keeps beyond its restart.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    extract::State,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
    routing::any,
};
use serde_json::json;
use tempo_backend::Timestamp;
use tempo_live_store::LiveStore;
use tempo_membership::{ChangeError, Membership, PartitionState};

const MARKER: &str = "shutdown-requested.txt";

/// The file that says that this live-store will not come back.
#[derive(Clone)]
pub(crate) struct Marker(PathBuf);

impl Marker {
    /// # Errors
    /// When the folder cannot be made.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "live_store.shutdown_marker_dir {}: {error}",
                    folder.display()
                ),
            )
        })?;
        Ok(Self(folder.join(MARKER)))
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.exists()
    }

    fn set(&self) -> io::Result<()> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let now = Timestamp::from_unix_nanos(now.saturating_mul(1_000_000_000));
        tempo_durable::write(&self.0, now.to_string().as_bytes())
    }

    /// Removes it, if it is there.
    pub(crate) fn clear(&self) -> io::Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// What the endpoints act on.
pub(crate) struct Downscale {
    pub(crate) live: LiveStore,
    pub(crate) membership: Membership,
    pub(crate) partition: i32,
    pub(crate) marker: Marker,
    /// `live_store.remove_owner_on_shutdown`.
    pub(crate) remove_owner_on_shutdown: bool,
}

pub(crate) fn router(downscale: Downscale) -> Router {
    Router::new()
        .route("/live-store/prepare-partition-downscale", any(partition))
        .route("/live-store/prepare-downscale", any(instance))
        .with_state(Arc::new(downscale))
}

fn refused(status: StatusCode, reason: impl std::fmt::Display) -> Response {
    (status, format!("{reason}\n")).into_response()
}

fn failed(error: ChangeError) -> Response {
    let status = match error {
        ChangeError::NotRunning | ChangeError::NotFound(_) => StatusCode::SERVICE_UNAVAILABLE,
        ChangeError::NotAllowed { .. } => StatusCode::CONFLICT,
        ChangeError::Locked | ChangeError::Reserved(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refused(status, error)
}

impl Downscale {
    /// State of the partition, and since when.
    /// Refuses what no endpoint here takes, and everything while the live-store is not ready.
    fn admit(&self, method: &Method) -> Result<(), Box<Response>> {
        if !matches!(*method, Method::GET | Method::POST | Method::DELETE) {
            let answer = refused(StatusCode::METHOD_NOT_ALLOWED, "GET, POST or DELETE");
            return Err(Box::new(answer));
        }
        self.live.ready().map_err(|reason| {
            let reason = format!("live-store is {reason}");
            Box::new(refused(StatusCode::SERVICE_UNAVAILABLE, reason))
        })
    }

    fn state(&self) -> Result<(PartitionState, i64), ChangeError> {
        let ring = self.membership.partitions();
        let partition = ring
            .partitions
            .get(&self.partition)
            .ok_or(ChangeError::NotFound(self.partition))?;
        Ok((partition.state, partition.state_since))
    }

    async fn change(&self, to: PartitionState) -> Result<(PartitionState, i64), ChangeError> {
        let changed = self.membership.change_partition(self.partition, to).await?;
        tracing::info!(partition = self.partition, state = %changed.state, "partition changed by request");
        Ok((changed.state, changed.state_since))
    }
}

async fn partition(State(downscale): State<Arc<Downscale>>, method: Method) -> Response {
    if let Err(answer) = downscale.admit(&method) {
        return *answer;
    }
    use PartitionState::{Active, Inactive, Pending};
    let state = match downscale.state() {
        Ok(state) => state,
        Err(error) => return failed(error),
    };
    let answer = match (method, state.0) {
        (Method::POST, Pending) => {
            return refused(
                StatusCode::CONFLICT,
                "the partition is pending; wait until it is active",
            );
        }
        (Method::POST, Active) => downscale.change(Inactive).await,
        (Method::DELETE, Inactive) => match downscale.change(Active).await {
            // It is never written: there is nothing to go back to.
            Err(ChangeError::Reserved(_)) => Ok(state),
            changed => changed,
        },
        _ => Ok(state),
    };
    match answer {
        Ok((state, since)) => {
            let timestamp = if state == Inactive { since } else { 0 };
            Json(json!({ "timestamp": timestamp, "state": state.to_string() })).into_response()
        }
        Err(error) => failed(error),
    }
}

async fn instance(State(downscale): State<Arc<Downscale>>, method: Method) -> Response {
    if let Err(answer) = downscale.admit(&method) {
        return *answer;
    }
    let internal = |error: io::Error| {
        refused(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("marker: {error}"),
        )
    };
    match method {
        Method::POST => {
            // First, and whatever the partition's state: so it is in Tempo, and operators clear it.
            if let Err(error) = downscale.marker.set() {
                return internal(error);
            }
            match downscale.state() {
                Ok((PartitionState::Inactive, _)) => {}
                Ok((state, _)) => {
                    return refused(
                        StatusCode::CONFLICT,
                        format!(
                            "the partition is {state} and not PartitionInactive: POST /live-store/prepare-partition-downscale first; DELETE this to take the request back"
                        ),
                    );
                }
                Err(error) => return failed(error),
            }
            downscale.membership.set_lifecycle(true, false).await;
            tracing::info!("prepared to be removed");
            StatusCode::NO_CONTENT.into_response()
        }
        Method::DELETE => {
            if let Err(error) = downscale.marker.clear() {
                return internal(error);
            }
            downscale
                .membership
                .set_lifecycle(downscale.remove_owner_on_shutdown, true)
                .await;
            StatusCode::NO_CONTENT.into_response()
        }
        _ => {
            let text = match downscale.marker.is_set() {
                true => "set\n",
                false => "unset\n",
            };
            text.into_response()
        }
    }
}
