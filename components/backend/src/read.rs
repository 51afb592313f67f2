//! Reading objects, whole or in ranges.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, path::PathBuf};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;

use crate::{Backend, Error, ObjectKey, ReadStats, Timestamp, backend::StoreKind};

/// Reading a page of the page cache twice costs less than copying a gap of this many bytes.
const LOCAL_MERGE_GAP_BYTES: u64 = 4096;

impl Backend {
    /// Reads a whole object.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it does not exist.
    pub async fn read(&self, key: &ObjectKey, stats: &ReadStats) -> Result<Bytes, Error> {
        let path = self.inner.prefix.path(key.as_str())?;
        let failed = |error| Error::from_store("reading", key.as_str(), error);
        let answer = self.inner.store.get(&path).await.map_err(failed)?;
        let bytes = answer.bytes().await.map_err(failed)?;
        stats.record(bytes.len() as u64);
        Ok(bytes)
    }

    /// Reads bytes `range` of an object.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it does not exist, [`Error::Corrupt`] when it is shorter than the
    /// range wants.
    pub async fn read_range(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
        stats: &ReadStats,
    ) -> Result<Bytes, Error> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let path = self.inner.prefix.path(key.as_str())?;
        let wanted = range.end - range.start;
        let bytes = match self.inner.store.get_range(&path, range.clone()).await {
            Ok(bytes) => bytes,
            Err(error) => {
                let error = Error::from_store("reading", key.as_str(), error);
                return Err(self.explain_failed_range(key, &range, error).await);
            }
        };
        stats.record(bytes.len() as u64);
        check_length(key, &range, wanted, bytes.len())?;
        Ok(bytes)
    }

    /// Stores refuse a range that begins beyond the end, each in its own words. Such an object is
    /// damaged, and asking again would not help.
    async fn explain_failed_range(
        &self,
        key: &ObjectKey,
        range: &Range<u64>,
        error: Error,
    ) -> Error {
        let speaks_of_range = error.to_string().to_ascii_lowercase().contains("range");
        if error.is_transient()
            && speaks_of_range
            && let Ok(size) = self.size(key).await
            && size < range.end
        {
            return too_short(key, range);
        }
        error
    }

    /// Reads several ranges of an object, answered in their order. Ranges that lie close together
    /// are read in one request; requests run concurrently.
    ///
    /// # Errors
    /// As [`Backend::read_range`].
    pub async fn read_ranges(
        &self,
        key: &ObjectKey,
        ranges: &[Range<u64>],
        stats: &ReadStats,
    ) -> Result<Vec<Bytes>, Error> {
        let merged = merge(ranges, self.merge_gap_bytes());
        let fetched: Vec<Bytes> = stream::iter(merged.iter().cloned())
            .map(|range| self.read_range(key, range, stats))
            .buffered(self.inner.reads.max_concurrent_requests.max(1))
            .try_collect()
            .await?;
        Ok(cut(ranges, &merged, &fetched))
    }

    /// [`Backend::read_ranges`] for threads that may block; a local file is read directly.
    ///
    /// Must not be called from an async task: it would block its runtime (and panics there).
    ///
    /// # Errors
    /// As [`Backend::read_range`].
    pub fn read_ranges_blocking(
        &self,
        key: &ObjectKey,
        ranges: &[Range<u64>],
        stats: &ReadStats,
    ) -> Result<Vec<Bytes>, Error> {
        let Some(path) = self.local_path(key)? else {
            return self
                .inner
                .runtime
                .block_on(self.read_ranges(key, ranges, stats));
        };
        let failed = |error: io::Error| local_error(key, error);
        let file = File::open(path).map_err(failed)?;
        let merged = merge(ranges, self.merge_gap_bytes());
        let mut fetched = Vec::with_capacity(merged.len());
        for range in &merged {
            fetched.push(read_file_range(&file, key, range)?);
            stats.record(range.end - range.start);
        }
        Ok(cut(ranges, &merged, &fetched))
    }

    /// [`Backend::read_range`] for threads that may block; see [`Backend::read_ranges_blocking`].
    ///
    /// # Errors
    /// As [`Backend::read_range`].
    pub fn read_range_blocking(
        &self,
        key: &ObjectKey,
        range: Range<u64>,
        stats: &ReadStats,
    ) -> Result<Bytes, Error> {
        let mut answer = self.read_ranges_blocking(key, std::slice::from_ref(&range), stats)?;
        Ok(answer.pop().unwrap_or_default())
    }

    /// [`Backend::read`] for threads that may block; see [`Backend::read_ranges_blocking`].
    ///
    /// # Errors
    /// [`Error::NotFound`] when it does not exist.
    pub fn read_blocking(&self, key: &ObjectKey, stats: &ReadStats) -> Result<Bytes, Error> {
        let Some(path) = self.local_path(key)? else {
            return self.inner.runtime.block_on(self.read(key, stats));
        };
        let bytes = std::fs::read(path).map_err(|error| local_error(key, error))?;
        stats.record(bytes.len() as u64);
        Ok(bytes.into())
    }

    /// Length of an object in bytes.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it does not exist.
    pub async fn size(&self, key: &ObjectKey) -> Result<u64, Error> {
        let path = self.inner.prefix.path(key.as_str())?;
        let meta = self
            .inner
            .store
            .head(&path)
            .await
            .map_err(|error| Error::from_store("looking up", key.as_str(), error))?;
        Ok(meta.size)
    }

    /// Whether an object exists.
    pub async fn exists(&self, key: &ObjectKey) -> Result<bool, Error> {
        match self.size(key).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// When an object was last written, by the store's clock; `None` when it does not exist.
    pub async fn last_modified(&self, key: &ObjectKey) -> Result<Option<Timestamp>, Error> {
        let path = self.inner.prefix.path(key.as_str())?;
        match self.inner.store.head(&path).await {
            Ok(meta) => Ok(Some(Timestamp::from(meta.last_modified))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::from_store("looking up", key.as_str(), error)),
        }
    }

    fn merge_gap_bytes(&self) -> u64 {
        match self.request_cost_bytes() {
            0 => self.inner.reads.merge_gap_bytes.min(LOCAL_MERGE_GAP_BYTES),
            cost => cost,
        }
    }

    /// How many bytes more in one request cost less than one more request; 0 where requests cost
    /// next to nothing.
    pub fn request_cost_bytes(&self) -> u64 {
        match self.inner.kind {
            StoreKind::Local | StoreKind::Memory => 0,
            _ => self.inner.reads.merge_gap_bytes.max(1),
        }
    }

    /// The file of an object, when objects are plain files.
    fn local_path(&self, key: &ObjectKey) -> Result<Option<PathBuf>, Error> {
        let Some(root) = &self.inner.local_root else {
            return Ok(None);
        };
        let path = self.inner.prefix.path(key.as_str())?;
        Ok(Some(root.join(path.as_ref())))
    }
}

fn read_file_range(file: &File, key: &ObjectKey, range: &Range<u64>) -> Result<Bytes, Error> {
    let wanted = range.end - range.start;
    let length = usize::try_from(wanted).map_err(|_| {
        Error::corrupt(
            key.as_str(),
            format_args!("a range of {wanted} bytes was asked for"),
        )
    })?;
    let mut buffer = vec![0; length];
    file.read_exact_at(&mut buffer, range.start)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => too_short(key, range),
            _ => local_error(key, error),
        })?;
    Ok(buffer.into())
}

fn local_error(key: &ObjectKey, error: io::Error) -> Error {
    let source = match error.kind() {
        io::ErrorKind::NotFound => object_store::Error::NotFound {
            path: key.to_string(),
            source: Box::new(error),
        },
        io::ErrorKind::PermissionDenied => object_store::Error::PermissionDenied {
            path: key.to_string(),
            source: Box::new(error),
        },
        _ => object_store::Error::Generic {
            store: "LocalFileSystem",
            source: Box::new(error),
        },
    };
    Error::from_store("reading", key.as_str(), source)
}

fn too_short(key: &ObjectKey, range: &Range<u64>) -> Error {
    Error::corrupt(
        key.as_str(),
        format_args!(
            "bytes {}..{} were asked for and it ends before",
            range.start, range.end
        ),
    )
}

fn check_length(
    key: &ObjectKey,
    range: &Range<u64>,
    wanted: u64,
    length: usize,
) -> Result<(), Error> {
    if length as u64 == wanted {
        Ok(())
    } else {
        Err(too_short(key, range))
    }
}

/// The fewest ranges that cover all of `ranges`, joined across gaps of up to `gap` bytes; sorted.
fn merge(ranges: &[Range<u64>], gap: u64) -> Vec<Range<u64>> {
    let mut sorted: Vec<Range<u64>> = ranges
        .iter()
        .filter(|range| !range.is_empty())
        .cloned()
        .collect();
    sorted.sort_unstable_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(gap) => {
                last.end = last.end.max(range.end);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// Cuts the asked `ranges` out of what was fetched for `merged`.
fn cut(ranges: &[Range<u64>], merged: &[Range<u64>], fetched: &[Bytes]) -> Vec<Bytes> {
    ranges
        .iter()
        .map(|range| {
            if range.is_empty() {
                return Bytes::new();
            }
            let holder = merged.partition_point(|whole| whole.end < range.end);
            match (merged.get(holder), fetched.get(holder)) {
                (Some(whole), Some(bytes)) => {
                    let start = (range.start - whole.start) as usize;
                    let end = (range.end - whole.start) as usize;
                    bytes.slice(start..end)
                }
                _ => Bytes::new(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BackendConfig, testing};

    #[test]
    fn near_ranges_are_merged_and_far_ones_are_not() {
        let merged = |ranges: &[Range<u64>], gap| {
            let bounds = merge(ranges, gap).into_iter();
            bounds
                .map(|range| (range.start, range.end))
                .collect::<Vec<_>>()
        };
        assert_eq!(merged(&[10..20, 0..5], 5), [(0, 20)]);
        assert_eq!(merged(&[10..20, 0..5], 4), [(0, 5), (10, 20)]);
        assert_eq!(merged(&[0..10, 2..4, 3..12, 30..30], 0), [(0, 12)]);
        assert!(merged(&[], 100).is_empty());
    }

    fn key() -> ObjectKey {
        ObjectKey::root("object")
    }

    fn content() -> Bytes {
        (0..=255_u8)
            .cycle()
            .take(20_000)
            .collect::<Vec<u8>>()
            .into()
    }

    #[tokio::test]
    async fn ranges_come_in_the_order_asked_and_requests_are_counted() {
        let backend = testing::memory();
        backend.write(&key(), content()).await.unwrap();
        let ranges = [15_000..15_010, 5..9, 0..3, 7..7, 2..6];
        let stats = ReadStats::new();
        let parts = backend.read_ranges(&key(), &ranges, &stats).await.unwrap();
        for (range, part) in ranges.iter().zip(&parts) {
            let (start, end) = (range.start as usize, range.end as usize);
            assert_eq!(part, &content().slice(start..end));
        }
        assert_eq!(stats.requests(), 2);
        assert_eq!(stats.bytes(), 9 + 10);
        let whole = backend.read(&key(), &stats).await.unwrap();
        assert_eq!(whole, content());
        assert_eq!(stats.requests(), 3);
    }

    #[tokio::test]
    async fn absent_objects_and_short_ones_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let local = Backend::open(
            &BackendConfig::local(directory.path()),
            &prometheus::Registry::new(),
        )
        .await
        .unwrap();
        for backend in [testing::memory(), local] {
            backend.write(&key(), content()).await.unwrap();
            tokio::task::spawn_blocking(move || {
                let stats = ReadStats::new();
                let absent = ObjectKey::root("absent");
                let error = backend.read_range_blocking(&absent, 0..1, &stats);
                assert!(error.unwrap_err().is_not_found());
                assert!(
                    backend
                        .read_blocking(&absent, &stats)
                        .unwrap_err()
                        .is_not_found()
                );
                let error = backend.read_range_blocking(&key(), 19_999..20_001, &stats);
                assert!(matches!(error, Err(Error::Corrupt { .. })), "{error:?}");
                let error = backend.read_range_blocking(&key(), 20_000..20_001, &stats);
                assert!(matches!(error, Err(Error::Corrupt { .. })), "{error:?}");
                let tail = backend.read_range_blocking(&key(), 19_999..20_000, &stats);
                assert_eq!(tail.unwrap(), content().slice(19_999..));
                assert_eq!(backend.read_blocking(&key(), &stats).unwrap(), content());
            })
            .await
            .unwrap();
        }
    }

    #[tokio::test]
    async fn a_failing_range_fails_the_read() {
        let (backend, faults) = testing::faulty(&testing::memory());
        backend.write(&key(), content()).await.unwrap();
        faults.fail_next_on(testing::Operation::Read, "object", 1);
        let ranges = [0..1, 10_000..10_001];
        let error = backend
            .read_ranges(&key(), &ranges, &ReadStats::new())
            .await
            .unwrap_err();
        assert!(error.is_transient(), "{error}");
    }
}
