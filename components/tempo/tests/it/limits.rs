//! Limits per tenant, each where it bites: one process, one tenant for each limit.

use std::fs;

use serde_json::json;
use tempo_testkit::{
    http_client::{Client, Response, encode},
    process::{Options, Tempo},
};

use crate::support::{binary, eventually, flush, metric, unix_seconds};

/// Enough for everyone who is to have enough.
const ROOMY: &str = "rate_limit_bytes: 30000000, burst_size_bytes: 30000000";

/// The runtime file: what is not written is zero, so each tenant has the roomy rates.
fn overrides(old_trace_limit: u64) -> String {
    format!(
        "overrides:
  slow:
    ingestion: {{rate_limit_bytes: 10, burst_size_bytes: 10}}
  silent:
    ingestion: {{rate_limit_bytes: 10, burst_size_bytes: 10, retry_info_enabled: false}}
  few:
    ingestion: {{{ROOMY}, max_traces_per_user: {old_trace_limit}}}
  short:
    ingestion: {{{ROOMY}, max_attribute_bytes: 8}}
  small:
    ingestion: {{{ROOMY}}}
    global: {{max_bytes_per_trace: 20}}
  columns:
    ingestion: {{{ROOMY}}}
    storage:
      parquet_dedicated_columns: [{{scope: span, name: long, type: string}}]
  values:
    ingestion: {{{ROOMY}}}
    read: {{max_bytes_per_tag_values_query: 20}}
  searches:
    ingestion: {{{ROOMY}}}
    read: {{max_search_duration: 1h, max_metrics_duration: 2h}}
  padded:
    ingestion: {{{ROOMY}}}
    read: {{left_pad_trace_ids: true}}
  old:
    ingestion: {{{ROOMY}}}
    compaction: {{block_retention: 1s}}
  kept:
    ingestion: {{{ROOMY}}}
    compaction: {{block_retention: 1s, compaction_disabled: true}}
  \"*\":
    ingestion: {{{ROOMY}}}
"
    )
}

struct Scene {
    tempo: Tempo,
    now: u64,
}

impl Scene {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        let file = folder.join("overrides.yaml");
        fs::write(&file, overrides(1)).unwrap();
        let options = Options {
            data: Some(folder.clone()),
            storage_yaml: Some(format!(
                "    backend: local\n    blocklist_poll: 1s\n    local:\n      path: {}/blocks\n",
                folder.display()
            )),
            // Blocks are merged, so that what is not merged is so for its limit.
            merges_blocks: true,
            extra_yaml: format!(
                "multitenancy_enabled: true
query_frontend:
  query_end_cutoff: 0s
backend_scheduler:
  maintenance_interval: 1s
  provider:
    retention: {{interval: 1s}}
backend_worker:
  backoff: {{min_period: 50ms, max_period: 500ms}}
overrides:
  per_tenant_override_config: {}
  per_tenant_override_period: 1s
  defaults:
    read: {{max_condition_groups_per_tag_query: 2}}
",
                file.display()
            ),
            ..Options::default()
        };
        let mut tempo = Tempo::configure(&binary(), &options).unwrap();
        tempo.start().unwrap();
        Self {
            tempo,
            now: unix_seconds(),
        }
    }

    /// Sends a trace of one span with these attributes, ten seconds old.
    fn push(&self, tenant: &str, id: u128, attributes: &[(&str, &str)]) -> Response {
        let attributes: Vec<_> = attributes
            .iter()
            .map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}))
            .collect();
        let start = (self.now - 10) * 1_000_000_000;
        let span = json!({
            "traceId": format!("{id:032x}"), "spanId": "0102030405060708", "name": "work",
            "kind": 2, "startTimeUnixNano": start.to_string(),
            "endTimeUnixNano": (start + 1_000_000).to_string(), "attributes": attributes,
        });
        let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).to_string();
        let headers = [
            ("content-type", "application/json"),
            ("X-Scope-OrgID", tenant),
        ];
        let mut client = Client::connect(&self.tempo.otlp_http).unwrap();
        client
            .request("POST", "/v1/traces", &headers, body.as_bytes())
            .unwrap()
    }

    fn pushed(&self, tenant: &str, id: u128, attributes: &[(&str, &str)]) {
        let answer = self.push(tenant, id, attributes);
        assert_eq!(answer.status, 200, "{tenant}: {}", answer.text());
    }

    fn get(&self, tenant: &str, path: &str) -> Response {
        let mut client = Client::connect(&self.tempo.http).unwrap();
        let headers = [("X-Scope-OrgID", tenant)];
        client.request("GET", path, &headers, &[]).unwrap()
    }

    /// A path with a query and a range of time that ends now.
    fn asked(&self, path: &str, query: &str, seconds: u64) -> String {
        let (start, end) = (self.now - seconds, self.now + 1);
        format!("{path}?q={}&start={start}&end={end}&step=1m", encode(query))
    }

    /// Ids of the traces that a search of a tenant finds.
    fn search(&self, tenant: &str, query: &str) -> Vec<String> {
        let answer = self.get(tenant, &self.asked("/api/search", query, 600));
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        let traces = answer.json()["traces"].as_array().cloned();
        let ids = traces.unwrap_or_default();
        ids.iter()
            .map(|trace| trace["traceID"].as_str().unwrap().to_owned())
            .collect()
    }

    fn discarded(&self, reason: &str, tenant: &str) -> f64 {
        let labels = format!("{{reason=\"{reason}\",tenant=\"{tenant}\"}}");
        metric(&self.tempo, &format!("tempo_discarded_spans_total{labels}"))
    }

    /// Names of files in the blocks of a tenant, and what `meta.json` of the first says.
    fn block_files(&self, tenant: &str) -> (Vec<String>, String) {
        let (mut names, mut meta) = (Vec::new(), String::new());
        let folder = self.tempo.data().join("blocks").join(tenant);
        for block in fs::read_dir(folder).into_iter().flatten().flatten() {
            for file in fs::read_dir(block.path()).into_iter().flatten().flatten() {
                let name = file.file_name().to_string_lossy().into_owned();
                if name == "meta.json" {
                    meta = fs::read_to_string(file.path()).unwrap_or_default();
                }
                names.push(name);
            }
        }
        (names, meta)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.tempo.kill();
        let _ = fs::remove_dir_all(self.tempo.data());
    }
}

#[test]
fn every_limit_of_a_tenant_bites() {
    let scene = Scene::start();

    // What may be sent.
    for (tenant, tells_when) in [("slow", true), ("silent", false)] {
        let refused = scene.push(tenant, 1, &[]);
        assert_eq!(refused.status, 429, "{}", refused.text());
        assert!(
            refused.text().contains("RATE_LIMITED"),
            "{}",
            refused.text()
        );
        assert_eq!(
            refused.header("retry-after").is_some(),
            tells_when,
            "{tenant}"
        );
        assert_eq!(scene.discarded("rate_limited", tenant), 1.0);
    }
    scene.pushed("few", 1, &[]);
    let refused = scene.push("few", 2, &[]);
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(
        refused.text().contains("LIVE_TRACES_EXCEEDED"),
        "{}",
        refused.text()
    );
    assert_eq!(scene.discarded("live_traces_exceeded", "few"), 1.0);
    scene.pushed(
        "small",
        1,
        &[("long", "0123456789012345678901234567890123456789")],
    );
    assert_eq!(scene.discarded("trace_too_large", "small"), 1.0);
    assert!(scene.search("small", "{}").is_empty());
    scene.pushed("short", 1, &[("long", "0123456789")]);
    scene.pushed("anyone", 1, &[("long", "0123456789")]);
    assert_eq!(
        scene.search("short", r#"{ span.long = "01234567" }"#).len(),
        1
    );
    assert_eq!(
        scene
            .search("anyone", r#"{ span.long = "0123456789" }"#)
            .len(),
        1
    );

    // What may be asked.
    let range = |kind: &str, seconds| scene.asked(kind, "{} | rate()", seconds);
    for (tenant, path, status, text) in [
        (
            "searches",
            scene.asked("/api/search", "{}", 7200),
            400,
            "exceeds 1h0m0s",
        ),
        ("searches", scene.asked("/api/search", "{}", 600), 200, ""),
        ("anyone", scene.asked("/api/search", "{}", 7200), 200, ""),
        (
            "searches",
            range("/api/metrics/query_range", 10_000),
            400,
            "exceeds the maximum allowed duration of 2h0m0s",
        ),
        ("searches", range("/api/metrics/query_range", 600), 200, ""),
        ("anyone", range("/api/metrics/query_range", 10_000), 200, ""),
    ] {
        let answer = scene.get(tenant, &path);
        assert_eq!(answer.status, status, "{tenant} {path}: {}", answer.text());
        assert!(answer.text().contains(text), "{}", answer.text());
    }
    for tenant in ["values", "anyone"] {
        for (id, value) in (10..).zip(["first-value", "second-value", "third-value"]) {
            scene.pushed(tenant, id, &[("color", value)]);
        }
    }
    let values = |tenant: &str| {
        let path = scene.asked("/api/v2/search/tag/span.color/values", "{}", 600);
        let answer = scene.get(tenant, &path);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["tagValues"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((values("values"), values("anyone")), (1, 3));
    let groups = |query: &str| {
        let path = scene.asked("/api/v2/search/tag/span.color/values", query, 600);
        scene.get("anyone", &path)
    };
    assert_eq!(groups("{ .a = 1 || .b = 1 }").status, 200);
    let refused = groups("{ .a = 1 || .b = 1 || .c = 1 }");
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(
        refused.text().contains("condition groups"),
        "{}",
        refused.text()
    );
    for tenant in ["padded", "anyone"] {
        scene.pushed(tenant, 0xabc, &[("padded", "x")]);
    }
    let found = |tenant: &str| scene.search(tenant, "{ span.padded = \"x\" }");
    assert_eq!(found("padded"), [format!("{:032x}", 0xabc)]);
    assert_eq!(found("anyone"), ["abc"]);

    // How blocks are written, and how long they live.
    for tenant in ["columns", "old", "kept"] {
        scene.pushed(tenant, 1, &[("long", "0123456789")]);
    }
    flush(&scene.tempo);
    let (_, meta) = scene.block_files("columns");
    assert!(meta.contains(r#""n":"long""#), "{meta}");
    let (_, meta) = scene.block_files("anyone");
    assert!(!meta.contains("\"long\""), "{meta}");
    let has = |tenant: &str, name: &str| {
        let (names, _) = scene.block_files(tenant);
        names.iter().any(|found| found == name)
    };
    eventually("the block that is too old is marked", || {
        has("old", "meta.compacted.json").then_some(())
    });
    assert!(has("kept", "meta.json") && !has("kept", "meta.compacted.json"));

    // The file is read again.
    let file = scene.tempo.data().join("overrides.yaml");
    fs::write(&file, "overrides: {few: {ingestion: {rate: 1}}}").unwrap();
    let is_bad = "tempo_runtime_config_last_reload_successful{config=\"overrides\"}";
    eventually("the bad file is told", || {
        (metric(&scene.tempo, is_bad) == 0.0).then_some(())
    });
    assert_eq!(
        scene.push("slow", 1, &[]).status,
        429,
        "the previous limits stay"
    );
    fs::write(&file, overrides(100)).unwrap();
    eventually("more traces are allowed", || {
        (scene.push("few", 2, &[]).status == 200).then_some(())
    });
}
