//! Spans per CPU-second of the whole distributor on real sockets: its threads' CPU time only, the
//! clients run beside it. The sink takes everything at once. Run with
//! `cargo bench -p tempo-distributor --bench receive`, and `-- gRPC` for those whose name has it.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    convert::Infallible,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempo_distributor::{
    Config, Deps, GrpcReceiver, HttpReceiver, Limits, PartialSuccess, SinkError, TenantLimits,
    TraceSink, build, discarded_spans_counter, place, regroup::count_spans,
};
use tempo_model::TraceBatch;
use tokio_util::sync::CancellationToken;

mod shared;

use shared::request;

const MEASURE_FOR: Duration = Duration::from_secs(3);

/// Linux counts CPU time in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

struct Void;

#[async_trait::async_trait]
impl TraceSink for Void {
    async fn push(&self, _tenant: &str, batch: TraceBatch) -> Result<PartialSuccess, SinkError> {
        drop(batch);
        Ok(PartialSuccess::default())
    }
}

impl Limits for Void {
    fn limits(&self, _tenant: &str) -> TenantLimits {
        TenantLimits {
            rate_limit_bytes: 1 << 50,
            burst_size_bytes: 1 << 50,
            ..TenantLimits::default()
        }
    }
}

/// CPU time of all threads of this process whose name begins with `name`.
fn cpu_seconds(name: &str) -> f64 {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else {
            continue;
        };
        let (before, after) = stat.rsplit_once(") ").unwrap();
        if before.split_once('(').unwrap().1.starts_with(name) {
            let fields: Vec<_> = after.split(' ').collect();
            ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    ticks as f64 / TICKS_PER_SECOND
}

fn report(name: &str, spans: u64, requests: u64, cpu: f64, wall: Duration) {
    println!(
        "{name:36} {:9.0} requests/CPU-s  {:6.2} M spans/CPU-s  {:5.2} cores",
        requests as f64 / cpu,
        (requests * spans) as f64 / cpu / 1e6,
        cpu / wall.as_secs_f64(),
    );
}

/// Whether a measurement is asked for on the command line.
fn is_wanted(name: &str) -> bool {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    filter.is_none_or(|filter| name.contains(&filter))
}

fn http(addr: SocketAddr, name: &str, headers: &str, spans: u64, body: &[u8]) {
    if !is_wanted(name) {
        return;
    }
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: bench\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    let (cpu, started) = (cpu_seconds("distributor"), Instant::now());
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let request = [head.as_bytes(), body].concat();
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(addr).unwrap();
                stream.set_nodelay(true).unwrap();
                let mut requests = 0;
                let mut answer = [0; 1_024];
                while started.elapsed() < MEASURE_FOR {
                    stream.write_all(&request).unwrap();
                    let read = stream.read(&mut answer).unwrap();
                    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
                    requests += 1;
                }
                requests
            })
        })
        .collect();
    let requests = clients.into_iter().map(|c| c.join().unwrap()).sum();
    let cpu = cpu_seconds("distributor") - cpu;
    report(name, spans, requests, cpu, started.elapsed());
}

async fn grpc(addr: SocketAddr, name: &str, spans: u64, message: &[u8]) {
    if !is_wanted(name) {
        return;
    }
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    let body = Bytes::from(framed);
    let (cpu, started) = (cpu_seconds("distributor"), Instant::now());
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let body = body.clone();
            tokio::spawn(async move {
                let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (mut sender, connection) = hyper::client::conn::http2::handshake(
                    TokioExecutor::new(),
                    TokioIo::new(stream),
                )
                .await
                .unwrap();
                tokio::spawn(connection);
                let mut requests = 0;
                while started.elapsed() < MEASURE_FOR {
                    let request = http::Request::post(
                        "http://bench/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                    )
                    .header("content-type", "application/grpc")
                    .body(Full::new(body.clone()).map_err(|never: Infallible| never))
                    .unwrap();
                    let answer = sender.send_request(request).await.unwrap();
                    assert!(!answer.headers().contains_key("grpc-status"));
                    answer.into_body().collect().await.unwrap();
                    requests += 1;
                }
                requests
            })
        })
        .collect();
    let mut requests = 0;
    for client in clients {
        requests += client.await.unwrap();
    }
    let cpu = cpu_seconds("distributor") - cpu;
    report(name, spans, requests, cpu, started.elapsed());
}

fn main() {
    let mut config = Config::default();
    config.receivers.otlp_grpc = Some(GrpcReceiver {
        endpoint: "localhost:0".to_owned(),
        ..GrpcReceiver::default()
    });
    config.receivers.otlp_http = Some(HttpReceiver {
        endpoint: "localhost:0".to_owned(),
        ..HttpReceiver::default()
    });
    let deps = Deps {
        sink: Arc::new(Void),
        limits: Arc::new(Void),
        registry: &prometheus::Registry::new(),
        discarded_spans: discarded_spans_counter().unwrap(),
    };
    let (handle, service) = build(config, deps).unwrap();
    let server = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("distributor")
        // A thread that ends takes its CPU time with it.
        .thread_keep_alive(Duration::from_secs(3_600))
        .enable_all()
        .build()
        .unwrap();
    server.spawn(service.run(CancellationToken::new()));

    let addr = handle.addrs[place::OTLP_HTTP];
    let protobuf = "Content-Type: application/x-protobuf\r\n";
    for traces in [1, 37, 100, 1_000] {
        let body = request(traces, 0);
        let spans = count_spans(&body).unwrap();
        let name = format!("HTTP, {spans} spans, {} KiB", body.len() / 1024);
        http(addr, &name, protobuf, spans, &body);
    }
    let body = request(37, 0);
    let spans = count_spans(&body).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&body).unwrap();
    let headers = format!("{protobuf}Content-Encoding: gzip\r\n");
    http(
        addr,
        "HTTP, 222 spans, gzip",
        &headers,
        spans,
        &gzip.finish().unwrap(),
    );
    let zstd = zstd::encode_all(&*body, 3).unwrap();
    let headers = format!("{protobuf}Content-Encoding: zstd\r\n");
    http(addr, "HTTP, 222 spans, zstd", &headers, spans, &zstd);
    let snappy = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    let headers = format!("{protobuf}Content-Encoding: snappy\r\n");
    http(addr, "HTTP, 222 spans, snappy", &headers, spans, &snappy);

    let clients = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("client")
        .enable_all()
        .build()
        .unwrap();
    let addr = handle.addrs[place::OTLP_GRPC];
    for traces in [1, 37, 1_000] {
        let body = request(traces, 0);
        let spans = count_spans(&body).unwrap();
        let name = format!("gRPC, {spans} spans, {} KiB", body.len() / 1024);
        clients.block_on(grpc(addr, &name, spans, &body));
    }
}
