//! `storage.trace`: the object store, blocks, polling.

use std::collections::BTreeMap;

use crate::block::block;
use crate::blocks::cache::{BackgroundCache, Memcached, Redis};
use crate::blocks::clients::ClientTls;
use crate::blocks::ingest::Wal;
use crate::units::{ByteSize, GoDuration, Secret, choice};

choice! {
    /// Kinds of object store.
    pub enum BackendKind {
        /// Not chosen.
        #[default]
        None = "",
        /// Amazon S3 and what speaks like it.
        S3 = "s3",
        /// Google Cloud Storage.
        Gcs = "gcs",
        /// Azure Blob Storage.
        Azure = "azure",
        /// A folder.
        Local = "local",
    }
}

choice! {
    /// Where a dedicated attribute is set.
    pub enum DedicatedScope {
        /// On the span.
        #[default]
        Span = "span",
        /// On the resource.
        Resource = "resource",
        /// On an event.
        Event = "event",
    }
}

choice! {
    /// The type of a dedicated attribute.
    pub enum DedicatedType {
        /// Text.
        #[default]
        String = "string",
        /// Whole numbers.
        Int = "int",
    }
}

block! {
    /// An attribute with a column of its own.
    pub struct DedicatedColumn {
        /// Where it is set.
        used scope: DedicatedScope = DedicatedScope::Span,
        /// Its name.
        used name: String = "",
        /// Its type.
        used r#type: DedicatedType = DedicatedType::String,
        /// `array`: several values; `blob`: long and hardly repeated values.
        used options: Vec<String> = [""; 0],
    }
}

/// Tempo's columns when none are configured.
pub(crate) fn default_dedicated_columns() -> Vec<DedicatedColumn> {
    let column = |scope, name: &str, r#type| DedicatedColumn {
        scope,
        name: name.to_owned(),
        r#type,
        options: Vec::new(),
    };
    use DedicatedScope::{Resource, Span};
    use DedicatedType::{Int, String};
    vec![
        column(Resource, "k8s.cluster.name", String),
        column(Resource, "k8s.namespace.name", String),
        column(Resource, "k8s.pod.name", String),
        column(Resource, "k8s.container.name", String),
        column(Span, "http.request.method", String),
        column(Span, "http.response.status_code", Int),
        column(Span, "url.path", String),
        column(Span, "url.route", String),
        column(Span, "server.address", String),
        column(Span, "server.port", Int),
        column(Span, "http.method", String),
        column(Span, "http.url", String),
        column(Span, "http.route", String),
        column(Span, "http.status_code", Int),
    ]
}

block! {
    /// How blocks are written.
    pub struct Block {
        /// Share of lookups that the bloom filter answers with a wrong yes.
        used bloom_filter_false_positive: f64 = 0.01,
        /// Size of a piece of the bloom filter.
        used bloom_filter_shard_size_bytes: ByteSize = ByteSize(102_400),
        /// Format of new blocks: vParquet4, or vParquet5 where this version writes it; empty means the newest one that is written.
        used version: String = "",
        /// Size of a row group.
        used parquet_row_group_size_bytes: ByteSize = ByteSize(100_000_000),
        /// Attributes with a column of their own.
        used parquet_dedicated_columns: Vec<DedicatedColumn> = default_dedicated_columns(),
    }
}

block! {
    /// Which parts of a block the cache of `storage.trace.cache` holds, beside bloom filters and
    /// indexes of trace ids.
    pub struct CacheControl {
        /// The footer.
        used footer: bool = false,
        /// The column index.
        used column_index: bool = false,
        /// The offset index.
        used offset_index: bool = false,
    }
}

block! {
    /// How blocks are read. Reads are planned by ranges here.
    pub struct Search {
        /// For the retired block format v2.
        ignored chunk_size_bytes: ByteSize = ByteSize(1_000_000),
        /// For the retired block format v2.
        ignored prefetch_trace_count: i64 = 1000,
        /// Read buffers per block.
        ignored read_buffer_count: i64 = 32,
        /// Size of a read buffer.
        ignored read_buffer_size_bytes: ByteSize = ByteSize(1_048_576),
        /// Which parts of a block are cached.
        used cache_control: CacheControl = CacheControl::default(),
    }
}

block! {
    /// Threads for reads.
    pub struct Pool {
        /// Reads at once.
        later max_workers: u32 = 400u32,
        /// Reads that wait.
        later queue_depth: u32 = 20_000u32,
    }
}

block! {
    /// Blocks in a folder.
    pub struct Local {
        /// Folder.
        used path: String = "",
    }
}

block! {
    /// Encryption by the store.
    pub struct Sse {
        /// SSE-S3, SSE-KMS or SSE-C; empty means none.
        used r#type: String = "",
        /// SSE-KMS: id of the key.
        used kms_key_id: String = "",
        /// SSE-KMS: context (JSON).
        used kms_encryption_context: String = "",
        /// SSE-C: key of 32 bytes.
        used encryption_key: Secret = Secret::default(),
    }
}

block! {
    /// Amazon S3 and what speaks like it.
    pub struct S3 {
        /// Bucket.
        used bucket: String = "",
        /// Prefix of every key.
        used prefix: String = "",
        /// Host and port; empty means Amazon's for the region.
        used endpoint: String = "",
        /// Region.
        used region: String = "",
        /// Access key; empty means the chain of environment, files and instance role.
        used access_key: String = "",
        /// Secret key.
        used secret_key: Secret = Secret::default(),
        /// Session token.
        used session_token: Secret = Secret::default(),
        /// Speak HTTP rather than HTTPS.
        used insecure: bool = false,
        /// Size of the parts of an upload; 0 means the library's choice.
        used part_size: ByteSize = ByteSize(0),
        /// Send a read again after this time; 0 means never.
        used hedge_requests_at: GoDuration = GoDuration::ZERO,
        /// How often a read may be under way.
        used hedge_requests_up_to: u32 = 2u32,
        /// Tries of a request.
        used retry_max_attempts: u32 = 10u32,
        /// First wait between tries.
        used retry_backoff_initial: GoDuration = GoDuration::millis(200),
        /// Longest wait between tries.
        used retry_backoff_max: GoDuration = GoDuration::seconds(1),
        /// Sign requests in the old way; not supported.
        used signature_v2: bool = false,
        /// Put the bucket into the path rather than the host name.
        used forcepathstyle: bool = false,
        /// Use addresses of IPv4 and IPv6.
        used enable_dual_stack: bool = false,
        /// Where the bucket's name goes: 0 automatic, 1 host name, 2 path.
        used bucket_lookup_type: i32 = 0,
        /// Tags of every object.
        used tags: BTreeMap<String, String> = BTreeMap::new(),
        /// Storage class of every object.
        used storage_class: String = "",
        /// Metadata of every object.
        used metadata: BTreeMap<String, String> = BTreeMap::new(),
        /// Deprecated; has no effect.
        ignored native_aws_auth_enabled: bool = false,
        /// Listings at once.
        used list_blocks_concurrency: u32 = 3u32,
        /// Encryption by the store.
        used sse: Sse = Sse::default(),
        ..tls: ClientTls = ClientTls {
            tls_min_version: "VersionTLS12".to_owned(),
            ..ClientTls::default()
        },
    }
}

block! {
    /// Google Cloud Storage.
    pub struct Gcs {
        /// Bucket.
        used bucket_name: String = "",
        /// Prefix of every key.
        used prefix: String = "",
        /// Size of the parts of an upload.
        used chunk_buffer_size: ByteSize = ByteSize(10_485_760),
        /// Address of another server; empty means Google's.
        used endpoint: String = "",
        /// Send a read again after this time; 0 means never.
        used hedge_requests_at: GoDuration = GoDuration::ZERO,
        /// How often a read may be under way.
        used hedge_requests_up_to: u32 = 2u32,
        /// Neither login nor check of certificates, for emulators.
        used insecure: bool = false,
        /// Cache-Control of every object.
        used object_cache_control: String = "",
        /// Metadata of every object.
        used object_metadata: BTreeMap<String, String> = BTreeMap::new(),
        /// Listings at once.
        used list_blocks_concurrency: u32 = 3u32,
        /// Tries after the first.
        used max_retries: u32 = 3u32,
    }
}

block! {
    /// Azure Blob Storage.
    pub struct Azure {
        /// Account; empty means the variable AZURE_STORAGE_ACCOUNT.
        used storage_account_name: String = "",
        /// Key of the account; empty means the variable AZURE_STORAGE_KEY.
        used storage_account_key: Secret = Secret::default(),
        /// Log in with the managed identity.
        used use_managed_identity: bool = false,
        /// Log in with a federated token.
        used use_federated_token: bool = false,
        /// Id of a managed identity.
        used user_assigned_id: String = "",
        /// Container.
        used container_name: String = "",
        /// Prefix of every key.
        used prefix: String = "",
        /// End of the host name; one that does not begin with `blob.` is taken as an emulator.
        used endpoint_suffix: String = "blob.core.windows.net",
        /// Buffers of an upload.
        used max_buffers: u32 = 4u32,
        /// Size of a buffer.
        used buffer_size: ByteSize = ByteSize(3_145_728),
        /// Send a read again after this time; 0 means never.
        used hedge_requests_at: GoDuration = GoDuration::ZERO,
        /// How often a read may be under way.
        used hedge_requests_up_to: u32 = 2u32,
    }
}

block! {
    /// Blocks of traces.
    pub struct TraceStorage {
        /// Threads for reads.
        later pool: Pool = Pool::default(),
        /// Write-ahead log of retired components; live-stores have their own.
        ignored wal: Wal = Wal::default(),
        /// How blocks are written.
        used block: Block = Block::default(),
        /// How blocks are read.
        used search: Search = Search::default(),
        /// Time between looks for new blocks.
        used blocklist_poll: GoDuration = GoDuration::minutes(5),
        /// Reads of block metas at once.
        used blocklist_poll_concurrency: u32 = 50u32,
        /// Tenants looked at at once; 0 means one.
        used blocklist_poll_tenant_concurrency: u32 = 0u32,
        /// Look for all blocks when the tenant's index can't be read.
        used blocklist_poll_fallback: bool = true,
        /// Processes that write the tenant's index.
        later blocklist_poll_tenant_index_builders: u32 = 2u32,
        /// Age at which a tenant's index is not believed; 0 means one and a half polls where all blocks may be looked for instead, else never.
        used blocklist_poll_stale_tenant_index: GoDuration = GoDuration::ZERO,
        /// Milliseconds by which looks are spread.
        used blocklist_poll_jitter_ms: u64 = 0u64,
        /// Failures one after the other of a tenant that do not count.
        used blocklist_poll_tolerate_consecutive_errors: u32 = 1u32,
        /// Tenants that may fail before the whole look counts as failed.
        used blocklist_poll_tolerate_tenant_failures: u32 = 1u32,
        /// Remove the index of tenants without blocks.
        used empty_tenant_deletion_enabled: bool = false,
        /// How long a tenant must be empty; 0 means 12h.
        used empty_tenant_deletion_age: GoDuration = GoDuration::ZERO,
        /// Kind of object store.
        used backend: BackendKind = BackendKind::None,
        /// A folder, when it is the store.
        used local: Local = Local::default(),
        /// Google Cloud Storage, when it is the store.
        used gcs: Gcs = Gcs::default(),
        /// Amazon S3, when it is the store.
        used s3: S3 = S3::default(),
        /// Azure Blob Storage, when it is the store.
        used azure: Azure = Azure::default(),
        /// Deprecated for `cache`: memcached or redis.
        used cache: String = "",
        /// Deprecated for `cache`: writes in the background.
        used background_cache: BackgroundCache = BackgroundCache::default(),
        /// Deprecated for `cache`: memcached.
        used memcached: Option<Memcached> = None,
        /// Deprecated for `cache`: Redis.
        used redis: Option<Redis> = None,
        /// Bloom filters of blocks that were compacted less often are not cached.
        later cache_min_compaction_level: u32 = 0u32,
        /// Bloom filters of older blocks are not cached; 0 means any age.
        later cache_max_block_age: GoDuration = GoDuration::ZERO,
    }
}

block! {
    /// Storage.
    pub struct Storage {
        /// Blocks of traces.
        used trace: TraceStorage = TraceStorage::default(),
    }
}
