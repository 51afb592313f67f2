//! A client of one cache with several servers.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use parking_lot::{Mutex, RwLock};

use super::{
    RemoteCacheConfig, RemoteKind, memcached,
    metrics::{ClientMetrics, Metrics},
    pool::{Server, Settings, Unanswered},
    redis,
    servers::{Servers, Spread, resolve},
};

/// Longest wait for names and servers when the cache is opened; then it goes on without.
const FIRST_LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Shortest time between two looks at a cluster whose keys have moved.
const MIN_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Keys of one request to a server.
const MAX_KEYS_PER_REQUEST: usize = 100;
/// Requests of one read that run at once.
const CONCURRENT_REQUESTS: usize = 8;

enum Protocol {
    Memcached { consistent_hash: bool },
    Redis { login: redis::Login, cluster: bool },
}

pub(super) struct Client {
    protocol: Protocol,
    names: Vec<String>,
    settings: Arc<Settings>,
    ttl: Option<Duration>,
    servers: RwLock<Servers>,
    last_look: Mutex<Option<Instant>>,
    metrics: ClientMetrics,
}

impl Client {
    pub(super) async fn open(config: &RemoteCacheConfig, metrics: Metrics) -> Arc<Self> {
        let (protocol, metrics) = match &config.kind {
            RemoteKind::Memcached { consistent_hash } => (
                Protocol::Memcached {
                    consistent_hash: *consistent_hash,
                },
                metrics.of_memcached(&config.name()),
            ),
            RemoteKind::Redis {
                username,
                password,
                database,
                cluster,
            } => (
                Protocol::Redis {
                    login: redis::Login {
                        username: username.clone(),
                        password: password.clone(),
                        database: *database,
                    },
                    cluster: *cluster,
                },
                metrics.of_redis(&config.name()),
            ),
        };
        let client = Arc::new(Self {
            protocol,
            names: config.addresses.clone(),
            settings: Arc::new(Settings {
                timeout: config.timeout,
                connect_timeout: config.connect_timeout,
                max_idle_connections: config.max_idle_connections,
                breaker_failures: config.breaker_failures(),
                breaker_pause: config.breaker_pause(),
            }),
            ttl: config.ttl,
            servers: RwLock::default(),
            last_look: Mutex::default(),
            metrics,
        });
        let _ = tokio::time::timeout(FIRST_LOOK_TIMEOUT, client.look()).await;
        tokio::spawn(look_regularly(
            Arc::downgrade(&client),
            config.update_interval.max(MIN_LOOK_INTERVAL),
        ));
        client
    }

    /// Finds out which servers there are.
    async fn look(&self) {
        let addresses = resolve(&self.names).await;
        if addresses.is_empty() {
            // What was known is better than nothing.
            return;
        }
        let spread = match &self.protocol {
            Protocol::Memcached {
                consistent_hash: true,
            } => Spread::Jump,
            Protocol::Memcached { .. } | Protocol::Redis { cluster: false, .. } => Spread::Hash,
            Protocol::Redis { login, .. } => {
                let known = self.servers.read().clone();
                let seeds = known.updated(addresses.clone(), Spread::Hash, &self.settings);
                for seed in seeds.all() {
                    let slots = seed
                        .request(
                            |connection| redis::greet(connection, login),
                            redis::cluster_slots,
                        )
                        .await;
                    if let Ok(Some(slots)) = slots {
                        let addresses: Vec<String> =
                            slots.iter().map(|(_, address)| address.clone()).collect();
                        let spread = Spread::Slots(slots);
                        let servers = known.updated(addresses, spread, &self.settings);
                        *self.servers.write() = servers;
                        return;
                    }
                }
                Spread::Hash
            }
        };
        let servers = self
            .servers
            .read()
            .updated(addresses, spread, &self.settings);
        *self.servers.write() = servers;
    }

    /// Keys have moved within the cluster; what was asked of the wrong server is a miss.
    fn look_soon(self: &Arc<Self>) {
        let mut last = self.last_look.lock();
        let now = Instant::now();
        if last.is_some_and(|last| now.duration_since(last) < MIN_LOOK_INTERVAL) {
            return;
        }
        *last = Some(now);
        let client = Arc::clone(self);
        tokio::spawn(async move { client.look().await });
    }

    /// The values of keys, in their order, as far as servers have them.
    pub(super) async fn get(self: &Arc<Self>, keys: &[String]) -> Vec<Option<Bytes>> {
        let mut found = vec![None; keys.len()];
        let mut requests: Vec<(Arc<Server>, Vec<usize>)> = Vec::new();
        {
            let servers = self.servers.read();
            for (at, key) in keys.iter().enumerate() {
                let Some(server) = servers.of(key) else {
                    continue;
                };
                let open = requests.iter_mut().find(|(known, of_request)| {
                    Arc::ptr_eq(known, server) && of_request.len() < MAX_KEYS_PER_REQUEST
                });
                match open {
                    Some((_, of_request)) => of_request.push(at),
                    None => requests.push((Arc::clone(server), vec![at])),
                }
            }
        }
        let mut answers = stream::iter(requests)
            .map(|(server, places)| async move {
                let keys: Vec<&str> = places
                    .iter()
                    .filter_map(|&at| keys.get(at).map(String::as_str))
                    .collect();
                let values = self.get_from(&server, &keys).await;
                (places, values)
            })
            .buffer_unordered(CONCURRENT_REQUESTS);
        while let Some((places, values)) = answers.next().await {
            for (at, value) in places.into_iter().zip(values) {
                if let Some(found) = found.get_mut(at) {
                    *found = value;
                }
            }
        }
        drop(answers);
        found
    }

    async fn get_from(self: &Arc<Self>, server: &Server, keys: &[&str]) -> Vec<Option<Bytes>> {
        let started = Instant::now();
        let answer = match &self.protocol {
            Protocol::Memcached { .. } => {
                server
                    .request(
                        |connection| async { Ok(connection) },
                        |connection| memcached::get(connection, keys),
                    )
                    .await
            }
            Protocol::Redis { login, .. } => server
                .request(
                    |connection| redis::greet(connection, login),
                    |connection| redis::get(connection, keys),
                )
                .await
                .map(|(values, has_moved)| {
                    if has_moved {
                        self.look_soon();
                    }
                    values
                }),
        };
        match answer {
            Ok(values) => {
                let hit = values.iter().any(Option::is_some);
                self.metrics.got(keys.len(), hit, started.elapsed());
                values
            }
            Err(Unanswered::LeftAlone) => Vec::new(),
            Err(Unanswered::Failed(error)) => {
                self.metrics.get_failed(keys.len(), started.elapsed());
                tracing::debug!(server = server.address(), %error, "cache not read");
                Vec::new()
            }
        }
    }

    /// Stores a value, if the server takes it.
    pub(super) async fn set(self: &Arc<Self>, key: &str, value: &[u8]) {
        let Some(server) = self.servers.read().of(key).cloned() else {
            return;
        };
        let started = Instant::now();
        let ttl = self.ttl;
        let stored = match &self.protocol {
            Protocol::Memcached { .. } => {
                server
                    .request(
                        |connection| async { Ok(connection) },
                        |connection| memcached::set(connection, key, value, ttl),
                    )
                    .await
            }
            Protocol::Redis { login, .. } => server
                .request(
                    |connection| redis::greet(connection, login),
                    |connection| redis::set(connection, key, value, ttl),
                )
                .await
                .map(|(stored, has_moved)| {
                    if has_moved {
                        self.look_soon();
                    }
                    stored
                }),
        };
        match stored {
            Ok(stored) => self.metrics.put(stored, started.elapsed()),
            Err(Unanswered::LeftAlone) => {}
            Err(Unanswered::Failed(error)) => {
                self.metrics.put(false, started.elapsed());
                tracing::debug!(server = server.address(), %error, "cache not written");
            }
        }
    }
}

/// Looks for servers until the client is gone.
async fn look_regularly(client: Weak<Client>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        match client.upgrade() {
            Some(client) => client.look().await,
            None => return,
        }
    }
}
