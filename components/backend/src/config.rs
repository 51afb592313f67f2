//! Settings of the object store, resolved, with Tempo's names and defaults.
//!
//! Owns one struct per kind of store (`storage.trace.local`, `.s3`, `.gcs`, `.azure`) and the list
//! of settings that are accepted and do nothing here. Must never read a file or the environment.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

/// Settings of a [`crate::Backend`].
#[derive(Debug, Clone)]
pub struct BackendConfig {
    /// Which store, and how to reach it.
    pub store: StoreConfig,
    /// How ranges of one object are read.
    pub reads: ReadConfig,
    /// Path of the section in the configuration file, for error messages.
    pub section: String,
}

impl BackendConfig {
    /// Settings for `store`, everything else by default, as `storage.trace`.
    pub fn new(store: StoreConfig) -> Self {
        Self {
            store,
            reads: ReadConfig::default(),
            section: "storage.trace".to_owned(),
        }
    }

    /// A directory of this machine.
    pub fn local(path: impl Into<PathBuf>) -> Self {
        Self::new(StoreConfig::Local(LocalConfig { path: path.into() }))
    }

    /// Settings that are set and do nothing here, to be listed once at start.
    pub fn ineffective_settings(&self) -> Vec<IneffectiveSetting> {
        let (kind, found) = match &self.store {
            StoreConfig::S3(s3) => ("s3", s3.ineffective()),
            // Every setting of the others has its effect.
            StoreConfig::Local(_) | StoreConfig::Gcs(_) | StoreConfig::Azure(_) => return vec![],
        };
        found
            .into_iter()
            .map(|(name, reason)| IneffectiveSetting {
                setting: format!("{}.{kind}.{name}", self.section),
                reason,
            })
            .collect()
    }
}

/// A setting that is accepted and has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IneffectiveSetting {
    /// Its full path in the configuration file.
    pub setting: String,
    /// Why it has no effect, and what happens instead.
    pub reason: &'static str,
}

/// One of the kinds of store.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// A directory of this machine.
    Local(LocalConfig),
    /// Amazon S3 and what speaks its protocol.
    S3(Box<S3Config>),
    /// Google Cloud Storage.
    Gcs(GcsConfig),
    /// Azure Blob Storage.
    Azure(AzureConfig),
}

/// How ranges of one object are read.
#[derive(Debug, Clone)]
pub struct ReadConfig {
    /// Ranges with at most this many bytes between them are read as one.
    pub merge_gap_bytes: u64,
    /// Requests that one [`crate::Backend::read_ranges`] has in flight at most.
    pub max_concurrent_requests: usize,
}

impl Default for ReadConfig {
    fn default() -> Self {
        Self {
            merge_gap_bytes: 1024 * 1024,
            max_concurrent_requests: 16,
        }
    }
}

/// `local`.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// The directory; created, with mode 0700, when it does not exist.
    pub path: PathBuf,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/tempo/traces"),
        }
    }
}

/// A text that must not appear in logs.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whoever must send it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is not set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() {
            "\"\""
        } else {
            "<secret>"
        })
    }
}

/// When a read that takes long is sent a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HedgeConfig {
    /// `hedge_requests_at`: a further request is sent after this long without an answer; zero
    /// never.
    pub at: Duration,
    /// `hedge_requests_up_to`: requests in flight for one read, the first included.
    pub up_to: u32,
}

impl Default for HedgeConfig {
    fn default() -> Self {
        Self {
            at: Duration::ZERO,
            up_to: 2,
        }
    }
}

/// How failed requests are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryConfig {
    /// Attempts in all, the first included.
    pub max_attempts: usize,
    /// Pause before the second; grows with each.
    pub initial_backoff: Duration,
    /// Longest pause.
    pub max_backoff: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 10,
            initial_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(1),
        }
    }
}

/// TLS towards the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// `tls_cert_path`: client certificate. Not supported.
    pub cert_path: Option<PathBuf>,
    /// `tls_key_path`: its key. Not supported.
    pub key_path: Option<PathBuf>,
    /// `tls_ca_path`: PEM bundle of authorities to trust besides the system's.
    pub ca_path: Option<PathBuf>,
    /// `tls_server_name`. Not supported.
    pub server_name: String,
    /// `tls_insecure_skip_verify`: trust any certificate.
    pub insecure_skip_verify: bool,
    /// `tls_cipher_suites`. Not supported.
    pub cipher_suites: String,
    /// `tls_min_version`. Not supported: TLS 1.2 is always the lowest.
    pub min_version: String,
}

/// `s3.bucket_lookup_type` and `s3.forcepathstyle`: where the bucket's name goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BucketLookup {
    /// In the path for custom endpoints, in the host for Amazon's.
    #[default]
    Auto,
    /// In the host name.
    Dns,
    /// In the path.
    Path,
}

/// `s3.sse`: encryption by the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum S3Encryption {
    /// As the bucket says.
    #[default]
    BucketDefault,
    /// `SSE-S3`.
    S3,
    /// `SSE-KMS`.
    Kms {
        /// `kms_key_id`.
        key_id: String,
        /// `kms_encryption_context` (JSON). Not supported.
        encryption_context: String,
    },
    /// `SSE-C`.
    Customer {
        /// `encryption_key`, 32 bytes.
        key: Secret,
    },
}

/// `s3`.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// `bucket`.
    pub bucket: String,
    /// `prefix` of every key.
    pub prefix: String,
    /// `endpoint`: host and port, or a URL; empty for Amazon's of the region.
    pub endpoint: String,
    /// `region`; empty: `AWS_REGION`, the endpoint's, or us-east-1.
    pub region: String,
    /// `access_key`; empty: the credential chain.
    pub access_key: String,
    /// `secret_key`.
    pub secret_key: Secret,
    /// `session_token`.
    pub session_token: Secret,
    /// `insecure`: plain HTTP.
    pub insecure: bool,
    /// `part_size` of an upload in bytes; 0: a part per 8 MiB.
    pub part_size_bytes: u64,
    /// `hedge_requests_at`, `hedge_requests_up_to`.
    pub hedge: HedgeConfig,
    /// `retry_max_attempts`, `retry_backoff_initial`, `retry_backoff_max`.
    pub retry: RetryConfig,
    /// `signature_v2`. Not supported.
    pub signature_v2: bool,
    /// `forcepathstyle`, `bucket_lookup_type`.
    pub bucket_lookup: BucketLookup,
    /// `enable_dual_stack`: Amazon's IPv6 endpoint.
    pub dual_stack: bool,
    /// `tags` of every object.
    pub tags: BTreeMap<String, String>,
    /// `storage_class` of every object.
    pub storage_class: String,
    /// `metadata` of every object.
    pub metadata: BTreeMap<String, String>,
    /// `native_aws_auth_enabled`. Ignored, as in Tempo.
    pub native_aws_auth_enabled: bool,
    /// `list_blocks_concurrency`.
    pub list_blocks_concurrency: usize,
    /// `sse`.
    pub encryption: S3Encryption,
    /// `tls_*`.
    pub tls: TlsConfig,
}

impl Default for S3Config {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            prefix: String::new(),
            endpoint: String::new(),
            region: String::new(),
            access_key: String::new(),
            secret_key: Secret::default(),
            session_token: Secret::default(),
            insecure: false,
            part_size_bytes: 0,
            hedge: HedgeConfig::default(),
            retry: RetryConfig::default(),
            signature_v2: false,
            bucket_lookup: BucketLookup::default(),
            dual_stack: false,
            tags: BTreeMap::new(),
            storage_class: String::new(),
            metadata: BTreeMap::new(),
            native_aws_auth_enabled: false,
            list_blocks_concurrency: 3,
            encryption: S3Encryption::default(),
            tls: TlsConfig::default(),
        }
    }
}

impl S3Config {
    fn ineffective(&self) -> Vec<(&'static str, &'static str)> {
        let tls = &self.tls;
        let kms_context = matches!(&self.encryption, S3Encryption::Kms { encryption_context, .. } if !encryption_context.is_empty());
        let checks = [
            (
                self.signature_v2,
                "signature_v2",
                "only signature version 4 is sent",
            ),
            (
                self.native_aws_auth_enabled,
                "native_aws_auth_enabled",
                "the credential chain always includes Amazon's own sources",
            ),
            (
                kms_context,
                "sse.kms_encryption_context",
                "objects are encrypted without a context",
            ),
            (
                tls.cert_path.is_some(),
                "tls_cert_path",
                "client certificates are not supported",
            ),
            (
                tls.key_path.is_some(),
                "tls_key_path",
                "client certificates are not supported",
            ),
            (
                !tls.server_name.is_empty(),
                "tls_server_name",
                "the certificate is checked against the endpoint's host",
            ),
            (
                !tls.cipher_suites.is_empty(),
                "tls_cipher_suites",
                "the TLS library's suites are used",
            ),
            (
                !matches!(
                    tls.min_version.as_str(),
                    "" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12"
                ),
                "tls_min_version",
                "TLS 1.2 and 1.3 are both accepted",
            ),
        ];
        checks
            .into_iter()
            .filter(|(set, _, _)| *set)
            .map(|(_, name, reason)| (name, reason))
            .collect()
    }
}

/// `gcs`.
#[derive(Debug, Clone)]
pub struct GcsConfig {
    /// `bucket_name`.
    pub bucket_name: String,
    /// `prefix` of every key.
    pub prefix: String,
    /// `chunk_buffer_size`: bytes of one part of an upload.
    pub chunk_buffer_size_bytes: u64,
    /// `endpoint`: URL; empty for Google's.
    pub endpoint: String,
    /// `hedge_requests_at`, `hedge_requests_up_to`.
    pub hedge: HedgeConfig,
    /// `insecure`: send no credentials and trust any certificate.
    pub insecure: bool,
    /// `object_cache_control` of every object.
    pub object_cache_control: String,
    /// `object_metadata` of every object.
    pub object_metadata: BTreeMap<String, String>,
    /// `list_blocks_concurrency`.
    pub list_blocks_concurrency: usize,
    /// `max_retries`: attempts after the first.
    pub max_retries: usize,
}

impl Default for GcsConfig {
    fn default() -> Self {
        Self {
            bucket_name: String::new(),
            prefix: String::new(),
            chunk_buffer_size_bytes: 10 * 1024 * 1024,
            endpoint: String::new(),
            hedge: HedgeConfig::default(),
            insecure: false,
            object_cache_control: String::new(),
            object_metadata: BTreeMap::new(),
            list_blocks_concurrency: 3,
            max_retries: 3,
        }
    }
}

/// `azure`.
#[derive(Debug, Clone)]
pub struct AzureConfig {
    /// `storage_account_name`; empty: `AZURE_STORAGE_ACCOUNT`.
    pub storage_account_name: String,
    /// `storage_account_key`; empty: `AZURE_STORAGE_KEY`, or an identity.
    pub storage_account_key: Secret,
    /// `use_managed_identity`.
    pub use_managed_identity: bool,
    /// `use_federated_token`: workload identity from `AZURE_FEDERATED_TOKEN_FILE`,
    /// `AZURE_CLIENT_ID`, `AZURE_TENANT_ID`.
    pub use_federated_token: bool,
    /// `user_assigned_id`: client id of the managed identity.
    pub user_assigned_id: String,
    /// `container_name`.
    pub container_name: String,
    /// `prefix` of every key.
    pub prefix: String,
    /// `endpoint_suffix`; one that does not begin with `blob.` is an emulator's host and port.
    pub endpoint_suffix: String,
    /// `max_buffers`: parts of an upload in flight.
    pub max_buffers: usize,
    /// `buffer_size`: bytes of one part of an upload.
    pub buffer_size_bytes: u64,
    /// `hedge_requests_at`, `hedge_requests_up_to`.
    pub hedge: HedgeConfig,
}

impl Default for AzureConfig {
    fn default() -> Self {
        Self {
            storage_account_name: String::new(),
            storage_account_key: Secret::default(),
            use_managed_identity: false,
            use_federated_token: false,
            user_assigned_id: String::new(),
            container_name: String::new(),
            prefix: String::new(),
            endpoint_suffix: "blob.core.windows.net".to_owned(),
            max_buffers: 4,
            buffer_size_bytes: 3 * 1024 * 1024,
            hedge: HedgeConfig::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_without_effect_are_listed_only_when_they_are_set() {
        let listed = |s3: S3Config| -> Vec<String> {
            BackendConfig::new(StoreConfig::S3(Box::new(s3)))
                .ineffective_settings()
                .into_iter()
                .map(|found| found.setting)
                .collect()
        };
        assert!(listed(S3Config::default()).is_empty());
        let s3 = S3Config {
            signature_v2: true,
            encryption: S3Encryption::Kms {
                key_id: "k".to_owned(),
                encryption_context: "{}".to_owned(),
            },
            tls: TlsConfig {
                server_name: "s".to_owned(),
                min_version: "VersionTLS13".to_owned(),
                ..TlsConfig::default()
            },
            ..S3Config::default()
        };
        assert_eq!(
            listed(s3),
            [
                "storage.trace.s3.signature_v2",
                "storage.trace.s3.sse.kms_encryption_context",
                "storage.trace.s3.tls_server_name",
                "storage.trace.s3.tls_min_version",
            ]
        );
        assert!(BackendConfig::local("/x").ineffective_settings().is_empty());
    }

    #[test]
    fn secrets_are_not_printed() {
        let s3 = S3Config {
            secret_key: Secret::new("hush"),
            ..S3Config::default()
        };
        assert!(!format!("{s3:?}").contains("hush"));
    }
}
