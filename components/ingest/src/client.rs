//! What all clients share: settings in the library's words, its log, and tokens.

use std::error::Error as StdError;

use rdkafka::{
    ClientConfig, ClientContext,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{Credentials, KafkaConfig, Sasl, Tls, TokenSource, token};

/// Largest answer of a broker, in bytes: a fetch of [`FETCH_MAX_BYTES`] and what surrounds it.
const RECEIVE_MAX_BYTES: usize = 200_000_000;

/// Bytes that one fetch asks for.
pub(crate) const FETCH_MAX_BYTES: usize = 50_000_000;

/// The settings that every client starts from.
pub(crate) fn client_config(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    let millis = |duration: std::time::Duration| duration.as_millis().max(1).to_string();
    client
        .set("bootstrap.servers", &config.address)
        .set(
            "socket.connection.setup.timeout.ms",
            // The library wants a second at least.
            config.dial_timeout.as_millis().max(1000).to_string(),
        )
        .set("receive.message.max.bytes", RECEIVE_MAX_BYTES.to_string())
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set(
            "reconnect.backoff.max.ms",
            millis(std::time::Duration::from_secs(2)),
        )
        .set("enable.metrics.push", config.telemetry.to_string())
        .set("allow.auto.create.topics", "false")
        .set_log_level(RDKafkaLogLevel::Warning);
    if !config.client_id.is_empty() {
        client.set("client.id", &config.client_id);
    }
    if !config.client_rack.is_empty() {
        client.set("client.rack", &config.client_rack);
    }
    let login = |client: &mut ClientConfig, mechanism: &str, who: &Credentials| {
        client
            .set("sasl.mechanism", mechanism)
            .set("sasl.username", &who.username)
            .set("sasl.password", &who.password);
    };
    match &config.sasl {
        Sasl::Off => {}
        Sasl::Plain(who) => login(&mut client, "PLAIN", who),
        Sasl::ScramSha256(who) => login(&mut client, "SCRAM-SHA-256", who),
        Sasl::ScramSha512(who) => login(&mut client, "SCRAM-SHA-512", who),
        Sasl::OAuthBearer(_) => {
            client.set("sasl.mechanism", "OAUTHBEARER");
        }
    }
    if let Some(tls) = &config.tls {
        set_tls(&mut client, tls);
    }
    client.set(
        "security.protocol",
        match (&config.sasl, &config.tls) {
            (Sasl::Off, None) => "plaintext",
            (Sasl::Off, Some(_)) => "ssl",
            (_, None) => "sasl_plaintext",
            (_, Some(_)) => "sasl_ssl",
        },
    );
    client
}

fn set_tls(client: &mut ClientConfig, tls: &Tls) {
    if let Some(path) = &tls.ca_path {
        client.set("ssl.ca.location", path.display().to_string());
    }
    if let Some((certificate, key)) = &tls.certificate {
        client
            .set(
                "ssl.certificate.location",
                certificate.display().to_string(),
            )
            .set("ssl.key.location", key.display().to_string());
    }
    if !tls.cipher_suites.is_empty() {
        client.set("ssl.cipher.suites", &tls.cipher_suites);
    }
    if tls.insecure_skip_verify {
        client.set("enable.ssl.certificate.verification", "false");
    }
}

/// What the library calls back.
#[derive(Clone)]
pub(crate) struct Context {
    token: Option<TokenSource>,
}

impl Context {
    pub(crate) fn new(config: &KafkaConfig) -> Self {
        Self {
            token: match &config.sasl {
                Sasl::OAuthBearer(source) => Some(source.clone()),
                _ => None,
            },
        }
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => tracing::error!(facility, message, "kafka client"),
            RDKafkaLogLevel::Warning => tracing::warn!(facility, message, "kafka client"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(facility, message, "kafka client");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(facility, message, "kafka client"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // Told again by whatever was asked of the broker.
            Some(RDKafkaErrorCode::BrokerTransportFailure) => {
                tracing::warn!(reason, "kafka broker away");
            }
            // No error, but news: told to whoever polls, too.
            Some(RDKafkaErrorCode::PartitionEOF) => tracing::debug!(reason, "kafka client"),
            _ => tracing::error!(%error, reason, "kafka client"),
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn StdError>> {
        let source = self
            .token
            .as_ref()
            .ok_or("no token is configured for OAUTHBEARER")?;
        let token = token::fetch(source)?;
        Ok(OAuthToken {
            token: token.token,
            principal_name: token.principal,
            lifetime_ms: token.expires_unix_millis,
        })
    }
}

impl ConsumerContext for Context {}
