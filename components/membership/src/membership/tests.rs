//! Several members in one process, on a network that can be cut, in time that passes at once.

use std::{
    net::SocketAddr,
    sync::{LazyLock, OnceLock},
};

use chitchat::transport::ChannelTransport;
use tokio::task::JoinHandle;

use super::*;
use crate::config::Instance;

/// Gossip takes seconds; this is for ever.
const PATIENCE: Duration = Duration::from_secs(120);

fn paused_clock() -> i64 {
    static START: OnceLock<i64> = OnceLock::new();
    thread_local! {
        static SINCE: LazyLock<Instant> = LazyLock::new(Instant::now);
    }
    let start = *START.get_or_init(unix_now);
    SINCE.with(|since| start + since.elapsed().as_secs() as i64)
}

struct Net(ChannelTransport);

struct Node {
    membership: Membership,
    addr: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

fn addr(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 7946))
}

fn config(host: u8) -> Config {
    Config {
        node_name: format!("node-{host}"),
        bind_addr: addr(host).ip(),
        join_members: vec![addr(1).to_string(), addr(2).to_string()],
        delete_inactive_partition_after: Duration::from_secs(60),
        ..Config::default()
    }
}

fn live_store(host: u8, zone: &str, partition: i32) -> Config {
    Config {
        instance: Some(Instance {
            id: format!("live-store-{zone}-{partition}"),
            partition,
            read_only: false,
            zone: zone.to_owned(),
            grpc_host: None,
            grpc_port: 9095,
            create_partition: true,
            log_was_empty: true,
            remove_owner_on_shutdown: true,
        }),
        ..config(host)
    }
}

impl Net {
    fn new() -> Self {
        Self(ChannelTransport::with_mtu(65_507))
    }

    async fn start(&self, config: Config) -> Node {
        let addr = SocketAddr::new(config.bind_addr, config.bind_port);
        let registry = Registry::new();
        let (membership, service) = build_on(config, &registry, &self.0, paused_clock)
            .await
            .unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(service.run(stop.clone()));
        Node {
            membership,
            addr,
            stop,
            task,
        }
    }

    async fn cut(&self, some: &[&Node], others: &[&Node]) {
        for a in some {
            for b in others {
                self.0.remove_link(a.addr, b.addr).await;
            }
        }
    }

    async fn heal(&self, some: &[&Node], others: &[&Node]) {
        for a in some {
            for b in others {
                self.0.add_link(a.addr, b.addr).await;
            }
        }
    }
}

impl Node {
    /// Waits until the ring is as it should be.
    async fn sees(&self, what: &str, wanted: impl Fn(&PartitionRing) -> bool) {
        let mut ring = self.membership.watch();
        let seen = tokio::time::timeout(PATIENCE, ring.wait_for(|ring| wanted(ring))).await;
        match seen {
            Ok(Ok(_)) => {}
            _ => panic!(
                "{} does not see {what}, but {:?}",
                self.addr,
                self.membership.partitions()
            ),
        }
    }

    async fn sees_state(&self, partition: i32, state: PartitionState) {
        self.sees(&format!("{partition} {state}"), |ring| {
            ring.partitions
                .get(&partition)
                .is_some_and(|partition| partition.state == state)
        })
        .await;
    }

    async fn leave(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Ends without a word.
    async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_becomes_active_and_everybody_sees_it() {
    let net = Net::new();
    let store = net.start(live_store(1, "a", 0)).await;
    let distributor = net.start(config(2)).await;
    let began = Instant::now();
    distributor.sees_state(0, PartitionState::Pending).await;
    distributor.sees_state(0, PartitionState::Active).await;
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(10) && took < Duration::from_secs(30),
        "{took:?}"
    );
    let owner = distributor.membership.partitions().partitions[&0].owners[0].clone();
    assert_eq!(owner.grpc_addr, "10.0.0.1:9095");
    assert_eq!((owner.state, owner.healthy), (OwnerState::Joining, false));

    store.membership.set_owner_state(OwnerState::Active).await;
    distributor
        .sees("a healthy owner", |ring| ring.partitions[&0].is_readable())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_changes_nothing_and_a_crash_is_seen() {
    let net = Net::new();
    let distributor = net.start(config(1)).await;
    let store = net.start(live_store(3, "a", 0)).await;
    store.membership.set_owner_state(OwnerState::Active).await;
    distributor.sees_state(0, PartitionState::Active).await;
    distributor
        .membership
        .change_partition(0, PartitionState::Inactive)
        .await
        .unwrap();
    store.sees_state(0, PartitionState::Inactive).await;
    let before = store.membership.partitions().partitions[&0].state_since;

    store.crash().await;
    distributor
        .sees("an owner that is gone", |ring| {
            ring.partitions[&0].owners.iter().all(|owner| !owner.alive)
        })
        .await;
    assert_eq!(
        distributor.membership.partitions().partitions[&0]
            .owners
            .len(),
        1
    );

    let store = net.start(live_store(3, "a", 0)).await;
    store.sees_state(0, PartitionState::Inactive).await;
    distributor
        .sees("the owner back", |ring| {
            let owners = &ring.partitions[&0].owners;
            owners.len() == 1 && owners[0].alive
        })
        .await;
    let after = &distributor.membership.partitions().partitions[&0];
    assert_eq!(
        (after.state, after.state_since),
        (PartitionState::Inactive, before)
    );
}

#[tokio::test(start_paused = true)]
async fn an_active_partition_outlives_a_clean_restart_of_its_only_owner() {
    let net = Net::new();
    let other = net.start(live_store(1, "a", 1)).await;
    let store = net.start(live_store(3, "a", 0)).await;
    other.sees_state(0, PartitionState::Active).await;
    store.leave().await;
    other
        .sees("no owner", |ring| ring.partitions[&0].owners.is_empty())
        .await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    other.sees_state(0, PartitionState::Active).await;
    let store = net.start(live_store(3, "a", 0)).await;
    store.sees_state(0, PartitionState::Active).await;
    assert_ne!(
        store.membership.partitions().partitions[&0].state_since,
        paused_clock()
    );
}

#[tokio::test(start_paused = true)]
async fn a_drained_partition_goes_after_its_time_and_stays_away() {
    let net = Net::new();
    // Hours pass in this test: fewer rounds of gossip in them.
    let slow = |mut config: Config| {
        config.gossip_interval = Duration::from_secs(10);
        config
    };
    let survivor = net.start(slow(live_store(1, "a", 0))).await;
    let zones = [
        net.start(slow(live_store(3, "a", 1))).await,
        net.start(slow(live_store(4, "b", 1))).await,
    ];
    let querier = net.start(slow(config(5))).await;
    querier.sees_state(1, PartitionState::Active).await;
    for node in &zones {
        node.membership
            .change_partition(1, PartitionState::Inactive)
            .await
            .unwrap();
    }
    querier.sees_state(1, PartitionState::Inactive).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    querier.sees_state(1, PartitionState::Inactive).await;
    let [a, b] = zones;
    a.leave().await;
    querier.sees_state(1, PartitionState::Inactive).await;
    b.leave().await;
    for node in [&survivor, &querier] {
        node.sees("the partition gone", |ring| {
            !ring.partitions.contains_key(&1)
        })
        .await;
    }
    // Longer than those that are gone are remembered.
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_secs(1800)).await;
        assert!(!querier.membership.partitions().partitions.contains_key(&1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_was_cut_heals_by_itself() {
    let net = Net::new();
    let a0 = net.start(live_store(1, "a", 0)).await;
    let b0 = net.start(live_store(2, "b", 0)).await;
    let a1 = net.start(live_store(3, "a", 1)).await;
    let b1 = net.start(live_store(4, "b", 1)).await;
    let distributor = net.start(config(5)).await;
    for id in [0, 1] {
        distributor.sees_state(id, PartitionState::Active).await;
    }

    let (west, east) = ([&a0, &a1, &distributor], [&b0, &b1]);
    net.cut(&west, &east).await;
    distributor
        .sees("one side gone", |ring| {
            ring.partitions
                .values()
                .all(|partition| partition.owners.iter().filter(|owner| owner.alive).count() == 1)
        })
        .await;
    // Both sides go on, and change things.
    a1.membership
        .change_partition(1, PartitionState::Inactive)
        .await
        .unwrap();
    distributor.sees_state(1, PartitionState::Inactive).await;
    b0.membership.lock_partition(0, None, true).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(
        b1.membership.partitions().partitions[&1].state,
        PartitionState::Active
    );

    net.heal(&west, &east).await;
    for node in west.iter().chain(&east) {
        node.sees("the later changes of both sides", |ring| {
            ring.partitions[&1].state == PartitionState::Inactive
                && ring.partitions[&0].locked
                && ring
                    .partitions
                    .values()
                    .all(|partition| partition.owners.iter().all(|owner| owner.alive))
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_clusters_that_began_apart_the_older_partitions_count() {
    let net = Net::new();
    let a = net.start(live_store(1, "a", 0)).await;
    a.sees_state(0, PartitionState::Active).await;
    a.membership
        .change_partition(0, PartitionState::Inactive)
        .await
        .unwrap();
    // Starts while the network is cut, and finds nobody.
    net.0.remove_link(addr(1), addr(2)).await;
    let b = net.start(live_store(2, "b", 0)).await;
    b.sees_state(0, PartitionState::Active).await;
    net.heal(&[&a], &[&b]).await;
    for node in [&a, &b] {
        node.sees("the older partition, with both owners", |ring| {
            let partition = &ring.partitions[&0];
            partition.state == PartitionState::Inactive && partition.owners.len() == 2
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn clusters_with_different_labels_do_not_meet() {
    let net = Net::new();
    let labelled = |mut config: Config, label: &str| {
        config.cluster_label = label.to_owned();
        config
    };
    let ours = net
        .start(labelled(live_store(1, "a", 0), "tracing/one"))
        .await;
    let theirs = net.start(labelled(config(2), "tracing/two")).await;
    ours.sees_state(0, PartitionState::Active).await;
    tokio::time::sleep(PATIENCE).await;
    assert!(theirs.membership.partitions().partitions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_bridge_is_read_and_never_written() {
    let net = Net::new();
    let mut bridge = live_store(1, "", 9999);
    bridge.instance.as_mut().unwrap().read_only = true;
    let bridge = net.start(bridge).await;
    let querier = net.start(config(2)).await;
    querier.sees_state(9999, PartitionState::Inactive).await;
    let asked = bridge
        .membership
        .change_partition(9999, PartitionState::Active)
        .await;
    assert_eq!(asked, Err(ChangeError::Reserved(9999)));
    assert_eq!(querier.membership.partitions().active().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn changes_that_are_not_allowed_are_refused() {
    let net = Net::new();
    let store = net.start(live_store(1, "a", 0)).await;
    let change = |to| store.membership.change_partition(0, to);
    assert_eq!(
        change(PartitionState::Active).await,
        Err(ChangeError::NotRunning)
    );
    store.sees_state(0, PartitionState::Active).await;
    assert_eq!(
        change(PartitionState::Pending).await,
        Err(ChangeError::NotAllowed {
            from: PartitionState::Active,
            to: PartitionState::Pending
        })
    );
    assert_eq!(
        store
            .membership
            .change_partition(7, PartitionState::Active)
            .await,
        Err(ChangeError::NotFound(7))
    );
    let first = change(PartitionState::Inactive).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        change(PartitionState::Inactive).await.unwrap(),
        first,
        "asked twice"
    );
    store
        .membership
        .lock_partition(0, None, true)
        .await
        .unwrap();
    assert_eq!(
        change(PartitionState::Active).await,
        Err(ChangeError::Locked)
    );
    store
        .membership
        .lock_partition(0, None, false)
        .await
        .unwrap();
    assert!(change(PartitionState::Active).await.unwrap().state_since > first.state_since);
}

#[tokio::test(start_paused = true)]
async fn a_process_may_insist_on_finding_others() {
    let net = Net::new();
    let mut alone = config(3);
    alone.abort_if_join_fails = true;
    let alone = net.start(alone).await;
    let ended = tokio::time::timeout(PATIENCE, alone.task)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(ended, Err(Error::JoinFailed)));
}

/// With a memory of its own in `folder`.
fn remembering(folder: &std::path::Path, host: u8, partition: i32) -> Config {
    Config {
        memory_path: Some(folder.join(format!("partitions-{partition}.json"))),
        ..live_store(host, "a", partition)
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_hears_one_live_store_knows_how_many_more_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let net = Net::new();
    let querier = net.start(config(9)).await;
    assert!(!querier.membership.partitions().is_settled);
    let stores = [
        net.start(remembering(folder.path(), 1, 0)).await,
        net.start(remembering(folder.path(), 3, 1)).await,
        net.start(remembering(folder.path(), 4, 2)).await,
    ];
    for node in stores.iter().chain([&querier]) {
        for id in 0..3 {
            node.sees_state(id, PartitionState::Active).await;
        }
    }
    assert!(querier.membership.partitions().is_settled);
    stores[0]
        .membership
        .change_partition(1, PartitionState::Inactive)
        .await
        .unwrap();
    for node in &stores {
        node.sees_state(1, PartitionState::Inactive).await;
    }

    // Everything ends at once, and nobody is left who could tell.
    for node in stores {
        node.crash().await;
    }
    querier.crash().await;
    let net = Net::new();
    let querier = net.start(config(9)).await;
    let first = net.start(remembering(folder.path(), 1, 0)).await;
    querier
        .sees("that a live-store knows", |ring| ring.is_settled)
        .await;
    let ring = querier.membership.partitions();
    assert_eq!(ring.unheard, BTreeSet::from([2]), "{ring:?}");
    assert_eq!(
        ring.partitions[&0].state,
        PartitionState::Active,
        "not made anew"
    );
    assert_eq!(
        ring.partitions[&1].state,
        PartitionState::Inactive,
        "told for its owner, who is away"
    );
    let back = net.start(remembering(folder.path(), 4, 2)).await;
    for node in [&querier, &first] {
        node.sees("the last one back", |ring| {
            ring.unheard.is_empty() && ring.partitions[&2].state == PartitionState::Active
        })
        .await;
    }
    back.leave().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_does_not_count_where_somebody_knows() {
    let folder = tempfile::tempdir().unwrap();
    let net = Net::new();
    let old = [
        net.start(remembering(folder.path(), 1, 0)).await,
        net.start(remembering(folder.path(), 3, 7)).await,
    ];
    for id in [0, 7] {
        old[0].sees_state(id, PartitionState::Active).await;
    }
    for node in old {
        node.crash().await;
    }
    // Another cluster of these names, in which there is no partition 7 any more.
    let net = Net::new();
    let survivor = net.start(live_store(2, "a", 1)).await;
    survivor.sees_state(1, PartitionState::Active).await;
    let late = net.start(remembering(folder.path(), 1, 0)).await;
    late.sees_state(0, PartitionState::Active).await;
    for node in [&late, &survivor] {
        let ring = node.membership.partitions();
        assert!(ring.unheard.is_empty(), "{ring:?}");
        assert!(!ring.partitions.contains_key(&7), "{ring:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_nobody_speaks_of_is_given_up_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let net = Net::new();
    let both = [
        net.start(remembering(folder.path(), 1, 0)).await,
        net.start(remembering(folder.path(), 3, 7)).await,
    ];
    both[0].sees_state(7, PartitionState::Active).await;
    for node in both {
        node.crash().await;
    }
    let net = Net::new();
    let alone = net.start(remembering(folder.path(), 1, 0)).await;
    let querier = net.start(config(9)).await;
    querier
        .sees("that there was a partition 7", |ring| {
            ring.unheard.contains(&7)
        })
        .await;
    for node in [&alone, &querier] {
        node.sees("that there is none", |ring| ring.unheard.is_empty())
            .await;
    }
}
