//! Writing objects, at once or as a stream.

use std::io;

use bytes::Bytes;
use object_store::{PutMultipartOptions, PutOptions, PutPayload, WriteMultipart, path::Path};

use crate::{Backend, Error, ObjectKey};

impl Backend {
    /// Writes a whole object, replacing what is there. When it returns, the object is as durable
    /// as the store makes it; on local disks file and directories are synced.
    ///
    /// Readers see the old object or the new one, never a part.
    pub async fn write(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), Error> {
        let path = self.inner.prefix.path(key.as_str())?;
        self.put(&path, bytes)
            .await
            .map_err(|error| Error::from_store("writing", key.as_str(), error))
    }

    async fn put(&self, path: &Path, bytes: Bytes) -> object_store::Result<()> {
        let settings = &self.inner.writes;
        let options = PutOptions {
            tags: settings.tags.clone(),
            attributes: settings.attributes.clone(),
            ..PutOptions::default()
        };
        self.inner
            .store
            .put_opts(path, PutPayload::from_bytes(bytes), options)
            .await
            .map(|_| ())
    }

    /// Begins an object whose bytes arrive bit by bit. It appears, whole and durable, when
    /// [`ObjectWriter::finish`] has returned; until then nothing is to be seen.
    pub async fn put_stream(&self, key: &ObjectKey) -> Result<ObjectWriter, Error> {
        Ok(ObjectWriter {
            path: self.inner.prefix.path(key.as_str())?,
            backend: self.clone(),
            key: key.clone(),
            head: Vec::new(),
            upload: None,
            length: 0,
        })
    }
}

/// An object on its way into the store. Dropping it unfinished aborts the upload.
///
/// Holds up to one part in memory plus those in flight. An object smaller than one part is written
/// in one request.
pub struct ObjectWriter {
    backend: Backend,
    key: ObjectKey,
    path: Path,
    /// What was written so far, while it fits one part.
    head: Vec<Bytes>,
    upload: Option<WriteMultipart>,
    length: u64,
}

impl ObjectWriter {
    /// Appends `bytes`; waits while the parts in flight are at their limit.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let settings = &self.backend.inner.writes;
        let limit = (settings.part_bytes as u64).saturating_mul(settings.max_parts as u64);
        self.length += bytes.len() as u64;
        if self.length > limit {
            return Err(Error::config(
                "part_size",
                format!(
                    "'{}' is longer than {limit} bytes, {} parts of {} bytes; raise it",
                    self.key, settings.max_parts, settings.part_bytes
                ),
            ));
        }
        if self.upload.is_none() {
            self.head.push(bytes);
            if self.length < settings.part_bytes as u64 {
                return Ok(());
            }
            self.begin_upload().await?;
        } else if let Some(upload) = &mut self.upload {
            upload.put(bytes);
        }
        self.wait_for_capacity().await
    }

    /// Bytes written so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Completes the object and returns its length in bytes.
    pub async fn finish(mut self) -> Result<u64, Error> {
        let length = self.length;
        let done = match self.upload.take() {
            Some(upload) => upload.finish().await.map(|_| ()),
            None => {
                let bytes = concat(std::mem::take(&mut self.head));
                self.backend.put(&self.path, bytes).await
            }
        };
        done.map_err(|error| Error::from_store("writing", self.key.as_str(), error))?;
        Ok(length)
    }

    /// Gives up; removes what was uploaded.
    pub async fn abort(mut self) -> Result<(), Error> {
        match self.upload.take() {
            Some(upload) => abort(upload)
                .await
                .map_err(|error| Error::from_store("aborting", self.key.as_str(), error)),
            None => Ok(()),
        }
    }

    /// A writer for threads that may block.
    pub fn into_blocking(self) -> BlockingObjectWriter {
        BlockingObjectWriter {
            buffer: Vec::new(),
            writer: self,
        }
    }

    async fn begin_upload(&mut self) -> Result<(), Error> {
        let inner = &self.backend.inner;
        let options = PutMultipartOptions {
            tags: inner.writes.tags.clone(),
            attributes: inner.writes.attributes.clone(),
            ..PutMultipartOptions::default()
        };
        let upload = inner
            .store
            .put_multipart_opts(&self.path, options)
            .await
            .map_err(|error| Error::from_store("writing", self.key.as_str(), error))?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, inner.writes.part_bytes);
        for bytes in std::mem::take(&mut self.head) {
            upload.put(bytes);
        }
        self.upload = Some(upload);
        Ok(())
    }

    async fn wait_for_capacity(&mut self) -> Result<(), Error> {
        let limit = self.backend.inner.writes.parts_in_flight;
        let Some(upload) = &mut self.upload else {
            return Ok(());
        };
        upload
            .wait_for_capacity(limit)
            .await
            .map_err(|error| Error::from_store("writing", self.key.as_str(), error))
    }
}

impl Drop for ObjectWriter {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            let key = self.key.clone();
            self.backend.inner.runtime.spawn(async move {
                if let Err(error) = abort(upload).await {
                    tracing::warn!(%key, %error, "upload not aborted, its parts stay in the store");
                }
            });
        }
    }
}

/// Removes what was uploaded. Parts in flight come to their end first: a part that arrives after
/// the end of its upload may stay in the store, unseen and paid for.
async fn abort(mut upload: WriteMultipart) -> object_store::Result<()> {
    if let Err(error) = upload.wait_for_capacity(0).await {
        tracing::debug!(%error, "part of an aborted upload failed");
    }
    upload.abort().await
}

fn concat(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut all = Vec::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in &parts {
        all.extend_from_slice(part);
    }
    all.into()
}

/// Bytes that a [`BlockingObjectWriter`] gathers before it hands them on.
const BLOCKING_BUFFER_BYTES: usize = 256 * 1024;

/// [`ObjectWriter`] as [`io::Write`], for threads that may block.
///
/// Must not be used from an async task: it would block its runtime (and panics there).
pub struct BlockingObjectWriter {
    buffer: Vec<u8>,
    writer: ObjectWriter,
}

impl BlockingObjectWriter {
    /// Completes the object and returns its length in bytes.
    pub fn finish(mut self) -> Result<u64, Error> {
        self.hand_on()?;
        let runtime = self.writer.backend.inner.runtime.clone();
        runtime.block_on(self.writer.finish())
    }

    fn hand_on(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        let runtime = self.writer.backend.inner.runtime.clone();
        runtime.block_on(self.writer.write(bytes))
    }
}

impl io::Write for BlockingObjectWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The buffer never grows: what is in it would be copied.
        if self.buffer.len() + bytes.len() > BLOCKING_BUFFER_BYTES {
            self.hand_on().map_err(io::Error::other)?;
        }
        if self.buffer.is_empty() {
            self.buffer.reserve(BLOCKING_BUFFER_BYTES.max(bytes.len()));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Does nothing: only [`BlockingObjectWriter::finish`] makes an object.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{
        BackendConfig, ReadStats,
        testing::{self, Fault, Faults, Gate, MEMORY_PART_BYTES, Operation},
    };

    fn key() -> ObjectKey {
        ObjectKey::root("t/object")
    }

    async fn absent(backend: &Backend) -> bool {
        !backend.exists(&key()).await.unwrap()
    }

    fn store() -> (Backend, Faults) {
        testing::faulty(&testing::memory())
    }

    fn chunk(byte: u8) -> Bytes {
        vec![byte; MEMORY_PART_BYTES * 2 / 3].into()
    }

    #[tokio::test]
    async fn a_stream_becomes_one_object_only_when_finished() {
        for chunks in [0, 1, 2, 9] {
            let (backend, faults) = store();
            let mut writer = backend.put_stream(&key()).await.unwrap();
            let mut expected = Vec::new();
            for byte in 0..chunks {
                writer.write(chunk(byte)).await.unwrap();
                expected.extend_from_slice(&chunk(byte));
            }
            assert!(absent(&backend).await);
            assert_eq!(writer.length(), expected.len() as u64);
            assert_eq!(writer.finish().await.unwrap(), expected.len() as u64);
            let read = backend.read(&key(), &ReadStats::new()).await.unwrap();
            assert_eq!(read, expected);
            if chunks < 2 {
                assert_eq!(faults.count(Operation::Write, "object"), 1);
            }
        }
    }

    #[tokio::test]
    async fn a_failed_part_fails_the_stream_and_leaves_nothing() {
        let (backend, faults) = store();
        let mut writer = backend.put_stream(&key()).await.unwrap();
        faults.fail_on(Operation::Write, "object");
        let mut failed = false;
        for byte in 0..6 {
            failed |= writer.write(chunk(byte)).await.is_err();
        }
        failed |= writer.finish().await.is_err();
        assert!(failed);
        faults.heal();
        assert!(absent(&backend).await);
    }

    #[tokio::test]
    async fn an_object_longer_than_its_parts_allow_names_the_setting() {
        let (backend, _) = store();
        let mut writer = backend.put_stream(&key()).await.unwrap();
        let too_long = Bytes::from(vec![0; MEMORY_PART_BYTES * 1000 + 1]);
        let error = writer.write(too_long).await.unwrap_err();
        assert!(error.to_string().contains("part_size"), "{error}");
    }

    #[tokio::test]
    async fn an_aborted_local_stream_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let backend = Backend::open(
            &BackendConfig::local(directory.path()),
            &prometheus::Registry::new(),
        )
        .await
        .unwrap();
        let mut writer = backend.put_stream(&key()).await.unwrap();
        writer.write(vec![1; 3 << 20].into()).await.unwrap();
        let files = || -> Vec<String> {
            let entries = std::fs::read_dir(directory.path().join("t"))
                .into_iter()
                .flatten();
            entries
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect()
        };
        assert_eq!(files(), ["object#1"]);
        writer.abort().await.unwrap();
        assert!(files().is_empty());

        let mut writer = backend.put_stream(&key()).await.unwrap();
        writer.write(vec![1; 3 << 20].into()).await.unwrap();
        assert_eq!(writer.finish().await.unwrap(), 3 << 20);
        assert_eq!(files(), ["object"]);
    }

    #[tokio::test]
    async fn a_reader_sees_the_old_object_while_a_new_one_is_written() {
        let (backend, faults) = store();
        backend
            .write(&key(), Bytes::from_static(b"old"))
            .await
            .unwrap();
        let gate = Gate::new();
        faults.inject(Fault {
            operation: Some(Operation::Write),
            key_contains: "object".to_owned(),
            times: Some(1),
            effect: testing::Effect::Wait(gate.clone()),
        });
        let writing = {
            let backend = backend.clone();
            tokio::spawn(async move { backend.write(&key(), Bytes::from_static(b"new")).await })
        };
        gate.arrived().await;
        let read = || async { backend.read(&key(), &ReadStats::new()).await.unwrap() };
        assert_eq!(read().await, "old");
        gate.open();
        writing.await.unwrap().unwrap();
        assert_eq!(read().await, "new");
    }

    #[tokio::test]
    async fn the_blocking_writer_writes_the_same_bytes() {
        let backend = testing::memory();
        let writer = backend.put_stream(&key()).await.unwrap();
        let length = tokio::task::spawn_blocking(move || {
            let mut writer = writer.into_blocking();
            for byte in 0..200_u8 {
                writer.write_all(&vec![byte; 5000]).unwrap();
            }
            writer.flush().unwrap();
            writer.finish().unwrap()
        })
        .await
        .unwrap();
        assert_eq!(length, 1_000_000);
        let read = backend.read(&key(), &ReadStats::new()).await.unwrap();
        assert!(
            read.chunks(5000)
                .enumerate()
                .all(|(index, part)| { part.iter().all(|&byte| usize::from(byte) == index) })
        );
    }
}
