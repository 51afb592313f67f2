//! A monolith as part of a distributed installation: queriers read it like a live-store, under a
//! reserved partition that no distributor writes to. So an installation changes its mode without a
//! gap in what queries find.

use axum::Router;
use tempo_config::Config;
use tempo_live_store::LiveStore;
use tempo_membership::{Membership, Service};
use tempo_querier::{JobsService, Querier};

use crate::{
    downscale::{self, Downscale, Marker},
    process::{AppError, Base},
    ring_page, settings,
};

/// What a bridged monolith has besides.
pub(super) struct Bridge {
    pub(super) membership: Membership,
    pub(super) gossip: Service,
    /// Pages of the partitions, and the endpoints that an operator asks.
    pub(super) http: Router,
    /// Answers the jobs of other processes' queriers.
    pub(super) jobs: tempo_proto::tempostack::query::v1::jobs_server::JobsServer<JobsService>,
}

/// `None` without a reserved partition.
pub(super) async fn open(
    base: &Base,
    config: &Config,
    live: &LiveStore,
    querier: &Querier,
) -> Result<Option<Bridge>, AppError> {
    let Some(partition) = settings::reserved_partition(config) else {
        return Ok(None);
    };
    let marker = Marker::open(&settings::shutdown_marker_folder(config))?;
    let membership_config = settings::bridge_membership(config, partition, marker.is_set())?;
    let (membership, gossip) = tempo_membership::build(membership_config, &base.registry).await?;
    let http = ring_page::router(membership.clone()).merge(downscale::router(Downscale {
        live: live.clone(),
        membership: membership.clone(),
        partition,
        marker,
        remove_owner_on_shutdown: false,
    }));
    Ok(Some(Bridge {
        membership,
        gossip,
        http,
        jobs: tempo_querier::jobs_service(querier.clone()),
    }))
}
