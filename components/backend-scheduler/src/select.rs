//! Which blocks are merged with each other: Tempo's choice by windows of time.
//!
//! Pure. Blocks of one window (of the end of their spans) are merged with blocks of the same level
//! while the window is young, and with whatever is small once it is a day old. Groups and the order
//! within them are compared as text, as Tempo does, so that both choose the same.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tempo_backend::{BlockMeta, Timestamp};
use uuid::Uuid;

use crate::Error;

/// What limits a choice; the defaults are Tempo's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelectionConfig {
    /// `compaction_window`: only blocks of one window are merged.
    pub window: Duration,
    /// `min_input_blocks`.
    pub min_blocks: usize,
    /// `max_input_blocks`.
    pub max_blocks: usize,
    /// `max_compaction_objects`: traces of the inputs together.
    pub max_objects: u64,
    /// `max_block_bytes`: bytes of the inputs together.
    pub max_bytes: u64,
    /// `max_compaction_level`: blocks of this level are left alone; 0: of none.
    pub max_level: u32,
}

impl Default for SelectionConfig {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(3600),
            min_blocks: 2,
            max_blocks: 4,
            max_objects: 6_000_000,
            max_bytes: 100 << 30,
            max_level: 0,
        }
    }
}

impl SelectionConfig {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refused = |setting, problem: &str| {
            Err(Error::Setting {
                setting,
                problem: problem.to_owned(),
            })
        };
        if self.window.as_secs() == 0 {
            return refused(
                "backend_scheduler.provider.compaction.compaction.compaction_window",
                "must be a second at least",
            );
        }
        if self.min_blocks < 2 || self.max_blocks < self.min_blocks {
            return refused(
                "backend_scheduler.provider.compaction",
                "min_input_blocks must be 2 at least, and max_input_blocks not below it",
            );
        }
        Ok(())
    }
}

/// Blocks to be merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Two at least.
    pub blocks: Vec<Arc<BlockMeta>>,
    /// Same for choices of one window (and level) of a tenant.
    pub hash: String,
}

/// After this long a window is no longer young.
const ACTIVE: Duration = Duration::from_secs(24 * 3600);

struct Entry {
    meta: Arc<BlockMeta>,
    group: String,
    order: String,
    hash: String,
    columns: u64,
}

/// All choices among `blocks`, first those to be made first. Blocks of `busy` are left alone.
pub fn select(
    blocks: &[Arc<BlockMeta>],
    busy: &HashSet<Uuid>,
    config: &SelectionConfig,
    now: Timestamp,
) -> Vec<Selected> {
    let current = window(now, config.window);
    let active = window(now.saturating_sub(ACTIVE), config.window);
    let mut entries: Vec<Entry> = blocks
        .iter()
        .filter(|meta| meta.format.is_supported() && !busy.contains(&meta.block_id))
        .filter(|meta| config.max_level == 0 || meta.compaction_level < config.max_level)
        .filter_map(|meta| entry(meta, current, active, config.window))
        .collect();
    entries.sort_by(|one, other| (&one.group, &one.order).cmp(&(&other.group, &other.order)));
    let mut selected = Vec::new();
    let mut at = 0;
    while at < entries.len() {
        let end = stripe_end(&entries, at, config);
        let count = end - at;
        if count < 2 || count < config.min_blocks {
            at += 1;
            continue;
        }
        let stripe = &entries[at..end];
        selected.push(Selected {
            blocks: stripe.iter().map(|entry| Arc::clone(&entry.meta)).collect(),
            hash: stripe[0].hash.clone(),
        });
        at = end;
    }
    selected
}

/// Seconds may be negative, and division rounds towards zero.
fn window(time: Timestamp, width: Duration) -> i64 {
    (time.unix_nanos().div_euclid(1_000_000_000)) / width.as_secs().max(1) as i64
}

fn entry(meta: &Arc<BlockMeta>, current: i64, active: i64, width: Duration) -> Option<Entry> {
    let window = window(meta.end_time, width);
    // Where the rules change; Tempo leaves it out.
    if window == active {
        return None;
    }
    let age = hex16(current - window);
    let objects = hex16(meta.total_objects);
    let columns = meta.dedicated_columns.hash_for_grouping();
    let level = meta.compaction_level;
    let factor = meta.replication_factor;
    let format = meta.format.as_str();
    let tenant = &meta.tenant_id;
    let (group, order, hash) = if window >= active {
        (
            format!("A-{level}-{age}-{factor}"),
            format!("{objects}-{format}-{columns:016X}"),
            format!("{tenant}-{level}-{window}-{factor}"),
        )
    } else {
        (
            format!("B-{age}-{factor}"),
            format!("{level}-{objects}-{format}-{columns:016X}"),
            format!("{tenant}-{window}-{factor}"),
        )
    };
    Some(Entry {
        meta: Arc::clone(meta),
        group,
        order,
        hash,
        columns,
    })
}

/// 16 characters, sign included, as Go prints it.
fn hex16(number: i64) -> String {
    if number < 0 {
        format!("-{:015X}", number.unsigned_abs())
    } else {
        format!("{number:016X}")
    }
}

/// Where the blocks end that fit with the one at `begin`.
fn stripe_end(entries: &[Entry], begin: usize, config: &SelectionConfig) -> usize {
    let first = &entries[begin];
    let (mut objects, mut bytes) = (0_u64, 0_u64);
    for (at, entry) in entries.iter().enumerate().skip(begin) {
        objects = objects.saturating_add(u64::try_from(entry.meta.total_objects).unwrap_or(0));
        bytes = bytes.saturating_add(entry.meta.size);
        let fits = entry.group == first.group
            && entry.meta.format == first.meta.format
            && entry.columns == first.columns
            && at - begin < config.max_blocks
            && objects <= config.max_objects
            && bytes <= config.max_bytes;
        if !fits {
            return at;
        }
    }
    entries.len()
}

#[cfg(test)]
mod tests {
    use tempo_backend::BlockFormat;

    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn block(id: u128, objects: i64, level: u32, factor: u32, age_seconds: i64) -> Arc<BlockMeta> {
        let mut meta = BlockMeta::new("t".into(), Uuid::from_u128(id), BlockFormat::VParquet4);
        meta.total_objects = objects;
        meta.size = 100;
        meta.compaction_level = level;
        meta.replication_factor = factor;
        meta.end_time = Timestamp::from_unix_nanos((NOW - age_seconds) * 1_000_000_000);
        Arc::new(meta)
    }

    fn choose(blocks: &[Arc<BlockMeta>], config: &SelectionConfig) -> Vec<(Vec<u128>, String)> {
        let now = Timestamp::from_unix_nanos(NOW * 1_000_000_000);
        select(blocks, &HashSet::new(), config, now)
            .into_iter()
            .map(|selected| {
                let ids = selected.blocks.iter().map(|meta| meta.block_id.as_u128());
                (ids.collect(), selected.hash)
            })
            .collect()
    }

    #[test]
    fn blocks_are_chosen_as_tempo_does() {
        let day = 24 * 3600;
        let blocks = [
            block(1, 5, 0, 1, 0),
            block(2, 1, 0, 1, 0),
            block(3, 3, 0, 1, 0),
            block(4, 2, 0, 1, 0),
            block(5, 4, 0, 1, 0),
            block(6, 1, 1, 1, 0),
            block(7, 1, 0, 0, 0),
            block(8, 1, 0, 1, 2 * day),
            block(9, 1, 3, 1, 2 * day),
        ];
        let window = NOW / 3600;
        let chosen = choose(&blocks, &SelectionConfig::default());
        assert_eq!(
            chosen,
            [
                (vec![2, 4, 3, 5], format!("t-0-{window}-1")),
                (vec![8, 9], format!("t-{}-1", (NOW - 2 * day) / 3600)),
            ]
        );
    }

    #[test]
    fn limits_hold() {
        let blocks: Vec<_> = (1..=6).map(|id| block(id, 10, 0, 1, 0)).collect();
        let sizes = |config: SelectionConfig| -> Vec<usize> {
            let chosen = choose(&blocks, &config);
            chosen.iter().map(|(ids, _)| ids.len()).collect()
        };
        let config = SelectionConfig::default();
        assert_eq!(sizes(config), [4, 2]);
        assert_eq!(
            sizes(SelectionConfig {
                min_blocks: 3,
                ..config
            }),
            [4]
        );
        assert_eq!(
            sizes(SelectionConfig {
                max_blocks: 3,
                ..config
            }),
            [3, 3]
        );
        assert_eq!(
            sizes(SelectionConfig {
                max_objects: 25,
                ..config
            }),
            [2, 2, 2]
        );
        assert_eq!(
            sizes(SelectionConfig {
                max_objects: 19,
                ..config
            }),
            [0; 0]
        );
        assert_eq!(
            sizes(SelectionConfig {
                max_bytes: 300,
                ..config
            }),
            [3, 3]
        );
        assert_eq!(
            sizes(SelectionConfig {
                max_level: 1,
                ..config
            }),
            [4, 2]
        );
        let raised: Vec<_> = (1..=6).map(|id| block(id, 10, 1, 1, 0)).collect();
        let chosen = choose(
            &raised,
            &SelectionConfig {
                max_level: 1,
                ..config
            },
        );
        assert!(chosen.is_empty());
    }

    #[test]
    fn what_differs_stays_apart() {
        let mut other = BlockMeta::clone(&block(2, 1, 0, 1, 0));
        other.format = BlockFormat::VParquet5;
        let mut columns = BlockMeta::clone(&block(3, 1, 0, 1, 0));
        columns.dedicated_columns = tempo_backend::DedicatedColumns::tempo_defaults();
        let mut unknown = BlockMeta::clone(&block(4, 1, 0, 1, 0));
        unknown.format = BlockFormat::from("vParquet9");
        let hour = block(5, 1, 0, 1, 3600);
        let on_the_border = block(6, 1, 0, 1, 24 * 3600);
        let blocks = [
            block(1, 1, 0, 1, 0),
            other.into(),
            columns.into(),
            unknown.into(),
            hour,
            on_the_border.clone(),
            on_the_border,
        ];
        assert!(choose(&blocks, &SelectionConfig::default()).is_empty());
    }

    #[test]
    fn busy_blocks_are_left_alone() {
        let blocks: Vec<_> = (1..=3).map(|id| block(id, 1, 0, 1, 0)).collect();
        let busy = HashSet::from([Uuid::from_u128(2)]);
        let now = Timestamp::from_unix_nanos(NOW * 1_000_000_000);
        let chosen = select(&blocks, &busy, &SelectionConfig::default(), now);
        let ids: Vec<_> = chosen[0]
            .blocks
            .iter()
            .map(|meta| meta.block_id.as_u128())
            .collect();
        assert_eq!(ids, [1, 3]);
    }

    #[test]
    fn times_to_come_print_a_sign() {
        assert_eq!(hex16(-1), "-000000000000001");
        assert_eq!(hex16(255), "00000000000000FF");
    }
}
