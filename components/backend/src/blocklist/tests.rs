use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn block(number: u128, start: i64, end: i64) -> Arc<BlockMeta> {
    Arc::new(BlockMeta {
        block_id: id(number),
        start_time: at(start),
        end_time: at(end),
        ..BlockMeta::default()
    })
}

fn compacted(number: u128, start: i64, end: i64, when: i64) -> Arc<CompactedBlockMeta> {
    Arc::new(CompactedBlockMeta {
        meta: block(number, start, end),
        compacted_time: at(when),
    })
}

fn numbers(blocks: &[Arc<BlockMeta>]) -> Vec<u128> {
    blocks.iter().map(|meta| meta.block_id.as_u128()).collect()
}

#[test]
fn the_time_index_finds_what_a_scan_finds() {
    // A linear congruence: long and short blocks, in no order.
    let mut state = 7_u64;
    let mut next = |limit: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((state >> 33) % limit) as i64
    };
    for count in [0_usize, 1, 2, 3, 10, 500] {
        let blocks: Vec<Arc<BlockMeta>> = (0..count)
            .map(|number| {
                let start = next(1000);
                let length = if number % 17 == 0 {
                    next(900)
                } else {
                    next(20)
                };
                block(number as u128, start, start + length)
            })
            .collect();
        let indexed = TenantBlocks::new(blocks.clone(), vec![]);
        for _ in 0..100 {
            let start = next(1000);
            let end = start + next(30);
            let mut expected: Vec<u128> = blocks
                .iter()
                .filter(|meta| meta.overlaps(at(start), at(end)))
                .map(|meta| meta.block_id.as_u128())
                .collect();
            expected.sort_unstable();
            let found = indexed.in_range(at(start), at(end));
            assert!(found.is_sorted_by_key(|meta| meta.start_time));
            let mut found = numbers(&found);
            found.sort_unstable();
            assert_eq!(found, expected, "{count} blocks, {start}..={end}");
        }
    }
}

#[test]
fn ranges_are_inclusive_and_blocks_without_times_are_never_found() {
    let timeless = Arc::new(BlockMeta {
        block_id: id(9),
        ..BlockMeta::default()
    });
    let blocks = TenantBlocks::new(vec![block(1, 10, 20), timeless], vec![]);
    for (start, end, found) in [
        (20, 30, true),
        (0, 10, true),
        (21, 30, false),
        (0, 9, false),
    ] {
        assert_eq!(!blocks.in_range(at(start), at(end)).is_empty(), found);
    }
}

#[test]
fn a_trace_is_looked_for_by_block_id_time_and_recent_compaction() {
    let blocks = TenantBlocks::new(
        vec![block(1, 0, 10), block(2, 10, 20), block(5, 0, 100)],
        vec![
            compacted(3, 0, 10, 500),
            compacted(4, 0, 10, 499),
            compacted(2, 10, 20, 900),
        ],
    );
    let everywhere = TraceLookup::everywhere(at(500));
    assert_eq!(numbers(&blocks.for_trace(&everywhere)), [1, 2, 3, 5]);
    let some_ids = TraceLookup {
        block_ids: id(2)..=id(3),
        ..everywhere.clone()
    };
    assert_eq!(numbers(&blocks.for_trace(&some_ids)), [2, 3]);
    // Touching is not overlapping, as in Tempo.
    let in_time = |start, end| TraceLookup {
        time: Some((at(start), at(end))),
        ..everywhere.clone()
    };
    assert_eq!(numbers(&blocks.for_trace(&in_time(10, 20))), [2, 5]);
    assert_eq!(numbers(&blocks.for_trace(&in_time(0, 10))), [1, 3, 5]);
    assert_eq!(numbers(&blocks.for_trace(&in_time(20, 30))), [5]);
}

fn poll(blocklist: &Blocklist, tenants: Vec<(&str, Vec<Arc<BlockMeta>>)>, kept: &[&str]) {
    let found = tenants
        .into_iter()
        .map(|(tenant, live)| {
            (
                Arc::from(tenant),
                TenantBlocks::new(live, vec![]),
                Listed::at(Instant::now()),
            )
        })
        .collect();
    let kept = kept.iter().map(|tenant| Arc::from(*tenant)).collect();
    blocklist.apply_poll(Instant::now(), found, &kept);
}

fn live(blocklist: &Blocklist, tenant: &str) -> Vec<u128> {
    let mut found = numbers(blocklist.tenant(tenant).live());
    found.sort_unstable();
    found
}

#[test]
fn a_local_change_survives_exactly_one_poll() {
    let blocklist = Blocklist::new();
    poll(
        &blocklist,
        vec![("t", vec![block(1, 0, 1), block(2, 0, 1)])],
        &[],
    );
    blocklist.apply_change(
        "t",
        BlockChange {
            added: vec![block(3, 0, 1)],
            compacted: vec![compacted(1, 0, 1, 50)],
            ..BlockChange::default()
        },
    );
    assert_eq!(live(&blocklist, "t"), [2, 3]);
    assert!(blocklist.tenant("t").compacted_block(id(1)).is_some());

    // This poll listed the store before the change.
    poll(
        &blocklist,
        vec![("t", vec![block(1, 0, 1), block(2, 0, 1)])],
        &[],
    );
    assert_eq!(live(&blocklist, "t"), [2, 3]);
    assert!(blocklist.tenant("t").compacted_block(id(1)).is_some());

    // The next one counts.
    poll(
        &blocklist,
        vec![("t", vec![block(1, 0, 1), block(2, 0, 1)])],
        &[],
    );
    assert_eq!(live(&blocklist, "t"), [1, 2]);
    assert!(blocklist.tenant("t").compacted().is_empty());
}

#[test]
fn a_tenants_first_block_is_seen_although_the_poll_did_not_list_it() {
    let blocklist = Blocklist::new();
    blocklist.apply_change(
        "new",
        BlockChange {
            added: vec![block(1, 0, 1)],
            ..BlockChange::default()
        },
    );
    assert_eq!(live(&blocklist, "new"), [1]);
    poll(&blocklist, vec![], &[]);
    assert_eq!(live(&blocklist, "new"), [1]);
    poll(&blocklist, vec![], &[]);
    assert!(blocklist.tenants().is_empty());
}

#[test]
fn a_change_waits_while_its_tenant_cannot_be_polled() {
    let blocklist = Blocklist::new();
    let added = BlockChange {
        added: vec![block(1, 0, 1)],
        ..BlockChange::default()
    };
    blocklist.apply_change("t", added);
    for _ in 0..3 {
        poll(&blocklist, vec![], &["t"]);
        assert_eq!(live(&blocklist, "t"), [1]);
    }
    poll(&blocklist, vec![("t", vec![])], &[]);
    assert_eq!(live(&blocklist, "t"), [1]);
    poll(&blocklist, vec![("t", vec![])], &[]);
    assert!(live(&blocklist, "t").is_empty());
}

#[test]
fn a_snapshot_does_not_change_under_its_reader() {
    let blocklist = Blocklist::new();
    poll(&blocklist, vec![("t", vec![block(1, 0, 1)])], &[]);
    let snapshot = blocklist.tenant("t");
    poll(&blocklist, vec![("t", vec![block(2, 0, 1)])], &[]);
    assert_eq!(numbers(snapshot.live()), [1]);
    assert_eq!(live(&blocklist, "t"), [2]);
}

#[test]
fn removed_and_cleared_blocks_disappear() {
    let blocklist = Blocklist::new();
    let start = TenantBlocks::new(vec![block(1, 0, 1)], vec![compacted(2, 0, 1, 1)]);
    blocklist.apply_poll(
        Instant::now(),
        vec![(Arc::from("t"), start, Listed::at(Instant::now()))],
        &HashSet::new(),
    );
    blocklist.apply_change(
        "t",
        BlockChange {
            removed: vec![id(1)],
            cleared: vec![id(2)],
            ..BlockChange::default()
        },
    );
    assert!(blocklist.tenant("t").is_empty());
    assert!(blocklist.tenants().is_empty());
}

#[test]
fn blocks_whose_successors_were_not_seen_stay_and_what_is_replaced_stays_hidden() {
    let successor = Arc::new(BlockMeta {
        replaces: vec![id(1), id(2)],
        ..BlockMeta::clone(&block(3, 0, 1))
    });
    let known = TenantBlocks::new(vec![block(5, 0, 1), block(6, 0, 1)], vec![]);
    let listed = TenantBlocks::new(
        vec![block(1, 0, 1), successor],
        vec![compacted(2, 0, 1, 9), compacted(4, 0, 1, 9)],
    );
    assert_eq!(listed.superseded(), [id(1)]);
    // One that was marked before it was known, one that vanished, and one of which nothing is known.
    let gone = [id(4), id(5), id(7)].into();
    let with_live = listed.with_live(&known, &gone);
    let mut live = numbers(with_live.live());
    live.sort_unstable();
    assert_eq!(live, [3, 4, 5]);
    assert_eq!(with_live.superseded(), [id(1)]);
    assert_eq!(with_live.compacted().len(), 1);
}
