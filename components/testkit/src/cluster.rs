//! A whole installation on this machine: Kafka, a bucket, and every target as a process of its own.
//!
//! Owns who is started with which settings, and in which order they start and stop. Must never look
//! into what they do.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    http_client,
    kafka::{Kafka, KafkaOptions},
    object_server,
    ports::free_port,
    process::{Options, Tempo, UNLIMITED},
    proxy::Proxy,
    relay::Relay,
};

/// Longest wait for every process to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(180);

/// What an installation is like.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Partitions, each with a live-store in every zone, and a block-builder.
    pub partitions: u32,
    /// Zones of the live-stores.
    pub zones: u32,
    /// Kafka brokers.
    pub brokers: u16,
    /// Query-frontends have no state, and neither have these.
    pub distributors: u32,
    /// How many queriers.
    pub queriers: u32,
    /// How many backend-workers.
    pub workers: u32,
    /// Address of an [`ObjectServer`](object_server::ObjectServer); a folder of all when `None`.
    pub object_store: Option<String>,
    /// Whether the network between processes can be cut, link by link; see [`Cluster::links`].
    pub is_proxied: bool,
    /// Processes that can be cut off from the brokers as well, up to 5 by name.
    pub linked_to_kafka: &'static [&'static str],
    /// Where the block-builders sort what does not fit into memory, each in a folder of its own;
    /// with the rest of their data when `None`.
    pub spill: Option<PathBuf>,
    /// Without limits of what tenants may send.
    pub is_unlimited: bool,
    /// Shorter times, so that every stage is gone through within seconds rather than minutes.
    pub is_hasty: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            partitions: 3,
            zones: 2,
            brokers: 1,
            distributors: 1,
            queriers: 1,
            workers: 1,
            object_store: None,
            is_proxied: false,
            linked_to_kafka: &[],
            spill: None,
            is_unlimited: false,
            is_hasty: false,
        }
    }
}

/// Settings of a hasty installation that all processes share. A span is asked of live-stores for
/// a quarter of a minute, and is in a block by then if block-builders work.
const HASTY: &str = "query_frontend:\n  query_end_cutoff: 0s\n  search: {query_backend_after: 15s}\n  metrics: {query_backend_after: 15s}\n";

/// Cycles of block-builders.
const CYCLES: &str = "  consume_cycle_duration: 1m\n  wal:\n";

/// The same of a hasty installation, which has little memory for them, and takes spans of any age.
const HASTY_CYCLES: &str = "  consume_cycle_duration: 2s\n  max_consuming_bytes: 8388608\n  max_buffered_bytes: 32768\n  wal:\n    ingestion_time_range_slack: 1h\n";

/// Its processes, by name.
pub struct Cluster {
    /// The brokers.
    pub kafka: Kafka,
    nodes: Vec<(String, Tempo)>,
    /// From one to another; to `kafka` there is a link for each broker.
    links: Links,
    /// By process: where it listens for gossip, and what is in front of it.
    gossip: BTreeMap<String, (SocketAddr, Relay)>,
    folder: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Cluster {
    /// Starts everything and waits until all is ready. `data` is kept; without it a temporary
    /// folder is used.
    ///
    /// # Errors
    /// When something does not start; with the end of its log.
    pub fn start(binary: &Path, shape: &Shape, data: Option<&Path>) -> io::Result<Self> {
        let (temporary, folder) = match data {
            Some(data) => (None, data.to_owned()),
            None => {
                let folder = tempfile::tempdir()?;
                let path = folder.path().to_owned();
                (Some(folder), path)
            }
        };
        let (kafka, links) = linked_kafka(shape)?;
        let mut cluster = Self {
            kafka,
            nodes: Vec::new(),
            links,
            gossip: BTreeMap::new(),
            folder,
            _temporary: temporary,
        };
        let seed = GossipPort::new(shape)?;
        // Live-stores make the partitions, so they are there first.
        for zone in 0..shape.zones {
            for partition in 0..shape.partitions {
                let zone = zone_name(zone);
                let name = format!("live-store-zone-{zone}-{partition}");
                let first = cluster.nodes.is_empty();
                let queries = match shape.is_proxied {
                    true => Some(Proxy::to_nowhere()?),
                    false => None,
                };
                let instance_port = queries.as_ref().map_or_else(String::new, |proxy| {
                    format!("    instance_port: {}\n", port_of(&proxy.address))
                });
                cluster.add(binary, shape, "live-store", &name, &seed, first, |yaml| {
                    yaml.live_store = format!(
                        "  ring:\n    instance_id: {name}\n    instance_zone: zone-{zone}\n    instance_addr: 127.0.0.1\n{instance_port}  partition_ring:\n    min_partition_owners_duration: 0s\n  readiness_target_lag: 1s\n{}",
                        if shape.is_hasty {
                            "  complete_block_timeout: 30s\n"
                        } else {
                            ""
                        }
                    );
                })?;
                if let Some(proxy) = queries {
                    proxy.aim(&cluster.node(&name).grpc);
                    cluster
                        .links
                        .insert(("querier".to_owned(), name), vec![proxy]);
                }
            }
        }
        for builder in 0..shape.partitions {
            let name = format!("block-builder-{builder}");
            let cycle = if shape.is_hasty { HASTY_CYCLES } else { CYCLES };
            let spill = shape.spill.as_ref().map(|spill| spill.join(&name));
            cluster.add(binary, shape, "block-builder", &name, &seed, false, |yaml| {
                yaml.rest = format!(
                    "block_builder:\n  instance_id: {name}\n  partitions_per_instance: 1\n{cycle}    path: {}\n",
                    spill.unwrap_or_else(|| yaml.folder.join("spill")).display()
                );
            })?;
        }
        for index in 0..shape.distributors {
            let name = format!("distributor-{index}");
            cluster.add(binary, shape, "distributor", &name, &seed, false, |_| {})?;
        }
        cluster.add(
            binary,
            shape,
            "query-frontend",
            "query-frontend",
            &seed,
            false,
            |_| {},
        )?;
        let frontend = cluster.node("query-frontend").grpc.clone();
        for index in 0..shape.queriers {
            let name = format!("querier-{index}");
            let frontend = cluster.linked(shape, &name, "query-frontend", &frontend)?;
            cluster.add(binary, shape, "querier", &name, &seed, false, |yaml| {
                yaml.rest =
                    format!("querier:\n  frontend_worker:\n    frontend_address: {frontend}\n");
            })?;
        }
        cluster.add(
            binary,
            shape,
            "backend-scheduler",
            "backend-scheduler",
            &seed,
            false,
            |yaml| {
                yaml.rest = format!(
                    "backend_scheduler:\n  local_work_path: {}\n{}",
                    yaml.folder.join("work").display(),
                    if shape.is_hasty {
                        "  provider:\n    compaction:\n      min_cycle_interval: 2s\n"
                    } else {
                        ""
                    }
                );
            },
        )?;
        let scheduler = cluster.node("backend-scheduler").grpc.clone();
        for index in 0..shape.workers {
            let name = format!("backend-worker-{index}");
            let scheduler = cluster.linked(shape, &name, "backend-scheduler", &scheduler)?;
            cluster.add(
                binary,
                shape,
                "backend-worker",
                &name,
                &seed,
                false,
                |yaml| {
                    yaml.rest = format!("backend_worker:\n  backend_scheduler_addr: {scheduler}\n");
                },
            )?;
        }
        cluster.until_ready()?;
        Ok(cluster)
    }

    /// The address by which a process reaches another: that of a link that can be cut, or its own.
    fn linked(&mut self, shape: &Shape, from: &str, to: &str, address: &str) -> io::Result<String> {
        if !shape.is_proxied {
            return Ok(address.to_owned());
        }
        let proxy = Proxy::to(address)?;
        let linked = proxy.address.clone();
        self.links
            .insert((from.to_owned(), to.to_owned()), vec![proxy]);
        Ok(linked)
    }

    /// The network from a process to another, where it can be cut: from `querier` to each
    /// live-store, from each querier to `query-frontend`, from each backend-worker to
    /// `backend-scheduler`, from each process to the `store`, from those of
    /// [`Shape::linked_to_kafka`] to each broker of `kafka`.
    ///
    /// # Panics
    /// When there is no such link.
    #[allow(clippy::expect_used)]
    pub fn links(&self, from: &str, to: &str) -> &[Proxy] {
        let links = self.links.get(&(from.to_owned(), to.to_owned()));
        links.expect("the names of two processes with a link")
    }

    /// Cuts a process off from the gossip of all others.
    pub fn isolate(&self, name: &str) {
        self.between(name, Relay::ignore);
    }

    /// Lets it take part again.
    pub fn reunite(&self, name: &str) {
        self.between(name, Relay::hear);
    }

    /// Tells the relays on all ways from and to a process.
    fn between(&self, name: &str, tell: impl Fn(&Relay, SocketAddr)) {
        let Some((address, relay)) = self.gossip.get(name) else {
            return;
        };
        for (other_address, other_relay) in self.gossip.values() {
            tell(relay, *other_address);
            tell(other_relay, *address);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn add(
        &mut self,
        binary: &Path,
        shape: &Shape,
        target: &str,
        name: &str,
        seed: &GossipPort,
        is_seed: bool,
        more: impl FnOnce(&mut Yaml),
    ) -> io::Result<()> {
        let folder = self.folder.join(name);
        let mut yaml = Yaml {
            folder: folder.clone(),
            live_store: String::new(),
            rest: String::new(),
        };
        more(&mut yaml);
        let gossip = match is_seed {
            true => seed.clone(),
            false => GossipPort::new(shape)?,
        };
        let (port, advertised) = (gossip.listens.port(), gossip.address().port());
        if let Some(relay) = gossip.relay {
            self.gossip.insert(name.to_owned(), (gossip.listens, relay));
        }
        let seed = seed.address();
        let storage = match &shape.object_store {
            Some(address) => {
                object_server::storage_yaml(&self.linked(shape, name, "store", address)?)
            }
            None => format!(
                "    backend: local\n    local:\n      path: {}\n",
                self.folder.join("bucket").display()
            ),
        };
        let kafka = match self.links.get(&(name.to_owned(), KAFKA.to_owned())) {
            Some(links) => addresses(links).join(","),
            None => self.kafka.bootstrap().to_owned(),
        };
        let poll = if shape.is_hasty { "2s" } else { "30s" };
        let extra_yaml = format!(
            "target: {target}\n\
             memberlist:\n  node_name: {name}\n  bind_addr: [127.0.0.1]\n  bind_port: {port}\n  advertise_addr: 127.0.0.1\n  advertise_port: {advertised}\n  gossip_interval: 200ms\n  join_members: ['{seed}']\n\
             ingest:\n  kafka:\n    address: {kafka}\n    topic: tempo\n    auto_create_topic_default_partitions: {}\n    consumer_group_lag_metric_update_interval: 5s\n\
             {}{}{}",
            shape.partitions,
            if shape.is_hasty { HASTY } else { "" },
            if shape.is_unlimited { UNLIMITED } else { "" },
            yaml.rest,
        );
        let options = Options {
            data: Some(folder),
            storage_yaml: Some(format!("    blocklist_poll: {poll}\n{storage}")),
            live_store_yaml: yaml.live_store,
            server_yaml: String::new(),
            wal_yaml: String::new(),
            extra_yaml,
            merges_blocks: true,
        };
        let mut node = Tempo::configure(binary, &options)?;
        node.spawn()?;
        self.nodes.push((name.to_owned(), node));
        Ok(())
    }

    /// Waits until every process is ready.
    ///
    /// # Errors
    /// When one is not in time, with the end of its log.
    pub fn until_ready(&self) -> io::Result<()> {
        let started = Instant::now();
        for (name, node) in &self.nodes {
            loop {
                let answer = http_client::get(&node.http, "/ready");
                if answer.is_ok_and(|answer| answer.status == 200) {
                    break;
                }
                if started.elapsed() > READY_TIMEOUT {
                    return Err(io::Error::other(format!(
                        "{name} is not ready:\n{}",
                        node.log_tail()
                    )));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// The names of all processes, in the order in which they were started.
    pub fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|(name, _)| name.clone()).collect()
    }

    /// A process by its name.
    ///
    /// # Panics
    /// When there is none of this name.
    #[allow(clippy::expect_used)]
    pub fn node(&self, name: &str) -> &Tempo {
        let found = self.nodes.iter().find(|(known, _)| known == name);
        &found.expect("the name of a process").1
    }

    /// A process by its name.
    ///
    /// # Panics
    /// When there is none of this name.
    #[allow(clippy::expect_used)]
    pub fn node_mut(&mut self, name: &str) -> &mut Tempo {
        let found = self.nodes.iter_mut().find(|(known, _)| known == name);
        &mut found.expect("the name of a process").1
    }

    /// Tells every process to end in an orderly way, and waits until all have.
    ///
    /// # Errors
    /// When one cannot be signalled.
    pub fn stop(&mut self) -> io::Result<()> {
        for (_, node) in &self.nodes {
            if node.pid().is_some() {
                node.signal("TERM")?;
            }
        }
        self.wait()
    }

    /// Waits until every process has ended by itself.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn wait(&mut self) -> io::Result<()> {
        for (_, node) in &mut self.nodes {
            node.wait()?;
        }
        Ok(())
    }
}

/// What links to brokers lead to.
const KAFKA: &str = "kafka";

fn addresses(links: &[Proxy]) -> Vec<String> {
    links.iter().map(|link| link.address.clone()).collect()
}

type Links = BTreeMap<(String, String), Vec<Proxy>>;

/// Brokers, and the links to them: each process that has some comes by an entrance of its own, so
/// that a broker sends it back through its links.
fn linked_kafka(shape: &Shape) -> io::Result<(Kafka, Links)> {
    let mut links = Vec::new();
    for _ in shape.linked_to_kafka {
        let to_brokers: io::Result<Vec<Proxy>> =
            (0..shape.brokers).map(|_| Proxy::to_nowhere()).collect();
        links.push(to_brokers?);
    }
    let kafka = Kafka::start(&KafkaOptions {
        brokers: shape.brokers,
        entrances: links.iter().map(|links| addresses(links)).collect(),
        ..KafkaOptions::default()
    })?;
    for (number, links) in links.iter().enumerate() {
        for (link, broker) in links.iter().zip(kafka.entrance(number)) {
            link.aim(broker);
        }
    }
    let names = shape.linked_to_kafka.iter();
    let named = names
        .map(|from| ((*from).to_owned(), KAFKA.to_owned()))
        .zip(links);
    Ok((kafka, named.collect()))
}

/// Where a process gossips, and what is in front of it, if anything.
#[derive(Clone)]
struct GossipPort {
    listens: SocketAddr,
    relay: Option<Relay>,
}

impl GossipPort {
    fn new(shape: &Shape) -> io::Result<Self> {
        let listens = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let relay = match shape.is_proxied {
            true => Some(Relay::to(listens)?),
            false => None,
        };
        Ok(Self { listens, relay })
    }

    /// Where others reach it.
    fn address(&self) -> SocketAddr {
        self.relay
            .as_ref()
            .map_or(self.listens, |relay| relay.address)
    }
}

/// What one target has of its own.
struct Yaml {
    folder: PathBuf,
    /// Of the live-store, indented by two spaces.
    live_store: String,
    rest: String,
}

fn zone_name(zone: u32) -> char {
    char::from(b'a'.saturating_add(u8::try_from(zone).unwrap_or(25).min(25)))
}

fn port_of(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or_default()
}
