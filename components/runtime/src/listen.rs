//! Listening sockets and their connections: accept, TLS, HTTP/1 and HTTP/2, ageing, orderly
//! shutdown. The same for every port of a process.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    service::Service,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    farewell::{Farewell, Polite},
    tls::{Acceptor, Tls, TlsError},
};

/// How long a client may take for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait before accepting again when the process is out of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Which HTTP a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, and HTTP/2 for those who begin with it (h2c).
    Http,
    /// HTTP/2 only.
    Grpc,
}

impl Protocol {
    /// Names for the TLS handshake, best first.
    const fn alpn(self) -> &'static [&'static str] {
        match self {
            Self::Http => &["h2", "http/1.1"],
            Self::Grpc => &["h2"],
        }
    }
}

/// How a listener treats connections.
#[derive(Debug, Clone)]
pub struct ListenConfig {
    /// Which HTTP it speaks.
    pub protocol: Protocol,
    /// TLS, if any.
    pub tls: Option<Tls>,
    /// Open connections; more wait in the kernel's queue.
    pub max_connections: usize,
    /// HTTP/2 streams that one connection may have open.
    pub max_concurrent_streams: u32,
    /// How long an HTTP/1 connection may stay idle, or take to send its headers.
    pub header_timeout: Duration,
    /// How often an HTTP/2 peer is asked whether it is still there.
    pub ping_period: Duration,
    /// How long it may take to answer.
    pub ping_timeout: Duration,
    /// Age at which a connection takes no more requests, so that clients connect again and find
    /// new servers. Each connection gets up to a tenth more or less, lest all come back at once.
    pub max_connection_age: Option<Duration>,
    /// Time that such a connection has for the requests at work; without it as long as they take.
    pub max_connection_age_grace: Option<Duration>,
    /// Longest wait for the requests at work once shutdown begins; then connections are cut.
    pub shutdown_grace: Duration,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            protocol: Protocol::Http,
            tls: None,
            max_connections: 16_384,
            max_concurrent_streams: 100,
            header_timeout: Duration::from_secs(60),
            ping_period: Duration::from_secs(60),
            ping_timeout: Duration::from_secs(20),
            max_connection_age: None,
            max_connection_age_grace: None,
            shutdown_grace: Duration::from_secs(30),
        }
    }
}

/// Why a socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is taken or not of this machine.
    #[error("cannot listen on {endpoint}: {cause}")]
    Bind {
        /// `host:port` as configured.
        endpoint: String,
        /// What the system said.
        cause: io::Error,
    },
    /// TLS settings cannot be used.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
}

/// A bound socket that does not serve yet.
pub struct Listener {
    socket: StdListener,
    addr: SocketAddr,
    tls: Option<Arc<Acceptor>>,
    config: ListenConfig,
}

impl Listener {
    /// Reads certificates and binds `endpoint`, which is `host:port`; an empty host means all
    /// interfaces.
    ///
    /// # Errors
    /// When the address or a file cannot be used.
    pub fn bind(endpoint: &str, config: ListenConfig) -> Result<Self, ListenError> {
        let tls = config
            .tls
            .clone()
            .map(|tls| Acceptor::load(tls, config.protocol.alpn()))
            .transpose()?
            .map(Arc::new);
        let failed = |cause| ListenError::Bind {
            endpoint: endpoint.to_owned(),
            cause,
        };
        let socket = addresses(endpoint)
            .and_then(|addrs| StdListener::bind(&*addrs))
            .map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            addr: socket.local_addr().map_err(failed)?,
            socket,
            tls,
            config,
        })
    }

    /// Where it listens; tells the port when 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `shutdown`, then lets requests at work finish within the configured time.
    ///
    /// # Errors
    /// When the socket cannot be used by the runtime.
    pub async fn serve<S, B>(self, service: S, shutdown: CancellationToken) -> io::Result<()>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let listener = TcpListener::from_std(self.socket)?;
        let room = Arc::new(Semaphore::new(self.config.max_connections));
        let server = server(&self.config);
        let mut connections = JoinSet::new();
        let mut ages = Ages::new(&self.config);
        loop {
            let accepted = async {
                let place = Arc::clone(&room).acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let connection = serve_connection(
                        stream,
                        self.tls.clone(),
                        server.clone(),
                        service.clone(),
                        ages.next(),
                        shutdown.clone(),
                    );
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(addr = %self.addr, %error, "cannot accept connections");
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
        drop(listener);
        let finished = async { while connections.join_next().await.is_some() {} };
        if timeout(self.config.shutdown_grace, finished).await.is_err() {
            tracing::warn!(
                addr = %self.addr,
                connections = connections.len(),
                "closing connections whose requests did not finish in time"
            );
            connections.shutdown().await;
        }
        Ok(())
    }
}

/// The addresses of `endpoint` (`host:port`), in the order in which to try to listen there. An empty
/// host means all interfaces. Go, which most users' settings were written for, prefers IPv4 when a
/// name has both.
///
/// # Errors
/// When it is no endpoint, or the name has no address.
pub fn addresses(endpoint: &str) -> io::Result<Vec<SocketAddr>> {
    if let Some(port) = endpoint.strip_prefix(':') {
        let all = [format!("[::]:{port}"), format!("0.0.0.0:{port}")];
        let all = all.iter().map(|address| address.to_socket_addrs());
        return Ok(all
            .collect::<io::Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect());
    }
    let mut addrs: Vec<_> = endpoint.to_socket_addrs()?.collect();
    addrs.sort_by_key(SocketAddr::is_ipv6);
    Ok(addrs)
}

fn server(config: &ListenConfig) -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(config.ping_period)
        .keep_alive_timeout(config.ping_timeout)
        .max_concurrent_streams(config.max_concurrent_streams);
    match config.protocol {
        Protocol::Http => server,
        Protocol::Grpc => server.http2_only(),
    }
}

/// How old a connection may get.
#[derive(Debug, Clone, Copy)]
struct Age {
    max: Duration,
    grace: Option<Duration>,
}

/// Spreads the ages of connections evenly over nine to eleven tenths of the limit.
struct Ages {
    limit: Option<Age>,
    count: u32,
}

impl Ages {
    const STEPS: u32 = 16;

    fn new(config: &ListenConfig) -> Self {
        Self {
            limit: config.max_connection_age.map(|max| Age {
                max,
                grace: config.max_connection_age_grace,
            }),
            count: 0,
        }
    }

    fn next(&mut self) -> Option<Age> {
        let limit = self.limit?;
        // 7 has no common divisor with 16, so neighbours are far apart.
        self.count = (self.count + 7) % Self::STEPS;
        let tenth = limit.max / 10;
        Some(Age {
            max: limit.max - tenth + tenth * 2 * self.count / Self::STEPS,
            ..limit
        })
    }
}

async fn serve_connection<S, B>(
    stream: TcpStream,
    tls: Option<Arc<Acceptor>>,
    server: auto::Builder<TokioExecutor>,
    service: S,
    age: Option<Age>,
    shutdown: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot turn off Nagle's algorithm");
    }
    match tls {
        None => drive(stream, server, service, age, shutdown).await,
        Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.current().accept(stream)).await {
            Ok(Ok(stream)) => drive(stream, server, service, age, shutdown).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        },
    }
}

async fn drive<S, B>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    server: auto::Builder<TokioExecutor>,
    service: S,
    age: Option<Age>,
    shutdown: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let farewell = Farewell::default();
    let service = Polite {
        service,
        farewell: farewell.clone(),
    };
    let connection = server.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let old = async {
        match age {
            Some(age) => sleep(age.max).await,
            None => std::future::pending().await,
        }
        if farewell.say() {
            // Its next answer is its last; without a further request it ends by being idle.
            std::future::pending().await
        }
    };
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = old => {
            connection.as_mut().graceful_shutdown();
            match age.and_then(|age| age.grace) {
                Some(grace) => timeout(grace, connection).await.unwrap_or(Ok(())),
                None => connection.await,
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(error, "connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_spread_around_the_limit() {
        let mut ages = Ages::new(&ListenConfig {
            max_connection_age: Some(Duration::from_secs(100)),
            ..ListenConfig::default()
        });
        let found: std::collections::BTreeSet<_> =
            (0..Ages::STEPS).map(|_| ages.next().unwrap().max).collect();
        assert_eq!(found.len(), Ages::STEPS as usize);
        assert!(*found.first().unwrap() >= Duration::from_secs(90));
        assert!(*found.last().unwrap() <= Duration::from_secs(110));
    }
}
