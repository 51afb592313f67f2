//! Reading objects of the store through caches in other processes.

use std::ops::Range;

use bytes::Bytes;

use super::{super::CacheRole, RemoteCaches};
use crate::{Backend, Error, ObjectKey, ReadStats};

/// Larger reads are not cached: they would push out many small ones, and servers refuse them.
const MAX_CACHED_READ_BYTES: u64 = 1024 * 1024;

/// An object's key as caches know it, shared with Tempo: `<tenant>:<block>:<name>`.
fn object(key: &ObjectKey) -> String {
    key.as_str().replace('/', ":")
}

fn part(key: &ObjectKey, range: &Range<u64>) -> String {
    let len = range.end.saturating_sub(range.start);
    format!("{}:{}:{len}", object(key), range.start)
}

impl RemoteCaches {
    /// [`Backend::read_blocking`] through the cache of a role.
    ///
    /// # Errors
    /// Those of the store; caches have none.
    pub fn read_blocking(
        &self,
        role: CacheRole,
        backend: &Backend,
        key: &ObjectKey,
        stats: &ReadStats,
    ) -> Result<Bytes, Error> {
        if !self.has(role) {
            return backend.read_blocking(key, stats);
        }
        let cached_as = object(key);
        let asked = std::slice::from_ref(&cached_as);
        let found = backend.inner.runtime.block_on(self.get(role, asked));
        if let Some(value) = found.into_iter().next().flatten() {
            return Ok(value);
        }
        let value = backend.read_blocking(key, stats)?;
        self.put(role, cached_as, value.clone());
        Ok(value)
    }

    /// [`Backend::read_ranges_blocking`] through the cache of a role.
    ///
    /// # Errors
    /// Those of the store; caches have none.
    pub fn read_ranges_blocking(
        &self,
        role: CacheRole,
        backend: &Backend,
        key: &ObjectKey,
        ranges: &[Range<u64>],
        stats: &ReadStats,
    ) -> Result<Vec<Bytes>, Error> {
        if !self.has(role) {
            return backend.read_ranges_blocking(key, ranges, stats);
        }
        let len = |range: &Range<u64>| range.end.saturating_sub(range.start);
        let is_cached = |range: &Range<u64>| (1..=MAX_CACHED_READ_BYTES).contains(&len(range));
        let asked: Vec<String> = ranges
            .iter()
            .filter(|range| is_cached(range))
            .map(|range| part(key, range))
            .collect();
        let found = if asked.is_empty() {
            Vec::new()
        } else {
            backend.inner.runtime.block_on(self.get(role, &asked))
        };
        let mut found = found.into_iter();
        let cached: Vec<Option<Bytes>> = ranges
            .iter()
            .map(|range| {
                let value = is_cached(range).then(|| found.next().flatten())?;
                // Whatever is of another length is something else.
                value.filter(|value| value.len() as u64 == len(range))
            })
            .collect();
        let missing: Vec<Range<u64>> = ranges
            .iter()
            .zip(&cached)
            .filter(|(_, cached)| cached.is_none())
            .map(|(range, _)| range.clone())
            .collect();
        let mut read = match missing.is_empty() {
            true => Vec::new(),
            false => backend.read_ranges_blocking(key, &missing, stats)?,
        }
        .into_iter();
        let values = ranges.iter().zip(cached).map(|(range, cached)| {
            if let Some(cached) = cached {
                return cached;
            }
            let value = read.next().unwrap_or_default();
            if is_cached(range) {
                // A copy: the value may be a small part of a large read.
                self.put(role, part(key, range), Bytes::copy_from_slice(&value));
            }
            value
        });
        Ok(values.collect())
    }
}
