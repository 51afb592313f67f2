//! What can be told about the chart and the images without a cluster.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn chart() -> PathBuf {
    repository().join("charts/tempo-operator")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(path: &Path) -> Value {
    serde_yaml::from_str(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The chart's CRD is the one in `crds/`, by a link that Helm follows when it packs the chart.
#[test]
fn the_charts_crd_is_the_generated_one() {
    let name = "tempostack.io_tempostacks.yaml";
    let generated = repository().join("crds").join(name);
    let packed = chart().join("files/crds").join(name);
    assert!(
        read(&generated) == read(&packed),
        "{} must be {}",
        packed.display(),
        generated.display()
    );
    assert_eq!(
        yaml(&packed)["metadata"]["name"],
        "tempostacks.tempostack.io"
    );
}

#[test]
fn the_charts_versions_are_the_projects() {
    let metadata = yaml(&chart().join("Chart.yaml"));
    for field in ["version", "appVersion"] {
        assert_eq!(metadata[field], env!("CARGO_PKG_VERSION"), "{field}");
    }
}

/// Paths of all leaves of `values`; maps that users fill are leaves.
fn leaves(path: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value.as_object() {
        Some(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                leaves(&format!("{path}/{name}"), field, found);
            }
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

fn described(schema: &Value, path: &str) -> bool {
    let mut at = schema;
    for name in path.split('/').skip(1) {
        let next = &at["properties"][name];
        if next.is_null() {
            // An object without a list of properties takes any.
            return at["type"] == "object" && at["additionalProperties"] != false;
        }
        at = next;
    }
    true
}

#[test]
fn every_value_of_the_chart_has_a_schema() {
    let schema: Value = serde_json::from_str(&read(&chart().join("values.schema.json"))).unwrap();
    let mut values = BTreeSet::new();
    leaves("", &yaml(&chart().join("values.yaml")), &mut values);
    assert!(values.len() > 20, "{values:?}");
    let unknown: Vec<_> = values
        .iter()
        .filter(|path| !described(&schema, path))
        .collect();
    assert!(unknown.is_empty(), "not in values.schema.json: {unknown:?}");
    assert!(
        !described(&schema, "/image/repositry"),
        "a misspelt value must be refused"
    );
}

/// A value that no template reads would promise what does not happen.
#[test]
fn every_value_of_the_chart_is_used() {
    let mut templates = String::new();
    for entry in fs::read_dir(chart().join("templates")).unwrap() {
        templates += &read(&entry.unwrap().path());
    }
    let mut values = BTreeSet::new();
    leaves("", &yaml(&chart().join("values.yaml")), &mut values);
    let used = |path: &str| {
        // A part may be handed on whole, as `.Values.resources` is.
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        (1..=parts.len()).any(|count| {
            let name = format!(".Values.{}", parts[..count].join("."));
            templates.match_indices(&name).any(|(at, _)| {
                !templates[at + name.len()..].starts_with(|c: char| c == '.' || c.is_alphanumeric())
            })
        })
    };
    let unused: Vec<_> = values.iter().filter(|path| !used(path)).collect();
    assert!(unused.is_empty(), "no template reads: {unused:?}");
}

/// Users' images and those that tests run are laid out by one script and run as one user.
#[test]
fn both_ways_to_build_images_agree() {
    let script = read(&repository().join("scripts/images.sh"));
    assert!(script.contains("images/rootfs.sh"));
    for name in ["tempo", "tempo-operator"] {
        let dockerfile = read(&repository().join(format!("images/{name}.Dockerfile")));
        for line in [
            "images/rootfs.sh",
            "FROM scratch",
            "COPY --from=build /rootfs/base/ /",
            "COPY --from=build /rootfs/program/ /",
            "USER 10001:10001",
            &format!("ENTRYPOINT [\"/{name}\"]"),
        ] {
            assert!(dockerfile.contains(line), "{name}: no {line:?}");
        }
    }
    assert!(script.contains("build_image \"$image\" \"$work\" 10001"));
    assert!(script.contains("--config.entrypoint \"/$name\""));
}
