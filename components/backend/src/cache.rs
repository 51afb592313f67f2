//! One cache for everything that is read from blocks again and again, bounded in bytes.
//!
//! Owns eviction and its metrics. Must never read the store: whoever misses loads and inserts.
//!
//! The policy is S3-FIFO: what is new waits in a small queue and reaches the main one only if it
//! was asked for again before it left, so that a scan over many pages does not push out footers
//! and bloom filters. What left the small queue lately is remembered by its hash and, when it
//! comes back, goes to the main queue at once.

use std::{any::Any, hash::BuildHasher, sync::Arc};

use foldhash::fast::RandomState;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use uuid::Uuid;

use crate::Error;

pub mod remote;
mod shard;

use remote::RemoteCaches;
use shard::Shard;

/// What kind of thing is cached; the label of the metrics. Tempo's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheRole {
    /// Bloom filter files.
    Bloom,
    /// Last trace ids of row groups.
    TraceIdIndex,
    /// Footers, usually decoded.
    ParquetFooter,
    /// Column indexes.
    ParquetColumnIndex,
    /// Offset indexes.
    ParquetOffsetIndex,
    /// Column chunks, pages, dictionaries.
    ParquetPage,
    /// What was decoded of blocks: columns and what belongs to them.
    Columns,
    /// Answers of jobs.
    FrontendSearch,
}

const ROLES: [CacheRole; 8] = [
    CacheRole::Bloom,
    CacheRole::TraceIdIndex,
    CacheRole::ParquetFooter,
    CacheRole::ParquetColumnIndex,
    CacheRole::ParquetOffsetIndex,
    CacheRole::ParquetPage,
    CacheRole::Columns,
    CacheRole::FrontendSearch,
];

impl CacheRole {
    /// Its name in Tempo's configuration and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bloom => "bloom",
            Self::TraceIdIndex => "trace-id-index",
            Self::ParquetFooter => "parquet-footer",
            Self::ParquetColumnIndex => "parquet-column-idx",
            Self::ParquetOffsetIndex => "parquet-offset-idx",
            Self::ParquetPage => "parquet-page",
            Self::Columns => "columns",
            Self::FrontendSearch => "frontend-search",
        }
    }
}

/// What is cached: a part of a block, under a role.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheKey {
    /// What kind of thing it is. Role and part together say of which type the value is.
    pub role: CacheRole,
    /// The tenant; two tenants may have blocks of one id.
    pub tenant: Arc<str>,
    /// The block.
    pub block: Uuid,
    /// Which part: offset and length in bytes, a bloom shard, a query's hash. The role decides.
    pub part: (u64, u64),
}

/// Shards have at least this many bytes each, so that large values still fit, and so many that it
/// makes no difference which of them share a shard.
const MIN_SHARD_BYTES: u64 = 128 * 1024 * 1024;
/// More shards than this bring nothing.
const MAX_SHARDS: u64 = 16;

/// The cache. Clones share their content.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
    remote: RemoteCaches,
}

struct Inner {
    shards: Vec<parking_lot::RwLock<Shard>>,
    hasher: RandomState,
    metrics: Metrics,
}

impl Cache {
    /// An empty cache for values of up to `max_bytes` together; 0 caches nothing.
    ///
    /// Metrics go to `registry`: `tempodb_cache_{hits,misses,evictions}_total{role}`,
    /// `tempodb_cache_bytes{role}` and `tempodb_cache_entries{role}`.
    ///
    /// # Errors
    /// [`Error::Config`] when the metrics are registered already.
    pub fn new(max_bytes: u64, registry: &Registry) -> Result<Self, Error> {
        let shards = (max_bytes / MIN_SHARD_BYTES).clamp(1, MAX_SHARDS);
        let shards = (0..shards)
            .map(|_| parking_lot::RwLock::new(Shard::new(max_bytes / shards)))
            .collect();
        Ok(Self {
            inner: Arc::new(Inner {
                shards,
                hasher: RandomState::default(),
                metrics: Metrics::register(registry)?,
            }),
            remote: RemoteCaches::default(),
        })
    }

    /// The same cache, with caches in other processes behind it for what is read from the store.
    pub fn with_remote(self, remote: RemoteCaches) -> Self {
        Self { remote, ..self }
    }

    /// The caches in other processes; of no role unless configured.
    pub fn remote(&self) -> &RemoteCaches {
        &self.remote
    }

    /// The value of `key`, if it is cached as a `T`.
    pub fn get<T: Any + Send + Sync>(&self, key: &CacheKey) -> Option<Arc<T>> {
        let hash = self.inner.hasher.hash_one(key);
        let value = self.shard(hash).read().get(hash, key);
        let value = value.and_then(|value| value.downcast::<T>().ok());
        let counter = match value {
            Some(_) => &self.inner.metrics.hits,
            None => &self.inner.metrics.misses,
        };
        counter.with_label_values(&[key.role.as_str()]).inc();
        value
    }

    /// Caches a value that occupies `weight_bytes`, replacing an earlier one. A value larger than
    /// the cache's share for it is not kept.
    pub fn insert<T: Any + Send + Sync>(&self, key: CacheKey, value: Arc<T>, weight_bytes: u64) {
        let hash = self.inner.hasher.hash_one(&key);
        let removed = self
            .shard(hash)
            .write()
            .insert(hash, key, value, weight_bytes);
        self.inner.metrics.apply(&removed);
    }

    /// Forgets everything of one block.
    pub fn forget_block(&self, tenant: &str, block: Uuid) {
        for shard in &self.inner.shards {
            let removed = shard
                .write()
                .retain(|key| key.block != block || &*key.tenant != tenant);
            self.inner.metrics.apply(&removed);
        }
    }

    /// Bytes that all values together occupy.
    pub fn bytes(&self) -> u64 {
        self.inner
            .shards
            .iter()
            .map(|shard| shard.read().bytes())
            .sum()
    }

    fn shard(&self, hash: u64) -> &parking_lot::RwLock<Shard> {
        // The upper bits: the lower ones choose the bucket within the shard.
        let index = (hash >> 32) as usize % self.inner.shards.len();
        &self.inner.shards[index]
    }
}

struct Metrics {
    hits: IntCounterVec,
    misses: IntCounterVec,
    evictions: IntCounterVec,
    bytes: IntGaugeVec,
    entries: IntGaugeVec,
}

impl Metrics {
    fn register(registry: &Registry) -> Result<Self, Error> {
        let register = || -> prometheus::Result<Self> {
            let counter = |name: &str, help: &str| -> prometheus::Result<IntCounterVec> {
                let metric = IntCounterVec::new(Opts::new(name, help), &["role"])?;
                registry.register(Box::new(metric.clone()))?;
                Ok(metric)
            };
            let gauge = |name: &str, help: &str| -> prometheus::Result<IntGaugeVec> {
                let metric = IntGaugeVec::new(Opts::new(name, help), &["role"])?;
                registry.register(Box::new(metric.clone()))?;
                Ok(metric)
            };
            Ok(Self {
                hits: counter("tempodb_cache_hits_total", "Values found in the cache.")?,
                misses: counter(
                    "tempodb_cache_misses_total",
                    "Values not found in the cache.",
                )?,
                evictions: counter(
                    "tempodb_cache_evictions_total",
                    "Values that made room for others.",
                )?,
                bytes: gauge("tempodb_cache_bytes", "Bytes that cached values occupy.")?,
                entries: gauge("tempodb_cache_entries", "Cached values.")?,
            })
        };
        let metrics = register().map_err(|error| Error::config("cache", error.to_string()))?;
        for role in ROLES {
            let label = &[role.as_str()];
            metrics.hits.with_label_values(label);
            metrics.misses.with_label_values(label);
            metrics.evictions.with_label_values(label);
            metrics.bytes.with_label_values(label);
            metrics.entries.with_label_values(label);
        }
        Ok(metrics)
    }

    fn apply(&self, change: &shard::Change) {
        if let Some(added) = &change.added {
            let label = &[added.role.as_str()];
            self.bytes
                .with_label_values(label)
                .add(added.weight_bytes as i64);
            self.entries.with_label_values(label).inc();
        }
        for removed in &change.removed {
            let label = &[removed.role.as_str()];
            self.bytes
                .with_label_values(label)
                .sub(removed.weight_bytes as i64);
            self.entries.with_label_values(label).dec();
            if removed.evicted {
                self.evictions.with_label_values(label).inc();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(part: u64) -> CacheKey {
        CacheKey {
            role: CacheRole::ParquetPage,
            tenant: Arc::from("t"),
            block: Uuid::from_u128(1),
            part: (part, 0),
        }
    }

    fn cache(max_bytes: u64) -> Cache {
        Cache::new(max_bytes, &Registry::new()).unwrap()
    }

    #[test]
    fn a_value_is_found_as_what_it_is() {
        let cache = cache(1 << 20);
        cache.insert(key(1), Arc::new(7_u32), 4);
        assert_eq!(cache.get::<u32>(&key(1)).as_deref(), Some(&7));
        assert!(cache.get::<u64>(&key(1)).is_none());
        assert!(cache.get::<u32>(&key(2)).is_none());
    }

    #[test]
    fn a_replaced_value_counts_once() {
        let cache = cache(1 << 20);
        cache.insert(key(1), Arc::new(7_u32), 1000);
        let once = cache.bytes();
        cache.insert(key(1), Arc::new(8_u32), 1000);
        assert_eq!(cache.bytes(), once);
        assert_eq!(cache.get::<u32>(&key(1)).as_deref(), Some(&8));
    }

    #[test]
    fn it_never_exceeds_its_bytes() {
        let cache = cache(100_000);
        for part in 0..10_000 {
            cache.insert(key(part), Arc::new(part), part % 3000);
            assert!(cache.bytes() <= 100_000);
        }
        cache.insert(key(1 << 40), Arc::new(0_u64), 200_000);
        assert!(cache.get::<u64>(&key(1 << 40)).is_none());
    }

    #[test]
    fn what_is_used_survives_a_scan() {
        let cache = cache(1_000_000);
        for part in 0..10 {
            cache.insert(key(part), Arc::new(part), 1000);
            assert!(cache.get::<u64>(&key(part)).is_some());
        }
        for part in 1000..10_000 {
            cache.insert(key(part), Arc::new(part), 1000);
        }
        for part in 0..10 {
            assert!(cache.get::<u64>(&key(part)).is_some(), "{part} was evicted");
        }
    }

    #[test]
    fn a_forgotten_block_takes_its_values_and_no_others() {
        let registry = Registry::new();
        let cache = Cache::new(1 << 20, &registry).unwrap();
        let other = CacheKey {
            tenant: Arc::from("u"),
            ..key(1)
        };
        cache.insert(key(1), Arc::new(1_u64), 10);
        cache.insert(other.clone(), Arc::new(2_u64), 10);
        cache.forget_block("t", Uuid::from_u128(1));
        assert!(cache.get::<u64>(&key(1)).is_none());
        assert!(cache.get::<u64>(&other).is_some());
        let entries = cache
            .inner
            .metrics
            .entries
            .with_label_values(&["parquet-page"])
            .get();
        assert_eq!(entries, 1);
    }
}
