//! Looking at all documents again and again.

use std::{collections::BTreeSet, time::Duration};

use super::UserStore;
use crate::{Error, Overrides};

/// Longest wait after a start at which the store did not answer.
const FIRST_RETRY: Duration = Duration::from_secs(5);

/// Keeps what tenants have set themselves current.
pub(crate) struct Poll {
    overrides: Overrides,
    store: UserStore,
    interval: Duration,
    /// Whether all documents have been read once.
    is_complete: bool,
}

impl Poll {
    /// Reads all documents for the first time.
    ///
    /// # Errors
    /// When one cannot be used, or the store refuses. A store that does not answer is asked again
    /// later.
    pub(crate) async fn begin(
        overrides: Overrides,
        store: UserStore,
        interval: Duration,
    ) -> Result<Self, Error> {
        let mut poll = Self {
            overrides,
            store,
            interval,
            is_complete: false,
        };
        match poll.once().await {
            Err(error) if error.is_transient() => poll.failed(&error),
            outcome => outcome?,
        }
        Ok(poll)
    }

    /// Looks again at every interval, for ever. The first failure ends a look; what was read before
    /// counts, and of the rest what counted before.
    pub(crate) async fn run(mut self) {
        loop {
            let wait = if self.is_complete {
                self.interval
            } else {
                self.interval.min(FIRST_RETRY)
            };
            tokio::time::sleep(wait).await;
            if let Err(error) = self.once().await {
                self.failed(&error);
            }
        }
    }

    fn failed(&self, error: &Error) {
        self.store.metrics().failed_reloads.inc();
        tracing::error!(%error, "user-configurable overrides not reloaded, the previous ones stay");
    }

    pub(crate) async fn once(&mut self) -> Result<(), Error> {
        let tenants: BTreeSet<String> = self.store.tenants().await?.into_iter().collect();
        // Those that have gone are looked up like the others: one may just have been written.
        let gone = self.overrides.tenants_with_user_overrides();
        for tenant in tenants.union(&gone) {
            let _exclusive = self.store.exclusive().await;
            let stored = self.store.get(tenant).await?;
            let document = stored.map(|stored| stored.document);
            self.overrides.set_user_overrides(tenant, document);
        }
        self.is_complete = true;
        Ok(())
    }
}
