//! The write-ahead log: what makes an acknowledgement a promise.
//!
//! Owns the segment files, the thread that writes them, and their replay. A record is one push;
//! its chunks (the spans of one trace) are read back in place by [`ChunkRef`] until they are in a
//! block. Must never know what a span is: payloads are bytes with a trace id.
//!
//! # Promise
//! [`Wal::append`] reports success only after `fdatasync` returned for every byte of the record.
//! After an error of write or sync nothing is reported as written; the bytes are cut off again, or
//! the segment is abandoned for a new one. A file whose sync failed once is never written again:
//! the kernel forgets failed pages, so a second sync would lie.
//!
//! # Format, version 1
//! All numbers are little endian, all checksums CRC-32 (IEEE). A file is named by its sequence
//! number, ten digits and `.wal`, and never reused.
//!
//! ```text
//! segment   := header record*
//! header    := magic "TEMPOWAL" (8) | version u32 | sequence u64 | created_unix_nanos u64
//!            | salt u64 | crc32 of the foregoing u32                                 = 40 bytes
//! record    := salt u64 | number u64 | arrival_unix_nanos u64 | directory_bytes u32
//!            | data_bytes u32 | crc32 of directory u32 | crc32 of the foregoing u32  = 40 bytes
//!            | directory | data
//! directory := tenant_bytes u8 | tenant | entry*
//! entry     := trace id (16) | spans u32 | bytes u32 | crc32 of bytes u32            = 28 bytes
//! data      := the bytes of all entries, in order (each a serialized `tempopb.Trace`)
//! ```
//! `salt` is random per segment and starts every record: after damage the reader looks for the next
//! salt whose record header checks, and nobody outside can forge one inside a payload. `number`
//! counts records from 0, so a gap tells how many were lost. Every entry has its own checksum, so
//! that a damaged entry loses itself alone and every chunk is verified whenever it is read.
//!
//! Nothing is compressed: the log lives for less than a minute, and page cache serves its reads.

mod coverage;
mod disk;
mod format;
mod inspect;
mod replay;
mod segment;
mod store;
mod writer;

pub(crate) use coverage::{Coverage, CoverageFile};
#[cfg(test)]
pub(crate) use disk::faulty::FaultyDisk;
pub(crate) use disk::{Disk, RealDisk, ScratchDisk};
pub(crate) use format::ChunkRef;
pub use inspect::{SegmentSummary, UnreadableSegment, inspect_wal_segment};
pub(crate) use replay::Damage;
pub(crate) use segment::ReadChunkError;
pub(crate) use store::{ChunkReader, Options, Wal};
pub(crate) use writer::{AppendError, Placement};
