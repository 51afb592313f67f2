//! Why the querier cannot start.

/// Why the querier cannot start.
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
    #[error("registering metrics of the querier: {0}")]
    Metrics(#[from] prometheus::Error),
}
