//! TLS towards a server, from PEM files that may be replaced while the process runs.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    },
};

use super::{
    FileVersion, RELOAD_CHECK_PERIOD, TlsError, TlsVersion, certificates, file_error, file_version,
    versions,
};

/// TLS towards a server. The files are read at start and again when one of them changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// PEM files of the certificate, with its chain, and of the key to show; none: nothing is shown.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// PEM file of the authorities that servers' certificates must come from; none: those that this
    /// machine trusts.
    pub authorities: Option<PathBuf>,
    /// The name that servers' certificates must have; none: the host that is connected to.
    pub server_name: Option<String>,
    /// Any certificate will do.
    pub skip_verification: bool,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
}

impl ClientTls {
    fn file_versions(&self) -> [FileVersion; 3] {
        let (cert, key) = self
            .identity
            .as_ref()
            .map(|(cert, key)| (cert, key))
            .unzip();
        let version = |path: Option<&PathBuf>| path.and_then(|path| file_version(path));
        [
            version(cert),
            version(key),
            version(self.authorities.as_ref()),
        ]
    }
}

/// Opens connections for gRPC. Cheap to clone; a [`tower::Service`] for those who bring an address
/// as a URI.
#[derive(Clone)]
pub struct Connector {
    shared: Arc<Shared>,
    /// The name that is expected where the settings name none; none: the host of the address.
    host: Option<String>,
}

struct Shared {
    tls: ClientTls,
    state: Mutex<State>,
}

struct State {
    config: Arc<ClientConfig>,
    versions: [FileVersion; 3],
    next_check: Instant,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is none, or not a name that a certificate can have.
    #[error("{0} is not an address for TLS: host and port are needed")]
    Address(String),
    /// Nobody answers there.
    #[error("{address}: {cause}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The two sides do not trust each other, or one does not speak TLS.
    #[error(
        "TLS with {address}, expected to be {name}: {cause}; look at tls_ca_path and \
         tls_server_name here, and at server.grpc_tls_config there"
    )]
    Handshake {
        /// Where.
        address: String,
        /// The name that its certificate must have.
        name: String,
        /// What the TLS library said.
        cause: io::Error,
    },
}

impl Connector {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read, or they do not belong together.
    pub fn load(tls: ClientTls) -> Result<Self, TlsError> {
        let state = State {
            versions: tls.file_versions(),
            config: client_config(&tls)?,
            next_check: Instant::now() + RELOAD_CHECK_PERIOD,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                tls,
                state: Mutex::new(state),
            }),
            host: None,
        })
    }

    /// The same for addresses that were looked up under a name: it is what certificates must have,
    /// unless the settings name another.
    pub fn for_host(&self, host: &str) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            host: Some(host.to_owned()),
        }
    }

    /// The settings for a connection that begins now. Files that have changed and cannot be used
    /// leave the former ones in force.
    fn current(&self) -> Arc<ClientConfig> {
        let tls = &self.shared.tls;
        let mut state = self.shared.state.lock();
        let now = Instant::now();
        if now >= state.next_check {
            state.next_check = now + RELOAD_CHECK_PERIOD;
            let versions = tls.file_versions();
            if versions != state.versions {
                match client_config(tls) {
                    Ok(config) => {
                        tracing::info!("certificates towards servers read again");
                        state.config = config;
                        state.versions = versions;
                    }
                    Err(error) => {
                        tracing::error!(%error, "the new certificates are not used, the former ones stay");
                    }
                }
            }
        }
        Arc::clone(&state.config)
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<TlsStream<TcpStream>>, ConnectError> {
        let unfit = || ConnectError::Address(uri.to_string());
        let (host, port) = uri.host().zip(uri.port_u16()).ok_or_else(unfit)?;
        // As it stands in addresses, but not in names.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = format!("{host}:{port}");
        let expected = self.shared.tls.server_name.as_ref().or(self.host.as_ref());
        let expected = expected.map_or(host, String::as_str).to_owned();
        let name = ServerName::try_from(expected.clone()).map_err(|_| unfit())?;
        let connected = TcpStream::connect((host, port)).await.and_then(|stream| {
            stream.set_nodelay(true)?;
            Ok(stream)
        });
        let stream = match connected {
            Ok(stream) => stream,
            Err(cause) => return Err(ConnectError::Unreachable { address, cause }),
        };
        match TlsConnector::from(self.current())
            .connect(name, stream)
            .await
        {
            Ok(stream) => Ok(TokioIo::new(stream)),
            Err(cause) => Err(ConnectError::Handshake {
                address,
                name: expected,
                cause,
            }),
        }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("tls", &self.shared.tls)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

fn client_config(tls: &ClientTls) -> Result<Arc<ClientConfig>, TlsError> {
    let files = [
        tls.authorities.as_ref(),
        tls.identity.as_ref().map(|(cert, _)| cert),
    ];
    let file = files.into_iter().flatten().next();
    let unusable = |cause: &dyn fmt::Display| TlsError::Unusable {
        path: file.map_or_else(String::new, |path| path.display().to_string()),
        cause: cause.to_string(),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(tls.min_version))
        .map_err(|error| unusable(&error))?;
    let builder = if tls.skip_verification {
        let verifier = Arc::new(AnyCertificate(provider));
        builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
    } else {
        builder.with_root_certificates(roots(tls.authorities.as_deref())?)
    };
    let mut config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates(cert, "the client certificate")?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| file_error("the key of the client certificate", key, &error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| TlsError::Unusable {
                    path: cert.display().to_string(),
                    cause: error.to_string(),
                })?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn roots(path: Option<&Path>) -> Result<RootCertStore, TlsError> {
    const WHAT: &str = "the authorities of servers";
    let mut roots = RootCertStore::empty();
    let Some(path) = path else {
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            return Err(TlsError::NoAuthorities);
        }
        return Ok(roots);
    };
    for certificate in certificates(path, WHAT)? {
        roots
            .add(certificate)
            .map_err(|error| file_error(WHAT, path, &error))?;
    }
    Ok(roots)
}

/// Takes every certificate: the connection is secret, but towards whom is not known.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tokio::net::TcpListener;
    use tower::Service;

    use super::{
        super::{Acceptor, ClientAuth, Tls},
        *,
    };

    /// A self-signed certificate for `localhost` in `<name>.crt` and `<name>.key`.
    fn issue(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (cert_file, key_file) = (
            dir.join(format!("{name}.crt")),
            dir.join(format!("{name}.key")),
        );
        std::fs::write(&cert_file, cert.pem()).unwrap();
        std::fs::write(&key_file, signing_key.serialize_pem()).unwrap();
        (cert_file, key_file)
    }

    /// What both sides say of one connection to this host.
    async fn meet(server: &Acceptor, client: &Connector, host: &str) -> (bool, Option<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let uri: Uri = format!("http://{host}:{port}").parse().unwrap();
        let mut client = client.clone();
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            server.current().accept(stream).await.is_ok()
        };
        let (served, connected) = tokio::join!(serve, client.call(uri));
        (served, connected.err().map(|error| error.to_string()))
    }

    #[tokio::test]
    async fn both_sides_must_trust_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let (server, client, other) = (
            issue(dir.path(), "server"),
            issue(dir.path(), "client"),
            issue(dir.path(), "other"),
        );
        let acceptor = Acceptor::load(
            Tls {
                cert_file: server.0.clone(),
                key_file: server.1.clone(),
                client_auth: ClientAuth::Required(client.0.clone()),
                min_version: TlsVersion::V1_2,
            },
            &["h2"],
        )
        .unwrap();
        let tls = ClientTls {
            identity: Some(client.clone()),
            authorities: Some(server.0.clone()),
            ..ClientTls::default()
        };
        let load = |tls: ClientTls| Connector::load(tls).unwrap();
        let good = load(tls.clone());
        assert_eq!(meet(&acceptor, &good, "localhost").await, (true, None));

        let wrong_authority = load(ClientTls {
            authorities: Some(other.0.clone()),
            ..tls.clone()
        });
        let (served, refusal) = meet(&acceptor, &wrong_authority, "localhost").await;
        let refusal = refusal.unwrap();
        assert!(!served);
        assert!(
            refusal.contains("invalid peer certificate") && refusal.contains("tls_ca_path"),
            "{refusal}"
        );

        // An address that was looked up is expected to be who was asked for.
        let (_, refusal) = meet(&acceptor, &good, "127.0.0.1").await;
        assert!(refusal.unwrap().contains("expected to be 127.0.0.1"));
        let asked = good.for_host("localhost");
        assert_eq!(meet(&acceptor, &asked, "127.0.0.1").await, (true, None));
        let named = load(ClientTls {
            server_name: Some("localhost".to_owned()),
            ..tls.clone()
        });
        let named = named.for_host("another");
        assert_eq!(meet(&acceptor, &named, "127.0.0.1").await, (true, None));
        let any = load(ClientTls {
            skip_verification: true,
            ..tls.clone()
        });
        assert_eq!(meet(&acceptor, &any, "127.0.0.1").await, (true, None));

        // The server refuses whom it does not know.
        for identity in [None, Some(other)] {
            let unknown = load(ClientTls {
                identity,
                ..tls.clone()
            });
            assert!(!meet(&acceptor, &unknown, "localhost").await.0);
        }
    }

    #[tokio::test]
    async fn files_are_read_again_and_broken_ones_are_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let load_server = || {
            let (cert_file, key_file) = issue(dir.path(), "server");
            let tls = Tls {
                cert_file,
                key_file,
                client_auth: ClientAuth::None,
                min_version: TlsVersion::V1_3,
            };
            Acceptor::load(tls, &["h2"]).unwrap()
        };
        let first = load_server();
        let authorities = dir.path().join("server.crt");
        let connector = Connector::load(ClientTls {
            authorities: Some(authorities.clone()),
            ..ClientTls::default()
        })
        .unwrap();
        assert!(meet(&first, &connector, "localhost").await.0);
        let second = load_server();
        assert!(
            !meet(&second, &connector, "localhost").await.0,
            "not looked at yet"
        );
        let check_now = || connector.shared.state.lock().next_check = Instant::now();
        check_now();
        assert!(meet(&second, &connector, "localhost").await.0);
        std::fs::write(&authorities, "half a file").unwrap();
        check_now();
        assert!(meet(&second, &connector, "localhost").await.0);
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, _) = issue(dir.path(), "client");
        let refused = |tls| Connector::load(tls).unwrap_err().to_string();
        let missing = refused(ClientTls {
            authorities: Some(dir.path().join("missing.crt")),
            ..ClientTls::default()
        });
        assert!(missing.contains("authorities of servers") && missing.contains("missing.crt"));
        let no_key = refused(ClientTls {
            identity: Some((cert.clone(), cert.clone())),
            authorities: Some(cert),
            ..ClientTls::default()
        });
        assert!(no_key.contains("key of the client certificate"), "{no_key}");
    }
}
