//! A whole installation on this machine: Kafka, a bucket, and every target as a process of its own.
//!
//! Owns who is started with which settings, and in which order they start and stop. Must never look
//! into what they do.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    http_client,
    kafka::{Kafka, KafkaOptions},
    object_server,
    ports::free_port,
    process::{Options, Tempo},
    proxy::Proxy,
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
    /// Whether the network between processes can be cut, link by link; see [`Cluster::link`].
    pub is_proxied: bool,
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
            is_hasty: false,
        }
    }
}

/// Settings of a hasty installation that all processes share. A span is asked of live-stores for
/// a quarter of a minute, and is in a block by then if block-builders work.
const HASTY: &str = "query_frontend:\n  query_end_cutoff: 0s\n  search: {query_backend_after: 15s}\n  metrics: {query_backend_after: 15s}\n";

/// Its processes, by name.
pub struct Cluster {
    /// The brokers.
    pub kafka: Kafka,
    nodes: Vec<(String, Tempo)>,
    links: BTreeMap<(String, String), Proxy>,
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
        let kafka = Kafka::start(&KafkaOptions {
            brokers: shape.brokers,
            ..KafkaOptions::default()
        })?;
        let mut cluster = Self {
            kafka,
            nodes: Vec::new(),
            links: BTreeMap::new(),
            folder,
            _temporary: temporary,
        };
        let seed = format!("127.0.0.1:{}", free_port()?);
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
                    cluster.links.insert(("querier".to_owned(), name), proxy);
                }
            }
        }
        for builder in 0..shape.partitions {
            let name = format!("block-builder-{builder}");
            let cycle = if shape.is_hasty { "2s" } else { "1m" };
            cluster.add(binary, shape, "block-builder", &name, &seed, false, |yaml| {
                yaml.rest = format!(
                    "block_builder:\n  instance_id: {name}\n  partitions_per_instance: 1\n  consume_cycle_duration: {cycle}\n  wal: {{path: {}}}\n",
                    yaml.folder.join("spill").display()
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
        self.links.insert((from.to_owned(), to.to_owned()), proxy);
        Ok(linked)
    }

    /// The network from a process to another, where it can be cut: from `querier` to each
    /// live-store, from each querier to `query-frontend`, from each backend-worker to
    /// `backend-scheduler`, from each process to the `store`.
    ///
    /// # Panics
    /// When there is no such link.
    #[allow(clippy::expect_used)]
    pub fn link(&self, from: &str, to: &str) -> &Proxy {
        let link = self.links.get(&(from.to_owned(), to.to_owned()));
        link.expect("the names of two processes with a link")
    }

    /// The links of all processes to one of these names.
    pub fn links_to<'a>(&'a self, to: &'a str) -> impl Iterator<Item = &'a Proxy> {
        let leads_there = move |((_, target), proxy): (&'a (String, String), &'a Proxy)| {
            (target == to).then_some(proxy)
        };
        self.links.iter().filter_map(leads_there)
    }

    #[allow(clippy::too_many_arguments)]
    fn add(
        &mut self,
        binary: &Path,
        shape: &Shape,
        target: &str,
        name: &str,
        seed: &str,
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
        let port = match is_seed {
            true => port_of(seed).to_owned(),
            false => free_port()?.to_string(),
        };
        let storage = match &shape.object_store {
            Some(address) => {
                object_server::storage_yaml(&self.linked(shape, name, "store", address)?)
            }
            None => format!(
                "    backend: local\n    local:\n      path: {}\n",
                self.folder.join("bucket").display()
            ),
        };
        let poll = if shape.is_hasty { "2s" } else { "30s" };
        let extra_yaml = format!(
            "target: {target}\n\
             memberlist:\n  node_name: {name}\n  bind_addr: [127.0.0.1]\n  bind_port: {port}\n  advertise_addr: 127.0.0.1\n  gossip_interval: 200ms\n  join_members: ['{seed}']\n\
             ingest:\n  kafka:\n    address: {}\n    topic: tempo\n    auto_create_topic_default_partitions: {}\n    consumer_group_lag_metric_update_interval: 5s\n\
             {}{}",
            self.kafka.bootstrap(),
            shape.partitions,
            if shape.is_hasty { HASTY } else { "" },
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
