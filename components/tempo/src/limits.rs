//! The limits of tenants, as each component wants to know them.

use tempo_backend::{DedicatedColumn, DedicatedColumns, RetentionPolicy};
use tempo_config::blocks::storage::DedicatedColumn as ConfiguredColumn;
use tempo_overrides::Overrides;

/// Limits per tenant, with the settings that stand in where a tenant has none.
#[derive(Clone)]
pub(crate) struct Limits {
    pub(crate) overrides: Overrides,
    /// `storage.trace.block.parquet_dedicated_columns`.
    pub(crate) dedicated_columns: DedicatedColumns,
    /// `backend_worker.compaction.block_retention` and `.compacted_block_retention`.
    pub(crate) retention: RetentionPolicy,
}

impl tempo_distributor::Limits for Limits {
    fn limits(&self, tenant: &str) -> tempo_distributor::TenantLimits {
        let limits = self.overrides.tenant(tenant);
        tempo_distributor::TenantLimits {
            rate_limit_bytes: limits.ingestion_rate_limit_bytes(),
            // Nobody to share it with; distributors that do so have limits of their own.
            global_rate_limit_bytes: 0,
            burst_size_bytes: limits.ingestion_burst_size_bytes(),
            max_attribute_bytes: limits.ingestion_max_attribute_bytes().unwrap_or(0) as usize,
            retry_info_enabled: limits.ingestion_retry_info_enabled(),
            artificial_delay: limits.ingestion_artificial_delay(),
        }
    }
}

impl tempo_live_store::Limits for Limits {
    fn max_bytes_per_trace(&self, tenant: &str) -> u64 {
        self.overrides
            .tenant(tenant)
            .max_bytes_per_trace()
            .unwrap_or(0)
    }

    fn max_live_traces(&self, tenant: &str) -> u32 {
        let limit = self
            .overrides
            .tenant(tenant)
            .max_traces_per_user()
            .unwrap_or(0);
        u32::try_from(limit).unwrap_or(u32::MAX)
    }

    fn dedicated_columns(&self, tenant: &str) -> DedicatedColumns {
        match self.overrides.tenant(tenant).dedicated_columns() {
            Some(columns) => dedicated_columns(columns),
            None => self.dedicated_columns.clone(),
        }
    }
}

impl tempo_block_builder::Limits for Limits {
    fn max_bytes_per_trace(&self, tenant: &str) -> u64 {
        tempo_live_store::Limits::max_bytes_per_trace(self, tenant)
    }

    fn dedicated_columns(&self, tenant: &str) -> DedicatedColumns {
        tempo_live_store::Limits::dedicated_columns(self, tenant)
    }
}

impl tempo_query_frontend::LimitsSource for Limits {
    fn read_limits(&self, tenant: &str) -> tempo_query_frontend::ReadLimits {
        let limits = self.overrides.tenant(tenant);
        tempo_query_frontend::ReadLimits {
            max_bytes_per_trace: limits.max_bytes_per_trace().unwrap_or(0) as usize,
            max_bytes_per_tag_values_query: limits.max_bytes_per_tag_values_query().unwrap_or(0),
            max_condition_groups_per_tag_query: limits.max_condition_groups_per_tag_query()
                as usize,
            max_search_duration: limits.max_search_duration(),
            max_metrics_duration: limits.max_metrics_duration(),
            unsafe_query_hints: limits.unsafe_query_hints(),
            left_pad_trace_ids: limits.left_pad_trace_ids(),
        }
    }
}

/// Dedicated columns from the words of the configuration.
pub(crate) fn dedicated_columns(columns: &[ConfiguredColumn]) -> DedicatedColumns {
    columns
        .iter()
        .map(|column| DedicatedColumn {
            scope: column.scope.text().to_owned().into(),
            name: column.name.clone(),
            kind: column.r#type.text().to_owned().into(),
            options: column.options.iter().cloned().map(Into::into).collect(),
        })
        .collect::<Vec<_>>()
        .into()
}
