//! One process, put together and run: opened bottom up, stopped top down.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::Router;
use tempo_backend::{Backend, Blocklist, Poller, Retention, TenantIndexRole, cache::Cache};
use tempo_config::Config;
use tempo_live_store::{LiveStore, SystemClock};
use tempo_overrides::Overrides;
use tempo_querier::Querier;
use tempo_query_frontend::QueueHandle;
use tempo_runtime::{
    health::{Board, State},
    metrics,
    own_traces::OwnTraces,
    server::{RequestMetrics, Server, ServerConfig},
    signals,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Admin, ConfigPages},
    connect::{LiveStoreRecent, LiveStoreSink},
    limits::Limits,
    settings::{self, UnusableSetting},
    version,
};

/// Footers, bloom filters and dictionaries kept in memory, in bytes.
const CACHE_BYTES: u64 = 128 << 20;

/// Longest wait for the first list of blocks; then the process goes on without it and tries again.
const FIRST_POLL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the process does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppError {
    #[error(transparent)]
    Setting(#[from] UnusableSetting),
    #[error("overrides: {0}")]
    Overrides(#[from] tempo_overrides::Error),
    #[error("{0}")]
    Backend(#[from] tempo_backend::Error),
    #[error("live-store: {0}")]
    LiveStore(#[from] tempo_live_store::Error),
    #[error("distributor: {0}")]
    Distributor(#[from] tempo_distributor::Error),
    #[error("query-frontend: {0}")]
    Frontend(#[from] tempo_query_frontend::Error),
    #[error("querier: {0}")]
    Querier(#[from] tempo_querier::Error),
    #[error("server: {0}")]
    Io(#[from] std::io::Error),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("{0} ended unexpectedly")]
    Ended(String),
}

/// Runs everything in one process until a signal or a failure.
pub(crate) async fn run_all(
    config: Config,
    pages: ConfigPages,
    overrides: tempo_overrides::Config,
    own_traces: Option<OwnTraces>,
) -> Result<(), AppError> {
    let app = App::open(&config, pages, overrides).await?;
    let shutdown = CancellationToken::new();
    signals::cancel_on_signal(shutdown.clone())?;
    let result = app.run(&config, shutdown).await;
    if let Some(own_traces) = own_traces {
        let _ = tokio::task::spawn_blocking(move || own_traces.shutdown()).await;
    }
    result
}

/// Everything opened and bound, nothing running.
struct App {
    board: Board,
    http: (Server, Router),
    grpc: (Server, Router),
    distributor: tempo_distributor::Service,
    live_store: tempo_live_store::Service,
    frontend: tempo_query_frontend::Service,
    queue: QueueHandle,
    querier: Querier,
    poller: Poller,
    retention: Retention,
    overrides: tempo_overrides::Service,
    limits: Limits,
}

impl App {
    async fn open(
        config: &Config,
        pages: ConfigPages,
        overrides: tempo_overrides::Config,
    ) -> Result<Self, AppError> {
        let board = Board::default();
        let registry = metrics::registry(version::VERSION, version::REVISION)?;
        let requests = RequestMetrics::register(&registry)?;

        // What may be refused for its settings or a taken port comes before what takes time.
        let distributor_config = settings::distributor(config)?;
        let live_store_config = settings::live_store(config)?;
        let backend_config = settings::backend(config)?;
        let server = &config.server;
        let server_config = |max_connections: u32| ServerConfig {
            idle_timeout: server.http_server_idle_timeout.0,
            graceful_shutdown_timeout: server.graceful_shutdown_timeout.0,
            max_concurrent_streams: server.grpc_server_max_concurrent_streams,
            max_connections: match max_connections {
                0 => ServerConfig::default().max_connections,
                limit => limit as usize,
            },
        };
        let http = Server::bind(
            &format!("{}:{}", server.http_listen_address, server.http_listen_port),
            server_config(server.http_listen_conn_limit),
        )
        .await?;
        let grpc = Server::bind(
            &format!("{}:{}", server.grpc_listen_address, server.grpc_listen_port),
            server_config(server.grpc_listen_conn_limit),
        )
        .await?;

        let (overrides, overrides_service) = Overrides::build(overrides, &registry).await?;
        let limits = Limits {
            overrides,
            dedicated_columns: settings::dedicated(config),
            retention: settings::retention(config),
        };
        for setting in backend_config.ineffective_settings() {
            tracing::warn!(
                setting = setting.setting,
                reason = setting.reason,
                "no effect"
            );
        }
        let backend = Backend::open(&backend_config, &registry).await?;
        let cache = Cache::new(CACHE_BYTES, &registry)?;
        let blocklist = Blocklist::new();
        let poller = Poller::build(
            settings::poller(config),
            TenantIndexRole::Builder,
            backend.clone(),
            blocklist.clone(),
            &registry,
        )?;
        let retention = Retention::build(
            backend.clone(),
            blocklist.clone(),
            Some(cache.clone()),
            config.backend_worker.compaction.retention_concurrency as usize,
            &registry,
        )?;

        let dependencies = tempo_live_store::Dependencies {
            backend: backend.clone(),
            cache: cache.clone(),
            limits: Arc::new(limits.clone()),
            clock: Arc::new(SystemClock),
            registry: &registry,
        };
        let (opened, ()) = tokio::join!(
            tempo_live_store::build(live_store_config, dependencies),
            first_poll(&poller)
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
                limits: Arc::new(limits.clone()),
                registry: &registry,
                discarded_spans: discarded,
            },
        )?;
        let (frontend, frontend_service) = tempo_query_frontend::build(
            settings::frontend(config),
            tempo_query_frontend::Deps {
                blocklist: blocklist.clone(),
                limits: Arc::new(limits.clone()),
                now_nanos: Arc::new(now_nanos),
                registry: &registry,
            },
        )?;
        let querier = Querier::build(
            settings::querier(config),
            tempo_querier::Deps {
                backend,
                blocklist,
                cache,
                recent: Arc::new(LiveStoreRecent(live.clone())),
                now_nanos: Arc::new(now_nanos),
                registry: &registry,
            },
        )?;

        let admin = Admin {
            board: board.clone(),
            registry,
            config: Arc::new(pages),
            overrides: Arc::new({
                let overrides = limits.overrides.clone();
                move || overrides.runtime_yaml()
            }),
            flush: Some(Arc::new({
                let live = live.clone();
                move || {
                    let live = live.clone();
                    Box::pin(async move { flush(&live).await })
                }
            })),
            prefix: config.http_api_prefix.trim_end_matches('/').to_owned(),
        };
        board.add_check(Box::new({
            let live = live.clone();
            move || {
                live.ready()
                    .map_err(|reason| format!("LiveStore not ready: {reason}"))
            }
        }));
        board.add_check(Box::new({
            let frontend = frontend.clone();
            move || frontend.ready()
        }));

        let streaming =
            tonic::service::Routes::new(frontend.streaming_service()).into_axum_router();
        let mut routes = admin::router(admin).merge(frontend.router());
        if config.stream_over_http_enabled {
            routes = routes.merge(streaming.clone().reset_fallback());
        }
        Ok(Self {
            board,
            http: (http, requests.instrument(routes)),
            grpc: (grpc, requests.instrument(streaming)),
            distributor,
            live_store,
            frontend: frontend_service,
            queue: frontend.queue(),
            querier,
            poller,
            retention,
            overrides: overrides_service,
            limits,
        })
    }

    async fn run(self, config: &Config, shutdown: CancellationToken) -> Result<(), AppError> {
        let board = self.board.clone();
        let mut process = Process {
            board: board.clone(),
            tasks: JoinSet::new(),
        };

        let background = CancellationToken::new();
        process.run("overrides", self.overrides.run(background.clone()));
        process.run("poller", self.poller.run(background.clone()));
        let limits = self.limits;
        let policy = move |tenant: &str| limits.retention(tenant);
        let every = settings::retention_interval(config);
        process.run(
            "retention",
            self.retention.run(every, policy, background.clone()),
        );
        let live_store = CancellationToken::new();
        process.run("live-store", self.live_store.run(live_store.clone()));
        let frontend = CancellationToken::new();
        process.run("query-frontend", self.frontend.run(frontend.clone()));
        process.run("querier", work(self.queue, self.querier));
        let distributor = CancellationToken::new();
        let receivers = self.distributor.run(distributor.clone());
        process.run("distributor", async move {
            if let Err(error) = receivers.await {
                tracing::error!(%error, "distributor failed");
            }
        });
        let server = CancellationToken::new();
        let (http, routes) = self.http;
        let addresses = (http.local_addr(), self.grpc.0.local_addr());
        process.run("server", http.serve(routes, server.clone()));
        let (grpc, routes) = self.grpc;
        process.run("grpc-server", grpc.serve(routes, server.clone()));
        tracing::info!(
            version = version::VERSION,
            http = %addresses.0,
            grpc = %addresses.1,
            "tempo started"
        );

        // Whatever ends before it is told to has failed, and the rest follows in order.
        let failed = tokio::select! {
            () = shutdown.cancelled() => None,
            ended = process.next() => ended,
        };
        board.set_stopping();
        if failed.is_none() {
            tokio::time::sleep(config.shutdown_delay.0).await;
        }
        for (token, services) in [
            (distributor, vec!["distributor"]),
            (server, vec!["server", "grpc-server"]),
            (frontend, vec!["query-frontend", "querier"]),
            (live_store, vec!["live-store"]),
            (background, vec!["poller", "retention", "overrides"]),
        ] {
            for service in &services {
                board.set(service, State::Stopping);
            }
            token.cancel();
            process.wait_for(services).await;
        }
        match failed {
            Some(service) => Err(AppError::Ended(service)),
            None => {
                tracing::info!("tempo stopped");
                Ok(())
            }
        }
    }
}

/// The running services of the process.
struct Process {
    board: Board,
    tasks: JoinSet<&'static str>,
}

impl Process {
    fn run(&mut self, name: &'static str, service: impl Future<Output = ()> + Send + 'static) {
        self.board.set(name, State::Running);
        self.tasks.spawn(async move {
            // A task of its own, so that a panic is seen as the end of this service.
            if let Err(error) = tokio::spawn(service).await {
                tracing::error!(service = name, %error, "service failed");
            }
            name
        });
    }

    /// The next service that ends.
    async fn next(&mut self) -> Option<String> {
        let name = self.tasks.join_next().await?.ok()?;
        self.board.set(name, State::Terminated);
        Some(name.to_owned())
    }

    async fn wait_for(&mut self, mut names: Vec<&'static str>) {
        names.retain(|name| {
            let running = self.board.services();
            running
                .iter()
                .any(|(found, state)| found == name && *state == State::Stopping)
        });
        while !names.is_empty() {
            match self.next().await {
                Some(ended) => names.retain(|name| *name != ended),
                None => return,
            }
        }
    }
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

async fn first_poll(poller: &Poller) {
    match tokio::time::timeout(FIRST_POLL_TIMEOUT, poller.poll_once()).await {
        Ok(Ok(outcome)) => {
            tracing::info!(tenants = outcome.polled_tenants, "blocks listed");
        }
        Ok(Err(error)) => tracing::error!(%error, "blocks not listed yet, trying again"),
        Err(_) => tracing::error!(
            timeout = ?FIRST_POLL_TIMEOUT,
            "blocks not listed yet: the object store does not answer; trying again"
        ),
    }
}

async fn flush(live: &LiveStore) -> Result<(), String> {
    live.flush_all().await.map_err(|error| error.to_string())
}

fn now_nanos() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
