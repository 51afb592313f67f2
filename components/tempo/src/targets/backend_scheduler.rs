//! `-target=backend-scheduler`: decides what is done to the blocks of the bucket. One per bucket.

use std::sync::Arc;

use axum::{Router, routing::get};
use tempo_backend::{Backend, Blocklist, TenantIndexRole, Timestamp};
use tempo_backend_scheduler::{Deps, Scheduler, Service};
use tempo_config::Config;

use super::{Storage, first_poll};
use crate::{
    process::{AppError, Assembly, Base, Stage},
    settings,
};

pub(super) async fn open(base: &Base, config: &Config) -> Result<Assembly, AppError> {
    let storage = Storage::open(base, config, TenantIndexRole::Reader).await?;
    first_poll(&storage.poller).await;
    let (scheduler, service) = build(base, config, storage.backend, storage.blocklist).await?;
    base.board.add_check(Box::new({
        let scheduler = scheduler.clone();
        move || scheduler.ready()
    }));
    let poller = storage.poller;
    Ok(Assembly {
        http: status_page(&scheduler),
        grpc: tonic::service::Routes::new(scheduler.grpc()).into_axum_router(),
        after_servers: vec![
            Stage::default().with("backend-scheduler", |token| service.run(token)),
            Stage::default().with("poller", |token| poller.run(token)),
        ],
        ..Assembly::default()
    })
}

/// The scheduler over a list that someone keeps current.
pub(super) async fn build(
    base: &Base,
    config: &Config,
    backend: Backend,
    blocklist: Blocklist,
) -> Result<(Scheduler, Service), AppError> {
    let deps = Deps {
        backend,
        blocklist,
        limits: Arc::new(base.limits.clone()),
        now: Arc::new(Timestamp::now),
        registry: &base.registry,
    };
    Ok(tempo_backend_scheduler::build(settings::backend_scheduler(config), deps).await?)
}

/// The jobs, for people.
pub(super) fn status_page(scheduler: &Scheduler) -> Router {
    let scheduler = scheduler.clone();
    Router::new().route(
        "/status/backendscheduler",
        get(move || {
            let scheduler = scheduler.clone();
            async move { scheduler.status_page().await }
        }),
    )
}
