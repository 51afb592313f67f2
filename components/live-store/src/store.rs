//! What the handle, the background work and the blocks on their way share.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use tempo_backend::Backend;
use tempo_block::write::MAX_TRACE_BYTES;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    boundary::{Boundary, Bridge},
    clock::{Clock, nanos, unix_millis},
    config::Config,
    forgotten::Forgotten,
    kafka::Reading,
    limits::Limits,
    live::{AllColumns, BlockCut, BlockCutReason, Cut, Sizes, Tenant, TraceCut},
    local::{LocalBlock, LocalStore},
    metrics::Metrics,
    pipeline::{self, Job, Work},
    wal::{ChunkRef, CoverageFile, Wal},
};

/// What a block is expected to be of its serialized traces, before the first one is built.
pub const INITIAL_COMPRESSION_RATIO: f64 = 0.25;

/// Bytes that stay free on disk beyond what completing blocks is expected to need.
const MIN_FREE_DISK_BYTES: u64 = 4 << 20;
/// With less free beyond the reserve, flushed blocks that queries can do without are removed before
/// their time.
const LOW_DISK_BYTES: u64 = 16 << 20;

const STARTING: u8 = 0;
const RUNNING: u8 = 1;
const STOPPING: u8 = 2;

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) limits: Arc<dyn Limits>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    /// With Kafka, scratch: what it holds is not kept beyond the process.
    pub(crate) wal: Wal,
    /// Present with Kafka.
    pub(crate) reading: Option<Arc<Reading>>,
    /// Present where query-frontends of other processes ask.
    pub(crate) boundary: Option<Boundary>,
    /// Present where they ask and there is no Kafka.
    pub(crate) bridge: Option<Bridge>,
    pub(crate) local: LocalStore,
    /// The object store; `None` where others bring spans there.
    pub(crate) backend: Option<Backend>,
    pub(crate) tenants: RwLock<BTreeMap<Arc<str>, Arc<Tenant>>>,
    /// Blocks that are not in the object store, by id.
    pub(crate) jobs: Mutex<BTreeMap<Uuid, Arc<Job>>>,
    /// Removed from sight, and from disk as soon as no query reads them.
    retired: Mutex<Vec<Arc<LocalBlock>>>,
    /// What began before may have been in a block that was removed, or in a record that was not read.
    pub(crate) forgotten: Forgotten,
    pub(crate) columns: Arc<AllColumns>,
    /// Bits of a double.
    pub(crate) compression_ratio: AtomicU64,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) tasks: TaskTracker,
    pub(crate) completing: Semaphore,
    pub(crate) flushing: Semaphore,
    pub(crate) stop_completing: CancellationToken,
    pub(crate) stop_flushing: CancellationToken,
    /// Changes when those who wait before another attempt should try at once.
    pub(crate) retry_now: watch::Sender<u64>,
    /// Wakes the background work: something is full.
    pub(crate) wake_maintenance: Notify,
    /// Wakes the background work: many spans wait to become columns.
    pub(crate) wake_columns: Arc<Notify>,
    state: AtomicU8,
    /// Held for as long as the data directory is ours.
    pub(crate) _lock: std::fs::File,
}

/// What [`Shared`] is made of.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) reading: Option<Arc<Reading>>,
    pub(crate) bridge: Option<Bridge>,
    pub(crate) limits: Arc<dyn Limits>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    pub(crate) wal: Wal,
    pub(crate) local: LocalStore,
    pub(crate) backend: Option<Backend>,
    pub(crate) tenants: BTreeMap<Arc<str>, Arc<Tenant>>,
    pub(crate) columns: Arc<AllColumns>,
    pub(crate) forgotten: Forgotten,
    pub(crate) lock: std::fs::File,
}

impl Shared {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(parts: Parts) -> Self {
        let concurrency = parts.config.complete_block_concurrency;
        let shared = Self {
            limits: parts.limits,
            clock: parts.clock,
            metrics: parts.metrics,
            wal: parts.wal,
            reading: parts.reading,
            boundary: parts.config.boundary().map(Boundary::new),
            bridge: parts.bridge,
            local: parts.local,
            backend: parts.backend,
            tenants: RwLock::new(parts.tenants),
            jobs: Mutex::default(),
            retired: Mutex::default(),
            forgotten: parts.forgotten,
            columns: parts.columns,
            compression_ratio: AtomicU64::new(INITIAL_COMPRESSION_RATIO.to_bits()),
            runtime: tokio::runtime::Handle::current(),
            tasks: TaskTracker::new(),
            completing: Semaphore::new(concurrency),
            flushing: Semaphore::new(concurrency),
            stop_completing: CancellationToken::new(),
            stop_flushing: CancellationToken::new(),
            retry_now: watch::channel(0).0,
            wake_maintenance: Notify::new(),
            wake_columns: Arc::default(),
            state: AtomicU8::new(STARTING),
            _lock: parts.lock,
            config: parts.config,
        };
        shared.reserve_disk();
        shared
    }

    /// What keeps pushes and queries from being served; `None` when nothing does.
    pub(crate) fn not_running(&self) -> Option<&'static str> {
        match self.state.load(Ordering::Acquire) {
            RUNNING => None,
            STARTING => Some("starting"),
            _ => Some("stopping"),
        }
    }

    pub(crate) fn set_running(&self) {
        self.state.store(RUNNING, Ordering::Release);
        self.metrics.ready.set(1);
    }

    pub(crate) fn set_stopping(&self) {
        self.state.store(STOPPING, Ordering::Release);
        self.metrics.ready.set(0);
    }

    /// The tenant, if anything recent is known of it.
    pub(crate) fn tenant(&self, name: &str) -> Option<Arc<Tenant>> {
        self.tenants.read().get(name).cloned()
    }

    /// The tenant, known from now on.
    pub(crate) fn tenant_or_new(&self, name: &str) -> Arc<Tenant> {
        if let Some(tenant) = self.tenant(name) {
            return tenant;
        }
        let mut tenants = self.tenants.write();
        if let Some(tenant) = tenants.get(name) {
            return Arc::clone(tenant);
        }
        let tenant = Arc::new(Tenant::new(name, &self.metrics, Arc::clone(&self.columns)));
        tenants.insert(Arc::clone(&tenant.name), Arc::clone(&tenant));
        tenant
    }

    pub(crate) fn all_tenants(&self) -> Vec<Arc<Tenant>> {
        self.tenants.read().values().cloned().collect()
    }

    pub(crate) fn compression_ratio(&self) -> f64 {
        f64::from_bits(self.compression_ratio.load(Ordering::Acquire))
    }

    fn block_cut(&self) -> BlockCut {
        BlockCut {
            max_duration: self.config.max_block_duration,
            max_bytes: self.config.max_block_bytes,
            max_trace_bytes: MAX_TRACE_BYTES,
        }
    }

    /// One round of background work: cut, close, reclaim, expire. Blocks for moments.
    pub(crate) fn maintain(self: &Arc<Self>) {
        let now = self.clock.now_unix_nanos();
        let tables_are_full = self.columns.table_bytes() > self.config.max_live_table_bytes;
        let due = TraceCut {
            max_idle: self.config.max_trace_idle,
            max_live: self.config.max_trace_live,
        };
        for tenant in self.all_tenants() {
            let live_bytes = tenant.sizes().live_bytes;
            let cut = if live_bytes >= self.config.max_live_traces_bytes {
                Cut::DownTo(due, self.config.max_live_traces_bytes / 2)
            } else if tables_are_full {
                Cut::DownTo(due, live_bytes / 2)
            } else {
                Cut::Due(due)
            };
            let early = tables_are_full.then_some(BlockCutReason::MaxLiveTableBytes);
            self.cut(&tenant, now, cut, early);
        }
        self.look_what_is_seen(now);
        self.expire_blocks(now);
        self.wal
            .rotate_stale(now, nanos(self.config.wal_segment_max_age));
        self.wal.reclaim();
        self.reserve_disk();
        self.forget_empty_tenants();
    }

    /// Cuts a tenant's traces and starts the work on the blocks that were closed.
    pub(crate) fn cut(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        now: u64,
        cut: Cut,
        early: Option<BlockCutReason>,
    ) {
        let ratio = self.compression_ratio();
        for block in tenant.cut(now, cut, self.block_cut(), ratio, early) {
            pipeline::start(self, Arc::clone(tenant), Work::Cut(block));
        }
    }

    /// Cuts all that is live, into blocks.
    pub(crate) fn cut_all(self: &Arc<Self>) {
        let now = self.clock.now_unix_nanos();
        for tenant in self.all_tenants() {
            self.cut(&tenant, now, Cut::All, None);
        }
    }

    /// Whether anything waits to become columns.
    pub(crate) fn has_pending(&self) -> bool {
        let tenants = self.tenants.read();
        tenants
            .values()
            .any(|tenant| tenant.sizes().pending_spans > 0)
    }

    /// Builds what waits to become columns. Blocks.
    pub(crate) fn build_columns(&self) {
        for tenant in self.all_tenants() {
            if tenant.sizes().pending_spans > 0 {
                tenant.tidy_tables(&self.wal);
            }
        }
    }

    /// Keeps room on the disk for completing what the log holds.
    fn reserve_disk(&self) {
        // Never less than a tenth, even where blocks of the past were very small; a quarter on top.
        let per_mille = self.compression_ratio().max(0.1) * 1250.0;
        self.wal.reserve(MIN_FREE_DISK_BYTES, per_mille as u64);
    }

    /// Removes local blocks whose time is over. Where the disk is nearly full, those that queries find
    /// in the object store by now go before, oldest first; never more, since spans that are missing
    /// without an error are worse than pushes that are refused with one. Where other processes ask,
    /// what they may find nowhere else stays, up to a limit.
    fn expire_blocks(&self, now: u64) {
        let timeout = nanos(self.config.complete_block_timeout);
        let reserved = (self.wal.bytes() as f64 * self.compression_ratio()) as u64;
        // With Kafka it is others who bring to the object store what a block holds, at their pace.
        let min_early_age = match self.reading {
            Some(_) => timeout,
            None => nanos(self.config.min_flushed_block_age),
        };
        let mut wanting = match self.wal.free_bytes() {
            Some(free) => (2 * reserved + LOW_DISK_BYTES).saturating_sub(free),
            None => 0,
        };
        let (mut blocks, mut bytes, mut needed) = (0, 0, 0);
        let mut stored: Vec<(bool, u64, Arc<Tenant>, Arc<LocalBlock>)> = Vec::new();
        for tenant in self.all_tenants() {
            for block in tenant.blocks() {
                blocks += 1;
                bytes += block.bytes();
                let Some(at) = block.flushed_unix_nanos() else {
                    continue;
                };
                let is_nowhere_else = self.is_nowhere_else(&block);
                needed += i64::from(is_nowhere_else);
                if !block.is_needed_by_log(|id, salt| self.log_holds(id, salt)) {
                    stored.push((is_nowhere_else, at, Arc::clone(&tenant), block));
                }
            }
        }
        let mut too_many_bytes = match self.boundary {
            Some(_) => bytes.saturating_sub(self.config.max_local_block_bytes),
            None => 0,
        };
        self.metrics.needed_blocks.set(needed);
        self.metrics.local_blocks.set(blocks);
        self.metrics.local_block_bytes.set(bytes as i64);
        stored.sort_by_key(|(is_nowhere_else, at, _, _)| (*is_nowhere_else, *at));
        let (mut leaving, mut until) = (Vec::new(), 0);
        for (is_nowhere_else, at, tenant, block) in stored {
            let age = now.saturating_sub(at);
            let is_over = !is_nowhere_else && age >= timeout;
            let makes_room = !is_nowhere_else && wanting > 0 && age >= min_early_age;
            if !is_over && !makes_room && too_many_bytes == 0 {
                continue;
            }
            wanting = wanting.saturating_sub(block.bytes());
            too_many_bytes = too_many_bytes.saturating_sub(block.bytes());
            until = until.max(block.spans_until());
            leaving.push((is_nowhere_else, is_over, tenant, block));
        }
        if !leaving.is_empty()
            && let Err(error) = self.forgotten.let_go(until)
        {
            tracing::error!(%error, blocks = leaving.len(), "it cannot be written down that blocks are let go");
            match self.boundary {
                Some(_) => leaving.clear(),
                // Nobody else asks, and there may be no other way to make room.
                None => self.forgotten.lacks(until),
            }
        }
        for (is_nowhere_else, is_over, tenant, block) in leaving {
            if is_nowhere_else {
                self.metrics.unbuilt_blocks_dropped.inc();
                tracing::error!(tenant = %tenant.name, block_id = %block.id(), "too many bytes on disk, block removed that queries may still ask for: its spans are not found until block-builders are on, and query-frontends know");
            } else if !is_over {
                tracing::warn!(tenant = %tenant.name, block_id = %block.id(), "disk nearly full, flushed block removed early");
            }
            tenant.remove_block(block.id());
            if self.jobs.lock().contains_key(&block.id()) {
                // Its mark could not be written, and whoever tries to keeps it on disk.
                self.retry_now.send_modify(|round| *round += 1);
            }
            self.retired.lock().push(block);
        }
        self.remove_retired();
    }

    /// Whether spans of a complete block may be in no block of the object store that everybody sees,
    /// or may be counted here while other partitions are behind.
    fn is_nowhere_else(&self, block: &LocalBlock) -> bool {
        let is_unbuilt = self
            .reading
            .as_ref()
            .is_some_and(|reading| block.last_record() >= reading.built.wanted_from());
        let spans_until_millis = unix_millis(block.spans_until());
        is_unbuilt || self.is_counted_here(spans_until_millis)
    }

    /// Whether others may count here what began or came at this time, in milliseconds since the epoch.
    pub(crate) fn is_counted_here(&self, at_millis: i64) -> bool {
        let boundary = self.boundary.as_ref();
        boundary.is_some_and(|boundary| boundary.is_counted_here(at_millis))
    }

    /// The list of what a block of these chunks holds of the log.
    pub(crate) fn coverage(&self, chunks: impl Iterator<Item = ChunkRef>) -> CoverageFile {
        match &self.reading {
            Some(reading) => reading.positions.coverage(chunks),
            None => CoverageFile::new(chunks, |segment| {
                self.wal.segment(segment).map(|segment| segment.salt)
            }),
        }
    }

    /// Whether the log may give what a block holds once more, after a restart.
    fn log_holds(&self, id: u32, salt: u64) -> bool {
        match &self.reading {
            Some(reading) => reading.positions.may_come_again(salt as i64),
            None => self.wal.holds(id, salt),
        }
    }

    fn remove_retired(&self) {
        self.retired.lock().retain(|block| {
            // A query still reads it.
            if Arc::strong_count(block) > 1 {
                return true;
            }
            match self.local.remove(block) {
                Ok(()) => {
                    self.metrics
                        .blocks_cleared
                        .with_label_values(&["complete"])
                        .inc();
                }
                Err(error) => {
                    tracing::error!(block_id = %block.id(), %error, "local block not removed, left to the next start");
                }
            }
            false
        });
    }

    fn forget_empty_tenants(&self) {
        let mut tenants = self.tenants.write();
        tenants.retain(|name, tenant| {
            // Whoever holds it besides the map may be about to push.
            let keep = Arc::strong_count(tenant) > 1 || !tenant.is_empty();
            if !keep {
                self.metrics.forget_tenant(name);
            }
            keep
        });
    }

    /// Sizes of all tenants together.
    pub(crate) fn sizes(&self) -> Sizes {
        let mut all = Sizes::default();
        for tenant in self.all_tenants() {
            all.add(&tenant.sizes());
        }
        all
    }
}
