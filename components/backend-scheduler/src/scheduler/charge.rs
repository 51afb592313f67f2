//! The jobs in the bucket, and who works on it.

use std::time::Duration;

use tempo_backend::{ObjectKey, ReadStats, Timestamp, WORK};
use tokio_util::sync::CancellationToken;

use super::{Charge, Scheduler, Service};
use crate::{
    Error,
    conflict::{Owner, lasts_until, rival},
    work::{self, WorkObject},
};

/// Pause before the bucket is read again while no job can be handed out.
const CHARGE_RETRY: Duration = Duration::from_secs(5);

impl Scheduler {
    fn rival_in(&self, object: Option<&WorkObject>) -> Option<Owner> {
        let found = object.and_then(|object| object.owner.as_ref());
        let interval = self.0.config.backend_flush_interval;
        rival(found, &self.0.own, interval, self.now())
    }

    fn stand_back(&self, found: Owner) {
        tracing::error!(
            other = found.place,
            last_seen = %found.renewed,
            "another backend-scheduler works on this bucket: this one stands back until the other \
             is silent; stop one of them"
        );
        self.0.metrics.rival.set(1);
        *self.0.charge.lock() = Charge::Other(found);
    }

    async fn read_object(&self) -> Result<Option<WorkObject>, Error> {
        match self
            .0
            .backend
            .read(&ObjectKey::root(WORK), &ReadStats::new())
            .await
        {
            Ok(bytes) => work::parse(WORK, &bytes).map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the jobs, and this scheduler's mark if it goes on running; until when it counts.
    pub(super) async fn write_object(&self, running: bool) -> Result<Timestamp, Error> {
        let renewed = self.now();
        let owner = Owner {
            renewed,
            ..self.0.own.clone()
        };
        let json = self
            .with(move |state| {
                let mut object = state.work.object(owner);
                if !running {
                    object.owner = None;
                }
                serde_json::to_vec(&object)
            })
            .await
            .map_err(|error| Error::Corrupt {
                place: WORK.to_owned(),
                problem: error.to_string(),
            })?;
        let written = self
            .0
            .backend
            .write(&ObjectKey::root(WORK), json.into())
            .await;
        let metrics = &self.0.metrics;
        match written {
            Ok(()) => {
                metrics.flushes.inc();
                let interval = self.0.config.backend_flush_interval;
                Ok(lasts_until(renewed, interval))
            }
            Err(error) => {
                metrics.flushes_failed.inc();
                Err(error.into())
            }
        }
    }

    /// Writes the jobs to the bucket, unless another scheduler does.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let object = match self.read_object().await {
            // What cannot be read is written anew.
            Err(Error::Corrupt { place, problem }) => {
                tracing::error!(
                    place,
                    problem,
                    "jobs in the bucket cannot be read, writing them anew"
                );
                None
            }
            read => read?,
        };
        if let Some(found) = self.rival_in(object.as_ref()) {
            self.stand_back(found);
            return Ok(());
        }
        let charge = self.0.charge.lock().clone();
        let owner = object.as_ref().and_then(|object| object.owner.as_ref());
        let was_others = owner.is_some_and(|owner| owner.instance != self.0.own.instance);
        let goes_on = self.ready().is_ok() && !was_others;
        if !goes_on {
            if matches!(charge, Charge::Other(_)) {
                tracing::warn!("the other backend-scheduler is silent: this one takes over");
            }
            // What another did since is only there.
            let taken_over = match charge {
                Charge::Unknown => false,
                Charge::Own(_) => was_others,
                Charge::Other(_) => true,
            };
            self.with(move |state| {
                let Some(object) = object.filter(|_| taken_over || !state.has_folder) else {
                    return Ok(());
                };
                state.plan.refresh();
                state.work.load(object)
            })
            .await?;
            self.hide_merged().await;
        }
        let until = self.write_object(true).await?;
        if !goes_on {
            // Another that looked when this one did has seen no mark, and has written, too.
            tokio::time::sleep(self.0.config.claim_pause).await;
            if let Some(found) = self.rival_in(self.read_object().await?.as_ref()) {
                self.stand_back(found);
                return Ok(());
            }
        }
        *self.0.charge.lock() = Charge::Own(until);
        self.0.metrics.rival.set(0);
        self.0.wake.notify_waiters();
        Ok(())
    }
}

impl Service {
    /// Keeps the jobs in order until shut down, then writes them to the bucket a last time.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self(scheduler) = self;
        let config = &scheduler.0.config;
        let mut maintain = tokio::time::interval(config.maintenance_interval);
        let mut flush_after = Duration::ZERO;
        loop {
            let flush = tokio::time::sleep(flush_after);
            tokio::pin!(flush);
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = &mut flush => break,
                    _ = maintain.tick() => {
                        if scheduler.ready().is_ok() {
                            scheduler.maintain().await;
                        }
                    }
                }
            }
            if shutdown.is_cancelled() {
                break;
            }
            if let Err(error) = scheduler.flush().await {
                tracing::error!(%error, "jobs not written to the bucket, trying again later");
            }
            flush_after = match scheduler.ready() {
                Ok(()) => config.backend_flush_interval,
                Err(_) => config.backend_flush_interval.min(CHARGE_RETRY),
            };
        }
        if scheduler.ready().is_ok()
            && let Err(error) = scheduler.write_object(false).await
        {
            tracing::error!(%error, "jobs not written to the bucket; they are in the local folder");
        }
    }
}
