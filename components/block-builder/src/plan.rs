//! What a section is, as it is noted beside the committed offset, and which block it becomes.

use std::fmt;

use tempo_backend::{BlockMeta, Timestamp};
use uuid::Uuid;

/// The namespace of Tempo's block ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x28840903_6eb5_4ffb_8880_93a4fa98dbcb);

/// What notes begin with.
const MARK: &str = "tempostack/1";

/// A section whose end is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Offset of its first record.
    pub(crate) start: i64,
    /// Offset after its last record.
    pub(crate) until: i64,
    /// Timestamp of its first record.
    pub(crate) timestamp_millis: i64,
}

/// What is noted beside a committed offset. Of notes of others nothing is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    /// The section that begins there is decided, and blocks of it may exist.
    Planned(Plan),
    /// The section before is built; its blocks may still be hidden from compaction.
    Built(Plan),
}

impl Note {
    pub(crate) fn parse(metadata: &str) -> Option<Self> {
        let mut words = metadata.split(' ');
        if words.next()? != MARK {
            return None;
        }
        let kind = words.next()?;
        let mut number = |name: &str| {
            let (key, value) = words.next()?.split_once('=')?;
            (key == name).then(|| value.parse::<i64>().ok())?
        };
        let plan = Plan {
            start: number("start")?,
            until: number("until")?,
            timestamp_millis: number("millis")?,
        };
        match kind {
            "planned" => Some(Self::Planned(plan)),
            "built" => Some(Self::Built(plan)),
            _ => None,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, plan) = match self {
            Self::Planned(plan) => ("planned", plan),
            Self::Built(plan) => ("built", plan),
        };
        write!(
            f,
            "{MARK} {kind} start={} until={} millis={}",
            plan.start, plan.until, plan.timestamp_millis
        )
    }
}

/// The id of a section's block: the same for the same tenant, partition, first offset and attempt
/// (from 1), and the same as Tempo's.
pub(crate) fn block_id(tenant: &str, partition: i32, start: i64, sequence: u64) -> Uuid {
    let mut name = Vec::with_capacity(tenant.len() + 24);
    name.extend_from_slice(tenant.as_bytes());
    name.extend_from_slice(&i64::from(partition).to_le_bytes());
    name.extend_from_slice(&start.to_le_bytes());
    name.extend_from_slice(&sequence.to_le_bytes());
    Uuid::new_v5(&NAMESPACE, &name)
}

/// Keeps a block's time range from following wrong clocks. True when it had to.
///
/// A section's records were made within `cycle` of its first, so spans should lie between `slack`
/// before and `cycle + slack` after it. The end decides how long a block is kept, and that counts
/// from the arrival: a span from the future must not move it beyond, and where all spans are old it
/// is raised to `slack` before the first record, or the next retention job would take what was just
/// sent. The start stays that of the earliest span, however old: Tempo raises it, and then does not
/// find what was sent late. A block whose spans have no time at all gets that of its first record.
pub(crate) fn bound_times(
    meta: &mut BlockMeta,
    timestamp_millis: i64,
    slack_millis: i64,
    cycle_millis: i64,
) -> bool {
    let at = |millis: i64| Timestamp::from_unix_nanos(millis.saturating_mul(1_000_000));
    if meta.start_time.is_zero() && meta.end_time.is_zero() {
        meta.start_time = at(timestamp_millis);
        meta.end_time = at(timestamp_millis);
        return false;
    }
    let low = at(timestamp_millis.saturating_sub(slack_millis));
    let high = at(timestamp_millis
        .saturating_add(slack_millis)
        .saturating_add(cycle_millis));
    let outside = meta.start_time < low || meta.end_time > high;
    meta.start_time = meta.start_time.min(high);
    meta.end_time = meta.end_time.min(high).max(low).max(meta.start_time);
    outside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_tempo() {
        let ids = [
            (
                ("single-tenant", 0, 0, 1),
                "b1fc56f5-83fb-5b0a-a200-9ca61c8f15c9",
            ),
            (
                ("single-tenant", 0, 0, 2),
                "b7d20f58-7c2e-5fac-93ae-70ca7217ccc1",
            ),
            (
                ("single-tenant", 0, 100, 1),
                "cc549544-fdb3-5a60-ac5d-ad12b0c04f9b",
            ),
            (
                ("single-tenant", 0, 100, 2),
                "9275bd92-60f5-5c47-84b3-772696dfbe5e",
            ),
            (
                ("single-tenant", 1, 0, 1),
                "a3bbdca4-d439-55f0-98af-b032fc5da604",
            ),
            (
                ("tenant-1", 3, 12345, 1),
                "003a44f3-4cfa-5985-8ab8-1bb4109c2f3b",
            ),
            (
                ("tenant-1", 3, 12345, 2),
                "64621887-c4be-58f6-9352-3c802b88c2c7",
            ),
        ];
        for ((tenant, partition, start, sequence), id) in ids {
            assert_eq!(block_id(tenant, partition, start, sequence).to_string(), id);
        }
    }

    #[test]
    fn notes_are_read_back_and_foreign_ones_are_not() {
        let plan = Plan {
            start: 5,
            until: 900,
            timestamp_millis: 1_700_000_000_123,
        };
        for note in [Note::Planned(plan), Note::Built(plan)] {
            assert_eq!(Note::parse(&note.to_string()), Some(note));
        }
        for foreign in [
            "",
            "rdkafka-1234",
            "tempostack/2 planned start=1 until=2 millis=3",
            "tempostack/1 planned start=1 until=2",
            "tempostack/1 lost start=1 until=2 millis=3",
        ] {
            assert_eq!(Note::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_block_covers_old_spans_but_does_not_follow_future_ones() {
        const MINUTE: i64 = 60_000;
        const T: i64 = 1000 * MINUTE;
        let bounded = |start: i64, end: i64| {
            let at = |minutes: i64| Timestamp::from_unix_nanos((T + minutes * MINUTE) * 1_000_000);
            let mut meta = BlockMeta {
                start_time: at(start),
                end_time: at(end),
                ..BlockMeta::default()
            };
            let outside = bound_times(&mut meta, T, 3 * MINUTE, MINUTE);
            let minutes = |time: Timestamp| (time.unix_seconds() - T / 1000) / 60;
            (minutes(meta.start_time), minutes(meta.end_time), outside)
        };
        assert_eq!(bounded(-2, 2), (-2, 2, false));
        assert_eq!(
            bounded(-10, 2),
            (-10, 2, true),
            "sent late, found all the same"
        );
        assert_eq!(
            bounded(-10, -9),
            (-10, -3, true),
            "kept from its arrival on, not retired at once"
        );
        assert_eq!(bounded(-2, 20), (-2, 4, true));
        assert_eq!(bounded(5, 10), (4, 4, true), "never ends before it starts");
        let mut timeless = BlockMeta::default();
        assert!(!bound_times(&mut timeless, T, 3 * MINUTE, MINUTE));
        assert_eq!(timeless.start_time.unix_seconds(), T / 1000);
    }
}
