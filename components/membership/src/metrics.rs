//! Metrics, with Tempo's names.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::{
    gossip::Member,
    ring::{OwnerState, PartitionState},
    state::View,
};

/// Name of the ring of partitions.
const RING: &str = "livestore-partitions";

#[derive(Clone)]
pub(crate) struct Metrics {
    partitions: IntGaugeVec,
    reconciles: IntCounterVec,
    live_stores: IntGaugeVec,
    members: IntGauge,
    /// Kept at zero: gossip cannot fail as a write to a store can.
    _reconciles_failed: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            partitions: IntGaugeVec::new(
                Opts::new(
                    "tempo_partition_ring_partitions",
                    "Number of partitions by state in the partitions ring.",
                ),
                &["name", "state"],
            )?,
            reconciles: IntCounterVec::new(
                Opts::new(
                    "tempo_partition_ring_lifecycler_reconciles_total",
                    "Total number of reconciliations started.",
                ),
                &["name", "type"],
            )?,
            _reconciles_failed: IntCounterVec::new(
                Opts::new(
                    "tempo_partition_ring_lifecycler_reconciles_failed_total",
                    "Total number of reconciliations failed.",
                ),
                &["name", "type"],
            )?,
            live_stores: IntGaugeVec::new(
                Opts::new("tempo_ring_members", "Number of members in the ring"),
                &["name", "state"],
            )?,
            members: IntGauge::new(
                "tempo_memberlist_client_cluster_members_count",
                "Number of members in memberlist cluster",
            )?,
        };
        registry.register(Box::new(metrics.partitions.clone()))?;
        registry.register(Box::new(metrics.reconciles.clone()))?;
        registry.register(Box::new(metrics._reconciles_failed.clone()))?;
        registry.register(Box::new(metrics.live_stores.clone()))?;
        registry.register(Box::new(metrics.members.clone()))?;
        for kind in ["owned-partition", "other-partitions"] {
            metrics.reconciles.with_label_values(&[RING, kind]);
            metrics._reconciles_failed.with_label_values(&[RING, kind]);
        }
        Ok(metrics)
    }

    pub(crate) fn reconciled(&self, owns_partition: bool) {
        if owns_partition {
            for kind in ["owned-partition", "other-partitions"] {
                self.reconciles.with_label_values(&[RING, kind]).inc();
            }
        }
    }

    pub(crate) fn show(&self, view: &View, members: &[Member]) {
        for state in PartitionState::ALL {
            let count = view
                .records
                .values()
                .filter(|record| record.partition_state() == Some(state))
                .count();
            self.partitions
                .with_label_values(&[RING, state.name()])
                .set(count as i64);
        }
        let mut counts = [
            (OwnerState::Active.to_string(), 0),
            (OwnerState::Joining.to_string(), 0),
            (OwnerState::Leaving.to_string(), 0),
            ("Unhealthy".to_owned(), 0),
        ];
        for owner in view.owners_by_partition().flat_map(|(_, owners)| owners) {
            let state = if owner.alive {
                owner.state.to_string()
            } else {
                "Unhealthy".to_owned()
            };
            for (name, count) in &mut counts {
                *count += i64::from(*name == state);
            }
        }
        for (state, count) in &counts {
            self.live_stores
                .with_label_values(&["live-store", state.as_str()])
                .set(*count);
        }
        let alive = members.iter().filter(|member| member.alive).count();
        self.members.set(alive as i64);
    }
}
