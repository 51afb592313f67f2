//! Statements of members, carried by `chitchat`.
//!
//! A member's own key-value pairs are its statement; the library brings them to all others and
//! judges who is alive.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chitchat::{
    Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState,
    ProtocolVersion, transport::Transport,
};
use tokio::sync::{Mutex, Notify};

use crate::{
    config::Config,
    error::Error,
    state::{OwnerRecord, PartitionRecord, Statement},
};

const ROLE: &str = "role";
const OWNER: &str = "owner";
const INFORMED: &str = "informed";
const PARTITION: &str = "partition/";
const KNOWN: &str = "known";
const BUILT_UNTIL: &str = "built-until";

/// How long one that is gone is remembered. A live-store that crashed stays known as an owner for
/// as long, so that nobody takes what it held for complete.
const GONE_GRACE: Duration = Duration::from_secs(2 * 3600);
/// How long removed keys are remembered.
const REMOVED_KEY_GRACE: Duration = Duration::from_secs(3600);
/// Longest pause between signs of life that is learnt as usual, in gossip intervals.
const MAX_USUAL_PAUSE: u32 = 10;
/// Suspicion at which a member counts as gone: about as many usual pauses without a sign.
const PHI_THRESHOLD: f64 = 8.0;

/// Partitions in a row that are believed to be there.
const MAX_PARTITIONS: i32 = 100_000;

/// A member, for status pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// What kind of process it is; empty when it does not say.
    pub role: String,
    /// Where it gossips.
    pub addr: SocketAddr,
    /// Whether signs of life arrive.
    pub alive: bool,
}

pub(crate) struct Gossip {
    handle: ChitchatHandle,
    chitchat: Arc<Mutex<Chitchat>>,
    /// What this member says now.
    said: Statement,
    /// Wakes when a statement arrived.
    changed: Arc<Notify>,
}

impl Gossip {
    pub(crate) async fn start(
        config: &Config,
        said: Statement,
        transport: &dyn Transport,
    ) -> Result<Self, Error> {
        let (listen_addr, advertised) = addresses(config)?;
        let bind_error = |reason: String| Error::Bind {
            addr: listen_addr,
            reason,
        };
        let generation = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos() as u64;
        let id = ChitchatId::new(said.member.as_str(), generation, advertised);
        let failure_detector_config = FailureDetectorConfig {
            phi_threshold: PHI_THRESHOLD,
            initial_interval: config.gossip_interval,
            max_interval: config.gossip_interval * MAX_USUAL_PAUSE,
            dead_node_grace_period: GONE_GRACE,
            ..FailureDetectorConfig::default()
        };
        let chitchat_config = ChitchatConfig {
            chitchat_id: id,
            cluster_id: config.cluster_label.clone(),
            gossip_interval: config.gossip_interval,
            listen_addr,
            // Looked up and told by `Seeds`, which does not wait a minute for a name.
            seed_nodes: Vec::new(),
            failure_detector_config,
            marked_for_deletion_grace_period: REMOVED_KEY_GRACE,
            catchup_callback: None,
            extra_liveness_predicate: None,
            protocol_version: ProtocolVersion::V1,
        };
        let handle = chitchat::spawn_chitchat(chitchat_config, Vec::new(), transport)
            .await
            .map_err(|error| bind_error(format!("{error:#}")))?;
        let chitchat = handle.chitchat();
        let changed = Arc::new(Notify::new());
        {
            let wake = Arc::clone(&changed);
            let mut guard = chitchat.lock().await;
            if !config.role.is_empty() {
                guard.self_node_state().set(ROLE, config.role);
            }
            guard
                .subscribe_event("", move |_| wake.notify_one())
                .forever();
        }
        let mut gossip = Self {
            handle,
            chitchat,
            said: Statement {
                member: said.member.clone(),
                generation,
                alive: true,
                ..Statement::default()
            },
            changed,
        };
        gossip.say(said).await;
        Ok(gossip)
    }

    /// The name and address by which others know this member.
    pub(crate) fn id(&self) -> &ChitchatId {
        self.handle.chitchat_id()
    }

    pub(crate) fn said(&self) -> &Statement {
        &self.said
    }

    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Ends when gossip does, with the reason.
    pub(crate) fn ended(&self) -> impl Future<Output = String> + use<> {
        let ended = self.handle.termination_watcher();
        async move {
            match ended.await {
                Ok(()) => "stopped".to_owned(),
                Err(error) => format!("{error:#}"),
            }
        }
    }

    /// Says `statement` from now on; name, generation and life stay.
    pub(crate) async fn say(&mut self, statement: Statement) {
        let mut chitchat = self.chitchat.lock().await;
        let state = chitchat.self_node_state();
        match &statement.owner {
            Some(owner) => state.set(OWNER, json(owner)),
            None if state.contains_key(OWNER) => state.delete(OWNER),
            None => {}
        }
        for (id, record) in &statement.partitions {
            state.set(format!("{PARTITION}{id}"), json(record));
        }
        for id in self.said.partitions.keys() {
            if !statement.partitions.contains_key(id) {
                state.delete(&format!("{PARTITION}{id}"));
            }
        }
        if !statement.known.is_empty() || state.contains_key(KNOWN) {
            state.set(KNOWN, ranges(&statement.known));
        }
        if let Some(built_until) = statement.built_until {
            state.set(BUILT_UNTIL, built_until.to_string());
        }
        // The last: what is said arrives in this order, so whoever has this has all before it.
        if statement.informed {
            state.set(INFORMED, "true");
        }
        drop(chitchat);
        self.said = Statement {
            member: self.said.member.clone(),
            generation: self.said.generation,
            alive: true,
            ..statement
        };
    }

    /// What everybody says, this member included.
    pub(crate) async fn heard(&self) -> (Vec<Statement>, Vec<Member>) {
        let chitchat = self.chitchat.lock().await;
        let alive: std::collections::HashSet<&ChitchatId> = chitchat.live_nodes().collect();
        let mut statements = vec![self.said.clone()];
        let mut members = Vec::new();
        for (id, state) in chitchat.node_states() {
            let is_alive = alive.contains(id);
            members.push(Member {
                name: id.node_id.to_string(),
                role: state.get(ROLE).unwrap_or_default().to_owned(),
                addr: id.gossip_advertise_addr,
                alive: is_alive,
            });
            if id != chitchat.self_chitchat_id() {
                statements.push(statement(id, state, is_alive));
            }
        }
        (statements, members)
    }

    /// Exchanges with a member now.
    pub(crate) fn tell(&self, addr: SocketAddr) {
        // Only fails once gossip has ended, which is seen elsewhere.
        let _ = self.handle.gossip(addr);
    }

    pub(crate) async fn stop(self) {
        if let Err(error) = self.handle.shutdown().await {
            tracing::warn!(error = format!("{error:#}"), "gossip did not end well");
        }
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    // Structures of plain fields always serialize.
    serde_json::to_string(value).unwrap_or_default()
}

/// Reads what a member says. What a newer version says and this one does not know is left out.
fn statement(id: &ChitchatId, state: &NodeState, alive: bool) -> Statement {
    let parse_partition = |(key, value): (&str, &str)| -> Option<(i32, PartitionRecord)> {
        let partition: i32 = key.strip_prefix(PARTITION)?.parse().ok()?;
        Some((partition, serde_json::from_str(value).ok()?))
    };
    Statement {
        member: id.node_id.to_string(),
        generation: id.generation_id,
        alive,
        informed: state.contains_key(INFORMED),
        owner: state
            .get(OWNER)
            .and_then(|owner| serde_json::from_str::<OwnerRecord>(owner).ok()),
        partitions: state
            .key_values()
            .filter_map(parse_partition)
            .collect::<BTreeMap<_, _>>(),
        known: state.get(KNOWN).map(numbers).unwrap_or_default(),
        built_until: state.get(BUILT_UNTIL).and_then(|text| text.parse().ok()),
    }
}

/// Numbers as text: `0-3,7`.
fn ranges(numbers: &BTreeSet<i32>) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let texts: Vec<String> = runs
        .into_iter()
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    texts.join(",")
}

/// The numbers of [`ranges`]; what is none is left out.
fn numbers(text: &str) -> BTreeSet<i32> {
    text.split(',')
        .filter_map(|run| {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            let (first, last): (i32, i32) = (first.parse().ok()?, last.parse().ok()?);
            // As many as one topic may have, and not as many as somebody claims.
            let most = first.saturating_add(MAX_PARTITIONS);
            Some(first..=last.min(most))
        })
        .flatten()
        .collect()
}

/// Where to listen, and where others find this process.
fn addresses(config: &Config) -> Result<(SocketAddr, SocketAddr), Error> {
    let mut listen = SocketAddr::new(config.bind_addr, config.bind_port);
    if listen.port() == 0 {
        let free = UdpSocket::bind(listen).and_then(|socket| socket.local_addr());
        listen = free.map_err(|error| Error::Bind {
            addr: listen,
            reason: error.to_string(),
        })?;
    }
    let ip = config.advertise_addr.unwrap_or_else(|| {
        if config.bind_addr.is_unspecified() {
            own_address()
        } else {
            config.bind_addr
        }
    });
    let port = match config.advertise_port {
        Some(port) if config.bind_port != 0 => port,
        _ => listen.port(),
    };
    Ok((listen, SocketAddr::new(ip, port)))
}

/// The address that this machine uses towards others; loopback where it has no network.
fn own_address() -> IpAddr {
    // Connecting a UDP socket sends nothing: it only chooses the way.
    let towards = |local: &str, remote: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind(local).ok()?;
        socket.connect(remote).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    towards("0.0.0.0:0", "192.0.2.1:9")
        .or_else(|| towards("[::]:0", "[2001:db8::1]:9"))
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_travel_as_ranges() {
        for (set, text) in [
            (vec![], ""),
            (vec![4], "4"),
            (vec![0, 1, 2, 3, 7, 9, 10], "0-3,7,9-10"),
        ] {
            let set = BTreeSet::from_iter(set);
            assert_eq!(ranges(&set), text);
            assert_eq!(numbers(text), set);
        }
        assert_eq!(numbers("x,3-1,5,-7,2-"), BTreeSet::from([5]));
        let claimed = numbers("0-2147483647").len();
        assert_eq!(claimed, MAX_PARTITIONS as usize + 1);
    }
}
