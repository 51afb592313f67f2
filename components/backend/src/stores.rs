//! Opening the store that the configuration names.

use std::{path::Path, sync::Arc};

use object_store::local::LocalFileSystem;

use crate::{
    Backend, BackendConfig, Error, StoreConfig,
    backend::{Inner, StoreKind, WriteSettings},
    config::LocalConfig,
    keys::Prefix,
};

/// Bytes of one part of an upload where nothing is configured.
const DEFAULT_PART_BYTES: usize = 8 * 1024 * 1024;

pub(crate) async fn open(
    config: &BackendConfig,
    _registry: &prometheus::Registry,
) -> Result<Backend, Error> {
    match &config.store {
        StoreConfig::Local(local) => open_local(config, local),
        _ => Err(Error::config(
            format!("{}.backend", config.section),
            "only local is built so far",
        )),
    }
}

fn open_local(config: &BackendConfig, local: &LocalConfig) -> Result<Backend, Error> {
    let unusable = |error: &dyn std::fmt::Display| {
        Error::config(
            format!("{}.local.path", config.section),
            format!(
                "directory '{}' cannot be used: {error}; it must be writable by this process",
                local.path.display()
            ),
        )
    };
    create_private_directory(&local.path).map_err(|error| unusable(&error))?;
    let root = local
        .path
        .canonicalize()
        .map_err(|error| unusable(&error))?;
    let store = LocalFileSystem::new_with_prefix(&root)
        .map_err(|error| unusable(&error))?
        .with_automatic_cleanup(true)
        .with_fsync(true);
    Ok(Backend {
        inner: Arc::new(Inner {
            store: Arc::new(store),
            prefix: Prefix::default(),
            kind: StoreKind::Local,
            reads: config.reads.clone(),
            writes: WriteSettings {
                part_bytes: DEFAULT_PART_BYTES,
                parts_in_flight: 1,
                max_parts: usize::MAX,
                ..WriteSettings::default()
            },
            list_blocks_concurrency: 1,
            local_root: Some(root),
            runtime: tokio::runtime::Handle::current(),
        }),
    })
}

/// Creates a directory, and those above it, for this user alone.
fn create_private_directory(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}
