//! TLS on the query ports.

use std::{
    fs,
    process::{Child, Command},
    time::{Duration, Instant},
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempo_testkit::ports::free_address;

use crate::support::binary;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `curl` prints, or nothing when it fails.
fn curl(arguments: &[&str]) -> Option<String> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "10"])
        .args(arguments)
        .output()
        .unwrap();
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn queries_over_tls_and_only_with_a_client_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (cert_file, key_file) = (path("tls.crt"), path("tls.key"));
    fs::write(&cert_file, cert.pem()).unwrap();
    fs::write(&key_file, signing_key.serialize_pem()).unwrap();
    let port = |address: String| address.rsplit(':').next().unwrap().to_owned();
    let (http, grpc) = (port(free_address().unwrap()), port(free_address().unwrap()));
    let tls = format!(
        "{{cert_file: {cert_file}, key_file: {key_file}, client_ca_file: {cert_file}, \
         client_auth_type: RequireAndVerifyClientCert}}"
    );
    let config = format!(
        "server:\n  http_listen_address: localhost\n  http_listen_port: {http}\n  \
         grpc_listen_address: localhost\n  grpc_listen_port: {grpc}\n  \
         http_tls_config: {tls}\n  grpc_tls_config: {tls}\n  tls_min_version: VersionTLS13\n\
         distributor:\n  receivers:\n    otlp:\n      protocols:\n        grpc: {{endpoint: \"localhost:0\"}}\n\
         live_store:\n  wal: {{path: {}}}\n\
         storage:\n  trace: {{backend: local, local: {{path: {}}}}}\n",
        path("wal"),
        path("blocks"),
    );
    let config_file = path("tempo.yaml");
    fs::write(&config_file, config).unwrap();
    let _running = Running(
        Command::new(binary())
            .arg(format!("-config.file={config_file}"))
            .spawn()
            .unwrap(),
    );

    let url = format!("https://localhost:{http}/ready");
    let with_certificate = [
        "--cacert", &cert_file, "--cert", &cert_file, "--key", &key_file, &url,
    ];
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if curl(&with_certificate).as_deref() == Some("ready\n") {
            break;
        }
        assert!(Instant::now() < deadline, "never ready over TLS");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(curl(&["--cacert", &cert_file, &url]), None);
    assert_eq!(curl(&[&format!("http://localhost:{http}/ready")]), None);

    // The answer of the health service: field 1, status 1 (serving), in one message of two bytes.
    let answer = path("health");
    let request = path("request");
    fs::write(&request, [0; 5]).unwrap();
    let body = format!("@{request}");
    let health = format!("https://localhost:{grpc}/grpc.health.v1.Health/Check");
    curl(&[
        "--http2",
        "--cacert",
        &cert_file,
        "--cert",
        &cert_file,
        "--key",
        &key_file,
        "--header",
        "content-type: application/grpc",
        "--header",
        "te: trailers",
        "--data-binary",
        &body,
        "--output",
        &answer,
        &health,
    ])
    .expect("the gRPC port answers over TLS");
    assert_eq!(fs::read(&answer).unwrap(), [0, 0, 0, 0, 2, 8, 1]);
}
