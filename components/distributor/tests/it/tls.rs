//! TLS on a receiver, with and without client certificates.

use std::{net::SocketAddr, path::Path, sync::Arc};

use prost::Message;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempo_distributor::{Deps, Error, HttpReceiver, TenantLimits, build, discarded_spans_counter};
use tempo_runtime::tls::{ClientAuth, Tls, TlsVersion};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{PrivateKeyDer, ServerName},
    },
};

use crate::{
    http::Client,
    samples::{request, span},
    server::{Fixture, TestLimits, TestSink, config},
};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

fn write(dir: &Path, name: &str, pem: String) -> std::path::PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, pem).unwrap();
    path
}

/// Posts over TLS; `None` if the handshake or the connection fails.
async fn post(addr: SocketAddr, config: ClientConfig) -> Option<u16> {
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(addr).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, stream).await.ok()?;
    let body = request(vec![span(1, 1)]).encode_to_vec();
    let posted = tokio::spawn(async move {
        let headers = [("Content-Type", "application/x-protobuf")];
        Client::new(stream).post(&headers, &body).await.status
    });
    posted.await.ok()
}

fn client() -> tokio_rustls::rustls::ConfigBuilder<ClientConfig, tokio_rustls::rustls::WantsVerifier>
{
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
}

#[tokio::test]
async fn certificates_are_shown_and_asked_for() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("localhost");
    let dir = tempfile::tempdir().unwrap();
    let tls = Tls {
        cert_file: write(dir.path(), "cert.pem", certificate.pem()),
        key_file: write(dir.path(), "key.pem", key.serialize_pem()),
        client_auth: ClientAuth::None,
        min_version: TlsVersion::V1_2,
    };
    let with_tls = |tls: &Tls| {
        let mut config = config();
        config.receivers.otlp_http = Some(HttpReceiver {
            endpoint: "localhost:0".to_owned(),
            tls: Some(tls.clone()),
            ..HttpReceiver::default()
        });
        config
    };
    let anonymous = || {
        client()
            .with_root_certificates(authority.roots())
            .with_no_client_auth()
    };
    let stranger = || {
        client()
            .with_root_certificates(Authority::new().roots())
            .with_no_client_auth()
    };

    let mut fixture = Fixture::new(with_tls(&tls), TestSink::default());
    let running = fixture.serve();
    assert_eq!(post(fixture.http(), anonymous()).await, Some(200));
    assert_eq!(post(fixture.http(), stranger()).await, None);
    running.stop().await;

    let ca_file = write(dir.path(), "ca.pem", authority.0.pem());
    let mutual = Tls {
        client_auth: ClientAuth::Required(ca_file),
        ..tls
    };
    let mut fixture = Fixture::new(with_tls(&mutual), TestSink::default());
    let running = fixture.serve();
    assert_eq!(post(fixture.http(), anonymous()).await, None);
    let (certificate, key) = authority.issue("client");
    let known = client()
        .with_root_certificates(authority.roots())
        .with_client_auth_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    assert_eq!(post(fixture.http(), known).await, Some(200));
    assert_eq!(fixture.sink.spans(), 1);
    running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_used_is_named_at_start() {
    let build_with = |receiver: HttpReceiver| {
        let mut config = config();
        config.receivers.otlp_http = Some(receiver);
        let deps = Deps {
            sink: Arc::new(TestSink::default()),
            limits: Arc::new(TestLimits(std::sync::Mutex::new(TenantLimits::default()))),
            registry: &prometheus::Registry::new(),
            discarded_spans: discarded_spans_counter().unwrap(),
        };
        build(config, deps).map(|_| ()).unwrap_err()
    };
    let missing = build_with(HttpReceiver {
        endpoint: "localhost:0".to_owned(),
        tls: Some(Tls {
            cert_file: "/nowhere/cert.pem".into(),
            key_file: "/nowhere/key.pem".into(),
            client_auth: ClientAuth::None,
            min_version: TlsVersion::V1_2,
        }),
        ..HttpReceiver::default()
    });
    assert!(
        missing.to_string().starts_with(
            "receiver otlp.protocols.http: tls: cannot read the certificate from \
                          /nowhere/cert.pem"
        ),
        "{missing}"
    );

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = taken.local_addr().unwrap().to_string();
    let error = build_with(HttpReceiver {
        endpoint: endpoint.clone(),
        ..HttpReceiver::default()
    });
    assert!(matches!(error, Error::Listen { .. }), "{error}");
    assert!(error.to_string().contains(&endpoint), "{error}");
}
