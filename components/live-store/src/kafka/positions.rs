//! Which records the scratch segments hold, so that it is known what may be committed and what a
//! block holds.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::wal::{ChunkRef, CoverageFile};

/// Where a chunk came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    /// Offset of its record.
    pub(crate) record: i64,
    /// The record's time: tells it from another of its offset in a topic that was made anew.
    pub(crate) stamp: u32,
    /// Its place among the record's traces.
    pub(crate) entry: u32,
}

#[derive(Default)]
pub(crate) struct Positions(Mutex<State>);

#[derive(Default)]
struct State {
    /// Records that were read and are in no segment yet.
    under_way: BTreeSet<i64>,
    /// By segment.
    segments: BTreeMap<u32, Origins>,
    /// The next record to read; `None` before the first.
    next: Option<i64>,
    /// What was committed last.
    committed: Option<i64>,
}

/// What came into a segment.
struct Origins {
    /// The earliest record.
    first: i64,
    /// By the chunk's place in the segment.
    chunks: HashMap<u32, Origin, foldhash::fast::RandomState>,
}

impl Positions {
    /// Reading starts here; nothing before is ours.
    pub(crate) fn start_at(&self, offset: i64) {
        let mut state = self.0.lock();
        state.next = Some(offset);
        state.committed = None;
    }

    /// A record was read. Until it is [`Self::placed`] or [`Self::settled`] nothing behind it may be
    /// committed.
    pub(crate) fn read(&self, record: i64) {
        let mut state = self.0.lock();
        state.under_way.insert(record);
        state.next = state.next.max(Some(record + 1));
    }

    /// A record is in a segment, with those of its traces that are wanted.
    pub(crate) fn placed(&self, record: i64, chunks: impl Iterator<Item = (ChunkRef, Origin)>) {
        let mut state = self.0.lock();
        for (chunk, origin) in chunks {
            let origins = state
                .segments
                .entry(chunk.segment)
                .or_insert_with(|| Origins {
                    first: record,
                    chunks: HashMap::default(),
                });
            origins.first = origins.first.min(record);
            origins.chunks.insert(chunk.offset, origin);
        }
        state.under_way.remove(&record);
    }

    /// Nothing of a record is wanted.
    pub(crate) fn settled(&self, record: i64) {
        self.0.lock().under_way.remove(&record);
    }

    /// What may be committed and is not: the first record of which anything is not in a complete
    /// block. `is_needed` tells whether anything of a segment is not.
    pub(crate) fn to_commit(&self, is_needed: impl Fn(u32) -> bool) -> Option<i64> {
        let mut state = self.0.lock();
        // A chunk is counted as needed before it is placed, so nothing that is under way is taken
        // for done here.
        state.segments.retain(|segment, _| is_needed(*segment));
        let held = state.segments.values().map(|origins| origins.first).min();
        let next = state.next?;
        let first = state.under_way.first().copied();
        let offset = [first, held].into_iter().flatten().fold(next, i64::min);
        // A segment that was done with and is written again does not take back what was said.
        (state.committed < Some(offset)).then_some(offset)
    }

    pub(crate) fn committed(&self, offset: i64) {
        let mut state = self.0.lock();
        state.committed = state.committed.max(Some(offset));
    }

    /// Whether a record may be read again after a restart.
    pub(crate) fn may_come_again(&self, record: i64) -> bool {
        self.0
            .lock()
            .committed
            .is_none_or(|committed| record >= committed)
    }

    /// The list of what a block of these chunks holds. A record stands in the place of a segment:
    /// its time in that of the number, its offset in that of the salt.
    pub(crate) fn coverage(&self, chunks: impl Iterator<Item = ChunkRef>) -> CoverageFile {
        let state = self.0.lock();
        let mut origins: Vec<Origin> = chunks
            .filter_map(|chunk| {
                let origins = state.segments.get(&chunk.segment)?;
                origins.chunks.get(&chunk.offset).copied()
            })
            .collect();
        origins.sort_unstable();
        origins.dedup();
        let same_record = |a: &Origin, b: &Origin| (a.record, a.stamp) == (b.record, b.stamp);
        CoverageFile {
            segments: origins
                .chunk_by(same_record)
                .filter_map(|run| {
                    let first = run.first()?;
                    let entries = run.iter().map(|origin| origin.entry).collect();
                    Some((first.stamp, first.record as u64, entries))
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::Coverage;

    fn chunk(segment: u32, offset: u32) -> ChunkRef {
        ChunkRef {
            segment,
            offset,
            bytes: 1,
            spans: 1,
            crc: 0,
        }
    }

    fn origin(record: i64, entry: u32) -> Origin {
        Origin {
            record,
            stamp: 77,
            entry,
        }
    }

    fn place(positions: &Positions, record: i64, segment: u32, offset: u32) {
        positions.read(record);
        positions.placed(
            record,
            [(chunk(segment, offset), origin(record, 0))].into_iter(),
        );
    }

    #[test]
    fn nothing_is_committed_that_is_not_in_a_block() {
        let positions = Positions::default();
        assert_eq!(positions.to_commit(|_| true), None, "nothing was read");
        positions.start_at(40);
        place(&positions, 40, 1, 100);
        place(&positions, 41, 1, 200);
        place(&positions, 42, 2, 100);
        positions.read(43);
        positions.settled(43);
        assert_eq!(positions.to_commit(|_| true), Some(40));
        positions.committed(40);
        assert_eq!(positions.to_commit(|_| true), None, "said already");
        // Blocks complete out of order.
        assert_eq!(positions.to_commit(|segment| segment == 1), None);
        positions.read(44);
        assert_eq!(positions.to_commit(|_| false), Some(44), "44 is under way");
        positions.placed(44, [(chunk(3, 50), origin(44, 0))].into_iter());
        assert_eq!(positions.to_commit(|segment| segment == 3), Some(44));
        assert_eq!(positions.to_commit(|_| false), Some(45));
    }

    #[test]
    fn a_commit_is_not_taken_back() {
        let positions = Positions::default();
        positions.start_at(0);
        place(&positions, 0, 1, 100);
        place(&positions, 1, 1, 200);
        assert_eq!(positions.to_commit(|_| false), Some(2));
        positions.committed(2);
        place(&positions, 2, 1, 300);
        assert_eq!(positions.to_commit(|_| true), None);
        assert!(!positions.may_come_again(1));
        assert!(positions.may_come_again(2));
    }

    #[test]
    fn a_block_lists_the_traces_of_each_record() {
        let positions = Positions::default();
        positions.read(8);
        positions.read(9);
        positions.placed(
            8,
            [(chunk(1, 10), origin(8, 0)), (chunk(1, 20), origin(8, 2))].into_iter(),
        );
        positions.placed(9, [(chunk(1, 30), origin(9, 0))].into_iter());
        let file = positions.coverage([chunk(1, 20), chunk(1, 30)].into_iter());
        let read_back = CoverageFile::decode(&file.encode()).unwrap();
        assert_eq!(read_back, file);
        let mut coverage = Coverage::default();
        coverage.add(&read_back);
        assert!(coverage.contains(77, 8, 2));
        assert!(!coverage.contains(77, 8, 0), "in no block");
        assert!(coverage.contains(77, 9, 0));
        assert!(
            !coverage.contains(78, 9, 0),
            "another record of that offset"
        );
    }
}
