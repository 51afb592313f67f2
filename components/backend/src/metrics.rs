//! Metrics of this crate, under Tempo's names.

use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, core::Collector,
};

use crate::{Blocklist, Error};

/// Registers a metric that was just made, and hands it on.
pub(crate) fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<C>,
) -> Result<C, Error> {
    registered(registry, metric).map_err(|error| Error::config("metrics", error.to_string()))
}

/// Requests to the store.
#[derive(Debug, Clone)]
pub(crate) struct RequestMetrics {
    /// `tempodb_backend_request_duration_seconds{operation,status_code}`; the operation is the
    /// HTTP method.
    pub(crate) duration_seconds: HistogramVec,
    /// `tempodb_backend_hedged_roundtrips_total`; a gauge in Tempo, which its dashboards read as
    /// a counter.
    pub(crate) hedged: IntGauge,
}

impl RequestMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            duration_seconds: register(
                registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "tempodb_backend_request_duration_seconds",
                        "Time spent doing backend storage requests.",
                    )
                    .buckets(vec![0.005, 0.02, 0.08, 0.32, 1.28, 5.12]),
                    &["operation", "status_code"],
                ),
            )?,
            hedged: register(
                registry,
                IntGauge::new(
                    "tempodb_backend_hedged_roundtrips_total",
                    "Further requests sent because the first took long.",
                ),
            )?,
        })
    }
}

/// Polling the blocklist.
pub(crate) struct PollerMetrics {
    pub(crate) poll_duration_seconds: Histogram,
    pub(crate) poll_errors: IntCounterVec,
    pub(crate) index_errors: IntCounterVec,
    pub(crate) index_builder: IntGaugeVec,
    pub(crate) index_age_seconds: GaugeVec,
    length: IntGaugeVec,
    objects: IntGaugeVec,
    bytes: IntGaugeVec,
}

impl PollerMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            poll_duration_seconds: register(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "tempodb_blocklist_poll_duration_seconds",
                        "Time to poll the blocks of all tenants.",
                    )
                    .buckets((0..10).map(|step| f64::from(step) * 60.0).collect()),
                ),
            )?,
            poll_errors: register(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "tempodb_blocklist_poll_errors_total",
                        "Failures to poll the blocks of a tenant.",
                    ),
                    &["tenant"],
                ),
            )?,
            index_errors: register(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "tempodb_blocklist_tenant_index_errors_total",
                        "Failures to read or write a tenant index.",
                    ),
                    &["tenant"],
                ),
            )?,
            index_builder: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "tempodb_blocklist_tenant_index_builder",
                        "Whether this process builds the tenant's index.",
                    ),
                    &["tenant"],
                ),
            )?,
            index_age_seconds: register(
                registry,
                GaugeVec::new(
                    Opts::new(
                        "tempodb_blocklist_tenant_index_age_seconds",
                        "Age of the tenant index that was last read.",
                    ),
                    &["tenant"],
                ),
            )?,
            length: register(
                registry,
                IntGaugeVec::new(
                    Opts::new("tempodb_blocklist_length", "Live blocks of a tenant."),
                    &["tenant"],
                ),
            )?,
            objects: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "tempodb_backend_objects_total",
                        "Traces in the blocks of a tenant.",
                    ),
                    &["tenant", "status"],
                ),
            )?,
            bytes: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "tempodb_backend_bytes_total",
                        "Bytes of the blocks of a tenant.",
                    ),
                    &["tenant", "status"],
                ),
            )?,
        })
    }

    /// Sets the figures of every tenant; those of tenants that are gone disappear.
    pub(crate) fn report_blocks(&self, blocklist: &Blocklist) {
        self.length.reset();
        self.objects.reset();
        self.bytes.reset();
        for tenant in blocklist.tenants() {
            let blocks = blocklist.tenant(&tenant);
            let length = i64::try_from(blocks.live().len()).unwrap_or(i64::MAX);
            self.length.with_label_values(&[&tenant]).set(length);
            let live = blocks.live().iter().map(|meta| &**meta);
            let compacted = blocks.compacted().iter().map(|block| &*block.meta);
            let report = |status: &str, totals: (i64, u64)| {
                let labels = &[&*tenant, status];
                self.objects.with_label_values(labels).set(totals.0);
                let bytes = i64::try_from(totals.1).unwrap_or(i64::MAX);
                self.bytes.with_label_values(labels).set(bytes);
            };
            let sum = |(objects, bytes): (i64, u64), meta: &crate::BlockMeta| {
                (
                    objects.saturating_add(meta.total_objects),
                    bytes.saturating_add(meta.size),
                )
            };
            report("live", live.fold((0, 0), sum));
            report("compacted", compacted.fold((0, 0), sum));
        }
    }
}

/// Retention.
pub(crate) struct RetentionMetrics {
    pub(crate) duration_seconds: Histogram,
    pub(crate) errors: IntCounter,
    pub(crate) marked: IntCounter,
    pub(crate) deleted: IntCounter,
}

impl RetentionMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, Error> {
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help));
        Ok(Self {
            duration_seconds: register(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "tempodb_retention_duration_seconds",
                        "Time to apply retention to one tenant.",
                    )
                    .buckets(vec![0.25, 0.5, 1.0, 2.0, 4.0, 8.0]),
                ),
            )?,
            errors: counter(
                "tempodb_retention_errors_total",
                "Blocks that retention failed to mark or remove.",
            )?,
            marked: counter(
                "tempodb_retention_marked_for_deletion_total",
                "Blocks whose retention is over.",
            )?,
            deleted: counter(
                "tempodb_retention_deleted_total",
                "Blocks that were removed.",
            )?,
        })
    }
}
