//! Caches in other processes: the real memcached and Redis, and servers that are none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use prometheus::Registry;
use tempo_backend::{
    Backend, BackendConfig, ObjectKey, ReadStats, Secret,
    cache::{
        CacheRole,
        remote::{RemoteCacheConfig, RemoteCaches, RemoteCachesConfig, RemoteKind},
    },
};
use tempo_testkit::cache_server::{memcached, redis, redis_cluster};
use tokio::net::TcpListener;
use uuid::Uuid;

const ROLE: CacheRole = CacheRole::ParquetPage;

/// Long enough for a machine that does much else.
const PATIENT: Duration = Duration::from_secs(10);

fn memcached_at(addresses: Vec<String>, consistent_hash: bool) -> RemoteCacheConfig {
    let kind = RemoteKind::Memcached { consistent_hash };
    patient(RemoteCacheConfig::new(vec![ROLE], kind, addresses))
}

fn redis_at(address: &str, password: &str, database: u32, cluster: bool) -> RemoteCacheConfig {
    let kind = RemoteKind::Redis {
        username: String::new(),
        password: Secret::new(password),
        database,
        cluster,
    };
    patient(RemoteCacheConfig::new(
        vec![ROLE],
        kind,
        vec![address.to_owned()],
    ))
}

fn patient(config: RemoteCacheConfig) -> RemoteCacheConfig {
    RemoteCacheConfig {
        timeout: PATIENT,
        connect_timeout: PATIENT,
        ..config
    }
}

async fn open(cache: RemoteCacheConfig) -> (RemoteCaches, Registry) {
    let registry = Registry::new();
    let config = RemoteCachesConfig {
        caches: vec![cache],
        ..RemoteCachesConfig::default()
    };
    let caches = RemoteCaches::open(&config, &registry).await.unwrap();
    (caches, registry)
}

/// Asks until there is an answer; for writes that nobody waits for.
async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut question: impl FnMut() -> F,
) -> T {
    for _ in 0..3_000 {
        if let Some(answer) = question().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

fn key(number: usize) -> String {
    format!("tenant:{number}:data.parquet:0:{number}")
}

/// What is written is read, byte for byte and in the order of the keys; the rest is missing.
async fn holds_what_is_written(caches: &RemoteCaches) {
    let mut values: Vec<Bytes> = vec![
        Bytes::new(),
        Bytes::from_static(b"END\r\n$-1\r\nVALUE x 0 1\r\n"),
        (0..=255).collect::<Vec<u8>>().into(),
        vec![7; 900_000].into(),
    ];
    values.extend((0..250).map(|n| Bytes::from(format!("value {n}"))));
    for (number, value) in values.iter().enumerate() {
        caches.put(ROLE, key(number), value.clone());
    }
    let mut keys: Vec<String> = (0..values.len()).map(key).collect();
    keys.push("missing".to_owned());
    keys.push(key(2));
    let mut wanted: Vec<Option<Bytes>> = values.into_iter().map(Some).collect();
    wanted.push(None);
    wanted.push(wanted[2].clone());
    eventually("all values are there", || async {
        let found = caches.get(ROLE, &keys).await;
        let count = found.iter().flatten().count();
        (count == keys.len() - 1).then(|| assert!(found == wanted, "values differ"))
    })
    .await;
    // Another role is not cached at all.
    assert!(caches.has(ROLE) && !caches.has(CacheRole::Bloom));
    let other = caches.get(CacheRole::Bloom, &keys[..1]).await;
    assert_eq!(other, [None]);
}

fn total(registry: &Registry, name: &str, label: (&str, &str)) -> u64 {
    let families = registry.gather();
    let family = families.iter().filter(|family| family.name() == name);
    let metrics = family.flat_map(|family| family.get_metric());
    metrics
        .filter(|metric| {
            let labels = metric.get_label();
            labels
                .iter()
                .any(|found| (found.name(), found.value()) == label)
        })
        .map(|metric| {
            metric.get_histogram().get_sample_count() + metric.get_counter().get_value() as u64
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn memcached_holds_values() {
    let server = memcached();
    let (caches, registry) = open(memcached_at(vec![server.address.clone()], false)).await;
    holds_what_is_written(&caches).await;
    let requests = "tempo_memcache_request_duration_seconds";
    assert!(total(&registry, requests, ("method", "Memcache.GetMulti")) > 0);
    assert!(total(&registry, requests, ("method", "Memcache.Put")) > 0);
    assert!(
        total(
            &registry,
            "tempodb_cache_requests_total",
            ("outcome", "hit")
        ) > 0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_servers_of_memcached_share_the_keys() {
    let servers = [memcached(), memcached()];
    let addresses = servers
        .iter()
        .map(|server| server.address.clone())
        .collect();
    let (caches, _) = open(memcached_at(addresses, true)).await;
    holds_what_is_written(&caches).await;
    // Of what one server alone is asked for, a part is there.
    for server in &servers {
        let (alone, _) = open(memcached_at(vec![server.address.clone()], true)).await;
        let keys: Vec<String> = (4..254).map(key).collect();
        let found = alone.get(ROLE, &keys).await;
        let found = found.iter().flatten().count();
        assert!((20..230).contains(&found), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_holds_values() {
    let server = redis("");
    for config in [
        redis_at(&server.address, "", 0, false),
        // Not a cluster, whatever the settings say.
        redis_at(&server.address, "", 3, true),
    ] {
        let (caches, registry) = open(config).await;
        holds_what_is_written(&caches).await;
        let requests = "tempo_rediscache_request_duration_seconds";
        assert!(total(&registry, requests, ("method", "RedisCache.Set")) > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_wants_a_password() {
    let server = redis("secret");
    let (caches, _) = open(redis_at(&server.address, "secret", 0, false)).await;
    holds_what_is_written(&caches).await;
    let (stranger, registry) = open(redis_at(&server.address, "wrong", 0, false)).await;
    assert_eq!(stranger.get(ROLE, &[key(1)]).await, [None]);
    let requests = "tempo_rediscache_request_duration_seconds";
    assert_eq!(total(&registry, requests, ("status_code", "500")), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_cluster_is_asked_who_holds_a_key() {
    let servers = redis_cluster();
    let (caches, _) = open(redis_at(&servers[1].address, "", 0, true)).await;
    holds_what_is_written(&caches).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn items_go_when_their_time_is_over() {
    let (memcached, redis) = (memcached(), redis(""));
    for config in [
        memcached_at(vec![memcached.address.clone()], false),
        redis_at(&redis.address, "", 0, false),
    ] {
        let (caches, _) = open(RemoteCacheConfig {
            ttl: Some(Duration::from_secs(1)),
            max_item_bytes: 10,
            ..config
        })
        .await;
        caches.put(ROLE, "large".to_owned(), Bytes::from_static(b"eleven byte"));
        caches.put(ROLE, "small".to_owned(), Bytes::from_static(b"ten bytes."));
        let keys = ["large".to_owned(), "small".to_owned()];
        eventually("the small one is there", || async {
            caches.get(ROLE, &keys).await[1].clone()
        })
        .await;
        assert_eq!(caches.get(ROLE, &keys).await[0], None);
        eventually("it goes", || async {
            caches.get(ROLE, &keys).await[1].is_none().then_some(())
        })
        .await;
    }
}

/// A server that takes connections and says nothing; counts them.
async fn silent() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            open.push(connection);
        }
    });
    (address, connections)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_is_a_miss_and_soon_left_alone() {
    for is_redis in [false, true] {
        let (address, connections) = silent().await;
        let config = match is_redis {
            false => memcached_at(vec![address], false),
            true => redis_at(&address, "", 0, false),
        };
        let (caches, registry) = open(RemoteCacheConfig {
            timeout: Duration::from_millis(20),
            breaker_failures: 3,
            breaker_pause: Duration::from_secs(3_600),
            ..config
        })
        .await;
        for _ in 0..20 {
            assert_eq!(caches.get(ROLE, &[key(1)]).await, [None]);
        }
        // The first three found out.
        assert_eq!(connections.load(Ordering::SeqCst), 3);
        let missed = total(
            &registry,
            "tempodb_cache_requests_total",
            ("outcome", "miss"),
        );
        assert_eq!(missed, 20);
        let requests = match is_redis {
            false => "tempo_memcache_request_duration_seconds",
            true => "tempo_rediscache_request_duration_seconds",
        };
        assert_eq!(total(&registry, requests, ("status_code", "500")), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_is_used_again() {
    let mut server = memcached();
    let (caches, _) = open(RemoteCacheConfig {
        breaker_failures: 1,
        breaker_pause: Duration::from_millis(50),
        ..memcached_at(vec![server.address.clone()], false)
    })
    .await;
    let write_and_read = || async {
        caches.put(ROLE, key(1), Bytes::from_static(b"value"));
        caches.get(ROLE, &[key(1)]).await[0].clone()
    };
    eventually("the value is there", write_and_read).await;
    server.stop();
    assert_eq!(caches.get(ROLE, &[key(1)]).await, [None]);
    assert_eq!(caches.get(ROLE, &[key(1)]).await, [None]);
    server.start();
    eventually("the value is there again", write_and_read).await;
}

#[tokio::test]
async fn nonsense_is_a_miss() {
    for answer in [
        "VALUE a 0 999999999999\r\n",
        "VALUE x\r\n",
        "HTTP/1.1 400\r\n\r\n",
        "\r\n",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let mut request = [0; 512];
                let _ = connection.read(&mut request).await;
                let _ = connection.write_all(answer.as_bytes()).await;
            }
        });
        for config in [
            memcached_at(vec![address.clone()], false),
            redis_at(&address, "", 0, false),
        ] {
            let (caches, _) = open(config).await;
            assert_eq!(caches.get(ROLE, &[key(1)]).await, [None], "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_cache_without_servers_is_refused() {
    let config = RemoteCachesConfig {
        caches: vec![memcached_at(vec![String::new()], false)],
        ..RemoteCachesConfig::default()
    };
    let error = RemoteCaches::open(&config, &Registry::new())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("parquet-page has no server"),
        "{error}"
    );
}

/// Reads of the store: those that another process has made are not made again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_once_is_not_read_from_the_store_again() {
    let server = memcached();
    let folder = tempfile::tempdir().unwrap();
    let object = ObjectKey::data("tenant", Uuid::from_u128(7));
    let path = folder.path().join(object.as_str());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let content: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    std::fs::write(&path, &content).unwrap();
    let config = BackendConfig::local(folder.path());
    let backend = Backend::open(&config, &Registry::new()).await.unwrap();
    let (caches, _) = open(memcached_at(vec![server.address.clone()], false)).await;
    let read = |ranges: Vec<std::ops::Range<u64>>| {
        let (caches, backend, object) = (caches.clone(), backend.clone(), object.clone());
        async move {
            let stats = ReadStats::new();
            let counted = stats.clone();
            let values = tokio::task::spawn_blocking(move || {
                caches
                    .read_ranges_blocking(ROLE, &backend, &object, &ranges, &counted)
                    .unwrap()
            });
            (values.await.unwrap(), stats.bytes())
        }
    };
    let ranges = vec![10..20, 0..0, 150_000..150_100];
    let (values, bytes) = read(ranges.clone()).await;
    assert_eq!(bytes, 110);
    let wanted: Vec<&[u8]> = vec![&content[10..20], &[], &content[150_000..150_100]];
    assert_eq!(values, wanted);
    eventually("nothing is read", || async {
        let (values, bytes) = read(ranges.clone()).await;
        assert_eq!(values, wanted);
        (bytes == 0).then_some(())
    })
    .await;
    // Only what is missing is read.
    let (values, bytes) = read(vec![30..35, 10..20]).await;
    assert_eq!((values[0].as_ref(), bytes), (&content[30..35], 5));
    assert_eq!(values[1], content[10..20]);
    drop(server);
    let (values, bytes) = read(ranges).await;
    assert_eq!(values, wanted);
    assert_eq!(bytes, 110);
}
