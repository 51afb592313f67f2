//! `-health`: asks a running process whether it is ready.

use std::{
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

/// Longest wait for each step.
const TIMEOUT: Duration = Duration::from_secs(5);

/// `Ok` when `url`, a plain `http://host:port/path`, answers with a 2xx status.
pub(crate) fn check(url: &str) -> Result<(), String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| format!("-health.url {url}: only http:// is supported"))?;
    let (host, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/ready"),
    };
    let address = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let failed = |error: std::io::Error| format!("{url}: {error}");
    let candidates = address.to_socket_addrs().map_err(failed)?;
    let mut last = format!("{url}: no address");
    for candidate in candidates {
        match ask(&candidate, host, path) {
            Ok(status) if (200..300).contains(&status) => return Ok(()),
            Ok(status) => return Err(format!("{url}: status {status}")),
            Err(error) => last = failed(error),
        }
    }
    Err(last)
}

fn ask(address: &std::net::SocketAddr, host: &str, path: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    )?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    std::str::from_utf8(&head)
        .ok()
        .and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok())
        .ok_or_else(|| std::io::Error::other("not an HTTP answer"))
}
