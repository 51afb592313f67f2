//! What tenants set themselves, over HTTP and between processes.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use tempo_testkit::{
    http_client::{self, Client, Response},
    process::{Options, Tempo},
};

use crate::support::{binary, eventually, terminate};

/// A process whose tenants keep their overrides below `folder`.
fn process(folder: &Path, more_yaml: &str) -> Tempo {
    let options = Options {
        extra_yaml: format!(
            "multitenancy_enabled: true
http_api_prefix: /tempo
overrides:
  user_configurable_overrides:
    enabled: true
    poll_interval: 100ms
    client: {{backend: local, local: {{path: {}}}}}
{more_yaml}",
            folder.display()
        ),
        ..Options::default()
    };
    Tempo::configure(&binary(), &options).unwrap()
}

fn ask(tempo: &Tempo, method: &str, if_match: Option<&str>, body: &str) -> Response {
    let mut headers = vec![("X-Scope-OrgID", "team")];
    headers.extend(if_match.map(|version| ("If-Match", version)));
    let mut client = Client::connect(&tempo.http).unwrap();
    client
        .request(method, "/tempo/api/overrides", &headers, body.as_bytes())
        .unwrap()
}

fn etag(answer: &Response) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("etag").unwrap().to_owned()
}

fn status_page(tempo: &Tempo, path: &str) -> Value {
    let mut client = Client::connect(&tempo.http).unwrap();
    let headers = [("accept", "application/json")];
    let answer = client.request("GET", path, &headers, &[]).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn tenants_set_overrides_in_one_process_and_all_others_learn_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = process(folder.path(), "");
    all.start().unwrap();
    let mut api = process(folder.path(), "target: overrides-api\n");
    api.start().unwrap();

    assert_eq!(ask(&all, "GET", None, "").status, 404);
    assert_eq!(ask(&all, "POST", None, "{}").status, 428);
    let set =
        r#"{"metrics_generator":{"processors":["span-metrics"],"collection_interval":"30s"}}"#;
    let created = etag(&ask(&all, "POST", Some("0"), set));
    let read = ask(&api, "GET", None, "");
    assert_eq!(etag(&read), created);
    assert_eq!(read.header("content-type"), Some("application/json"));
    assert_eq!(
        read.json()["metrics_generator"]["collection_interval"],
        "30s"
    );
    // As Tempo lays it out, so that either can read what the other wrote.
    let file = folder.path().join("overrides/team/overrides.json");
    assert_eq!(fs::read_to_string(&file).unwrap(), read.text());

    // Both have seen this version; the second to write learns that it has passed.
    let second = etag(&ask(&api, "POST", Some(&created), r#"{"forwarders":[]}"#));
    let late = ask(&all, "POST", Some(&created), "{}");
    assert_eq!(
        (late.status, &*late.text()),
        (412, "version does not match\n")
    );
    let patched = ask(
        &all,
        "PATCH",
        None,
        r#"{"metrics_generator":{"disable_collection":true}}"#,
    );
    assert_ne!(etag(&patched), second);
    assert_eq!(patched.json()["forwarders"], Value::Array(vec![]));
    let refused = ask(
        &api,
        "PATCH",
        None,
        r#"{"metrics_generator":{"disable_colection":true}}"#,
    );
    assert_eq!(
        (refused.status, &*refused.text()),
        (
            400,
            "metrics_generator.disable_colection: unknown key; did you mean \"disable_collection\"?\n"
        )
    );

    // Each process looks again by itself.
    eventually("the other process shows it", || {
        let page = status_page(&api, "/status/overrides/team");
        let user = page["user_configurable_overrides"].as_str().unwrap();
        user.contains("disable_collection: true").then_some(())
    });
    let page = status_page(&all, "/status/overrides");
    assert_eq!(page["tenants"][0]["name"], "team");
    assert_eq!(page["tenants"][0]["has_user_configurable_overrides"], true);
    assert_eq!(page["tenants"][0]["has_runtime_overrides"], false);
    let page = status_page(&all, "/status/overrides/other");
    assert_eq!(
        page["user_configurable_overrides"],
        "No user-configurable overrides set"
    );
    assert_eq!(
        page["using_default_or_wildcard_runtime_overrides"],
        "default overrides"
    );
    let html = http_client::get(&all.http, "/status/overrides").unwrap();
    assert!(
        html.text().contains("<a href=\"overrides/team\">"),
        "{}",
        html.text()
    );

    // It outlives its processes.
    terminate(&mut all);
    all.start().unwrap();
    assert_eq!(etag(&ask(&all, "GET", None, "")), etag(&patched));
    let removed = ask(&all, "DELETE", Some(&etag(&patched)), "");
    assert_eq!(removed.status, 200);
    assert!(!file.exists());
    eventually("the other process has forgotten it", || {
        status_page(&api, "/status/overrides")["tenants"]
            .is_null()
            .then_some(())
    });
}

#[test]
fn what_cannot_work_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let start = |yaml: &str| {
        let config = folder.path().join("tempo.yaml");
        let path = folder.path().display();
        let yaml = format!(
            "server: {{http_listen_address: 127.0.0.1, http_listen_port: 0, grpc_listen_address: 127.0.0.1, grpc_listen_port: 0}}\n\
             target: overrides-api\n{}",
            yaml.replace("FOLDER", &path.to_string())
        );
        fs::write(&config, yaml).unwrap();
        let output = Command::new(binary())
            .arg(format!("-config.file={}", config.display()))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let user = |settings: &str| {
        format!("overrides: {{user_configurable_overrides: {{enabled: true, {settings}}}}}\n")
    };
    for (yaml, text) in [
        (
            "overrides: {}\n".to_owned(),
            "overrides.user_configurable_overrides.enabled: false: the target overrides-api has nothing to do",
        ),
        (
            user("client: {}"),
            "overrides.user_configurable_overrides.client.backend: not set: choose local, s3, gcs or azure",
        ),
        (
            user("client: {backend: s3, s3: {bucket_lookup_type: 7}}"),
            "overrides.user_configurable_overrides.client.s3.bucket_lookup_type: 7: use 0",
        ),
        (
            user("poll_interval: 0s, client: {backend: local, local: {path: FOLDER}}"),
            "overrides.user_configurable_overrides.poll_interval: must be longer than 0",
        ),
    ] {
        let told = start(&yaml);
        assert!(told.contains(text), "{told}");
    }
    let document = folder.path().join("overrides/team/overrides.json");
    fs::create_dir_all(document.parent().unwrap()).unwrap();
    fs::write(&document, r#"{"forwarders": {}}"#).unwrap();
    let told = start(&user("client: {backend: local, local: {path: FOLDER}}"));
    let text = "user-configurable overrides of tenant 'team': overrides/team/overrides.json: forwarders: expected a list of text";
    assert!(told.contains(text), "{told}");
}

#[test]
fn without_them_there_is_no_api() {
    let mut tempo = Tempo::configure(&binary(), &Options::default()).unwrap();
    tempo.start().unwrap();
    let answer = http_client::get(&tempo.http, "/api/overrides").unwrap();
    assert_eq!(answer.status, 404);
    let page = status_page(&tempo, "/status/overrides/single-tenant");
    assert_eq!(
        page["user_configurable_overrides"],
        "User-configurable overrides are not enabled"
    );
}
