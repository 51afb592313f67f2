//! Ports for servers that tests start.
//!
//! Owns which are given out. They lie below those that the system gives to clients and to whoever
//! asks for any port, so that nobody takes one before its server does.

use std::{
    io,
    net::{TcpListener, UdpSocket},
    sync::{Mutex, PoisonError},
};

const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;
const MAX_ATTEMPTS: u16 = 2_000;

/// The next to look at, from [`FIRST`] on; none before the first was asked for.
static NEXT: Mutex<Option<u16>> = Mutex::new(None);

/// A port of 127.0.0.1 that nobody listens on, and that this process has given to nobody lately.
///
/// # Errors
/// When there is none.
pub fn free_port() -> io::Result<u16> {
    free_ports(1)
}

/// The same as an address, `host:port`.
///
/// # Errors
/// As [`free_port`].
pub fn free_address() -> io::Result<String> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}

/// The first of `count` such ports in a row.
///
/// # Errors
/// As [`free_port`].
pub fn free_ports(count: u16) -> io::Result<u16> {
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    // Not where a process that started at the same time begins.
    let mut at = next.unwrap_or_else(|| (std::process::id().wrapping_mul(130) % 20_000) as u16);
    for _ in 0..MAX_ATTEMPTS {
        if at + count > COUNT {
            at = 0;
        }
        let base = FIRST + at;
        at += count;
        if (base..base + count).all(is_free) {
            *next = Some(at);
            return Ok(base);
        }
    }
    Err(io::Error::other(format!("no {count} free ports in a row")))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok()
}
