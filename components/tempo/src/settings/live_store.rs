//! A live-store of its own process: what it reads, and who it is to others. And the bridge, by which
//! a monolith is read like one.

use std::path::PathBuf;

use tempo_config::Config;
use tempo_live_store::{BoundarySettings, KafkaFeed, partition_of};
use tempo_membership::Instance;

use super::{UnusableSetting, blocks_visible_after, host_name, kafka, membership, writes};

/// In the live-store's data folder: the partitions that it knew before it stopped.
const PARTITIONS_FILE: &str = "partitions.json";

/// The part of the time for which blocks stay that a span may take from its begin to the log, where
/// it is to be counted while block-builders are behind.
const SPAN_DELAY_SHARE: u32 = 10;

fn instance_id(config: &Config) -> String {
    match config.live_store.ring.instance_id.as_str() {
        "" => host_name(),
        id => id.to_owned(),
    }
}

fn boundary(config: &Config) -> BoundarySettings {
    BoundarySettings {
        blocks_visible_after: blocks_visible_after(config),
        max_span_delay: config.live_store.complete_block_timeout.0 / SPAN_DELAY_SHARE,
    }
}

/// The live-store of a monolith.
pub(crate) fn live_store(config: &Config) -> Result<tempo_live_store::Config, UnusableSetting> {
    Ok(tempo_live_store::Config {
        bridge: reserved_partition(config).map(|_| boundary(config)),
        ..writes::live_store(config)?
    })
}

/// The partition under which processes of a cluster read a monolith, if they do.
pub(crate) fn reserved_partition(config: &Config) -> Option<i32> {
    let partition = config.live_store.partition_ring.partition_id;
    (partition >= 0).then_some(partition)
}

/// The live-store that reads Kafka.
pub(crate) fn live_store_on_kafka(
    config: &Config,
) -> Result<tempo_live_store::Config, UnusableSetting> {
    let live_store = &config.live_store;
    let (partition, group) = partition_of(&instance_id(config))
        .map_err(|error| UnusableSetting::new("live_store.ring.instance_id", error.to_string()))?;
    Ok(tempo_live_store::Config {
        kafka: Some(KafkaFeed {
            log: kafka(config)?,
            partition,
            group,
            builders_group: tempo_block_builder::GROUP.to_owned(),
            boundary: boundary(config),
            commit_interval: live_store.commit_interval.0,
            readiness_target_lag: live_store.readiness_target_lag.0,
            readiness_max_wait: live_store.readiness_max_wait.0,
            fail_on_high_lag: live_store.fail_on_high_lag,
        }),
        ..writes::live_store(config)?
    })
}

/// How a live-store takes part in gossip; `is_to_stay` unless it was told that it will not come
/// back, `log_is_empty` when nothing was ever written to its partition.
pub(crate) fn live_store_membership(
    config: &Config,
    is_to_stay: bool,
    log_is_empty: bool,
) -> Result<tempo_membership::Config, UnusableSetting> {
    let id = instance_id(config);
    let (partition, _) = partition_of(&id)
        .map_err(|error| UnusableSetting::new("live_store.ring.instance_id", error.to_string()))?;
    let mut membership = membership(config)?;
    membership.memory_path = Some(PathBuf::from(&config.live_store.wal.path).join(PARTITIONS_FILE));
    membership.instance = Some(Instance {
        log_was_empty: log_is_empty,
        create_partition: is_to_stay,
        remove_owner_on_shutdown: !is_to_stay || config.live_store.remove_owner_on_shutdown,
        ..instance(config, id, partition)
    });
    Ok(membership)
}

/// How a monolith takes part in gossip: not at all, unless it has a reserved partition.
///
/// What a monolith has not flushed is nowhere else. So its partition is without an owner, and not
/// asked for, only after it was told that it leaves for good; `remove_owner_on_shutdown` is for
/// those who read a log.
pub(crate) fn bridge_membership(
    config: &Config,
    partition: i32,
    leaves: bool,
) -> Result<tempo_membership::Config, UnusableSetting> {
    let mut membership = membership(config)?;
    membership.instance = Some(Instance {
        read_only: true,
        remove_owner_on_shutdown: leaves,
        ..instance(config, instance_id(config), partition)
    });
    Ok(membership)
}

fn instance(config: &Config, id: String, partition: i32) -> Instance {
    let ring = &config.live_store.ring;
    let host = (!ring.instance_addr.is_empty()).then(|| ring.instance_addr.clone());
    Instance {
        id,
        partition,
        read_only: false,
        zone: ring.instance_zone.clone(),
        grpc_host: host,
        grpc_port: match ring.instance_port {
            0 => config.server.grpc_listen_port,
            port => port,
        },
        // A monolith is there before its partition, which is in no log.
        log_was_empty: true,
        create_partition: true,
        remove_owner_on_shutdown: config.live_store.remove_owner_on_shutdown,
    }
}

/// Where the mark of a live-store that will not come back is.
pub(crate) fn shutdown_marker_folder(config: &Config) -> PathBuf {
    PathBuf::from(&config.live_store.shutdown_marker_dir)
}
