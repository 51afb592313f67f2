//! Where blocks end and live-stores begin, for queries of other processes.
//!
//! Query-frontends ask blocks for spans that began before a time that the owners of all partitions
//! tell, and live-stores for the rest. Owns what must stay here for that, and, of a monolith that a
//! cluster reads through its bridge, until when its spans are in blocks. Must never tell a time until
//! which blocks are only thought to be seen.

use std::{
    path::Path,
    sync::atomic::{AtomicI64, Ordering},
};

use parking_lot::Mutex;

use crate::{
    clock::{millis, nanos, unix_millis},
    config::BoundarySettings,
    history::History,
    local::LocalBlock,
    store::Shared,
    told::{ToldFile, UNKNOWN, known},
};

/// What others ask for here. Times are milliseconds since the epoch.
pub(crate) struct Boundary {
    /// Frontends may go so long by what they heard before.
    visible_after_millis: i64,
    /// Until when all partitions are in blocks that everybody sees, as others tell it.
    heard: Mutex<History<i64>>,
    /// The earliest that frontends may still go by.
    of_all_until_millis: AtomicI64,
}

impl Boundary {
    pub(crate) fn new(settings: &BoundarySettings) -> Self {
        Self {
            visible_after_millis: millis(settings.blocks_visible_after),
            heard: Mutex::default(),
            of_all_until_millis: AtomicI64::new(UNKNOWN),
        }
    }

    /// Hears how far all partitions are.
    pub(crate) fn of_all_is(&self, now_millis: i64, until_millis: i64) {
        let mut heard = self.heard.lock();
        heard.learn(now_millis, until_millis);
        let still_gone_by = self.visible_after_millis;
        heard.forget_before(now_millis, still_gone_by);
        if heard.before(now_millis, still_gone_by).is_some()
            && let Some(earliest) = heard.values().min()
        {
            self.of_all_until_millis.store(earliest, Ordering::Release);
        }
    }

    /// Whether queries may count here what began or came at this time, since other partitions are
    /// behind: they may be while nobody tells.
    pub(crate) fn is_counted_here(&self, at_millis: i64) -> bool {
        known(&self.of_all_until_millis).is_none_or(|until| at_millis >= until)
    }
}

/// Until when the spans of a monolith are in blocks that everybody sees.
pub(crate) struct Bridge {
    visible_after_nanos: u64,
    /// How long before it comes a span may begin.
    late_nanos: u64,
    told: ToldFile,
}

impl Bridge {
    /// Goes on with what was told before, as a file in the data directory says.
    pub(crate) fn new(settings: &BoundarySettings, data_path: &Path) -> Self {
        Self {
            visible_after_nanos: nanos(settings.blocks_visible_after),
            late_nanos: nanos(settings.max_span_delay),
            told: ToldFile::open(data_path),
        }
    }

    /// Spans that began before, in milliseconds since the epoch, are in blocks that everybody sees;
    /// `None` before it was looked at.
    pub(crate) fn until_millis(&self) -> Option<i64> {
        self.told.told()
    }

    /// When the first span of a block may have begun that is not seen by everybody at `now`.
    fn unseen_since(&self, block: &LocalBlock, now: u64) -> Option<u64> {
        let is_seen = |stored: u64| now.saturating_sub(stored) >= self.visible_after_nanos;
        match block.flushed_unix_nanos() {
            Some(stored) if is_seen(stored) => None,
            _ => {
                // An earlier process may have taken them. What began long before it came does not
                // show in a block.
                let began = || u64::try_from(block.meta().start_time.unix_nanos()).unwrap_or(0);
                let came = block.first_came_unix_nanos().unwrap_or_else(began);
                Some(came.saturating_sub(self.late_nanos))
            }
        }
    }
}

impl Shared {
    /// Looks until when everybody sees the spans of this monolith in blocks. Blocks for moments.
    pub(crate) fn look_what_is_seen(&self, now: u64) {
        let Some(bridge) = &self.bridge else {
            return;
        };
        let mut until = now.saturating_sub(bridge.late_nanos);
        for tenant in self.all_tenants() {
            // In this order: what becomes a block meanwhile is in both.
            if let Some(came) = tenant.first_live_unix_nanos() {
                until = until.min(came.saturating_sub(bridge.late_nanos));
            }
            for block in tenant.blocks() {
                if let Some(since) = bridge.unseen_since(&block, now) {
                    until = until.min(since);
                }
            }
        }
        let (until_millis, now_millis) = (unix_millis(until), unix_millis(now));
        // What comes late does not change what others go by; a clock that was ahead does.
        let told = bridge.told.told().filter(|told| *told <= now_millis);
        bridge
            .told
            .tell(told.map_or(until_millis, |told| told.max(until_millis)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;
    const VISIBLE_AFTER: i64 = 10_000;

    #[test]
    fn what_is_behind_elsewhere_is_counted_here() {
        let boundary = Boundary::new(&BoundarySettings {
            blocks_visible_after: Duration::from_secs(10),
            max_span_delay: Duration::ZERO,
        });
        assert!(boundary.is_counted_here(0), "as far as is known");
        boundary.of_all_is(NOW, NOW - 60_000);
        assert!(boundary.is_counted_here(0), "who heard nothing yet");
        boundary.of_all_is(NOW + VISIBLE_AFTER, NOW);
        let is_from = |at: i64| boundary.is_counted_here(at) && !boundary.is_counted_here(at - 1);
        assert!(is_from(NOW - 60_000), "who heard that before");
        boundary.of_all_is(NOW + 2 * VISIBLE_AFTER - 1, NOW + 7);
        assert!(is_from(NOW - 60_000));
        boundary.of_all_is(NOW + 2 * VISIBLE_AFTER, NOW + 7);
        assert!(is_from(NOW));
        // A partition that is further behind appears: whoever has heard it goes by that.
        boundary.of_all_is(NOW + 2 * VISIBLE_AFTER + 1, NOW - 30_000);
        assert!(is_from(NOW - 30_000));
        boundary.of_all_is(NOW + 3 * VISIBLE_AFTER, NOW + 9);
        assert!(is_from(NOW - 30_000));
        boundary.of_all_is(NOW + 4 * VISIBLE_AFTER, NOW + 9);
        assert!(is_from(NOW + 9));
    }
}
