//! What can go wrong with the scheduler, and why a redaction is refused.

use std::path::PathBuf;

/// Why the scheduler cannot start, or cannot keep its promises.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot work.
    #[error("{setting}: {problem}")]
    Setting {
        /// Its path in the configuration.
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Another scheduler of this machine uses the folder.
    #[error(
        "{path} is in use by another backend-scheduler: run one per bucket, or give each bucket's \
         its own backend_scheduler.local_work_path"
    )]
    FolderInUse {
        /// The folder.
        path: PathBuf,
    },
    /// The folder of the jobs.
    #[error("backend_scheduler.local_work_path {path}: {source}")]
    Folder {
        /// What was read or written.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The jobs that were kept cannot be read.
    #[error("{place} does not hold jobs: {problem}; repair or remove it")]
    Corrupt {
        /// The file or object.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The bucket.
    #[error(transparent)]
    Backend(#[from] tempo_backend::Error),
    /// A metric could not be registered.
    #[error("registering metrics of the backend-scheduler: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Why a redaction is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The request does not make sense.
    #[error("{0}")]
    Invalid(String),
    /// The tenant's blocks are not to be touched.
    #[error("compaction is disabled for tenant {0}: redaction rewrites blocks")]
    CompactionDisabled(String),
    /// One at a time.
    #[error("tenant {tenant} has a redaction in progress: batch {batch}")]
    InProgress {
        /// The tenant.
        tenant: String,
        /// The batch that is not done.
        batch: String,
    },
    /// Nothing to look through.
    #[error("tenant {0} has no blocks")]
    NoBlocks(String),
    /// A dry run does not wait.
    #[error("all blocks of tenant {0} are being merged: try again later")]
    AllBusy(String),
    /// The jobs could not be kept.
    #[error("failed to flush cache to store: {0}")]
    NotKept(String),
    /// This scheduler is not the only one.
    #[error("{0}")]
    NotInCharge(String),
}
