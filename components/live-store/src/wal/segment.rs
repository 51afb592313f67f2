//! One file of the log.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::{disk::LogFile, format::ChunkRef};

/// Why a chunk cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadChunkError {
    /// The disk does not answer; trying again may help.
    #[error("reading {bytes} bytes at {offset} of WAL segment {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u32,
        /// How many bytes.
        bytes: u32,
        /// The disk's own error.
        source: io::Error,
    },
    /// The bytes are not those that were written; they are lost.
    #[error("{bytes} bytes at {offset} of WAL segment {path} do not match their checksum")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u32,
        /// How many bytes.
        bytes: u32,
    },
    /// No segment of that number is held: what it held is in blocks.
    #[error("WAL segment {segment} is reclaimed")]
    Reclaimed {
        /// Its number.
        segment: u32,
    },
}

/// A segment file: readable at any time, written only by the log's writer while not sealed.
pub(crate) struct Segment {
    pub(crate) id: u32,
    /// Distinguishes it from any other file that ever had its number.
    pub(crate) salt: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn LogFile>,
    pub(crate) created_unix_nanos: u64,
    /// Whether damage was found at replay, so that the file is kept aside rather than removed.
    pub(crate) damaged: bool,
    /// Bytes of intact records, header included.
    bytes: AtomicU64,
    /// Chunks that are in no durable block yet.
    held: AtomicU64,
    sealed: AtomicBool,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Segment({})", self.path.display())
    }
}

impl Segment {
    pub(crate) fn new(
        id: u32,
        salt: u64,
        path: PathBuf,
        file: Box<dyn LogFile>,
        created_unix_nanos: u64,
        bytes: u64,
    ) -> Self {
        Self {
            id,
            salt,
            path,
            file,
            created_unix_nanos,
            damaged: false,
            bytes: AtomicU64::new(bytes),
            held: AtomicU64::new(0),
            sealed: AtomicBool::new(false),
        }
    }

    /// The file's name in `directory`.
    pub(crate) fn path_of(directory: &Path, id: u32) -> PathBuf {
        directory.join(format!("{id:010}.wal"))
    }

    /// The number in a file's name.
    pub(crate) fn id_of(path: &Path) -> Option<u32> {
        if path.extension()? != "wal" {
            return None;
        }
        path.file_stem()?.to_str()?.parse().ok()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    pub(super) fn grown_to(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Release);
    }

    /// Counts chunks that need this file.
    pub(super) fn hold(&self, chunks: u64) {
        self.held.fetch_add(chunks, Ordering::AcqRel);
    }

    /// Counts chunks that need it no longer.
    pub(super) fn release(&self, chunks: u64) {
        let before = self.held.fetch_sub(chunks, Ordering::AcqRel);
        debug_assert!(before >= chunks, "released more chunks than held");
    }

    pub(super) fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    /// Whether no chunk needs it and none will.
    pub(super) fn is_reclaimable(&self) -> bool {
        self.sealed.load(Ordering::Acquire) && self.held.load(Ordering::Acquire) == 0
    }

    /// Whether a chunk needs it.
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire) > 0
    }

    /// Whether records were written that nobody needs any more.
    pub(super) fn is_spent(&self) -> bool {
        self.held.load(Ordering::Acquire) == 0
            && self.bytes() > super::format::SEGMENT_HEADER_BYTES as u64
    }

    /// Appends the bytes of `chunk` to `out`, verified.
    pub(crate) fn read_chunk(
        &self,
        chunk: &ChunkRef,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadChunkError> {
        debug_assert_eq!(chunk.segment, self.id);
        let start = out.len();
        out.resize(start + chunk.bytes as usize, 0);
        let read = self
            .file
            .read_exact_at(&mut out[start..], u64::from(chunk.offset));
        if let Err(source) = read {
            out.truncate(start);
            return Err(ReadChunkError::Read {
                path: self.path.clone(),
                offset: chunk.offset,
                bytes: chunk.bytes,
                source,
            });
        }
        if crc32fast::hash(&out[start..]) != chunk.crc {
            out.truncate(start);
            return Err(ReadChunkError::Corrupt {
                path: self.path.clone(),
                offset: chunk.offset,
                bytes: chunk.bytes,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segment_names_carry_a_number() {
        let path = Segment::path_of(Path::new("/wal"), 42);
        assert_eq!(path, Path::new("/wal/0000000042.wal"));
        assert_eq!(Segment::id_of(&path), Some(42));
        assert_eq!(Segment::id_of(Path::new("/wal/0000000042.tmp")), None);
        assert_eq!(Segment::id_of(Path::new("/wal/x.wal")), None);
    }
}
