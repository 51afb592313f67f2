//! `-target=query-frontend`: the query API. Queriers of other processes take its jobs.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use axum::Router;
use tempo_backend::TenantIndexRole;
use tempo_config::Config;
use tempo_query_frontend::{BuiltUntil, TellBuiltUntil};

use super::{Storage, first_poll, gossip_stage, now_nanos, overrides_api};
use crate::{
    process::{AppError, Assembly, Base, Stage},
    ring_page, settings,
};

/// No live-store has told how far block-builders are.
const NEVER: i64 = i64::MIN;

pub(super) async fn open(base: &Base, config: &Config) -> Result<Assembly, AppError> {
    // What may be refused for its settings comes before what takes time.
    let membership_config = match config.memberlist.join_members.0.is_empty() {
        true => None,
        false => Some(settings::membership(config)?),
    };
    let storage = Storage::open(base, config, TenantIndexRole::Reader).await?;
    let mut gossip = None;
    let mut pages = Router::new();
    let built_until: TellBuiltUntil = match membership_config {
        None => Arc::new(|| BuiltUntil::AsConfigured),
        Some(membership_config) => {
            let (membership, service) =
                tempo_membership::build(membership_config, &base.registry).await?;
            gossip = Some(gossip_stage(service));
            pages = ring_page::router(membership.clone());
            let blocklist = storage.blocklist.clone();
            let fresh = settings::fresh_list_age(config);
            // What is built stays built: it counts also while no live-store is heard, or the store can't
            // be read. What was built since counts once blocks are listed.
            let last_told = AtomicI64::new(NEVER);
            Arc::new(move || {
                let ring = membership.partitions();
                let told = ring.built_until();
                let listed = blocklist.age();
                let is_fresh = listed.is_some_and(|age| age <= fresh);
                if let (true, Some(seconds)) = (is_fresh, told) {
                    last_told.store(seconds, Ordering::Release);
                }
                match last_told.load(Ordering::Acquire) {
                    NEVER if told.is_some() => BuiltUntil::Outdated { listed },
                    NEVER if ring.is_settled => BuiltUntil::AsConfigured,
                    NEVER => BuiltUntil::Unknown,
                    seconds => BuiltUntil::UnixSeconds(seconds),
                }
            })
        }
    };
    let (frontend, service) = tempo_query_frontend::build(
        settings::frontend(config),
        tempo_query_frontend::Deps {
            blocklist: storage.blocklist,
            limits: Arc::new(base.limits.clone()),
            results: Some(storage.cache),
            now_nanos: Arc::new(now_nanos),
            built_until,
            registry: &base.registry,
        },
    )?;
    first_poll(&storage.poller).await;
    base.board.add_check(Box::new({
        let frontend = frontend.clone();
        move || frontend.ready()
    }));

    let queries = tonic::service::Routes::new(frontend.streaming_service()).into_axum_router();
    let mut http = frontend
        .router()
        .merge(pages)
        .merge(overrides_api::router(base, config));
    if config.stream_over_http_enabled {
        http = http.merge(queries.reset_fallback());
    }
    let grpc = tonic::service::Routes::new(frontend.streaming_service())
        .add_service(frontend.pull_service())
        .into_axum_router();
    let poller = storage.poller;
    Ok(Assembly {
        http,
        grpc,
        // Queriers stay until the last query is answered, and their streams end before the server
        // that carries them.
        with_grpc_server: Stage::default().with("query-frontend", |token| service.run(token)),
        after_servers: [Stage::default().with("poller", |token| poller.run(token))]
            .into_iter()
            .chain(gossip)
            .collect(),
        ..Assembly::default()
    })
}
