//! TLS between processes: each shows a certificate, and believes one authority alone.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SerialNumber};
use tempo_testkit::{
    http_client::{self, Client},
    process::{Options, Tempo},
    traces::{TraceMaker, encode_request},
};

use crate::{
    cluster::free_port,
    support::{binary, eventually, search, unix_seconds},
};

/// Queries ask live-stores alone, up to now.
const RECENT_ONLY: &str = "query_frontend:
  query_end_cutoff: 0s
  search:
    query_backend_after: 1h
";

/// An authority in `<name>.crt`, and a certificate of it for this machine in `<name>-leaf.crt` and
/// `.key`.
fn authority(dir: &Path, name: &str) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    fs::write(dir.join(format!("{name}.crt")), certificate.pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).unwrap();
    params.serial_number = Some(SerialNumber::from(1));
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    fs::write(dir.join(format!("{name}-leaf.crt")), leaf.pem()).unwrap();
    fs::write(dir.join(format!("{name}-leaf.key")), key.serialize_pem()).unwrap();
}

struct Installation {
    dir: tempfile::TempDir,
    seed: u16,
}

impl Installation {
    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Keys of a client that shows this leaf and believes this authority.
    fn client(&self, shows: &str, believes: &str) -> String {
        format!(
            "{{tls_enabled: true, tls_cert_path: {}, tls_key_path: {}, tls_ca_path: {}}}",
            self.file(&format!("{shows}-leaf.crt")),
            self.file(&format!("{shows}-leaf.key")),
            self.file(&format!("{believes}.crt")),
        )
    }

    /// A process whose gRPC port takes only those whom the authority `ours` knows.
    fn process(&self, name: &str, yaml: &str, live_store_yaml: &str) -> Tempo {
        let options = Options {
            data: Some(self.dir.path().join(name)),
            storage_yaml: Some(format!(
                "    backend: local\n    local:\n      path: {}\n",
                self.file("bucket")
            )),
            live_store_yaml: live_store_yaml.to_owned(),
            extra_yaml: yaml.to_owned(),
            merges_blocks: true,
            ..Options::default()
        };
        let tempo = Tempo::configure(&binary(), &options).unwrap();
        let config = tempo.data().join("tempo.yaml");
        let text = fs::read_to_string(&config).unwrap();
        let tls = format!(
            "server:\n  grpc_tls_config: {{cert_file: {}, key_file: {}, client_ca_file: {}, client_auth_type: RequireAndVerifyClientCert}}\n",
            self.file("ours-leaf.crt"),
            self.file("ours-leaf.key"),
            self.file("ours.crt"),
        );
        fs::write(&config, text.replacen("server:\n", &tls, 1)).unwrap();
        tempo
    }

    fn gossip(&self, port: u16) -> String {
        format!(
            "memberlist:\n  bind_addr: [127.0.0.1]\n  bind_port: {port}\n  gossip_interval: 100ms\n  join_members: ['127.0.0.1:{}']\n",
            self.seed
        )
    }

    fn querier(&self, frontend: &Tempo, name: &str, to_frontend: &str, to_store: &str) -> Tempo {
        let port = frontend.grpc.rsplit(':').next().unwrap();
        let yaml = format!(
            "target: querier\n{}querier:\n  frontend_worker:\n    frontend_address: localhost:{port}\n    grpc_client_config: {to_frontend}\nlive_store_client:\n  grpc_client_config: {to_store}\n",
            self.gossip(free_port())
        );
        self.process(name, &yaml, "")
    }
}

/// Waits until a process has logged that.
fn told(tempo: &Tempo, what: &str) {
    let log = tempo.data().join("tempo.log");
    eventually(what, || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        log.contains(what).then_some(())
    });
}

/// Status and text of a search for everything.
fn outcome(frontend: &Tempo) -> (u16, String) {
    let now = unix_seconds();
    let path = format!(
        "/api/search?q=%7B%7D&limit=100&start={}&end={}",
        now - 600,
        now + 1
    );
    let answer = http_client::get(&frontend.http, &path).unwrap();
    (answer.status, answer.text())
}

#[test]
fn frontend_querier_and_live_store_talk_over_tls() {
    let installation = Installation {
        dir: tempfile::tempdir().unwrap(),
        seed: free_port(),
    };
    for name in ["ours", "other"] {
        authority(installation.dir.path(), name);
    }
    // The live-store of a monolith, which others read.
    let mut store = installation.process(
        "store",
        &format!("target: all\n{}", installation.gossip(installation.seed)),
        "  partition_ring: {partition_id: 900, min_partition_owners_duration: 0s}\n  ring:\n    instance_id: store\n    instance_addr: 127.0.0.1\n",
    );
    store.start().unwrap();
    let mut maker = TraceMaker::new(1);
    let traces: Vec<_> = (0..10)
        .map(|_| maker.next_trace((unix_seconds() - 5) * 1_000_000_000))
        .collect();
    let headers = [("content-type", "application/x-protobuf")];
    let mut client = Client::connect(&store.otlp_http).unwrap();
    let pushed = client
        .request("POST", "/v1/traces", &headers, &encode_request(&traces))
        .unwrap();
    assert_eq!(pushed.status, 200, "{}", pushed.text());
    let mut frontend = installation.process(
        "frontend",
        &format!("target: query-frontend\n{RECENT_ONLY}"),
        "",
    );
    frontend.spawn().unwrap();

    // Who believes another authority says so, and gets no jobs.
    let (good, believes_other, shows_other) = (
        installation.client("ours", "ours"),
        installation.client("ours", "other"),
        installation.client("other", "ours"),
    );
    for (name, client, text) in [
        (
            "believes-other",
            &believes_other,
            "invalid peer certificate: UnknownIssuer",
        ),
        // This side cannot know why the other hangs up.
        ("shows-other", &shows_other, "no jobs from a query-frontend"),
    ] {
        let mut querier = installation.querier(&frontend, name, client, &good);
        querier.start().unwrap();
        told(&querier, text);
        let ready = http_client::get(&frontend.http, "/ready").unwrap();
        assert_eq!(ready.status, 503, "no querier got through");
        querier.kill().unwrap();
    }

    // Who gets through to the frontend and not to live-stores fails what needs them, and says why.
    let mut half = installation.querier(&frontend, "half", &good, &believes_other);
    half.start().unwrap();
    eventually("the live-store is asked and not believed", || {
        let (status, text) = outcome(&frontend);
        let is_told = text.contains("invalid peer certificate: UnknownIssuer");
        (status != 200 && is_told).then_some(())
    });
    half.kill().unwrap();

    let mut querier = installation.querier(&frontend, "querier", &good, &good);
    querier.start().unwrap();
    eventually("all of it is found over TLS", || {
        (outcome(&frontend).0 == 200 && search(&frontend, "{}").len() == traces.len()).then_some(())
    });
}

#[test]
fn backend_workers_ask_the_scheduler_over_tls() {
    let installation = Installation {
        dir: tempfile::tempdir().unwrap(),
        seed: free_port(),
    };
    for name in ["ours", "other"] {
        authority(installation.dir.path(), name);
    }
    let quick = "target: backend-scheduler\nbackend_scheduler:\n  job_timeout: 100ms\n";
    let mut scheduler = installation.process("scheduler", quick, "");
    scheduler.start().unwrap();
    let worker = |name: &str, believes: &str| {
        let yaml = format!(
            "target: backend-worker\nbackend_worker:\n  backend_scheduler_addr: {}\nbackend_scheduler_client:\n  grpc_client_config: {}\n",
            scheduler.grpc,
            installation.client("ours", believes)
        );
        let mut worker = installation.process(name, &yaml, "");
        worker.start().unwrap();
        worker
    };
    let refused = worker("believes-other", "other");
    told(&refused, "invalid peer certificate: UnknownIssuer");
    let _answered = worker("worker", "ours");
    eventually("the scheduler has answered", || {
        let page = http_client::get(&scheduler.http, "/metrics")
            .unwrap()
            .text();
        page.contains("BackendScheduler/Next").then_some(())
    });
}

#[test]
fn what_cannot_work_with_tls_is_told_at_the_start() {
    let installation = Installation {
        dir: tempfile::tempdir().unwrap(),
        seed: free_port(),
    };
    authority(installation.dir.path(), "ours");
    let frontend = installation.process("frontend", "target: query-frontend\n", "");
    let good = installation.client("ours", "ours");
    for (name, client, text) in [
        (
            "no-key",
            "{tls_enabled: true, tls_cert_path: /x}",
            "querier.frontend_worker.grpc_client_config: tls_cert_path and tls_key_path are both needed",
        ),
        (
            "no-file",
            "{tls_enabled: true, tls_ca_path: /absent/ca.crt}",
            "cannot read the authorities of servers from /absent/ca.crt",
        ),
        (
            "old",
            "{tls_enabled: true, tls_min_version: VersionTLS10}",
            "querier.frontend_worker.grpc_client_config.tls_min_version: \"VersionTLS10\" is not supported",
        ),
    ] {
        let mut querier = installation.querier(&frontend, name, client, &good);
        let told = querier.start().unwrap_err().to_string();
        assert!(told.contains(text), "{told}");
    }
}
