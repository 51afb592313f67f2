//! Putting the distributor together and running it.

use std::{io, net::SocketAddr, sync::Arc};

use prometheus::{IntCounterVec, Registry};
use tempo_runtime::listen::{ListenConfig, ListenError, Listener, Protocol};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    limits::Limits,
    metrics::Metrics,
    push::Distributor,
    receivers::{otlp_grpc::OtlpGrpc, otlp_http::OtlpHttp, service},
    sink::TraceSink,
};

/// What the distributor needs from around it.
pub struct Deps<'a> {
    /// Takes what was received.
    pub sink: Arc<dyn TraceSink>,
    /// Says what each tenant may send.
    pub limits: Arc<dyn Limits>,
    /// Where metrics are registered.
    pub registry: &'a Registry,
    /// `tempo_discarded_spans_total`, which other components count in too; registered elsewhere.
    pub discarded_spans: IntCounterVec,
}

/// Why the distributor does not start or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A receiver cannot listen as its settings say.
    #[error("receiver {receiver}: {cause}")]
    Listen {
        /// The receiver's place in the settings.
        receiver: &'static str,
        /// What is wrong.
        cause: ListenError,
    },
    /// A metric is registered twice.
    #[error("distributor metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A listener failed while serving.
    #[error("receiver stopped: {0}")]
    Serve(#[from] io::Error),
}

/// What others may know of a distributor.
#[derive(Clone)]
pub struct Handle {
    /// Where OTLP/gRPC is received.
    pub otlp_grpc_addr: Option<SocketAddr>,
    /// Where OTLP/HTTP is received.
    pub otlp_http_addr: Option<SocketAddr>,
    /// For receivers outside of this crate.
    pub distributor: Arc<Distributor>,
}

/// A distributor with bound sockets that does not serve yet.
pub struct Service {
    otlp_grpc: Option<(Listener, Arc<OtlpGrpc>)>,
    otlp_http: Option<(Listener, Arc<OtlpHttp>)>,
}

const OTLP_GRPC: &str = "otlp.protocols.grpc";
const OTLP_HTTP: &str = "otlp.protocols.http";

/// Registers metrics, reads certificates and binds all sockets.
///
/// # Errors
/// When an address is taken or a file is unusable; nothing listens then.
pub fn build(config: Config, deps: Deps<'_>) -> Result<(Handle, Service), Error> {
    let metrics = Metrics::register(deps.registry, deps.discarded_spans)?;
    let distributor = Arc::new(Distributor::new(
        config.clone(),
        deps.limits,
        deps.sink,
        metrics,
    ));
    let shutdown_grace = config.shutdown_grace;
    let otlp_grpc = config.receivers.otlp_grpc.map(|receiver| {
        let settings = ListenConfig {
            protocol: Protocol::Grpc,
            tls: receiver.tls.clone(),
            max_connections: receiver.max_connections,
            max_concurrent_streams: receiver.max_concurrent_streams,
            max_connection_age: receiver.max_connection_age,
            max_connection_age_grace: receiver.max_connection_age_grace,
            shutdown_grace,
            ..ListenConfig::default()
        };
        let listener = listen(OTLP_GRPC, &receiver.endpoint, settings)?;
        let handler = OtlpGrpc::new(receiver, Arc::clone(&distributor));
        Ok::<_, Error>((listener, Arc::new(handler)))
    });
    let otlp_http = config.receivers.otlp_http.map(|receiver| {
        let settings = ListenConfig {
            tls: receiver.tls.clone(),
            max_connections: receiver.max_connections,
            max_connection_age: receiver.max_connection_age,
            shutdown_grace,
            ..ListenConfig::default()
        };
        let listener = listen(OTLP_HTTP, &receiver.endpoint, settings)?;
        let handler = OtlpHttp::new(receiver, Arc::clone(&distributor));
        Ok::<_, Error>((listener, Arc::new(handler)))
    });
    let (otlp_grpc, otlp_http) = (otlp_grpc.transpose()?, otlp_http.transpose()?);
    let handle = Handle {
        otlp_grpc_addr: otlp_grpc.as_ref().map(|(listener, _)| listener.addr()),
        otlp_http_addr: otlp_http.as_ref().map(|(listener, _)| listener.addr()),
        distributor,
    };
    let service = Service {
        otlp_grpc,
        otlp_http,
    };
    Ok((handle, service))
}

fn listen(receiver: &'static str, endpoint: &str, config: ListenConfig) -> Result<Listener, Error> {
    Listener::bind(endpoint, config).map_err(|cause| Error::Listen { receiver, cause })
}

impl Service {
    /// Receives until `shutdown`, then lets requests at work finish within
    /// [`Config::shutdown_grace`].
    ///
    /// # Errors
    /// When a socket cannot be served.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let grpc = async {
            match self.otlp_grpc {
                Some((listener, handler)) => {
                    tracing::info!(addr = %listener.addr(), receiver = OTLP_GRPC, "receiving");
                    listener.serve(service(handler), shutdown.clone()).await
                }
                None => Ok(()),
            }
        };
        let http = async {
            match self.otlp_http {
                Some((listener, handler)) => {
                    tracing::info!(addr = %listener.addr(), receiver = OTLP_HTTP, "receiving");
                    listener.serve(service(handler), shutdown.clone()).await
                }
                None => Ok(()),
            }
        };
        tokio::try_join!(grpc, http)?;
        // Without receivers the service lives on until it is told to stop.
        shutdown.cancelled().await;
        Ok(())
    }
}
