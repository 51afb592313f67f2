//! One process: opened bottom up, stopped top down.
//!
//! Owns what every target has (servers, metrics, overrides, the status board) and the order in
//! which services stop. Must never know which components a target consists of.

use std::{future::Future, sync::Arc};

use axum::Router;
use futures::future::BoxFuture;
use prometheus::Registry;
use tempo_backend::Backend;
use tempo_config::Config;
use tempo_overrides::{Overrides, UserConfigurable};
use tempo_runtime::{
    health::{Board, State},
    listen::{ListenError, Listener},
    metrics,
    own_traces::OwnTraces,
    server::{self, RequestMetrics},
    signals,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Admin, ConfigPages, Flush},
    allocations, grpc_health,
    limits::Limits,
    settings::{self, UnusableSetting},
    targets, version,
};

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
    #[error("kafka: {0}")]
    Kafka(#[from] tempo_ingest::Error),
    #[error("memberlist: {0}")]
    Membership(#[from] tempo_membership::Error),
    #[error("block-builder: {0}")]
    BlockBuilder(#[from] tempo_block_builder::Error),
    #[error("backend-scheduler: {0}")]
    BackendScheduler(#[from] tempo_backend_scheduler::Error),
    #[error("backend-worker: {0}")]
    BackendWorker(#[from] tempo_backend_worker::Error),
    #[error("query-frontend: {0}")]
    Frontend(#[from] tempo_query_frontend::Error),
    #[error("querier: {0}")]
    Querier(#[from] tempo_querier::Error),
    #[error("server: {0}")]
    Listen(#[from] ListenError),
    #[error("signals: {0}")]
    Io(#[from] std::io::Error),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("{0} ended unexpectedly")]
    Ended(String),
}

/// What every target has, bound and opened before the components are.
pub(crate) struct Base {
    pub(crate) board: Board,
    pub(crate) registry: Registry,
    pub(crate) limits: Limits,
    requests: RequestMetrics,
    http: Listener,
    grpc: Listener,
    overrides: tempo_overrides::Service,
    pages: ConfigPages,
}

impl Base {
    async fn open(
        config: &Config,
        pages: ConfigPages,
        mut overrides: tempo_overrides::Config,
    ) -> Result<Self, AppError> {
        let registry = metrics::registry(version::VERSION, version::REVISION)?;
        allocations::register(&registry)?;
        let requests = RequestMetrics::register(&registry)?;
        let (endpoint, settings) = settings::server::http(config)?;
        let http = Listener::bind(&endpoint, settings)?;
        let (endpoint, settings) = settings::server::grpc(config)?;
        let grpc = Listener::bind(&endpoint, settings)?;
        if let Some(backend) = settings::user_overrides_backend(config)? {
            let user_configurable = &config.overrides.user_configurable_overrides;
            overrides.user_configurable = Some(UserConfigurable {
                // The metrics of requests are those of the store of blocks.
                backend: Backend::open(&backend, &Registry::new()).await?,
                poll_interval: user_configurable.poll_interval.0,
            });
        }
        let (limits, overrides) = Overrides::build(overrides, &registry).await?;
        Ok(Self {
            board: Board::default(),
            limits: Limits {
                overrides: limits,
                dedicated_columns: settings::dedicated(config),
                retention: settings::retention(config),
            },
            registry,
            requests,
            http,
            grpc,
            overrides,
            pages,
        })
    }
}

type StartService = Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ()> + Send>;

/// Services that stop together.
#[derive(Default)]
pub(crate) struct Stage(Vec<(&'static str, StartService)>);

impl Stage {
    /// Adds a service. It runs until its token is cancelled; if it ends before, the process ends.
    pub(crate) fn with<F>(
        mut self,
        name: &'static str,
        start: impl FnOnce(CancellationToken) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0
            .push((name, Box::new(move |token| Box::pin(start(token)))));
        self
    }
}

/// What a target adds to [`Base`]: everything opened, nothing running.
#[derive(Default)]
pub(crate) struct Assembly {
    /// Routes on the HTTP port, beside those of every process.
    pub(crate) http: Router,
    /// gRPC services on the gRPC port.
    pub(crate) grpc: Router,
    /// Stops first, while the servers still answer: what brings work in from outside.
    pub(crate) before_servers: Stage,
    /// Stops when the HTTP server has answered its last request, together with the gRPC server: what
    /// ends the long streams of that.
    pub(crate) with_grpc_server: Stage,
    /// Stop one after another once the servers have answered their last request.
    pub(crate) after_servers: Vec<Stage>,
    /// Present where a live-store runs.
    pub(crate) flush: Option<Flush>,
}

/// Runs the target of the configuration until a signal or a failure.
pub(crate) async fn run(
    config: Config,
    pages: ConfigPages,
    overrides: tempo_overrides::Config,
    own_traces: Option<OwnTraces>,
) -> Result<(), AppError> {
    // Before all that takes time: process 1 of a container never hears of a signal that came when
    // it had no handler, and would be waited for until it is killed.
    let shutdown = CancellationToken::new();
    signals::cancel_on_signal(shutdown.clone())?;
    let opening = async {
        let base = Base::open(&config, pages, overrides).await?;
        let assembly = targets::open(&base, &config).await?;
        Ok::<_, AppError>((base, assembly))
    };
    let (base, assembly) = tokio::select! {
        opened = opening => opened?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let result = serve(base, assembly, &config, shutdown).await;
    if let Some(own_traces) = own_traces {
        let _ = tokio::task::spawn_blocking(move || own_traces.shutdown()).await;
    }
    result
}

async fn serve(
    base: Base,
    assembly: Assembly,
    config: &Config,
    shutdown: CancellationToken,
) -> Result<(), AppError> {
    let board = base.board.clone();
    let routes = assembly.http.merge(admin::router(Admin {
        board: board.clone(),
        registry: base.registry,
        config: Arc::new(base.pages),
        overrides: base.limits.overrides.clone(),
        flush: assembly.flush,
        prefix: config.http_api_prefix.trim_end_matches('/').to_owned(),
    }));
    let (http, http_routes) = (base.http, base.requests.instrument(routes));
    let health = tonic::service::Routes::new(grpc_health::service(board.clone()));
    let grpc_routes = assembly
        .grpc
        .merge(health.into_axum_router().reset_fallback());
    let (grpc, grpc_routes) = (base.grpc, base.requests.instrument(grpc_routes));
    let addresses = (http.addr(), grpc.addr());

    let overrides = base.overrides;
    let mut stages = vec![
        assembly.before_servers,
        Stage::default().with("server", |token| server::serve(http, http_routes, token)),
        assembly.with_grpc_server.with("grpc-server", |token| {
            server::serve(grpc, grpc_routes, token)
        }),
    ];
    stages.extend(assembly.after_servers);
    stages.push(Stage::default().with("overrides", move |token| overrides.run(token)));

    // Started in the opposite order, so that whoever calls finds who is called.
    let mut process = Process {
        board: board.clone(),
        tasks: JoinSet::new(),
    };
    let mut running: Vec<(CancellationToken, Vec<&'static str>)> = Vec::new();
    for stage in stages.into_iter().rev() {
        let token = CancellationToken::new();
        let mut names = Vec::new();
        for (name, start) in stage.0 {
            process.run(name, start(token.clone()));
            names.push(name);
        }
        running.push((token, names));
    }
    tracing::info!(
        version = version::VERSION,
        target = config.target.name(),
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
    for (token, services) in running.into_iter().rev() {
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
