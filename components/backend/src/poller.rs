//! Keeping the blocklist current: reading tenant indexes, or listing the store and writing them.
//!
//! Owns who does which, and what happens when the store fails. Must never decide what happens to
//! a block.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Backend, BlockListing, BlockMeta, Blocklist, CompactedBlockMeta, Error, ObjectKey,
    TenantBlocks, TenantIndex, Timestamp, blocklist::Listed, metrics::PollerMetrics,
};

/// Settings of a [`Poller`]: `storage.trace.blocklist_poll*`, `empty_tenant_deletion_*`.
#[derive(Debug, Clone)]
pub struct PollerConfig {
    /// `blocklist_poll`: time between polls.
    pub poll_interval: Duration,
    /// `blocklist_poll_concurrency`: metas read at once.
    pub meta_concurrency: usize,
    /// `blocklist_poll_tenant_concurrency`: tenants polled at once; 0 is 1.
    pub tenant_concurrency: usize,
    /// `blocklist_poll_fallback`: list the store when the tenant index cannot be used.
    pub fallback: bool,
    /// `blocklist_poll_stale_tenant_index`: an older index cannot be used; zero: one that is older
    /// than one and a half polls is not used where the store may be listed instead.
    pub stale_tenant_index: Duration,
    /// `blocklist_poll_jitter_ms`: longest random pause before a meta is read.
    pub jitter: Duration,
    /// `blocklist_poll_tolerate_consecutive_errors`: further attempts at one tenant.
    pub tolerate_consecutive_errors: u32,
    /// `blocklist_poll_tolerate_tenant_failures`: tenants that may fail without making the poll
    /// fail.
    pub tolerate_tenant_failures: usize,
    /// `empty_tenant_deletion_enabled`: remove the leftovers of tenants without blocks.
    pub empty_tenant_deletion_enabled: bool,
    /// `empty_tenant_deletion_age`: only if they are older than this; zero is 12 hours.
    pub empty_tenant_deletion_age: Duration,
}

impl Default for PollerConfig {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(300),
            meta_concurrency: 50,
            tenant_concurrency: 0,
            fallback: true,
            stale_tenant_index: Duration::ZERO,
            jitter: Duration::ZERO,
            tolerate_consecutive_errors: 1,
            tolerate_tenant_failures: 1,
            empty_tenant_deletion_enabled: false,
            empty_tenant_deletion_age: Duration::ZERO,
        }
    }
}

/// Pause after a poll that failed while no list is known yet: until then, queries do not see the
/// store.
const FIRST_POLL_RETRY: Duration = Duration::from_secs(5);

/// Listings of one tenant in one poll while blocks that are merged meanwhile tear them.
const MAX_LISTINGS_PER_POLL: u32 = 5;

/// An index may be as much younger than now as this part of the time between polls.
const MAX_CLOCK_ERROR_PART: u32 = 4;

/// Age of leftovers before they are removed, when none is configured.
const DEFAULT_EMPTY_TENANT_AGE: Duration = Duration::from_secs(12 * 3600);

/// Who writes the tenant indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantIndexRole {
    /// This process: it lists the store and writes every index.
    Builder,
    /// Another: this process reads the indexes.
    Reader,
    /// One of several: whoever finds an index that is about as old as the time between polls lists
    /// the store and writes it anew; the others read what it wrote. Whichever of them die, the
    /// indexes stay as young as with one builder.
    Shared,
}

/// What a poll found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PollOutcome {
    /// Tenants whose list is now current.
    pub polled_tenants: usize,
    /// Tenants that failed and keep their previous list.
    pub failed_tenants: Vec<String>,
}

/// Polls the store. See [`Poller::build`].
pub struct Poller {
    config: PollerConfig,
    role: TenantIndexRole,
    backend: Backend,
    blocklist: Blocklist,
    metrics: PollerMetrics,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Poller {
    /// A poller that keeps `blocklist` current. Poll once before the first query is answered, then
    /// let it [`run`](Poller::run).
    ///
    /// Metrics go to `registry`: `tempodb_blocklist_{poll_duration_seconds,poll_errors_total,
    /// length,tenant_index_errors_total,tenant_index_builder,tenant_index_age_seconds}` and
    /// `tempodb_backend_{objects,bytes}_total`.
    ///
    /// # Errors
    /// [`Error::Config`] when a setting cannot be used or the metrics are registered already.
    pub fn build(
        config: PollerConfig,
        role: TenantIndexRole,
        backend: Backend,
        blocklist: Blocklist,
        registry: &prometheus::Registry,
    ) -> Result<Self, Error> {
        if config.poll_interval.is_zero() {
            return Err(Error::config(
                "storage.trace.blocklist_poll",
                "it is 0; blocks of other processes would never be seen",
            ));
        }
        Ok(Self {
            config,
            role,
            backend,
            blocklist,
            metrics: PollerMetrics::register(registry)?,
            now: Arc::new(Timestamp::now),
        })
    }

    /// Takes the time from `now` instead of the wall clock.
    #[must_use]
    pub fn with_clock(mut self, now: Arc<dyn Fn() -> Timestamp + Send + Sync>) -> Self {
        self.now = now;
        self
    }

    /// Polls at every interval until shut down; at once when it has never polled, and often until
    /// it has. Failures are logged and counted, and the lists stay as they were.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut wait = if self.has_polled() {
            self.config.poll_interval
        } else {
            Duration::ZERO
        };
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                outcome = self.poll_once() => {
                    if let Err(error) = outcome {
                        tracing::error!(%error, "blocklist not polled, the previous one stays");
                    }
                }
            }
            wait = if self.has_polled() {
                self.config.poll_interval
            } else {
                self.config.poll_interval.min(FIRST_POLL_RETRY)
            };
        }
    }

    fn has_polled(&self) -> bool {
        self.blocklist.is_polled()
    }

    /// Polls all tenants once.
    ///
    /// # Errors
    /// When the tenants cannot be listed, or more of them fail than is tolerated. All lists then
    /// stay as they were.
    pub async fn poll_once(&self) -> Result<PollOutcome, Error> {
        let _timer = self.metrics.poll_duration_seconds.start_timer();
        let began = Instant::now();
        let tenants = self.backend.list_tenants().await.inspect_err(|_| {
            self.metrics.poll_errors.with_label_values(&[""]).inc();
        })?;
        let concurrency = self.config.tenant_concurrency.max(1);
        let mut answers = stream::iter(tenants)
            .map(|tenant| async move {
                let answer = self.poll_tenant(&tenant).await;
                (tenant, answer)
            })
            .buffer_unordered(concurrency);
        let mut outcome = PollOutcome::default();
        let mut found = Vec::new();
        let mut kept = HashSet::new();
        let mut last_error = None;
        while let Some((tenant, answer)) = answers.next().await {
            match answer {
                Ok((blocks, listed)) => found.push((Arc::from(tenant), blocks, listed)),
                Err(error) => {
                    tracing::warn!(tenant, %error, "tenant not polled, its previous blocks stay");
                    self.metrics.poll_errors.with_label_values(&[&tenant]).inc();
                    kept.insert(Arc::from(tenant.as_str()));
                    outcome.failed_tenants.push(tenant);
                    last_error = Some(error);
                }
            }
            if let Some(error) = last_error
                .take_if(|_| outcome.failed_tenants.len() > self.config.tolerate_tenant_failures)
            {
                return Err(Error::PollAborted {
                    failed_tenants: outcome.failed_tenants.len(),
                    tolerated: self.config.tolerate_tenant_failures,
                    last: Box::new(error),
                });
            }
        }
        drop(answers);
        outcome.polled_tenants = found.len();
        outcome.failed_tenants.sort_unstable();
        self.blocklist.apply_poll(began, found, &kept);
        self.metrics.report_blocks(&self.blocklist);
        Ok(outcome)
    }

    async fn poll_tenant(&self, tenant: &str) -> Result<(TenantBlocks, Listed), Error> {
        let attempts = 1 + self.config.tolerate_consecutive_errors;
        let mut attempt = 1;
        loop {
            match self.try_tenant(tenant).await {
                Err(error) if attempt < attempts => {
                    tracing::warn!(tenant, attempt, attempts, %error, "tenant not polled, trying again");
                    attempt += 1;
                }
                answer => return answer,
            }
        }
    }

    async fn try_tenant(&self, tenant: &str) -> Result<(TenantBlocks, Listed), Error> {
        if self.role == TenantIndexRole::Shared
            && let Some(found) = self.young_index(tenant).await
        {
            self.tell_building(tenant, false);
            return Ok(found);
        }
        let builds = self.role != TenantIndexRole::Reader;
        self.tell_building(tenant, builds);
        if builds {
            return self.build_tenant(tenant).await;
        }
        match self.read_index(tenant).await {
            Ok(found) => Ok(found),
            Err(error) => {
                self.metrics.index_errors.with_label_values(&[tenant]).inc();
                if !self.config.fallback {
                    return Err(error);
                }
                tracing::warn!(tenant, %error, "tenant index cannot be used, listing the store");
                self.build_tenant(tenant).await
            }
        }
    }

    fn tell_building(&self, tenant: &str, builds: bool) {
        self.metrics
            .index_builder
            .with_label_values(&[tenant])
            .set(i64::from(builds));
    }

    /// The index, if another builder wrote it lately. Its own last one is older than that when this
    /// process polls again.
    async fn young_index(&self, tenant: &str) -> Option<(TenantBlocks, Listed)> {
        let (blocks, listed) = self.read_index(tenant).await.ok()?;
        (listed.age_then < self.config.poll_interval * 3 / 4).then_some((blocks, listed))
    }

    /// Indexes are written anew at every poll. One that is clearly older is written by nobody any
    /// more, and lacks what was built since: whoever may lists the store instead, and writes it.
    fn max_index_age(&self) -> Duration {
        match self.config.stale_tenant_index {
            Duration::ZERO if self.config.fallback => self.config.poll_interval * 3 / 2,
            configured => configured,
        }
    }

    async fn read_index(&self, tenant: &str) -> Result<(TenantBlocks, Listed), Error> {
        let known_at = Instant::now();
        let now = (self.now)();
        let index = self.backend.read_tenant_index(tenant).await?;
        let ahead = index.created_at.saturating_since(now);
        if ahead > self.config.poll_interval / MAX_CLOCK_ERROR_PART {
            return Err(Error::FutureTenantIndex {
                tenant: tenant.to_owned(),
                ahead,
            });
        }
        let age = now.saturating_since(index.created_at);
        self.metrics
            .index_age_seconds
            .with_label_values(&[tenant])
            .set(age.as_secs_f64());
        let limit = self.max_index_age();
        if !limit.is_zero() && age > limit {
            return Err(Error::StaleTenantIndex {
                tenant: tenant.to_owned(),
                age,
                limit,
            });
        }
        let listed = Listed {
            known_at,
            age_then: age,
        };
        Ok((TenantBlocks::new(index.live, index.compacted), listed))
    }

    /// Lists the tenant's blocks and writes its index, which is as old as the listing: whoever stands
    /// still in between must not have others take it for what there is.
    async fn build_tenant(&self, tenant: &str) -> Result<(TenantBlocks, Listed), Error> {
        let listed = Listed::at(Instant::now());
        let created_at = (self.now)();
        let blocks = self.list_tenant(tenant).await?;
        if blocks.is_empty() && self.config.empty_tenant_deletion_enabled {
            self.remove_leftovers(tenant).await?;
        }
        let index = Arc::new(TenantIndex {
            created_at,
            live: blocks.live().to_vec(),
            compacted: blocks.compacted().to_vec(),
        });
        // Others can still list the store themselves; here the list is complete.
        if let Err(error) = self.backend.write_tenant_index(tenant, index).await {
            self.metrics.index_errors.with_label_values(&[tenant]).inc();
            tracing::error!(tenant, %error, "tenant index not written");
        }
        self.metrics
            .index_age_seconds
            .with_label_values(&[tenant])
            .set(listed.age().as_secs_f64());
        Ok((blocks, listed))
    }

    /// Lists the tenant's blocks until the listing is whole. A store is listed and read piece by
    /// piece; a merged block that was published, and its inputs that were marked, in between would
    /// both be missed. What is gone was replaced before it went, so that the next listing shows
    /// its successor, or that it has none.
    async fn list_tenant(&self, tenant: &str) -> Result<TenantBlocks, Error> {
        let known = self.blocklist.tenant(tenant);
        let mut blocks = Arc::clone(&known);
        let mut settled = HashSet::new();
        let mut unsettled = HashSet::new();
        for _ in 0..MAX_LISTINGS_PER_POLL {
            let listing = self.backend.list_blocks(tenant).await?;
            let (completed, lost) = self.complete(tenant, &listing, &blocks).await?;
            blocks = Arc::new(completed);
            let mut gone = blocks.gone_without_successor(&known);
            gone.extend(lost);
            if gone.is_subset(&settled) {
                return Ok(Arc::unwrap_or_clone(blocks));
            }
            unsettled = &gone - &settled;
            settled = gone;
        }
        tracing::warn!(
            tenant,
            listings = MAX_LISTINGS_PER_POLL,
            blocks = unsettled.len(),
            "blocks went away during each listing; those whose successors may not have been seen stay until the next poll"
        );
        Ok(blocks.with_live(&known, &unsettled))
    }

    /// The metas of the listed blocks: those known already, the others from the store. And live ones
    /// that were not known and are gone.
    async fn complete(
        &self,
        tenant: &str,
        listing: &BlockListing,
        known: &TenantBlocks,
    ) -> Result<(TenantBlocks, Vec<Uuid>), Error> {
        let mut live: Vec<Arc<BlockMeta>> = Vec::with_capacity(listing.live.len());
        let mut compacted: Vec<Arc<CompactedBlockMeta>> =
            Vec::with_capacity(listing.compacted.len());
        let mut unknown: Vec<Uuid> = Vec::new();
        for &id in &listing.live {
            match known.live_block(id) {
                Some(meta) => live.push(Arc::clone(meta)),
                None => unknown.push(id),
            }
        }
        for &(id, compacted_time) in &listing.compacted {
            if let Some(block) = known.compacted_block(id) {
                compacted.push(Arc::clone(block));
            } else if let Some(meta) = known.live_block(id) {
                compacted.push(Arc::new(CompactedBlockMeta {
                    meta: Arc::clone(meta),
                    compacted_time,
                }));
            } else {
                unknown.push(id);
            }
        }
        unknown.sort_unstable();
        unknown.dedup();
        let fetched: Vec<Fetched> = stream::iter(unknown)
            .map(|id| self.fetch(tenant, id))
            .buffer_unordered(self.config.meta_concurrency.max(1))
            .try_collect()
            .await?;
        let mut lost = Vec::new();
        for block in fetched {
            match block {
                Fetched::Live(meta) => live.push(meta),
                Fetched::Compacted(block) => compacted.push(block),
                Fetched::Nothing(id) if listing.live.contains(&id) => lost.push(id),
                Fetched::Nothing(_) | Fetched::Damaged => {}
            }
        }
        Ok((TenantBlocks::new(live, compacted), lost))
    }

    async fn fetch(&self, tenant: &str, id: Uuid) -> Result<Fetched, Error> {
        if !self.config.jitter.is_zero() {
            let share: f64 = rand::random();
            tokio::time::sleep(self.config.jitter.mul_f64(share)).await;
        }
        let fetched = match self.backend.read_meta(tenant, id).await {
            Ok(meta) => Ok(Fetched::Live(Arc::new(meta))),
            Err(error) if error.is_not_found() => {
                match self.backend.read_compacted_meta(tenant, id).await {
                    Ok(block) => Ok(Fetched::Compacted(Arc::new(block))),
                    // It was removed since it was listed.
                    Err(error) if error.is_not_found() => Ok(Fetched::Nothing(id)),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        match fetched {
            // One damaged meta must not hide the tenant's other blocks.
            Err(error @ Error::Corrupt { .. }) => {
                self.metrics.poll_errors.with_label_values(&[tenant]).inc();
                tracing::error!(tenant, block_id = %id, %error, "block left out");
                Ok(Fetched::Damaged)
            }
            fetched => fetched,
        }
    }

    /// Removes what lies around of a tenant without blocks, unless any of it is recent. A tenant
    /// that still has an index had blocks at the last poll, and waits for the next.
    async fn remove_leftovers(&self, tenant: &str) -> Result<(), Error> {
        let age = match self.config.empty_tenant_deletion_age {
            Duration::ZERO => DEFAULT_EMPTY_TENANT_AGE,
            age => age,
        };
        let limit = (self.now)().saturating_sub(age);
        let objects = self.backend.list_tenant_objects(tenant).await?;
        let is_index = |key: &ObjectKey| {
            *key == ObjectKey::tenant(tenant, crate::TENANT_INDEX_PROTO)
                || *key == ObjectKey::tenant(tenant, crate::TENANT_INDEX_JSON)
        };
        if objects
            .iter()
            .any(|(key, modified)| is_index(key) || *modified > limit)
        {
            return Ok(());
        }
        for (key, _) in &objects {
            self.backend.delete(key).await?;
        }
        tracing::info!(
            tenant,
            objects = objects.len(),
            "leftovers of empty tenant removed"
        );
        Ok(())
    }
}

enum Fetched {
    Live(Arc<BlockMeta>),
    Compacted(Arc<CompactedBlockMeta>),
    Nothing(Uuid),
    Damaged,
}

#[cfg(test)]
mod tests;
