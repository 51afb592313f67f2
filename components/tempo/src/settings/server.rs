//! The ports that every process has.

use std::{path::PathBuf, time::Duration};

use tempo_config::{Config, blocks::server::ServerTls};
use tempo_runtime::{
    listen::{ListenConfig, Protocol},
    tls::{ClientAuth, Tls},
};

use super::UnusableSetting;

/// The HTTP port: where to listen, and how.
pub(crate) fn http(config: &Config) -> Result<(String, ListenConfig), UnusableSetting> {
    let server = &config.server;
    let settings = ListenConfig {
        protocol: Protocol::Http,
        tls: tls(
            &server.http_tls_config,
            &server.tls_min_version,
            "server.http_tls_config",
        )?,
        header_timeout: server.http_server_idle_timeout.0,
        max_connection_age: finite(server.http_server_max_connection_age.0),
        ..listen(config, server.http_listen_conn_limit)
    };
    let endpoint = format!("{}:{}", server.http_listen_address, server.http_listen_port);
    Ok((endpoint, settings))
}

/// The gRPC port: where to listen, and how.
pub(crate) fn grpc(config: &Config) -> Result<(String, ListenConfig), UnusableSetting> {
    let server = &config.server;
    let settings = ListenConfig {
        protocol: Protocol::Grpc,
        tls: tls(
            &server.grpc_tls_config,
            &server.tls_min_version,
            "server.grpc_tls_config",
        )?,
        ping_period: server.grpc_server_keepalive_time.0,
        ping_timeout: server.grpc_server_keepalive_timeout.0,
        max_connection_age: finite(server.grpc_server_max_connection_age.0),
        max_connection_age_grace: finite(server.grpc_server_max_connection_age_grace.0),
        ..listen(config, server.grpc_listen_conn_limit)
    };
    let endpoint = format!("{}:{}", server.grpc_listen_address, server.grpc_listen_port);
    Ok((endpoint, settings))
}

fn listen(config: &Config, max_connections: u32) -> ListenConfig {
    let defaults = ListenConfig::default();
    ListenConfig {
        max_connections: match max_connections {
            0 => defaults.max_connections,
            limit => limit as usize,
        },
        max_concurrent_streams: config.server.grpc_server_max_concurrent_streams,
        shutdown_grace: config.server.graceful_shutdown_timeout.0,
        ..defaults
    }
}

/// Tempo writes "for ever" as the longest duration there is; nobody waits a century.
fn finite(duration: Duration) -> Option<Duration> {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    (!duration.is_zero() && duration < CENTURY).then_some(duration)
}

fn tls(
    tls: &ServerTls,
    min_version: &str,
    key: &'static str,
) -> Result<Option<Tls>, UnusableSetting> {
    let unusable = |reason: String| UnusableSetting::new(key, reason);
    match (tls.cert_file.is_empty(), tls.key_file.is_empty()) {
        (true, true) => return Ok(None),
        (false, false) => {}
        _ => return Err(unusable("cert_file and key_file are both needed".into())),
    }
    let authorities = || match tls.client_ca_file.as_str() {
        "" => Err(unusable(format!(
            "client_auth_type {} needs client_ca_file",
            tls.client_auth_type
        ))),
        path => Ok(PathBuf::from(path)),
    };
    let client_auth = match tls.client_auth_type.as_str() {
        "" | "NoClientCert" => ClientAuth::None,
        "VerifyClientCertIfGiven" => ClientAuth::IfGiven(authorities()?),
        "RequireAndVerifyClientCert" => ClientAuth::Required(authorities()?),
        other => {
            return Err(unusable(format!(
                "client_auth_type {other:?} is not supported; use NoClientCert, \
                 VerifyClientCertIfGiven or RequireAndVerifyClientCert"
            )));
        }
    };
    let min_version = super::tls::version("server.tls_min_version", min_version)?;
    Ok(Some(Tls {
        cert_file: PathBuf::from(&tls.cert_file),
        key_file: PathBuf::from(&tls.key_file),
        client_auth,
        min_version,
    }))
}
