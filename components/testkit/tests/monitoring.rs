//! Dashboards, alerts and recording rules ask for metrics that exist, and alerts for help that does.

#![allow(clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// Names in the sources: whole, or put together from a prefix of the crate and another literal.
fn exported() -> BTreeSet<String> {
    let whole = Regex::new(r#""((?:tempo|tempodb|process)_[a-z0-9_]+)""#).expect("a pattern");
    let prefix = Regex::new(r#""((?:tempo|tempodb)_[a-z_]*)\{"#).expect("a pattern");
    let literal = Regex::new(r#""([a-z][a-z0-9_]+)""#).expect("a pattern");
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(root().join("components")).expect("the components") {
        let src = entry.expect("an entry").path().join("src");
        if !src.is_dir() {
            continue;
        }
        let mut texts = Vec::new();
        sources(&src, &mut texts);
        for text in &texts {
            names.extend(whole.captures_iter(text).map(|found| found[1].to_owned()));
            for prefix in prefix.captures_iter(text) {
                names.extend(
                    literal
                        .captures_iter(text)
                        .map(|literal| format!("{}{}", &prefix[1], &literal[1])),
                );
            }
        }
    }
    names
}

/// The expressions of a file, with what they are for.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "expr" => found.push(text.clone()),
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("a file of monitoring");
    if path.extension().is_some_and(|ext| ext == "json") {
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    } else {
        serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

#[test]
fn every_metric_that_is_asked_for_is_exported() {
    let monitoring = root().join("monitoring");
    let mut files: Vec<PathBuf> = fs::read_dir(monitoring.join("dashboards"))
        .expect("dashboards")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.extend(["alerts.yaml", "rules.yaml"].map(|name| monitoring.join(name)));

    let exported = exported();
    let metric = Regex::new(r"\b(?:tempo|tempodb|process)_[a-z0-9_]+").expect("a pattern");
    let mut asked = 0;
    let mut missing = BTreeSet::new();
    for file in files {
        let mut found = Vec::new();
        expressions(&read(&file), &mut found);
        for expression in &found {
            for name in metric.find_iter(expression) {
                asked += 1;
                let series = ["_bucket", "_sum", "_count"]
                    .into_iter()
                    .find_map(|suffix| name.as_str().strip_suffix(suffix))
                    .unwrap_or(name.as_str());
                if !exported.contains(series) && !exported.contains(name.as_str()) {
                    missing.insert(format!("{}: {}", file.display(), name.as_str()));
                }
            }
        }
    }
    assert!(asked > 50, "only {asked} metrics found in the files");
    assert!(missing.is_empty(), "nobody exports {missing:#?}");
}

#[test]
fn every_alert_has_a_section_in_the_runbook() {
    let alerts = read(&root().join("monitoring/alerts.yaml"));
    let runbook =
        fs::read_to_string(root().join("docs/operations/runbook.md")).expect("the runbook");
    let rules = alerts["groups"][0]["rules"].as_array().expect("rules");
    assert!(!rules.is_empty());
    for rule in rules {
        let name = rule["alert"].as_str().expect("a name");
        assert!(runbook.contains(&format!("\n## {name}\n")), "{name}");
        let link = rule["annotations"]["runbook_url"].as_str().expect("a link");
        assert!(
            link.ends_with(&format!("#{}", name.to_lowercase())),
            "{link}"
        );
        assert!(rule["annotations"]["message"].is_string(), "{name}");
    }
}
