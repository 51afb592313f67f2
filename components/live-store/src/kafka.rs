//! The live-store as a reader of the Kafka log, in a distributed installation.
//!
//! Here the log of record is Kafka, so nothing is synced and nothing is flushed: the raw bytes of
//! what is live lie in scratch segments that the next start throws away and reads again, and the
//! object store gets its blocks from block-builders. Owns where reading starts, what is handed over
//! and what is dropped, and which offset may be committed. Must never commit a record of which
//! anything is not in a complete local block, and must never skip a record because a disk fails.
//!
//! A complete block lists the records that it holds, each with the places of its traces in it. After
//! a restart reading goes on from the commit, and what a block lists is not taken twice.

mod built;
mod consume;
mod lag;
mod metrics;
mod positions;
mod start;

use std::{path::Path, sync::Arc, time::Duration};

use tempo_ingest::{KafkaConfig, Offsets};
use tokio_util::sync::CancellationToken;

pub use self::start::{NoPartition, partition_of};
pub(crate) use self::{
    built::Built,
    consume::Consumer,
    lag::Lag,
    metrics::KafkaMetrics,
    positions::{Origin, Positions},
};
use crate::{
    clock::{Clock, now_millis, unix_millis},
    config::BoundarySettings,
    error::Error,
    store::Shared,
};

/// Commits when `commit_interval` is 0, and other things that are looked at again and again.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// How often block-builders are asked how far they are.
const BUILDERS_INTERVAL: Duration = Duration::from_secs(2);
/// A query waits so long for what is not read yet.
const READ_PATIENCE: Duration = Duration::from_secs(2);
/// Records behind the end that still count as caught up when readiness is decided.
const READY_LAG_RECORDS: i64 = 1000;

/// What a live-store reads, and how.
#[derive(Debug, Clone)]
pub struct KafkaFeed {
    /// The log.
    pub log: KafkaConfig,
    /// The partition that this live-store owns.
    pub partition: i32,
    /// The consumer group under which it commits; see [`partition_of`].
    pub group: String,
    /// The consumer group of the block-builders: what it has not committed is nowhere but here.
    pub builders_group: String,
    /// Where query-frontends turn to blocks.
    pub boundary: BoundarySettings,
    /// `live_store.commit_interval`.
    pub commit_interval: Duration,
    /// `live_store.readiness_target_lag`: queries are served once the lag is this short; zero means
    /// at once.
    pub readiness_target_lag: Duration,
    /// `live_store.readiness_max_wait`: or after so long.
    pub readiness_max_wait: Duration,
    /// `live_store.fail_on_high_lag`: whether a query that asks for what was not read yet fails, so
    /// that another zone is asked. If not, it is answered with what is there, and counted.
    pub fail_on_high_lag: bool,
}

impl KafkaFeed {
    /// What the data directory holds when this feed filled it.
    pub(crate) fn mark(&self) -> String {
        format!("kafka {} {}", self.log.topic, self.partition)
    }
}

/// What is known of the reading, for everyone who asks.
pub(crate) struct Reading {
    pub(crate) feed: KafkaFeed,
    pub(crate) offsets: Arc<Offsets>,
    builders: Offsets,
    pub(crate) built: Built,
    pub(crate) positions: Positions,
    pub(crate) lag: Lag,
    pub(crate) metrics: KafkaMetrics,
}

impl Reading {
    /// Brokers are not asked anything yet.
    pub(crate) fn new(
        feed: KafkaFeed,
        metrics: KafkaMetrics,
        data_path: &Path,
    ) -> Result<Self, Error> {
        Ok(Self {
            offsets: Arc::new(Offsets::new(&feed.log, &feed.group)?),
            builders: Offsets::new(&feed.log, &feed.builders_group)?,
            built: Built::new(&feed.boundary, data_path),
            feed,
            positions: Positions::default(),
            lag: Lag::default(),
            metrics,
        })
    }

    /// Whether what lies before a time was not read yet, nanoseconds since the epoch. Blocks for
    /// moments: what is nearly there is waited for.
    pub(crate) fn is_lagged(&self, end_unix_nanos: u64, clock: &dyn Clock) -> bool {
        let end_millis = unix_millis(end_unix_nanos);
        let is_lagged = || self.lag.is_lagged(end_millis, now_millis(clock));
        is_lagged() && !self.lag.wait_for_end(READ_PATIENCE) && is_lagged()
    }

    /// Whether the partition is known to have records that were not read yet. Blocks for moments:
    /// what is nearly there is waited for.
    pub(crate) fn is_behind(&self) -> bool {
        !self.lag.wait_for_end(READ_PATIENCE)
    }

    /// Asks how far block-builders are. Blocks.
    pub(crate) fn ask_builders(&self, clock: &dyn Clock) -> Result<(), tempo_ingest::Error> {
        let feed = &self.feed;
        let now = now_millis(clock);
        self.built
            .ask(&feed.log, &self.builders, feed.partition, now)
    }
}

/// Asks how long the partition is, again and again.
pub(crate) async fn watch_end(shared: Arc<Shared>, reading: Arc<Reading>, stop: CancellationToken) {
    let partition = reading.feed.partition;
    loop {
        let asked = {
            let offsets = Arc::clone(&reading.offsets);
            tokio::task::spawn_blocking(move || offsets.watermarks(partition))
        };
        let answer = tokio::select! {
            () = stop.cancelled() => return,
            answer = asked => answer,
        };
        match answer {
            Ok(Ok(ends)) => {
                reading.lag.end_is(ends.high, now_millis(&*shared.clock));
            }
            Ok(Err(error)) => tracing::warn!(%error, "end of partition unknown, trying again"),
            Err(error) => tracing::error!(%error, "end of partition unknown, trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SHORTEST_INTERVAL) => {}
        }
    }
}

/// Asks how far block-builders are, again and again.
pub(crate) async fn watch_builders(
    shared: Arc<Shared>,
    reading: Arc<Reading>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(BUILDERS_INTERVAL) => {}
        }
        let asked = {
            let (shared, reading) = (Arc::clone(&shared), Arc::clone(&reading));
            tokio::task::spawn_blocking(move || reading.ask_builders(&*shared.clock))
        };
        let answer = tokio::select! {
            () = stop.cancelled() => return,
            answer = asked => answer,
        };
        match answer {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "progress of block-builders unknown, blocks stay");
            }
            Err(error) => {
                tracing::error!(%error, "progress of block-builders unknown, blocks stay");
            }
        }
    }
}

/// Commits as far as everything is in complete local blocks, until `stop`.
pub(crate) async fn commit(shared: Arc<Shared>, reading: Arc<Reading>, stop: CancellationToken) {
    let every = reading.feed.commit_interval.max(SHORTEST_INTERVAL);
    loop {
        let is_last = tokio::select! {
            () = stop.cancelled() => true,
            () = tokio::time::sleep(every) => false,
        };
        commit_once(&shared, &reading).await;
        if is_last {
            return;
        }
    }
}

/// Commits, if there is anything new to commit.
pub(crate) async fn commit_once(shared: &Arc<Shared>, reading: &Arc<Reading>) {
    let (shared, reading) = (Arc::clone(shared), Arc::clone(reading));
    let committing = tokio::task::spawn_blocking(move || -> Result<(), tempo_ingest::Error> {
        let Some(offset) = reading
            .positions
            .to_commit(|segment| shared.wal.needs(segment))
        else {
            return Ok(());
        };
        // What was passed over is not read again.
        if let Err(error) = shared.forgotten.save() {
            tracing::error!(%error, "it cannot be written down what was passed over, so nothing is committed");
            return Ok(());
        }
        reading.offsets.commit(reading.feed.partition, offset)?;
        reading.positions.committed(offset);
        Ok(())
    });
    match committing.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "offset not committed, trying again"),
        Err(error) => tracing::error!(%error, "offset not committed, trying again"),
    }
}

/// Returns when queries may be served: caught up, or waited long enough.
pub(crate) async fn caught_up(shared: &Shared, reading: &Reading, stop: &CancellationToken) {
    let feed = &reading.feed;
    if feed.readiness_target_lag.is_zero() {
        return;
    }
    let began = tokio::time::Instant::now();
    loop {
        let now = now_millis(&*shared.clock);
        let lag = reading.lag.time_lag(now, READY_LAG_RECORDS);
        if lag.is_some_and(|lag| lag <= feed.readiness_target_lag) {
            return;
        }
        if began.elapsed() >= feed.readiness_max_wait {
            tracing::warn!(lag = ?lag, waited = ?began.elapsed(), "not caught up, serving queries all the same");
            return;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SHORTEST_INTERVAL) => {}
        }
    }
}

/// Checks what the parser of the configuration cannot know.
pub(crate) fn validate(feed: &KafkaFeed) -> Result<(), Error> {
    if feed.log.topic.is_empty() {
        return Err(Error::Config {
            key: "ingest.kafka.topic",
            reason: "the Kafka topic has not been configured".to_owned(),
        });
    }
    Ok(())
}
