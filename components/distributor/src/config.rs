//! The distributor's settings, resolved.

use std::time::Duration;

use tempo_runtime::tls::Tls;
use tempo_translate::Tags;

/// Settings of the distributor. The defaults are Tempo's where Tempo has the setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The listeners.
    pub receivers: Receivers,
    /// Whether requests name their tenant; if not, all belong to `single-tenant`.
    pub multitenancy_enabled: bool,
    /// When a client over its rate is told to try again; zero tells it nothing.
    pub retry_after_on_resource_exhausted: Duration,
    /// Longest attribute key or string value in bytes, longer ones are cut; 0 for no limit.
    pub max_attribute_bytes: usize,
    /// Time that every push is made to take at least.
    pub artificial_delay: Duration,
    /// Logs each received span.
    pub log_received_spans: SpanLog,
    /// Logs each span refused for an invalid id.
    pub log_discarded_spans: SpanLog,
    /// Counts received spans by name and service.
    pub metric_received_spans: ReceivedSpansMetric,
    /// Most bytes of requests being received and handed on at once, in this process. A request
    /// beyond is refused in a way that makes its sender try again.
    pub max_inflight_request_bytes: usize,
    /// Most bytes that one request may take once regrouped by trace: a resource is repeated for
    /// each of its traces.
    pub max_regrouped_bytes: usize,
    /// Most tenants whose rate and counters are kept; beyond, those idle longest are forgotten.
    pub max_tracked_tenants: usize,
    /// How long requests at work may take to finish once the receivers shut down.
    pub shutdown_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            receivers: Receivers::default(),
            multitenancy_enabled: false,
            retry_after_on_resource_exhausted: Duration::from_secs(5),
            max_attribute_bytes: 2048,
            artificial_delay: Duration::ZERO,
            log_received_spans: SpanLog::default(),
            log_discarded_spans: SpanLog::default(),
            metric_received_spans: ReceivedSpansMetric::default(),
            max_inflight_request_bytes: 512 << 20,
            max_regrouped_bytes: 128 << 20,
            max_tracked_tenants: 10_000,
            shutdown_grace: Duration::from_secs(30),
        }
    }
}

/// Which protocols are received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receivers {
    /// OTLP over gRPC.
    pub otlp_grpc: Option<GrpcReceiver>,
    /// OTLP over HTTP. Not on by default, as in Tempo.
    pub otlp_http: Option<HttpReceiver>,
    /// Jaeger's `CollectorService/PostSpans`.
    pub jaeger_grpc: Option<GrpcReceiver>,
    /// Jaeger's Thrift over HTTP.
    pub jaeger_thrift_http: Option<HttpReceiver>,
    /// Jaeger's Thrift in datagrams, in the binary protocol.
    pub jaeger_thrift_binary: Option<UdpReceiver>,
    /// The same in the compact protocol.
    pub jaeger_thrift_compact: Option<UdpReceiver>,
    /// Zipkin over HTTP.
    pub zipkin: Option<ZipkinReceiver>,
}

impl Default for Receivers {
    fn default() -> Self {
        Self {
            otlp_grpc: Some(GrpcReceiver::default()),
            otlp_http: None,
            jaeger_grpc: None,
            jaeger_thrift_http: None,
            jaeger_thrift_binary: None,
            jaeger_thrift_compact: None,
            zipkin: None,
        }
    }
}

/// A receiver over gRPC; the default is that of OTLP (`otlp.protocols.grpc`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcReceiver {
    /// `host:port` to listen on; an empty host means all interfaces.
    pub endpoint: String,
    /// Largest message in bytes, compressed and decompressed.
    pub max_message_bytes: usize,
    /// Most requests at once on one connection.
    pub max_concurrent_streams: u32,
    /// Most connections at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// How long a request may take to arrive whole.
    pub read_timeout: Duration,
    /// TLS, if any.
    pub tls: Option<Tls>,
    /// Age at which a connection takes no more requests, so that clients spread over new servers.
    pub max_connection_age: Option<Duration>,
    /// Time that such a connection has for its requests; without it as long as they take.
    pub max_connection_age_grace: Option<Duration>,
}

impl Default for GrpcReceiver {
    fn default() -> Self {
        Self {
            endpoint: "localhost:4317".to_owned(),
            max_message_bytes: 4 << 20,
            max_concurrent_streams: 1_000,
            max_connections: 10_000,
            read_timeout: Duration::from_secs(60),
            tls: None,
            max_connection_age: None,
            max_connection_age_grace: None,
        }
    }
}

/// A receiver over HTTP; the default is that of OTLP (`otlp.protocols.http`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpReceiver {
    /// `host:port` to listen on; an empty host means all interfaces.
    pub endpoint: String,
    /// The one path that OTLP is served at; other protocols have their own.
    pub traces_url_path: String,
    /// Largest body in bytes, compressed and decompressed.
    pub max_request_body_bytes: usize,
    /// Most connections at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// How long a request may take to arrive whole.
    pub read_timeout: Duration,
    /// TLS, if any.
    pub tls: Option<Tls>,
    /// Age at which a connection takes no more requests, so that clients spread over new servers.
    pub max_connection_age: Option<Duration>,
}

impl Default for HttpReceiver {
    fn default() -> Self {
        Self {
            endpoint: "localhost:4318".to_owned(),
            traces_url_path: "/v1/traces".to_owned(),
            max_request_body_bytes: 20 << 20,
            max_connections: 10_000,
            read_timeout: Duration::from_secs(60),
            tls: None,
            max_connection_age: None,
        }
    }
}

/// Spans of Zipkin (`zipkin`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZipkinReceiver {
    /// Where and how to listen.
    pub http: HttpReceiver,
    /// What becomes of tags.
    pub tags: Tags,
}

/// A receiver of datagrams (`jaeger.protocols.thrift_binary` and `.thrift_compact`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpReceiver {
    /// `host:port` to listen on; an empty host means all interfaces.
    pub endpoint: String,
    /// Most datagrams that wait or are worked on; further ones are lost.
    pub max_waiting_packets: usize,
    /// Largest datagram in bytes; a larger one is lost.
    pub max_packet_bytes: usize,
    /// Datagrams worked on at once.
    pub workers: usize,
}

impl Default for UdpReceiver {
    fn default() -> Self {
        Self {
            endpoint: "localhost:6831".to_owned(),
            max_waiting_packets: 1_000,
            max_packet_bytes: 65_000,
            workers: 10,
        }
    }
}

/// Logging of single spans (`log_received_spans`, `log_discarded_spans`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanLog {
    /// Whether to log at all.
    pub enabled: bool,
    /// Adds attributes, name, duration, kind and status.
    pub include_all_attributes: bool,
    /// Logs only spans whose status is an error.
    pub filter_by_status_error: bool,
}

/// Counting of received spans by name and service (`metric_received_spans`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceivedSpansMetric {
    /// Whether to count at all.
    pub enabled: bool,
    /// Counts only spans without a parent.
    pub root_only: bool,
}
