//! Metrics of the operator.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::api::{At, TempoStack};

#[derive(Clone)]
pub(super) struct Metrics {
    reconcile_total: IntCounterVec,
    pub(super) reconcile_duration_seconds: Histogram,
    stack_condition: IntGaugeVec,
    stack_info: IntGaugeVec,
    partition_drain_seconds: IntGaugeVec,
    migration_phase: IntGaugeVec,
    pub(super) apply_conflicts: IntCounter,
    pub(super) applied: IntCounterVec,
    pub(super) leader: IntGauge,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("tempo_operator_{name}"), help);
        let stack = ["namespace", "name"];
        let metrics = Self {
            reconcile_total: IntCounterVec::new(
                opts("reconcile_total", "Looks at stacks, by result."),
                &["result"],
            )?,
            reconcile_duration_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "tempo_operator_reconcile_duration_seconds",
                    "Time of a look at a stack.",
                )
                .buckets(vec![0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]),
            )?,
            stack_condition: IntGaugeVec::new(
                opts(
                    "stack_condition",
                    "1 for the status that a condition of a stack has.",
                ),
                &["namespace", "name", "type", "status"],
            )?,
            stack_info: IntGaugeVec::new(
                opts("stack_info", "1 for each stack, with its mode and version."),
                &["namespace", "name", "mode", "version"],
            )?,
            partition_drain_seconds: IntGaugeVec::new(
                opts(
                    "partition_drain_seconds",
                    "Time since partitions of a stack began to be drained; 0 when none are.",
                ),
                &stack,
            )?,
            migration_phase: IntGaugeVec::new(
                opts(
                    "migration_phase",
                    "1 for the phase of a stack's change of mode.",
                ),
                &["namespace", "name", "phase"],
            )?,
            apply_conflicts: IntCounter::with_opts(opts(
                "apply_conflicts_total",
                "Objects that others changed at the same time.",
            ))?,
            applied: IntCounterVec::new(
                opts("applied_total", "Objects that were written, by kind."),
                &["kind"],
            )?,
            leader: IntGauge::with_opts(opts("leader", "1 while this operator leads."))?,
        };
        registry.register(Box::new(metrics.reconcile_total.clone()))?;
        registry.register(Box::new(metrics.reconcile_duration_seconds.clone()))?;
        registry.register(Box::new(metrics.stack_condition.clone()))?;
        registry.register(Box::new(metrics.stack_info.clone()))?;
        registry.register(Box::new(metrics.partition_drain_seconds.clone()))?;
        registry.register(Box::new(metrics.migration_phase.clone()))?;
        registry.register(Box::new(metrics.apply_conflicts.clone()))?;
        registry.register(Box::new(metrics.applied.clone()))?;
        registry.register(Box::new(metrics.leader.clone()))?;
        Ok(metrics)
    }

    pub(super) fn reconciled(&self, result: &str) {
        self.reconcile_total.with_label_values(&[result]).inc();
    }

    /// Shows a stack as its status says.
    pub(super) fn show(&self, stack: &TempoStack, now: At) {
        let namespace = stack.metadata.namespace.as_deref().unwrap_or_default();
        let name = stack.metadata.name.as_deref().unwrap_or_default();
        let Some(status) = &stack.status else {
            return;
        };
        self.forget(namespace, name);
        for condition in &status.conditions {
            for value in ["True", "False", "Unknown"] {
                self.stack_condition
                    .with_label_values(&[namespace, name, &condition.kind, value])
                    .set(i64::from(condition.status == value));
            }
        }
        if let Some(mode) = status.mode {
            self.stack_info
                .with_label_values(&[namespace, name, mode.name(), &status.version.tempo])
                .set(1);
        }
        let drain = status
            .live_store
            .as_ref()
            .and_then(|live| live.drain.as_ref());
        let since = drain.and_then(|drain| drain.started_at);
        self.partition_drain_seconds
            .with_label_values(&[namespace, name])
            .set(since.map_or(0, |since| {
                i64::try_from(now.seconds_since(since)).unwrap_or(0)
            }));
        if let Some(migration) = &status.migration {
            self.migration_phase
                .with_label_values(&[namespace, name, &format!("{:?}", migration.phase)])
                .set(1);
        }
    }

    /// Takes away all that is told of a stack.
    pub(super) fn forget(&self, namespace: &str, name: &str) {
        for family in [
            &self.stack_condition,
            &self.stack_info,
            &self.migration_phase,
            &self.partition_drain_seconds,
        ] {
            let mut gone = Vec::new();
            for metric in prometheus::core::Collector::collect(family) {
                for series in metric.get_metric() {
                    let labels: std::collections::HashMap<String, String> = series
                        .get_label()
                        .iter()
                        .map(|label| (label.name().to_owned(), label.value().to_owned()))
                        .collect();
                    let is = |key: &str, value: &str| {
                        labels.get(key).is_some_and(|found| found == value)
                    };
                    if is("namespace", namespace) && is("name", name) {
                        gone.push(labels);
                    }
                }
            }
            for labels in gone {
                let labels: std::collections::HashMap<&str, &str> = labels
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect();
                // What is gone by now need not be removed.
                let _ = family.remove(&labels);
            }
        }
    }
}
