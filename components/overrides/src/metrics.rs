//! Metrics of the overrides, under Tempo's names.

use prometheus::{GaugeVec, IntGauge, Opts, Registry, core::Collector};

use crate::{Error, Limits, parse::TenantLimitsTable};

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
fn shared_figures(limits: &Limits) -> [(&'static str, f64); 7] {
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
            limits.ingestion.rate_limit_bytes as f64,
        ),
        (
            "ingestion_burst_size_bytes",
            limits.ingestion.burst_size_bytes as f64,
        ),
        (
            "max_bytes_per_trace",
            limits.global.max_bytes_per_trace as f64,
        ),
        ("block_retention", retention.as_nanos() as f64),
        (
            "metrics_generator_max_active_series",
            limits.metrics_generator.max_active_series as f64,
        ),
    ]
}

impl Metrics {
    pub(crate) fn register(registry: &Registry, defaults: &Limits) -> Result<Self, Error> {
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
                read.max_bytes_per_tag_values_query as f64,
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
    pub(crate) fn show(&self, table: &TenantLimitsTable) {
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
