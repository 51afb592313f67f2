//! Resolved settings. Keys that Tempo has carry Tempo's defaults.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use crate::{error::Error, state::Rules};

/// Port of gossip, where a seed names none.
pub const DEFAULT_PORT: u16 = 7946;

/// How a process takes part.
#[derive(Clone, Debug)]
pub struct Config {
    /// `memberlist.node_name`, with its random part: unique in the cluster. A live-store's is its
    /// instance id.
    pub node_name: String,
    /// `memberlist.bind_addr`: where gossip (UDP) is listened to.
    pub bind_addr: IpAddr,
    /// `memberlist.bind_port`.
    pub bind_port: u16,
    /// `memberlist.advertise_addr`: where others reach this process; the own address when `None`.
    pub advertise_addr: Option<IpAddr>,
    /// `memberlist.advertise_port`; the bound port when `None`.
    pub advertise_port: Option<u16>,
    /// `memberlist.cluster_label`: others with another label are not listened to.
    pub cluster_label: String,
    /// `memberlist.join_members`: members to begin with. `host:port`, `host` or `dns+host:port`;
    /// every address of a name counts, and names are looked up again and again.
    pub join_members: Vec<String>,
    /// `memberlist.gossip_interval`: time between exchanges with some others.
    pub gossip_interval: Duration,
    /// Time between look-ups of [`Config::join_members`], once others are known. Before, they are
    /// looked up once a second.
    pub rejoin_interval: Duration,
    /// How long to listen for others before the own partition is looked at. Ends early when others
    /// answer, or when there are no seeds.
    pub join_timeout: Duration,
    /// `memberlist.abort_if_cluster_join_fails`: whether a process that finds nobody ends.
    pub abort_if_join_fails: bool,
    /// `memberlist.leave_timeout`: longest time to tell others that this process goes.
    pub leave_timeout: Duration,
    /// What kind of process it is, for those who count them; see
    /// [`Membership::alive`](crate::Membership::alive). Nothing is said when it is empty.
    pub role: &'static str,
    /// What a live-store says of itself; `None` for every other process.
    pub instance: Option<Instance>,
    /// Where a live-store writes down which partitions it knows; nowhere when `None`. After all of
    /// them were down at once, nobody else can tell.
    pub memory_path: Option<PathBuf>,
    /// `live_store.partition_ring.min_partition_owners_count`.
    pub min_partition_owners_count: usize,
    /// `live_store.partition_ring.min_partition_owners_duration`.
    pub min_partition_owners_duration: Duration,
    /// `live_store.partition_ring.delete_inactive_partition_after`; zero means never.
    pub delete_inactive_partition_after: Duration,
}

/// A live-store, and the partition that it owns.
#[derive(Clone, Debug)]
pub struct Instance {
    /// `live_store.ring.instance_id`: unique in the cluster.
    pub id: String,
    /// Partition of the log.
    pub partition: i32,
    /// Whether the partition is a reserved one: read by queriers, never written, and in no log.
    pub read_only: bool,
    /// `live_store.ring.instance_zone`.
    pub zone: String,
    /// `live_store.ring.instance_addr`: where queriers reach it; the advertised address when `None`.
    pub grpc_host: Option<String>,
    /// `live_store.ring.instance_port`, or the gRPC port.
    pub grpc_port: u16,
    /// Whether the partition of the log has no record: what nobody has heard of holds nothing then.
    pub log_was_empty: bool,
    /// Whether the partition is made when there is none.
    pub create_partition: bool,
    /// `live_store.remove_owner_on_shutdown`.
    pub remove_owner_on_shutdown: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            bind_addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            bind_port: DEFAULT_PORT,
            advertise_addr: None,
            advertise_port: None,
            cluster_label: String::new(),
            join_members: Vec::new(),
            gossip_interval: Duration::from_secs(1),
            rejoin_interval: Duration::from_secs(30),
            join_timeout: Duration::from_secs(15),
            abort_if_join_fails: false,
            leave_timeout: Duration::from_secs(20),
            role: "",
            instance: None,
            memory_path: None,
            min_partition_owners_count: 1,
            min_partition_owners_duration: Duration::from_secs(10),
            delete_inactive_partition_after: Duration::from_secs(13 * 3600),
        }
    }
}

impl Config {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let wrong = |key, reason: &str| {
            Err(Error::Config {
                key,
                reason: reason.to_owned(),
            })
        };
        if self.node_name.is_empty() {
            return wrong("memberlist.node_name", "must not be empty");
        }
        if self.gossip_interval.is_zero() {
            return wrong("memberlist.gossip_interval", "must be longer than 0s");
        }
        if let Some(instance) = &self.instance {
            if instance.id.is_empty() {
                return wrong("live_store.ring.instance_id", "must not be empty");
            }
            if instance.partition < 0 {
                return wrong(
                    "live_store.partition_ring.partition_id",
                    "must not be negative",
                );
            }
        }
        Ok(())
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules {
            min_owners: self.min_partition_owners_count,
            min_owners_duration: self.min_partition_owners_duration,
            delete_inactive_after: self.delete_inactive_partition_after,
        }
    }
}
