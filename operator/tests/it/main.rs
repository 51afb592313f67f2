//! The command line, as a person uses it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn operator(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tempo-operator"))
        .args(arguments)
        .current_dir(repository())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input.as_bytes())
        .expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_definition_is_that_of_the_repository() {
    let printed = operator(&["crd"], "");
    assert!(printed.status.success());
    let file = std::fs::read_to_string(repository().join("crds/tempostack.io_tempostacks.yaml"))
        .expect("the file is there");
    assert_eq!(text(&printed.stdout), file);
}

#[test]
fn samples_are_valid_and_tell_what_they_need() {
    for sample in ["minimal", "production", "all-fields"] {
        let checked = operator(&["check", &format!("crds/samples/{sample}.yaml")], "");
        assert!(checked.status.success(), "{}", text(&checked.stderr));
    }
    let needs = operator(&["check", "crds/samples/production.yaml"], "");
    assert!(
        text(&needs.stdout)
            .contains("Secret kafka-user with password (spec.kafka.sasl.passwordSecretRef)")
    );
}

#[test]
fn what_is_wrong_is_told_with_the_field_and_the_remedy() {
    let wrong = "apiVersion: tempostack.io/v1alpha1\nkind: TempoStack\nmetadata: {name: a}\nspec: {storage: {local: {sise: 1Gi}}}\n";
    let checked = operator(&["check", "-"], wrong);
    assert_eq!(checked.status.code(), Some(1));
    assert!(
        text(&checked.stderr)
            .contains("spec.storage.local.sise: unknown field; did you mean \"size\"?"),
        "{}",
        text(&checked.stderr)
    );
    let missing = operator(&["check", "no-such-file.yaml"], "");
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("no-such-file.yaml"));
}

#[test]
fn what_is_rendered_is_what_was_looked_at() {
    let rendered = operator(&["render", "crds/samples/production.yaml"], "");
    assert!(rendered.status.success());
    let golden =
        std::fs::read_to_string(repository().join("operator/testdata/golden/production.yaml"))
            .expect("the file is there");
    // The hash of Secrets, which are not known here, is in the pods' annotations alone.
    let without_hashes = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| !line.contains("tempostack.io/config-hash"))
            .map(ToOwned::to_owned)
            .collect()
    };
    assert_eq!(
        without_hashes(&text(&rendered.stdout)),
        without_hashes(&golden)
    );
}

#[test]
fn values_are_explained() {
    let field = operator(&["explain", "spec.kafka.topic.manage"], "");
    assert!(text(&field.stdout).contains("None | Create | CreateAndGrow"));
    let values = operator(&["explain", "-f", "crds/samples/production.yaml"], "");
    let shown = text(&values.stdout);
    assert!(
        shown.contains("spec.kafka.topic.partitions = 12  (file)"),
        "{shown}"
    );
    assert!(shown.contains("spec.updateStrategy.drainWait = \"35m\"  (default)"));
    assert!(shown.contains("live-stores: 6 in each of 2 zones"));
    let unknown = operator(&["explain", "spec.nothing"], "");
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn a_reader_that_stops_reading_is_no_fault() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tempo-operator"))
        .arg("crd")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("it ends");
    assert!(ended.status.success(), "{}", text(&ended.stderr));
}
