//! The round over all partitions, and one section from commit to commit.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::FutureExt;
use parking_lot::Mutex;
use tempo_ingest::{
    Committed, Fence, FenceError, Offsets, PartitionConsumer, StartAt, lag::LagMetrics,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Partitions,
    build::{Builder, TenantBlock},
    error::SectionError,
    metrics::Metrics,
    plan::{Note, Plan},
    runs::Sorter,
    section::{self, Bounds, Outcome, Read, ReadError, now_millis},
};

/// Before a block becomes visible, this process has been the partition's builder at most so long
/// ago.
const FENCE_CHECK_AGE: Duration = Duration::from_secs(10);

/// Partitions that a process stays the builder of between sections; each costs a few threads.
const MAX_HELD: usize = 16;

/// A section that is decided is waited for so many times longer than the silence that ends others.
const DECIDED_PATIENCE: u32 = 6;

/// However many partitions a process has, it listens so long whether more comes of a young section.
const MIN_SILENCE: Duration = Duration::from_secs(1);

/// Waits after failed sections: from the first, doubled up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// How often a process without partitions looks whether it has one.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Counts rounds. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Cycles(Arc<AtomicU64>);

impl Cycles {
    pub(crate) fn completed(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Does the work of all partitions, one after the other.
pub(crate) struct Worker {
    pub(crate) config: Config,
    pub(crate) builder: Builder,
    pub(crate) metrics: Metrics,
    pub(crate) lag: LagMetrics,
    pub(crate) offsets: Arc<Offsets>,
    pub(crate) partitions: Arc<dyn Partitions>,
    pub(crate) sorter: Sorter,
    pub(crate) cycles: Cycles,
    pub(crate) owned: Arc<Mutex<Vec<i32>>>,
    /// The last section of each partition whose blocks this process has let go.
    pub(crate) released: HashMap<i32, Plan>,
    /// Partitions that this process has been the builder of since their last section. Whether it
    /// still is shows when it decides on the next.
    pub(crate) held: HashMap<i32, Holding>,
    pub(crate) shutdown: CancellationToken,
}

/// How far a partition is.
#[derive(Debug, Clone, Copy)]
struct Progress {
    partition: i32,
    /// Timestamp of the last record that was built; now, when there is none left.
    last_millis: i64,
    is_exhausted: bool,
}

impl Worker {
    pub(crate) async fn run(mut self) {
        let mut backoff = FIRST_BACKOFF;
        let mut was_idle = false;
        while !self.shutdown.is_cancelled() {
            let begun = Instant::now();
            let owned = self.own();
            let is_idle = owned.is_empty();
            if is_idle != was_idle {
                was_idle = is_idle;
                match is_idle {
                    // So it is until live-stores are up, and where partitions are fewer than these
                    // processes.
                    true => tracing::info!(
                        "no partition to build: those of this process do not exist yet"
                    ),
                    false => tracing::info!(partitions = ?owned, "building blocks"),
                }
            }
            if is_idle {
                self.pause(IDLE_CHECK_INTERVAL.min(self.config.consume_cycle_duration))
                    .await;
                continue;
            }
            match self.cycle(&owned).await {
                Ok(pause_for) => {
                    backoff = FIRST_BACKOFF;
                    self.metrics
                        .cycle_seconds
                        .observe(begun.elapsed().as_secs_f64());
                    self.cycles.0.fetch_add(1, Ordering::AcqRel);
                    self.pause(pause_for).await;
                }
                Err(Failed) => {
                    self.pause(backoff).await;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                }
            }
        }
    }

    async fn pause(&self, duration: Duration) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(duration) => {}
        }
    }

    /// The partitions of this process, at this moment.
    fn own(&mut self) -> Vec<i32> {
        let effective = self
            .config
            .assignment
            .effective(&self.partitions.consumable());
        let gauge = &self.metrics.owned_partitions;
        gauge.reset();
        for (partition, state) in &effective {
            gauge
                .with_label_values(&[&*partition.to_string(), state.name()])
                .set(1);
        }
        let partitions: Vec<i32> = effective
            .into_iter()
            .map(|(partition, _)| partition)
            .collect();
        self.owned.lock().clone_from(&partitions);
        partitions
    }

    /// Builds until every partition is younger than a cycle; says how long that will be so.
    async fn cycle(&mut self, partitions: &[i32]) -> Result<Duration, Failed> {
        let mut progress = Vec::with_capacity(partitions.len());
        let mut failed = None;
        for &partition in partitions {
            match self.section(partition).await {
                Ok(done) => progress.push(done),
                // The others go on.
                Err(Failed) => failed = Some(Failed),
            }
            if self.shutdown.is_cancelled() {
                return Ok(Duration::ZERO);
            }
        }
        let cycle_millis =
            i64::try_from(self.config.consume_cycle_duration.as_millis()).unwrap_or(i64::MAX);
        while let Some(at) = (0..progress.len()).min_by_key(|&at| progress[at].last_millis) {
            let oldest = progress[at];
            let lag_millis = now_millis().saturating_sub(oldest.last_millis);
            if lag_millis < cycle_millis {
                return failed.map_or(
                    Ok(Duration::from_millis(
                        (cycle_millis - lag_millis).unsigned_abs(),
                    )),
                    Err,
                );
            }
            if oldest.is_exhausted || self.shutdown.is_cancelled() {
                break;
            }
            match self.section(oldest.partition).await {
                Ok(done) => progress[at] = done,
                Err(Failed) => {
                    failed = Some(Failed);
                    progress.remove(at);
                }
            }
        }
        failed.map_or(Ok(Duration::ZERO), Err)
    }

    /// Builds one section, and says how it went.
    async fn section(&mut self, partition: i32) -> Result<Progress, Failed> {
        let begun = Instant::now();
        match self.try_section(partition).await {
            Ok(Some(read)) => {
                self.metrics
                    .section_seconds
                    .with_label_values(&[&partition.to_string()])
                    .observe(begun.elapsed().as_secs_f64());
                self.note_lag(partition, read.last_timestamp_millis);
                Ok(Progress {
                    partition,
                    last_millis: read.last_timestamp_millis,
                    is_exhausted: false,
                })
            }
            Ok(None) => {
                self.lag.set_seconds(partition, 0.0);
                Ok(Progress {
                    partition,
                    last_millis: now_millis(),
                    is_exhausted: true,
                })
            }
            Err(error) => {
                tracing::error!(partition, %error, "section not built, trying again");
                self.metrics
                    .failed_sections
                    .with_label_values(&[&partition.to_string()])
                    .inc();
                Err(Failed)
            }
        }
    }

    fn note_lag(&self, partition: i32, record_millis: i64) {
        let lag_millis = now_millis().saturating_sub(record_millis);
        self.lag.set_seconds(partition, lag_millis as f64 / 1000.0);
    }

    async fn try_section(&mut self, partition: i32) -> Result<Option<Read>, SectionError> {
        let offsets = Arc::clone(&self.offsets);
        let (is_empty, high, committed) = blocking(move || {
            let high = offsets.watermarks(partition)?.high;
            let committed = offsets.committed(&[partition])?.remove(&partition);
            let from = committed.as_ref().map_or(0, |found| found.offset);
            // An offset beyond the end is one of a log that is gone; reading begins anew.
            Ok::<_, tempo_ingest::Error>((high == from || high == 0, high, committed))
        })
        .await??;
        if is_empty {
            // Nothing may come for long, and compaction is to have what there is.
            self.release_what_was_left(partition, note_of(committed.as_ref()))
                .await?;
            return Ok(None);
        }
        let fence = match self.held.remove(&partition) {
            Some(held) => held,
            None => Holding::take(&self.config, partition).await?,
        };
        let Some(read) = self.section_of(partition, &fence, high).await? else {
            return Ok(None);
        };
        if self.held.len() < MAX_HELD {
            self.held.insert(partition, fence);
        }
        Ok(Some(read))
    }

    async fn section_of(
        &mut self,
        partition: i32,
        fence: &Holding,
        high: i64,
    ) -> Result<Option<Read>, SectionError> {
        let committed = fence.committed().await;
        let note = note_of(committed.as_ref());
        self.release_what_was_left(partition, note).await?;
        let decided = match note {
            Some(Note::Planned(plan)) => Some(plan),
            _ => None,
        };
        let start = match &committed {
            Some(committed) if committed.offset >= 0 => StartAt::Offset(committed.offset),
            _ => StartAt::Beginning,
        };
        let Some(read) = self.read(partition, start, decided, high).await? else {
            return Ok(None);
        };
        if decided.is_none() {
            self.note_lag(partition, read.plan.timestamp_millis);
        }
        let sorter = Arc::new(std::mem::replace(
            &mut self.sorter,
            Sorter::new(&self.config.spill_path, self.config.buffer_bytes),
        ));
        let built = self
            .build(partition, fence, &sorter, &read.plan, decided.is_some())
            .await;
        // Its memory is used again.
        if let Some(mut sorter) = Arc::into_inner(sorter) {
            sorter.clear();
            self.sorter = sorter;
        }
        let blocks = built?;
        match self.builder.release(&blocks).await {
            Ok(()) => {
                self.released.insert(partition, read.plan);
            }
            // The note says that it is to be done, and the next round does it, with or without
            // new records.
            Err(error) => tracing::warn!(partition, %error, "blocks stay hidden from compaction"),
        }
        Ok(Some(read))
    }

    /// Lets compaction take the blocks of the last section, unless this process did so.
    async fn release_what_was_left(
        &mut self,
        partition: i32,
        note: Option<Note>,
    ) -> Result<(), SectionError> {
        if let Some(Note::Built(plan)) = note
            && self.released.get(&partition) != Some(&plan)
        {
            self.builder.release_of_all(partition, &plan).await?;
            self.released.insert(partition, plan);
        }
        Ok(())
    }

    async fn read(
        &mut self,
        partition: i32,
        start: StartAt,
        decided: Option<Plan>,
        high: i64,
    ) -> Result<Option<Read>, SectionError> {
        let bounds = match decided {
            Some(plan) => Bounds::Decided {
                plan,
                max_silence: self.config.max_silence * DECIDED_PATIENCE,
            },
            None => Bounds::Open {
                span_millis: self.builder.cycle_millis,
                max_bytes: self.config.section_limit_bytes(),
                max_silence: self.config.max_silence,
                max_silence_at_end: self.silence_at_end(),
                high,
            },
        };
        let mut sorter =
            std::mem::replace(&mut self.sorter, Sorter::new(&self.config.spill_path, 0));
        let (kafka, metrics, stop) = (
            self.config.kafka.clone(),
            self.metrics.clone(),
            self.shutdown.clone(),
        );
        let offsets = Arc::clone(&self.offsets);
        let oldest = move || Ok(offsets.watermarks(partition)?.low);
        let begun = Instant::now();
        let (sorter, outcome) = blocking(move || {
            sorter.clear();
            let outcome = PartitionConsumer::open(&kafka, partition, start)
                .map_err(ReadError::from)
                .and_then(|consumer| {
                    section::read(&consumer, oldest, bounds, &mut sorter, &metrics, || {
                        stop.is_cancelled()
                    })
                });
            sorter.finish();
            (sorter, outcome)
        })
        .await?;
        self.sorter = sorter;
        self.metrics
            .fetch_seconds
            .with_label_values(&[&partition.to_string()])
            .observe(begun.elapsed().as_secs_f64());
        match outcome {
            Ok(Outcome::Section(read)) => Ok(Some(read)),
            Ok(Outcome::Empty | Outcome::Stopped) => Ok(None),
            Err(ReadError::Kafka(error)) => Err(error.into()),
            Err(ReadError::Spill(error)) => Err(error.into()),
            Err(short @ ReadError::Short { .. }) => Err(SectionError::Short(short.to_string())),
        }
    }

    /// How long to listen at the end of a partition: all that wait for their turn share the time, so
    /// that a first round over many quiet ones takes no longer than over one.
    fn silence_at_end(&self) -> Duration {
        let max = self.config.max_silence;
        let partitions = u32::try_from(self.owned.lock().len().max(1)).unwrap_or(u32::MAX);
        (max / partitions).max(MIN_SILENCE.min(max))
    }

    /// From the decision to the commit after the section.
    async fn build(
        &self,
        partition: i32,
        fence: &Holding,
        sorter: &Arc<Sorter>,
        plan: &Plan,
        is_decided: bool,
    ) -> Result<Vec<TenantBlock>, SectionError> {
        let blocks = self
            .builder
            .choose_all(sorter, partition, plan, is_decided, &|| {
                fence.prove(plan.start).boxed()
            })
            .await?;
        let built = async {
            if !is_decided {
                fence.commit(plan.start, Note::Planned(*plan)).await?;
            }
            self.builder
                .build_all(sorter, &blocks, plan, &|| fence.check(*plan).boxed())
                .await?;
            fence.commit(plan.until, Note::Built(*plan)).await
        }
        .await;
        if let Err(SectionError::Fence(FenceError::Overtaken { .. })) = &built {
            self.withdraw(partition, plan, &blocks).await?;
        }
        built.map(|()| blocks)
    }

    async fn withdraw(
        &self,
        partition: i32,
        plan: &Plan,
        blocks: &[TenantBlock],
    ) -> Result<(), SectionError> {
        let offsets = Arc::clone(&self.offsets);
        let committed = blocking(move || offsets.committed(&[partition])).await??;
        let is_finished = committed
            .get(&partition)
            .is_some_and(|committed| committed.offset >= plan.until);
        if is_finished {
            self.builder.withdraw(blocks).await?;
        }
        Ok(())
    }
}

/// A section failed; why was logged.
struct Failed;

/// The right to move a partition's offset.
pub(crate) struct Holding {
    fence: Arc<Fence>,
    state: tokio::sync::Mutex<Held>,
}

struct Held {
    committed: Option<Committed>,
    /// When the right was last proven.
    proven: Instant,
}

impl Holding {
    /// Takes the partition over: from here on nobody else moves its offset.
    async fn take(config: &Config, partition: i32) -> Result<Self, SectionError> {
        let (kafka, group) = (config.kafka.clone(), config.group.clone());
        let proven = Instant::now();
        let raise = move || {
            let fence = Fence::raise(&kafka, &group, partition)?;
            let committed = fence.committed()?;
            Ok::<_, FenceError>((fence, committed))
        };
        let (fence, committed) = blocking(raise).await??;
        Ok(Self {
            fence: Arc::new(fence),
            state: tokio::sync::Mutex::new(Held { committed, proven }),
        })
    }

    async fn committed(&self) -> Option<Committed> {
        self.state.lock().await.committed.clone()
    }

    async fn commit(&self, offset: i64, note: Note) -> Result<(), SectionError> {
        let mut state = self.state.lock().await;
        self.commit_locked(&mut state, offset, note.to_string())
            .await
    }

    async fn commit_locked(
        &self,
        state: &mut Held,
        offset: i64,
        metadata: String,
    ) -> Result<(), SectionError> {
        let fence = Arc::clone(&self.fence);
        let proven = Instant::now();
        let committed = blocking(move || {
            fence.commit(offset, &metadata)?;
            Ok::<_, FenceError>(Committed { offset, metadata })
        })
        .await??;
        *state = Held {
            committed: Some(committed),
            proven,
        };
        Ok(())
    }

    /// Proves the right and changes nothing; without a commit, `start` is what comes next.
    async fn prove(&self, start: i64) -> Result<(), SectionError> {
        let mut state = self.state.lock().await;
        let committed = state.committed.clone().unwrap_or(Committed {
            offset: start,
            metadata: String::new(),
        });
        self.commit_locked(&mut state, committed.offset, committed.metadata)
            .await
    }

    /// Proves the right anew, unless that was done a moment ago.
    async fn check(&self, plan: Plan) -> Result<(), SectionError> {
        let mut state = self.state.lock().await;
        if state.proven.elapsed() < FENCE_CHECK_AGE {
            return Ok(());
        }
        self.commit_locked(&mut state, plan.start, Note::Planned(plan).to_string())
            .await
    }
}

fn note_of(committed: Option<&Committed>) -> Option<Note> {
    Note::parse(&committed?.metadata)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SectionError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(SectionError::Stopped),
        },
    }
}
