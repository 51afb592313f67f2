//! A folder as an S3 bucket that counts what is read from it.
//!
//! Owns as much of S3 as a process needs to query blocks: get and head with ranges, list, put. It
//! looks at no signature and deletes nothing. Ends with the process.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// The one bucket.
pub const BUCKET: &str = "traces";
/// Larger objects are refused.
const MAX_PUT_BYTES: u64 = 64 * 1024 * 1024;
/// Longest line of a request.
const MAX_LINE_BYTES: u64 = 16 * 1024;
/// Nothing here depends on when an object was written.
const LAST_MODIFIED: &str = "Sat, 01 Aug 2026 00:00:00 GMT";
const LAST_MODIFIED_ISO: &str = "2026-08-01T00:00:00.000Z";

/// The server.
#[derive(Debug, Clone)]
pub struct ObjectServer {
    /// Where it listens, `host:port`.
    pub address: String,
    counted: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    gets: AtomicU64,
    bytes: AtomicU64,
}

/// What was read since the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    /// Requests for an object or a part of it, those for objects that are not there included.
    pub gets: u64,
    /// Bytes of objects that were sent.
    pub bytes: u64,
}

#[derive(Debug)]
struct Request {
    method: String,
    path: String,
    query: String,
    range: Option<String>,
    length: u64,
}

impl ObjectServer {
    /// Serves the files below `folder`.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn start(folder: &Path) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let server = Self {
            address: listener.local_addr()?.to_string(),
            counted: Arc::default(),
        };
        let (counted, folder) = (Arc::clone(&server.counted), folder.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (counted, folder) = (Arc::clone(&counted), folder.clone());
                thread::spawn(move || {
                    // A client that goes away ends its own connection only.
                    let _ = serve(stream, &folder, &counted);
                });
            }
        });
        Ok(server)
    }

    /// What was read since the start.
    pub fn counted(&self) -> Counted {
        Counted {
            gets: self.counted.gets.load(Ordering::SeqCst),
            bytes: self.counted.bytes.load(Ordering::SeqCst),
        }
    }

    /// The block `storage.trace` of a process that reads from here.
    pub fn storage_yaml(&self) -> String {
        let address = &self.address;
        format!(
            "    backend: s3\n    s3:\n      bucket: {BUCKET}\n      endpoint: {address}\n      insecure: true\n      forcepathstyle: true\n      region: us-east-1\n      access_key: a\n      secret_key: b\n"
        )
    }
}

fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if stream.take(MAX_LINE_BYTES).read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn read_request(stream: &mut BufReader<TcpStream>) -> io::Result<Request> {
    let first = line(stream)?;
    let mut words = first.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method,
        path: decode(path),
        query: query.to_owned(),
        range: None,
        length: 0,
    };
    loop {
        let header = line(stream)?;
        let Some((name, value)) = header.split_once(':') else {
            return Ok(request);
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value.trim().to_owned()),
            "content-length" => request.length = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
}

fn serve(stream: TcpStream, folder: &Path, counted: &Counters) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let request = read_request(&mut stream)?;
        if request.length > MAX_PUT_BYTES {
            return answer(&mut stream, "413 Payload Too Large", "", b"");
        }
        let mut body = vec![0; usize::try_from(request.length).map_err(io::Error::other)?];
        stream.read_exact(&mut body)?;
        let key = request
            .path
            .strip_prefix('/')
            .and_then(|path| path.strip_prefix(BUCKET))
            .map(|key| key.trim_start_matches('/'));
        match (request.method.as_str(), key) {
            ("GET", Some("")) => {
                let listing = listing(folder, &request.query)?;
                answer(
                    &mut stream,
                    "200 OK",
                    "content-type: application/xml\r\n",
                    listing.as_bytes(),
                )?;
            }
            ("GET" | "HEAD", Some(key)) => {
                let is_get = request.method == "GET";
                if is_get {
                    counted.gets.fetch_add(1, Ordering::SeqCst);
                }
                let sent = object(&mut stream, &path_of(folder, key), &request, is_get)?;
                counted.bytes.fetch_add(sent, Ordering::SeqCst);
            }
            ("PUT", Some(key)) if !key.is_empty() => {
                let path = path_of(folder, key);
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)?;
                }
                fs::write(path, body)?;
                answer(&mut stream, "200 OK", "etag: \"written\"\r\n", b"")?;
            }
            _ => answer(&mut stream, "405 Method Not Allowed", "", b"")?,
        }
    }
}

/// The file of a key; keys cannot lead out of the folder.
fn path_of(folder: &Path, key: &str) -> PathBuf {
    key.split('/')
        .filter(|part| !matches!(*part, "" | "." | ".."))
        .fold(folder.to_owned(), |path, part| path.join(part))
}

fn answer(
    stream: &mut BufReader<TcpStream>,
    status: &str,
    headers: &str,
    body: &[u8],
) -> io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n");
    let stream = stream.get_mut();
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}

/// Sends an object or a range of it; returns how many bytes.
fn object(
    stream: &mut BufReader<TcpStream>,
    path: &Path,
    request: &Request,
    with_body: bool,
) -> io::Result<u64> {
    let file = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let (size, mut file) = match file {
        Ok((meta, file)) if meta.is_file() => (meta.len(), file),
        _ => {
            let body: &[u8] = if with_body {
                b"<Error><Code>NoSuchKey</Code></Error>"
            } else {
                b""
            };
            return answer(stream, "404 Not Found", "", body).map(|()| 0);
        }
    };
    let range = request.range.as_deref().map(|range| bounds(range, size));
    let (status, start, end) = match range {
        None => ("200 OK", 0, size),
        Some(Some((start, end))) => ("206 Partial Content", start, end),
        Some(None) => {
            return answer(stream, "416 Range Not Satisfiable", "", b"").map(|()| 0);
        }
    };
    let length = end - start;
    let mut head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\netag: \"{size}\"\r\nlast-modified: {LAST_MODIFIED}\r\n"
    );
    if status.starts_with("206") {
        head.push_str(&format!(
            "content-range: bytes {start}-{}/{size}\r\n",
            end - 1
        ));
    }
    head.push_str("\r\n");
    let stream = stream.get_mut();
    stream.write_all(head.as_bytes())?;
    if !with_body {
        return Ok(0);
    }
    file.seek(SeekFrom::Start(start))?;
    io::copy(&mut file.take(length), stream)
}

/// Start and end of `bytes=1-2`, `bytes=1-` or `bytes=-2`.
fn bounds(range: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (first, last) {
        ("", suffix) => (size.saturating_sub(suffix.parse().ok()?), size),
        (start, "") => (start.parse().ok()?, size),
        (start, last) => (
            start.parse().ok()?,
            last.parse::<u64>().ok()?.saturating_add(1).min(size),
        ),
    };
    (start < end).then_some((start, end))
}

/// `ListObjectsV2` in one page.
fn listing(folder: &Path, query: &str) -> io::Result<String> {
    let parameter = |name: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
            .map(decode)
            .unwrap_or_default()
    };
    let (prefix, delimiter) = (parameter("prefix"), parameter("delimiter"));
    let after = parameter("start-after");
    let mut keys = Vec::new();
    collect(folder, "", &mut keys)?;
    keys.sort();
    let mut common = BTreeSet::new();
    let mut body = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
    for (key, size) in &keys {
        let Some(rest) = key.strip_prefix(prefix.as_str()) else {
            continue;
        };
        if *key <= after {
            continue;
        }
        if let (false, Some(at)) = (delimiter.is_empty(), rest.find(delimiter.as_str())) {
            common.insert(&key[..prefix.len() + at + delimiter.len()]);
            continue;
        }
        body.push_str(&format!(
            "<Contents><Key>{key}</Key><LastModified>{LAST_MODIFIED_ISO}</LastModified><ETag>\"{size}\"</ETag><Size>{size}</Size></Contents>"
        ));
    }
    for prefix in common {
        body.push_str(&format!(
            "<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>"
        ));
    }
    body.push_str("</ListBucketResult>");
    Ok(body)
}

fn collect(folder: &Path, prefix: &str, keys: &mut Vec<(String, u64)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let key = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let meta = entry.metadata()?;
        if meta.is_dir() {
            collect(&entry.path(), &format!("{key}/"), keys)?;
        } else {
            keys.push((key, meta.len()));
        }
    }
    Ok(())
}

/// Undoes percent-encoding.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        if let (Some(high), Some(low)) = (digit(), digit()) {
            bytes.push((high * 16 + low) as u8);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_client::Client;

    #[test]
    fn serves_ranges_and_lists_and_counts_what_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let server = ObjectServer::start(folder.path()).unwrap();
        let mut client = Client::connect(&server.address).unwrap();
        let put = client.request("PUT", "/traces/t/block/data", &[], b"0123456789");
        assert_eq!(put.unwrap().status, 200);
        for (range, expected) in [
            ("bytes=2-4", "234"),
            ("bytes=7-", "789"),
            ("bytes=-2", "89"),
        ] {
            let answer = client.request("GET", "/traces/t/block/data", &[("range", range)], &[]);
            let answer = answer.unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (206, expected));
        }
        let whole = client.get("/traces/t/block/data").unwrap();
        assert_eq!(whole.text(), "0123456789");
        assert_eq!(client.get("/traces/t/block/other").unwrap().status, 404);
        assert_eq!(client.get("/traces/../etc/passwd").unwrap().status, 404);
        let listing = client.get("/traces?list-type=2&prefix=t%2F&delimiter=%2F");
        assert!(
            listing
                .unwrap()
                .text()
                .contains("<Prefix>t/block/</Prefix>")
        );
        let listing = client.get("/traces?list-type=2&prefix=t%2F").unwrap();
        assert!(listing.text().contains("<Key>t/block/data</Key>"));
        let counted = server.counted();
        assert_eq!((counted.gets, counted.bytes), (6, 3 + 3 + 2 + 10));
    }
}
