//! A monolith that a cluster reads through its bridge, while an installation changes its mode.

use super::*;

const RESERVED: i64 = 900;

/// A live-store's settings, and those of the bridge.
fn bridged(yaml: &str) -> String {
    format!(
        "    partition_id: {RESERVED}\n{yaml}  ring:\n    instance_id: monolith\n    instance_addr: 127.0.0.1\n"
    )
}

fn until_bridged(tempo: &Tempo) {
    until_ring(tempo, "the bridge", |ring| {
        ring.get(&RESERVED)
            .is_some_and(|(state, owners)| *state == INACTIVE && owners == &["monolith"])
    });
}

/// It is told that it leaves for good, and goes.
fn leave(mut monolith: Tempo, querier: &Tempo) {
    let told = request(&monolith, "POST", "/live-store/prepare-downscale");
    assert_eq!(told.status, 204, "{}", told.text());
    terminate(&mut monolith);
    until_ring(querier, "the bridge gone", |ring| {
        !ring.contains_key(&RESERVED)
    });
}

#[test]
fn a_monolith_is_read_through_its_bridge() {
    let kafka = Kafka::shared().unwrap();
    let installation = Installation::new(&kafka, 1);
    let mut store = installation.live_store("a", 0);
    store.start().unwrap();
    let mut monolith = installation.process("all", "monolith", "", &bridged(""));
    monolith.start().unwrap();
    let distributor = installation.started("distributor", "");
    let (frontend, querier) = readers(&installation);
    until_bridged(&distributor);
    until_bridged(&querier);
    let mut maker = TraceMaker::new(3);
    let mut sent = Sent::default();
    // Before the change of mode, and after.
    sent.push(&monolith, &mut maker, 20);
    sent.push(&distributor, &mut maker, 20);
    sent.until_found(&frontend);
    sent.until_counted(&frontend);
    assert_eq!(
        partition_state(&request(
            &monolith,
            "DELETE",
            "/live-store/prepare-partition-downscale"
        ))
        .1,
        "PartitionInactive"
    );

    assert_eq!(request(&monolith, "POST", "/flush").status, 204);
    assert_eq!(metric(&monolith, "tempo_live_store_unflushed_blocks"), 0.0);
    leave(monolith, &querier);
}

#[test]
fn a_monolith_stays_whole_until_block_builders_have_caught_up() {
    let kafka = Kafka::shared().unwrap();
    let installation = Installation::new(&kafka, 1);
    let soon = "  complete_block_timeout: 2s\n";
    let mut store = installation.live_store_with("a", 0, soon);
    store.start().unwrap();
    // Alone, then by mode: what it took before is counted through the bridge, too.
    let mut monolith = installation.process("all", "monolith", "", "");
    monolith.start().unwrap();
    let (mut maker, mut sent) = (TraceMaker::new(5), Sent::default());
    sent.push(&monolith, &mut maker, 10);
    terminate(&mut monolith);
    let mut monolith = installation.process("all", "monolith", "", &bridged(soon));
    monolith.start().unwrap();
    let distributor = installation.started("distributor", "");
    let soon_from_blocks = RECENT_ONLY.replace("1h", "1s");
    let frontend = installation.process("query-frontend", "frontend", &soon_from_blocks, "");
    let (frontend, querier) = readers_behind(frontend, &installation);
    until_bridged(&querier);
    sent.push(&distributor, &mut maker, 10);
    sent.until_counted(&frontend);
    sent.push(&monolith, &mut maker, 10);
    assert_eq!(request(&monolith, "POST", "/flush").status, 204);
    sent.until_counted(&frontend);

    // Its blocks are in the store for many times as long as it keeps them otherwise, and are counted in no
    // block, since no block-builder works.
    let needed = || metric(&monolith, "tempo_live_store_needed_blocks");
    let until = Instant::now() + Duration::from_secs(12);
    while Instant::now() < until {
        let (status, counted) = count(&frontend);
        assert_eq!((status, counted), (200, sent.total() as f64));
        thread::sleep(Duration::from_millis(200));
    }
    assert!(needed() > 0.0);
    let _builder = installation.block_builder();
    eventually("nobody asks the monolith any more", || {
        let (status, counted) = count(&frontend);
        assert_eq!((status, counted), (200, sent.total() as f64));
        (needed() == 0.0).then_some(())
    });
    leave(monolith, &querier);
    sent.until_counted(&frontend);
}
