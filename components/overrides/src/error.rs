//! What can be wrong with overrides.

/// Why overrides cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The runtime file cannot be read, or what it says cannot be used.
    #[error("per_tenant_override_config '{file}': {problem}")]
    File {
        /// Its path.
        file: String,
        /// What is wrong with it and where, and the remedy.
        problem: String,
    },
    /// The object store with what tenants set themselves fails.
    #[error("user-configurable overrides: {0}")]
    Store(#[from] tempo_backend::Error),
    /// What a tenant has set itself cannot be read.
    #[error("user-configurable overrides of tenant '{tenant}': {problem}")]
    Document {
        /// The tenant.
        tenant: String,
        /// What is wrong with the document, and the remedy.
        problem: String,
    },
    /// The metrics are registered already.
    #[error("metrics of the overrides: {0}")]
    Metrics(String),
}

impl Error {
    pub(crate) fn file(file: &str, problem: impl std::fmt::Display) -> Self {
        Self::File {
            file: file.to_owned(),
            problem: problem.to_string(),
        }
    }

    /// Whether a later attempt may succeed without anyone changing anything.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }
}
