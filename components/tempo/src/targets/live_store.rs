//! `-target=live-store`: reads a partition of Kafka and answers for what is recent of it.

use std::{sync::Arc, time::Duration};

use tempo_backend::cache::Cache;
use tempo_config::Config;
use tempo_live_store::{LiveStore, SystemClock};
use tempo_membership::{Built, Membership, OwnerState};
use tempo_querier::{Querier, Recent};
use tokio_util::sync::CancellationToken;

use super::{CACHE_BYTES, gossip_stage, now_nanos};
use crate::{
    connect::LiveStoreRecent,
    downscale::{self, Downscale, Marker},
    process::{AppError, Assembly, Base, Stage},
    ring_page, settings,
};

/// How often it is looked whether the live-store serves queries.
const READY_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How often the others are told how far block-builders are.
const BUILT_CHECK_INTERVAL: Duration = Duration::from_secs(5);

pub(super) async fn open(base: &Base, config: &Config) -> Result<Assembly, AppError> {
    let registry = &base.registry;
    // What may be refused for its settings comes before what takes time.
    let live_store_config = settings::live_store_on_kafka(config)?;
    let marker = Marker::open(&settings::shutdown_marker_folder(config))?;
    if marker.is_set() {
        tracing::warn!(
            "prepared to be removed: the partition is not made if it is missing; DELETE \
             /live-store/prepare-downscale to take that back"
        );
    }
    settings::live_store_membership(config, true, true)?;
    let partition = live_store_config
        .kafka
        .as_ref()
        .map_or(0, |feed| feed.partition);

    let (live, live_store) = tempo_live_store::build(
        live_store_config,
        tempo_live_store::Dependencies {
            // Block-builders write the blocks.
            backend: None,
            cache: Cache::new(CACHE_BYTES, registry)?,
            limits: Arc::new(base.limits.clone()),
            clock: Arc::new(SystemClock),
            registry,
        },
    )
    .await?;
    let querier = Querier::build(
        settings::querier(config),
        tempo_querier::Deps {
            blocks: None,
            recent: Recent::Here(Arc::new(LiveStoreRecent(live.clone()))),
            registry,
        },
    )?;
    let log_is_empty = log_is_empty(&live).await;
    let membership_config =
        settings::live_store_membership(config, !marker.is_set(), log_is_empty)?;
    let (membership, gossip) = tempo_membership::build(membership_config, registry).await?;

    base.board.add_check(Box::new({
        let live = live.clone();
        move || {
            live.ready()
                .map_err(|reason| format!("LiveStore not ready: {reason}"))
        }
    }));
    let http = ring_page::router(membership.clone()).merge(downscale::router(Downscale {
        live: live.clone(),
        membership: membership.clone(),
        partition,
        marker: marker.clone(),
        remove_owner_on_shutdown: config.live_store.remove_owner_on_shutdown,
    }));
    let jobs = tempo_querier::jobs_service(querier);
    let forgotten_after = settings::partition_forgotten_after(config);
    Ok(Assembly {
        http,
        grpc: tonic::service::Routes::new(jobs).into_axum_router(),
        before_servers: Stage::default().with("live-store-owner", move |token| {
            tell_state(live, membership, forgotten_after, token)
        }),
        after_servers: vec![
            Stage::default().with("live-store", |token| async move {
                live_store.run(token.clone()).await;
                // After a clean stop it is for whoever starts it again to say what it is for.
                if token.is_cancelled()
                    && let Err(error) = marker.clear()
                {
                    tracing::warn!(%error, "marker of removal not cleared");
                }
            }),
            gossip_stage(gossip),
        ],
        ..Assembly::default()
    })
}

/// Whether nothing was ever written to the partition, as far as brokers tell now.
async fn log_is_empty(live: &LiveStore) -> bool {
    let live = live.clone();
    match tokio::task::spawn_blocking(move || live.log_is_empty()).await {
        Ok(Ok(is_empty)) => is_empty,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the partition may hold records");
            false
        }
        Err(_) => false,
    }
}

/// Tells the others when this live-store answers, how far block-builders are with what it holds, and
/// when it goes: it ends when they have heard that, and nobody asks any more.
pub(super) async fn tell_state(
    live: LiveStore,
    membership: Membership,
    forgotten_after: Duration,
    shutdown: CancellationToken,
) {
    let ready = async {
        while live.ready().is_err() {
            tokio::time::sleep(READY_CHECK_INTERVAL).await;
        }
        tell_built(&live, &membership, forgotten_after).await;
        membership.set_owner_state(OwnerState::Active).await;
        // Often at first: query-frontends may know nothing yet.
        let mut wait = READY_CHECK_INTERVAL;
        loop {
            tokio::time::sleep(wait).await;
            tell_built(&live, &membership, forgotten_after).await;
            wait = (2 * wait).min(BUILT_CHECK_INTERVAL);
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = ready => {}
    }
    membership.leave().await;
}

async fn tell_built(live: &LiveStore, membership: &Membership, forgotten_after: Duration) {
    if let Some(seconds) = live.built_until_unix_seconds() {
        membership.set_built_until(seconds).await;
    }
    let built = membership
        .partitions()
        .built(now_nanos() / 1_000_000_000, forgotten_after);
    if let Built::UntilUnixSeconds(seconds) = built {
        live.set_all_built_until(seconds);
    }
}
