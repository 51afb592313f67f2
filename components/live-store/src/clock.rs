//! The time of day, as a seam: tests decide when a trace is old.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Nanoseconds since the epoch.
    fn now_unix_nanos(&self) -> u64;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_unix_nanos(&self) -> u64 {
        system_unix_nanos()
    }
}

pub(crate) fn system_unix_nanos() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, nanos)
}

/// The time of a clock, in milliseconds since the epoch.
pub(crate) fn now_millis(clock: &dyn Clock) -> i64 {
    unix_millis(clock.now_unix_nanos())
}

/// Nanoseconds since the epoch as milliseconds.
pub(crate) fn unix_millis(unix_nanos: u64) -> i64 {
    i64::try_from(unix_nanos / 1_000_000).unwrap_or(i64::MAX)
}

/// A duration in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A duration in nanoseconds, at most 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
