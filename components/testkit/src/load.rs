//! Load: realistic requests, made beforehand, sent over several connections.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    http_client::Client,
    traces::{TraceMaker, encode_request},
};

/// One request, made beforehand; before each sending its trace ids get a new prefix.
#[derive(Debug, Clone)]
pub struct Template {
    body: Vec<u8>,
    id_offsets: Vec<usize>,
    spans: u64,
}

/// Requests of at least as many spans each, with different traces.
pub fn templates(spans_per_request: usize) -> Vec<Template> {
    const TEMPLATES: u64 = 256;
    let now = unix_nanos();
    let mut maker = TraceMaker::new(1);
    (0..TEMPLATES)
        .map(|_| {
            let mut traces = Vec::new();
            let mut spans = 0;
            while spans < spans_per_request {
                let trace = maker.next_trace(now);
                spans += trace.spans;
                traces.push(trace);
            }
            let body = encode_request(&traces);
            // A span begins with its trace id: tag 0x0a, length 16.
            let mut id_offsets = Vec::new();
            for trace in &traces {
                let mut needle = vec![0x0a, 16];
                needle.extend_from_slice(&trace.id);
                let mut from = 0;
                while let Some(at) = find(&body[from..], &needle) {
                    id_offsets.push(from + at + 2);
                    from += at + needle.len();
                }
            }
            Template {
                body,
                id_offsets,
                spans: spans as u64,
            }
        })
        .collect()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// Nanoseconds since the epoch.
pub fn unix_nanos() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos() as u64
}

/// What was sent.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// Acknowledged spans.
    pub spans: u64,
    /// Acknowledged bytes.
    pub bytes: u64,
    /// Spans that were refused.
    pub refused: u64,
    /// Time until each acknowledgement.
    pub ack_micros: Vec<u32>,
}

impl Sent {
    /// Adds what another connection has sent.
    pub fn add(&mut self, other: Self) {
        self.spans += other.spans;
        self.bytes += other.bytes;
        self.refused += other.refused;
        self.ack_micros.extend(other.ack_micros);
    }
}

/// What one connection sends.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// OTLP over HTTP, `host:port`.
    pub address: &'a str,
    /// The requests, one after another.
    pub templates: &'a [Template],
    /// Tells the traces of all connections apart.
    pub serial: &'a AtomicU64,
    /// Which connection it is.
    pub sender: u64,
    /// 0 sends as fast as answers come.
    pub spans_per_second: f64,
    /// Each request is of the next of so many tenants; 0 names none.
    pub tenants: u64,
    /// When to stop.
    pub until: Instant,
}

/// Sends over one connection.
///
/// # Errors
/// When the connection breaks.
pub fn send(load: &Load<'_>) -> io::Result<Sent> {
    let mut client = Client::connect(load.address)?;
    let mut sent = Sent::default();
    let begun = Instant::now();
    let mut body = Vec::new();
    let rounds = load
        .templates
        .iter()
        .cycle()
        .skip(load.sender as usize * 31);
    for template in rounds {
        if Instant::now() >= load.until {
            break;
        }
        body.clear();
        body.extend_from_slice(&template.body);
        let serial = load.serial.fetch_add(1, Ordering::Relaxed);
        let prefix = serial.to_le_bytes();
        for &offset in &template.id_offsets {
            // The low bytes keep the traces of one request apart.
            body[offset..offset + 6].copy_from_slice(&prefix[..6]);
        }
        let asked = Instant::now();
        let tenant = match load.tenants {
            0 => String::new(),
            tenants => format!("tenant-{}", serial % tenants),
        };
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("x-scope-orgid", tenant.as_str()),
        ];
        let headers = &headers[..if load.tenants == 0 { 1 } else { 2 }];
        let answer = client.request("POST", "/v1/traces", headers, &body)?;
        if answer.status == 200 {
            sent.spans += template.spans;
            sent.bytes += body.len() as u64;
            sent.ack_micros.push(asked.elapsed().as_micros() as u32);
        } else {
            sent.refused += template.spans;
            if answer.header("connection") == Some("close") {
                client = Client::connect(load.address)?;
            }
            thread::sleep(Duration::from_millis(50));
        }
        if load.spans_per_second > 0.0 {
            let due = begun + Duration::from_secs_f64(sent.spans as f64 / load.spans_per_second);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    Ok(sent)
}
