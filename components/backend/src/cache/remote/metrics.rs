//! What caches tell about themselves, under Tempo's names.

use std::time::Duration;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::super::{CacheRole, ROLES};
use crate::metrics::registered;

#[derive(Clone)]
pub(super) struct Metrics {
    memcached_seconds: HistogramVec,
    redis_seconds: HistogramVec,
    queue_length: IntGaugeVec,
    dropped_writes: IntCounterVec,
    requests: IntCounterVec,
    request_bytes: IntCounterVec,
    store_bytes: HistogramVec,
}

/// What came of a key that was asked for.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    Hit,
    Miss,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
        }
    }
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let seconds = |name: &str, help: &str| {
            let buckets = prometheus::exponential_buckets(0.000_016, 4.0, 8)?;
            let opts = HistogramOpts::new(name, help).buckets(buckets);
            HistogramVec::new(opts, &["name", "method", "status_code"])
        };
        let store_buckets = prometheus::exponential_buckets(1024.0, 4.0, 8)?;
        let metrics = Self {
            memcached_seconds: registered(
                registry,
                seconds(
                    "tempo_memcache_request_duration_seconds",
                    "How long requests to memcached take.",
                ),
            )?,
            redis_seconds: registered(
                registry,
                seconds(
                    "tempo_rediscache_request_duration_seconds",
                    "How long requests to Redis take.",
                ),
            )?,
            queue_length: registered(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "tempo_cache_background_queue_length",
                        "Writes to a cache that wait.",
                    ),
                    &["name"],
                ),
            )?,
            dropped_writes: registered(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "tempo_cache_dropped_background_writes_total",
                        "Writes to a cache that were dropped because too many waited.",
                    ),
                    &["name"],
                ),
            )?,
            requests: registered(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "tempodb_cache_requests_total",
                        "Keys that caches in other processes were asked for.",
                    ),
                    &["role", "outcome"],
                ),
            )?,
            request_bytes: registered(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "tempodb_cache_request_bytes_total",
                        "Bytes that caches in other processes answered.",
                    ),
                    &["role", "outcome"],
                ),
            )?,
            store_bytes: registered(
                registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "tempodb_cache_store_size_bytes",
                        "Sizes of values that are written to caches in other processes.",
                    )
                    .buckets(store_buckets),
                    &["role"],
                ),
            )?,
        };
        for role in ROLES {
            for outcome in [Outcome::Hit, Outcome::Miss] {
                let labels = &[role.as_str(), outcome.label()];
                metrics.requests.with_label_values(labels);
                metrics.request_bytes.with_label_values(labels);
            }
        }
        Ok(metrics)
    }

    pub(super) fn request(&self, role: CacheRole, outcome: Outcome, bytes: usize) {
        let labels = &[role.as_str(), outcome.label()];
        self.requests.with_label_values(labels).inc();
        self.request_bytes
            .with_label_values(labels)
            .inc_by(bytes as u64);
    }

    pub(super) fn stored(&self, role: CacheRole, bytes: usize) {
        self.store_bytes
            .with_label_values(&[role.as_str()])
            .observe(bytes as f64);
    }

    pub(super) fn of_memcached(&self, name: &str) -> ClientMetrics {
        ClientMetrics {
            seconds: self.memcached_seconds.clone(),
            methods: ["Memcache.Get", "Memcache.GetMulti", "Memcache.Put"],
            name: name.to_owned(),
        }
    }

    pub(super) fn of_redis(&self, name: &str) -> ClientMetrics {
        ClientMetrics {
            seconds: self.redis_seconds.clone(),
            methods: ["RedisCache.Get", "RedisCache.MGet", "RedisCache.Set"],
            name: name.to_owned(),
        }
    }

    pub(super) fn of_writer(&self, name: &str) -> WriterMetrics {
        WriterMetrics {
            length: self.queue_length.with_label_values(&[name]),
            dropped: self.dropped_writes.with_label_values(&[name]),
        }
    }
}

/// Of the requests of one cache.
pub(super) struct ClientMetrics {
    seconds: HistogramVec,
    /// Get, get of several, put.
    methods: [&'static str; 3],
    name: String,
}

impl ClientMetrics {
    fn observe(&self, method: &str, status: &str, took: Duration) {
        self.seconds
            .with_label_values(&[self.name.as_str(), method, status])
            .observe(took.as_secs_f64());
    }

    fn get_method(&self, keys: usize) -> &'static str {
        let [get, get_several, _] = self.methods;
        if keys == 1 { get } else { get_several }
    }

    pub(super) fn got(&self, keys: usize, hit: bool, took: Duration) {
        let status = if hit { "200" } else { "404" };
        self.observe(self.get_method(keys), status, took);
    }

    pub(super) fn get_failed(&self, keys: usize, took: Duration) {
        self.observe(self.get_method(keys), "500", took);
    }

    pub(super) fn put(&self, stored: bool, took: Duration) {
        let [_, _, put] = self.methods;
        self.observe(put, if stored { "200" } else { "500" }, took);
    }
}

/// Of the writes of one cache.
#[derive(Clone)]
pub(super) struct WriterMetrics {
    length: IntGauge,
    dropped: IntCounter,
}

impl WriterMetrics {
    pub(super) fn queued(&self) {
        self.length.inc();
    }

    pub(super) fn taken(&self) {
        self.length.dec();
    }

    pub(super) fn dropped(&self) {
        self.dropped.inc();
    }
}
