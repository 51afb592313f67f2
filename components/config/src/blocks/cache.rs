//! `cache`: memcached and Redis, by role.

use crate::block::block;
use crate::blocks::clients::ClientTls;
use crate::units::{ByteSize, GoDuration, Secret, choice};

choice! {
    /// What a cache holds.
    pub enum CacheRole {
        /// Pieces of bloom filters.
        #[default]
        Bloom = "bloom",
        /// The index from trace ids to row groups.
        TraceIdIndex = "trace-id-index",
        /// Footers of Parquet files.
        ParquetFooter = "parquet-footer",
        /// Column indexes.
        ParquetColumnIndex = "parquet-column-idx",
        /// Offset indexes.
        ParquetOffsetIndex = "parquet-offset-idx",
        /// Pages.
        ParquetPage = "parquet-page",
        /// Answers of search jobs.
        FrontendSearch = "frontend-search",
    }
}

block! {
    /// Writes in the background.
    pub struct BackgroundCache {
        /// Writes at once.
        used writeback_goroutines: u32 = 10u32,
        /// Writes that wait; more are dropped.
        used writeback_buffer: u32 = 10_000u32,
    }
}

block! {
    /// memcached.
    pub struct Memcached {
        /// Host name, resolved to the addresses of all servers.
        used host: String = "",
        /// Port of the servers; the name of a service stands for 11211.
        used service: String = "",
        /// Servers, separated by commas, instead of a host name.
        used addresses: String = "",
        /// Longest time for a request.
        used timeout: GoDuration = GoDuration::millis(100),
        /// Longest time to connect; 0 means `timeout`.
        used connect_timeout: GoDuration = GoDuration::ZERO,
        /// Idle connections per server.
        used max_idle_conns: u32 = 100u32,
        /// Idle connections to keep, in per cent above those in use; negative means all.
        ignored min_idle_conns_headroom_percentage: f64 = -1.0,
        /// Largest item; 0 means any size.
        used max_item_size: ByteSize = ByteSize(0),
        /// Time between looks for servers.
        used update_interval: GoDuration = GoDuration::minutes(1),
        /// Spread keys so that few move when servers change.
        used consistent_hash: bool = false,
        /// Failures in a row after which a server is left alone; 0 means 5.
        used circuit_breaker_consecutive_failures: u32 = 0u32,
        /// How long it is left alone; 0 means 10s.
        used circuit_breaker_timeout: GoDuration = GoDuration::ZERO,
        /// Time after which failures are forgotten.
        ignored circuit_breaker_interval: GoDuration = GoDuration::ZERO,
        /// Use TLS; not possible, so that `true` is refused.
        used tls_enabled: bool = false,
        /// Age at which items go; 0 means the server's choice.
        used ttl: GoDuration = GoDuration::ZERO,
        /// The same under another name.
        used expiration: GoDuration = GoDuration::ZERO,
        ..tls: ClientTls = ClientTls::default(),
    }
}

block! {
    /// Redis.
    pub struct Redis {
        /// Hosts and ports, separated by commas.
        used endpoint: String = "",
        /// Longest time for a request; 0 means 100ms.
        used timeout: GoDuration = GoDuration::ZERO,
        /// Age at which items go.
        used expiration: GoDuration = GoDuration::ZERO,
        /// Number of the database.
        used db: u32 = 0u32,
        /// Connections; 0 means the library's choice.
        ignored pool_size: u32 = 0u32,
        /// User name.
        used username: String = "",
        /// Password.
        used password: Secret = Secret::default(),
        /// One server rather than a cluster.
        used single_node: bool = false,
        /// Use TLS; not possible, so that `true` is refused.
        used tls_enabled: bool = false,
        /// Time that an idle connection stays open.
        ignored conn_max_idle_time: GoDuration = GoDuration::ZERO,
        /// Time that a connection stays open.
        ignored conn_max_lifetime: GoDuration = GoDuration::ZERO,
        /// Read from the nearest server.
        ignored route_by_latency: bool = false,
        /// Read from any server.
        ignored route_randomly: bool = false,
        /// Read from replicas.
        ignored read_only: bool = false,
        /// Redirections to follow.
        ignored max_redirects: u32 = 0u32,
        /// Idle connections to keep.
        ignored min_idle_conns: u32 = 0u32,
        /// Largest item; 0 means any size.
        used max_item_size: ByteSize = ByteSize(0),
        /// Age at which items go.
        used ttl: GoDuration = GoDuration::ZERO,
        ..tls: ClientTls = ClientTls::default(),
    }
}

block! {
    /// One cache and what it holds.
    pub struct CacheEntry {
        /// What it holds; each role in one cache only.
        used roles: Vec<CacheRole> = Vec::new(),
        /// memcached.
        used memcached: Option<Memcached> = None,
        /// Redis.
        used redis: Option<Redis> = None,
    }
}

block! {
    /// Caches of the object store.
    pub struct Cache {
        /// Writes in the background.
        used background: BackgroundCache = BackgroundCache::default(),
        /// The caches.
        used caches: Vec<CacheEntry> = Vec::new(),
    }
}
