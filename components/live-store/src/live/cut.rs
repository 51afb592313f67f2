//! When a trace leaves the live traces, and when a block is closed.

use std::time::Duration;

use crate::clock::nanos;

/// The times that matter for cutting a trace, in nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceAge {
    pub(crate) created: u64,
    pub(crate) last_append: u64,
}

/// When a trace is cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TraceCut {
    pub(crate) max_idle: Duration,
    pub(crate) max_live: Duration,
}

impl TraceCut {
    /// Whether the trace is cut at `now`: idle for longer than `max_idle` or live for longer than
    /// `max_live`.
    pub(crate) fn is_due(&self, age: &TraceAge, now: u64) -> bool {
        age.last_append < now.saturating_sub(nanos(self.max_idle))
            || age.created < now.saturating_sub(nanos(self.max_live))
    }
}

/// Why a block is closed; the label of `tempo_live_store_blocks_cut_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockCutReason {
    /// Asked for: a flush, or the end of the process.
    Immediate,
    /// Old enough.
    MaxBlockDuration,
    /// Large enough.
    MaxBlockBytes,
    /// Live columns need too much memory.
    MaxLiveTableBytes,
}

impl BlockCutReason {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Immediate => "immediate",
            Self::MaxBlockDuration => "max_block_duration",
            Self::MaxBlockBytes => "max_block_bytes",
            Self::MaxLiveTableBytes => "max_live_table_bytes",
        }
    }
}

/// When a block is closed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockCut {
    pub(crate) max_duration: Duration,
    pub(crate) max_bytes: u64,
    /// Serialized bytes that it can hold of one trace.
    pub(crate) max_trace_bytes: u64,
}

impl BlockCut {
    /// Why a block that received its first trace at `since` and is expected to have
    /// `expected_bytes` is closed at `now`, if it is.
    pub(crate) fn reason(
        &self,
        since: u64,
        expected_bytes: u64,
        now: u64,
    ) -> Option<BlockCutReason> {
        if expected_bytes >= self.max_bytes {
            return Some(BlockCutReason::MaxBlockBytes);
        }
        let age = now.saturating_sub(since);
        (age >= nanos(self.max_duration)).then_some(BlockCutReason::MaxBlockDuration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_trace_is_cut_when_it_was_idle_or_live_for_too_long() {
        let cut = TraceCut {
            max_idle: Duration::from_secs(1),
            max_live: Duration::from_secs(3600),
        };
        // Pushed at 0: at 0.5 s nothing. Pushed again at 1 s: at 1.5 s nothing, at 2.5 s cut.
        let at = |created, last_append| TraceAge {
            created,
            last_append,
        };
        let start = 1_000 * SECOND;
        assert!(!cut.is_due(&at(start, start), start + SECOND / 2));
        let appended = at(start, start + SECOND);
        assert!(!cut.is_due(&appended, start + SECOND * 3 / 2));
        assert!(
            !cut.is_due(&appended, start + 2 * SECOND),
            "the limit itself is allowed"
        );
        assert!(cut.is_due(&appended, start + SECOND * 5 / 2));
        let busy = |now| cut.is_due(&at(start, now), now);
        assert!(!busy(start + 3600 * SECOND));
        assert!(busy(start + 3601 * SECOND));
    }

    #[test]
    fn a_block_is_closed_by_size_before_age() {
        let cut = BlockCut {
            max_duration: Duration::from_secs(30),
            max_bytes: 100,
            max_trace_bytes: u64::MAX,
        };
        assert_eq!(cut.reason(SECOND, 99, 30 * SECOND), None);
        assert_eq!(
            cut.reason(SECOND, 99, 31 * SECOND),
            Some(BlockCutReason::MaxBlockDuration)
        );
        assert_eq!(
            cut.reason(SECOND, 100, 31 * SECOND),
            Some(BlockCutReason::MaxBlockBytes)
        );
        assert_eq!(
            cut.reason(40 * SECOND, 1, 31 * SECOND),
            None,
            "a clock set back"
        );
    }
}
