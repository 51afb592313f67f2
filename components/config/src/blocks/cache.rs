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
        later writeback_goroutines: u32 = 10u32,
        /// Writes that wait; more are dropped.
        later writeback_buffer: u32 = 10_000u32,
    }
}

block! {
    /// memcached.
    pub struct Memcached {
        /// Host name, resolved to all servers.
        later host: String = "",
        /// Port or name of the service.
        later service: String = "",
        /// Servers, separated by commas, instead of a host name.
        later addresses: String = "",
        /// Longest time for a request.
        later timeout: GoDuration = GoDuration::millis(100),
        /// Longest time to connect; 0 means `timeout`.
        later connect_timeout: GoDuration = GoDuration::ZERO,
        /// Idle connections per server.
        later max_idle_conns: u32 = 100u32,
        /// Idle connections to keep, in per cent above those in use; negative means all.
        later min_idle_conns_headroom_percentage: f64 = -1.0,
        /// Largest item; 0 means any size.
        later max_item_size: ByteSize = ByteSize(0),
        /// Time between looks for servers.
        later update_interval: GoDuration = GoDuration::minutes(1),
        /// Spread keys so that few move when servers change.
        later consistent_hash: bool = false,
        /// Failures after which a server is left alone; 0 means never.
        later circuit_breaker_consecutive_failures: u32 = 0u32,
        /// How long it is left alone.
        later circuit_breaker_timeout: GoDuration = GoDuration::ZERO,
        /// Time after which failures are forgotten.
        later circuit_breaker_interval: GoDuration = GoDuration::ZERO,
        /// Use TLS.
        later tls_enabled: bool = false,
        /// Age at which items go; 0 means the server's choice.
        later ttl: GoDuration = GoDuration::ZERO,
        /// The same under another name.
        ignored expiration: GoDuration = GoDuration::ZERO,
        ..tls: ClientTls = ClientTls::default(),
    }
}

block! {
    /// Redis.
    pub struct Redis {
        /// Hosts and ports, separated by commas.
        later endpoint: String = "",
        /// Longest time for a request; 0 means 100ms.
        later timeout: GoDuration = GoDuration::ZERO,
        /// Age at which items go.
        later expiration: GoDuration = GoDuration::ZERO,
        /// Number of the database.
        later db: u32 = 0u32,
        /// Connections; 0 means the library's choice.
        later pool_size: u32 = 0u32,
        /// User name.
        later username: String = "",
        /// Password.
        later password: Secret = Secret::default(),
        /// One server rather than a cluster.
        later single_node: bool = false,
        /// Use TLS.
        later tls_enabled: bool = false,
        /// Time that an idle connection stays open.
        later conn_max_idle_time: GoDuration = GoDuration::ZERO,
        /// Time that a connection stays open.
        later conn_max_lifetime: GoDuration = GoDuration::ZERO,
        /// Read from the nearest server.
        later route_by_latency: bool = false,
        /// Read from any server.
        later route_randomly: bool = false,
        /// Read from replicas.
        later read_only: bool = false,
        /// Redirections to follow.
        later max_redirects: u32 = 0u32,
        /// Idle connections to keep.
        later min_idle_conns: u32 = 0u32,
        /// Largest item; 0 means any size.
        later max_item_size: ByteSize = ByteSize(0),
        /// Age at which items go.
        later ttl: GoDuration = GoDuration::ZERO,
        ..tls: ClientTls = ClientTls::default(),
    }
}

block! {
    /// One cache and what it holds.
    pub struct CacheEntry {
        /// What it holds; each role in one cache only.
        later roles: Vec<CacheRole> = Vec::new(),
        /// memcached.
        later memcached: Option<Memcached> = None,
        /// Redis.
        later redis: Option<Redis> = None,
    }
}

block! {
    /// Caches of the object store.
    pub struct Cache {
        /// Writes in the background.
        later background: BackgroundCache = BackgroundCache::default(),
        /// The caches.
        later caches: Vec<CacheEntry> = Vec::new(),
    }
}
