use prometheus::Registry;

use super::*;
use crate::{
    BlockFormat, BlockMeta, ObjectKey,
    cache::{CacheKey, CacheRole},
    testing::{self, Operation},
};

const DAY: Duration = Duration::from_secs(86_400);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn block(number: u128, end: Timestamp) -> Arc<BlockMeta> {
    Arc::new(BlockMeta {
        end_time: end,
        ..BlockMeta::new(
            Arc::from("t"),
            Uuid::from_u128(number),
            BlockFormat::VParquet4,
        )
    })
}

fn compacted(number: u128, when: Timestamp) -> Arc<CompactedBlockMeta> {
    Arc::new(CompactedBlockMeta {
        meta: block(number, at(0)),
        compacted_time: when,
    })
}

#[test]
fn blocks_end_strictly_after_their_time() {
    let now = at(1_000_000);
    let policy = RetentionPolicy {
        block_retention: DAY,
        compacted_block_retention: Duration::from_secs(3600),
    };
    let blocks = TenantBlocks::new(
        vec![
            block(1, at(1_000_000 - 86_400)),
            block(2, at(1_000_000 - 86_401)),
            block(3, at(2_000_000)),
            block(4, Timestamp::ZERO),
        ],
        vec![
            compacted(5, at(1_000_000 - 3600)),
            compacted(6, at(1_000_000 - 3601)),
        ],
    );
    let id = Uuid::from_u128;
    let mut plan = plan_retention(&blocks, policy, now);
    plan.mark_compacted.sort_unstable();
    assert_eq!(
        plan,
        RetentionPlan {
            mark_compacted: vec![id(2), id(4)],
            clear: vec![id(6)],
        }
    );
    let forever = RetentionPolicy {
        block_retention: Duration::ZERO,
        ..policy
    };
    assert!(
        plan_retention(&blocks, forever, now)
            .mark_compacted
            .is_empty()
    );
}

#[tokio::test]
async fn a_block_is_marked_then_cleared_and_a_failure_is_left_to_the_next_run() {
    let (backend, faults) = testing::faulty(&testing::memory());
    let registry = Registry::new();
    let cache = Cache::new(1 << 20, &registry).unwrap();
    let blocklist = Blocklist::new();
    let (old, young) = (block(1, at(1000)), block(2, Timestamp::now()));
    for meta in [&old, &young] {
        backend.write_meta(meta).await.unwrap();
    }
    blocklist.apply_change(
        "t",
        BlockChange {
            added: vec![old.clone(), young],
            ..BlockChange::default()
        },
    );
    let cached = CacheKey {
        role: CacheRole::Bloom,
        tenant: Arc::from("t"),
        block: old.block_id,
        part: (0, 0),
    };
    cache.insert(cached.clone(), Arc::new(1_u8), 1);
    let retention = Retention::build(
        backend.clone(),
        blocklist.clone(),
        Some(cache.clone()),
        DEFAULT_RETENTION_CONCURRENCY,
        &registry,
    )
    .unwrap();
    let policy = RetentionPolicy::default();
    let now = Timestamp::now();
    let run = |now| retention.run_tenant("t", policy, now);
    let outcome = |marked, cleared, failed| RetentionOutcome {
        marked,
        cleared,
        failed,
    };

    faults.fail_next_on(Operation::Write, "meta.compacted.json", 1);
    assert_eq!(run(now).await, outcome(0, 0, 1));
    assert_eq!(run(now).await, outcome(1, 0, 0));
    assert_eq!(run(now).await, outcome(0, 0, 0));
    assert!(blocklist.tenant("t").live_block(old.block_id).is_none());
    let later = now.saturating_add(policy.compacted_block_retention * 2);
    assert!(cache.get::<u8>(&cached).is_some());
    assert_eq!(run(later).await, outcome(0, 1, 0));
    assert!(cache.get::<u8>(&cached).is_none());
    assert!(blocklist.tenant("t").compacted().is_empty());
    let left = backend.list_blocks("t").await.unwrap();
    assert_eq!(left.live, [Uuid::from_u128(2)]);
    let key = ObjectKey::compacted_meta("t", old.block_id);
    assert!(!backend.exists(&key).await.unwrap());
}

#[tokio::test]
async fn a_block_that_another_has_removed_counts_as_done() {
    let backend = testing::memory();
    let blocklist = Blocklist::new();
    blocklist.apply_change(
        "t",
        BlockChange {
            added: vec![block(1, at(1000))],
            ..BlockChange::default()
        },
    );
    let retention =
        Retention::build(backend, blocklist.clone(), None, 1, &Registry::new()).unwrap();
    let outcome = retention
        .run_tenant("t", RetentionPolicy::default(), Timestamp::now())
        .await;
    assert_eq!(outcome.failed, 0);
    assert!(blocklist.tenant("t").live().is_empty());
}

#[tokio::test(start_paused = true)]
async fn it_runs_at_every_interval_over_the_tenants_that_have_a_policy() {
    let (backend, faults) = testing::faulty(&testing::memory());
    let blocklist = Blocklist::new();
    for tenant in ["t", "kept"] {
        let meta = Arc::new(BlockMeta {
            tenant_id: Arc::from(tenant),
            ..(*block(1, at(1000))).clone()
        });
        backend.write_meta(&meta).await.unwrap();
        let added = BlockChange {
            added: vec![meta],
            ..BlockChange::default()
        };
        blocklist.apply_change(tenant, added);
    }
    let gate = testing::Gate::new();
    gate.open();
    faults.inject(testing::Fault {
        operation: Some(Operation::Delete),
        key_contains: String::new(),
        times: None,
        effect: testing::Effect::Wait(gate.clone()),
    });
    let retention =
        Retention::build(backend, blocklist.clone(), None, 1, &Registry::new()).unwrap();
    let policy_of = |tenant: &str| (tenant != "kept").then(RetentionPolicy::default);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(retention.run(DAY, policy_of, shutdown.clone()));
    gate.arrived().await;
    while !blocklist.tenant("t").live().is_empty() {
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    running.await.unwrap();
    assert_eq!(blocklist.tenant("kept").live().len(), 1);
}
