//! The targets: which components a process consists of, and how they are connected. One file each.
//!
//! `open` of a target opens and binds all that can fail and runs nothing.

mod all;
mod backend_scheduler;
mod backend_worker;
mod block_builder;
mod bridge;
mod distributor;
mod live_store;
mod overrides_api;
mod querier;
mod query_frontend;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempo_backend::{
    Backend, Blocklist, Poller, TenantIndexRole,
    cache::{Cache, remote::RemoteCaches},
};
use tempo_config::{Config, Target};

use crate::{
    process::{AppError, Assembly, Base, Stage},
    settings::{self, UnusableSetting},
};

/// Footers, bloom filters, decoded columns and answers of jobs kept in memory, in bytes.
const CACHE_BYTES: u64 = 192 << 20;

/// Longest wait for the first list of blocks; then the process goes on without it and tries again.
const FIRST_POLL_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the components of the configured target.
pub(crate) async fn open(base: &Base, config: &Config) -> Result<Assembly, AppError> {
    match config.target {
        Target::All => all::open(base, config).await,
        Target::Distributor => distributor::open(base, config).await,
        Target::BackendScheduler => backend_scheduler::open(base, config).await,
        Target::BackendWorker => backend_worker::open(base, config).await,
        Target::BlockBuilder => block_builder::open(base, config).await,
        Target::LiveStore => live_store::open(base, config).await,
        Target::Querier => querier::open(base, config).await,
        Target::QueryFrontend => query_frontend::open(base, config).await,
        Target::OverridesApi => Ok(overrides_api::open(base, config)),
        _ => Err(not_built(config).into()),
    }
}

/// Whether a target is there; it is asked before anything is opened.
pub(crate) fn check(config: &Config) -> Result<(), UnusableSetting> {
    match config.target {
        Target::All => match settings::reserved_partition(config) {
            None => Ok(()),
            Some(partition) => settings::bridge_membership(config, partition, false).map(drop),
        },
        Target::BackendScheduler => Ok(()),
        Target::QueryFrontend => settings::membership(config).map(drop),
        Target::OverridesApi if config.overrides.user_configurable_overrides.enabled => Ok(()),
        Target::OverridesApi => Err(UnusableSetting::new(
            "overrides.user_configurable_overrides.enabled",
            "false: the target overrides-api has nothing to do; set it to true",
        )),
        Target::BackendWorker => {
            settings::backend_worker(config)?;
            settings::backend_scheduler_tls(config)?;
            settings::backend_scheduler_address(config).map(drop)
        }
        Target::Distributor => {
            settings::kafka(config)?;
            settings::membership(config).map(drop)
        }
        Target::BlockBuilder => {
            settings::block_builder(config)?;
            settings::membership(config).map(drop)
        }
        Target::LiveStore => {
            settings::live_store_on_kafka(config)?;
            settings::live_store_membership(config, true, true).map(drop)
        }
        Target::Querier => {
            settings::worker(config)?;
            settings::live_stores(config)?;
            settings::membership(config).map(drop)
        }
        _ => Err(not_built(config)),
    }
}

/// Gossip stops last: others learn then that this process has gone.
fn gossip_stage(gossip: tempo_membership::Service) -> Stage {
    Stage::default().with("memberlist-kv", |token| async move {
        if let Err(error) = gossip.run(token).await {
            tracing::error!(%error, "gossip failed");
        }
    })
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
        let remote = RemoteCaches::open(&settings::caches(config)?, &base.registry).await?;
        let cache = Cache::new(CACHE_BYTES, &base.registry)?.with_remote(remote);
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
