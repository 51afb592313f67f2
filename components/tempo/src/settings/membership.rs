//! Gossip: who is alive, and which partitions there are.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use tempo_config::Config;

use super::{UnusableSetting, host_name};

/// How this process takes part; as one without a partition of its own.
pub(crate) fn membership(config: &Config) -> Result<tempo_membership::Config, UnusableSetting> {
    let (gossip, ring) = (&config.memberlist, &config.live_store.partition_ring);
    let defaults = tempo_membership::Config::default();
    let address = |key: &'static str, text: &str| {
        text.parse::<IpAddr>()
            .map_err(|_| UnusableSetting::new(key, format!("'{text}' is not an IP address")))
    };
    let bind_addr = match gossip.bind_addr.0.as_slice() {
        [] => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        [one] => address("memberlist.bind_addr", one)?,
        _ => {
            return Err(UnusableSetting::new(
                "memberlist.bind_addr",
                "name one address, or none for all",
            ));
        }
    };
    let advertise_addr = match gossip.advertise_addr.as_str() {
        "" => None,
        text => Some(address("memberlist.advertise_addr", text)?),
    };
    if gossip.tls_enabled {
        return Err(UnusableSetting::new(
            "memberlist.tls_enabled",
            "gossip has no TLS in this version; set false",
        ));
    }
    Ok(tempo_membership::Config {
        node_name: node_name(&gossip.node_name, gossip.randomize_node_name),
        bind_addr,
        bind_port: gossip.bind_port,
        advertise_addr,
        // A port that was not moved along with the bound one is taken for a forgotten one.
        advertise_port: (gossip.advertise_port != tempo_membership::DEFAULT_PORT)
            .then_some(gossip.advertise_port),
        cluster_label: gossip.cluster_label.clone(),
        join_members: gossip.join_members.0.clone(),
        gossip_interval: gossip.gossip_interval.0,
        rejoin_interval: match gossip.rejoin_interval.0 {
            Duration::ZERO => defaults.rejoin_interval,
            interval => interval,
        },
        abort_if_join_fails: gossip.abort_if_cluster_join_fails,
        leave_timeout: gossip.leave_timeout.0,
        min_partition_owners_count: ring.min_partition_owners_count as usize,
        min_partition_owners_duration: ring.min_partition_owners_duration.0,
        delete_inactive_partition_after: ring.delete_inactive_partition_after.0,
        ..defaults
    })
}

fn node_name(configured: &str, randomized: bool) -> String {
    let name = match configured {
        "" => host_name(),
        name => name.to_owned(),
    };
    if !randomized {
        return name;
    }
    // Each state hashes with other keys.
    let random = RandomState::new().build_hasher().finish();
    format!("{name}-{:08x}", random as u32)
}
