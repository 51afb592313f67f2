//! What can be wrong with overrides.

/// Why overrides cannot be used.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A key is unknown or its value cannot be used.
    #[error("{path}: {problem}")]
    Invalid {
        /// The path of the key.
        path: String,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// The runtime file cannot be read.
    #[error("per_tenant_override_config '{file}': {problem}")]
    File {
        /// Its path.
        file: String,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// The metrics are registered already.
    #[error("metrics of the overrides: {0}")]
    Metrics(String),
}

impl Error {
    pub(crate) fn invalid(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid {
            path: path.into(),
            problem: problem.into(),
        }
    }

    pub(crate) fn file(file: &str, problem: impl std::fmt::Display) -> Self {
        Self::File {
            file: file.to_owned(),
            problem: problem.to_string(),
        }
    }
}
