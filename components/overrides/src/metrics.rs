//! Metrics of the overrides, under Tempo's names.

use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector};

use crate::{Error, TenantOverrides, overrides::RuntimeTable};

pub(crate) struct Metrics {
    /// `tempo_runtime_config_last_reload_successful{config="overrides"}`.
    pub(crate) last_reload_successful: IntGauge,
    /// `tempo_limits_overrides{limit_name,user}`.
    overrides: GaugeVec,
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<C>,
) -> Result<C, Error> {
    metric
        .and_then(|metric| {
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        })
        .map_err(|error| Error::Metrics(error.to_string()))
}

/// Limits whose figures are shown for the defaults and for each tenant.
fn shared_figures(limits: &TenantOverrides) -> [(&'static str, f64); 7] {
    let retention = limits.compaction.block_retention.0;
    [
        (
            "max_local_traces_per_user",
            limits.ingestion.max_traces_per_user as f64,
        ),
        (
            "max_global_traces_per_user",
            limits.ingestion.max_global_traces_per_user as f64,
        ),
        (
            "ingestion_rate_limit_bytes",
            *limits.ingestion.rate_limit_bytes as f64,
        ),
        (
            "ingestion_burst_size_bytes",
            *limits.ingestion.burst_size_bytes as f64,
        ),
        (
            "max_bytes_per_trace",
            *limits.global.max_bytes_per_trace as f64,
        ),
        ("block_retention", retention.as_nanos() as f64),
        (
            "metrics_generator_max_active_series",
            f64::from(limits.metrics_generator.max_active_series),
        ),
    ]
}

impl Metrics {
    pub(crate) fn register(registry: &Registry, defaults: &TenantOverrides) -> Result<Self, Error> {
        let shown_defaults = register(
            registry,
            GaugeVec::new(
                Opts::new("tempo_limits_defaults", "Default resource limits"),
                &["limit_name"],
            ),
        )?;
        let read = &defaults.read;
        for (name, value) in shared_figures(defaults).into_iter().chain([
            (
                "max_bytes_per_tag_values_query",
                *read.max_bytes_per_tag_values_query as f64,
            ),
            (
                "max_blocks_per_tag_values_query",
                read.max_blocks_per_tag_values_query as f64,
            ),
        ]) {
            shown_defaults.with_label_values(&[name]).set(value);
        }
        Ok(Self {
            last_reload_successful: register(
                registry,
                IntGauge::with_opts(
                    Opts::new(
                        "tempo_runtime_config_last_reload_successful",
                        "Whether the last runtime-config reload attempt was successful.",
                    )
                    .const_label("config", "overrides"),
                ),
            )?,
            overrides: register(
                registry,
                GaugeVec::new(
                    Opts::new(
                        "tempo_limits_overrides",
                        "Resource limit overrides applied to tenants",
                    ),
                    &["limit_name", "user"],
                ),
            )?,
        })
    }

    /// Shows the figures of these tenants and of no others.
    pub(crate) fn show(&self, table: &RuntimeTable) {
        self.overrides.reset();
        for (tenant, limits) in table {
            for (name, value) in shared_figures(limits) {
                self.overrides.with_label_values(&[name, tenant]).set(value);
            }
            if limits.metrics_generator.disable_collection {
                self.overrides
                    .with_label_values(&["metrics_generator_dry_run_enabled", tenant])
                    .set(1.0);
            }
        }
    }
}

/// Metrics of what tenants set themselves.
#[derive(Clone)]
pub(crate) struct UserMetrics {
    /// Listings of tenants.
    pub(crate) lists: IntCounter,
    /// Reads of documents.
    pub(crate) fetches: IntCounterVec,
    /// Reads of documents that failed, those that do not exist included.
    pub(crate) failed_fetches: IntCounterVec,
    /// Polls that were given up.
    pub(crate) failed_reloads: IntCounter,
}

impl UserMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, Error> {
        let name = |name| format!("tempo_overrides_user_configurable_overrides_{name}");
        let by_tenant = |metric, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name(metric), help), &["tenant"]);
            register(registry, counter)
        };
        let counter = |metric, help: &str| register(registry, IntCounter::new(name(metric), help));
        Ok(Self {
            lists: counter(
                "list_total",
                "Listings of tenants with overrides of their own.",
            )?,
            fetches: by_tenant("fetch_total", "Reads of a tenant's own overrides.")?,
            failed_fetches: by_tenant(
                "fetch_failed_total",
                "Reads of a tenant's own overrides that failed.",
            )?,
            failed_reloads: counter(
                "reload_failed_total",
                "Reloads of all tenants' own overrides that failed.",
            )?,
        })
    }
}
