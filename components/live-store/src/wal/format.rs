//! Bytes of segments and records. The layout is described in [`super`].

use bytes::Bytes;
use tempo_model::{TraceBatch, TraceId};

pub(crate) const SEGMENT_MAGIC: &[u8; 8] = b"TEMPOWAL";
pub(crate) const VERSION: u32 = 1;
pub(crate) const SEGMENT_HEADER_BYTES: usize = 40;
pub(crate) const RECORD_HEADER_BYTES: usize = 40;
const ENTRY_BYTES: usize = 28;

/// Longest record, in bytes: offsets within a segment must fit into 32 bits.
pub(crate) const MAX_RECORD_BYTES: u64 = 1 << 30;

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..offset + 4)?;
    field.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let field = bytes.get(offset..offset + 8)?;
    field.try_into().ok().map(u64::from_le_bytes)
}

/// Checks that the last four bytes of `bytes` are the CRC of the others.
fn sealed_by_crc(bytes: &[u8]) -> bool {
    let Some(split) = bytes.len().checked_sub(4) else {
        return false;
    };
    u32_at(bytes, split) == Some(crc32fast::hash(&bytes[..split]))
}

/// The beginning of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) sequence: u64,
    pub(crate) created_unix_nanos: u64,
    pub(crate) salt: u64,
}

/// Why a segment's beginning cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadSegmentHeader {
    /// Written by a newer version of this program; nothing is damaged.
    Version(u32),
    /// Not a header, or a damaged one.
    Damaged,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut header = [0; SEGMENT_HEADER_BYTES];
        header[..8].copy_from_slice(SEGMENT_MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..20].copy_from_slice(&self.sequence.to_le_bytes());
        header[20..28].copy_from_slice(&self.created_unix_nanos.to_le_bytes());
        header[28..36].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32fast::hash(&header[..36]);
        header[36..].copy_from_slice(&crc.to_le_bytes());
        header
    }

    pub(crate) fn decode(segment: &[u8]) -> Result<Self, BadSegmentHeader> {
        let header = segment
            .get(..SEGMENT_HEADER_BYTES)
            .filter(|header| header.starts_with(SEGMENT_MAGIC) && sealed_by_crc(header))
            .ok_or(BadSegmentHeader::Damaged)?;
        match u32_at(header, 8) {
            Some(VERSION) => {}
            Some(version) => return Err(BadSegmentHeader::Version(version)),
            None => return Err(BadSegmentHeader::Damaged),
        }
        let field = |offset| u64_at(header, offset).ok_or(BadSegmentHeader::Damaged);
        Ok(Self {
            sequence: field(12)?,
            created_unix_nanos: field(20)?,
            salt: field(28)?,
        })
    }
}

/// The fixed part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) salt: u64,
    pub(crate) number: u64,
    pub(crate) arrival_unix_nanos: u64,
    pub(crate) directory_bytes: u32,
    pub(crate) data_bytes: u32,
    pub(crate) directory_crc: u32,
}

impl RecordHeader {
    pub(crate) fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut header = [0; RECORD_HEADER_BYTES];
        header[..8].copy_from_slice(&self.salt.to_le_bytes());
        header[8..16].copy_from_slice(&self.number.to_le_bytes());
        header[16..24].copy_from_slice(&self.arrival_unix_nanos.to_le_bytes());
        header[24..28].copy_from_slice(&self.directory_bytes.to_le_bytes());
        header[28..32].copy_from_slice(&self.data_bytes.to_le_bytes());
        header[32..36].copy_from_slice(&self.directory_crc.to_le_bytes());
        let crc = crc32fast::hash(&header[..36]);
        header[36..].copy_from_slice(&crc.to_le_bytes());
        header
    }

    /// Reads the header at the beginning of `bytes`; `None` when it does not check.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..RECORD_HEADER_BYTES)?;
        if !sealed_by_crc(header) {
            return None;
        }
        Some(Self {
            salt: u64_at(header, 0)?,
            number: u64_at(header, 8)?,
            arrival_unix_nanos: u64_at(header, 16)?,
            directory_bytes: u32_at(header, 24)?,
            data_bytes: u32_at(header, 28)?,
            directory_crc: u32_at(header, 32)?,
        })
    }

    /// Bytes of the whole record.
    pub(crate) fn record_bytes(&self) -> u64 {
        RECORD_HEADER_BYTES as u64 + u64::from(self.directory_bytes) + u64::from(self.data_bytes)
    }
}

/// One entry of a record's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) trace_id: TraceId,
    pub(crate) spans: u32,
    pub(crate) bytes: u32,
    pub(crate) crc: u32,
}

/// What a record holds, ready to be written: everything that does not depend on its place.
#[derive(Debug)]
pub(crate) struct RecordBody {
    directory: Vec<u8>,
    directory_crc: u32,
    entries: Vec<Entry>,
    data: Vec<Bytes>,
    data_bytes: u32,
}

impl RecordBody {
    /// Checksums and lists the chunks of `batch`; `None` when they exceed [`MAX_RECORD_BYTES`] or
    /// the tenant's name 255 bytes.
    pub(crate) fn new(tenant: &str, batch: TraceBatch) -> Option<Self> {
        let directory_bytes = 1 + tenant.len() + batch.traces.len() * ENTRY_BYTES;
        let data_bytes = batch.byte_count();
        if RECORD_HEADER_BYTES as u64 + directory_bytes as u64 + data_bytes > MAX_RECORD_BYTES {
            return None;
        }
        let mut directory = Vec::with_capacity(directory_bytes);
        directory.push(u8::try_from(tenant.len()).ok()?);
        directory.extend_from_slice(tenant.as_bytes());
        let mut entries = Vec::with_capacity(batch.traces.len());
        let mut data = Vec::with_capacity(batch.traces.len());
        for chunk in batch.traces {
            let entry = Entry {
                trace_id: chunk.id,
                spans: chunk.spans,
                bytes: chunk.trace.len() as u32,
                crc: crc32fast::hash(&chunk.trace),
            };
            directory.extend_from_slice(entry.trace_id.as_bytes());
            directory.extend_from_slice(&entry.spans.to_le_bytes());
            directory.extend_from_slice(&entry.bytes.to_le_bytes());
            directory.extend_from_slice(&entry.crc.to_le_bytes());
            entries.push(entry);
            data.push(chunk.trace);
        }
        Some(Self {
            directory_crc: crc32fast::hash(&directory),
            directory,
            entries,
            data,
            data_bytes: data_bytes as u32,
        })
    }

    /// Bytes of the record once written.
    pub(crate) fn record_bytes(&self) -> u64 {
        (RECORD_HEADER_BYTES + self.directory.len()) as u64 + u64::from(self.data_bytes)
    }

    /// Appends the record to `out`.
    pub(crate) fn encode(&self, salt: u64, number: u64, arrival: u64, out: &mut Vec<u8>) {
        let header = RecordHeader {
            salt,
            number,
            arrival_unix_nanos: arrival,
            directory_bytes: self.directory.len() as u32,
            data_bytes: self.data_bytes,
            directory_crc: self.directory_crc,
        };
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(&self.directory);
        for bytes in &self.data {
            out.extend_from_slice(bytes);
        }
    }

    /// How many chunks there are.
    pub(crate) fn chunks(&self) -> usize {
        self.entries.len()
    }

    /// The chunks, each with its bytes and its place if the record begins at `record_offset` of
    /// `segment`.
    pub(crate) fn into_placed(
        self,
        segment: u32,
        record_offset: u64,
    ) -> impl Iterator<Item = (TraceId, ChunkRef, Bytes)> {
        let mut offset = record_offset as usize + RECORD_HEADER_BYTES + self.directory.len();
        self.entries
            .into_iter()
            .zip(self.data)
            .map(move |(entry, data)| {
                let chunk = ChunkRef {
                    segment,
                    offset: offset as u32,
                    bytes: entry.bytes,
                    spans: entry.spans,
                    crc: entry.crc,
                };
                offset += data.len();
                (entry.trace_id, chunk, data)
            })
    }
}

/// Reads a directory whose checksum was verified: tenant and entries. `None` when it is not
/// consistent with itself and `data_bytes`.
pub(crate) fn decode_directory(directory: &[u8], data_bytes: u32) -> Option<(&str, Vec<Entry>)> {
    let (&tenant_bytes, rest) = directory.split_first()?;
    let tenant = std::str::from_utf8(rest.get(..usize::from(tenant_bytes))?).ok()?;
    let list = &rest[usize::from(tenant_bytes)..];
    if list.len() % ENTRY_BYTES != 0 {
        return None;
    }
    let entries: Vec<Entry> = list
        .chunks_exact(ENTRY_BYTES)
        .map(|entry| {
            Some(Entry {
                trace_id: TraceId::from_padded(&entry[..16]),
                spans: u32_at(entry, 16)?,
                bytes: u32_at(entry, 20)?,
                crc: u32_at(entry, 24)?,
            })
        })
        .collect::<Option<_>>()?;
    let sum: u64 = entries.iter().map(|entry| u64::from(entry.bytes)).sum();
    (sum == u64::from(data_bytes)).then_some((tenant, entries))
}

/// Where some spans of one trace lie in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChunkRef {
    /// The segment's sequence number.
    pub(crate) segment: u32,
    /// Where the bytes begin in its file.
    pub(crate) offset: u32,
    /// How many there are.
    pub(crate) bytes: u32,
    /// How many spans they hold.
    pub(crate) spans: u32,
    /// Their checksum.
    pub(crate) crc: u32,
}

#[cfg(test)]
mod tests {
    use tempo_model::TraceChunk;

    use super::*;

    fn batch() -> TraceBatch {
        TraceBatch {
            traces: (1..4_u8)
                .map(|n| TraceChunk {
                    id: TraceId::from_padded(&[n]),
                    trace: Bytes::from(vec![n; usize::from(n) * 3]),
                    spans: u32::from(n),
                })
                .collect(),
            skip_metrics_generation: false,
        }
    }

    #[test]
    fn a_record_reads_back_with_places_that_hold_its_chunks() {
        let body = RecordBody::new("tenant-1", batch()).unwrap();
        let mut out = vec![0; 7];
        body.encode(9, 4, 77, &mut out);
        assert_eq!(out.len() as u64, 7 + body.record_bytes());
        let header = RecordHeader::decode(&out[7..]).unwrap();
        assert_eq!(
            (header.salt, header.number, header.arrival_unix_nanos),
            (9, 4, 77)
        );
        assert_eq!(header.record_bytes(), body.record_bytes());
        let directory = &out[7 + RECORD_HEADER_BYTES..][..header.directory_bytes as usize];
        let (tenant, entries) = decode_directory(directory, header.data_bytes).unwrap();
        assert_eq!(tenant, "tenant-1");
        assert_eq!(entries, body.entries);
        for (id, chunk, data) in body.into_placed(3, 7) {
            let start = chunk.offset as usize;
            assert_eq!(&out[start..start + chunk.bytes as usize], &data[..]);
            assert_eq!(id, TraceId::from_padded(&[chunk.spans as u8]));
            assert_eq!(chunk.segment, 3);
        }
    }

    #[test]
    fn no_bit_of_a_header_may_flip() {
        let segment = SegmentHeader {
            sequence: 5,
            created_unix_nanos: 6,
            salt: 7,
        };
        let encoded = segment.encode();
        assert_eq!(SegmentHeader::decode(&encoded), Ok(segment));
        let record = RecordHeader {
            salt: 1,
            number: 2,
            arrival_unix_nanos: 3,
            directory_bytes: 4,
            data_bytes: 5,
            directory_crc: 6,
        };
        let record_encoded = record.encode();
        assert_eq!(RecordHeader::decode(&record_encoded), Some(record));
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut flipped = encoded;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                SegmentHeader::decode(&flipped),
                Err(BadSegmentHeader::Damaged)
            );
            let mut flipped = record_encoded;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&flipped), None);
        }
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let mut header = SegmentHeader {
            sequence: 1,
            created_unix_nanos: 2,
            salt: 3,
        }
        .encode();
        header[8] = 2;
        let crc = crc32fast::hash(&header[..36]);
        header[36..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(
            SegmentHeader::decode(&header),
            Err(BadSegmentHeader::Version(2))
        );
    }
}
