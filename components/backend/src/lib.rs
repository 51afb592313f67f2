//! Tempo's blocks in an object store: keys, metas, listings, the blocklist, retention and caches.
//!
//! The only crate that names `object_store`. Owns where objects lie ([`ObjectKey`]), what a block
//! says about itself ([`BlockMeta`]), the handle on the store ([`Backend`]), the list of blocks
//! ([`Blocklist`]), and when blocks end ([`plan_retention`]). Must never look inside a block:
//! what is in `data.parquet` is the block crate's.

mod backend;
mod blocklist;
mod blocks;
pub mod cache;
mod config;
mod dedicated;
mod error;
mod http;
mod keys;
mod meta;
mod metrics;
mod poller;
mod read;
mod retention;
mod stats;
mod stores;
mod tenant_index;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod timestamp;
mod versioned;
mod write;

pub use backend::{Backend, StoreKind};
pub use blocklist::{BlockChange, Blocklist, TenantBlocks, TraceLookup};
pub use blocks::BlockListing;
pub use config::{
    AzureConfig, BackendConfig, BucketLookup, GcsConfig, HedgeConfig, IneffectiveSetting,
    LocalConfig, ReadConfig, RetryConfig, S3Config, S3Encryption, Secret, StoreConfig, TlsConfig,
};
pub use dedicated::{
    DedicatedColumn, DedicatedColumns, DedicatedColumnsError, DedicatedColumnsSurplus,
    DedicatedOption, DedicatedScope, DedicatedType, MAX_INT_COLUMNS_V5, MAX_STRING_COLUMNS_V4,
    MAX_STRING_COLUMNS_V5,
};
pub use error::Error;
pub use keys::{
    CLUSTER_SEED, COMPACTED_META, DATA, INDEX, META, NO_COMPACT, ObjectKey, TENANT_INDEX_JSON,
    TENANT_INDEX_PROTO, WORK,
};
pub use meta::{BlockFormat, BlockMeta, CompactedBlockMeta, LEGACY_BLOOM_SHARDS};
pub use poller::{PollOutcome, Poller, PollerConfig, TenantIndexRole};
pub use retention::{
    DEFAULT_RETENTION_CONCURRENCY, Retention, RetentionOutcome, RetentionPlan, RetentionPolicy,
    plan_retention,
};
pub use stats::ReadStats;
pub use tenant_index::TenantIndex;
pub use timestamp::{ParseTimestampError, Timestamp};
pub use versioned::ObjectVersion;
pub use write::{BlockingObjectWriter, ObjectWriter};
