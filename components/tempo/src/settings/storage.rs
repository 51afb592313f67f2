//! The object store and what lies in it.

use std::{path::PathBuf, time::Duration};

use tempo_backend::{
    AzureConfig, BackendConfig, BlockFormat, BucketLookup, DedicatedColumns, GcsConfig,
    HedgeConfig, LocalConfig, PollerConfig, RetentionPolicy, RetryConfig, S3Config, S3Encryption,
    Secret, StoreConfig, TlsConfig,
};
use tempo_block::schema::Version;
use tempo_config::{
    Config,
    blocks::{
        clients::ClientTls,
        storage::{self, BackendKind, Sse},
    },
};
use tempo_live_store::BlockSettings;

use super::UnusableSetting;
use crate::limits::dedicated_columns;

/// The choice of an object store, and the settings of each.
pub(super) struct Store<'a> {
    /// Path of all these.
    pub(super) section: &'static str,
    pub(super) kind: BackendKind,
    pub(super) local: &'a storage::Local,
    pub(super) s3: &'a storage::S3,
    pub(super) gcs: &'a storage::Gcs,
    pub(super) azure: &'a storage::Azure,
}

/// The object store of blocks.
pub(crate) fn backend(config: &Config) -> Result<BackendConfig, UnusableSetting> {
    let trace = &config.storage.trace;
    store_backend(&Store {
        section: "storage.trace",
        kind: trace.backend,
        local: &trace.local,
        s3: &trace.s3,
        gcs: &trace.gcs,
        azure: &trace.azure,
    })
}

pub(super) fn store_backend(settings: &Store<'_>) -> Result<BackendConfig, UnusableSetting> {
    let section = settings.section;
    let store = match settings.kind {
        BackendKind::None => {
            return Err(UnusableSetting::new(
                format!("{section}.backend"),
                "not set: choose local, s3, gcs or azure",
            ));
        }
        BackendKind::Local => {
            if settings.local.path.is_empty() {
                return Err(UnusableSetting::new(
                    format!("{section}.local.path"),
                    "not set: name the folder",
                ));
            }
            StoreConfig::Local(LocalConfig {
                path: PathBuf::from(&settings.local.path),
            })
        }
        BackendKind::S3 => StoreConfig::S3(Box::new(s3(section, settings.s3)?)),
        BackendKind::Gcs => StoreConfig::Gcs(gcs(settings.gcs)),
        BackendKind::Azure => StoreConfig::Azure(azure(settings.azure)),
    };
    Ok(BackendConfig {
        section: section.to_owned(),
        ..BackendConfig::new(store)
    })
}

fn s3(section: &str, s3: &storage::S3) -> Result<S3Config, UnusableSetting> {
    let bucket_lookup = match (s3.forcepathstyle, s3.bucket_lookup_type) {
        (true, _) | (false, 2) => BucketLookup::Path,
        (false, 1) => BucketLookup::Dns,
        (false, 0) => BucketLookup::Auto,
        (false, other) => {
            return Err(UnusableSetting::new(
                format!("{section}.s3.bucket_lookup_type"),
                format!("{other}: use 0 (auto), 1 (dns) or 2 (path)"),
            ));
        }
    };
    Ok(S3Config {
        bucket: s3.bucket.clone(),
        prefix: s3.prefix.clone(),
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        access_key: s3.access_key.clone(),
        secret_key: secret(&s3.secret_key),
        session_token: secret(&s3.session_token),
        insecure: s3.insecure,
        part_size_bytes: s3.part_size.0,
        hedge: HedgeConfig {
            at: s3.hedge_requests_at.0,
            up_to: s3.hedge_requests_up_to,
        },
        retry: RetryConfig {
            max_attempts: s3.retry_max_attempts as usize,
            initial_backoff: s3.retry_backoff_initial.0,
            max_backoff: s3.retry_backoff_max.0,
        },
        signature_v2: s3.signature_v2,
        bucket_lookup,
        dual_stack: s3.enable_dual_stack,
        tags: s3.tags.clone(),
        storage_class: s3.storage_class.clone(),
        metadata: s3.metadata.clone(),
        native_aws_auth_enabled: s3.native_aws_auth_enabled,
        list_blocks_concurrency: s3.list_blocks_concurrency as usize,
        encryption: encryption(section, &s3.sse)?,
        tls: tls(&s3.tls),
    })
}

fn secret(secret: &tempo_config::Secret) -> Secret {
    Secret::new(secret.reveal())
}

fn encryption(section: &str, sse: &Sse) -> Result<S3Encryption, UnusableSetting> {
    Ok(match sse.r#type.as_str() {
        "" => S3Encryption::BucketDefault,
        "SSE-S3" => S3Encryption::S3,
        "SSE-KMS" => S3Encryption::Kms {
            key_id: sse.kms_key_id.clone(),
            encryption_context: sse.kms_encryption_context.clone(),
        },
        "SSE-C" => S3Encryption::Customer {
            key: secret(&sse.encryption_key),
        },
        other => {
            return Err(UnusableSetting::new(
                format!("{section}.s3.sse.type"),
                format!("{other}: use SSE-S3, SSE-KMS or SSE-C"),
            ));
        }
    })
}

fn tls(tls: &ClientTls) -> TlsConfig {
    let path = |text: &String| (!text.is_empty()).then(|| PathBuf::from(text));
    TlsConfig {
        cert_path: path(&tls.tls_cert_path),
        key_path: path(&tls.tls_key_path),
        ca_path: path(&tls.tls_ca_path),
        server_name: tls.tls_server_name.clone(),
        insecure_skip_verify: tls.tls_insecure_skip_verify,
        cipher_suites: tls.tls_cipher_suites.clone(),
        min_version: tls.tls_min_version.clone(),
    }
}

fn gcs(gcs: &storage::Gcs) -> GcsConfig {
    GcsConfig {
        bucket_name: gcs.bucket_name.clone(),
        prefix: gcs.prefix.clone(),
        chunk_buffer_size_bytes: gcs.chunk_buffer_size.0,
        endpoint: gcs.endpoint.clone(),
        hedge: HedgeConfig {
            at: gcs.hedge_requests_at.0,
            up_to: gcs.hedge_requests_up_to,
        },
        insecure: gcs.insecure,
        object_cache_control: gcs.object_cache_control.clone(),
        object_metadata: gcs.object_metadata.clone(),
        list_blocks_concurrency: gcs.list_blocks_concurrency as usize,
        max_retries: gcs.max_retries as usize,
    }
}

fn azure(azure: &storage::Azure) -> AzureConfig {
    AzureConfig {
        storage_account_name: azure.storage_account_name.clone(),
        storage_account_key: secret(&azure.storage_account_key),
        use_managed_identity: azure.use_managed_identity,
        use_federated_token: azure.use_federated_token,
        user_assigned_id: azure.user_assigned_id.clone(),
        container_name: azure.container_name.clone(),
        prefix: azure.prefix.clone(),
        endpoint_suffix: azure.endpoint_suffix.clone(),
        max_buffers: azure.max_buffers as usize,
        buffer_size_bytes: azure.buffer_size.0,
        hedge: HedgeConfig {
            at: azure.hedge_requests_at.0,
            up_to: azure.hedge_requests_up_to,
        },
    }
}

/// How blocks are written.
pub(crate) fn block(config: &Config) -> Result<BlockSettings, UnusableSetting> {
    let block = &config.storage.trace.block;
    let version = match block.version.as_str() {
        "" | "vParquet4" => Version::VParquet4,
        "vParquet5" => Version::VParquet5,
        other => {
            return Err(UnusableSetting::new(
                "storage.trace.block.version",
                format!("{other} cannot be written: use vParquet4 or vParquet5"),
            ));
        }
    };
    Ok(BlockSettings {
        version,
        row_group_size_bytes: block.parquet_row_group_size_bytes.0,
        bloom_false_positive: block.bloom_filter_false_positive,
        bloom_shard_size_bytes: u32::try_from(block.bloom_filter_shard_size_bytes.0).map_err(
            |_| {
                UnusableSetting::new(
                    "storage.trace.block.bloom_filter_shard_size_bytes",
                    "must be below 4 GiB",
                )
            },
        )?,
    })
}

/// Attributes that blocks of tenants without a list of their own store in columns.
pub(crate) fn dedicated(config: &Config) -> DedicatedColumns {
    dedicated_columns(&config.storage.trace.block.parquet_dedicated_columns)
}

pub(crate) fn poller(config: &Config) -> PollerConfig {
    let trace = &config.storage.trace;
    PollerConfig {
        poll_interval: trace.blocklist_poll.0,
        meta_concurrency: trace.blocklist_poll_concurrency as usize,
        tenant_concurrency: trace.blocklist_poll_tenant_concurrency as usize,
        fallback: trace.blocklist_poll_fallback,
        stale_tenant_index: trace.blocklist_poll_stale_tenant_index.0,
        jitter: Duration::from_millis(trace.blocklist_poll_jitter_ms),
        tolerate_consecutive_errors: trace.blocklist_poll_tolerate_consecutive_errors,
        tolerate_tenant_failures: trace.blocklist_poll_tolerate_tenant_failures as usize,
        empty_tenant_deletion_enabled: trace.empty_tenant_deletion_enabled,
        empty_tenant_deletion_age: trace.empty_tenant_deletion_age.0,
    }
}

/// How long after a block was built everybody sees it: one poll until the list is made anew, one until
/// it is read, and the time that both take. Live-stores tell of it then, and keep it for as long again.
pub(crate) fn blocks_visible_after(config: &Config) -> Duration {
    config.storage.trace.blocklist_poll.0 * 5 / 2
}

/// A list of an older listing may lack blocks that live-stores have let go of: they keep them for twice
/// [`blocks_visible_after`].
pub(crate) fn max_list_age(config: &Config) -> Duration {
    config.storage.trace.blocklist_poll.0 * 4
}

/// How long blocks are kept where the tenant does not say.
pub(crate) fn retention(config: &Config) -> RetentionPolicy {
    let compaction = &config.backend_worker.compaction;
    RetentionPolicy {
        block_retention: compaction.block_retention.0,
        compacted_block_retention: compaction.compacted_block_retention.0,
    }
}

/// The format that blocks are written in.
pub(crate) fn block_format(config: &Config) -> Result<BlockFormat, UnusableSetting> {
    Ok(match block(config)?.version {
        Version::VParquet4 => BlockFormat::VParquet4,
        Version::VParquet5 => BlockFormat::VParquet5,
    })
}
