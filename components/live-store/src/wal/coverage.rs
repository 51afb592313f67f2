//! Which parts of the log a block holds, so that a restart does not take them twice.
//!
//! The list is a file in the block's folder and becomes valid in the same instant as the block.
//! Segments are named with their salt: a number alone could, after someone emptied the log's
//! folder, mean another file, and new spans would be taken for old ones.

use hashbrown::HashMap;
use tempo_model::otlp::write_varint;

use super::format::ChunkRef;

const MAGIC: &[u8; 8] = b"TEMPOCOV";
const VERSION: u32 = 1;

/// The file that lists a block's chunks.
///
/// ```text
/// file    := magic "TEMPOCOV" (8) | version u32 | segments u32 | segment* | crc32 of the foregoing u32
/// segment := sequence u32 | salt u64 | chunks u32 | varint* (offsets, ascending, as differences)
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CoverageFile {
    /// By segment number and salt: the offsets of the chunks, ascending.
    pub(crate) segments: Vec<(u32, u64, Vec<u32>)>,
}

impl CoverageFile {
    /// Lists `chunks`; `salt_of` gives the salt of a segment that is still held.
    pub(crate) fn new(
        chunks: impl Iterator<Item = ChunkRef>,
        salt_of: impl Fn(u32) -> Option<u64>,
    ) -> Self {
        let mut positions: Vec<(u32, u32)> =
            chunks.map(|chunk| (chunk.segment, chunk.offset)).collect();
        positions.sort_unstable();
        let segments = positions
            .chunk_by(|a, b| a.0 == b.0)
            .filter_map(|run| {
                let segment = run.first()?.0;
                let offsets = run.iter().map(|&(_, offset)| offset).collect();
                Some((segment, salt_of(segment)?, offsets))
            })
            .collect();
        Self { segments }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(self.segments.len() as u32).to_le_bytes());
        for (segment, salt, offsets) in &self.segments {
            out.extend_from_slice(&segment.to_le_bytes());
            out.extend_from_slice(&salt.to_le_bytes());
            out.extend_from_slice(&(offsets.len() as u32).to_le_bytes());
            let mut previous = 0;
            for &offset in offsets {
                write_varint(&mut out, u64::from(offset - previous));
                previous = offset;
            }
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a file; `None` when it is damaged or of another version.
    pub(crate) fn decode(file: &[u8]) -> Option<Self> {
        let (body, crc) = file.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) || !body.starts_with(MAGIC) {
            return None;
        }
        let mut rest = &body[MAGIC.len()..];
        if take_u32(&mut rest)? != VERSION {
            return None;
        }
        let count = take_u32(&mut rest)?;
        let mut segments = Vec::new();
        for _ in 0..count {
            let segment = take_u32(&mut rest)?;
            let (salt, tail) = rest.split_first_chunk::<8>()?;
            rest = tail;
            let chunks = take_u32(&mut rest)?;
            let mut offsets = Vec::new();
            let mut offset = 0_u32;
            for _ in 0..chunks {
                offset = offset.checked_add(take_varint(&mut rest)?)?;
                offsets.push(offset);
            }
            segments.push((segment, u64::from_le_bytes(*salt), offsets));
        }
        rest.is_empty().then_some(Self { segments })
    }
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (head, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(u32::from_le_bytes(*head))
}

fn take_varint(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u64;
    for shift in (0..35).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return u32::try_from(value).ok();
        }
    }
    None
}

/// What all local blocks together hold of the log.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    by_segment: HashMap<(u32, u64), Vec<u32>, foldhash::fast::RandomState>,
}

impl Coverage {
    /// Adds the chunks of one block.
    pub(crate) fn add(&mut self, file: &CoverageFile) {
        for (segment, salt, offsets) in &file.segments {
            let all = self.by_segment.entry((*segment, *salt)).or_default();
            all.extend_from_slice(offsets);
            all.sort_unstable();
        }
    }

    /// Whether a chunk is in a block.
    pub(crate) fn contains(&self, segment: u32, salt: u64, offset: u32) -> bool {
        self.by_segment
            .get(&(segment, salt))
            .is_some_and(|offsets| offsets.binary_search(&offset).is_ok())
    }

    /// The highest segment number that any block mentions.
    pub(crate) fn highest_segment(&self) -> Option<u32> {
        self.by_segment.keys().map(|&(segment, _)| segment).max()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunk(segment: u32, offset: u32) -> ChunkRef {
        ChunkRef {
            segment,
            offset,
            bytes: 1,
            spans: 1,
            crc: 0,
        }
    }

    proptest! {
        #[test]
        fn a_file_reads_back_and_no_damage_is_taken_for_one(
            positions in prop::collection::btree_set((0_u32..4, any::<u32>()), 0..50),
            flip in any::<prop::sample::Index>(),
        ) {
            let chunks = positions.iter().map(|&(segment, offset)| chunk(segment, offset));
            let file = CoverageFile::new(chunks, |segment| (segment != 3).then_some(100 + u64::from(segment)));
            let encoded = file.encode();
            prop_assert_eq!(CoverageFile::decode(&encoded), Some(file.clone()));
            let mut coverage = Coverage::default();
            coverage.add(&file);
            for &(segment, offset) in &positions {
                prop_assert_eq!(coverage.contains(segment, 100 + u64::from(segment), offset), segment != 3);
                prop_assert!(!coverage.contains(segment, 7, offset));
            }
            let mut damaged = encoded;
            let at = flip.index(damaged.len());
            damaged[at] ^= 0x10;
            prop_assert_eq!(CoverageFile::decode(&damaged), None);
        }
    }
}
