//! Maintaining blocks: the backend-scheduler and its workers.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tempo_backend_scheduler::select::SelectionConfig;
use tempo_config::{Config, Target};
use tempo_runtime::tls::ClientTls;

use super::{UnusableSetting, client_tls, host_name, storage};

/// Folder of the jobs beside that of the log, in one process.
const WORK_FOLDER: &str = "backend-scheduler";

pub(crate) fn backend_scheduler(config: &Config) -> tempo_backend_scheduler::Config {
    let scheduler = &config.backend_scheduler;
    let provider = &scheduler.provider;
    let compaction = &provider.compaction;
    let selection = &compaction.compaction;
    // One process keeps all of its state together unless told otherwise.
    let beside_log =
        config.target == Target::All && !config.is_set("backend_scheduler.local_work_path");
    tempo_backend_scheduler::Config {
        prune_age: scheduler.work.prune_age.0,
        dead_job_timeout: scheduler.work.dead_job_timeout.0,
        maintenance_interval: scheduler.maintenance_interval.0,
        backend_flush_interval: scheduler.backend_flush_interval.0,
        job_timeout: scheduler.job_timeout.0,
        local_work_path: if beside_log {
            Path::new(&config.live_store.wal.path).with_file_name(WORK_FOLDER)
        } else {
            PathBuf::from(&scheduler.local_work_path)
        },
        retention_interval: provider.retention.interval.0,
        max_jobs_per_tenant: compaction.max_jobs_per_tenant as usize,
        min_cycle_interval: compaction.min_cycle_interval.0,
        rescan_delay: provider.redaction.rescan_delay.0,
        selection: SelectionConfig {
            window: selection.compaction_window.0,
            min_blocks: compaction.min_input_blocks as usize,
            max_blocks: compaction.max_input_blocks as usize,
            max_objects: selection.max_compaction_objects,
            max_bytes: selection.max_block_bytes.0,
            max_level: compaction.max_compaction_level,
        },
        multitenancy: config.multitenancy(),
        host: host_name(),
        ..tempo_backend_scheduler::Config::default()
    }
}

pub(crate) fn backend_worker(
    config: &Config,
) -> Result<tempo_backend_worker::Config, UnusableSetting> {
    let worker = &config.backend_worker;
    let block = storage::block(config)?;
    let id = match worker.ring.instance_id.as_str() {
        "" => host_name(),
        id => id.to_owned(),
    };
    Ok(tempo_backend_worker::Config {
        backoff: tempo_backend_worker::Backoff {
            min: worker.backoff.min_period.0,
            max: worker.backoff.max_period.0,
        },
        finish_on_shutdown_timeout: worker.finish_on_shutdown_timeout.0,
        row_group_size_bytes: block.row_group_size_bytes,
        bloom_false_positive: block.bloom_false_positive,
        bloom_shard_size_bytes: block.bloom_shard_size_bytes,
        retention_concurrency: worker.compaction.retention_concurrency as usize,
        ..tempo_backend_worker::Config::new(id)
    })
}

/// Address of the scheduler that a worker of its own process asks.
pub(crate) fn backend_scheduler_address(config: &Config) -> Result<String, UnusableSetting> {
    let address = &config.backend_worker.backend_scheduler_addr;
    if address.is_empty() {
        return Err(UnusableSetting::new(
            "backend_worker.backend_scheduler_addr",
            "not set: name host and port of the backend-scheduler",
        ));
    }
    Ok(address.clone())
}

/// TLS towards the scheduler; none: in plain text.
pub(crate) fn backend_scheduler_tls(config: &Config) -> Result<Option<ClientTls>, UnusableSetting> {
    client_tls(
        "backend_scheduler_client.grpc_client_config",
        &config.backend_scheduler_client.grpc_client_config,
    )
}

/// Longest wait for a connection to the scheduler.
pub(crate) fn backend_scheduler_connect_timeout(config: &Config) -> Duration {
    const DEFAULT: Duration = Duration::from_secs(5);
    let client = &config.backend_scheduler_client.grpc_client_config;
    super::not_zero(client.connect_timeout.0).unwrap_or(DEFAULT)
}
