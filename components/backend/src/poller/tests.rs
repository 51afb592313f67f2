use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use prometheus::Registry;

use super::*;
use crate::{
    BlockFormat, ReadStats, TENANT_INDEX_JSON, TENANT_INDEX_PROTO,
    testing::{self, Effect, Fault, Faults, Operation},
};

const HOUR: Duration = Duration::from_secs(3600);

/// A poller over a store in memory, and everything to play with it.
struct Scene {
    backend: Backend,
    faults: Faults,
    blocklist: Blocklist,
    registry: Registry,
    poller: Poller,
    clock_seconds: Arc<AtomicI64>,
}

impl Scene {
    fn new(role: TenantIndexRole, config: PollerConfig) -> Self {
        Self::over(testing::memory(), role, config)
    }

    fn over(backend: Backend, role: TenantIndexRole, config: PollerConfig) -> Self {
        let (backend, faults) = testing::faulty(&backend);
        let (blocklist, registry) = (Blocklist::new(), Registry::new());
        let clock_seconds = Arc::new(AtomicI64::new(Timestamp::now().unix_seconds()));
        let clock = Arc::clone(&clock_seconds);
        let poller = Poller::build(config, role, backend.clone(), blocklist.clone(), &registry)
            .unwrap()
            .with_clock(Arc::new(move || {
                Timestamp::from_unix_seconds(clock.load(Ordering::SeqCst))
            }));
        Self {
            backend,
            faults,
            blocklist,
            registry,
            poller,
            clock_seconds,
        }
    }

    fn builder() -> Self {
        Self::new(TenantIndexRole::Builder, PollerConfig::default())
    }

    async fn put(&self, tenant: &str, number: u128) {
        put(&self.backend, tenant, number).await;
    }

    async fn poll(&self) -> PollOutcome {
        self.poller.poll_once().await.unwrap()
    }

    fn live(&self, tenant: &str) -> Vec<u128> {
        let blocks = self.blocklist.tenant(tenant);
        let mut found: Vec<u128> = blocks
            .live()
            .iter()
            .map(|meta| meta.block_id.as_u128())
            .collect();
        found.sort_unstable();
        found
    }

    /// The value of a counter or gauge; absent is 0.
    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let Some(family) = families.iter().find(|family| family.name() == name) else {
            return 0.0;
        };
        let found = family.get_metric().iter().find(|metric| {
            labels.iter().all(|(name, value)| {
                metric
                    .get_label()
                    .iter()
                    .any(|label| label.name() == *name && label.value() == *value)
            })
        });
        found.map_or(0.0, |metric| {
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        })
    }
}

async fn put(backend: &Backend, tenant: &str, number: u128) {
    let meta = BlockMeta {
        total_objects: 10,
        size: 1000,
        ..BlockMeta::new(
            Arc::from(tenant),
            Uuid::from_u128(number),
            BlockFormat::VParquet4,
        )
    };
    backend.write_meta(&meta).await.unwrap();
}

#[tokio::test]
async fn a_builder_lists_the_store_writes_the_index_and_reads_each_meta_once() {
    let scene = Scene::builder();
    for number in 1..=3 {
        scene.put("t", number).await;
    }
    scene.put("u", 4).await;
    scene
        .backend
        .mark_compacted("t", Uuid::from_u128(3))
        .await
        .unwrap();
    scene.faults.forget_requests();

    let outcome = scene.poll().await;
    assert_eq!(outcome.polled_tenants, 2);
    assert_eq!(scene.live("t"), [1, 2]);
    assert_eq!(scene.blocklist.tenant("t").compacted().len(), 1);
    assert_eq!(scene.live("u"), [4]);
    assert_eq!(scene.faults.count(Operation::Read, "meta"), 5);

    let index = scene.backend.read_tenant_index("t").await.unwrap();
    assert_eq!((index.live.len(), index.compacted.len()), (2, 1));
    assert_eq!(
        scene.metric("tempodb_blocklist_length", &[("tenant", "t")]),
        2.0
    );
    let live = [("tenant", "t"), ("status", "live")];
    assert_eq!(scene.metric("tempodb_backend_objects_total", &live), 20.0);
    assert_eq!(scene.metric("tempodb_backend_bytes_total", &live), 2000.0);
    let builder = scene.metric("tempodb_blocklist_tenant_index_builder", &[("tenant", "t")]);
    assert_eq!(builder, 1.0);

    scene.faults.forget_requests();
    scene.poll().await;
    assert_eq!(scene.faults.count(Operation::Read, "meta"), 0);
}

#[tokio::test]
async fn a_live_block_that_was_compacted_keeps_its_meta_and_takes_the_markers_time() {
    let scene = Scene::builder();
    scene.put("t", 1).await;
    scene.poll().await;
    let before = Timestamp::now();
    scene
        .backend
        .mark_compacted("t", Uuid::from_u128(1))
        .await
        .unwrap();
    scene.faults.forget_requests();
    scene.poll().await;
    assert_eq!(scene.faults.count(Operation::Read, "meta"), 0);
    let blocks = scene.blocklist.tenant("t");
    assert!(blocks.live().is_empty());
    assert!(blocks.compacted()[0].compacted_time >= before);
}

#[tokio::test]
async fn a_reader_takes_the_index_and_lists_nothing() {
    let store = testing::memory();
    put(&store, "t", 1).await;
    let builder = Scene::over(
        store.clone(),
        TenantIndexRole::Builder,
        PollerConfig::default(),
    );
    builder.poll().await;
    put(&store, "t", 2).await;

    let reader = Scene::over(
        store.clone(),
        TenantIndexRole::Reader,
        PollerConfig::default(),
    );
    reader.poll().await;
    assert_eq!(reader.live("t"), [1]);
    assert_eq!(reader.faults.count(Operation::List, "t"), 0);
    // Protobuf gone: JSON serves.
    let proto = ObjectKey::tenant("t", TENANT_INDEX_PROTO);
    store.delete(&proto).await.unwrap();
    reader.poll().await;
    assert_eq!(reader.live("t"), [1]);
    // Both gone: the store is listed, and the index written again.
    store.delete_tenant_index("t").await.unwrap();
    reader.poll().await;
    assert_eq!(reader.live("t"), [1, 2]);
    assert!(store.exists(&proto).await.unwrap());
    let errors = reader.metric(
        "tempodb_blocklist_tenant_index_errors_total",
        &[("tenant", "t")],
    );
    assert_eq!(errors, 1.0);
}

#[tokio::test]
async fn without_fallback_a_missing_or_stale_index_fails_the_tenant() {
    let config = PollerConfig {
        fallback: false,
        stale_tenant_index: HOUR,
        tolerate_tenant_failures: 0,
        ..PollerConfig::default()
    };
    let store = testing::memory();
    put(&store, "t", 1).await;
    let reader = Scene::over(store.clone(), TenantIndexRole::Reader, config);
    assert!(matches!(
        reader.poller.poll_once().await,
        Err(Error::PollAborted {
            failed_tenants: 1,
            ..
        })
    ));

    let builder = Scene::over(store, TenantIndexRole::Builder, PollerConfig::default());
    builder.poll().await;
    reader.poll().await;
    assert_eq!(reader.live("t"), [1]);
    reader.clock_seconds.fetch_add(3601 + 60, Ordering::SeqCst);
    let error = reader.poller.poll_once().await.unwrap_err();
    assert!(
        matches!(error, Error::PollAborted { last, .. } if matches!(*last, Error::StaleTenantIndex { .. }))
    );
    assert_eq!(reader.live("t"), [1], "the previous list stays");
    let age = reader.metric(
        "tempodb_blocklist_tenant_index_age_seconds",
        &[("tenant", "t")],
    );
    assert!(age > 3600.0, "{age}");
}

#[tokio::test]
async fn a_stale_index_is_replaced_by_a_listing() {
    let poll = PollerConfig::default().poll_interval;
    for (stale_tenant_index, still_taken, too_old) in [
        (HOUR, HOUR, 2 * HOUR),
        // Whoever writes them would have written it anew.
        (Duration::ZERO, poll * 3 / 2, poll * 2),
    ] {
        let config = PollerConfig {
            stale_tenant_index,
            ..PollerConfig::default()
        };
        let store = testing::memory();
        put(&store, "t", 1).await;
        let builder = PollerConfig::default();
        Scene::over(store.clone(), TenantIndexRole::Builder, builder)
            .poll()
            .await;
        put(&store, "t", 2).await;
        let reader = Scene::over(store, TenantIndexRole::Reader, config);
        let begun = reader.clock_seconds.load(Ordering::SeqCst);
        for (age, found) in [(still_taken, &[1][..]), (too_old, &[1, 2])] {
            let now = begun + age.as_secs() as i64;
            reader.clock_seconds.store(now, Ordering::SeqCst);
            reader.poll().await;
            assert_eq!(reader.live("t"), found);
        }
    }
}

#[tokio::test]
async fn a_failing_tenant_is_tried_again_and_then_keeps_its_list() {
    let scene = Scene::builder();
    scene.put("t", 1).await;
    scene.put("u", 2).await;
    scene.poll().await;
    scene.put("t", 3).await;
    scene.put("u", 4).await;

    // One failure: the second attempt succeeds.
    scene.faults.fail_next_on(Operation::List, "t", 1);
    assert!(scene.poll().await.failed_tenants.is_empty());
    assert_eq!(scene.live("t"), [1, 3]);

    // Two failures: the tenant is given up, the other is not.
    scene.put("t", 5).await;
    scene.put("u", 6).await;
    scene.faults.fail_next_on(Operation::List, "t", 2);
    assert_eq!(scene.poll().await.failed_tenants, ["t"]);
    assert_eq!(scene.live("t"), [1, 3]);
    assert_eq!(scene.live("u"), [2, 4, 6]);
    let errors = scene.metric("tempodb_blocklist_poll_errors_total", &[("tenant", "t")]);
    assert_eq!(errors, 1.0);
}

#[tokio::test]
async fn too_many_failing_tenants_abort_the_poll_and_all_lists_stay() {
    let scene = Scene::builder();
    for tenant in ["a", "b", "c"] {
        scene.put(tenant, 1).await;
    }
    scene.poll().await;
    for tenant in ["a", "b", "c"] {
        scene.put(tenant, 2).await;
    }
    for tenant in ["b", "c"] {
        scene.faults.fail_on(Operation::List, tenant);
    }
    assert!(matches!(
        scene.poller.poll_once().await,
        Err(Error::PollAborted {
            failed_tenants: 2,
            tolerated: 1,
            ..
        })
    ));
    assert_eq!(scene.live("a"), [1]);
    scene.faults.heal();
    scene.poll().await;
    assert_eq!(scene.live("c"), [1, 2]);
}

#[tokio::test]
async fn a_tenant_that_was_left_out_has_an_older_list() {
    let scene = Scene::builder();
    scene.put("a", 1).await;
    scene.put("b", 1).await;
    scene.poll().await;
    let pause = Duration::from_millis(5);
    let age = |tenant: &str| scene.blocklist.tenant_age(tenant);
    scene.faults.fail_on(Operation::List, "a");
    for polls in 1..=2 {
        tokio::time::sleep(pause).await;
        scene.poll().await;
        assert!(age("a").unwrap() >= age("b").unwrap() + pause * polls);
    }
    scene.faults.heal();
    scene.poll().await;
    assert!(age("a").unwrap() < pause * 2);

    let scene = Scene::builder();
    scene.put("a", 1).await;
    scene.faults.fail_on(Operation::List, "a");
    scene.poll().await;
    assert_eq!(scene.blocklist.tenant_age("a"), None, "never listed");

    let scene = Scene::builder();
    scene.poll().await;
    scene.put("a", 1).await;
    scene.faults.fail_on(Operation::List, "a");
    tokio::time::sleep(pause).await;
    scene.poll().await;
    let known = scene.blocklist.tenant_age("a").unwrap();
    assert!(known >= pause, "it had no blocks before");
}

#[tokio::test]
async fn a_list_is_as_old_as_the_listing_that_it_comes_from() {
    let store = testing::memory();
    let config = || PollerConfig {
        fallback: false,
        ..PollerConfig::default()
    };
    let builder = Scene::over(store.clone(), TenantIndexRole::Builder, config());
    let reader = Scene::over(store, TenantIndexRole::Reader, config());
    builder.put("t", 1).await;
    let gate = testing::Gate::new();
    builder.faults.inject(Fault {
        operation: Some(Operation::Read),
        key_contains: "meta.json".to_owned(),
        times: Some(1),
        effect: Effect::Wait(gate.clone()),
    });
    // It stands still between listing and writing.
    let standing_still = async {
        gate.arrived().await;
        builder.clock_seconds.fetch_add(100, Ordering::SeqCst);
        reader.clock_seconds.fetch_add(100, Ordering::SeqCst);
        gate.open();
    };
    tokio::join!(builder.poll(), standing_still);
    reader.poll().await;
    let age = |scene: &Scene| scene.blocklist.tenant_age("t").unwrap().as_secs();
    assert_eq!(reader.live("t"), [1]);
    assert!((99..=101).contains(&age(&reader)), "{}", age(&reader));
    builder.poll().await;
    reader.poll().await;
    assert!(age(&reader) < 50);
    let nobody_knows = reader.blocklist.tenant_age("u").unwrap();
    assert!(nobody_knows.as_secs() < 50);
}

#[tokio::test]
async fn an_index_from_a_clock_that_is_ahead_is_not_believed() {
    let store = testing::memory();
    let builder = Scene::over(
        store.clone(),
        TenantIndexRole::Builder,
        PollerConfig::default(),
    );
    let reader = Scene::over(store, TenantIndexRole::Reader, PollerConfig::default());
    builder.put("t", 1).await;
    for (ahead, is_believed) in [(0, true), (70, true), (80, false)] {
        let now = Timestamp::now().unix_seconds();
        builder.clock_seconds.store(now + ahead, Ordering::SeqCst);
        builder.poll().await;
        reader.faults.forget_requests();
        reader.poll().await;
        assert_eq!(reader.live("t"), [1]);
        let listings = reader.faults.count(Operation::List, "t");
        assert_eq!(listings == 0, is_believed, "{ahead}: {listings}");
    }
}

#[tokio::test]
async fn when_the_store_is_down_the_lists_stay() {
    let scene = Scene::builder();
    scene.put("t", 1).await;
    scene.poll().await;
    scene.faults.fail_all();
    assert!(scene.poller.poll_once().await.is_err());
    assert_eq!(scene.live("t"), [1]);
}

#[tokio::test]
async fn a_block_that_vanishes_or_is_marked_between_listing_and_reading_is_no_failure() {
    let scene = Scene::builder();
    let (gone, marked) = (Uuid::from_u128(1), Uuid::from_u128(2));
    scene.put("t", 2).await;
    scene.backend.mark_compacted("t", marked).await.unwrap();
    let listing = BlockListing {
        live: vec![gone, marked],
        ..BlockListing::default()
    };
    let (blocks, lost) = scene
        .poller
        .complete("t", &listing, &TenantBlocks::default())
        .await
        .unwrap();
    assert!(blocks.live().is_empty());
    assert_eq!(blocks.compacted().len(), 1);
    assert_eq!(lost, [gone]);
}

#[tokio::test]
async fn a_damaged_meta_hides_only_its_own_block() {
    let scene = Scene::builder();
    scene.put("t", 1).await;
    scene.put("t", 2).await;
    let key = ObjectKey::meta("t", Uuid::from_u128(2));
    scene
        .backend
        .write(&key, Bytes::from_static(b"{"))
        .await
        .unwrap();
    assert!(scene.poll().await.failed_tenants.is_empty());
    assert_eq!(scene.live("t"), [1]);
    let errors = scene.metric("tempodb_blocklist_poll_errors_total", &[("tenant", "t")]);
    assert_eq!(errors, 1.0);
}

#[tokio::test]
async fn an_index_that_cannot_be_written_is_counted_and_the_list_counts() {
    let scene = Scene::builder();
    scene.put("t", 1).await;
    scene.faults.fail_next_on(Operation::Write, "index", 1);
    scene.poll().await;
    assert_eq!(scene.live("t"), [1]);
    let errors = scene.metric(
        "tempodb_blocklist_tenant_index_errors_total",
        &[("tenant", "t")],
    );
    assert_eq!(errors, 1.0);
}

#[tokio::test]
async fn a_tenant_without_blocks_loses_its_index_and_disappears() {
    let scene = Scene::builder();
    scene.put("t", 1).await;
    scene.poll().await;
    scene
        .backend
        .delete_block("t", Uuid::from_u128(1))
        .await
        .unwrap();
    scene.poll().await;
    assert!(scene.blocklist.tenants().is_empty());
    for name in [TENANT_INDEX_PROTO, TENANT_INDEX_JSON] {
        let key = ObjectKey::tenant("t", name);
        assert!(!scene.backend.exists(&key).await.unwrap());
    }
    assert_eq!(
        scene.metric("tempodb_blocklist_length", &[("tenant", "t")]),
        0.0
    );
}

#[tokio::test]
async fn leftovers_of_an_empty_tenant_go_only_when_old_and_after_its_index() {
    let config = PollerConfig {
        empty_tenant_deletion_enabled: true,
        ..PollerConfig::default()
    };
    let scene = Scene::new(TenantIndexRole::Builder, config);
    scene.put("t", 1).await;
    let orphan = ObjectKey::data("t", Uuid::from_u128(9));
    scene
        .backend
        .write(&orphan, Bytes::from_static(b"x"))
        .await
        .unwrap();
    scene.poll().await;
    scene
        .backend
        .delete_block("t", Uuid::from_u128(1))
        .await
        .unwrap();

    // The index is still there, however old everything is.
    scene.clock_seconds.fetch_add(13 * 3600, Ordering::SeqCst);
    scene.poll().await;
    assert!(scene.backend.exists(&orphan).await.unwrap());
    // Everything is young.
    scene.clock_seconds.fetch_sub(13 * 3600, Ordering::SeqCst);
    scene.poll().await;
    assert!(scene.backend.exists(&orphan).await.unwrap());
    // Old, and without index.
    scene.clock_seconds.fetch_add(13 * 3600, Ordering::SeqCst);
    scene.poll().await;
    assert!(!scene.backend.exists(&orphan).await.unwrap());
    assert!(scene.backend.list_tenants().await.unwrap().is_empty());
}

#[tokio::test]
async fn leftovers_stay_when_their_removal_is_not_enabled() {
    let scene = Scene::builder();
    let orphan = ObjectKey::data("t", Uuid::from_u128(9));
    scene
        .backend
        .write(&orphan, Bytes::from_static(b"x"))
        .await
        .unwrap();
    scene.clock_seconds.fetch_add(13 * 3600, Ordering::SeqCst);
    scene.poll().await;
    let read = scene.backend.read(&orphan, &ReadStats::new()).await;
    assert_eq!(read.unwrap(), "x");
}

#[tokio::test(start_paused = true)]
async fn it_polls_at_every_interval_until_shut_down() {
    let scene = Scene::builder();
    scene.put("t", 1).await;
    let shutdown = CancellationToken::new();
    let gate = testing::Gate::new();
    scene.faults.inject(Fault {
        operation: Some(Operation::Write),
        key_contains: TENANT_INDEX_JSON.to_owned(),
        times: None,
        effect: Effect::Wait(gate.clone()),
    });
    let running = tokio::spawn(scene.poller.run(shutdown.clone()));
    gate.open();
    // Three polls reach the end of writing the index, with the clock running by itself.
    for _ in 0..3 {
        gate.arrived().await;
    }
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn an_interval_of_zero_is_refused() {
    let config = PollerConfig {
        poll_interval: Duration::ZERO,
        ..PollerConfig::default()
    };
    let built = Poller::build(
        config,
        TenantIndexRole::Builder,
        testing::memory(),
        Blocklist::new(),
        &Registry::new(),
    );
    let error = built.err().unwrap().to_string();
    assert!(error.contains("storage.trace.blocklist_poll"), "{error}");
}

#[tokio::test]
async fn builders_that_share_take_turns() {
    let store = testing::memory();
    let scene = || {
        Scene::over(
            store.clone(),
            TenantIndexRole::Shared,
            PollerConfig::default(),
        )
    };
    let (first, second) = (scene(), scene());
    let builds = |scene: &Scene| {
        let label = [("tenant", "t")];
        scene.metric("tempodb_blocklist_tenant_index_builder", &label) == 1.0
    };
    first.put("t", 1).await;
    first.poll().await;
    assert!(builds(&first));
    first.put("t", 2).await;
    second.poll().await;
    assert!(!builds(&second));
    assert_eq!(second.live("t"), [1], "as the first one saw it");
    // The first one dies; its index grows old.
    second.clock_seconds.fetch_add(300, Ordering::SeqCst);
    second.poll().await;
    assert!(builds(&second));
    assert_eq!(second.live("t"), [1, 2]);
}

#[tokio::test]
async fn a_replaced_block_is_not_shown_beside_its_successor() {
    let scene = Scene::builder();
    for number in 1..=3 {
        scene.put("t", number).await;
    }
    scene.poll().await;
    let id = Uuid::from_u128;
    let mut meta = scene.backend.read_meta("t", id(3)).await.unwrap();
    meta.block_id = id(4);
    meta.replaces = vec![id(1), id(2)];
    scene.backend.write_meta(&meta).await.unwrap();
    scene.poll().await;
    assert_eq!(scene.live("t"), [3, 4]);
    assert_eq!(scene.blocklist.tenant("t").superseded(), [id(1), id(2)]);
    let index = scene.backend.read_tenant_index("t").await.unwrap();
    assert_eq!(index.live.len(), 2);
    assert!(index.live.iter().any(|meta| meta.replaces.len() == 2));

    // Its successor in its turn is replaced, and still hides what was not marked.
    scene.backend.mark_compacted("t", id(1)).await.unwrap();
    scene.backend.mark_compacted("t", id(4)).await.unwrap();
    scene.poll().await;
    assert_eq!(scene.live("t"), [3]);
    let blocks = scene.blocklist.tenant("t");
    assert_eq!(blocks.superseded(), [id(2)]);
    let policy = crate::RetentionPolicy {
        block_retention: Duration::ZERO,
        compacted_block_retention: Duration::ZERO,
    };
    let now = Timestamp::now().saturating_add(HOUR);
    let plan = crate::plan_retention(&blocks, policy, now);
    assert_eq!(plan.mark_compacted, [id(2)]);
    assert_eq!(plan.clear, [id(1)], "not what hides another");
    scene.backend.mark_compacted("t", id(2)).await.unwrap();
    scene.poll().await;
    assert!(scene.blocklist.tenant("t").superseded().is_empty());
}

#[tokio::test]
async fn blocks_merged_between_listing_and_reading_are_seen_as_their_successor() {
    let scene = Scene::builder();
    scene.put("t", 1).await;
    let gate = testing::Gate::new();
    scene.faults.inject(Fault {
        operation: Some(Operation::Read),
        key_contains: format!("{}/meta.json", Uuid::from_u128(1)),
        times: Some(1),
        effect: Effect::Wait(gate.clone()),
    });
    let merging = async {
        gate.arrived().await;
        let successor = BlockMeta {
            replaces: vec![Uuid::from_u128(1)],
            ..BlockMeta::new(Arc::from("t"), Uuid::from_u128(2), BlockFormat::VParquet4)
        };
        scene.backend.write_meta(&successor).await.unwrap();
        let replaced = Uuid::from_u128(1);
        scene.backend.mark_compacted("t", replaced).await.unwrap();
        gate.open();
    };
    tokio::join!(scene.poll(), merging);
    assert_eq!(scene.live("t"), [2]);
}

#[tokio::test]
async fn of_blocks_that_are_merged_during_every_listing_the_last_ones_stay() {
    let scene = Scene::builder();
    let last = u128::from(MAX_LISTINGS_PER_POLL);
    let gate_before_reading = |number| {
        let gate = testing::Gate::new();
        scene.faults.inject(Fault {
            operation: Some(Operation::Read),
            key_contains: format!("{}/meta.json", Uuid::from_u128(number)),
            times: Some(1),
            effect: Effect::Wait(gate.clone()),
        });
        gate
    };
    scene.put("t", 1).await;
    let mut gate = gate_before_reading(1);
    let merging = async {
        for number in 1..=last {
            gate.arrived().await;
            let (replaced, id) = (Uuid::from_u128(number), Uuid::from_u128(number + 1));
            let next_gate = gate_before_reading(number + 1);
            let successor = BlockMeta {
                replaces: vec![replaced],
                ..BlockMeta::new(Arc::from("t"), id, BlockFormat::VParquet4)
            };
            scene.backend.write_meta(&successor).await.unwrap();
            scene.backend.mark_compacted("t", replaced).await.unwrap();
            std::mem::replace(&mut gate, next_gate).open();
        }
    };
    tokio::join!(merging, scene.poll());
    assert_eq!(scene.live("t"), [last]);
    gate.open();
    scene.poll().await;
    assert_eq!(scene.live("t"), [last + 1]);
}

#[tokio::test]
async fn only_a_block_that_went_away_unexplained_costs_a_second_listing() {
    let scene = Scene::builder();
    for number in 1..=3 {
        scene.put("t", number).await;
    }
    let listings = || scene.faults.count(Operation::List, "t");
    scene.poll().await;
    assert_eq!(listings(), 1);
    let expired = Uuid::from_u128(1);
    scene.backend.mark_compacted("t", expired).await.unwrap();
    scene.poll().await;
    assert_eq!(listings(), 3);
    scene.poll().await;
    assert_eq!((listings(), scene.live("t")), (4, vec![2, 3]));
}
