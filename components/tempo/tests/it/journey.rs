//! From the real OpenTelemetry SDKs to what Grafana asks: live, flushed, restarted, and from the
//! bucket alone.

use std::{collections::BTreeSet, fs, process::Command};

use tempo_testkit::{
    http_client::{self, encode},
    process::{Options, Tempo},
};

use crate::support::{
    Acknowledged, binary, eventually, flush, required_env, run_sender, sdk_folder, search,
    span_names, terminate, unix_seconds,
};

fn python(protocol: &str, endpoint: &str, service: &str) -> Acknowledged {
    let mut command = Command::new(required_env("TEMPO_TEST_PYTHON"));
    command
        .arg(sdk_folder().join("send.py"))
        .args([protocol, endpoint, service, "5"]);
    run_sender(command)
}

fn node(protocol: &str, endpoint: &str, service: &str) -> Acknowledged {
    let mut command = Command::new("node");
    command
        .env("OTEL_MODULES", required_env("TEMPO_TEST_NODE_DIR"))
        .arg(sdk_folder().join("send.mjs"))
        .args([protocol, endpoint, service, "5"]);
    run_sender(command)
}

/// Everything that was sent is found by id, by search, and in tags and values.
fn check(tempo: &Tempo, stage: &str, sent: &[(&str, Acknowledged)]) {
    for (service, traces) in sent {
        assert_eq!(traces.len(), 5, "{service}: five traces were acknowledged");
        for (id, names) in traces {
            assert_eq!(&span_names(tempo, id), names, "{stage}: {service} {id}");
        }
        let ids: BTreeSet<String> = traces.keys().cloned().collect();
        let by_service = search(
            tempo,
            &format!("{{ resource.service.name = \"{service}\" }}"),
        );
        assert_eq!(by_service, ids, "{stage}: search by service {service}");
        let failed = search(
            tempo,
            &format!("{{ .service.name = \"{service}\" && status = error && kind = client }}"),
        );
        assert_eq!(
            failed, ids,
            "{stage}: search by status and kind of {service}"
        );
        let none = search(
            tempo,
            &format!("{{ .service.name = \"{service}\" && name = \"x\" }}"),
        );
        assert!(none.is_empty(), "{stage}: {none:?}");
    }
    let now = unix_seconds();
    let range = format!("start={}&end={}", now - 3600, now + 60);
    let answer = http_client::get(
        &tempo.http,
        &format!("/api/v2/search/tags?limit=5000&{range}"),
    )
    .unwrap();
    let body = answer.json();
    let scopes = body["scopes"]
        .as_array()
        .unwrap_or_else(|| panic!("{stage}: {}", answer.text()));
    let has = |scope: &str, tag: &str| {
        scopes.iter().any(|found| {
            found["name"] == scope && found["tags"].as_array().unwrap().iter().any(|t| t == tag)
        })
    };
    for (scope, tag) in [
        ("resource", "service.name"),
        ("span", "order.number"),
        ("event", "reason"),
        ("intrinsic", "duration"),
    ] {
        assert!(
            has(scope, tag),
            "{stage}: tag {scope}.{tag} in {}",
            answer.text()
        );
    }
    let tag = encode("resource.service.name");
    let path = format!(
        "/api/v2/search/tag/{tag}/values?limit=5000&q={}&tag=x&{range}",
        encode("{}")
    );
    let answer = http_client::get(&tempo.http, &path).unwrap();
    let body = answer.json();
    let values: BTreeSet<&str> = body["tagValues"]
        .as_array()
        .unwrap_or_else(|| panic!("{stage}: {}", answer.text()))
        .iter()
        .map(|value| value["value"].as_str().unwrap())
        .collect();
    assert!(
        sent.iter().all(|(service, _)| values.contains(service)),
        "{stage}: {values:?}"
    );
}

#[test]
fn what_sdks_send_is_found_live_flushed_restarted_and_from_the_bucket_alone() {
    let mut tempo = Tempo::configure(&binary(), &Options::default()).unwrap();
    tempo.start().unwrap();
    let echo = http_client::get(&tempo.http, "/api/echo").unwrap();
    assert_eq!(echo.text(), "echo\n");
    let build = http_client::get(&tempo.http, "/api/status/buildinfo")
        .unwrap()
        .json();
    assert!(
        build["version"]
            .as_str()
            .is_some_and(|version| version.starts_with("3.")),
        "{build}"
    );

    let sent = [
        (
            "python-grpc",
            python("grpc", &tempo.otlp_grpc, "python-grpc"),
        ),
        (
            "python-http",
            python("http", &tempo.otlp_http, "python-http"),
        ),
        ("node-json", node("json", &tempo.otlp_http, "node-json")),
        (
            "node-protobuf",
            node("protobuf", &tempo.otlp_http, "node-protobuf"),
        ),
    ];
    // No waiting: what is acknowledged is found.
    check(&tempo, "live", &sent);

    flush(&tempo);
    check(&tempo, "flushed", &sent);
    let tenant = tempo.data().join("blocks/single-tenant");
    let metas: Vec<serde_json::Value> = fs::read_dir(&tenant)
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read(entry.path().join("meta.json")).ok())
        .map(|meta| serde_json::from_slice(&meta).unwrap())
        .collect();
    assert!(!metas.is_empty());
    for meta in metas {
        // Without a word in the configuration, well-known attributes have columns of their own.
        assert!(meta["dedicatedColumns"].is_array(), "{meta}");
    }

    terminate(&mut tempo);
    tempo.start().unwrap();
    check(&tempo, "restarted", &sent);

    tempo.kill().unwrap();
    tempo.start().unwrap();
    check(&tempo, "killed and restarted", &sent);

    // A new machine with nothing but the bucket, asked for old and recent data alike.
    terminate(&mut tempo);
    let bucket_only = Options {
        storage_yaml: Some(format!(
            "    backend: local\n    blocklist_poll: 1s\n    local:\n      path: {}\n",
            tempo.data().join("blocks").display()
        )),
        extra_yaml:
            "query_frontend:\n  query_end_cutoff: 0s\n  search:\n    query_backend_after: 0s\n"
                .to_owned(),
        ..Options::default()
    };
    let mut fresh = Tempo::configure(&binary(), &bucket_only).unwrap();
    fresh.start().unwrap();
    check(&fresh, "from the bucket alone", &sent);
}

#[test]
fn tenants_do_not_see_each_other() {
    let options = Options {
        extra_yaml: "multitenancy_enabled: true\n".to_owned(),
        ..Options::default()
    };
    let mut tempo = Tempo::configure(&binary(), &options).unwrap();
    tempo.start().unwrap();
    let body = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"x","startTimeUnixNano":"1","endTimeUnixNano":"2"}]}]}]}"#;
    let json = ("content-type", "application/json");
    let post = |headers: &[(&str, &str)]| {
        let mut client = http_client::Client::connect(&tempo.otlp_http).unwrap();
        client
            .request("POST", "/v1/traces", headers, body.as_bytes())
            .unwrap()
            .status
    };
    assert_eq!(
        post(&[json]),
        503,
        "a missing tenant is retryable, as in Tempo"
    );
    assert_eq!(post(&[json, ("x-scope-orgid", "a/b")]), 400);
    assert_eq!(post(&[json, ("x-scope-orgid", "team-a")]), 200);
    let ask = |headers: &[(&str, &str)]| {
        let mut client = http_client::Client::connect(&tempo.http).unwrap();
        let path = "/api/traces/5b8efff798038103d269b633813fc60c";
        client.request("GET", path, headers, &[]).unwrap().status
    };
    assert_eq!(ask(&[]), 401);
    assert_eq!(ask(&[("x-scope-orgid", "team-b")]), 404);
    assert_eq!(ask(&[("X-Scope-OrgID", "team-a")]), 200);
}

#[test]
fn the_metrics_page_shows_what_happened() {
    let mut tempo = Tempo::configure(&binary(), &Options::default()).unwrap();
    tempo.start().unwrap();
    let sent = python("http", &tempo.otlp_http, "metrics");
    flush(&tempo);
    assert_eq!(search(&tempo, "{ true }").len(), sent.len());
    let page = eventually("metrics of the query", || {
        let page = http_client::get(&tempo.http, "/metrics").unwrap().text();
        page.contains("tempo_query_frontend_queries_total{")
            .then_some(page)
    });
    for wanted in [
        "tempo_build_info{",
        "tempo_distributor_spans_received_total{tenant=\"single-tenant\"} 15",
        "tempo_receiver_accepted_spans{receiver=\"otlp/otlp_receiver\",transport=\"http\"} 15",
        "tempo_live_store_blocks_completed_total 1",
        "tempo_live_store_local_blocks_flushed_total 1",
        "tempo_request_duration_seconds_count{method=\"GET\",route=\"api_search\",status_code=\"200\"",
        "tempodb_blocklist_poll_duration_seconds_count 1",
        "process_resident_memory_bytes",
    ] {
        assert!(page.contains(wanted), "no {wanted} in\n{page}");
    }
    for path in [
        "/status",
        "/status/config",
        "/status/services",
        "/status/endpoints",
        "/status/version",
    ] {
        let answer = http_client::get(&tempo.http, path).unwrap();
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.body.is_empty(), "{path}");
    }
    assert_eq!(
        http_client::get(&tempo.http, "/status/nothing")
            .unwrap()
            .status,
        404
    );
}
