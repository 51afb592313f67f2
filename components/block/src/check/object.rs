//! An object of the store as the parquet library reads files.

use std::io::{self, Read};

use bytes::Bytes;
use parquet::{
    errors::{ParquetError, Result},
    file::reader::{ChunkReader, Length},
};
use tempo_backend::{Backend, ObjectKey, ReadStats};

/// Bytes that are read at once when the library wants a stream.
const READ_BYTES: u64 = 1 << 20;

/// Reads ranges of an object, on threads that may block.
#[derive(Clone)]
pub(super) struct ObjectReader {
    backend: Backend,
    key: ObjectKey,
    length: u64,
}

impl ObjectReader {
    pub(super) fn new(backend: &Backend, key: ObjectKey, length: u64) -> Self {
        Self {
            backend: backend.clone(),
            key,
            length,
        }
    }
}

impl Length for ObjectReader {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for ObjectReader {
    type T = RangeStream;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(RangeStream {
            object: self.clone(),
            at: start,
            buffer: Bytes::new(),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let range = start..start.saturating_add(length as u64);
        self.backend
            .read_range_blocking(&self.key, range, &ReadStats::new())
            .map_err(|error| ParquetError::External(Box::new(error)))
    }
}

/// The bytes of an object from some place on.
pub(super) struct RangeStream {
    object: ObjectReader,
    at: u64,
    buffer: Bytes,
}

impl Read for RangeStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() {
            let wanted = READ_BYTES.min(self.object.length.saturating_sub(self.at));
            self.buffer = self
                .object
                .get_bytes(self.at, wanted as usize)
                .map_err(io::Error::other)?;
            self.at += wanted;
        }
        let count = out.len().min(self.buffer.len());
        out[..count].copy_from_slice(&self.buffer.split_to(count));
        Ok(count)
    }
}
