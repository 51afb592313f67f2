//! A proxy in front of the API server that breaks off at one request of many.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Child, Stdio},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{Failure, Outcome, cluster::Cluster};

/// Largest head of a request.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Speaks plain HTTP/1.1 to who connects, and passes it on to the API server.
#[derive(Debug)]
pub struct Breaking {
    /// `host:port` to connect to.
    pub address: String,
    shared: Arc<Shared>,
    kubectl: Child,
}

#[derive(Debug, Default)]
struct Shared {
    /// Requests so far.
    seen: AtomicUsize,
    /// The request to break off at, and whether it still reaches the API server.
    at: Mutex<Option<(usize, bool)>>,
    broken: Condvar,
}

impl Breaking {
    /// Starts it, with nothing to break.
    ///
    /// # Errors
    /// When `kubectl proxy` does not start, or no port is free.
    pub fn before(cluster: &Cluster) -> Outcome<Self> {
        let mut kubectl = cluster
            .command()
            .args(["proxy", "--port=0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = kubectl.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        // "Starting to serve on 127.0.0.1:40001"
        let upstream = line
            .trim()
            .rsplit(' ')
            .next()
            .filter(|address| address.contains(':'))
            .ok_or_else(|| Failure::new("kubectl proxy does not start"))?
            .to_owned();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let breaking = Self {
            address: listener.local_addr()?.to_string(),
            shared: Arc::default(),
            kubectl,
        };
        let shared = Arc::clone(&breaking.shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (shared, upstream) = (Arc::clone(&shared), upstream.clone());
                thread::spawn(move || {
                    let _ = pass(&client, &upstream, &shared);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Ok(breaking)
    }

    /// Breaks off at the request of this number from now, counted from 1: before the API server has
    /// it, or before its answer is passed on.
    pub fn break_at(&self, number: usize, is_carried_out: bool) {
        self.shared.seen.store(0, Ordering::SeqCst);
        *self.shared.at() = Some((number, is_carried_out));
    }

    /// Breaks nothing any more; how many requests there were since [`Breaking::break_at`].
    pub fn mend(&self) -> usize {
        *self.shared.at() = None;
        self.shared.broken.notify_all();
        self.shared.seen.load(Ordering::SeqCst)
    }

    /// Waits until it broke, or was mended; `false` when neither came within `limit`.
    pub fn has_broken(&self, limit: Duration) -> bool {
        let waited = self
            .shared
            .broken
            .wait_timeout_while(self.shared.at(), limit, |at| at.is_some())
            .unwrap_or_else(PoisonError::into_inner);
        !waited.1.timed_out()
    }
}

impl Drop for Breaking {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

impl Shared {
    fn at(&self) -> std::sync::MutexGuard<'_, Option<(usize, bool)>> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this request is the one; whether it is carried out all the same.
    fn breaks(&self) -> Option<bool> {
        let mut at = self.at();
        let number = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
        let (_, is_carried_out) = at.take_if(|(wanted, _)| *wanted == number)?;
        self.broken.notify_all();
        Some(is_carried_out)
    }
}

/// Passes the requests of one connection on, until its end or the break.
fn pass(client: &TcpStream, upstream: &str, shared: &Shared) -> io::Result<()> {
    let mut server = TcpStream::connect(upstream)?;
    let mut requests = BufReader::new(client.try_clone()?);
    {
        let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    while let Some(request) = read_request(&mut requests)? {
        match shared.breaks() {
            None => server.write_all(&request)?,
            Some(is_carried_out) => {
                // Nothing of an answer comes through.
                client.shutdown(Shutdown::Both)?;
                if is_carried_out {
                    server.write_all(&request)?;
                    // Until it is, which its answer tells.
                    server.set_read_timeout(Some(Duration::from_secs(10)))?;
                    let _ = server.read(&mut [0; 1]);
                }
                break;
            }
        }
    }
    server.shutdown(Shutdown::Both)
}

/// One request whole; nothing at the end of the connection.
fn read_request(from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut request = Vec::new();
    let mut length = 0;
    loop {
        let begin = request.len();
        if from.read_until(b'\n', &mut request)? == 0 || request.len() > MAX_HEAD_BYTES {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&request[begin..]).to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let begin = request.len();
    request.resize(begin + length, 0);
    from.read_exact(&mut request[begin..])?;
    Ok(Some(request))
}
