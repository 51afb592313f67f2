//! The command line: what it says, and with which exit code.

use std::{fs, process::Command};

use tempo_testkit::process::{Options, Tempo};

use crate::support::{binary, terminate};

fn tempo(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(binary()).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn help_and_version() {
    let (code, text) = tempo(&["--help"]);
    assert_eq!(code, Some(0));
    for word in ["-target", "-config.file", "-config.verify", "all"] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
    let (code, text) = tempo(&["-version"]);
    assert_eq!(code, Some(0));
    assert!(text.starts_with("tempo, version 3."), "{text}");
}

#[test]
fn refusals_tell_the_reason_and_the_way_on() {
    for (arguments, code, words) in [
        (
            vec!["-target=scalable-single-binary"],
            1,
            vec!["scalable-single-binary", "all"],
        ),
        (vec!["-target=ingester"], 1, vec!["ingester", "live-store"]),
        (
            vec!["--target", "querrier"],
            1,
            vec!["unrecognised module name: querrier", "querier"],
        ),
        (
            vec!["-server.http-listen-prt=1"],
            2,
            vec!["server.http-listen-port"],
        ),
        (
            vec!["-config.file=/does/not/exist"],
            1,
            vec!["/does/not/exist"],
        ),
    ] {
        let (got, text) = tempo(&arguments);
        assert_eq!(got, Some(code), "{arguments:?}\n{text}");
        for word in words {
            assert!(text.contains(word), "{arguments:?}: {word} in\n{text}");
        }
    }
}

#[test]
fn verify_names_the_place_of_an_unknown_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tempo.yaml");
    fs::write(
        &file,
        "server:\n  http_listen_port: 3200\nlive_store:\n  max_trace_idel: 5s\n",
    )
    .unwrap();
    let argument = format!("-config.file={}", file.display());
    let (code, text) = tempo(&["-config.verify=true", &argument]);
    assert_eq!(code, Some(1), "{text}");
    for word in ["live_store.max_trace_idel", "line 4", "max_trace_idle"] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
    fs::write(
        &file,
        "storage:\n  trace:\n    backend: local\n    local:\n      path: /tmp/x\n",
    )
    .unwrap();
    let (code, text) = tempo(&["-config.verify", &argument]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn health_asks_the_running_process() {
    let mut running = Tempo::configure(&binary(), &Options::default()).unwrap();
    running.start().unwrap();
    let url = format!("-health.url=http://{}/ready", running.http);
    assert_eq!(tempo(&["-health", &url]).0, Some(0));
    terminate(&mut running);
    assert_eq!(tempo(&["-health", &url]).0, Some(1));
}

#[test]
fn a_taken_port_is_named() {
    let mut first = Tempo::configure(&binary(), &Options::default()).unwrap();
    first.start().unwrap();
    let config = format!("-config.file={}", first.data().join("tempo.yaml").display());
    let folder = tempfile::tempdir().unwrap();
    let wal = format!("-live-store.wal.path={}", folder.path().display());
    let (code, text) = tempo(&[&config, &wal]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&first.http), "{text}");
}
