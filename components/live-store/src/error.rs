//! What can go wrong, by what the caller does about it.

use std::{io, path::PathBuf};

use tempo_model::{TraceId, tenant::TenantError};
use uuid::Uuid;

/// Why the live-store cannot be opened or cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is wrong.
    #[error("live_store.{key}: {reason}")]
    Config {
        /// The setting.
        key: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A folder or file of the data directory cannot be used.
    #[error("live-store data at {path}: {source}; check live_store.wal.path and its permissions")]
    Folder {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another process has the data directory.
    #[error(
        "{path} is in use by another process; give each process a live_store.wal.path of its own"
    )]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// A newer program wrote the log: this one would lose what it holds.
    #[error(
        "{path} has format version {version}, newer than this program; start the newer version and let it flush (POST /flush) first"
    )]
    NewerVersion {
        /// The segment.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The data directory holds what only another mode of the program can bring to safety.
    #[error("{path} was filled by {found}, and this process is to keep it as {wanted}: {remedy}")]
    OtherFeed {
        /// The data directory.
        path: PathBuf,
        /// What filled it.
        found: String,
        /// What is to fill it now.
        wanted: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Kafka's client cannot be made.
    #[error(transparent)]
    Kafka(#[from] tempo_ingest::Error),
    /// The store of local complete blocks.
    #[error("local block store: {0}")]
    Backend(#[from] tempo_backend::Error),
    /// A metric is registered twice.
    #[error("registering metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Why a push is refused. Nothing of a refused push is kept (a crash may keep it unacknowledged).
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The push would begin more traces than the tenant may have at once. The whole push is
    /// refused, so that no sender believes in spans that are gone.
    #[error(
        "LIVE_TRACES_EXCEEDED: max live traces exceeded for tenant {tenant}: {live} live, {new} new, limit {limit}. Raise ingestion.max_traces_per_user or retry later"
    )]
    LiveTraces {
        /// The tenant.
        tenant: String,
        /// Traces live now.
        live: usize,
        /// Traces the push would begin.
        new: usize,
        /// Most traces allowed.
        limit: u32,
    },
    /// What was accepted is not worked off yet.
    #[error("live-store is overloaded: {reason}; retry later")]
    Overloaded {
        /// What is full, with its limit.
        reason: String,
    },
    /// The disk is full or failing.
    #[error("live-store cannot write: {reason}; retry later")]
    Disk {
        /// What the disk said.
        reason: String,
    },
    /// Not started yet or about to end.
    #[error("live-store is {0}")]
    NotRunning(&'static str),
    /// What it holds comes from Kafka.
    #[error("this live-store reads Kafka; send spans to a distributor")]
    ReadsLog,
    /// The push can never be accepted.
    #[error(
        "push of {bytes} bytes is larger than the {max_bytes} that can be kept; send less at once"
    )]
    TooLarge {
        /// Its bytes.
        bytes: u64,
        /// Most bytes.
        max_bytes: u64,
    },
    /// The tenant id is not one.
    #[error(transparent)]
    Tenant(#[from] TenantError),
}

/// What a sender should do about a [`PushError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushErrorKind {
    /// Slow down and retry: `ResourceExhausted`, 429.
    ResourceExhausted,
    /// Retry: `Unavailable`, 503.
    Unavailable,
    /// Do not retry: `InvalidArgument`, 400.
    InvalidArgument,
}

impl PushError {
    /// What the sender should do.
    pub fn kind(&self) -> PushErrorKind {
        match self {
            Self::LiveTraces { .. } | Self::Overloaded { .. } | Self::Disk { .. } => {
                PushErrorKind::ResourceExhausted
            }
            Self::NotRunning(_) => PushErrorKind::Unavailable,
            Self::TooLarge { .. } | Self::Tenant(_) | Self::ReadsLog => {
                PushErrorKind::InvalidArgument
            }
        }
    }
}

/// Why recent data cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not started yet or ended.
    #[error("live-store is {0}")]
    NotRunning(&'static str),
    /// The query asks for what was not read from Kafka yet.
    #[error("cannot guarantee complete results")]
    Lagging,
    /// The query looks here for what only blocks of the object store hold by now.
    #[error(
        "spans of that time are only in blocks by now, which the query-frontend has not heard yet"
    )]
    Forgotten,
    /// A part of a trace that is in the log.
    #[error("reading trace {trace_id}: {reason}")]
    Log {
        /// The trace.
        trace_id: TraceId,
        /// What the log said.
        reason: String,
    },
    /// Live columns could not be made.
    #[error("building live columns of tenant {tenant}: {reason}")]
    Columns {
        /// The tenant.
        tenant: String,
        /// What went wrong.
        reason: String,
    },
    /// A local complete block.
    #[error("local block {block_id} of tenant {tenant}: {source}")]
    Block {
        /// The tenant.
        tenant: String,
        /// The block.
        block_id: Uuid,
        /// What the block said.
        source: tempo_block::Error,
    },
}

/// What a flush could not bring to the store. It is kept and tried again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{} of {} blocks are not in the object store yet: {}", left.len(), blocks, left.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct FlushError {
    /// How many blocks were to be flushed.
    pub blocks: usize,
    /// Those that are not in the store.
    pub left: Vec<UnflushedBlock>,
}

/// A block that is not in the object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnflushedBlock {
    /// The tenant.
    pub tenant: String,
    /// The block.
    pub block_id: Uuid,
    /// Why, as of the last attempt.
    pub reason: String,
}

impl std::fmt::Display for UnflushedBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "block {} of tenant {}: {}",
            self.block_id, self.tenant, self.reason
        )
    }
}
