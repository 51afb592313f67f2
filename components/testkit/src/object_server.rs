//! A folder as an S3 bucket that counts what is read from it.
//!
//! Owns as much of S3 as a process needs to work with blocks: get and head with ranges, list, put, at
//! once or in parts, delete. It looks at no signature. Ends with the process.

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
    time::UNIX_EPOCH,
};

/// The one bucket.
pub const BUCKET: &str = "traces";
/// Larger objects, or parts of one, are refused.
const MAX_PUT_BYTES: u64 = 64 * 1024 * 1024;
/// Longest line of a request.
const MAX_LINE_BYTES: u64 = 16 * 1024;
/// How the names of files begin that are being written.
const UNFINISHED: &str = ".unfinished-";

/// The server.
#[derive(Debug, Clone)]
pub struct ObjectServer {
    /// Where it listens, `host:port`.
    pub address: String,
    counted: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    gets: AtomicU64,
    bytes: AtomicU64,
}

/// What was read since the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    /// Requests of any kind.
    pub requests: u64,
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
        Self::start_at(folder, "127.0.0.1:0")
    }

    /// The same at `address`, `host:port`.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start_at(folder: &Path, address: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
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
            requests: self.counted.requests.load(Ordering::SeqCst),
            gets: self.counted.gets.load(Ordering::SeqCst),
            bytes: self.counted.bytes.load(Ordering::SeqCst),
        }
    }

    /// The block `storage.trace` of a process that uses it.
    pub fn storage_yaml(&self) -> String {
        storage_yaml(&self.address)
    }
}

/// The block `storage.trace` of a process that finds an [`ObjectServer`] at `address`.
pub fn storage_yaml(address: &str) -> String {
    format!(
        "    backend: s3\n    s3:\n      bucket: {BUCKET}\n      endpoint: {address}\n      insecure: true\n      forcepathstyle: true\n      region: us-east-1\n      access_key: a\n      secret_key: b\n"
    )
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
        counted.requests.fetch_add(1, Ordering::SeqCst);
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
            ("POST" | "PUT" | "DELETE", Some(key))
                if !key.is_empty() && request.query.contains("upload") =>
            {
                let told = in_parts(folder, key, &request, &body)?;
                answer(
                    &mut stream,
                    "200 OK",
                    "content-type: application/xml\r\netag: \"written\"\r\n",
                    told.as_bytes(),
                )?;
            }
            ("PUT", Some(key)) if !key.is_empty() => {
                let path = path_of(folder, key);
                write_whole(&path, &body)?;
                answer(&mut stream, "200 OK", "etag: \"written\"\r\n", b"")?;
            }
            ("DELETE", Some(key)) if !key.is_empty() => {
                match fs::remove_file(path_of(folder, key)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => answer(&mut stream, "204 No Content", "", b"")?,
                }
            }
            _ => answer(&mut stream, "405 Method Not Allowed", "", b"")?,
        }
    }
}

/// A number that no other file has that is being written.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A step of an upload in parts; returns the answer's body. Parts are files of their own until the
/// upload is complete.
fn in_parts(folder: &Path, key: &str, request: &Request, body: &[u8]) -> io::Result<String> {
    let upload = parameter(&request.query, "uploadId");
    let number = |text: &str| text.parse::<u64>().map_err(io::Error::other);
    let part_path = |upload: u64, part: u64| folder.join(format!("{UNFINISHED}{upload}-{part}"));
    let parts_of = |upload: u64| {
        let parts = (1..).map(move |part| part_path(upload, part));
        parts.take_while(|path| path.exists())
    };
    match request.method.as_str() {
        "POST" if upload.is_empty() => Ok(format!(
            "<InitiateMultipartUploadResult><UploadId>{}</UploadId></InitiateMultipartUploadResult>",
            next_number()
        )),
        "POST" => {
            let mut whole = Vec::new();
            for path in parts_of(number(&upload)?) {
                File::open(&path)?.read_to_end(&mut whole)?;
                fs::remove_file(path)?;
            }
            write_whole(&path_of(folder, key), &whole)?;
            Ok("<CompleteMultipartUploadResult><ETag>\"written\"</ETag></CompleteMultipartUploadResult>".to_owned())
        }
        "PUT" => {
            let part = number(&parameter(&request.query, "partNumber"))?;
            fs::write(part_path(number(&upload)?, part), body)?;
            Ok(String::new())
        }
        _ => {
            for path in parts_of(number(&upload)?) {
                fs::remove_file(path)?;
            }
            Ok(String::new())
        }
    }
}

/// A parameter of a query, decoded; empty when it is not there.
fn parameter(query: &str, name: &str) -> String {
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        .map(decode)
        .unwrap_or_default()
}

/// Nobody ever sees half an object.
fn write_whole(path: &Path, body: &[u8]) -> io::Result<()> {
    let Some(parent) = path.parent() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    fs::create_dir_all(parent)?;
    let unfinished = parent.join(format!("{UNFINISHED}{}", next_number()));
    fs::write(&unfinished, body)?;
    fs::rename(unfinished, path)
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
    let (size, modified, mut file) = match file {
        Ok((meta, file)) if meta.is_file() => (meta.len(), Written::of(&meta), file),
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
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\netag: \"{size}\"\r\nlast-modified: {}\r\n",
        modified.http()
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
    let (prefix, delimiter) = (parameter(query, "prefix"), parameter(query, "delimiter"));
    let after = parameter(query, "start-after");
    let mut keys = Vec::new();
    collect(folder, "", &mut keys)?;
    keys.sort_by(|a, b| a.0.cmp(&b.0));
    let mut common = BTreeSet::new();
    let mut body = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
    for (key, size, written) in &keys {
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
            "<Contents><Key>{key}</Key><LastModified>{}</LastModified><ETag>\"{size}\"</ETag><Size>{size}</Size></Contents>",
            written.iso()
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

fn collect(folder: &Path, prefix: &str, keys: &mut Vec<(String, u64, Written)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let key = format!("{prefix}{name}");
        let meta = match entry.metadata() {
            Ok(meta) if !name.starts_with(UNFINISHED) => meta,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            // Being written, or just deleted.
            _ => continue,
        };
        if meta.is_dir() {
            collect(&entry.path(), &format!("{key}/"), keys)?;
        } else {
            keys.push((key, meta.len(), Written::of(&meta)));
        }
    }
    Ok(())
}

/// When an object was written: block-builders go by it.
#[derive(Debug, Clone, Copy)]
struct Written {
    /// Days and seconds of the day since the epoch.
    days: i64,
    seconds: i64,
}

impl Written {
    fn of(meta: &fs::Metadata) -> Self {
        let since = meta
            .modified()
            .ok()
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
        Self {
            days: since.div_euclid(86_400),
            seconds: since.rem_euclid(86_400),
        }
    }

    /// Year, month from 1, day from 1 of the Gregorian calendar, by counting eras of 400 years that
    /// begin in March.
    fn date(self) -> (i64, i64, i64) {
        let days = self.days + 719_468;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        (year, month, day)
    }

    fn time(self) -> String {
        let (hour, minute) = (self.seconds / 3_600, self.seconds / 60 % 60);
        format!("{hour:02}:{minute:02}:{:02}", self.seconds % 60)
    }

    /// As listings say it.
    fn iso(self) -> String {
        let (year, month, day) = self.date();
        format!("{year:04}-{month:02}-{day:02}T{}.000Z", self.time())
    }

    /// As headers say it.
    fn http(self) -> String {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let (year, month, day) = self.date();
        let name = |names: &[&'static str], at: i64| {
            let at = usize::try_from(at).unwrap_or_default();
            names.get(at).copied().unwrap_or_default()
        };
        format!(
            "{}, {day:02} {} {year:04} {} GMT",
            name(&DAYS, self.days.rem_euclid(7)),
            name(&MONTHS, month - 1),
            self.time()
        )
    }
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
    fn times_are_told_in_the_words_of_each_format() {
        for (unix_seconds, iso, http) in [
            (
                0,
                "1970-01-01T00:00:00.000Z",
                "Thu, 01 Jan 1970 00:00:00 GMT",
            ),
            (
                1_709_209_845,
                "2024-02-29T12:30:45.000Z",
                "Thu, 29 Feb 2024 12:30:45 GMT",
            ),
            (
                1_785_542_400,
                "2026-08-01T00:00:00.000Z",
                "Sat, 01 Aug 2026 00:00:00 GMT",
            ),
        ] {
            let written = Written {
                days: unix_seconds / 86_400,
                seconds: unix_seconds % 86_400,
            };
            assert_eq!(
                (written.iso().as_str(), written.http().as_str()),
                (iso, http)
            );
        }
    }

    #[test]
    fn takes_objects_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let server = ObjectServer::start(folder.path()).unwrap();
        let mut client = Client::connect(&server.address).unwrap();
        let begun = client.request("POST", "/traces/t/data?uploads", &[], &[]);
        let begun = begun.unwrap().text();
        let id = begun.split(['<', '>']).nth(4).unwrap();
        for (part, content) in [(2, "world"), (1, "hello ")] {
            let path = format!("/traces/t/data?partNumber={part}&uploadId={id}");
            let put = client.request("PUT", &path, &[], content.as_bytes());
            assert_eq!(put.unwrap().status, 200);
        }
        let listing = client.get("/traces?list-type=2").unwrap().text();
        assert!(!listing.contains("<Key>"), "{listing}");
        let path = format!("/traces/t/data?uploadId={id}");
        let done = client.request("POST", &path, &[], b"<Complete/>").unwrap();
        assert_eq!(done.status, 200);
        let whole = client.get("/traces/t/data").unwrap();
        assert_eq!(whole.text(), "hello world");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

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
        assert_eq!(listing.text().matches("<Key>").count(), 1);
        let counted = server.counted();
        assert_eq!((counted.gets, counted.bytes), (6, 3 + 3 + 2 + 10));
        for _ in 0..2 {
            let gone = client.request("DELETE", "/traces/t/block/data", &[], &[]);
            assert_eq!(gone.unwrap().status, 204);
        }
        assert_eq!(client.get("/traces/t/block/data").unwrap().status, 404);
    }
}
