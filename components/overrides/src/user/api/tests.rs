use std::time::Duration;

use axum::{body::Body, http::Request};
use prometheus::Registry;
use tempo_backend::{
    Backend, BackendConfig, ObjectKey, ReadStats,
    testing::{self, Effect, Fault, Gate, Operation},
};
use tower::ServiceExt;

use super::*;
use crate::{Config, Service, TenantOverrides, UserConfigurable};

const EMPTY: &str = r#"{"cost_attribution":{},"metrics_generator":{"processor":{"service_graphs":{},"span_metrics":{},"host_info":{}}}}"#;

/// A process with the API, on a store that it may share.
struct Process {
    api: Router,
    overrides: Overrides,
    service: Service,
    registry: Registry,
}

struct Answered {
    status: u16,
    etag: String,
    body: String,
}

fn multitenant() -> ApiConfig {
    ApiConfig {
        multitenancy_enabled: true,
        forwarders: BTreeSet::from(["my-other-forwarder".to_owned()]),
        ..ApiConfig::default()
    }
}

async fn try_process(backend: Backend, runtime_file: &str) -> Result<Process, Error> {
    let registry = Registry::new();
    let config = Config {
        runtime_file: runtime_file.to_owned(),
        user_configurable: Some(UserConfigurable {
            backend,
            poll_interval: Duration::from_millis(1),
        }),
        ..Config::default()
    };
    let (overrides, service) = Overrides::build(config, &registry).await?;
    Ok(Process {
        api: overrides.api(multitenant()).unwrap(),
        overrides,
        service,
        registry,
    })
}

async fn process(backend: Backend) -> Process {
    try_process(backend, "").await.unwrap()
}

impl Process {
    async fn ask(&self, method: &str, query: &str, if_match: Option<&str>, body: &str) -> Answered {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/overrides{query}"))
            .header("X-Scope-OrgID", "t");
        let request = match if_match {
            Some(version) => request.header("If-Match", version),
            None => request,
        };
        answered(
            &self.api,
            request.body(Body::from(body.to_owned())).unwrap(),
        )
        .await
    }

    async fn get(&self) -> Answered {
        self.ask("GET", "", None, "").await
    }

    async fn post(&self, if_match: &str, body: &str) -> Answered {
        self.ask("POST", "", Some(if_match), body).await
    }

    async fn patch(&self, body: &str) -> Answered {
        self.ask("PATCH", "", None, body).await
    }

    async fn poll(&mut self) -> Result<(), Error> {
        self.service.user_poll().once().await
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let name = format!("tempo_overrides_user_configurable_overrides_{name}");
        let family = families.iter().find(|family| family.name() == name);
        family.map_or(0.0, |family| {
            let metrics = family.get_metric().iter();
            metrics.map(|metric| metric.get_counter().get_value()).sum()
        })
    }
}

async fn answered(api: &Router, request: Request<Body>) -> Answered {
    let response = api.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let etag = response.headers().get("etag");
    let etag = etag.map_or(String::new(), |etag| etag.to_str().unwrap().to_owned());
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    Answered {
        status,
        etag,
        body: String::from_utf8(body.unwrap().to_vec()).unwrap(),
    }
}

async fn stores() -> (Vec<Backend>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let config = BackendConfig::local(directory.path());
    let local = Backend::open(&config, &Registry::new()).await.unwrap();
    (vec![testing::memory(), local], directory)
}

async fn stored(backend: &Backend) -> String {
    let key = ObjectKey::overrides("t");
    let bytes = backend.read(&key, &ReadStats::new()).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_document_lives_through_its_versions() {
    let (stores, _directory) = stores().await;
    for backend in stores {
        let process = process(backend.clone()).await;
        let nothing = process.get().await;
        assert_eq!((nothing.status, &*nothing.body), (404, ""));
        let merged = process.ask("GET", "?scope=merged", None, "").await;
        assert_eq!((merged.status, &*merged.body), (404, ""));

        // What does not exist is created with "0" alone.
        let refused = process.post("123", "{}").await;
        assert_eq!(
            (refused.status, &*refused.body),
            (412, "version does not match\n")
        );
        let forwarders = r#"{"forwarders":["my-other-forwarder"]}"#;
        let created = process.post("0", forwarders).await;
        assert_eq!((created.status, &*created.body), (200, ""));
        let all = format!(r#"{{"forwarders":["my-other-forwarder"],{}"#, &EMPTY[1..]);
        let read = process.get().await;
        assert_eq!(
            (read.status, &read.etag, &read.body),
            (200, &created.etag, &all)
        );
        assert_eq!(stored(&backend).await, all);

        // A version counts once.
        for passed in ["0", "abc"] {
            assert_eq!(process.post(passed, "{}").await.status, 412);
        }
        let replaced = process.post(&created.etag, "{}").await;
        assert_eq!(replaced.status, 200);
        assert_eq!(process.post(&created.etag, forwarders).await.status, 412);
        let read = process.get().await;
        assert_eq!((&read.etag, &*read.body), (&replaced.etag, EMPTY));

        let patched = process
            .patch(
                r#"{"metrics_generator":{"disable_collection":true,"collection_interval":"1m"}}"#,
            )
            .await;
        assert_eq!(patched.status, 200);
        assert!(
            patched
                .body
                .contains(r#""disable_collection":true,"collection_interval":"1m0s""#)
        );
        let patched = process
            .patch(r#"{"metrics_generator":{"disable_collection":null}}"#)
            .await;
        assert!(!patched.body.contains("disable_collection"));
        assert!(patched.body.contains("collection_interval"));
        assert_eq!(process.get().await.etag, patched.etag);

        assert_eq!(process.ask("DELETE", "", Some("0"), "").await.status, 412);
        let passed = process.ask("DELETE", "", Some(&created.etag), "").await;
        assert_eq!(passed.status, 412);
        let removed = process.ask("DELETE", "", Some(&patched.etag), "").await;
        assert_eq!((removed.status, &*removed.body), (200, ""));
        assert_eq!(process.get().await.status, 404);
        // Whoever asks again, because the answer was lost, hears the same.
        let again = process.ask("DELETE", "", Some(&patched.etag), "").await;
        assert_eq!(again.status, 200);

        // A patch of nothing is the document.
        let patched = process.patch(r#"{"forwarders":[]}"#).await;
        assert_eq!(patched.status, 200);
        assert!(process.get().await.body.starts_with(r#"{"forwarders":[]"#));
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told() {
    let process = process(testing::memory()).await;
    let long = format!(r#"{{"forwarders":["{}"]}}"#, "a".repeat(MAX_DOCUMENT_BYTES));
    for (method, query, if_match, body, status, text) in [
        (
            "POST",
            "",
            None,
            "{}",
            428,
            "must specify If-Match header\n",
        ),
        (
            "POST",
            "",
            Some(""),
            "{}",
            428,
            "must specify If-Match header\n",
        ),
        (
            "DELETE",
            "",
            None,
            "",
            428,
            "must specify If-Match header\n",
        ),
        (
            "GET",
            "?scope=all",
            None,
            "",
            400,
            "unknown scope \"all\", valid options are api and merged\n",
        ),
        (
            "POST",
            "",
            Some("0"),
            "{",
            400,
            "the body is not JSON: EOF while parsing an object at line 1 column 1\n",
        ),
        (
            "POST",
            "",
            Some("0"),
            "[]",
            400,
            "expected a map of settings, found a list\n",
        ),
        (
            "PATCH",
            "",
            None,
            "5",
            400,
            "expected a map of settings, found \"5\"\n",
        ),
        (
            "POST",
            "",
            Some("0"),
            r#"{"metrics_generator":{"processor":{"span_metric":{}}}}"#,
            400,
            "metrics_generator.processor.span_metric: unknown key; did you mean \"span_metrics\"?\n",
        ),
        (
            "PATCH",
            "",
            None,
            r#"{"metrics_generator":{"collection_interval":"10s"}}"#,
            400,
            "metrics_generator.collection_interval \"10s\" is outside acceptable range of 15s to 5m\n",
        ),
        (
            "POST",
            "?skip-conflicting-overrides-check=maybe",
            Some("0"),
            "{}",
            400,
            "could not parse skip-conflicting-overrides-check, must be a boolean value\n",
        ),
        (
            "POST",
            "",
            Some("0"),
            &long,
            413,
            "Failed to buffer the request body: length limit exceeded",
        ),
        ("PUT", "", Some("0"), "{}", 405, ""),
    ] {
        let answer = process.ask(method, query, if_match, body).await;
        assert_eq!((answer.status, &*answer.body), (status, text));
    }
    assert_eq!(process.get().await.status, 404);
}

#[tokio::test]
async fn each_tenant_has_its_own_document() {
    let backend = testing::memory();
    let process = process(backend.clone()).await;
    let ask = async |tenant: Option<&str>| {
        let request = Request::post("/api/overrides").header("If-Match", "0");
        let request = match tenant {
            Some(tenant) => request.header("X-Scope-OrgID", tenant),
            None => request,
        };
        let answer = answered(&process.api, request.body(Body::from("{}")).unwrap()).await;
        (answer.status, answer.body)
    };
    assert_eq!(ask(None).await, (401, "no org id\n".to_owned()));
    assert_eq!(ask(Some("")).await.0, 401);
    assert_eq!(ask(Some("a/b")).await.0, 400);
    assert_eq!(ask(Some("..")).await.0, 400);
    let several = "multiple org IDs present\n".to_owned();
    assert_eq!(ask(Some("a|b")).await, (400, several));
    assert_eq!(ask(Some("a")).await.0, 200);
    assert_eq!(ask(Some("b")).await.0, 200);
    assert_eq!(backend.list_override_tenants().await.unwrap(), ["a", "b"]);

    // Without tenants there is one, whatever the header says, and the path has its prefix.
    let config = ApiConfig {
        http_api_prefix: "/tempo/".to_owned(),
        ..ApiConfig::default()
    };
    let api = process.overrides.api(config).unwrap();
    let request = Request::post("/tempo/api/overrides")
        .header("If-Match", "0")
        .header("X-Scope-OrgID", "a");
    let answer = answered(&api, request.body(Body::from("{}")).unwrap()).await;
    assert_eq!(answer.status, 200);
    assert!(
        backend
            .exists(&ObjectKey::overrides("single-tenant"))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn of_two_processes_that_write_at_once_one_wins() {
    let (backend, faults) = testing::faulty(&testing::memory());
    let (one, other) = (process(backend.clone()).await, process(backend).await);
    let created = one.post("0", "{}").await;
    // One has looked at the version and is about to write; the other is quicker.
    let gate = Gate::new();
    faults.inject(Fault {
        operation: Some(Operation::Write),
        key_contains: "overrides.json".to_owned(),
        times: Some(1),
        effect: Effect::Wait(gate.clone()),
    });
    let quicker = async {
        gate.arrived().await;
        let answer = other.post(&created.etag, r#"{"forwarders":[]}"#).await;
        gate.open();
        answer
    };
    let (slow, quick) = tokio::join!(one.post(&created.etag, "{}"), quicker);
    assert_eq!((slow.status, quick.status), (412, 200));
    assert_eq!(one.get().await.etag, quick.etag);
}

#[tokio::test]
async fn patches_from_two_processes_are_both_there() {
    let (backend, faults) = testing::faulty(&testing::memory());
    let (one, other) = (process(backend.clone()).await, process(backend).await);
    one.post("0", "{}").await;
    let gate = Gate::new();
    faults.inject(Fault {
        operation: Some(Operation::Write),
        key_contains: "overrides.json".to_owned(),
        times: Some(1),
        effect: Effect::Wait(gate.clone()),
    });
    let quicker = async {
        gate.arrived().await;
        let answer = other.patch(r#"{"forwarders":[]}"#).await;
        gate.open();
        answer
    };
    let slow = one.patch(r#"{"metrics_generator":{"disable_collection":true}}"#);
    let (slow, quick) = tokio::join!(slow, quicker);
    assert_eq!((slow.status, quick.status), (200, 200));
    let both = other.get().await.body;
    assert!(
        both.contains("forwarders") && both.contains("disable_collection"),
        "{both}"
    );
}

#[tokio::test]
async fn what_one_process_writes_counts_in_others_from_their_next_look() {
    let backend = testing::memory();
    let (one, mut other) = (process(backend.clone()).await, process(backend).await);
    let processors = |process: &Process| {
        let limits = process.overrides.tenant("t");
        limits.as_written().metrics_generator.processors.clone()
    };
    let created = one
        .post(
            "0",
            r#"{"metrics_generator":{"processors":["span-metrics"]}}"#,
        )
        .await;
    assert_eq!(processors(&one), ["span-metrics"]);
    assert!(processors(&other).is_empty());
    other.poll().await.unwrap();
    assert_eq!(processors(&other), ["span-metrics"]);
    // The rest is as below.
    let limits = other.overrides.tenant("t");
    assert_eq!(limits.ingestion_rate_limit_bytes(), 30_000_000);

    let page = other.overrides.tenant_page("t", String::new());
    assert_eq!(
        page.user_configurable_overrides,
        "cost_attribution: {}\nmetrics_generator:\n    processors:\n        - span-metrics\n    processor:\n        service_graphs: {}\n        span_metrics: {}\n        host_info: {}\n"
    );
    assert!(!page.runtime_overrides.contains("span-metrics"));
    let tenants = other.overrides.tenants_page(String::new()).tenants;
    assert_eq!(tenants[0].name, "t");
    assert!(tenants[0].has_user_configurable_overrides && !tenants[0].has_runtime_overrides);

    one.ask("DELETE", "", Some(&created.etag), "").await;
    assert!(processors(&one).is_empty());
    other.poll().await.unwrap();
    assert!(processors(&other).is_empty());
    let page = other.overrides.tenant_page("t", String::new());
    assert_eq!(
        page.user_configurable_overrides,
        "No user-configurable overrides set"
    );
}

#[tokio::test]
async fn a_document_stands_over_the_runtime_file_as_that_changes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("o.yaml");
    let entry = |number: u32| {
        format!(
            "overrides: {{t: {{ingestion: {{max_traces_per_user: {number}}}, forwarders: [a], metrics_generator: {{processors: [host-info], trace_id_label_name: id}}}}}}"
        )
    };
    std::fs::write(&file, entry(1)).unwrap();
    let path = file.to_str().unwrap();
    let mut process = try_process(testing::memory(), path).await.unwrap();
    process
        .post("0", r#"{"metrics_generator":{"processors":[]}}"#)
        .await;
    for number in [1, 2] {
        std::fs::write(&file, entry(number)).unwrap();
        process.service.reload().await.unwrap();
        let limits = process.overrides.tenant("t");
        assert_eq!(limits.max_traces_per_user(), Some(u64::from(number)));
        assert!(limits.as_written().metrics_generator.processors.is_empty());
        assert_eq!(limits.as_written().forwarders, ["a"]);
    }
    let merged = process.ask("GET", "?scope=merged", None, "").await;
    assert_eq!(merged.etag, process.get().await.etag);
    assert_eq!(
        merged.body,
        r#"{"forwarders":["a"],"cost_attribution":{},"metrics_generator":{"processors":[],"disable_collection":false,"collection_interval":"0s","trace_id_label_name":"id","ingestion_time_range_slack":"0s","generate_native_histograms":"","native_histogram_max_bucket_number":100,"native_histogram_bucket_factor":1.1,"native_histogram_min_reset_duration":"15m0s","processor":{"service_graphs":{"enable_client_server_prefix":false},"span_metrics":{"enable_target_info":false,"enable_instance_label":true},"host_info":{"metric_name":""}}}}"#
    );
}

#[tokio::test]
async fn a_first_write_against_the_runtime_file_is_refused_where_that_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("o.yaml");
    std::fs::write(
        &file,
        "overrides: {t: {forwarders: [a], metrics_generator: {processors: [host-info]}}}",
    )
    .unwrap();
    let path = file.to_str().unwrap();
    let mut process = try_process(testing::memory(), path).await.unwrap();
    let config = ApiConfig {
        check_for_conflicting_runtime_overrides: true,
        ..multitenant()
    };
    process.api = process.overrides.api(config).unwrap();
    let refused = process.post("0", "{}").await;
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.body,
        "tenant has conflicting overrides set in runtime config, contact your system administrator to perform changes through the API\n"
    );
    assert_eq!(process.patch("{}").await.status, 400);
    let skipped = "?skip-conflicting-overrides-check=true";
    assert_eq!(
        process.ask("POST", skipped, Some("0"), "{}").await.status,
        200
    );
    // Only the first write is checked.
    assert_eq!(process.patch("{}").await.status, 200);
}

#[tokio::test]
async fn a_look_that_fails_leaves_what_was_read_before() {
    let (backend, faults) = testing::faulty(&testing::memory());
    let mut process = process(backend.clone()).await;
    process.post("0", r#"{"forwarders":[]}"#).await;
    let has = |process: &Process| process.overrides.user_overrides_of("t").is_some();
    faults.fail_all();
    assert!(process.poll().await.is_err());
    assert_eq!(process.get().await.status, 500);
    assert_eq!(process.post("0", "{}").await.status, 500);
    assert!(has(&process));
    faults.heal();

    // Someone has broken the document by hand.
    for broken in ["{", r#"{"forwarders":5}"#] {
        let key = ObjectKey::overrides("t");
        backend.write(&key, broken.to_owned().into()).await.unwrap();
        let error = process.poll().await.unwrap_err().to_string();
        assert!(
            error.contains("tenant 't': overrides/t/overrides.json: "),
            "{error}"
        );
        assert!(has(&process));
        assert_eq!(process.get().await.status, 500);
        // Nobody starts on it.
        assert!(try_process(backend.clone(), "").await.is_err());
    }
    assert!(process.metric("list_total") >= 4.0);
    assert!(process.metric("fetch_failed_total") >= 2.0);

    // What a later version has stored is read as far as it is known, and is kept by the store.
    let later = r#"{"newer":1,"metrics_generator":{"disable_collection":true}}"#;
    let key = ObjectKey::overrides("t");
    backend.write(&key, later.to_owned().into()).await.unwrap();
    process.poll().await.unwrap();
    assert!(
        process
            .get()
            .await
            .body
            .contains(r#""disable_collection":true"#)
    );
}

#[tokio::test]
async fn a_store_that_is_away_at_start_is_asked_again() {
    let (backend, faults) = testing::faulty(&testing::memory());
    process(backend.clone())
        .await
        .post("0", r#"{"forwarders":[]}"#)
        .await;
    faults.fail_all();
    let started = process(backend).await;
    assert_eq!(started.metric("reload_failed_total"), 1.0);
    assert!(started.overrides.user_overrides_of("t").is_none());
    faults.heal();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(started.service.run(shutdown.clone()));
    while started.overrides.user_overrides_of("t").is_none() {
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn without_a_store_there_is_no_api() {
    let fixed = Overrides::fixed(TenantOverrides::tempo_defaults());
    assert!(fixed.api(ApiConfig::default()).is_none());
    let page = fixed.tenant_page("t", String::new());
    let text = "User-configurable overrides are not enabled";
    assert_eq!(page.user_configurable_overrides, text);
}

#[test]
fn patches_merge_as_rfc_7386_says() {
    for (target, patch, merged) in [
        (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
        (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (
            r#"{"a":{"b":"c"}}"#,
            r#"{"a":{"b":"d","c":null}}"#,
            r#"{"a":{"b":"d"}}"#,
        ),
        (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        (r#"["a","b"]"#, r#"["c"]"#, r#"["c"]"#),
        (r#"{"a":"foo"}"#, "null", "null"),
        (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
        ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
        ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
    ] {
        let mut json: Value = serde_json::from_str(target).unwrap();
        merge_patch(&mut json, &serde_json::from_str(patch).unwrap());
        let merged: Value = serde_json::from_str(merged).unwrap();
        assert_eq!(json, merged, "{target} {patch}");
    }
}
