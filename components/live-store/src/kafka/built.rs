//! How far block-builders are with the partition, and so what must stay here.
//!
//! A record is in a block that every process sees once the builders' group has committed beyond it
//! and lists of blocks have been read anew since. Until then its spans are found nowhere but here,
//! however long that takes; and here queries must look for them, however old they are. Must never tell
//! a time until which blocks are only thought to be seen.

use std::{
    path::Path,
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tempo_ingest::{Error, KafkaConfig, Offsets, PartitionConsumer, Polled, StartAt};

use crate::{
    clock::millis,
    config::BoundarySettings,
    history::History,
    told::{ToldFile, UNKNOWN, known},
};

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
    file: ToldFile,
    state: Mutex<State>,
    /// Records before it need not be here.
    wanted_from: AtomicI64,
    /// Spans that began before are in blocks that everybody sees.
    until_millis: AtomicI64,
}

#[derive(Default)]
struct State {
    seen: History<Progress>,
    /// Offset and time of the first record that was not built when last asked.
    first_left: Option<(i64, i64)>,
    /// The progress of which `wanted_from` is.
    released: Option<Progress>,
}

fn whole_seconds(millis: i64) -> i64 {
    millis.div_euclid(1_000) * 1_000
}

impl Built {
    /// Goes on with what was told before, as a file in the data directory says.
    pub(crate) fn new(boundary: &BoundarySettings, data_path: &Path) -> Self {
        Self {
            file: ToldFile::open(data_path),
            visible_after_millis: millis(boundary.blocks_visible_after),
            late_millis: millis(boundary.max_span_delay),
            state: Mutex::default(),
            wanted_from: AtomicI64::new(UNKNOWN),
            until_millis: AtomicI64::new(UNKNOWN),
        }
    }

    /// Asks how far builders are. Blocks.
    pub(crate) fn ask(
        &self,
        log: &KafkaConfig,
        builders: &Offsets,
        partition: i32,
        now_millis: i64,
    ) -> Result<(), Error> {
        // In this order: what is committed meanwhile is not beyond the end.
        let committed = builders.committed(&[partition])?;
        let ends = builders.watermarks(partition)?;
        let committed = committed.get(&partition).map(|committed| committed.offset);
        let (offset, is_begun) = match committed {
            Some(committed) if committed <= ends.high => (
                committed.max(ends.low),
                committed > 0 && ends.low < ends.high,
            ),
            // Nothing was built yet, or it was built of a log that is gone.
            _ => (ends.low, false),
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
        let until_millis = self.built_before(left_since.min(now_millis));
        if self.state.lock().seen.is_empty() {
            let next_came = |told| match builders.first_at_or_after(partition, told)? {
                Some(next) => time_of(log, partition, next),
                None => Ok(None),
            };
            let told = self.known_at_start(is_begun, until_millis, next_came)?;
            let visible = self.visible_after_millis;
            let wanted_millis = match told {
                Some(told) => told.saturating_sub(visible),
                None => until_millis.saturating_sub(visible.saturating_mul(2)),
            };
            self.begin(told, progress(whole_seconds(wanted_millis))?);
        }
        let first_left = (offset < ends.high).then_some((offset, left_since));
        self.learn(now_millis, progress(until_millis)?, first_left);
        if let Some(until_millis) = self.until_millis() {
            self.file.tell(until_millis);
        }
        Ok(())
    }

    /// Spans that began before are in records that came before a time, in whole seconds: others are told
    /// these, and must not ask for a part of one that was let go.
    fn built_before(&self, millis: i64) -> i64 {
        whole_seconds(millis.saturating_sub(self.late_millis))
    }

    /// Until when everybody sees all blocks, as far as is known at first, where builders may have
    /// committed just now. `next_came` tells when the first record came at a time or later.
    fn known_at_start<E>(
        &self,
        is_begun: bool,
        until_millis: i64,
        next_came: impl FnOnce(i64) -> Result<Option<i64>, E>,
    ) -> Result<Option<i64>, E> {
        if !is_begun {
            // There are no blocks that might not be seen.
            return Ok(Some(until_millis));
        }
        let Some(told) = self.file.told() else {
            // Others know more, or it must be waited for.
            return Ok(None);
        };
        // Until the next record came there was nothing to build.
        let next_came = next_came(told)?;
        let free = next_came.map_or(until_millis, |at| self.built_before(at));
        Ok(Some(told.max(free).min(until_millis)))
    }

    /// What is known at first: until when everybody sees all blocks, and what may be asked for.
    fn begin(&self, until_millis: Option<i64>, released: Progress) {
        if let Some(until_millis) = until_millis {
            self.until_millis.store(until_millis, Ordering::Release);
        }
        self.wanted_from
            .store(released.wanted_from, Ordering::Release);
        self.state.lock().released = Some(released);
    }

    fn learn(&self, now_millis: i64, progress: Progress, first_left: Option<(i64, i64)>) {
        let mut state = self.state.lock();
        state.first_left = first_left;
        state.seen.learn(now_millis, progress);
        if let Some(visible) = state.seen.before(now_millis, self.visible_after_millis) {
            self.until_millis
                .store(visible.until_millis, Ordering::Release);
        }
        // Queries go on for a while with what they were told before.
        let still_asked = 2 * self.visible_after_millis;
        if let Some(released) = state.seen.before(now_millis, still_asked) {
            self.wanted_from
                .store(released.wanted_from, Ordering::Release);
            state.released = Some(released);
            state.seen.forget_before(now_millis, still_asked);
        }
    }

    /// The first record that must be here; `None` before it was asked for.
    pub(crate) fn wanted_from(&self) -> Option<i64> {
        known(&self.wanted_from)
    }

    /// Records before [`Built::wanted_from`] came before this time, in milliseconds since the epoch.
    pub(crate) fn wanted_from_millis(&self) -> Option<i64> {
        let released = self.state.lock().released;
        released.map(|released| released.until_millis)
    }

    /// Spans that began before, in milliseconds since the epoch, are in blocks that everybody sees;
    /// `None` before it was asked for.
    pub(crate) fn until_millis(&self) -> Option<i64> {
        known(&self.until_millis)
    }
}

/// The time of a record, or of the first that is left from there on; `None` when there is none.
pub(super) fn time_of(
    log: &KafkaConfig,
    partition: i32,
    offset: i64,
) -> Result<Option<i64>, Error> {
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

    const SETTINGS: BoundarySettings = BoundarySettings {
        blocks_visible_after: Duration::from_secs(10),
        max_span_delay: Duration::from_secs(2),
    };

    fn built() -> Built {
        let nowhere = Path::new("/nowhere");
        Built::new(&SETTINGS, nowhere)
    }

    fn learn(built: &Built, at: i64, until_millis: i64, wanted_from: i64) {
        let progress = Progress {
            until_millis,
            wanted_from,
        };
        built.learn(at, progress, None);
    }

    fn begin(built: &Built, until_millis: Option<i64>, wanted_from: i64) {
        let released = Progress {
            until_millis: NOW - 80_000,
            wanted_from,
        };
        built.begin(until_millis, released);
    }

    #[test]
    fn what_may_have_been_built_just_now_is_not_told_before_everybody_sees_it() {
        let built = built();
        begin(&built, None, 100);
        learn(&built, NOW, NOW - 1_000, 500);
        assert_eq!(built.until_millis(), None);
        assert_eq!(built.wanted_from(), Some(100));
        assert_eq!(built.wanted_from_millis(), Some(NOW - 80_000));
        learn(&built, NOW + VISIBLE_AFTER, NOW + 9_000, 600);
        assert_eq!(built.until_millis(), Some(NOW - 1_000));
    }

    #[test]
    fn what_is_known_at_first_is_what_was_told_and_that_nothing_came_since() {
        let folder = tempfile::tempdir().unwrap();
        let until = |is_begun, next_came: Option<i64>| {
            let built = Built::new(&SETTINGS, folder.path());
            let next_came = |_| Ok::<_, ()>(next_came);
            built.known_at_start(is_begun, NOW, next_came).unwrap()
        };
        assert_eq!(until(false, None), Some(NOW));
        assert_eq!(until(true, None), None);
        ToldFile::open(folder.path()).tell(NOW - 60_000);
        assert_eq!(until(false, None), Some(NOW));
        assert_eq!(until(true, Some(NOW - 59_000)), Some(NOW - 60_000));
        assert_eq!(until(true, Some(NOW - 30_500)), Some(NOW - 33_000));
        assert_eq!(until(true, Some(NOW + 9_000)), Some(NOW));
        // The others went on while it was away.
        assert_eq!(until(true, None), Some(NOW));
    }

    #[test]
    fn what_was_built_counts_once_everybody_sees_it_and_may_go_later() {
        let built = built();
        assert_eq!(built.until_millis(), None);
        assert_eq!(built.wanted_from(), None);
        begin(&built, Some(NOW - 60_000), 100);
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
        assert_eq!(built.wanted_from_millis(), Some(NOW - 1_000));
    }

    #[test]
    fn builders_that_stand_still_keep_everything_here() {
        let built = built();
        begin(&built, Some(NOW - 60_000), 100);
        for second in 0..3600 {
            learn(&built, NOW + second * 1_000, NOW - 5_000, 400);
        }
        assert_eq!(built.wanted_from(), Some(400));
        assert_eq!(built.until_millis(), Some(NOW - 5_000));
        assert!(built.state.lock().seen.values().count() <= 2);
    }
}
