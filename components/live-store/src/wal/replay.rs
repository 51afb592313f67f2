//! Reading a segment after a restart: what is intact, what is damaged, and where.

use memchr::memmem;
use tempo_model::TraceId;

use super::format::{
    BadSegmentHeader, ChunkRef, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES,
    SegmentHeader, decode_directory,
};

/// One intact record.
#[derive(Debug)]
pub(crate) struct ScannedRecord<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) arrival_unix_nanos: u64,
    /// The chunks whose checksums hold.
    pub(crate) chunks: Vec<(TraceId, ChunkRef)>,
}

/// Something in a segment that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The segment's header does not check, but its first record does.
    Header,
    /// Bytes up to the end of the file hold no record. What a crash during a write leaves, which
    /// was never acknowledged; after any other damage, records of unknown number.
    Tail { offset: u64, bytes: u64 },
    /// Records between intact ones are lost.
    Records {
        offset: u64,
        bytes: u64,
        lost_records: u64,
    },
    /// One chunk of a record does not match its checksum.
    Chunk {
        offset: u64,
        bytes: u64,
        tenant: String,
        trace_id: TraceId,
        lost_spans: u32,
    },
}

impl Damage {
    /// Bytes that are not used.
    pub(crate) fn lost_bytes(&self) -> u64 {
        match self {
            Self::Header => SEGMENT_HEADER_BYTES as u64,
            Self::Tail { bytes, .. } | Self::Records { bytes, .. } | Self::Chunk { bytes, .. } => {
                *bytes
            }
        }
    }
}

/// A segment that was read to its end.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) salt: u64,
    pub(crate) damage: Vec<Damage>,
}

/// Why nothing of a segment can be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// A newer program wrote it.
    Version(u32),
    /// No header and no first record.
    Garbage,
}

/// Visits the intact records of a segment, in order.
pub(crate) fn scan<'a>(
    segment: u32,
    bytes: &'a [u8],
    mut visit: impl FnMut(ScannedRecord<'a>),
) -> Result<Scanned, Unreadable> {
    let mut damage = Vec::new();
    let salt = match SegmentHeader::decode(bytes) {
        Ok(header) => header.salt,
        Err(BadSegmentHeader::Version(version)) => return Err(Unreadable::Version(version)),
        Err(BadSegmentHeader::Damaged) => {
            // Nothing that a sender controls stands before the first record, so a record that
            // checks there is genuine and knows the salt.
            let first = bytes
                .get(SEGMENT_HEADER_BYTES..)
                .and_then(RecordHeader::decode)
                .filter(|first| first.number == 0)
                .ok_or(Unreadable::Garbage)?;
            damage.push(Damage::Header);
            first.salt
        }
    };
    let mut offset = SEGMENT_HEADER_BYTES;
    let mut next_number = 0;
    while offset < bytes.len() {
        let Some((start, header)) = next_record(bytes, offset, salt, next_number) else {
            damage.push(Damage::Tail {
                offset: offset as u64,
                bytes: (bytes.len() - offset) as u64,
            });
            break;
        };
        if start > offset || header.number > next_number {
            damage.push(Damage::Records {
                offset: offset as u64,
                bytes: (start - offset) as u64,
                lost_records: header.number - next_number,
            });
        }
        next_number = header.number.saturating_add(1);
        offset = start + header.record_bytes() as usize;
        read_record(segment, bytes, start, &header, &mut visit, &mut damage);
    }
    Ok(Scanned { salt, damage })
}

/// The first record at or after `offset` whose header checks and which is whole.
fn next_record(
    bytes: &[u8],
    offset: usize,
    salt: u64,
    next_number: u64,
) -> Option<(usize, RecordHeader)> {
    let check = |start: usize| {
        let header = RecordHeader::decode(&bytes[start..])?;
        let fits = header.record_bytes() <= (bytes.len() - start) as u64;
        (header.salt == salt && header.number >= next_number && fits).then_some(header)
    };
    if let Some(header) = check(offset) {
        return Some((offset, header));
    }
    memmem::find_iter(&bytes[offset..], &salt.to_le_bytes())
        .map(|found| offset + found)
        .find_map(|start| check(start).map(|header| (start, header)))
}

fn read_record<'a>(
    segment: u32,
    bytes: &'a [u8],
    start: usize,
    header: &RecordHeader,
    visit: &mut impl FnMut(ScannedRecord<'a>),
    damage: &mut Vec<Damage>,
) {
    let directory_start = start + RECORD_HEADER_BYTES;
    let data_start = directory_start + header.directory_bytes as usize;
    let directory = &bytes[directory_start..data_start];
    let decoded = (crc32fast::hash(directory) == header.directory_crc)
        .then(|| decode_directory(directory, header.data_bytes))
        .flatten();
    let Some((tenant, entries)) = decoded else {
        damage.push(Damage::Records {
            offset: start as u64,
            bytes: header.record_bytes(),
            lost_records: 1,
        });
        return;
    };
    let mut chunks = Vec::with_capacity(entries.len());
    let mut offset = data_start;
    for entry in entries {
        let end = offset + entry.bytes as usize;
        if crc32fast::hash(&bytes[offset..end]) == entry.crc {
            let chunk = ChunkRef {
                segment,
                offset: offset as u32,
                bytes: entry.bytes,
                spans: entry.spans,
                crc: entry.crc,
            };
            chunks.push((entry.trace_id, chunk));
        } else {
            damage.push(Damage::Chunk {
                offset: offset as u64,
                bytes: u64::from(entry.bytes),
                tenant: tenant.to_owned(),
                trace_id: entry.trace_id,
                lost_spans: entry.spans,
            });
        }
        offset = end;
    }
    visit(ScannedRecord {
        tenant,
        arrival_unix_nanos: header.arrival_unix_nanos,
        chunks,
    });
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use tempo_model::{TraceBatch, TraceChunk};

    use super::{
        super::format::{RecordBody, SegmentHeader},
        *,
    };

    const SALT: u64 = 0x1234_5678_9abc_def0;

    /// A segment of records with `sizes[r]` chunks each, and where its records begin.
    fn segment(sizes: &[u8]) -> (Vec<u8>, Vec<usize>) {
        let header = SegmentHeader {
            sequence: 1,
            created_unix_nanos: 0,
            salt: SALT,
        };
        let mut bytes = header.encode().to_vec();
        let mut starts = Vec::new();
        for (number, &chunks) in sizes.iter().enumerate() {
            starts.push(bytes.len());
            let traces = (0..chunks)
                .map(|chunk| TraceChunk {
                    id: TraceId::from_padded(&[number as u8, chunk]),
                    trace: Bytes::from(vec![chunk ^ 0x5a; 10 + usize::from(chunk) * 7]),
                    spans: 1,
                })
                .collect();
            let batch = TraceBatch {
                traces,
                skip_metrics_generation: false,
            };
            RecordBody::new("t", batch)
                .unwrap()
                .encode(SALT, number as u64, 0, &mut bytes);
        }
        starts.push(bytes.len());
        (bytes, starts)
    }

    fn ids(bytes: &[u8]) -> Result<(Vec<TraceId>, Vec<Damage>), Unreadable> {
        let mut found = Vec::new();
        let scanned = scan(1, bytes, |record| {
            assert_eq!(record.tenant, "t");
            for (id, chunk) in &record.chunks {
                let data = &bytes[chunk.offset as usize..][..chunk.bytes as usize];
                assert_eq!(crc32fast::hash(data), chunk.crc);
                found.push(*id);
            }
        })?;
        Ok((found, scanned.damage))
    }

    fn all_ids(sizes: &[u8]) -> Vec<TraceId> {
        let records = sizes.iter().enumerate();
        records
            .flat_map(|(record, &chunks)| {
                (0..chunks).map(move |chunk| TraceId::from_padded(&[record as u8, chunk]))
            })
            .collect()
    }

    #[test]
    fn an_intact_segment_is_read_whole() {
        let (bytes, _) = segment(&[3, 1, 2]);
        assert_eq!(ids(&bytes), Ok((all_ids(&[3, 1, 2]), vec![])));
    }

    #[test]
    fn a_torn_tail_costs_only_the_torn_record() {
        let (bytes, starts) = segment(&[3, 1, 2]);
        for len in starts[2] + 1..bytes.len() {
            let (found, damage) = ids(&bytes[..len]).unwrap();
            assert_eq!(found, all_ids(&[3, 1]));
            let tail = Damage::Tail {
                offset: starts[2] as u64,
                bytes: (len - starts[2]) as u64,
            };
            assert_eq!(damage, vec![tail]);
        }
    }

    #[test]
    fn reading_goes_on_behind_a_damaged_record_and_tells_how_many_are_lost() {
        let (mut bytes, starts) = segment(&[1, 2, 3, 1]);
        bytes[starts[1] + 3] ^= 1; // its salt
        bytes[starts[2] + 20] ^= 1; // its arrival time
        let (found, damage) = ids(&bytes).unwrap();
        assert_eq!(
            found,
            vec![TraceId::from_padded(&[0, 0]), TraceId::from_padded(&[3, 0])]
        );
        assert_eq!(
            damage,
            vec![Damage::Records {
                offset: starts[1] as u64,
                bytes: (starts[3] - starts[1]) as u64,
                lost_records: 2
            }]
        );
    }

    #[test]
    fn a_damaged_chunk_loses_itself_alone_and_is_named() {
        let (mut bytes, starts) = segment(&[1, 3, 1]);
        let last = starts[2] - 1;
        bytes[last] ^= 0x80;
        let (found, damage) = ids(&bytes).unwrap();
        let lost = TraceId::from_padded(&[1, 2]);
        let mut want = all_ids(&[1, 3, 1]);
        want.retain(|id| *id != lost);
        assert_eq!(found, want);
        assert!(
            matches!(&damage[..], [Damage::Chunk { trace_id, lost_spans: 1, .. }] if *trace_id == lost)
        );
    }

    #[test]
    fn a_damaged_segment_header_is_replaced_by_the_first_record() {
        let (mut bytes, _) = segment(&[2, 2]);
        bytes[..SEGMENT_HEADER_BYTES].fill(0xff);
        assert_eq!(ids(&bytes), Ok((all_ids(&[2, 2]), vec![Damage::Header])));
        assert_eq!(ids(&bytes[..50]), Err(Unreadable::Garbage));
        assert_eq!(ids(&[]), Err(Unreadable::Garbage));
        assert_eq!(ids(&[7; 4096]), Err(Unreadable::Garbage));
    }

    #[test]
    fn a_record_hidden_in_a_payload_is_not_taken_for_one() {
        // The sender cannot know the salt; with any other one its record is ignored.
        let mut forged = Vec::new();
        let batch = |trace: Vec<u8>| TraceBatch {
            traces: vec![TraceChunk {
                id: TraceId::from_padded(&[9]),
                trace: trace.into(),
                spans: 1,
            }],
            skip_metrics_generation: false,
        };
        RecordBody::new("t", batch(vec![1; 20]))
            .unwrap()
            .encode(SALT ^ 1, 5, 0, &mut forged);
        let (mut bytes, starts) = segment(&[1]);
        RecordBody::new("t", batch(forged))
            .unwrap()
            .encode(SALT, 1, 0, &mut bytes);
        bytes[starts[1] + 10] ^= 1;
        let (found, damage) = ids(&bytes).unwrap();
        assert_eq!(found, all_ids(&[1]));
        assert!(matches!(damage[..], [Damage::Tail { .. }]));
    }

    proptest! {
        #[test]
        fn whatever_is_cut_or_flipped_the_records_before_it_are_read(
            sizes in prop::collection::vec(1_u8..6, 1..8),
            cut in any::<prop::sample::Index>(),
            flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 0..4),
            cut_it in any::<bool>(),
        ) {
            let (intact, starts) = segment(&sizes);
            let mut bytes = intact.clone();
            let mut first_change = bytes.len();
            if cut_it {
                first_change = cut.index(bytes.len());
                bytes.truncate(first_change);
            }
            for (at, bit) in flips {
                if bytes.is_empty() {
                    continue;
                }
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
                first_change = first_change.min(at);
            }
            let changed = bytes != intact;
            let prefix_records = starts[1..].iter().filter(|&&end| end <= first_change).count();
            match ids(&bytes) {
                Ok((found, damage)) => {
                    let prefix = all_ids(&sizes[..prefix_records]);
                    prop_assert_eq!(&found[..prefix.len().min(found.len())], &prefix[..]);
                    let all = all_ids(&sizes);
                    prop_assert!(found.iter().all(|id| all.contains(id)));
                    let cut_between_records = starts.contains(&bytes.len());
                    prop_assert!(!changed || cut_between_records || !damage.is_empty());
                }
                Err(Unreadable::Garbage) => {
                    prop_assert!(first_change < SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES);
                }
                Err(Unreadable::Version(_)) => prop_assert!(false, "a version cannot appear by chance"),
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = scan(1, &bytes, |_| {});
            let header = SegmentHeader { sequence: 1, created_unix_nanos: 0, salt: SALT };
            let mut with_header = header.encode().to_vec();
            with_header.extend_from_slice(&bytes);
            let scanned = scan(1, &with_header, |_| {});
            prop_assert!(scanned.is_ok());
        }
    }
}
