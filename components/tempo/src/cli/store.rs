//! The bucket that a subcommand looks at.

use std::sync::Arc;

use prometheus::Registry;
use tempo_backend::{Backend, BlockMeta, TenantBlocks, cache::Cache};
use tempo_config::{CommandLine, Config};
use uuid::Uuid;

use super::{CliError, arguments::Arguments};
use crate::settings;

/// Metas read at once.
const CONCURRENT_READS: usize = 32;

/// Footers and bloom filters kept, in bytes.
const CACHE_BYTES: u64 = 64 << 20;

/// The bucket.
pub(super) struct Store {
    pub(super) backend: Backend,
    pub(super) cache: Cache,
}

impl Store {
    /// Opens the bucket that the flags name.
    pub(super) async fn open(arguments: &Arguments) -> Result<Self, CliError> {
        let config = config(arguments)?;
        let backend_config = settings::backend(&config).map_err(CliError::failed)?;
        let registry = Registry::new();
        let backend = Backend::open(&backend_config, &registry)
            .await
            .map_err(CliError::failed)?;
        Ok(Self {
            backend,
            cache: Cache::new(CACHE_BYTES, &registry).map_err(CliError::failed)?,
        })
    }

    /// The blocks of a tenant, as the store lists them.
    pub(super) async fn blocks(&self, tenant: &str) -> Result<TenantBlocks, CliError> {
        use futures::{StreamExt, TryStreamExt, stream};
        let listing = self
            .backend
            .list_blocks(tenant)
            .await
            .map_err(CliError::failed)?;
        let live = stream::iter(listing.live)
            .map(|block| self.backend.read_meta(tenant, block))
            .buffered(CONCURRENT_READS)
            .map_ok(Arc::new)
            .filter_map(async |read| gone(read));
        let live = live.try_collect().await.map_err(CliError::failed)?;
        let compacted = stream::iter(listing.compacted)
            .map(|(block, _)| self.backend.read_compacted_meta(tenant, block))
            .buffered(CONCURRENT_READS)
            .map_ok(Arc::new)
            .filter_map(async |read| gone(read));
        let compacted = compacted.try_collect().await.map_err(CliError::failed)?;
        Ok(TenantBlocks::new(live, compacted))
    }

    /// The meta of a block, live or compacted.
    pub(super) async fn meta(&self, tenant: &str, block: &str) -> Result<Arc<BlockMeta>, CliError> {
        let block = Uuid::try_parse(block)
            .map_err(|error| CliError::Usage(format!("block {block}: {error}")))?;
        match self.backend.read_meta(tenant, block).await {
            Ok(meta) => Ok(Arc::new(meta)),
            Err(error) if error.is_not_found() => {
                let compacted = self.backend.read_compacted_meta(tenant, block).await;
                compacted.map(|block| block.meta).map_err(CliError::failed)
            }
            Err(error) => Err(CliError::failed(error)),
        }
    }
}

/// What was removed while the list was read is not there.
fn gone<T>(read: Result<T, tempo_backend::Error>) -> Option<Result<T, tempo_backend::Error>> {
    match read {
        Err(error) if error.is_not_found() => None,
        read => Some(read),
    }
}

/// Does work that reads blocks on a thread that may wait.
pub(super) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, CliError> + Send + 'static,
) -> Result<R, CliError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(CliError::failed)?
}

fn config(arguments: &Arguments) -> Result<Config, CliError> {
    match (arguments.value("config-file"), arguments.value("backend")) {
        (Some(_), Some(_)) => Err(CliError::Usage(
            "--config-file and --backend cannot be given together".to_owned(),
        )),
        (Some(path), None) => config_file(path),
        (None, Some(backend)) => config_text(&from_flags(backend, arguments)?),
        (None, None) => Err(CliError::Usage(
            "where are the blocks? give --config-file, or --backend and --bucket".to_owned(),
        )),
    }
}

/// The configuration in a file.
pub(super) fn config_file(path: &str) -> Result<Config, CliError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| CliError::Failed(format!("{path}: {error}")))?;
    config_text(&text)
}

/// The configuration in a text.
pub(super) fn config_text(text: &str) -> Result<Config, CliError> {
    let variable = |name: &str| std::env::var(name).ok();
    Config::load(Some(text), &CommandLine::default(), &variable).map_err(CliError::failed)
}

/// The same as YAML; JSON strings are YAML strings.
fn from_flags(backend: &str, arguments: &Arguments) -> Result<String, CliError> {
    let bucket = arguments
        .value("bucket")
        .ok_or_else(|| CliError::Usage("--bucket is missing".to_owned()))?;
    let store = match backend {
        "local" => serde_json::json!({ "path": bucket }),
        "s3" => serde_json::json!({
            "bucket": bucket,
            "endpoint": arguments.value("s3-endpoint").unwrap_or_default(),
            "access_key": arguments.value("s3-user").unwrap_or_default(),
            "secret_key": arguments.value("s3-pass").unwrap_or_default(),
            "insecure": arguments.is_set("insecure-skip-verify"),
            "forcepathstyle": arguments.value("s3-endpoint").is_some(),
        }),
        "gcs" => serde_json::json!({ "bucket_name": bucket }),
        "azure" => serde_json::json!({ "container_name": bucket }),
        other => {
            return Err(CliError::Usage(format!(
                "--backend {other}: use local, s3, gcs or azure"
            )));
        }
    };
    let config = serde_json::json!({
        "storage": { "trace": { "backend": backend, backend: store } }
    });
    Ok(config.to_string())
}
