//! The handle and the task behind it: hears, concludes, says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chitchat::transport::{Transport, UdpTransport};
use parking_lot::RwLock;
use prometheus::Registry;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    error::{ChangeError, Error},
    gossip::{Gossip, Member},
    memory::Memory,
    metrics::Metrics,
    ring::{OwnerState, PartitionRing, PartitionState},
    seeds::Seeds,
    state::{self, Owned, OwnerRecord, PartitionRecord, RecordState, Speaker, Statement, View},
};

/// Requests that wait for the task.
const MAX_WAITING_REQUESTS: usize = 64;
/// Time between look-ups of seeds while nobody is known.
const LONELY_LOOK_UP_INTERVAL: Duration = Duration::from_secs(1);
/// Gossip intervals to go on listening after the first contact, so that all is heard.
const LISTENING_ROUNDS: u32 = 2;
/// Gossip intervals in which all members hear the last words of one that goes.
const FAREWELL_ROUNDS: u32 = 3;

/// A partition after a change, or a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Its state.
    pub state: PartitionState,
    /// Unix seconds since when.
    pub state_since: i64,
    /// Whether changes are refused.
    pub locked: bool,
}

/// Who is alive, and which partitions there are. Cheap to clone.
#[derive(Clone)]
pub struct Membership {
    ring: watch::Receiver<Arc<PartitionRing>>,
    members: Arc<RwLock<Vec<Member>>>,
    /// `None` of a ring that never changes.
    requests: Option<mpsc::Sender<Request>>,
}

enum Request {
    Change {
        partition: i32,
        to: Option<PartitionState>,
        locked: Option<bool>,
        done: oneshot::Sender<Result<PartitionStatus, ChangeError>>,
    },
    OwnerState(OwnerState, oneshot::Sender<()>),
    Leave(oneshot::Sender<Duration>),
    BuiltUntil(i64, oneshot::Sender<()>),
    Shutdown {
        remove_owner: bool,
        create_partition: bool,
        done: oneshot::Sender<()>,
    },
}

/// The task that gossips.
pub struct Service {
    config: Config,
    gossip: Gossip,
    seeds: Seeds,
    metrics: Metrics,
    ring: watch::Sender<Arc<PartitionRing>>,
    members: Arc<RwLock<Vec<Member>>>,
    requests: mpsc::Receiver<Request>,
    view: View,
    memory: Memory,
    /// Unix seconds.
    listens_since: i64,
    /// What this live-store is doing.
    owner_state: OwnerState,
    clock: Clock,
}

/// Binds the port of gossip. Nothing is said or heard of until the service runs.
///
/// # Errors
/// When a setting cannot be used or the port is taken.
pub async fn build(config: Config, registry: &Registry) -> Result<(Membership, Service), Error> {
    build_on(config, registry, &UdpTransport, unix_now).await
}

/// Seconds since the epoch.
type Clock = fn() -> i64;

/// [`build`], on any network and at any time.
async fn build_on(
    config: Config,
    registry: &Registry,
    transport: &dyn Transport,
    clock: Clock,
) -> Result<(Membership, Service), Error> {
    config.validate()?;
    let seeds = Seeds::parse(&config.join_members)?;
    let metrics = Metrics::new(registry)?;
    let name = match &config.instance {
        Some(instance) => &instance.id,
        None => &config.node_name,
    };
    let said = Statement {
        member: name.clone(),
        ..Statement::default()
    };
    let memory = Memory::open(config.memory_path.clone());
    let gossip = Gossip::start(&config, said, transport).await?;
    let (ring_sender, ring) = watch::channel(Arc::new(PartitionRing::default()));
    let (request_sender, requests) = mpsc::channel(MAX_WAITING_REQUESTS);
    let members = Arc::default();
    let membership = Membership {
        ring,
        members: Arc::clone(&members),
        requests: Some(request_sender),
    };
    let service = Service {
        config,
        gossip,
        seeds,
        metrics,
        ring: ring_sender,
        members,
        requests,
        view: View::default(),
        memory,
        listens_since: clock(),
        owner_state: OwnerState::Joining,
        clock,
    };
    Ok((membership, service))
}

impl Membership {
    /// A ring that never changes, for tests of what uses it.
    pub fn fixed(ring: PartitionRing) -> Self {
        Self {
            // The receiver keeps the last value also without a sender.
            ring: watch::channel(Arc::new(ring)).1,
            members: Arc::default(),
            requests: None,
        }
    }

    /// The partitions now.
    pub fn partitions(&self) -> Arc<PartitionRing> {
        Arc::clone(&self.ring.borrow())
    }

    /// The partitions, and notice of their changes.
    pub fn watch(&self) -> watch::Receiver<Arc<PartitionRing>> {
        self.ring.clone()
    }

    /// All members that are known, this one included.
    pub fn members(&self) -> Vec<Member> {
        self.members.read().clone()
    }

    /// How many processes of a kind are alive, this one included.
    pub fn alive(&self, role: &str) -> usize {
        let members = self.members.read();
        let of_role = members.iter().filter(|member| member.role == role);
        of_role.filter(|member| member.alive).count()
    }

    /// Asks for another state of a partition; a partition that is in that state stays as it is.
    ///
    /// # Errors
    /// When there is no such partition, or the change is not allowed.
    pub async fn change_partition(
        &self,
        partition: i32,
        to: PartitionState,
    ) -> Result<PartitionStatus, ChangeError> {
        self.change(partition, Some(to), None).await
    }

    /// Locks or unlocks the state of a partition, after an optional change of it.
    ///
    /// # Errors
    /// When there is no such partition, or the change is not allowed.
    pub async fn lock_partition(
        &self,
        partition: i32,
        to: Option<PartitionState>,
        locked: bool,
    ) -> Result<PartitionStatus, ChangeError> {
        self.change(partition, to, Some(locked)).await
    }

    async fn change(
        &self,
        partition: i32,
        to: Option<PartitionState>,
        locked: Option<bool>,
    ) -> Result<PartitionStatus, ChangeError> {
        self.ask(|done| Request::Change {
            partition,
            to,
            locked,
            done,
        })
        .await
        .ok_or(ChangeError::NotRunning)?
    }

    /// Says what this live-store is doing.
    pub async fn set_owner_state(&self, state: OwnerState) {
        self.ask(|done| Request::OwnerState(state, done)).await;
    }

    /// Says that this live-store goes, and waits until the others have heard it. Until then they
    /// ask it, and it must answer.
    pub async fn leave(&self) {
        if let Some(farewell) = self.ask(Request::Leave).await {
            tokio::time::sleep(farewell).await;
        }
    }

    /// Says that spans that came before this unix second are in blocks that everybody sees.
    pub async fn set_built_until(&self, unix_seconds: i64) {
        self.ask(|done| Request::BuiltUntil(unix_seconds, done))
            .await;
    }

    /// Whether this live-store takes its name off its partition when it stops, and whether it makes
    /// its partition when there is none.
    pub async fn set_lifecycle(&self, remove_owner_on_shutdown: bool, create_partition: bool) {
        self.ask(|done| Request::Shutdown {
            remove_owner: remove_owner_on_shutdown,
            create_partition,
            done,
        })
        .await;
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (done, answer) = oneshot::channel();
        self.requests.as_ref()?.send(request(done)).await.ok()?;
        answer.await.ok()
    }
}

impl Service {
    /// Gossips until `shutdown`, and then takes leave.
    ///
    /// # Errors
    /// When gossip ends by itself, or nobody is found and that is to be an error.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let ended = self.gossip.ended();
        tokio::pin!(ended);
        let heard = self.gossip.changed();
        let mut ticks = tokio::time::interval(self.config.gossip_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut joining = Joining::new();
        let mut next_look_up = Instant::now();
        loop {
            let mut is_tick = false;
            tokio::select! {
                () = shutdown.cancelled() => break,
                reason = &mut ended => return Err(Error::Gossip(reason)),
                _ = ticks.tick() => is_tick = true,
                () = heard.notified() => {}
                Some(request) = self.requests.recv() => self.answer(request).await,
            }
            if is_tick && Instant::now() >= next_look_up && !self.seeds.is_empty() {
                next_look_up = Instant::now() + self.greet_seeds().await;
            }
            self.conclude().await;
            if !self.gossip.said().informed && joining.is_over(&self) {
                if joining.found_nobody && !self.seeds.is_empty() {
                    if self.config.abort_if_join_fails {
                        return Err(Error::JoinFailed);
                    }
                    tracing::warn!("no other member of the cluster answered, going on alone");
                }
                self.begin().await;
            }
        }
        self.take_leave().await;
        Ok(())
    }

    /// Exchanges with all seeds; returns when to do so again.
    async fn greet_seeds(&self) -> Duration {
        for addr in self.seeds.look_up().await {
            if addr != self.gossip.id().gossip_advertise_addr {
                self.gossip.tell(addr);
            }
        }
        if self.knows_others() {
            self.config.rejoin_interval
        } else {
            LONELY_LOOK_UP_INTERVAL
        }
    }

    fn knows_others(&self) -> bool {
        self.members.read().len() > 1
    }

    /// Everything was heard: from now on this member counts as one that knows.
    async fn begin(&mut self) {
        let now = (self.clock)();
        let owner = self.config.instance.as_ref().map(|instance| {
            let host = match &instance.grpc_host {
                Some(host) => host.clone(),
                None => self.gossip.id().gossip_advertise_addr.ip().to_string(),
            };
            let host = if host.contains(':') && !host.starts_with('[') {
                format!("[{host}]")
            } else {
                host
            };
            OwnerRecord {
                partition: instance.partition,
                zone: instance.zone.clone(),
                grpc_addr: format!("{host}:{}", instance.grpc_port),
                state: self.owner_state,
                state_since: now,
                owner_since: now,
                log_was_empty: instance.log_was_empty,
                read_only: instance.read_only,
            }
        });
        self.remember();
        let statement = Statement {
            informed: true,
            owner,
            // Of its partition, in the same breath: until then what it said before counts.
            partitions: self.next_records(),
            known: self.next_known(),
            ..self.gossip.said().clone()
        };
        self.gossip.say(statement).await;
        tracing::info!(
            members = self.members.read().len(),
            partitions = self.view.records.len(),
            "joined the cluster"
        );
        self.conclude().await;
    }

    /// Adds what was known before the start, where nobody else can tell.
    fn remember(&mut self) {
        let Some(own) = self.config.instance.as_ref().map(|own| own.partition) else {
            return;
        };
        let is_own_missing = self.view.unheard.contains(&own);
        for (id, record) in self.memory.known() {
            let is_asked_for = !self.view.is_settled || (*id == own && is_own_missing);
            if !is_asked_for || self.view.records.contains_key(id) {
                continue;
            }
            if *id == own || record.state != RecordState::Active {
                self.view.records.insert(*id, *record);
            } else {
                // That it is written to is for its owner to say.
                self.view.unheard.insert(*id);
            }
        }
    }

    /// What a live-store says of which partitions there are.
    fn next_known(&self) -> BTreeSet<i32> {
        match self.config.instance {
            Some(_) => self.view.known(),
            None => BTreeSet::new(),
        }
    }

    fn next_records(&self) -> BTreeMap<i32, PartitionRecord> {
        let said = self.gossip.said();
        let owns = self.config.instance.as_ref().map(|instance| Owned {
            partition: instance.partition,
            create: instance.create_partition,
            read_only: instance.read_only,
        });
        let speaker = Speaker {
            owns,
            said: &said.partitions,
            listens_since: self.listens_since,
        };
        state::next_records(&self.view, speaker, self.config.rules(), (self.clock)())
    }

    /// Draws conclusions from what was heard, and says what follows.
    async fn conclude(&mut self) {
        let (statements, members) = self.gossip.heard().await;
        self.view = View::of(&statements);
        if self.gossip.said().informed {
            let partitions = self.next_records();
            self.metrics.reconciled(self.config.instance.is_some());
            let said = self.gossip.said();
            if partitions != said.partitions || self.next_known() != said.known {
                self.say_partitions(partitions).await;
            }
            self.write_down().await;
        }
        self.metrics.show(&self.view, &members);
        *self.members.write() = members;
        self.publish();
    }

    async fn say_partitions(&mut self, partitions: BTreeMap<i32, PartitionRecord>) {
        for (id, record) in &partitions {
            let before = self.view.records.get(id);
            if before.map(|record| record.state) != Some(record.state) {
                tracing::info!(partition = id, state = ?record.state, "partition changes");
            }
        }
        let statement = Statement {
            partitions,
            known: self.next_known(),
            ..self.gossip.said().clone()
        };
        self.gossip.say(statement).await;
        let (statements, _) = self.gossip.heard().await;
        self.view = View::of(&statements);
    }

    /// Keeps what is known for after a restart of all.
    async fn write_down(&mut self) {
        if self.config.instance.is_none() || !self.memory.is_news(&self.view.records) {
            return;
        }
        // Only a disk can make this wait, and only where partitions change.
        let known = self.view.records.clone();
        let mut memory = std::mem::take(&mut self.memory);
        let written = tokio::task::spawn_blocking(move || {
            memory.keep(known);
            memory
        });
        if let Ok(memory) = written.await {
            self.memory = memory;
        }
    }

    fn publish(&self) {
        let ring = self.view.ring();
        self.ring.send_if_modified(|shown| {
            let is_news = **shown != ring;
            if is_news {
                *shown = Arc::new(ring);
            }
            is_news
        });
    }

    async fn answer(&mut self, request: Request) {
        match request {
            Request::Change {
                partition,
                to,
                locked,
                done,
            } => {
                let changed = self.change(partition, to, locked).await;
                let _ = done.send(changed);
            }
            Request::OwnerState(state, done) => {
                self.owner_state = state;
                let mut statement = self.gossip.said().clone();
                if let Some(owner) = &mut statement.owner
                    && owner.state != state
                {
                    owner.state = state;
                    owner.state_since = (self.clock)();
                    self.gossip.say(statement).await;
                }
                let _ = done.send(());
            }
            Request::Leave(done) => {
                let _ = done.send(self.say_farewell().await);
            }
            Request::BuiltUntil(built_until, done) => {
                let statement = Statement {
                    built_until: Some(built_until),
                    ..self.gossip.said().clone()
                };
                if self.gossip.said().built_until != statement.built_until {
                    self.gossip.say(statement).await;
                }
                let _ = done.send(());
            }
            Request::Shutdown {
                remove_owner,
                create_partition,
                done,
            } => {
                if let Some(instance) = &mut self.config.instance {
                    instance.remove_owner_on_shutdown = remove_owner;
                    instance.create_partition = create_partition;
                }
                let _ = done.send(());
            }
        }
    }

    async fn change(
        &mut self,
        partition: i32,
        to: Option<PartitionState>,
        locked: Option<bool>,
    ) -> Result<PartitionStatus, ChangeError> {
        if !self.gossip.said().informed {
            return Err(ChangeError::NotRunning);
        }
        let now = (self.clock)();
        let known = self.view.records.get(&partition).copied();
        let mut record = known
            .filter(|record| record.state != RecordState::Deleted)
            .ok_or(ChangeError::NotFound(partition))?;
        let state = record
            .partition_state()
            .ok_or(ChangeError::NotFound(partition))?;
        if let Some(to) = to.filter(|to| *to != state) {
            if record.locked {
                return Err(ChangeError::Locked);
            }
            if !state.may_become(to) {
                return Err(ChangeError::NotAllowed { from: state, to });
            }
            if to == PartitionState::Active && self.is_reserved(partition) {
                return Err(ChangeError::Reserved(partition));
            }
            record = record.changed(to.into(), now);
        }
        if let Some(locked) = locked.filter(|locked| *locked != record.locked) {
            record = record.with_lock(locked, now);
        }
        if known != Some(record) {
            let mut partitions = self.gossip.said().partitions.clone();
            partitions.insert(partition, record);
            self.say_partitions(partitions).await;
            self.publish();
        }
        Ok(PartitionStatus {
            state: record.partition_state().unwrap_or(state),
            state_since: record.since,
            locked: record.locked,
        })
    }

    fn is_reserved(&self, partition: i32) -> bool {
        self.config
            .instance
            .as_ref()
            .is_some_and(|instance| instance.read_only && instance.partition == partition)
    }

    fn removes_owner(&self) -> bool {
        self.config
            .instance
            .as_ref()
            .is_some_and(|instance| instance.remove_owner_on_shutdown)
    }

    /// Tells everyone that this live-store goes, if it has not been told; how long it takes until
    /// all have heard it.
    async fn say_farewell(&mut self) -> Duration {
        let mut statement = self.gossip.said().clone();
        let Some(owner) = &mut statement.owner else {
            return Duration::ZERO;
        };
        self.owner_state = OwnerState::Leaving;
        if self.removes_owner() {
            statement.owner = None;
            if let Some(instance) = &mut self.config.instance {
                // Whose name is off its partition has no reason to make it anew.
                instance.create_partition = false;
            }
        } else if owner.state != OwnerState::Leaving {
            owner.state = OwnerState::Leaving;
            owner.state_since = (self.clock)();
        }
        self.gossip.say(statement).await;
        let others: Vec<_> = self
            .members
            .read()
            .iter()
            .filter(|member| member.alive && member.addr != self.gossip.id().gossip_advertise_addr)
            .map(|member| member.addr)
            .collect();
        if others.is_empty() {
            return Duration::ZERO;
        }
        for addr in others {
            self.gossip.tell(addr);
        }
        (self.config.gossip_interval * FAREWELL_ROUNDS).min(self.config.leave_timeout)
    }

    /// Tells everyone that this member goes. What it kept of partitions stays known.
    async fn take_leave(mut self) {
        if self.removes_owner() {
            tokio::time::sleep(self.say_farewell().await).await;
        }
        self.gossip.stop().await;
    }
}

/// Listening, before anything is said.
struct Joining {
    since: Instant,
    first_contact: Option<Instant>,
    found_nobody: bool,
}

impl Joining {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            first_contact: None,
            found_nobody: false,
        }
    }

    fn is_over(&mut self, service: &Service) -> bool {
        if service.knows_others() {
            let first = *self.first_contact.get_or_insert_with(Instant::now);
            return first.elapsed() >= service.config.gossip_interval * LISTENING_ROUNDS;
        }
        self.found_nobody =
            service.seeds.is_empty() || self.since.elapsed() >= service.config.join_timeout;
        self.found_nobody
    }
}

fn unix_now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
