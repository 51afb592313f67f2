//! Jaeger's agent: Thrift in datagrams.
//!
//! A datagram has no answer and no tenant. What cannot be taken is lost, and told in the log; who
//! does not want that sends over gRPC or HTTP.

use std::{
    net::{SocketAddr, UdpSocket as StdSocket},
    sync::Arc,
};

use bytes::Bytes;
use tempo_runtime::listen::addresses;
use tempo_translate::Format as Foreign;
use tokio::{net::UdpSocket, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::http::too_large;
use crate::{
    config::UdpReceiver,
    decompress::Encoding,
    push::{Distributor, Format, OncePerSecond, OrgId, PushRequest, Source},
};

/// Which of Thrift's protocols the datagrams are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Datagrams {
    Binary,
    Compact,
}

static BINARY: Source = Source {
    receiver: "jaeger/jaeger_receiver",
    transport: "udp_thrift_binary",
    too_large,
};

static COMPACT: Source = Source {
    receiver: "jaeger/jaeger_receiver",
    transport: "udp_thrift_compact",
    too_large,
};

/// The receiver, with its socket.
pub(crate) struct JaegerUdp {
    config: UdpReceiver,
    datagrams: Datagrams,
    socket: StdSocket,
    addr: SocketAddr,
}

impl JaegerUdp {
    /// Binds the socket.
    pub(crate) fn bind(config: UdpReceiver, datagrams: Datagrams) -> std::io::Result<Self> {
        let socket = StdSocket::bind(&*addresses(&config.endpoint)?)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            addr: socket.local_addr()?,
            config,
            datagrams,
            socket,
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Receives until `shutdown`, and then hands on what was received.
    pub(crate) async fn run(
        self,
        distributor: Arc<Distributor>,
        shutdown: CancellationToken,
    ) -> std::io::Result<()> {
        let (format, source) = match self.datagrams {
            Datagrams::Binary => (Foreign::JaegerAgentBinary, &BINARY),
            Datagrams::Compact => (Foreign::JaegerAgentCompact, &COMPACT),
        };
        let socket = UdpSocket::from_std(self.socket)?;
        let room = Arc::new(Semaphore::new(self.config.max_waiting_packets));
        let workers = Arc::new(Semaphore::new(self.config.workers));
        let lost = Arc::new(Lost::default());
        let tasks = TaskTracker::new();
        // One byte more than allowed, so that what is cut off is seen.
        let mut buffer = vec![0; self.config.max_packet_bytes + 1];
        loop {
            let received = tokio::select! {
                () = shutdown.cancelled() => break,
                received = socket.recv_from(&mut buffer) => received,
            };
            let (length, sender) = match received {
                Ok(received) => received,
                Err(error) => {
                    // Of an earlier datagram of ours, or of a sender that is gone; the socket lives.
                    tracing::debug!(%error, transport = source.transport, "no datagram");
                    continue;
                }
            };
            let place = if length > self.config.max_packet_bytes {
                Err("larger than max_packet_size")
            } else {
                let free = Arc::clone(&room).try_acquire_owned();
                free.map_err(|_| "queue_size packets are waiting")
            };
            let place = match place {
                Ok(place) => place,
                Err(reason) => {
                    lost.tell(source, sender, reason);
                    continue;
                }
            };
            let body = Bytes::copy_from_slice(&buffer[..length]);
            let (distributor, workers) = (Arc::clone(&distributor), Arc::clone(&workers));
            let (lost, max_bytes) = (Arc::clone(&lost), self.config.max_packet_bytes);
            tasks.spawn(async move {
                let _place = place;
                let Ok(_turn) = workers.acquire().await else {
                    return;
                };
                let mut permit = distributor.inflight().open();
                let taken = match permit.grow(body.len()) {
                    Err(overloaded) => Err(overloaded.into()),
                    Ok(()) => {
                        let request = PushRequest {
                            body,
                            format: Format::Foreign(format),
                            encoding: Encoding::Identity,
                            max_decompressed_bytes: max_bytes,
                            org_id: OrgId::Absent,
                            skip_metrics_generation: false,
                            source,
                        };
                        distributor.push(request, permit).await
                    }
                };
                if let Err(refusal) = taken {
                    lost.tell(source, sender, &refusal.message);
                }
            });
        }
        tasks.close();
        tasks.wait().await;
        Ok(())
    }
}

/// Tells of lost datagrams, not more often than is good for the log.
#[derive(Default)]
struct Lost(OncePerSecond);

impl Lost {
    fn tell(&self, source: &Source, sender: SocketAddr, reason: &str) {
        if self.0.is_due() {
            let transport = source.transport;
            tracing::warn!(transport, %sender, reason, "a datagram with spans is lost");
        }
    }
}
