//! Caches in other processes: what one process has read, the next one need not; and without them
//! all goes on.

use tempo_testkit::{
    cache_server::{CacheServer, memcached, redis},
    http_client::{self, encode},
    process::{Options, Tempo},
};

use crate::{
    shop::{ORDERS, SPANS_PER_ORDER, Shop},
    support::{binary, eventually, flush, on_bucket, spans, terminate},
};

/// Roles whose values are read again by each process.
const ROLES: [&str; 4] = ["bloom", "parquet-footer", "parquet-page", "frontend-search"];

fn settings(memcached: &CacheServer, redis: &CacheServer) -> String {
    format!(
        "cache:
  caches:
    - roles: [bloom, trace-id-index, parquet-footer, parquet-offset-idx, parquet-page]
      memcached:
        addresses: {}
        timeout: 2s
    - roles: [frontend-search]
      redis:
        endpoint: {}
        timeout: 2s
        single_node: true
",
        memcached.address, redis.address
    )
}

/// The values of a metric with these labels, added up.
fn total(tempo: &Tempo, name: &str, labels: &[String]) -> f64 {
    let page = http_client::get(&tempo.http, "/metrics").unwrap().text();
    page.lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.split_once("} "))
        .filter(|(found, _)| labels.iter().all(|label| found.contains(label.as_str())))
        .map(|(_, value)| value.parse::<f64>().unwrap())
        .sum()
}

/// A trace, a search and a series, in a process of its own.
fn ask(bucket: &std::path::Path, settings: &str, shop: &Shop) -> Tempo {
    let tempo = on_bucket(bucket, settings);
    for order in [0, 5] {
        let found = spans(&tempo, &Shop::short_id(order));
        assert_eq!(found.len(), usize::from(SPANS_PER_ORDER), "order {order}");
    }
    let range = format!("start={}&end={}", shop.begin - 60, shop.end() + 60);
    let search = format!(
        "/api/search?q={}&limit=100&{range}",
        encode("{ event.exception.message = `declined` }")
    );
    let found = http_client::get(&tempo.http, &search).unwrap().json();
    let failed = (0..ORDERS).filter(|&order| Shop::fails(order)).count();
    assert_eq!(found["traces"].as_array().unwrap().len(), failed, "{found}");
    let counted = format!(
        "/api/metrics/query?q={}&{range}",
        encode("{ name = `GET /checkout` } | count_over_time()")
    );
    let counted = http_client::get(&tempo.http, &counted).unwrap().json();
    assert_eq!(
        counted["series"][0]["value"],
        f64::from(ORDERS),
        "{counted}"
    );
    tempo
}

#[test]
fn what_one_process_has_read_the_next_one_finds_in_the_caches() {
    let (mut memcached, mut redis) = (memcached(), redis(""));
    let shop = Shop::recent();
    let mut writer = Tempo::configure(&binary(), &Options::default()).unwrap();
    writer.start().unwrap();
    shop.push(&writer, None);
    flush(&writer);
    terminate(&mut writer);
    let bucket = writer.data().join("blocks");
    let settings = settings(&memcached, &redis);

    let requests = "tempodb_cache_requests_total";
    let outcome = |tempo: &Tempo, role: &str, outcome: &str| {
        let labels = [format!("role=\"{role}\""), format!("outcome=\"{outcome}\"")];
        total(tempo, requests, &labels)
    };
    let first = ask(&bucket, &settings, &shop);
    for role in ROLES {
        assert!(
            outcome(&first, role, "miss") > 0.0,
            "{role} was not asked for"
        );
    }
    // Nobody waits for what is written to caches.
    eventually("all roles are found", || {
        let next = ask(&bucket, &settings, &shop);
        ROLES
            .iter()
            .all(|role| outcome(&next, role, "hit") > 0.0 && outcome(&next, role, "miss") == 0.0)
            .then_some(())
    });

    memcached.stop();
    redis.stop();
    let without = ask(&bucket, &settings, &shop);
    for role in ROLES {
        assert_eq!(outcome(&without, role, "hit"), 0.0, "{role}");
    }
    let failed = ["status_code=\"500\"".to_owned()];
    for requests in [
        "tempo_memcache_request_duration_seconds_count",
        "tempo_rediscache_request_duration_seconds_count",
    ] {
        assert!(total(&without, requests, &failed) > 0.0, "{requests}");
    }
}
