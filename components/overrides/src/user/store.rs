//! The documents: `overrides/<tenant>/overrides.json`.

use std::sync::Arc;

use bytes::Bytes;
use tempo_backend::{Backend, ObjectKey, ObjectVersion, ReadStats};
use tempo_config::blocks::user_overrides::UserOverrides;
use tokio::sync::{Mutex, MutexGuard};

use crate::{Error, metrics::UserMetrics};

/// A larger document is neither taken nor read.
pub(crate) const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;

/// The store of documents. Cheap to clone.
#[derive(Clone)]
pub(crate) struct UserStore {
    backend: Backend,
    metrics: UserMetrics,
    changes: Arc<Mutex<()>>,
}

/// A document and which version of it that is.
pub(crate) struct Stored {
    pub(crate) document: UserOverrides,
    pub(crate) version: ObjectVersion,
}

impl UserStore {
    pub(crate) fn new(backend: Backend, registry: &prometheus::Registry) -> Result<Self, Error> {
        Ok(Self {
            backend,
            metrics: UserMetrics::register(registry)?,
            changes: Arc::default(),
        })
    }

    pub(crate) fn metrics(&self) -> &UserMetrics {
        &self.metrics
    }

    /// Held while a document is read and put to use or changed, so that an older one is not put to
    /// use after a newer one, and that changes from this process follow one another also where the
    /// store knows no conditions.
    pub(crate) async fn exclusive(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().await
    }

    /// Tenants that may have a document.
    pub(crate) async fn tenants(&self) -> Result<Vec<String>, Error> {
        self.metrics.lists.inc();
        Ok(self.backend.list_override_tenants().await?)
    }

    /// The document of a tenant, when it has one. Keys of a later version are left out of it.
    pub(crate) async fn get(&self, tenant: &str) -> Result<Option<Stored>, Error> {
        self.metrics.fetches.with_label_values(&[tenant]).inc();
        let outcome = self.read(tenant).await;
        if !matches!(outcome, Ok(Some(_))) {
            let failed = &self.metrics.failed_fetches;
            failed.with_label_values(&[tenant]).inc();
        }
        outcome
    }

    async fn read(&self, tenant: &str) -> Result<Option<Stored>, Error> {
        let key = ObjectKey::overrides(tenant);
        let (bytes, version) = match self.backend.read_versioned(&key, &ReadStats::new()).await {
            Ok(read) => read,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let damaged = |problem: String| Error::Document {
            tenant: tenant.to_owned(),
            problem: format!("{key}: {problem}; put it right, or remove it"),
        };
        if bytes.len() > MAX_DOCUMENT_BYTES {
            return Err(damaged(format!(
                "it has more than {MAX_DOCUMENT_BYTES} bytes"
            )));
        }
        let json: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(format!("it is not JSON: {error}")))?;
        let (document, left_out) = UserOverrides::from_stored_json(&json.to_string())
            .map_err(|error| damaged(problems(&error)))?;
        if !left_out.is_empty() {
            tracing::warn!(
                tenant,
                keys = left_out.join(", "),
                "user-configurable overrides with keys that are not known here; they have no effect"
            );
        }
        Ok(Some(Stored { document, version }))
    }

    /// Writes the first document of a tenant (`expected` is none) or replaces this version.
    pub(crate) async fn set(
        &self,
        tenant: &str,
        document: &UserOverrides,
        expected: Option<&ObjectVersion>,
    ) -> Result<ObjectVersion, tempo_backend::Error> {
        let bytes = Bytes::from(document.to_json());
        let key = ObjectKey::overrides(tenant);
        self.backend.write_versioned(&key, bytes, expected).await
    }

    /// Removes this version of a tenant's document. One that is gone already is no error.
    pub(crate) async fn delete(
        &self,
        tenant: &str,
        expected: &ObjectVersion,
    ) -> Result<(), tempo_backend::Error> {
        let key = ObjectKey::overrides(tenant);
        match self.backend.delete_versioned(&key, expected).await {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        }
    }
}

/// What is wrong with a document, by path: it is one line, as a rule, so lines tell nothing.
pub(super) fn problems(error: &tempo_config::Error) -> String {
    let tempo_config::Error::Issues(issues) = error else {
        return error.to_string();
    };
    let texts: Vec<String> = issues
        .iter()
        .map(|issue| match issue.path.as_str() {
            "" => issue.message.clone(),
            path => format!("{path}: {}", issue.message),
        })
        .collect();
    texts.join("\n")
}
