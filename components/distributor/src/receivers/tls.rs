//! TLS settings from PEM files.

use std::{path::Path, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    },
};

use crate::config::Tls;

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
    /// The files do not belong together or use what is not supported.
    #[error("certificate {path} cannot be used: {cause}")]
    Unusable {
        /// The certificate's file.
        path: String,
        /// What the TLS library said.
        cause: String,
    },
}

/// An acceptor that offers `protocols` (ALPN), best first.
pub(crate) fn acceptor(tls: &Tls, protocols: &[&str]) -> Result<TlsAcceptor, TlsError> {
    let unusable = |cause: &dyn std::fmt::Display| TlsError::Unusable {
        path: tls.cert_file.display().to_string(),
        cause: cause.to_string(),
    };
    let certificates = certificates(&tls.cert_file, "the certificate")?;
    let key = PrivateKeyDer::from_pem_file(&tls.key_file)
        .map_err(|error| file_error("the private key", &tls.key_file, &error))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let builder = match &tls.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => builder.with_client_cert_verifier(client_verifier(path, provider)?),
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
    provider: Arc<tokio_rustls::rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    const WHAT: &str = "the client authorities";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, WHAT)? {
        roots
            .add(certificate)
            .map_err(|error| file_error(WHAT, path, &error))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
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
