//! Opening the store that the configuration names.
//!
//! Owns the way from [`BackendConfig`] to an object store: one file per kind, the credentials of
//! S3, and the check at start. Must never read or write an object of Tempo's.

mod azure;
mod credentials;
mod gcs;
mod local;
mod s3;

use std::{error::Error as StdError, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, ObjectStore,
    client::{HttpError, HttpErrorKind},
    list::{PaginatedListOptions, PaginatedListStore},
};

use crate::{
    Backend, BackendConfig, Error, HedgeConfig, RetryConfig, StoreConfig,
    backend::{Inner, StoreKind, WriteSettings},
    http::{LastStatus, MeasuredConnector},
    keys::Prefix,
    metrics::RequestMetrics,
};

/// Environment variables, or what stands for them in a test.
type Environment<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// Time to reach the store.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without a byte after which a request is given up and tried again. An upload of one part
/// must fit into it.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Time after which no further attempt is made. Credentials are renewed between requests, not
/// between attempts, so it must stay below the shortest life of a token.
const RETRY_TIMEOUT: Duration = Duration::from_secs(180);
/// Time for the check at start; then the store counts as away.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Parts that S3 and Google accept in one upload.
const MAX_PARTS: usize = 10_000;
/// Parts of one upload in flight, where nothing is configured.
const PARTS_IN_FLIGHT: usize = 2;
/// Bytes of one part of an upload, where nothing is configured.
const DEFAULT_PART_BYTES: u64 = 8 * 1024 * 1024;

pub(crate) async fn open(
    config: &BackendConfig,
    registry: &prometheus::Registry,
) -> Result<Backend, Error> {
    let metrics = RequestMetrics::register(registry)?;
    let environment: Environment<'_> = &|name| std::env::var(name).ok();
    match &config.store {
        StoreConfig::Local(local) => local::open(config, local).await,
        StoreConfig::S3(s3) => s3::open(config, s3, metrics, environment).await,
        StoreConfig::Gcs(gcs) => gcs::open(config, gcs, metrics).await,
        StoreConfig::Azure(azure) => azure::open(config, azure, metrics, environment).await,
    }
}

/// What the kinds of remote store have in common once they are built.
struct Remote<S> {
    store: S,
    kind: StoreKind,
    prefix: String,
    writes: WriteSettings,
    list_blocks_concurrency: usize,
    last_status: LastStatus,
}

impl<S: ObjectStore + PaginatedListStore> Remote<S> {
    /// Lists one key to see that the settings are right, then hands the store out. `hints` say
    /// which setting to look at for which failure.
    ///
    /// A store that does not answer at all is no fault of the settings, as far as anyone can tell:
    /// that is logged, and the process goes on with what it has.
    async fn check(self, config: &BackendConfig, hints: Hints) -> Result<Backend, Error> {
        let prefix = Prefix::new(&self.prefix);
        let listed = prefix.path("")?;
        let options = PaginatedListOptions {
            max_keys: Some(1),
            ..PaginatedListOptions::default()
        };
        let listing = self.store.list_paginated(Some(listed.as_ref()), options);
        match tokio::time::timeout(CHECK_TIMEOUT, listing).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if !is_away(&error, self.last_status.get()) => {
                return Err(hints.explain(&config.section, &error, self.last_status.get()));
            }
            Ok(Err(error)) => {
                let error = hints.explain(&config.section, &error, self.last_status.get());
                tracing::error!(%error, "object store does not answer; going on without it");
            }
            Err(_) => {
                let endpoint = format!("{}.{}", config.section, hints.endpoint);
                tracing::error!(
                    endpoint,
                    timeout = ?CHECK_TIMEOUT,
                    "object store does not answer; going on without it"
                );
            }
        }
        Ok(Backend {
            inner: Arc::new(Inner {
                store: Arc::new(self.store),
                prefix,
                kind: self.kind,
                reads: config.reads.clone(),
                writes: self.writes,
                list_blocks_concurrency: self.list_blocks_concurrency,
                local_root: None,
                runtime: tokio::runtime::Handle::current(),
            }),
        })
    }
}

/// The settings, relative to the section, that a failure at start points to.
struct Hints {
    /// The store could not be reached.
    endpoint: &'static str,
    /// The bucket does not exist.
    bucket: &'static str,
    /// The store does not accept the credentials, or there are none.
    credentials: &'static str,
    /// TLS failed.
    tls: &'static str,
}

impl Hints {
    /// Blames a setting for a failed listing whose last answer had this status.
    fn explain(&self, section: &str, error: &object_store::Error, status: u16) -> Error {
        let chain = describe(error);
        let (setting, remedy) = if asked_for_identity(&chain) {
            (
                self.credentials,
                "the settings and the environment give no credentials, nor does this machine's \
                 identity",
            )
        } else if is_tls_failure(&chain) {
            (
                self.tls,
                "the certificate must be trusted, and both sides must speak TLS or neither",
            )
        } else {
            match (status, error) {
                (404, _) | (_, object_store::Error::NotFound { .. }) => {
                    (self.bucket, "it must exist already")
                }
                (401 | 403, _) => (
                    self.credentials,
                    "the credentials must allow to list, read, write and delete objects",
                ),
                _ if is_connection_failure(error) => (self.endpoint, "nobody answers there"),
                _ => (self.endpoint, "the store does not answer as it should"),
            }
        };
        Error::config(
            format!("{section}.{setting}"),
            format!("{remedy}; listing one key failed: {chain}"),
        )
    }
}

/// Whether the machine's metadata service was asked, the last source of credentials.
fn asked_for_identity(chain: &str) -> bool {
    chain.contains("169.254.169.254") || chain.contains("metadata.google.internal")
}

/// The error and its causes, each told once.
fn describe(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

fn is_tls_failure(chain: &str) -> bool {
    let lower = chain.to_ascii_lowercase();
    ["certificate", "unknownissuer", "tls", "corrupt message"]
        .iter()
        .any(|word| lower.contains(word))
}

/// Whether the store as such did not answer, rather than refuse: no answer, or one of a server in
/// trouble.
fn is_away(error: &object_store::Error, status: u16) -> bool {
    let chain = describe(error);
    matches!(status, 0 | 500..=599) && !is_tls_failure(&chain) && !asked_for_identity(&chain)
}

fn is_connection_failure(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return matches!(http.kind(), HttpErrorKind::Connect | HttpErrorKind::Timeout);
        }
        cause = error.source();
    }
    false
}

fn client_options() -> ClientOptions {
    ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_read_timeout(STALL_TIMEOUT)
        .with_timeout_disabled()
}

fn retry_config(retry: &RetryConfig) -> object_store::RetryConfig {
    object_store::RetryConfig {
        backoff: BackoffConfig {
            init_backoff: retry.initial_backoff,
            max_backoff: retry.max_backoff,
            base: 2.0,
        },
        max_retries: retry.max_attempts.saturating_sub(1),
        retry_timeout: RETRY_TIMEOUT,
    }
}

fn connector(metrics: RequestMetrics, hedge: HedgeConfig) -> MeasuredConnector {
    MeasuredConnector {
        metrics,
        hedge,
        last_status: LastStatus::default(),
        anonymous: false,
    }
}

/// Bytes of a part, from a setting where 0 is the default.
fn part_bytes(configured: u64) -> usize {
    let bytes = if configured == 0 {
        DEFAULT_PART_BYTES
    } else {
        configured
    };
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn required<'a>(section: &str, setting: &str, value: &'a str) -> Result<&'a str, Error> {
    if value.is_empty() {
        return Err(Error::config(
            format!("{section}.{setting}"),
            "it is not set and the store cannot be named without it",
        ));
    }
    Ok(value)
}

fn not_built(section: &str, kind: &str, error: &object_store::Error) -> Error {
    Error::config(format!("{section}.{kind}"), describe(error))
}
