//! Redis's protocol (RESP 2), as much as a cache needs.

use std::{io, time::Duration};

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;

use super::{
    memcached::{line, unexpected, value},
    pool::Connection,
};

/// Slots of a cluster's keys.
pub(super) const SLOTS: u16 = 16_384;
/// Items of an answer, and how deep they nest: those of `CLUSTER SLOTS` of a very large cluster.
const MAX_ITEMS: usize = 64 * 1024;
const MAX_DEPTH: u8 = 8;

/// Who one is, and which database one means.
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: crate::Secret,
    pub(super) database: u32,
}

enum Reply {
    Status,
    Error(String),
    Int(i64),
    Bulk(Option<Bytes>),
    Array(Vec<Reply>),
}

fn command(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}

async fn send(connection: &mut Connection, commands: &[u8]) -> io::Result<()> {
    connection.write_all(commands).await?;
    connection.flush().await
}

async fn reply(connection: &mut Connection, depth: u8) -> io::Result<Reply> {
    let line = line(connection).await?;
    let wrong = || unexpected(&format!("not an answer of Redis: {line}"));
    let (kind, rest) = line.split_at_checked(1).ok_or_else(wrong)?;
    let number = || rest.parse::<i64>().map_err(|_| wrong());
    Ok(match kind {
        "+" => Reply::Status,
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Int(number()?),
        "$" => match usize::try_from(number()?) {
            Ok(len) => Reply::Bulk(Some(value(connection, len).await?)),
            Err(_) => Reply::Bulk(None),
        },
        "*" => {
            let items = usize::try_from(number()?).unwrap_or(0);
            if items > MAX_ITEMS || depth == MAX_DEPTH {
                return Err(wrong());
            }
            let mut replies = Vec::new();
            for _ in 0..items {
                replies.push(Box::pin(reply(connection, depth + 1)).await?);
            }
            Reply::Array(replies)
        }
        _ => return Err(wrong()),
    })
}

async fn accepted(connection: &mut Connection) -> io::Result<()> {
    match reply(connection, 0).await? {
        Reply::Status => Ok(()),
        Reply::Error(error) => Err(io::Error::new(io::ErrorKind::PermissionDenied, error)),
        _ => Err(unexpected("Redis answered something else than OK")),
    }
}

/// Logs in on a new connection.
pub(super) async fn greet(mut connection: Connection, login: &Login) -> io::Result<Connection> {
    let password = login.password.expose();
    if !password.is_empty() {
        let mut auth = Vec::new();
        match login.username.as_str() {
            "" => command(&mut auth, &[b"AUTH", password.as_bytes()]),
            username => command(
                &mut auth,
                &[b"AUTH", username.as_bytes(), password.as_bytes()],
            ),
        }
        send(&mut connection, &auth).await?;
        accepted(&mut connection).await?;
    }
    if login.database != 0 {
        let mut select = Vec::new();
        let database = login.database.to_string();
        command(&mut select, &[b"SELECT", database.as_bytes()]);
        send(&mut connection, &select).await?;
        accepted(&mut connection).await?;
    }
    Ok(connection)
}

/// Values in the order of their keys, and whether some key has moved to another server.
pub(super) type Gotten = (Vec<Option<Bytes>>, bool);

pub(super) async fn get(
    mut connection: Connection,
    keys: &[&str],
) -> io::Result<(Connection, Gotten)> {
    let mut commands = Vec::new();
    for key in keys {
        command(&mut commands, &[b"GET", key.as_bytes()]);
    }
    send(&mut connection, &commands).await?;
    let mut found = Vec::with_capacity(keys.len());
    let mut has_moved = false;
    for _ in keys {
        found.push(match reply(&mut connection, 0).await? {
            Reply::Bulk(value) => value,
            Reply::Error(error) if is_moved(&error) => {
                has_moved = true;
                None
            }
            Reply::Error(error) => return Err(io::Error::other(error)),
            _ => return Err(unexpected("Redis answered something else than a value")),
        });
    }
    Ok((connection, (found, has_moved)))
}

/// Stores a value: whether it is stored, and whether its key has moved to another server.
pub(super) async fn set(
    mut connection: Connection,
    key: &str,
    value: &[u8],
    ttl: Option<Duration>,
) -> io::Result<(Connection, (bool, bool))> {
    let mut head = Vec::new();
    match ttl {
        None => command(&mut head, &[b"SET", key.as_bytes(), value]),
        Some(ttl) => {
            let millis = ttl.as_millis().max(1).to_string();
            let arguments = [b"SET", key.as_bytes(), value, b"PX", millis.as_bytes()];
            command(&mut head, &arguments);
        }
    }
    send(&mut connection, &head).await?;
    let stored = match reply(&mut connection, 0).await? {
        Reply::Status => (true, false),
        Reply::Error(error) if is_moved(&error) => (false, true),
        // Short of memory, read only, and the like.
        Reply::Error(_) => (false, false),
        _ => return Err(unexpected("Redis answered something else than OK")),
    };
    Ok((connection, stored))
}

fn is_moved(error: &str) -> bool {
    error.starts_with("MOVED ") || error.starts_with("ASK ")
}

/// Which server holds which slots, as `(last slot, address)`, ascending; nothing when the server
/// is not part of a cluster.
pub(super) async fn cluster_slots(
    mut connection: Connection,
) -> io::Result<(Connection, Option<Vec<(u16, String)>>)> {
    let mut ask = Vec::new();
    command(&mut ask, &[b"CLUSTER", b"SLOTS"]);
    send(&mut connection, &ask).await?;
    let ranges = match reply(&mut connection, 0).await? {
        Reply::Array(ranges) => ranges,
        Reply::Error(_) => return Ok((connection, None)),
        _ => return Err(unexpected("Redis answered something else than slots")),
    };
    let mut slots = Vec::with_capacity(ranges.len());
    for range in ranges {
        // [first, last, [host, port, …], …]: the first server is the primary.
        let Reply::Array(range) = range else {
            continue;
        };
        if let [_, Reply::Int(last), Reply::Array(primary), ..] = range.as_slice()
            && let [Reply::Bulk(Some(host)), Reply::Int(port), ..] = primary.as_slice()
        {
            let last = u16::try_from(*last).map_err(|_| unexpected("a slot beyond the last"))?;
            slots.push((last, format!("{}:{port}", String::from_utf8_lossy(host))));
        }
    }
    slots.sort();
    Ok((connection, Some(slots)))
}

/// The slot of a key: CRC-16 (XMODEM) of what is between braces, or of all of it.
pub(super) fn slot(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty())
        .unwrap_or(key);
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(slot("123456789"), 0x31c3);
        assert_eq!(slot("foo"), 12_182);
        assert_eq!(slot("{user1000}.following"), slot("{user1000}.followers"));
        assert_eq!(slot("foo{bar}{zap}"), slot("bar"));
    }
}
