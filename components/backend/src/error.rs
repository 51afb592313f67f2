//! What can go wrong with the object store.

use std::{sync::Arc, time::Duration};

/// Why an operation on the backend failed. Variants tell callers apart that act differently.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The object does not exist. Many flows depend on telling this apart.
    #[error("object '{key}' does not exist")]
    NotFound {
        /// Its key, without the configured prefix.
        key: String,
    },
    /// The object was read, and its content is not what it should be. Retrying does not help.
    #[error("object '{key}' is damaged: {problem}")]
    Corrupt {
        /// Its key, without the configured prefix.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A setting is missing, contradicts another or cannot be used.
    #[error("setting '{setting}': {problem}")]
    Config {
        /// The setting's full path in the configuration file.
        setting: String,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// The store answered that these credentials may not do this.
    #[error("{operation} '{key}' was denied: {source}")]
    Denied {
        /// What was tried.
        operation: &'static str,
        /// The key.
        key: String,
        /// The store's answer.
        source: Arc<object_store::Error>,
    },
    /// The store could not be reached or failed, after all retries.
    #[error("{operation} '{key}' failed: {source}")]
    Storage {
        /// What was tried.
        operation: &'static str,
        /// The key.
        key: String,
        /// The last failure.
        source: Arc<object_store::Error>,
    },
    /// The tenant index is older than the configuration allows.
    #[error("index of tenant '{tenant}' is {age:?} old, more than {limit:?}")]
    StaleTenantIndex {
        /// The tenant.
        tenant: String,
        /// Its age.
        age: Duration,
        /// `blocklist_poll_stale_tenant_index`.
        limit: Duration,
    },
    /// The tenant index says that it will be written: of the clocks of this process and of the writer
    /// one is wrong, and so it does not tell how old it is.
    #[error(
        "index of tenant '{tenant}' is {ahead:?} ahead of the clock here; set the clocks of whoever writes indexes and whoever reads them"
    )]
    FutureTenantIndex {
        /// The tenant.
        tenant: String,
        /// How far.
        ahead: Duration,
    },
    /// More tenants failed than a poll tolerates; all lists stay as they were.
    #[error("{failed_tenants} tenants failed, {tolerated} are tolerated; the last error: {last}")]
    PollAborted {
        /// How many failed before the poll was given up.
        failed_tenants: usize,
        /// `blocklist_poll_tolerate_tenant_failures`.
        tolerated: usize,
        /// The last failure.
        last: Box<Error>,
    },
    /// The object exists where it must not, or is of another version than was expected: someone
    /// else was quicker.
    #[error("version of object '{key}' does not match")]
    VersionMismatch {
        /// Its key, without the configured prefix.
        key: String,
    },
    /// The key cannot name an object: a segment is empty, `.`, `..` or has a control character.
    #[error("'{key}' cannot be an object key: {problem}")]
    InvalidKey {
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether a later attempt may succeed without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Storage { .. })
    }

    pub(crate) fn from_store(
        operation: &'static str,
        key: &str,
        source: object_store::Error,
    ) -> Self {
        let key = key.to_owned();
        match source {
            object_store::Error::NotFound { .. } => Self::NotFound { key },
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => Self::Denied {
                operation,
                key,
                source: Arc::new(source),
            },
            object_store::Error::InvalidPath { source } => Self::InvalidKey {
                key,
                problem: source.to_string(),
            },
            source => Self::Storage {
                operation,
                key,
                source: Arc::new(source),
            },
        }
    }

    pub(crate) fn corrupt(key: &str, problem: impl std::fmt::Display) -> Self {
        Self::Corrupt {
            key: key.to_owned(),
            problem: problem.to_string(),
        }
    }

    pub(crate) fn version_mismatch(key: &crate::ObjectKey) -> Self {
        Self::VersionMismatch {
            key: key.as_str().to_owned(),
        }
    }

    pub(crate) fn config(setting: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Config {
            setting: setting.into(),
            problem: problem.into(),
        }
    }
}
