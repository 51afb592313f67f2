//! Objects that several processes change: read with their version, replaced only at that version.
//!
//! Where the store can carry the condition with the write (S3, Google, Azure), a version that has
//! passed is refused there. A local directory cannot, and no store can for a removal: the version
//! is looked up right before, and who calls from several processes may lose one of two writes in
//! that moment.

use bytes::Bytes;
use object_store::{
    ObjectMeta, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion, path::Path,
};

use crate::{Backend, Error, ObjectKey, ReadStats, backend::StoreKind};

/// Which content of an object it is: a generation in Google's store, else the entity tag without
/// its quotes. Opaque, except that it equals itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion(String);

impl ObjectVersion {
    /// A version that someone remembers, as it was shown.
    pub fn new(shown: &str) -> Self {
        Self(shown.trim().trim_matches('"').to_owned())
    }

    /// As it is shown to clients.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the store itself wants to hear of a version.
struct Found {
    version: ObjectVersion,
    raw: UpdateVersion,
}

impl Backend {
    /// Reads a whole object and which version of it that is.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it does not exist.
    pub async fn read_versioned(
        &self,
        key: &ObjectKey,
        stats: &ReadStats,
    ) -> Result<(Bytes, ObjectVersion), Error> {
        let path = self.inner.prefix.path(key.as_str())?;
        let failed = |error| Error::from_store("reading", key.as_str(), error);
        let answer = self.inner.store.get(&path).await.map_err(failed)?;
        let found = self.found(key, &answer.meta)?;
        let bytes = answer.bytes().await.map_err(failed)?;
        stats.record(bytes.len() as u64);
        Ok((bytes, found.version))
    }

    /// Writes an object that must not exist (`expected` is none), or replaces this version of it;
    /// returns the version written.
    ///
    /// # Errors
    /// [`Error::VersionMismatch`] when it exists, or is of another version.
    pub async fn write_versioned(
        &self,
        key: &ObjectKey,
        bytes: Bytes,
        expected: Option<&ObjectVersion>,
    ) -> Result<ObjectVersion, Error> {
        let path = self.inner.prefix.path(key.as_str())?;
        let mode = match expected {
            None => PutMode::Create,
            Some(expected) => PutMode::Update(self.expect(key, &path, expected).await?.raw),
        };
        let settings = &self.inner.writes;
        let options = PutOptions {
            mode,
            tags: settings.tags.clone(),
            attributes: settings.attributes.clone(),
            ..PutOptions::default()
        };
        let put = |options| {
            let payload = PutPayload::from_bytes(bytes.clone());
            self.inner.store.put_opts(&path, payload, options)
        };
        let written = match put(options.clone()).await {
            Err(error) if is_not_built(&error) => {
                // The version has been looked up above; of an object that must not exist, here.
                if expected.is_none() && self.exists(key).await? {
                    return Err(Error::version_mismatch(key));
                }
                let mode = PutMode::Overwrite;
                put(PutOptions { mode, ..options }).await
            }
            outcome => outcome,
        };
        match written {
            Ok(result) if result.e_tag.is_some() || result.version.is_some() => {
                Ok(self.version(result.e_tag.as_deref(), result.version.as_deref()))
            }
            Ok(_) => Ok(self.current(key, &path).await?.version),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. }
                | object_store::Error::NotModified { .. },
            ) => Err(Error::version_mismatch(key)),
            Err(error) => Err(Error::from_store("writing", key.as_str(), error)),
        }
    }

    /// Removes this version of an object.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it does not exist, [`Error::VersionMismatch`] when it is of another
    /// version.
    pub async fn delete_versioned(
        &self,
        key: &ObjectKey,
        expected: &ObjectVersion,
    ) -> Result<(), Error> {
        let path = self.inner.prefix.path(key.as_str())?;
        let found = self.current(key, &path).await?;
        if found.version != *expected {
            return Err(Error::version_mismatch(key));
        }
        self.inner
            .store
            .delete(&path)
            .await
            .map_err(|error| Error::from_store("deleting", key.as_str(), error))
    }

    async fn expect(
        &self,
        key: &ObjectKey,
        path: &Path,
        expected: &ObjectVersion,
    ) -> Result<Found, Error> {
        match self.current(key, path).await {
            Ok(found) if found.version == *expected => Ok(found),
            Ok(_) => Err(Error::version_mismatch(key)),
            Err(error) if error.is_not_found() => Err(Error::version_mismatch(key)),
            Err(error) => Err(error),
        }
    }

    async fn current(&self, key: &ObjectKey, path: &Path) -> Result<Found, Error> {
        let meta = self
            .inner
            .store
            .head(path)
            .await
            .map_err(|error| Error::from_store("looking up", key.as_str(), error))?;
        self.found(key, &meta)
    }

    fn found(&self, key: &ObjectKey, meta: &ObjectMeta) -> Result<Found, Error> {
        if meta.e_tag.is_none() && meta.version.is_none() {
            return Err(Error::corrupt(
                key.as_str(),
                "the store tells neither its entity tag nor its version",
            ));
        }
        Ok(Found {
            version: self.version(meta.e_tag.as_deref(), meta.version.as_deref()),
            raw: UpdateVersion {
                e_tag: meta.e_tag.clone(),
                version: meta.version.clone(),
            },
        })
    }

    fn version(&self, e_tag: Option<&str>, generation: Option<&str>) -> ObjectVersion {
        let shown = match self.inner.kind {
            StoreKind::Gcs => generation.or(e_tag),
            _ => e_tag.or(generation),
        };
        let version = ObjectVersion::new(shown.unwrap_or_default());
        match self.inner.kind {
            // Its tags count from 0, which is no version to those who ask for "0" for nothing.
            StoreKind::Memory => ObjectVersion(format!("memory-{}", version.0)),
            _ => version,
        }
    }
}

/// Whether the store does not know conditions on writes.
fn is_not_built(error: &object_store::Error) -> bool {
    match error {
        object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } => {
            true
        }
        // What servers of S3's protocol say.
        object_store::Error::Generic { source, .. } => {
            source.to_string().contains("NotImplemented")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BackendConfig, testing};

    async fn stores() -> (Vec<Backend>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let local = Backend::open(
            &BackendConfig::local(directory.path()),
            &prometheus::Registry::new(),
        )
        .await
        .unwrap();
        (vec![testing::memory(), local], directory)
    }

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[tokio::test]
    async fn only_the_version_that_was_read_is_replaced() {
        let (stores, _directory) = stores().await;
        for store in stores {
            let key = ObjectKey::overrides("t");
            let stats = ReadStats::new();
            let mismatch = |outcome: Result<ObjectVersion, Error>| {
                assert!(matches!(outcome, Err(Error::VersionMismatch { .. })));
            };
            assert!(store.read_versioned(&key, &stats).await.is_err());
            let other = ObjectVersion::new("123");
            mismatch(store.write_versioned(&key, bytes("x"), Some(&other)).await);

            let first = store.write_versioned(&key, bytes("1"), None).await.unwrap();
            mismatch(store.write_versioned(&key, bytes("x"), None).await);
            let (read, version) = store.read_versioned(&key, &stats).await.unwrap();
            assert_eq!((&*read, &version), (&b"1"[..], &first));
            // As clients send it back.
            let quoted = ObjectVersion::new(&format!("\"{}\"", first.as_str()));
            let second = store
                .write_versioned(&key, bytes("22"), Some(&quoted))
                .await
                .unwrap();
            assert_ne!(first, second);
            mismatch(store.write_versioned(&key, bytes("x"), Some(&first)).await);
            assert!(matches!(
                store.delete_versioned(&key, &first).await,
                Err(Error::VersionMismatch { .. })
            ));
            let (read, _) = store.read_versioned(&key, &stats).await.unwrap();
            assert_eq!(&*read, b"22");

            assert_eq!(store.list_override_tenants().await.unwrap(), ["t"]);
            store.delete_versioned(&key, &second).await.unwrap();
            assert!(
                store
                    .delete_versioned(&key, &second)
                    .await
                    .unwrap_err()
                    .is_not_found()
            );
            // A folder may stay behind.
            assert!(store.list_override_tenants().await.is_ok());
        }
    }

    #[tokio::test]
    async fn of_many_writers_at_once_one_wins() {
        let store = testing::memory();
        let key = ObjectKey::overrides("t");
        let version = store.write_versioned(&key, bytes("0"), None).await.unwrap();
        let writers = (0..16).map(|_| store.write_versioned(&key, bytes("1"), Some(&version)));
        let outcomes = futures::future::join_all(writers).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    }
}
