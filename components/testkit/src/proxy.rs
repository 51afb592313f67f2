//! A TCP proxy that a test can cut, silence or slow down: what is behind it is away or far, and comes
//! back.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Passes connections on until it is cut. Ends with the process.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Where it listens, `host:port`.
    pub address: String,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    target: Mutex<String>,
    cut: AtomicBool,
    is_silent: Mutex<bool>,
    /// Told when [`Shared::is_silent`] ends.
    heard: Condvar,
    delay_millis: AtomicU64,
    /// By number: what reads from one side and writes to the other.
    open: Mutex<HashMap<u64, TcpStream>>,
    next: AtomicU64,
}

impl Proxy {
    /// A proxy in front of `target` (`host:port`).
    ///
    /// # Errors
    /// When there is no free port.
    pub fn to(target: &str) -> io::Result<Self> {
        let proxy = Self::to_nowhere()?;
        proxy.aim(target);
        Ok(proxy)
    }

    /// A proxy whose target is not known yet: it refuses connections until it is told.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn to_nowhere() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let proxy = Self {
            address: listener.local_addr()?.to_string(),
            shared: Arc::default(),
        };
        let shared = Arc::clone(&proxy.shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                shared.until_heard();
                if shared.cut.load(Ordering::SeqCst) {
                    let _ = client.shutdown(Shutdown::Both);
                    continue;
                }
                let target = shared.target.lock().map(|target| target.clone());
                if let Ok(server) = TcpStream::connect(target.unwrap_or_default()) {
                    shared.pass(&client, &server, true);
                    shared.pass(&server, &client, false);
                }
            }
        });
        Ok(proxy)
    }

    /// Connections that come from now on go to `target` (`host:port`).
    pub fn aim(&self, target: &str) {
        if let Ok(mut aimed) = self.shared.target.lock() {
            target.clone_into(&mut aimed);
        }
    }

    /// Breaks every connection, and refuses new ones.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        if let Ok(mut open) = self.shared.open.lock() {
            for (_, stream) in open.drain() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Passes nothing on any more, and says so to nobody: to both sides, the other has just gone
    /// quiet. What was sent meanwhile arrives after [`Proxy::mend`].
    pub fn silence(&self) {
        *self.shared.is_silent() = true;
    }

    /// Holds back what clients send from now on, each piece for so long: every request takes at
    /// least this time.
    pub fn delay(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.shared.delay_millis.store(millis, Ordering::SeqCst);
    }

    /// Passes connections on again.
    pub fn mend(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
        *self.shared.is_silent() = false;
        self.shared.heard.notify_all();
    }
}

impl Shared {
    fn is_silent(&self) -> std::sync::MutexGuard<'_, bool> {
        self.is_silent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn until_heard(&self) {
        let mut is_silent = self.is_silent();
        while *is_silent {
            is_silent = self
                .heard
                .wait(is_silent)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn pass(self: &Arc<Self>, from: &TcpStream, to: &TcpStream, is_delayed: bool) {
        let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else {
            return;
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if let (Ok(mut open), Ok(stream)) = (self.open.lock(), from.try_clone()) {
            open.insert(number, stream);
        }
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let mut buffer = [0; 64 * 1024];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                shared.until_heard();
                if is_delayed {
                    let millis = shared.delay_millis.load(Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(millis));
                }
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
            if let Ok(mut open) = shared.open.lock() {
                open.remove(&number);
            }
        });
    }
}
