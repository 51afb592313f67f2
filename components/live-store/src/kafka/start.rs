//! Which partition a live-store reads, and where it starts.

use tempo_ingest::Watermarks;

/// An instance id that names no partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "live_store.ring.instance_id '{0}' does not end in -<number>, which is the partition to read; \
     run live-stores as a StatefulSet or set the id"
)]
pub struct NoPartition(String);

/// The partition and the consumer group of an instance: `live-store-zone-a-3` reads partition 3 in
/// group `live-store-zone-a`, so each zone reads everything once.
///
/// # Errors
/// When the id does not end in a number.
pub fn partition_of(instance_id: &str) -> Result<(i32, String), NoPartition> {
    instance_id
        .rsplit_once('-')
        .filter(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|(group, number)| Some((number.parse().ok()?, group.to_owned())))
        .ok_or_else(|| NoPartition(instance_id.to_owned()))
}

/// Where reading starts.
///
/// `committed` is behind everything that complete local blocks hold; it counts only when those
/// blocks are there, so that a lost disk is read again. Beyond the end it is of a topic that is gone
/// and was made anew. Nothing from before `recent` is wanted, the
/// first record that queries may still ask for; `None` when none is as young.
pub(crate) fn start_at(
    committed: Option<i64>,
    has_local_blocks: bool,
    recent: Option<i64>,
    ends: Watermarks,
) -> i64 {
    let recent = recent.unwrap_or(ends.high);
    let start = match committed {
        Some(committed) if has_local_blocks && committed <= ends.high => committed.max(recent),
        _ => recent,
    };
    start.clamp(ends.low, ends.high)
}

/// Whether reading passes over records that were neither in local blocks nor let go by a process
/// that told so (`was_told`).
pub(crate) fn passes_over(
    start: i64,
    committed: Option<i64>,
    has_local_blocks: bool,
    was_told: bool,
) -> bool {
    let known = committed.filter(|_| has_local_blocks && was_told);
    start > known.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ordinal_is_the_partition_and_the_rest_the_group() {
        for (id, expected) in [
            ("live-store-zone-a-0", Some((0, "live-store-zone-a"))),
            (
                "tempo-prod-live-store-zone-a-3",
                Some((3, "tempo-prod-live-store-zone-a")),
            ),
            ("live-store-12", Some((12, "live-store"))),
            ("live-store", None),
            ("live-store-", None),
            ("live-store-a1", None),
            ("live-store-99999999999", None),
            ("", None),
        ] {
            let found = partition_of(id).ok();
            let found = found.as_ref().map(|(n, group)| (*n, group.as_str()));
            assert_eq!(found, expected, "{id}");
        }
    }

    #[test]
    fn reading_starts_where_nothing_wanted_is_missed() {
        let ends = Watermarks { low: 10, high: 100 };
        for (what, committed, has_blocks, recent, expected) in [
            ("goes on after the commit", Some(60), true, Some(40), 60),
            ("skips what is too old", Some(20), true, Some(40), 40),
            ("nothing young: the end", Some(20), true, None, 100),
            ("first start", None, false, Some(40), 40),
            ("first start, nothing young", None, false, None, 100),
            (
                "disk lost: the commit does not count",
                Some(60),
                false,
                Some(40),
                40,
            ),
            ("commit lost", None, true, Some(40), 40),
            ("records gone", Some(5), true, Some(3), 10),
            ("topic made anew", Some(5000), true, Some(12), 12),
        ] {
            assert_eq!(
                start_at(committed, has_blocks, recent, ends),
                expected,
                "{what}"
            );
        }
    }

    #[test]
    fn what_a_lost_disk_held_is_passed_over() {
        for (what, start, committed, has_blocks, was_told, expected) in [
            ("goes on", 60, Some(60), true, true, false),
            ("reads once more", 40, Some(60), true, true, false),
            ("skips", 70, Some(60), true, true, true),
            ("first start", 0, None, false, false, false),
            ("first start, late", 40, None, false, false, true),
            ("disk lost", 40, Some(60), false, false, true),
            ("block damaged", 40, Some(60), false, true, true),
            ("an older version ran", 60, Some(60), true, false, true),
        ] {
            let passed = passes_over(start, committed, has_blocks, was_told);
            assert_eq!(passed, expected, "{what}");
        }
    }
}
