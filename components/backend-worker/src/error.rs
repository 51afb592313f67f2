//! What can go wrong with the worker and with a job.

use tempo_block::merge::MergeError;

/// Why the worker cannot start.
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
    /// A metric could not be registered.
    #[error("registering metrics of the backend-worker: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Retention could not be built.
    #[error(transparent)]
    Backend(#[from] tempo_backend::Error),
}

/// Why a job was not done.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A job that makes no sense.
    #[error("the job cannot be understood: {0}")]
    Bad(String),
    /// The store.
    #[error(transparent)]
    Backend(#[from] tempo_backend::Error),
    /// The blocks.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// A block that cannot be read.
    #[error(transparent)]
    Read(#[from] tempo_block::Error),
    /// The scheduler has given the job up, or the process ends: what was done is of no use, and
    /// nothing is to be said of it.
    #[error("the job was given up")]
    Abandoned,
}
