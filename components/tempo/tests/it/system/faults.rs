//! What can happen to an installation.

use std::{thread, time::Duration};

use tempo_testkit::{cluster::Cluster, disk::SmallDisk, proxy::Proxy};

use super::store::Store;
use crate::support::{eventually, metric};

/// Longer than `complete_block_timeout` and `query_backend_after` of a hasty installation.
pub(super) const ABSENCE: Duration = Duration::from_secs(50);

/// How long a process is paused, by SIGSTOP.
const PAUSE: Duration = Duration::from_secs(30);

/// A fault, and its end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// `kill -9`, then start again.
    Kill(&'static str),
    /// `kill -9`, and nobody there for longer than live-stores keep blocks that are built.
    Absence(&'static str),
    /// SIGSTOP for a while.
    Pause(&'static str),
    /// `kill -9` of a broker, then start it again.
    Broker(u16),
    /// The network from one to another is cut for a while.
    Cut(&'static str, &'static str),
    /// The same, and nobody is told: what is sent just does not arrive.
    Silence(&'static str, &'static str),
    /// Nobody hears the gossip of one, and it hears nobody's.
    Isolation(&'static str),
    /// `kill -9` of the object store, then start it again.
    Store,
    /// Block-builders cannot sort on disk; that of this partition must feel it.
    FullDisk(u32),
    /// `kill -9` of all at once.
    Everything,
}

/// What faults befall.
pub(super) struct Installation {
    pub(super) cluster: Cluster,
    pub(super) store: Store,
    /// Where block-builders sort.
    pub(super) disk: Option<SmallDisk>,
}

impl Installation {
    /// Lets it happen, for so long, and waits until everything is ready again.
    pub(super) fn suffer(&mut self, fault: Fault, duration: Duration) {
        let cluster = &mut self.cluster;
        match fault {
            Fault::Kill(name) => {
                cluster.node_mut(name).kill().unwrap();
                thread::sleep(duration / 3);
                cluster.node_mut(name).spawn().unwrap();
            }
            Fault::Absence(name) => {
                cluster.node_mut(name).kill().unwrap();
                thread::sleep(ABSENCE);
                cluster.node_mut(name).spawn().unwrap();
            }
            Fault::Pause(name) => {
                cluster.node(name).signal("STOP").unwrap();
                thread::sleep(PAUSE);
                cluster.node(name).signal("CONT").unwrap();
            }
            Fault::Broker(number) => {
                cluster.kafka.kill_broker(number).unwrap();
                thread::sleep(duration);
                cluster.kafka.start_broker(number).unwrap();
            }
            Fault::Cut(from, to) => {
                let links = cluster.links(from, to);
                links.iter().for_each(Proxy::cut);
                thread::sleep(duration);
                links.iter().for_each(Proxy::mend);
            }
            Fault::Silence(from, to) => {
                let links = cluster.links(from, to);
                links.iter().for_each(Proxy::silence);
                thread::sleep(duration);
                links.iter().for_each(Proxy::mend);
            }
            Fault::Isolation(name) => {
                cluster.isolate(name);
                thread::sleep(duration);
                cluster.reunite(name);
            }
            Fault::Store => {
                self.store.kill();
                thread::sleep(duration);
                self.store.spawn();
            }
            Fault::FullDisk(partition) => {
                let builder = cluster.node(&format!("block-builder-{partition}"));
                let name = format!(
                    "tempo_block_builder_section_failures_total{{partition=\"{partition}\"}}"
                );
                let failures = || metric(builder, &name);
                let disk = self.disk.as_ref().unwrap();
                disk.fill().unwrap();
                let before = failures();
                eventually("a section fails", || (failures() > before).then_some(()));
                thread::sleep(duration);
                disk.relieve().unwrap();
            }
            Fault::Everything => {
                for name in cluster.names() {
                    cluster.node_mut(&name).kill().unwrap();
                }
                for name in cluster.names() {
                    cluster.node_mut(&name).spawn().unwrap();
                }
            }
        }
        self.cluster
            .until_ready()
            .unwrap_or_else(|error| panic!("after {fault:?}: {error}"));
    }
}
