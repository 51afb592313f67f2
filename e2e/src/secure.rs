//! Certificates as a person makes them by hand, and a door through which a Service that speaks TLS
//! can be asked in plain text.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    sync::{Arc, Mutex, PoisonError},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, pki_types::ServerName},
};

use crate::{Failure, Outcome};

/// Who signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
#[derive(Debug)]
pub struct Certificate {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Certificate {
    /// `tls.crt` and `tls.key`, as PEM.
    pub fn pems(&self) -> (String, String) {
        (self.certificate.pem(), self.key.serialize_pem())
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("certificate: {error}"))
}

impl Authority {
    /// A new one, which nobody knows yet.
    ///
    /// # Errors
    /// When this machine can make no key.
    pub fn new() -> Outcome<Self> {
        let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "tempo-e2e");
        let key = KeyPair::generate().map_err(failed)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(failed)?;
        Ok(Self(issuer))
    }

    /// `ca.crt`, as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A new certificate for these names.
    ///
    /// # Errors
    /// When this machine can make no key, or a name is none.
    pub fn certify(&self, names: &[&str]) -> Outcome<Certificate> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names).map_err(failed)?;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.0).map_err(failed)?;
        Ok(Certificate { certificate, key })
    }
}

/// Takes plain connections on this machine and carries them over TLS. Dropping it closes it.
#[derive(Debug)]
pub struct Door {
    /// `host:port` to connect to.
    pub address: String,
    shown: Arc<Mutex<Vec<u8>>>,
    _runtime: Runtime,
}

impl Door {
    /// A door to `target` (`host:port`), which must be `name` by the word of `authority`. Where it
    /// is not, connections end without an answer.
    ///
    /// # Errors
    /// When the address or the name is none, or this machine has no port left.
    pub fn open(target: &str, name: &str, authority: &Authority) -> Outcome<Self> {
        let target: SocketAddr = target.parse().map_err(failed)?;
        let name = ServerName::try_from(name.to_owned()).map_err(failed)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.0.der().clone()).map_err(failed)?;
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = StdListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?.to_string();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let sees = Arc::clone(&shown);
        let entered = runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        runtime.spawn(async move {
            while let Ok((mut plain, _)) = listener.accept().await {
                let (connector, name) = (connector.clone(), name.clone());
                let sees = Arc::clone(&sees);
                tokio::spawn(async move {
                    let stream = TcpStream::connect(target).await?;
                    let mut secure = connector.connect(name, stream).await?;
                    if let Some([leaf, ..]) = secure.get_ref().1.peer_certificates() {
                        *sees.lock().unwrap_or_else(PoisonError::into_inner) = leaf.to_vec();
                    }
                    copy_bidirectional(&mut plain, &mut secure).await
                });
            }
        });
        drop(entered);
        Ok(Self {
            address,
            shown,
            _runtime: runtime,
        })
    }

    /// Whether the last server that was reached showed `certificate`.
    pub fn was_shown(&self, certificate: &Certificate) -> bool {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        *shown == **certificate.certificate.der()
    }
}
