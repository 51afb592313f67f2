//! The targets: which components a process consists of, and how they are connected. One file each.
//!
//! `open` of a target opens and binds all that can fail and runs nothing.

mod all;
mod querier;
mod query_frontend;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempo_backend::{Backend, Blocklist, Poller, TenantIndexRole, cache::Cache};
use tempo_config::{Config, Target};

use crate::{
    process::{AppError, Assembly, Base},
    settings::{self, UnusableSetting},
};

/// Footers, bloom filters and dictionaries kept in memory, in bytes.
const CACHE_BYTES: u64 = 128 << 20;

/// Longest wait for the first list of blocks; then the process goes on without it and tries again.
const FIRST_POLL_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the components of the configured target.
pub(crate) async fn open(base: &Base, config: &Config) -> Result<Assembly, AppError> {
    match config.target {
        Target::All => all::open(base, config).await,
        Target::Querier => querier::open(base, config).await,
        Target::QueryFrontend => query_frontend::open(base, config).await,
        _ => Err(not_built(config).into()),
    }
}

/// Whether a target is there; it is asked before anything is opened.
pub(crate) fn check(config: &Config) -> Result<(), UnusableSetting> {
    match config.target {
        Target::All | Target::QueryFrontend => Ok(()),
        Target::Querier => {
            settings::worker(config)?;
            settings::live_stores(config)?;
            if config.memberlist.join_members.is_empty() {
                return Ok(());
            }
            Err(UnusableSetting::new(
                "memberlist.join_members",
                "a querier does not ask live-stores in this version; leave it empty",
            ))
        }
        _ => Err(not_built(config)),
    }
}

fn not_built(config: &Config) -> UnusableSetting {
    UnusableSetting::new(
        "target",
        format!(
            "{} is not part of this version; use -target=all",
            config.target.name()
        ),
    )
}

/// The object store of a process, with its cache and the list of its blocks.
struct Storage {
    backend: Backend,
    cache: Cache,
    blocklist: Blocklist,
    poller: Poller,
}

impl Storage {
    async fn open(base: &Base, config: &Config, role: TenantIndexRole) -> Result<Self, AppError> {
        let backend_config = settings::backend(config)?;
        for setting in backend_config.ineffective_settings() {
            tracing::warn!(
                setting = setting.setting,
                reason = setting.reason,
                "no effect"
            );
        }
        let backend = Backend::open(&backend_config, &base.registry).await?;
        let cache = Cache::new(CACHE_BYTES, &base.registry)?;
        let blocklist = Blocklist::new();
        let poller = Poller::build(
            settings::poller(config),
            role,
            backend.clone(),
            blocklist.clone(),
            &base.registry,
        )?;
        Ok(Self {
            backend,
            cache,
            blocklist,
            poller,
        })
    }
}

async fn first_poll(poller: &Poller) {
    match tokio::time::timeout(FIRST_POLL_TIMEOUT, poller.poll_once()).await {
        Ok(Ok(outcome)) => {
            tracing::info!(tenants = outcome.polled_tenants, "blocks listed");
        }
        Ok(Err(error)) => tracing::error!(%error, "blocks not listed yet, trying again"),
        Err(_) => tracing::error!(
            timeout = ?FIRST_POLL_TIMEOUT,
            "blocks not listed yet: the object store does not answer; trying again"
        ),
    }
}

fn now_nanos() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
