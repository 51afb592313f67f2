//! From the configuration as it is written to the settings of each component.
//!
//! The only place where a key of Tempo's YAML meets a component. Must never invent a default: those
//! are in `tempo-config` and in the components.

mod backend_work;
mod caches;
mod kafka;
mod live_store;
mod membership;
mod queries;
pub(crate) mod server;
mod storage;
mod writes;

use std::{sync::Arc, time::Duration};

use tempo_config::{Config, RenderMode, blocks::server::LogLevel};
use tempo_overrides::OverridesBlock;

pub(crate) use backend_work::{
    backend_scheduler, backend_scheduler_address, backend_scheduler_connect_timeout, backend_worker,
};
pub(crate) use caches::caches;
pub(crate) use kafka::{block_builder, kafka};
pub(crate) use live_store::{
    bridge_membership, live_store_membership, live_store_on_kafka, shutdown_marker_folder,
};
pub(crate) use membership::membership;
pub(crate) use queries::{frontend, live_stores, querier, worker};
pub(crate) use storage::{backend, block, dedicated, poller, retention};
pub(crate) use writes::{distributor, live_store, missing_receivers};

/// Why a configuration that parses cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {reason}")]
pub(crate) struct UnusableSetting {
    /// The key, with its path.
    key: &'static str,
    reason: String,
}

impl UnusableSetting {
    pub(crate) fn new(key: &'static str, reason: impl Into<String>) -> Self {
        Self {
            key,
            reason: reason.into(),
        }
    }
}

/// Zero stands for "no limit" in Tempo's durations.
fn not_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

/// Name of this machine; in a cluster that of the pod.
pub(crate) fn host_name() -> String {
    let name = std::env::var("HOSTNAME")
        .ok()
        .filter(|name| !name.is_empty());
    let name = name.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    name.map_or_else(|| "tempo".to_owned(), |name| name.trim().to_owned())
}

/// The least important level that is logged.
pub(crate) fn log_level(config: &Config) -> tracing::Level {
    match config.server.log_level {
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Error => tracing::Level::ERROR,
    }
}

/// Limits per tenant. The block travels as YAML: the overrides own its meaning.
pub(crate) fn overrides(
    config: &Config,
    expand_env: bool,
) -> Result<tempo_overrides::Config, UnusableSetting> {
    let unusable = |reason: String| UnusableSetting::new("overrides", reason);
    let mut rendered: serde_yaml::Mapping =
        serde_yaml::from_str(&config.render(RenderMode::Effective))
            .map_err(|error| unusable(error.to_string()))?;
    let block = rendered.remove("overrides").unwrap_or_default();
    let block =
        OverridesBlock::from_yaml(block, false).map_err(|error| unusable(error.to_string()))?;
    let mut overrides = tempo_overrides::Config::from(block);
    if expand_env {
        overrides.expand = Some(Arc::new(crate::expand_from_environment));
    }
    let format = storage::block_format(config)?;
    overrides.check = Some(Arc::new(move |tenant, limits| {
        let Some(columns) = &limits.storage.parquet_dedicated_columns else {
            return Ok(());
        };
        crate::limits::dedicated_columns(columns)
            .validate(&format)
            .map(drop)
            .map_err(|error| {
                format!("overrides.{tenant}.storage.parquet_dedicated_columns: {error}")
            })
    }));
    Ok(overrides)
}
