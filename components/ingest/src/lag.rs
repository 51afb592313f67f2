//! How far a consumer group is behind, as metrics.

use std::{sync::Arc, time::Duration};

use prometheus::{GaugeVec, IntGaugeVec, Opts, Registry};
use tokio_util::sync::CancellationToken;

use crate::{Error, Offsets};

/// `tempo_ingest_group_partition_lag` and `…_lag_seconds` of one group. Cheap to clone.
#[derive(Clone)]
pub struct LagMetrics {
    records: IntGaugeVec,
    seconds: GaugeVec,
    group: Arc<str>,
}

impl LagMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(group: &str, registry: &Registry) -> Result<Self, prometheus::Error> {
        let labels = ["group", "partition"];
        let metrics = Self {
            records: IntGaugeVec::new(
                Opts::new(
                    "tempo_ingest_group_partition_lag",
                    "Records of a partition that the group has not got through.",
                ),
                &labels,
            )?,
            seconds: GaugeVec::new(
                Opts::new(
                    "tempo_ingest_group_partition_lag_seconds",
                    "Age of the record that the group has got to.",
                ),
                &labels,
            )?,
            group: group.into(),
        };
        registry.register(Box::new(metrics.records.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        Ok(metrics)
    }

    /// Notes the age of the record that was got to.
    pub fn set_seconds(&self, partition: i32, seconds: f64) {
        self.seconds
            .with_label_values(&[&*self.group, &partition.to_string()])
            .set(seconds.max(0.0));
    }

    /// Forgets a partition that is somebody else's now.
    pub fn remove(&self, partition: i32) {
        let partition = partition.to_string();
        let labels = [&*self.group, partition.as_str()];
        // It may never have been measured.
        let _ = self.records.remove_label_values(&labels);
        let _ = self.seconds.remove_label_values(&labels);
    }

    /// Measures the records that are left of each partition: up to the end from what is committed,
    /// or from the oldest one without a commit. Blocks.
    ///
    /// # Errors
    /// Those of the brokers.
    pub fn measure(&self, offsets: &Offsets, partitions: &[i32]) -> Result<(), Error> {
        for (partition, lag) in lag(offsets, partitions)? {
            self.records
                .with_label_values(&[&*self.group, &partition.to_string()])
                .set(lag);
        }
        Ok(())
    }

    /// Measures again and again until `shutdown`.
    pub async fn run(
        self,
        offsets: Arc<Offsets>,
        partitions: impl Fn() -> Vec<i32> + Send,
        every: Duration,
        shutdown: CancellationToken,
    ) {
        // Tempo's documentation says that 0 is off.
        if every.is_zero() {
            return shutdown.cancelled().await;
        }
        let mut owned = Vec::new();
        loop {
            let before = std::mem::replace(&mut owned, partitions());
            for gone in before.iter().filter(|gone| !owned.contains(gone)) {
                self.remove(*gone);
            }
            let (metrics, offsets, asked) = (self.clone(), Arc::clone(&offsets), owned.clone());
            let measured =
                tokio::task::spawn_blocking(move || metrics.measure(&offsets, &asked)).await;
            if let Ok(Err(error)) = measured {
                tracing::warn!(%error, "lag not measured");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
        }
    }
}

/// Records of each partition that the group has not got through. Blocks.
///
/// # Errors
/// Those of the brokers.
pub fn lag(offsets: &Offsets, partitions: &[i32]) -> Result<Vec<(i32, i64)>, Error> {
    let committed = offsets.committed(partitions)?;
    partitions
        .iter()
        .map(|&partition| {
            let ends = offsets.watermarks(partition)?;
            let from = committed
                .get(&partition)
                .map_or(ends.low, |committed| committed.offset);
            Ok((partition, (ends.high - from).max(0)))
        })
        .collect()
}
