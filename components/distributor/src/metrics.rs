//! The distributor's metrics, under Tempo's names.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    exponential_buckets,
};
use tempo_runtime::metrics::register;

use crate::{
    push::Source,
    regroup::{AttributeScope, Truncations},
};

/// Most series of `tempo_distributor_debug_spans_received_total`; spans beyond are not counted.
const MAX_DEBUG_SERIES: usize = 10_000;

/// Why spans are discarded here, as the label `reason` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiscardReason {
    RateLimited,
    InvalidTraceId,
    InvalidSpanId,
}

impl DiscardReason {
    const ALL: [Self; 3] = [Self::RateLimited, Self::InvalidTraceId, Self::InvalidSpanId];

    const fn label(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::InvalidTraceId => "invalid_trace_id",
            Self::InvalidSpanId => "invalid_span_id",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Metrics {
    spans_received: IntCounterVec,
    bytes_received: IntCounterVec,
    ingress_bytes: IntCounterVec,
    in_future: HistogramVec,
    in_past: HistogramVec,
    added_latency: HistogramVec,
    truncated: IntCounterVec,
    discarded: IntCounterVec,
    debug_spans: IntCounterVec,
    debug_series: Mutex<HashSet<(String, String, String)>>,
    accepted: IntCounterVec,
    refused: IntCounterVec,
    pub(crate) traces_per_batch: Histogram,
    pub(crate) push_duration: Histogram,
    pub(crate) inflight_bytes: IntGauge,
    pub(crate) tracked_tenants: IntGauge,
}

/// The series of one tenant that every push touches.
#[derive(Debug)]
pub(crate) struct TenantMetrics {
    pub(crate) spans_received: IntCounter,
    pub(crate) bytes_received: IntCounter,
    pub(crate) ingress_bytes: IntCounter,
    pub(crate) in_future: Histogram,
    pub(crate) in_past: Histogram,
}

impl Metrics {
    /// Registers all but `discarded`, which other components count in too.
    pub(crate) fn register(
        registry: &Registry,
        discarded: IntCounterVec,
    ) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help));
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            let opts = HistogramOpts::new(name, help).buckets(buckets);
            register(registry, Histogram::with_opts(opts))
        };
        let tenant_histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            let opts = HistogramOpts::new(name, help).buckets(buckets);
            register(registry, HistogramVec::new(opts, &["tenant"]))
        };
        let distance_buckets = || vec![300.0, 1_800.0, 3_600.0];
        Ok(Self {
            spans_received: counter(
                "tempo_distributor_spans_received_total",
                "The total number of spans received per tenant.",
                &["tenant"],
            )?,
            bytes_received: counter(
                "tempo_distributor_bytes_received_total",
                "The total number of proto bytes received per tenant.",
                &["tenant"],
            )?,
            ingress_bytes: counter(
                "tempo_distributor_ingress_bytes_total",
                "The total number of bytes received per tenant, before limits.",
                &["tenant"],
            )?,
            in_future: tenant_histogram(
                "tempo_spans_distance_in_future_seconds",
                "How far in the future spans end, in seconds.",
                distance_buckets(),
            )?,
            in_past: tenant_histogram(
                "tempo_spans_distance_in_past_seconds",
                "How far in the past spans end, in seconds.",
                distance_buckets(),
            )?,
            added_latency: tenant_histogram(
                "tempo_distributor_added_latency_seconds",
                "Time that pushes were delayed on purpose, in seconds.",
                prometheus::DEFAULT_BUCKETS.to_vec(),
            )?,
            truncated: counter(
                "tempo_distributor_attributes_truncated_total",
                "The total number of attribute keys and values cut per tenant.",
                &["tenant", "scope"],
            )?,
            debug_spans: counter(
                "tempo_distributor_debug_spans_received_total",
                "Spans received by name and service, while metric_received_spans is on.",
                &["tenant", "name", "service"],
            )?,
            accepted: counter(
                "tempo_receiver_accepted_spans",
                "Number of spans successfully pushed into the pipeline.",
                &["receiver", "transport"],
            )?,
            refused: counter(
                "tempo_receiver_refused_spans",
                "Number of spans that could not be pushed into the pipeline.",
                &["receiver", "transport"],
            )?,
            traces_per_batch: histogram(
                "tempo_distributor_traces_per_batch",
                "The number of traces in each batch.",
                exponential_buckets(2.0, 2.0, 10)?,
            )?,
            push_duration: histogram(
                "tempo_distributor_push_duration_seconds",
                "Time from a received request to its answer, in seconds.",
                prometheus::DEFAULT_BUCKETS.to_vec(),
            )?,
            inflight_bytes: gauge(
                "tempo_distributor_inflight_request_bytes",
                "Bytes that requests being received and handed on hold.",
            )?,
            tracked_tenants: gauge(
                "tempo_distributor_tracked_tenants",
                "Tenants whose rate and counters are kept.",
            )?,
            debug_series: Mutex::default(),
            discarded,
        })
    }

    pub(crate) fn tenant(&self, tenant: &str) -> TenantMetrics {
        TenantMetrics {
            spans_received: self.spans_received.with_label_values(&[tenant]),
            bytes_received: self.bytes_received.with_label_values(&[tenant]),
            ingress_bytes: self.ingress_bytes.with_label_values(&[tenant]),
            in_future: self.in_future.with_label_values(&[tenant]),
            in_past: self.in_past.with_label_values(&[tenant]),
        }
    }

    /// Drops the series of a tenant that is no longer tracked.
    pub(crate) fn forget_tenant(&self, tenant: &str) {
        // What was never touched is not there to be removed.
        let labels = &[tenant];
        let _ = self.spans_received.remove_label_values(labels);
        let _ = self.bytes_received.remove_label_values(labels);
        let _ = self.ingress_bytes.remove_label_values(labels);
        let _ = self.in_future.remove_label_values(labels);
        let _ = self.in_past.remove_label_values(labels);
        let _ = self.added_latency.remove_label_values(labels);
        for scope in AttributeScope::ALL {
            let _ = self.truncated.remove_label_values(&[tenant, scope.name()]);
        }
        for reason in DiscardReason::ALL {
            let _ = self.discarded.remove(&discard_labels(tenant, reason));
        }
    }

    pub(crate) fn discarded(&self, tenant: &str, reason: DiscardReason, spans: u64) {
        self.discarded
            .with(&discard_labels(tenant, reason))
            .inc_by(spans);
    }

    /// Counts what was cut; all five series appear as soon as one does.
    pub(crate) fn truncated(&self, tenant: &str, truncations: &Truncations) {
        if truncations.any() {
            for scope in AttributeScope::ALL {
                self.truncated
                    .with_label_values(&[tenant, scope.name()])
                    .inc_by(truncations.counts[scope as usize]);
            }
        }
    }

    pub(crate) fn added_latency(&self, tenant: &str, seconds: f64) {
        self.added_latency
            .with_label_values(&[tenant])
            .observe(seconds);
    }

    pub(crate) fn debug_span(&self, tenant: &str, name: &str, service: &str) {
        let mut series = self.debug_series.lock();
        let key = (tenant.to_owned(), name.to_owned(), service.to_owned());
        if series.len() < MAX_DEBUG_SERIES || series.contains(&key) {
            series.insert(key);
            self.debug_spans
                .with_label_values(&[tenant, name, service])
                .inc();
        }
    }

    pub(crate) fn answered(&self, source: &Source, accepted: bool, spans: u64) {
        let counter = if accepted {
            &self.accepted
        } else {
            &self.refused
        };
        counter
            .with_label_values(&[source.receiver, source.transport])
            .inc_by(spans);
    }
}

fn discard_labels(tenant: &str, reason: DiscardReason) -> HashMap<&str, &str> {
    HashMap::from([("reason", reason.label()), ("tenant", tenant)])
}

/// `tempo_discarded_spans_total`, not yet registered: one counter for all components of a process.
pub fn discarded_spans_counter() -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(
        Opts::new(
            "tempo_discarded_spans_total",
            "The total number of spans that were discarded.",
        ),
        &["reason", "tenant"],
    )
}
