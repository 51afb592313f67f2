//! Listening sockets and their connections: accept, TLS, HTTP/1 and HTTP/2, orderly shutdown.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{SocketAddr, TcpListener as StdListener, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
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
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::body::Reply;

/// How long a client may take for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an HTTP/1 connection may stay idle, or take to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// How often an HTTP/2 peer is asked whether it is still there, and how long it may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long to wait before accepting again when the process is out of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Answers the requests of a listener.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Reply>> + Send;
}

/// Which HTTP a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1, and HTTP/2 for those who begin with it.
    Http,
    /// HTTP/2 only, with so many streams at most per connection.
    Grpc { max_concurrent_streams: u32 },
}

impl Protocol {
    /// Names for the TLS handshake, best first.
    pub(crate) const fn alpn(self) -> &'static [&'static str] {
        match self {
            Self::Http => &["h2", "http/1.1"],
            Self::Grpc { .. } => &["h2"],
        }
    }
}

/// A bound socket that does not serve yet.
pub(crate) struct Listener {
    socket: StdListener,
    addr: SocketAddr,
    tls: Option<TlsAcceptor>,
    protocol: Protocol,
    max_connections: usize,
}

impl Listener {
    /// Binds `endpoint`, which is `host:port`; an empty host means all interfaces.
    pub(crate) fn bind(
        endpoint: &str,
        protocol: Protocol,
        tls: Option<TlsAcceptor>,
        max_connections: usize,
    ) -> io::Result<Self> {
        let socket = bind(endpoint)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            addr: socket.local_addr()?,
            socket,
            tls,
            protocol,
            max_connections,
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `shutdown`, then lets requests at work finish within `grace`.
    pub(crate) async fn serve(
        self,
        handler: Arc<impl Handler>,
        shutdown: CancellationToken,
        grace: Duration,
    ) -> io::Result<()> {
        let listener = TcpListener::from_std(self.socket)?;
        let room = Arc::new(Semaphore::new(self.max_connections));
        let server = server(self.protocol);
        let mut connections = JoinSet::new();
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
                        Arc::clone(&handler),
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
        if timeout(grace, finished).await.is_err() {
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

/// Go, which most users' settings were written for, prefers IPv4 when a name has both.
fn bind(endpoint: &str) -> io::Result<StdListener> {
    if let Some(port) = endpoint.strip_prefix(':') {
        return StdListener::bind(format!("[::]:{port}"))
            .or_else(|_| StdListener::bind(format!("0.0.0.0:{port}")));
    }
    let mut addrs: Vec<_> = endpoint.to_socket_addrs()?.collect();
    addrs.sort_by_key(SocketAddr::is_ipv6);
    StdListener::bind(&*addrs)
}

fn server(protocol: Protocol) -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    match protocol {
        Protocol::Http => server,
        Protocol::Grpc {
            max_concurrent_streams,
        } => {
            server
                .http2()
                .max_concurrent_streams(max_concurrent_streams);
            server.http2_only()
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    server: auto::Builder<TokioExecutor>,
    handler: Arc<impl Handler>,
    shutdown: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot turn off Nagle's algorithm");
    }
    match tls {
        None => drive(stream, server, handler, shutdown).await,
        Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => drive(stream, server, handler, shutdown).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        },
    }
}

async fn drive(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    server: auto::Builder<TokioExecutor>,
    handler: Arc<impl Handler>,
    shutdown: CancellationToken,
) {
    let service = service_fn(move |request| {
        let handler = Arc::clone(&handler);
        async move { Ok::<_, Infallible>(handler.handle(request).await) }
    });
    let connection = server.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(error, "connection ended early");
    }
}
