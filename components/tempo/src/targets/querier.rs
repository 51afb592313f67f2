//! `-target=querier`: runs the jobs that it takes from query-frontends, on blocks itself and on
//! recent data by asking live-stores.

use std::sync::Arc;

use axum::Router;
use tempo_backend::TenantIndexRole;
use tempo_config::Config;
use tempo_querier::{BlockSource, LiveStores, Querier, Recent, Worker};

use super::{Storage, first_poll, gossip_stage, now_nanos};
use crate::{
    connect_ring::RingOwners,
    process::{AppError, Assembly, Base, Stage},
    ring_page, settings,
};

pub(super) async fn open(base: &Base, config: &Config) -> Result<Assembly, AppError> {
    let registry = &base.registry;
    // What may be refused for its settings comes before what takes time.
    let worker_config = settings::worker(config)?;
    let live_stores_config = settings::live_stores(config)?;
    let storage = Storage::open(base, config, TenantIndexRole::Reader).await?;

    let mut gossip = None;
    let mut http = Router::new();
    let recent = if config.memberlist.join_members.0.is_empty() {
        tracing::warn!(
            "memberlist.join_members is empty: live-stores cannot be found, queries are answered \
             from blocks alone"
        );
        Recent::Nowhere
    } else {
        let membership_config = settings::membership(config)?;
        let (membership, service) = tempo_membership::build(membership_config, registry).await?;
        http = ring_page::router(membership.clone());
        gossip = Some(gossip_stage(service));
        Recent::LiveStores(LiveStores::build(
            live_stores_config,
            Arc::new(RingOwners(membership)),
            Arc::new(now_nanos),
            registry,
        )?)
    };
    first_poll(&storage.poller).await;
    let querier = Querier::build(
        settings::querier(config),
        tempo_querier::Deps {
            blocks: Some(BlockSource {
                backend: storage.backend,
                blocklist: storage.blocklist,
                max_list_age: settings::max_list_age(config),
                cache: storage.cache,
                now_nanos: Arc::new(now_nanos),
            }),
            recent,
            registry,
        },
    )?;
    let worker = Worker::build(worker_config, querier)?;
    let poller = storage.poller;
    Ok(Assembly {
        http,
        before_servers: Stage::default().with("querier", |token| worker.run(token)),
        after_servers: [Stage::default().with("poller", |token| poller.run(token))]
            .into_iter()
            .chain(gossip)
            .collect(),
        ..Assembly::default()
    })
}
