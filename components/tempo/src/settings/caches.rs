//! Caches in other processes.

use std::time::Duration;

use tempo_backend::{
    Secret,
    cache::{
        CacheRole,
        remote::{RemoteCacheConfig, RemoteCachesConfig, RemoteKind},
    },
};
use tempo_config::{
    Config,
    blocks::cache::{BackgroundCache, CacheRole as NamedRole, Memcached, Redis},
};

use super::{UnusableSetting, not_zero};

const MEMCACHED_PORT: &str = "11211";
const REDIS_PORT: &str = "6379";

/// The caches of `cache`, and the one of `storage.trace.cache`, which Tempo 1 had.
pub(crate) fn caches(config: &Config) -> Result<RemoteCachesConfig, UnusableSetting> {
    let mut caches = Vec::new();
    for cache in &config.cache.caches {
        let roles: Vec<CacheRole> = cache.roles.iter().map(role).collect();
        if let Some(settings) = &cache.memcached {
            caches.push(memcached("cache.caches.memcached", roles, settings)?);
        } else if let Some(settings) = &cache.redis {
            caches.push(redis("cache.caches.redis", roles, settings)?);
        }
    }
    let trace = &config.storage.trace;
    let old = old_roles(config);
    match (trace.cache.as_str(), &trace.memcached, &trace.redis) {
        ("", ..) => {}
        ("memcached", Some(settings), _) => {
            caches.push(memcached("storage.trace.memcached", old, settings)?);
        }
        ("redis", _, Some(settings)) => {
            caches.push(redis("storage.trace.redis", old, settings)?);
        }
        (kind @ ("memcached" | "redis"), ..) => {
            return Err(UnusableSetting::new(
                "storage.trace.cache",
                format!("{kind}, but there is no block storage.trace.{kind}"),
            ));
        }
        (other, ..) => {
            return Err(UnusableSetting::new(
                "storage.trace.cache",
                format!("{other}: use memcached or redis, or the block cache"),
            ));
        }
    }
    let background: &BackgroundCache = if trace.cache.is_empty() {
        &config.cache.background
    } else {
        &trace.background_cache
    };
    Ok(RemoteCachesConfig {
        concurrent_writes: background.writeback_goroutines as usize,
        max_waiting_writes: background.writeback_buffer as usize,
        caches,
    })
}

fn role(role: &NamedRole) -> CacheRole {
    match role {
        NamedRole::Bloom => CacheRole::Bloom,
        NamedRole::TraceIdIndex => CacheRole::TraceIdIndex,
        NamedRole::ParquetFooter => CacheRole::ParquetFooter,
        NamedRole::ParquetColumnIndex => CacheRole::ParquetColumnIndex,
        NamedRole::ParquetOffsetIndex => CacheRole::ParquetOffsetIndex,
        NamedRole::ParquetPage => CacheRole::ParquetPage,
        NamedRole::FrontendSearch => CacheRole::FrontendSearch,
    }
}

fn old_roles(config: &Config) -> Vec<CacheRole> {
    let control = &config.storage.trace.search.cache_control;
    let mut roles = vec![CacheRole::Bloom, CacheRole::TraceIdIndex];
    for (is_cached, role) in [
        (control.footer, CacheRole::ParquetFooter),
        (control.column_index, CacheRole::ParquetColumnIndex),
        (control.offset_index, CacheRole::ParquetOffsetIndex),
    ] {
        if is_cached {
            roles.push(role);
        }
    }
    roles
}

fn without_tls(path: &'static str, tls_enabled: bool) -> Result<(), UnusableSetting> {
    if tls_enabled {
        return Err(UnusableSetting::new(
            path,
            "tls_enabled: TLS to caches is not part of this version; set it to false",
        ));
    }
    Ok(())
}

/// `host:port` of each entry of a list. The prefixes by which Tempo chooses a kind of DNS record
/// are left out: every address of a name is a server.
fn addresses(list: &str, port: &str) -> Vec<String> {
    let with_port = |name: &str| {
        let (prefix, name) = name.split_once('+').unwrap_or(("", name));
        // A service record's name: `_service._tcp.host`.
        let host = match prefix {
            "dnssrv" | "dnssrvnoa" => name.rsplit_once("._tcp.").map_or(name, |(_, host)| host),
            _ => name,
        };
        let has_port = match host.rsplit_once(':') {
            // An IPv6 address has colons of its own.
            Some((before, _)) => !before.contains(':') || before.ends_with(']'),
            None => false,
        };
        if has_port {
            host.to_owned()
        } else {
            format!("{host}:{port}")
        }
    };
    let names = list.split(',').map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(with_port)
        .collect()
}

fn memcached(
    path: &'static str,
    roles: Vec<CacheRole>,
    settings: &Memcached,
) -> Result<RemoteCacheConfig, UnusableSetting> {
    without_tls(path, settings.tls_enabled)?;
    let servers = if settings.addresses.is_empty() {
        let port = match settings.service.parse::<u16>() {
            Ok(_) => settings.service.as_str(),
            Err(_) => MEMCACHED_PORT,
        };
        addresses(&settings.host, port)
    } else {
        addresses(&settings.addresses, MEMCACHED_PORT)
    };
    let kind = RemoteKind::Memcached {
        consistent_hash: settings.consistent_hash,
    };
    let defaults = RemoteCacheConfig::new(roles, kind, servers);
    let timeout = not_zero(settings.timeout.0).unwrap_or(defaults.timeout);
    Ok(RemoteCacheConfig {
        timeout,
        connect_timeout: not_zero(settings.connect_timeout.0).unwrap_or(timeout),
        max_idle_connections: settings.max_idle_conns as usize,
        max_item_bytes: settings.max_item_size.0,
        ttl: ttl(settings.ttl.0, settings.expiration.0),
        update_interval: settings.update_interval.0,
        breaker_failures: settings.circuit_breaker_consecutive_failures,
        breaker_pause: settings.circuit_breaker_timeout.0,
        ..defaults
    })
}

fn redis(
    path: &'static str,
    roles: Vec<CacheRole>,
    settings: &Redis,
) -> Result<RemoteCacheConfig, UnusableSetting> {
    without_tls(path, settings.tls_enabled)?;
    let kind = RemoteKind::Redis {
        username: settings.username.clone(),
        password: Secret::new(settings.password.reveal()),
        database: settings.db,
        cluster: !settings.single_node,
    };
    let servers = addresses(&settings.endpoint, REDIS_PORT);
    let defaults = RemoteCacheConfig::new(roles, kind, servers);
    let timeout = not_zero(settings.timeout.0).unwrap_or(defaults.timeout);
    Ok(RemoteCacheConfig {
        timeout,
        connect_timeout: timeout,
        max_item_bytes: settings.max_item_size.0,
        ttl: ttl(settings.ttl.0, settings.expiration.0),
        ..defaults
    })
}

/// Two names of one setting.
fn ttl(ttl: Duration, expiration: Duration) -> Option<Duration> {
    not_zero(ttl).or_else(|| not_zero(expiration))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(yaml: &str) -> Result<RemoteCachesConfig, String> {
        let line = tempo_config::CommandLine::default();
        let config = Config::load(Some(yaml), &line, &|_| None).unwrap();
        caches(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn every_cache_has_its_settings() {
        let found = settings(
            "cache:
  background:
    writeback_goroutines: 3
  caches:
    - roles: [bloom, parquet-footer]
      memcached:
        host: memcached.tempo.svc
        service: memcached-client
        consistent_hash: true
        timeout: 500ms
        ttl: 1h
        circuit_breaker_consecutive_failures: 7
    - roles: [frontend-search]
      redis:
        endpoint: redis
        db: 2
        password: secret
        single_node: true
        expiration: 10m
",
        )
        .unwrap();
        assert_eq!(found.concurrent_writes, 3);
        assert_eq!(found.max_waiting_writes, 10_000);
        let [memcached, redis] = found.caches.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(
            *memcached,
            RemoteCacheConfig {
                timeout: Duration::from_millis(500),
                connect_timeout: Duration::from_millis(500),
                ttl: Some(Duration::from_secs(3_600)),
                breaker_failures: 7,
                ..RemoteCacheConfig::new(
                    vec![CacheRole::Bloom, CacheRole::ParquetFooter],
                    RemoteKind::Memcached {
                        consistent_hash: true
                    },
                    vec!["memcached.tempo.svc:11211".to_owned()],
                )
            }
        );
        assert_eq!(
            *redis,
            RemoteCacheConfig {
                ttl: Some(Duration::from_secs(600)),
                ..RemoteCacheConfig::new(
                    vec![CacheRole::FrontendSearch],
                    RemoteKind::Redis {
                        username: String::new(),
                        password: Secret::new("secret"),
                        database: 2,
                        cluster: false,
                    },
                    vec!["redis:6379".to_owned()],
                )
            }
        );
    }

    #[test]
    fn the_old_block_is_one_cache() {
        let found = settings(
            "storage:
  trace:
    cache: memcached
    memcached:
      addresses: a,b:1
    search:
      cache_control:
        footer: true
",
        )
        .unwrap();
        assert_eq!(found.caches.len(), 1);
        assert_eq!(
            found.caches[0].roles,
            [
                CacheRole::Bloom,
                CacheRole::TraceIdIndex,
                CacheRole::ParquetFooter
            ]
        );
        assert_eq!(found.caches[0].addresses, ["a:11211", "b:1"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (yaml, wanted) in [
            (
                "cache:\n  caches:\n    - roles: [bloom]\n      redis:\n        endpoint: a\n        tls_enabled: true\n",
                "cache.caches.redis: tls_enabled: TLS to caches is not part of this version",
            ),
            (
                "storage:\n  trace:\n    cache: redis\n",
                "storage.trace.cache: redis, but there is no block storage.trace.redis",
            ),
            (
                "storage:\n  trace:\n    cache: disk\n",
                "storage.trace.cache: disk: use memcached or redis",
            ),
        ] {
            let error = settings(yaml).unwrap_err();
            assert!(error.starts_with(wanted), "{error}");
        }
    }

    #[test]
    fn lists_of_servers_have_ports() {
        assert_eq!(
            addresses(
                "a, b:1,dns+c:2,dnssrv+_client._tcp.d.svc,[::1]:3,::1",
                MEMCACHED_PORT
            ),
            [
                "a:11211",
                "b:1",
                "c:2",
                "d.svc:11211",
                "[::1]:3",
                "::1:11211"
            ]
        );
    }
}
