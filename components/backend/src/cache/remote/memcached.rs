//! memcached's text protocol, as much as a cache needs.

use std::{io, time::Duration};

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};

use super::pool::Connection;

/// Longest line of an answer: a key, and numbers.
const MAX_LINE_BYTES: u64 = 2_048;
/// Largest value that is taken from a server.
pub(super) const MAX_VALUE_BYTES: usize = 128 * 1024 * 1024;
/// Ages above this are points in time to memcached.
const MAX_RELATIVE_SECONDS: u64 = 30 * 24 * 3_600;

pub(super) fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// A line without its end.
pub(super) async fn line(connection: &mut Connection) -> io::Result<String> {
    let mut line = Vec::new();
    connection
        .take(MAX_LINE_BYTES)
        .read_until(b'\n', &mut line)
        .await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if !line.ends_with(b"\r\n") {
        return Err(unexpected("a line of the cache has no end"));
    }
    line.truncate(line.len() - 2);
    String::from_utf8(line).map_err(|_| unexpected("a line of the cache is no text"))
}

/// A value of known length and the line end behind it.
pub(super) async fn value(connection: &mut Connection, len: usize) -> io::Result<Bytes> {
    if len > MAX_VALUE_BYTES {
        return Err(unexpected("a value of the cache is too large"));
    }
    let mut value = vec![0; len + 2];
    connection.read_exact(&mut value).await?;
    if !value.ends_with(b"\r\n") {
        return Err(unexpected("a value of the cache has another length"));
    }
    value.truncate(len);
    Ok(value.into())
}

/// The values of keys, in their order.
pub(super) async fn get(
    mut connection: Connection,
    keys: &[&str],
) -> io::Result<(Connection, Vec<Option<Bytes>>)> {
    let mut request = String::from("get");
    for key in keys {
        request.push(' ');
        request.push_str(key);
    }
    request.push_str("\r\n");
    connection.write_all(request.as_bytes()).await?;
    connection.flush().await?;
    let mut found = vec![None; keys.len()];
    loop {
        let line = line(&mut connection).await?;
        if line == "END" {
            return Ok((connection, found));
        }
        // VALUE <key> <flags> <bytes>
        let words: Vec<&str> = line.split(' ').collect();
        let ["VALUE", key, _, len, ..] = words.as_slice() else {
            return Err(unexpected(&line));
        };
        let len = len.parse().map_err(|_| unexpected(&line))?;
        let value = value(&mut connection, len).await?;
        // A key that was asked for twice is answered once.
        for (at, _) in keys.iter().enumerate().filter(|(_, known)| *known == key) {
            if let Some(found) = found.get_mut(at) {
                *found = Some(value.clone());
            }
        }
    }
}

/// Stores a value; false when the server does not take it, because it is too large or memory is
/// short.
pub(super) async fn set(
    mut connection: Connection,
    key: &str,
    value: &[u8],
    ttl: Option<Duration>,
) -> io::Result<(Connection, bool)> {
    let seconds = ttl.map_or(0, |ttl| ttl.as_secs().clamp(1, MAX_RELATIVE_SECONDS));
    let head = format!("set {key} 0 {seconds} {}\r\n", value.len());
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(value).await?;
    connection.write_all(b"\r\n").await?;
    connection.flush().await?;
    let answer = line(&mut connection).await?;
    match answer.as_str() {
        "STORED" => Ok((connection, true)),
        refusal if refusal.starts_with("SERVER_ERROR") => Ok((connection, false)),
        _ => Err(unexpected(&answer)),
    }
}
