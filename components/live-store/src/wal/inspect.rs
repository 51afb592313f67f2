//! Looking into a segment without starting anything: for tools and tests.

use super::replay::{Damage, Unreadable, scan};

/// What a segment of the write-ahead log holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Records whose directory is intact.
    pub records: u64,
    /// Chunks (the spans of one trace in one push) whose checksums hold.
    pub chunks: u64,
    /// Spans of those chunks, as the log counts them.
    pub spans: u64,
    /// Bytes of those chunks.
    pub chunk_bytes: u64,
    /// Places that are not what was written; 0 for an intact segment.
    pub damaged_places: u64,
    /// Bytes that a restart would not use because of them.
    pub dropped_bytes: u64,
}

/// Why nothing of a segment can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableSegment {
    /// A newer program wrote it.
    #[error(
        "the segment has version {0} of the format, which this program cannot read; use the one \
         that wrote it"
    )]
    Version(u32),
    /// Neither its header nor its first record checks.
    #[error("not a segment of the write-ahead log: neither header nor first record is intact")]
    Garbage,
}

/// Reads a whole segment as a restart would, checksums included.
///
/// # Errors
/// [`UnreadableSegment`] when nothing of it can be used. Other damage is none: it is counted and
/// stepped over.
pub fn inspect_wal_segment(bytes: &[u8]) -> Result<SegmentSummary, UnreadableSegment> {
    let mut summary = SegmentSummary::default();
    let scanned = scan(0, bytes, |record| {
        summary.records += 1;
        for (_, chunk) in &record.chunks {
            summary.chunks += 1;
            summary.spans += u64::from(chunk.spans);
            summary.chunk_bytes += u64::from(chunk.bytes);
        }
    });
    let scanned = scanned.map_err(|unreadable| match unreadable {
        Unreadable::Version(version) => UnreadableSegment::Version(version),
        Unreadable::Garbage => UnreadableSegment::Garbage,
    })?;
    summary.damaged_places = scanned.damage.len() as u64;
    summary.dropped_bytes = scanned.damage.iter().map(Damage::lost_bytes).sum();
    Ok(summary)
}
