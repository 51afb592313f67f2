//! Cutting queries into jobs. Everything here is a function of its arguments.

use std::{ops::Range, sync::Arc};

use tempo_api::{
    combine::{SearchPlan, Shard},
    job::{DataPlace, TracePlace},
    params::TimeRange,
};
use tempo_backend::BlockMeta;
use tempo_engine::metrics::Window;

use crate::config::{MetricsConfig, SearchConfig};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Shortest piece of the recent part of a search, in seconds.
const MIN_RECENT_PIECE_SECONDS: u32 = 60;

/// One place to look into, and the shard of the plan that it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct PlannedPlace {
    pub(crate) place: DataPlace,
    pub(crate) shard: usize,
}

/// The part of a range after `boundary`, which live-stores answer; `None` when there is none.
pub(crate) fn recent_range(range: TimeRange, boundary: u32) -> Option<TimeRange> {
    let start = range.start.max(boundary);
    (start < range.end).then_some(TimeRange {
        start,
        end: range.end,
    })
}

/// The part of a range up to `boundary`, whose blocks are searched; `None` when there is none.
pub(crate) fn block_range(range: TimeRange, boundary: u32) -> Option<TimeRange> {
    let cut = TimeRange {
        start: range.start.min(boundary),
        end: range.end.min(boundary),
    };
    (cut.start != cut.end).then_some(cut)
}

/// Cuts the recent part into pieces of equal length, none shorter than a minute.
fn recent_pieces(range: TimeRange, pieces: u32) -> Vec<TimeRange> {
    let length = ((range.end - range.start) / pieces.max(1)).max(MIN_RECENT_PIECE_SECONDS);
    let mut cut = Vec::new();
    for index in 0..pieces {
        let Some(start) = index
            .checked_mul(length)
            .and_then(|offset| range.start.checked_add(offset))
            .filter(|&start| start < range.end)
        else {
            break;
        };
        let end = match start.checked_add(length) {
            Some(end) if end < range.end && index + 1 < pieces => end,
            _ => range.end,
        };
        cut.push(TimeRange { start, end });
    }
    cut
}

/// The row groups of each job of a block. None for a block that is empty or does not say how large
/// it is.
fn row_groups_per_job(meta: &BlockMeta, target_bytes_per_job: u64) -> Vec<Range<u32>> {
    if meta.size == 0 || meta.total_records == 0 {
        return Vec::new();
    }
    let all = meta.total_records;
    let per_job = if meta.size < target_bytes_per_job {
        all
    } else {
        match target_bytes_per_job.checked_div(meta.size / u64::from(all)) {
            None => return Vec::new(),
            Some(groups) => u32::try_from(groups.max(1)).unwrap_or(u32::MAX),
        }
    };
    let mut jobs = Vec::new();
    let mut start = 0;
    while start < all {
        let end = start.saturating_add(per_job).min(all);
        jobs.push(start..end);
        start = end;
    }
    jobs
}

/// Newest first: the order in which a search for the most recent wants them.
fn sort_newest_first(blocks: &mut [Arc<BlockMeta>]) {
    blocks.sort_unstable_by(|a, b| (b.end_time, a.block_id).cmp(&(a.end_time, b.block_id)));
}

fn block_places(
    meta: &BlockMeta,
    target_bytes_per_job: u64,
) -> impl Iterator<Item = DataPlace> + use<> {
    let groups = row_groups_per_job(meta, target_bytes_per_job);
    let meta = Arc::new(meta.to_proto());
    groups.into_iter().map(move |groups| DataPlace::Block {
        meta: Arc::clone(&meta),
        first_row_group: groups.start,
        row_groups: groups.end - groups.start,
    })
}

/// The places of a search over `range`, and what the answer tells about them. `blocks` are those
/// that overlap the part of the range before the boundary.
pub(crate) fn plan_search(
    range: TimeRange,
    boundary: u32,
    blocks: Vec<Arc<BlockMeta>>,
    config: &SearchConfig,
) -> (SearchPlan, Vec<PlannedPlace>) {
    let mut plan = SearchPlan::default();
    let mut places = Vec::new();
    if let Some(recent) = recent_range(range, boundary) {
        for piece in recent_pieces(recent, config.ingester_shards) {
            places.push(PlannedPlace {
                place: DataPlace::Recent {
                    start: piece.start,
                    end: piece.end,
                },
                shard: 0,
            });
        }
        plan.shards.push(Shard {
            jobs: places.len() as u32,
            completed_through_seconds: Shard::NOTHING,
        });
    }
    let runs = Runs {
        target_bytes_per_job: config.target_bytes_per_job,
        max_shards: config.most_recent_shards,
        end_seconds: range.end,
    };
    shard_blocks(&mut plan, blocks, &runs, |_, place, shard| {
        places.push(PlannedPlace { place, shard });
    });
    plan.jobs = places.len() as u32;
    (plan, places)
}

/// How blocks are cut into jobs, and jobs into runs.
struct Runs {
    target_bytes_per_job: u64,
    max_shards: usize,
    /// A run ends before this second.
    end_seconds: u32,
}

/// Adds blocks to a plan, newest first, in runs that each complete the answer down to some second,
/// and hands out their parts with the run that each belongs to.
fn shard_blocks(
    plan: &mut SearchPlan,
    mut blocks: Vec<Arc<BlockMeta>>,
    runs: &Runs,
    mut add: impl FnMut(&BlockMeta, DataPlace, usize),
) {
    sort_newest_first(&mut blocks);
    plan.blocks = blocks.len() as u32;
    let blocks_per_shard = (blocks.len() / runs.max_shards).max(1);
    let mut open = 0..0;
    let mut open_jobs = 0;
    let mut closed = 0;
    for (index, meta) in blocks.iter().enumerate() {
        for place in block_places(meta, runs.target_bytes_per_job) {
            add(meta, place, plan.shards.len());
            open_jobs += 1;
        }
        if open_jobs > 0 {
            plan.block_bytes = plan.block_bytes.saturating_add(meta.size);
        }
        open.end = index + 1;
        let through = u32::try_from(meta.end_time.unix_seconds().max(0)).unwrap_or(u32::MAX);
        if open.len() >= blocks_per_shard
            && closed + 1 < runs.max_shards
            && through < runs.end_seconds
        {
            plan.shards.push(Shard {
                jobs: open_jobs,
                completed_through_seconds: through,
            });
            closed += 1;
            open = index + 1..index + 1;
            open_jobs = 0;
        }
    }
    if open_jobs > 0 {
        plan.shards.push(Shard {
            jobs: open_jobs,
            completed_through_seconds: Shard::EVERYTHING,
        });
    }
}

/// A piece of a query over time.
#[derive(Debug, Clone)]
pub(crate) struct PlannedPiece {
    pub(crate) place: DataPlace,
    pub(crate) shard: usize,
    pub(crate) window: Window,
    pub(crate) max_exemplars: u32,
}

/// The pieces of a query over time. Spans that start up to and including `cutoff_nano` are counted
/// in `blocks`, later ones in live data, so none is counted in both.
pub(crate) fn plan_range(
    window: Window,
    cutoff_nano: u64,
    blocks: Vec<Arc<BlockMeta>>,
    max_exemplars: u32,
    config: &MetricsConfig,
) -> (SearchPlan, Vec<PlannedPiece>) {
    let (old, recent) = (window.until(cutoff_nano), window.after(cutoff_nano));
    let (of_old, of_recent) = divide_exemplars(max_exemplars, &old, &recent);
    let mut plan = SearchPlan::default();
    let mut pieces = Vec::new();
    if !recent.is_empty() {
        pieces.push(PlannedPiece {
            place: DataPlace::Recent {
                start: whole_seconds(recent.start_nano),
                end: whole_seconds(recent.end_nano).saturating_add(1),
            },
            shard: 0,
            window: recent,
            max_exemplars: of_recent,
        });
        plan.shards.push(Shard {
            jobs: 1,
            completed_through_seconds: Shard::NOTHING,
        });
    }
    if !old.is_empty() {
        let all_nanos: u64 = blocks.iter().map(|meta| nanos_of(meta)).sum();
        let runs = Runs {
            target_bytes_per_job: config.target_bytes_per_job,
            max_shards: config.streaming_shards,
            end_seconds: whole_seconds(window.end_nano),
        };
        shard_blocks(&mut plan, blocks, &runs, |meta, place, shard| {
            pieces.push(PlannedPiece {
                max_exemplars: exemplars_of_part(of_old, meta, all_nanos, &place),
                place,
                shard,
                window: old,
            });
        });
    }
    plan.jobs = pieces.len() as u32;
    (plan, pieces)
}

/// The second in which a moment lies.
pub(crate) fn whole_seconds(nanos: u64) -> u32 {
    u32::try_from(nanos / NANOS_PER_SECOND).unwrap_or(u32::MAX)
}

/// How many exemplars blocks and live data may bring, by the time that each covers.
fn divide_exemplars(all: u32, old: &Window, recent: &Window) -> (u32, u32) {
    let length = |window: &Window| window.end_nano.saturating_sub(window.start_nano);
    let (old, recent) = (length(old), length(recent));
    let both = u128::from(old) + u128::from(recent);
    if both == 0 {
        return (0, 0);
    }
    let of_recent = (u128::from(all) * u128::from(recent)).div_ceil(both) as u32;
    (all - of_recent.min(all), of_recent)
}

/// Time that a block covers, at least a second.
fn nanos_of(meta: &BlockMeta) -> u64 {
    let covered = meta.end_time.saturating_since(meta.start_time);
    u64::try_from(covered.as_nanos())
        .unwrap_or(u64::MAX / 1_000_000)
        .clamp(NANOS_PER_SECOND, u64::MAX / 1_000_000)
}

/// How many exemplars a part of a block may bring of the `all` of blocks that cover `all_nanos`
/// together. A fifth more than its share, since not every part has that many.
fn exemplars_of_part(all: u32, meta: &BlockMeta, all_nanos: u64, place: &DataPlace) -> u32 {
    if all == 0 {
        return 0;
    }
    let share = f64::from(all) * nanos_of(meta) as f64 / all_nanos.max(1) as f64;
    let of_block = (share * 1.2).ceil().max(1.0);
    let part = match place {
        DataPlace::Block { row_groups, .. } => {
            f64::from(*row_groups) / f64::from(meta.total_records.max(1))
        }
        DataPlace::Recent { .. } => 1.0,
    };
    (of_block * part).floor().max(1.0) as u32
}

/// The places to collect tag names or values of `range` from.
pub(crate) fn plan_tags(
    range: TimeRange,
    boundary: u32,
    mut blocks: Vec<Arc<BlockMeta>>,
    target_bytes_per_job: u64,
) -> Vec<DataPlace> {
    let recent = recent_range(range, boundary).map(|recent| DataPlace::Recent {
        start: recent.start,
        end: recent.end,
    });
    sort_newest_first(&mut blocks);
    recent
        .into_iter()
        .chain(
            blocks
                .iter()
                .flat_map(|meta| block_places(meta, target_bytes_per_job)),
        )
        .collect()
}

/// The places to look for a trace: live data, and the space of block ids cut into `block_shards`.
pub(crate) fn plan_trace(block_shards: u32, range: Option<(i64, i64)>) -> Vec<TracePlace> {
    let boundaries = block_boundaries(block_shards);
    let blocks = boundaries.windows(2).filter_map(|pair| match pair {
        [first, last] => Some(TracePlace::Blocks {
            first: *first,
            last: *last,
            range,
        }),
        _ => None,
    });
    std::iter::once(TracePlace::Recent).chain(blocks).collect()
}

/// How many block jobs a trace lookup has: one per `blocks_per_shard` blocks, at least one, and no
/// more than fit the queue beside the live-store's.
pub(crate) fn trace_block_shards(
    blocks: usize,
    blocks_per_shard: u32,
    query_shards: u32,
    max_outstanding: usize,
) -> u32 {
    if blocks_per_shard == 0 {
        return query_shards.saturating_sub(1).max(1);
    }
    let wanted = blocks.div_ceil(blocks_per_shard as usize);
    let most = max_outstanding.saturating_sub(1).max(1);
    u32::try_from(wanted.clamp(1, most)).unwrap_or(u32::MAX)
}

/// Cuts the space of 16-byte ids into `shards` parts: `shards + 1` values, both ends included.
/// The first 8 bytes count up as evenly as integers can, the earlier parts being the longer ones.
fn block_boundaries(shards: u32) -> Vec<[u8; 16]> {
    let shards = u64::from(shards.max(1));
    let (width, longer) = (u64::MAX / shards, u64::MAX % shards);
    let mut high = 0_u64;
    let mut boundaries: Vec<[u8; 16]> = (0..shards)
        .map(|shard| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&high.to_be_bytes());
            high = high.wrapping_add(width + u64::from(shard < longer));
            id
        })
        .collect();
    boundaries.push([0xff; 16]);
    boundaries
}

#[cfg(test)]
mod tests {
    use tempo_backend::{BlockFormat, Timestamp};
    use uuid::Uuid;

    use super::*;

    fn range(start: u32, end: u32) -> TimeRange {
        TimeRange { start, end }
    }

    fn block(end_seconds: i64, size: u64, row_groups: u32) -> Arc<BlockMeta> {
        let mut meta = BlockMeta::new(
            Arc::from("t"),
            Uuid::from_u128(u128::from(end_seconds.unsigned_abs())),
            BlockFormat::VParquet4,
        );
        meta.start_time = Timestamp::from_unix_seconds(end_seconds - 5);
        meta.end_time = Timestamp::from_unix_seconds(end_seconds);
        meta.size = size;
        meta.total_records = row_groups;
        Arc::new(meta)
    }

    #[test]
    fn time_is_divided_at_the_boundary() {
        for (query, recent, blocks) in [
            (range(10, 90), None, Some(range(10, 90))),
            (range(10, 100), None, Some(range(10, 100))),
            (range(10, 150), Some(range(100, 150)), Some(range(10, 100))),
            (range(100, 150), Some(range(100, 150)), None),
            (range(120, 150), Some(range(120, 150)), None),
        ] {
            assert_eq!(recent_range(query, 100), recent);
            assert_eq!(block_range(query, 100), blocks);
        }
    }

    #[test]
    fn the_recent_part_is_cut_into_pieces_of_a_minute_or_more() {
        assert_eq!(
            recent_pieces(range(0, 900), 3),
            [range(0, 300), range(300, 600), range(600, 900)]
        );
        assert_eq!(
            recent_pieces(range(0, 90), 3),
            [range(0, 60), range(60, 90)]
        );
        assert_eq!(recent_pieces(range(7, 8), 3), [range(7, 8)]);
        assert_eq!(
            recent_pieces(range(0, 200), 3),
            [range(0, 66), range(66, 132), range(132, 200)]
        );
        assert_eq!(recent_pieces(range(u32::MAX - 1, u32::MAX), 3).len(), 1);
    }

    #[test]
    fn blocks_are_cut_by_row_groups() {
        let cut = |size, groups, target| row_groups_per_job(&block(9, size, groups), target);
        assert_eq!(cut(1000, 100, 900), [0..90, 90..100]);
        assert_eq!(cut(1000, 10, 1001), [0..10; 1]);
        assert_eq!(cut(1000, 3, 10), [0..1, 1..2, 2..3]);
        assert_eq!(cut(0, 3, 10), []);
        assert_eq!(cut(1000, 0, 10), []);
        assert_eq!(cut(10, 100, 5), []);
    }

    #[test]
    fn shards_end_where_time_is_complete() {
        let plan = |query_end, most_recent_shards| {
            let config = SearchConfig {
                most_recent_shards,
                target_bytes_per_job: 50,
                ..SearchConfig::default()
            };
            let blocks = [10, 20, 40, 30].map(|end| block(end, 100, 2)).to_vec();
            let (plan, places) = plan_search(range(1, query_end), 1_000, blocks, &config);
            assert_eq!((plan.blocks, plan.jobs, plan.block_bytes), (4, 8, 400));
            for (index, shard) in plan.shards.iter().enumerate() {
                let jobs = places.iter().filter(|place| place.shard == index).count();
                assert_eq!(jobs, shard.jobs as usize);
            }
            plan.shards
                .iter()
                .map(|shard| (shard.jobs, shard.completed_through_seconds))
                .collect::<Vec<_>>()
        };
        assert_eq!(plan(50, 2), [(4, 30), (4, 1)]);
        assert_eq!(plan(50, 3), [(2, 40), (2, 30), (4, 1)]);
        assert_eq!(plan(50, 4), [(2, 40), (2, 30), (2, 20), (2, 1)]);
        assert_eq!(plan(50, 5), [(2, 40), (2, 30), (2, 20), (2, 10)]);
        assert_eq!(plan(35, 4), [(4, 30), (2, 20), (2, 10)]);
    }

    #[test]
    fn recent_jobs_come_first_and_complete_no_time() {
        let (plan, places) = plan_search(
            range(0, 900),
            600,
            vec![block(500, 1, 1)],
            &SearchConfig::default(),
        );
        assert_eq!(plan.jobs, 4);
        assert_eq!(
            plan.shards,
            [
                Shard {
                    jobs: 3,
                    completed_through_seconds: Shard::NOTHING
                },
                Shard {
                    jobs: 1,
                    completed_through_seconds: 500
                }
            ]
        );
        assert!(matches!(
            places[0].place,
            DataPlace::Recent {
                start: 600,
                end: 700
            }
        ));
        assert!(matches!(places[3].place, DataPlace::Block { .. }));
        let tags = plan_tags(range(0, 900), 600, vec![block(500, 1, 1)], 10);
        assert_eq!(tags.len(), 2);
    }

    fn window(start_minute: u64, end_minute: u64) -> Window {
        Window {
            start_nano: start_minute * 60 * NANOS_PER_SECOND,
            end_nano: end_minute * 60 * NANOS_PER_SECOND,
            step_nano: 60 * NANOS_PER_SECOND,
            is_instant: false,
        }
    }

    #[test]
    fn a_query_over_time_is_divided_at_one_moment() {
        let config = MetricsConfig {
            target_bytes_per_job: 50,
            ..MetricsConfig::default()
        };
        let cutoff = 30 * 60 * NANOS_PER_SECOND + 5;
        let blocks = || vec![block(1_700, 100, 2), block(1_000, 100, 2)];
        let (plan, pieces) = plan_range(window(0, 40), cutoff, blocks(), 100, &config);
        assert_eq!((plan.jobs, plan.blocks, plan.block_bytes), (5, 2, 200));
        let shards: Vec<_> = plan
            .shards
            .iter()
            .map(|shard| (shard.jobs, shard.completed_through_seconds))
            .collect();
        assert_eq!(shards, [(1, Shard::NOTHING), (2, 1_700), (2, 1_000)]);
        assert!(matches!(
            pieces[0].place,
            DataPlace::Recent {
                start: 1_800,
                end: 2_401
            }
        ));
        assert_eq!(pieces[0].window, window(0, 40).after(cutoff));
        for piece in &pieces[1..] {
            assert_eq!(piece.window, window(0, 40).until(cutoff));
        }
        let (_, old_only) = plan_range(window(0, 20), cutoff, blocks(), 0, &config);
        assert_eq!(old_only.len(), 4);
        let (plan, new_only) = plan_range(window(31, 40), cutoff, blocks(), 0, &config);
        assert_eq!((plan.jobs, plan.blocks, new_only.len()), (1, 0, 1));
    }

    #[test]
    fn exemplars_are_shared_by_time_and_size() {
        let cut = |start, cutoff: u64, end| {
            let window = window(start, end);
            let cutoff = cutoff * 60 * NANOS_PER_SECOND;
            (window.until(cutoff), window.after(cutoff))
        };
        let (old, recent) = cut(0, 20, 80);
        assert_eq!(divide_exemplars(100, &old, &recent), (25, 75));
        let (old, recent) = cut(0, 75, 100);
        assert_eq!(divide_exemplars(2, &old, &recent), (1, 1));
        assert_eq!(divide_exemplars(0, &old, &recent), (0, 0));
        let meta = block(100, 100, 4);
        let part = |row_groups| DataPlace::Block {
            meta: Arc::new(meta.to_proto()),
            first_row_group: 0,
            row_groups,
        };
        let alone = nanos_of(&meta);
        assert_eq!(exemplars_of_part(100, &meta, alone, &part(4)), 120);
        assert_eq!(exemplars_of_part(100, &meta, alone, &part(1)), 30);
        assert_eq!(exemplars_of_part(100, &meta, alone * 10, &part(4)), 12);
        assert_eq!(exemplars_of_part(1, &meta, alone * 10, &part(1)), 1);
        assert_eq!(exemplars_of_part(0, &meta, alone, &part(4)), 0);
    }

    #[test]
    fn block_ids_are_divided_evenly() {
        let high = |shards| {
            block_boundaries(shards)
                .iter()
                .map(|id| u64::from_be_bytes(id[..8].try_into().unwrap()))
                .collect::<Vec<_>>()
        };
        assert_eq!(high(1), [0, u64::MAX]);
        assert_eq!(
            high(4),
            [
                0,
                0x4000_0000_0000_0000,
                0x8000_0000_0000_0000,
                0xc000_0000_0000_0000,
                u64::MAX
            ]
        );
        assert_eq!(block_boundaries(1)[1], [0xff; 16]);
        assert_eq!(plan_trace(4, None).len(), 5);
    }

    #[test]
    fn lookups_have_a_job_per_so_many_blocks() {
        assert_eq!(trace_block_shards(21, 5, 50, 2_000), 5);
        assert_eq!(trace_block_shards(0, 30, 50, 2_000), 1);
        assert_eq!(trace_block_shards(1_000, 1, 50, 10), 9);
        assert_eq!(trace_block_shards(1_000, 0, 50, 10), 49);
    }
}
