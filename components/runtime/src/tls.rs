//! TLS of a listener, from PEM files that may be replaced while it runs; towards servers:
//! [`Connector`].

mod client;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

pub use client::{ClientTls, ConnectError, Connector};
use parking_lot::Mutex;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ALL_VERSIONS, RootCertStore, ServerConfig, SupportedProtocolVersion,
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
        version::TLS13,
    },
};

/// How often the files are looked at, at most.
const RELOAD_CHECK_PERIOD: Duration = Duration::from_secs(10);

/// TLS of a listener. The files are read at start and again when one of them changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the certificate and its chain.
    pub cert_file: PathBuf,
    /// PEM file of the private key.
    pub key_file: PathBuf,
    /// Which certificates clients show.
    pub client_auth: ClientAuth,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
}

/// Whether clients show certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They need not, and none is looked at.
    #[default]
    None,
    /// One that is shown must be of these authorities (PEM file).
    IfGiven(PathBuf),
    /// One of these authorities (PEM file) must be shown.
    Required(PathBuf),
}

impl ClientAuth {
    fn authorities(&self) -> Option<&Path> {
        match self {
            Self::None => None,
            Self::IfGiven(path) | Self::Required(path) => Some(path),
        }
    }
}

/// Versions of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// Why TLS settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or holds no PEM of its kind.
    #[error("cannot read {what} from {path}: {cause}; it must be a PEM file")]
    File {
        /// Which of the files.
        what: &'static str,
        /// Where.
        path: String,
        /// What the reader said.
        cause: String,
    },
    /// No authorities are named, and this machine trusts none.
    #[error(
        "this machine trusts no authorities of certificates; name a file of them (tls_ca_path)"
    )]
    NoAuthorities,
    /// The files do not belong together or use what is not supported.
    #[error("certificate {path} cannot be used: {cause}")]
    Unusable {
        /// The certificate's file.
        path: String,
        /// What the TLS library said.
        cause: String,
    },
}

/// Gives the acceptor of the files as they are now.
pub(crate) struct Acceptor {
    tls: Tls,
    protocols: &'static [&'static str],
    state: Mutex<State>,
}

struct State {
    acceptor: TlsAcceptor,
    versions: FileVersions,
    next_check: Instant,
}

/// When a file was last changed; none where there is none.
type FileVersion = Option<SystemTime>;
type FileVersions = [FileVersion; 3];

impl Acceptor {
    /// Reads the files. `protocols` (ALPN) are offered, best first.
    pub(crate) fn load(tls: Tls, protocols: &'static [&'static str]) -> Result<Self, TlsError> {
        let state = State {
            versions: file_versions(&tls),
            acceptor: acceptor(&tls, protocols)?,
            next_check: Instant::now() + RELOAD_CHECK_PERIOD,
        };
        Ok(Self {
            tls,
            protocols,
            state: Mutex::new(state),
        })
    }

    /// The acceptor for a connection that comes in now. Files that have changed and cannot be used
    /// leave the former certificate in force.
    pub(crate) fn current(&self) -> TlsAcceptor {
        let mut state = self.state.lock();
        let now = Instant::now();
        if now >= state.next_check {
            state.next_check = now + RELOAD_CHECK_PERIOD;
            let versions = file_versions(&self.tls);
            if versions != state.versions {
                match acceptor(&self.tls, self.protocols) {
                    Ok(acceptor) => {
                        tracing::info!(certificate = %self.tls.cert_file.display(), "certificate read again");
                        state.acceptor = acceptor;
                        state.versions = versions;
                    }
                    Err(error) => {
                        tracing::error!(%error, "the new certificate is not used, the former one stays");
                    }
                }
            }
        }
        state.acceptor.clone()
    }

    #[cfg(test)]
    pub(crate) fn check_now(&self) {
        self.state.lock().next_check = Instant::now();
    }
}

fn file_versions(tls: &Tls) -> FileVersions {
    [
        file_version(&tls.cert_file),
        file_version(&tls.key_file),
        tls.client_auth.authorities().and_then(file_version),
    ]
}

fn file_version(path: &Path) -> FileVersion {
    std::fs::metadata(path)
        .and_then(|meta| meta.modified())
        .ok()
}

fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match oldest {
        TlsVersion::V1_2 => ALL_VERSIONS,
        TlsVersion::V1_3 => NEWEST,
    }
}

static NEWEST: &[&SupportedProtocolVersion] = &[&TLS13];

fn acceptor(tls: &Tls, protocols: &[&str]) -> Result<TlsAcceptor, TlsError> {
    let unusable = |cause: &dyn std::fmt::Display| TlsError::Unusable {
        path: tls.cert_file.display().to_string(),
        cause: cause.to_string(),
    };
    let certificates = certificates(&tls.cert_file, "the certificate")?;
    let key = PrivateKeyDer::from_pem_file(&tls.key_file)
        .map_err(|error| file_error("the private key", &tls.key_file, &error))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(tls.min_version))
        .map_err(|error| unusable(&error))?;
    let builder = match &tls.client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::IfGiven(path) => {
            builder.with_client_cert_verifier(client_verifier(path, provider, false)?)
        }
        ClientAuth::Required(path) => {
            builder.with_client_cert_verifier(client_verifier(path, provider, true)?)
        }
    };
    let mut config = builder
        .with_single_cert(certificates, key)
        .map_err(|error| unusable(&error))?;
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().into())
        .collect();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn client_verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
    required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    const WHAT: &str = "the client authorities";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, WHAT)? {
        roots
            .add(certificate)
            .map_err(|error| file_error(WHAT, path, &error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    builder
        .build()
        .map_err(|error| file_error(WHAT, path, &error))
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| file_error(what, path, &error))?;
    if certificates.is_empty() {
        return Err(file_error(what, path, &"no certificate in it"));
    }
    Ok(certificates)
}

fn file_error(what: &'static str, path: &Path, cause: &dyn std::fmt::Display) -> TlsError {
    TlsError::File {
        what,
        path: path.display().to_string(),
        cause: cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tokio_rustls::{
        TlsConnector,
        rustls::{ClientConfig, pki_types::ServerName},
    };

    use super::*;

    /// A new self-signed certificate in the files.
    fn issue(tls: &Tls) -> CertificateDer<'static> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&tls.cert_file, cert.pem()).unwrap();
        std::fs::write(&tls.key_file, signing_key.serialize_pem()).unwrap();
        cert.der().clone()
    }

    /// Whether a client that trusts only `certificate` gets through.
    async fn trusted(acceptor: &Acceptor, certificate: &CertificateDer<'static>) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (ours, theirs) = tokio::io::duplex(16_384);
        let name = ServerName::try_from("localhost").unwrap();
        let (accepted, connected) = tokio::join!(
            acceptor.current().accept(ours),
            TlsConnector::from(Arc::new(client)).connect(name, theirs)
        );
        accepted.is_ok() && connected.is_ok()
    }

    #[tokio::test]
    async fn a_new_certificate_is_used_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let tls = Tls {
            cert_file: dir.path().join("tls.crt"),
            key_file: dir.path().join("tls.key"),
            client_auth: ClientAuth::None,
            min_version: TlsVersion::V1_3,
        };
        let first = issue(&tls);
        let acceptor = Acceptor::load(tls.clone(), &["h2"]).unwrap();
        assert!(trusted(&acceptor, &first).await);

        let second = issue(&tls);
        assert!(!trusted(&acceptor, &second).await, "not looked at yet");
        acceptor.check_now();
        assert!(trusted(&acceptor, &second).await);
        assert!(!trusted(&acceptor, &first).await);

        std::fs::write(&tls.cert_file, "half a file").unwrap();
        acceptor.check_now();
        assert!(trusted(&acceptor, &second).await);
    }
}
