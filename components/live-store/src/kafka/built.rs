//! How far block-builders are with the partition, and so what must stay here.
//!
//! A record is in a block that every process sees once the builders' group has committed beyond it
//! and lists of blocks have been read anew since. Until then its spans are found nowhere but here,
//! however long that takes; and here queries must look for them, however old they are.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tempo_ingest::{Error, KafkaConfig, Offsets, PartitionConsumer, Polled, StartAt};

/// Longest wait for the one record whose time is asked for.
const RECORD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one poll for it may take.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// How far builders were at some moment. Times are milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    /// Spans that began before are in blocks.
    until_millis: i64,
    /// The first record in which there may be others.
    wanted_from: i64,
}

/// How far builders are.
pub(crate) struct Built {
    /// Until blocks of a commit are seen by everyone.
    visible_after_millis: i64,
    /// How long before its record a span may begin.
    late_millis: i64,
    state: Mutex<State>,
    /// Records before it need not be here.
    wanted_from: AtomicI64,
    /// Spans that began before are in blocks that everybody sees.
    until_millis: AtomicI64,
    /// The same of all partitions, as others tell it: until then queries ask blocks.
    of_all_until_millis: AtomicI64,
}

#[derive(Default)]
struct State {
    /// With the time at which it was seen.
    seen: VecDeque<(i64, Progress)>,
    /// Offset and time of the first record that was not built when last asked.
    first_left: Option<(i64, i64)>,
}

const UNKNOWN: i64 = i64::MIN;

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Built {
    pub(crate) fn new(visible_after: Duration, late: Duration) -> Self {
        Self {
            visible_after_millis: millis(visible_after),
            late_millis: millis(late),
            state: Mutex::default(),
            wanted_from: AtomicI64::new(UNKNOWN),
            until_millis: AtomicI64::new(UNKNOWN),
            of_all_until_millis: AtomicI64::new(UNKNOWN),
        }
    }

    /// Learns how far builders of all partitions are.
    pub(crate) fn of_all_is(&self, until_millis: i64) {
        self.of_all_until_millis
            .store(until_millis, Ordering::Release);
    }

    /// How far builders of all partitions are, in milliseconds since the epoch; `None` while nobody
    /// has told. What came later is counted here, also what builders of this partition have built.
    pub(crate) fn of_all_until_millis(&self) -> Option<i64> {
        known(&self.of_all_until_millis)
    }

    /// Asks how far builders are. Blocks.
    pub(crate) fn ask(
        &self,
        log: &KafkaConfig,
        builders: &Offsets,
        partition: i32,
        now_millis: i64,
    ) -> Result<(), Error> {
        let ends = builders.watermarks(partition)?;
        let committed = builders.committed(&[partition])?;
        let offset = match committed.get(&partition) {
            Some(committed) if committed.offset <= ends.high => committed.offset.max(ends.low),
            // Nothing was built yet, or it was built of a log that is gone.
            _ => ends.low,
        };
        let left_since = match self.state.lock().first_left {
            _ if offset >= ends.high => now_millis,
            Some((first, time)) if first == offset => time,
            _ => time_of(log, partition, offset)?.unwrap_or(now_millis),
        };
        let progress = |until_millis: i64| {
            let first = builders.first_at_or_after(partition, until_millis)?;
            Ok::<_, Error>(Progress {
                until_millis,
                wanted_from: first.map_or(offset, |first| first.min(offset)),
            })
        };
        let until_millis = left_since - self.late_millis;
        if self.state.lock().seen.is_empty() {
            // When they committed that is not known. As if it were just now, and they had been in
            // time before.
            let before = progress(until_millis - self.visible_after_millis)?;
            self.learn(now_millis - 2 * self.visible_after_millis, before, None);
        }
        let first_left = (offset < ends.high).then_some((offset, left_since));
        self.learn(now_millis, progress(until_millis)?, first_left);
        Ok(())
    }

    fn learn(&self, now_millis: i64, progress: Progress, first_left: Option<(i64, i64)>) {
        let mut state = self.state.lock();
        state.first_left = first_left;
        if state.seen.back().map(|(_, last)| *last) != Some(progress) {
            state.seen.push_back((now_millis, progress));
        }
        // The last of those that are so old.
        let known_for = |age: i64| {
            let old = |(at, _): &&(i64, Progress)| now_millis.saturating_sub(*at) >= age;
            state.seen.iter().take_while(old).last().copied()
        };
        if let Some((_, visible)) = known_for(self.visible_after_millis) {
            self.until_millis
                .store(visible.until_millis, Ordering::Release);
        }
        // Queries go on for a while with what they were told before.
        if let Some((at, released)) = known_for(2 * self.visible_after_millis) {
            self.wanted_from
                .store(released.wanted_from, Ordering::Release);
            state.seen.retain(|(seen_at, _)| *seen_at >= at);
        }
    }

    /// The first record that must be here; `None` before it was asked for.
    pub(crate) fn wanted_from(&self) -> Option<i64> {
        known(&self.wanted_from)
    }

    /// Spans that began before, in milliseconds since the epoch, are in blocks that everybody sees;
    /// `None` before it was asked for.
    pub(crate) fn until_millis(&self) -> Option<i64> {
        known(&self.until_millis)
    }
}

fn known(value: &AtomicI64) -> Option<i64> {
    Some(value.load(Ordering::Acquire)).filter(|value| *value != UNKNOWN)
}

/// The time of a record, or of the first that is left from there on; `None` when there is none.
fn time_of(log: &KafkaConfig, partition: i32, offset: i64) -> Result<Option<i64>, Error> {
    let consumer = PartitionConsumer::open(log, partition, StartAt::Offset(offset))?;
    let began = Instant::now();
    while began.elapsed() < RECORD_TIMEOUT {
        match consumer.poll(POLL_TIMEOUT)? {
            Polled::Record(record) => return Ok(Some(record.timestamp_millis())),
            Polled::EndOfPartition => return Ok(None),
            Polled::Nothing => {}
        }
    }
    Err(Error::Failed {
        action: format!("time of record {offset} of partition {partition}"),
        cause: format!("it did not arrive within {RECORD_TIMEOUT:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;
    const VISIBLE_AFTER: i64 = 10_000;

    fn built() -> Built {
        Built::new(Duration::from_secs(10), Duration::from_secs(2))
    }

    fn learn(built: &Built, at: i64, until_millis: i64, wanted_from: i64) {
        let progress = Progress {
            until_millis,
            wanted_from,
        };
        built.learn(at, progress, None);
    }

    #[test]
    fn what_was_built_counts_once_everybody_sees_it_and_may_go_later() {
        let built = built();
        assert_eq!(built.until_millis(), None);
        assert_eq!(built.wanted_from(), None);
        learn(&built, NOW - 2 * VISIBLE_AFTER, NOW - 60_000, 100);
        learn(&built, NOW, NOW - 1_000, 500);
        assert_eq!(built.until_millis(), Some(NOW - 60_000));
        assert_eq!(built.wanted_from(), Some(100));
        learn(&built, NOW + VISIBLE_AFTER - 1, NOW + 8_000, 700);
        assert_eq!(built.until_millis(), Some(NOW - 60_000));
        learn(&built, NOW + VISIBLE_AFTER, NOW + 9_000, 701);
        assert_eq!(built.until_millis(), Some(NOW - 1_000));
        assert_eq!(
            built.wanted_from(),
            Some(100),
            "queries may still ask for it"
        );
        learn(&built, NOW + 2 * VISIBLE_AFTER, NOW + 19_000, 900);
        assert_eq!(built.until_millis(), Some(NOW + 9_000));
        assert_eq!(built.wanted_from(), Some(500));
    }

    #[test]
    fn builders_that_stand_still_keep_everything_here() {
        let built = built();
        learn(&built, NOW - 2 * VISIBLE_AFTER, NOW - 60_000, 100);
        for second in 0..3600 {
            learn(&built, NOW + second * 1_000, NOW - 5_000, 400);
        }
        assert_eq!(built.wanted_from(), Some(400));
        assert_eq!(built.until_millis(), Some(NOW - 5_000));
        assert!(built.state.lock().seen.len() <= 2);
    }
}
