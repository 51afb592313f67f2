//! The handle on one object store.

use std::{path::PathBuf, sync::Arc};

use object_store::{Attributes, ObjectStore, TagSet};

use crate::{BackendConfig, Error, ReadConfig, keys::Prefix, stores};

/// An object store that holds Tempo's blocks, under one prefix. Cheap to clone.
///
/// Reads, writes and block operations are in the files named after them; all take keys without
/// the prefix.
#[derive(Clone)]
pub struct Backend {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) prefix: Prefix,
    pub(crate) kind: StoreKind,
    pub(crate) reads: ReadConfig,
    pub(crate) writes: WriteSettings,
    /// Listings of one tenant's blocks in flight at once.
    pub(crate) list_blocks_concurrency: usize,
    /// Where the store begins, when objects are plain files: reads then bypass the async runtime.
    pub(crate) local_root: Option<PathBuf>,
    pub(crate) runtime: tokio::runtime::Handle,
}

/// What every written object carries, and how uploads are cut.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriteSettings {
    pub(crate) attributes: Attributes,
    pub(crate) tags: TagSet,
    pub(crate) part_bytes: usize,
    pub(crate) parts_in_flight: usize,
    pub(crate) max_parts: usize,
}

/// Which kind of store it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// A directory of this machine.
    Local,
    /// S3.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
    /// Memory of this process, in tests.
    Memory,
}

impl Backend {
    /// Opens the store and checks, by listing one key, that it answers. Must be called within a
    /// tokio runtime, which also serves the blocking reads.
    ///
    /// Metrics go to `registry`: `tempodb_backend_request_duration_seconds{operation,status_code}`
    /// and `tempodb_backend_hedged_roundtrips_total`.
    ///
    /// # Errors
    /// [`Error::Config`] names the setting to look at.
    pub async fn open(
        config: &BackendConfig,
        registry: &prometheus::Registry,
    ) -> Result<Self, Error> {
        stores::open(config, registry).await
    }

    /// Which kind of store it is.
    pub fn kind(&self) -> StoreKind {
        self.inner.kind
    }
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Backend({})", self.inner.store)
    }
}
