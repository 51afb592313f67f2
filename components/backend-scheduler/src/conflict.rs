//! Whether this scheduler is the only one of its bucket.
//!
//! Two of them would hand the same blocks to two workers. Each writes into `work.json` who it is
//! and when it wrote; whoever finds another's recent mark there stands back, says so, and takes over
//! when the other falls silent. One that could not write for so long must take itself for silent.
//! Two that start at the same moment both find nothing; so whoever takes over looks once more after
//! a pause, and the one that wrote last has it. Pure; the scheduler reads and writes.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tempo_backend::Timestamp;

/// Who wrote `work.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// Of the process.
    pub(crate) instance: String,
    /// Machine and folder: the same after a restart.
    pub(crate) place: String,
    /// When it wrote.
    pub(crate) renewed: Timestamp,
}

/// A mark older than this many flushes is that of a scheduler that is gone.
const SILENT_FLUSHES: u32 = 3;

/// What a mark in the bucket means to the scheduler that is `own`: another one that is alive, or
/// nothing.
pub(crate) fn rival(
    found: Option<&Owner>,
    own: &Owner,
    flush_interval: Duration,
    now: Timestamp,
) -> Option<Owner> {
    let found = found?;
    let is_self = found.instance == own.instance || found.place == own.place;
    (!is_self && now <= lasts_until(found.renewed, flush_interval)).then(|| found.clone())
}

/// How long a mark of `renewed` counts.
pub(crate) fn lasts_until(renewed: Timestamp, flush_interval: Duration) -> Timestamp {
    renewed.saturating_add(flush_interval * SILENT_FLUSHES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(instance: &str, place: &str, seconds: i64) -> Owner {
        Owner {
            instance: instance.into(),
            place: place.into(),
            renewed: Timestamp::from_unix_seconds(seconds),
        }
    }

    #[test]
    fn only_a_living_stranger_is_a_rival() {
        let own = owner("1", "here", 0);
        let minute = Duration::from_secs(60);
        let now = Timestamp::from_unix_seconds(1000);
        let is_rival = |found: Owner| rival(Some(&found), &own, minute, now).is_some();
        assert!(is_rival(owner("2", "there", 990)));
        assert!(is_rival(owner("2", "there", 820)));
        assert!(!is_rival(owner("2", "there", 819)));
        assert!(!is_rival(owner("2", "here", 990)));
        assert!(!is_rival(owner("1", "there", 990)));
        // A clock that is ahead.
        assert!(is_rival(owner("2", "there", 2000)));
        assert!(rival(None, &own, minute, now).is_none());
    }
}
