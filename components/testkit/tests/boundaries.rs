//! The house rules that the compiler does not hold: who may depend on whom.
//!
//! Only what ships counts: dependencies for tests are free.

#![allow(clippy::expect_used)]

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// Bottom up: a crate may use those named here, and nothing else of the workspace.
const MAY_USE: &[(&str, &[&str])] = &[
    ("tempo-proto", &[]),
    ("tempo-durable", &[]),
    ("tempo-model", &["tempo-proto"]),
    ("tempo-table", &["tempo-model"]),
    ("tempo-traceql", &[]),
    (
        "tempo-engine",
        &["tempo-proto", "tempo-model", "tempo-table", "tempo-traceql"],
    ),
    ("tempo-config", &["tempo-traceql"]),
    (
        "tempo-api",
        &[
            "tempo-proto",
            "tempo-model",
            "tempo-table",
            "tempo-traceql",
            "tempo-engine",
        ],
    ),
    ("tempo-runtime", &[]),
    ("tempo-backend", &["tempo-model", "tempo-proto"]),
    (
        "tempo-block",
        &["tempo-model", "tempo-proto", "tempo-table", "tempo-backend"],
    ),
    (
        "tempo-overrides",
        &[
            "tempo-model",
            "tempo-traceql",
            "tempo-config",
            "tempo-backend",
        ],
    ),
    ("tempo-membership", &["tempo-durable"]),
    (
        "tempo-backend-scheduler",
        &[
            "tempo-proto",
            "tempo-durable",
            "tempo-model",
            "tempo-backend",
            "tempo-runtime",
        ],
    ),
    (
        "tempo-backend-worker",
        &[
            "tempo-proto",
            "tempo-model",
            "tempo-backend",
            "tempo-block",
            "tempo-runtime",
        ],
    ),
    ("tempo-translate", &["tempo-proto"]),
    (
        "tempo-distributor",
        &[
            "tempo-proto",
            "tempo-model",
            "tempo-translate",
            "tempo-runtime",
        ],
    ),
    (
        "tempo-block-builder",
        &[
            "tempo-model",
            "tempo-ingest",
            "tempo-backend",
            "tempo-block",
        ],
    ),
    (
        "tempo-live-store",
        &[
            "tempo-proto",
            "tempo-durable",
            "tempo-model",
            "tempo-table",
            "tempo-traceql",
            "tempo-engine",
            "tempo-backend",
            "tempo-block",
            "tempo-ingest",
            "tempo-runtime",
        ],
    ),
    (
        "tempo-querier",
        &[
            "tempo-proto",
            "tempo-model",
            "tempo-table",
            "tempo-traceql",
            "tempo-engine",
            "tempo-api",
            "tempo-backend",
            "tempo-block",
            "tempo-runtime",
        ],
    ),
    (
        "tempo-query-frontend",
        &[
            "tempo-proto",
            "tempo-model",
            "tempo-table",
            "tempo-traceql",
            "tempo-engine",
            "tempo-api",
            "tempo-backend",
            "tempo-runtime",
        ],
    ),
    (
        "tempo",
        &[
            "tempo-proto",
            "tempo-durable",
            "tempo-model",
            "tempo-table",
            "tempo-traceql",
            "tempo-engine",
            "tempo-config",
            "tempo-api",
            "tempo-runtime",
            "tempo-backend",
            "tempo-block",
            "tempo-overrides",
            "tempo-membership",
            "tempo-backend-scheduler",
            "tempo-backend-worker",
            "tempo-ingest",
            "tempo-membership",
            "tempo-distributor",
            "tempo-block-builder",
            "tempo-live-store",
            "tempo-querier",
            "tempo-query-frontend",
        ],
    ),
    ("tempo-ingest", &["tempo-model"]),
    (
        "tempo-operator",
        &["tempo-config", "tempo-ingest", "tempo-runtime"],
    ),
    (
        "tempo-testkit",
        &["tempo-proto", "tempo-model", "tempo-traceql"],
    ),
    ("tempo-e2e", &["tempo-testkit"]),
    // Never ships: the functions that are run with arbitrary bytes.
    (
        "tempo-fuzz",
        &[
            "tempo-model",
            "tempo-table",
            "tempo-traceql",
            "tempo-engine",
            "tempo-config",
            "tempo-backend",
            "tempo-block",
            "tempo-distributor",
            "tempo-live-store",
        ],
    ),
];

/// Libraries that one crate alone may name, so that the rest does not depend on them.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("parquet", &["tempo-block"]),
    ("object_store", &["tempo-backend"]),
    ("rdkafka", &["tempo-ingest"]),
    ("chitchat", &["tempo-membership"]),
    ("kube", &["tempo-operator", "tempo-e2e"]),
];

/// Crates without async, I/O or a clock.
const PURE: &[&str] = &[
    "tempo-model",
    "tempo-table",
    "tempo-traceql",
    "tempo-engine",
    "tempo-config",
    "tempo-api",
];
const IMPURE_LIBRARIES: &[&str] = &["tokio", "futures", "hyper", "axum", "object_store"];

fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let ships = package["dependencies"]
                .as_array()
                .expect("dependencies")
                .iter()
                .filter(|dependency| dependency["kind"] != "dev")
                .map(|dependency| dependency["name"].as_str().expect("name").to_owned())
                .collect();
            (package["name"].as_str().expect("name").to_owned(), ships)
        })
        .collect()
}

#[test]
fn dependencies_go_down_only() {
    let rules: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut broken = Vec::new();
    for (package, ships) in dependencies() {
        let Some(allowed) = rules.get(package.as_str()) else {
            broken.push(format!("{package} has no rule: add it to MAY_USE"));
            continue;
        };
        for dependency in ships
            .iter()
            .filter(|name| rules.contains_key(name.as_str()))
        {
            if !allowed.contains(&dependency.as_str()) {
                broken.push(format!("{package} must not depend on {dependency}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn each_large_library_has_one_owner() {
    let mut broken = Vec::new();
    for (package, ships) in dependencies() {
        for (library, owners) in ONLY_IN {
            if ships.iter().any(|name| name == library) && !owners.contains(&package.as_str()) {
                broken.push(format!("{package} must not name {library}: {owners:?} may"));
            }
        }
        for library in IMPURE_LIBRARIES {
            if PURE.contains(&package.as_str()) && ships.iter().any(|name| name == library) {
                broken.push(format!(
                    "{package} is pure and must not depend on {library}"
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
