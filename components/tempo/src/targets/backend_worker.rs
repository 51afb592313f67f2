//! `-target=backend-worker`: does what the backend-scheduler hands out, and writes the tenant
//! indexes.

use std::sync::Arc;

use prometheus::IntCounterVec;
use tempo_backend::{
    Backend, Blocklist, TenantIndexRole,
    cache::{Cache, remote::RemoteCaches},
};
use tempo_backend_worker::{Deps, GrpcJobSource, JobSource, Service};
use tempo_config::Config;
use tempo_runtime::{outgoing, tls::Connector};

use super::{Storage, first_poll};
use crate::{
    process::{AppError, Assembly, Base, Stage},
    settings::{self, UnusableSetting},
};

pub(super) async fn open(base: &Base, config: &Config) -> Result<Assembly, AppError> {
    let address = settings::backend_scheduler_address(config)?;
    let connect_timeout = settings::backend_scheduler_connect_timeout(config);
    let tls = settings::backend_scheduler_tls(config)?;
    let tls = tls.map(Connector::load).transpose().map_err(|error| {
        let section = "backend_scheduler_client.grpc_client_config";
        UnusableSetting::new(section, error.to_string())
    })?;
    let connection = outgoing::connection(&address, connect_timeout, tls.as_ref());
    let channel = connection.map_err(|error| {
        let reason = format!("{address}: {error}; name host and port");
        UnusableSetting::new("backend_worker.backend_scheduler_addr", reason)
    })?;
    let storage = Storage::open(base, config, TenantIndexRole::Shared).await?;
    first_poll(&storage.poller).await;
    let discarded = tempo_distributor::discarded_spans_counter()?;
    base.registry.register(Box::new(discarded.clone()))?;
    let service = build(
        base,
        config,
        Arc::new(GrpcJobSource::new(channel)),
        (storage.backend, storage.blocklist, storage.cache),
        discarded,
    )?;
    let poller = storage.poller;
    Ok(Assembly {
        before_servers: Stage::default().with("backend-worker", |token| service.run(token)),
        after_servers: vec![Stage::default().with("poller", |token| poller.run(token))],
        ..Assembly::default()
    })
}

/// The worker over a list that someone keeps current.
pub(super) fn build(
    base: &Base,
    config: &Config,
    jobs: Arc<dyn JobSource>,
    (backend, blocklist, cache): (Backend, Blocklist, Cache),
    discarded_spans: IntCounterVec,
) -> Result<Service, AppError> {
    let deps = Deps {
        jobs,
        backend,
        blocklist,
        // A merge reads everything once: what others ask for is not to make room for it.
        cache: cache.with_remote(RemoteCaches::default()),
        limits: Arc::new(base.limits.clone()),
        discarded_spans,
        registry: &base.registry,
    };
    let (_, service) = tempo_backend_worker::build(settings::backend_worker(config)?, deps)?;
    Ok(service)
}
