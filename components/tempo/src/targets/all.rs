//! `-target=all`: the monolith. The distributor writes into the live-store of the same process,
//! which keeps its own log and flushes its own blocks.

use std::{sync::Arc, time::Duration};

use tempo_backend::{TenantIndexRole, cache::remote::RemoteCaches};
use tempo_config::Config;
use tempo_live_store::{LiveStore, SystemClock};
use tempo_querier::{BlockSource, Querier, Recent};
use tempo_query_frontend::BuiltUntil;
use tempo_query_frontend::QueueHandle;
use tokio::task::JoinSet;

use super::{
    Storage, backend_scheduler, backend_worker, bridge, first_poll, gossip_stage, live_store,
    now_nanos, overrides_api,
};
use crate::{
    connect::{LiveStoreRecent, LiveStoreSink},
    connect_backend_work::LocalJobs,
    process::{AppError, Assembly, Base, Stage},
    settings,
};

pub(super) async fn open(base: &Base, config: &Config) -> Result<Assembly, AppError> {
    let (registry, limits) = (&base.registry, Arc::new(base.limits.clone()));
    // What may be refused for its settings comes before what takes time.
    let distributor_config = settings::distributor(config)?;
    let live_store_config = settings::live_store(config)?;
    let storage = Storage::open(base, config, TenantIndexRole::Builder).await?;
    let dependencies = tempo_live_store::Dependencies {
        backend: Some(storage.backend.clone()),
        // Its blocks are on the disk of this machine: no other process is quicker.
        cache: storage.cache.clone().with_remote(RemoteCaches::default()),
        limits: limits.clone(),
        clock: Arc::new(SystemClock),
        registry,
    };
    let (opened, ()) = tokio::join!(
        tempo_live_store::build(live_store_config, dependencies),
        first_poll(&storage.poller)
    );
    let (live, live_store) = opened?;

    let discarded = tempo_distributor::discarded_spans_counter()?;
    registry.register(Box::new(discarded.clone()))?;
    let (_, distributor) = tempo_distributor::build(
        distributor_config,
        tempo_distributor::Deps {
            sink: Arc::new(LiveStoreSink {
                live: live.clone(),
                discarded: discarded.clone(),
            }),
            limits: limits.clone(),
            registry,
            discarded_spans: discarded.clone(),
        },
    )?;
    let (scheduler, scheduler_service) = backend_scheduler::build(
        base,
        config,
        storage.backend.clone(),
        storage.blocklist.clone(),
    )
    .await?;
    let worker = backend_worker::build(
        base,
        config,
        Arc::new(LocalJobs(scheduler.clone())),
        (
            storage.backend.clone(),
            storage.blocklist.clone(),
            storage.cache.clone(),
        ),
        discarded,
    )?;
    let (frontend, frontend_service) = tempo_query_frontend::build(
        settings::frontend(config),
        tempo_query_frontend::Deps {
            blocklist: storage.blocklist.clone(),
            limits,
            results: Some(storage.cache.clone()),
            now_nanos: Arc::new(now_nanos),
            built_until: Arc::new(|_| BuiltUntil::AsConfigured),
            registry,
        },
    )?;
    let querier = Querier::build(
        settings::querier(config),
        tempo_querier::Deps {
            blocks: Some(BlockSource {
                backend: storage.backend,
                blocklist: storage.blocklist,
                // What this process lets go of it has listed itself.
                max_list_age: Duration::MAX,
                cache: storage.cache,
                now_nanos: Arc::new(now_nanos),
            }),
            recent: Recent::Here(Arc::new(LiveStoreRecent(live.clone()))),
            registry,
        },
    )?;

    base.board.add_check(Box::new({
        let live = live.clone();
        move || {
            live.ready()
                .map_err(|reason| format!("LiveStore not ready: {reason}"))
        }
    }));
    base.board.add_check(Box::new({
        let frontend = frontend.clone();
        move || frontend.ready()
    }));

    let mut grpc =
        tonic::service::Routes::new(frontend.streaming_service()).add_service(scheduler.grpc());
    let mut http = frontend
        .router()
        .merge(backend_scheduler::status_page(&scheduler))
        .merge(overrides_api::router(base, config));
    let mut before_servers = Stage::default();
    let mut gossip = None;
    if let Some(bridge) = bridge::open(base, config, &live, &querier).await? {
        grpc = grpc.add_service(bridge.jobs);
        http = http.merge(bridge.http);
        let live = live.clone();
        let forgotten_after = settings::partition_forgotten_after(config);
        before_servers = before_servers.with("live-store-owner", move |token| {
            live_store::tell_state(live, bridge.membership, forgotten_after, token)
        });
        gossip = Some(gossip_stage(bridge.gossip));
    }
    let grpc = grpc.into_axum_router();
    if config.stream_over_http_enabled {
        http = http.merge(grpc.clone().reset_fallback());
    }
    let queue = frontend.queue();
    let poller = storage.poller;
    Ok(Assembly {
        http,
        grpc,
        before_servers: before_servers.with("distributor", |token| async move {
            if let Err(error) = distributor.run(token).await {
                tracing::error!(%error, "distributor failed");
            }
        }),
        after_servers: [
            // The queriers end with the queue.
            Stage::default()
                .with("query-frontend", |token| frontend_service.run(token))
                .with("querier", |_| work(queue, querier)),
            Stage::default().with("live-store", |token| live_store.run(token)),
            Stage::default().with("backend-worker", |token| worker.run(token)),
            Stage::default().with("backend-scheduler", |token| scheduler_service.run(token)),
            Stage::default().with("poller", |token| poller.run(token)),
        ]
        .into_iter()
        .chain(gossip)
        .collect(),
        flush: Some(Arc::new(move || {
            let live = live.clone();
            Box::pin(async move { flush(&live).await })
        })),
        ..Assembly::default()
    })
}

/// Takes jobs from the queue until it is closed and empty.
async fn work(queue: QueueHandle, querier: Querier) {
    let mut loops = JoinSet::new();
    for _ in 0..querier.max_concurrent_jobs() {
        let (queue, querier) = (queue.clone(), querier.clone());
        loops.spawn(async move {
            let _connected = queue.connect();
            while let Some(queued) = queue.next().await {
                let (tenant, job, cancelled, responder) = queued.into_parts();
                responder.respond(querier.run(&tenant, job, cancelled).await);
            }
        });
    }
    while loops.join_next().await.is_some() {}
}

async fn flush(live: &LiveStore) -> Result<(), String> {
    live.flush_all().await.map_err(|error| error.to_string())
}
