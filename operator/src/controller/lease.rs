//! Leader election: of several operators one works, by a Lease of Kubernetes.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::Error;

/// Where the lease is.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
}

/// How long a lease holds without renewal.
const DURATION: Duration = Duration::from_secs(30);
/// Time between renewals.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// Time between looks at another's lease.
const LOOK_EVERY: Duration = Duration::from_secs(3);

pub(super) struct Lease {
    api: Api<Object>,
    name: String,
    identity: String,
}

impl Lease {
    pub(super) fn new(client: Client, config: LeaseConfig, identity: String) -> Self {
        Self {
            api: Api::namespaced(client, &config.namespace),
            name: config.name,
            identity,
        }
    }

    /// Waits until the lease is ours; `false` when `shutdown` comes first.
    pub(super) async fn acquire(&self, shutdown: &CancellationToken) -> Result<bool, Error> {
        loop {
            match self.take().await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                // The first one tells whether it can work at all; later ones pass.
                Err(error) if is_forbidden(&error) => return Err(error.into()),
                Err(error) => tracing::warn!(%error, "lease could not be asked for"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(false),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Renews the lease for as long as it can be; why it can't any more.
    pub(super) async fn keep(&self) -> Error {
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            match self.take().await {
                Ok(true) => renewed = tokio::time::Instant::now(),
                Ok(false) => return Error::LeaseLost,
                // Others take it when it has run out; before that we are gone.
                Err(_) if renewed.elapsed() + RENEW_EVERY >= DURATION => return Error::LeaseLost,
                Err(error) => tracing::warn!(%error, "lease could not be renewed"),
            }
        }
    }

    /// Gives the lease back, so that another need not wait.
    pub(super) async fn release(&self) {
        let given = async {
            let Some(mut lease) = self.api.get_opt(&self.name).await? else {
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                spec.holder_identity = None;
                self.api
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await?;
            }
            Ok::<(), kube::Error>(())
        };
        if let Err(error) = given.await {
            tracing::warn!(%error, "lease could not be given back");
        }
    }

    /// Takes or renews the lease; `false` when it is another's.
    async fn take(&self) -> Result<bool, kube::Error> {
        let now = Timestamp::now();
        let seconds = i32::try_from(DURATION.as_secs()).unwrap_or(30);
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = Object {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(self.identity.clone()),
                    lease_duration_seconds: Some(seconds),
                    acquire_time: Some(MicroTime(now)),
                    renew_time: Some(MicroTime(now)),
                    lease_transitions: Some(0),
                    ..LeaseSpec::default()
                }),
            };
            return won(self
                .api
                .create(&PostParams::default(), &lease)
                .await
                .map(drop));
        };
        let spec = lease.spec.get_or_insert_default();
        let ours = spec.holder_identity.as_deref() == Some(&self.identity);
        if !ours && is_held(spec, now) {
            return Ok(false);
        }
        if !ours {
            spec.holder_identity = Some(self.identity.clone());
            spec.acquire_time = Some(MicroTime(now));
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + 1);
        }
        spec.lease_duration_seconds = Some(seconds);
        spec.renew_time = Some(MicroTime(now));
        won(self
            .api
            .replace(&self.name, &PostParams::default(), &lease)
            .await
            .map(drop))
    }
}

fn is_held(spec: &LeaseSpec, now: Timestamp) -> bool {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let seconds = i64::from(spec.lease_duration_seconds.unwrap_or(0));
    let renewed = spec
        .renew_time
        .as_ref()
        .map_or(0, |time| time.0.as_second());
    !holder.is_empty() && renewed + seconds > now.as_second()
}

/// Someone else was quicker: no error.
fn won(outcome: Result<(), kube::Error>) -> Result<bool, kube::Error> {
    match outcome {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403 || status.code == 404)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_runs_out() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let spec = |holder: &str, renewed: i64| LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(30),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        };
        assert!(is_held(&spec("other", 999_980), now));
        assert!(!is_held(&spec("other", 999_970), now));
        assert!(!is_held(&spec("", 999_999), now));
    }
}
