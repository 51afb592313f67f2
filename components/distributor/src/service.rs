//! Putting the distributor together and running it.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use futures::future::try_join_all;
use prometheus::{IntCounterVec, Registry};
use tempo_runtime::listen::{ListenConfig, ListenError, Listener, Protocol};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, GrpcReceiver, HttpReceiver, UdpReceiver},
    limits::Limits,
    metrics::Metrics,
    push::Distributor,
    receivers::{
        Handler,
        foreign_http::{ForeignHttp, Sender},
        grpc::{self, Grpc, SpanMethod},
        jaeger_udp::{Datagrams, JaegerUdp},
        otlp_http::OtlpHttp,
        service,
    },
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
    /// A receiver of datagrams cannot listen as its settings say.
    #[error("receiver {receiver}: cannot listen on '{endpoint}' (UDP): {cause}")]
    ListenUdp {
        /// The receiver's place in the settings.
        receiver: &'static str,
        /// Where it was to listen.
        endpoint: String,
        /// What is wrong.
        cause: io::Error,
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
    /// Where each receiver that is on receives, by its place in the settings (`otlp.protocols.grpc`).
    pub addrs: BTreeMap<&'static str, SocketAddr>,
    /// For receivers outside of this crate.
    pub distributor: Arc<Distributor>,
}

/// A distributor with bound sockets that does not serve yet.
pub struct Service {
    grpc: Vec<Open<Grpc>>,
    otlp_http: Vec<Open<OtlpHttp>>,
    foreign_http: Vec<Open<ForeignHttp>>,
    udp: Vec<(&'static str, JaegerUdp)>,
    distributor: Arc<Distributor>,
}

/// A listener, and who answers there.
struct Open<H> {
    receiver: &'static str,
    listener: Listener,
    handler: Arc<H>,
}

/// Places in the settings.
pub mod place {
    /// OTLP over gRPC.
    pub const OTLP_GRPC: &str = "otlp.protocols.grpc";
    /// OTLP over HTTP.
    pub const OTLP_HTTP: &str = "otlp.protocols.http";
    /// Jaeger over gRPC.
    pub const JAEGER_GRPC: &str = "jaeger.protocols.grpc";
    /// Jaeger's Thrift over HTTP.
    pub const JAEGER_THRIFT_HTTP: &str = "jaeger.protocols.thrift_http";
    /// Jaeger's Thrift in datagrams, binary.
    pub const JAEGER_THRIFT_BINARY: &str = "jaeger.protocols.thrift_binary";
    /// Jaeger's Thrift in datagrams, compact.
    pub const JAEGER_THRIFT_COMPACT: &str = "jaeger.protocols.thrift_compact";
    /// Zipkin over HTTP.
    pub const ZIPKIN: &str = "zipkin";
}

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
    let grace = config.shutdown_grace;
    let receivers = config.receivers;
    let mut service = Service {
        grpc: Vec::new(),
        otlp_http: Vec::new(),
        foreign_http: Vec::new(),
        udp: Vec::new(),
        distributor: Arc::clone(&distributor),
    };
    for (place, method, receiver) in [
        (place::OTLP_GRPC, &grpc::OTLP, receivers.otlp_grpc),
        (place::JAEGER_GRPC, &grpc::JAEGER, receivers.jaeger_grpc),
    ] {
        if let Some(receiver) = receiver {
            service.open_grpc(place, method, receiver, grace)?;
        }
    }
    if let Some(receiver) = receivers.otlp_http {
        let listener = listen_http(place::OTLP_HTTP, &receiver, grace)?;
        service.otlp_http.push(Open {
            receiver: place::OTLP_HTTP,
            listener,
            handler: Arc::new(OtlpHttp::new(receiver, Arc::clone(&distributor))),
        });
    }
    if let Some(receiver) = receivers.jaeger_thrift_http {
        service.open_foreign(place::JAEGER_THRIFT_HTTP, Sender::Jaeger, receiver, grace)?;
    }
    if let Some(zipkin) = receivers.zipkin {
        service.open_foreign(
            place::ZIPKIN,
            Sender::Zipkin(zipkin.tags),
            zipkin.http,
            grace,
        )?;
    }
    for (place, datagrams, receiver) in [
        (
            place::JAEGER_THRIFT_BINARY,
            Datagrams::Binary,
            receivers.jaeger_thrift_binary,
        ),
        (
            place::JAEGER_THRIFT_COMPACT,
            Datagrams::Compact,
            receivers.jaeger_thrift_compact,
        ),
    ] {
        if let Some(receiver) = receiver {
            service.open_udp(place, datagrams, receiver)?;
        }
    }
    let handle = Handle {
        addrs: service.addrs(),
        distributor,
    };
    Ok((handle, service))
}

fn listen(receiver: &'static str, endpoint: &str, config: ListenConfig) -> Result<Listener, Error> {
    Listener::bind(endpoint, config).map_err(|cause| Error::Listen { receiver, cause })
}

fn listen_http(
    place: &'static str,
    receiver: &HttpReceiver,
    shutdown_grace: Duration,
) -> Result<Listener, Error> {
    let settings = ListenConfig {
        tls: receiver.tls.clone(),
        max_connections: receiver.max_connections,
        max_connection_age: receiver.max_connection_age,
        shutdown_grace,
        ..ListenConfig::default()
    };
    listen(place, &receiver.endpoint, settings)
}

impl<H: Handler> Open<H> {
    async fn serve(self, shutdown: CancellationToken) -> io::Result<()> {
        tracing::info!(addr = %self.listener.addr(), receiver = self.receiver, "receiving");
        self.listener.serve(service(self.handler), shutdown).await
    }
}

impl Service {
    fn open_grpc(
        &mut self,
        place: &'static str,
        method: &'static SpanMethod,
        receiver: GrpcReceiver,
        shutdown_grace: Duration,
    ) -> Result<(), Error> {
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
        let listener = listen(place, &receiver.endpoint, settings)?;
        let handler = Grpc::new(receiver, method, Arc::clone(&self.distributor));
        self.grpc.push(Open {
            receiver: place,
            listener,
            handler: Arc::new(handler),
        });
        Ok(())
    }

    fn open_foreign(
        &mut self,
        place: &'static str,
        sender: Sender,
        receiver: HttpReceiver,
        shutdown_grace: Duration,
    ) -> Result<(), Error> {
        let listener = listen_http(place, &receiver, shutdown_grace)?;
        let handler = ForeignHttp::new(receiver, sender, Arc::clone(&self.distributor));
        self.foreign_http.push(Open {
            receiver: place,
            listener,
            handler: Arc::new(handler),
        });
        Ok(())
    }

    fn open_udp(
        &mut self,
        place: &'static str,
        datagrams: Datagrams,
        receiver: UdpReceiver,
    ) -> Result<(), Error> {
        let endpoint = receiver.endpoint.clone();
        let bound = JaegerUdp::bind(receiver, datagrams).map_err(|cause| Error::ListenUdp {
            receiver: place,
            endpoint,
            cause,
        })?;
        self.udp.push((place, bound));
        Ok(())
    }

    fn addrs(&self) -> BTreeMap<&'static str, SocketAddr> {
        fn of<H>(open: &[Open<H>]) -> impl Iterator<Item = (&'static str, SocketAddr)> {
            open.iter()
                .map(|open| (open.receiver, open.listener.addr()))
        }
        of(&self.grpc)
            .chain(of(&self.otlp_http))
            .chain(of(&self.foreign_http))
            .chain(self.udp.iter().map(|(place, udp)| (*place, udp.addr())))
            .collect()
    }

    /// Receives until `shutdown`, then lets requests at work finish within
    /// [`Config::shutdown_grace`].
    ///
    /// # Errors
    /// When a socket cannot be served.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let grpc = self
            .grpc
            .into_iter()
            .map(|open| open.serve(shutdown.clone()));
        let otlp_http = self
            .otlp_http
            .into_iter()
            .map(|open| open.serve(shutdown.clone()));
        let foreign = self
            .foreign_http
            .into_iter()
            .map(|open| open.serve(shutdown.clone()));
        let udp = self.udp.into_iter().map(|(receiver, udp)| {
            tracing::info!(addr = %udp.addr(), receiver, "receiving");
            udp.run(Arc::clone(&self.distributor), shutdown.clone())
        });
        tokio::try_join!(
            try_join_all(grpc),
            try_join_all(otlp_http),
            try_join_all(foreign),
            try_join_all(udp),
        )?;
        // Without receivers the service lives on until it is told to stop.
        shutdown.cancelled().await;
        Ok(())
    }
}
