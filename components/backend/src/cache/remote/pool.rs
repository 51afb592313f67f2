//! Connections to one server.

use std::{future::Future, io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::BufStream,
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::breaker::Breaker;

/// Connections to one server that are in use at once; further requests wait, no longer than their
/// timeout.
const MAX_CONNECTIONS_IN_USE: usize = 100;

pub(super) type Connection = BufStream<TcpStream>;

/// One server of a cache.
pub(super) struct Server {
    address: String,
    settings: Arc<Settings>,
    idle: Mutex<Vec<Connection>>,
    in_use: Semaphore,
    breaker: Breaker,
}

/// What all servers of a cache have in common.
pub(super) struct Settings {
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) max_idle_connections: usize,
    pub(super) breaker_failures: u32,
    pub(super) breaker_pause: Duration,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The server is left alone for a while.
    LeftAlone,
    /// It failed, or was too slow.
    Failed(io::Error),
}

impl Server {
    pub(super) fn new(address: String, settings: Arc<Settings>) -> Self {
        Self {
            address,
            idle: Mutex::default(),
            in_use: Semaphore::new(MAX_CONNECTIONS_IN_USE),
            breaker: Breaker::new(settings.breaker_failures, settings.breaker_pause),
            settings,
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request over a connection and gives the connection back, unless the request failed:
    /// then nobody knows what is still to come. `greet` prepares a new connection.
    pub(super) async fn request<T, Greet, Ask>(
        &self,
        greet: impl FnOnce(Connection) -> Greet,
        ask: impl FnOnce(Connection) -> Ask,
    ) -> Result<T, Unanswered>
    where
        Greet: Future<Output = io::Result<Connection>>,
        Ask: Future<Output = io::Result<(Connection, T)>>,
    {
        if !self.breaker.allows(std::time::Instant::now()) {
            return Err(Unanswered::LeftAlone);
        }
        let deadline = Instant::now() + self.settings.timeout;
        let answer = timeout_at(deadline, async {
            let _in_use = self.in_use.acquire().await.map_err(io::Error::other)?;
            let kept = self.idle.lock().pop();
            let connection = match kept {
                Some(connection) => connection,
                None => greet(self.connect().await?).await?,
            };
            ask(connection).await
        });
        match answer.await {
            Ok(Ok((connection, answer))) => {
                self.breaker.succeeded();
                let mut idle = self.idle.lock();
                if idle.len() < self.settings.max_idle_connections {
                    idle.push(connection);
                }
                Ok(answer)
            }
            Ok(Err(error)) => Err(self.failed(error)),
            Err(_) => Err(self.failed(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn connect(&self) -> io::Result<Connection> {
        let connecting = TcpStream::connect(&self.address);
        let stream = tokio::time::timeout(self.settings.connect_timeout, connecting)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        Ok(BufStream::new(stream))
    }

    /// Connections that were kept are likely as broken as the one that failed.
    fn failed(&self, error: io::Error) -> Unanswered {
        self.idle.lock().clear();
        if self.breaker.failed(std::time::Instant::now()) {
            tracing::warn!(
                server = self.address,
                %error,
                pause_seconds = self.settings.breaker_pause.as_secs_f64(),
                "cache left alone"
            );
        }
        Unanswered::Failed(error)
    }
}
