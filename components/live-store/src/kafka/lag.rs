//! How far behind the reading is, and what that means for a query.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// The length of the partition is known for so long after it was told.
const END_VALID_MILLIS: i64 = 30_000;

const UNKNOWN: i64 = -1;

/// Where the reading is. Times are milliseconds since the epoch.
pub(crate) struct Lag {
    /// The next record to read.
    next: AtomicI64,
    /// Offset that the next record to be written gets.
    end: AtomicI64,
    end_told_at: AtomicI64,
    /// Time of the last record.
    last_record: AtomicI64,
    /// Wakes those who wait for records to be read.
    read: Condvar,
    waiting: Mutex<()>,
}

impl Default for Lag {
    fn default() -> Self {
        Self {
            next: AtomicI64::new(UNKNOWN),
            end: AtomicI64::new(UNKNOWN),
            end_told_at: AtomicI64::new(UNKNOWN),
            last_record: AtomicI64::new(UNKNOWN),
            read: Condvar::new(),
            waiting: Mutex::new(()),
        }
    }
}

impl Lag {
    /// The next record to read is this one.
    pub(crate) fn reading_from(&self, offset: i64) {
        self.next.store(offset, Ordering::Release);
        self.wake();
    }

    /// A record was handed over; queries see it.
    pub(crate) fn handed_over(&self, offset: i64, timestamp_millis: i64) {
        self.last_record.store(timestamp_millis, Ordering::Release);
        self.next.store(offset + 1, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        // Whoever is about to wait has looked before, or looks afterwards.
        drop(self.waiting.lock());
        self.read.notify_all();
    }

    /// Waits until everything is read that was there at the call, as far as is known. False when it
    /// is not in time, or when nothing is known. Blocks.
    pub(crate) fn wait_for_end(&self, patience: Duration) -> bool {
        let end = self.end.load(Ordering::Acquire);
        let until = Instant::now() + patience;
        let is_read = || end != UNKNOWN && self.next.load(Ordering::Acquire) >= end;
        let mut waiting = self.waiting.lock();
        while !is_read() {
            if end == UNKNOWN || self.read.wait_until(&mut waiting, until).timed_out() {
                return is_read();
            }
        }
        true
    }

    /// The partition ends before this offset.
    pub(crate) fn end_is(&self, end: i64, now_millis: i64) {
        self.end.fetch_max(end, Ordering::AcqRel);
        self.end_told_at.store(now_millis, Ordering::Release);
    }

    /// Records that are not read; `None` when that is not known.
    pub(crate) fn records(&self, now_millis: i64) -> Option<i64> {
        let (next, end) = (
            self.next.load(Ordering::Acquire),
            self.end.load(Ordering::Acquire),
        );
        let age = now_millis.saturating_sub(self.end_told_at.load(Ordering::Acquire));
        (next != UNKNOWN && end != UNKNOWN && age <= END_VALID_MILLIS).then(|| (end - next).max(0))
    }

    /// How far behind the reading is in time; as good as caught up with `few_records` to read.
    /// `None` when that is not known.
    pub(crate) fn time_lag(&self, now_millis: i64, few_records: i64) -> Option<Duration> {
        if self.records(now_millis)? <= few_records {
            return Some(Duration::ZERO);
        }
        let last = self.last_record.load(Ordering::Acquire);
        let millis = u64::try_from(now_millis.saturating_sub(last)).unwrap_or(0);
        (last != UNKNOWN).then(|| Duration::from_millis(millis))
    }

    /// Whether records from before `end_millis` may not be read yet.
    pub(crate) fn is_lagged(&self, end_millis: i64, now_millis: i64) -> bool {
        match self.records(now_millis) {
            Some(0) => false,
            Some(_) => end_millis > self.last_record.load(Ordering::Acquire),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    #[test]
    fn a_query_is_lagged_when_it_asks_for_what_was_not_read() {
        let lag = Lag::default();
        assert!(lag.is_lagged(NOW - 100_000, NOW), "nothing is known");
        lag.reading_from(1000);
        lag.handed_over(1000, NOW - 10_000);
        assert!(lag.is_lagged(NOW - 100_000, NOW), "the end is not known");
        lag.end_is(6001, NOW);
        assert_eq!(lag.records(NOW), Some(5000));
        assert!(lag.is_lagged(NOW - 5_000, NOW));
        assert!(!lag.is_lagged(NOW - 10_000, NOW));
        assert!(!lag.is_lagged(NOW - 100_000, NOW));
        lag.handed_over(6000, NOW - 9_000);
        assert!(!lag.is_lagged(NOW, NOW), "all is read");
        let later = NOW + END_VALID_MILLIS + 1;
        assert!(
            lag.is_lagged(later, later),
            "Kafka has not answered for long"
        );
    }

    #[test]
    fn lag_in_time_is_the_age_of_the_last_record() {
        let lag = Lag::default();
        assert_eq!(lag.time_lag(NOW, 1000), None);
        lag.reading_from(0);
        lag.end_is(5000, NOW);
        assert_eq!(lag.time_lag(NOW, 1000), None, "no record yet");
        lag.handed_over(99, NOW - 7_000);
        assert_eq!(lag.time_lag(NOW, 1000), Some(Duration::from_secs(7)));
        lag.handed_over(3999, NOW - 7_000);
        assert_eq!(lag.time_lag(NOW, 1000), Some(Duration::ZERO));
        assert_eq!(lag.time_lag(NOW, 0), Some(Duration::from_secs(7)));
    }

    #[test]
    fn what_is_nearly_read_is_waited_for() {
        let lag = Lag::default();
        assert!(!lag.wait_for_end(Duration::ZERO), "nothing is known");
        lag.reading_from(0);
        lag.end_is(2, NOW);
        assert!(!lag.wait_for_end(Duration::ZERO));
        lag.handed_over(0, NOW);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| lag.wait_for_end(Duration::from_secs(600)));
            lag.handed_over(1, NOW);
            assert!(waiting.join().unwrap());
        });
        lag.end_is(9, NOW);
        assert!(!lag.wait_for_end(Duration::ZERO));
    }

    #[test]
    fn an_empty_partition_is_caught_up() {
        let lag = Lag::default();
        lag.reading_from(0);
        lag.end_is(0, NOW);
        assert_eq!(lag.time_lag(NOW, 0), Some(Duration::ZERO));
        assert!(!lag.is_lagged(NOW, NOW));
    }
}
