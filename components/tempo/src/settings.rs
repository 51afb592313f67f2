//! From the configuration as it is written to the settings of each component.
//!
//! The only place where a key of Tempo's YAML meets a component. Must never invent a default: those
//! are in `tempo-config` and in the components.

mod backend_work;
mod caches;
mod kafka;
mod live_store;
mod membership;
mod overrides;
mod queries;
pub(crate) mod server;
mod storage;
mod tls;
mod writes;

use std::time::Duration;

use tempo_config::{Config, blocks::server::LogLevel};

pub(crate) use backend_work::{
    backend_scheduler, backend_scheduler_address, backend_scheduler_connect_timeout,
    backend_scheduler_tls, backend_worker,
};
pub(crate) use caches::caches;
pub(crate) use kafka::{block_builder, kafka};
pub(crate) use live_store::{
    bridge_membership, live_store, live_store_membership, live_store_on_kafka, reserved_partition,
    shutdown_marker_folder,
};
pub(crate) use membership::membership;
pub(crate) use overrides::{overrides, overrides_api, user_overrides_backend};
pub(crate) use queries::{frontend, live_stores, partition_forgotten_after, querier, worker};
pub(crate) use storage::{
    backend, block, blocks_visible_after, dedicated, max_list_age, poller, retention,
};
use tls::client_tls;
pub(crate) use writes::distributor;

/// Why a configuration that parses cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {reason}")]
pub(crate) struct UnusableSetting {
    /// The key, with its path.
    key: String,
    reason: String,
}

impl UnusableSetting {
    pub(crate) fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            key: key.into(),
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
