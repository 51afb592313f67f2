//! What a language model's host gets from `/api/mcp`, through the SDK of another language.

use std::process::Command;

use serde_json::{Value, json};
use tempo_testkit::{
    http_client,
    process::{Options, Tempo},
};

use crate::{
    shop::Shop,
    support::{binary, metric, required_env, sdk_folder},
};

const ENABLED: &str = "query_frontend:\n  mcp_server:\n    enabled: true\n";

fn start(more_yaml: &str) -> Tempo {
    let options = Options {
        extra_yaml: format!("{ENABLED}{more_yaml}"),
        ..Options::default()
    };
    let mut tempo = Tempo::configure(&binary(), &options).unwrap();
    tempo.start().unwrap();
    tempo
}

/// What the server offers, and its answers.
fn ask(tempo: &Tempo, more: &[&str], calls: &[Value]) -> (Value, Vec<Value>) {
    let output = Command::new(required_env("TEMPO_TEST_PYTHON"))
        .arg(sdk_folder().join("model.py"))
        .args(more)
        .arg(format!("http://{}/api/mcp", tempo.http))
        .args(calls.iter().map(Value::to_string))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let mut lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    (lines.next().unwrap(), lines.collect())
}

fn call(tool: &str, arguments: Value) -> Value {
    json!({ "tool": tool, "arguments": arguments })
}

/// The text of a good answer, and its metadata.
fn good(answer: &Value) -> (&str, &Value) {
    assert_ne!(answer["isError"], true, "{answer}");
    (
        answer["content"][0]["text"].as_str().unwrap(),
        &answer["_meta"],
    )
}

fn good_json(answer: &Value) -> Value {
    serde_json::from_str(good(answer).0).unwrap()
}

/// The text of an answer that tells what is wrong.
fn bad(answer: &Value) -> &str {
    assert_eq!(answer["isError"], true, "{answer}");
    answer["content"][0]["text"].as_str().unwrap()
}

fn names(list: &Value, key: &str) -> Vec<String> {
    let items = list.as_array().unwrap().iter();
    items
        .map(|item| item[key].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_model_finds_measures_and_compares_traces() {
    let tempo = start("");
    let shop = Shop::recent();
    shop.push(&tempo, None);
    for mode in ["legacy", "auto"] {
        let (offer, answers) = ask(
            &tempo,
            &["--mode", mode],
            &[
                call("traceql-search", json!({ "query": "{ status = error }" })),
                call(
                    "traceql-metrics-instant",
                    json!({ "query": "{ name = `GET /checkout` } | count_over_time()" }),
                ),
                call(
                    "traceql-metrics-range",
                    json!({ "query": "{ } | rate() by (resource.service.name)" }),
                ),
                call("get-trace", json!({ "trace_id": Shop::short_id(3) })),
                call(
                    "trace-diff",
                    json!({
                        "base_trace_id": Shop::short_id(2),
                        "compare_trace_id": Shop::short_id(3),
                    }),
                ),
                call("get-attribute-names", json!({ "scope": "resource" })),
                call(
                    "get-attribute-values",
                    json!({ "name": "resource.service.name" }),
                ),
                call("docs-traceql", json!({ "name": "structural" })),
                call("docs-config", json!({ "name": "config-overview" })),
                json!({ "resource": "docs://traceql/query" }),
                json!({ "resource": "docs://config/reference" }),
            ],
        );
        assert_eq!(
            offer["server"],
            json!({ "name": "tempo", "version": "0.1.0" })
        );
        assert_eq!(
            names(&offer["tools"], "name"),
            [
                "traceql-search",
                "traceql-metrics-instant",
                "traceql-metrics-range",
                "get-trace",
                "trace-diff",
                "get-attribute-names",
                "get-attribute-values",
                "docs-traceql",
                "docs-config",
            ]
        );
        for tool in offer["tools"].as_array().unwrap() {
            let annotations = &tool["annotations"];
            assert_eq!(annotations["readOnlyHint"], true, "{tool}");
            assert_eq!(annotations["destructiveHint"], false, "{tool}");
            assert_eq!(annotations["openWorldHint"], false, "{tool}");
        }
        assert_eq!(
            names(&offer["resources"], "uri"),
            [
                "docs://traceql/query",
                "docs://traceql/basic",
                "docs://traceql/aggregates",
                "docs://traceql/structural",
                "docs://traceql/metrics",
                "docs://config/overview",
                "docs://config/reference",
            ]
        );

        let failed = (0..crate::shop::ORDERS).filter(|order| Shop::fails(*order));
        let mut failed: Vec<String> = failed.map(Shop::short_id).collect();
        let mut found = names(&good_json(&answers[0])["traces"], "traceID");
        failed.sort();
        found.sort();
        assert_eq!(found, failed);
        assert_eq!(
            good(&answers[0]).1,
            &json!({ "type": "search-results", "encoding": "json", "version": "1" })
        );
        assert_eq!(
            good_json(&answers[1])["series"][0]["value"],
            f64::from(crate::shop::ORDERS)
        );
        assert_eq!(good(&answers[1]).1["type"], "metrics-instant");
        assert!(
            !good_json(&answers[2])["series"]
                .as_array()
                .unwrap()
                .is_empty()
        );
        assert_eq!(good(&answers[2]).1["type"], "metrics-range");
        let trace = good_json(&answers[3]);
        assert!(
            !trace["trace"]["services"].as_array().unwrap().is_empty(),
            "{trace}"
        );
        assert_eq!(
            good(&answers[3]).1,
            &json!({ "type": "trace", "encoding": "json", "version": "2" })
        );
        let diff = good_json(&answers[4]);
        assert_eq!(diff["version"], "trace-summary-v0-composed");
        let scopes = good_json(&answers[5]);
        assert_eq!(names(&scopes["scopes"], "name"), ["resource"]);
        assert_eq!(good(&answers[5]).1["type"], "attribute-names");
        for service in ["web", "payment"] {
            assert!(good(&answers[6]).0.contains(service), "{}", answers[6]);
        }
        assert!(good(&answers[7]).0.contains("!>>"));
        assert_eq!(
            good(&answers[7]).1,
            &json!({ "type": "documentation", "encoding": "markdown", "version": "1" })
        );
        assert!(good(&answers[8]).0.contains("X-Scope-OrgID"));
        for (answer, text) in [
            (&answers[9], "TraceQL"),
            (&answers[10], "`query_frontend.mcp_server.enabled`"),
        ] {
            let contents = &answer["contents"][0];
            assert_eq!(contents["mimeType"], "text/markdown");
            assert!(contents["text"].as_str().unwrap().contains(text));
        }
    }
    assert_eq!(
        metric(
            &tempo,
            "tempo_query_frontend_mcp_calls_total{tool=\"get-trace\"}"
        ),
        2.0
    );
}

#[test]
fn what_a_model_does_wrong_it_is_told() {
    let tempo = start("");
    let (_, answers) = ask(
        &tempo,
        &[],
        &[
            call("traceql-search", json!({})),
            call("traceql-search", json!({ "query": "{ status = }" })),
            call("traceql-search", json!({ "query": "{ } | rate()" })),
            call("traceql-metrics-instant", json!({ "query": "{ }" })),
            call("traceql-metrics-range", json!({ "query": "{ }" })),
            call(
                "traceql-search",
                json!({ "query": "{ }", "start": "yesterday" }),
            ),
            call("traceql-search", json!({ "query": "{ }", "limit": "3" })),
            call("get-trace", json!({ "trace_id": "none" })),
            call("docs-traceql", json!({ "name": "poems" })),
            call("traceql-guess", json!({})),
            json!({ "resource": "docs://poems" }),
        ],
    );
    let told: Vec<&str> = answers[..9].iter().map(bad).collect();
    assert_eq!(told[0], "required argument \"query\" not found");
    assert!(told[1].starts_with("query parse error. Consult TraceQL docs tools: "));
    assert_eq!(
        told[2],
        "TraceQL metrics query received on traceql-search tool. Use the traceql-metrics-instant \
         or traceql-metrics-range tool instead"
    );
    assert_eq!(
        told[3],
        "TraceQL search query received on instant query tool. Use the traceql-search tool instead"
    );
    assert_eq!(
        told[4],
        "TraceQL search query received on range query tool. Use the traceql-search tool instead"
    );
    assert!(told[5].starts_with("invalid start time: "));
    assert_eq!(
        told[6],
        "unknown argument \"limit\"; traceql-search takes query, start, end"
    );
    assert!(
        told[7].starts_with("tool failed with http status code 400 and reason "),
        "{}",
        told[7]
    );
    assert!(told[8].ends_with("basic, aggregates, structural, metrics"));
    assert_eq!(answers[9]["message"], "tool 'traceql-guess' not found");
    assert_eq!(answers[10]["message"], "resource 'docs://poems' not found");
}

#[test]
fn a_model_sees_its_tenant_alone_and_nothing_when_the_server_is_off() {
    let tempo = start("multitenancy_enabled: true\n");
    Shop::recent().push(&tempo, Some("shop"));
    let search = [call("traceql-search", json!({ "query": "{ }" }))];
    let (_, found) = ask(&tempo, &["--tenant", "shop"], &search);
    assert!(
        !good_json(&found[0])["traces"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    let (_, other) = ask(&tempo, &["--tenant", "other"], &search);
    assert_eq!(good_json(&other[0])["traces"], json!([]));
    let (_, nobody) = ask(&tempo, &[], &search);
    assert_eq!(bad(&nobody[0]), "no org id");

    let mut off = Tempo::configure(&binary(), &Options::default()).unwrap();
    off.start().unwrap();
    assert_eq!(http_client::get(&off.http, "/api/mcp").unwrap().status, 404);
}
