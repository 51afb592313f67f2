//! A store in memory for blocks that are read back.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use prometheus::Registry;
use tempo_backend::{Backend, BlockFormat, BlockMeta, ObjectKey, ReadStats, cache::Cache};
use tempo_block::{read::BlockReader, write::FinishedBlock};
use tokio::runtime::Runtime;
use uuid::Uuid;

pub(crate) const TENANT: &str = "t";
pub(crate) const BLOCK: Uuid = Uuid::from_u128(0x1111_1111_2222_4333_8444_5555_5555_5555);

/// One object store for the life of the process; each run writes over what the last one left.
pub(crate) struct Store {
    runtime: Runtime,
    backend: Backend,
}

/// Hands the store to `run`, to one caller at a time.
pub(crate) fn with_store<T>(run: impl FnOnce(&Store) -> T) -> T {
    static STORE: OnceLock<Mutex<Store>> = OnceLock::new();
    let store = STORE.get_or_init(|| Mutex::new(Store::new()));
    run(&store.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Store {
    #[expect(
        clippy::expect_used,
        reason = "without a runtime there is nothing to run"
    )]
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .expect("a runtime");
        let backend = {
            let _inside = runtime.enter();
            tempo_backend::testing::memory()
        };
        Self { runtime, backend }
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// A cache that nothing has been put into.
    #[expect(clippy::expect_used, reason = "a fresh registry takes any metric")]
    pub(crate) fn cache(&self) -> Cache {
        Cache::new(1 << 20, &Registry::new()).expect("a cache")
    }

    /// Stores an object of the block.
    #[expect(clippy::expect_used, reason = "memory takes every object")]
    pub(crate) fn put(&self, key: &ObjectKey, content: Bytes) {
        self.runtime
            .block_on(self.backend.write(key, content))
            .expect("written");
    }

    /// Stores a block that was just built.
    pub(crate) fn put_block(&self, block: &FinishedBlock, data: Vec<u8>) {
        let (tenant, id) = (&*block.meta.tenant_id, block.meta.block_id);
        self.put(&ObjectKey::data(tenant, id), data.into());
        self.put(&ObjectKey::index(tenant, id), block.index.clone());
        for (shard, bloom) in (0..).zip(&block.blooms) {
            self.put(&ObjectKey::bloom(tenant, id, shard), bloom.clone());
        }
    }

    /// Opens the block that `meta` describes.
    pub(crate) fn open(
        &self,
        meta: &Arc<BlockMeta>,
    ) -> Result<Arc<BlockReader>, tempo_block::Error> {
        let stats = ReadStats::new();
        BlockReader::open(&self.backend, &self.cache(), Arc::clone(meta), stats)
    }
}

/// The meta of a block with nothing but a `data.parquet` of `size` bytes.
pub(crate) fn bare_meta(format: BlockFormat, size: usize) -> BlockMeta {
    let mut meta = BlockMeta::new(TENANT.into(), BLOCK, format);
    meta.size = size as u64;
    meta
}
