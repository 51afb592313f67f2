//! What is suspect about a configuration, and what can't be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tempo_traceql::REWRITE_NAMES;

use crate::blocks::storage::{BackendKind, DedicatedColumn, DedicatedType};
use crate::load::Config;
use crate::target::Target;

/// Dedicated columns of text per scope; more are stored as other attributes.
const MAX_DEDICATED_STRING_COLUMNS: usize = 20;
/// Dedicated columns of whole numbers per scope; more are stored as other attributes.
const MAX_DEDICATED_INT_COLUMNS: usize = 5;
/// Parts into which a search by id may be split.
const TRACE_BY_ID_SHARDS: std::ops::RangeInclusive<u32> = 2..=100_000;

/// Something suspect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What it is.
    pub message: String,
    /// What comes of it; may be empty.
    pub explain: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.explain.is_empty() {
            write!(f, " ({})", self.explain)?;
        }
        Ok(())
    }
}

pub(crate) fn warnings(config: &Config) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |message: &str, explain: &str| {
        warnings.push(Warning {
            message: message.to_owned(),
            explain: explain.to_owned(),
        });
    };
    let trace = &config.storage.trace;
    let frontend = &config.query_frontend;
    let compaction = &config.backend_worker.compaction;
    if config.live_store.complete_block_timeout < trace.blocklist_poll {
        warn(
            "live_store.complete_block_timeout < storage.trace.blocklist_poll",
            "traces may not be found between the time a live-store forgets a block and the time a querier sees it",
        );
    }
    if compaction.block_retention < trace.blocklist_poll {
        warn(
            "backend_worker.compaction.block_retention < storage.trace.blocklist_poll",
            "blocks may be read that do not exist any more",
        );
    }
    if compaction.retention_concurrency == 0 {
        warn(
            "backend_worker.compaction.retention_concurrency is 0",
            "the default of 10 is used",
        );
    }
    if trace.blocklist_poll_concurrency == 0 {
        warn(
            "storage.trace.blocklist_poll_concurrency is 0",
            "the default of 50 is used",
        );
    }
    if config.distributor.log_received_spans.enabled {
        warn(
            "distributor.log_received_spans is enabled",
            "this is for finding faults, not for production",
        );
    }
    if config.distributor.log_discarded_spans.enabled {
        warn(
            "distributor.log_discarded_spans is enabled",
            "this is for finding faults, not for production",
        );
    }
    if trace.backend == BackendKind::Local && config.target != Target::All {
        warn(
            "storage.trace.backend is local, but target is not all",
            "traces are found only if all components see the same disk",
        );
    }
    if frontend.mcp_server.enabled {
        warn(
            "query_frontend.mcp_server is enabled",
            "traces are sent to language models that ask",
        );
    }
    for message in crowded_columns(&trace.block.parquet_dedicated_columns) {
        warn(
            &message,
            "what is beyond is stored like any other attribute",
        );
    }
    if traces_and_overrides_collide(config) {
        warn(
            "overrides.user_configurable_overrides.client names the place of the traces",
            "each needs a bucket or prefix of its own",
        );
    }
    if config.has_legacy_overrides() {
        warn(
            "overrides are written in the flat form of Tempo 1",
            "it will go; move the keys to overrides.defaults",
        );
    }
    if trace.backend == BackendKind::S3 && trace.s3.native_aws_auth_enabled {
        warn(
            "storage.trace.s3.native_aws_auth_enabled is deprecated",
            "it has no effect",
        );
    }
    if !trace.cache.is_empty() {
        warn(
            "storage.trace.cache is deprecated",
            "move the settings to the block cache",
        );
    }
    if frontend.trace_by_id.concurrent_shards > frontend.trace_by_id.query_shards {
        warn(
            "query_frontend.trace_by_id.concurrent_shards > query_shards",
            "it is taken as query_shards",
        );
    }
    if config.backend_scheduler.work.prune_age.0 <= trace.blocklist_poll.0 * 2 {
        warn(
            "backend_scheduler.work.prune_age <= 2 * storage.trace.blocklist_poll",
            "blocks may be joined twice",
        );
    }
    let builder = &config.block_builder;
    if !builder.assigned_partitions.is_empty() && builder.partitions_per_instance > 0 {
        warn(
            "block_builder.assigned_partitions and partitions_per_instance are both set",
            "use one of them",
        );
    }
    for name in &frontend.skip_ast_transformations {
        if !REWRITE_NAMES.contains(&&**name) {
            warn(
                &format!(
                    "query_frontend.skip_ast_transformations names {name:?}, which does not exist"
                ),
                &format!("known are {}", REWRITE_NAMES.join(", ")),
            );
        }
    }
    if !frontend.rf1_after.is_empty() {
        warn("query_frontend.rf1_after is deprecated", "it has no effect");
    }
    warnings
}

/// Why the configuration can't be used.
pub(crate) fn problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let frontend = &config.query_frontend;
    if !TRACE_BY_ID_SHARDS.contains(&frontend.trace_by_id.query_shards) {
        problems.push(format!(
            "query_frontend.trace_by_id.query_shards: expected 2 to 100000, found {}",
            frontend.trace_by_id.query_shards
        ));
    }
    let must_be_positive = [
        (
            "search.concurrent_jobs",
            frontend.search.concurrent_jobs > 0,
        ),
        (
            "search.target_bytes_per_job",
            *frontend.search.target_bytes_per_job > 0,
        ),
        (
            "search.most_recent_shards",
            frontend.search.most_recent_shards > 0,
        ),
        (
            "metrics.concurrent_jobs",
            frontend.metrics.concurrent_jobs > 0,
        ),
        (
            "metrics.target_bytes_per_job",
            *frontend.metrics.target_bytes_per_job > 0,
        ),
        ("metrics.interval", !frontend.metrics.interval.is_zero()),
    ];
    for (key, holds) in must_be_positive {
        if !holds {
            problems.push(format!("query_frontend.{key}: must be greater than 0"));
        }
    }
    if frontend.query_end_cutoff > frontend.search.query_backend_after {
        problems.push(
            "query_frontend.query_end_cutoff: must not be longer than query_frontend.search.query_backend_after"
                .to_owned(),
        );
    }
    let overrides = &config.overrides;
    let user_configurable = &overrides.user_configurable_overrides;
    if overrides.per_tenant_override_period.is_zero() {
        problems.push("overrides.per_tenant_override_period: must be longer than 0".to_owned());
    }
    if user_configurable.enabled && user_configurable.poll_interval.is_zero() {
        problems.push(
            "overrides.user_configurable_overrides.poll_interval: must be longer than 0".to_owned(),
        );
    }
    for (path, columns) in [
        (
            "storage.trace.block",
            &config.storage.trace.block.parquet_dedicated_columns,
        ),
        (
            "overrides.defaults.storage",
            &overrides.defaults.storage.parquet_dedicated_columns,
        ),
    ] {
        problems.extend(
            broken_columns(columns)
                .map(|problem| format!("{path}.parquet_dedicated_columns: {problem}")),
        );
    }
    let mut roles = BTreeSet::new();
    for (index, cache) in config.cache.caches.iter().enumerate() {
        let path = format!("cache.caches[{index}]");
        if cache.roles.is_empty() {
            problems.push(format!("{path}.roles: name at least one role"));
        }
        if cache.memcached.is_some() == cache.redis.is_some() {
            problems.push(format!("{path}: set either memcached or redis"));
        }
        for role in &cache.roles {
            if !roles.insert(role.text()) {
                problems.push(format!(
                    "{path}.roles: {} is held by an earlier cache",
                    role.text()
                ));
            }
        }
    }
    problems
}

fn broken_columns(columns: &[DedicatedColumn]) -> Option<String> {
    let mut names = BTreeSet::new();
    columns.iter().find_map(|column| {
        if column.name.is_empty() {
            return Some("a column without name".to_owned());
        }
        if !names.insert((column.scope.text(), &column.name)) {
            return Some(format!(
                "{:?} is there twice in scope {}",
                column.name,
                column.scope.text()
            ));
        }
        column
            .options
            .iter()
            .find(|option| !matches!(&***option, "array" | "blob"))
            .map(|option| {
                format!(
                    "{:?} has the option {option:?}; known are array, blob",
                    column.name
                )
            })
    })
}

fn crowded_columns(columns: &[DedicatedColumn]) -> Vec<String> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for column in columns {
        *counts
            .entry((column.scope.text(), column.r#type.text()))
            .or_default() += 1;
    }
    counts
        .into_iter()
        .filter_map(|((scope, r#type), count)| {
            let max = if r#type == DedicatedType::Int.text() {
                MAX_DEDICATED_INT_COLUMNS
            } else {
                MAX_DEDICATED_STRING_COLUMNS
            };
            (count > max).then(|| {
                format!(
                    "storage.trace.block.parquet_dedicated_columns has {count} columns of type {type} in scope {scope}, {max} are possible"
                )
            })
        })
        .collect()
}

fn traces_and_overrides_collide(config: &Config) -> bool {
    let traces = &config.storage.trace;
    let overrides = &config.overrides.user_configurable_overrides.client;
    if traces.backend != overrides.backend {
        return false;
    }
    match traces.backend {
        BackendKind::None => false,
        BackendKind::Local => traces.local.path == overrides.local.path,
        BackendKind::S3 => {
            traces.s3.bucket == overrides.s3.bucket && traces.s3.prefix == overrides.s3.prefix
        }
        BackendKind::Gcs => {
            traces.gcs.bucket_name == overrides.gcs.bucket_name
                && traces.gcs.prefix == overrides.gcs.prefix
        }
        BackendKind::Azure => {
            traces.azure.container_name == overrides.azure.container_name
                && traces.azure.prefix == overrides.azure.prefix
        }
    }
}
