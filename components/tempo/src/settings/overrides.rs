//! Limits per tenant, and the API by which tenants set some of them.

use std::sync::Arc;

use tempo_backend::BackendConfig;
use tempo_config::{Config, Problem, blocks::storage::DedicatedColumn};
use tempo_overrides::{ApiConfig, TenantOverrides};

use super::{
    UnusableSetting,
    storage::{self, Store},
};
use crate::limits::dedicated_columns;

/// Of an entry of the runtime file.
const COLUMNS: &str = "storage.parquet_dedicated_columns";

/// Limits per tenant; where tenants set some themselves, their store is to be added.
pub(crate) fn overrides(
    config: &Config,
    expand_env: bool,
) -> Result<tempo_overrides::Config, UnusableSetting> {
    let mut overrides = tempo_overrides::Config::from(&config.overrides);
    if expand_env {
        overrides.expand = Some(Arc::new(crate::expand_from_environment));
    }
    let format = storage::block_format(config)?;
    let check = move |entry: &TenantOverrides| -> Vec<Problem> {
        let columns: &[DedicatedColumn] = &entry.storage.parquet_dedicated_columns;
        let problem = dedicated_columns(columns).validate(&format).err();
        let problems = problem.into_iter();
        problems
            .map(|problem| (COLUMNS.to_owned(), problem.to_string()))
            .collect()
    };
    if let Some((path, problem)) = check(&overrides.defaults).pop() {
        return Err(UnusableSetting::new(
            format!("overrides.defaults.{path}"),
            problem,
        ));
    }
    overrides.check = Some(Arc::new(check));
    Ok(overrides)
}

/// Where tenants keep what they set themselves; none where they cannot.
pub(crate) fn user_overrides_backend(
    config: &Config,
) -> Result<Option<BackendConfig>, UnusableSetting> {
    let user_configurable = &config.overrides.user_configurable_overrides;
    if !user_configurable.enabled {
        return Ok(None);
    }
    let client = &user_configurable.client;
    storage::store_backend(&Store {
        section: "overrides.user_configurable_overrides.client",
        kind: client.backend,
        local: &client.local,
        s3: &client.s3,
        gcs: &client.gcs,
        azure: &client.azure,
    })
    .map(Some)
}

/// The API of what tenants set themselves.
pub(crate) fn overrides_api(config: &Config) -> ApiConfig {
    let api = &config.overrides.user_configurable_overrides.api;
    ApiConfig {
        http_api_prefix: config.http_api_prefix.clone(),
        multitenancy_enabled: config.multitenancy(),
        check_for_conflicting_runtime_overrides: api.check_for_conflicting_runtime_overrides,
        forwarders: config
            .distributor
            .forwarders
            .iter()
            .map(|forwarder| forwarder.name.clone())
            .collect(),
    }
}
