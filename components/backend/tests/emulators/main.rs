//! The same scenario against real servers: S3 (versitygw), Google Cloud Storage
//! (fake-gcs-server, moto) and Azure Blob Storage (azurite), each started by its test.
//!
//! `make test-stores` installs them and runs these tests. Without the variables that tell where
//! the servers are, an included test fails; in an ordinary run it is reported as ignored.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests, helpers included.

mod scenario;
mod server;

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use object_store::{
    ClientOptions,
    azure::{AzureAccessKey, AzureAuthorizer, AzureCredential},
    client::{HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector},
};
use prometheus::Registry;
use server::{Certificates, Server, program};
use tempo_backend::{
    AzureConfig, Backend, BackendConfig, Error, GcsConfig, RetryConfig, S3Config, Secret,
    StoreConfig, StoreKind, TlsConfig,
};

const BUCKET: &str = "traces";
const ACCESS_KEY: &str = "tempo-test-access";
const SECRET_KEY: &str = "tempo-test-secret";

async fn open(store: StoreConfig) -> (Result<Backend, Error>, Registry) {
    let registry = Registry::new();
    let backend = Backend::open(&BackendConfig::new(store), &registry).await;
    (backend, registry)
}

/// The error of opening, which must name `setting`.
async fn refused(store: StoreConfig, setting: &str) {
    let error = open(store).await.0.expect_err("it opened");
    let Error::Config { setting: named, .. } = &error else {
        panic!("not an error of the configuration: {error}");
    };
    assert!(named.contains(setting), "{error}");
}

fn few_retries() -> RetryConfig {
    RetryConfig {
        max_attempts: 2,
        initial_backoff: Duration::from_millis(10),
        max_backoff: Duration::from_millis(10),
    }
}

fn start_s3(directory: &Path, more: &[&str]) -> Server {
    let program = program("TEMPO_TEST_VERSITYGW");
    std::fs::create_dir_all(directory.join(BUCKET)).unwrap();
    let sidecar = directory.with_file_name("sidecar");
    std::fs::create_dir_all(&sidecar).unwrap();
    Server::start(|port| {
        let mut command = std::process::Command::new(&program);
        command
            .args(["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--quiet"])
            .args(["--port", &format!("127.0.0.1:{port}")])
            .args(more)
            .args(["posix", "--sidecar"])
            .arg(&sidecar)
            .arg(directory);
        command
    })
}

fn s3(server: &Server) -> S3Config {
    S3Config {
        bucket: BUCKET.to_owned(),
        endpoint: server.address(),
        access_key: ACCESS_KEY.to_owned(),
        secret_key: Secret::new(SECRET_KEY),
        insecure: true,
        part_size_bytes: scenario::PART_BYTES,
        retry: few_retries(),
        ..S3Config::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs TEMPO_TEST_VERSITYGW; run make test-stores"]
async fn emulator_of_s3() {
    let directory = tempfile::tempdir().unwrap();
    let server = start_s3(&directory.path().join("root"), &[]);
    let config = S3Config {
        prefix: "some/prefix/".to_owned(),
        tags: [("team".to_owned(), "tracing".to_owned())].into(),
        metadata: [("origin".to_owned(), "tempo".to_owned())].into(),
        storage_class: "STANDARD".to_owned(),
        ..s3(&server)
    };
    let (backend, registry) = open(StoreConfig::S3(Box::new(config.clone()))).await;
    let backend = backend.unwrap();
    assert_eq!(backend.kind(), StoreKind::S3);
    let (elsewhere, _) = open(StoreConfig::S3(Box::new(S3Config {
        prefix: "some".to_owned(),
        ..config.clone()
    })))
    .await;
    scenario::run(&backend, &elsewhere.unwrap(), &registry).await;

    refused(
        StoreConfig::S3(Box::new(S3Config {
            secret_key: Secret::new("wrong"),
            ..config.clone()
        })),
        "storage.trace.s3.access_key",
    )
    .await;
    refused(
        StoreConfig::S3(Box::new(S3Config {
            bucket: "absent".to_owned(),
            ..config.clone()
        })),
        "storage.trace.s3.bucket",
    )
    .await;
    drop(server);
    refused(
        StoreConfig::S3(Box::new(config)),
        "storage.trace.s3.endpoint",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs TEMPO_TEST_VERSITYGW and openssl; run make test-stores"]
async fn emulator_of_s3_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let made = Certificates::make(directory.path());
    let server = start_s3(
        &directory.path().join("root"),
        &[
            "--cert",
            made.certificate.to_str().unwrap(),
            "--key",
            made.key.to_str().unwrap(),
        ],
    );
    let with_tls = |tls| {
        StoreConfig::S3(Box::new(S3Config {
            insecure: false,
            tls,
            ..s3(&server)
        }))
    };
    refused(with_tls(TlsConfig::default()), "tls_ca_path").await;
    for tls in [
        TlsConfig {
            ca_path: Some(made.authority.clone()),
            ..TlsConfig::default()
        },
        TlsConfig {
            insecure_skip_verify: true,
            ..TlsConfig::default()
        },
    ] {
        open(with_tls(tls)).await.0.unwrap();
    }
}

fn gcs(server: &Server) -> GcsConfig {
    GcsConfig {
        bucket_name: BUCKET.to_owned(),
        prefix: "some/prefix".to_owned(),
        endpoint: format!("http://{}/storage/v1/", server.address()),
        insecure: true,
        chunk_buffer_size_bytes: scenario::PART_BYTES,
        max_retries: 1,
        ..GcsConfig::default()
    }
}

/// fake-gcs-server answers reads, lists and deletes of the XML API, and no writes; those go through
/// its JSON API here.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs TEMPO_TEST_FAKE_GCS; run make test-stores"]
async fn emulator_of_gcs_for_reading() {
    let program = program("TEMPO_TEST_FAKE_GCS");
    let server = Server::start(|port| {
        let mut command = std::process::Command::new(&program);
        command
            .args([
                "-scheme",
                "http",
                "-host",
                "127.0.0.1",
                "-backend",
                "memory",
            ])
            .args(["-port", &port.to_string(), "-log-level", "error"])
            .args(["-public-host", &format!("127.0.0.1:{port}")]);
        command
    });
    let base = format!("http://{}", server.address());
    let bucket = format!(r#"{{"name":"{BUCKET}"}}"#);
    send(Method::POST, &format!("{base}/storage/v1/b"), bucket.into()).await;
    for (key, bytes) in scenario::seed() {
        let name = format!("some/prefix/{key}").replace('/', "%2F");
        let uri = format!("{base}/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}");
        send(Method::POST, &uri, bytes).await;
    }
    let config = gcs(&server);
    let (backend, _) = open(StoreConfig::Gcs(config)).await;
    scenario::read_seed(&backend.unwrap()).await;
}

/// Google's XML API is S3's but for the signature; moto does not ask for one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs TEMPO_TEST_MOTO; run make test-stores"]
async fn emulator_of_gcs_xml_api() {
    let program = program("TEMPO_TEST_MOTO");
    let server = Server::start(|port| {
        let mut command = std::process::Command::new(&program);
        command
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stderr(std::process::Stdio::null());
        command
    });
    let open_bucket = Request::builder()
        .method(Method::PUT)
        .uri(format!("http://{}/{BUCKET}", server.address()))
        .header("x-amz-acl", "public-read-write");
    execute(open_bucket.body(HttpRequestBody::empty()).unwrap()).await;
    let config = gcs(&server);
    let (backend, registry) = open(StoreConfig::Gcs(config.clone())).await;
    let backend = backend.unwrap();
    assert_eq!(backend.kind(), StoreKind::Gcs);
    let (elsewhere, _) = open(StoreConfig::Gcs(GcsConfig {
        prefix: "some".to_owned(),
        ..config.clone()
    }))
    .await;
    scenario::run(&backend, &elsewhere.unwrap(), &registry).await;
    refused(
        StoreConfig::Gcs(GcsConfig {
            bucket_name: "absent".to_owned(),
            ..config
        }),
        "storage.trace.gcs.bucket_name",
    )
    .await;
}

/// The account and key that azurite knows.
const AZURE_ACCOUNT: &str = "devstoreaccount1";
const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs TEMPO_TEST_AZURITE; run make test-stores"]
async fn emulator_of_azure() {
    let program = program("TEMPO_TEST_AZURITE");
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(|port| {
        let mut command = std::process::Command::new(&program);
        command
            .args(["--silent", "--disableTelemetry", "--skipApiVersionCheck"])
            .args(["--blobPort", &port.to_string(), "--location"])
            .arg(directory.path());
        command
    });
    create_container(&server).await;
    let config = AzureConfig {
        storage_account_name: AZURE_ACCOUNT.to_owned(),
        storage_account_key: Secret::new(AZURE_KEY),
        container_name: BUCKET.to_owned(),
        prefix: "some/prefix".to_owned(),
        endpoint_suffix: server.address(),
        buffer_size_bytes: scenario::PART_BYTES,
        ..AzureConfig::default()
    };
    let (backend, registry) = open(StoreConfig::Azure(config.clone())).await;
    let backend = backend.unwrap();
    assert_eq!(backend.kind(), StoreKind::Azure);
    let (elsewhere, _) = open(StoreConfig::Azure(AzureConfig {
        prefix: "some".to_owned(),
        ..config.clone()
    }))
    .await;
    scenario::run(&backend, &elsewhere.unwrap(), &registry).await;

    refused(
        StoreConfig::Azure(AzureConfig {
            storage_account_key: Secret::new("d3Jvbmc="),
            ..config.clone()
        }),
        "storage.trace.azure.storage_account_key",
    )
    .await;
    refused(
        StoreConfig::Azure(AzureConfig {
            container_name: "absent".to_owned(),
            ..config
        }),
        "storage.trace.azure.container_name",
    )
    .await;
}

async fn create_container(server: &Server) {
    let uri = format!(
        "http://{}/{AZURE_ACCOUNT}/{BUCKET}?restype=container",
        server.address()
    );
    let mut request = Request::builder()
        .method(Method::PUT)
        .uri(uri)
        .body(HttpRequestBody::empty())
        .unwrap();
    let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(AZURE_KEY).unwrap());
    AzureAuthorizer::new(&credential, AZURE_ACCOUNT)
        .try_authorize(&mut request)
        .unwrap();
    execute(request).await;
}

async fn send(method: Method, uri: &str, body: Bytes) {
    let request = Request::builder().method(method).uri(uri);
    execute(request.body(HttpRequestBody::from(body)).unwrap()).await;
}

async fn execute(request: HttpRequest) {
    let what = format!("{} {}", request.method(), request.uri());
    let client = ReqwestConnector::default()
        .connect(&ClientOptions::new().with_allow_http(true))
        .unwrap();
    let answer = client.execute(request).await.unwrap();
    assert!(answer.status().is_success(), "{what}: {}", answer.status());
}
