//! TLS from this process to others of the installation.

use std::path::PathBuf;

use tempo_config::blocks::clients::GrpcClient;
use tempo_runtime::tls::{ClientTls, TlsVersion};

use super::UnusableSetting;

/// TLS of a gRPC client whose keys are below `section`; none: in plain text.
pub(super) fn client_tls(
    section: &str,
    client: &GrpcClient,
) -> Result<Option<ClientTls>, UnusableSetting> {
    if !client.tls_enabled {
        return Ok(None);
    }
    let tls = &client.tls;
    let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
    let identity = match (path(&tls.tls_cert_path), path(&tls.tls_key_path)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => {
            return Err(UnusableSetting::new(
                section,
                "tls_cert_path and tls_key_path are both needed, or none",
            ));
        }
    };
    Ok(Some(ClientTls {
        identity,
        authorities: path(&tls.tls_ca_path),
        server_name: (!tls.tls_server_name.is_empty()).then(|| tls.tls_server_name.clone()),
        skip_verification: tls.tls_insecure_skip_verify,
        min_version: version(&format!("{section}.tls_min_version"), &tls.tls_min_version)?,
    }))
}

/// The oldest version of TLS that is spoken.
pub(super) fn version(key: &str, name: &str) -> Result<TlsVersion, UnusableSetting> {
    match name {
        "" | "VersionTLS12" => Ok(TlsVersion::V1_2),
        "VersionTLS13" => Ok(TlsVersion::V1_3),
        other => Err(UnusableSetting::new(
            key,
            format!("{other:?} is not supported; use VersionTLS12 or VersionTLS13"),
        )),
    }
}
