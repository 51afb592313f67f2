//! Counting requests to Kafka, on the way there.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// Longest request that is passed on.
const MAX_REQUEST_BYTES: usize = 128 << 20;

/// Numbers of Kafka's protocol.
const PRODUCE: i16 = 0;
const FETCH: i16 = 1;

/// Passes connections on to one broker, request by request. Ends with the process.
#[derive(Clone)]
pub(crate) struct Counter {
    /// Where it listens, `host:port`.
    pub(crate) address: String,
    target: Arc<Mutex<String>>,
    counted: Arc<Mutex<BTreeMap<i16, u64>>>,
}

impl Counter {
    pub(crate) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let counter = Self {
            address: listener.local_addr()?.to_string(),
            target: Arc::default(),
            counted: Arc::default(),
        };
        let this = counter.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let target = this
                    .target
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                let (Ok(broker), this) = (TcpStream::connect(target), this.clone()) else {
                    continue;
                };
                let (Ok(to_client), Ok(from_broker)) = (client.try_clone(), broker.try_clone())
                else {
                    continue;
                };
                thread::spawn(move || this.requests(client, broker));
                thread::spawn(move || answers(from_broker, to_client));
            }
        });
        Ok(counter)
    }

    pub(crate) fn aim(&self, target: &str) {
        let mut aimed = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        target.clone_into(&mut aimed);
    }

    /// Every request begins with its length and its kind.
    fn requests(&self, mut client: TcpStream, mut broker: TcpStream) -> io::Result<()> {
        let mut request = Vec::new();
        loop {
            let mut length = [0; 4];
            client.read_exact(&mut length)?;
            let bytes = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
            if !(2..=MAX_REQUEST_BYTES).contains(&bytes) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            request.resize(4 + bytes, 0);
            request[..4].copy_from_slice(&length);
            client.read_exact(&mut request[4..])?;
            let kind = i16::from_be_bytes([request[4], request[5]]);
            *self
                .counted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(kind)
                .or_default() += 1;
            broker.write_all(&request)?;
        }
    }

    fn of(&self, kind: i16) -> u64 {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.get(&kind).copied().unwrap_or(0)
    }

    pub(crate) fn produced(&self) -> u64 {
        self.of(PRODUCE)
    }

    pub(crate) fn fetched(&self) -> u64 {
        self.of(FETCH)
    }
}

fn answers(mut broker: TcpStream, mut client: TcpStream) {
    // Whoever ends the connection ends both directions.
    let _ = io::copy(&mut broker, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Both);
}
