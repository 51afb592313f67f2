//! `-target=query-frontend`: the query API. Queriers of other processes take its jobs.

use std::sync::Arc;

use tempo_backend::TenantIndexRole;
use tempo_config::Config;

use super::{Storage, first_poll, now_nanos, overrides_api};
use crate::{
    process::{AppError, Assembly, Base, Stage},
    settings,
};

pub(super) async fn open(base: &Base, config: &Config) -> Result<Assembly, AppError> {
    let storage = Storage::open(base, config, TenantIndexRole::Reader).await?;
    let (frontend, service) = tempo_query_frontend::build(
        settings::frontend(config),
        tempo_query_frontend::Deps {
            blocklist: storage.blocklist,
            limits: Arc::new(base.limits.clone()),
            results: Some(storage.cache),
            now_nanos: Arc::new(now_nanos),
            registry: &base.registry,
        },
    )?;
    first_poll(&storage.poller).await;
    base.board.add_check(Box::new({
        let frontend = frontend.clone();
        move || frontend.ready()
    }));

    let queries = tonic::service::Routes::new(frontend.streaming_service()).into_axum_router();
    let mut http = frontend.router().merge(overrides_api::router(base, config));
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
        after_servers: vec![Stage::default().with("poller", |token| poller.run(token))],
        ..Assembly::default()
    })
}
