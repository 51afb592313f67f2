//! Caches in other processes: memcached and Redis, by role.
//!
//! Owns the connections to them, what is written to them later, and when they are left alone.
//! Must never fail a read: a cache that is away, slow or wrong is a miss. It costs a read at most
//! the configured timeout, and after a few failures nothing at all.

mod breaker;
mod client;
mod memcached;
mod metrics;
mod pool;
mod read;
mod redis;
mod servers;
mod writer;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use prometheus::Registry;

use super::CacheRole;
use crate::{Error, Secret};
use client::Client;
use metrics::{Metrics, Outcome};
use writer::Writer;

/// Failures in a row after which a server is left alone, unless configured.
const DEFAULT_BREAKER_FAILURES: u32 = 5;
/// How long it is left alone, unless configured.
const DEFAULT_BREAKER_PAUSE: Duration = Duration::from_secs(10);

/// The caches of a process.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteCachesConfig {
    /// Writes at once, per cache.
    pub concurrent_writes: usize,
    /// Writes that wait, per cache; more are dropped.
    pub max_waiting_writes: usize,
    /// Each role in one cache only.
    pub caches: Vec<RemoteCacheConfig>,
}

impl Default for RemoteCachesConfig {
    fn default() -> Self {
        Self {
            concurrent_writes: 10,
            max_waiting_writes: 10_000,
            caches: Vec::new(),
        }
    }
}

/// One cache.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteCacheConfig {
    /// What it holds.
    pub roles: Vec<CacheRole>,
    /// What it is.
    pub kind: RemoteKind,
    /// `host:port` of each server. A host with several addresses is several servers.
    pub addresses: Vec<String>,
    /// Longest time for a request, connecting included.
    pub timeout: Duration,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Connections per server that are kept open while nobody uses them.
    pub max_idle_connections: usize,
    /// Larger values are not written; 0 for any size.
    pub max_item_bytes: u64,
    /// Age at which items go; the server's choice when `None`.
    pub ttl: Option<Duration>,
    /// Time between looks at which servers there are.
    pub update_interval: Duration,
    /// Failures in a row after which a server is left alone; 0 for 5.
    pub breaker_failures: u32,
    /// How long it is left alone; zero for 10 seconds.
    pub breaker_pause: Duration,
}

impl RemoteCacheConfig {
    /// A cache with the defaults of Tempo, where it has any.
    pub fn new(roles: Vec<CacheRole>, kind: RemoteKind, addresses: Vec<String>) -> Self {
        Self {
            roles,
            kind,
            addresses,
            timeout: Duration::from_millis(100),
            connect_timeout: Duration::from_millis(100),
            max_idle_connections: 100,
            max_item_bytes: 0,
            ttl: None,
            update_interval: Duration::from_secs(60),
            breaker_failures: 0,
            breaker_pause: Duration::ZERO,
        }
    }

    fn breaker_failures(&self) -> u32 {
        match self.breaker_failures {
            0 => DEFAULT_BREAKER_FAILURES,
            failures => failures,
        }
    }

    fn breaker_pause(&self) -> Duration {
        if self.breaker_pause.is_zero() {
            DEFAULT_BREAKER_PAUSE
        } else {
            self.breaker_pause
        }
    }

    /// The label of its metrics.
    fn name(&self) -> String {
        let roles: Vec<&str> = self.roles.iter().map(|role| role.as_str()).collect();
        roles.join("|")
    }
}

/// Which protocol a cache speaks, and what only that one needs.
#[derive(Debug, Clone, PartialEq)]
pub enum RemoteKind {
    /// memcached's text protocol.
    Memcached {
        /// Spread keys so that few move when servers come and go.
        consistent_hash: bool,
    },
    /// RESP.
    Redis {
        /// User name; none when empty.
        username: String,
        /// Password; none when empty.
        password: Secret,
        /// Number of the database; 0 in a cluster.
        database: u32,
        /// Whether servers may be a cluster: they are asked which keys each of them holds.
        cluster: bool,
    },
}

/// The caches of a process, by role. Clones share connections.
#[derive(Clone, Default)]
pub struct RemoteCaches {
    caches: Arc<[Cache]>,
}

struct Cache {
    roles: Vec<CacheRole>,
    client: Arc<Client>,
    writer: Writer,
    metrics: Metrics,
    max_item_bytes: u64,
}

impl fmt::Debug for RemoteCaches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles = self.caches.iter().map(|cache| &cache.roles);
        f.debug_list().entries(roles).finish()
    }
}

impl RemoteCaches {
    /// Makes the clients; servers that are away are no error. Must be called within a tokio
    /// runtime, which also runs the writes.
    ///
    /// # Errors
    /// [`Error::Config`] names what cannot work.
    pub async fn open(config: &RemoteCachesConfig, registry: &Registry) -> Result<Self, Error> {
        if config.caches.is_empty() {
            return Ok(Self::default());
        }
        let metrics = Metrics::register(registry)
            .map_err(|error| Error::config("cache", error.to_string()))?;
        let mut caches = Vec::with_capacity(config.caches.len());
        for cache in &config.caches {
            if cache.addresses.iter().all(|address| address.is_empty()) {
                return Err(Error::config(
                    "cache.caches",
                    format!(
                        "the cache of {} has no server: set its addresses",
                        cache.name()
                    ),
                ));
            }
            let client = Client::open(cache, metrics.clone()).await;
            let writer = Writer::start(
                Arc::clone(&client),
                config.concurrent_writes,
                config.max_waiting_writes,
                metrics.of_writer(&cache.name()),
            );
            caches.push(Cache {
                roles: cache.roles.clone(),
                client,
                writer,
                metrics: metrics.clone(),
                max_item_bytes: cache.max_item_bytes,
            });
        }
        Ok(Self {
            caches: caches.into(),
        })
    }

    /// Whether values of a role are cached.
    pub fn has(&self, role: CacheRole) -> bool {
        self.of(role).is_some()
    }

    fn of(&self, role: CacheRole) -> Option<&Cache> {
        self.caches.iter().find(|cache| cache.roles.contains(&role))
    }

    /// The values of some keys, as far as they are cached, in the order of the keys.
    pub async fn get(&self, role: CacheRole, keys: &[String]) -> Vec<Option<Bytes>> {
        let Some(cache) = self.of(role) else {
            return vec![None; keys.len()];
        };
        let found = cache.client.get(keys).await;
        for value in &found {
            match value {
                Some(value) => cache.metrics.request(role, Outcome::Hit, value.len()),
                None => cache.metrics.request(role, Outcome::Miss, 0),
            }
        }
        found
    }

    /// Caches a value soon, if there is room for it to wait.
    pub fn put(&self, role: CacheRole, key: String, value: Bytes) {
        let Some(cache) = self.of(role) else {
            return;
        };
        if cache.max_item_bytes > 0 && value.len() as u64 > cache.max_item_bytes {
            return;
        }
        cache.metrics.stored(role, value.len());
        cache.writer.write(key, value);
    }
}
