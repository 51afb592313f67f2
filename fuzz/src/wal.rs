//! Segments of the write-ahead log.

use tempo_live_store::{UnreadableSegment, inspect_wal_segment};

const SEGMENT_HEADER_BYTES: usize = 40;
const RECORD_HEADER_BYTES: usize = 40;
/// Where a header's checksum stands: it covers all before it.
const CRC_OFFSET: usize = 36;

/// Reads a segment as it is, and again with the checksums made right: otherwise hardly any change
/// would get past them.
pub fn wal(data: &[u8]) {
    check(data);
    let mut sealed = data.to_vec();
    seal(&mut sealed);
    let sealed = check(&sealed);
    assert!(
        !data.starts_with(b"TEMPOWAL") || sealed != Some(Err(UnreadableSegment::Garbage)),
        "a header whose checksum holds is taken for garbage"
    );
}

/// What a restart makes of a segment; `None` for less than a header.
fn check(segment: &[u8]) -> Option<Result<(), UnreadableSegment>> {
    let summary = match inspect_wal_segment(segment) {
        Ok(summary) => summary,
        Err(error) => {
            return (segment.len() >= SEGMENT_HEADER_BYTES).then_some(Err(error));
        }
    };
    let size = segment.len() as u64;
    let headers = SEGMENT_HEADER_BYTES as u64 + summary.records * RECORD_HEADER_BYTES as u64;
    assert!(
        headers + summary.chunk_bytes + summary.dropped_bytes <= size + SEGMENT_HEADER_BYTES as u64,
        "bytes are counted twice: {summary:?} of {size} bytes"
    );
    if summary.damaged_places == 0 {
        assert_eq!(summary.dropped_bytes, 0);
    }
    Some(Ok(()))
}

/// Puts the right checksums where the headers of the segment, of its records and of their
/// directories have them, as far as the lengths lead.
fn seal(segment: &mut [u8]) {
    seal_header(segment);
    let mut offset = SEGMENT_HEADER_BYTES;
    while let Some(record) = segment.get_mut(offset..) {
        let Some(header) = record.get(..RECORD_HEADER_BYTES) else {
            return;
        };
        let length = |at: usize| -> usize {
            let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
            u32::from_le_bytes(bytes) as usize
        };
        let (directory_bytes, data_bytes) = (length(24), length(28));
        let directory = RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + directory_bytes;
        if let Some(directory) = record.get(directory) {
            let crc = crc32fast::hash(directory).to_le_bytes();
            record[32..CRC_OFFSET].copy_from_slice(&crc);
        }
        seal_header(record);
        offset += RECORD_HEADER_BYTES + directory_bytes + data_bytes;
    }
}

fn seal_header(header: &mut [u8]) {
    if header.len() >= CRC_OFFSET + 4 {
        let crc = crc32fast::hash(&header[..CRC_OFFSET]).to_le_bytes();
        header[CRC_OFFSET..CRC_OFFSET + 4].copy_from_slice(&crc);
    }
}
